//! An engine with one session, a host that knows every id, and a clock that only tests move.

use std::sync::Arc;
use std::time::Duration;

use ocbus::emsmdb::engine::{Completed, UserChange};
use ocbus::emsmdb::{
    Answer, Engine, EngineConfig, NewSession, Query, Subscription, Table, TableKind, Taken, What,
};
use ocbus::resolver::Cn;
use ocbus::wire::ropnotify::{
    self, FolderId, MessageId, Notification, NotificationTypes, RopNotify, Scope, Tags,
};
use ocbus::wire::{NewMessage, UidSet};
use ocbus::{Event, EventKind, Mailbox};
use uuid::Uuid;

pub(crate) const SUBSCRIPTION: u32 = 0x29;
pub(crate) const HIERARCHY: u32 = 0x31;
pub(crate) const CONTENTS: u32 = 0x32;
pub(crate) const ALL: NotificationTypes = NotificationTypes::from_bits(0x017e);

/// The rooms of any response: everything fits.
pub(crate) const ROOM: usize = 1 << 24;

pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) now: Duration,
    pub(crate) session: Uuid,
    /// Questions that `answer_all` has seen.
    pub(crate) asked: Vec<Query>,
    next_event: u128,
}

/// A folder's id: by its name, those of the reference where it has one.
pub(crate) fn fid(name: &str) -> FolderId {
    let counter = match name {
        "" => 0x1001,
        "INBOX" => 0x1234,
        "Sent" => 0x1235,
        "Trash" => 0x1236,
        other => other.bytes().fold(0x9999, |hash: u64, octet| (hash * 31 + u64::from(octet)) & 0xffff_ffff),
    };
    FolderId::from_parts(1, counter).unwrap()
}

/// A message's id.
pub(crate) fn mid(folder: &str, uid: u32) -> MessageId {
    MessageId::from_parts(1, (fid(folder).counter() << 16) ^ u64::from(uid)).unwrap()
}

/// What a host that knows everything says.
pub(crate) fn know(query: &Query) -> Answer {
    match &query.what {
        What::Folder { mailbox, .. } => {
            Answer::Folder(fid(mailbox.as_ref().map_or("", |mailbox| mailbox.name.as_str())))
        }
        What::Messages { mailbox, messages, .. } => {
            Answer::Messages(messages.iter().map(|message| Some(mid(&mailbox.name, message.uid?))).collect())
        }
        _ => Answer::Unknown,
    }
}

pub(crate) fn uids(uids: impl IntoIterator<Item = u32>) -> UidSet {
    uids.into_iter().collect()
}

pub(crate) fn new_mail(uid: u32) -> EventKind {
    EventKind::MessageNew(NewMessage { uid: Some(uid), ..NewMessage::default() })
}

pub(crate) fn cn() -> Cn {
    Cn::new("bob").unwrap()
}

pub(crate) fn table(handle: u32, kind: TableKind, folder: &str) -> Table {
    Table { handle, logon_id: 0, kind, folder: fid(folder), depth: false, notifications: true }
}

pub(crate) fn folder_modified(name: &str, total: Option<u32>, unread: Option<u32>) -> Notification {
    Notification::FolderModified { folder: fid(name), tags: Tags::default(), total, unread }
}

pub(crate) fn created(name: &str, uid: u32) -> Notification {
    Notification::MessageCreated {
        folder: fid(name),
        message: mid(name, uid),
        search_folder: None,
        tags: Tags::default(),
    }
}

pub(crate) fn deleted(name: &str, uid: u32) -> Notification {
    Notification::MessageDeleted { folder: fid(name), message: mid(name, uid), search_folder: None }
}

pub(crate) fn modified(name: &str, uid: u32) -> Notification {
    Notification::MessageModified {
        folder: fid(name),
        message: mid(name, uid),
        in_search_folder: false,
        tags: Tags::default(),
    }
}

