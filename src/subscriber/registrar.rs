//! The task that keeps users registered: renews before leases end, registers again when the resolver has
//! forgotten, and tells the bus what may have been missed.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ocbus_resolver::{Cn, Registered, Registration, ResolverError, Sighting};
use ocbus_wire::{Event, ResyncReason};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use super::legacy::LegacySocket;
use super::watch::{View, Watch};
use super::{HeldUser, Shared};
use crate::now_us;

/// Registrations that are under way at once: the resolver puts them into few round trips.
const CONCURRENT: usize = 512;

/// Users that are looked after at each heartbeat: with the default of two a second, 2,000 users in 2 s. Whoever has
/// more sees a single eviction at the renewal at the latest.
const LOOKED_AT: usize = 500;

/// Users lost within a period, beyond which memcached has no room for all: to register at once whoever is gone would
/// only drive out others. They have their turn when they are due, and later when they are lost again. Below, all are
/// looked at within 2 s.
const CROWD: usize = 4 * LOOKED_AT;

/// How soon a registration that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How soon a user whose own record is at fault, or refused, is tried again; sooner where leases are short.
const OWN_RETRY: Duration = Duration::from_secs(10);

pub(super) async fn run(shared: Arc<Shared>) {
    // A lease shorter than three heartbeats is renewed between them.
    let mut ticks = tokio::time::interval(shared.config.heartbeat.min(shared.config.renewal() / 2));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::new(shared.id);
    let mut round = Vec::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                watch.view = heartbeat(&shared, &mut watch).await;
                if watch.view == View::Remembers {
                    look(&shared, &mut round).await;
                }
            }
            () = shared.changed.notified() => {}
        }
        if shared.stopping.load(Ordering::Acquire) {
            return;
        }
        if watch.view == View::Remembers && !renew_due(&shared).await {
            // A heartbeat may not have seen it; what happened meanwhile is told when it is back.
            watch.view = View::Absent;
        }
        shared.say_losses();
    }
}

/// Asks whether the resolver still knows the canary, and mends what follows.
async fn heartbeat(shared: &Arc<Shared>, watch: &mut Watch) -> View {
    let view = watch.view;
    if let Err(error) = shared.resolver.remembers(&mut watch.canary).await {
        shared.counters.resolver_failures.fetch_add(1, Ordering::Relaxed);
        if view != View::Absent {
            tracing::warn!(event = "resolver_lost", reason = %error, "registrations wait until it answers");
        }
        return View::Absent;
    }
    let sightings = watch.canary.sightings().to_vec();
    let unwell: Vec<usize> = sightings.iter().filter(|one| !one.is_well()).map(|one| one.server).collect();
    if view == View::Remembers {
        note_slow(shared, watch, &sightings);
        if unwell.is_empty() {
            return match watch.plants_at.is_some_and(|at| at <= Instant::now()) {
                true => plant(shared, watch).await,
                false => View::Remembers,
            };
        }
    }
    // Forgotten, or back: either way publishers may have found nobody for a while. All whom that concerns are registered
    // before the canary is planted, so that a failure on the way is seen at the next heartbeat.
    let all: Vec<Cn> = shared.held.lock().keys().cloned().collect();
    let (users, servers) = match view {
        View::Remembers => (shared.resolver.users_on(&unwell, all.clone()), unwell),
        // None answered for a while, or this is the first look.
        View::Absent | View::Unknown => (all.clone(), sightings.iter().map(|one| one.server).collect()),
    };
    let forgot = sightings.iter().any(|one| one.forgot);
    let evicts = view == View::Remembers && forgot && !sightings.iter().any(|one| one.away);
    // One by one, then, as of single evictions.
    let each = evicts && !watch.forgets.note(Instant::now(), shared.config.renewal());
    if !renew(shared, &users, each).await || plant(shared, watch).await == View::Absent {
        return View::Absent;
    }
    // A server that has forgotten may have had more than its users' registrations: what sessions share stands by keys of
    // its own, and is written again by whoever is told (`emsmdb::records`).
    let registered = users.len();
    let concerned = if forgot { all } else { users };
    if each {
        let mut held = shared.held.lock();
        for cn in &concerned {
            if let Some(user) = held.get_mut(cn) {
                user.lost.owe();
            }
        }
    } else if view != View::Unknown {
        tracing::warn!(event = "resolver_back", users = registered, forgot, "registered again");
        resync_all(shared, &concerned);
        if shared.held.lock().is_empty() {
            // What sessions share, by who hears no events: nobody's registration is told of there.
            let id = Uuid::now_v7();
            shared.bus.publish(Event::resync(id, now_us(), "", ResyncReason::ResolverLost, 0));
        }
        for server in servers {
            watch.slow.entry(server).or_default().all_told(Instant::now());
        }
    }
    View::Remembers
}

