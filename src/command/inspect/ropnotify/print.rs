//! A reply as JSON.

use ocbus::wire::ropnotify::{
    FolderRow, MessageClass, MessageRow, Notification, RopNotify, TableEvent, Tags,
};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::UNSPECIFIED;
use crate::command::inspect::hex;

/// A reply's fields, in the order in which they are printed.
#[derive(Default)]
pub(super) struct Object(Vec<(&'static str, Value)>);

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Object {
    pub(super) fn of(reply: &RopNotify) -> Object {
        let mut object = Object::default();
        object.put("handle", reply.handle);
        object.put("logon_id", reply.logon_id);
        object.put("flags", format!("0x{:04x}", reply.flags()));
        object.notification(&reply.notification);
        object
    }

    fn put(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.push((name, value.into()));
    }

    fn ids<const N: usize>(&mut self, ids: [(&'static str, String); N]) {
        ids.into_iter().for_each(|(name, id)| self.put(name, id));
    }

    fn tags(&mut self, tags: &Tags) {
        match tags {
            Tags::Unspecified => self.put("tags", UNSPECIFIED),
            Tags::List(tags) => {
                self.put("tags", tags.iter().map(|tag| format!("0x{tag:08x}")).collect::<Vec<_>>());
            }
        }
    }

    fn class(&mut self, message_flags: u32, class: &MessageClass) {
        self.put("message_flags", message_flags);
        self.put("message_class", class.name.as_str());
        self.put("unicode", class.unicode);
    }

    fn notification(&mut self, notification: &Notification) {
        self.put("kind", kind_name(notification));
        match notification {
            Notification::NewMail { folder, message, message_flags, class } => {
                self.ids([("fid", folder.to_string()), ("mid", message.to_string())]);
                self.class(*message_flags, class);
            }
            Notification::NewMailWithoutMessage { folder, message_flags, class } => {
                self.ids([("fid", folder.to_string())]);
                self.class(*message_flags, class);
            }
            Notification::MessageCreated { folder, message, search_folder, tags } => {
                self.ids([("fid", folder.to_string()), ("mid", message.to_string())]);
                search_folder.iter().for_each(|search| self.put("search_fid", search.to_string()));
                self.tags(tags);
            }
            Notification::MessageDeleted { folder, message, search_folder } => {
                self.ids([("fid", folder.to_string()), ("mid", message.to_string())]);
                search_folder.iter().for_each(|search| self.put("search_fid", search.to_string()));
            }
            Notification::MessageModified { folder, message, in_search_folder, tags } => {
                self.ids([("fid", folder.to_string()), ("mid", message.to_string())]);
                self.put("in_search_folder", *in_search_folder);
                self.tags(tags);
            }
            Notification::MessageMoved { folder, message, old_folder, old_message }
            | Notification::MessageCopied { folder, message, old_folder, old_message } => self.ids([
                ("fid", folder.to_string()),
                ("mid", message.to_string()),
                ("old_fid", old_folder.to_string()),
                ("old_mid", old_message.to_string()),
            ]),
            Notification::FolderCreated { folder, parent, tags } => {
                self.ids([("fid", folder.to_string()), ("parent_fid", parent.to_string())]);
                self.tags(tags);
            }
            Notification::FolderDeleted { folder, parent } => {
                self.ids([("fid", folder.to_string()), ("parent_fid", parent.to_string())]);
            }
            Notification::FolderModified { folder, tags, total, unread } => {
                self.ids([("fid", folder.to_string())]);
                self.tags(tags);
                total.iter().for_each(|total| self.put("total", *total));
                unread.iter().for_each(|unread| self.put("unread", *unread));
            }
            Notification::FolderMoved { folder, parent, old_folder, old_parent }
            | Notification::FolderCopied { folder, parent, old_folder, old_parent } => self.ids([
                ("fid", folder.to_string()),
                ("parent_fid", parent.to_string()),
                ("old_fid", old_folder.to_string()),
                ("old_parent_fid", old_parent.to_string()),
            ]),
            Notification::SearchComplete { folder } => self.ids([("fid", folder.to_string())]),
            Notification::HierarchyTable(event) => self.event(event),
            Notification::ContentsTable(event) | Notification::SearchTable(event) => self.event(event),
            // One that is newer than this command.
            _ => {}
        }
    }

    fn event<R: Row>(&mut self, event: &TableEvent<R>) {
        self.put("event", event_name(event));
        match event {
            TableEvent::Changed | TableEvent::RestrictionChanged => {}
            TableEvent::RowDeleted { row } => row.put(["fid", "mid", "instance"], self),
            TableEvent::RowAdded { row, after, data } | TableEvent::RowModified { row, after, data } => {
                row.put(["fid", "mid", "instance"], self);
                after.put(["after_fid", "after_mid", "after_instance"], self);
                self.put("data", hex::encode(data));
            }
        }
    }
}

fn kind_name(notification: &Notification) -> &'static str {
    match notification {
        Notification::NewMail { .. } => "NewMail",
        Notification::NewMailWithoutMessage { .. } => "NewMailWithoutMessage",
        Notification::MessageCreated { .. } => "MessageCreated",
        Notification::MessageDeleted { .. } => "MessageDeleted",
        Notification::MessageModified { .. } => "MessageModified",
        Notification::MessageMoved { .. } => "MessageMoved",
        Notification::MessageCopied { .. } => "MessageCopied",
        Notification::FolderCreated { .. } => "FolderCreated",
        Notification::FolderDeleted { .. } => "FolderDeleted",
        Notification::FolderModified { .. } => "FolderModified",
        Notification::FolderMoved { .. } => "FolderMoved",
        Notification::FolderCopied { .. } => "FolderCopied",
        Notification::SearchComplete { .. } => "SearchComplete",
        Notification::HierarchyTable(_) => "HierarchyTable",
        Notification::ContentsTable(_) => "ContentsTable",
        Notification::SearchTable(_) => "SearchTable",
        _ => "Unknown",
    }
}

fn event_name<R>(event: &TableEvent<R>) -> &'static str {
    match event {
        TableEvent::Changed => "Changed",
        TableEvent::RowAdded { .. } => "RowAdded",
        TableEvent::RowDeleted { .. } => "RowDeleted",
        TableEvent::RowModified { .. } => "RowModified",
        TableEvent::RestrictionChanged => "RestrictionChanged",
    }
}

/// A row of a table; the one before it has other names.
trait Row {
    fn put(&self, names: [&'static str; 3], object: &mut Object);
}

impl Row for FolderRow {
    fn put(&self, [fid, ..]: [&'static str; 3], object: &mut Object) {
        object.put(fid, self.folder.to_string());
    }
}

impl Row for MessageRow {
    fn put(&self, [fid, mid, instance]: [&'static str; 3], object: &mut Object) {
        object.put(fid, self.folder.to_string());
        object.put(mid, self.message.to_string());
        object.put(instance, self.instance);
    }
}
