//! Several mailboxes in one session.

use std::time::Duration;

use ocbus::emsmdb::engine::{LogonError, UserChange};
use ocbus::emsmdb::{EngineConfig, NewSession, Parked, Subscription, TableKind, WaitOutcome};
use ocbus::resolver::Cn;
use ocbus::wire::ropnotify::{self, Notification, RopNotify, Scope};
use ocbus::{Event, EventKind, Mailbox};
use uuid::Uuid;

use super::rig::{ALL, ROOM, Rig, cn, know, new_mail, table};

const OWN: u8 = 0;
const SHARED: u8 = 2;
/// Subscriptions and tables of the shared mailbox.
const SHARED_STORE: u32 = 0x40;
const SHARED_ROWS: u32 = 0x41;
const SHARED_FOLDERS: u32 = 0x42;

fn office() -> Cn {
    Cn::new("office").unwrap()
}

fn store(handle: u32, logon_id: u8) -> Subscription {
    Subscription { handle, logon_id, types: ALL, scope: Scope::Store }
}

/// Bob's session, in which the office's mailbox is open as well.
fn rig() -> Rig {
    let mut rig = Rig::new();
    let (session, now) = (rig.session, rig.now);
    rig.engine.logon(session, SHARED, office(), now).unwrap();
    rig.engine.subscribe(session, store(0x29, OWN), now).unwrap();
    rig.engine.subscribe(session, store(SHARED_STORE, SHARED), now).unwrap();
    for (handle, kind, folder) in
        [(SHARED_ROWS, TableKind::Contents, "INBOX"), (SHARED_FOLDERS, TableKind::Hierarchy, "")]
    {
        let mut open = table(handle, kind, folder);
        open.logon_id = SHARED;
        rig.engine.add_table(session, open, now).unwrap();
        rig.engine.open_view(session, handle, now).unwrap();
    }
    rig
}

fn happens(rig: &mut Rig, user: &str, id: u128, kind: EventKind) {
    let event = Event::new(Uuid::from_u128(id), 0, user, Mailbox::new("INBOX", '/'), kind);
    rig.engine.event(&event.into(), rig.now);
    rig.answer_all(know);
}

fn told(rig: &mut Rig) -> Vec<(u32, u8)> {
    replies(rig).iter().map(|reply| (reply.handle, reply.logon_id)).collect()
}

fn replies(rig: &mut Rig) -> Vec<RopNotify> {
    let mut out = Vec::new();
    rig.engine.take(rig.session, ROOM, &mut out, rig.now).unwrap();
    ropnotify::split(&out).map(Result::unwrap).collect()
}

fn changes(rig: &mut Rig) -> Vec<UserChange> {
    std::iter::from_fn(|| rig.engine.next_user()).collect()
}

#[test]
fn each_logon_hears_of_its_own_mailbox_and_one_wait_of_all() {
    let mut rig = rig();
    assert_eq!(changes(&mut rig), [UserChange::Joined(office())]);
    assert!(matches!(rig.engine.park(rig.session, rig.now), Parked::Parked(_)));
    happens(&mut rig, "office", 1, new_mail(1));
    assert_eq!(rig.engine.next_completed().unwrap().outcome, WaitOutcome::EventPending);
    let shared = replies(&mut rig);
    assert!(
        shared.iter().all(|reply| reply.logon_id == SHARED && reply.handle >= SHARED_STORE),
        "{shared:?}"
    );
    assert!(matches!(shared[0].notification, Notification::NewMail { .. }));
    let tables: Vec<u32> = shared.iter().skip(3).map(|reply| reply.handle).collect();
    assert_eq!(tables, [SHARED_ROWS, SHARED_FOLDERS]);
    happens(&mut rig, "bob", 2, new_mail(1));
    assert_eq!(told(&mut rig), [(0x29, OWN); 3], "tables of the shared mailbox are not concerned");
}

#[test]
fn a_resync_of_one_mailbox_is_not_told_of_the_other() {
    let mut rig = rig();
    happens(&mut rig, "office", 1, new_mail(1));
    happens(&mut rig, "bob", 2, new_mail(1));
    replies(&mut rig);
    let resync = Event::resync(Uuid::from_u128(3), 0, "bob", ocbus::wire::ResyncReason::Other, 0);
    rig.engine.event(&resync.into(), rig.now);
    assert_eq!(told(&mut rig), [(0x29, OWN)]);
    let resync = Event::resync(Uuid::from_u128(4), 0, "", ocbus::wire::ResyncReason::Other, 0);
    rig.engine.event(&resync.into(), rig.now);
    let mut all = told(&mut rig);
    all.sort_unstable();
    // Of the top and of the Inbox.
    all.dedup();
    assert_eq!(all, [(0x29, OWN), (SHARED_STORE, SHARED), (SHARED_ROWS, SHARED), (SHARED_FOLDERS, SHARED)]);
}