/// Tells the users of servers that answered late, and those alone: one that hangs is none that is late.
fn note_slow(shared: &Shared, watch: &mut Watch, sightings: &[Sighting]) {
    let now = Instant::now();
    let mut servers = Vec::new();
    for one in sightings.iter().filter(|one| one.is_well()) {
        let late = one.took > shared.config.heartbeat / 2;
        let told = watch.slow.entry(one.server).or_default().note(late, now, shared.config.renewal());
        if told.warn {
            let took_ms = u64::try_from(one.took.as_millis()).unwrap_or(u64::MAX);
            let server = shared.resolver.server_name(one.server);
            tracing::warn!(event = "resolver_slow", server, took_ms, "publishers may have given up");
        }
        if told.resync {
            servers.push(one.server);
        }
    }
    if !servers.is_empty() {
        let users = shared.held.lock().keys().cloned().collect();
        resync_all(shared, &shared.resolver.users_on(&servers, users));
    }
}

/// Plants the canary. A server without room for it is watched without one: whether it is there is seen at each
/// heartbeat, and who is gone from it by [`look`]. To register everybody again would fill it further.
async fn plant(shared: &Shared, watch: &mut Watch) -> View {
    match shared.resolver.plant(&mut watch.canary).await {
        Ok(()) => watch.plants_at = None,
        Err(error) if error.is_refused() => {
            if watch.plants_at.is_none() {
                tracing::warn!(event = "canary_refused", reason = %error, "watched without it until there is room");
            }
            watch.plants_at = Some(Instant::now() + shared.config.renewal());
        }
        Err(_) => return View::Absent,
    }
    View::Remembers
}

/// Looks whether some users are still registered, the next ones each time: one record may be evicted, or overwritten
/// by a writer without compare-and-swap, while the canary lives. Who is gone is due at once.
async fn look(shared: &Arc<Shared>, round: &mut Vec<Cn>) {
    if round.is_empty() {
        round.extend(shared.held.lock().keys().cloned());
    }
    let some = round.split_off(round.len().saturating_sub(LOOKED_AT));
    let found = shared.resolver.lookup_many(&some).await;
    let (now, period) = (Instant::now(), shared.config.renewal());
    let crowded = shared.crowded.load(Ordering::Relaxed);
    let mut held = shared.held.lock();
    for (cn, listeners) in some.iter().zip(found) {
        // A failure is the heartbeat's to see.
        let Ok(listeners) = listeners else { continue };
        // Who was refused is tried again in time, and not at each heartbeat.
        let due = |user: &&mut HeldUser| {
            user.registered && !user.complained && !(crowded && user.lost.is_recent(now, period))
        };
        let Some(user) = held.get_mut(cn).filter(due) else { continue };
        let native =
            shared.native.is_none() || listeners.native.iter().any(|lease| lease.subscriber == shared.id);
        let legacy = user.legacy.as_ref().map(|legacy| legacy.endpoint().to_string());
        if !native || legacy.is_some_and(|legacy| !listeners.legacy.contains(&legacy)) {
            user.renew_at = now;
        }
    }
}

fn resync_all(shared: &Shared, users: &[Cn]) {
    let mut held = shared.held.lock();
    for cn in users {
        if let Some(user) = held.get_mut(cn) {
            user.lost.all_told();
        }
    }
    drop(held);
    for cn in users {
        resync(shared, cn, ResyncReason::ResolverLost, 0);
    }
}

/// Renews what is due, and tells whom it is time to tell. Says whether the resolver was in reach.
async fn renew_due(shared: &Arc<Shared>) -> bool {
    let (now, period) = (Instant::now(), shared.config.renewal());
    let (mut due, mut owed, mut lost) = (Vec::new(), Vec::new(), 0);
    for (cn, user) in shared.held.lock().iter() {
        if user.renew_at <= now {
            due.push(cn.clone());
        }
        if user.lost.is_due(now, period) {
            owed.push(cn.clone());
        }
        lost += usize::from(user.lost.is_recent(now, period));
    }
    shared.crowded.store(lost > CROWD, Ordering::Relaxed);
    shared.tell_lost(&owed);
    renew(shared, &due, true).await
}

/// Renews registrations, some at a time; stops when the resolver is out of reach. Says whether it was not. What is
/// wrong with one user's record concerns that user alone.
/// `tell`: whoever's registration was gone is told to look again, and the log is (the caller does it otherwise).
async fn renew(shared: &Arc<Shared>, users: &[Cn], tell: bool) -> bool {
    let mut faults = Faults::default();
    for some in users.chunks(CONCURRENT) {
        if shared.stopping.load(Ordering::Acquire) {
            break;
        }
        for (cn, registered) in some.iter().zip(shared.register_many(some, tell).await) {
            if let Err(error) = registered {
                faults.add(cn, shared.postpone(cn, &error), error);
            }
        }
        if tell {
            shared.tell_lost(some);
        }
        if faults.outage {
            break;
        }
    }
    faults.tell();
    !faults.outage
}