pub(crate) fn popped_up(uid: u32) -> Notification {
    Notification::NewMail {
        folder: fid("INBOX"),
        message: mid("INBOX", uid),
        message_flags: 2,
        class: ropnotify::MessageClass::default(),
    }
}

impl Rig {
    pub(crate) fn new() -> Rig {
        Rig::with(EngineConfig::default())
    }

    /// An open session without anything in it.
    pub(crate) fn with(config: EngineConfig) -> Rig {
        let mut rig = Rig {
            engine: Engine::new(config).unwrap(),
            now: Duration::from_secs(1_000),
            session: Uuid::from_u128(7),
            asked: Vec::new(),
            next_event: 0,
        };
        rig.engine.open(NewSession { guid: rig.session, cn: cn(), index: 7 }, rig.now).unwrap();
        assert_eq!(rig.engine.next_user(), Some(UserChange::Joined(cn())));
        rig
    }

    /// And a subscription of everything in the whole store.
    pub(crate) fn subscribed() -> Rig {
        let mut rig = Rig::new();
        rig.subscribe(SUBSCRIPTION, ALL, Scope::Store);
        rig
    }

    pub(crate) fn subscribe(&mut self, handle: u32, types: NotificationTypes, scope: Scope) {
        let subscription = Subscription { handle, logon_id: 0, types, scope };
        self.engine.subscribe(self.session, subscription, self.now).unwrap();
    }

    /// Opens a table that has a view.
    pub(crate) fn open_table(&mut self, table: Table) {
        self.engine.add_table(self.session, table, self.now).unwrap();
        self.engine.open_view(self.session, table.handle, self.now).unwrap();
    }

    pub(crate) fn event(&mut self, name: &str, kind: EventKind) -> Event {
        self.next_event += 1;
        Event::new(Uuid::from_u128(self.next_event), 0, "bob", Mailbox::new(name, '/'), kind)
    }

    /// Gives the event and leaves questions unanswered.
    pub(crate) fn give(&mut self, event: Event) {
        self.engine.event(&Arc::new(event), self.now);
    }

    /// Gives an event with counts; the host knows everything.
    pub(crate) fn happens(&mut self, name: &str, kind: EventKind) {
        let event = Event { messages: Some(42), unseen: Some(3), ..self.event(name, kind) };
        self.give(event);
        self.answer_all(know);
    }

    pub(crate) fn answer_all(&mut self, answer: impl Fn(&Query) -> Answer) {
        while let Some(query) = self.engine.next_query() {
            let answer = answer(&query);
            self.engine.answer(query.id, answer, self.now);
            self.asked.push(query);
        }
    }

    /// Everything in the queue.
    pub(crate) fn replies(&mut self) -> Vec<RopNotify> {
        let (replies, taken) = self.take(ROOM);
        assert!(!taken.pending);
        replies
    }

    /// What is told, without handles.
    pub(crate) fn told(&mut self) -> Vec<Notification> {
        self.replies().into_iter().map(|reply| reply.notification).collect()
    }

    /// What is told to one handle.
    pub(crate) fn told_to(&mut self, handle: u32) -> Vec<Notification> {
        let replies = self.replies().into_iter();
        replies.filter(|reply| reply.handle == handle).map(|reply| reply.notification).collect()
    }

    pub(crate) fn take(&mut self, free: usize) -> (Vec<RopNotify>, Taken) {
        let mut out = Vec::new();
        let taken = self.engine.take(self.session, free, &mut out, self.now).unwrap();
        assert!(out.len() <= free && out.len() == taken.octets);
        let pending =
            taken.pending && free - (out.len().saturating_sub(3)) >= 3 && out.ends_with(&[0x6e, 7, 0]);
        let replies = &out[..out.len() - if pending { 3 } else { 0 }];
        let replies: Vec<RopNotify> = ropnotify::split(replies).map(|reply| reply.unwrap()).collect();
        assert_eq!(replies.len(), taken.replies);
        (replies, taken)
    }

    pub(crate) fn completed(&mut self) -> Option<Completed> {
        self.engine.next_completed()
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.engine.advance(self.now);
    }
}
