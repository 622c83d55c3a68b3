//! Publishing one transaction: look up who listens, send to all of them at once, settle the records. One
//! deadline for all three, and at most one warning about it.
//!
//! With `openchange_bus` the daemon is given the events instead, and does all that. Without its acknowledgement within
//! half of the budget they go the direct way in the rest of it, with the same ids.
//!
//! In two halves: at commit everything is looked up and sent; the answers are waited for when Dovecot is done with the
//! user ([`User::finish`]), before dovecot-lda ends, and in LMTP behind its reply. In between it closes the mailbox and
//! writes its log, and the subscribers work at the same time.
//!
//! The budget is one transaction's; a mail to many recipients has many. So what hangs is remembered, and not waited for
//! each time: memcached ([`outage`]), the daemon ([`crate::handover`]), endpoints ([`silence`]).

mod news;
mod outage;
mod silence;
mod underway;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ocbus_resolver::delivery::{self, Payload, Plan, Send, Target, Verdict, Verdicts, judge, plan};
use ocbus_resolver::{BlockingResolver, Cn};
use ocbus_wire::native::{Ack, Lease};
use ocbus_wire::{Event, ResyncReason};
use uuid::Uuid;

use crate::filter::{Folders, Kinds};
use crate::handover::{self, Answer, HandOver};
use crate::log::{self, Level, Line};
use crate::sender::{self, Job, Kept, Outcome, Run};
use crate::settings::{RawSettings, Settings, SettingsError};
use crate::transaction::Delivery;

use news::News;
use outage::Outage;
use silence::Silence;
use underway::{Stage, Told, Underway};

/// Different settings that one process remembers. More than a few would mean that each user has their own.
const MAX_PUBLISHERS: usize = 16;

/// Different options without effect that are told. More than there are options would mean that their values differ.
const MAX_INEFFECTIVE: usize = 64;

/// Endpoints that a line names; it counts the others.
const MAX_FAULTS: usize = 24;

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
    /// Lines of publishers that were forgotten; written at the end. Bounded by their number, one line each.
    unsaid: Vec<Line>,
    /// What was wrong in settings that were read since it was asked for: once for each set of them.
    warnings: Vec<Line>,
    /// Options of the resolver without effect that the log has heard of.
    ineffective: BTreeSet<String>,
}

/// One set of settings and its resolver.
#[derive(Debug)]
pub struct Publisher {
    settings: Settings,
    resolver: BlockingResolver,
    outage: Outage,
    silence: Silence,
    kept: Kept,
    bus: Option<HandOver>,
    /// At most one transaction at a time, so that events leave the process in their order.
    underway: Option<Underway>,
    /// Requests so far: no two of a process have the same id.
    requests: u32,
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
        let ineffective = BTreeSet::new();
        Publishers { known: Vec::new(), unsaid: Vec::new(), warnings: Vec::new(), ineffective }
    }

    /// A user with these settings.
    pub fn user(&mut self, login: &str, debug: bool, raw: RawSettings) -> Result<User, SettingsError> {
        let publisher = match self.known.iter().find(|(known, _)| *known == raw) {
            Some((_, publisher)) => Arc::clone(publisher),
            None => {
                let mut settings = Settings::parse(&raw)?;
                let ignored = std::mem::take(&mut settings.ignored).into_iter();
                self.warnings
                    .extend(ignored.map(|(error, counts)| Line::warning(format!("{error}; {counts}"))));
                let publisher = Arc::new(Mutex::new(Publisher::new(settings)));
                if self.known.len() >= MAX_PUBLISHERS {
                    // Whoever still uses it keeps it.
                    let (_, oldest) = self.known.remove(0);
                    self.unsaid.extend(ended(&oldest));
                    self.unsaid.truncate(MAX_PUBLISHERS);
                }
                self.known.push((raw, Arc::clone(&publisher)));
                publisher
            }
        };
        if debug {
            self.tell_ineffective(&publisher);
        }
        let cn = publisher.lock().unwrap_or_else(PoisonError::into_inner).settings.cn(login)?;
        Ok(User { cn, shown: log::name(login), debug, publisher })
    }

    /// Options of the resolver that change nothing, each once a process. No fault, and a process of Dovecot often has one
    /// mail to deliver: for the log of who looks.
    fn tell_ineffective(&mut self, publisher: &Mutex<Publisher>) {
        let publisher = publisher.lock().unwrap_or_else(PoisonError::into_inner);
        for option in publisher.settings.resolver.ineffective() {
            if self.ineffective.len() < MAX_INEFFECTIVE && !self.ineffective.contains(&option) {
                let text = format!(
                    "setting openchange_resolver: {option} is accepted, and changes nothing in ocbus"
                );
                self.warnings.push(Line::new(Level::Debug, text));
                self.ineffective.insert(option);
            }
        }
    }

    /// What is to be said of settings that were read since.
    pub fn warnings(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.warnings)
    }

    /// Forgets everything, connections included. Gives what is still to be said.
    pub fn close(&mut self) -> Vec<Line> {
        // Taken whole, so that not even the list's memory is left when the module goes.
        self.ineffective = BTreeSet::new();
        std::mem::take(&mut self.known)
            .into_iter()
            .flat_map(|(_, publisher)| ended(&publisher))
            .chain(std::mem::take(&mut self.unsaid))
            .collect()
    }
}

