use std::fmt;
use std::str::FromStr;

/// The port that libmemcached takes when none is named.
const DEFAULT_PORT: u16 = 11211;

/// Where the resolver's memcached is, as a libmemcached configuration string says it.
///
/// Today exactly one `--SERVER=host[:port]`. Pools and the rest of libmemcached's grammar are refused by name
/// until they are understood: a publisher that picked another server than OpenChange would find nobody.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Config {
    server: Server,
}

/// One memcached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// Address or host name.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Why a string is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Nothing there.
    #[error("resolver configuration is empty: expected --SERVER=host:port")]
    Empty,
    /// An option that is not understood.
    #[error("resolver configuration: option '{0}': expected --SERVER=host:port")]
    Option(String),
    /// More than one server.
    #[error("resolver configuration: a second server '{0}': expected exactly one --SERVER=host:port")]
    Pool(String),
    /// A server without host, or with a port that is none.
    #[error("resolver configuration: server '{0}': expected host or host:port, port from 1 to 65535")]
    Server(String),
}

impl Config {
    /// Reads a configuration string.
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        let mut server = None;
        for option in text.split(' ') {
            if text.is_empty() {
                return Err(ConfigError::Empty);
            }
            let shown = || option.escape_debug().to_string();
            let value = match option.split_once('=') {
                Some((name, value)) if name.eq_ignore_ascii_case("--SERVER") => value,
                _ => return Err(ConfigError::Option(shown())),
            };
            if server.is_some() {
                return Err(ConfigError::Pool(value.escape_debug().to_string()));
            }
            server = Some(Server::parse(value)?);
        }
        server.map(|server| Config { server }).ok_or(ConfigError::Empty)
    }

    /// The memcached that holds every key.
    pub fn server(&self) -> &Server {
        &self.server
    }
}

impl Default for Config {
    /// OpenChange's default: `--SERVER=127.0.0.1:11211`.
    fn default() -> Config {
        Config { server: Server { host: "127.0.0.1".to_owned(), port: DEFAULT_PORT } }
    }
}

impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text)
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--SERVER={}", self.server)
    }
}

impl Server {
    fn parse(text: &str) -> Result<Server, ConfigError> {
        let wrong = || ConfigError::Server(text.escape_debug().to_string());
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => {
                let decimal = port.bytes().all(|octet| octet.is_ascii_digit());
                (host, port.parse().ok().filter(|&port| decimal && port > 0).ok_or_else(wrong)?)
            }
            None => (text, DEFAULT_PORT),
        };
        let named = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_');
        match !host.is_empty() && host.bytes().all(named) {
            true => Ok(Server { host: host.to_owned(), port }),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_is_read_and_written_back() {
        for (text, written) in [
            ("--SERVER=127.0.0.1:11211", "--SERVER=127.0.0.1:11211"),
            ("--SERVER=cache-1.example.org", "--SERVER=cache-1.example.org:11211"),
            ("--server=localhost:1", "--SERVER=localhost:1"),
        ] {
            assert_eq!(Config::parse(text).unwrap().to_string(), written);
        }
        assert_eq!(Config::default(), Config::parse("--SERVER=127.0.0.1:11211").unwrap());
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_name() {
        for (text, named) in [
            ("", "empty"),
            ("127.0.0.1:11211", "127.0.0.1:11211"),
            ("--SERVER=", "''"),
            ("--SERVER=h:0", "h:0"),
            ("--SERVER=h:65536", "h:65536"),
            ("--SERVER=h:+1", "h:+1"),
            ("--SERVER=a:1 --SERVER=b:2", "b:2"),
            ("--SERVER=a:1 --BINARY-PROTOCOL", "--BINARY-PROTOCOL"),
            ("--SERVER=a:1 ", "''"),
            ("--SERVER=::1", "::1"),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(named) && error.contains("expected"), "{text:?}: {error}");
        }
    }
}
