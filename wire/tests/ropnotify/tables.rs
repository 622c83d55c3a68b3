//! The tables of MS-OXCNOTIF 2.2.1.4.1.2, once more and as tables: which flags there are, which fields they
//! bring, and how long the reply is.

use ocbus_wire::ropnotify::{EncodeError, Notification};

use super::*;

/// All there are. The first is read and never written.
const LEGAL: [u16; 22] = [
    0x0002, 0x8002, 0x0004, 0x0008, 0x0010, 0x1010, 0x2010, 0x3010, 0x0020, 0x0040, 0x0080, 0x0100, 0x8004,
    0x8008, 0x8010, 0x8020, 0x8040, 0x8100, 0xc004, 0xc008, 0xc010, 0xc100,
];
const TABLE_EVENTS: [u16; 5] = [1, 3, 4, 5, 7];

/// One row of the table of fields: name, octets, and when the field is there: (type, table event, T, U, S, M).
type Field = (&'static str, usize, fn(u16, u16, bool, bool, bool, bool) -> bool);

const FIELDS: [Field; 22] = [
    ("TableEventType", 2, |t, _, _, _, _, _| t == 0x0100),
    ("TableRowFolderID", 8, |t, e, _, _, _, _| t == 0x0100 && [3, 4, 5].contains(&e)),
    ("TableRowMessageID", 8, |t, e, _, _, _, m| t == 0x0100 && [3, 4, 5].contains(&e) && m),
    ("TableRowInstance", 4, |t, e, _, _, _, m| t == 0x0100 && [3, 4, 5].contains(&e) && m),
    ("InsertAfterTableRowFolderID", 8, |t, e, _, _, _, _| t == 0x0100 && [3, 5].contains(&e)),
    ("InsertAfterTableRowID", 8, |t, e, _, _, _, m| t == 0x0100 && [3, 5].contains(&e) && m),
    ("InsertAfterTableRowInstance", 4, |t, e, _, _, _, m| t == 0x0100 && [3, 5].contains(&e) && m),
    ("TableRowDataSize", 2, |t, e, _, _, _, _| t == 0x0100 && [3, 5].contains(&e)),
    ("TableRowData", 5, |t, e, _, _, _, _| t == 0x0100 && [3, 5].contains(&e)),
    ("FolderId", 8, |t, _, _, _, _, _| t != 0x0100),
    ("MessageId", 8, |t, _, _, _, _, m| t != 0x0100 && m),
    ("ParentFolderId", 8, |t, _, _, _, s, m| [0x4, 0x8, 0x20, 0x40].contains(&t) && s == m),
    ("OldFolderId", 8, |t, _, _, _, _, _| [0x20, 0x40].contains(&t)),
    ("OldMessageId", 8, |t, _, _, _, _, m| [0x20, 0x40].contains(&t) && m),
    ("OldParentFolderId", 8, |t, _, _, _, _, m| [0x20, 0x40].contains(&t) && !m),
    ("TagCount", 2, |t, _, _, _, _, _| [0x4, 0x10].contains(&t)),
    ("Tags", 8, |t, _, _, _, _, _| [0x4, 0x10].contains(&t)),
    ("TotalMessageCount", 4, |_, _, total, _, _, _| total),
    ("UnreadMessageCount", 4, |_, _, _, unread, _, _| unread),
    ("MessageFlags", 4, |t, _, _, _, _, _| t == 0x2),
    ("UnicodeFlag", 1, |t, _, _, _, _, _| t == 0x2),
    ("MessageClass", 4, |t, _, _, _, _, _| t == 0x2),
];

/// The octets of a reply by the table, each field filled with its number, and the fields' names.
fn by_the_table(flags: u16, event: u16) -> (Vec<u8>, Vec<&'static str>) {
    let letter = |bit: u16| flags & bit != 0;
    let mut octets = vec![0x2a, 1, 2, 3, 4, 5];
    octets.extend(flags.to_le_bytes());
    let mut names = Vec::new();
    for (number, (name, length, is_there)) in FIELDS.iter().enumerate() {
        let (total, unread, search, message) =
            (letter(0x1000), letter(0x2000), letter(0x4000), letter(0x8000));
        if !is_there(flags & 0x0fff, event, total, unread, search, message) {
            continue;
        }
        names.push(*name);
        match *name {
            "TableEventType" => octets.extend(event.to_le_bytes()),
            "TableRowDataSize" => octets.extend(5u16.to_le_bytes()),
            "TagCount" => octets.extend(2u16.to_le_bytes()),
            "UnicodeFlag" => octets.push(0),
            "MessageClass" => octets.extend(b"abc\0"),
            _ => octets.extend(std::iter::repeat_n(0xa0 + u8::try_from(number).unwrap(), *length)),
        }
    }
    (octets, names)
}

fn cases() -> impl Iterator<Item = (u16, u16)> {
    LEGAL.into_iter().flat_map(|flags| {
        let events = if flags & 0x0fff == 0x0100 { TABLE_EVENTS.as_slice() } else { &[0] };
        events.iter().map(move |event| (flags, *event))
    })
}

#[test]
fn ropnotify_every_legal_combination_has_the_fields_of_the_table() {
    assert_eq!(cases().count(), 22 - 3 + 3 * 5);
    for (flags, event) in cases() {
        println!("{flags:04x} {event}");
        let (octets, _) = by_the_table(flags, event);
        let (reply, length) = RopNotify::decode(&octets).unwrap();
        assert_eq!((reply.handle, reply.logon_id, length), (0x0403_0201, 5, octets.len()));
        assert_eq!(reply.flags(), flags);
        if flags == 0x0002 {
            assert!(matches!(reply.notification, Notification::NewMailWithoutMessage { .. }));
            assert_eq!(reply.encode(), Err(EncodeError::NewMailWithoutMessage));
            assert_prefixes_refused(&octets, RopNotify::decode);
        } else {
            assert_both_ways(&reply, &octets);
        }
    }
}

/// Each field is another one: a reader that mixed two up would write them back in the wrong places.
#[test]
fn ropnotify_no_field_is_read_as_another() {
    for (flags, event) in cases().filter(|(flags, _)| *flags != 0x0002) {
        let (octets, names) = by_the_table(flags, event);
        let (read, _) = RopNotify::decode(&octets).unwrap();
        let shown = format!("{:?}", read.notification);
        for name in names {
            // How the fields are called here, and the number of theirs that fills them.
            let (ours, folder) = match name {
                "TableRowFolderID" => ("row: ", true),
                "InsertAfterTableRowFolderID" => ("after: ", true),
                "FolderId" => (" folder: ", true),
                "MessageId" => (" message: ", true),
                "ParentFolderId" if flags & 0x8000 != 0 => ("search_folder: Some(", true),
                "ParentFolderId" => (" parent: ", true),
                "OldFolderId" => ("old_folder: ", true),
                "OldMessageId" => ("old_message: ", true),
                "OldParentFolderId" => ("old_parent: ", true),
                "TotalMessageCount" => ("total: Some(", false),
                "UnreadMessageCount" => ("unread: Some(", false),
                "MessageFlags" => ("message_flags: ", false),
                _ => continue,
            };
            let number = u8::try_from(FIELDS.iter().position(|field| field.0 == name).unwrap()).unwrap();
            let value = match folder {
                true => u64::from_le_bytes([0xa0 + number; 8]),
                false => u64::from(u32::from_le_bytes([0xa0 + number; 4])),
            };
            let at = shown.find(ours).unwrap_or_else(|| panic!("{flags:04x}: no {ours} in {shown}"));
            let digits: String = shown[at + ours.len()..]
                .chars()
                .skip_while(|character| !character.is_ascii_digit())
                .take_while(char::is_ascii_digit)
                .collect();
            assert_eq!(digits, value.to_string(), "{flags:04x}: {name}: {shown}");
        }
    }
}

/// The sums of the reference, with nothing of a length of its own: no tags, no class but its end, an empty row.
#[test]
fn ropnotify_lengths_are_those_of_the_reference() {
    let lengths = [
        (0x8002, 0, 29 + 1, "new mail"),
        (0x8004, 0, 26, "message created"),
        (0x0004, 0, 26, "folder created"),
        (0x8008, 0, 24, "message deleted"),
        (0x0008, 0, 24, "folder deleted"),
        (0x8010, 0, 26, "message modified"),
        (0x0010, 0, 18, "folder modified"),
        (0x1010, 0, 22, "folder modified, T"),
        (0x2010, 0, 22, "folder modified, U"),
        (0x3010, 0, 26, "folder modified, T and U"),
        (0x8020, 0, 40, "message moved"),
        (0x8040, 0, 40, "message copied"),
        (0x0020, 0, 40, "folder moved"),
        (0x0040, 0, 40, "folder copied"),
        (0x0080, 0, 16, "search complete"),
        (0xc004, 0, 34, "search-folder message created"),
        (0xc008, 0, 32, "search-folder message deleted"),
        (0xc010, 0, 26, "search-folder message modified"),
        (0x0100, 1, 10, "hierarchy table changed"),
        (0x8100, 1, 10, "contents table changed"),
        (0xc100, 1, 10, "search table changed"),
        (0x0100, 4, 18, "hierarchy row deleted"),
        (0x8100, 4, 30, "contents row deleted"),
        (0x0100, 3, 28, "hierarchy row added"),
        (0x0100, 5, 28, "hierarchy row modified"),
        (0x8100, 3, 52, "contents row added"),
        (0x8100, 5, 52, "contents row modified"),
        (0xc100, 5, 52, "search row modified"),
        (0x8100, 7, 10, "restriction changed"),
    ];
    for (flags, event, length, case) in lengths {
        let mut octets = vec![0x2a, 0, 0, 0, 0, 0];
        octets.extend(u16::to_le_bytes(flags));
        octets.extend(u16::to_le_bytes(event));
        octets.resize(100, 0);
        let (reply, taken) = RopNotify::decode(&octets).unwrap();
        assert_eq!((taken, reply.encoded_len()), (length, length), "{case}");
    }
}

#[test]
fn ropnotify_all_other_flags_are_refused() {
    for flags in 0..=u16::MAX {
        let mut octets = vec![0x2a, 0, 0, 0, 0, 0];
        octets.extend(flags.to_le_bytes());
        octets.extend([1, 0]);
        octets.resize(100, 0);
        match RopNotify::decode(&octets) {
            Ok((reply, _)) => {
                assert!(LEGAL.contains(&flags), "{flags:04x} is read");
                assert_eq!(reply.flags(), flags);
            }
            Err(error) => {
                assert!(!LEGAL.contains(&flags), "{flags:04x}: {error}");
                assert_eq!((error.offset(), error.reason()), (6, &Malformed::Flags { found: flags }));
                // At once: not when it has read what would follow.
                assert_eq!(RopNotify::decode(&octets[..8]), Err(error));
            }
        }
    }
    let error = RopNotify::decode(b"\x2a\0\0\0\0\0\x00\x02").unwrap_err();
    assert_eq!(
        error.to_string(),
        "at octet 6: notification flags 0x0200: no such combination of a type and its letters"
    );
}

#[test]
fn ropnotify_all_other_table_events_are_refused() {
    for flags in [0x0100u16, 0x8100, 0xc100] {
        for event in 0..=u16::MAX {
            let mut octets = vec![0x2a, 0, 0, 0, 0, 0];
            octets.extend(flags.to_le_bytes());
            octets.extend(event.to_le_bytes());
            octets.resize(100, 0);
            match RopNotify::decode(&octets) {
                Ok(_) => assert!(TABLE_EVENTS.contains(&event), "{event} is read"),
                Err(error) => {
                    assert!(!TABLE_EVENTS.contains(&event), "{event}: {error}");
                    assert_eq!(
                        (error.offset(), error.reason()),
                        (8, &Malformed::TableEvent { found: event })
                    );
                }
            }
        }
    }
}
