//! What was seen of events lately, from the outbox's traces. Bounded, and without a clock: traces have their times.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use crate::outbox::{Reason, SendOutcome, Source, Step, Trace, TracedEvent};

/// Events that are remembered.
const EVENTS: usize = 100;
/// Faults that are remembered.
const FAULTS: usize = 30;
/// Endpoints that are remembered; of more, those that were heard of last.
const ENDPOINTS: usize = 256;

/// How an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is not looked up yet.
    Accepted,
    /// It is being sent.
    Sending,
    /// A native endpoint has acknowledged it.
    Acknowledged,
    /// A legacy endpoint was pushed it, which nobody acknowledges.
    Pushed,
    /// It is tried again.
    Held,
    /// It reached nobody, or not everybody.
    Dropped(Reason),
}

/// An event.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) user: String,
    pub(super) event: TracedEvent,
    /// Unknown, when its beginning was missed.
    pub(super) source: Option<Source>,
    pub(super) outcome: Outcome,
    /// Endpoints that have it.
    pub(super) reached: u64,
    /// From its own time to the first endpoint that had it, in microseconds.
    pub(super) latency_us: Option<u64>,
}

/// An endpoint that was sent something.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) url: String,
    pub(super) native: bool,
    pub(super) outcome: SendOutcome,
    pub(super) at_us: u64,
    pub(super) took_us: u64,
    /// Sends that it took.
    pub(super) taken: u64,
    /// Sends that ended otherwise.
    pub(super) failed: u64,
}

/// Something that went wrong, and how often in a row.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) at_us: u64,
    /// The endpoint, or `resolver`.
    pub(super) place: String,
    pub(super) user: String,
    pub(super) why: String,
    pub(super) times: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    events: VecDeque<(u64, Seen)>,
    /// The number of the next event.
    next: u64,
    numbers: HashMap<Uuid, u64>,
    endpoints: HashMap<String, Endpoint>,
    faults: VecDeque<Fault>,
    missed: u64,
}

impl Recorder {
    /// Takes in one step.
    pub(super) fn add(&mut self, trace: &Trace) {
        match &trace.step {
            Step::Accepted { source } => {
                // Those in front would be forgotten at once.
                for event in trace.events.iter().skip(trace.events.len().saturating_sub(EVENTS)) {
                    self.push(trace, event, Some(*source));
                }
            }
            Step::LookedUp { .. } => self.each(trace, |seen| {
                if matches!(seen.outcome, Outcome::Accepted | Outcome::Held) {
                    seen.outcome = Outcome::Sending;
                }
            }),
            Step::LookUpFailed { reason, .. } => {
                self.each(trace, |seen| seen.outcome = Outcome::Held);
                self.fault(trace, "resolver", reason);
            }
            Step::Sent { endpoint, native, outcome, reason, took_us } => {
                self.sent(trace, endpoint, *native, *outcome, *took_us);
                if let Some(reason) = reason {
                    self.fault(trace, endpoint, reason);
                }
            }
            Step::Held { .. } => self.each(trace, |seen| {
                if seen.reached == 0 {
                    seen.outcome = Outcome::Held;
                }
            }),
            Step::Dropped { reason } => {
                self.each(trace, |seen| seen.outcome = Outcome::Dropped(*reason));
                if *reason != Reason::Unheard {
                    self.fault(trace, "outbox", &format!("dropped: {}", reason.name()));
                }
            }
        }
    }

    /// So many traces were not seen.
    pub(super) fn miss(&mut self, traces: u64) {
        self.missed = self.missed.saturating_add(traces);
    }

    /// The last events, the newest first.
    pub(super) fn events(&self) -> Vec<Seen> {
        self.events.iter().rev().map(|(_, seen)| seen.clone()).collect()
    }

    /// The endpoints.
    pub(super) fn endpoints(&self) -> HashMap<String, Endpoint> {
        self.endpoints.clone()
    }

    /// The last faults, the newest first.
    pub(super) fn faults(&self) -> Vec<Fault> {
        self.faults.iter().rev().cloned().collect()
    }

    pub(super) fn missed(&self) -> u64 {
        self.missed
    }

    fn push(&mut self, trace: &Trace, event: &TracedEvent, source: Option<Source>) {
        let user = trace.user.clone();
        let (event, outcome) = (event.clone(), Outcome::Accepted);
        self.numbers.insert(event.id, self.next);
        self.events
            .push_back((self.next, Seen { user, event, source, outcome, reached: 0, latency_us: None }));
        self.next += 1;
        while self.events.len() > EVENTS {
            if let Some((number, seen)) = self.events.pop_front()
                && self.numbers.get(&seen.event.id) == Some(&number)
            {
                self.numbers.remove(&seen.event.id);
            }
        }
    }

    fn each(&mut self, trace: &Trace, mut change: impl FnMut(&mut Seen)) {
        let first = self.events.front().map_or(self.next, |(number, _)| *number);
        for event in &trace.events {
            let number = self.numbers.get(&event.id).and_then(|number| number.checked_sub(first));
            let at = number.and_then(|at| usize::try_from(at).ok());
            if let Some((_, seen)) = at.and_then(|at| self.events.get_mut(at)) {
                change(seen);
            }
        }
    }

