//! An endpoint that other processes send a user's events to.
//!
//! A [`Subscriber`] listens at one native endpoint for all its users (and, on demand, at one OpenChange v1
//! endpoint for each), keeps them registered with the resolver, and publishes what arrives on its process's
//! [`Bus`]. What it may have missed it tells there by a [`Resync`](crate::EventKind::Resync).

mod config;
mod error;
mod legacy;
mod native;
mod registrar;
mod watch;

pub use crate::sockets::{ListenError, TrustedNetworks, TrustedNetworksError};
pub use config::SubscriberConfig;
pub use error::SubscriberError;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ocbus_resolver::{Canary, Cn, Resolver};
use ocbus_wire::Endpoint;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::bus::Bus;
use legacy::LegacySocket;
use native::NativeSocket;
use registrar::Fault;
use watch::{Losses, Lost};

/// A process's place on the bus between processes.
#[derive(Debug)]
pub struct Subscriber {
    shared: Arc<Shared>,
    registrar: Option<JoinHandle<()>>,
}

/// What the sockets' callbacks, the registrar's task and the handle share.
#[derive(Debug)]
struct Shared {
    /// Tells this process from an earlier one at the same endpoint.
    id: Uuid,
    config: SubscriberConfig,
    resolver: Resolver,
    bus: Bus,
    native: Option<NativeSocket>,
    held: Arc<Held>,
    counters: Arc<Counters>,
    /// What the log is still to say of them.
    losses: Mutex<Losses>,
    /// So many registrations were lost lately that memcached has no room for all.
    crowded: AtomicBool,
    /// Wakes the registrar when a user is to be tried again or the subscriber stops.
    changed: Notify,
    stopping: AtomicBool,
}

/// The users of this subscriber, by cn.
#[derive(Debug, Default)]
struct Held(Mutex<HashMap<Cn, HeldUser>>);

#[derive(Debug)]
struct HeldUser {
    /// Kept here for its life: dropped with the user.
    legacy: Option<LegacySocket>,
    /// It was registered once: to find it absent again means that somebody removed or forgot it.
    registered: bool,
    /// The log has said that this user's record is at fault, or refused.
    complained: bool,
    /// When the registration is to be renewed next.
    renew_at: tokio::time::Instant,
    lost: Lost,
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, HashMap<Cn, HeldUser>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Counters {
    rejected_peers: Arc<AtomicU64>,
    batches: AtomicU64,
    events: AtomicU64,
    legacy_events: AtomicU64,
    malformed: AtomicU64,
    strangers: AtomicU64,
    resolver_failures: AtomicU64,
    registrations_lost: AtomicU64,
}

/// What a subscriber has seen since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Connections from outside the trusted networks that were turned away.
    pub rejected_peers: u64,
    /// Native batches taken.
    pub batches: u64,
    /// Events in them, repetitions included.
    pub events: u64,
    /// Mails told by OpenChange v1 payloads.
    pub legacy_events: u64,
    /// Batches, payloads and single events that could not be read.
    pub malformed: u64,
    /// Events for users who are not held here.
    pub strangers: u64,
    /// Calls on the resolver that failed.
    pub resolver_failures: u64,
    /// Registrations that somebody else had removed or forgotten, and that were made again.
    pub registrations_lost: u64,
}

impl Subscriber {
    /// Binds the native endpoint and begins to keep users registered; there are none yet. A resolver that
    /// does not answer is no error: registrations are made as soon as it does.
    pub async fn start(
        config: SubscriberConfig,
        resolver: Resolver,
        bus: Bus,
    ) -> Result<Subscriber, SubscriberError> {
        config.check()?;
        let counters = Arc::new(Counters::default());
        let held = Arc::new(Held::default());
        let native = match &config.bind {
            Some(bind) => Some(NativeSocket::listen(&config, bind, &bus, &held, &counters)?),
            None => None,
        };
        let shared = Arc::new(Shared {
            id: Uuid::now_v7(),
            config,
            resolver,
            bus,
            native,
            held,
            counters,
            losses: Mutex::default(),
            crowded: AtomicBool::new(false),
            changed: Notify::new(),
            stopping: AtomicBool::new(false),
        });
        let registrar = tokio::spawn(registrar::run(Arc::clone(&shared)));
        Ok(Subscriber { shared, registrar: Some(registrar) })
    }

