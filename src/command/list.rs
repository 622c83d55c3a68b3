//! `ocbus list`: who listens for a user, or who is there at all.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use anstyle::Style;
use clap::Args;
use ocbus::resolver::{Cn, Listeners};
use serde::Serialize;

use super::failure::Failure;
use super::list_all::enumerate;
use super::output::{self, BAD, DIM, STRONG, UNSURE, escape, paint};
use super::probing::{Entry, Reach, left_ms, look_up, reach};
use super::{Global, each_once};

/// Endpoints of which it is remembered whether anybody is there. Many users share one, and a silent one costs a
/// whole time-out.
const KNOWN: usize = 4096;

const HELP: &str = "\
Examples:
  ocbus list bob
  ocbus list --check bob alice@example.org
  ocbus list --json bob | jq -r .url
  ocbus list --summary
  ocbus list --stale --check
  ocbus list --endpoint tcp://10.0.0.7:7700

Without a user all registrations are listed, as every memcached of the configuration enumerates them (lru_crawler
metadump): in no order, in batches. It is no snapshot: who registers or leaves meanwhile may be among them or not.
A memcached enumerates for one at a time.
--timeout is then for each step, the whole takes as long as it takes. With users or without, a server that fails makes
the exit status 1; those of the others are listed all the same.

LEASE is what is left of a native endpoint's registration, in seconds; its subscriber renews it at a third.
OpenChange v1 (legacy) endpoints never expire. MISSED counts events that publishers could not deliver there.
--check connects to every endpoint, all at once, within --timeout:
  reachable    a socket of the right kind is there
  refused      nobody is there any more; `ocbus flush` removes it
  silent       no answer: a firewall, a hung process, or a machine that is gone
  not such an endpoint (JSON: stranger)   another program has the port now; `ocbus flush` removes it

With --json each endpoint is one object: user, kind (native, legacy), url, expired, lease_s, missed, subscriber,
legacy_twin (the same subscriber's legacy endpoint: publishers leave it out), check, fault. A record that cannot be
read is an object with user, malformed (its key) and reason; the filters --endpoint and --stale pass it over.
With --summary it is one object: users, native, legacy (registrations of each kind), endpoints (different URLs),
stale, malformed.";

/// Shows the endpoints that are registered for users, or without a user all that are registered.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(super) struct List {
    /// Whose endpoints; nobody named: everybody's.
    #[arg(value_name = "USER")]
    users: Vec<Cn>,
    /// Try whether anybody is there.
    #[arg(long)]
    check: bool,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
    /// Only this endpoint, as it stands in the records.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Only native endpoints.
    #[arg(long, conflicts_with = "legacy")]
    native: bool,
    /// Only OpenChange v1 endpoints.
    #[arg(long)]
    legacy: bool,
    /// Only leases that have ended; with --check also endpoints that refuse, or whose port is another program's.
    #[arg(long)]
    stale: bool,
    /// Print only how many there are.
    #[arg(long)]
    summary: bool,
}

#[derive(Serialize)]
struct EntryJson<'a> {
    user: &'a str,
    kind: &'static str,
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expired: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriber: Option<uuid::Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    legacy_twin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct MalformedJson<'a> {
    pub(super) user: &'a str,
    pub(super) malformed: &'a str,
    pub(super) reason: &'a str,
}

#[derive(Debug, Default, Serialize)]
struct Summary {
    users: u64,
    native: u64,
    legacy: u64,
    endpoints: usize,
    stale: u64,
    malformed: u64,
}

impl List {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let resolver = global.resolver().await?;
        let all = self.users.is_empty();
        let users = each_once(&self.users);
        let mut report = Report::new(self, global.timeout());
        if all {
            return enumerate(&global.config()?, &resolver, report).await;
        }
        let (found, unserved) = look_up(&resolver, &users).await;
        // Of nothing but failures there is nothing to say: no "nobody is registered".
        if !found.is_empty() {
            report.add(&found).await?;
            report.end()?;
        }
        unserved.tell()
    }

    /// Whether it is to be shown, whatever is found where it points.
    fn wants(&self, entry: &Entry) -> bool {
        let native = matches!(entry, Entry::Native { .. });
        self.wants_kind(native) && self.endpoint.as_deref().is_none_or(|url| url == entry.url())
    }

    fn wants_malformed(&self, cn: &Cn, key: &str) -> bool {
        self.wants_kind(key == cn.lease_key()) && self.endpoint.is_none() && !self.stale
    }

    fn wants_kind(&self, native: bool) -> bool {
        if native { !self.legacy } else { !self.native }
    }
}

type Row = Vec<(Style, String)>;

