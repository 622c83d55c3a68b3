//! The two ways to a user's metadata as one.

use super::KEY;
use super::core::{Act, Outcome};
use super::doveadm::{Command, CommandError, Doveadm, DoveadmError, Value};
use super::metadata::{self, Imap, ImapError};

/// Where the registrations stand.
#[derive(Debug, Clone)]
pub(super) enum Mailboxes {
    Doveadm(Doveadm),
    Imap(Imap),
}

/// One thing to do, in Dovecot's words.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) login: String,
    pub(super) value: String,
    pub(super) act: Act,
}

impl Mailboxes {
    /// The way and the servers, for people.
    pub(super) fn told(&self) -> (&'static str, String) {
        match self {
            Mailboxes::Doveadm(doveadm) => ("the DoveAdm API", doveadm.endpoints()),
            Mailboxes::Imap(imap) => ("IMAP METADATA", imap.endpoints()),
        }
    }

    /// How many servers there are, and how many of them are left aside.
    pub(super) fn aside(&self) -> (u64, u64) {
        match self {
            Mailboxes::Doveadm(doveadm) => doveadm.aside(),
            Mailboxes::Imap(imap) => imap.aside(),
        }
    }

    /// Does all of them, in one request where that can be; an outcome for each.
    pub(super) async fn run(&self, requests: &[Request]) -> Vec<Outcome> {
        match self {
            Mailboxes::Doveadm(doveadm) => run_doveadm(doveadm, requests).await,
            Mailboxes::Imap(imap) => {
                let mut outcomes = Vec::with_capacity(requests.len());
                for request in requests {
                    outcomes.push(run_imap(imap, request).await);
                }
                outcomes
            }
        }
    }
}

fn command(request: &Request) -> Command<'_> {
    let Request { login: user, value, act } = request;
    match act {
        Act::Look => Command::Get { user, key: KEY },
        Act::Set => Command::Set { user, key: KEY, value },
        Act::Unset => Command::Unset { user, key: KEY },
    }
}

async fn run_doveadm(doveadm: &Doveadm, requests: &[Request]) -> Vec<Outcome> {
    let commands: Vec<Command<'_>> = requests.iter().map(command).collect();
    let error = match doveadm.run(&commands).await {
        Ok(outcomes) => {
            return requests
                .iter()
                .zip(outcomes)
                .map(|(request, outcome)| of_command(request, outcome))
                .collect();
        }
        Err(error) => error,
    };
    if error.is_unreadable() {
        return match requests {
            [request] => vec![unreadable(request, error.to_string())],
            // One of them is it; the others do not wait for it.
            _ => {
                let mut outcomes = Vec::with_capacity(requests.len());
                for request in requests {
                    outcomes.extend(Box::pin(run_doveadm(doveadm, std::slice::from_ref(request))).await);
                }
                outcomes
            }
        };
    }
    let why = error.to_string();
    // A silence may be one mailbox's, and a bad request is ours; all else is nobody's in particular.
    let outcome = match error {
        DoveadmError::Silent { .. } | DoveadmError::Deadline(_) => Outcome::Failed(why),
        DoveadmError::Api { source: super::doveadm::ApiError::BadRequest(_), .. } => Outcome::Failed(why),
        _ => Outcome::Away(why),
    };
    vec![outcome; requests.len()]
}

/// A value that cannot be read is none of ours, which are short and ASCII: setting it mends that.
fn unreadable(request: &Request, why: String) -> Outcome {
    match request.act {
        Act::Look => Outcome::Found { ours: false },
        Act::Set | Act::Unset => Outcome::Failed(why),
    }
}

fn of_command(request: &Request, outcome: Result<Value, CommandError>) -> Outcome {
    match (outcome, request.act) {
        (Ok(found), Act::Look) => Outcome::Found { ours: found.value.unwrap_or_default() == request.value },
        (Ok(_), _) => Outcome::Done,
        (Err(CommandError::UnknownUser), _) => Outcome::UnknownUser,
        (Err(error), _) => Outcome::Failed(error.to_string()),
    }
}

async fn run_imap(imap: &Imap, request: &Request) -> Outcome {
    let act = match request.act {
        Act::Look => metadata::Act::Get,
        Act::Set => metadata::Act::Set(&request.value),
        Act::Unset => metadata::Act::Unset,
    };
    match (imap.run(&request.login, KEY, act).await, request.act) {
        (Ok(value), Act::Look) => Outcome::Found { ours: value == request.value },
        (Ok(_), _) => Outcome::Done,
        (Err(error @ (ImapError::AllAside | ImapError::Connection { .. })), _) => {
            Outcome::Away(error.to_string())
        }
        (Err(error @ ImapError::Unreadable { .. }), _) => unreadable(request, error.to_string()),
        (Err(error), _) => Outcome::Failed(error.to_string()),
    }
}
