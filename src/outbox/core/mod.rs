//! What the outbox decides: whose look-up is next, what goes to which endpoint, what is held and for how long. No I/O
//! and no clock: time is an argument, what is to be done comes back as [`Order`]s, and its results go in again.
//!
//! Each user has a log of events and, for each endpoint, a place in it ([`user`]). Users know nothing of each other;
//! what they share is the room, the number of look-ups at once, the resolver's health and that of endpoints ([`backoff`]).

mod backoff;
mod endpoint;
mod home;
#[cfg(test)]
mod legacy;
#[cfg(test)]
mod model;
mod news;
#[cfg(test)]
mod strays;
mod turned_away;
mod user;

pub(super) use endpoint::Who;
pub(super) use news::News;
pub(super) use user::Item;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ocbus_resolver::{Cn, Listeners, Settlement};
use ocbus_wire::native::Lease;
use ocbus_wire::{Event, ResyncReason};

use super::config::{Full, OutboxConfig};
use super::statistics::Statistics;
use super::trace::{Reason, Source, Step, Trace};
use backoff::Backoff;
use home::pause;
use news::Drops;
use turned_away::TurnedAway;
use user::User;

/// Users without waiting events whose endpoints are remembered.
const MAX_IDLE: usize = 65_536;

/// How often it is said that users are held because a memcached has just taken them over.
const UNSETTLED_TOLD: Duration = Duration::from_secs(60);

/// The moment of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// For pauses and times to live.
    pub(super) at: Instant,
    /// The wall clock, in microseconds since the Unix epoch: for traces and latencies.
    pub(super) us: u64,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Order {
    /// Ask who listens; the answer goes to [`Core::looked_up`].
    LookUp(Cn),
    /// Send; each endpoint's outcome goes to [`Core::sent`].
    Send(Dispatch),
    /// Write to the user's records.
    Settle(Cn, Settlement),
    /// Tell everybody who is registered to look again, for so many events of whom nobody knows any more; then call
    /// [`Core::told_everybody`].
    TellEverybody(u64),
}

/// The same items for some endpoints of a user.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) cn: Cn,
    /// Native endpoints.
    pub(super) leases: Vec<Lease>,
    /// Legacy endpoints.
    pub(super) legacy: Vec<String>,
    /// In their order.
    pub(super) items: Vec<Item>,
    /// The place in the log behind them.
    pub(super) through: u64,
    /// For some of the endpoints it is not the first attempt.
    pub(super) again: bool,
}

/// How a send to an endpoint ended, as far as the log is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// It has them.
    Taken,
    /// There was nothing in them that could be said to it.
    Nothing,
    /// It answered, and cannot take them; its lease is marked, if it has one.
    Refused,
    /// Nobody is there, and its entry was removed.
    Gone,
    /// No answer. `unsent`: not an octet of them has left.
    Failed {
        /// Nothing has left.
        unsent: bool,
    },
}

impl Sent {
    /// Whether it is to be sent again. To a legacy endpoint at most once: only what has not left. (Of one that refuses and
    /// is not kept the entry is gone.)
    fn is_held(self, who: &Who) -> bool {
        match self {
            Sent::Failed { unsent } => who.is_native() || unsent,
            _ => false,
        }
    }
}

/// Why a look-up failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookUpFailure {
    /// The resolver is out of reach for everybody.
    Outage,
    /// This user's record, or the server that has it.
    Own,
}

/// The resolver is out of reach.
#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Instant,
    /// What had been dropped by then.
    dropped: u64,
    attempts: u32,
    retry_at: Instant,
}

/// All users.
#[derive(Debug)]
pub(super) struct Core {
    config: OutboxConfig,
    users: HashMap<Cn, User>,
    /// Users without events among them.
    idle: usize,
    octets: usize,
    events: usize,
    /// Who waits for others, to be looked up together with them.
    gathered: Vec<Cn>,
    /// Until then.
    gather_until: Option<Instant>,
    /// Who waits for a look-up. One who comes in an outage goes behind who was there.
    ready: VecDeque<Cn>,
    looking: usize,
    outage: Option<Outage>,
    /// Endpoints that did not answer.
    backoff: Backoff,
    /// Until then nobody is taken to be unheard.
    grace_until: Instant,
    /// When it was said last that a memcached has just taken users over.
    unsettled_told: Option<Instant>,
    timers: BTreeSet<(Instant, Cn)>,
    orders: Vec<Order>,
    turned_away: TurnedAway,
    drops: Drops,
    /// For jitter; no secret.
    random: u64,
    pub(super) statistics: Statistics,
    /// Units of the ledger.
    pub(super) accepted: u64,
    pub(super) settled: u64,
    pub(super) stopping: bool,
    /// Whether somebody follows.
    pub(super) traced: bool,
    pub(super) traces: Vec<Arc<Trace>>,
    /// For the log.
    pub(super) news: Vec<News>,
}

