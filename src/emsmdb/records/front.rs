//! What was taken from `deliver:` and not given to the client yet.

use ocbus_wire::openchange::deliver;
use ocbus_wire::ropnotify::RopPending;

use crate::emsmdb::engine::Taken;

/// Where a RopNotify has its logon.
const LOGON_ID: usize = 5;

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
    /// Replies for handles that are not open.
    pub(super) released: u64,
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

    /// Moves whole replies behind `out`, in order, no more than `free` octets, and a RopPending if some are left.
    /// `open`: the handles that the session has, and their logons, which stand in no record: who appended knew none.
    pub(super) fn give(&mut self, free: usize, open: &[(u32, u8)], index: u16, out: &mut Vec<u8>) -> Given {
        let begun = out.len();
        let mut given = Given::default();
        let waiting = self.octets.get(self.begin..).unwrap_or_default();
        let mut used = 0;
        for reply in deliver::split(waiting) {
            let Ok(reply) = reply else {
                given.unreadable = waiting.len() - used;
                used = waiting.len();
                break;
            };
            let handle = reply.get(1..5).and_then(|octets| octets.try_into().ok()).map(u32::from_le_bytes);
            let logon_id = open.iter().find(|(of, _)| Some(*of) == handle).map(|(_, logon_id)| *logon_id);
            if let Some(logon_id) = logon_id {
                let left = free.saturating_sub(out.len() - begun);
                // RopPending keeps its place only if something will be left.
                let all = waiting.len() - used <= left;
                let room = if all { left } else { left.saturating_sub(RopPending::OCTETS) };
                if reply.len() > room {
                    break;
                }
                let at = out.len() + LOGON_ID;
                out.extend_from_slice(reply);
                if let Some(place) = out.get_mut(at) {
                    *place = logon_id;
                }
                given.taken.replies += 1;
            } else {
                given.released += 1;
            }
            used += reply.len();
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let given = front.give(25, &[(1, 0), (2, 0), (3, 0)], 7, &mut out);
        assert_eq!(out, [reply(1), reply(2), vec![0x6e, 7, 0]].concat());
        assert_eq!(given.taken, Taken { replies: 2, pending: true, octets: 23 });
        front.add(reply(1));
        out.clear();
        let given = front.give(20, &[(1, 0), (2, 0), (3, 0)], 7, &mut out);
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
            assert_eq!(front.give(free, &[(1, 0)], 7, &mut out).taken.octets, octets, "{free}");
        }
        assert_eq!(out, reply(1));
    }

    #[test]
    fn replies_for_released_handles_are_dropped_and_counted() {
        let mut front = front(&[1, 2, 1]);
        let mut out = Vec::new();
        let given = front.give(100, &[(2, 9)], 7, &mut out);
        assert_eq!((given.released, given.taken.replies), (2, 1));
        assert_eq!(out, [&reply(2)[..5], &[9], &reply(2)[6..]].concat(), "with the handle's own logon");
    }

    #[test]
    fn what_is_no_reply_ends_it() {
        let mut front = front(&[1]);
        front.add([&[0x2b][..], &reply(1)].concat());
        let mut out = Vec::new();
        let given = front.give(100, &[(1, 0)], 7, &mut out);
        assert_eq!((out, given.unreadable, given.taken.pending), (reply(1), 11, false));
        assert_eq!(front.left(), 0);
    }
}
