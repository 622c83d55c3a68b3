//! Folders that subscriptions to a whole store are still to be told of.
//!
//! Such a subscription names no folder. Where something may have happened in a folder whose id is not known (behind a
//! resync the Inbox's, and that of the folder above the top-level ones; or one that the host failed to find), there are
//! no words for it. So the folder is owed: its id is asked until the host says it, or says that there is no such folder.

use std::time::Duration;

use ocbus_resolver::Cn;
use ocbus_wire::Mailbox;
use ocbus_wire::ropnotify::FolderId;
use uuid::Uuid;

use super::asking::FolderAsker;
use super::changes::Announcement;
use super::folders::FolderKey;
use super::pending::Slot;
use super::queue::Bounds;
use super::sessions::Sessions;
use super::{Answer, Engine, QueryId, User};

/// How soon an id is asked again that could not be found. Twice as long each time, up to [`AT_MOST`].
const AGAIN: Duration = Duration::from_secs(1);

/// A host that is down is asked no more often by each user.
const AT_MOST: Duration = Duration::from_secs(60);

/// Folders that one user's sessions are owed; beyond, one is only in the log.
const MOST: usize = 1_000;

/// What a user's sessions are owed.
#[derive(Debug)]
pub(super) struct Owed {
    folders: Vec<OwedFolder>,
    /// When those that are not asked are asked again.
    at: Option<Duration>,
    /// How long it is waited behind the next failure.
    pause: Duration,
    /// There were more.
    full: bool,
}

#[derive(Debug)]
struct OwedFolder {
    key: FolderKey,
    /// `None`: the one above the top-level folders.
    mailbox: Option<Mailbox>,
    /// Empty, or asked.
    slot: Slot<FolderId>,
}

/// When an owed folder is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Now,
    /// It has just failed.
    Later,
}

/// Where new mail comes, and where folders do: what a resync of all names at least.
fn at_least() -> [Option<Mailbox>; 2] {
    [Some(Mailbox::new("INBOX", '/')), None]
}

impl User {
    /// What a resync of all does not name yet.
    pub(super) fn unnamed_by_a_resync(&self) -> Vec<Option<Mailbox>> {
        at_least().into_iter().filter(|mailbox| !self.knows(mailbox.as_ref())).collect()
    }

    /// Whether it has an id, old as it may be.
    pub(super) fn knows(&self, mailbox: Option<&Mailbox>) -> bool {
        self.folders.has_id(&FolderKey::of(mailbox))
    }

    pub(super) fn wants_whole_store(&self, cn: &Cn, sessions: &Sessions) -> bool {
        let mut open = self.sessions.iter().filter_map(|guid| sessions.get(*guid));
        open.any(|session| session.wants_whole_store(cn))
    }
}

impl Engine {
    /// Owes these folders to a user's subscriptions to the whole store, if there are any.
    pub(super) fn owe(&mut self, cn: &Cn, folders: Vec<Option<Mailbox>>, ask: Ask, now: Duration) {
        let Some(user) = self.users.get_mut(cn).filter(|_| !folders.is_empty()) else { return };
        if !user.wants_whole_store(cn, &self.sessions) {
            return;
        }
        let none = || Box::new(Owed { folders: vec![], at: None, pause: AGAIN, full: false });
        let owed = user.owed.get_or_insert_with(none);
        for mailbox in folders {
            let key = FolderKey::of(mailbox.as_ref());
            if owed.folders.iter().any(|folder| folder.key == key) {
                continue;
            }
            if owed.folders.len() >= MOST {
                if !std::mem::replace(&mut owed.full, true) {
                    tracing::warn!(event = "resync_incomplete", user = %cn, "more folders could not be found than are kept");
                }
                break;
            }
            owed.folders.push(OwedFolder { key, mailbox, slot: Slot::Empty });
        }
        match (ask, owed.at) {
            // What is owed already has just failed: it waits for its time.
            (Ask::Now, None) => self.ask_owed(cn, now),
            (Ask::Later, None) => self.ask_owed_later(cn, now),
            (_, Some(_)) => {}
        }
    }

