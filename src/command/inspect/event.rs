//! Native batches of events.

use jiff::Timestamp;
use ocbus::wire::native::{Batch, DecodeError, VERSION};
use ocbus::wire::{NewMessage, ResyncReason, Transfer, UidSet};
use ocbus::{Event, EventKind, Mailbox, now_us};
use serde::Serialize;
use uuid::Uuid;

use super::fields::Fields;
use crate::command::event_json::EventJson;
use crate::command::output;

/// The fields of an event that are read, in the order in which they are printed.
const FIELDS: [&str; 32] = [
    "id",
    "time",
    "time_us",
    "received_us",
    "user",
    "kind",
    "mailbox",
    "separator",
    "storage_name",
    "list_separator",
    "uidvalidity",
    "uids",
    "uid",
    "flags",
    "keywords",
    "from",
    "subject",
    "message_id",
    "size",
    "messages",
    "unseen",
    "order",
    "old_mailbox",
    "old_separator",
    "old_storage_name",
    "old_list_separator",
    "old_uids",
    "old_uidvalidity",
    "backend",
    "name",
    "reason",
    "missed",
];

#[derive(Serialize)]
struct BatchJson<'a> {
    v: u32,
    events: Vec<EventJson<'a>>,
    skipped: usize,
}

pub(super) fn json(octets: &[u8]) -> Result<String, String> {
    let batch = Batch::decode(octets).map_err(|error| match error {
        // These say it themselves.
        DecodeError::Malformed { .. } | DecodeError::Trailing { .. } => error.to_string(),
        other => format!("at octet {}: {other}", other.offset()),
    })?;
    let events = batch.events.iter().map(|event| EventJson::new(event, None)).collect();
    let json = BatchJson { v: VERSION, events, skipped: batch.skipped };
    serde_json::to_string(&json).map_err(|error| error.to_string())
}

pub(super) fn octets(json: &str) -> Result<Vec<u8>, String> {
    let mut fields = Fields::parse(json)?;
    let version = fields.number("v")?.unwrap_or(VERSION);
    if version != VERSION {
        return Err(format!("v: {version}: expected {VERSION}"));
    }
    // Events that a reader could not make sense of cannot be written again.
    fields.ignore(&["skipped"]);
    let objects = fields.objects("events")?;
    fields.finish(&["v", "events", "skipped"])?;
    let mut batch = Batch::new();
    for (at, object) in objects.into_iter().enumerate() {
        match batch.push(&event(object)?) {
            Ok(true) => {}
            Ok(false) => return Err(format!("events[{at}]: the batch is full: expected {at} events in it")),
            Err(error) => return Err(format!("events[{at}]: {error}")),
        }
    }
    Ok(batch.encode())
}

fn event(mut fields: Fields) -> Result<Event, String> {
    fields.ignore(&["received_us"]);
    let id = match fields.string("id")? {
        Some(id) => {
            Uuid::try_parse(&id).map_err(|error| format!("{}: {id:?}: {error}", fields.place("id")))?
        }
        None => Uuid::now_v7(),
    };
    let time_us = time(&mut fields)?;
    let user = fields.string("user")?.unwrap_or_default();
    let name = fields.string("kind")?;
    let name = fields.needed("kind", name)?;
    let mailbox = mailbox(&mut fields, "")?;
    let uidvalidity = fields.number("uidvalidity")?;
    let (messages, unseen) = (fields.number("messages")?, fields.number("unseen")?);
    let order = fields.number("order")?;
    let kind = kind(&mut fields, &name)?;
    let place = fields.place("");
    let at = place.trim_end_matches('.');
    let known = !matches!(kind, EventKind::Unknown { .. });
    if mailbox.is_none() && known && !matches!(kind, EventKind::Resync { .. }) {
        return Err(format!("{place}mailbox: missing: {name} needs it"));
    }
    // What is left of the known fields is what this kind could not use.
    if let Some(field) = fields.names().into_iter().find(|field| FIELDS.contains(&field.as_str())) {
        return Err(format!("{place}{field}: {name} has no such field"));
    }
    fields.ignore(&FIELDS);
    fields.finish(&FIELDS)?;
    let event = Event { id, time_us, user, mailbox, uidvalidity, messages, unseen, order, kind };
    if !known {
        output::complain(&format!("warning: event: {at}: kind {name:?} is none that this ocbus knows"));
    }
    Ok(event)
}

