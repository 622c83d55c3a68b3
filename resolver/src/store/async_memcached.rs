use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::async_server::AsyncServer;
use super::pool::Pool;
use super::random;
use crate::cn::Cn;
use crate::config::{Config, ConfigError};
use crate::error::ResolverError;
use crate::update::{Request, Response};

/// An answer, and how long it took.
pub(crate) type Timed = (Response, Duration);

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

/// The requests of a call that one server answers.
#[derive(Default)]
struct Share {
    /// Their numbers within the call.
    numbers: Vec<usize>,
    requests: Vec<Request>,
}

impl AsyncMemcached {
    /// Looks the servers' names up, at most for `limit`. One that has no address is told in the log, and looked up
    /// again when it is asked: the name server may boot after us. (They are connected to when they are asked, too.)
    /// Fails when the configuration names no server.
    pub(crate) async fn new(config: &Config, limit: Duration) -> Result<AsyncMemcached, ResolverError> {
        let pool = Pool::new(config)?;
        let servers = pool.servers().iter().enumerate();
        let servers = servers.map(|(place, server)| AsyncServer::new(place, server, config, limit)).collect();
        let memcached = AsyncMemcached { shared: Arc::new(Shared { pool, servers, timeout: limit }) };
        let found =
            memcached.on_every_server(|memcached, index| async move { memcached.find(index).await }).await;
        // Of several, the pool has said it.
        for error in
            found.into_iter().filter_map(|(_, found)| found.err()).filter(|error| !error.is_one_server())
        {
            tracing::warn!(event = "resolver_not_found", reason = %error, "looked up again when it is asked");
        }
        Ok(memcached)
    }

    async fn find(&self, index: usize) -> Result<(), ResolverError> {
        let begun = Instant::now();
        let result = match self.server(index) {
            Ok(server) => server.find(self.deadline()).await,
            Err(error) => Err(error),
        };
        self.shared.pool.note(index, begun, Instant::now(), result)
    }

    /// How often each server was in use again after a failure.
    pub(crate) fn returns(&self) -> Vec<u64> {
        (0..self.shared.servers.len()).map(|index| self.shared.pool.returns(index)).collect()
    }

    /// How a server is called in the log.
    pub(crate) fn server_name(&self, index: usize) -> String {
        self.shared.pool.name(index)
    }

    /// Whether the server that has a user's records took them over a moment ago.
    pub(crate) fn is_unsettled(&self, cn: &Cn) -> bool {
        self.shared.pool.is_unsettled(&cn.resolver_key(), Instant::now())
    }

    /// Octets that a key may have behind the namespace.
    pub(crate) fn longest_key(&self) -> usize {
        self.shared.pool.longest_key()
    }

    /// Users by the index of the server that has their records.
    pub(crate) fn by_server(&self, cns: Vec<Cn>) -> Vec<Vec<Cn>> {
        let now = Instant::now();
        let mut parts = vec![Vec::new(); self.shared.servers.len()];
        for cn in cns {
            // Each user is on one of them.
            if let Some(part) = parts.get_mut(self.shared.pool.home(&cn.resolver_key(), now)) {
                part.push(cn);
            }
        }
        parts
    }

    /// How long a request may take.
    pub(crate) fn time_limit(&self) -> Duration {
        self.shared.timeout
    }

