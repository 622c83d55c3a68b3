//! What is open in a session, as OpenChange's `subscription:` record has it.

use ocbus_wire::openchange::{self, MAX_SUBSCRIPTIONS};
use ocbus_wire::ropnotify::{FolderId, MessageId, NotificationTypes, Scope};

use crate::emsmdb::engine::{Handles, Subscription, Table, TableKind};

/// Of a subscription: the whole store. Of a table: all folders below (Depth).
const WHOLE_STORE: u16 = 0x0001;

/// Columns that only folders have: PidTagFolderType, PidTagContentCount, PidTagContentUnreadCount, PidTagSubfolders,
/// PidTagContainerClass.
const OF_FOLDERS: [u32; 5] = [0x3601, 0x3602, 0x3603, 0x360a, 0x3613];

/// PidTagMid.
const OF_MESSAGES: u32 = 0x674a;

/// What stands in the record: subscriptions first, then tables. At most as many as a record holds; says whether all do.
pub(super) fn to_record(handles: &Handles) -> (Vec<openchange::Subscription>, bool) {
    let subscriptions = handles.subscriptions.iter().map(of_subscription);
    let tables = handles.tables.iter().map(|(table, columns)| of_table(table, columns));
    let mut entries: Vec<openchange::Subscription> = subscriptions.chain(tables).collect();
    let all = entries.len() <= MAX_SUBSCRIPTIONS;
    entries.truncate(MAX_SUBSCRIPTIONS);
    (entries, all)
}

fn of_subscription(subscription: &Subscription) -> openchange::Subscription {
    let (whole, fid, mid) = match subscription.scope {
        Scope::Store => (WHOLE_STORE, 0, 0),
        Scope::Folder(folder) => (0, folder.as_u64(), 0),
        Scope::Message { folder, message } => (0, folder.as_u64(), message.as_u64()),
    };
    let flags = subscription.types.bits() & !WHOLE_STORE | whole;
    openchange::Subscription { handle: subscription.handle, flags, fid, mid, properties: Vec::new() }
}

fn of_table(table: &Table, columns: &[u32]) -> openchange::Subscription {
    let depth = if table.depth { WHOLE_STORE } else { 0 };
    openchange::Subscription {
        handle: table.handle,
        flags: NotificationTypes::TABLE_MODIFIED.bits() | depth,
        fid: table.folder.as_u64(),
        mid: 0,
        properties: columns.to_vec(),
    }
}

/// What a record says. Logons do not stand in it: all are 0, as with OpenChange.
pub(super) fn from_record(entries: &[openchange::Subscription]) -> Handles {
    let mut handles = Handles::default();
    for entry in entries {
        match entry.flags & !WHOLE_STORE == NotificationTypes::TABLE_MODIFIED.bits() {
            true => handles.tables.push((table(entry), entry.properties.clone())),
            false => handles.subscriptions.push(subscription(entry)),
        }
    }
    handles
}

fn subscription(entry: &openchange::Subscription) -> Subscription {
    let folder = FolderId::from_u64(entry.fid);
    let scope = match (entry.flags & WHOLE_STORE != 0 || folder == FolderId::NONE, entry.mid) {
        (_, mid) if mid != 0 => Scope::Message { folder, message: MessageId::from_u64(mid) },
        (true, _) => Scope::Store,
        (false, _) => Scope::Folder(folder),
    };
    let types = NotificationTypes::from_bits(entry.flags & !WHOLE_STORE);
    Subscription { handle: entry.handle, logon_id: 0, types, scope }
}

/// What its rows are does not stand in the record; the columns tell, and OpenChange takes all for messages.
fn table(entry: &openchange::Subscription) -> Table {
    let depth = entry.flags & WHOLE_STORE != 0;
    let has = |id: u32| entry.properties.iter().any(|tag| tag >> 16 == id);
    let folders = depth || (OF_FOLDERS.into_iter().any(has) && !has(OF_MESSAGES));
    Table {
        handle: entry.handle,
        logon_id: 0,
        kind: if folders { TableKind::Hierarchy } else { TableKind::Contents },
        folder: FolderId::from_u64(entry.fid),
        depth,
        notifications: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> Handles {
        let folder = FolderId::from_u64(0x3412_0000_0000_0001);
        let types = NotificationTypes::from_bits(0x017e);
        let message = MessageId::from_u64(7);
        let scopes = [Scope::Store, Scope::Folder(folder), Scope::Message { folder, message }];
        let subscriptions = scopes.into_iter().zip(0x29..);
        let table =
            |handle, kind, depth| Table { handle, logon_id: 0, kind, folder, depth, notifications: true };
        Handles {
            subscriptions: subscriptions
                .map(|(scope, handle)| Subscription { handle, logon_id: 0, types, scope })
                .collect(),
            tables: vec![
                (table(0x31, TableKind::Hierarchy, false), vec![0x3001_001f, 0x3602_0003]),
                (table(0x32, TableKind::Hierarchy, true), Vec::new()),
                (table(0x33, TableKind::Contents, false), vec![0x674a_0014, 0x0037_001f]),
            ],
        }
    }

    #[test]
    fn the_record_says_again_what_was_put_into_it() {
        let (entries, all) = to_record(&both());
        assert!(all);
        assert_eq!(from_record(&entries), both());
    }

    #[test]
    fn flags_and_ids_are_those_of_openchange() {
        let (entries, _) = to_record(&both());
        let flags: Vec<u16> = entries.iter().map(|entry| entry.flags).collect();
        assert_eq!(flags, [0x017f, 0x017e, 0x017e, 0x0100, 0x0101, 0x0100]);
        let ids: Vec<(u64, u64)> = entries.iter().map(|entry| (entry.fid, entry.mid)).collect();
        let folder = 0x3412_0000_0000_0001;
        assert_eq!(ids[..3], [(0, 0), (folder, 0), (folder, 7)]);
        assert_eq!(entries[5].properties, [0x674a_0014, 0x0037_001f]);
    }

    #[test]
    fn a_record_holds_a_hundred() {
        let mut handles = both();
        let last = *handles.subscriptions.last().unwrap();
        handles.subscriptions.extend((0x100..).take(95).map(|handle| Subscription { handle, ..last }));
        let (entries, all) = to_record(&handles);
        assert_eq!((entries.len(), all), (100, false));
    }
}
