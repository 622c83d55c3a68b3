use ocbus_wire::native::Ack;

use super::plan::{Options, Plan, Send, Target};
use crate::edit::Settlement;

/// How a send to one endpoint ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Legacy: the peer's header was right and the messages are out.
    Delivered,
    /// Native: the answers to all batches, in order.
    Acknowledged(Vec<Ack>),
    /// Nobody listens there.
    Refused,
    /// No answer before the deadline.
    Silent,
    /// Something listens there that is no fitting SP socket, with what it said.
    Stranger(String),
    /// The connection broke, or could not be made.
    Broken(String),
    /// The host has no address here.
    BadAddress(String),
    /// It was not begun, for a reason of ours: not an octet has left.
    NotBegun(String),
}

/// What an outcome means for the endpoint's entry and for the events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The endpoint has the events.
    Taken {
        /// Events that it could not make sense of, for the log.
        skipped: usize,
    },
    /// Nobody is there any more: the entry goes.
    Gone {
        /// Why.
        reason: String,
    },
    /// A native endpoint did not get the events: its lease is marked, so that its holder resyncs.
    Missed {
        /// Why.
        reason: String,
    },
    /// The events are lost for this endpoint, and nobody can be told: log and count them.
    Dropped {
        /// Why.
        reason: String,
    },
}

/// Judges the outcome of one send for `user`, whose events they were.
pub fn judge(send: &Send, outcome: &Outcome, user: &str, options: &Options) -> Verdict {
    let native = matches!(send.target, Target::Native(_));
    let lost = |reason: String| match native {
        true => Verdict::Missed { reason },
        // Left as it is: a legacy entry has no lease, and the peer may come back.
        false => Verdict::Dropped { reason },
    };
    match outcome {
        Outcome::Delivered => Verdict::Taken { skipped: 0 },
        Outcome::Acknowledged(acks) => acknowledged(acks, user),
        Outcome::Refused if !native && options.keep_refused => {
            Verdict::Dropped { reason: "refused (kept)".to_owned() }
        }
        Outcome::Refused => Verdict::Gone { reason: "refused".to_owned() },
        Outcome::Stranger(what) if !native && options.keep_refused => {
            Verdict::Dropped { reason: format!("not an OpenChange endpoint: {what} (kept)") }
        }
        Outcome::Stranger(what) => Verdict::Gone { reason: format!("not an ocbus endpoint: {what}") },
        Outcome::Silent => lost("no answer within the budget".to_owned()),
        Outcome::Broken(what) => lost(format!("connection broken: {what}")),
        Outcome::BadAddress(what) => lost(what.clone()),
        Outcome::NotBegun(why) => lost(format!("not sent: {why}")),
    }
}

fn acknowledged(acks: &[Ack], user: &str) -> Verdict {
    // They come back as they stand in the event, which may have capitals; the user's name has none.
    if acks.iter().flat_map(|ack| &ack.strangers).any(|stranger| stranger.eq_ignore_ascii_case(user)) {
        return Verdict::Gone { reason: "nobody listens for this user there".to_owned() };
    }
    if let Some(reason) = acks.iter().find_map(|ack| ack.refused.as_deref()) {
        return Verdict::Missed { reason: format!("batch refused: {}", reason.escape_debug()) };
    }
    let skipped = acks.iter().map(|ack| usize::try_from(ack.skipped).unwrap_or(usize::MAX)).sum();
    Verdict::Taken { skipped }
}

/// The verdicts on all sends of one transaction.
#[derive(Debug, Clone, Default)]
pub struct Verdicts {
    /// Endpoints that have the events.
    pub taken: usize,
    /// What is to be written to the records.
    pub settlement: Settlement,
    /// For the log: one entry for each endpoint that did not take everything.
    pub faults: Vec<String>,
}

impl Verdicts {
    /// No verdict yet; what the plan could not send is missed already.
    pub fn of(plan: &Plan) -> Verdicts {
        let settlement = Settlement { missed: plan.missed.clone(), ..Settlement::default() };
        Verdicts { settlement, ..Verdicts::default() }
    }

    /// Adds the verdict on one send.
    pub fn add(&mut self, send: &Send, verdict: Verdict) {
        let url = &send.url;
        match verdict {
            Verdict::Taken { skipped } => {
                self.taken += 1;
                if skipped > 0 {
                    self.faults.push(format!("{url} skipped {skipped} events"));
                }
            }
            Verdict::Gone { reason } => {
                self.faults.push(format!("{url} {reason} (removed)"));
                match &send.target {
                    Target::Native(lease) => self.settlement.gone.push(lease.clone()),
                    Target::Legacy => self.settlement.gone_legacy.push(url.clone()),
                }
            }
            Verdict::Missed { reason } => {
                self.faults.push(format!("{url} {reason}"));
                if let Target::Native(lease) = &send.target {
                    let events = u64::try_from(send.events()).unwrap_or(u64::MAX);
                    self.settlement.missed.push((lease.clone(), events));
                }
            }
            Verdict::Dropped { reason } => self.faults.push(format!("{url} {reason}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use ocbus_wire::Endpoint;

    use super::*;

    #[test]
    fn a_stranger_is_known_however_the_event_wrote_it() {
        let url = "tcp://10.0.0.1:9005";
        let (endpoint, payloads) = (Endpoint::parse(url).unwrap(), [].into());
        let send = Send { endpoint, url: url.to_owned(), target: Target::Legacy, payloads };
        for (stranger, user, gone) in [("Bob", "bob", true), ("bob", "bob", true), ("ann", "bob", false)] {
            let mut ack = Ack::default();
            ack.strangers.push(stranger.to_owned());
            let verdict = judge(&send, &Outcome::Acknowledged(vec![ack]), user, &Options::default());
            assert_eq!(matches!(verdict, Verdict::Gone { .. }), gone, "{stranger}: {verdict:?}");
        }
    }
}
