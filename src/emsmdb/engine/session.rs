use std::time::Duration;

use ocbus_resolver::Cn;
use ocbus_wire::ropnotify::{
    FolderId, MessageId, Notification, NotificationTypes, RopNotify, RopPending, Scope, TableEvent, Tags,
};

use super::changes::Announcement;
use super::handles::OpenTable;
use super::logons::cn_of;
use super::lost::Lost;
use super::queue::{Appended, Bounds, Queue, Total};
use super::{Subscription, TableKind, WaitId};

/// One session: what its client has open, what waits for it, and its parked wait.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) cn: Cn,
    /// Other mailboxes that it shows, by their logons.
    pub(super) logons: Vec<(u8, Cn)>,
    pub(super) index: u16,
    /// The last call.
    pub(super) touched: Duration,
    /// When its timer looks at it next.
    pub(super) timer: Duration,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) tables: Vec<OpenTable>,
    pub(super) queue: Queue,
    /// The parked wait, and when its time is over.
    pub(super) parked: Option<(WaitId, Duration)>,
    /// What is queued is handed on by the host, and fetched elsewhere.
    pub(super) relayed: bool,
    /// The host was told that there is something to hand on.
    pub(super) relay_due: bool,
}

/// What was fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Whole RopNotify replies.
    pub replies: usize,
    /// More is left. Then a RopPending stands behind the replies, if its 3 octets had room.
    pub pending: bool,
    /// The octets written, RopPending among them.
    pub octets: usize,
}

/// How many replies were queued, folded and lost.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) queued: u64,
    pub(super) folded: u64,
    pub(super) lost: u64,
    pub(super) overflows: u64,
}

impl Tally {
    pub(super) fn count(&mut self, appended: Appended) {
        match appended {
            Appended::Queued => self.queued += 1,
            Appended::Folded => self.folded += 1,
            Appended::Lost { first } => {
                self.lost += 1;
                self.overflows += u64::from(first);
            }
        }
    }
}

/// Whether a subscription hears of a folder's being modified.
fn hears_of_folder(subscription: &Subscription, folder: FolderId) -> bool {
    subscription.types.contains(NotificationTypes::OBJECT_MODIFIED)
        && match subscription.scope {
            Scope::Store => true,
            Scope::Folder(own) => own == folder,
            Scope::Message { .. } => false,
        }
}

fn is_told_of_folders(subscription: &Subscription) -> bool {
    subscription.types.contains(NotificationTypes::OBJECT_MODIFIED)
        && !matches!(subscription.scope, Scope::Message { .. })
}

pub(super) fn folder_modified(folder: FolderId, total: Option<u32>, unread: Option<u32>) -> Notification {
    Notification::FolderModified { folder, tags: Tags::default(), total, unread }
}

pub(in crate::emsmdb) fn table_changed(kind: TableKind) -> Notification {
    match kind {
        TableKind::Hierarchy => Notification::HierarchyTable(TableEvent::Changed),
        TableKind::Contents => Notification::ContentsTable(TableEvent::Changed),
        TableKind::Search => Notification::SearchTable(TableEvent::Changed),
    }
}

impl Session {
    pub(super) fn new(cn: Cn, index: u16, now: Duration, timer: Duration) -> Session {
        Session {
            cn,
            logons: Vec::new(),
            index,
            touched: now,
            timer,
            subscriptions: Vec::new(),
            tables: Vec::new(),
            queue: Queue::default(),
            parked: None,
            relayed: false,
            relay_due: false,
        }
    }

    /// One with the same subscriptions and tables, for which nothing waits.
    pub(super) fn without_replies(&self) -> Session {
        let (subscriptions, tables) = (self.subscriptions.clone(), self.tables.clone());
        Session {
            subscriptions,
            tables,
            logons: self.logons.clone(),
            ..Session::new(self.cn.clone(), self.index, self.touched, self.timer)
        }
    }

    /// Whether a subscription to the whole of this user's mailbox hears of folders' being modified.
    pub(super) fn wants_whole_store(&self, cn: &Cn) -> bool {
        self.subscriptions.iter().any(|subscription| {
            subscription.scope == Scope::Store
                && subscription.types.contains(NotificationTypes::OBJECT_MODIFIED)
                && self.cn_of(subscription.logon_id) == cn
        })
    }