/// What a call on one user needs of the others' home.
struct Home<'a> {
    config: &'a OutboxConfig,
    now: Now,
    octets: &'a mut usize,
    events: &'a mut usize,
    settled: &'a mut u64,
    random: &'a mut u64,
    backoff: &'a mut Backoff,
    statistics: &'a mut Statistics,
    orders: &'a mut Vec<Order>,
    traced: bool,
    traces: &'a mut Vec<Arc<Trace>>,
}

impl Core {
    pub(super) fn new(config: OutboxConfig, now: Now, seed: u64) -> Core {
        Core {
            grace_until: now.at + config.grace,
            config,
            users: HashMap::new(),
            idle: 0,
            octets: 0,
            events: 0,
            gathered: Vec::new(),
            gather_until: None,
            ready: VecDeque::new(),
            looking: 0,
            outage: None,
            unsettled_told: None,
            backoff: Backoff::default(),
            timers: BTreeSet::new(),
            orders: Vec::new(),
            turned_away: TurnedAway::default(),
            drops: Drops::default(),
            random: seed | 1,
            statistics: Statistics::default(),
            accepted: 0,
            settled: 0,
            stopping: false,
            traced: false,
            traces: Vec::new(),
            news: Vec::new(),
        }
    }

    /// Other limits and times, for what is here as well: what is beyond them now goes when it is looked at next.
    pub(super) fn renew(&mut self, config: OutboxConfig) {
        self.config = OutboxConfig { state_dir: self.config.state_dir.take(), ..config };
    }

    /// Takes events, all or none.
    pub(super) fn accept(&mut self, now: Now, source: Source, events: Vec<Event>) -> Result<(), Full> {
        let count = events.len() as u64;
        let octets = events.iter().map(user::octets).fold(0, usize::saturating_add);
        let full = match self.octets.saturating_add(octets) > self.config.max_octets {
            _ if self.stopping => Some(Full::Stopping),
            true => Some(Full::Octets { octets, held: self.octets, max_octets: self.config.max_octets }),
            false => None,
        };
        if let Some(full) = full {
            self.statistics.add_refused(source, count);
            if matches!(full, Full::Octets { .. }) && source != Source::HandOver {
                self.turn_away(now, &events);
                // There may be room for a resync all the same, and nothing that is to end before.
                self.pump(now);
            }
            return Err(full);
        }
        self.statistics.add_accepted(source, count);
        self.statistics.add_accepted_kinds(source, &events);
        let mut events = events.into_iter().peekable();
        while let Some(event) = events.next() {
            let Ok(cn) = Cn::new(&event.user) else {
                self.statistics.add_dropped(Reason::NoUser, 1);
                continue;
            };
            let user = event.user.clone();
            let mut together = vec![event];
            while let Some(next) = events.next_if(|next| next.user == user) {
                together.push(next);
            }
            self.accepted = self.accepted.saturating_add(together.len() as u64);
            self.on(now, &cn, true, |user, home| {
                home.trace(&cn, &mut together.iter(), || Step::Accepted { source });
                user.push(&cn, together, home);
            });
            self.want(now, &cn);
        }
        self.pump(now);
        Ok(())
    }

    /// Remembers whose events find no room: Dovecot's drivers do not ask again, and a subscriber that may have missed
    /// something must be told. (Our plugin goes the direct way with what it could not hand over.)
    fn turn_away(&mut self, now: Now, events: &[Event]) {
        for together in events.chunk_by(|one, next| one.user == next.user) {
            let Some(Ok(cn)) = together.first().map(|event| Cn::new(&event.user)) else { continue };
            let count = together.len() as u64;
            // The ledger has them until their resync is there: should we be killed before, the next start tells.
            self.accepted = self.accepted.saturating_add(count);
            let joined = self.on(now, &cn, false, |user, _| user.join_resync(count));
            if joined != Some(true) {
                self.turned_away.add(&cn, count);
            }
        }
    }

    /// A request was refused unread: it may have been about anybody.
    pub(super) fn turn_away_unread(&mut self, now: Now) {
        self.accepted = self.accepted.saturating_add(1);
        self.turned_away.add_unread();
        self.pump(now);
    }

    /// Tells those who were turned away, as far as there is room. Before anybody else gets it: under a load that lasts,
    /// they would never be told.
    fn tell_turned_away(&mut self, now: Now) {
        while self.has_room() {
            let Some((cn, missed)) = self.turned_away.pop() else {
                let everybody = self.turned_away.begin_everybody(now.at);
                self.orders.extend(everybody.map(Order::TellEverybody));
                return;
            };
            self.on(now, &cn, true, |user, home| {
                user.push_resync(ResyncReason::Overflow, missed, missed, home);
            });
            self.want(now, &cn);
        }
    }