/// What is printed, in as many batches as there are. Nothing that it remembers grows with their number, but for
/// the hashes of URLs by which a summary tells how many there are.
pub(super) struct Report {
    list: List,
    limit: Duration,
    known: HashMap<(&'static str, String), Reach>,
    summary: Summary,
    urls: HashSet<u64>,
    hasher: RandomState,
    widths: Vec<usize>,
}

impl Report {
    fn new(list: List, limit: Duration) -> Report {
        Report {
            list,
            limit,
            known: HashMap::new(),
            summary: Summary::default(),
            urls: HashSet::new(),
            hasher: RandomState::new(),
            widths: Vec::new(),
        }
    }

    /// The time limit of a step.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether nothing is printed before the end.
    pub(super) fn is_summary(&self) -> bool {
        self.list.summary
    }

    /// Prints what is wanted of these users, or counts it.
    pub(super) async fn add(&mut self, users: &[(Cn, Listeners)]) -> Result<(), Failure> {
        let wanted = |listeners| {
            let mut entries = Entry::all(listeners);
            entries.retain(|entry| self.list.wants(entry));
            entries
        };
        let mut found: Vec<(&Cn, &Listeners, Vec<Entry>)> =
            users.iter().map(|(cn, listeners)| (cn, listeners, wanted(listeners))).collect();
        if self.list.check {
            self.check(found.iter().flat_map(|(.., entries)| entries)).await;
        }
        for (.., entries) in &mut found {
            entries.retain(|entry| !self.list.stale || self.is_stale(entry));
        }
        let mut lines = Vec::new();
        let mut rows = Vec::new();
        for (cn, listeners, entries) in &found {
            self.count(cn, listeners, entries);
            match (self.list.summary, self.list.json) {
                (true, _) => {}
                (false, true) => self.objects(cn, listeners, entries, &mut lines)?,
                (false, false) => self.rows(cn, listeners, entries, &mut rows),
            }
        }
        self.align(&rows, &mut lines);
        match lines.is_empty() {
            true => Ok(()),
            // One write for them all: there may be many.
            false => output::line(&lines.join("\n")),
        }
    }

    /// Prints the counts, if they are wanted, or that there is nothing.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        self.summary.endpoints = self.urls.len();
        let Summary { users, native, legacy, endpoints, stale, malformed } = self.summary;
        match (self.list.summary, self.list.json) {
            (true, true) => output::json(&self.summary),
            (true, false) => output::line(&format!(
                "users      {users}\nnative     {native}\nlegacy     {legacy}\nendpoints  {endpoints}\n\
                 stale      {stale}\nmalformed  {malformed}"
            )),
            (false, false) if self.widths.is_empty() => {
                output::line(&paint(DIM, self.nothing(&Listeners::default())))
            }
            (false, _) => Ok(()),
        }
    }

