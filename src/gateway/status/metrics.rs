//! `/metrics`: the counters in OpenMetrics' text, as Prometheus reads it. `docs/operations.md` says what each is.
//!
//! Labels are of bounded sets: never a user, never an endpoint's URL.

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::registered::Found;
use crate::gateway::http::{Count, Health, HttpStatistics, Reach, Refusal};
use crate::outbox::{COUNTED_KINDS, LATENCY_BOUNDS_US, Reason, SendOutcome, Source, Statistics};
use crate::registration::RegistrarStatistics;

const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is told by one scrape.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) outbox: Statistics,
    pub(super) http: HttpStatistics,
    pub(super) registered: Arc<Found>,
    /// `None`: nobody is registered with Dovecot.
    pub(super) registrar: Option<RegistrarStatistics>,
    /// `None`: there is no hand-over socket.
    pub(super) handover: Option<crate::handover::Statistics>,
    pub(super) health: Health,
    pub(super) started_us: u64,
    pub(super) streams: u64,
}

/// The answer to a scrape.
pub(super) fn answer(snapshot: Snapshot) -> Response {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    // Writing to a string does not fail; a collector's error would be one of ours.
    if text::encode(&mut text, &registry).is_err() {
        return Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written")
            .into_response();
    }
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TYPE));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Writes families, one after the other.
struct Writer<'a>(DescriptorEncoder<'a>);

type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

impl Writer<'_> {
    /// A counter; `_total` is put behind its name.
    fn counters<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'a, N>, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            match N {
                0 => family.encode_counter::<NoLabelSet, u64, u64>(&value, None)?,
                _ => family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&value, None)?,
            }
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters(name, help, [([], value)])
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: f64) -> fmt::Result {
        self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'a, N>, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_gauge(&float(value))?;
        }
        Ok(())
    }

    /// Of [`LATENCY_BOUNDS_US`], in seconds.
    fn histogram(&mut self, name: &str, help: &str, counts: &[u64], sum_us: u64) -> fmt::Result {
        let bounds = LATENCY_BOUNDS_US.iter().map(|us| seconds(*us)).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
        let count = counts.iter().sum();
        let mut family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        family.encode_histogram::<NoLabelSet>(seconds(sum_us), count, &buckets, None)
    }
}

// Above 2^53 a float does not tell neighbours apart, which no gauge wants.
#[allow(clippy::cast_precision_loss)]
fn float(value: u64) -> f64 {
    value as f64
}

fn seconds(us: u64) -> f64 {
    float(us) / 1e6
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Writer(encoder);
        self.process(&mut to)?;
        self.events(&mut to)?;
        self.outbox(&mut to)?;
        if let Some(registrar) = &self.registrar {
            Snapshot::registrar(registrar, &mut to)?;
        }
        self.http(&mut to)
    }
}

impl Snapshot {
    fn process(&self, to: &mut Writer<'_>) -> fmt::Result {
        let labels =
            [("version", env!("CARGO_PKG_VERSION")), ("rust_version", env!("CARGO_PKG_RUST_VERSION"))];
        to.0.encode_descriptor("ocbus_build", "The program", None, MetricType::Info)?.encode_info(&labels)?;
        let started = seconds(self.started_us);
        to.gauge("ocbus_start_time", "When it started, since the Unix epoch", Some(&Unit::Seconds), started)?;
        to.gauges(
            "ocbus_healthy",
            "1: all is well; as /healthz tells it",
            [
                ([("part", "resolver")], u64::from(self.health.resolver == Reach::All)),
                ([("part", "outbox")], u64::from(!self.health.full)),
            ],
        )?;
        to.gauge("ocbus_streams", "Status pages and traces being followed", None, float(self.streams))?;
        let found = &self.registered;
        if let Some(at_us) = found.at_us {
            to.gauge("ocbus_registered_users", "Users with an endpoint", None, float(found.users))?;
            to.gauges(
                "ocbus_registrations",
                "Endpoints of users",
                [([("endpoint", "native")], found.native), ([("endpoint", "legacy")], found.legacy)],
            )?;
            let at = seconds(at_us);
            to.gauge("ocbus_registered_time", "When these were counted", Some(&Unit::Seconds), at)?;
        }
        Ok(())
    }

