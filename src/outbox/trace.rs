//! What became of events, step by step, for `ocbus trace` and the status page. Never a mail's content.

use ocbus_wire::Event;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Who gave the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Dovecot's OX driver, by HTTP.
    Ox,
    /// `/v1/events`: the Lua script, and whoever else posts.
    Http,
    /// Our plugin, by the hand-over socket.
    HandOver,
}

impl Source {
    /// All of them, in the order of [`Statistics::accepted`](super::Statistics::accepted).
    pub const ALL: [Source; 3] = [Source::Ox, Source::Http, Source::HandOver];

    /// Its name, for labels.
    pub fn name(self) -> &'static str {
        match self {
            Source::Ox => "ox",
            Source::Http => "http",
            Source::HandOver => "hand-over",
        }
    }
}

/// Why an event went without having reached everybody that it was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// Nobody is registered for the user, and nobody was lately.
    Unheard,
    /// Its time to live ended while an endpoint that is registered did not answer, or the resolver did not.
    Expired,
    /// Its time to live ended, and the subscriber that it was held for has not come back.
    Abandoned,
    /// The user had more waiting than one user may have.
    Overflow,
    /// None of the endpoints took it, and there is none to be asked again.
    Refused,
    /// The daemon was stopped first.
    Stopped,
    /// It has no user, or one whose name cannot be a cn.
    NoUser,
}

impl Reason {
    /// All of them, in the order of [`Statistics::dropped`](super::Statistics::dropped).
    pub const ALL: [Reason; 7] = [
        Reason::Unheard,
        Reason::Expired,
        Reason::Abandoned,
        Reason::Overflow,
        Reason::Refused,
        Reason::Stopped,
        Reason::NoUser,
    ];

    /// Its name, for labels.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Unheard => "unheard",
            Reason::Expired => "expired",
            Reason::Abandoned => "abandoned",
            Reason::Overflow => "overflow",
            Reason::Refused => "refused",
            Reason::Stopped => "stopped",
            Reason::NoUser => "no-user",
        }
    }
}

/// How a send to one endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SendOutcome {
    /// It has the events: a native endpoint said so, a legacy one was pushed them.
    Taken,
    /// Nobody is there for the user any more; its entry is removed.
    Gone,
    /// It did not answer, or its connection broke: the events are held for it, if it is a native one.
    Failed,
    /// It answered that it cannot take the batch. It is not asked again.
    Refused,
}

impl SendOutcome {
    /// All of them, in the order of [`Statistics::sends`](super::Statistics::sends).
    pub const ALL: [SendOutcome; 4] =
        [SendOutcome::Taken, SendOutcome::Gone, SendOutcome::Failed, SendOutcome::Refused];

    /// Its name, for labels.
    pub fn name(self) -> &'static str {
        match self {
            SendOutcome::Taken => "taken",
            SendOutcome::Gone => "gone",
            SendOutcome::Failed => "failed",
            SendOutcome::Refused => "refused",
        }
    }
}

/// An event in a [`Trace`]: what it is called, not what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedEvent {
    /// Its id.
    pub id: Uuid,
    /// Its kind, as `MessageNew`.
    pub kind: String,
    /// When it happened, in microseconds since the Unix epoch.
    pub time_us: u64,
    /// The mailbox's name, if it has one.
    pub mailbox: Option<String>,
}

impl TracedEvent {
    /// What may be told of an event.
    pub(super) fn of(event: &Event) -> TracedEvent {
        TracedEvent {
            id: event.id,
            kind: event.kind.name().to_owned(),
            time_us: event.time_us,
            mailbox: event.mailbox.as_ref().map(|mailbox| mailbox.name.clone()),
        }
    }
}

/// One step on the way of one user's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// When, in microseconds since the Unix epoch.
    pub time_us: u64,
    /// Whose events.
    pub user: String,
    /// Which; a resync made by the outbox itself is not among them.
    pub events: Vec<TracedEvent>,
    /// What happened to them.
    #[serde(flatten)]
    pub step: Step,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Step {
    /// They are in the outbox; whoever gave them is told so.
    Accepted {
        /// Who gave them.
        source: Source,
    },
    /// The resolver said who listens.
    LookedUp {
        /// Native endpoints.
        native: usize,
        /// Legacy endpoints, without those that listen natively too.
        legacy: usize,
        /// How long it took.
        took_us: u64,
    },
    /// The resolver did not say who listens.
    LookUpFailed {
        /// Why.
        reason: String,
        /// How long that took.
        took_us: u64,
    },
    /// A send to an endpoint ended.
    Sent {
        /// The endpoint.
        endpoint: String,
        /// Native (acknowledged) or legacy.
        native: bool,
        /// How it ended.
        outcome: SendOutcome,
        /// What was wrong, if something was.
        reason: Option<String>,
        /// How long it took.
        took_us: u64,
    },
    /// They are held, and tried again.
    Held {
        /// For which endpoint; `None`: for whoever registers.
        endpoint: Option<String>,
        /// Until the next attempt, in milliseconds.
        retry_ms: u64,
    },
    /// They are gone without having reached everybody.
    Dropped {
        /// Why.
        reason: Reason,
    },
}
