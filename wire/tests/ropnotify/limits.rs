//! What has a length: tags, rows, the class of a message, and the reply as a whole.

use ocbus_wire::ropnotify::{
    EncodeError, FolderRow, MessageClass, MessageRow, Notification, RopNotify, TableEvent, Tags,
};

use super::*;

fn reply(notification: Notification) -> RopNotify {
    RopNotify { handle: 0xffff_ffff, logon_id: 0xff, notification }
}

fn folder_modified(tags: Tags) -> RopNotify {
    reply(Notification::FolderModified { folder: folder(1), tags, total: None, unread: None })
}

fn row_added(data: Vec<u8>) -> RopNotify {
    let (row, after) = (FolderRow { folder: folder(1) }, FolderRow::NONE);
    reply(Notification::HierarchyTable(TableEvent::RowAdded { row, after, data }))
}

fn new_mail(class: MessageClass) -> RopNotify {
    reply(Notification::NewMail { folder: folder(1), message: message(1), message_flags: 0, class })
}

fn unicode(name: &str) -> MessageClass {
    MessageClass { name: name.to_owned(), unicode: true }
}

#[test]
fn ropnotify_tags_none_some_and_unspecified() {
    for (tags, octets) in [
        (Tags::Unspecified, b"\xff\xff".as_slice()),
        (Tags::List(vec![]), b"\0\0"),
        (Tags::List(vec![0x3001_001f]), b"\x01\0\x1f\0\x01\x30"),
        (Tags::List(vec![0x3602_0003, 0x3603_0003]), b"\x02\0\x03\0\x02\x36\x03\0\x03\x36"),
    ] {
        let whole = [b"\x2a\xff\xff\xff\xff\xff\x10\0\x01\0\0\0\0\0\0\x01".as_slice(), octets].concat();
        assert_both_ways(&folder_modified(tags), &whole);
    }
}

/// The largest of each sort goes through, and one more is refused both ways.
#[test]
fn ropnotify_the_largest_reply_is_what_a_response_holds() {
    assert_eq!(RopNotify::MAX_OCTETS, 32_758);
    let tags = |count| folder_modified(Tags::List(vec![7; count]));
    let ascii = |length| new_mail(MessageClass::ascii("a".repeat(length)));
    let wide = |length| new_mail(unicode(&"a".repeat(length)));
    let row = |length| row_added(vec![7; length]);
    let most = RopNotify::MAX_OCTETS;
    for (largest, larger) in [
        (tags((most - 18) / 4), tags((most - 18) / 4 + 1)),
        (ascii(most - 30), ascii(most - 29)),
        (wide((most - 31) / 2), wide((most - 31) / 2 + 1)),
        (row(most - 28), row(most - 27)),
    ] {
        let octets = largest.encode().unwrap();
        assert!(most - octets.len() < 4, "{}", octets.len());
        assert_eq!(RopNotify::decode(&octets), Ok((largest, octets.len())));

        let length = larger.encoded_len();
        let mut before = b"before".to_vec();
        assert_eq!(larger.encode_into(&mut before), Err(EncodeError::TooLarge { octets: length, max: most }));
        assert_eq!(before, b"before");
    }
    let huge = row_added(vec![0; 70_000]);
    assert_eq!(
        huge.encode().unwrap_err().to_string(),
        "a reply of 70028 octets: at most 32758 fit into a response"
    );
    assert_eq!(
        folder_modified(Tags::List(vec![0; 0xffff])).encode().unwrap_err().to_string(),
        "a reply of 262158 octets: at most 32758 fit into a response"
    );
}

