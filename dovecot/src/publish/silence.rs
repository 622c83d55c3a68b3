//! An endpoint that did not answer is left alone for a while: a mail to many recipients, or into many folders, waits for it
//! once, and not for each of them. What was not sent to it meanwhile is counted, and said once. No clock in here.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ocbus_resolver::delivery::{Plan, Target};

use super::{MAX_FAULTS, counted};

/// How long a silent endpoint is left alone, and how long waits in vain are counted together.
const PAUSE: Duration = Duration::from_secs(1);

/// Waits in vain within a pause before all endpoints are waited for less. One endpoint that is dead costs one; more are
/// those of a host or of an OpenChange server, which has one for each user.
const STRIKES: u32 = 2;

/// The part of the budget that endpoints have then: enough for whoever is well and near.
const HASTE: u32 = 10;

/// The part of the budget that an endpoint must have had before its silence says something of it: a slow memcached leaves
/// less.
const FAIR: u32 = 4;

/// Endpoints that are left alone at the same time. More are waited for, in haste.
const MOST: usize = 1024;

/// Who is silent.
#[derive(Debug, Default)]
pub(super) struct Silence {
    alone: HashMap<String, Alone>,
    /// Since when waits in vain are counted, and how many there were.
    vain: Option<(Instant, u32)>,
}

/// An endpoint that is left alone, and what was not sent to it.
#[derive(Debug)]
struct Alone {
    until: Instant,
    events: u64,
    transactions: u64,
}

impl Silence {
    /// Takes out of a plan who is to be left alone now, and gives their URLs. Native ones have missed the events; what legacy
    /// ones have lost is said when the pause is over.
    pub(super) fn leave_alone(&mut self, plan: &mut Plan, now: Instant) -> Vec<String> {
        let (mut alone, mut sends) = (Vec::new(), Vec::with_capacity(plan.sends.len()));
        for send in std::mem::take(&mut plan.sends) {
            let events = u64::try_from(send.events()).unwrap_or(u64::MAX);
            if !self.holds(now, &send.url, events) {
                sends.push(send);
                continue;
            }
            if let Target::Native(lease) = send.target {
                plan.missed.push((lease, events));
            }
            alone.push(send.url);
        }
        plan.sends = sends;
        alone
    }

    /// Whether an endpoint is to be left alone now. If so, these events are counted as not sent to it.
    fn holds(&mut self, now: Instant, url: &str, events: u64) -> bool {
        let Some(alone) = self.alone.get_mut(url).filter(|alone| now < alone.until) else { return false };
        alone.events = alone.events.saturating_add(events);
        alone.transactions = alone.transactions.saturating_add(1);
        true
    }

    /// How long endpoints may be waited for.
    pub(super) fn patience(&self, now: Instant, budget: Duration) -> Duration {
        match self.vain {
            Some((since, count)) if count >= STRIKES && now < since + PAUSE => budget / HASTE,
            _ => budget,
        }
    }

    /// These were waited for in vain, for so long.
    pub(super) fn waited<'a>(
        &mut self,
        now: Instant,
        urls: impl IntoIterator<Item = &'a str>,
        patience: Duration,
        budget: Duration,
    ) {
        let mut any = false;
        for url in urls {
            any = true;
            if patience < budget / FAIR || (self.alone.len() >= MOST && !self.alone.contains_key(url)) {
                continue;
            }
            let alone = Alone { until: now, events: 0, transactions: 0 };
            self.alone.entry(url.to_owned()).or_insert(alone).until = now + PAUSE;
        }
        if any {
            let (since, count) = self.vain.filter(|(since, _)| now < *since + PAUSE).unwrap_or((now, 0));
            self.vain = Some((since, count.saturating_add(1)));
        }
    }

    /// When there is something to say.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.alone.values().filter(|alone| alone.events > 0).map(|alone| alone.until).min()
    }

    /// The line to log when a pause is over in which something was not sent.
    pub(super) fn over(&mut self, now: Instant) -> Option<String> {
        let is_over = |alone: &Alone| alone.until <= now;
        if !self.alone.values().any(is_over) {
            return None;
        }
        let (over, alone) =
            std::mem::take(&mut self.alone).into_iter().partition(|(_, alone)| is_over(alone));
        self.alone = alone;
        account(over)
    }

    /// The process ends. The line to log when something was not sent that no line has said.
    pub(super) fn close(&mut self) -> Option<String> {
        account(std::mem::take(self).alone)
    }
}

