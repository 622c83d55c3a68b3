//! `ocbus trace`: what becomes of one user's events, as a running daemon tells it.

use std::collections::HashMap;
use std::time::Duration;

use anstyle::Style;
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ocbus::gateway::{Following, Told};
use ocbus::outbox::{SendOutcome, Step, Trace, TracedEvent};
use ocbus::resolver::Cn;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use uuid::Uuid;

use super::at_daemon::AtDaemon;
use super::failure::Failure;
use super::output::{self, BAD, DIM, GOOD, STRONG, UNSURE, escape, paint};
use super::watch::duration;

/// For the answer's beginning.
const LIMIT: Duration = Duration::from_secs(10);

/// Events whose way is not at its end, at most.
const UNDER_WAY: usize = 65_536;

const HELP: &str = "\
Examples:
  ocbus trace bob                       each step of bob's events, as it happens
  ocbus trace bob --count 1 --for 30    wait for one event to be over; status 1 if none is within 30 s
  ocbus trace bob --json | jq -r 'select(.step == \"dropped\") | .reason'
  ocbus trace bob --daemon https://mail1:8009 --ca-file /etc/ocbus/ca.pem --credentials-file /etc/ocbus/word

A mail that arrives, and is acknowledged by one subscriber:
  12:00:00.104  +0.8 ms   MessageNew  INBOX  accepted from ox
  12:00:00.110  +6.2 ms   MessageNew  INBOX  looked up: 1 native, 0 legacy, in 0.4 ms
  12:00:00.111  +7.9 ms   MessageNew  INBOX  acknowledged by tcp://10.0.0.5:40051, in 1.5 ms

Behind the time stands how long ago the event itself was: Dovecot's commit where our plugin tells it, else when its
request came in. It asks the daemon (`ocbus serve`) over HTTP.
Credentials are one of its http.credentials: login:password, or a token; from the file, or from OCBUS_CREDENTIALS.

Once nothing is missed any more, `following USER` comes on standard error. It ends with 0 by SIGINT and SIGTERM, and
with 1 when the daemon stops, or when it was too slow to read everything.

With --json each line is one object:
  time_us, user     when, in microseconds since 1970; whose events
  events            an array of id, kind, time_us, mailbox
  step              accepted (source), looked-up (native, legacy, took_us), look-up-failed (reason, took_us),
                    sent (endpoint, native, outcome, reason, took_us), held (endpoint, retry_ms), dropped (reason)";

/// Follows a user's events through the daemon: who gave them, who listens, what each endpoint did.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(super) struct Follow {
    /// Who.
    user: Cn,
    #[command(flatten)]
    daemon: AtDaemon,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
    /// End when this many events are over: every endpoint has answered, or they were dropped.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time: seconds, or with a unit as in 500ms, 5m, 1h. With --count: fail if fewer were over.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
}

impl Follow {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let end = self.duration.map(|duration| Instant::now() + duration);
        let remote = self.daemon.remote(LIMIT)?;
        let mut following = Following::begin(remote, &self.user).await?;
        let mut ends = Ends::default();
        loop {
            let told = tokio::select! {
                told = following.next() => told?,
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
                () = at(end) => return self.too_late(ends.over),
            };
            match told {
                Some(Told::Ready) => output::note(&format!("following {}", escape(self.user.as_str()))),
                Some(Told::Trace(text)) => {
                    // One of a later daemon, with a step that we do not know, is shown as it is.
                    let trace = serde_json::from_str::<Trace>(&text).ok();
                    match &trace {
                        _ if self.json => output::line(&text)?,
                        Some(trace) => output::line(&line(trace))?,
                        None => output::line(&escape(&text))?,
                    }
                    if let Some(trace) = &trace {
                        ends.add(trace);
                    }
                    if self.count.is_some_and(|count| ends.over >= count) {
                        return Ok(());
                    }
                }
                Some(Told::Missed(missed)) => {
                    return Err(Failure::failed(format!(
                        "{missed} steps were missed: too many came at once"
                    )));
                }
                Some(_) => {}
                None => return Err(Failure::failed("the daemon has stopped")),
            }
        }
    }

    fn too_late(&self, over: u64) -> Result<(), Failure> {
        match (self.count, self.duration) {
            (Some(count), Some(duration)) => {
                Err(Failure::failed(format!("{over} of {count} events were over within {duration:?}")))
            }
            _ => Ok(()),
        }
    }
}