/// What a publisher that is not used any more has still to say.
fn ended(publisher: &Mutex<Publisher>) -> Vec<Line> {
    let mut publisher = publisher.lock().unwrap_or_else(PoisonError::into_inner);
    let mut lines = publisher.finish();
    lines.extend(publisher.silence.close().map(Line::warning));
    lines.extend(publisher.outage.close().map(Line::warning));
    lines
}

impl User {
    /// Publishes a transaction and gives the lines for the log: none when all went well (without debug). What
    /// there is to say of the answers comes from [`User::finish`].
    pub fn publish(&self, delivery: Delivery) -> Vec<Line> {
        self.publisher.lock().unwrap_or_else(PoisonError::into_inner).publish(self, delivery)
    }

    /// Whose events these are.
    pub fn cn(&self) -> &Cn {
        &self.cn
    }

    /// Which events are told, of which mailboxes.
    pub fn filter(&self) -> (Kinds, Folders) {
        let publisher = self.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        (publisher.settings.events.clone(), publisher.settings.folders.clone())
    }

    /// Whether there is somebody to be told that something was missed.
    pub fn owes(&self) -> bool {
        self.publisher.lock().unwrap_or_else(PoisonError::into_inner).outage.owes(&self.cn)
    }

    /// Closes all connections; the next transaction makes new ones. For a process that lives on and may have nothing
    /// to tell for hours.
    pub fn rest(&self) {
        self.publisher.lock().unwrap_or_else(PoisonError::into_inner).rest();
    }

    /// How long a transaction may take.
    pub fn budget(&self) -> Duration {
        self.publisher.lock().unwrap_or_else(PoisonError::into_inner).settings.budget
    }

    /// Since when there is something that [`User::finish`] has to wait for.
    pub fn underway_since(&self) -> Option<Instant> {
        let publisher = self.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        publisher
            .underway
            .as_ref()
            .filter(|underway| underway.told.cn == self.cn)
            .map(|underway| underway.left)
    }

    /// When there is something to say of endpoints that were left alone ([`User::account`]).
    pub fn account_at(&self) -> Option<Instant> {
        self.publisher.lock().unwrap_or_else(PoisonError::into_inner).silence.wake()
    }

    /// What endpoints missed that were left alone for a while, once that is over.
    pub fn account(&self, now: Instant) -> Option<Line> {
        let mut publisher = self.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        publisher.silence.over(now).map(Line::warning)
    }