    /// The id that stands in this process's leases.
    pub fn id(&self) -> Uuid {
        self.shared.id
    }

    /// The native endpoint, if there is one.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.shared.native.as_ref().map(NativeSocket::endpoint)
    }

    /// A user's OpenChange v1 endpoint, if there is one.
    pub fn legacy_endpoint(&self, cn: &Cn) -> Option<Endpoint> {
        Some(self.shared.held.lock().get(cn)?.legacy.as_ref()?.endpoint().clone())
    }

    /// Listens for a user from now on, and registers the endpoints. An error of the resolver leaves the user
    /// held, to be registered as soon as it answers; an error of the user's own socket does not.
    pub async fn add(&self, cn: &Cn) -> Result<(), SubscriberError> {
        let shared = &self.shared;
        let legacy = match &shared.config.legacy_bind {
            Some(bind) if !shared.held.lock().contains_key(cn) => {
                Some(LegacySocket::listen(&shared.config, bind, cn, &shared.bus, &shared.counters)?)
            }
            _ => None,
        };
        let renew_at = tokio::time::Instant::now() + shared.config.renewal();
        shared.held.lock().entry(cn.clone()).or_insert(HeldUser {
            legacy,
            registered: false,
            complained: false,
            renew_at,
            lost: Lost::default(),
        });
        match shared.register(cn).await {
            Ok(()) => {
                // It may have been held before.
                shared.tell_lost(std::slice::from_ref(cn));
                Ok(())
            }
            Err(error) => {
                if shared.postpone(cn, &error) == Fault::Own {
                    tracing::warn!(event = "registration_failed", user = %cn, reason = %error, "tried again");
                }
                Err(error.into())
            }
        }
    }

    /// Listens for a user no longer.
    pub async fn remove(&self, cn: &Cn) -> Result<(), SubscriberError> {
        let held = self.shared.held.lock().remove(cn);
        match held {
            Some(user) => self.shared.leave(cn, user.legacy.as_ref()).await.map_err(SubscriberError::from),
            None => Ok(()),
        }
    }

    /// What has happened so far.
    pub fn statistics(&self) -> Statistics {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            rejected_peers: read(&counters.rejected_peers),
            batches: read(&counters.batches),
            events: read(&counters.events),
            legacy_events: read(&counters.legacy_events),
            malformed: read(&counters.malformed),
            strangers: read(&counters.strangers),
            resolver_failures: read(&counters.resolver_failures),
            registrations_lost: read(&counters.registrations_lost),
        }
    }

    /// Takes all registrations back and closes the sockets. What the resolver does not take back within
    /// `limit` goes with its lease, or stays (OpenChange's records have none) until a publisher is refused.
    pub async fn stop(mut self, limit: std::time::Duration) {
        let registrar = self.registrar.take();
        let shared = &self.shared;
        shared.stopping.store(true, Ordering::Release);
        shared.changed.notify_one();
        let abort = registrar.as_ref().map(JoinHandle::abort_handle);
        let leave = async {
            // Its last renewals first: one that came after the leaving would register again.
            if let Some(registrar) = registrar {
                let _ = registrar.await;
            }
            registrar::leave_all(shared).await;
            // Left to its expiry when that fails.
            let _ = shared.resolver.uproot(&Canary::new(shared.id)).await;
        };
        if tokio::time::timeout(limit, leave).await.is_err() {
            // Or it would go on, and register whom nobody listens for.
            if let Some(abort) = abort {
                abort.abort();
            }
            tracing::warn!(
                event = "leave_incomplete",
                "the resolver did not take all registrations back in time"
            );
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some(registrar) = self.registrar.take() {
            registrar.abort();
        }
    }
}
