//! Which server holds a key, as libmemcached 1.1.4 chooses: a publisher that asked another server than the one
//! OpenChange registered with would find nobody.
//!
//! Pure functions of a [`Config`]: [`KeyHash`] makes 32 bits of a key, [`Distribution`] a server of these.

mod hash;
mod jenkins;
mod ring;

pub use hash::KeyHash;

use std::hash::{BuildHasher as _, RandomState};

use memcache::exp::Router;

use crate::config::{Config, ConfigError, Server};
use ring::Points;

/// How a hash becomes a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Distribution {
    /// The remainder of its division by the number of servers.
    #[default]
    Modula,
    /// The next point on a ring, where each server has many.
    Consistent(Ring),
    /// Any, whatever the key: what one process stores, another does not find but by chance.
    Random,
}

/// How the points of a ring are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ring {
    /// 100 for each server, whatever its weight, by the hash of keys that was in force when the ring was last
    /// made: at a `--DISTRIBUTION`, a `--SORT-HOSTS` and each server behind it, but not at a `--HASH`.
    Even(KeyHash),
    /// About 160 for each server, by its weight and always by MD5: when one of a weight above 1 is named behind
    /// `--DISTRIBUTION=CONSISTENT`.
    Weighted,
}

impl Distribution {
    /// Its name in a configuration string.
    pub fn name(&self) -> &'static str {
        match self {
            Distribution::Modula => "MODULA",
            Distribution::Consistent(_) => "CONSISTENT",
            Distribution::Random => "RANDOM",
        }
    }
}

/// The longest key of memcached; with a longer one (and its namespace) libmemcached takes 0 for the hash.
const MAX_KEY: usize = 250;

/// A choice of server for every key.
///
/// What is hashed is the key as a caller names it, `resolver:bob`, without the namespace in front that it has in
/// memcached; after `--HASH-WITH-NAMESPACE` it is both. A look-up allocates nothing.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Never empty.
    servers: Vec<Server>,
    first: Server,
    hash: KeyHash,
    namespace: String,
    hash_with_namespace: bool,
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    Modula,
    Ring(Points),
    Random,
}

impl Selection {
    /// The choice that libmemcached makes as long as no server has failed. Fails when there is none.
    pub fn new(config: &Config) -> Result<Selection, ConfigError> {
        Selection::with(config, config.distribution, |_| true)
    }

    /// The choice when servers have failed and `--REMOVE-FAILED-SERVERS` is in force; `lives` says of each index
    /// whether that one is in use. The indices stay those of all servers.
    ///
    /// libmemcached makes the ring anew without the failed ones, now by the hash of keys. With `MODULA` no key
    /// moves, and when all have failed none does.
    pub fn without_failed(config: &Config, lives: impl Fn(usize) -> bool) -> Result<Selection, ConfigError> {
        let all_failed = !(0..config.servers.len()).any(&lives);
        match config.distribution {
            Distribution::Consistent(Ring::Even(_)) if !all_failed => {
                Selection::with(config, Distribution::Consistent(Ring::Even(config.hash)), lives)
            }
            distribution => Selection::with(config, distribution, |index| all_failed || lives(index)),
        }
    }

    fn with(
        config: &Config,
        distribution: Distribution,
        lives: impl Fn(usize) -> bool,
    ) -> Result<Selection, ConfigError> {
        let first = config.servers.first().ok_or(ConfigError::NoServer)?.clone();
        let way = match distribution {
            Distribution::Modula => Way::Modula,
            Distribution::Random => Way::Random,
            Distribution::Consistent(ring) => Way::Ring(Points::new(&config.servers, ring, lives)),
        };
        Ok(Selection {
            servers: config.servers.clone(),
            first,
            hash: config.hash,
            namespace: config.namespace.clone().unwrap_or_default(),
            hash_with_namespace: config.hash_with_namespace,
            way,
        })
    }

    /// All servers, in the order of their indices. There is at least one.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// What stands in front of each key in memcached; perhaps nothing.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The index of a key's server. The key is the caller's, without the namespace.
    pub fn index(&self, key: &[u8]) -> usize {
        match &self.way {
            Way::Modula => remainder(u64::from(self.value(key)), self.servers.len()),
            Way::Ring(points) => points.owner(self.value(key)),
            // Each state has other secrets.
            Way::Random => remainder(RandomState::new().hash_one(key), self.servers.len()),
        }
    }

    /// A key's server.
    pub fn server(&self, key: &[u8]) -> &Server {
        self.servers.get(self.index(key)).unwrap_or(&self.first)
    }

    fn value(&self, key: &[u8]) -> u32 {
        if !self.hash_with_namespace {
            return self.hash.value(key);
        }
        let length = self.namespace.len() + key.len();
        let mut both = [0; MAX_KEY];
        for (place, octet) in both.iter_mut().zip(self.namespace.bytes().chain(key.iter().copied())) {
            *place = octet;
        }
        both.get(..length).map_or(0, |both| self.hash.value(both))
    }
}

fn remainder(hash: u64, servers: usize) -> usize {
    let servers = u64::try_from(servers).unwrap_or(u64::MAX);
    hash.checked_rem(servers).and_then(|index| usize::try_from(index).ok()).unwrap_or(0)
}

/// For clients of the memcache crate, whose servers must be those of [`Selection::servers`], in that order. Their
/// keys are those in memcached, with the namespace in front.
impl Router for Selection {
    fn route(&self, key: &[u8], _servers: &[String]) -> usize {
        self.index(key.strip_prefix(self.namespace.as_bytes()).unwrap_or(key))
    }
}

#[cfg(test)]
mod tests;
