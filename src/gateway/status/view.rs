//! All that the page shows at one moment.

use std::collections::HashMap;
use std::sync::Arc;

use super::rates::Growth;
use super::recorder::{Endpoint, Fault, Seen};
use super::registered::Found;
use crate::gateway::http::{Health, HttpStatistics};
use crate::outbox::Statistics;
use crate::registration::RegistrarStatistics;

/// Endpoints that are shown.
const SHOWN: usize = 50;

/// Times are microseconds since the Unix epoch.
pub(super) struct View {
    pub(super) started_us: u64,
    pub(super) health: Health,
    pub(super) health_since_us: u64,
    pub(super) statistics: Statistics,
    pub(super) http: HttpStatistics,
    pub(super) registered: Arc<Found>,
    /// Where users are registered with Dovecot.
    pub(super) registrar: Option<RegistrarStatistics>,
    pub(super) rates: Growth,
    /// The newest first.
    pub(super) events: Vec<Seen>,
    /// Those that were sent something, by URL.
    pub(super) endpoints: HashMap<String, Endpoint>,
    /// The newest first.
    pub(super) faults: Vec<Fault>,
    /// Traces that were not seen.
    pub(super) missed: u64,
    /// What the outbox may hold.
    pub(super) max_octets: u64,
}

/// An endpoint that is registered, or was sent something.
pub(super) struct Line<'a> {
    pub(super) url: &'a str,
    pub(super) native: bool,
    /// Users who are registered with it.
    pub(super) users: u64,
    pub(super) sent: Option<&'a Endpoint>,
}

impl View {
    /// The endpoints with the most users, and how many others there are.
    pub(super) fn lines(&self) -> (Vec<Line<'_>>, usize) {
        let registered = self.registered.endpoints.iter().map(|(url, (native, users))| Line {
            url,
            native: *native,
            users: *users,
            sent: self.endpoints.get(url),
        });
        let others =
            self.endpoints.values().filter(|sent| !self.registered.endpoints.contains_key(&sent.url));
        let others =
            others.map(|sent| Line { url: &sent.url, native: sent.native, users: 0, sent: Some(sent) });
        let mut lines: Vec<Line<'_>> = registered.chain(others).collect();
        lines.sort_by(|one, other| other.users.cmp(&one.users).then_with(|| one.url.cmp(other.url)));
        let more = lines.len().saturating_sub(SHOWN);
        lines.truncate(SHOWN);
        (lines, more)
    }
}