    /// Owes a user's subscriptions to the whole store what a resync does not name.
    pub(super) fn owe_resync(&mut self, cn: &Cn, now: Duration) {
        let folders = self.users.get(cn).map(User::unnamed_by_a_resync).unwrap_or_default();
        self.owe(cn, folders, Ask::Now, now);
    }

    fn ask_owed_later(&mut self, cn: &Cn, now: Duration) {
        let Some(owed) = self.users.get_mut(cn).and_then(|user| user.owed.as_mut()) else { return };
        if owed.at.is_some() || !owed.folders.iter().any(|folder| folder.slot == Slot::Empty) {
            return;
        }
        let at = now.saturating_add(owed.pause);
        (owed.at, owed.pause) = (Some(at), (2 * owed.pause).min(AT_MOST));
        self.owed.insert((at, cn.clone()));
    }

    /// Asks for what is owed and not asked.
    fn ask_owed(&mut self, cn: &Cn, now: Duration) {
        let Some(user) = self.users.get_mut(cn) else { return };
        let wanted = user.wants_whole_store(cn, &self.sessions);
        let Some(mut owed) = user.owed.take().filter(|_| wanted) else { return };
        owed.at = None;
        let mut asker = FolderAsker {
            cn,
            user,
            queries: &mut self.queries,
            counters: &mut self.counters,
            config: &self.config,
            deadline: now.saturating_add(self.config.query_timeout),
        };
        let mut found = Vec::new();
        owed.folders.retain_mut(|folder| {
            if folder.slot == Slot::Empty {
                folder.slot = asker.folder(folder.mailbox.as_ref());
            }
            found.extend(folder.slot.known());
            folder.slot.known().is_none()
        });
        user.owed = (!owed.folders.is_empty()).then_some(owed);
        self.tell_stores(cn, &found, now);
    }

    /// A question about a folder is answered.
    pub(super) fn owed_answered(&mut self, cn: &Cn, id: QueryId, answer: &Answer, now: Duration) {
        let Some(user) = self.users.get_mut(cn) else { return };
        let Some(owed) = user.owed.as_mut() else { return };
        let Some(at) = owed.folders.iter().position(|folder| folder.slot == Slot::Asked(id)) else { return };
        match *answer {
            Answer::Folder(folder) if folder != FolderId::NONE => {
                owed.folders.swap_remove(at);
                self.tell_stores(cn, &[folder], now);
            }
            // Nobody is told of what the host does not have.
            Answer::Unknown => drop(owed.folders.swap_remove(at)),
            _ => {
                if let Some(folder) = owed.folders.get_mut(at) {
                    folder.slot = Slot::Empty;
                }
                self.ask_owed_later(cn, now);
            }
        }
        let owed = self.users.get(cn).and_then(|user| user.owed.as_ref());
        if owed.is_some_and(|owed| owed.folders.is_empty()) {
            self.forget_owed(cn);
        }
    }

    /// Says of these folders that they have changed.
    fn tell_stores(&mut self, cn: &Cn, folders: &[FolderId], now: Duration) {
        let bounds = Bounds::from(&self.config);
        let sessions: Vec<Uuid> = self.users.get(cn).map(|user| user.sessions.clone()).unwrap_or_default();
        for guid in sessions.into_iter().filter(|_| !folders.is_empty()) {
            self.sessions.tell(guid, now, |session, tally| {
                for folder in folders {
                    session.announce(cn, &Announcement::for_stores(*folder), &bounds, tally);
                }
            });
        }
    }

    /// When something owed is to be asked again.
    pub(super) fn owed_deadline(&self) -> Option<Duration> {
        self.owed.first().map(|(at, _)| *at)
    }

    /// Asks again what is due.
    pub(super) fn advance_owed(&mut self, now: Duration) {
        while let Some((at, cn)) = self.owed.first().cloned().filter(|(at, _)| *at <= now) {
            self.owed.remove(&(at, cn.clone()));
            self.ask_owed(&cn, now);
        }
    }

    /// Nothing is owed to a user any more.
    pub(super) fn forget_owed(&mut self, cn: &Cn) {
        let owed = self.users.get_mut(cn).and_then(|user| user.owed.take());
        if let Some(at) = owed.and_then(|owed| owed.at) {
            self.owed.remove(&(at, cn.clone()));
        }
    }
}
