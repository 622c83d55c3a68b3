//! JSON as a reply.

use ocbus::wire::json::{Fields, number};
use ocbus::wire::ropnotify::{
    FolderId, FolderRow, MessageClass, MessageId, MessageRow, Notification, RopNotify, TableEvent, Tags,
};
use serde_json::Value;

use super::UNSPECIFIED;
use crate::command::inspect::hex;

/// All fields of a reply, whatever its kind.
const FIELDS: [&str; 24] = [
    "handle",
    "logon_id",
    "flags",
    "kind",
    "event",
    "fid",
    "mid",
    "instance",
    "after_fid",
    "after_mid",
    "after_instance",
    "data",
    "parent_fid",
    "search_fid",
    "in_search_folder",
    "old_fid",
    "old_mid",
    "old_parent_fid",
    "tags",
    "total",
    "unread",
    "message_flags",
    "message_class",
    "unicode",
];

const EVENTS: &str = "Changed, RowAdded, RowDeleted, RowModified or RestrictionChanged";

/// The octets of a reply.
pub(super) fn reply(mut fields: Fields) -> Result<Vec<u8>, String> {
    let handle = fields.number("handle")?;
    let handle = fields.needed("handle", handle)?;
    let logon_id = fields.number("logon_id")?.unwrap_or_default();
    let flags: Option<u16> = fields.number("flags")?;
    let kind = fields.string("kind")?;
    let kind = fields.needed("kind", kind)?;
    let place = fields.place("");
    let reply = RopNotify { handle, logon_id, notification: notification(&mut fields, &kind)? };
    // What is left of the known fields is what this kind could not use.
    if let Some(field) = fields.names().into_iter().find(|field| FIELDS.contains(&field.as_str())) {
        return Err(format!("{place}{field}: {kind} has no such field"));
    }
    fields.ignore(&FIELDS);
    fields.finish(&FIELDS)?;
    if let Some(flags) = flags.filter(|flags| *flags != reply.flags()) {
        let right = reply.flags();
        return Err(format!("{place}flags: 0x{flags:04x}: expected 0x{right:04x}, by the other fields"));
    }
    reply.encode().map_err(|error| match place.trim_end_matches('.') {
        "" => error.to_string(),
        place => format!("{place}: {error}"),
    })
}

fn notification(fields: &mut Fields, kind: &str) -> Result<Notification, String> {
    Ok(match kind {
        "NewMail" => Notification::NewMail {
            folder: folder(fields, "fid")?,
            message: message(fields, "mid")?,
            message_flags: fields.number("message_flags")?.unwrap_or_default(),
            class: class(fields)?,
        },
        "NewMailWithoutMessage" => Notification::NewMailWithoutMessage {
            folder: folder(fields, "fid")?,
            message_flags: fields.number("message_flags")?.unwrap_or_default(),
            class: class(fields)?,
        },
        "MessageCreated" => Notification::MessageCreated {
            folder: folder(fields, "fid")?,
            message: message(fields, "mid")?,
            search_folder: fields.number("search_fid")?.map(FolderId::from_u64),
            tags: tags(fields)?,
        },
        "MessageDeleted" => Notification::MessageDeleted {
            folder: folder(fields, "fid")?,
            message: message(fields, "mid")?,
            search_folder: fields.number("search_fid")?.map(FolderId::from_u64),
        },
        "MessageModified" => Notification::MessageModified {
            folder: folder(fields, "fid")?,
            message: message(fields, "mid")?,
            in_search_folder: fields.boolean("in_search_folder")?.unwrap_or_default(),
            tags: tags(fields)?,
        },
        "MessageMoved" => Notification::MessageMoved {
            folder: folder(fields, "fid")?,
            message: message(fields, "mid")?,
            old_folder: folder(fields, "old_fid")?,
            old_message: message(fields, "old_mid")?,
        },
        "MessageCopied" => Notification::MessageCopied {
            folder: folder(fields, "fid")?,
            message: message(fields, "mid")?,
            old_folder: folder(fields, "old_fid")?,
            old_message: message(fields, "old_mid")?,
        },
        "FolderCreated" => Notification::FolderCreated {
            folder: folder(fields, "fid")?,
            parent: folder(fields, "parent_fid")?,
            tags: tags(fields)?,
        },
        "FolderDeleted" => Notification::FolderDeleted {
            folder: folder(fields, "fid")?,
            parent: folder(fields, "parent_fid")?,
        },
        "FolderModified" => Notification::FolderModified {
            folder: folder(fields, "fid")?,
            tags: tags(fields)?,
            total: fields.number("total")?,
            unread: fields.number("unread")?,
        },
        "FolderMoved" => Notification::FolderMoved {
            folder: folder(fields, "fid")?,
            parent: folder(fields, "parent_fid")?,
            old_folder: folder(fields, "old_fid")?,
            old_parent: folder(fields, "old_parent_fid")?,
        },
        "FolderCopied" => Notification::FolderCopied {
            folder: folder(fields, "fid")?,
            parent: folder(fields, "parent_fid")?,
            old_folder: folder(fields, "old_fid")?,
            old_parent: folder(fields, "old_parent_fid")?,
        },
        "SearchComplete" => Notification::SearchComplete { folder: folder(fields, "fid")? },
        "HierarchyTable" => Notification::HierarchyTable(event(fields)?),
        "ContentsTable" => Notification::ContentsTable(event(fields)?),
        "SearchTable" => Notification::SearchTable(event(fields)?),
        other => {
            return Err(format!(
                "{}: {other:?}: expected a kind of notification, as NewMail or ContentsTable",
                fields.place("kind")
            ));
        }
    })
}

