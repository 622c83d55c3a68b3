use std::ffi::{CString, c_char, c_void};
use std::ptr;

use ocbus::emsmdb::{Answer, Query, QueryId, Reply, TableRow, What, sogo};
use ocbus::wire::Mailbox;
use ocbus::wire::ropnotify::{FolderId, MessageId, MessageRow};

use crate::arguments::array;
use crate::handle::{self, ocbus_t};
use crate::status::{guard, ocbus_status};
use crate::table::KINDS;

/// More messages than a question ever asks of (`messages_per_event`).
const MAX_MESSAGES: usize = 1_000;

/// The longest row that is read (`row_octets` is smaller).
const MAX_ROW_OCTETS: usize = 0x8000;

/// What a question asks for.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ocbus_what {
    /// The FID of a folder: ocbus_answer_folder().
    OCBUS_WHAT_FOLDER = 1,
    /// The MIDs of messages: ocbus_answer_messages().
    OCBUS_WHAT_MESSAGES = 2,
    /// A row of a table: ocbus_answer_row().
    OCBUS_WHAT_ROW = 3,
}

use ocbus_what::*;

/// A message of a question. This structure never grows.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ocbus_message {
    /// SOGo's URI of it, as OpenChange's indexing database has it: "sogo://bob:bob@mail/folderINBOX/7.eml".
    pub sogo_uri: *const c_char,
    /// Its UID; 0 if the source knew only a name.
    pub uid: u32,
}

/// A question. Fields may be added at its end. What a question does not have is 0 or NULL.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ocbus_query {
    /// Which: the answer names it.
    pub id: u64,
    /// One of ocbus_what. What a later version asks and the server does not know it answers by
    /// ocbus_answer_unknown().
    pub what: u32,
    /// How long the answer is waited for, in milliseconds (setting `query_timeout_ms`).
    pub limit_ms: u32,
    /// Whose mailbox it is about.
    pub cn: *const c_char,
    /// FOLDER, MESSAGES: SOGo's URI of the folder, "sogo://bob:bob@mail/folderINBOX/".
    pub sogo_uri: *const c_char,
    /// FOLDER, MESSAGES: the folder's name in UTF-8. NULL: the one above the top-level folders (the IPM subtree), whose
    /// URI is "sogo://bob:bob@mail/".
    pub mailbox: *const c_char,
    /// FOLDER, MESSAGES: the folder's name as its storage has it, in modified UTF-7. NULL as `mailbox`.
    pub storage_name: *const c_char,
    /// MESSAGES: the folder's UIDVALIDITY; 0 if not known.
    pub uidvalidity: u32,
    /// ROW: the table's handle.
    pub handle: u32,
    /// MESSAGES, ROW: the folder's FID.
    pub folder: u64,
    /// MESSAGES: the messages. Some may be gone by now.
    pub messages: *const ocbus_message,
    /// MESSAGES: how many, at least 1.
    pub message_count: usize,
    /// ROW: the session that has the table open, 16 octets of its GUID.
    pub session: *const u8,
    /// ROW: the MID of the row's message; 0 in a hierarchy table, whose row is `folder`.
    pub message: u64,
    /// ROW: the columns of ocbus_table_set_columns(), in order.
    pub columns: *const u32,
    /// ROW: how many.
    pub column_count: usize,
    /// ROW: one of ocbus_table_kind.
    pub table_kind: u32,
}

/// A row of a table. This structure never grows.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ocbus_row {
    /// Which instance of the message, in a table that has several; otherwise 0.
    pub instance: u32,
    /// The row before it: the FID; 0 if it is the first.
    pub after_folder: u64,
    /// The row before it: the MID; 0 if it is the first, and in a hierarchy table.
    pub after_message: u64,
    /// The row before it: its instance.
    pub after_instance: u32,
    /// The octets of a PropertyRow for the table's columns.
    pub data: *const u8,
    /// How many. More than setting `row_octets` become a TableChanged.
    pub data_octets: usize,
}

/// A question to the server: ids of folders and messages, and rows of tables. It answers by one of the
/// ocbus_answer_ functions, in the callback or later, within `limit_ms`; whoever answers later keeps `query->id` and
/// copies what else it needs. Without an answer less is told: the folder and its tables have changed.
///
/// Called from within ocbus_dispatch() only, in the thread that calls it. Ownership: `query` and all it points to are
/// the library's, valid until the callback returns. It may call any function of the library but ocbus_dispatch() and
/// ocbus_destroy().
pub type ocbus_ids_callback =
    Option<unsafe extern "C" fn(user: *mut c_void, ocbus: *const ocbus_t, query: *const ocbus_query)>;

