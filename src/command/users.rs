//! `ocbus users`: who is registered with Dovecot, as a running daemon tells it.

use std::time::Duration;

use anstyle::Style;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use ocbus::gateway::remote::Told;
use ocbus::registration::{Entry, State};
use ocbus::resolver::Cn;

use super::at_daemon::AtDaemon;
use super::failure::Failure;
use super::output::{self, BAD, DIM, GOOD, STRONG, Table, UNSURE, escape, paint};

/// Longer than the daemon waits for Dovecot.
const LIMIT: Duration = Duration::from_secs(20);

const HELP: &str = "\
Examples:
  ocbus users                                 who is registered, why, since when, on which daemon
  ocbus users register bob                    make bob permanent, until unregistered
  ocbus users unregister bob
  ocbus users --json | jq -r 'select(.state == \"failed\") | .user'
  ocbus users --daemon https://mail1:8009 --ca-file /etc/ocbus/ca.pem --credentials-file /etc/ocbus/word

It asks the daemon (`ocbus serve` with [registration]) over HTTP. Credentials are one of its http.credentials:
login:password, or a token; from the file, or from OCBUS_CREDENTIALS. A user who is permanent by the daemon's settings
is unregistered there. One with a session stays unregistered until that session has ended.

With --json each user is one object: user, permanent, session, daemon, state (registered, pending, failed, elsewhere,
barred, leaving; unregistered), since_us, last_event_us (microseconds since 1970, or null), fault.";

/// Lists the users that are registered with Dovecot, and registers or unregisters one.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(super) struct Users {
    #[command(subcommand)]
    act: Option<Act>,
    #[command(flatten)]
    daemon: AtDaemon,
    /// Print JSON, one object a line.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Everybody (the default).
    List,
    /// Makes a user permanent: registered without any session.
    Register {
        /// Who.
        user: Cn,
    },
    /// Takes a user's registration back.
    Unregister {
        /// Who.
        user: Cn,
    },
}

impl Users {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let remote = self.daemon.remote(LIMIT)?;
        match &self.act {
            None | Some(Act::List) => self.list(&remote.list().await?.users),
            Some(Act::Register { user }) => self.told(user, remote.register(user).await?, State::Registered),
            Some(Act::Unregister { user }) => self.told(user, remote.unregister(user).await?, State::Barred),
        }
    }

    fn list(&self, users: &[Entry]) -> Result<(), Failure> {
        if self.json {
            return users.iter().try_for_each(output::json);
        }
        if users.is_empty() {
            return output::line(&paint(DIM, "nobody is registered"));
        }
        let mut table = Table::default();
        let heads = ["USER", "WHY", "STATE", "SINCE", "LAST EVENT", "DAEMON", ""];
        table.row(heads.map(|head| (DIM, head.to_owned())));
        for entry in users {
            table.row(row(entry));
        }
        table.print()
    }

    /// What became of one user; a failure when it is not `wanted`.
    fn told(&self, user: &Cn, told: Told, wanted: State) -> Result<(), Failure> {
        let entry = match told {
            Told::Gone if self.json => {
                return output::json(&serde_json::json!({ "user": user.as_str(), "state": "unregistered" }));
            }
            Told::Gone => {
                return output::line(&format!("{} is not registered any more", escape(user.as_str())));
            }
            Told::Entry(entry) => entry,
        };
        if self.json {
            output::json(&entry)?;
        }
        if entry.state != wanted {
            let (state, _) = word(entry.state);
            let why = entry.fault.unwrap_or_else(|| "the daemon goes on trying".to_owned());
            return Err(Failure::failed(format!("'{user}': {state}: {why}")));
        }
        match (self.json, wanted) {
            (true, _) => Ok(()),
            (false, State::Barred) => output::line(&format!(
                "{} is not registered any more, until the present session has ended",
                escape(user.as_str())
            )),
            (false, _) => output::line(&format!("{} is registered, permanently", escape(user.as_str()))),
        }
    }
}

fn word(state: State) -> (&'static str, Style) {
    match state {
        State::Registered => ("registered", GOOD),
        State::Pending => ("pending", UNSURE),
        State::Failed => ("failed", BAD),
        State::Elsewhere => ("elsewhere", DIM),
        State::Barred => ("unregistered by hand", UNSURE),
        State::Leaving => ("leaving", DIM),
        _ => ("unknown", UNSURE),
    }
}

fn row(entry: &Entry) -> [(Style, String); 7] {
    let plain = Style::new();
    let why = match (entry.permanent, entry.session) {
        (true, true) => "permanent, session",
        (true, false) => "permanent",
        (false, true) => "session",
        (false, false) => "session ended",
    };
    let (state, style) = word(entry.state);
    [
        (STRONG, escape(&entry.user)),
        (plain, why.to_owned()),
        (style, state.to_owned()),
        (plain, time(entry.since_us)),
        (plain, time(entry.last_event_us)),
        (plain, escape(&entry.daemon)),
        (BAD, escape(entry.fault.as_deref().unwrap_or_default())),
    ]
}

/// To the second, UTC.
fn time(unix_us: Option<u64>) -> String {
    let time = unix_us
        .and_then(|us| i64::try_from(us / 1_000_000).ok())
        .and_then(|s| Timestamp::from_second(s).ok());
    time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}
