//! An endpoint that did not answer is left alone for a while: a mail to many recipients, or into many folders, waits for it
//! once, and not for each of them. What was not sent to it meanwhile is counted, and said once. No clock in here.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ocbus_resolver::delivery::{Plan, Target};

use super::{MAX_FAULTS, counted};

/// How long a silent endpoint is left alone, and how long waits in vain are counted together.
const PAUSE: Duration = Duration::from_secs(1);

/// How long an endpoint is known for silent that was waited for and has not answered since. Another wait in vain for it is nothing
/// new: a legacy entry of a dead one stays for ever, and is no reason to wait less for who is not known for it.
const KNOWN: Duration = Duration::from_secs(60);

/// Waits in vain within a pause before endpoints are waited for less. One endpoint that is dead costs one; more are
/// those of a host or of an OpenChange server, which has one for each user.
const STRIKES: u32 = 2;

/// The part of the budget that endpoints have then: enough for whoever is well and near.
const HASTE: u32 = 10;

/// The part of the budget that an endpoint must have had before its silence says something of it: a slow memcached leaves
/// less.
const FAIR: u32 = 4;

/// Endpoints that are left alone or known for silent at the same time. More are waited for, in haste.
const MOST: usize = 1024;

/// Who is silent.
#[derive(Debug, Default)]
pub(super) struct Silence {
    alone: HashMap<String, Alone>,
    /// Waits in vain for who was not known for silent: with too many of them everybody is waited for in haste.
    new: Vain,
    /// All waits in vain: with too many of them, who is known for silent is.
    all: Vain,
}

/// Since when waits in vain are counted, and how many there were.
#[derive(Debug, Default)]
struct Vain(Option<(Instant, u32)>);

impl Vain {
    fn count(&mut self, now: Instant) {
        let (since, count) = self.0.filter(|(since, _)| now < *since + PAUSE).unwrap_or((now, 0));
        self.0 = Some((since, count.saturating_add(1)));
    }

    fn is_too_much(&self, now: Instant) -> bool {
        self.0.is_some_and(|(since, count)| count >= STRIKES && now < since + PAUSE)
    }
}

/// An endpoint that is left alone or known for silent, and what was not sent to it and no line has said.
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

    /// How long an endpoint may be waited for.
    pub(super) fn patience(&self, now: Instant, url: &str, budget: Duration) -> Duration {
        let vain = if self.alone.contains_key(url) { &self.all } else { &self.new };
        if vain.is_too_much(now) { budget / HASTE } else { budget }
    }

    /// It answered.
    pub(super) fn heard(&mut self, url: &str) {
        if self.alone.get(url).is_some_and(|alone| alone.events == 0) {
            self.alone.remove(url);
        }
    }

    /// These were waited for in vain together, each for so long.
    pub(super) fn waited<'a>(
        &mut self,
        now: Instant,
        silent: impl IntoIterator<Item = (&'a str, Duration)>,
        budget: Duration,
    ) {
        let (mut any, mut new) = (false, false);
        for (url, patience) in silent {
            any = true;
            let known = self.alone.contains_key(url);
            new |= !known;
            if !is_fair(patience, budget) {
                continue;
            }
            if !known && self.alone.len() >= MOST {
                // Room is for those that are left alone now.
                self.alone.retain(|_, alone| now < alone.until || alone.events > 0);
            }
            if known || self.alone.len() < MOST {
                let alone = Alone { until: now, events: 0, transactions: 0 };
                self.alone.entry(url.to_owned()).or_insert(alone).until = now + PAUSE;
            }
        }
        if any {
            self.all.count(now);
        }
        if new {
            self.new.count(now);
        }
    }

    /// When there is something to say.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.alone.values().filter(|alone| alone.events > 0).map(|alone| alone.until).min()
    }

    /// The line to log when a pause is over in which something was not sent.
    pub(super) fn over(&mut self, now: Instant) -> Option<String> {
        let mut over = Vec::new();
        self.alone.retain(|url, alone| {
            if alone.until <= now && alone.events > 0 {
                let said = Alone { until: alone.until, events: 0, transactions: 0 };
                over.push((url.clone(), std::mem::replace(alone, said)));
            }
            now < alone.until + KNOWN
        });
        account(over)
    }

    /// The process ends. The line to log when something was not sent that no line has said.
    pub(super) fn close(&mut self) -> Option<String> {
        account(std::mem::take(self).alone.into_iter().filter(|(_, alone)| alone.events > 0).collect())
    }
}

/// Whether an endpoint has had time enough for its silence to say something of it.
fn is_fair(patience: Duration, budget: Duration) -> bool {
    patience >= budget / FAIR
}

/// Why an endpoint has not got its events that had so much time; `None`: a fair part of the budget.
pub(super) fn hurried(patience: Duration, budget: Duration) -> Option<String> {
    let milliseconds = patience.as_micros().div_ceil(1000);
    (!is_fair(patience, budget)).then(|| format!("no answer within {milliseconds} ms (in haste)"))
}

