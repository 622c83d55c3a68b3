//! What one committed transaction delivered, and the events that it makes.

use std::time::Duration;

use ocbus_wire::{Event, EventKind, Mailbox, NewMessage};
use uuid::Uuid;

/// The longest header value that goes into an event, in octets.
pub const MAX_HEADER: usize = 512;

/// Dovecot's flags of a mail, in the order of their bits, as IMAP writes them.
const FLAGS: [(u32, &str); 5] =
    [(1, "\\Answered"), (2, "\\Flagged"), (4, "\\Deleted"), (8, "\\Seen"), (16, "\\Draft")];

/// One new mail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mail {
    /// Its UID, when Dovecot assigned one.
    pub uid: Option<u32>,
    /// Dovecot's flag bits.
    pub flags: u32,
    /// Octets as stored.
    pub size: Option<u64>,
    /// The From header, raw.
    pub from: Option<String>,
    /// The Subject header, raw.
    pub subject: Option<String>,
    /// The Message-ID header, raw.
    pub message_id: Option<String>,
}

/// What one committed transaction delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Where to.
    pub mailbox: Mailbox,
    /// Part of the budget that the shim has spent already.
    pub waited: Duration,
    /// The mailbox's UIDVALIDITY, where known.
    pub uid_validity: Option<u32>,
    /// The mails, in order.
    pub mails: Vec<Mail>,
}

impl Delivery {
    /// One event for each mail, in order.
    pub fn into_events(self, user: &str, time_us: u64) -> Vec<Event> {
        let Delivery { mailbox, waited: _, uid_validity, mails } = self;
        mails
            .into_iter()
            .map(|mail| {
                let message = NewMessage {
                    uid: mail.uid,
                    flags: flags(mail.flags),
                    from: mail.from,
                    subject: mail.subject,
                    message_id: mail.message_id,
                    size: mail.size,
                    ..NewMessage::default()
                };
                let kind = EventKind::MessageNew(message);
                // Version 7 ids of one process count up, so the order of a transaction shows in them too.
                let mut event = Event::new(Uuid::now_v7(), time_us, user, mailbox.clone(), kind);
                event.uidvalidity = uid_validity;
                event
            })
            .collect()
    }
}

fn flags(bits: u32) -> Vec<String> {
    FLAGS.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| (*name).to_owned()).collect()
}

/// Octets from outside as text: what is not UTF-8 becomes U+FFFD.
pub fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// A header value: as [`text`], cut at a character to [`MAX_HEADER`] octets.
pub fn header(octets: &[u8]) -> String {
    let mut value = text(octets);
    let cut = (0..=MAX_HEADER.min(value.len())).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
    value.truncate(cut);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_becomes_an_event() {
        let mailbox = Mailbox {
            name: "Entwürfe".to_owned(),
            separator: '/',
            storage_name: "Entw&APw-rfe".to_owned(),
            list_separator: '.',
        };
        let mail = Mail { uid: Some(7), flags: 8 | 2 | 0x20, size: Some(12), ..Mail::default() };
        let mails = vec![mail, Mail { uid: Some(8), ..Mail::default() }];
        let delivery =
            Delivery { mailbox: mailbox.clone(), waited: Duration::ZERO, uid_validity: Some(3), mails };
        let events = delivery.into_events("bob", 5);
        assert_eq!(events.len(), 2);
        assert!(events[0].id < events[1].id);
        assert_eq!((events[0].user.as_str(), events[0].time_us, events[0].uidvalidity), ("bob", 5, Some(3)));
        assert_eq!(events[0].mailbox, Some(mailbox));
        let EventKind::MessageNew(message) = &events[0].kind else { panic!("{events:?}") };
        assert_eq!(message.flags, ["\\Flagged", "\\Seen"], "MAIL_RECENT is no flag");
        assert_eq!((message.uid, message.size), (Some(7), Some(12)));
    }

    #[test]
    fn headers_are_cut_at_a_character() {
        assert_eq!(header(b"Hi"), "Hi");
        assert_eq!(header(b"\xff\xfe"), "\u{fffd}\u{fffd}");
        let long = header("ü".repeat(400).as_bytes());
        assert_eq!(long.len(), 512);
        let odd = header(format!("x{}", "ü".repeat(400)).as_bytes());
        assert_eq!(odd.len(), 511);
    }
}