    /// Tries the endpoints of which it is not known whether anybody is there.
    async fn check<'a>(&mut self, entries: impl Iterator<Item = &'a Entry> + Clone) {
        if self.known.len() > KNOWN {
            self.known.clear();
        }
        let key = |entry: &Entry| (entry.kind(), entry.url().to_owned());
        let unknown: Vec<&Entry> = entries.filter(|entry| !self.known.contains_key(&key(entry))).collect();
        let reached = reach(unknown.iter().copied(), self.limit).await;
        for entry in unknown {
            if let Some(reach) = reached.get(entry) {
                self.known.insert(key(entry), reach.clone());
            }
        }
    }

    fn reach(&self, entry: &Entry) -> Option<&Reach> {
        match self.list.check {
            true => self.known.get(&(entry.kind(), entry.url().to_owned())),
            false => None,
        }
    }

    fn is_stale(&self, entry: &Entry) -> bool {
        matches!(entry, Entry::Native { expired: true, .. })
            || matches!(self.reach(entry), Some(Reach::Refused | Reach::Stranger(_)))
    }

    fn count(&mut self, cn: &Cn, listeners: &Listeners, entries: &[Entry]) {
        let malformed =
            listeners.malformed.iter().filter(|one| self.list.wants_malformed(cn, &one.key)).count();
        for entry in entries {
            match entry {
                Entry::Native { .. } => self.summary.native += 1,
                Entry::Legacy(_) => self.summary.legacy += 1,
            }
            self.summary.stale += u64::from(self.is_stale(entry));
            if self.list.summary {
                self.urls.insert(self.hasher.hash_one(entry.url()));
            }
        }
        self.summary.users += u64::from(!entries.is_empty() || malformed > 0);
        self.summary.malformed += u64::try_from(malformed).unwrap_or(u64::MAX);
    }

    fn objects(
        &self,
        cn: &Cn,
        listeners: &Listeners,
        entries: &[Entry],
        lines: &mut Vec<String>,
    ) -> Result<(), Failure> {
        let user = cn.as_str();
        for entry in entries {
            lines.push(serde_json::to_string(&EntryJson::new(user, entry, self.reach(entry)))?);
        }
        for one in listeners.malformed.iter().filter(|one| self.list.wants_malformed(cn, &one.key)) {
            let object = MalformedJson { user, malformed: &one.key, reason: &one.why };
            lines.push(serde_json::to_string(&object)?);
        }
        Ok(())
    }

    fn rows(&self, cn: &Cn, listeners: &Listeners, entries: &[Entry], rows: &mut Vec<Row>) {
        let plain = Style::new();
        let user = || (STRONG, escape(cn.as_str()));
        let before = rows.len();
        for entry in entries {
            let (lease, missed) = match entry {
                Entry::Native { lease, expired: true } => {
                    ((BAD, "expired".to_owned()), lease.missed.to_string())
                }
                Entry::Native { lease, .. } => {
                    ((plain, format!("{} s", left_ms(lease).div_ceil(1000))), lease.missed.to_string())
                }
                Entry::Legacy(_) => ((plain, "never expires".to_owned()), "-".to_owned()),
            };
            let missed = (if missed == "0" || missed == "-" { plain } else { UNSURE }, missed);
            let check = self.reach(entry).map(|reach| (reach.style(), escape(reach.words())));
            let kind = (plain, entry.kind().to_owned());
            rows.push(
                [user(), kind, (plain, escape(entry.url())), lease, missed]
                    .into_iter()
                    .chain(check)
                    .collect(),
            );
        }
        for one in listeners.malformed.iter().filter(|one| self.list.wants_malformed(cn, &one.key)) {
            let why = format!("{}: malformed: {}", one.key, one.why);
            rows.push(vec![user(), (BAD, escape(&why))]);
        }
        // Of all users, those that the filters leave nothing of are none of the answer.
        if rows.len() == before && !self.list.users.is_empty() {
            rows.push(vec![user(), (DIM, self.nothing(listeners).to_owned())]);
        }
    }

    fn nothing(&self, listeners: &Listeners) -> &'static str {
        let List { endpoint, native, legacy, stale, .. } = &self.list;
        let filtered = endpoint.is_some() || *native || *legacy || *stale;
        let empty = listeners.is_empty() && listeners.expired.is_empty() && listeners.malformed.is_empty();
        match filtered && (self.list.users.is_empty() || !empty) {
            true => "none that matches",
            false => "nobody is registered",
        }
    }

    /// Lines of cells, with the heading above the first. A column is as wide as its widest cell up to now: what
    /// is printed cannot be made wider.
    fn align(&mut self, rows: &[Row], lines: &mut Vec<String>) {
        if rows.is_empty() {
            return;
        }
        let mut heading = Vec::new();
        if self.widths.is_empty() {
            let check = self.list.check.then_some("CHECK");
            let heads = ["USER", "KIND", "URL", "LEASE", "MISSED"].into_iter().chain(check);
            heading.push(heads.map(|head| (DIM, head.to_owned())).collect::<Row>());
        }
        for row in heading.iter().chain(rows) {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            // The last cell of a line needs no room, and may be a remark that is longer than its column.
            let cells = row.iter().take(row.len().saturating_sub(1));
            for (width, (_, cell)) in self.widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in heading.iter().chain(rows) {
            let mut text = String::new();
            for (at, ((style, cell), width)) in row.iter().zip(&self.widths).enumerate() {
                text.push_str(&paint(*style, cell));
                if at + 1 < row.len() {
                    text.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
                }
            }
            lines.push(text);
        }
    }
}

impl<'a> EntryJson<'a> {
    fn new(user: &'a str, entry: &'a Entry, reach: Option<&'a Reach>) -> EntryJson<'a> {
        let fault = match reach {
            Some(Reach::Stranger(what) | Reach::Fault(what)) => Some(what.as_str()),
            _ => None,
        };
        let check = reach.map(Reach::word);
        let (kind, url) = (entry.kind(), entry.url());
        match entry {
            Entry::Native { lease, expired } => EntryJson {
                user,
                kind,
                url,
                expired: Some(*expired),
                lease_s: Some(left_ms(lease).div_ceil(1000)),
                missed: Some(lease.missed),
                subscriber: Some(lease.subscriber),
                legacy_twin: lease.legacy.as_deref(),
                check,
                fault,
            },
            Entry::Legacy(_) => EntryJson {
                user,
                kind,
                url,
                expired: None,
                lease_s: None,
                missed: None,
                subscriber: None,
                legacy_twin: None,
                check,
                fault,
            },
        }
    }
}
