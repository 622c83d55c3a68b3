//! What was taken from `deliver:` and not given to the client yet.

use std::borrow::Cow;

use ocbus_wire::openchange::deliver;
use ocbus_wire::ropnotify::{RopNotify, RopPending};

use crate::emsmdb::engine::{OpenHandle, TableView, Taken, handle_of, table_changed, table_event_of};

/// Where a RopNotify has its logon.
const LOGON_ID: usize = 5;

/// TableRowAdded, TableRowDeleted, TableRowModified: made of a table's columns, or beside such.
const ROW_EVENTS: std::ops::RangeInclusive<u16> = 3..=5;

/// TableChanged.
const CHANGED: u16 = 1;

/// Replies end to end, in order. Empty most of the time: more was taken than one response could hold.
#[derive(Debug, Default)]
pub(super) struct Front {
    octets: Vec<u8>,
    /// Where the first reply begins that was not given out.
    begin: usize,
}

/// What was given, and what was not for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) taken: Taken,
    /// Replies for handles that are not open, or are something else by now.
    pub(super) released: u64,
    /// Rows that may have been made for something else, of which one TableChanged for each table was made.
    pub(super) outdated: u64,
    /// Octets that are no replies, behind which nothing can be read.
    pub(super) unreadable: usize,
}

impl Front {
    /// Octets that were not given out.
    pub(super) fn left(&self) -> usize {
        self.octets.len() - self.begin
    }

    /// Puts what was taken behind what is left.
    pub(super) fn add(&mut self, mut replies: Vec<u8>) {
        self.octets.drain(..self.begin);
        self.begin = 0;
        match self.octets.is_empty() {
            true => self.octets = replies,
            false => self.octets.append(&mut replies),
        }
    }

    /// Replies that were not given out, end to end.
    pub(super) fn rest(&self) -> &[u8] {
        self.octets.get(self.begin..).unwrap_or_default()
    }

    /// Forgets them: they are somewhere else.
    pub(super) fn clear(&mut self) {
        *self = Front::default();
    }

    /// Moves whole replies behind `out`, in order, no more than `free` octets, and a RopPending if some are left.
    /// `open`: what the session has open. Logons stand in no record: who appended knew none. `are_good`: whether rows that
    /// wait for a table were made for the table as it is now.
    pub(super) fn give(
        &mut self,
        free: usize,
        open: &[OpenHandle],
        are_good: impl Fn(u32, &TableView) -> bool,
        index: u16,
        out: &mut Vec<u8>,
    ) -> Given {
        let begun = out.len();
        let mut given = Given::default();
        let waiting = self.rest();
        let mut used = 0;
        // Tables of which this response says that they have changed: what came before the response is said by that.
        let mut changed = Vec::new();
        for reply in deliver::split(waiting) {
            let Ok(octets) = reply else {
                given.unreadable = waiting.len() - used;
                used = waiting.len();
                break;
            };
            let Some((open, event)) = of(octets, open) else {
                given.released += 1;
                used += octets.len();
                continue;
            };
            let is_row = event.is_some_and(|event| ROW_EVENTS.contains(&event));
            let outdated = open.table.as_ref().filter(|view| is_row && !are_good(open.handle, view));
            let says_changed = outdated.is_some() || event == Some(CHANGED);
            if says_changed && changed.contains(&open.handle) {
                given.outdated += u64::from(outdated.is_some());
                used += octets.len();
                continue;
            }
            let reply = match outdated {
                None => Cow::Borrowed(octets),
                Some(view) => Cow::Owned(changed_of(open, view)),
            };
            let left = free.saturating_sub(out.len() - begun);
            // RopPending keeps its place only if something will be left. (What is made of a row is no longer than it.)
            let all = waiting.len() - used <= left;
            let room = if all { left } else { left.saturating_sub(RopPending::OCTETS) };
            if reply.len() > room {
                break;
            }
            let at = out.len() + LOGON_ID;
            out.extend_from_slice(&reply);
            if let Some(place) = out.get_mut(at) {
                *place = open.logon_id;
            }
            if says_changed {
                changed.push(open.handle);
            }
            given.outdated += u64::from(outdated.is_some());
            given.taken.replies += 1;
            used += octets.len();
        }
        self.begin += used;
        given.taken.pending = self.left() > 0;
        if !given.taken.pending {
            *self = Front::default();
        } else if free.saturating_sub(out.len() - begun) >= RopPending::OCTETS {
            out.extend_from_slice(&RopPending { session_index: index }.encode());
        }
        given.taken.octets = out.len() - begun;
        given
    }
}

/// For what that is open a reply is, and which event of a table it is.
fn of<'a>(reply: &[u8], open: &'a [OpenHandle]) -> Option<(&'a OpenHandle, Option<u16>)> {
    let handle = handle_of(reply);
    let open = open.iter().find(|open| open.handle == handle)?;
    let event = table_event_of(reply);
    let is_right = match &open.table {
        Some(view) => view.listens && event.is_some(),
        None => event.is_none(),
    };
    is_right.then_some((open, event))
}

