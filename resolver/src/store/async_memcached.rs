use std::time::Duration;

use memcache::exp::{
    AsyncMetaClient, Delete, Error, Get, GetResult, Meta, MetaClientBuilder, MutationResult, Set,
};
use tokio::time::timeout;

use super::{expiry_s, failed, first_server};
use crate::config::{Config, Server};
use crate::error::ResolverError;
use crate::update::{Expect, Item, Request, Response};

/// memcached for many tasks: `AsyncMetaClient`'s pool, one time limit for each request.
#[derive(Clone)]
pub(crate) struct AsyncMemcached {
    server: Server,
    client: AsyncMetaClient,
    timeout: Duration,
}

impl AsyncMemcached {
    pub(crate) async fn new(config: &Config, limit: Duration) -> Result<AsyncMemcached, ResolverError> {
        let server = first_server(config);
        let (host, port) = server.name_and_port();
        let builder = MetaClientBuilder::new()
            .max_connections(Some(16))
            .connect_timeout(Some(limit))
            .io_timeout(Some(limit));
        let connect = builder.connect_async((host, port));
        let client = match timeout(limit, connect).await {
            Ok(client) => client.map_err(|source| failed(&server, source))?,
            Err(_) => return Err(ResolverError::Deadline { server: server.to_string() }),
        };
        Ok(AsyncMemcached { server, client, timeout: limit })
    }

    pub(crate) async fn run(&self, request: &Request) -> Result<Response, ResolverError> {
        // The client's limits are for each step (a connection from the pool, dialling, the exchange); this one
        // is for the whole. A request that is dropped in the middle takes its connection with it.
        self.in_time(async { self.exchange(request).await.map_err(|source| failed(&self.server, source)) })
            .await
    }

    /// Ends a call that takes longer than one may.
    pub(crate) async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, ResolverError>>,
    ) -> Result<T, ResolverError> {
        match timeout(self.timeout, call).await {
            Ok(result) => result,
            Err(_) => Err(ResolverError::Deadline { server: self.server.to_string() }),
        }
    }

    async fn exchange(&self, request: &Request) -> Result<Response, Error> {
        match request {
            Request::Get { keys } => {
                let gets = keys.iter().map(|key| Get::new(key).meta(Meta::default().cas()));
                let results = self.client.run_many(gets).await?;
                results.into_iter().map(|result| item(result?)).collect::<Result<_, _>>().map(Response::Items)
            }
            Request::Put { key, value, expiry, expect } => {
                let set = Set::new(key, value).ttl_raw(expiry_s(*expiry));
                let set = match expect {
                    Expect::Any => set,
                    Expect::Absent => set.add(),
                    Expect::Cas(cas) => set.compare_cas(*cas),
                };
                self.client.run(set).await.map(done)
            }
            Request::Delete { key, cas } => {
                self.client.run(Delete::new(key).compare_cas(*cas)).await.map(done)
            }
            Request::Touch { key, expiry } => {
                let get = Get::new(key).without_value().touch_raw(expiry_s(Some(*expiry)));
                match self.client.run(get).await?.hit() {
                    true => Ok(Response::Done),
                    false => Ok(Response::NotDone),
                }
            }
        }
    }
}

fn item(result: GetResult) -> Result<Option<Item>, Error> {
    match (result.hit(), result.value, result.item.cas) {
        (false, ..) => Ok(None),
        (true, Some(value), Some(cas)) => Ok(Some(Item { value, cas })),
        (true, ..) => Err(Error::Protocol("a hit without value or cas".to_owned())),
    }
}

fn done(result: MutationResult) -> Response {
    match result.applied() {
        true => Response::Done,
        false => Response::NotDone,
    }
}