/// The server's callback and what it is given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Callback {
    pub(crate) call: unsafe extern "C" fn(*mut c_void, *const ocbus_t, *const ocbus_query),
    pub(crate) user: *mut c_void,
}

// SAFETY: the pointer is the host's. It is only handed back to it, in a thread in which it has called.
unsafe impl Send for Callback {}
// SAFETY: likewise; a host that dispatches in several threads has to expect it there.
unsafe impl Sync for Callback {}

impl Callback {
    /// Asks.
    ///
    /// # Safety
    /// In a thread of the host that has called the library to be called back.
    pub(crate) unsafe fn ask(self, ocbus: *const ocbus_t, query: Query, reply: Reply) {
        let limit_ms = u32::try_from(reply.limit().as_millis()).unwrap_or(u32::MAX);
        // No folder of Dovecot has a NUL in its name: the server has none of that name either.
        let Some(strings) = Strings::of(&query) else { return reply.answer(Answer::Unknown) };
        let mut asked = ocbus_query { limit_ms, ..strings.query() };
        let guid;
        match &query.what {
            What::Folder { .. } => asked.what = OCBUS_WHAT_FOLDER as u32,
            What::Messages { folder, uidvalidity, .. } => {
                asked.what = OCBUS_WHAT_MESSAGES as u32;
                asked.folder = folder.as_u64();
                asked.uidvalidity = uidvalidity.unwrap_or_default();
            }
            What::Row { session, handle, kind, folder, message, columns } => {
                guid = session.to_bytes_le();
                asked.what = OCBUS_WHAT_ROW as u32;
                asked.session = guid.as_ptr();
                asked.handle = *handle;
                asked.table_kind =
                    KINDS.iter().find(|(_, known)| known == kind).map_or(0, |(number, _)| *number);
                asked.folder = folder.as_u64();
                asked.message = message.map_or(0, MessageId::as_u64);
                (asked.columns, asked.column_count) = (columns.as_ptr(), columns.len());
            }
            // What the engine asks and this version of the C library cannot say.
            _ => return reply.answer(Answer::Unknown),
        }
        asked.id = reply.into_id().as_u64();
        // SAFETY: the host's function, as it promised by passing it; `strings`, `query` and `guid` live until it returns.
        unsafe { (self.call)(self.user, ocbus, &raw const asked) }
    }
}

/// The strings of a question, with NULs at their ends.
struct Strings {
    cn: CString,
    uri: Option<CString>,
    mailbox: Option<(CString, CString)>,
    /// Kept for the pointers in `messages`.
    _uris: Vec<CString>,
    messages: Vec<ocbus_message>,
}

impl Strings {
    fn of(query: &Query) -> Option<Strings> {
        let c_string = |text: &str| CString::new(text).ok();
        let names = |mailbox: &Mailbox| Some((c_string(&mailbox.name)?, c_string(&mailbox.storage_name)?));
        let mut strings = Strings {
            cn: c_string(query.cn.as_str())?,
            uri: None,
            mailbox: None,
            _uris: Vec::new(),
            messages: Vec::new(),
        };
        match &query.what {
            What::Folder { mailbox, sogo_uri } => {
                strings.uri = Some(c_string(sogo_uri)?);
                if let Some(mailbox) = mailbox {
                    strings.mailbox = Some(names(mailbox)?);
                }
            }
            What::Messages { mailbox, messages, .. } => {
                strings.uri = Some(c_string(&sogo::folder_uri(query.cn.as_str(), Some(mailbox)))?);
                strings.mailbox = Some(names(mailbox)?);
                for message in messages {
                    let uri = c_string(&message.sogo_uri)?;
                    let uid = message.uid.unwrap_or_default();
                    // The octets stay where they are when the string is moved.
                    strings.messages.push(ocbus_message { sogo_uri: uri.as_ptr(), uid });
                    strings._uris.push(uri);
                }
            }
            _ => {}
        }
        Some(strings)
    }

