//! Carries the core's orders out, and tells it what came of them.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use ocbus_resolver::delivery::{self, Outcome, Send as Sending, Target, Verdict};
use ocbus_resolver::{Cn, Listeners, ResolverError, Settlement};
use ocbus_wire::{Event, EventKind};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::core::{Dispatch, Item, LookUpFailure, Order, Sent, Who};
use super::trace::{SendOutcome, Step, Trace, TracedEvent};
use super::{Shared, left_behind, now};
use crate::now_us;

/// Wakes the core when something is due; ends with the outbox, which it does not keep.
pub(super) async fn timer(shared: Weak<Shared>, sooner: Arc<Notify>) {
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let ((), orders) = strong.call(|core, now| core.wake(now));
        strong.start(orders);
        let next = {
            let mut state = strong.lock();
            state.armed = state.core.next_wake();
            state.armed
        };
        drop(strong);
        match next {
            None => sooner.notified().await,
            Some(next) => {
                let _ = tokio::time::timeout_at(Instant::from_std(next), sooner.notified()).await;
            }
        }
    }
}

/// Something under way, and what follows from it.
type UnderWay = FuturesUnordered<Pin<Box<dyn Future<Output = Vec<Order>> + Send>>>;

/// Looks users up in one call, and carries out what follows from it.
pub(super) async fn look_up(shared: Arc<Shared>, users: Vec<Cn>) {
    let begun = Instant::now();
    let found = shared.resolver.lookup_many(&users).await;
    let took = begun.elapsed();
    let mut orders = Vec::new();
    for (cn, found) in users.iter().zip(found) {
        orders.extend(looked_up(&shared, cn, found, took));
    }
    run(shared, orders).await;
}

/// Carries out orders, and what follows from them, all at once and all in this task: one for each would wake another of
/// the runtime's threads, and with it a processor that somebody's delivery may need. A silent endpoint delays no other.
pub(super) async fn run(shared: Arc<Shared>, mut orders: Vec<Order>) {
    let mut under_way = UnderWay::new();
    loop {
        let mut users = Vec::new();
        for order in orders.drain(..) {
            match order {
                Order::LookUp(cn) => users.push(cn),
                Order::Send(dispatch) => send(&shared, dispatch, &under_way),
                Order::Settle(cn, settlement) => settle_later(&shared, cn, settlement, &under_way),
                Order::TellEverybody(events) => {
                    // It may take long, and does not keep the outbox.
                    let weak = Arc::downgrade(&shared);
                    shared.runtime.spawn(left_behind::tell_turned_away(weak, events));
                }
            }
        }
        shared.look_up(users);
        match under_way.next().await {
            Some(more) => orders = more,
            None => return,
        }
    }
}

fn settle_later(shared: &Arc<Shared>, cn: Cn, settlement: Settlement, under_way: &UnderWay) {
    let shared = Arc::clone(shared);
    under_way.push(Box::pin(async move {
        settle(&shared, &cn, &settlement).await;
        Vec::new()
    }));
}

/// Tells the core what came of a look-up.
fn looked_up(
    shared: &Arc<Shared>,
    cn: &Cn,
    found: Result<Listeners, ResolverError>,
    took: Duration,
) -> Vec<Order> {
    let ((), orders) = match found {
        Ok(listeners) => {
            for malformed in &listeners.malformed {
                tracing::warn!(event = "record_skipped", user = %cn, key = malformed.key, reason = malformed.why);
            }
            shared.call(|core, now| core.looked_up(now, cn, listeners, took))
        }
        Err(error) => {
            let failure = if error.is_outage() { LookUpFailure::Outage } else { LookUpFailure::Own };
            let reason = error.to_string();
            let begins = failure == LookUpFailure::Outage && !shared.lock().core.is_in_outage();
            if begins {
                tracing::warn!(event = "resolver_lost", reason, "events are held until it answers");
            }
            shared.call(|core, now| core.look_up_failed(now, cn, failure, &reason, took))
        }
    };
    orders
}

