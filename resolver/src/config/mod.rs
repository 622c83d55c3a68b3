//! libmemcached's configuration strings: `--SERVER=a.example:11211 --SERVER=b.example --HASH=MD5`.
//!
//! What libmemcached 1.1.4 accepts is accepted and what it refuses is refused, as observed; `docs/settings.md`
//! has a table of all options. A string is a series of orders, not a set of settings: `--HASH` in front of
//! `--DISTRIBUTION` and behind it give different choices of server. So it is read as libmemcached reads it:
//!
//! * `lexer`: the longest token at each place, without regard to what is expected there;
//! * `parser`: statements from tokens; each is carried out as soon as it is read;
//! * `memory`: what libmemcached remembers, and what an order does to it;
//! * `files`: `INCLUDE` and `CONFIGURE-FILE`, bounded;
//! * `options`: the table of options;
//! * `server`, `timeouts`, `error`, `display`: what comes out.

mod display;
mod error;
mod files;
mod lexer;
mod memory;
mod options;
mod parser;
mod server;
mod timeouts;

pub use error::{ConfigError, Place};
pub(crate) use server::DEFAULT_PORT;
pub use server::Server;
pub use timeouts::Timeouts;

use std::io;
use std::str::FromStr;

use crate::selection::{Distribution, KeyHash};

/// Where the resolver's memcacheds are and how they are used, as a libmemcached configuration string says it.
///
/// Its text ([`Display`](std::fmt::Display)) is a string that means the same, but for what one string cannot say:
/// a ring whose hash is neither the default nor that of the keys (that takes a file), and names that begin with
/// `L"`, which what comes behind them may change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Config {
    /// The servers, in the order in which they are counted: sorted after `--SORT-HOSTS`, else as written.
    /// libmemcached accepts a string that names none; [`Config::needs_server`] does not.
    pub servers: Vec<Server>,
    /// What stands in front of every key in memcached.
    pub namespace: Option<String>,
    /// The namespace takes part in the choice of server.
    pub hash_with_namespace: bool,
    /// The hash of keys.
    pub hash: KeyHash,
    /// How a hash becomes a server.
    pub distribution: Distribution,
    /// The hash named behind `--DISTRIBUTION=...,`. libmemcached remembers it and never uses it.
    pub distribution_hash: KeyHash,
    /// Servers are sorted by name, then port.
    pub sort_hosts: bool,
    /// Time limits.
    pub timeouts: Timeouts,
    /// A server that failed [`Config::SERVER_FAILURE_LIMIT`] times is left out until `retry` is over.
    pub remove_failed_servers: bool,
    /// Segments are sent at once.
    pub tcp_nodelay: bool,
    /// Idle connections are probed.
    pub tcp_keepalive: bool,
    /// Copies beside the first, on the servers that follow it. See [`Config::copies`].
    pub number_of_replicas: u32,
    /// Read any of the copies.
    pub randomize_replica_read: bool,
    /// Connections that a pool begins with.
    pub pool_min: Option<u32>,
    /// Connections that a pool has at most.
    pub pool_max: Option<u32>,
    /// Options that change nothing here, as one would write them, each once: for a line in the log.
    pub without_effect: Vec<String>,
}

impl Config {
    /// How often a server fails before it is left out. No option of a string changes it.
    pub const SERVER_FAILURE_LIMIT: u32 = 5;

    /// Reads a configuration string. Files that it names are read, from the file system.
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse_with(text, &mut files::read)
    }

    /// The same, with files from `read`, which gets the name of one and gives its octets.
    pub fn parse_with(
        text: &str,
        read: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>,
    ) -> Result<Config, ConfigError> {
        parser::configuration(text, read)
    }

    /// Refuses a configuration without servers: valid for libmemcached, no use as a resolver.
    pub fn needs_server(self) -> Result<Config, ConfigError> {
        match self.servers.is_empty() {
            true => Err(ConfigError::NoServer),
            false => Ok(self),
        }
    }

    /// The first server that is reached by TCP.
    pub fn server(&self) -> Option<&Server> {
        self.servers.iter().find(|server| matches!(server, Server::Tcp { .. }))
    }

    /// Whether `--BINARY-PROTOCOL` was given. ocbus speaks the meta protocol all the same.
    pub fn binary_protocol(&self) -> bool {
        self.ignores(options::BINARY_PROTOCOL)
    }

    /// The copies that libmemcached keeps of a record beside the first: it writes them in the binary protocol
    /// only, at most one on each server.
    pub fn copies(&self) -> usize {
        let others = self.servers.len().saturating_sub(1);
        match self.binary_protocol() {
            true => usize::try_from(self.number_of_replicas).map_or(others, |copies| copies.min(others)),
            false => 0,
        }
    }

    /// The options of this string that change nothing in ocbus, as they stand in it: for the log.
    pub fn ineffective(&self) -> Vec<String> {
        // It decides whether there are copies.
        let decides = |option: &&String| self.copies() > 0 && *option == options::BINARY_PROTOCOL;
        let mut ineffective: Vec<String> =
            self.without_effect.iter().filter(|option| !decides(option)).cloned().collect();
        if self.number_of_replicas > 0 && !self.binary_protocol() {
            ineffective.push(format!("--NUMBER-OF-REPLICAS={}", self.number_of_replicas));
        }
        if self.randomize_replica_read && self.copies() == 0 {
            ineffective.push("--RANDOMIZE-REPLICA-READ".to_owned());
        }
        ineffective
    }

    /// What libmemcached begins with.
    fn empty() -> Config {
        Config {
            servers: Vec::new(),
            namespace: None,
            hash_with_namespace: false,
            hash: KeyHash::default(),
            distribution: Distribution::default(),
            distribution_hash: KeyHash::default(),
            sort_hosts: false,
            timeouts: Timeouts::default(),
            remove_failed_servers: false,
            tcp_nodelay: false,
            tcp_keepalive: false,
            number_of_replicas: 0,
            randomize_replica_read: false,
            pool_min: None,
            pool_max: None,
            without_effect: Vec::new(),
        }
    }

    /// Whether an option is among those without effect.
    fn ignores(&self, option: &str) -> bool {
        self.without_effect.iter().any(|ignored| ignored == option)
    }
}

impl Default for Config {
    /// OpenChange's default: `--SERVER=127.0.0.1:11211`.
    fn default() -> Config {
        Config { servers: vec![Server::tcp("127.0.0.1", DEFAULT_PORT)], ..Config::empty() }
    }
}

impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text)
    }
}

#[cfg(test)]
mod tests;
