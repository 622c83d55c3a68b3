//! An event on the wire: one flat map, absent where nothing is to be said. Flat, so that an unknown kind keeps
//! its name and an event of a known kind is read without a second pass over a tagged value.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::msgpack::{Text, bounded};
use crate::event::{Event, EventKind, Mailbox, NewMessage, ResyncReason, Transfer, UidSet};

/// The most flags or keywords of one event: IMAP servers allow far fewer.
const MAX_FLAGS: usize = 1024;

#[derive(Serialize, Deserialize)]
pub(super) struct EventMap<'a> {
    id: Uuid,
    #[serde(default)]
    ts: u64,
    #[serde(default, borrow)]
    user: Text<'a>,
    #[serde(borrow)]
    kind: Text<'a>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    mb: Option<MailboxMap<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uv: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    msgs: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unseen: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ord: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uids: Option<Cow<'a, UidSet>>,
    #[serde(default, with = "flags", skip_serializing_if = "<[String]>::is_empty")]
    fl: Cow<'a, [String]>,
    #[serde(default, with = "flags", skip_serializing_if = "<[String]>::is_empty")]
    kw: Cow<'a, [String]>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    from: Option<Text<'a>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    subj: Option<Text<'a>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    mid: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    be: Option<Text<'a>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    name: Option<Text<'a>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    omb: Option<MailboxMap<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ouids: Option<Cow<'a, UidSet>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ouv: Option<u32>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    why: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct MailboxMap<'a> {
    #[serde(borrow)]
    n: Text<'a>,
    s: char,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    sn: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ls: Option<char>,
}

/// Flags and keywords, bounded both ways: a batch with more of them would be refused whole.
mod flags {
    use super::{Cow, MAX_FLAGS, Serialize, bounded};
    use serde::{Deserializer, Serializer, ser::Error as _};

    pub(super) fn serialize<S: Serializer>(flags: &[String], serializer: S) -> Result<S::Ok, S::Error> {
        match flags.len() > MAX_FLAGS {
            true => Err(S::Error::custom(format_args!("more than {MAX_FLAGS} flags or keywords"))),
            false => flags.serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Cow<'static, [String]>, D::Error> {
        bounded::<MAX_FLAGS, String, D>(deserializer).map(Cow::Owned)
    }
}

impl<'a> From<&'a Mailbox> for MailboxMap<'a> {
    fn from(mailbox: &'a Mailbox) -> MailboxMap<'a> {
        // The storage's pair is left out where it says the same again.
        MailboxMap {
            n: Text::from(mailbox.name.as_str()),
            s: mailbox.separator,
            sn: (mailbox.storage_name != mailbox.name).then_some(Text::from(mailbox.storage_name.as_str())),
            ls: (mailbox.list_separator != mailbox.separator).then_some(mailbox.list_separator),
        }
    }
}

impl From<MailboxMap<'_>> for Mailbox {
    fn from(map: MailboxMap<'_>) -> Mailbox {
        let name = map.n.into_owned();
        Mailbox {
            separator: map.s,
            storage_name: map.sn.map_or_else(|| name.clone(), Text::into_owned),
            list_separator: map.ls.unwrap_or(map.s),
            name,
        }
    }
}

impl<'a> From<&'a Event> for EventMap<'a> {
    fn from(event: &'a Event) -> EventMap<'a> {
        let mut map = EventMap {
            id: event.id,
            ts: event.time_us,
            user: Text::from(event.user.as_str()),
            kind: Text::from(event.kind.name()),
            mb: event.mailbox.as_ref().map(MailboxMap::from),
            uv: event.uidvalidity,
            msgs: event.messages,
            unseen: event.unseen,
            ord: event.order,
            uids: None,
            fl: Cow::Borrowed(&[]),
            kw: Cow::Borrowed(&[]),
            from: None,
            subj: None,
            mid: None,
            size: None,
            be: None,
            name: None,
            omb: None,
            ouids: None,
            ouv: None,
            why: None,
            lost: None,
        };
        match &event.kind {
            EventKind::MessageNew(message) | EventKind::MessageAppend(message) => map.set_message(message),
            EventKind::MessageCopy(transfer) | EventKind::MessageMove(transfer) => {
                map.uids = Some(Cow::Borrowed(&transfer.uids));
                map.omb = Some(MailboxMap::from(&transfer.old));
                map.ouids = (!transfer.old_uids.is_empty()).then_some(Cow::Borrowed(&transfer.old_uids));
                map.ouv = transfer.old_uidvalidity;
                map.fl = Cow::Borrowed(&transfer.flags);
                map.kw = Cow::Borrowed(&transfer.keywords);
            }
            EventKind::MessageRead { uids }
            | EventKind::MessageTrash { uids }
            | EventKind::MessageExpunge { uids } => map.uids = Some(Cow::Borrowed(uids)),
            EventKind::FlagsSet { uids, flags, keywords }
            | EventKind::FlagsClear { uids, flags, keywords } => {
                map.uids = Some(Cow::Borrowed(uids));
                map.fl = Cow::Borrowed(flags);
                map.kw = Cow::Borrowed(keywords);
            }
            EventKind::MailboxRename { old } => map.omb = Some(MailboxMap::from(old)),
            EventKind::Resync { reason, missed } => {
                map.why = Some(Text::from(reason.name()));
                map.lost = Some(*missed);
            }
            EventKind::MailboxCreate
            | EventKind::MailboxDelete
            | EventKind::MailboxSubscribe
            | EventKind::MailboxUnsubscribe
            | EventKind::Unknown { .. } => {}
        }
        map
    }
}

