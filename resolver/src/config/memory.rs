//! What libmemcached remembers while it reads a string, and what an order does to it.

use super::error::At;
use super::options::{Flag, Number};
use super::{Config, Server};
use crate::selection::{Distribution, KeyHash, Ring};

/// Everything that `RESET` forgets.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) config: Config,
    /// To be read when the string is over.
    pub(super) configure_file: Option<ConfigureFile>,
}

#[derive(Debug)]
pub(super) struct ConfigureFile {
    pub(super) path: String,
    /// Where the option stands, for the error when it cannot be read.
    pub(super) at: At,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory { config: Config::empty(), configure_file: None }
    }
}

impl Memory {
    pub(super) fn add(&mut self, server: Server) {
        let weighs = server.weight() > 1;
        self.config.servers.push(server);
        // Only a server that comes behind --DISTRIBUTION=CONSISTENT makes the ring a weighted one.
        if let Distribution::Consistent(ring) = &mut self.config.distribution
            && weighs
        {
            *ring = Ring::Weighted;
        }
        self.redistribute();
    }

    pub(super) fn distribute(&mut self, distribution: Distribution, hash: Option<KeyHash>) {
        self.config.distribution = distribution;
        if let Some(hash) = hash {
            self.config.distribution_hash = hash;
        }
        self.redistribute();
    }

    /// Sorts the servers and makes the ring anew, with the hash of this moment: a later `--HASH` is for the
    /// keys alone.
    fn redistribute(&mut self) {
        let config = &mut self.config;
        if config.sort_hosts {
            config.servers.sort_by(|one, other| one.name_and_port().cmp(&other.name_and_port()));
        }
        if let Distribution::Consistent(Ring::Even(hash)) = &mut config.distribution {
            *hash = config.hash;
        }
    }

    /// Refused with the option that may not stand in front.
    pub(super) fn set_flag(&mut self, name: &str, flag: Flag) -> Result<(), &'static str> {
        let config = &mut self.config;
        match flag {
            Flag::HashWithNamespace => config.hash_with_namespace = true,
            Flag::RandomizeReplicaRead => config.randomize_replica_read = true,
            Flag::TcpKeepalive => config.tcp_keepalive = true,
            Flag::TcpNodelay => config.tcp_nodelay = true,
            Flag::SortHosts => {
                config.sort_hosts = true;
                self.redistribute();
            }
            Flag::WithoutEffect => self.ignore(name, String::new()),
            Flag::NotBehind(other) if config.ignores(other) => return Err(other),
            Flag::NotBehind(_) => self.ignore(name, String::new()),
        }
        Ok(())
    }

    pub(super) fn set_number(&mut self, name: &str, number: Number, value: u32) {
        let Config { timeouts, .. } = &mut self.config;
        match number {
            Number::ConnectTimeout => timeouts.connect_ms = value.cast_signed(),
            Number::PollTimeout => timeouts.poll_ms = value.cast_signed(),
            Number::SendTimeout => timeouts.send_us = value.cast_signed(),
            Number::ReceiveTimeout => timeouts.receive_us = value.cast_signed(),
            Number::RetryTimeout => timeouts.retry_s = value.cast_signed(),
            Number::RemoveFailedServers => self.config.remove_failed_servers = value != 0,
            Number::Replicas => self.config.number_of_replicas = value,
            Number::PoolMin => self.config.pool_min = Some(value),
            Number::PoolMax => self.config.pool_max = Some(value),
            Number::WithoutEffect => self.ignore(name, value.to_string()),
        }
    }

    /// Notes an option without effect, in the place of the same one before it.
    pub(super) fn ignore(&mut self, name: &str, value: String) {
        let ignored = &mut self.config.without_effect;
        let option = format!("{name}{value}");
        match ignored.iter_mut().find(|before| before.starts_with(name)) {
            Some(before) => *before = option,
            None => ignored.push(option),
        }
    }
}
