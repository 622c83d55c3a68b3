//! What OpenChange itself wrote: the cases of kinds `ropnotify` and `deliver`.

use std::path::Path;

use ocbus_wire::openchange::deliver;
use ocbus_wire::ropnotify::{MessageClass, MessageRow, Notification, TableEvent, split};
use serde_json::Value;

use super::*;

fn cases(kind: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/openchange/vectors.json");
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    cases.into_iter().filter(|case| case["kind"] == kind).collect()
}

fn id(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap()
}

fn octets_of(case: &Value) -> Vec<u8> {
    hex(case["hex"].as_str().unwrap())
}

/// A PropertyRow without errors, as OpenChange made it from the columns of a case.
fn property_row(columns: &[Value]) -> Vec<u8> {
    let mut row = vec![0];
    for column in columns {
        let value = &column[2];
        match column[1].as_str().unwrap() {
            "u32" => row.extend(u32::try_from(value.as_u64().unwrap()).unwrap().to_le_bytes()),
            "bool" => row.push(u8::try_from(value.as_u64().unwrap()).unwrap()),
            "i8" => row.extend(id(value).to_le_bytes()),
            "unicode" => {
                let text = value.as_str().unwrap().encode_utf16().chain([0]);
                row.extend(text.flat_map(u16::to_le_bytes));
            }
            other => panic!("{other}"),
        }
    }
    row
}

#[test]
fn ropnotify_openchange_vectors() {
    let cases = cases("ropnotify");
    assert_eq!(cases.len(), 4);
    for case in &cases {
        println!("{}", case["name"]);
        let input = &case["input"];
        let folder = FolderId::from_u64(id(&input["fid"]));
        let notification = if input["type"] == "0x8002" {
            assert_eq!(input["message_flags"], "MSGFLAG_UNMODIFIED(2)");
            Notification::NewMail {
                folder,
                message: MessageId::from_u64(id(&input["mid"])),
                message_flags: 2,
                class: MessageClass {
                    name: input["message_class"].as_str().unwrap().to_owned(),
                    unicode: input["unicode"].as_bool().unwrap(),
                },
            }
        } else {
            // OpenChange names the folder of its table, and no message.
            let row = MessageRow { folder, ..MessageRow::NONE };
            let data = property_row(input["columns"].as_array().unwrap());
            Notification::SearchTable(TableEvent::RowModified { row, after: MessageRow::NONE, data })
        };
        let handle = u32::try_from(input["handle"].as_u64().unwrap()).unwrap();
        assert_both_ways(&RopNotify { handle, logon_id: 0, notification }, &octets_of(case));
    }
}

#[test]
fn ropnotify_openchange_deliver_values_come_apart() {
    for case in cases("deliver") {
        let value = octets_of(&case);
        let blobs: Vec<Vec<u8>> = case["input"]["blobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|blob| hex(blob.as_str().unwrap()))
            .collect();
        assert_eq!(value, blobs.concat());
        if case["name"] == "deliver_appended" {
            // "deliver1" and "deliver2": OpenChange's test appended text.
            assert!(split(&value).all(|reply| reply.is_err()));
            continue;
        }
        let apart: Result<Vec<&[u8]>, _> = deliver::split(&value).collect();
        assert_eq!(apart.unwrap(), blobs);
        let replies: Vec<RopNotify> = split(&value).collect::<Result<_, _>>().unwrap();
        assert_eq!(replies.iter().map(|reply| reply.encode().unwrap()).collect::<Vec<_>>(), blobs);
    }
}