/// Sends to all endpoints of a dispatch at once; each tells the core by itself, so that a silent one delays no other.
fn send(shared: &Arc<Shared>, dispatch: Dispatch, under_way: &UnderWay) {
    let Dispatch { cn, leases, legacy, items, through, again } = dispatch;
    let config = shared.publisher.config();
    let events: Arc<[Arc<Event>]> = items.into_iter().map(|item| event_of(&cn, item)).collect();
    let listeners = Listeners { native: leases, legacy, ..Listeners::default() };
    let mut plan = delivery::plan(&listeners, &events, &config.options);
    for skipped in &plan.skipped {
        tracing::warn!(event = "send_skipped", user = %cn, what = skipped.what, reason = skipped.why, "not sent");
    }
    let missed = std::mem::take(&mut plan.missed);
    let planned = Planned { cn, events, listeners, sends: plan.sends, through, again };
    if missed.is_empty() {
        return planned.begin(shared, under_way);
    }
    // The marks first: with the last of it the log forgets that something is missing.
    let shared = Arc::clone(shared);
    under_way.push(Box::pin(async move {
        settle(&shared, &planned.cn, &Settlement { missed, ..Settlement::default() }).await;
        let mut under_way = UnderWay::new();
        planned.begin(&shared, &under_way);
        let mut orders = Vec::new();
        while let Some(more) = under_way.next().await {
            orders.extend(more);
        }
        orders
    }));
}

/// Sends of one user's events.
struct Planned {
    cn: Cn,
    events: Arc<[Arc<Event>]>,
    listeners: Listeners,
    sends: Vec<Sending>,
    through: u64,
    again: bool,
}

impl Planned {
    fn begin(self, shared: &Arc<Shared>, under_way: &UnderWay) {
        let Planned { cn, events, listeners, sends, through, again } = self;
        let planned = |who: &Who| sends.iter().any(|send| of(send) == *who);
        let native = listeners.native.iter().map(Who::native);
        let all = native.chain(listeners.legacy.iter().map(|url| Who::legacy(url)));
        // Their URLs are none, or there is nothing to be said to them.
        for who in all.filter(|who| !planned(who)) {
            let ((), orders) = shared.call(|core, now| core.sent(now, &cn, &who, through, Sent::Nothing));
            under_way.push(Box::pin(std::future::ready(orders)));
        }
        for send in sends {
            let native = matches!(send.target, Target::Native(_));
            let (cn, events, shared) = (cn.clone(), Arc::clone(&events), Arc::clone(shared));
            let flight = move |shared: &Shared| {
                let begun = Instant::now();
                let deadline = begun + shared.publisher.config().budget;
                let outcome = shared.publisher.submit(send.clone(), deadline);
                Flight { cn, send, events, through, again, begun, deadline, outcome }
            };
            if native {
                let flight = flight(&shared);
                under_way.push(Box::pin(async move { flight.land(&shared).await }));
            } else {
                // There is one for each user: all at once, they would spend their budgets waiting for each other.
                under_way.push(Box::pin(async move {
                    // An error: the outbox has ended.
                    let _permit = shared.legacy.acquire().await;
                    flight(&shared).land(&shared).await
                }));
            }
        }
    }
}

/// A send to one endpoint that is under way.
struct Flight {
    cn: Cn,
    send: Sending,
    events: Arc<[Arc<Event>]>,
    through: u64,
    again: bool,
    begun: Instant,
    deadline: Instant,
    outcome: oneshot::Receiver<Outcome>,
}

