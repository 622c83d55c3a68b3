//! The options. What is not here libmemcached does not know either.

use crate::selection::KeyHash;

pub(super) const BINARY_PROTOCOL: &str = "--BINARY-PROTOCOL";
pub(super) const BUFFER_REQUESTS: &str = "--BUFFER-REQUESTS";
pub(super) const USE_UDP: &str = "--USE-UDP";
pub(super) const VERIFY_KEY: &str = "--VERIFY-KEY";

/// One option: its name, with the `=` where it takes a value, and what it is.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Server,
    Socket,
    Namespace,
    Hash,
    Distribution,
    ConfigureFile,
    Number(Number),
    Flag(Flag),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    ConnectTimeout,
    PollTimeout,
    SendTimeout,
    ReceiveTimeout,
    RetryTimeout,
    RemoveFailedServers,
    Replicas,
    PoolMin,
    PoolMax,
    WithoutEffect,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Flag {
    HashWithNamespace,
    RandomizeReplicaRead,
    SortHosts,
    TcpKeepalive,
    TcpNodelay,
    WithoutEffect,
    /// Without effect, and refused behind the other one.
    NotBehind(&'static str),
}

const fn known(name: &'static str, kind: Kind) -> Known {
    Known { name, kind }
}

const fn number(name: &'static str, number: Number) -> Known {
    known(name, Kind::Number(number))
}

const fn flag(name: &'static str, flag: Flag) -> Known {
    known(name, Kind::Flag(flag))
}

pub(super) const OPTIONS: [Known; 34] = [
    known("--SERVER=", Kind::Server),
    known("--SOCKET=", Kind::Socket),
    known("--NAMESPACE=", Kind::Namespace),
    known("--HASH=", Kind::Hash),
    known("--DISTRIBUTION=", Kind::Distribution),
    known("--CONFIGURE-FILE=", Kind::ConfigureFile),
    number("--CONNECT-TIMEOUT=", Number::ConnectTimeout),
    number("--POLL-TIMEOUT=", Number::PollTimeout),
    number("--SND-TIMEOUT=", Number::SendTimeout),
    number("--RCV-TIMEOUT=", Number::ReceiveTimeout),
    number("--RETRY-TIMEOUT=", Number::RetryTimeout),
    number("--REMOVE-FAILED-SERVERS=", Number::RemoveFailedServers),
    number("--NUMBER-OF-REPLICAS=", Number::Replicas),
    number("--POOL-MIN=", Number::PoolMin),
    number("--POOL-MAX=", Number::PoolMax),
    number("--IO-BYTES-WATERMARK=", Number::WithoutEffect),
    number("--IO-KEY-PREFETCH=", Number::WithoutEffect),
    number("--IO-MSG-WATERMARK=", Number::WithoutEffect),
    number("--SOCKET-RECV-SIZE=", Number::WithoutEffect),
    number("--SOCKET-SEND-SIZE=", Number::WithoutEffect),
    flag("--HASH-WITH-NAMESPACE", Flag::HashWithNamespace),
    flag("--RANDOMIZE-REPLICA-READ", Flag::RandomizeReplicaRead),
    flag("--SORT-HOSTS", Flag::SortHosts),
    flag("--TCP-KEEPALIVE", Flag::TcpKeepalive),
    flag("--TCP-NODELAY", Flag::TcpNodelay),
    flag(BINARY_PROTOCOL, Flag::WithoutEffect),
    flag(BUFFER_REQUESTS, Flag::NotBehind(USE_UDP)),
    flag("--FETCH-VERSION", Flag::WithoutEffect),
    flag("--NOREPLY", Flag::WithoutEffect),
    flag("--SUPPORT-CAS", Flag::WithoutEffect),
    flag("--TCP-KEEPIDLE", Flag::WithoutEffect),
    flag(USE_UDP, Flag::WithoutEffect),
    flag("--USER-DATA", Flag::WithoutEffect),
    flag(VERIFY_KEY, Flag::NotBehind(BINARY_PROTOCOL)),
];

impl Known {
    /// The name without `--` and `=`.
    pub(super) fn bare_name(&self) -> &'static str {
        self.name.trim_start_matches('-').trim_end_matches('=')
    }

    /// How it is written.
    pub(super) fn syntax(&self) -> String {
        let value = match self.kind {
            Kind::Server => "host:port",
            Kind::Socket | Kind::ConfigureFile => "\"/path\"",
            Kind::Namespace => "\"prefix\"",
            Kind::Hash => return format!("{}NAME, one of {}", self.name, hash_names()),
            Kind::Distribution => "MODULA, CONSISTENT or RANDOM",
            Kind::Number(Number::RemoveFailedServers) => "1",
            Kind::Number(_) => "NUMBER",
            Kind::Flag(_) => "",
        };
        format!("{}{value}", self.name)
    }
}

/// The hashes that a string can name.
pub(super) fn hash_names() -> String {
    KeyHash::NAMED.map(|(name, _)| name).join(", ")
}