    /// Waits for the answers to what was published last, within what its budget has left.
    pub fn finish(&self) -> Vec<Line> {
        let mut publisher = self.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        match &publisher.underway {
            Some(underway) if underway.told.cn == self.cn => publisher.finish(),
            _ => Vec::new(),
        }
    }
}

impl Publisher {
    fn new(settings: Settings) -> Publisher {
        let resolver = BlockingResolver::new(&settings.resolver, settings.options.charset);
        let bus = settings.bus.clone().map(HandOver::new);
        Publisher {
            settings,
            resolver,
            outage: Outage::default(),
            silence: Silence::default(),
            kept: Kept::new(),
            bus,
            underway: None,
            requests: 0,
        }
    }

    fn rest(&mut self) {
        if self.underway.is_none() {
            self.kept = Kept::new();
            self.resolver = BlockingResolver::new(&self.settings.resolver, self.settings.options.charset);
        }
    }

    fn publish(&mut self, user: &User, delivery: Delivery) -> Vec<Line> {
        let mut lines = self.finish();
        let begun = Instant::now();
        lines.extend(self.silence.over(begun).map(Line::warning));
        let told = Told {
            cn: user.cn.clone(),
            debug: user.debug,
            head: format!("{}: {}", user.shown, counted(delivery.len(), "event")),
            begun,
            deadline: begun + self.settings.budget.saturating_sub(delivery.waited),
        };
        let news = match self.bus.as_mut().is_some_and(|bus| !bus.is_left_alone(begun)) {
            false => Some(News::Delivery(delivery)),
            true => match self.hand_over(&told, delivery) {
                Ok(()) => None,
                Err(events) => Some(News::Events { events, unclear: false }),
            },
        };
        match (news, &self.underway) {
            (Some(news), _) => lines.extend(self.send(told, news)),
            // Refused at once: the direct way now, so that its answers too come while Dovecot does other work.
            (None, Some(underway)) if underway.run.is_over() => lines.extend(self.end_hand_over()),
            (None, _) => {}
        }
        lines
    }

    /// Writes the events to the daemon. Gives them back when they cannot be said to it.
    fn hand_over(&mut self, told: &Told, delivery: Delivery) -> Result<(), Vec<Event>> {
        let mut events = delivery.into_events(told.cn.as_str());
        let Some(bus) = &self.bus else { return Err(events) };
        let endpoint = bus.endpoint().clone();
        // What the direct way could not tell, the daemon can.
        let owed = self.outage.take_owed(&told.cn);
        let resync = owed.map(|missed| {
            Event::resync(Uuid::now_v7(), now_us(), told.cn.as_str(), ResyncReason::Unreachable, missed)
        });
        let said: Option<Vec<Vec<u8>>> = match resync {
            None => handover::batches(&events),
            Some(resync) => {
                events.insert(0, resync);
                let batches = handover::batches(&events);
                events.remove(0);
                batches
            }
        };
        let Some(batches) = said else {
            if let Some(owed) = owed {
                self.outage.owe_again(&told.cn, owed);
            }
            return Err(events);
        };
        let job =
            Job::request(endpoint, self.next_requests(batches.len()), batches.iter().map(Vec::as_slice));
        let left = told.deadline.saturating_duration_since(Instant::now());
        let run = Run::start(vec![job], told.deadline - left / handover::SHARE, &mut self.kept);
        let stage = Stage::HandedOver { events, owed };
        self.underway = Some(Underway { told: told.clone(), stage, run, left: Instant::now() });
        Ok(())
    }

