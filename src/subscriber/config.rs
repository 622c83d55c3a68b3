use std::sync::Arc;
use std::time::Duration;

use ocbus_resolver::Resolver;
use ocbus_wire::Endpoint;
use ocbus_wire::openchange::DosCharset;

use super::Counters;
use super::error::SubscriberError;
use crate::sockets::{ListenOptions, TrustedNetworks};

/// How a subscriber listens and registers. `docs/settings.md` has the same as a table.
#[derive(Debug, Clone)]
pub struct SubscriberConfig {
    /// Where the native endpoint listens; port 0 is any free port. `None`: no native endpoint.
    pub bind: Option<Endpoint>,
    /// Where each user's OpenChange v1 endpoint listens, port 0 that is; for `ipc://path` the cn is put
    /// behind the path, with `%2F` for `/` and `%25` for `%`; 107 octets together at most. `None`: no legacy endpoints.
    pub legacy_bind: Option<Endpoint>,
    /// The host that publishers are told instead of the one of `bind`.
    pub advertise: Option<String>,
    /// Mode of an ipc endpoint's socket. `None`: as the umask has it.
    pub ipc_mode: Option<u32>,
    /// How long a registration holds without renewal, 1 s to a day. Renewed at a third of it.
    pub lease: Duration,
    /// How often the resolver is asked whether it has forgotten everything, 10 ms to 60 s. A server whose
    /// answer takes longer than half of this is out of reach for publishers, whose budgets are small: its users are told to resync when
    /// it is over, and once a renewal (a third of the lease) while it goes on.
    pub heartbeat: Duration,
    /// Who may connect.
    pub trusted_networks: TrustedNetworks,
    /// The charset of legacy payloads.
    pub charset: DosCharset,
}

impl Default for SubscriberConfig {
    fn default() -> SubscriberConfig {
        SubscriberConfig {
            bind: Some(Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: 0 }),
            legacy_bind: None,
            advertise: None,
            ipc_mode: None,
            lease: Duration::from_secs(60),
            heartbeat: Duration::from_millis(500),
            trusted_networks: TrustedNetworks::default(),
            charset: DosCharset::default(),
        }
    }
}

impl SubscriberConfig {
    pub(super) fn check(&self) -> Result<(), SubscriberError> {
        if self.lease < Duration::from_secs(1) || self.lease > Resolver::MAX_LEASE {
            return Err(SubscriberError::Lease(self.lease));
        }
        if self.heartbeat < Duration::from_millis(10) || self.heartbeat > Duration::from_secs(60) {
            return Err(SubscriberError::Heartbeat(self.heartbeat));
        }
        if self.bind.is_none() && self.legacy_bind.is_none() {
            return Err(SubscriberError::NoEndpoint);
        }
        Ok(())
    }

    pub(super) fn listen_options(&self, counters: &Counters) -> ListenOptions {
        ListenOptions {
            advertise: self.advertise.clone(),
            ipc_mode: self.ipc_mode,
            trusted: self.trusted_networks.clone(),
            rejected: Arc::clone(&counters.rejected_peers),
        }
    }

    /// How long after one renewal the next is due: a third of the lease, so that two may fail.
    pub(super) fn renewal(&self) -> Duration {
        self.lease / 3
    }
}
