//! Events of whom nobody knows any more: what a killed daemon had accepted and not delivered, what found no room of more
//! users than can be remembered, and what was refused unread. Everybody who is registered is told to look again.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ocbus_resolver::Cn;

use super::Shared;
use super::ledger::LeftBehind;

/// For each step of the census.
const LIMIT: Duration = Duration::from_secs(2);

/// How soon it is tried again when a server does not answer.
const PAUSE: Duration = Duration::from_secs(5);

/// Between two censuses of all servers: more than a subscriber's heartbeat, and no multiple of it.
const ONCE_MORE: Duration = Duration::from_millis(1700);
/// A census may miss somebody whose record is in use at each of its looks: so the debt is forgiven only when one found
/// nobody whom those before it had not...
const LEAST_CENSUSES: u32 = 2;
/// ...or behind so many: whoever is found first by this one has most likely only just registered.
const MOST_CENSUSES: u32 = 5;

/// How soon a full outbox is looked at again.
const ROOM_PAUSE: Duration = Duration::from_millis(50);

/// Tells everybody, and clears the ledger. Until that is done the ledger keeps the debt, should we be killed too.
pub(super) async fn tell(shared: Weak<Shared>, left: LeftBehind) {
    let events = match left {
        LeftBehind::Nothing => return,
        LeftBehind::Events(events) => events,
        LeftBehind::Unknown => 0,
    };
    tracing::warn!(
        event = "left_behind",
        events,
        known = left != LeftBehind::Unknown,
        "an earlier process ended without delivering these: everybody who is registered is told to look again"
    );
    if let Some(shared) = shared.upgrade() {
        shared.lock().core.statistics.left_behind = events;
    }
    let Some(users) = tell_everybody(&shared, events).await else { return };
    let Some(shared) = shared.upgrade() else { return };
    let mut state = shared.lock();
    let (accepted, settled) = (state.core.accepted, state.core.settled);
    if let Some(ledger) = &mut state.ledger {
        ledger.forgive(accepted, settled);
    }
    drop(state);
    tracing::info!(event = "left_behind_told", users, "everybody is told");
}

/// Tells everybody of so many events that were refused.
pub(super) async fn tell_turned_away(shared: Weak<Shared>, events: u64) {
    let Some(users) = tell_everybody(&shared, events).await else { return };
    tracing::warn!(
        event = "turned_away_told",
        events,
        users,
        "refused unread, or without room for more users than are remembered: everybody is told to look again"
    );
    let Some(shared) = shared.upgrade() else { return };
    let ((), orders) = shared.call(|core, now| core.told_everybody(now));
    shared.start(orders);
}

/// Tells everybody who is registered natively, and gives how many these are. `None`: the outbox is gone.
async fn tell_everybody(shared: &Weak<Shared>, events: u64) -> Option<usize> {
    let mut told = HashSet::new();
    let mut censuses = 0;
    loop {
        let found = everybody(shared).await?;
        let before = told.len();
        for cn in found.users {
            let shared = with_room(shared).await?;
            // A legacy endpoint has no word for it. A user whose look-up fails is held by the outbox.
            let native = shared.resolver.lookup(&cn).await.map(|listeners| !listeners.native.is_empty());
            if native.unwrap_or(true) && told.insert(cn.clone()) {
                let ((), orders) = shared.call(|core, now| core.resync(now, &cn, events));
                shared.start(orders);
            }
        }
        censuses += u32::from(found.whole);
        let quiet = found.whole && told.len() == before && censuses >= LEAST_CENSUSES;
        if quiet || censuses >= MOST_CENSUSES || found.in_memory {
            return Some(told.len());
        }
        // Of a server that did not answer, the users are still to be told.
        tokio::time::sleep(if found.whole { ONCE_MORE } else { PAUSE }).await;
    }
}

/// The outbox, when it has room for resyncs of everybody. `None`: it is gone.
async fn with_room(shared: &Weak<Shared>) -> Option<Arc<Shared>> {
    loop {
        let shared = shared.upgrade()?;
        if shared.lock().core.has_room_for_all() {
            return Some(shared);
        }
        drop(shared);
        tokio::time::sleep(ROOM_PAUSE).await;
    }
}

/// Who is registered.
struct Found {
    users: Vec<Cn>,
    /// All servers said so.
    whole: bool,
    /// There is no server, and nobody is missing.
    in_memory: bool,
}

/// Takes a census. `None`: the outbox is gone.
async fn everybody(shared: &Weak<Shared>) -> Option<Found> {
    let resolver = shared.upgrade()?.resolver.clone();
    let Some(mut census) = resolver.census(LIMIT) else {
        return Some(Found { users: resolver.registered_in_memory(), whole: true, in_memory: true });
    };
    drop(resolver);
    let mut found = Found { users: Vec::new(), whole: true, in_memory: false };
    loop {
        match census.next().await {
            Ok(Some(cn)) => found.users.push(cn),
            Ok(None) => return Some(found),
            Err(error) => {
                tracing::warn!(event = "census_failed", reason = %error, "tried again in {} s", PAUSE.as_secs());
                found.whole = false;
            }
        }
    }
}
