//! The queue of one session: packed replies in order, folded and bounded. An empty one takes no memory beyond itself.
//!
//! Each reply stands behind its own size and the room that it has (two u16), so that counts can be brought up to date
//! in place, and a reply can be taken out (size 0) without moving the others.

use std::collections::VecDeque;

use ocbus_wire::ropnotify::{Notification, NotificationTypes, RopNotify, TableEvent, Tags};

use super::lost::Lost;

/// In front of each reply: its room and its size.
const HEAD: usize = 4;

/// Room for a folder-modified with both counts, whatever the first one has.
const FOLDER_MODIFIED_ROOM: usize = 26;

/// What a queue may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) octets: usize,
    pub(super) replies: usize,
    pub(super) rows_per_table: usize,
}

/// What a folder-modified without a total says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Total {
    /// It is what it was: the unread count alone has changed. (Which counts stand in a notification says which have
    /// changed.)
    Same,
    /// Nothing: it may have changed.
    Unknown,
}

impl Total {
    /// The total to be told in the place of an earlier one.
    pub(super) fn behind(self, earlier: Option<u32>, total: Option<u32>, unread: Option<u32>) -> Option<u32> {
        match (self, total, unread) {
            (Total::Same, None, Some(_)) => earlier,
            _ => total,
        }
    }
}

/// What became of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Appended {
    /// It stands at the end.
    Queued,
    /// One in the queue says it, or was made to.
    Folded,
    /// It did not fit: a resync stands for it. `first`: so far everything had fitted.
    Lost { first: bool },
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    octets: Vec<u8>,
    /// Where the first reply that is left begins.
    head: usize,
    /// Replies that are left, without those taken out.
    replies: usize,
    /// Their octets.
    reply_octets: usize,
    /// Replies that a later one may be folded into, by a hash of what they are about, in the order of their places.
    foldable: VecDeque<Foldable>,
    /// Tables with something in the queue.
    tables: Vec<QueuedTable>,
    /// Set while something did not fit: it stands for the end of the queue.
    pub(super) lost: Option<Box<Lost>>,
}

#[derive(Debug, Clone, Copy)]
struct Foldable {
    hash: u32,
    at: u32,
}

#[derive(Debug)]
struct QueuedTable {
    handle: u32,
    /// Row events of it in the queue.
    rows: usize,
    /// A TableChanged of it is in the queue: it says all that comes.
    changed: bool,
}

impl Queue {
    /// Whether there is nothing to be told.
    pub(super) fn is_empty(&self) -> bool {
        self.replies == 0 && self.lost.is_none()
    }

    /// Replies in it, without a resync that is still to be written.
    pub(super) fn replies(&self) -> usize {
        self.replies
    }

    /// Their octets.
    pub(super) fn reply_octets(&self) -> usize {
        self.reply_octets
    }

    /// Puts a reply behind the others. `by_folder`: its subscription would be told of a modified folder, so that a resync
    /// by folders reaches it.
    pub(super) fn append(
        &mut self,
        reply: &RopNotify,
        total: Total,
        by_folder: bool,
        bounds: &Bounds,
    ) -> Appended {
        if let Some(lost) = &mut self.lost {
            note(lost, reply, total, by_folder);
            return Appended::Lost { first: false };
        }
        match self.try_append(reply, total, bounds) {
            Some(appended) => appended,
            None => {
                let mut lost = Box::<Lost>::default();
                note(&mut lost, reply, total, by_folder);
                self.lost = Some(lost);
                Appended::Lost { first: true }
            }
        }
    }

    /// Likewise; `None` if it does not fit, and nothing has changed.
    pub(super) fn try_append(
        &mut self,
        reply: &RopNotify,
        total: Total,
        bounds: &Bounds,
    ) -> Option<Appended> {
        match &reply.notification {
            Notification::HierarchyTable(event) => self.append_table(reply, table_event(event), bounds),
            Notification::ContentsTable(event) | Notification::SearchTable(event) => {
                self.append_table(reply, table_event(event), bounds)
            }
            Notification::FolderModified { tags, .. } if is_plain(tags) => {
                let octets = encode(reply)?;
                match self.find(&octets, 16) {
                    Some(at) => {
                        self.overwrite(at, &self.with_total_of(at, reply, total).unwrap_or(octets));
                        Some(Appended::Folded)
                    }
                    None => self.push_foldable(&octets, 16, FOLDER_MODIFIED_ROOM, bounds),
                }
            }
            Notification::MessageModified { tags, .. } if is_plain(tags) => {
                let octets = encode(reply)?;
                match self.find(&octets, 24) {
                    Some(_) => Some(Appended::Folded),
                    None => self.push_foldable(&octets, 24, octets.len(), bounds),
                }
            }
            _ => self.append_octets(&encode(reply)?, bounds),
        }
    }

