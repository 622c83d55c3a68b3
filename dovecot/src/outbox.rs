//! What happened and has not been told yet. Pairs copies with expunges to moves, keeps the order, and stays small
//! enough for one batch. No I/O, no clock.
//!
//! A MOVE over IMAP is a copy into the target, committed, then an expunge in the source; clients without MOVE send
//! COPY, STORE +FLAGS \Deleted and EXPUNGE. So a copy is held for [`HOLD`], and what happens after it waits behind it,
//! until the same session expunges the same messages, or does something else to the target.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ocbus_wire::native::{MAX_BATCH_OCTETS, MAX_EVENTS};
use ocbus_wire::{EventKind, Mailbox, Transfer, UidSet};

use crate::transaction::Change;

/// How long a copy waits for its expunge.
pub const HOLD: Duration = Duration::from_millis(250);

/// Room for what surrounds the events of a batch.
const ENVELOPE: usize = 64;

/// What has not been told yet.
#[derive(Debug)]
pub struct Outbox {
    queue: VecDeque<Waiting>,
    octets: usize,
    /// Octets of each event that no change knows of: its user.
    each: usize,
    pairs: bool,
}

#[derive(Debug)]
struct Waiting {
    change: Change,
    since: Instant,
    /// A copy that may become a move.
    held: bool,
}