async fn at(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Which events are over: how many endpoints each still waits for.
#[derive(Debug, Default)]
struct Ends {
    waiting: HashMap<Uuid, usize>,
    over: u64,
}

impl Ends {
    fn add(&mut self, trace: &Trace) {
        for event in &trace.events {
            let over = match &trace.step {
                Step::LookedUp { native, legacy, .. } if self.waiting.len() < UNDER_WAY => {
                    // Nothing but new mail can be said to a legacy one.
                    let legacy = if event.kind == "MessageNew" { *legacy } else { 0 };
                    self.waiting.insert(event.id, native + legacy);
                    false
                }
                // Of a native one that is gone somebody may come in its place.
                Step::Sent { outcome: SendOutcome::Taken | SendOutcome::Refused, .. }
                | Step::Sent { native: false, outcome: SendOutcome::Gone, .. } => {
                    match self.waiting.get_mut(&event.id) {
                        Some(waiting) => {
                            *waiting = waiting.saturating_sub(1);
                            *waiting == 0
                        }
                        None => false,
                    }
                }
                Step::Dropped { .. } => true,
                _ => false,
            };
            if over {
                self.waiting.remove(&event.id);
                self.over += 1;
            }
        }
    }
}

/// `12:00:00.111  +7.9 ms  MessageNew  INBOX  acknowledged by tcp://10.0.0.5:40051, in 1.5 ms`
fn line(trace: &Trace) -> String {
    let (style, what) = step(&trace.step);
    let first = trace.events.first();
    let since = first.map(|event| since(trace, event)).unwrap_or_default();
    let more = trace.events.len().saturating_sub(1);
    let more = if more > 0 { format!("  and {more} more") } else { String::new() };
    format!(
        "{}  {}  {}{more}  {}",
        paint(DIM, &time(trace.time_us)),
        paint(DIM, &format!("{since:<8}")),
        first.map(event).unwrap_or_else(|| "(a resync)".to_owned()),
        paint(style, &what)
    )
}

fn event(event: &TracedEvent) -> String {
    let mailbox = event.mailbox.as_deref().map(|mailbox| format!("  {}", escape(mailbox)));
    format!("{}{}", paint(STRONG, &escape(&event.kind)), mailbox.unwrap_or_default())
}

fn since(trace: &Trace, event: &TracedEvent) -> String {
    format!("+{}", milliseconds(trace.time_us.saturating_sub(event.time_us)))
}

fn step(step: &Step) -> (Style, String) {
    match step {
        Step::Accepted { source } => (Style::new(), format!("accepted from {}", source.name())),
        Step::LookedUp { native: 0, legacy: 0, took_us } => {
            (UNSURE, format!("looked up: nobody is registered, in {}", milliseconds(*took_us)))
        }
        Step::LookedUp { native, legacy, took_us } => {
            let took = milliseconds(*took_us);
            (Style::new(), format!("looked up: {native} native, {legacy} legacy, in {took}"))
        }
        Step::LookUpFailed { reason, took_us } => {
            (BAD, format!("look-up failed after {}: {}", milliseconds(*took_us), escape(reason)))
        }
        Step::Sent { endpoint, native, outcome, reason, took_us } => {
            let (style, done) = match (outcome, native) {
                (SendOutcome::Taken, true) => (GOOD, "acknowledged by"),
                (SendOutcome::Taken, false) => (GOOD, "pushed to"),
                (SendOutcome::Gone, _) => (UNSURE, "nobody is there any more:"),
                (SendOutcome::Refused, _) => (BAD, "refused by"),
                (_, _) => (BAD, "not taken by"),
            };
            let reason = reason.as_deref().map(|reason| format!(": {}", escape(reason)));
            let (endpoint, took) = (escape(endpoint), milliseconds(*took_us));
            (style, format!("{done} {endpoint}, in {took}{}", reason.unwrap_or_default()))
        }
        Step::Held { endpoint, retry_ms } => {
            let place = endpoint.as_deref().map_or_else(|| "whoever registers".to_owned(), escape);
            (UNSURE, format!("held for {place}, again in {retry_ms} ms"))
        }
        Step::Dropped { reason } => (BAD, format!("dropped: {}", reason.name())),
        _ => (UNSURE, "a step that this version does not know".to_owned()),
    }
}

fn milliseconds(us: u64) -> String {
    format!("{}.{} ms", us / 1000, us % 1000 / 100)
}

fn time(us: u64) -> String {
    let time = i64::try_from(us).ok().and_then(|us| Timestamp::from_microsecond(us).ok());
    time.map_or_else(
        || "(no time)".to_owned(),
        |time| time.to_zoned(TimeZone::system()).strftime("%H:%M:%S%.3f").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocbus::outbox::{Reason, Source};

    fn trace(kind: &str, step: Step) -> Trace {
        let event = TracedEvent {
            id: Uuid::nil(),
            kind: kind.to_owned(),
            time_us: 1_000,
            mailbox: Some("a\x1b[31m".to_owned()),
        };
        Trace { time_us: 8_900, user: "bob".to_owned(), events: vec![event], step }
    }

    fn sent(outcome: SendOutcome) -> Step {
        Step::Sent { endpoint: "tcp://h:1".to_owned(), native: true, outcome, reason: None, took_us: 1_500 }
    }

    #[test]
    fn a_step_is_a_line_that_cannot_act_on_the_terminal() {
        let line = line(&trace("MessageNew", sent(SendOutcome::Taken)));
        let line = anstream::adapter::strip_str(&line).to_string();
        let (_, what) = line.split_once("  ").unwrap();
        assert_eq!(what, "+7.9 ms   MessageNew  a\\u{1b}[31m  acknowledged by tcp://h:1, in 1.5 ms");
    }

    #[test]
    fn an_event_is_over_when_each_endpoint_has_answered() {
        let mut ends = Ends::default();
        let mut over = |kind: &str, step: Step| {
            ends.add(&trace(kind, step));
            ends.over
        };
        let looked = |native, legacy| Step::LookedUp { native, legacy, took_us: 1 };
        assert_eq!(over("MessageNew", Step::Accepted { source: Source::Ox }), 0);
        assert_eq!(over("MessageNew", looked(1, 1)), 0);
        assert_eq!(over("MessageNew", sent(SendOutcome::Failed)), 0, "it is tried again");
        assert_eq!(over("MessageNew", sent(SendOutcome::Taken)), 0, "the other one");
        assert_eq!(over("MessageNew", sent(SendOutcome::Taken)), 1);
        assert_eq!(over("FlagsSet", looked(1, 1)), 1);
        assert_eq!(over("FlagsSet", sent(SendOutcome::Taken)), 2, "legacy ones are not told of flags");
        assert_eq!(over("MessageNew", Step::Dropped { reason: Reason::Unheard }), 3);
    }
}
