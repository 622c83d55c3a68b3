//! `ocbus watch`: be a subscriber, and print what comes.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ocbus::bus::{Filter, Subscription};
use ocbus::resolver::{Cn, Resolver};
use ocbus::subscriber::{ListenError, Subscriber, SubscriberConfig, SubscriberError, TrustedNetworks};
use ocbus::wire::Endpoint;
use ocbus::wire::json::EventJson;
use ocbus::wire::openchange::DosCharset;
use ocbus::{Bus, EventKind, now_us};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::failure::Failure;
use super::{Global, each_once, output, watch_line};

/// How long leaving may take.
const LEAVE: Duration = Duration::from_secs(2);

/// How often a registration that failed is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// Events that may wait for a slow reader of ours; then what waits is lost, and a Resync says so.
const QUEUE: usize = 4096;

const HELP: &str = "\
Examples:
  ocbus watch bob
  ocbus watch --json bob alice@example.org | jq -r .subject
  ocbus watch --count 1 --for 30 bob      wait for one event; status 1 if none comes within 30 s
  ocbus watch --legacy bob                listen as OpenChange 2.x does, for its own Dovecot plugin

Once registered, a line `listening at URL for USER...` comes on standard error. SIGINT and SIGTERM take the
registration back and end with 0. When memcached forgets or comes back, the registration is made again by
itself, and a Resync says that something may have been missed.

With --json each line is one object; fields that an event does not have are left out:
  id                     UUIDv7 of the event
  time, time_us          when it happened: RFC 3339 in UTC; microseconds since 1970
  received_us            when it came here
  user, kind             the cn; the name in RFC 5423 (MessageNew, ...), or Resync
  mailbox, separator     the mailbox as users see it, and its hierarchy separator
  storage_name, list_separator   the same as the storage has it (modified UTF-7)
  uidvalidity, uids, uid   UIDs as an IMAP set (`1:3,7`); `uid` where it is exactly one
  flags, keywords        arrays of strings
  from, subject, message_id, size   of a new message, headers as they stand
  order                  of two changes to a flag, or to the counts, the greater is the later one
  messages, unseen       in the mailbox afterwards
  old_mailbox, old_separator, old_storage_name, old_list_separator, old_uidvalidity, old_uids   where it was before
  backend, name          OpenChange's backend, and its name of the message if it is not `UID.eml`
  reason, missed         of a Resync: why, and how many events are known to be missing (0: unknown)";

/// Registers for users and prints their events, one line for each.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(super) struct Watch {
    /// Whose events: usernames or e-mail addresses, as registered by OpenChange (its cn).
    #[arg(required = true, value_name = "USER")]
    users: Vec<Cn>,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
    /// Listen at an OpenChange v1 endpoint for each user instead of a native one.
    ///
    /// Such events are new mail only, without id, time, sender and subject, and arrive at most once.
    #[arg(long)]
    legacy: bool,
    /// Where to listen: tcp://HOST:PORT (port 0: any free one) or ipc://PATH.
    #[arg(long, value_name = "URL", default_value = "tcp://127.0.0.1:0")]
    bind: Endpoint,
    /// The host that publishers shall connect to, where it is not the one of --bind.
    #[arg(long, value_name = "HOST", value_parser = host)]
    advertise: Option<String>,
    /// How long the registration holds when we are killed, 1 to 86400. (OpenChange v1 endpoints never expire.)
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    lease: u64,
    /// Who may connect, as in 127.0.0.0/8,10.1.2.3.
    #[arg(long, value_name = "LIST", default_value_t = TrustedNetworks::default())]
    trusted_networks: TrustedNetworks,
    /// The charset of OpenChange v1 payloads: smb.conf's `dos charset`.
    #[arg(long, value_name = "NAME", default_value_t = DosCharset::default())]
    charset: DosCharset,
    /// End after this many events. A Resync is printed, not counted.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time: seconds, or with a unit as in 500ms, 5m, 1h. With --count: fail if fewer came.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
}