    /// Puts a reply behind the others that is not to be folded.
    pub(super) fn append_octets(&mut self, octets: &[u8], bounds: &Bounds) -> Option<Appended> {
        self.push(octets, octets.len(), bounds).map(|_| Appended::Queued)
    }

    /// The size of the first reply.
    pub(super) fn first_len(&mut self) -> Option<usize> {
        self.skip_removed();
        self.entry(self.head).map(|(_, length)| length)
    }

    /// Moves the first reply behind `out`.
    pub(super) fn pop_into(&mut self, out: &mut Vec<u8>) {
        self.skip_removed();
        let at = self.head;
        let Some((room, _)) = self.entry(at) else { return };
        let reply = self.reply(at);
        out.extend_from_slice(reply);
        let (length, handle, table_event) = (reply.len(), handle_of(reply), table_event_of(reply));
        self.head = at + HEAD + room;
        self.replies -= 1;
        self.reply_octets -= length;
        if let Some(event) = table_event {
            self.forget_table_event(handle, event);
        }
        while self.foldable.front().is_some_and(|foldable| to_usize(foldable.at) <= at) {
            self.foldable.pop_front();
        }
        self.tidy();
    }

    /// Takes everything out that is for a handle. Says whether there was something.
    pub(super) fn release(&mut self, handle: u32) -> bool {
        let mut removed = self.remove(|reply| handle_of(reply) == handle) > 0;
        self.tables.retain(|table| table.handle != handle);
        if let Some(lost) = &mut self.lost {
            removed |= lost.release(handle);
            if lost.is_empty() {
                self.lost = None;
            }
        }
        self.tidy();
        removed
    }

    fn append_table(&mut self, reply: &RopNotify, event: u16, bounds: &Bounds) -> Option<Appended> {
        if event == RESTRICTION_CHANGED {
            return self.append_octets(&encode(reply)?, bounds);
        }
        let handle = reply.handle;
        let (rows, changed) = self
            .tables
            .iter()
            .find(|table| table.handle == handle)
            .map_or((0, false), |table| (table.rows, table.changed));
        if changed {
            return Some(Appended::Folded);
        }
        if event != CHANGED && rows < bounds.rows_per_table {
            self.push(&encode(reply)?, reply.encoded_len(), bounds)?;
            self.table(handle).rows += 1;
            return Some(Appended::Queued);
        }
        // One TableChanged says what all the rows said, from where the first of them stood.
        let octets = encode(&RopNotify { notification: changed_of(&reply.notification), ..*reply })?;
        if rows == 0 {
            self.push(&octets, octets.len(), bounds)?;
            self.table(handle).changed = true;
            return Some(Appended::Queued);
        }
        let is_row =
            |reply: &[u8]| handle_of(reply) == handle && matches!(table_event_of(reply), Some(3..=5));
        let first = self.places().find(|at| is_row(self.reply(*at)))?;
        self.overwrite(first, &octets);
        self.remove(|reply| is_row(reply));
        let table = self.table(handle);
        (table.rows, table.changed) = (0, true);
        Some(Appended::Folded)
    }

    fn table(&mut self, handle: u32) -> &mut QueuedTable {
        let at = self.tables.iter().position(|table| table.handle == handle).unwrap_or_else(|| {
            self.tables.push(QueuedTable { handle, rows: 0, changed: false });
            self.tables.len() - 1
        });
        // Just found, or just put there.
        #[expect(clippy::indexing_slicing)]
        &mut self.tables[at]
    }

    fn forget_table_event(&mut self, handle: u32, event: u16) {
        if let Some(at) = self.tables.iter().position(|table| table.handle == handle)
            && let Some(table) = self.tables.get_mut(at)
        {
            match event {
                CHANGED => table.changed = false,
                3..=5 => table.rows = table.rows.saturating_sub(1),
                _ => {}
            }
            if table.rows == 0 && !table.changed {
                self.tables.swap_remove(at);
            }
        }
    }