    fn events(&self, to: &mut Writer<'_>) -> fmt::Result {
        let outbox = &self.outbox;
        let by_kind = |counts: &[u64; COUNTED_KINDS.len()]| -> Vec<(&'static str, u64)> {
            let seen = COUNTED_KINDS.into_iter().zip(*counts);
            seen.filter(|(_, count)| *count > 0).collect()
        };
        let sources = Source::ALL.iter().zip(&outbox.accepted_kinds);
        let accepted = sources.flat_map(|(source, counts)| {
            let label = |(kind, count)| ([("source", source.name()), ("kind", kind)], count);
            by_kind(counts).into_iter().map(label)
        });
        to.counters("ocbus_events_accepted", "Events taken, by who gave them and by kind", accepted)?;
        let refused =
            Source::ALL.iter().zip(outbox.refused).map(|(source, n)| ([("source", source.name())], n));
        to.counters("ocbus_events_refused", "Events turned away: full or stopping", refused)?;
        let skipped = Count::ALL.iter().position(|count| *count == Count::Skipped);
        let skipped = skipped.and_then(|at| self.http.counts.get(at)).copied().unwrap_or(0);
        let handed_over = self.handover.map(|handover| ([("source", "hand-over")], handover.malformed));
        to.counters(
            "ocbus_events_skipped",
            "Events that made no sense, beside others; of the hand-over also whole batches",
            [([("source", "http")], skipped)].into_iter().chain(handed_over),
        )?;
        let batches = self.handover.map_or(0, |handover| handover.batches);
        to.counter("ocbus_handover_batches", "Batches handed over that could be read", batches)?;
        let ways = [("native", &outbox.sent_native), ("legacy", &outbox.sent_legacy)];
        let sent = ways.into_iter().flat_map(|(way, counts)| {
            by_kind(counts).into_iter().map(move |(kind, count)| ([("endpoint", way), ("kind", kind)], count))
        });
        to.counters("ocbus_events_sent", "Events that endpoints took, once for each endpoint", sent)?;
        to.counter("ocbus_events_delivered", "Events that everybody registered has", outbox.delivered)?;
        let reasons = Reason::ALL.iter().zip(outbox.dropped);
        let dropped = reasons.map(|(reason, count)| ([("reason", reason.name())], count));
        to.counters("ocbus_events_dropped", "Events that did not reach everybody, by reason", dropped)?;
        to.counter("ocbus_events_left_behind", "Events of a daemon that was killed", outbox.left_behind)?;
        to.counter("ocbus_legacy_lost", "Mails lost at legacy endpoints", outbox.legacy_lost)?;
        to.counter("ocbus_resyncs", "Resyncs made in the place of dropped events", outbox.resyncs)?;
        to.histogram(
            "ocbus_delivery_latency",
            "From an event's own time to a native endpoint's acknowledgement",
            &outbox.latency,
            outbox.latency_sum_us,
        )
    }

    fn outbox(&self, to: &mut Writer<'_>) -> fmt::Result {
        let outbox = &self.outbox;
        to.counters(
            "ocbus_lookups",
            "Look-ups at the resolver",
            [([("outcome", "answered")], outbox.lookups), ([("outcome", "failed")], outbox.lookup_failures)],
        )?;
        to.histogram(
            "ocbus_lookup_duration",
            "How long look-ups took",
            &outbox.lookup_time,
            outbox.lookup_time_sum_us,
        )?;
        let outcomes = SendOutcome::ALL.iter().zip(outbox.sends);
        let sends = outcomes.map(|(outcome, count)| ([("outcome", outcome.name())], count));
        to.counters("ocbus_sends", "Sends to endpoints", sends)?;
        to.counter("ocbus_send_retries", "Sends made again after one that failed", outbox.retries)?;
        to.gauge("ocbus_outbox_events", "Events held", None, float(outbox.held_events))?;
        to.gauge("ocbus_outbox", "What they take", Some(&Unit::Bytes), float(outbox.held_octets))?;
        to.gauge("ocbus_outbox_users", "Users who have events waiting", None, float(outbox.waiting_users))?;
        to.gauge("ocbus_lookup_queue", "Users who wait for a look-up", None, float(outbox.lookup_queue))?;
        let outage = float(u64::from(outbox.resolver_outage));
        to.gauge("ocbus_resolver_outage", "1: the resolver is out of reach", None, outage)
    }