impl Flight {
    /// Waits for its end, and tells the records and the core.
    async fn land(self, shared: &Arc<Shared>) -> Vec<Order> {
        let Flight { cn, send, events, through, again, begun, deadline, outcome } = self;
        let outcome = match tokio::time::timeout_at(deadline, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Outcome::Broken("its task ended".to_owned()),
            Err(_) => Outcome::Silent,
        };
        let took_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let verdict = delivery::judge(&send, &outcome, cn.as_str(), &shared.publisher.config().options);
        let (sent, settlement) = meaning(&send, &outcome, &verdict);
        let reason = match verdict {
            Verdict::Taken { skipped: 0 } => None,
            Verdict::Taken { skipped } => Some(format!("skipped {skipped} events")),
            Verdict::Gone { reason } | Verdict::Missed { reason } | Verdict::Dropped { reason } => {
                Some(reason)
            }
        };
        if let Some(reason) = reason.as_deref().filter(|_| !again) {
            let (endpoint, events) = (&send.url, events.len());
            tracing::warn!(event = "endpoint_fault", user = %cn, endpoint, events, reason, "not delivered");
        }
        settle(shared, &cn, &settlement).await;
        let native = matches!(send.target, Target::Native(_));
        let said = || events.iter().map(|event| &**event).filter(|event| native || legacy_says(event));
        if shared.traces.receiver_count() > 0 {
            let step =
                Step::Sent { endpoint: send.url.clone(), native, outcome: outcome_of(sent), reason, took_us };
            let events = said().map(TracedEvent::of).collect();
            let trace = Trace { time_us: now_us(), user: cn.to_string(), events, step };
            // Nobody may be there any more.
            let _ = shared.traces.send(Arc::new(trace));
        }
        let of_core = shared.call(|core, now| {
            if sent == Sent::Taken {
                core.statistics.add_sent(native, said());
            }
            core.sent(now, &cn, &of(&send), through, sent)
        });
        of_core.1
    }
}

/// Whether there is a payload for it.
fn legacy_says(event: &Event) -> bool {
    matches!(&event.kind, EventKind::MessageNew(new) if new.uid.is_some() || new.name.is_some())
}

fn of(send: &Sending) -> Who {
    match &send.target {
        Target::Native(lease) => Who::native(lease),
        Target::Legacy => Who::legacy(&send.url),
    }
}

/// What a send's end means for the log, and for the records now: what is held for an endpoint it has not missed yet.
fn meaning(send: &Sending, outcome: &Outcome, verdict: &Verdict) -> (Sent, Settlement) {
    let mut settlement = Settlement::default();
    let sent = match (verdict, &send.target) {
        (Verdict::Taken { .. }, _) => Sent::Taken,
        (Verdict::Gone { .. }, Target::Native(lease)) => {
            settlement.gone.push(lease.clone());
            Sent::Gone
        }
        (Verdict::Gone { .. }, Target::Legacy) => {
            settlement.gone_legacy.push(send.url.clone());
            Sent::Gone
        }
        (_, Target::Native(lease)) if matches!(outcome, Outcome::Acknowledged(_)) => {
            let events = u64::try_from(send.events()).unwrap_or(u64::MAX);
            settlement.missed.push((lease.clone(), events));
            Sent::Refused
        }
        _ => Sent::Failed { unsent: matches!(outcome, Outcome::Refused | Outcome::NotBegun(_)) },
    };
    (sent, settlement)
}

fn outcome_of(sent: Sent) -> SendOutcome {
    match sent {
        Sent::Taken | Sent::Nothing => SendOutcome::Taken,
        Sent::Refused => SendOutcome::Refused,
        Sent::Gone => SendOutcome::Gone,
        Sent::Failed { .. } => SendOutcome::Failed,
    }
}

/// A resync has a new id each time: it may have grown since it was sent, and one too many harms nobody.
fn event_of(cn: &Cn, item: Item) -> Arc<Event> {
    match item {
        Item::Event(event) => event,
        Item::Resync { reason, missed } => {
            Arc::new(Event::resync(Uuid::now_v7(), now().us, cn.as_str(), reason, missed))
        }
    }
}

async fn settle(shared: &Arc<Shared>, cn: &Cn, settlement: &Settlement) {
    if settlement.is_empty() {
        return;
    }
    if let Err(error) = shared.resolver.settle(cn, settlement).await {
        tracing::warn!(event = "settle_failed", user = %cn, reason = %error, "records are left as they were");
    }
}