    /// `None` if it does not fit.
    fn push(&mut self, octets: &[u8], room: usize, bounds: &Bounds) -> Option<usize> {
        let used = self.octets.len() - self.head;
        if self.replies >= bounds.replies || used + HEAD + room > bounds.octets {
            return None;
        }
        let (size, room_octets) = (u16::try_from(octets.len()).ok()?, u16::try_from(room).ok()?);
        self.reserve(HEAD + room, bounds.octets);
        let at = self.octets.len();
        self.octets.extend_from_slice(&room_octets.to_le_bytes());
        self.octets.extend_from_slice(&size.to_le_bytes());
        self.octets.extend_from_slice(octets);
        self.octets.resize(at + HEAD + room, 0);
        self.replies += 1;
        self.reply_octets += octets.len();
        Some(at)
    }

    /// `about`: how many octets of the reply say what it is about.
    fn push_foldable(
        &mut self,
        octets: &[u8],
        about: usize,
        room: usize,
        bounds: &Bounds,
    ) -> Option<Appended> {
        let at = self.push(octets, room, bounds)?;
        // A queue's places are below 4 GiB; one that were not would not be folded into.
        if let Ok(at) = u32::try_from(at) {
            self.foldable.push_back(Foldable { hash: hash(octets, about), at });
        }
        Some(Appended::Queued)
    }

    /// Makes room for so many octets: first in the place of what was fetched, then by doubling up to the bound.
    fn reserve(&mut self, octets: usize, bound: usize) {
        if self.octets.len() + octets <= self.octets.capacity() {
            return;
        }
        self.forget_fetched();
        let needed = self.octets.len() + octets;
        if needed > self.octets.capacity() {
            let capacity = (2 * self.octets.capacity()).min(bound).max(needed);
            self.octets.reserve_exact(capacity - self.octets.len());
        }
    }

    fn forget_fetched(&mut self) {
        self.octets.drain(..self.head);
        // Places in front of the head are gone from the list already.
        let head = u32::try_from(self.head).unwrap_or(u32::MAX);
        self.foldable.iter_mut().for_each(|foldable| foldable.at = foldable.at.saturating_sub(head));
        self.head = 0;
    }

    /// Where a reply about the same stands.
    fn find(&self, octets: &[u8], about: usize) -> Option<usize> {
        let wanted = hash(octets, about);
        self.foldable
            .iter()
            .filter(|foldable| foldable.hash == wanted)
            .map(|foldable| to_usize(foldable.at))
            .find(|at| is_about_the_same(self.reply(*at), octets, about))
    }

    /// A folder-modified with the total of the one in front of it, where it leaves that as it was.
    fn with_total_of(&self, at: usize, reply: &RopNotify, total: Total) -> Option<Vec<u8>> {
        let total_of = |notification: &Notification| match *notification {
            Notification::FolderModified { total, .. } => total,
            _ => None,
        };
        let mut merged = reply.clone();
        let Notification::FolderModified { total: own, unread, .. } = &mut merged.notification else {
            return None;
        };
        let (earlier, _) = RopNotify::decode(self.reply(at)).ok()?;
        *own = total.behind(total_of(&earlier.notification), *own, *unread);
        encode(&merged)
    }

    /// Puts another reply in the place of one that has the room for it.
    fn overwrite(&mut self, at: usize, octets: &[u8]) {
        let Some((room, length)) = self.entry(at) else { return };
        debug_assert!(octets.len() <= room);
        let Ok(size) = u16::try_from(octets.len()) else { return };
        if let Some(place) = self.octets.get_mut(at + 2..at + HEAD + octets.len())
            && let Some((head, reply)) = place.split_first_chunk_mut()
        {
            *head = size.to_le_bytes();
            reply.copy_from_slice(octets);
            self.reply_octets = self.reply_octets + octets.len() - length;
        }
    }

    /// Takes replies out in their places. Says how many.
    fn remove(&mut self, unwanted: impl Fn(&[u8]) -> bool) -> usize {
        let places: Vec<usize> = self.places().filter(|at| unwanted(self.reply(*at))).collect();
        for at in &places {
            self.reply_octets -= self.reply(*at).len();
            self.replies -= 1;
            if let Some(size) = self.octets.get_mut(at + 2..at + HEAD) {
                size.fill(0);
            }
        }
        if !places.is_empty() {
            self.foldable.retain(|foldable| places.binary_search(&to_usize(foldable.at)).is_err());
        }
        places.len()
    }