    /// When a call that begins now must be over.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.time_limit()
    }

    pub(crate) async fn run(&self, request: &Request, deadline: Instant) -> Result<Response, ResolverError> {
        let pool = &self.shared.pool;
        let Some(place) = pool.place(request, Instant::now()) else { return Ok(Response::NotDone) };
        if pool.reads_copies(request) {
            let mut reading = pool.reading(place, random());
            while let Some(server) = reading.next() {
                let until = reading.until(Instant::now(), deadline);
                reading.note(self.run_on(server, request, until).await);
            }
            return reading.result();
        }
        let result = match request {
            Request::Copy { .. } => Ok(Response::Done),
            request => self.run_on(place, request, deadline).await,
        };
        if matches!(result, Ok(Response::Done)) {
            self.copy(place, request, deadline).await;
        }
        result
    }

    /// An answer to each request, in their order, in as few round trips as can be: the requests for one server
    /// share a connection and a write, all servers are asked at the same time.
    pub(crate) async fn run_many(
        &self,
        requests: Vec<Request>,
        deadline: Instant,
    ) -> Vec<Result<Response, ResolverError>> {
        if self.shared.pool.has_copies() {
            return self.run_each(requests, deadline).await;
        }
        let now = Instant::now();
        let mut answers: Vec<Option<Result<Response, ResolverError>>> = Vec::new();
        answers.resize_with(requests.len(), || None);
        let mut shares: Vec<Share> = self.shared.servers.iter().map(|_| Share::default()).collect();
        for (number, (request, answer)) in requests.into_iter().zip(&mut answers).enumerate() {
            if matches!(request, Request::Copy { .. }) {
                *answer = Some(Ok(Response::Done));
                continue;
            }
            let place = self.shared.pool.place(&request, now);
            match (self.shared.pool.named(request), place.and_then(|place| shares.get_mut(place))) {
                (Ok(request), Some(share)) => {
                    share.numbers.push(number);
                    share.requests.push(request);
                }
                (Ok(_), None) => *answer = Some(Ok(Response::NotDone)),
                (Err(error), _) => *answer = Some(Err(error)),
            }
        }
        let mut asked = shares.into_iter().enumerate().filter(|(_, share)| !share.requests.is_empty());
        let first = asked.next();
        let mut others = JoinSet::new();
        for (index, share) in asked {
            let memcached = self.clone();
            others.spawn(async move { (memcached.ask_many(index, &share.requests, deadline).await, share) });
        }
        let mut put = |some: Vec<Result<Response, ResolverError>>, share: &Share| {
            for (number, answer) in share.numbers.iter().zip(some) {
                if let Some(place) = answers.get_mut(*number) {
                    *place = Some(answer);
                }
            }
        };
        if let Some((index, share)) = first {
            put(self.ask_many(index, &share.requests, deadline).await, &share);
        }
        while let Some(ended) = others.join_next().await {
            // Only when the runtime ends.
            let Ok((some, share)) = ended else { continue };
            put(some, &share);
        }
        let missing = || Err(ResolverError::Deadline { server: self.shared.pool.name(0) });
        answers.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect()
    }

    /// Each request by itself, where copies make more than one of it.
    async fn run_each(
        &self,
        requests: Vec<Request>,
        deadline: Instant,
    ) -> Vec<Result<Response, ResolverError>> {
        let mut calls = JoinSet::new();
        let count = requests.len();
        for (number, request) in requests.into_iter().enumerate() {
            let memcached = self.clone();
            calls.spawn(async move { (number, memcached.run(&request, deadline).await) });
        }
        let mut answers = Vec::with_capacity(count);
        while let Some(ended) = calls.join_next().await {
            answers.extend(ended.ok());
        }
        answers.sort_unstable_by_key(|(number, _)| *number);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Several requests on one server, all of which fail alike where it is out of reach.
    async fn ask_many(
        &self,
        index: usize,
        requests: &[Request],
        deadline: Instant,
    ) -> Vec<Result<Response, ResolverError>> {
        let pool = &self.shared.pool;
        let each = |error: &ResolverError| requests.iter().map(|_| Err(error.again())).collect();
        let begun = Instant::now();
        let server = match pool.admit(index, begun).and_then(|()| self.server(index)) {
            Ok(server) => server,
            Err(error) => return each(&error),
        };
        let mut answers = server.run_many(requests, deadline).await;
        // The last one says how it ended: behind a failure there are no more answers.
        let Some(last) = answers.pop() else { return answers };
        let last = pool.note(index, begun, Instant::now(), last);
        if let Err(error) = &last {
            for answer in &mut answers {
                if answer.as_ref().is_err_and(ResolverError::is_outage) {
                    *answer = Err(error.again());
                }
            }
        }
        answers.push(last);
        answers
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
        // A request that is dropped in the middle takes its connection with it.
        self.server(index)?.run(&request, deadline).await
    }

    /// The same request on every server, at the same time: what came of it and how long that took, by the server's
    /// index: an answer is no later for another server that hangs. A server that
    /// has failed is not waited for: it is asked something behind the caller's back, and is in use again when it has
    /// answered that.
    pub(crate) async fn run_everywhere(
        &self,
        request: &Request,
    ) -> Vec<(usize, Result<Timed, ResolverError>)> {
        self.on_every_server(|memcached, index| {
            let request = request.clone();
            async move {
                match memcached.shared.pool.down(index, Instant::now()) {
                    Some(down) => {
                        memcached.probe(index, &request);
                        Err(down)
                    }
                    None => {
                        let begun = Instant::now();
                        let answer = memcached.ask(index, &request, memcached.deadline()).await?;
                        Ok((answer, begun.elapsed()))
                    }
                }
            }
        })
        .await
    }

    /// Asks for the key of a request, which changes nothing.
    fn probe(&self, index: usize, request: &Request) {
        let request = Request::Get { keys: vec![request.key().to_owned()], any_copy: false };
        let Ok(Some(probing)) = self.server(index).map(AsyncServer::probing) else { return };
        let memcached = self.clone();
        tokio::spawn(async move {
            let pool = &memcached.shared.pool;
            let begun = Instant::now();
            match memcached.ask_quietly(index, &request, memcached.deadline()).await {
                Ok(answer) => {
                    let now = Instant::now();
                    let _ = pool.note(index, now, now, Ok(answer));
                }
                Err(_) => pool.put_off(index, begun, Instant::now()),
            }
            drop(probing);
        });
    }

    /// Calls for each server at the same time.
    async fn on_every_server<T, F>(
        &self,
        call: impl Fn(AsyncMemcached, usize) -> F,
    ) -> Vec<(usize, Result<T, ResolverError>)>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ResolverError>> + Send + 'static,
    {
        let mut calls = JoinSet::new();
        for index in 0..self.shared.servers.len() {
            let call = call(self.clone(), index);
            calls.spawn(async move { (index, call.await) });
        }
        let mut results = Vec::new();
        while let Some(ended) = calls.join_next().await {
            // An error only when the runtime ends.
            results.extend(ended.ok());
        }
        results
    }

    fn server(&self, index: usize) -> Result<&AsyncServer, ResolverError> {
        self.shared.servers.get(index).ok_or(ResolverError::Config(ConfigError::NoServer))
    }
}

/// The answers of those servers that gave one, or else the last error: all are out of reach.
pub(crate) fn answered<T>(
    results: Vec<(usize, Result<T, ResolverError>)>,
) -> Result<Vec<(usize, T)>, ResolverError> {
    let mut answers = Vec::with_capacity(results.len());
    let mut last = ResolverError::Config(ConfigError::NoServer);
    for (server, result) in results {
        match result {
            Ok(answer) => answers.push((server, answer)),
            Err(ResolverError::OneServer { source }) => last = *source,
            Err(error) => last = error,
        }
    }
    match answers.is_empty() {
        true => Err(last),
        false => Ok(answers),
    }
}