impl Outbox {
    /// Nothing yet. `user`: whose. `pairs`: whether copies and expunges become moves.
    pub fn new(user: &str, pairs: bool) -> Outbox {
        Outbox { queue: VecDeque::new(), octets: ENVELOPE, each: user.len() + 4, pairs }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether these fit into one batch with what waits already.
    pub fn has_room(&self, changes: &[Change]) -> bool {
        let octets: usize = changes.iter().map(|change| self.size(change)).sum();
        self.octets + octets <= MAX_BATCH_OCTETS && self.queue.len() + changes.len() <= MAX_EVENTS
    }

    /// Adds what one commit did.
    pub fn push(&mut self, changes: Vec<Change>, now: Instant) {
        for change in changes {
            self.add(change, now);
        }
        if self.octets > MAX_BATCH_OCTETS || self.queue.len() > MAX_EVENTS {
            self.collapse(now);
        }
    }

    /// When there is something to be told: at once, or when the copy in front has waited for long enough.
    pub fn wake(&self, now: Instant) -> Option<Duration> {
        let first = self.queue.front()?;
        Some(if first.held { (first.since + HOLD).saturating_duration_since(now) } else { Duration::ZERO })
    }

    /// How long the oldest has waited.
    pub fn age(&self, now: Instant) -> Duration {
        self.queue.front().map_or(Duration::ZERO, |first| now.saturating_duration_since(first.since))
    }

    /// What is to be told now.
    pub fn take(&mut self, now: Instant) -> Vec<Change> {
        let mut taken = Vec::new();
        while self.wake(now) == Some(Duration::ZERO) {
            let Some(waiting) = self.queue.pop_front() else { break };
            self.octets -= self.size(&waiting.change);
            taken.push(waiting.change);
        }
        taken
    }

    /// All of it, held or not.
    pub fn take_all(&mut self) -> Vec<Change> {
        self.octets = ENVELOPE;
        self.queue.drain(..).map(|waiting| waiting.change).collect()
    }

    fn size(&self, change: &Change) -> usize {
        change.octets() + self.each
    }

    fn append(&mut self, change: Change, since: Instant, held: bool) {
        self.insert(self.queue.len(), Waiting { change, since, held });
    }

    fn insert(&mut self, place: usize, waiting: Waiting) {
        self.octets += self.size(&waiting.change);
        self.queue.insert(place, waiting);
    }

    fn add(&mut self, change: Change, now: Instant) {
        // Whoever looks again sees all of it, but for the new mail: that pops up, and is all that a legacy endpoint hears of.
        let swallows = is_of_messages(&change.kind) && !matches!(change.kind, EventKind::MessageNew(_));
        if swallows && self.is_resynced(&change) {
            return;
        }
        match &change.kind {
            EventKind::MessageCopy(copy) if self.pairs => {
                // What came here by a copy that may become a move, and goes on: the first is to be told first.
                self.release_into(&copy.old);
                let place = self.place_of(&change);
                // What has been done to it already must not be told before it: then it is no move.
                let held = place == self.queue.len();
                self.insert(place, Waiting { change, since: now, held });
            }
            EventKind::MessageExpunge { .. } => self.add_expunge(change, now),
            _ => {
                self.release(&change);
                let place = self.place_of(&change);
                self.insert(place, Waiting { change, since: now, held: false });
            }
        }
    }

    /// Before what was committed to the mailbox later but told earlier: imapsieve works on a message within the commit that
    /// adds it.
    fn place_of(&self, change: &Change) -> usize {
        let is_later = |waiting: &&Waiting| {
            let other = &waiting.change;
            change.order.is_some()
                && other.order > change.order
                && (&other.mailbox, other.uid_validity) == (&change.mailbox, change.uid_validity)
        };
        self.queue.len() - self.queue.iter().rev().take_while(is_later).count()
    }

    /// Adds one to the count of its mailbox's resync, if there is one.
    fn is_resynced(&mut self, change: &Change) -> bool {
        let resync = self.queue.iter_mut().find(|waiting| {
            waiting.change.is_resync()
                && waiting.change.mailbox == change.mailbox
                && waiting.change.uid_validity == change.uid_validity
        });
        let Some(waiting) = resync else { return false };
        if let EventKind::Resync { missed, .. } = &mut waiting.change.kind {
            *missed = missed.saturating_add(1);
        }
        // A move is told to where it came from too: that is the expunge's part.
        true
    }

    /// Copies into a mailbox wait no longer.
    fn release_into(&mut self, mailbox: &Mailbox) {
        for waiting in self.queue.iter_mut().filter(|waiting| *waiting.change.mailbox == *mailbox) {
            waiting.held = false;
        }
    }

    /// What changes in a copy's target must not be told before the copy; nor is the copy to be told after it.
    fn release(&mut self, change: &Change) {
        if matches!(change.kind, EventKind::MessageNew(_) | EventKind::MessageAppend(_)) {
            return;
        }
        match is_of_messages(&change.kind) {
            true => self.release_into(&change.mailbox),
            false => self.queue.iter_mut().for_each(|waiting| waiting.held = false),
        }
    }

    /// Turns the copies of what is expunged into moves; they stand where the expunge does.
    fn add_expunge(&mut self, change: Change, now: Instant) {
        let EventKind::MessageExpunge { uids } = &change.kind else { return };
        let mut left: Vec<(u32, u32)> = uids.ranges().to_vec();
        left.sort_unstable();
        let mut moves = Vec::new();
        // Of several copies of a message the last became it.
        for at in (0..self.queue.len()).rev() {
            if left.is_empty() {
                break;
            }
            let Some(waiting) = self.queue.get_mut(at).filter(|waiting| waiting.held) else { continue };
            let EventKind::MessageCopy(copy) = &mut waiting.change.kind else { continue };
            let same =
                copy.old == *change.mailbox && (copy.old_uidvalidity, change.uid_validity) != (None, None);
            if !same || copy.old_uidvalidity != change.uid_validity || copy.uids.len() != copy.old_uids.len()
            {
                continue;
            }
            let before = waiting.change.octets();
            let Some(moved) = split(&mut waiting.change, &mut left) else { continue };
            moves.push(moved);
            let EventKind::MessageCopy(copy) = &waiting.change.kind else { continue };
            if copy.uids.is_empty() {
                self.queue.remove(at);
                self.octets -= before + self.each;
            } else {
                self.octets = self.octets + waiting.change.octets() - before;
            }
        }
        // What was copied here and goes on with this: it must have come before. (Only now: a move within the mailbox is a copy
        // into it too.)
        self.release_into(&change.mailbox);
        let paired = !moves.is_empty();
        for moved in moves.into_iter().rev() {
            if !self.extend_last(&moved) {
                self.append(moved, now, false);
            }
        }
        if left.is_empty() {
            return;
        }
        let rest = match paired {
            true => {
                let mut uids = UidSet::new();
                left.into_iter().for_each(|(first, last)| uids.push_range(first, last));
                Change { kind: EventKind::MessageExpunge { uids }, ..change }
            }
            false => change,
        };
        if !self.extend_expunge(&rest) {
            self.append(rest, now, false);
        }
    }

    /// Dovecot expunges many messages in several commits too. Whatever is gone stays so: the place is that of the last.
    fn extend_expunge(&mut self, more: &Change) -> bool {
        let EventKind::MessageExpunge { uids: gone } = &more.kind else { return false };
        let Some(Waiting { change: last, .. }) = self.queue.back_mut() else { return false };
        if (&last.mailbox, last.uid_validity) != (&more.mailbox, more.uid_validity) {
            return false;
        }
        let before = last.octets();
        let EventKind::MessageExpunge { uids } = &mut last.kind else { return false };
        gone.ranges().iter().for_each(|&(first, last)| uids.push_range(first, last));
        (last.order, last.time_us) = (more.order, more.time_us);
        self.octets = self.octets + last.octets() - before;
        true
    }

    /// Dovecot moves many messages in several commits: those that follow on each other are one move. It keeps the
    /// place of the first, before which none of the messages was there.
    fn extend_last(&mut self, moved: &Change) -> bool {
        let EventKind::MessageMove(more) = &moved.kind else { return false };
        let Some(Waiting { change: last, .. }) = self.queue.back_mut() else { return false };
        if (&last.mailbox, last.uid_validity) != (&moved.mailbox, moved.uid_validity) {
            return false;
        }
        let before = last.octets();
        let EventKind::MessageMove(transfer) = &mut last.kind else { return false };
        let from = |transfer: &Transfer| (transfer.old.clone(), transfer.old_uidvalidity);
        let same_marks = transfer.flags == more.flags && transfer.keywords == more.keywords;
        if !same_marks || from(transfer) != from(more) {
            return false;
        }
        more.uids.ranges().iter().for_each(|&(first, last)| transfer.uids.push_range(first, last));
        more.old_uids.ranges().iter().for_each(|&(first, last)| transfer.old_uids.push_range(first, last));
        // Nobody could tell whether these are younger than what another event has.
        last.counts = None;
        self.octets = self.octets + last.octets() - before;
        true
    }

    /// Too much for one batch: all that happened to messages becomes one resync for each mailbox. What happened to
    /// mailboxes stays, and new mail where there is room.
    fn collapse(&mut self, now: Instant) {
        let waiting = std::mem::take(&mut self.queue);
        self.octets = ENVELOPE;
        let mut resyncs: Vec<(Change, u64)> = Vec::new();
        // One for all mailboxes, where there are too many of them.
        let mut everywhere: Option<(Change, u64)> = None;
        for Waiting { change, since, .. } in waiting {
            let of_mailboxes = !is_of_messages(&change.kind) && !change.is_resync();
            if of_mailboxes || matches!(change.kind, EventKind::MessageNew(_)) {
                // Behind a change to mailboxes that is not told no other would make sense.
                let fits = (everywhere.is_none() || !of_mailboxes)
                    && self.octets + self.size(&change) < MAX_BATCH_OCTETS / 2
                    && self.queue.len() < MAX_EVENTS / 2;
                match (fits, of_mailboxes) {
                    (true, _) => {
                        self.append(change, since, false);
                        continue;
                    }
                    (false, true) => {
                        add_missed(&mut everywhere, change, 1);
                        continue;
                    }
                    (false, false) => {}
                }
            }
            let missed = if let EventKind::Resync { missed, .. } = change.kind { missed } else { 1 };
            let source = match &change.kind {
                EventKind::MessageMove(Transfer { old, old_uidvalidity, .. }) => Some(Change {
                    mailbox: old.clone().into(),
                    uid_validity: *old_uidvalidity,
                    ..change.clone()
                }),
                _ => None,
            };
            for of in [Some(change), source].into_iter().flatten() {
                let same = |(known, _): &&mut (Change, u64)| {
                    known.mailbox == of.mailbox && known.uid_validity == of.uid_validity
                };
                match resyncs.iter_mut().find(same) {
                    Some((_, count)) => *count = count.saturating_add(missed),
                    None => resyncs.push((of, missed)),
                }
            }
        }
        // Who looks at all mailboxes again need not be told of each.
        let most = MAX_EVENTS - self.queue.len();
        let octets: usize = resyncs.iter().map(|(of, missed)| self.size(&of.overflow(*missed))).sum();
        if everywhere.is_some() || resyncs.len() > most || self.octets + octets > MAX_BATCH_OCTETS {
            resyncs.into_iter().for_each(|(of, missed)| add_missed(&mut everywhere, of, missed));
            resyncs = Vec::new();
        }
        let each = resyncs.into_iter().map(|(of, missed)| of.overflow(missed));
        let all = everywhere.map(|(of, missed)| of.overflow_everywhere(missed));
        for resync in each.chain(all) {
            self.append(resync, now, false);
        }
    }
}

/// Counts what one resync for all mailboxes stands for; `of` is one of these changes.
fn add_missed(everywhere: &mut Option<(Change, u64)>, of: Change, missed: u64) {
    let (_, count) = everywhere.get_or_insert((of, 0));
    *count = count.saturating_add(missed);
}

/// Splits off those of a copy that `left` has, as a move; takes them out of `left`.
fn split(change: &mut Change, left: &mut Vec<(u32, u32)>) -> Option<Change> {
    let EventKind::MessageCopy(copy) = &mut change.kind else { return None };
    let mut moved = Transfer { uids: UidSet::new(), old_uids: UidSet::new(), ..copy.clone() };
    if copy.old_uids.ranges() == left.as_slice() {
        // All of them, in order: the most frequent case, without a look at each.
        left.clear();
        std::mem::swap(&mut moved.uids, &mut copy.uids);
        std::mem::swap(&mut moved.old_uids, &mut copy.old_uids);
    } else {
        let mut stays = (UidSet::new(), UidSet::new());
        for (old, new) in copy.old_uids.iter().zip(copy.uids.iter()) {
            if contains(left, old) {
                moved.old_uids.push(old);
                moved.uids.push(new);
            } else {
                stays.0.push(old);
                stays.1.push(new);
            }
        }
        if moved.uids.is_empty() {
            return None;
        }
        let mut taken = moved.old_uids.ranges().to_vec();
        taken.sort_unstable();
        *left = without(left, &taken);
        (copy.old_uids, copy.uids) = stays;
    }
    Some(Change { kind: EventKind::MessageMove(moved), ..change.clone() })
}

/// Whether sorted ranges have a UID.
fn contains(ranges: &[(u32, u32)], uid: u32) -> bool {
    let at = ranges.partition_point(|&(_, last)| last < uid);
    ranges.get(at).is_some_and(|&(first, _)| first <= uid)
}

/// Sorted ranges without others, sorted too.
fn without(ranges: &[(u32, u32)], taken: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut rest = Vec::new();
    let mut taken = taken.iter().copied().peekable();
    for &(mut first, last) in ranges {
        while let Some(&(from, to)) = taken.peek() {
            if to < first {
                taken.next();
                continue;
            }
            if from > last {
                break;
            }
            if from > first {
                rest.push((first, from - 1));
            }
            match to.checked_add(1) {
                Some(next) => first = next,
                None => return rest,
            }
            if first > last {
                break;
            }
        }
        if first <= last {
            rest.push((first, last));
        }
    }
    rest
}

fn is_of_messages(kind: &EventKind) -> bool {
    !matches!(
        kind,
        EventKind::MailboxCreate
            | EventKind::MailboxDelete
            | EventKind::MailboxRename { .. }
            | EventKind::MailboxSubscribe
            | EventKind::MailboxUnsubscribe
            | EventKind::Resync { .. }
    )
}

#[cfg(test)]
mod tests;