    /// Where the replies stand, in order.
    fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let mut at = self.head;
        std::iter::from_fn(move || {
            loop {
                let place = at;
                let (room, length) = self.entry(place)?;
                at = place + HEAD + room;
                if length > 0 {
                    return Some(place);
                }
            }
        })
    }

    /// Room and size of what stands there.
    fn entry(&self, at: usize) -> Option<(usize, usize)> {
        let (room, rest) = self.octets.get(at..)?.split_first_chunk()?;
        let (size, _) = rest.split_first_chunk()?;
        Some((usize::from(u16::from_le_bytes(*room)), usize::from(u16::from_le_bytes(*size))))
    }

    fn reply(&self, at: usize) -> &[u8] {
        let length = self.entry(at).map_or(0, |(_, length)| length);
        self.octets.get(at + HEAD..at + HEAD + length).unwrap_or_default()
    }

    fn skip_removed(&mut self) {
        while let Some((room, 0)) = self.entry(self.head) {
            self.head += HEAD + room;
        }
    }

    /// Gives memory back: all of it when the queue is empty, the fetched part when that is most of it.
    fn tidy(&mut self) {
        if self.replies == 0 {
            let lost = self.lost.take();
            *self = Queue { lost, ..Queue::default() };
        } else if self.head > 4_096 && self.head > self.octets.len() / 2 {
            self.forget_fetched();
            self.octets.shrink_to_fit();
        }
    }
}

const CHANGED: u16 = 1;
const RESTRICTION_CHANGED: u16 = 7;

fn note(lost: &mut Lost, reply: &RopNotify, total: Total, by_folder: bool) {
    if !lost.note(reply, total) {
        tracing::warn!(event = "resync_incomplete", "more folders changed than one resync names");
    }
    let is_table = NotificationTypes::from_bits(reply.flags()).contains(NotificationTypes::TABLE_MODIFIED);
    if !by_folder
        && !is_table
        && let Some(octets) = encode(reply)
    {
        lost.last(reply.handle, &octets);
    }
}

/// Ids and a checked class always can be written, and a row has its bound.
fn encode(reply: &RopNotify) -> Option<Vec<u8>> {
    reply
        .encode()
        .inspect_err(
            |error| tracing::warn!(event = "reply_refused", reason = %error, "a reply could not be written"),
        )
        .ok()
}

fn is_plain(tags: &Tags) -> bool {
    matches!(tags, Tags::List(tags) if tags.is_empty())
}

fn table_event<R>(event: &TableEvent<R>) -> u16 {
    match event {
        TableEvent::Changed => CHANGED,
        TableEvent::RowAdded { .. } => 3,
        TableEvent::RowDeleted { .. } => 4,
        TableEvent::RowModified { .. } => 5,
        TableEvent::RestrictionChanged => RESTRICTION_CHANGED,
    }
}

fn changed_of(notification: &Notification) -> Notification {
    match notification {
        Notification::HierarchyTable(_) => Notification::HierarchyTable(TableEvent::Changed),
        Notification::SearchTable(_) => Notification::SearchTable(TableEvent::Changed),
        _ => Notification::ContentsTable(TableEvent::Changed),
    }
}

pub(in crate::emsmdb) fn handle_of(reply: &[u8]) -> u32 {
    reply.get(1..5).and_then(|octets| octets.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// The event of a table, if it is one.
pub(in crate::emsmdb) fn table_event_of(reply: &[u8]) -> Option<u16> {
    let at = |place: usize| reply.get(place..place + 2)?.try_into().ok().map(u16::from_le_bytes);
    let flags = at(6)?;
    (flags & NotificationTypes::TABLE_MODIFIED.bits() != 0).then(|| at(8)).flatten()
}

fn to_usize(place: u32) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

/// What a reply is about: all up to `about`, but not which counts it has.
fn about_octets(reply: &[u8], about: usize) -> impl Iterator<Item = u8> + '_ {
    let which_counts = |at| if at == 7 { 0x30 } else { 0 };
    reply.iter().take(about).enumerate().map(move |(at, octet)| octet & !which_counts(at))
}

fn is_about_the_same(one: &[u8], other: &[u8], about: usize) -> bool {
    about_octets(one, about).eq(about_octets(other, about))
}

/// FNV-1a: tells neighbours in a short list apart, no more.
fn hash(reply: &[u8], about: usize) -> u32 {
    let mix = |hash: u32, octet: u8| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193);
    about_octets(reply, about).fold(0x811c_9dc5, mix)
}
