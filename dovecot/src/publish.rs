//! Publishing one transaction: look up who listens, send to all of them at once, settle the records. One
//! deadline for all three, and at most one warning about it.

mod outage;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ocbus_resolver::delivery::{self, Payload, Plan, Send, Target, Verdicts, judge, plan};
use ocbus_resolver::{BlockingResolver, Cn, Listeners, ResolverError};
use ocbus_wire::native::Ack;

use crate::log::{self, Level, Line};
use crate::sender::{self, Job, Outcome};
use crate::settings::{RawSettings, Settings, SettingsError};
use crate::transaction::Delivery;

use outage::Outage;

/// Different settings that one process remembers. More than a few would mean that each user has their own.
const MAX_PUBLISHERS: usize = 16;

/// The part of the budget that the look-up leaves for the sends. It also covers what the look-up overshoots: its
/// timeouts are the kernel's socket timeouts, which are rounded up to its ticks (up to 10 ms were seen).
const SEND_SHARE: u32 = 5;

/// The part of the time left after the look-up that is kept for the records.
const SETTLE_SHARE: u32 = 10;

/// The publishers of this process, one for each set of settings: an LMTP process serves many users, and all of
/// them share a connection to memcached and what is known of its health.
#[derive(Debug, Default)]
pub struct Publishers {
    known: Vec<(RawSettings, Arc<Mutex<Publisher>>)>,
}

/// One set of settings and its resolver.
#[derive(Debug)]
pub struct Publisher {
    settings: Settings,
    resolver: BlockingResolver,
    outage: Outage,
}

/// A user of Dovecot.
#[derive(Debug)]
pub struct User {
    cn: Cn,
    /// The login, as the log shows it.
    shown: String,
    debug: bool,
    publisher: Arc<Mutex<Publisher>>,
}

impl Publishers {
    /// None yet.
    pub const fn new() -> Publishers {
        Publishers { known: Vec::new() }
    }

    /// A user with these settings.
    pub fn user(&mut self, login: &str, debug: bool, raw: RawSettings) -> Result<User, SettingsError> {
        let publisher = match self.known.iter().find(|(known, _)| *known == raw) {
            Some((_, publisher)) => Arc::clone(publisher),
            None => {
                let publisher = Arc::new(Mutex::new(Publisher::new(Settings::parse(&raw)?)));
                if self.known.len() >= MAX_PUBLISHERS {
                    // Whoever still uses it keeps it.
                    self.known.remove(0);
                }
                self.known.push((raw, Arc::clone(&publisher)));
                publisher
            }
        };
        let cn = publisher.lock().unwrap_or_else(PoisonError::into_inner).settings.cn(login)?;
        Ok(User { cn, shown: log::name(login), debug, publisher })
    }

    /// Forgets everything, connections included. Gives what is still to be said.
    pub fn close(&mut self) -> Vec<Line> {
        // Taken whole, so that not even the list's memory is left when the module goes.
        std::mem::take(&mut self.known)
            .into_iter()
            .filter_map(|(_, publisher)| {
                publisher.lock().unwrap_or_else(PoisonError::into_inner).outage.close()
            })
            .map(Line::warning)
            .collect()
    }
}

impl User {
    /// Publishes a transaction and gives the lines for the log: none when all went well (without debug).
    pub fn publish(&self, delivery: Delivery) -> Vec<Line> {
        let mut publisher = self.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = publisher.publish(self, delivery, Instant::now());
        lines.retain(|line| self.debug || line.level > Level::Debug);
        lines
    }
}

impl Publisher {
    fn new(settings: Settings) -> Publisher {
        let resolver = BlockingResolver::new(&settings.resolver, settings.options.charset);
        Publisher { settings, resolver, outage: Outage::default() }
    }

