//! Host names to addresses, without a wait where that can be had.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// The addresses of a host: numeric ones, `localhost` and names in `/etc/hosts` at once; any other name by the
/// system's resolver, whose waits nobody can bound (`may_wait`), or not at all.
pub fn addresses(host: &str, port: u16, may_wait: bool) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        // IPv4 first: it is what memcached and OpenChange bind by default.
        return Ok([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
            .map(|address| SocketAddr::new(address, port))
            .to_vec());
    }
    let known = std::fs::read_to_string("/etc/hosts").map(|table| hosts(&table, host)).unwrap_or_default();
    if !known.is_empty() {
        return Ok(known.into_iter().map(|address| SocketAddr::new(address, port)).collect());
    }
    if may_wait {
        return (host, port).to_socket_addrs().map(Iterator::collect);
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        format!(
            "host name '{host}' is not in /etc/hosts: expected an address (a DNS look-up has no deadline here)"
        ),
    ))
}

fn hosts(table: &str, host: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in table.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        if let Some(Ok(address)) = words.next().map(str::parse)
            && words.any(|name| name.eq_ignore_ascii_case(host))
        {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_and_local_names_need_no_resolver() {
        assert_eq!(addresses("127.0.0.1", 1, false).unwrap(), ["127.0.0.1:1".parse().unwrap()]);
        assert_eq!(addresses("::1", 1, false).unwrap(), ["[::1]:1".parse().unwrap()]);
        assert_eq!(addresses("LocalHost", 1, false).unwrap()[0], "127.0.0.1:1".parse().unwrap());
        let error = addresses("no-such-host.invalid", 1, false).unwrap_err();
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
    }

    #[test]
    fn the_hosts_table_is_read_as_the_system_does() {
        let table = "# 10.0.0.9 cache\n10.0.0.1\tcache cache.example.org # x\nfe80::1 CACHE\nbad cache\n";
        assert_eq!(hosts(table, "cache").len(), 2);
        assert_eq!(hosts(table, "x"), Vec::<IpAddr>::new());
    }
}