/// Whoever wants us to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Signals, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::failed(format!("signals: {error}")));
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

impl Watch {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let end = self.duration.map(|duration| Instant::now() + duration);
        // Before anything is registered: nobody may end us without our leaving.
        let mut signals = Signals::new()?;
        let resolver = global.resolver().await?;
        let bus = Bus::new();
        let mut events = bus.subscribe_with_queue(Filter::all(), QUEUE);
        let subscriber = Subscriber::start(self.config(), resolver.clone(), bus).await.map_err(of_setting)?;
        let subscriber = Arc::new(subscriber);
        let users = each_once(&self.users);
        let (mut additions, mut tasks) = (JoinSet::new(), JoinSet::new());
        for cn in users.clone() {
            let subscriber = Arc::clone(&subscriber);
            additions.spawn(async move {
                let added = subscriber.add(&cn).await;
                (cn, added)
            });
        }
        let result = tokio::select! {
            result = self.register(&subscriber, &resolver, users, &mut additions, &mut tasks) => result,
            () = signals.any() => Err(Failure::Closed),
        };
        let result = match result {
            Ok(()) => tokio::select! {
                result = self.print(&mut events, end) => result,
                () = signals.any() => Ok(()),
            },
            failed => failed,
        };
        // They hold the subscriber, and must not register what is being taken back.
        additions.shutdown().await;
        tasks.shutdown().await;
        if let Some(subscriber) = Arc::into_inner(subscriber) {
            subscriber.stop(LEAVE).await;
        }
        result
    }

    fn config(&self) -> SubscriberConfig {
        let bind = Some(self.bind.clone());
        let (bind, legacy_bind) = if self.legacy { (None, bind) } else { (bind, None) };
        SubscriberConfig {
            bind,
            legacy_bind,
            advertise: self.advertise.clone(),
            lease: Duration::from_secs(self.lease),
            trusted_networks: self.trusted_networks.clone(),
            charset: self.charset,
            ..SubscriberConfig::default()
        }
    }

    /// Waits until each user is registered or not; those that are not yet are announced by a task.
    async fn register(
        &self,
        subscriber: &Arc<Subscriber>,
        resolver: &Resolver,
        users: Vec<Cn>,
        additions: &mut JoinSet<(Cn, Result<(), SubscriberError>)>,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), Failure> {
        let mut waiting = Vec::new();
        while let Some(added) = additions.join_next().await {
            match added? {
                (_, Ok(())) => {}
                // The library has warned. It goes on trying.
                (cn, Err(SubscriberError::Resolver(error))) => {
                    tracing::debug!(event = "registration_waits", user = %cn, reason = %error, "not registered yet");
                    waiting.push(cn);
                }
                (cn, Err(error)) => return Err(self.cannot_listen(&cn, error)),
            }
        }
        let held: Vec<(Cn, String)> = users
            .into_iter()
            .filter_map(|cn| {
                let own = if self.legacy {
                    subscriber.legacy_endpoint(&cn)
                } else {
                    subscriber.endpoint().cloned()
                };
                own.map(|endpoint| (cn, endpoint.to_string()))
            })
            .collect();
        let (waiting, registered): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|(cn, _)| waiting.contains(cn));
        announce(&registered);
        if !waiting.is_empty() {
            tasks.spawn(announce_later(resolver.clone(), waiting));
        }
        Ok(())
    }

    fn cannot_listen(&self, cn: &Cn, error: SubscriberError) -> Failure {
        match (&self.bind, error) {
            (Endpoint::Tcp { port, .. }, SubscriberError::Listen(error @ ListenError::Tcp { .. }))
                if self.legacy && *port > 0 && self.users.len() > 1 =>
            {
                Failure::failed(format!(
                    "{cn}: {error}; with --legacy each user needs a port of its own: use port 0"
                ))
            }
            (_, error) => of_setting(error),
        }
    }

    async fn print(&self, events: &mut Subscription, end: Option<Instant>) -> Result<(), Failure> {
        let mut left = self.count;
        loop {
            let event = match end {
                Some(end) => match tokio::time::timeout_at(end, events.recv()).await {
                    Ok(event) => event,
                    Err(_) => return self.missing(left),
                },
                None => events.recv().await,
            };
            let Some(event) = event else { return Ok(()) };
            let received_us = now_us();
            match self.json {
                true => output::json(&EventJson::new(&event, Some(received_us)))?,
                false => {
                    // An OpenChange v1 payload has no time: its event was made here, just now.
                    let latency = (!self.legacy).then(|| watch_line::latency_us(&event, received_us));
                    output::line(&watch_line::line(&event, latency))?;
                }
            }
            if !matches!(event.kind, EventKind::Resync { .. }) {
                left = left.map(|left| left - 1);
            }
            if left == Some(0) {
                return Ok(());
            }
        }
    }

    /// The time is over: a failure if events were counted.
    fn missing(&self, left: Option<u64>) -> Result<(), Failure> {
        match (self.count, left, self.duration) {
            (Some(count), Some(left), Some(duration)) => {
                Err(Failure::failed(format!("{} of {count} events within {duration:?}", count - left)))
            }
            _ => Ok(()),
        }
    }
}

