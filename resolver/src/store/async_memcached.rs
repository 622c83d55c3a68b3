use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::async_server::AsyncServer;
use super::pool::{Pool, may_read_copy};
use crate::config::{Config, ConfigError};
use crate::error::ResolverError;
use crate::update::{Request, Response};

/// memcached for many tasks: a pool of connections to each server, one time limit for each request.
#[derive(Clone)]
pub(crate) struct AsyncMemcached {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Pool,
    /// In the order of the pool's.
    servers: Vec<AsyncServer>,
    timeout: Duration,
}

impl AsyncMemcached {
    /// Fails when no server has an address. (They are connected to when they are asked.)
    pub(crate) async fn new(config: &Config, limit: Duration) -> Result<AsyncMemcached, ResolverError> {
        let pool = Pool::new(config)?;
        let servers = pool.servers().iter().map(|server| AsyncServer::new(server, config, limit)).collect();
        let memcached = AsyncMemcached { shared: Arc::new(Shared { pool, servers, timeout: limit }) };
        memcached.on_every_server(|memcached, index| async move { memcached.find(index).await }).await?;
        Ok(memcached)
    }

    async fn find(&self, index: usize) -> Result<(), ResolverError> {
        let begun = Instant::now();
        let result = match self.server(index) {
            Ok(server) => self.in_time(index, self.deadline(), server.find()).await,
            Err(error) => Err(error),
        };
        self.shared.pool.note(index, begun, Instant::now(), result)
    }

    /// When a call that begins now must be over.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.shared.timeout
    }

    pub(crate) async fn run(&self, request: &Request, deadline: Instant) -> Result<Response, ResolverError> {
        let place = self.shared.pool.place(request.key(), Instant::now());
        let mut result = self.run_on(place, request, deadline).await;
        if matches!(result, Ok(Response::Done)) {
            self.copy(place, request, deadline).await;
        }
        if may_read_copy(request, &result) {
            for copy in self.shared.pool.copies(place) {
                if let Ok(found) = self.run_on(copy, request, deadline).await {
                    result = Ok(found);
                    break;
                }
            }
        }
        result
    }

    /// Writes the copies, as well as it can be done: the record itself is what counts.
    async fn copy(&self, place: usize, request: &Request, deadline: Instant) {
        for copy in self.shared.pool.copies(place) {
            let Some(request) = Pool::copy_of(request) else { return };
            if let Err(error) = self.run_on(copy, &request, deadline).await {
                tracing::debug!(event = "copy_failed", reason = %error, "a copy was not written");
            }
        }
    }

    /// A request on one server, whatever its key; at once an error where that one is left alone.
    async fn run_on(
        &self,
        index: usize,
        request: &Request,
        deadline: Instant,
    ) -> Result<Response, ResolverError> {
        self.shared.pool.admit(index, Instant::now())?;
        self.ask(index, request, deadline).await
    }

    async fn ask(
        &self,
        index: usize,
        request: &Request,
        deadline: Instant,
    ) -> Result<Response, ResolverError> {
        let begun = Instant::now();
        let result = self.ask_quietly(index, request, deadline).await;
        self.shared.pool.note(index, begun, Instant::now(), result)
    }

    /// Without a note of how it went.
    async fn ask_quietly(
        &self,
        index: usize,
        request: &Request,
        deadline: Instant,
    ) -> Result<Response, ResolverError> {
        let request = self.shared.pool.on_the_wire(request)?;
        // The server's limits are for each step (a connection from the pool, dialling, the exchange); this one
        // is for the whole. A request that is dropped in the middle takes its connection with it.
        self.in_time(index, deadline, self.server(index)?.run(&request)).await
    }

    /// The same request on every server, at the same time: the answers, or an error when there is none. A server
    /// that has failed is not waited for: it is asked `back` behind the caller's back, and is in use again when it
    /// has answered that.
    pub(crate) async fn run_everywhere(
        &self,
        request: &Request,
        back: &Request,
    ) -> Result<Vec<Response>, ResolverError> {
        self.on_every_server(|memcached, index| {
            let (request, back) = (request.clone(), back.clone());
            async move {
                match memcached.shared.pool.down(index, Instant::now()) {
                    Some(down) => {
                        memcached.probe(index, back);
                        Err(down)
                    }
                    None => memcached.ask(index, &request, memcached.deadline()).await,
                }
            }
        })
        .await
    }

    fn probe(&self, index: usize, request: Request) {
        let Ok(Some(probing)) = self.server(index).map(AsyncServer::probing) else { return };
        let memcached = self.clone();
        tokio::spawn(async move {
            let pool = &memcached.shared.pool;
            match memcached.ask_quietly(index, &request, memcached.deadline()).await {
                Ok(answer) => {
                    let now = Instant::now();
                    let _ = pool.note(index, now, now, Ok(answer));
                    tracing::warn!(event = "server_back", server = pool.name(index), "in use again");
                }
                Err(_) => pool.put_off(index, Instant::now()),
            }
            drop(probing);
        });
    }

    /// Calls for each server at the same time; what came of it where it did, or else the last error.
    async fn on_every_server<T, F>(
        &self,
        call: impl Fn(AsyncMemcached, usize) -> F,
    ) -> Result<Vec<T>, ResolverError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ResolverError>> + Send + 'static,
    {
        let mut calls = JoinSet::new();
        for index in 0..self.shared.servers.len() {
            calls.spawn(call(self.clone(), index));
        }
        let mut answers = Vec::new();
        let mut last = ResolverError::Config(ConfigError::NoServer);
        while let Some(ended) = calls.join_next().await {
            match ended {
                Ok(Ok(answer)) => answers.push(answer),
                Ok(Err(ResolverError::OneServer { source })) => last = *source,
                Ok(Err(error)) => last = error,
                // Only when the runtime ends.
                Err(_) => {}
            }
        }
        match answers.is_empty() {
            true => Err(last),
            false => Ok(answers),
        }
    }

    fn server(&self, index: usize) -> Result<&AsyncServer, ResolverError> {
        self.shared.servers.get(index).ok_or(ResolverError::Config(ConfigError::NoServer))
    }

    async fn in_time<T>(
        &self,
        index: usize,
        deadline: Instant,
        call: impl Future<Output = Result<T, ResolverError>>,
    ) -> Result<T, ResolverError> {
        match timeout_at(deadline.into(), call).await {
            Ok(result) => result,
            Err(_) => Err(ResolverError::Deadline { server: self.shared.pool.name(index) }),
        }
    }
}