#[test]
fn what_does_not_fit_is_made_good_in_its_own_mailbox() {
    let mut rig = Rig::with(EngineConfig { queue_octets: 1024, row_octets: 512, ..EngineConfig::default() });
    let (session, now) = (rig.session, rig.now);
    rig.engine.logon(session, SHARED, office(), now).unwrap();
    rig.engine.subscribe(session, store(0x29, OWN), now).unwrap();
    rig.engine.subscribe(session, store(SHARED_STORE, SHARED), now).unwrap();
    // The same ids in both: the folder of the one is not the other's.
    for uid in 1..100 {
        happens(&mut rig, "office", u128::from(uid), new_mail(uid));
    }
    let all = replies(&mut rig);
    assert!(all.iter().all(|reply| reply.handle == SHARED_STORE), "{all:?}");
    assert!(matches!(all.last().unwrap().notification, Notification::FolderModified { .. }));
}

#[test]
fn a_logon_that_is_released_takes_all_of_it_along() {
    let mut rig = rig();
    changes(&mut rig);
    happens(&mut rig, "office", 1, new_mail(1));
    assert!(rig.engine.logoff(rig.session, SHARED, rig.now).unwrap());
    assert_eq!(told(&mut rig), [], "what waited for its handles is gone");
    assert!(!rig.engine.logoff(rig.session, SHARED, rig.now).unwrap());
    happens(&mut rig, "office", 2, new_mail(2));
    assert_eq!(told(&mut rig), []);
    rig.now += Duration::from_secs(31);
    rig.engine.advance(rig.now);
    assert_eq!(changes(&mut rig), [UserChange::Left(office())]);
    // With the session everybody else goes.
    rig.engine.logon(rig.session, SHARED, office(), rig.now).unwrap();
    changes(&mut rig);
    rig.engine.close(rig.session, rig.now);
    rig.now += Duration::from_secs(31);
    rig.engine.advance(rig.now);
    assert_eq!(changes(&mut rig), [UserChange::Left(cn()), UserChange::Left(office())]);
}

#[test]
fn a_number_is_one_mailbox_as_long_as_something_is_open_in_it() {
    let mut rig = rig();
    let (session, now) = (rig.session, rig.now);
    rig.engine.logon(session, SHARED, office(), now).unwrap();
    let other = Cn::new("public").unwrap();
    let refused = rig.engine.logon(session, SHARED, other.clone(), now).unwrap_err();
    assert_eq!(refused, LogonError::InUse { logon_id: SHARED });
    assert_eq!(rig.engine.logon(session, OWN, other.clone(), now), Err(LogonError::InUse { logon_id: OWN }));
    for handle in [SHARED_STORE, SHARED_ROWS, SHARED_FOLDERS] {
        rig.engine.release(session, handle, now).unwrap();
    }
    rig.engine.logon(session, SHARED, other, now).unwrap();
    assert!(rig.engine.logon(Uuid::nil(), 3, office(), now).is_err());
    for logon_id in 10..73 {
        rig.engine.logon(session, logon_id, office(), now).unwrap();
    }
    assert_eq!(rig.engine.logon(session, 80, office(), now), Err(LogonError::TooMany));
}

#[test]
fn others_that_show_a_mailbox_do_not_count_as_its_users_sessions() {
    let mut rig = Rig::with(EngineConfig { sessions_per_user: 1, ..EngineConfig::default() });
    rig.engine.logon(rig.session, SHARED, office(), rig.now).unwrap();
    let open = |guid, cn| NewSession { guid: Uuid::from_u128(guid), cn, index: 1 };
    rig.engine.open(open(100, office()), rig.now).unwrap();
    assert!(rig.engine.open(open(101, office()), rig.now).is_err());
}

#[test]
fn other_processes_are_told_of_the_own_mailbox_alone() {
    let rig = rig();
    let handles = rig.engine.handles(rig.session).unwrap();
    assert_eq!(handles.subscriptions, [store(0x29, OWN)]);
    assert!(handles.tables.is_empty(), "{:?}", handles.tables);
}
