use std::sync::Arc;

use ocbus_wire::native::MAX_BATCH_OCTETS;
use ocbus_wire::{EventKind, Mailbox, NewMessage, ResyncReason, Transfer, UidSet};

use super::change::{Change, Counts};
use super::flags::{self, FlagChanges, Marks, pushed};

/// The most ranges of UIDs that are kept: more fit into no batch.
const MAX_RANGES: usize = MAX_BATCH_OCTETS / 2;

/// What one mail counts for in `weight`, beside its texts.
const MAIL: usize = 64;

/// One new mail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mail {
    /// Dovecot's flag bits and its keywords.
    pub marks: Marks,
    /// Octets as stored.
    pub size: Option<u64>,
    /// The From header, raw.
    pub from: Option<String>,
    /// The Subject header, raw.
    pub subject: Option<String>,
    /// The Message-ID header, raw.
    pub message_id: Option<String>,
}

/// Mails that a transaction adds, in the order in which their UIDs are given.
#[derive(Debug)]
enum Arrival {
    Saved(Box<Mail>),
    /// Neighbours with the same source and marks.
    Copied {
        source: usize,
        marks: usize,
        old_uids: UidSet,
        count: usize,
    },
}

/// Where copies came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The mailbox.
    pub mailbox: Mailbox,
    /// Its UIDVALIDITY, where known.
    pub uid_validity: Option<u32>,
}

/// What the commit says.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The UIDs of what was saved and copied, in order; empty when unknown.
    pub saved: UidSet,
    /// The mailbox's UIDVALIDITY, where known.
    pub uid_validity: Option<u32>,
    /// The place of this commit among those to the mailbox, where known.
    pub order: Option<u64>,
    /// When, in microseconds since the Unix epoch.
    pub time_us: u64,
    /// How many messages there are, before what is expunged is gone.
    pub counts: Option<Counts>,
}

/// What one transaction does to one mailbox. Its memory is bounded: beyond, only a count is kept.
#[derive(Debug)]
pub struct Transaction {
    mailbox: Arc<Mailbox>,
    delivery: bool,
    sources: Vec<Source>,
    /// Which of them the last copy came from.
    source: usize,
    marks: Vec<Marks>,
    arrivals: Vec<Arrival>,
    flags: FlagChanges,
    expunged: UidSet,
    /// Octets of headers and the like.
    weight: usize,
    /// Mails so far, about.
    count: u64,
    /// The mails that were changed last: the same may come once more, for another keyword.
    last_uids: (u32, u32),
    full: bool,
}

impl Transaction {
    /// Nothing yet. `delivery`: what is saved is new mail.
    pub fn new(mailbox: Mailbox, delivery: bool) -> Transaction {
        Transaction {
            mailbox: Arc::new(mailbox),
            delivery,
            sources: Vec::new(),
            source: 0,
            marks: Vec::new(),
            arrivals: Vec::new(),
            flags: FlagChanges::default(),
            expunged: UidSet::new(),
            weight: 0,
            count: 0,
            last_uids: (0, 0),
            full: false,
        }
    }

    /// Where it happens.
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// A mail was saved.
    pub fn save(&mut self, mail: Mail) {
        if self.counts(1) {
            let texts = [&mail.from, &mail.subject, &mail.message_id];
            self.weight += MAIL + texts.into_iter().flatten().map(String::len).sum::<usize>();
            self.arrivals.push(Arrival::Saved(Box::new(mail)));
        }
    }

    /// Mails were copied here: they had `old_uids` in `source`.
    pub fn copy(&mut self, source: Source, old_uids: (u32, u32), marks: Marks) {
        if !self.full {
            self.source = place(&mut self.sources, source);
        }
        self.copy_likewise(old_uids, marks);
    }

    /// More mails were copied here, from where those before came from.
    pub fn copy_likewise(&mut self, range: (u32, u32), marks: Marks) {
        let more = mails(range);
        if !self.counts(more) {
            return;
        }
        let source = self.source;
        let marks = place(&mut self.marks, marks);
        match self.arrivals.last_mut() {
            Some(Arrival::Copied { source: known, marks: same, old_uids, count })
                if (*known, *same) == (source, marks) =>
            {
                *count += more;
                self.weight += 8 * pushed(old_uids, range);
            }
            _ => {
                self.weight += MAIL;
                let mut old_uids = UidSet::new();
                old_uids.push_range(range.0, range.1);
                self.arrivals.push(Arrival::Copied { source, marks, old_uids, count: more });
            }
        }
    }

    /// Mails are expunged.
    pub fn expunge(&mut self, uids: (u32, u32)) {
        if self.changes(uids) {
            self.weight += 8 * pushed(&mut self.expunged, uids);
        }
    }

    /// As [`FlagChanges::flags`]. UID 0 is the mail that this transaction saved last.
    pub fn flags(&mut self, uids: (u32, u32), set: u32, clear: u32) {
        if uids.0 == 0 {
            if let Some(Arrival::Saved(mail)) = self.arrivals.last_mut() {
                mail.marks.flags = (mail.marks.flags | set) & !clear;
            }
        } else if self.changes(uids) {
            self.flags.flags(uids, set, clear);
        }
    }

    /// As [`FlagChanges::keyword`].
    pub fn keyword(&mut self, uids: (u32, u32), keyword: &str, set: bool) {
        if uids.0 > 0 && self.changes(uids) {
            self.flags.keyword(uids, keyword, set);
        }
    }

