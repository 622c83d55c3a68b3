//! The waiting call: table 5.1 of the reference, row by row.

use std::time::Duration;

use ocbus::emsmdb::engine::Completed;
use ocbus::emsmdb::{EngineConfig, NewSession, OpenError, Parked, SecondWait, WaitId, WaitOutcome};
use uuid::Uuid;

use super::rig::{Rig, cn, new_mail};

const WAIT: Duration = Duration::from_secs(297);

fn park(rig: &mut Rig) -> WaitId {
    match rig.engine.park(rig.session, rig.now) {
        Parked::Parked(wait) => wait,
        Parked::Done(outcome) => panic!("{outcome:?}"),
    }
}

fn completed(wait: WaitId, rig: &Rig, outcome: WaitOutcome) -> Option<Completed> {
    Some(Completed { wait, session: rig.session, outcome })
}

#[test]
fn a_queue_that_is_not_empty_answers_at_once() {
    let mut rig = Rig::subscribed();
    rig.happens("INBOX", new_mail(1));
    for _ in 0..2 {
        assert_eq!(rig.engine.park(rig.session, rig.now), Parked::Done(WaitOutcome::EventPending));
    }
    // Also when only a part was fetched.
    rig.take(41);
    assert_eq!(rig.engine.park(rig.session, rig.now), Parked::Done(WaitOutcome::EventPending));
    rig.replies();
    park(&mut rig);
}

#[test]
fn what_is_queued_while_parked_answers_once() {
    let mut rig = Rig::subscribed();
    let wait = park(&mut rig);
    assert_eq!(rig.completed(), None);
    rig.happens("INBOX", new_mail(1));
    assert_eq!(rig.completed(), completed(wait, &rig, WaitOutcome::EventPending));
    rig.happens("INBOX", new_mail(2));
    rig.pass(WAIT);
    assert_eq!(rig.completed(), None);
}

#[test]
fn what_is_not_for_the_session_does_not_wake_it() {
    let mut rig = Rig::new();
    park(&mut rig);
    rig.happens("INBOX", new_mail(1));
    assert_eq!(rig.completed(), None);
}

#[test]
fn five_minutes_less_three_seconds_from_the_wait_on() {
    let mut rig = Rig::subscribed();
    rig.pass(Duration::from_secs(500));
    let wait = park(&mut rig);
    assert_eq!(rig.engine.next_deadline(), Some(rig.now + WAIT));
    rig.pass(WAIT - Duration::from_nanos(1));
    rig.engine.touch(rig.session, rig.now).unwrap();
    assert_eq!(rig.completed(), None);
    rig.pass(Duration::from_nanos(1));
    assert_eq!(rig.completed(), completed(wait, &rig, WaitOutcome::TimedOut));
    park(&mut rig);
}

#[test]
fn a_second_wait_is_rejected_or_takes_the_place_of_the_first() {
    let mut rig = Rig::subscribed();
    let first = park(&mut rig);
    assert_eq!(rig.engine.park(rig.session, rig.now), Parked::Done(WaitOutcome::Rejected));
    rig.happens("INBOX", new_mail(1));
    assert_eq!(rig.completed(), completed(first, &rig, WaitOutcome::EventPending));

    let mut rig = Rig::with(EngineConfig { second_wait: SecondWait::Replace, ..EngineConfig::default() });
    let first = park(&mut rig);
    rig.pass(Duration::from_secs(100));
    let second = park(&mut rig);
    assert_eq!(rig.completed(), completed(first, &rig, WaitOutcome::Rejected));
    rig.pass(WAIT - Duration::from_secs(1));
    assert_eq!(rig.completed(), None, "its own five minutes");
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.completed(), completed(second, &rig, WaitOutcome::TimedOut));
}

#[test]
fn an_unknown_or_ended_session_says_so() {
    let mut rig = Rig::subscribed();
    let unknown = Parked::Done(WaitOutcome::UnknownSession);
    assert_eq!(rig.engine.park(Uuid::from_u128(99), rig.now), unknown);
    let wait = park(&mut rig);
    assert!(rig.engine.close(rig.session, rig.now));
    assert_eq!(rig.completed(), completed(wait, &rig, WaitOutcome::UnknownSession));
    assert_eq!(rig.engine.park(rig.session, rig.now), unknown);
}

#[test]
fn a_stopping_server_answers_all() {
    let mut rig = Rig::subscribed();
    let wait = park(&mut rig);
    rig.engine.stop();
    assert_eq!(rig.completed(), completed(wait, &rig, WaitOutcome::Exiting));
    assert_eq!(rig.engine.park(rig.session, rig.now), Parked::Done(WaitOutcome::Exiting));
    let new = NewSession { guid: Uuid::from_u128(8), cn: cn(), index: 0 };
    assert_eq!(rig.engine.open(new, rig.now), Err(OpenError::Stopping));
    rig.happens("INBOX", new_mail(1));
    assert_eq!(rig.told().len(), 3, "what is there can be fetched");
}

#[test]
fn a_wait_that_was_taken_back_is_not_answered() {
    let mut rig = Rig::subscribed();
    let wait = park(&mut rig);
    assert!(rig.engine.cancel(rig.session, wait));
    assert!(!rig.engine.cancel(rig.session, wait));
    rig.happens("INBOX", new_mail(1));
    assert_eq!(rig.completed(), None);
    assert_eq!(
        rig.engine.park(rig.session, rig.now),
        Parked::Done(WaitOutcome::EventPending),
        "nothing was lost"
    );
    rig.replies();
    let next = park(&mut rig);
    assert!(!rig.engine.cancel(rig.session, wait), "not the one that is parked");
    assert!(rig.engine.cancel(rig.session, next));
}

#[test]
fn waits_are_counted_by_their_outcome() {
    let mut rig = Rig::subscribed();
    park(&mut rig);
    rig.engine.park(rig.session, rig.now);
    rig.engine.park(Uuid::nil(), rig.now);
    assert_eq!(rig.engine.statistics().parked, 1);
    rig.pass(WAIT);
    park(&mut rig);
    rig.happens("INBOX", new_mail(1));
    rig.engine.stop();
    rig.engine.park(rig.session, rig.now);
    let s = rig.engine.statistics();
    let counts =
        [s.waits_event, s.waits_timed_out, s.waits_rejected, s.waits_unknown, s.waits_exiting, s.parked];
    assert_eq!(counts, [1, 1, 1, 1, 1, 0]);
}
