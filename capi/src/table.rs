use ocbus::emsmdb::engine::MAX_COLUMNS;
use ocbus::emsmdb::{Table, TableKind};
use ocbus::wire::ropnotify::FolderId;

use crate::arguments::{array, guid, one_of};
use crate::handle::{self, ocbus_t};
use crate::session::find;
use crate::status::{Error, guard, ocbus_status};

/// What the rows of a table are.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ocbus_table_kind {
    /// Folders (RopGetHierarchyTable).
    OCBUS_TABLE_HIERARCHY = 1,
    /// The messages of a folder (RopGetContentsTable).
    OCBUS_TABLE_CONTENTS = 2,
    /// The messages that a search folder finds (RopGetContentsTable on one). Events do not say which these are:
    /// what the server finds it tells by ocbus_notify().
    OCBUS_TABLE_SEARCH = 3,
}

use ocbus_table_kind::*;

pub(crate) const KINDS: [(u32, TableKind); 3] = [
    (OCBUS_TABLE_HIERARCHY as u32, TableKind::Hierarchy),
    (OCBUS_TABLE_CONTENTS as u32, TableKind::Contents),
    (OCBUS_TABLE_SEARCH as u32, TableKind::Search),
];

/// Flag of ocbus_table_add(): a hierarchy table of all folders below (Depth).
pub const OCBUS_TABLE_DEPTH: u32 = 1;

/// Flag of ocbus_table_add(): the client does not want to be told (NoNotifications).
pub const OCBUS_TABLE_NO_NOTIFICATIONS: u32 = 2;

/// Adds a table (RopGetHierarchyTable, RopGetContentsTable). Nothing is told of it before ocbus_table_open_view().
/// `handle`: the table object's; it stands in each RopNotify. `kind`: one of ocbus_table_kind. `folder`: the FID of the
/// folder that it shows. `flags`: OCBUS_TABLE_DEPTH, OCBUS_TABLE_NO_NOTIFICATIONS, both or 0. It ends by
/// ocbus_release().
///
/// Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION, OCBUS_ERROR_DUPLICATE,
/// OCBUS_ERROR_LIMIT (setting `handles_per_session`).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_table_add(
    ocbus: *const ocbus_t,
    session: *const u8,
    handle: u32,
    logon_id: u8,
    kind: u32,
    folder: u64,
    flags: u32,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, guid) = unsafe { (handle::get(ocbus)?, guid(session)?) };
        let kind = one_of("kind", kind, &KINDS)?;
        if flags & !(OCBUS_TABLE_DEPTH | OCBUS_TABLE_NO_NOTIFICATIONS) != 0 {
            return Err(Error::argument(format!("flags: 0x{flags:x}: expected no others than 0x1 and 0x2")));
        }
        let table = Table {
            handle,
            logon_id,
            kind,
            folder: FolderId::from_u64(folder),
            depth: flags & OCBUS_TABLE_DEPTH != 0,
            notifications: flags & OCBUS_TABLE_NO_NOTIFICATIONS == 0,
        };
        Ok(find(ocbus, guid)?.add_table(table)?)
    })
}

/// The client set the columns of a table (RopSetColumns): `count` property tags, `(id << 16) | type`, at most 4096. From
/// now on the ids callback is asked for rows (OCBUS_WHAT_ROW), to be told one by one; with `count` 0 it is not, and a
/// change is told by TableChanged, which makes the client read again. Not to be called by a server that cannot make rows.
///
/// Ownership: `columns` is copied. Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION,
/// OCBUS_ERROR_UNKNOWN_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_table_set_columns(
    ocbus: *const ocbus_t,
    session: *const u8,
    handle: u32,
    columns: *const u32,
    count: usize,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, guid) = unsafe { (handle::get(ocbus)?, guid(session)?) };
        // SAFETY: likewise.
        let columns = unsafe { array("columns", columns, count, MAX_COLUMNS)? };
        Ok(find(ocbus, guid)?.set_columns(handle, columns)?)
    })
}

/// The client has read rows of a table (RopQueryRows, RopFindRow, ...): from now on it is told of changes. Calling it
/// again, at each such ROP, changes nothing.
///
/// Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION, OCBUS_ERROR_UNKNOWN_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_table_open_view(
    ocbus: *const ocbus_t,
    session: *const u8,
    handle: u32,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, guid) = unsafe { (handle::get(ocbus)?, guid(session)?) };
        Ok(find(ocbus, guid)?.open_view(handle)?)
    })
}

/// The client has reset a table (RopResetTable): its columns are gone, what waits for it is taken out, and nothing is
/// told of it until the next ocbus_table_open_view().
///
/// Threads: any. Errors: OCBUS_ERROR_ARGUMENT, OCBUS_ERROR_UNKNOWN_SESSION, OCBUS_ERROR_UNKNOWN_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ocbus_table_reset(
    ocbus: *const ocbus_t,
    session: *const u8,
    handle: u32,
) -> ocbus_status {
    guard(|| {
        // SAFETY: as ocbus.h asks of the caller.
        let (ocbus, guid) = unsafe { (handle::get(ocbus)?, guid(session)?) };
        Ok(find(ocbus, guid)?.reset_table(handle)?)
    })
}