fn changed_of(open: &OpenHandle, view: &TableView) -> Vec<u8> {
    let notification = table_changed(view.kind);
    let reply = RopNotify { handle: open.handle, logon_id: open.logon_id, notification };
    // TableChanged has nothing in it that could not be written.
    reply.encode().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emsmdb::engine::TableKind;
    use ocbus_wire::ropnotify::FolderId;

    fn open(handle: u32, logon_id: u8) -> OpenHandle {
        let (kind, folder) = (TableKind::Contents, FolderId::NONE);
        let view = TableView { kind, folder, columns: [].into(), listens: true };
        OpenHandle { handle, logon_id, table: Some(view) }
    }

    fn good(_: u32, _: &TableView) -> bool {
        true
    }

    /// TableChanged, 10 octets.
    fn reply(handle: u8) -> Vec<u8> {
        vec![0x2a, handle, 0, 0, 0, 0, 0, 1, 1, 0]
    }

    fn front(handles: &[u8]) -> Front {
        let mut front = Front::default();
        front.add(handles.iter().flat_map(|handle| reply(*handle)).collect());
        front
    }

    #[test]
    fn whole_replies_in_order_and_pending_while_some_are_left() {
        let mut front = front(&[1, 2, 3]);
        let mut out = Vec::new();
        let given = front.give(25, &[open(1, 0), open(2, 0), open(3, 0)], good, 7, &mut out);
        assert_eq!(out, [reply(1), reply(2), vec![0x6e, 7, 0]].concat());
        assert_eq!(given.taken, Taken { replies: 2, pending: true, octets: 23 });
        front.add(reply(1));
        out.clear();
        let given = front.give(20, &[open(1, 0), open(2, 0), open(3, 0)], good, 7, &mut out);
        assert_eq!(out, [reply(3), reply(1)].concat(), "RopPending needs no place when all fits");
        assert_eq!(given.taken, Taken { replies: 2, pending: false, octets: 20 });
        assert_eq!(front.left(), 0);
    }

    #[test]
    fn without_room_nothing_is_lost() {
        let mut front = front(&[1]);
        let mut out = Vec::new();
        for (free, octets) in [(0, 0), (2, 0), (9, 3), (10, 10)] {
            out.clear();
            assert_eq!(front.give(free, &[open(1, 0)], good, 7, &mut out).taken.octets, octets, "{free}");
        }
        assert_eq!(out, reply(1));
    }

    #[test]
    fn replies_for_released_handles_are_dropped_and_counted() {
        let mut front = front(&[1, 2, 1]);
        let mut out = Vec::new();
        let given = front.give(100, &[open(2, 9)], good, 7, &mut out);
        assert_eq!((given.released, given.taken.replies), (2, 1));
        assert_eq!(out, [&reply(2)[..5], &[9], &reply(2)[6..]].concat(), "with the handle's own logon");
    }

    #[test]
    fn what_is_no_reply_ends_it() {
        let mut front = front(&[1]);
        front.add([&[0x2b][..], &reply(1)].concat());
        let mut out = Vec::new();
        let given = front.give(100, &[open(1, 0)], good, 7, &mut out);
        assert_eq!((out, given.unreadable, given.taken.pending), (reply(1), 11, false));
        assert_eq!(front.left(), 0);
    }

    /// TableRowDeleted, 30 octets.
    fn row(handle: u8) -> Vec<u8> {
        let mut reply = vec![0x2a, handle, 0, 0, 0, 0, 0, 0x81, 4, 0];
        reply.resize(30, 0);
        reply
    }

    fn given(open: &[OpenHandle], replies: &[Vec<u8>], are_good: bool) -> (Given, Vec<u8>) {
        let mut front = Front::default();
        front.add(replies.concat());
        let mut out = Vec::new();
        (front.give(1_000, open, |_, _| are_good, 7, &mut out), out)
    }

    #[test]
    fn rows_that_may_be_for_something_else_become_one_changed_table() {
        let replies = [row(1), row(2), row(1), reply(1)];
        let (told, out) = given(&[open(1, 0), open(2, 0)], &replies, false);
        assert_eq!((told.outdated, told.taken.replies, told.released), (3, 2, 0));
        let changed = |handle| {
            let mut reply = reply(handle);
            reply[7] = 0x81;
            reply
        };
        assert_eq!(out, [changed(1), changed(2)].concat());
        let (told, out) = given(&[open(1, 0)], &[row(1), row(1)], true);
        assert_eq!((told.outdated, told.taken.replies, out.len()), (0, 2, 60));
    }

    #[test]
    fn what_is_for_another_kind_of_object_is_dropped() {
        let folder_modified = [&[0x2a, 1, 0, 0, 0, 0, 0x10, 0][..], &[0; 10]].concat();
        assert_eq!(deliver::split(&folder_modified).count(), 1);
        let subscription = OpenHandle { handle: 1, logon_id: 0, table: None };
        let mut silent = open(1, 0);
        silent.table.as_mut().unwrap().listens = false;
        for (open, replies, left) in [
            (open(1, 0), vec![folder_modified.clone(), row(1)], row(1)),
            (subscription, vec![folder_modified.clone(), row(1)], folder_modified),
            (silent, vec![reply(1)], vec![]),
        ] {
            let (told, out) = given(&[open], &replies, true);
            assert_eq!((told.released, out), (1, left));
        }
    }
}
