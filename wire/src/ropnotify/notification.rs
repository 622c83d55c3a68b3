//! RopNotify: one notification to one subscription or table of a session.

use super::{FolderId, FolderRow, MessageClass, MessageId, MessageRow, TableEvent};

/// A notification for one handle.
///
/// ```text
/// 0  u8   0x2A
/// 1  u32  handle
/// 5  u8   logon id
/// 6  u16  flags: the type of the notification, and what follows
/// 8       fields by the flags
/// ```
///
/// There is no handle index and no return value. Whether a client still knows the handle does not matter: it
/// passes over what it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RopNotify {
    /// The subscription; for events of a table, the table.
    pub handle: u32,
    /// The logon to which the handle belongs.
    pub logon_id: u8,
    /// What happened.
    pub notification: Notification,
}

/// What happened. Each variant names its flags, in hex: the type in the low 12 bits, then 8000 for a message (not
/// a folder), 4000 for a search folder, 2000 and 1000 for counts that follow. Flags of other combinations do not
/// exist.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Notification {
    /// 8002: a mail came; Outlook pops up.
    NewMail {
        /// Where it is.
        folder: FolderId,
        /// The mail.
        message: MessageId,
        /// PidTagMessageFlags: 0x01 read, 0x02 unmodified, 0x04 submitted, 0x08 unsent, 0x10 has attachment, 0x20
        /// from me, 0x40 associated. OpenChange writes 2, Exchange 2013 always 0.
        message_flags: u32,
        /// What sort of mail.
        class: MessageClass,
    },
    /// 0002: new mail without its message. Read by MS-OXCNOTIF, which has no MessageId here; OpenChange, which
    /// never writes it, would expect one. Never written.
    NewMailWithoutMessage {
        /// Where it is.
        folder: FolderId,
        /// As above.
        message_flags: u32,
        /// As above.
        class: MessageClass,
    },
    /// 8004; C004 in a search folder.
    MessageCreated {
        /// Where it is.
        folder: FolderId,
        /// The message.
        message: MessageId,
        /// The search folder that shows it now, if the event is about that.
        search_folder: Option<FolderId>,
        /// Its properties.
        tags: Tags,
    },
    /// 8008; C008 in a search folder.
    MessageDeleted {
        /// Where it was.
        folder: FolderId,
        /// The message.
        message: MessageId,
        /// The search folder that shows it no longer, if the event is about that.
        search_folder: Option<FolderId>,
    },
    /// 8010; C010 in a search folder.
    MessageModified {
        /// Where it is.
        folder: FolderId,
        /// The message.
        message: MessageId,
        /// The event is about a search folder. (Which one is not told.)
        in_search_folder: bool,
        /// Which properties changed.
        tags: Tags,
    },
    /// 8020.
    MessageMoved {
        /// Where it is now.
        folder: FolderId,
        /// The message there.
        message: MessageId,
        /// Where it was.
        old_folder: FolderId,
        /// The message there.
        old_message: MessageId,
    },
    /// 8040.
    MessageCopied {
        /// Where the copy is.
        folder: FolderId,
        /// The copy.
        message: MessageId,
        /// Where the original is.
        old_folder: FolderId,
        /// The original.
        old_message: MessageId,
    },
    /// 0004.
    FolderCreated {
        /// The folder.
        folder: FolderId,
        /// Where it is.
        parent: FolderId,
        /// Its properties.
        tags: Tags,
    },
    /// 0008.
    FolderDeleted {
        /// The folder.
        folder: FolderId,
        /// Where it was.
        parent: FolderId,
    },
    /// 0010; 1010 with the number of messages, 2010 with that of unread ones, 3010 with both.
    FolderModified {
        /// The folder.
        folder: FolderId,
        /// Which properties changed.
        tags: Tags,
        /// Messages in the folder now.
        total: Option<u32>,
        /// Those that are unread.
        unread: Option<u32>,
    },
    /// 0020.
    FolderMoved {
        /// The folder as it is now.
        folder: FolderId,
        /// Where it is now.
        parent: FolderId,
        /// The folder as it was.
        old_folder: FolderId,
        /// Where it was.
        old_parent: FolderId,
    },
    /// 0040.
    FolderCopied {
        /// The copy.
        folder: FolderId,
        /// Where it is.
        parent: FolderId,
        /// The original.
        old_folder: FolderId,
        /// Where that is.
        old_parent: FolderId,
    },
    /// 0080: a search folder has found all there is.
    SearchComplete {
        /// The search folder.
        folder: FolderId,
    },
    /// 0100: a table of folders.
    HierarchyTable(TableEvent<FolderRow>),
    /// 8100: a table of a folder's messages.
    ContentsTable(TableEvent<MessageRow>),
    /// C100: a table of a search folder's messages.
    SearchTable(TableEvent<MessageRow>),
}

/// Which properties a notification is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Tags {
    /// Not told (count 0xFFFF): any.
    Unspecified,
    /// These, each `(id << 16) | type`. Exchange 2013 and later send an empty list; at most 65,534, and fewer if
    /// the reply is to fit.
    List(Vec<u32>),
}

/// None: what Exchange 2013 and later send.
impl Default for Tags {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Tags {
    /// The count that says that tags are not told.
    pub(super) const UNSPECIFIED: u16 = 0xffff;
}

impl RopNotify {
    /// RopId of RopNotify.
    pub const ROP_ID: u8 = 0x2a;

    /// The largest reply: what an RPC payload (32,768 octets) holds beside its header (8) and RopSize (2). A larger
    /// one could never be sent, and would hold up all that wait behind it. It is neither written nor read.
    pub const MAX_OCTETS: usize = 32_768 - 8 - 2;

    /// The octets of the smallest reply: a table's event without a row.
    pub const MIN_OCTETS: usize = 10;
}