/// `time_us`, or `time`, or now. Both must agree: whoever edits one shall not be left with the other.
fn time(fields: &mut Fields) -> Result<u64, String> {
    let (place, number) = (fields.place("time"), fields.number::<u64>("time_us")?);
    let Some(text) = fields.string("time")? else { return Ok(number.unwrap_or_else(now_us)) };
    let wrong =
        || format!("{place}: {text:?}: expected RFC 3339 from 1970 on, as in 2026-01-05T10:00:00.000000Z");
    let parsed: Timestamp = text.parse().map_err(|_| wrong())?;
    let parsed = u64::try_from(parsed.as_microsecond()).map_err(|_| wrong())?;
    match number {
        Some(number) if number != parsed => {
            Err(format!("{place}: {text:?} is {parsed} us, but time_us is {number}: expected one time"))
        }
        _ => Ok(parsed),
    }
}

/// A mailbox in its fields, whose names begin with `prefix`.
fn mailbox(fields: &mut Fields, prefix: &str) -> Result<Option<Mailbox>, String> {
    let name = |rest: &str| format!("{prefix}{rest}");
    let Some(vname) = fields.string(&name("mailbox"))? else { return Ok(None) };
    let mut mailbox = Mailbox::new(vname, fields.character(&name("separator"))?.unwrap_or('/'));
    if let Some(storage_name) = fields.string(&name("storage_name"))? {
        mailbox.storage_name = storage_name;
    }
    if let Some(list_separator) = fields.character(&name("list_separator"))? {
        mailbox.list_separator = list_separator;
    }
    Ok(Some(mailbox))
}

fn kind(fields: &mut Fields, name: &str) -> Result<EventKind, String> {
    Ok(match name {
        "MessageNew" => EventKind::MessageNew(message(fields)?),
        "MessageAppend" => EventKind::MessageAppend(message(fields)?),
        "MessageCopy" => EventKind::MessageCopy(transfer(fields)?),
        "MessageMove" => EventKind::MessageMove(transfer(fields)?),
        "MessageRead" => EventKind::MessageRead { uids: uids_needed(fields)? },
        "MessageTrash" => EventKind::MessageTrash { uids: uids_needed(fields)? },
        "MessageExpunge" => EventKind::MessageExpunge { uids: uids_needed(fields)? },
        "FlagsSet" => EventKind::FlagsSet {
            uids: uids_needed(fields)?,
            flags: fields.strings("flags")?,
            keywords: fields.strings("keywords")?,
        },
        "FlagsClear" => EventKind::FlagsClear {
            uids: uids_needed(fields)?,
            flags: fields.strings("flags")?,
            keywords: fields.strings("keywords")?,
        },
        "MailboxCreate" => EventKind::MailboxCreate,
        "MailboxDelete" => EventKind::MailboxDelete,
        "MailboxRename" => EventKind::MailboxRename { old: old_mailbox(fields)? },
        "MailboxSubscribe" => EventKind::MailboxSubscribe,
        "MailboxUnsubscribe" => EventKind::MailboxUnsubscribe,
        "Resync" => {
            EventKind::Resync { reason: reason(fields)?, missed: fields.number("missed")?.unwrap_or(0) }
        }
        other => EventKind::Unknown { name: other.to_owned() },
    })
}

