//! What the engine asks its host: the ids of folders and messages, and rows of tables.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ocbus_resolver::Cn;
use ocbus_wire::Mailbox;
use ocbus_wire::ropnotify::{FolderId, MessageId, MessageRow};
use uuid::Uuid;

use super::TableKind;
use super::folders::FolderKey;

/// Another for each question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId(u64);

impl QueryId {
    /// As a number, for a host that keeps it so.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// From the number.
    pub fn from_u64(id: u64) -> QueryId {
        QueryId(id)
    }
}

/// A question to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Which: the answer names it.
    pub id: QueryId,
    /// Whose mailbox it is about.
    pub cn: Cn,
    /// What is asked.
    pub what: What,
}

/// What is asked. The answer to each is an [`Answer`] of the same name, [`Answer::Unknown`] or [`Answer::Failed`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// The FID of a folder.
    Folder {
        /// The folder; `None`: the one above the top-level folders (the IPM subtree).
        mailbox: Option<Mailbox>,
        /// SOGo's URI of it, as OpenChange's indexing database has it.
        sogo_uri: String,
    },
    /// The MIDs of messages in a folder, of some that may be gone by now too.
    Messages {
        /// The folder.
        folder: FolderId,
        /// The folder by its names.
        mailbox: Mailbox,
        /// Its UIDVALIDITY, where known.
        uidvalidity: Option<u32>,
        /// The messages: at least one, at most [`messages_per_event`](super::EngineConfig::messages_per_event).
        messages: Vec<MessageRef>,
    },
    /// A row of a table as its client sees it, by the columns that the client set.
    Row {
        /// The session that has the table open.
        session: Uuid,
        /// The table's handle.
        handle: u32,
        /// What its rows are.
        kind: TableKind,
        /// The row's folder: the message's, in a hierarchy table the row itself.
        folder: FolderId,
        /// The row's message; `None` in a hierarchy table.
        message: Option<MessageId>,
        /// The columns that were told by `set_columns`, in order.
        columns: Arc<[u32]>,
    },
}

/// A message by what Dovecot knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRef {
    /// Its UID; `None` when the source knew only a name.
    pub uid: Option<u32>,
    /// SOGo's URI of it.
    pub sogo_uri: String,
}

/// What the host says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// The folder's FID.
    Folder(FolderId),
    /// A MID for each message that was asked, in that order; `None` where there is none.
    Messages(Vec<Option<MessageId>>),
    /// The row.
    Row(TableRow),
    /// There is no such folder, message or row. Nobody is told of a folder that the host does not have.
    Unknown,
    /// It could not be found out. What is known is told: see [`Engine`](super::Engine).
    Failed,
}

/// A row of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableRow {
    /// Which instance of the message, in a table that has several of it; otherwise 0.
    pub instance: u32,
    /// The row before it; [`MessageRow::NONE`] for the first. In a hierarchy table only its folder counts.
    pub after: MessageRow,
    /// A PropertyRow for the table's columns.
    pub data: Vec<u8>,
}

/// The questions that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Queries {
    last_id: u64,
    asked: HashMap<QueryId, Asked>,
    /// In the order of their deadlines, which all are equally far; some are answered already.
    deadlines: VecDeque<(Duration, QueryId)>,
    /// Not fetched by the host yet.
    outgoing: VecDeque<Query>,
}

/// For whom a question was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) cn: Cn,
    pub(super) waiting: Waiting,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Waiting {
    /// One event, by its number.
    Event(u64),
    /// All events that need this folder.
    Folder(FolderKey),
}

impl Queries {
    /// Asks.
    pub(super) fn ask(&mut self, cn: &Cn, what: What, waiting: Waiting, deadline: Duration) -> QueryId {
        self.last_id += 1;
        let id = QueryId(self.last_id);
        self.asked.insert(id, Asked { cn: cn.clone(), waiting });
        self.deadlines.push_back((deadline, id));
        self.outgoing.push_back(Query { id, cn: cn.clone(), what });
        id
    }

    /// The next question that the host has not fetched.
    pub(super) fn next(&mut self) -> Option<Query> {
        // What was given up meanwhile need not be asked.
        std::iter::from_fn(|| self.outgoing.pop_front()).find(|query| self.asked.contains_key(&query.id))
    }

    pub(super) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Takes a question off: it is answered, or nobody waits any more. `None` if it was not there.
    pub(super) fn close(&mut self, id: QueryId) -> Option<Asked> {
        let asked = self.asked.remove(&id)?;
        // Answered ones in front are of no use; those behind go when they are in front.
        while self.deadlines.front().is_some_and(|(_, id)| !self.asked.contains_key(id)) {
            self.deadlines.pop_front();
        }
        Some(asked)
    }

    /// Forgets everything that was asked for a user who is gone.
    pub(super) fn forget(&mut self, cn: &Cn) {
        self.asked.retain(|_, asked| asked.cn != *cn);
        self.outgoing.retain(|query| query.cn != *cn);
        self.deadlines.retain(|(_, id)| self.asked.contains_key(id));
    }

    /// The earliest deadline.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// A question whose deadline is over, and which nobody has answered.
    pub(super) fn next_late(&mut self, now: Duration) -> Option<QueryId> {
        let (deadline, id) = self.deadlines.front()?;
        (*deadline <= now).then_some(*id)
    }
}
