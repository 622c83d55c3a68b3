//! Handing a transaction's events over to the daemon (`openchange_bus`): what is said to it, what its answer means, and
//! for how long it is left alone when it does not answer. No I/O and no clock.

use std::time::{Duration, Instant};

use ocbus_wire::native::{Ack, Batch};
use ocbus_wire::{Endpoint, Event};

use crate::sender::Outcome;

/// How long a daemon that did not answer in time is left alone: a hung one would cost each delivery its share of the
/// budget. One that refuses costs nothing, and is asked each time.
const PAUSE: Duration = Duration::from_secs(5);

/// The part of the budget that waiting for the daemon may take; the rest is for the direct way.
pub(crate) const SHARE: u32 = 2;

/// The daemon, as this process knows it.
#[derive(Debug)]
pub(crate) struct HandOver {
    endpoint: Endpoint,
    /// Not before this.
    retry: Option<Instant>,
    /// Since when it takes nothing.
    since: Option<Instant>,
    /// Transactions that went the direct way since then.
    direct: u64,
}

/// What became of the events at the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It answers for all of them.
    Taken,
    /// It has none of them.
    NotTaken(String),
    /// They were written, and it may have them.
    Unclear(String),
}

impl HandOver {
    pub(crate) fn new(endpoint: Endpoint) -> HandOver {
        HandOver { endpoint, retry: None, since: None, direct: 0 }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether it is left alone now; then this transaction goes the direct way.
    pub(crate) fn is_left_alone(&mut self, now: Instant) -> bool {
        let alone = self.retry.is_some_and(|retry| now < retry);
        self.direct += u64::from(alone);
        alone
    }

    /// What its answer means, and a line for the log when that is new.
    pub(crate) fn judge(&mut self, outcome: Outcome, now: Instant) -> (Answer, Option<String>) {
        let hangs = matches!(
            &outcome,
            Outcome::Silent
                | Outcome::NotReached
                | Outcome::NotBegun
                | Outcome::Protocol(_)
                | Outcome::Broken(_)
        );
        let answer = meaning(outcome);
        let line = match &answer {
            Answer::Taken => {
                self.retry = None;
                let direct = std::mem::take(&mut self.direct);
                self.since.take().map(|since| {
                    let seconds = now.saturating_duration_since(since).as_secs_f64();
                    let bus = &self.endpoint;
                    format!("{bus} takes events again after {seconds:.1} s: {direct} transactions went the direct way")
                })
            }
            Answer::NotTaken(reason) | Answer::Unclear(reason) => {
                self.retry = hangs.then(|| now + PAUSE);
                self.direct += 1;
                let new = self.since.is_none();
                self.since.get_or_insert(now);
                new.then(|| format!("{}: {reason}: sent directly", self.endpoint))
            }
        };
        (answer, line)
    }
}

fn meaning(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Delivered { replies, .. } => {
            let mut taken = 0;
            for reply in replies {
                match Ack::decode(&reply) {
                    Ok(Ack { refused: None, .. }) => taken += 1,
                    // Of several batches the first ones may have been taken.
                    Ok(Ack { refused: Some(reason), .. }) if taken > 0 => {
                        return Answer::Unclear(reason.escape_debug().to_string());
                    }
                    Ok(Ack { refused: Some(reason), .. }) => {
                        return Answer::NotTaken(reason.escape_debug().to_string());
                    }
                    Err(error) => return Answer::Unclear(format!("its answer: {error}")),
                }
            }
            Answer::Taken
        }
        Outcome::Refused => Answer::NotTaken("nobody listens there".to_owned()),
        Outcome::Unreachable(error) => Answer::NotTaken(format!("no connection: {error}")),
        Outcome::BadAddress(why) => Answer::NotTaken(why),
        // Whatever it is, it has not understood us.
        Outcome::Protocol(error) => Answer::NotTaken(format!("not the daemon: {error}")),
        Outcome::NotReached | Outcome::NotBegun => {
            Answer::NotTaken("no connection within its share of the budget".to_owned())
        }
        Outcome::Silent => Answer::Unclear("no answer within its share of the budget".to_owned()),
        Outcome::Broken(error) => Answer::Unclear(format!("connection broken: {error}")),
    }
}