    pub(super) fn table(&self, handle: u32) -> Option<&OpenTable> {
        self.tables.iter().find(|open| open.table.handle == handle)
    }

    pub(super) fn table_mut(&mut self, handle: u32) -> Option<&mut OpenTable> {
        self.tables.iter_mut().find(|open| open.table.handle == handle)
    }

    pub(super) fn subscription(&self, handle: u32) -> Option<&Subscription> {
        self.subscriptions.iter().find(|subscription| subscription.handle == handle)
    }

    /// Tells each subscription to this user's mailbox that asked for it.
    pub(super) fn announce(
        &mut self,
        cn: &Cn,
        announcement: &Announcement,
        bounds: &Bounds,
        tally: &mut Tally,
    ) {
        let Session { cn: own, logons, subscriptions, queue, .. } = self;
        for subscription in subscriptions.iter().filter(|subscription| announcement.is_for(subscription)) {
            if cn_of(own, logons, subscription.logon_id) != cn {
                continue;
            }
            let reply = RopNotify {
                handle: subscription.handle,
                logon_id: subscription.logon_id,
                notification: announcement.notification.clone(),
            };
            let by_folder = is_told_of_folders(subscription);
            tally.count(queue.append(&reply, announcement.total, by_folder, bounds));
        }
    }

    /// Tells subscriptions to one message of this user's mailbox that theirs has changed: something has happened to
    /// messages that cannot be named. `folder`: to which messages; `None`: to any. `named`: whoever these are for is told
    /// by them.
    pub(super) fn tell_messages(
        &mut self,
        cn: &Cn,
        types: NotificationTypes,
        folder: Option<FolderId>,
        named: &[Announcement],
        bounds: &Bounds,
        tally: &mut Tally,
    ) {
        let Session { cn: own, logons, subscriptions, queue, .. } = self;
        for subscription in subscriptions.iter() {
            let Subscription { handle, logon_id, scope: Scope::Message { folder: parent, message }, .. } =
                *subscription
            else {
                continue;
            };
            // A client that does not say where its message is means it wherever it is.
            let may_be_it = folder.is_none_or(|folder| parent == folder || parent == FolderId::NONE);
            let asked = [NotificationTypes::OBJECT_MODIFIED, types];
            if !may_be_it
                || message == MessageId::NONE
                || !asked.into_iter().all(|types| subscription.types.contains(types))
                || cn_of(own, logons, logon_id) != cn
                || named.iter().any(|announcement| announcement.is_for(subscription))
            {
                continue;
            }
            let notification = Notification::MessageModified {
                folder: folder.filter(|_| parent == FolderId::NONE).unwrap_or(parent),
                message,
                in_search_folder: false,
                tags: Tags::default(),
            };
            let reply = RopNotify { handle, logon_id, notification };
            tally.count(queue.append(&reply, Total::Unknown, false, bounds));
        }
    }

    /// Queues a reply for a subscription.
    pub(super) fn tell_subscription(&mut self, reply: &RopNotify, bounds: &Bounds, tally: &mut Tally) {
        let Some(subscription) = self.subscription(reply.handle) else { return };
        let by_folder = is_told_of_folders(subscription);
        tally.count(self.queue.append(reply, Total::Same, by_folder, bounds));
    }

    /// Queues a table's event.
    pub(super) fn tell_table(
        &mut self,
        handle: u32,
        notification: Notification,
        bounds: &Bounds,
        tally: &mut Tally,
    ) {
        let Some(open) = self.table(handle).filter(|open| open.listens()) else { return };
        let reply = RopNotify { handle, logon_id: open.table.logon_id, notification };
        tally.count(self.queue.append(&reply, Total::Unknown, true, bounds));
    }