    fn publish(&mut self, user: &User, delivery: Delivery, begun: Instant) -> Vec<Line> {
        let deadline = begun + self.settings.budget;
        let head = format!("{}: {}", user.shown, counted(delivery.mails.len(), "event"));
        let missed = delivery.mails.len();
        if self.outage.holds(begun, &user.cn, missed) {
            return vec![Line::new(
                Level::Debug,
                format!("{head}: not sent: memcached is left alone for now"),
            )];
        }
        let listeners = match self.resolver.lookup(&user.cn, deadline - self.settings.budget / SEND_SHARE) {
            Ok(listeners) => listeners,
            Err(error) => {
                let text = format!("{head}: not sent: {error}");
                let timed_out = matches!(error, ResolverError::Deadline { .. });
                let level = match self.outage.failed(Instant::now(), timed_out, &user.cn, missed) {
                    true => Level::Warning,
                    false => Level::Debug,
                };
                return vec![Line::new(level, text)];
            }
        };
        let mut lines: Vec<Line> =
            self.outage.answered(Instant::now()).map(Line::warning).into_iter().collect();
        let events = delivery.into_events(user.cn.as_str(), now_us());
        let plan = plan(&listeners, &events, &self.settings.options);
        let mut verdicts = self.deliver(user, &plan, deadline);
        let unsettled = self.settle(user, &mut verdicts, &listeners, deadline);

        let mut faults: Vec<String> =
            plan.skipped.iter().map(|skipped| format!("{} skipped: {}", skipped.what, skipped.why)).collect();
        faults.extend(verdicts.faults);
        faults.extend(unsettled);
        lines.push(match faults.is_empty() {
            true => {
                let took = begun.elapsed().as_micros();
                let endpoints = counted(verdicts.taken, "endpoint");
                Line::new(Level::Debug, format!("{head} to {endpoints} in {took} us"))
            }
            false => Line::warning(format!("{head}: {}", faults.join(", "))),
        });
        lines
    }

    /// Sends everything at once.
    fn deliver(&self, user: &User, plan: &Plan, deadline: Instant) -> Verdicts {
        let mut verdicts = Verdicts::default();
        if plan.sends.is_empty() {
            return verdicts;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let outcomes = sender::run(plan.sends.iter().map(job).collect(), deadline - left / SETTLE_SHARE);
        for (send, outcome) in plan.sends.iter().zip(outcomes) {
            let outcome = reported(send, outcome);
            let verdict = judge(send, &outcome, user.cn.as_str(), &self.settings.options);
            verdicts.add(send, verdict);
        }
        verdicts
    }

    /// Brings the records up to date: who is gone, and who missed what, now or in an outage before. Gives why
    /// that failed, if it did.
    fn settle(
        &mut self,
        user: &User,
        verdicts: &mut Verdicts,
        listeners: &Listeners,
        deadline: Instant,
    ) -> Option<String> {
        let owed = self.outage.take_owed(&user.cn);
        if let Some(owed) = owed {
            verdicts.settlement.missed.extend(listeners.native.iter().map(|lease| (lease.clone(), owed)));
        }
        if verdicts.settlement.is_empty() {
            return None;
        }
        let error = self.resolver.settle(&user.cn, &verdicts.settlement, deadline).err()?;
        if let Some(owed) = owed {
            self.outage.owe_again(&user.cn, owed);
        }
        Some(format!("records not updated: {error}"))
    }
}

fn job(send: &Send) -> Job {
    let octets: Vec<_> = send.payloads.iter().map(Payload::octets).collect();
    let payloads = octets.iter().map(AsRef::as_ref);
    match send.target {
        Target::Native(_) => Job::request(send.endpoint.clone(), 1, payloads),
        Target::Legacy => Job::push(send.endpoint.clone(), payloads),
    }
}

/// The sender's outcome in the words of the shared decisions.
fn reported(send: &Send, outcome: Outcome) -> delivery::Outcome {
    match outcome {
        Outcome::Delivered { replies, .. } if matches!(send.target, Target::Native(_)) => {
            match replies.iter().map(|reply| Ack::decode(reply)).collect() {
                Ok(acks) => delivery::Outcome::Acknowledged(acks),
                Err(error) => delivery::Outcome::Stranger(format!("its answer: {error}")),
            }
        }
        Outcome::Delivered { .. } => delivery::Outcome::Delivered,
        Outcome::Refused => delivery::Outcome::Refused,
        Outcome::Silent => delivery::Outcome::Silent,
        Outcome::Protocol(error) => delivery::Outcome::Stranger(error.to_string()),
        Outcome::Broken(error) => delivery::Outcome::Broken(error.to_string()),
        Outcome::Unreachable(error) => delivery::Outcome::Broken(format!("no connection: {error}")),
        Outcome::BadAddress(why) => delivery::Outcome::BadAddress(why),
    }
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
