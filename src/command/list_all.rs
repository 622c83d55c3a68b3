//! `ocbus list` without a user: everybody, from the keys of every memcached.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, IsTerminal as _, Seek as _, Write as _};
use std::time::{Duration, Instant};

use ocbus::resolver::{Census, CensusError, Cn, Config, Resolver};

use super::failure::{Failure, chain};
use super::list::Report;
use super::probing::{Unserved, look_up};

/// Users whose records are fetched and printed together.
const BATCH: usize = 256;
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
        let (found, unserved) = look_up(resolver, &batch).await;
        faults.batch(found.is_empty(), &unserved);
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

    /// What came of the look-ups of a batch.
    fn batch(&mut self, none: bool, unserved: &Unserved) {
        self.hopeless = none;
        if let Some((why, users)) = unserved.first() {
            self.lookup.get_or_insert_with(|| why.to_owned());
            self.users += users;
        }
    }

    fn tell(self) -> Option<String> {
        let mut all = self.servers;
        let told = |why: &str| all.iter().any(|other| why.starts_with(other.as_str()));
        if let Some(why) = self.lookup.filter(|why| !told(why)) {
            all.push(format!("{why}: {} users", self.users));
        }
        (!all.is_empty()).then(|| all.join("; "))
    }
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
