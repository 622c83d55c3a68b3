//! Reading one event of JSON.

use jiff::Timestamp;
use uuid::Uuid;

use super::uids::{uid_set_field, uids};
use super::{FieldError, Fields};
use crate::event::{Event, EventKind, Mailbox, NewMessage, ResyncReason, Transfer, UidSet};

/// How an event is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// What a program sent, perhaps a newer one: fields that are not known or that the kind does not use are
    /// passed over, an unknown reason of a resync is [`ResyncReason::Other`]. A kind that is not known is
    /// refused: whoever misspells it shall know.
    Tolerant,
    /// What a person wrote: whatever would be lost is refused. A kind that is not known is kept.
    Exact,
}

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

/// The event that an object says. What it does not say is made: the time is `now_us`, the id comes from `ids`.
pub fn read_event(
    mut fields: Fields,
    reading: Reading,
    now_us: u64,
    ids: &mut dyn FnMut() -> Uuid,
) -> Result<Event, FieldError> {
    fields.ignore(&["received_us"]);
    let id = match fields.string("id")? {
        Some(id) => Uuid::try_parse(&id).map_err(|error| fields.fault("id", format!("{id:?}: {error}")))?,
        None => ids(),
    };
    let time_us = time(&mut fields)?.unwrap_or(now_us);
    let user = fields.string("user")?.unwrap_or_default();
    let name = fields.string("kind")?;
    let name = fields.needed("kind", name)?;
    let mailbox = mailbox(&mut fields, "")?;
    let uidvalidity = fields.number("uidvalidity")?;
    let (messages, unseen) = (fields.number("messages")?, fields.number("unseen")?);
    let order = fields.number("order")?;
    let kind = kind(&mut fields, &name, reading)?;
    let known = !matches!(kind, EventKind::Unknown { .. });
    let resync = matches!(kind, EventKind::Resync { .. });
    if mailbox.is_none() && known && !resync {
        return Err(fields.fault("mailbox", format!("missing: {name} needs it")));
    }
    match reading {
        // Nobody listens for it.
        Reading::Tolerant if user.is_empty() && !resync => {
            return Err(fields.fault("user", format!("missing: {name} needs it")));
        }
        Reading::Tolerant => {}
        Reading::Exact => finish(fields, &name)?,
    }
    Ok(Event { id, time_us, user, mailbox, uidvalidity, messages, unseen, order, kind })
}

/// What is left of the known fields is what this kind could not use; anything else is misspelled.
fn finish(mut fields: Fields, name: &str) -> Result<(), FieldError> {
    if let Some(field) = fields.names().into_iter().find(|field| FIELDS.contains(&field.as_str())) {
        return Err(fields.fault(&field, format!("{name} has no such field")));
    }
    fields.ignore(&FIELDS);
    fields.finish(&FIELDS)
}

/// `time_us`, or `time`. Both must agree: whoever edits one shall not be left with the other.
fn time(fields: &mut Fields) -> Result<Option<u64>, FieldError> {
    let number = fields.number::<u64>("time_us")?;
    let Some(text) = fields.string("time")? else { return Ok(number) };
    let wrong = || {
        fields.fault(
            "time",
            format!("{text:?}: expected RFC 3339 from 1970 on, as in 2026-01-05T10:00:00.000000Z"),
        )
    };
    let parsed: Timestamp = text.parse().map_err(|_| wrong())?;
    let parsed = u64::try_from(parsed.as_microsecond()).map_err(|_| wrong())?;
    match number {
        Some(number) if number != parsed => {
            let problem = format!("{text:?} is {parsed} us, but time_us is {number}: expected one time");
            Err(fields.fault("time", problem))
        }
        _ => Ok(Some(parsed)),
    }
}

/// A mailbox in its fields, whose names begin with `prefix`.
fn mailbox(fields: &mut Fields, prefix: &str) -> Result<Option<Mailbox>, FieldError> {
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

fn kind(fields: &mut Fields, name: &str, reading: Reading) -> Result<EventKind, FieldError> {
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
        "Resync" => EventKind::Resync {
            reason: reason(fields, reading)?,
            missed: fields.number("missed")?.unwrap_or(0),
        },
        other => match reading {
            Reading::Exact => EventKind::Unknown { name: other.to_owned() },
            Reading::Tolerant => {
                let other = super::shown(&other.into());
                let problem = format!("{other}: expected one of docs/formats.md, as MessageNew");
                return Err(fields.fault("kind", problem));
            }
        },
    })
}

fn reason(fields: &mut Fields, reading: Reading) -> Result<ResyncReason, FieldError> {
    const REASONS: [ResyncReason; 5] = [
        ResyncReason::SlowSubscriber,
        ResyncReason::Unreachable,
        ResyncReason::ResolverLost,
        ResyncReason::Overflow,
        ResyncReason::Other,
    ];
    let Some(name) = fields.string("reason")? else { return Ok(ResyncReason::Other) };
    match REASONS.into_iter().find(|reason| reason.name() == name) {
        Some(reason) => Ok(reason),
        None if reading == Reading::Tolerant => Ok(ResyncReason::Other),
        None => {
            let known: Vec<&str> = REASONS.into_iter().map(ResyncReason::name).collect();
            Err(fields.fault("reason", format!("{name:?}: expected {}", known.join(", "))))
        }
    }
}

fn message(fields: &mut Fields) -> Result<NewMessage, FieldError> {
    let set = uids(fields)?.unwrap_or_default();
    let uid = match set.ranges() {
        [] => None,
        [(first, last)] if first == last => Some(*first),
        _ => return Err(fields.fault("uids", format!("{} UIDs: expected one UID", set.len()))),
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

fn transfer(fields: &mut Fields) -> Result<Transfer, FieldError> {
    let old_uids = uid_set_field(fields, "old_uids")?.unwrap_or_default();
    Ok(Transfer {
        uids: uids_needed(fields)?,
        old: old_mailbox(fields)?,
        old_uids,
        old_uidvalidity: fields.number("old_uidvalidity")?,
        flags: fields.strings("flags")?,
        keywords: fields.strings("keywords")?,
    })
}

fn old_mailbox(fields: &mut Fields) -> Result<Mailbox, FieldError> {
    let old = mailbox(fields, "old_")?;
    fields.needed("old_mailbox", old)
}

fn uids_needed(fields: &mut Fields) -> Result<UidSet, FieldError> {
    let set = uids(fields)?;
    fields.needed("uids", set)
}

#[cfg(test)]
mod tests {
    use super::FIELDS;

    /// The third cell of the rows names them. (`received_us` is only printed, by `ocbus watch`, whose help has it.)
    #[test]
    fn every_field_stands_in_the_table_of_events() {
        let doc = include_str!("../../../docs/formats.md");
        let begin = doc.find("| field | type | meaning | in `ocbus inspect` |");
        let table: Vec<&str> = begin
            .map(|begin| doc.split_at(begin).1)
            .into_iter()
            .flat_map(str::lines)
            .take_while(|line| line.starts_with('|'))
            .filter_map(|line| line.split('|').nth(4))
            .collect();
        for field in FIELDS.iter().filter(|field| **field != "received_us") {
            let name = format!("`{field}`");
            assert!(table.iter().any(|cell| cell.contains(&name)), "{field}");
        }
    }
}