    /// Everybody was told of those who were turned away.
    pub(super) fn told_everybody(&mut self, now: Now) {
        self.settled = self.settled.saturating_add(self.turned_away.told_everybody(now.at));
        self.pump(now);
    }

    /// Whether there is room for a resync.
    fn has_room(&self) -> bool {
        self.octets.saturating_add(user::RESYNC_OCTETS) <= self.config.max_octets
    }

    /// Whether there is room for resyncs of everybody: a quarter stays free for events, which would be refused otherwise and
    /// make everybody's next round.
    pub(super) fn has_room_for_all(&self) -> bool {
        self.octets <= self.config.max_octets / 4 * 3
    }

    /// Tells a user's subscribers that something is missing.
    pub(super) fn resync(&mut self, now: Now, cn: &Cn, missed: u64) {
        self.accepted = self.accepted.saturating_add(1);
        self.on(now, cn, true, |user, home| user.push_resync(ResyncReason::Unreachable, missed, 1, home));
        self.want(now, cn);
        self.pump(now);
    }

    /// The resolver said who listens.
    pub(super) fn looked_up(&mut self, now: Now, cn: &Cn, listeners: Listeners, took: Duration) {
        self.looking = self.looking.saturating_sub(1);
        self.statistics.lookups += 1;
        self.statistics.add_lookup_time(took);
        // Not by one that had asked before.
        if let Some(outage) = self.outage.take_if(|outage| outage.retry_at <= now.at) {
            self.news.push(News::ResolverBack {
                lasted: now.at.saturating_duration_since(outage.since),
                held: self.events as u64,
                dropped: news::faults(&self.statistics.dropped).saturating_sub(outage.dropped),
            });
            // Who was forgotten meanwhile registers within a heartbeat.
            self.grace_until = now.at + self.config.grace;
        }
        if listeners.unsettled && self.unsettled_told.is_none_or(|told| told + UNSETTLED_TOLD <= now.at) {
            self.unsettled_told = Some(now.at);
            let why =
                "nobody is registered on a memcached that has just taken users over: held until they can be";
            tracing::warn!(event = "users_unsettled", user = %cn, "{why}");
        }
        let grace = now.at < self.grace_until;
        let more = self.on(now, cn, false, |user, home| user.looked_up(cn, listeners, grace, took, home));
        if more == Some(true) {
            self.want(now, cn);
        }
        self.pump(now);
    }

    /// The resolver did not say who listens.
    pub(super) fn look_up_failed(
        &mut self,
        now: Now,
        cn: &Cn,
        failure: LookUpFailure,
        reason: &str,
        took: Duration,
    ) {
        self.looking = self.looking.saturating_sub(1);
        self.statistics.lookup_failures += 1;
        self.statistics.add_lookup_time(took);
        let own = failure == LookUpFailure::Own;
        self.on(now, cn, false, |user, home| user.look_up_failed(cn, own, reason, took, home));
        if !own {
            // Of those that were under way together one counts.
            if self.outage.is_none_or(|outage| outage.retry_at <= now.at) {
                let (since, dropped) = (now.at, news::faults(&self.statistics.dropped));
                let begun = Outage { since, dropped, attempts: 0, retry_at: now.at };
                let outage = self.outage.get_or_insert(begun);
                outage.retry_at = now.at + pause(&self.config, outage.attempts, &mut self.random);
                outage.attempts = outage.attempts.saturating_add(1);
            }
            // First again when the resolver is asked next.
            if let Some(user) = self.users.get_mut(cn)
                && !std::mem::replace(&mut user.queued, true)
            {
                self.ready.push_front(cn.clone());
            }
        }
        self.pump(now);
    }

    /// A send ended at one endpoint.
    pub(super) fn sent(&mut self, now: Now, cn: &Cn, who: &Who, through: u64, sent: Sent) {
        let released = match sent.is_held(who) {
            true => {
                let (config, random) = (&self.config, &mut self.random);
                self.backoff.failed(who, cn, now.at, |attempts| pause(config, attempts, random));
                Vec::new()
            }
            false => self.backoff.ended(who),
        };
        self.on(now, cn, false, |user, home| user.sent(cn, who, through, sent, home));
        for cn in &released {
            self.want(now, cn);
        }
        self.pump(now);
    }

    /// Does what is due. Call it at [`Core::next_wake`].
    pub(super) fn wake(&mut self, now: Now) {
        while let Some((at, cn)) = self.timers.pop_first() {
            if at > now.at {
                self.timers.insert((at, cn));
                break;
            }
            if let Some(user) = self.users.get_mut(&cn) {
                user.timer = None;
            }
            if self.on(now, &cn, false, |user, home| user.wake(&cn, home)) == Some(true) {
                self.want(now, &cn);
            }
        }
        for cn in self.backoff.due(now.at) {
            self.want(now, &cn);
        }
        self.pump(now);
    }

