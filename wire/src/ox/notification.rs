use serde_json::Value;
use uuid::Uuid;

use super::OxError;
use super::header;
use crate::event::{Event, EventKind, Mailbox, NewMessage, UidSet};
use crate::json::{FieldError, Fields, JsonError, number, text};

/// The largest body, in octets: Dovecot's have some hundred, but long lists of UIDs are long.
const MAX_OCTETS: usize = 256 * 1024;

/// The longest user or folder, in octets: Dovecot's own limits are below.
const MAX_NAME_OCTETS: usize = 4096;

/// The most new messages in one body: each is an event of its own.
const MAX_NEW_MESSAGES: u64 = 1024;

/// The most flags or keywords, as in a native batch.
const MAX_FLAGS: usize = 1024;

/// The folder of a notification that names none: old drivers tell of the INBOX only.
const INBOX: &str = "INBOX";

/// One push of Dovecot's OX driver, or of a script that sends a superset of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OxNotification {
    /// Whom it is for: the login name, or with `user_from_metadata` what was registered (`12@3`).
    pub user: String,
    /// What happened, in ocbus's spelling (`MessageNew`).
    pub event: OxEvent,
    /// The mailbox, in UTF-8; `INBOX` if none is named.
    pub folder: String,
    /// The mailbox's UIDVALIDITY.
    pub uidvalidity: Option<u32>,
    /// The messages; empty when unknown.
    pub uids: UidSet,
    /// The From header as people read it.
    pub from: Option<String>,
    /// The Subject header as people read it.
    pub subject: Option<String>,
    /// Messages without `\Seen` in the mailbox.
    pub unseen: Option<u32>,
    /// Messages in the mailbox.
    pub messages: Option<u32>,
    /// System flags: of the message, or those that changed.
    pub flags: Vec<String>,
    /// Keywords, likewise.
    pub keywords: Vec<String>,
}

/// What a notification tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OxEvent {
    /// A message was delivered: all that Dovecot's own driver tells.
    MessageNew,
    /// A client added a message.
    MessageAppend,
    /// `\Seen` was set.
    MessageRead,
    /// `\Deleted` was set.
    MessageTrash,
    /// Messages are gone.
    MessageExpunge,
    /// Flags or keywords were set.
    FlagsSet,
    /// Flags or keywords were removed.
    FlagsClear,
    /// The mailbox was made.
    MailboxCreate,
    /// The mailbox is gone.
    MailboxDelete,
    /// The user subscribed to the mailbox.
    MailboxSubscribe,
    /// The user unsubscribed from the mailbox.
    MailboxUnsubscribe,
}

/// What two requests have in common if one is the other again: Dovecot sends a request a second time when its
/// connection breaks before the answer.
///
/// Only for what can happen once: the n-th message of a mailbox comes, and goes, once; its flags change often.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepeatKey {
    user: String,
    event: OxEvent,
    folder: String,
    uidvalidity: u32,
    uids: UidSet,
}

impl OxEvent {
    const ALL: [OxEvent; 11] = [
        OxEvent::MessageNew,
        OxEvent::MessageAppend,
        OxEvent::MessageRead,
        OxEvent::MessageTrash,
        OxEvent::MessageExpunge,
        OxEvent::FlagsSet,
        OxEvent::FlagsClear,
        OxEvent::MailboxCreate,
        OxEvent::MailboxDelete,
        OxEvent::MailboxSubscribe,
        OxEvent::MailboxUnsubscribe,
    ];

    /// Its name: RFC 5423's. Read in upper or lower case: Dovecot writes `messageNew`, its documents `MessageNew`.
    pub fn name(self) -> &'static str {
        match self {
            OxEvent::MessageNew => "MessageNew",
            OxEvent::MessageAppend => "MessageAppend",
            OxEvent::MessageRead => "MessageRead",
            OxEvent::MessageTrash => "MessageTrash",
            OxEvent::MessageExpunge => "MessageExpunge",
            OxEvent::FlagsSet => "FlagsSet",
            OxEvent::FlagsClear => "FlagsClear",
            OxEvent::MailboxCreate => "MailboxCreate",
            OxEvent::MailboxDelete => "MailboxDelete",
            OxEvent::MailboxSubscribe => "MailboxSubscribe",
            OxEvent::MailboxUnsubscribe => "MailboxUnsubscribe",
        }
    }

    fn by_name(name: &str) -> Option<OxEvent> {
        OxEvent::ALL.into_iter().find(|event| event.name().eq_ignore_ascii_case(name))
    }
}

