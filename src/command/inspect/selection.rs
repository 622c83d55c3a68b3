//! libmemcached's configuration strings: what one means, and which server it gives a key.

use clap::Args;
use ocbus::resolver::{self, Cn, Distribution, KeyHash, Ring, Selection};
use serde::Serialize;

use super::HELP;
use crate::command::failure::Failure;
use crate::command::output;

/// Prints what a libmemcached configuration string means, as one line of JSON.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(super) struct Config {
    /// The string, as in `openchange_resolver` and smb.conf's `mapistore:notification_cache`.
    #[arg(value_name = "STRING", allow_hyphen_values = true)]
    text: String,
}

/// Prints which server holds each key, as one line of JSON for each: the one that libmemcached chooses, but for a key
/// of ocbus's own, `ocbus:bob`, the one of `resolver:bob`. Both records of a user stand on one server.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(super) struct Server {
    /// The string, as above.
    #[arg(value_name = "STRING", allow_hyphen_values = true)]
    text: String,
    /// Keys without the namespace, as `resolver:bob` or `ocbus:bob`.
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
}

#[derive(Serialize)]
struct ConfigJson {
    /// As libmemcached reports them: `host:port`, and `path:0` for a socket.
    servers: Vec<String>,
    weights: Vec<u32>,
    namespace: Option<String>,
    hash: &'static str,
    hash_with_namespace: bool,
    distribution: &'static str,
    /// Of CONSISTENT: the hash of the ring's points, or that they go by weight.
    ring: Option<&'static str>,
    sort_hosts: bool,
    connect_timeout_ms: i32,
    poll_timeout_ms: i32,
    send_timeout_us: i32,
    receive_timeout_us: i32,
    retry_timeout_s: i32,
    remove_failed_servers: bool,
    tcp_nodelay: bool,
    tcp_keepalive: bool,
    number_of_replicas: u32,
    randomize_replica_read: bool,
    pool_min: Option<u32>,
    pool_max: Option<u32>,
    /// Taken, and nothing to ocbus.
    without_effect: Vec<String>,
    /// A string of the same meaning.
    canonical: String,
}

#[derive(Serialize)]
struct ServerJson<'a> {
    key: &'a str,
    index: usize,
    server: String,
}

/// The default has no name in a string.
fn hash(hash: KeyHash) -> &'static str {
    hash.name().unwrap_or("DEFAULT")
}

/// As libmemcached reports a server, and in both commands alike: what one prints can be looked for in the other's.
fn reported(server: &resolver::Server) -> String {
    match server {
        resolver::Server::Socket { path, .. } => format!("{path}:0"),
        other => other.to_string(),
    }
}

impl Config {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = resolver::Config::parse(&self.text)?;
        output::json(&ConfigJson {
            servers: config.servers.iter().map(reported).collect(),
            weights: config.servers.iter().map(resolver::Server::weight).collect(),
            hash: hash(config.hash),
            distribution: config.distribution.name(),
            ring: match config.distribution {
                Distribution::Consistent(Ring::Even(points)) => Some(hash(points)),
                Distribution::Consistent(_) => Some("WEIGHTED"),
                _ => None,
            },
            connect_timeout_ms: config.timeouts.connect_ms,
            poll_timeout_ms: config.timeouts.poll_ms,
            send_timeout_us: config.timeouts.send_us,
            receive_timeout_us: config.timeouts.receive_us,
            retry_timeout_s: config.timeouts.retry_s,
            hash_with_namespace: config.hash_with_namespace,
            sort_hosts: config.sort_hosts,
            remove_failed_servers: config.remove_failed_servers,
            tcp_nodelay: config.tcp_nodelay,
            tcp_keepalive: config.tcp_keepalive,
            number_of_replicas: config.number_of_replicas,
            randomize_replica_read: config.randomize_replica_read,
            pool_min: config.pool_min,
            pool_max: config.pool_max,
            canonical: config.to_string(),
            namespace: config.namespace,
            without_effect: config.without_effect,
        })
    }
}

impl Server {
    pub(super) fn run(self) -> Result<(), Failure> {
        let selection = Selection::new(&resolver::Config::parse(&self.text)?)?;
        for key in &self.keys {
            // As the resolver does it.
            let beside = Cn::resolver_key_beside(key);
            let index = selection.index(beside.as_deref().unwrap_or(key).as_bytes());
            // Not asked again: a random choice would be another.
            let server = selection.servers().get(index).map(reported).unwrap_or_default();
            output::json(&ServerJson { key, index, server })?;
        }
        Ok(())
    }
}
