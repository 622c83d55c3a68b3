//! `ocbus flush`: takes out endpoints where nobody is any more.

use anstyle::Style;
use clap::Args;
use ocbus::resolver::{Cn, Listeners, Resolver, ResolverError, Settlement};
use serde::Serialize;

use super::failure::Failure;
use super::list::MalformedJson;
use super::output::{self, BAD, DIM, GOOD, STRONG, Table, escape};
use super::probing::{Entry, Reach, look_up, reach};
use super::{Global, each_once};

/// A live subscriber may renew between our look and our removal: then it is tried again, this often.
const ATTEMPTS: usize = 3;

const HELP: &str = "\
Examples:
  ocbus flush bob
  ocbus flush --all bob

Every endpoint is tried, all at once, within --timeout. Those that refuse are removed, those whose port another
program has now, and leases that have ended. What is silent is kept: a native endpoint goes with its lease. --all removes every endpoint;
a native subscriber that lives registers again when it renews, an OpenChange server only when the user logs on again.

With --json each endpoint is one object: user, kind, url, removed, reason. A record that cannot be read is one with
user, malformed (its key) and reason; it is left to the next registration, which replaces it.

Users whose records cannot be read or changed, as one of several memcacheds is down, are named in one line on standard
error, and make the exit status 1; the others are served all the same.";

/// Removes the endpoints of users that refuse connections.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(super) struct Flush {
    /// Whose endpoints.
    #[arg(required = true, value_name = "USER")]
    users: Vec<Cn>,
    /// Remove live endpoints too.
    #[arg(long)]
    all: bool,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
}

/// What is to become of an endpoint, and why.
struct Judged {
    entry: Entry,
    removed: bool,
    reason: String,
}

#[derive(Serialize)]
struct JudgedJson<'a> {
    user: &'a str,
    kind: &'static str,
    url: &'a str,
    removed: bool,
    reason: &'a str,
}

impl Flush {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let resolver = global.resolver().await?;
        let (found, mut unserved) = look_up(&resolver, &each_once(&self.users)).await;
        let entries = |listeners| Entry::all(listeners);
        let all: Vec<Entry> = found.iter().flat_map(|(_, listeners)| entries(listeners)).collect();
        let reached = reach(all.iter(), global.timeout()).await;
        let mut table = Table::default();
        for (cn, listeners) in &found {
            let judge = |entry: Entry| {
                let reach = reached.get(&entry).cloned().unwrap_or(Reach::Silent);
                self.judge(entry, &reach)
            };
            let mut judged: Vec<Judged> = entries(listeners).into_iter().map(judge).collect();
            if let Err(error) = self.remove(&resolver, cn, &mut judged).await {
                // Whether it happened before the answer was lost is not known.
                for one in judged.iter_mut().filter(|one| one.removed) {
                    one.removed = false;
                    one.reason = format!("{}, but not known to be removed", one.reason);
                }
                unserved.add("not flushed", cn, &error);
            }
            match self.json {
                true => print_json(cn, listeners, &judged)?,
                false => add_rows(&mut table, cn, listeners, &judged),
            }
        }
        table.print()?;
        unserved.tell()
    }

    fn judge(&self, entry: Entry, reach: &Reach) -> Judged {
        let expired = matches!(entry, Entry::Native { expired: true, .. });
        let (removed, reason) = match reach {
            Reach::Refused | Reach::Stranger(_) => (true, reach.words().to_owned()),
            _ if expired => (true, "its lease has ended".to_owned()),
            reach => (self.all, reach.words().to_owned()),
        };
        Judged { entry, removed, reason }
    }

    /// Removes what is so judged, and looks whether it is gone.
    async fn remove(&self, resolver: &Resolver, cn: &Cn, judged: &mut [Judged]) -> Result<(), ResolverError> {
        for attempt in 1..=ATTEMPTS {
            let settlement = settlement(judged);
            if settlement.is_empty() {
                return Ok(());
            }
            resolver.settle(cn, &settlement).await?;
            let now = Entry::all(&resolver.lookup(cn).await?);
            let stays =
                |old: &Entry| now.iter().find(|new| new.url() == old.url() && new.kind() == old.kind());
            let mut renewed = false;
            for one in judged.iter_mut().filter(|one| one.removed) {
                let Some(entry) = stays(&one.entry) else { continue };
                one.entry = entry.clone();
                renewed = true;
                // Somebody lives there after all; only --all insists.
                if !self.all || attempt == ATTEMPTS {
                    one.removed = false;
                    one.reason = "registered again meanwhile".to_owned();
                }
            }
            if !renewed {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn settlement(judged: &[Judged]) -> Settlement {
    let mut settlement = Settlement::default();
    for one in judged.iter().filter(|one| one.removed) {
        match &one.entry {
            Entry::Native { lease, .. } => settlement.gone.push(lease.clone()),
            Entry::Legacy(url) => settlement.gone_legacy.push(url.clone()),
        }
    }
    settlement
}

fn print_json(cn: &Cn, listeners: &Listeners, judged: &[Judged]) -> Result<(), Failure> {
    let user = cn.as_str();
    for Judged { entry, removed, reason } in judged {
        output::json(&JudgedJson { user, kind: entry.kind(), url: entry.url(), removed: *removed, reason })?;
    }
    for malformed in &listeners.malformed {
        output::json(&MalformedJson { user, malformed: &malformed.key, reason: &malformed.why })?;
    }
    Ok(())
}

fn add_rows(table: &mut Table, cn: &Cn, listeners: &Listeners, judged: &[Judged]) {
    let plain = Style::new();
    let user = || (STRONG, escape(cn.as_str()));
    for Judged { entry, removed, reason } in judged {
        let what = if *removed { (BAD, "removed".to_owned()) } else { (GOOD, "kept".to_owned()) };
        let kind = (plain, entry.kind().to_owned());
        table.row([user(), kind, (plain, escape(entry.url())), what, (DIM, escape(reason))]);
    }
    for malformed in &listeners.malformed {
        table.row([user(), (BAD, escape(&format!("{}: malformed: {}", malformed.key, malformed.why)))]);
    }
    if judged.is_empty() && listeners.malformed.is_empty() {
        table.row([user(), (DIM, "nobody is registered".to_owned())]);
    }
}