/// The events as the daemon takes them. `None`: one of them fits into no batch, which the direct way knows how to tell.
pub(crate) fn batches(events: &[Event]) -> Option<Vec<Vec<u8>>> {
    let (mut batches, mut batch) = (Vec::new(), Batch::new());
    for event in events {
        if !batch.push(event).ok()? {
            batches.push(std::mem::take(&mut batch).encode());
            batch.push(event).ok().filter(|pushed| *pushed)?;
        }
    }
    if !batch.is_empty() {
        batches.push(batch.encode());
    }
    Some(batches)
}

#[cfg(test)]
mod tests {
    use std::io;

    use ocbus_wire::{EventKind, Mailbox, ResyncReason};
    use uuid::Uuid;

    use super::*;

    fn handover() -> HandOver {
        HandOver::new(Endpoint::parse("ipc:///run/ocbus/bus.sock").unwrap())
    }

    fn answered(acks: &[Ack]) -> Outcome {
        let replies = acks.iter().map(|ack| ack.encode().unwrap()).collect();
        Outcome::Delivered { replies, took: Duration::ZERO }
    }

    #[test]
    fn only_an_acknowledgement_of_everything_is_enough() {
        let judged = |outcome| handover().judge(outcome, Instant::now()).0;
        let (taken, full) = (|| Ack::taken(1, 0, Vec::new()), || Ack::refused("full\n"));
        assert_eq!(judged(answered(&[taken(), taken()])), Answer::Taken);
        assert_eq!(judged(answered(&[full()])), Answer::NotTaken("full\\n".into()));
        assert!(matches!(judged(answered(&[taken(), full()])), Answer::Unclear(_)));
        let nonsense = Outcome::Delivered { replies: vec![Vec::new()], took: Duration::ZERO };
        assert!(matches!(judged(nonsense), Answer::Unclear(_)));
        assert!(matches!(judged(Outcome::Refused), Answer::NotTaken(_)));
        assert!(matches!(judged(Outcome::Unreachable(io::Error::other("x"))), Answer::NotTaken(_)));
        assert!(matches!(judged(Outcome::NotReached), Answer::NotTaken(_)));
        assert!(matches!(judged(Outcome::Silent), Answer::Unclear(_)));
        assert!(matches!(judged(Outcome::Broken(io::Error::other("x"))), Answer::Unclear(_)));
    }

    #[test]
    fn a_hung_daemon_is_left_alone_and_an_absent_one_is_asked() {
        let begun = Instant::now();
        let after = |milliseconds| begun + Duration::from_millis(milliseconds);
        let mut bus = handover();
        assert!(!bus.is_left_alone(begun));
        let line = bus.judge(Outcome::Refused, begun).1.unwrap();
        assert_eq!(line, "ipc:///run/ocbus/bus.sock: nobody listens there: sent directly");
        assert!(!bus.is_left_alone(after(1)));
        assert_eq!(bus.judge(Outcome::Silent, after(25)).1, None, "said already");
        assert!(bus.is_left_alone(after(26)) && bus.is_left_alone(after(5024)));
        assert!(!bus.is_left_alone(after(5025)));
        let line = bus.judge(answered(&[Ack::taken(1, 0, Vec::new())]), after(5030)).1.unwrap();
        assert_eq!(
            line,
            "ipc:///run/ocbus/bus.sock takes events again after 5.0 s: 4 transactions went the direct way"
        );
        assert_eq!(bus.judge(answered(&[]), after(5040)).1, None);
    }

    #[test]
    fn events_fill_batches_and_one_that_is_too_large_goes_the_direct_way() {
        let event = |name: &str| {
            let mailbox = Mailbox::new(name, '/');
            Event::new(Uuid::now_v7(), 0, "bob", mailbox, EventKind::MailboxCreate)
        };
        let many: Vec<Event> = (0..1000).map(|n| event(&format!("{n}{}", "x".repeat(200)))).collect();
        let filled = batches(&many).unwrap();
        assert!(filled.len() > 1);
        let read: Vec<Event> = filled.iter().flat_map(|batch| Batch::decode(batch).unwrap().events).collect();
        assert_eq!(read, many);
        assert_eq!(batches(&[event(&"x".repeat(70_000))]), None);
        let resync = Event::resync(Uuid::now_v7(), 0, "bob", ResyncReason::Unreachable, 3);
        assert_eq!(batches(&[resync]).unwrap().len(), 1);
    }
}
