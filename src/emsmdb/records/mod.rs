//! OpenChange's records of sessions in memcached (`session:`, `subscription:`, `deliver:`), for servers that share them.
//!
//! OpenChange has two servers, often two processes: *emsmdb* answers EcDoConnectEx and EcDoRpcExt2, *asyncemsmdb* answers
//! EcDoAsyncWaitEx. They know of each other by these records alone, and each of ours can stand in for either:
//!
//! | record | emsmdb | asyncemsmdb |
//! |---|---|---|
//! | `session:` | writes it at EcDoAsyncConnectEx ([`Session::connect_async`](super::Session::connect_async)) | reads it at each EcDoAsyncWaitEx ([`Emsmdb::join_session`](super::Emsmdb::join_session)) |
//! | `subscription:` | writes it at RopRegisterNotification, RopQueryRows and RopRelease | reads it when something has happened |
//! | `deliver:` | takes from it at the end of each EcDoRpcExt2 ([`Session::fetch`](super::Session::fetch)) | appends to it, then answers the wait |
//! | `ocbus:`, `resolver:` | | is registered there, and hears events |
//!
//! * [`Sharing`], [`Part`]: which of both this process is.
//! * `entries`: what is open in a session, as `subscription:` has it.
//! * `keeper`: what is still to be written, and by whom; one task. `shared`: of one session.
//! * `client`: its wait, and its replies. `front`: what was taken and not given to it yet; `rows`: which rows may be.
//! * `joined`: sessions that another process has opened. `gone`: room for them, in the place of those that are closed.
//!   `waits`: one for each asynchronous session.
//! * `outages`: who tries a memcached that is out of reach.
//!
//! memcached's being down is no error to anybody: what is to be written waits in the session's queue with its bounds, and
//! its wait stays parked until the client could fetch something; what is there is fetched when memcached is back. What
//! memcached forgets is written again; replies that it forgot are made good by a resync.

mod client;
mod entries;
mod front;
mod gone;
mod joined;
mod keeper;
mod outages;
mod rows;
mod shared;
mod waits;

pub use joined::JoinError;
pub(super) use keeper::Keeper;
pub(super) use waits::{Lost, Place};

use ocbus_resolver::SessionRecords;

/// Shares sessions through memcached.
#[derive(Debug, Clone)]
pub struct Sharing {
    /// Where.
    pub records: SessionRecords,
    /// What this process does of it.
    pub part: Part,
}

/// Which of OpenChange's servers a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Both, for the sessions that it opens. Others may append to their `deliver:` all the same.
    Both,
    /// emsmdb: opens sessions and fetches for them. Hears no events: another process does.
    Emsmdb,
    /// asyncemsmdb: hears events and waits, for sessions that another process has opened.
    AsyncEmsmdb,
}

impl Part {
    /// Whether events are heard, and users registered.
    pub(super) fn hears(self) -> bool {
        self != Part::Emsmdb
    }
}

/// What became of the records since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharingStatistics {
    /// Sessions that are shared, now; those among them whose records are still to be removed.
    pub sessions: u64,
    /// Octets of replies appended to `deliver:`.
    pub appended_octets: u64,
    /// Octets of replies taken from it.
    pub taken_octets: u64,
    /// Times that `deliver:` was full, so that a resync took the place of what waited.
    pub full: u64,
    /// Times that memcached had forgotten replies before they were fetched, or another record; a resync stands for them.
    pub forgotten: u64,
    /// Replies that were not given out, as their handle had been released, or was something else by then.
    pub released: u64,
    /// Rows that may have been made for former columns; TableChanged stands for them.
    pub outdated: u64,
    /// Octets of `deliver:` that could not be read, and were dropped; a resync stands for them.
    pub unreadable_octets: u64,
    /// Calls on memcached that failed. They are repeated.
    pub failures: u64,
    /// Sessions whose records could not be removed, and were left behind.
    pub left_behind: u64,
}
