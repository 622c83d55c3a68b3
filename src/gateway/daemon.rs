//! The daemon put together: resolver, publisher, outbox, hand-over socket, HTTP.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ocbus_resolver::{Config, ConfigError, Resolver, ResolverError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::http::{self, Gateway, connections};
use super::settings::{Changes, Loaded, ResolverSettings, SettingsError};
use super::status::Status;
use crate::embedded::Embedded;
use crate::handover::{HandOver, HandOverError};
use crate::outbox::{Outbox, OutboxError};
use crate::publisher::{PublishError, Publisher};
use crate::registration::{self, Registrar, Sessions};
use crate::subscriber::ListenError;

/// A running daemon.
pub struct Daemon {
    gateway: Gateway,
    addresses: Vec<SocketAddr>,
    listeners: JoinSet<()>,
    stop: watch::Sender<bool>,
    handover: Option<HandOver>,
    embedded: Option<Embedded>,
}

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The resolver.
    #[error("resolver: {0}")]
    Resolver(#[from] ResolverError),
    /// The resolver of our own.
    #[error("embedded: {0}")]
    Embedded(#[from] ListenError),
    /// Its configuration string.
    #[error("embedded: {0}")]
    Config(#[from] ConfigError),
    /// The publisher.
    #[error("publisher: {0}")]
    Publisher(#[from] PublishError),
    /// The outbox.
    #[error("outbox: {0}")]
    Outbox(#[from] OutboxError),
    /// The hand-over socket.
    #[error("handover: {0}")]
    HandOver(#[from] HandOverError),
    /// An address of `http.listen`.
    #[error("http.listen: {address}: {source}: expected a free port of an address of this host")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

impl Daemon {
    /// Starts all parts; the HTTP end-points last, so that whoever gets an answer finds everything else there.
    /// Within a tokio runtime.
    pub async fn start(loaded: Loaded) -> Result<Daemon, DaemonError> {
        let settings = loaded.settings.clone();
        // Of our own or not, it is asked in the same way: what works for one works for the other.
        let (embedded, config) = match &settings.resolver {
            ResolverSettings::Memcached { config, .. } => (None, (**config).clone()),
            ResolverSettings::Memory => {
                let embedded = Embedded::listen(settings.embedded.config())?;
                let config = Config::parse(&embedded.config_string())?;
                (Some(embedded), config)
            }
        };
        let timeout = settings.resolver_timeout_ms.ms();
        let resolver = Resolver::new(&config, settings.publisher.charset, timeout).await?;
        let publisher = Publisher::new(resolver.clone(), settings.publisher.config())?;
        let outbox = Outbox::start(publisher, resolver.clone(), settings.outbox.config())?;
        let handover = match settings.handover.config() {
            Some(config) => Some(HandOver::listen(&config, outbox.clone())?),
            None => None,
        };
        let mut bound = Vec::with_capacity(settings.http.listen.len());
        for address in &settings.http.listen {
            let of_address = |source| DaemonError::Listen { address: *address, source };
            let listener = TcpListener::bind(address).await.map_err(of_address)?;
            bound.push((listener.local_addr().map_err(of_address)?, listener));
        }
        let registrar = match loaded.registration.clone() {
            Some(registration) => {
                let sessions = Sessions::Memcached { config: Box::new(config.clone()), limit: timeout };
                Some(Registrar::start(registration, resolver.clone(), sessions).await)
            }
            None => None,
        };
        let gateway = Gateway::new(loaded, outbox, resolver, registrar);
        let users = gateway.registrar().cloned().map(registration::router).unwrap_or_default();
        let (stop, stopped) = watch::channel(false);
        let status = Status::start(&gateway, handover.as_ref().map(HandOver::tally), stopped.clone());
        let router = http::router(&gateway, status.router(), users);
        let (mut listeners, mut addresses) = (JoinSet::new(), Vec::new());
        for (address, listener) in bound {
            addresses.push(address);
            listeners.spawn(connections::serve(listener, gateway.clone(), router.clone(), stopped.clone()));
        }
        Ok(Daemon { gateway, addresses, listeners, stop, handover, embedded })
    }

    /// Where it listens for HTTP.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The hand-over socket, if there is one.
    pub fn handover(&self) -> Option<&HandOver> {
        self.handover.as_ref()
    }

    /// The resolver of our own, if there is one.
    pub fn embedded(&self) -> Option<&Embedded> {
        self.embedded.as_ref()
    }

    /// The state that the end-points share.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Comes when a listener has ended, which none does by itself.
    pub(super) async fn a_listener_ended(&mut self) {
        match self.listeners.is_empty() {
            true => std::future::pending().await,
            false => drop(self.listeners.join_next().await),
        }
    }

    /// Reads the settings anew, with secrets and certificates. All or nothing: after an error the old ones hold.
    pub fn reload(&self, path: &Path) -> Result<(Changes, Vec<String>), SettingsError> {
        let (loaded, changes) = self.gateway.settings().reread(path)?;
        let warnings = loaded.warnings.clone();
        let (outbox, publisher) = (loaded.settings.outbox.config(), loaded.settings.publisher.config());
        self.gateway.outbox().renew(outbox, publisher).map_err(|error| SettingsError::Unusable {
            path: path.to_path_buf(),
            key: "outbox, publisher".to_owned(),
            reason: error.to_string(),
        })?;
        if let (Some(registrar), Some(config)) = (self.gateway.registrar(), &loaded.registration) {
            registrar.renew(config.clone());
        }
        self.gateway.set_settings(loaded);
        Ok((changes, warnings))
    }

    /// Takes nothing any more, answers what is under way, and sends what was accepted, all within `limit`. What is
    /// left then is the outbox's to tell of.
    pub async fn stop(self, limit: Duration) {
        let Daemon { gateway, mut listeners, stop, handover, embedded, .. } = self;
        let end = Instant::now() + limit;
        stop.send_replace(true);
        let answered = async { while listeners.join_next().await.is_some() {} };
        if tokio::time::timeout_at(end, answered).await.is_err() {
            tracing::warn!(event = "connections_cut", "requests were still coming in at the end of drain_s");
        }
        listeners.shutdown().await;
        drop(handover);
        // Side by side: a resolver that hangs costs the registrar as long as it costs the outbox.
        let registrar = async {
            let Some(registrar) = gateway.registrar() else { return };
            if tokio::time::timeout_at(end, registrar.stop()).await.is_err() {
                tracing::warn!(
                    event = "resign_failed",
                    reason = "not within drain_s",
                    "others wait for the lease's end"
                );
            }
        };
        let left = end.saturating_duration_since(Instant::now());
        tokio::join!(registrar, gateway.outbox().drain(left));
        // The drain has asked it who listens.
        drop(embedded);
    }
}