    /// Says of each of the client's tables of this user's mailbox, of these folders, and of messages that it subscribed to,
    /// that they have changed.
    pub(super) fn resync(&mut self, cn: &Cn, folders: &[FolderId], bounds: &Bounds, tally: &mut Tally) {
        let listening: Vec<(u32, TableKind)> = self
            .tables
            .iter()
            .filter(|open| open.listens() && self.cn_of(open.table.logon_id) == cn)
            .map(|open| (open.table.handle, open.table.kind))
            .collect();
        for (handle, kind) in listening {
            self.tell_table(handle, table_changed(kind), bounds, tally);
        }
        let own = self.subscriptions.iter().filter(|subscription| self.cn_of(subscription.logon_id) == cn);
        let scopes = own.filter_map(|subscription| match subscription.scope {
            Scope::Folder(folder) => Some(folder),
            Scope::Store | Scope::Message { .. } => None,
        });
        let mut named: Vec<FolderId> = scopes.collect();
        named.extend(folders);
        named.sort_unstable();
        named.dedup();
        for folder in named {
            self.announce(cn, &Announcement::folder_modified(folder, None, None), bounds, tally);
        }
        let any = NotificationTypes::default();
        self.tell_messages(cn, any, None, &[], bounds, tally);
    }

    /// Moves whole replies behind `out`, no more than `free` octets, and RopPending if some are left.
    pub(super) fn take(&mut self, free: usize, out: &mut Vec<u8>, bounds: &Bounds) -> Taken {
        let begun = out.len();
        let mut replies = 0;
        loop {
            let left = free - (out.len() - begun);
            // RopPending keeps its place only if something will be left.
            let all = self.queue.lost.is_none() && self.queue.reply_octets() <= left;
            let room = if all { left } else { left.saturating_sub(RopPending::OCTETS) };
            match self.queue.first_len() {
                Some(length) if length <= room => {
                    self.queue.pop_into(out);
                    replies += 1;
                }
                Some(_) => break,
                None => match self.queue.lost.take() {
                    Some(lost) => self.write_lost(*lost, bounds),
                    None => break,
                },
            }
        }
        let pending = !self.queue.is_empty();
        if pending && free - (out.len() - begun) >= RopPending::OCTETS {
            out.extend_from_slice(&RopPending { session_index: self.index }.encode());
        }
        Taken { replies, pending, octets: out.len() - begun }
    }

    /// Moves the next reply behind `out`, whatever its size. Says whether there was one.
    pub(super) fn next_into(&mut self, out: &mut Vec<u8>, bounds: &Bounds) -> bool {
        if self.queue.first_len().is_none()
            && let Some(lost) = self.queue.lost.take()
        {
            self.write_lost(*lost, bounds);
        }
        let found = self.queue.first_len().is_some();
        self.queue.pop_into(out);
        found
    }

    /// Writes the resync for what did not fit into the queue, which is empty by now. What does not fit again stays.
    fn write_lost(&mut self, lost: Lost, bounds: &Bounds) {
        let Session { subscriptions, tables, queue, .. } = self;
        let mut rest = Lost::default();
        let mut full = false;
        for handle in lost.tables {
            let Some(open) = tables.iter().find(|open| open.table.handle == handle && open.listens()) else {
                continue;
            };
            let logon_id = open.table.logon_id;
            let reply = RopNotify { handle, logon_id, notification: table_changed(open.table.kind) };
            full = full || queue.try_append(&reply, Total::Unknown, bounds).is_none();
            if full {
                rest.table(handle);
            }
        }
        for folder in lost.folders {
            for subscription in subscriptions.iter().filter(|subscription| {
                subscription.logon_id == folder.logon_id && hears_of_folder(subscription, folder.folder)
            }) {
                let notification = folder_modified(folder.folder, folder.total, folder.unread);
                let Subscription { handle, logon_id, .. } = *subscription;
                let reply = RopNotify { handle, logon_id, notification };
                full = full || queue.try_append(&reply, Total::Unknown, bounds).is_none();
            }
            if full {
                // Told again to those who were told: that is harmless, and simpler than to remember them.
                rest.folders.push(folder);
            }
        }
        for (handle, octets) in lost.last {
            if !subscriptions.iter().any(|subscription| subscription.handle == handle) {
                continue;
            }
            full = full || queue.append_octets(&octets, bounds).is_none();
            if full {
                rest.last(handle, &octets);
            }
        }
        // An empty queue holds any reply, so that something was written, or nothing is left.
        queue.lost = (!rest.is_empty() && queue.replies() > 0).then(|| Box::new(rest));
    }
}
