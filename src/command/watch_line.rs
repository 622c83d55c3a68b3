//! An event as a line for people.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ocbus::wire::{NewMessage, UidSet};
use ocbus::{Event, EventKind, Mailbox};

use super::output::{DIM, STRONG, UNSURE, escape, paint};

/// More than that of a sender or a subject is not printed.
const MAX_TEXT: usize = 120;

/// What happened, without when: `bob  MessageNew  INBOX  uid 7  from Alice  "Hello"`.
pub(super) fn what(event: &Event) -> String {
    let resync = matches!(event.kind, EventKind::Resync { .. });
    let kind = paint(if resync { UNSURE } else { STRONG }, &escape(event.kind.name()));
    let user = if event.user.is_empty() { "(every user)".to_owned() } else { escape(&event.user) };
    let mut parts = vec![user, kind];
    parts.extend(event.mailbox.as_ref().map(mailbox));
    match &event.kind {
        EventKind::MessageNew(message) | EventKind::MessageAppend(message) => {
            parts.extend(new_message(message))
        }
        EventKind::MessageCopy(transfer) | EventKind::MessageMove(transfer) => {
            parts.push(uids(&transfer.uids));
            parts.push(format!("from {} {}", mailbox(&transfer.old), uids(&transfer.old_uids)));
        }
        EventKind::MessageRead { uids: set }
        | EventKind::MessageTrash { uids: set }
        | EventKind::MessageExpunge { uids: set } => parts.push(uids(set)),
        EventKind::FlagsSet { uids: set, flags, keywords }
        | EventKind::FlagsClear { uids: set, flags, keywords } => {
            parts.push(uids(set));
            parts.push(escape(&[flags.as_slice(), keywords].concat().join(" ")));
        }
        EventKind::MailboxRename { old } => parts.push(format!("was {}", mailbox(old))),
        EventKind::Resync { reason, missed: 0 } => parts.push(format!("look again: {}", reason.name())),
        EventKind::Resync { reason, missed } => {
            parts.push(format!("look again: {}, {missed} missed", reason.name()));
        }
        _ => {}
    }
    parts.join("  ")
}

/// The local time, what happened, and how long it took to come here.
pub(super) fn line(event: &Event, latency_us: Option<i64>) -> String {
    let time = timestamp(event.time_us).map_or_else(
        || "(no time)".to_owned(),
        |time| time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
    );
    let latency = latency_us.map(|latency| paint(DIM, &format!("  {}", milliseconds(latency))));
    format!("{}  {}{}", paint(DIM, &time), what(event), latency.unwrap_or_default())
}

/// How long after the event it came; negative where clocks differ.
pub(super) fn latency_us(event: &Event, received_us: u64) -> i64 {
    let clamp = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
    clamp(received_us).saturating_sub(clamp(event.time_us))
}

/// `+3.2 ms`
pub(super) fn milliseconds(us: i64) -> String {
    let sign = if us < 0 { '-' } else { '+' };
    let us = us.unsigned_abs();
    format!("{sign}{}.{} ms", us / 1000, us % 1000 / 100)
}

fn mailbox(mailbox: &Mailbox) -> String {
    escape(&mailbox.name)
}

fn uids(uids: &UidSet) -> String {
    let plural = if uids.len() == 1 { "" } else { "s" };
    // A set can be as long as a batch: the beginning says enough.
    short(&format!("uid{plural} {uids}"))
}

fn new_message(message: &NewMessage) -> Vec<String> {
    let mut parts = Vec::new();
    match (message.uid, &message.name) {
        (Some(uid), _) => parts.push(format!("uid {uid}")),
        (None, Some(name)) => parts.push(format!("message {}", short(&escape(name)))),
        (None, None) => {}
    }
    parts.extend(message.from.as_deref().map(|from| format!("from {}", short(&escape(from)))));
    parts.extend(message.subject.as_deref().map(|subject| format!("\"{}\"", short(&escape(subject)))));
    parts
}

fn short(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// A time as the events have it; `None` where it is beyond what a calendar says.
fn timestamp(time_us: u64) -> Option<Timestamp> {
    Timestamp::from_microsecond(i64::try_from(time_us).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_subject_cannot_act_on_the_terminal() {
        let message = NewMessage {
            uid: Some(7),
            from: Some("Alice <a@x>".to_owned()),
            subject: Some("a\x1b]0;b\x07\nc".to_owned()),
            ..NewMessage::default()
        };
        let mailbox = Mailbox::new("Entwürfe", '/');
        let event = Event::new(Uuid::nil(), 1, "bob", mailbox, EventKind::MessageNew(message));
        let line = anstream::adapter::strip_str(&line(&event, Some(-1234))).to_string();
        let (_, what) = line.split_once("  ").unwrap();
        assert_eq!(
            what,
            "bob  MessageNew  Entwürfe  uid 7  from Alice <a@x>  \"a\\u{1b}]0;b\\u{7}\\nc\"  -1.2 ms"
        );
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(short(&"ü".repeat(121)), format!("{}...", "ü".repeat(120)));
        assert_eq!(milliseconds(3_250), "+3.2 ms");
    }
}