/// A fault in what was set is wrong usage.
fn of_setting(error: SubscriberError) -> Failure {
    match &error {
        SubscriberError::Listen(ListenError::Wildcard { .. } | ListenError::Endpoint(_))
        | SubscriberError::Lease(_)
        | SubscriberError::NoEndpoint => Failure::usage(error),
        _ => error.into(),
    }
}

/// One line for each endpoint, with those who are to be reached there.
fn announce(registered: &[(Cn, String)]) {
    let mut endpoints: Vec<&String> = registered.iter().map(|(_, url)| url).collect();
    endpoints.dedup();
    for endpoint in endpoints {
        let users = registered.iter().filter(|(_, url)| url == endpoint).map(|(cn, _)| cn.as_str());
        output::note(&format!("listening at {endpoint} for {}", users.collect::<Vec<_>>().join(", ")));
    }
}

/// Looks at the records until all stand there.
async fn announce_later(resolver: Resolver, mut waiting: Vec<(Cn, String)>) {
    while !waiting.is_empty() {
        tokio::time::sleep(LOOK).await;
        let mut found = Vec::new();
        for (cn, url) in &waiting {
            // The registrar says what is wrong; here a failure only means: not yet.
            let Ok(listeners) = resolver.lookup(cn).await else { break };
            if listeners.legacy.contains(url) || listeners.native.iter().any(|lease| lease.endpoint == *url) {
                found.push((cn.clone(), url.clone()));
            }
        }
        waiting.retain(|one| !found.contains(one));
        announce(&found);
    }
}

/// A host as it stands in an endpoint.
fn host(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    let url = if bare.contains(':') { format!("tcp://[{bare}]:1") } else { format!("tcp://{bare}:1") };
    match Endpoint::parse(&url) {
        Ok(_) => Ok(bare.to_owned()),
        Err(_) => Err("expected an address or a host name, without a port".to_owned()),
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected more than 0 seconds and at most a year, as in 1.5, 500ms, 5m, 1h".to_owned();
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end).ok_or_else(wrong)?;
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let seconds = f64::from_str(number).map_err(|_| wrong())? * factor;
    match seconds > 0.0 && seconds <= 366.0 * 86_400.0 {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "0", "-1", "s", "1d", "1e999", "nan", "inf", "1 s", "ü"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts() {
        assert_eq!(host("[::1]"), Ok("::1".to_owned()));
        assert_eq!(host("mail.example.org"), Ok("mail.example.org".to_owned()));
        for wrong in ["", "a b", "tcp://h", "h:1", "x\r\ny"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }
}
