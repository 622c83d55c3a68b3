//! `ocbus list` without a user: everybody, from the keys of every memcached.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, IsTerminal as _, Seek as _, Write as _};
use std::time::{Duration, Instant};

use ocbus::resolver::{Census, CensusError, Cn, Config, Listeners, Resolver, ResolverError};
use tokio::task::JoinSet;

use super::failure::{Failure, chain};
use super::list::Report;

/// Users whose records are fetched and printed together.
const BATCH: usize = 256;
/// Look-ups under way at once: what the resolver has connections for.
const AT_ONCE: usize = 16;
/// Time-outs in a row after which one of those gives up: all of a batch would wait for minutes.
const TIMEOUTS: u32 = 2;
/// How often the progress is shown.
const TICK: Duration = Duration::from_millis(100);

/// Prints all registrations, or counts them. What fails is told at the end, so that the others are seen.
pub(super) async fn enumerate(
    config: &Config,
    resolver: &Resolver,
    mut report: Report,
) -> Result<(), Failure> {
    let mut progress = Progress::new(report.is_summary());
    let mut faults = Faults::default();
    let (names, all) = spool(Census::new(config, report.limit()), &mut progress, &mut faults).await?;
    let mut names = names.lines();
    let mut seen = 0;
    while !faults.hopeless {
        let mut batch = Vec::with_capacity(BATCH);
        for name in names.by_ref().take(BATCH) {
            batch.push(Cn::new(&name.map_err(of_spool)?)?);
        }
        if batch.is_empty() {
            break;
        }
        let found = look_up(resolver, batch, &mut faults).await?;
        seen += found.len();
        report.add(&found).await?;
        progress.show(format_args!("{seen} of {all} users"));
    }
    drop(progress);
    // Of nothing but faults there is nothing to say: no "nobody is registered".
    match faults.tell() {
        Some(why) if seen == 0 => Err(Failure::Failed(why)),
        Some(why) => report.end().and(Err(Failure::Failed(why))),
        None => report.end(),
    }
}

/// All names, one a line, in a file without a name: they come faster than they are looked up and read, and the
/// memcacheds must not wait for whoever pages through our output. And how many.
async fn spool(
    mut census: Census,
    progress: &mut Progress,
    faults: &mut Faults,
) -> Result<(BufReader<File>, usize), Failure> {
    let mut file = BufWriter::new(tempfile::tempfile().map_err(of_spool)?);
    let mut names = 0;
    loop {
        match census.next().await {
            Ok(Some(cn)) => {
                writeln!(file, "{cn}").map_err(of_spool)?;
                names += 1;
                progress.show(format_args!("{names} users"));
            }
            Ok(None) => break,
            Err(error) => faults.server(&error),
        }
    }
    let mut file = file.into_inner().map_err(|error| of_spool(error.into_error()))?;
    file.rewind().map_err(of_spool)?;
    Ok((BufReader::new(file), names))
}

fn of_spool(error: io::Error) -> Failure {
    Failure::failed(format!("temporary file for names: {error}"))
}

/// What could not be listed, and why.
#[derive(Default)]
struct Faults {
    servers: Vec<String>,
    lookup: Option<String>,
    users: usize,
    /// No look-up of a batch succeeded.
    hopeless: bool,
}

impl Faults {
    fn server(&mut self, error: &CensusError) {
        self.servers.push(chain(error));
    }

    fn tell(self) -> Option<String> {
        let mut all = self.servers;
        let told = |why: &String| all.iter().any(|other| other == why);
        if let Some(why) = self.lookup.filter(|why| !told(why)) {
            all.push(format!("{why}: {} users could not be looked up", self.users));
        }
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// The records of a batch, in its order.
async fn look_up(
    resolver: &Resolver,
    batch: Vec<Cn>,
    faults: &mut Faults,
) -> Result<Vec<(Cn, Listeners)>, Failure> {
    let whole = batch.len();
    let mut batch = batch.into_iter().peekable();
    let mut tasks = JoinSet::new();
    while batch.peek().is_some() {
        let resolver = resolver.clone();
        let part: Vec<Cn> = batch.by_ref().take(whole.div_ceil(AT_ONCE)).collect();
        let at = tasks.len();
        tasks.spawn(async move { (at, look_up_part(&resolver, part).await) });
    }
    let mut parts = Vec::with_capacity(tasks.len());
    while let Some(part) = tasks.join_next().await {
        parts.push(part?);
    }
    parts.sort_unstable_by_key(|(at, _)| *at);
    let mut found = Vec::with_capacity(whole);
    for (_, (users, error)) in parts {
        found.extend(users);
        if let Some(error) = error {
            faults.lookup.get_or_insert_with(|| chain(&error));
        }
    }
    faults.users += whole - found.len();
    faults.hopeless = whole > 0 && found.is_empty();
    Ok(found)
}

/// Those whose records were read, and the first error of the others.
async fn look_up_part(resolver: &Resolver, part: Vec<Cn>) -> (Vec<(Cn, Listeners)>, Option<ResolverError>) {
    let mut found = Vec::with_capacity(part.len());
    let mut first = None;
    let mut timeouts = 0;
    for cn in part {
        match resolver.lookup(&cn).await {
            Ok(listeners) => {
                timeouts = 0;
                found.push((cn, listeners));
            }
            Err(error) => {
                timeouts = if error.is_timeout() { timeouts + 1 } else { 0 };
                first.get_or_insert(error);
                if timeouts == TIMEOUTS {
                    break;
                }
            }
        }
    }
    (found, first)
}

/// How far it is, for whoever waits at a terminal and sees nothing else there.
struct Progress {
    shown: bool,
    next: Instant,
    written: bool,
}

impl Progress {
    fn new(silent: bool) -> Progress {
        let stderr = io::stderr().is_terminal();
        let shown = stderr && (silent || !io::stdout().is_terminal());
        Progress { shown, next: Instant::now() + TICK, written: false }
    }

    fn show(&mut self, what: fmt::Arguments<'_>) {
        if self.shown && Instant::now() >= self.next {
            // A line that cannot be written is no loss.
            let _ = write!(io::stderr(), "\r{what}\x1b[K");
            self.written = true;
            self.next = Instant::now() + TICK;
        }
    }
}

/// What comes behind it, a fault say, has the line to itself.
impl Drop for Progress {
    fn drop(&mut self) {
        if self.written {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
