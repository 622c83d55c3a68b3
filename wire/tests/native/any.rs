//! Any event, and damage to octets, for the fuzz targets.
#![allow(unreachable_pub, reason = "a module of several test binaries")]

use bolero::TypeGenerator;
use ocbus_wire::{Event, EventKind, Mailbox, NewMessage, ResyncReason, Transfer, UidSet};
use uuid::Uuid;

/// What happens to octets on their way: they are cut, one of them changes, some are put in between.
#[derive(Debug, TypeGenerator)]
pub struct Damage {
    length: u16,
    at: u16,
    octet: u8,
    inserted: Vec<u8>,
}

impl Damage {
    pub fn check(&self, octets: &[u8], check: fn(&[u8])) {
        let at = usize::from(self.at) % octets.len();
        check(&octets[..usize::from(self.length) % octets.len()]);
        let mut changed = octets.to_vec();
        changed[at] = self.octet;
        check(&changed);
        check(&[&octets[..at], &self.inserted, &octets[at..]].concat());
    }
}

#[derive(Debug, TypeGenerator)]
struct AnyMailbox {
    name: String,
    separator: char,
    storage: Option<(String, char)>,
}

impl AnyMailbox {
    fn mailbox(&self) -> Mailbox {
        let (storage_name, list_separator) =
            self.storage.clone().unwrap_or_else(|| (self.name.clone(), self.separator));
        Mailbox { name: self.name.clone(), separator: self.separator, storage_name, list_separator }
    }
}

#[derive(Debug, TypeGenerator)]
struct AnyMessage {
    uid: Option<u32>,
    flags: Vec<String>,
    keywords: Vec<String>,
    texts: [Option<String>; 5],
    size: Option<u64>,
}

impl AnyMessage {
    fn message(&self) -> NewMessage {
        let [from, subject, message_id, backend, name] = self.texts.clone();
        NewMessage {
            uid: self.uid.filter(|uid| *uid > 0),
            flags: self.flags.clone(),
            keywords: self.keywords.clone(),
            from,
            subject,
            message_id,
            size: self.size,
            backend,
            name,
        }
    }
}

#[derive(Debug, TypeGenerator)]
struct AnyTransfer {
    uids: Vec<(u32, u32)>,
    old: AnyMailbox,
    old_uids: Vec<(u32, u32)>,
    old_uidvalidity: Option<u32>,
    flags: Vec<String>,
    keywords: Vec<String>,
}

impl AnyTransfer {
    fn transfer(&self) -> Transfer {
        Transfer {
            old_uidvalidity: self.old_uidvalidity,
            flags: self.flags.clone(),
            keywords: self.keywords.clone(),
            ..Transfer::new(set(&self.uids), self.old.mailbox(), set(&self.old_uids))
        }
    }
}

#[derive(Debug, TypeGenerator)]
enum AnyKind {
    New(AnyMessage),
    Append(AnyMessage),
    Copy(AnyTransfer),
    Move(AnyTransfer),
    Read(Vec<(u32, u32)>),
    Trash(Vec<(u32, u32)>),
    Expunge(Vec<(u32, u32)>),
    Set(Vec<(u32, u32)>, Vec<String>, Vec<String>),
    Clear(Vec<(u32, u32)>, Vec<String>, Vec<String>),
    Create,
    Delete,
    Rename(AnyMailbox),
    Subscribe,
    Unsubscribe,
    Resync(u8, u64),
    Unknown(String),
}

fn set(ranges: &[(u32, u32)]) -> UidSet {
    let mut set = UidSet::new();
    ranges.iter().for_each(|&(first, last)| set.push_range(first, last));
    set
}

impl AnyKind {
    fn kind(&self) -> EventKind {
        match self {
            AnyKind::New(message) => EventKind::MessageNew(message.message()),
            AnyKind::Append(message) => EventKind::MessageAppend(message.message()),
            AnyKind::Copy(transfer) => EventKind::MessageCopy(transfer.transfer()),
            AnyKind::Move(transfer) => EventKind::MessageMove(transfer.transfer()),
            AnyKind::Read(uids) => EventKind::MessageRead { uids: set(uids) },
            AnyKind::Trash(uids) => EventKind::MessageTrash { uids: set(uids) },
            AnyKind::Expunge(uids) => EventKind::MessageExpunge { uids: set(uids) },
            AnyKind::Set(uids, flags, keywords) => {
                EventKind::FlagsSet { uids: set(uids), flags: flags.clone(), keywords: keywords.clone() }
            }
            AnyKind::Clear(uids, flags, keywords) => {
                EventKind::FlagsClear { uids: set(uids), flags: flags.clone(), keywords: keywords.clone() }
            }
            AnyKind::Create => EventKind::MailboxCreate,
            AnyKind::Delete => EventKind::MailboxDelete,
            AnyKind::Rename(old) => EventKind::MailboxRename { old: old.mailbox() },
            AnyKind::Subscribe => EventKind::MailboxSubscribe,
            AnyKind::Unsubscribe => EventKind::MailboxUnsubscribe,
            AnyKind::Resync(reason, missed) => {
                let reasons = [
                    ResyncReason::SlowSubscriber,
                    ResyncReason::Unreachable,
                    ResyncReason::ResolverLost,
                    ResyncReason::Overflow,
                    ResyncReason::Other,
                ];
                EventKind::Resync { reason: reasons[usize::from(*reason) % reasons.len()], missed: *missed }
            }
            // Noise is no name of a known kind.
            AnyKind::Unknown(name) => EventKind::Unknown { name: format!("X-{name}") },
        }
    }
}

#[derive(Debug, TypeGenerator)]
pub struct AnyEvent {
    id: [u8; 16],
    time_us: u64,
    user: String,
    mailbox: AnyMailbox,
    counts: [Option<u32>; 3],
    order: Option<u64>,
    kind: AnyKind,
    bare: bool,
}

impl AnyEvent {
    pub fn event(&self) -> Event {
        let kind = self.kind.kind();
        // Only these may go without a mailbox.
        let bare = self.bare && matches!(kind, EventKind::Resync { .. } | EventKind::Unknown { .. });
        Event {
            id: Uuid::from_bytes(self.id),
            time_us: self.time_us,
            user: self.user.clone(),
            mailbox: (!bare).then(|| self.mailbox.mailbox()),
            uidvalidity: self.counts[0],
            messages: self.counts[1],
            unseen: self.counts[2],
            order: self.order,
            kind,
        }
    }
}
