//! Whose events found no room. Whoever gave them was refused and does not ask again, so that the users are told to look
//! again as soon as there is room for that.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use ocbus_resolver::Cn;

/// Users that are remembered by their names, a few hundred octets each. With more, everybody who is registered is told.
pub(super) const MAX_USERS: usize = 4096;

/// Between the end of one round in which everybody is told, and the next: each makes every Outlook look again, in the very
/// overload that was the reason.
pub(super) const PAUSE: Duration = Duration::from_secs(60);

/// Whom to tell, and of how many events.
#[derive(Debug, Default)]
pub(super) struct TurnedAway {
    users: HashMap<Cn, u64>,
    /// First come, first told: under a load that lasts nobody waits for ever.
    order: VecDeque<Cn>,
    /// Events of users beyond [`MAX_USERS`], and of users whose names were not read.
    of_others: u64,
    /// Everybody is being told, of so many.
    telling: Option<u64>,
    /// Not before.
    next_round: Option<Instant>,
}

impl TurnedAway {
    /// So many events of a user found no room.
    pub(super) fn add(&mut self, cn: &Cn, events: u64) {
        if let Some(sum) = self.users.get_mut(cn) {
            *sum = sum.saturating_add(events);
        } else if self.users.len() < MAX_USERS {
            self.users.insert(cn.clone(), events);
            self.order.push_back(cn.clone());
        } else {
            self.of_others = self.of_others.saturating_add(events);
        }
    }

    /// Something was refused before anybody read whose it was.
    pub(super) fn add_unread(&mut self) {
        self.of_others = self.of_others.saturating_add(1);
    }

    /// Who has waited longest.
    pub(super) fn pop(&mut self) -> Option<(Cn, u64)> {
        let cn = self.order.pop_front()?;
        let events = self.users.remove(&cn)?;
        Some((cn, events))
    }

    /// Whether everybody is to be told now, and of how many; then [`TurnedAway::told_everybody`] is awaited.
    pub(super) fn begin_everybody(&mut self, now: Instant) -> Option<u64> {
        if self.telling.is_some() || self.of_others == 0 || self.next_round.is_some_and(|at| at > now) {
            return None;
        }
        self.telling = Some(std::mem::take(&mut self.of_others));
        self.telling
    }

    /// Everybody is told; of how many events.
    pub(super) fn told_everybody(&mut self, now: Instant) -> u64 {
        self.next_round = Some(now + PAUSE);
        self.telling.take().unwrap_or(0)
    }

    /// When the next round may begin, if there is a reason for it.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next_round.filter(|_| self.telling.is_none() && self.of_others > 0)
    }
}