    fn sent(&mut self, trace: &Trace, url: &str, native: bool, outcome: SendOutcome, took_us: u64) {
        let at_us = trace.time_us;
        let taken = outcome == SendOutcome::Taken;
        self.each(trace, |seen| match (taken, native) {
            (true, _) => {
                seen.reached += 1;
                seen.latency_us.get_or_insert(at_us.saturating_sub(seen.event.time_us));
                if native || seen.outcome != Outcome::Acknowledged {
                    seen.outcome = if native { Outcome::Acknowledged } else { Outcome::Pushed };
                }
            }
            (false, _) if seen.reached == 0 => seen.outcome = Outcome::Held,
            (false, _) => {}
        });
        let endpoint = self.endpoints.entry(url.to_owned()).or_insert_with(|| Endpoint {
            url: url.to_owned(),
            native,
            outcome,
            at_us,
            took_us,
            taken: 0,
            failed: 0,
        });
        (endpoint.native, endpoint.outcome) = (native, outcome);
        (endpoint.at_us, endpoint.took_us) = (at_us, took_us);
        endpoint.taken += u64::from(taken);
        endpoint.failed += u64::from(!taken);
        if self.endpoints.len() > ENDPOINTS {
            let oldest = self.endpoints.values().min_by_key(|endpoint| endpoint.at_us);
            if let Some(url) = oldest.map(|endpoint| endpoint.url.clone()) {
                self.endpoints.remove(&url);
            }
        }
    }

    fn fault(&mut self, trace: &Trace, place: &str, why: &str) {
        let same = |fault: &&mut Fault| fault.place == place && fault.why == why;
        if let Some(fault) = self.faults.back_mut().filter(same) {
            (fault.at_us, fault.times) = (trace.time_us, fault.times.saturating_add(1));
            fault.user.clone_from(&trace.user);
            return;
        }
        if self.faults.len() >= FAULTS {
            self.faults.pop_front();
        }
        let (place, why) = (place.to_owned(), why.to_owned());
        self.faults.push_back(Fault { at_us: trace.time_us, place, user: trace.user.clone(), why, times: 1 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(time_us: u64, ids: &[u128], step: Step) -> Trace {
        let event = |id: &u128| TracedEvent {
            id: Uuid::from_u128(*id),
            kind: "MessageNew".to_owned(),
            time_us: 1000,
            mailbox: Some("INBOX".to_owned()),
        };
        Trace { time_us, user: "bob".to_owned(), events: ids.iter().map(event).collect(), step }
    }

    fn sent(native: bool, outcome: SendOutcome) -> Step {
        let reason = (outcome != SendOutcome::Taken).then(|| "no answer".to_owned());
        Step::Sent { endpoint: format!("tcp://{native}"), native, outcome, reason, took_us: 5 }
    }

    #[test]
    fn an_event_is_followed_to_its_acknowledgement() {
        let mut recorder = Recorder::default();
        recorder.add(&trace(1100, &[1, 2], Step::Accepted { source: Source::Ox }));
        recorder.add(&trace(1200, &[1, 2], Step::LookedUp { native: 1, legacy: 1, took_us: 9 }));
        recorder.add(&trace(1300, &[1, 2], sent(false, SendOutcome::Taken)));
        assert_eq!(recorder.events()[0].outcome, Outcome::Pushed);
        recorder.add(&trace(1400, &[1], sent(true, SendOutcome::Taken)));
        recorder.add(&trace(1500, &[2], sent(true, SendOutcome::Failed)));
        let events = recorder.events();
        assert_eq!((events[1].outcome, events[1].reached), (Outcome::Acknowledged, 2));
        assert_eq!(events[1].latency_us, Some(300), "the first that had it");
        assert_eq!(events[0].outcome, Outcome::Pushed, "one of both has it");
        let endpoints = recorder.endpoints();
        assert_eq!((endpoints["tcp://true"].taken, endpoints["tcp://true"].failed), (1, 1));
        assert_eq!(endpoints["tcp://true"].outcome, SendOutcome::Failed);
        recorder.add(&trace(1600, &[2], sent(true, SendOutcome::Failed)));
        let faults = recorder.faults();
        assert_eq!((faults.len(), faults[0].times, faults[0].at_us), (1, 2, 1600));
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut recorder = Recorder::default();
        let ids: Vec<u128> = (0..5000).collect();
        recorder.add(&trace(1, &ids, Step::Accepted { source: Source::Http }));
        for number in 0..1000 {
            let step = Step::Sent {
                endpoint: format!("tcp://{number}"),
                native: true,
                outcome: SendOutcome::Failed,
                reason: Some(format!("why {number}")),
                took_us: 1,
            };
            recorder.add(&trace(number, &[u128::from(number)], step));
        }
        assert_eq!((recorder.events.len(), recorder.numbers.len()), (EVENTS, EVENTS));
        assert_eq!((recorder.endpoints.len(), recorder.faults.len()), (ENDPOINTS, FAULTS));
        assert!(recorder.endpoints.contains_key("tcp://999"), "the newest stays");
        // What was forgotten harms nobody.
        recorder.add(&trace(9, &[3], Step::Dropped { reason: Reason::Expired }));
    }
}