/// What a failed registration concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Everybody: the resolver is out of reach.
    Outage,
    /// This user alone, which the log has not said yet.
    Own,
    /// This user alone, or one of several servers, which the log has said.
    Known,
}

/// What went wrong in one round of renewals, for one line in the log: a full memcached refuses thousands.
#[derive(Debug, Default)]
struct Faults {
    outage: bool,
    users: usize,
    first: Option<(Cn, ResolverError)>,
}

impl Faults {
    fn add(&mut self, cn: &Cn, fault: Fault, error: ResolverError) {
        self.outage |= fault == Fault::Outage;
        if fault == Fault::Own {
            self.users += 1;
            self.first.get_or_insert_with(|| (cn.clone(), error));
        }
    }

    fn tell(&self) {
        if let Some((user, reason)) = &self.first {
            let users = self.users;
            tracing::warn!(event = "registration_failed", %user, users, %reason, "tried again, each by itself");
        }
    }
}

fn resync(shared: &Shared, cn: &Cn, reason: ResyncReason, missed: u64) {
    shared.bus.publish(Event::resync(Uuid::now_v7(), now_us(), cn.as_str(), reason, missed));
}

/// Takes all registrations back.
pub(super) async fn leave_all(shared: &Arc<Shared>) {
    let users: Vec<(Cn, HeldUser)> = shared.held.lock().drain().collect();
    let mut users = users.into_iter();
    loop {
        let mut tasks = JoinSet::new();
        for (cn, user) in users.by_ref().take(CONCURRENT) {
            let shared = Arc::clone(shared);
            tasks.spawn(async move { shared.leave(&cn, user.legacy.as_ref()).await });
        }
        if tasks.is_empty() {
            return;
        }
        while let Some(result) = tasks.join_next().await {
            if let Ok(Err(error)) = result {
                tracing::warn!(event = "leave_failed", reason = %error, "a registration is left behind");
                if error.is_outage() {
                    // The others would fail alike, each after its time limit.
                    return;
                }
            }
        }
    }
}

impl Shared {
    /// Registers or renews a user's endpoints, and tells the bus what publishers marked as missed. Takes note of a
    /// former registration that was gone.
    pub(super) async fn register(&self, cn: &Cn) -> Result<(), ResolverError> {
        self.register_many(std::slice::from_ref(cn), true).await.pop().unwrap_or(Ok(()))
    }

    /// The same for several, in their order and in few round trips; `warn`: the log is told of what was gone.
    async fn register_many(&self, cns: &[Cn], warn: bool) -> Vec<Result<(), ResolverError>> {
        // Whether they were registered is asked before: a first registration is made by `add` and by a heartbeat at
        // the same time, and is new to both.
        let (legacy, before): (Vec<Option<String>>, Vec<bool>) = {
            let held = self.held.lock();
            let of = |user: &HeldUser| {
                (user.legacy.as_ref().map(|legacy| legacy.endpoint().to_string()), user.registered)
            };
            cns.iter().map(|cn| held.get(cn).map(of).unwrap_or_default()).unzip()
        };
        let mut outcomes = self.register_native(cns, &legacy).await;
        let both = || cns.iter().zip(&legacy);
        let some: Vec<(&Cn, &str)> = both()
            .zip(&outcomes)
            .filter(|(_, native)| native.is_ok())
            .filter_map(|((cn, legacy), _)| Some((cn, legacy.as_deref()?)))
            .collect();
        if !some.is_empty() {
            let mut added = self.resolver.register_legacy_many(&some).await.into_iter();
            for (outcome, legacy) in outcomes.iter_mut().zip(&legacy) {
                if let (Ok(new), Some(_)) = (&*outcome, legacy)
                    && let Some(added) = added.next()
                {
                    *outcome = added.map(|added| *new || added);
                }
            }
        }
        let mut registered = Vec::with_capacity(outcomes.len());
        for ((outcome, (cn, legacy)), before) in outcomes.into_iter().zip(both()).zip(before) {
            registered.push(match outcome {
                Ok(new) => self.registered(cn, legacy.as_deref(), before && new, warn).await,
                Err(error) => Err(error),
            });
        }
        registered
    }