fn folder(fields: &mut Fields, name: &str) -> Result<FolderId, String> {
    let id = fields.number(name)?;
    Ok(fields.needed(name, id).map(FolderId::from_u64)?)
}

fn message(fields: &mut Fields, name: &str) -> Result<MessageId, String> {
    let id = fields.number(name)?;
    Ok(fields.needed(name, id).map(MessageId::from_u64)?)
}

fn class(fields: &mut Fields) -> Result<MessageClass, String> {
    let unicode = fields.boolean("unicode")?.unwrap_or_default();
    let name = fields.string("message_class")?.unwrap_or_else(|| MessageClass::default().name);
    Ok(MessageClass { name, unicode })
}

fn tags(fields: &mut Fields) -> Result<Tags, String> {
    if fields.is("tags", UNSPECIFIED) {
        fields.ignore(&["tags"]);
        return Ok(Tags::Unspecified);
    }
    let place = fields.place("tags");
    let tag = |(at, value): (usize, &Value)| number(&format!("{place}[{at}]"), value);
    Ok(Tags::List(fields.array("tags")?.iter().enumerate().map(tag).collect::<Result<_, _>>()?))
}

fn event<R: Row>(fields: &mut Fields) -> Result<TableEvent<R>, String> {
    let name = fields.string("event")?;
    let name = fields.needed("event", name)?;
    Ok(match name.as_str() {
        "Changed" => TableEvent::Changed,
        "RowAdded" => {
            TableEvent::RowAdded { row: row(fields)?, after: row_before(fields)?, data: data(fields)? }
        }
        "RowDeleted" => TableEvent::RowDeleted { row: row(fields)? },
        "RowModified" => {
            TableEvent::RowModified { row: row(fields)?, after: row_before(fields)?, data: data(fields)? }
        }
        "RestrictionChanged" => TableEvent::RestrictionChanged,
        other => return Err(format!("{}: {other:?}: expected {EVENTS}", fields.place("event"))),
    })
}

fn row<R: Row>(fields: &mut Fields) -> Result<R, String> {
    match fields.has("fid") {
        true => R::take(["fid", "mid", "instance"], fields),
        false => Ok(fields.needed("fid", None)?),
    }
}

/// All zero where nothing is said: the beginning of the table.
fn row_before<R: Row>(fields: &mut Fields) -> Result<R, String> {
    R::take(["after_fid", "after_mid", "after_instance"], fields)
}

/// A row of a table; the one before it has other names.
trait Row: Sized {
    fn take(names: [&'static str; 3], fields: &mut Fields) -> Result<Self, String>;
}

impl Row for FolderRow {
    fn take([fid, ..]: [&'static str; 3], fields: &mut Fields) -> Result<FolderRow, String> {
        Ok(FolderRow { folder: FolderId::from_u64(fields.number(fid)?.unwrap_or_default()) })
    }
}

impl Row for MessageRow {
    fn take([fid, mid, instance]: [&'static str; 3], fields: &mut Fields) -> Result<MessageRow, String> {
        Ok(MessageRow {
            folder: FolderId::from_u64(fields.number(fid)?.unwrap_or_default()),
            message: MessageId::from_u64(fields.number(mid)?.unwrap_or_default()),
            instance: fields.number(instance)?.unwrap_or_default(),
        })
    }
}

fn data(fields: &mut Fields) -> Result<Vec<u8>, String> {
    let text = fields.string("data")?.unwrap_or_default();
    hex::decode(&text).map_err(|error| format!("{}: {error}", fields.place("data")))
}
