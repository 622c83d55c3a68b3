//! What a killed daemon had accepted and not delivered: nobody knows whose it was, so everybody who is registered is
//! told to look again.

use std::collections::HashSet;
use std::sync::Weak;
use std::time::Duration;

use ocbus_resolver::Cn;

use super::Shared;
use super::ledger::LeftBehind;

/// For each step of the census.
const LIMIT: Duration = Duration::from_secs(2);

/// How soon it is tried again when a server does not answer.
const PAUSE: Duration = Duration::from_secs(5);

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
    let mut told = HashSet::new();
    loop {
        let Some((users, whole)) = everybody(&shared).await else { return };
        for cn in users {
            let Some(shared) = shared.upgrade() else { return };
            // A legacy endpoint has no word for it. A user whose look-up fails is held by the outbox.
            let native = shared.resolver.lookup(&cn).await.map(|listeners| !listeners.native.is_empty());
            if native.unwrap_or(true) && told.insert(cn.clone()) {
                let ((), orders) = shared.call(|core, now| core.resync(now, &cn, events));
                shared.start(orders);
            }
        }
        if whole {
            break;
        }
        // Some server did not answer: its users are still to be told.
        tokio::time::sleep(PAUSE).await;
    }
    let Some(shared) = shared.upgrade() else { return };
    let mut state = shared.lock();
    let (accepted, settled) = (state.core.accepted, state.core.settled);
    if let Some(ledger) = &mut state.ledger {
        ledger.forgive(accepted, settled);
    }
    drop(state);
    tracing::info!(event = "left_behind_told", users = told.len(), "everybody is told");
}

/// Who is registered, and whether all servers said so. `None`: the outbox is gone.
async fn everybody(shared: &Weak<Shared>) -> Option<(Vec<Cn>, bool)> {
    let census = shared.upgrade()?.resolver.census(LIMIT);
    // Records in memory went with the process that had them, and their holders notice.
    let Some(mut census) = census else { return Some((Vec::new(), true)) };
    let (mut users, mut whole) = (Vec::new(), true);
    loop {
        match census.next().await {
            Ok(Some(cn)) => users.push(cn),
            Ok(None) => return Some((users, whole)),
            Err(error) => {
                tracing::warn!(event = "census_failed", reason = %error, "tried again in {} s", PAUSE.as_secs());
                whole = false;
            }
        }
    }
}