fn account(mut over: Vec<(String, Alone)>) -> Option<String> {
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
    /// One that has never been silent.
    const NEVER: &str = "tcp://10.0.0.3:1";

    #[test]
    fn a_silent_endpoint_is_left_alone_for_a_pause_and_the_others_are_not() {
        let begun = Instant::now();
        let after = |milliseconds| begun + Duration::from_millis(milliseconds);
        let mut silence = Silence::default();
        assert!(!silence.holds(begun, ONE, 1));
        silence.waited(begun, [(ONE, BUDGET)], BUDGET);
        assert_eq!(silence.wake(), None, "nothing was kept from it");
        assert!(silence.holds(after(1), ONE, 1) && silence.holds(after(999), ONE, 2));
        assert!(!silence.holds(after(1), OTHER, 1));
        assert_eq!(
            silence.patience(after(1), NEVER, BUDGET),
            BUDGET,
            "one dead endpoint is no reason for haste"
        );
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
        silence.waited(now, [(OTHER, BUDGET), (ONE, BUDGET)], BUDGET);
        assert!(silence.holds(now, ONE, 1) && silence.holds(now, OTHER, 1));
        let line = silence.close().unwrap();
        assert!(
            line.ends_with(
                "0.1:1 missed 1 event in 1 transaction, tcp://10.0.0.1:2 missed 1 event in 1 transaction"
            ),
            "{line}"
        );
        silence.waited(now, [(ONE, BUDGET)], BUDGET);
        assert_eq!(silence.close(), None, "its own line said it all");
    }

    #[test]
    fn many_silent_endpoints_are_waited_for_in_haste() {
        let begun = Instant::now();
        let mut silence = Silence::default();
        for at in 0..STRIKES {
            assert_eq!(silence.patience(begun, NEVER, BUDGET), BUDGET);
            silence.waited(begun, [(format!("tcp://10.0.0.1:{at}").as_str(), BUDGET)], BUDGET);
        }
        let haste = silence.patience(begun, NEVER, BUDGET);
        assert_eq!(haste, BUDGET / HASTE);
        silence.waited(begun, [(OTHER, haste)], BUDGET);
        assert!(!silence.holds(begun, OTHER, 1), "it had no fair time");
        assert_eq!(silence.patience(begun + PAUSE, NEVER, BUDGET), BUDGET);
        silence.waited(begun + PAUSE, [], BUDGET);
        silence.waited(begun + PAUSE, [(ONE, BUDGET)], BUDGET);
        assert_eq!(silence.patience(begun + PAUSE, NEVER, BUDGET), BUDGET, "counted anew");
    }

    /// Mail for both about once a second, for hours.
    #[test]
    fn endpoints_known_for_silent_are_no_reason_for_haste() {
        let begun = Instant::now();
        let mut silence = Silence::default();
        let mut hasty = 0;
        for second in 0..10 {
            let now = begun + 2 * PAUSE * second;
            assert_eq!(silence.over(now), None);
            for dead in [ONE, OTHER] {
                assert!(!silence.holds(now, dead, 1), "tried again");
                assert_eq!(silence.patience(now, dead, BUDGET), BUDGET, "one by one");
                silence.waited(now, [(dead, BUDGET)], BUDGET);
                assert!(silence.holds(now, dead, 0), "and left alone");
            }
            hasty += u32::from(silence.patience(now, NEVER, BUDGET) < BUDGET);
        }
        assert_eq!(hasty, 1, "behind the first wait for the second");
        // Forgotten.
        let later = begun + 20 * PAUSE + KNOWN;
        assert_eq!((silence.over(later), silence.alone.len()), (None, 0));
        silence.waited(later, [(ONE, BUDGET)], BUDGET);
        silence.waited(later, [(OTHER, BUDGET)], BUDGET);
        assert!(silence.patience(later, NEVER, BUDGET) < BUDGET);
        // Or it has answered.
        silence.heard(ONE);
        assert!(!silence.holds(later, ONE, 1) && silence.holds(later, OTHER, 1));
        silence.heard(OTHER);
        assert!(silence.holds(later, OTHER, 1), "there is something to say of it");
    }

    /// One mail to the users of OpenChange's server, and then another.
    #[test]
    fn many_endpoints_known_for_silent_are_waited_for_in_haste() {
        let begun = Instant::now();
        let mut silence = Silence::default();
        let urls: Vec<String> = (0..20).map(|at| format!("tcp://10.0.0.1:{at}")).collect();
        silence.waited(begun, urls.iter().map(|url| (url.as_str(), BUDGET)), BUDGET);
        let now = begun + 2 * PAUSE;
        let mut slow = 0;
        for url in &urls {
            let patience = silence.patience(now, url, BUDGET);
            slow += u32::from(patience == BUDGET);
            silence.waited(now, [(url.as_str(), patience)], BUDGET);
        }
        assert_eq!(slow, STRIKES);
        assert_eq!(silence.patience(now, NEVER, BUDGET), BUDGET, "who is well is not");
    }

    #[test]
    fn a_line_says_what_time_there_was() {
        assert_eq!(hurried(BUDGET, BUDGET), None);
        assert_eq!(hurried(BUDGET / FAIR, BUDGET), None);
        assert_eq!(hurried(BUDGET / HASTE, BUDGET).unwrap(), "no answer within 5 ms (in haste)");
        assert_eq!(hurried(Duration::from_micros(1), BUDGET).unwrap(), "no answer within 1 ms (in haste)");
    }

    #[test]
    fn what_is_remembered_and_said_is_bounded() {
        let now = Instant::now();
        let mut silence = Silence::default();
        for at in 0..2 * MOST {
            let url = format!("tcp://10.0.0.1:{at}");
            silence.waited(now, [(url.as_str(), BUDGET)], BUDGET);
            silence.holds(now, &url, 1);
        }
        assert_eq!(silence.alone.len(), MOST);
        let line = silence.over(now + PAUSE).unwrap();
        assert!(line.ends_with(&format!("and {} more endpoints", MOST - MAX_FAULTS)), "{line}");
        assert_eq!(silence.alone.len(), MOST);
        // Who is known only makes room.
        silence.waited(now + PAUSE, [("tcp://10.0.0.2:1", BUDGET)], BUDGET);
        assert_eq!(silence.alone.len(), 1);
        assert_eq!(silence.over(now + PAUSE + PAUSE + KNOWN), None);
        assert!(silence.alone.is_empty());
    }
}