fn borrowed(text: &Option<String>) -> Option<Text<'_>> {
    text.as_deref().map(Text::from)
}

fn owned(text: Option<Text<'_>>) -> Option<String> {
    text.map(Text::into_owned)
}

impl<'a> EventMap<'a> {
    fn set_message(&mut self, message: &'a NewMessage) {
        self.uids = message.uid.map(|uid| Cow::Owned(UidSet::from_iter([uid])));
        self.fl = Cow::Borrowed(&message.flags);
        self.kw = Cow::Borrowed(&message.keywords);
        self.from = borrowed(&message.from);
        self.subj = borrowed(&message.subject);
        self.mid = borrowed(&message.message_id);
        self.size = message.size;
        self.be = borrowed(&message.backend);
        self.name = borrowed(&message.name);
    }

    /// The event, or `None` where a field is missing without which its kind says nothing.
    pub(super) fn into_event(mut self) -> Option<Event> {
        let mailbox = self.mb.take().map(Mailbox::from);
        let kind = self.take_kind()?;
        if mailbox.is_none() && !matches!(kind, EventKind::Resync { .. } | EventKind::Unknown { .. }) {
            return None;
        }
        Some(Event {
            id: self.id,
            time_us: self.ts,
            user: self.user.into_owned(),
            mailbox,
            uidvalidity: self.uv,
            messages: self.msgs,
            unseen: self.unseen,
            order: self.ord,
            kind,
        })
    }

    fn take_kind(&mut self) -> Option<EventKind> {
        Some(match &*self.kind.0 {
            "MessageNew" => EventKind::MessageNew(self.take_message()),
            "MessageAppend" => EventKind::MessageAppend(self.take_message()),
            "MessageCopy" => EventKind::MessageCopy(self.take_transfer()?),
            "MessageMove" => EventKind::MessageMove(self.take_transfer()?),
            "MessageRead" => EventKind::MessageRead { uids: self.take_uids()? },
            "MessageTrash" => EventKind::MessageTrash { uids: self.take_uids()? },
            "MessageExpunge" => EventKind::MessageExpunge { uids: self.take_uids()? },
            "FlagsSet" => EventKind::FlagsSet {
                uids: self.take_uids()?,
                flags: std::mem::take(&mut self.fl).into_owned(),
                keywords: std::mem::take(&mut self.kw).into_owned(),
            },
            "FlagsClear" => EventKind::FlagsClear {
                uids: self.take_uids()?,
                flags: std::mem::take(&mut self.fl).into_owned(),
                keywords: std::mem::take(&mut self.kw).into_owned(),
            },
            "MailboxCreate" => EventKind::MailboxCreate,
            "MailboxDelete" => EventKind::MailboxDelete,
            "MailboxRename" => EventKind::MailboxRename { old: self.omb.take()?.into() },
            "MailboxSubscribe" => EventKind::MailboxSubscribe,
            "MailboxUnsubscribe" => EventKind::MailboxUnsubscribe,
            "Resync" => EventKind::Resync {
                reason: ResyncReason::by_name(self.why.as_ref().map_or("", |why| &why.0)),
                missed: self.lost.unwrap_or(0),
            },
            name => EventKind::Unknown { name: name.to_owned() },
        })
    }

    fn take_uids(&mut self) -> Option<UidSet> {
        self.uids.take().map(Cow::into_owned)
    }

    fn take_transfer(&mut self) -> Option<Transfer> {
        Some(Transfer {
            uids: self.take_uids()?,
            old: self.omb.take()?.into(),
            old_uids: self.ouids.take().map(Cow::into_owned).unwrap_or_default(),
            old_uidvalidity: self.ouv,
            flags: std::mem::take(&mut self.fl).into_owned(),
            keywords: std::mem::take(&mut self.kw).into_owned(),
        })
    }

    fn take_message(&mut self) -> NewMessage {
        NewMessage {
            uid: self.take_uids().and_then(|uids| uids.iter().next()),
            flags: std::mem::take(&mut self.fl).into_owned(),
            keywords: std::mem::take(&mut self.kw).into_owned(),
            from: owned(self.from.take()),
            subject: owned(self.subj.take()),
            message_id: owned(self.mid.take()),
            size: self.size,
            backend: owned(self.be.take()),
            name: owned(self.name.take()),
        }
    }
}
