//! `/metrics`, read by the strict parser of Prometheus' own client for Python.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use ocbus::sandbox::{DovecotOptions, Sandbox, free_port};
use ocbus::subscriber::SubscriberConfig;

use super::House;
use super::client::{ask, request};
use super::support::{legacy_only, listen, until};

/// Prints `name{label=value,...} value` of each sample; fails on anything that OpenMetrics does not allow.
const PARSER: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.documentation, family
    for sample in family.samples:
        labels = ','.join(f'{name}={sample.labels[name]}' for name in sorted(sample.labels))
        print(family.name, f'{sample.name}{{{labels}}}', sample.value)
";

/// Samples by name and labels; and the names of the families.
struct Scrape {
    samples: BTreeMap<String, f64>,
    families: BTreeSet<String>,
}

impl Scrape {
    fn of(house: &House) -> Scrape {
        let answer = house.get("/metrics");
        assert_eq!(answer.status, 200);
        let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert!(answer.head.to_lowercase().contains(kind), "{}", answer.head);
        assert!(!answer.body.contains("bob") && !answer.body.contains("tcp://"), "{}", answer.body);
        let mut python = Command::new("/usr/bin/python3");
        let python = python.args(["-c", PARSER]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut python = python.spawn().expect("Debian's python3, of scripts/setup test");
        python.stdin.take().unwrap().write_all(answer.body.as_bytes()).unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "not what Prometheus reads (or scripts/setup test was not run):\n{}",
            answer.body
        );
        let text = String::from_utf8(output.stdout).unwrap();
        let mut scrape = Scrape { samples: BTreeMap::new(), families: BTreeSet::new() };
        for line in text.lines() {
            let (family, rest) = line.split_once(' ').unwrap();
            let (sample, value) = rest.rsplit_once(' ').unwrap();
            scrape.families.insert(family.to_owned());
            assert!(scrape.samples.insert(sample.to_owned(), value.parse().unwrap()).is_none(), "{line}");
        }
        scrape
    }

