//! The request: both layouts of its header, its scopes, its mask.

use ocbus_wire::ropnotify::{
    EncodeError, NotificationTypes, RegisterNotification, RegisterNotificationResponse, Scope,
};

use super::*;

fn request(types: u16, scope: Scope) -> RegisterNotification {
    RegisterNotification {
        logon_id: 1,
        input_handle_index: 2,
        output_handle_index: 3,
        types: NotificationTypes::from_bits(types),
        scope,
    }
}

#[test]
fn ropnotify_register_scopes() {
    for (scope, octets) in [
        (Scope::Store, "29 01 02 03 0400 01"),
        (Scope::Folder(folder(0x1234)), "29 01 02 03 0400 00 0100000000001234 0000000000000000"),
        (Scope::Folder(FolderId::NONE), "29 01 02 03 0400 00 0000000000000000 0000000000000000"),
        (
            Scope::Message { folder: folder(0x1234), message: message(0xab) },
            "29 01 02 03 0400 00 0100000000001234 01000000000000ab",
        ),
    ] {
        let (request, octets) = (request(0x0004, scope), hex(octets));
        assert_eq!(request.encode().as_ref(), Ok(&octets));
        let behind = [octets.as_slice(), b"\x29"].concat();
        assert_eq!(RegisterNotification::decode(&behind), Ok((request, octets.len())));
        assert_prefixes_refused(&octets, RegisterNotification::decode);
    }
    let nowhere = Scope::Message { folder: folder(1), message: MessageId::NONE };
    assert_eq!(request(4, nowhere).encode(), Err(EncodeError::NoMessage));
}

/// The older layout, a u8 of types and a reserved u8 that is 0, is the same octets; only 0x0400 brings one more.
#[test]
fn ropnotify_register_has_a_reserved_octet_with_extended_types_only() {
    for types in 0..=u16::MAX {
        let request = request(types, Scope::Folder(folder(5)));
        let octets = request.encode().unwrap();
        let extended = types & 0x0400 != 0;
        assert_eq!(request.types.contains(NotificationTypes::EXTENDED), extended);
        assert_eq!(octets.len(), 23 + usize::from(extended), "{types:04x}");
        assert_eq!(octets[4..6], types.to_le_bytes());
        assert_eq!(RegisterNotification::decode(&octets), Ok((request, octets.len())), "every bit is kept");
    }
    let extended = hex("29 01 02 03 1604 00 01");
    let whole_store = request(0x0416, Scope::Store);
    assert_eq!(whole_store.encode().as_ref(), Ok(&extended));
    assert_prefixes_refused(&extended, RegisterNotification::decode);
    let reserved_set = hex("29 01 02 03 1604 ee 01");
    assert_eq!(RegisterNotification::decode(&reserved_set), Ok((whole_store, 8)), "it does not matter");
}

#[test]
fn ropnotify_register_refuses_what_is_no_boolean_and_other_rops() {
    let refused = |octets: &str| RegisterNotification::decode(&hex(octets)).unwrap_err().to_string();
    assert_eq!(
        refused("29 01 02 03 0200 02"),
        "at octet 6: the wish for the whole store is 2: expected 0 or 1"
    );
    assert_eq!(refused("2a 01 02 03 0200 01"), "at octet 0: RopId 0x2a: expected 0x29");
    let error = RegisterNotificationResponse::decode(&hex("2a 01 00000000")).unwrap_err();
    assert_eq!(error.to_string(), "at octet 0: RopId 0x2a: expected 0x29");
}

#[test]
fn ropnotify_register_may_be_refused() {
    let response = RegisterNotificationResponse { output_handle_index: 9, return_value: 0x8004_0102 };
    assert_eq!(response.encode().to_vec(), hex("29 09 02010480"));
    assert_eq!(RegisterNotificationResponse::decode(&response.encode()), Ok((response, 6)));
}

#[test]
fn ropnotify_types_are_a_set() {
    let mut set = NotificationTypes::NEW_MAIL | NotificationTypes::TABLE_MODIFIED;
    assert_eq!((set.bits(), set.to_string().as_str()), (0x0102, "0x0102"));
    assert!(set.contains(NotificationTypes::NEW_MAIL) && !set.contains(NotificationTypes::OBJECT_MOVED));
    assert!(!set.contains(NotificationTypes::NEW_MAIL | NotificationTypes::OBJECT_MOVED));
    set |= NotificationTypes::OBJECT_MOVED;
    assert_eq!(set.bits(), 0x0122);
    assert!(!set.is_empty() && NotificationTypes::default().is_empty());
    let bits: Vec<u16> = [
        NotificationTypes::NEW_MAIL,
        NotificationTypes::OBJECT_CREATED,
        NotificationTypes::OBJECT_DELETED,
        NotificationTypes::OBJECT_MODIFIED,
        NotificationTypes::OBJECT_MOVED,
        NotificationTypes::OBJECT_COPIED,
        NotificationTypes::SEARCH_COMPLETE,
        NotificationTypes::TABLE_MODIFIED,
        NotificationTypes::EXTENDED,
    ]
    .map(NotificationTypes::bits)
    .to_vec();
    assert_eq!(bits, [0x2, 0x4, 0x8, 0x10, 0x20, 0x40, 0x80, 0x100, 0x400]);
}
