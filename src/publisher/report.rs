use std::time::Duration;

use ocbus_resolver::ResolverError;
use ocbus_resolver::delivery::{Send, Skipped, Target, Verdict};

/// What became of one `publish`.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// One entry for each endpoint that was sent to. Empty: nobody listens for the user.
    pub endpoints: Vec<EndpointReport>,
    /// What could not be sent, and why.
    pub skipped: Vec<Skipped>,
    /// Why the records could not be brought up to date, if so.
    pub unsettled: Option<String>,
}

/// What became of the events at one endpoint.
#[derive(Debug, Clone)]
pub struct EndpointReport {
    /// The endpoint.
    pub url: String,
    /// Native (acknowledged) or legacy.
    pub native: bool,
    /// How it ended.
    pub verdict: Verdict,
}

/// Why nothing could be sent at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// A budget that is too short or too long.
    #[error("budget: {} ms: expected 1 to 60000 ms", .0.as_millis())]
    Budget(Duration),
    /// The resolver did not answer within the budget.
    #[error("resolver: no answer within the budget of {} ms", .0.as_millis())]
    LookupDeadline(Duration),
    /// The resolver failed.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
}

impl Report {
    /// Endpoints that took the events.
    pub fn taken(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.is_taken()).count()
    }
}

impl EndpointReport {
    pub(super) fn new(send: &Send, verdict: &Verdict) -> EndpointReport {
        let native = matches!(send.target, Target::Native(_));
        EndpointReport { url: send.url.clone(), native, verdict: verdict.clone() }
    }

    /// Whether it took the events.
    pub fn is_taken(&self) -> bool {
        matches!(self.verdict, Verdict::Taken { .. })
    }
}