    /// When something is due next.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let probe = self.outage.filter(|_| self.looking == 0 && !self.ready.is_empty());
        let probe = probe.map(|outage| outage.retry_at);
        let account = self.drops.due(&self.statistics.dropped);
        let users = timer.into_iter().chain(probe).chain(self.gather_until).chain(self.backoff.next_due());
        // Without room whatever makes some is due first.
        let everybody = self.turned_away.due().filter(|_| self.has_room());
        users.chain(account).chain(everybody).min()
    }

    /// What is to be done now.
    pub(super) fn take_orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.orders)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.users.len() == self.idle
    }

    /// Whether the resolver is out of reach.
    pub(super) fn is_in_outage(&self) -> bool {
        self.outage.is_some()
    }

    /// The counters, and what is held.
    pub(super) fn statistics(&self) -> Statistics {
        Statistics {
            held_events: self.events as u64,
            held_octets: self.octets as u64,
            waiting_users: (self.users.len() - self.idle) as u64,
            lookup_queue: (self.gathered.len() + self.ready.len()) as u64,
            resolver_outage: self.outage.is_some(),
            ..self.statistics.clone()
        }
    }

    /// The end: everything that waits is dropped. Gives what is to be written to the records so that those who are
    /// registered are told, and how many units of the ledger are settled by that. The rest stays in the ledger.
    pub(super) fn abandon(&mut self, now: Now) -> Vec<(Cn, Settlement, u64)> {
        let users: Vec<Cn> = self.users.keys().cloned().collect();
        let told = users.into_iter().filter_map(|cn| {
            let (settlement, units) = self.on(now, &cn, false, |user, home| user.abandon(&cn, home))?;
            (units > 0).then_some((cn, settlement, units))
        });
        let told = told.collect();
        self.news.extend(self.drops.rest(&self.statistics.dropped));
        told
    }

    /// Calls on one user, and brings up to date what depends on it. `None`: there is no such user.
    fn on<T>(
        &mut self,
        now: Now,
        cn: &Cn,
        make: bool,
        call: impl FnOnce(&mut User, &mut Home<'_>) -> T,
    ) -> Option<T> {
        if make && !self.users.contains_key(cn) {
            self.users.insert(cn.clone(), User::default());
            self.idle += 1;
        }
        let user = self.users.get_mut(cn)?;
        let was_idle = user.is_empty();
        let mut home = Home {
            config: &self.config,
            now,
            octets: &mut self.octets,
            events: &mut self.events,
            settled: &mut self.settled,
            random: &mut self.random,
            backoff: &mut self.backoff,
            statistics: &mut self.statistics,
            orders: &mut self.orders,
            traced: self.traced,
            traces: &mut self.traces,
        };
        let result = call(user, &mut home);
        match (was_idle, user.is_empty()) {
            (true, false) => self.idle -= 1,
            (false, true) => self.idle += 1,
            _ => {}
        }
        let forget = user.is_forgettable(now.at, self.config.time_to_live, self.idle > MAX_IDLE);
        let timer = if forget { None } else { user.next_wake(&self.config) };
        if timer != user.timer {
            if let Some(at) = user.timer.take() {
                self.timers.remove(&(at, cn.clone()));
            }
            user.timer = timer;
            self.timers.extend(timer.map(|at| (at, cn.clone())));
        }
        if forget {
            self.users.remove(cn);
            self.idle -= 1;
        }
        Some(result)
    }

    /// Queues a user for a look-up.
    fn want(&mut self, now: Now, cn: &Cn) {
        if let Some(user) = self.users.get_mut(cn)
            && !user.is_empty()
            && !user.is_looking()
            && !std::mem::replace(&mut user.queued, true)
        {
            self.gathered.push(cn.clone());
            self.gather_until.get_or_insert(now.at + self.config.gather);
        }
    }

    /// Begins as many look-ups as there may be: one at a time in an outage, when its pause is over.
    fn pump(&mut self, now: Now) {
        self.tell_turned_away(now);
        self.news.extend(self.drops.take(now.at, &self.statistics.dropped));
        if self.gather_until.take_if(|until| *until <= now.at).is_some() {
            self.ready.extend(self.gathered.drain(..));
        }
        loop {
            let most = match self.outage {
                None => self.config.lookups,
                Some(outage) if outage.retry_at <= now.at => 1,
                Some(_) => 0,
            };
            if self.looking >= most {
                return;
            }
            let Some(cn) = self.ready.pop_front() else { return };
            let Some(user) = self.users.get_mut(&cn) else { continue };
            user.queued = false;
            if user.begin_look_up() {
                self.looking += 1;
                self.orders.push(Order::LookUp(cn));
            }
        }
    }
}