fn reason(fields: &mut Fields) -> Result<ResyncReason, String> {
    const REASONS: [ResyncReason; 5] = [
        ResyncReason::SlowSubscriber,
        ResyncReason::Unreachable,
        ResyncReason::ResolverLost,
        ResyncReason::Overflow,
        ResyncReason::Other,
    ];
    let Some(name) = fields.string("reason")? else { return Ok(ResyncReason::Other) };
    REASONS.into_iter().find(|reason| reason.name() == name).ok_or_else(|| {
        let known: Vec<&str> = REASONS.into_iter().map(ResyncReason::name).collect();
        format!("{}: {name:?}: expected {}", fields.place("reason"), known.join(", "))
    })
}

fn message(fields: &mut Fields) -> Result<NewMessage, String> {
    let set = uids(fields)?.unwrap_or_default();
    let uid = match set.ranges() {
        [] => None,
        [(first, last)] if first == last => Some(*first),
        _ => return Err(format!("{}: {set}: expected one UID", fields.place("uids"))),
    };
    Ok(NewMessage {
        uid,
        flags: fields.strings("flags")?,
        keywords: fields.strings("keywords")?,
        from: fields.string("from")?,
        subject: fields.string("subject")?,
        message_id: fields.string("message_id")?,
        size: fields.number("size")?,
        backend: fields.string("backend")?,
        name: fields.string("name")?,
    })
}

fn transfer(fields: &mut Fields) -> Result<Transfer, String> {
    let old_uids = match fields.string("old_uids")? {
        Some(text) => uid_set(&fields.place("old_uids"), &text)?,
        None => UidSet::new(),
    };
    Ok(Transfer {
        uids: uids_needed(fields)?,
        old: old_mailbox(fields)?,
        old_uids,
        old_uidvalidity: fields.number("old_uidvalidity")?,
        flags: fields.strings("flags")?,
        keywords: fields.strings("keywords")?,
    })
}

fn old_mailbox(fields: &mut Fields) -> Result<Mailbox, String> {
    let old = mailbox(fields, "old_")?;
    fields.needed("old_mailbox", old)
}

/// From `uids` or `uid`, which must agree where both stand.
fn uids(fields: &mut Fields) -> Result<Option<UidSet>, String> {
    let place = fields.place("uids");
    let set = fields.string("uids")?.map(|text| uid_set(&place, &text)).transpose()?;
    let Some(uid) = fields.number::<u32>("uid")? else { return Ok(set) };
    let one = uid_set(&fields.place("uid"), &uid.to_string())?;
    match set {
        Some(set) if set != one => Err(format!("{place}: {set}, but uid is {uid}: expected the same")),
        _ => Ok(Some(one)),
    }
}

fn uids_needed(fields: &mut Fields) -> Result<UidSet, String> {
    let set = uids(fields)?;
    fields.needed("uids", set)
}

/// `1:3,7`, as IMAP writes it.
fn uid_set(place: &str, text: &str) -> Result<UidSet, String> {
    let wrong = || format!("{place}: {text:?}: expected UIDs from 1 to {}, as in 1:3,7", u32::MAX);
    let uid = |digits: &str| {
        let decimal = digits.bytes().all(|octet| octet.is_ascii_digit());
        digits.parse().ok().filter(|&uid: &u32| decimal && uid > 0).ok_or_else(wrong)
    };
    let mut set = UidSet::new();
    for range in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = range.split_once(':').unwrap_or((range, range));
        let (first, last) = (uid(first)?, uid(last)?);
        if last < first {
            return Err(wrong());
        }
        set.push_range(first, last);
    }
    match set.ranges().len() > UidSet::MAX_RANGES {
        true => {
            Err(format!("{place}: {} ranges: expected at most {}", set.ranges().len(), UidSet::MAX_RANGES))
        }
        false => Ok(set),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uid_sets() {
        assert_eq!(uid_set("uids", "1:3,7,5").unwrap().to_string(), "1:3,7,5");
        assert!(uid_set("uids", "").unwrap().is_empty());
        for wrong in ["0", "3:1", "1:", "a", "1,,2", "+1", "4294967296", "1:*"] {
            let error = uid_set("uids", wrong).unwrap_err();
            assert!(error.starts_with(&format!("uids: {wrong:?}: expected")), "{error}");
        }
    }
}
