//! What a subscription to a whole store is told while folders' ids are not known.

use std::time::Duration;

use ocbus::emsmdb::{
    Answer, EngineConfig, NewSession, Parked, Query, Subscription, TableKind, WaitOutcome, What,
};
use ocbus::resolver::Cn;
use ocbus::wire::ResyncReason;
use ocbus::wire::ropnotify::{Notification, NotificationTypes, Scope, TableEvent};
use ocbus::{Event, EventKind};
use uuid::Uuid;

use super::rig::{ALL, CONTENTS, Rig, SUBSCRIPTION, fid, folder_modified, know, new_mail, table, uids};

/// The reference's E23: everything but tables, in the whole store.
const E23: NotificationTypes = NotificationTypes::from_bits(0x007e);

fn outlook(config: EngineConfig) -> Rig {
    let mut rig = Rig::with(config);
    rig.subscribe(SUBSCRIPTION, E23, Scope::Store);
    rig
}

fn resync(user: &str) -> Event {
    Event::resync(Uuid::now_v7(), 0, user, ResyncReason::ResolverLost, 1)
}

fn at_least() -> [Notification; 2] {
    [folder_modified("INBOX", None, None), folder_modified("", None, None)]
}

fn names(asked: &[Query]) -> Vec<&str> {
    asked
        .iter()
        .map(|query| match &query.what {
            What::Folder { mailbox, .. } => mailbox.as_ref().map_or("", |mailbox| mailbox.name.as_str()),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_resync_names_the_inbox_and_what_is_above_folders_even_if_nothing_is_known() {
    for user in ["bob", ""] {
        let mut rig = outlook(EngineConfig::default());
        let Parked::Parked(wait) = rig.engine.park(rig.session, rig.now) else { panic!() };
        rig.give(resync(user));
        rig.answer_all(know);
        assert_eq!(names(&rig.asked), ["INBOX", ""]);
        let completed = rig.completed().unwrap();
        assert_eq!((completed.wait, completed.outcome), (wait, WaitOutcome::EventPending));
        assert_eq!(rig.told(), at_least());
        // From now on they are known.
        rig.asked.clear();
        rig.give(resync(user));
        rig.answer_all(know);
        let mut told = rig.told();
        told.sort_by_key(|told| *told == at_least()[1]);
        assert_eq!((told, rig.asked.len()), (at_least().to_vec(), 0));
    }
}

#[test]
fn so_does_one_of_a_session_that_nobody_listened_for() {
    let mut rig = outlook(EngineConfig::default());
    rig.engine.resync(rig.session, rig.now);
    rig.answer_all(know);
    assert_eq!(rig.told(), at_least());
}

#[test]
fn tables_and_folders_that_are_known_do_not_wait_for_it() {
    let mut rig = outlook(EngineConfig::default());
    rig.happens("Sent", new_mail(1));
    rig.replies();
    rig.open_table(table(CONTENTS, TableKind::Contents, "INBOX"));
    rig.subscribe(2, ALL, Scope::Folder(fid("Lists")));
    rig.give(resync("bob"));
    let told = rig.replies();
    let told: Vec<_> = told.into_iter().map(|reply| (reply.handle, reply.notification)).collect();
    let expected = [
        (CONTENTS, Notification::ContentsTable(TableEvent::Changed)),
        (2, folder_modified("Lists", None, None)),
        (SUBSCRIPTION, folder_modified("Lists", None, None)),
        (SUBSCRIPTION, folder_modified("Sent", None, None)),
    ];
    assert!(told.len() == 4 && expected.iter().all(|one| told.contains(one)), "{told:?}");
    rig.answer_all(know);
    assert_eq!(rig.told_to(SUBSCRIPTION), at_least());
}

#[test]
fn who_would_not_be_told_is_not_asked_for() {
    let folder = Scope::Folder(fid("INBOX"));
    for (types, scope) in [(NotificationTypes::NEW_MAIL, Scope::Store), (ALL, folder)] {
        let mut rig = Rig::new();
        rig.subscribe(SUBSCRIPTION, types, scope);
        rig.give(resync("bob"));
        rig.engine.resync(rig.session, rig.now);
        assert!(!rig.engine.has_queries(), "{scope:?}");
    }
}

#[test]
fn a_folder_that_could_not_be_found_is_asked_until_it_is() {
    for name in ["INBOX", "Lists"] {
        let mut rig = outlook(EngineConfig::default());
        assert!(matches!(rig.engine.park(rig.session, rig.now), Parked::Parked(_)));
        let event = rig.event(name, new_mail(1));
        rig.give(event);
        rig.answer_all(|_| Answer::Failed);
        assert_eq!(rig.told(), []);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            rig.asked.clear();
            rig.pass(Duration::from_secs(seconds) - Duration::from_millis(1));
            assert!(!rig.engine.has_queries(), "{seconds} s");
            // Other deadlines are farther: the host is called in time.
            assert_eq!(rig.engine.next_deadline(), Some(rig.now + Duration::from_millis(1)));
            rig.pass(Duration::from_millis(1));
            rig.answer_all(|_| Answer::Failed);
            assert_eq!(names(&rig.asked), [name], "{seconds} s");
        }
        assert_eq!(rig.told(), []);
        rig.pass(Duration::from_secs(60));
        rig.answer_all(know);
        assert_eq!(rig.completed().unwrap().outcome, WaitOutcome::EventPending);
        assert_eq!(rig.told(), [folder_modified(name, None, None)]);
        rig.pass(Duration::from_secs(600));
        assert!(!rig.engine.has_queries(), "told");
    }
}

#[test]
fn what_is_found_by_another_event_is_told_at_once() {
    let mut rig = outlook(EngineConfig::default());
    let event = rig.event("INBOX", new_mail(1));
    rig.give(event);
    rig.answer_all(|_| Answer::Failed);
    // It is asked for an event, and is remembered.
    rig.happens("INBOX", EventKind::MessageRead { uids: uids([2]) });
    rig.replies();
    rig.asked.clear();
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.told(), [folder_modified("INBOX", None, None)]);
    assert!(!rig.engine.has_queries());
    // Asked for a resync, the answer serves an event as well.
    let mut rig = outlook(EngineConfig::default());
    rig.give(resync("bob"));
    rig.happens("INBOX", new_mail(1));
    assert_eq!(names(&rig.asked[..2]), ["INBOX", ""]);
    assert!(rig.asked.len() == 3 && rig.told().len() == 4);
}

#[test]
fn nothing_is_owed_of_a_folder_that_the_host_does_not_have() {
    let mut rig = outlook(EngineConfig::default());
    rig.give(resync("bob"));
    rig.answer_all(|_| Answer::Unknown);
    rig.pass(Duration::from_secs(120));
    assert!(!rig.engine.has_queries());
    assert_eq!(rig.told(), []);
    // Nor to who is gone, or has released what asked for it.
    for close in [true, false] {
        let mut rig = outlook(EngineConfig::default());
        rig.give(resync("bob"));
        rig.answer_all(|_| Answer::Failed);
        match close {
            true => assert!(rig.engine.close(rig.session, rig.now)),
            false => assert!(rig.engine.release(rig.session, SUBSCRIPTION, rig.now).unwrap()),
        }
        rig.pass(Duration::from_secs(1));
        assert!(!rig.engine.has_queries());
        rig.pass(Duration::from_secs(120));
        assert!(!rig.engine.has_queries());
    }
}

#[test]
fn folders_of_events_that_came_while_too_many_waited_are_asked_too() {
    let mut rig = outlook(EngineConfig { pending_per_user: 1, ..EngineConfig::default() });
    for (uid, name) in [(1, "INBOX"), (2, "Lists"), (3, "Lists"), (4, "Sent")] {
        let event = rig.event(name, new_mail(uid));
        rig.give(event);
    }
    rig.answer_all(know);
    rig.pass(Duration::from_secs(1));
    rig.answer_all(know);
    let told = rig.told();
    for name in ["INBOX", "Lists", "Sent"] {
        assert!(
            told.iter().any(
                |told| matches!(told, Notification::FolderModified { folder, .. } if *folder == fid(name))
            ),
            "{name}: {told:?}"
        );
    }
}

/// And does not go by how many folders are remembered.
#[test]
fn what_is_owed_is_bounded() {
    let mut rig = outlook(EngineConfig { folders_per_user: 3, ..EngineConfig::default() });
    for number in 0..1_010 {
        let event = rig.event(&format!("Lists/{number}"), new_mail(1));
        rig.give(event);
        rig.answer_all(|_| Answer::Failed);
    }
    rig.asked.clear();
    rig.pass(Duration::from_secs(1));
    rig.answer_all(know);
    assert_eq!((rig.asked.len(), rig.told().len()), (1_000, 1_000));
}

#[test]
fn each_mailbox_of_a_session_is_owed_its_own() {
    let mut rig = outlook(EngineConfig::default());
    let (session, now, office) = (rig.session, rig.now, Cn::new("office").unwrap());
    rig.engine.logon(session, 2, office.clone(), now).unwrap();
    let shared = Subscription { handle: 0x40, logon_id: 2, types: E23, scope: Scope::Store };
    rig.engine.subscribe(session, shared, now).unwrap();
    // Another's session of the same mailbox.
    let other = Uuid::from_u128(9);
    rig.engine.open(NewSession { guid: other, cn: office.clone(), index: 9 }, now).unwrap();
    rig.engine.subscribe(other, Subscription { logon_id: 0, ..shared }, now).unwrap();
    rig.give(resync("office"));
    rig.answer_all(know);
    assert!(rig.asked.len() == 2 && rig.asked.iter().all(|query| query.cn == office));
    assert!(rig.engine.has_replies(other));
    let replies = rig.replies();
    assert!(replies.iter().all(|reply| (reply.handle, reply.logon_id) == (0x40, 2)), "{replies:?}");
    assert_eq!(replies.len(), 2);
    rig.engine.resync(session, now);
    rig.answer_all(know);
    let own = rig.told_to(SUBSCRIPTION);
    assert_eq!(own, at_least(), "bob's were not known yet");
}
