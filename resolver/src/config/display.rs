use std::fmt::{self, Write as _};

use super::{Config, Server, Timeouts};
use crate::selection::{Distribution, KeyHash, Ring};

/// Writes options with one space between them.
struct Options<'a, 'f> {
    f: &'a mut fmt::Formatter<'f>,
    begun: bool,
}

impl Options<'_, '_> {
    fn put(&mut self, option: fmt::Arguments<'_>) -> fmt::Result {
        if std::mem::replace(&mut self.begun, true) {
            self.f.write_char(' ')?;
        }
        self.f.write_fmt(option)
    }

    fn flag(&mut self, is: bool, name: &str) -> fmt::Result {
        if is { self.put(format_args!("{name}")) } else { Ok(()) }
    }

    fn number(&mut self, name: &str, value: u32, default: u32) -> fmt::Result {
        if value == default { Ok(()) } else { self.put(format_args!("{name}{value}")) }
    }

    fn hash(&mut self, hash: KeyHash) -> fmt::Result {
        match hash.name() {
            Some(name) => self.put(format_args!("--HASH={name}")),
            None => Ok(()),
        }
    }

    fn distribution(&mut self, config: &Config) -> fmt::Result {
        let name = config.distribution.name();
        match config.distribution_hash.name() {
            Some(hash) => self.put(format_args!("--DISTRIBUTION={name},{hash}")),
            None if config.distribution == Distribution::Modula => Ok(()),
            None => self.put(format_args!("--DISTRIBUTION={name}")),
        }
    }

    fn server(&mut self, server: &Server) -> fmt::Result {
        match server {
            Server::Tcp { .. } => self.put(format_args!("--SERVER={server}"))?,
            Server::Socket { path, .. } => {
                self.put(format_args!("--SOCKET="))?;
                string(self.f, path)?;
            }
        }
        match server.weight() {
            1 => Ok(()),
            weight => write!(self.f, "/?{weight}"),
        }
    }
}

/// A string as it is read again: in quotes; as a bare word, when it has a quote in it; and what was read
/// as `L"x"` is `"x`.
fn string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let mut characters = text.chars();
    let mut open_quote = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '"' => open_quote = true,
            _ => {}
        }
    }
    match (open_quote, text.starts_with('"')) {
        (false, _) => write!(f, "\"{text}\""),
        (true, true) => write!(f, "L{text}\""),
        (true, false) => f.write_str(text),
    }
}

/// The order decides: what is written first must not be undone by what comes behind it.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut options = Options { f, begun: false };
        // In front of what makes the ring, which it would make anew.
        options.flag(self.sort_hosts, "--SORT-HOSTS")?;
        let before = self.distribution == Distribution::Consistent(Ring::Weighted);
        if before {
            options.distribution(self)?;
        }
        for server in &self.servers {
            options.server(server)?;
        }
        match self.distribution {
            Distribution::Consistent(Ring::Even(KeyHash::OneAtATime)) => {
                options.distribution(self)?;
                options.hash(self.hash)?;
            }
            _ => {
                options.hash(self.hash)?;
                if !before {
                    options.distribution(self)?;
                }
            }
        }
        if let Some(namespace) = &self.namespace {
            options.put(format_args!("--NAMESPACE="))?;
            string(options.f, namespace)?;
        }
        options.flag(self.hash_with_namespace, "--HASH-WITH-NAMESPACE")?;
        let (limits, usual) = (self.timeouts, Timeouts::default());
        for (name, limit, usual) in [
            ("--CONNECT-TIMEOUT=", limits.connect_ms, usual.connect_ms),
            ("--POLL-TIMEOUT=", limits.poll_ms, usual.poll_ms),
            ("--SND-TIMEOUT=", limits.send_us, usual.send_us),
            ("--RCV-TIMEOUT=", limits.receive_us, usual.receive_us),
            ("--RETRY-TIMEOUT=", limits.retry_s, usual.retry_s),
        ] {
            options.number(name, limit.cast_unsigned(), usual.cast_unsigned())?;
        }
        options.flag(self.remove_failed_servers, "--REMOVE-FAILED-SERVERS=1")?;
        options.flag(self.tcp_nodelay, "--TCP-NODELAY")?;
        options.flag(self.tcp_keepalive, "--TCP-KEEPALIVE")?;
        options.number("--NUMBER-OF-REPLICAS=", self.number_of_replicas, 0)?;
        options.flag(self.randomize_replica_read, "--RANDOMIZE-REPLICA-READ")?;
        for (name, size) in [("--POOL-MIN=", self.pool_min), ("--POOL-MAX=", self.pool_max)] {
            if let Some(size) = size {
                options.put(format_args!("{name}{size}"))?;
            }
        }
        for option in &self.without_effect {
            options.put(format_args!("{option}"))?;
        }
        // Nothing is no configuration; this one means nothing.
        options.flag(!options.begun, "RESET")
    }
}
