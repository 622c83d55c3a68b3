//! `ocbus list`: who listens for a user.

use anstyle::Style;
use clap::Args;
use ocbus::resolver::{Cn, Listeners};
use serde::Serialize;

use super::failure::Failure;
use super::output::{self, BAD, DIM, STRONG, Table, UNSURE, escape};
use super::probing::{Entry, Reach, Reached, left_ms, look_up, reach};
use super::{Global, each_once};

const HELP: &str = "\
Examples:
  ocbus list bob
  ocbus list --check bob alice@example.org
  ocbus list --json bob | jq -r .url

LEASE is what is left of a native endpoint's registration, in seconds; its subscriber renews it at a third.
OpenChange v1 (legacy) endpoints never expire. MISSED counts events that publishers could not deliver there.
--check connects to every endpoint, all at once, within --timeout:
  reachable    a socket of the right kind is there
  refused      nobody is there any more; `ocbus flush` removes it
  silent       no answer: a firewall, a hung process, or a machine that is gone
  not such an endpoint (JSON: stranger)   another program has the port now; `ocbus flush` removes it

With --json each endpoint is one object: user, kind (native, legacy), url, expired, lease_s, missed, subscriber,
legacy_twin (the same subscriber's legacy endpoint: publishers leave it out), check, fault. A record that cannot be
read is an object with user, malformed (its key) and reason.";

/// Shows the endpoints that are registered for users.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(super) struct List {
    /// Whose endpoints: at least one user.
    #[arg(required = true, value_name = "USER")]
    users: Vec<Cn>,
    /// Try whether anybody is there.
    #[arg(long)]
    check: bool,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
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

impl List {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let found = look_up(&global.resolver().await?, &each_once(&self.users)).await?;
        let entries: Vec<(&Cn, &Listeners, Vec<Entry>)> =
            found.iter().map(|(cn, listeners)| (cn, listeners, Entry::all(listeners))).collect();
        let reached = match self.check {
            true => reach(entries.iter().flat_map(|(.., entries)| entries), global.timeout()).await,
            false => Reached::default(),
        };
        match self.json {
            true => print_json(&entries, &reached),
            false => self.print(&entries, &reached),
        }
    }

    fn print(&self, users: &[(&Cn, &Listeners, Vec<Entry>)], reached: &Reached) -> Result<(), Failure> {
        let plain = Style::new();
        let mut table = Table::default();
        let check = if self.check { "CHECK" } else { "" };
        table.row(["USER", "KIND", "URL", "LEASE", "MISSED", check].map(|head| (DIM, head.to_owned())));
        for (cn, listeners, entries) in users {
            let user = || (STRONG, escape(cn.as_str()));
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
                let check = reached.get(entry);
                let check =
                    check.map_or((plain, String::new()), |reach| (reach.style(), escape(reach.words())));
                table.row([
                    user(),
                    (plain, entry.kind().to_owned()),
                    (plain, escape(entry.url())),
                    lease,
                    missed,
                    check,
                ]);
            }
            for malformed in &listeners.malformed {
                let why = format!("{}: malformed: {}", malformed.key, malformed.why);
                table.row([user(), (BAD, escape(&why))]);
            }
            if entries.is_empty() && listeners.malformed.is_empty() {
                table.row([user(), (DIM, "nobody is registered".to_owned())]);
            }
        }
        table.print()
    }
}

fn print_json(users: &[(&Cn, &Listeners, Vec<Entry>)], reached: &Reached) -> Result<(), Failure> {
    for (cn, listeners, entries) in users {
        let user = cn.as_str();
        for entry in entries {
            output::json(&EntryJson::new(user, entry, reached.get(entry)))?;
        }
        for malformed in &listeners.malformed {
            output::json(&MalformedJson { user, malformed: &malformed.key, reason: &malformed.why })?;
        }
    }
    Ok(())
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