    /// Looks up who listens, and sends; the answers are waited for later.
    fn send(&mut self, told: Told, news: News) -> Vec<Line> {
        let mut lines = Vec::new();
        let Told { cn, debug, head, begun: _, deadline } = &told;
        let missed = news.len();
        let say = |level, text| (*debug || level > Level::Debug).then(|| Line::new(level, text));
        if self.outage.holds(Instant::now(), cn, missed) {
            let text = format!("{head}: not sent: memcached is left alone for now");
            lines.extend(say(Level::Debug, text));
            return lines;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let mut listeners = match self.resolver.lookup(cn, *deadline - left / SEND_SHARE) {
            Ok(listeners) => listeners,
            Err(error) => {
                let text = format!("{head}: not sent: {error}");
                if error.is_one_server() {
                    // Its users' affair: the others' look-ups go on, and would end an outage at once. The resolver
                    // leaves it alone, so this is one line for each time that it was tried.
                    self.outage.owe_again(cn, u64::try_from(missed).unwrap_or(u64::MAX));
                    let level = if error.is_left_alone() { Level::Debug } else { Level::Warning };
                    lines.extend(say(level, text));
                    return lines;
                }
                let timed_out = error.is_timeout();
                let level = match self.outage.failed(Instant::now(), timed_out, cn, missed) {
                    true => Level::Warning,
                    false => Level::Debug,
                };
                lines.extend(say(level, text));
                return lines;
            }
        };
        lines.extend(self.outage.answered(Instant::now()).map(Line::warning));
        if news.is_unclear() {
            // At most once: the daemon may send it, or have sent it. A native endpoint knows the ids.
            let legacy = std::mem::take(&mut listeners.legacy).len();
            let endpoints = counted(legacy, "legacy endpoint");
            let text = format!("{head}: not sent to {endpoints}: the daemon may have sent it");
            lines.extend((legacy > 0).then(|| Line::warning(text)));
        }
        // Said only with mail_debug: it is so for every user whom nobody listens for, and for a few seconds.
        let held = match std::mem::take(&mut listeners.unsettled) {
            true => {
                let text = format!(
                    "{head}: not sent: a memcached has just taken over, and nobody is registered yet"
                );
                lines.extend(say(Level::Debug, text));
                Some(u64::try_from(missed).unwrap_or(u64::MAX))
            }
            false => None,
        };
        // Nobody listens, most of the time: then there is no need of events.
        let events = match listeners.is_empty() && listeners.ended().next().is_none() {
            true => Vec::new(),
            false => news.into_events(cn.as_str()),
        };
        let mut plan = plan(&listeners, &events, &self.settings.options);
        let now = Instant::now();
        for url in self.silence.leave_alone(&mut plan, now) {
            lines.extend(say(Level::Debug, format!("{head}: {url} is left alone for now")));
        }
        let left = deadline.saturating_duration_since(now);
        let most = left - left / SETTLE_SHARE;
        let patience = |send: &Send| self.silence.patience(now, &send.url, self.settings.budget).min(most);
        let patience: Vec<Duration> = plan.sends.iter().map(patience).collect();
        let longest = patience.iter().copied().max().unwrap_or_default();
        let each = plan.sends.iter().zip(&patience);
        let jobs: Vec<Job> = each.map(|(send, patience)| self.job(send).within(*patience)).collect();
        let run = Run::start(jobs, now + longest, &mut self.kept);
        let stage = Stage::Sent { plan, leases: listeners.native, held, patience };
        self.underway = Some(Underway { told, stage, run, left: Instant::now() });
        lines
    }

    /// Ends what is under way: waits for the answers, and settles the records.
    fn finish(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        if matches!(&self.underway, Some(Underway { stage: Stage::HandedOver { .. }, .. })) {
            lines.extend(self.end_hand_over());
        }
        lines.extend(self.end_send());
        lines
    }

    /// Waits for the daemon's answer; without a good one everything goes the direct way, within what is left.
    fn end_hand_over(&mut self) -> Vec<Line> {
        let (mut told, events, owed, run, left) = match self.underway.take() {
            Some(Underway { told, stage: Stage::HandedOver { events, owed }, run, left }) => {
                (told, events, owed, run, left)
            }
            other => {
                self.underway = other;
                return Vec::new();
            }
        };
        // What Dovecot did meanwhile was not our time.
        let away = left.elapsed();
        told.deadline += away;
        told.begun += away;
        let outcome = run.finish(&mut self.kept).pop();
        let Some((outcome, bus)) = outcome.zip(self.bus.as_mut()) else { return Vec::new() };
        let (answer, line) = bus.judge(outcome, Instant::now());
        let mut lines: Vec<Line> = line.map(Line::warning).into_iter().collect();
        if let (Some(owed), false) = (owed, answer == Answer::Taken) {
            self.outage.owe_again(&told.cn, owed);
        }
        match answer {
            Answer::Taken => {
                let took = told.begun.elapsed().as_micros();
                let text = format!("{} handed over in {took} us", told.head);
                lines.extend(told.debug.then(|| Line::new(Level::Debug, text)));
            }
            Answer::NotTaken(_) => lines.extend(self.send(told, News::Events { events, unclear: false })),
            Answer::Unclear(_) => lines.extend(self.send(told, News::Events { events, unclear: true })),
        }
        lines
    }

    fn end_send(&mut self) -> Vec<Line> {
        let Some(Underway { told, stage, run, left }) = self.underway.take() else { return Vec::new() };
        let Told { cn, debug, head, begun, deadline } = told;
        let Stage::Sent { plan, leases, held, patience } = stage else { return Vec::new() };
        // What Dovecot did meanwhile was not our time.
        let away = left.elapsed();
        let longest = patience.iter().copied().max().unwrap_or_default();
        let again = (Instant::now() + longest).min(deadline + away);
        let mut outcomes: Vec<delivery::Outcome> = plan
            .sends
            .iter()
            .zip(run.finish(&mut self.kept))
            .map(|(send, outcome)| reported(send, outcome))
            .collect();
        self.repeat(&plan, &mut outcomes, again);
        // Of hundreds each had a part of it.
        let share = sender::share(plan.sends.len(), longest);
        let mut verdicts = Verdicts::of(&plan);
        let mut silent = Vec::new();
        for ((send, outcome), patience) in plan.sends.iter().zip(outcomes).zip(patience) {
            let patience = patience.min(share);
            let mut verdict = judge(send, &outcome, cn.as_str(), &self.settings.options);
            match (&outcome, &mut verdict) {
                (delivery::Outcome::Silent, Verdict::Missed { reason } | Verdict::Dropped { reason }) => {
                    silent.push((send.url.as_str(), patience));
                    if let Some(hurried) = silence::hurried(patience, self.settings.budget) {
                        *reason = hurried;
                    }
                }
                (_, Verdict::Taken { .. }) => self.silence.heard(&send.url),
                _ => {}
            }
            verdicts.add(send, verdict);
        }
        self.silence.waited(Instant::now(), silent, self.settings.budget);
        // Nobody is there yet to be told, of this nor of what was owed before.
        let owed = held.map_or(0, |held| self.outage.take_owed(&cn).unwrap_or(0).saturating_add(held));
        let unsettled = self.settle(&cn, &mut verdicts, &leases, deadline + away);
        if owed > 0 {
            self.outage.owe_again(&cn, owed);
        }

        let mut faults: Vec<String> =
            plan.skipped.iter().map(|skipped| format!("{} skipped: {}", skipped.what, skipped.why)).collect();
        let more = verdicts.faults.len().saturating_sub(MAX_FAULTS);
        faults.extend(verdicts.faults.into_iter().take(MAX_FAULTS));
        faults.extend((more > 0).then(|| format!("and {more} more endpoints")));
        faults.extend(unsettled);
        let line = match faults.is_empty() {
            true if !debug => return Vec::new(),
            true => {
                let took = begun.elapsed().saturating_sub(away).as_micros();
                let endpoints = counted(verdicts.taken, "endpoint");
                Line::new(Level::Debug, format!("{head} to {endpoints} in {took} us"))
            }
            false => Line::warning(format!("{head}: {}", faults.join(", "))),
        };
        vec![line]
    }

    /// Sends the same batches once more to native endpoints whose connection broke, while there is time: whoever
    /// had them already drops them by their ids.
    fn repeat(&mut self, plan: &Plan, outcomes: &mut [delivery::Outcome], deadline: Instant) {
        let broken: Vec<(&Send, &mut delivery::Outcome)> = plan
            .sends
            .iter()
            .zip(outcomes)
            .filter(|(send, outcome)| {
                matches!((&send.target, outcome), (Target::Native(_), delivery::Outcome::Broken(_)))
            })
            .collect();
        let left = deadline.saturating_duration_since(Instant::now());
        if broken.is_empty() || left.is_zero() {
            return;
        }
        let jobs = broken.iter().map(|(send, _)| self.job(send)).collect();
        let again = Run::start(jobs, deadline - left / SETTLE_SHARE, &mut self.kept).finish(&mut self.kept);
        for ((send, outcome), second) in broken.into_iter().zip(again) {
            *outcome = reported(send, second);
        }
    }

    fn job(&mut self, send: &Send) -> Job {
        let octets: Vec<_> = send.payloads.iter().map(Payload::octets).collect();
        let payloads = octets.iter().map(AsRef::as_ref);
        match send.target {
            Target::Native(_) => {
                Job::request(send.endpoint.clone(), self.next_requests(octets.len()), payloads)
            }
            Target::Legacy => Job::push(send.endpoint.clone(), payloads),
        }
    }

    /// The first of so many ids.
    fn next_requests(&mut self, count: usize) -> u32 {
        let first = self.requests;
        self.requests = first.wrapping_add(u32::try_from(count).unwrap_or(u32::MAX));
        first
    }

    /// Brings the records up to date: who is gone, and who missed what, now or in an outage before. Gives why
    /// that failed, if it did.
    fn settle(
        &mut self,
        cn: &Cn,
        verdicts: &mut Verdicts,
        leases: &[Lease],
        deadline: Instant,
    ) -> Option<String> {
        let owed = self.outage.take_owed(cn);
        if let Some(owed) = owed {
            verdicts.settlement.missed.extend(leases.iter().map(|lease| (lease.clone(), owed)));
        }
        if verdicts.settlement.is_empty() {
            return None;
        }
        let error = self.resolver.settle(cn, &verdicts.settlement, deadline).err()?;
        // Of what each lease missed, the most: a resync says no more than that something is missing.
        if let Some(owed) = verdicts.settlement.missed.iter().map(|(_, count)| *count).max() {
            self.outage.owe_again(cn, owed);
        }
        Some(format!("records not updated: {error}"))
    }
}

/// The sender's outcome in the words of the shared decisions.
fn reported(send: &Send, outcome: Outcome) -> delivery::Outcome {
    match outcome {
        Outcome::Delivered { replies, .. } if matches!(send.target, Target::Native(_)) => {
            match replies.iter().map(|reply| Ack::decode(reply)).collect() {
                Ok(acks) => delivery::Outcome::Acknowledged(acks),
                Err(error) => delivery::Outcome::Broken(format!("its answer: {error}")),
            }
        }
        Outcome::Delivered { .. } => delivery::Outcome::Delivered,
        Outcome::Refused => delivery::Outcome::Refused,
        Outcome::Silent | Outcome::NotReached => delivery::Outcome::Silent,
        Outcome::NotBegun => delivery::Outcome::NotBegun("no time was left in the budget".to_owned()),
        Outcome::Protocol(error) => delivery::Outcome::Stranger(error.to_string()),
        Outcome::Broken(error) => delivery::Outcome::Broken(error.to_string()),
        Outcome::Unreachable(error) => delivery::Outcome::Broken(format!("no connection: {error}")),
        Outcome::BadAddress(why) => delivery::Outcome::BadAddress(why),
    }
}

fn counted<N: Display + PartialEq + From<u8>>(count: N, what: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// Microseconds since the Unix epoch.
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
