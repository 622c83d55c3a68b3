//! Writing one event as JSON.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::event::{Event, EventKind, Mailbox, NewMessage, Transfer, UidSet};

/// An event as one JSON object, its fields in the order in which they are printed (`docs/formats.md` says what
/// they mean). A field that an event does not have is left out.
#[derive(Debug, Serialize)]
pub struct EventJson<'a> {
    id: Uuid,
    /// RFC 3339 with microseconds; absent for times that it cannot say.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    time_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_us: Option<u64>,
    user: &'a str,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mailbox: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    separator: Option<char>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    list_separator: Option<char>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uidvalidity: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uids: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    flags: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    keywords: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unseen: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_mailbox: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_separator: Option<char>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_storage_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_list_separator: Option<char>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_uids: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_uidvalidity: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
}

impl<'a> EventJson<'a> {
    /// `received_us`: when it came here, if it came, in microseconds since the Unix epoch.
    pub fn new(event: &'a Event, received_us: Option<u64>) -> EventJson<'a> {
        let mut json = EventJson {
            id: event.id,
            time: rfc3339(event.time_us),
            time_us: event.time_us,
            received_us,
            user: &event.user,
            kind: event.kind.name(),
            mailbox: None,
            separator: None,
            storage_name: None,
            list_separator: None,
            uidvalidity: event.uidvalidity,
            uids: None,
            uid: None,
            flags: &[],
            keywords: &[],
            from: None,
            subject: None,
            message_id: None,
            size: None,
            messages: event.messages,
            unseen: event.unseen,
            order: event.order,
            old_mailbox: None,
            old_separator: None,
            old_storage_name: None,
            old_list_separator: None,
            old_uids: None,
            old_uidvalidity: None,
            backend: None,
            name: None,
            reason: None,
            missed: None,
        };
        if let Some(mailbox) = &event.mailbox {
            json.mailbox = Some(&mailbox.name);
            json.separator = Some(mailbox.separator);
            json.storage_name = Some(&mailbox.storage_name);
            json.list_separator = Some(mailbox.list_separator);
        }
        json.set_kind(&event.kind);
        json
    }

    fn set_kind(&mut self, kind: &'a EventKind) {
        match kind {
            EventKind::MessageNew(message) | EventKind::MessageAppend(message) => self.set_message(message),
            EventKind::MessageCopy(transfer) | EventKind::MessageMove(transfer) => {
                self.set_transfer(transfer)
            }
            EventKind::MessageRead { uids }
            | EventKind::MessageTrash { uids }
            | EventKind::MessageExpunge { uids } => self.set_uids(uids),
            EventKind::FlagsSet { uids, flags, keywords }
            | EventKind::FlagsClear { uids, flags, keywords } => {
                self.set_uids(uids);
                self.flags = flags;
                self.keywords = keywords;
            }
            EventKind::MailboxRename { old } => self.set_old(old),
            EventKind::Resync { reason, missed } => {
                self.reason = Some(reason.name());
                self.missed = Some(*missed);
            }
            EventKind::MailboxCreate
            | EventKind::MailboxDelete
            | EventKind::MailboxSubscribe
            | EventKind::MailboxUnsubscribe
            | EventKind::Unknown { .. } => {}
        }
    }

    fn set_uids(&mut self, uids: &UidSet) {
        self.uids = Some(uids.to_string());
        self.uid = single(uids);
    }

    fn set_old(&mut self, old: &'a Mailbox) {
        self.old_mailbox = Some(&old.name);
        self.old_separator = Some(old.separator);
        self.old_storage_name = Some(&old.storage_name);
        self.old_list_separator = Some(old.list_separator);
    }

    fn set_transfer(&mut self, transfer: &'a Transfer) {
        self.set_uids(&transfer.uids);
        self.set_old(&transfer.old);
        self.old_uids = (!transfer.old_uids.is_empty()).then(|| transfer.old_uids.to_string());
        self.old_uidvalidity = transfer.old_uidvalidity;
        self.flags = &transfer.flags;
        self.keywords = &transfer.keywords;
    }

    fn set_message(&mut self, message: &'a NewMessage) {
        self.uids = message.uid.map(|uid| uid.to_string());
        self.uid = message.uid;
        self.flags = &message.flags;
        self.keywords = &message.keywords;
        self.from = message.from.as_deref();
        self.subject = message.subject.as_deref();
        self.message_id = message.message_id.as_deref();
        self.size = message.size;
        self.backend = message.backend.as_deref();
        self.name = message.name.as_deref();
    }
}

fn single(uids: &UidSet) -> Option<u32> {
    match uids.ranges() {
        [(first, last)] if first == last => Some(*first),
        _ => None,
    }
}

/// `None` for times beyond what a calendar says.
fn rfc3339(time_us: u64) -> Option<String> {
    let time = Timestamp::from_microsecond(i64::try_from(time_us).ok()?).ok()?;
    Some(time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
}