impl OxNotification {
    /// Reads a body, at most 256 KiB of JSON in UTF-8. Only `user` is needed; fields that are not known are
    /// passed over.
    pub fn decode(octets: &[u8]) -> Result<OxNotification, OxError> {
        let text = text(octets, MAX_OCTETS)?;
        let value: Value = serde_json::from_str(text).map_err(|error| JsonError::malformed(text, &error))?;
        let mut fields = Fields::of(String::new(), value)?;
        let user = name(&mut fields, "user")?;
        let event = match fields.string("event")? {
            None => OxEvent::MessageNew,
            Some(event) => OxEvent::by_name(&event).ok_or_else(|| {
                let known: Vec<&str> = OxEvent::ALL.into_iter().map(OxEvent::name).collect();
                let event = crate::json::shown(&event.into());
                fields.fault("event", format!("{event}: expected {}", known.join(", ")))
            })?,
        };
        let notification = OxNotification {
            user: fields.needed("user", user)?,
            event,
            folder: name(&mut fields, "folder")?.unwrap_or_else(|| INBOX.to_owned()),
            uidvalidity: fields.number("imap-uidvalidity")?.filter(|&uidvalidity| uidvalidity > 0),
            uids: uids(&mut fields)?,
            from: fields.string("from")?.map(|from| header::shown(&from)),
            subject: fields.string("subject")?.map(|subject| header::shown(&subject)),
            unseen: fields.number("unseen")?,
            messages: fields.number("messages")?,
            flags: flags(&mut fields, "flags")?,
            keywords: flags(&mut fields, "keywords")?,
        };
        notification.check(&fields)?;
        Ok(notification)
    }

    fn check(&self, fields: &Fields) -> Result<(), FieldError> {
        let new = matches!(self.event, OxEvent::MessageNew | OxEvent::MessageAppend);
        if new && self.uids.len() > MAX_NEW_MESSAGES {
            let problem = format!("{} new messages: expected at most {MAX_NEW_MESSAGES}", self.uids.len());
            return Err(fields.fault("imap-uid", problem));
        }
        let changed = matches!(
            self.event,
            OxEvent::MessageRead
                | OxEvent::MessageTrash
                | OxEvent::MessageExpunge
                | OxEvent::FlagsSet
                | OxEvent::FlagsClear
        );
        if changed && self.uids.is_empty() {
            return Err(fields.fault("imap-uid", format!("missing: {} needs it", self.event.name())));
        }
        Ok(())
    }

    /// What tells a request that came again from a new one; `None` where a second one like it may be new.
    pub fn repeat_key(&self) -> Option<RepeatKey> {
        let once =
            matches!(self.event, OxEvent::MessageNew | OxEvent::MessageAppend | OxEvent::MessageExpunge);
        let uidvalidity = self.uidvalidity.filter(|_| once && !self.uids.is_empty())?;
        Some(RepeatKey {
            user: self.user.clone(),
            event: self.event,
            folder: self.folder.clone(),
            uidvalidity,
            uids: self.uids.clone(),
        })
    }

