//! Seeing it work: `/metrics` for Prometheus, a page at `/`, and what `ocbus trace` follows.
//!
//! * `recorder`: the last events, the endpoints and the faults, from the outbox's traces; `rates`: how fast;
//! * `registered`: who is registered, counted now and then;
//! * `view`: all that the page shows; `html`: how it shows it (with `../page/`);
//! * `streams`: server-sent events, of the page and of traces; `metrics`: the same numbers for Prometheus.
//!
//! No subject, sender or other content of a mail comes here: traces have none.

mod escape;
mod html;
mod metrics;
mod rates;
mod recorder;
mod registered;
mod streams;
mod view;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::http::{self, Gateway, Health, Reach};
use crate::handover::Tally;
use crate::now_us;
use crate::registration::Registrar;
use rates::Rates;
use recorder::Recorder;
use registered::Registered;
use view::View;

/// How often numbers are sampled, and the resolver is asked whether it is there.
const SAMPLE: Duration = Duration::from_secs(1);
/// How long traces wait to be taken in together: one wake for each would be one for each step of each event.
const RECORD: Duration = Duration::from_millis(20);
/// How long an answer waits for a new count of who is registered, before it has the last one.
const SCRAPE_PATIENCE: Duration = Duration::from_secs(2);
const PAGE_PATIENCE: Duration = Duration::from_millis(300);

/// What the routes share. Clones are the same.
#[derive(Clone)]
pub struct Status(Arc<Inner>);

struct Inner {
    gateway: Gateway,
    handover: Option<Tally>,
    started_us: u64,
    seen: Mutex<Seen>,
    registered: Registered,
    streams: AtomicU64,
    stop: watch::Receiver<bool>,
}

/// What has been seen since the start.
struct Seen {
    recorder: Recorder,
    rates: Rates,
    health: Health,
    /// Since when it is as it is; microseconds since the Unix epoch.
    health_since_us: u64,
}

impl Status {
    /// Watches a gateway's outbox from now on, until `stop` says so. Within a tokio runtime.
    pub fn start(gateway: &Gateway, handover: Option<Tally>, stop: watch::Receiver<bool>) -> Status {
        let now = now_us();
        let seen = Seen {
            recorder: Recorder::default(),
            rates: Rates::default(),
            health: Health { resolver: Reach::All, full: false },
            health_since_us: now,
        };
        let status = Status(Arc::new(Inner {
            gateway: gateway.clone(),
            handover,
            started_us: now,
            seen: Mutex::new(seen),
            registered: Registered::default(),
            streams: AtomicU64::new(0),
            stop,
        }));
        tokio::spawn(status.clone().record());
        tokio::spawn(status.clone().sample());
        status
    }

    /// The routes, for any router's state. The gateway puts its credentials in front.
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        Router::new()
            .route("/", get(page))
            .route("/events", get(streams::page))
            .route("/v1/traces", get(streams::traces))
            .route("/metrics", get(scrape))
            .with_state(self.clone())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what becomes of events.
    async fn record(self) {
        let mut traces = self.0.gateway.outbox().traces();
        let mut stop = self.0.stop.clone();
        loop {
            let trace = tokio::select! {
                trace = traces.recv() => trace,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            {
                let recorder = &mut self.seen().recorder;
                match trace {
                    Ok(trace) => recorder.add(&trace),
                    Err(RecvError::Lagged(missed)) => recorder.miss(missed),
                    Err(RecvError::Closed) => return,
                }
                loop {
                    match traces.try_recv() {
                        Ok(trace) => recorder.add(&trace),
                        Err(TryRecvError::Lagged(missed)) => recorder.miss(missed),
                        Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                    }
                }
            }
            tokio::time::sleep(RECORD).await;
        }
    }

    /// Takes in how much there is, and whether all is well.
    async fn sample(self) {
        let mut ticks = interval(SAMPLE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = self.0.stop.clone();
        self.0.registered.refresh(self.0.gateway.resolver());
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let health = http::look(&self.0.gateway).await;
            let statistics = self.0.gateway.outbox().statistics();
            let mut seen = self.seen();
            seen.rates.add(tokio::time::Instant::now().into_std(), &statistics);
            if seen.health != health {
                seen.health = health;
                seen.health_since_us = now_us();
            }
        }
    }

    /// All that there is to be shown.
    fn view(&self) -> View {
        let gateway = &self.0.gateway;
        self.0.registered.refresh(gateway.resolver());
        let statistics = gateway.outbox().statistics();
        let http = gateway.statistics();
        let registered = self.0.registered.last();
        let limits = gateway.settings();
        // Not under the lock on which traces wait.
        let registrar = gateway.registrar().map(Registrar::statistics);
        let seen = self.seen();
        View {
            started_us: self.0.started_us,
            health: seen.health,
            health_since_us: seen.health_since_us,
            rates: seen.rates.now(&statistics),
            events: seen.recorder.events(),
            endpoints: seen.recorder.endpoints(),
            faults: seen.recorder.faults(),
            missed: seen.recorder.missed(),
            max_octets: limits.settings.outbox.max_octets.count() as u64,
            statistics,
            http,
            registered,
            registrar,
        }
    }

    /// One more stream, unless there are as many as there may be.
    fn enter(&self) -> Option<Entered> {
        let most = self.0.gateway.settings().settings.http.max_streams.get();
        let enter = |streams: u64| (streams < most).then_some(streams + 1);
        self.0.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).ok()?;
        Some(Entered(self.clone()))
    }
}

/// An open stream.
struct Entered(Status);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn page(State(status): State<Status>) -> Response {
    status.0.registered.fresh(status.0.gateway.resolver(), PAGE_PATIENCE).await;
    html::page(&status.view())
}

async fn scrape(State(status): State<Status>) -> Response {
    let inner = &status.0;
    let registered = inner.registered.fresh(inner.gateway.resolver(), SCRAPE_PATIENCE).await;
    let health = status.seen().health;
    metrics::answer(metrics::Snapshot {
        outbox: inner.gateway.outbox().statistics(),
        http: inner.gateway.statistics(),
        registered,
        registrar: inner.gateway.registrar().map(Registrar::statistics),
        handover: inner.handover.as_ref().map(Tally::statistics),
        health,
        started_us: inner.started_us,
        streams: inner.streams.load(Ordering::Relaxed),
    })
}