    /// A question that has these, and nothing else yet.
    fn query(&self) -> ocbus_query {
        let pointer = |text: Option<&CString>| text.map_or(ptr::null(), |text| text.as_ptr());
        let messages = if self.messages.is_empty() { ptr::null() } else { self.messages.as_ptr() };
        ocbus_query {
            id: 0,
            what: 0,
            limit_ms: 0,
            cn: self.cn.as_ptr(),
            sogo_uri: pointer(self.uri.as_ref()),
            mailbox: pointer(self.mailbox.as_ref().map(|(name, _)| name)),
            storage_name: pointer(self.mailbox.as_ref().map(|(_, name)| name)),
            uidvalidity: 0,
            handle: 0,
            folder: 0,
            messages,
            message_count: self.messages.len(),
            session: ptr::null(),
            message: 0,
            columns: ptr::null(),
            column_count: 0,
            table_kind: 0,
        }
    }
}

/// Answers OCBUS_WHAT_FOLDER: the folder's FID, as OpenChange keeps it in a uint64_t. An answer that comes too late,
/// or for the second time, is counted and otherwise nothing; that holds for all answers.
///
/// Threads: any. Errors: OCBUS_ERROR_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_answer_folder(ocbus: *const ocbus_t, query: u64, folder: u64) -> ocbus_status {
    // SAFETY: as ocbus.h asks of the caller.
    unsafe { answer(ocbus, query, || Answer::Folder(FolderId::from_u64(folder))) }
}

/// Answers OCBUS_WHAT_MESSAGES: `count` MIDs, one for each message of the question and in its order; 0 where there is
/// none (any more, or yet).
///
/// Ownership: `messages` is read during the call only. Threads: any. Errors: OCBUS_ERROR_ARGUMENT. Another number of
/// MIDs than was asked counts as ocbus_answer_failed().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_answer_messages(
    ocbus: *const ocbus_t,
    query: u64,
    messages: *const u64,
    count: usize,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, messages) =
            unsafe { (handle::get(ocbus)?, array("messages", messages, count, MAX_MESSAGES)?) };
        let known = |message: &u64| (*message != 0).then(|| MessageId::from_u64(*message));
        let answer = Answer::Messages(messages.iter().map(known).collect());
        ocbus.emsmdb.answer(QueryId::from_u64(query), answer);
        Ok(())
    })
}

/// Answers OCBUS_WHAT_ROW.
///
/// Ownership: `row` and its data are read during the call only. Threads: any. Errors: OCBUS_ERROR_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_answer_row(
    ocbus: *const ocbus_t,
    query: u64,
    row: *const ocbus_row,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, rows) = unsafe { (handle::get(ocbus)?, array("row", row, 1, 1)?) };
        for row in rows {
            // SAFETY: likewise.
            let data = unsafe { array("row->data", row.data, row.data_octets, MAX_ROW_OCTETS)? };
            let after = MessageRow {
                folder: FolderId::from_u64(row.after_folder),
                message: MessageId::from_u64(row.after_message),
                instance: row.after_instance,
            };
            let row = TableRow { instance: row.instance, after, data: data.to_vec() };
            ocbus.emsmdb.answer(QueryId::from_u64(query), Answer::Row(row));
        }
        Ok(())
    })
}

/// Answers any question: there is no such folder, message or row. Nobody is told of a folder that the server does
/// not have.
///
/// Threads: any. Errors: OCBUS_ERROR_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_answer_unknown(ocbus: *const ocbus_t, query: u64) -> ocbus_status {
    // SAFETY: as ocbus.h asks of the caller.
    unsafe { answer(ocbus, query, || Answer::Unknown) }
}

/// Answers any question: it could not be found out, as a database does not answer. What is known is told: the folder and
/// its tables have changed.
///
/// Threads: any. Errors: OCBUS_ERROR_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_answer_failed(ocbus: *const ocbus_t, query: u64) -> ocbus_status {
    // SAFETY: as ocbus.h asks of the caller.
    unsafe { answer(ocbus, query, || Answer::Failed) }
}

/// # Safety
/// As for [`handle::get`].
unsafe fn answer(ocbus: *const ocbus_t, query: u64, answer: impl FnOnce() -> Answer) -> ocbus_status {
    guard(|| {
        // SAFETY: as the caller promised.
        let ocbus = unsafe { handle::get(ocbus)? };
        ocbus.emsmdb.answer(QueryId::from_u64(query), answer());
        Ok(())
    })
}