fn account(over: HashMap<String, Alone>) -> Option<String> {
    let mut over: Vec<(String, Alone)> = over.into_iter().filter(|(_, alone)| alone.events > 0).collect();
    over.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let more = over.len().saturating_sub(MAX_FAULTS);
    let named = over.iter().take(MAX_FAULTS).map(|(url, Alone { events, transactions, .. })| {
        let (events, transactions) = (counted(*events, "event"), counted(*transactions, "transaction"));
        format!("{url} missed {events} in {transactions}")
    });
    let mut parts: Vec<String> = named.collect();
    parts.extend((more > 0).then(|| format!("and {more} more endpoints")));
    (!parts.is_empty()).then(|| format!("left alone after no answer: {}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_millis(50);
    const ONE: &str = "tcp://10.0.0.1:1";
    const OTHER: &str = "tcp://10.0.0.1:2";

    #[test]
    fn a_silent_endpoint_is_left_alone_for_a_pause_and_the_others_are_not() {
        let begun = Instant::now();
        let after = |milliseconds| begun + Duration::from_millis(milliseconds);
        let mut silence = Silence::default();
        assert!(!silence.holds(begun, ONE, 1));
        silence.waited(begun, [ONE], BUDGET, BUDGET);
        assert_eq!(silence.wake(), None, "nothing was kept from it");
        assert!(silence.holds(after(1), ONE, 1) && silence.holds(after(999), ONE, 2));
        assert!(!silence.holds(after(1), OTHER, 1));
        assert_eq!(silence.patience(after(1), BUDGET), BUDGET, "one dead endpoint is no reason for haste");
        assert_eq!((silence.over(after(999)), silence.wake()), (None, Some(after(1000))));
        assert!(!silence.holds(after(1000), ONE, 1), "tried again");
        let line = silence.over(after(1000)).unwrap();
        assert_eq!(line, "left alone after no answer: tcp://10.0.0.1:1 missed 3 events in 2 transactions");
        assert_eq!((silence.over(after(1000)), silence.wake(), silence.close()), (None, None, None), "once");
    }

    #[test]
    fn a_process_that_ends_says_what_it_kept_back() {
        let now = Instant::now();
        let mut silence = Silence::default();
        silence.waited(now, [OTHER, ONE], BUDGET, BUDGET);
        assert!(silence.holds(now, ONE, 1) && silence.holds(now, OTHER, 1));
        let line = silence.close().unwrap();
        assert!(
            line.ends_with(
                "0.1:1 missed 1 event in 1 transaction, tcp://10.0.0.1:2 missed 1 event in 1 transaction"
            ),
            "{line}"
        );
        silence.waited(now, [ONE], BUDGET, BUDGET);
        assert_eq!(silence.close(), None, "its own line said it all");
    }

    #[test]
    fn many_silent_endpoints_are_waited_for_in_haste() {
        let begun = Instant::now();
        let mut silence = Silence::default();
        for at in 0..STRIKES {
            assert_eq!(silence.patience(begun, BUDGET), BUDGET);
            silence.waited(begun, [format!("tcp://10.0.0.1:{at}").as_str()], BUDGET, BUDGET);
        }
        let haste = silence.patience(begun, BUDGET);
        assert_eq!(haste, BUDGET / HASTE);
        silence.waited(begun, [OTHER], haste, BUDGET);
        assert!(!silence.holds(begun, OTHER, 1), "it had no fair time");
        assert_eq!(silence.patience(begun + PAUSE, BUDGET), BUDGET);
        silence.waited(begun + PAUSE, [], BUDGET, BUDGET);
        silence.waited(begun + PAUSE, [ONE], BUDGET, BUDGET);
        assert_eq!(silence.patience(begun + PAUSE, BUDGET), BUDGET, "counted anew");
    }

    #[test]
    fn what_is_remembered_and_said_is_bounded() {
        let now = Instant::now();
        let mut silence = Silence::default();
        for at in 0..2 * MOST {
            let url = format!("tcp://10.0.0.1:{at}");
            silence.waited(now, [url.as_str()], BUDGET, BUDGET);
            silence.holds(now, &url, 1);
        }
        assert_eq!(silence.alone.len(), MOST);
        let line = silence.over(now + PAUSE).unwrap();
        assert!(line.ends_with(&format!("and {} more endpoints", MOST - MAX_FAULTS)), "{line}");
        assert!(silence.alone.is_empty());
    }
}