    /// Says of each whether it did not stand there.
    async fn register_native(
        &self,
        cns: &[Cn],
        legacy: &[Option<String>],
    ) -> Vec<Result<bool, ResolverError>> {
        let Some(native) = &self.native else { return cns.iter().map(|_| Ok(false)).collect() };
        let endpoint = native.endpoint().to_string();
        let registration = |legacy| Registration {
            endpoint: &endpoint,
            legacy,
            subscriber: self.id,
            lease: self.config.lease,
        };
        let users: Vec<(&Cn, Registration<'_>)> =
            cns.iter().zip(legacy).map(|(cn, legacy)| (cn, registration(legacy.as_deref()))).collect();
        let registered = self.resolver.register_many(&users).await;
        let told = |(cn, registered): (&Cn, Result<Registered, ResolverError>)| {
            let registered = registered?;
            if registered.missed > 0 {
                resync(self, cn, ResyncReason::Unreachable, registered.missed);
            }
            Ok(registered.new)
        };
        cns.iter().zip(registered).map(told).collect()
    }

    /// Takes note that a user's endpoints stand in the records; `lost`: one that had stood there did not.
    async fn registered(
        &self,
        cn: &Cn,
        legacy: Option<&str>,
        lost: bool,
        warn: bool,
    ) -> Result<(), ResolverError> {
        // Spread over half of it, so that users who came together are not renewed together for ever.
        let renewal = self.config.renewal();
        let jitter = renewal.mul_f64(f64::from(Uuid::new_v4().as_bytes()[0]) / 512.0);
        let crowded = self.crowded.load(Ordering::Relaxed);
        let held = match self.held.lock().get_mut(cn) {
            Some(user) => {
                match lost {
                    true => user.lost.lost(),
                    false => user.lost.kept(),
                }
                let periods = if crowded { user.lost.periods() } else { 1 };
                user.renew_at = Instant::now() + renewal * periods - jitter;
                (user.complained, user.registered) = (false, true);
                true
            }
            None => false,
        };
        if !held {
            // Removed while this was under way, and perhaps put back by it.
            return self.leave_endpoints(cn, legacy).await;
        }
        if lost {
            self.counters.registrations_lost.fetch_add(1, Ordering::Relaxed);
            if warn {
                self.losses.lock().unwrap_or_else(PoisonError::into_inner).add(cn);
            }
        }
        Ok(())
    }

    /// Tells the bus of those of these users whose registration was gone, each of them once a renewal period at most:
    /// who is passed over is told when it is time.
    pub(super) fn tell_lost(&self, cns: &[Cn]) {
        let (now, period) = (Instant::now(), self.config.renewal());
        let mut held = self.held.lock();
        let tell = |cn: &&Cn| held.get_mut(*cn).is_some_and(|user| user.lost.tell(now, period));
        let due: Vec<&Cn> = cns.iter().filter(tell).collect();
        drop(held);
        for cn in due {
            resync(self, cn, ResyncReason::ResolverLost, 0);
        }
    }

    /// Says in the log what was gone, once a renewal period at most.
    fn say_losses(&self) {
        let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        let said = losses.say(Instant::now(), self.config.renewal());
        drop(losses);
        match said {
            Some((user, 1)) => {
                tracing::warn!(event = "registration_lost", %user, count = 1, "it had been removed; registered again");
            }
            Some((user, count)) => tracing::warn!(
                event = "registration_lost",
                %user,
                count,
                "gone, and registered again: memcached evicts (expected more -m), or somebody overwrites them"
            ),
            None => {}
        }
    }

    /// A registration that failed is tried again soon. Says what it concerns.
    pub(super) fn postpone(&self, cn: &Cn, error: &ResolverError) -> Fault {
        self.counters.resolver_failures.fetch_add(1, Ordering::Relaxed);
        let own = !error.is_outage();
        // With one of several servers many users wait, and the heartbeat finds out when it is back: its canary is
        // gone then. One warning about the server is enough, and the resolver has given it.
        let complain = own && !error.is_one_server();
        let mut complained = true;
        if let Some(user) = self.held.lock().get_mut(cn) {
            // A refused record may be gone (memcached drops what it cannot replace): within its lease, then.
            let own_retry = OWN_RETRY.min(self.config.renewal());
            user.renew_at = Instant::now() + if own { own_retry } else { RETRY };
            complained = std::mem::replace(&mut user.complained, complain);
        }
        self.changed.notify_one();
        match own {
            false => Fault::Outage,
            true if complain && !complained => Fault::Own,
            true => Fault::Known,
        }
    }

    /// Takes a user's registrations back.
    pub(super) async fn leave(&self, cn: &Cn, legacy: Option<&LegacySocket>) -> Result<(), ResolverError> {
        self.leave_endpoints(cn, legacy.map(|legacy| legacy.endpoint().to_string()).as_deref()).await
    }

    async fn leave_endpoints(&self, cn: &Cn, legacy: Option<&str>) -> Result<(), ResolverError> {
        if let Some(native) = &self.native {
            self.resolver.leave(cn, &native.endpoint().to_string(), self.id).await?;
        }
        if let Some(legacy) = legacy {
            self.resolver.leave_legacy(cn, legacy).await?;
        }
        Ok(())
    }
}