/// Octets that claim more than a reply may have, and have it.
#[test]
fn ropnotify_a_larger_reply_is_refused_on_reading() {
    let head = |notification: &str| hex(&format!("2a 00000000 00 {notification}"));
    let folder_modified = head("1000 0000000000000000");
    for (claim, at) in [
        ([folder_modified.as_slice(), b"\xfe\xff"].concat(), 18),
        ([head("0001 0300 0000000000000000 0000000000000000"), b"\xff\xff".to_vec()].concat(), 28),
        ([head("0280 0000000000000000 0000000000000000 00000000"), b"\0".to_vec()].concat(), 29),
        ([head("0280 0000000000000000 0000000000000000 00000000"), b"\x01".to_vec()].concat(), 29),
    ] {
        // Where it could be all there, it is too large; where not, it is cut.
        let there = [claim.as_slice(), &vec![0x41; 300_000]].concat();
        let error = RopNotify::decode(&there).unwrap_err();
        assert_eq!((error.offset(), error.reason()), (at, &Malformed::TooLarge { max: 32_758 }));
        assert_prefixes_refused(&there[..1000], RopNotify::decode);
    }
    // By one octet.
    let row = |length: u16| {
        let row = head("0001 0300 0000000000000000 0000000000000000");
        [row, length.to_le_bytes().to_vec(), vec![7; usize::from(length)], vec![8]].concat()
    };
    assert_eq!(RopNotify::decode(&row(32_758 - 28)).unwrap().1, 32_758);
    assert!(matches!(RopNotify::decode(&row(32_758 - 27)).unwrap_err().reason(), Malformed::TooLarge { .. }));
    // The largest number of tags is refused by what is there, before memory is taken for it.
    let error = RopNotify::decode(&[folder_modified.as_slice(), b"\xfe\xff\0\0\0"].concat()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "at octet 18: the input ends too early for the property tags: at least 262136 octets needed, 3 left"
    );
}

#[test]
fn ropnotify_a_row_may_be_empty() {
    let octets = hex("2affffffff ff 0001 0300 0100000000000001 0000000000000000 0000");
    assert_both_ways(&row_added(vec![]), &octets);
    let instance = MessageRow { folder: folder(1), message: message(2), instance: 0x0102_0304 };
    let event = TableEvent::RowDeleted { row: instance };
    let octets = hex("2affffffff ff 00c1 0400 0100000000000001 0100000000000002 04030201");
    assert_both_ways(&reply(Notification::SearchTable(event)), &octets);
}

#[test]
fn ropnotify_a_class_is_ascii_or_utf16() {
    let head = hex("2affffffff ff 0280 0100000000000001 0100000000000001 00000000");
    for (class, octets) in [
        (MessageClass::ascii(""), b"\0\0".as_slice()),
        (MessageClass::ascii("IPM.\x7f"), b"\0IPM.\x7f\0"),
        (unicode(""), b"\x01\0\0"),
        (unicode("A\u{100}"), b"\x01A\0\0\x01\0\0"),
        (unicode("\u{1f4e7}"), b"\x01\x3d\xd8\xe7\xdc\0\0"),
    ] {
        assert_both_ways(&new_mail(class), &[head.as_slice(), octets].concat());
    }

    let refused = |class: MessageClass| new_mail(class).encode().unwrap_err().to_string();
    assert_eq!(refused(MessageClass::ascii("I\0")), "the message class has a NUL, at position 1");
    assert_eq!(refused(unicode("IP\0M")), "the message class has a NUL, at position 2");
    assert_eq!(
        refused(MessageClass::ascii("Bürger")),
        "the message class has 'ü', at position 1: expected ASCII, or `unicode` set"
    );

    let read =
        |octets: &[u8]| RopNotify::decode(&[head.as_slice(), octets].concat()).unwrap_err().to_string();
    assert_eq!(read(b"\0ab\xfc\0"), "at octet 31: the message class: octet 0xfc: expected ASCII");
    assert_eq!(read(b"\x01a\0\x00\xd8b\0\0\0"), "at octet 31: the message class: 0xd800 is no UTF-16");
    assert_eq!(
        read(b"\x01\x3d\xd8\xe7\xdc\x00\xdc\0\0"),
        "at octet 33: the message class: 0xdc00 is no UTF-16"
    );
    assert_eq!(read(b"\x02a\0"), "at octet 28: the Unicode flag is 2: expected 0 or 1");
    assert_eq!(read(b"\x01a\0\0"), "at octet 29: the message class has no NUL before the input ends");
}

#[test]
fn ropnotify_another_rop_is_refused() {
    for rop_id in (0..=u8::MAX).filter(|rop_id| *rop_id != 0x2a) {
        let error = RopNotify::decode(&[rop_id, 0, 0, 0, 0, 0, 0, 1, 1, 0]).unwrap_err();
        assert_eq!(
            (error.offset(), error.reason()),
            (0, &Malformed::RopId { found: rop_id, expected: 0x2a })
        );
    }
}