    fn registrar(registrar: &RegistrarStatistics, to: &mut Writer<'_>) -> fmt::Result {
        let RegistrarStatistics { registered, failing, elsewhere, .. } = *registrar;
        // Those who come or go, and those who were unregistered by hand.
        let other = registrar.users.saturating_sub(registered + failing + elsewhere);
        let states =
            [("registered", registered), ("failing", failing), ("elsewhere", elsewhere), ("other", other)];
        to.gauges(
            "ocbus_registrar_users",
            "Users to be registered with Dovecot, by how they stand at this daemon",
            states.map(|(state, count)| ([("state", state)], count)),
        )?;
        let permanent = float(registrar.permanent);
        to.gauge(
            "ocbus_registrar_permanent_users",
            "Permanent users among those registered",
            None,
            permanent,
        )?;
        let outcomes = [
            ("set", registrar.set),
            ("unset", registrar.unset),
            ("kept", registrar.kept),
            ("lost", registrar.lost),
            ("unknown-user", registrar.unknown),
            ("failed", registrar.failed),
            ("too-many", registrar.refused),
        ];
        to.counters(
            "ocbus_registrar_registrations",
            "What came of looking at, making and taking back registrations",
            outcomes.map(|(outcome, count)| ([("outcome", outcome)], count)),
        )?;
        to.counter(
            "ocbus_registrar_outages",
            "Times that all of Dovecot's servers failed",
            registrar.outages,
        )?;
        let (all, aside) = (registrar.endpoints, registrar.endpoints_aside);
        let servers = [("used", all.saturating_sub(aside)), ("aside", aside)];
        to.gauges(
            "ocbus_registrar_endpoints",
            "Dovecot's servers, by whether they are asked",
            servers.map(|(state, count)| ([("state", state)], count)),
        )
    }

    fn http(&self, to: &mut Writer<'_>) -> fmt::Result {
        let statuses: Vec<String> =
            self.http.requests.iter().map(|(_, status, _)| status.to_string()).collect();
        let requests = self.http.requests.iter().zip(&statuses);
        let requests = requests.map(|((path, _, count), status)| {
            ([("path", path.as_str()), ("status", status.as_str())], *count)
        });
        to.counters("ocbus_http_requests", "Requests, by path and by the answer's status", requests)?;
        let counts: Vec<(Count, u64)> = Count::ALL.into_iter().zip(self.http.counts).collect();
        let connections = |count: &&(Count, u64)| {
            matches!(count.0, Count::Connections | Count::Untrusted | Count::Crowded | Count::AcceptFailed)
        };
        let outcome = |count: Count| match count {
            Count::Connections => "taken",
            other => other.name(),
        };
        to.counters(
            "ocbus_http_connections",
            "Connections, taken and turned away",
            counts.iter().filter(connections).map(|(count, n)| ([("outcome", outcome(*count))], *n)),
        )?;
        to.counters(
            "ocbus_http_event_requests",
            "What became of requests with events",
            counts
                .iter()
                .filter(|count| !connections(count) && count.0 != Count::Skipped)
                .map(|(c, n)| ([("outcome", c.name())], *n)),
        )?;
        to.gauge("ocbus_http_connections_open", "Connections now", None, float(self.http.open))
    }
}