    #[track_caller]
    fn get(&self, sample: &str) -> f64 {
        *self.samples.get(sample).unwrap_or_else(|| panic!("{sample}: {:#?}", self.samples))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn known_traffic_is_counted_right() {
    let house = House::with("outbox.grace_s = 0");
    let native = listen(&house.memcached, SubscriberConfig::default(), "bob").await;
    let legacy = listen(&house.memcached, legacy_only(), "bob").await;
    for uid in 1..=3 {
        house.notify("bob", uid);
    }
    house.notify("nobody", 1);
    let flags =
        r#"{"events":[{"user":"bob","kind":"FlagsSet","mailbox":"INBOX","uids":"1","flags":["\\Seen"]}]}"#;
    assert_eq!(house.post(flags).status, 200);
    assert_eq!(house.post("{").status, 400);
    let port = house.daemon.port();
    assert_eq!(ask(port, &request("POST", "/v1/events", "", b"{}")).status, 401);
    assert_eq!(ask(port, &request("GET", "/bob", "", b"")).status, 404);
    let mut seen = None;
    until("everything has ended", || {
        let scrape = Scrape::of(&house);
        let ended = scrape.get("ocbus_events_delivered_total{}")
            + scrape.get("ocbus_events_dropped_total{reason=unheard}");
        // Who is registered is counted now and then: perhaps before the second was.
        let counted = |way: &str| scrape.samples.get(&format!("ocbus_registrations{{endpoint={way}}}"));
        let ways = [counted("native"), counted("legacy")];
        // The page asks the resolver each second: an answer may have been late.
        let well = scrape.get("ocbus_healthy{part=resolver}") > 0.0;
        let done = ended >= 5.0 && well && ways.iter().all(|way| way.is_some_and(|count| *count >= 1.0));
        seen = Some(scrape);
        done
    });
    // What was waited for and what is looked at are one scrape.
    let scrape = seen.unwrap();
    let wanted = [
        ("ocbus_events_accepted_total{kind=MessageNew,source=ox}", 4.0),
        ("ocbus_events_accepted_total{kind=FlagsSet,source=http}", 1.0),
        ("ocbus_events_sent_total{endpoint=native,kind=MessageNew}", 3.0),
        ("ocbus_events_sent_total{endpoint=native,kind=FlagsSet}", 1.0),
        ("ocbus_events_sent_total{endpoint=legacy,kind=MessageNew}", 3.0),
        ("ocbus_events_delivered_total{}", 4.0),
        ("ocbus_events_dropped_total{reason=unheard}", 1.0),
        ("ocbus_events_dropped_total{reason=expired}", 0.0),
        ("ocbus_events_refused_total{source=ox}", 0.0),
        ("ocbus_delivery_latency_seconds_count{}", 4.0),
        ("ocbus_delivery_latency_seconds_bucket{le=+Inf}", 4.0),
        ("ocbus_sends_total{outcome=failed}", 0.0),
        ("ocbus_lookups_total{outcome=failed}", 0.0),
        ("ocbus_outbox_events{}", 0.0),
        ("ocbus_outbox_bytes{}", 0.0),
        ("ocbus_outbox_users{}", 0.0),
        ("ocbus_resyncs_total{}", 0.0),
        ("ocbus_http_requests_total{path=/preliminary/http-notify/v1/notify,status=200}", 4.0),
        ("ocbus_http_requests_total{path=/v1/events,status=200}", 1.0),
        ("ocbus_http_requests_total{path=/v1/events,status=400}", 1.0),
        ("ocbus_http_requests_total{path=/v1/events,status=401}", 1.0),
        ("ocbus_http_requests_total{path=other,status=404}", 1.0),
        ("ocbus_http_event_requests_total{outcome=malformed}", 1.0),
        ("ocbus_http_event_requests_total{outcome=unauthorized}", 1.0),
        ("ocbus_http_connections_total{outcome=untrusted}", 0.0),
        ("ocbus_registered_users{}", 1.0),
        ("ocbus_registrations{endpoint=native}", 1.0),
        ("ocbus_registrations{endpoint=legacy}", 1.0),
        ("ocbus_healthy{part=resolver}", 1.0),
        ("ocbus_healthy{part=outbox}", 1.0),
        ("ocbus_resolver_outage{}", 0.0),
        ("ocbus_streams{}", 0.0),
    ];
    for (sample, value) in wanted {
        assert!((scrape.get(sample) - value).abs() < 1e-9, "{sample}: {} for {value}", scrape.get(sample));
    }
    // They may travel together.
    assert!((2.0..=8.0).contains(&scrape.get("ocbus_sends_total{outcome=taken}")));
    let lookups = scrape.get("ocbus_lookups_total{outcome=answered}");
    assert!((scrape.get("ocbus_lookup_duration_seconds_count{}") - lookups).abs() < 1e-9 && lookups >= 2.0);
    let seconds = scrape.get("ocbus_delivery_latency_seconds_sum{}");
    assert!(seconds > 0.0 && seconds < 40.0, "{seconds}");
    drop((native, legacy));
}

#[test]
fn each_metric_is_described_and_each_description_is_of_a_metric() {
    let house = House::with(
        "registration.by = 'doveadm'\nregistration.endpoints = ['http://127.0.0.1:1']\nregistration.api_key = 'x'",
    );
    until("users are counted", || house.get("/metrics").body.contains("ocbus_registered_users "));
    house.notify("bob", 1);
    let scrape = Scrape::of(&house);
    let page = include_str!("../../docs/operations.md");
    let documented: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `ocbus_")?.split(['`', '{']).next())
        .map(|name| format!("ocbus_{}", name.trim_end_matches("_total").trim_end_matches("_info")))
        .collect();
    let missing: Vec<&String> = scrape.families.difference(&documented).collect();
    assert!(missing.is_empty(), "not in docs/operations.md: {missing:?}");
    let gone: Vec<&String> =
        documented.difference(&scrape.families).filter(|name| *name != "ocbus_events_sent").collect();
    assert!(gone.is_empty(), "no such metric: {gone:?}");
}

#[test]
fn registrations_with_dovecot_are_counted_by_outcome() {
    let sandbox = Sandbox::new().unwrap();
    let options = DovecotOptions::new(&["notify"]).doveadm_http("s3cr3t", "dovepass").metadata();
    let dovecot = sandbox.dovecot(options.users(&[("bob", "b"), ("carol", "c")])).unwrap();
    let house = House::with(&format!(
        "registration.by = 'doveadm'
registration.endpoints = ['http://127.0.0.1:{}', 'http://127.0.0.1:{}']
registration.api_key = 's3cr3t'
registration.permanent = ['bob', 'carol', 'nobody']",
        free_port().unwrap(),
        dovecot.doveadm_port()
    ));
    let mut seen = None;
    until("both are set, and the third is not known", || {
        let scrape = Scrape::of(&house);
        let done = scrape.get("ocbus_registrar_registrations_total{outcome=set}") >= 2.0
            && scrape.get("ocbus_registrar_registrations_total{outcome=unknown-user}") >= 1.0
            && scrape.get("ocbus_registrar_users{state=registered}") >= 2.0;
        seen = Some(scrape);
        done
    });
    let scrape = seen.unwrap();
    let wanted = [
        ("ocbus_registrar_registrations_total{outcome=set}", 2.0),
        ("ocbus_registrar_registrations_total{outcome=unset}", 0.0),
        ("ocbus_registrar_registrations_total{outcome=lost}", 0.0),
        ("ocbus_registrar_users{state=registered}", 2.0),
        ("ocbus_registrar_users{state=failing}", 1.0),
        ("ocbus_registrar_users{state=elsewhere}", 0.0),
        ("ocbus_registrar_permanent_users{}", 2.0),
        ("ocbus_registrar_endpoints{state=used}", 1.0),
        ("ocbus_registrar_endpoints{state=aside}", 1.0),
        ("ocbus_registrar_outages_total{}", 0.0),
    ];
    for (sample, value) in wanted {
        assert!((scrape.get(sample) - value).abs() < 1e-9, "{sample}: {} for {value}", scrape.get(sample));
    }
    let page = house.get("/").body;
    assert!(page.contains("<dt>Registered with Dovecot</dt><dd class=\"figure\">2</dd>"), "{page}");
    assert!(page.contains("2 permanent · 1 failing · 0 by other daemons · 1 of 2 servers aside"), "{page}");
}

#[test]
fn an_outage_is_seen() {
    let mut house = House::new();
    assert!((Scrape::of(&house).get("ocbus_healthy{part=resolver}") - 1.0).abs() < 1e-9);
    house.memcached.kill();
    until("the outage is noticed", || Scrape::of(&house).get("ocbus_healthy{part=resolver}") < 0.5);
    let page = house.get("/").body;
    assert!(page.contains("Resolver out of reach: events are held"), "{page}");
}