    /// The events that it tells, of the mailbox of `cn`: one for each new message; `\Seen` and `\Deleted` that
    /// were set have events of their own. None, if no flag has changed.
    pub fn into_events(
        self,
        cn: &str,
        now_us: u64,
        ids: &mut dyn FnMut() -> Uuid,
    ) -> Result<Vec<Event>, OxError> {
        let mut kinds = Vec::new();
        let OxNotification { uids, from, subject, mut flags, keywords, .. } = self;
        match self.event {
            OxEvent::MessageNew | OxEvent::MessageAppend => {
                let message = NewMessage { flags, keywords, from, subject, ..NewMessage::default() };
                let kind = match self.event {
                    OxEvent::MessageNew => EventKind::MessageNew,
                    _ => EventKind::MessageAppend,
                };
                let mut uids = uids.iter().map(Some).collect::<Vec<_>>();
                // A message whose UID is not known is a new message all the same.
                if uids.is_empty() {
                    uids.push(None);
                }
                kinds.extend(uids.into_iter().map(|uid| kind(NewMessage { uid, ..message.clone() })));
            }
            OxEvent::MessageRead => kinds.push(EventKind::MessageRead { uids }),
            OxEvent::MessageTrash => kinds.push(EventKind::MessageTrash { uids }),
            OxEvent::MessageExpunge => kinds.push(EventKind::MessageExpunge { uids }),
            OxEvent::FlagsSet => {
                if removed(&mut flags, "\\Seen") {
                    kinds.push(EventKind::MessageRead { uids: uids.clone() });
                }
                if removed(&mut flags, "\\Deleted") {
                    kinds.push(EventKind::MessageTrash { uids: uids.clone() });
                }
                if !flags.is_empty() || !keywords.is_empty() {
                    kinds.push(EventKind::FlagsSet { uids, flags, keywords });
                }
            }
            OxEvent::FlagsClear if flags.is_empty() && keywords.is_empty() => {}
            OxEvent::FlagsClear => kinds.push(EventKind::FlagsClear { uids, flags, keywords }),
            OxEvent::MailboxCreate => kinds.push(EventKind::MailboxCreate),
            OxEvent::MailboxDelete => kinds.push(EventKind::MailboxDelete),
            OxEvent::MailboxSubscribe => kinds.push(EventKind::MailboxSubscribe),
            OxEvent::MailboxUnsubscribe => kinds.push(EventKind::MailboxUnsubscribe),
        }
        let mailbox = Mailbox::new(self.folder, '/');
        let event = |kind| Event {
            uidvalidity: self.uidvalidity,
            messages: self.messages,
            unseen: self.unseen,
            ..Event::new(ids(), now_us, cn, mailbox.clone(), kind)
        };
        Ok(kinds.into_iter().map(event).collect())
    }
}

fn removed(flags: &mut Vec<String>, flag: &str) -> bool {
    let before = flags.len();
    flags.retain(|one| !one.eq_ignore_ascii_case(flag));
    flags.len() < before
}

/// A name that is not empty and not endless.
fn name(fields: &mut Fields, field: &str) -> Result<Option<String>, FieldError> {
    let name = fields.string(field)?.filter(|name| !name.is_empty());
    match &name {
        Some(name) if name.len() > MAX_NAME_OCTETS => {
            Err(fields.fault(field, format!("{} octets: expected at most {MAX_NAME_OCTETS}", name.len())))
        }
        _ => Ok(name),
    }
}

fn flags(fields: &mut Fields, field: &str) -> Result<Vec<String>, FieldError> {
    // JSON libraries for Lua write an empty list as {}.
    let empty = |value: &Value| value.as_object().is_some_and(serde_json::Map::is_empty);
    let Some(value) = fields.take(field).filter(|value| !empty(value)) else { return Ok(Vec::new()) };
    let mut one = serde_json::Map::new();
    one.insert(field.to_owned(), value);
    let mut flags = Fields::of(fields.place(""), Value::Object(one))?.strings(field)?;
    if flags.len() > MAX_FLAGS {
        return Err(fields.fault(field, format!("{} of them: expected at most {MAX_FLAGS}", flags.len())));
    }
    // Not a flag that anybody set (RFC 3501, 2.3.2).
    removed(&mut flags, "\\Recent");
    Ok(flags)
}

/// One UID or an array of them, as numbers; 0 is none.
fn uids(fields: &mut Fields) -> Result<UidSet, FieldError> {
    let place = fields.place("imap-uid");
    Ok(match fields.take("imap-uid") {
        None => UidSet::new(),
        Some(Value::Array(values)) => crate::json::listed(&place, &values)?,
        Some(value) => UidSet::from_iter([number::<u32>(&place, &value)?]),
    })
}
