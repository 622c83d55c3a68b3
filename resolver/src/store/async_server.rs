use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use memcache::exp::{Error, MetaClientBuilder};
use tokio::sync::{OnceCell, Semaphore};

use super::blocking_server::BlockingServer;
use super::failed;
use super::pipeline::Pipeline;
use crate::config::{Config, Server};
use crate::error::ResolverError;
use crate::update::{Request, Response};

/// Connections to one server at most, where `--POOL-MAX` says nothing.
const CONNECTIONS: usize = 16;

/// One memcached for many tasks.
pub(super) struct AsyncServer {
    server: Server,
    way: Way,
    /// Somebody is finding out whether it is back.
    probed: Arc<AtomicBool>,
}

enum Way {
    /// The crate's client, made when the server's name has been resolved.
    Tcp(Box<TcpPool>),
    /// The crate has no unix sockets: the plugin's connections, on threads for what blocks.
    Socket(Arc<SocketPool>),
}

struct TcpPool {
    builder: MetaClientBuilder,
    pipeline: OnceCell<Pipeline>,
}

struct SocketPool {
    server: Server,
    config: Config,
    timeout: Duration,
    slots: Arc<Semaphore>,
    idle: Mutex<Vec<BlockingServer>>,
}

/// Ends a probe when it is dropped.
pub(super) struct Probing(Arc<AtomicBool>);

impl Drop for Probing {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl AsyncServer {
    pub(super) fn new(server: &Server, config: &Config, limit: Duration) -> AsyncServer {
        let most = config.pool_max.and_then(|most| usize::try_from(most).ok()).filter(|most| *most > 0);
        // More than a semaphore can count is no limit anyway.
        let most = most.unwrap_or(CONNECTIONS).min(1 << 16);
        let way = match server {
            Server::Tcp { .. } => {
                let timeouts = config.timeouts;
                let shortest =
                    |limits: &[Option<Duration>]| limits.iter().flatten().fold(limit, |a, b| a.min(*b));
                let builder = MetaClientBuilder::new()
                    .max_connections(Some(most))
                    .connect_timeout(Some(shortest(&[timeouts.connect()])))
                    .io_timeout(Some(shortest(&[timeouts.poll(), timeouts.send(), timeouts.receive()])));
                Way::Tcp(Box::new(TcpPool { builder, pipeline: OnceCell::new() }))
            }
            Server::Socket { .. } => Way::Socket(Arc::new(SocketPool {
                server: server.clone(),
                config: config.clone(),
                timeout: limit,
                slots: Arc::new(Semaphore::new(most)),
                idle: Mutex::new(Vec::new()),
            })),
        };
        AsyncServer { server: server.clone(), way, probed: Arc::default() }
    }

    /// Leave to find out whether it is back; nobody else gets it meanwhile.
    pub(super) fn probing(&self) -> Option<Probing> {
        let before = self.probed.swap(true, Ordering::AcqRel);
        (!before).then(|| Probing(Arc::clone(&self.probed)))
    }

    /// Resolves its name.
    pub(super) async fn find(&self) -> Result<(), ResolverError> {
        match &self.way {
            Way::Tcp(pool) => self.pipeline(pool).await.map(|_| ()),
            Way::Socket(_) => Ok(()),
        }
    }

    pub(super) async fn run(&self, request: &Request) -> Result<Response, ResolverError> {
        match &self.way {
            Way::Tcp(pool) => {
                let pipeline = self.pipeline(pool).await?;
                let mut answer = pipeline.run(request.clone()).await;
                // An idle connection may be closed by the server at the very moment when it is taken up again. Every
                // request may be repeated: writes are bound to what was read before, so a second one that finds the
                // first done is a lost race.
                if matches!(&answer, Err(error) if was_closed(error)) {
                    answer = pipeline.run(request.clone()).await;
                }
                answer.map_err(|source| failed(&self.server, source))
            }
            Way::Socket(pool) => pool.run(request.clone()).await,
        }
    }

    async fn pipeline<'p>(&self, pool: &'p TcpPool) -> Result<&'p Pipeline, ResolverError> {
        let connect = || async {
            pool.builder.clone().connect_async(self.server.name_and_port()).await.map(Pipeline::new)
        };
        pool.pipeline.get_or_try_init(connect).await.map_err(|source| failed(&self.server, source))
    }
}

impl SocketPool {
    async fn run(self: &Arc<Self>, request: Request) -> Result<Response, ResolverError> {
        let deadline = Instant::now() + self.timeout;
        let stopped = || ResolverError::Deadline { server: self.server.to_string() };
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| stopped())?;
        let pool = Arc::clone(self);
        let call = tokio::task::spawn_blocking(move || {
            let idle = pool.idle().pop();
            let mut server = idle.unwrap_or_else(|| BlockingServer::new(&pool.server, &pool.config));
            let result = server.run(&request, deadline);
            pool.idle().push(server);
            drop(slot);
            result
        });
        // Only when the runtime ends.
        call.await.map_err(|_| stopped())?
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<BlockingServer>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the server ended the connection. (One that it refused is not dialled twice.)
fn was_closed(error: &Error) -> bool {
    match error {
        Error::Io(io) => {
            matches!(io.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
        }
        Error::Ambiguous { source, .. } => was_closed(source),
        _ => false,
    }
}