    /// What was told of flags and keywords was not so; what was written follows.
    pub fn forget_flags(&mut self) {
        self.flags = FlagChanges::default();
    }

    /// Counts mails that are there already, once where the same come again.
    fn changes(&mut self, uids: (u32, u32)) -> bool {
        let again = uids == self.last_uids;
        self.last_uids = uids;
        self.counts(if again { 0 } else { mails(uids) })
    }

    /// Counts mails; drops what was collected when it has become too much.
    fn counts(&mut self, more: usize) -> bool {
        self.count = self.count.saturating_add(u64::try_from(more).unwrap_or(u64::MAX));
        if !self.full && (self.weight > 4 * MAX_BATCH_OCTETS || self.flags.ranges() > MAX_RANGES) {
            self.full = true;
            (self.arrivals, self.flags, self.expunged) = Default::default();
        }
        !self.full
    }

    /// What happened, in order: what was added, flags, what was expunged. Nothing where nothing changed.
    pub fn committed(self, commit: Commit) -> Vec<Change> {
        let Commit { saved, uid_validity, order, time_us, counts } = commit;
        // Who is told of these does not want to know how many there were before it.
        let counts = counts.filter(|_| self.expunged.is_empty() && !self.full);
        let kinds = match self.full {
            true => vec![EventKind::Resync { reason: ResyncReason::Overflow, missed: self.count }],
            false => {
                let delivery = self.delivery;
                let mut kinds = arrived(self.arrivals, &self.sources, &self.marks, &saved, delivery);
                kinds.extend(self.flags.events());
                if !self.expunged.is_empty() {
                    kinds.push(EventKind::MessageExpunge { uids: self.expunged });
                }
                kinds
            }
        };
        let mailbox = self.mailbox;
        let change =
            |kind| Change { mailbox: Arc::clone(&mailbox), uid_validity, order, time_us, counts, kind };
        kinds.into_iter().map(change).collect()
    }
}

/// How many mails a range has, at most.
fn mails((first, last): (u32, u32)) -> usize {
    usize::try_from(last.saturating_sub(first)).unwrap_or(usize::MAX).saturating_add(1)
}

/// Where it stands in a short list.
fn place<T: PartialEq>(list: &mut Vec<T>, one: T) -> usize {
    // The last one, mostly.
    match list.iter().rposition(|known| *known == one) {
        Some(at) => at,
        None => {
            list.push(one);
            list.len() - 1
        }
    }
}

fn arrived(
    arrivals: Vec<Arrival>,
    sources: &[Source],
    marks: &[Marks],
    saved: &UidSet,
    delivery: bool,
) -> Vec<EventKind> {
    let count: usize = arrivals
        .iter()
        .map(|arrival| match arrival {
            Arrival::Saved(_) => 1,
            Arrival::Copied { count, .. } => *count,
        })
        .sum();
    // No UID is better than another mail's.
    let known = usize::try_from(saved.len()).is_ok_and(|known| known == count);
    let mut uids = known.then(|| saved.iter()).into_iter().flatten();
    let mut kinds: Vec<EventKind> = Vec::new();
    // Copies of one source with the same marks are one event, at the place of the first.
    let mut copies: Vec<(usize, usize, usize)> = Vec::new();
    let mut unknown = 0;
    for arrival in arrivals {
        match arrival {
            Arrival::Saved(mail) => {
                let message = message(*mail, uids.next());
                kinds.push(match delivery {
                    true => EventKind::MessageNew(message),
                    false => EventKind::MessageAppend(message),
                });
            }
            // A copy without UIDs says nothing.
            Arrival::Copied { count, .. } if !known => unknown += count,
            Arrival::Copied { source, marks: mark, old_uids, count } => {
                let before = copies.iter().find(|(of, with, _)| (*of, *with) == (source, mark));
                let at = before.map(|(_, _, at)| *at).unwrap_or_else(|| {
                    let (Some(source_of), Some(marks)) = (sources.get(source), marks.get(mark)) else {
                        return usize::MAX;
                    };
                    kinds.push(EventKind::MessageCopy(Transfer {
                        flags: flags::names(marks.flags),
                        keywords: marks.keywords.clone(),
                        old_uidvalidity: source_of.uid_validity,
                        ..Transfer::new(UidSet::new(), source_of.mailbox.clone(), UidSet::new())
                    }));
                    copies.push((source, mark, kinds.len() - 1));
                    kinds.len() - 1
                });
                if let Some(EventKind::MessageCopy(transfer)) = kinds.get_mut(at) {
                    uids.by_ref().take(count).for_each(|uid| transfer.uids.push(uid));
                    old_uids
                        .ranges()
                        .iter()
                        .for_each(|&(first, last)| transfer.old_uids.push_range(first, last));
                }
            }
        }
    }
    if let Ok(missed @ 1..) = u64::try_from(unknown) {
        kinds.push(EventKind::Resync { reason: ResyncReason::Other, missed });
    }
    kinds
}

fn message(mail: Mail, uid: Option<u32>) -> NewMessage {
    NewMessage {
        uid,
        flags: flags::names(mail.marks.flags),
        keywords: mail.marks.keywords,
        from: mail.from,
        subject: mail.subject,
        message_id: mail.message_id,
        size: mail.size,
        ..NewMessage::default()
    }
}
