//! Sessions: limits, idle ones, and users who come and go.

use std::time::Duration;

use ocbus::emsmdb::engine::UserChange;
use ocbus::emsmdb::{EngineConfig, NewSession, OpenError, UnknownSession};
use ocbus::resolver::Cn;
use ocbus::wire::ropnotify::Scope;
use uuid::Uuid;

use super::rig::{ALL, Rig, SUBSCRIPTION, cn, created, new_mail};

fn new(guid: u128, user: &str) -> NewSession {
    NewSession { guid: Uuid::from_u128(guid), cn: Cn::new(user).unwrap(), index: 0 }
}

#[test]
fn a_user_has_so_many_sessions_and_a_guid_one() {
    let mut rig = Rig::new();
    assert_eq!(rig.engine.open(new(7, "alice"), rig.now), Err(OpenError::Duplicate { guid: rig.session }));
    for guid in 100..199 {
        rig.engine.open(new(guid, "bob"), rig.now).unwrap();
    }
    let refused = rig.engine.open(new(199, "bob"), rig.now).unwrap_err();
    assert_eq!(refused.to_string(), "user bob has 100 sessions: expected at most sessions_per_user = 100");
    rig.engine.open(new(199, "alice"), rig.now).unwrap();
    rig.engine.close(rig.session, rig.now);
    rig.engine.open(new(200, "bob"), rig.now).unwrap();
    assert_eq!((rig.engine.statistics().sessions, rig.engine.statistics().refused), (101, 2));

    let mut rig = Rig::with(EngineConfig { sessions: 2, ..EngineConfig::default() });
    rig.engine.open(new(8, "alice"), rig.now).unwrap();
    assert_eq!(rig.engine.open(new(9, "carol"), rig.now), Err(OpenError::TooMany { max: 2 }));
}

#[test]
fn a_session_that_nobody_calls_ends_and_a_parked_wait_keeps_it() {
    let mut rig = Rig::new();
    let idle = Duration::from_secs(2_000);
    rig.pass(idle - Duration::from_secs(1));
    rig.engine.touch(rig.session, rig.now).unwrap();
    for _ in 0..20 {
        rig.engine.park(rig.session, rig.now);
        rig.pass(Duration::from_secs(297));
        assert!(rig.completed().is_some());
    }
    rig.pass(idle - Duration::from_secs(1));
    assert!(rig.engine.contains(rig.session), "the end of a wait is a sign of life");
    rig.pass(Duration::from_secs(1));
    assert!(!rig.engine.contains(rig.session));
    assert_eq!(rig.engine.statistics().expired, 1);
    let mut out = Vec::new();
    assert_eq!(rig.engine.take(rig.session, 99, &mut out, rig.now), Err(UnknownSession(rig.session)));
    assert_eq!(rig.engine.touch(rig.session, rig.now), Err(UnknownSession(rig.session)));
}

/// The host's own word is no sign of life of its client.
#[test]
fn what_the_host_tells_itself_keeps_no_session() {
    let mut rig = Rig::subscribed();
    let idle = EngineConfig::default().idle;
    rig.pass(idle / 2);
    rig.engine.notify(rig.session, SUBSCRIPTION, created("INBOX", 1), rig.now).unwrap();
    rig.pass(idle / 2 + Duration::from_secs(1));
    assert!(!rig.engine.contains(rig.session));
}

#[test]
fn deadlines_are_never_in_the_past_after_advancing() {
    let mut rig = Rig::new();
    rig.engine.open(new(8, "alice"), rig.now).unwrap();
    let mut steps = 0;
    while let Some(deadline) = rig.engine.next_deadline() {
        assert!(deadline > rig.now);
        rig.now = deadline;
        rig.engine.advance(rig.now);
        steps += 1;
    }
    assert!(steps <= 4, "two sessions end, two users leave: {steps}");
    assert_eq!((rig.engine.statistics().sessions, rig.engine.statistics().users), (0, 0));
}

#[test]
fn a_user_is_wanted_from_the_first_session_until_a_while_after_the_last() {
    let mut rig = Rig::new();
    rig.engine.open(new(8, "bob"), rig.now).unwrap();
    assert_eq!(rig.engine.next_user(), None, "wanted already");
    rig.engine.close(rig.session, rig.now);
    rig.engine.close(Uuid::from_u128(8), rig.now);
    rig.pass(Duration::from_secs(29));
    assert_eq!(rig.engine.next_user(), None);
    rig.engine.open(new(9, "bob"), rig.now).unwrap();
    rig.pass(Duration::from_secs(30));
    assert_eq!(rig.engine.next_user(), None, "back within the grace");
    rig.engine.close(Uuid::from_u128(9), rig.now);
    rig.pass(Duration::from_secs(30));
    assert_eq!(rig.engine.next_user(), Some(UserChange::Left(cn())));
    rig.engine.open(new(10, "bob"), rig.now).unwrap();
    assert_eq!(rig.engine.next_user(), Some(UserChange::Joined(cn())));
}

#[test]
fn events_for_users_without_a_session_cost_nothing() {
    let mut rig = Rig::new();
    rig.subscribe(1, ALL, Scope::Store);
    rig.engine.close(rig.session, rig.now);
    rig.happens("INBOX", new_mail(1));
    assert!(rig.asked.is_empty());
    assert_eq!(rig.engine.statistics().unheard, 1);
}
