//! Host names to addresses, never waiting longer than the caller has time. (The system's `getaddrinfo` has no
//! deadline: with a name server that is down, a delivery would wait for it for 10 s and more.)

#[cfg(feature = "tokio")]
pub(crate) mod dial;
mod dns;
pub(crate) mod known;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

/// The addresses of a host: numeric ones, `localhost` and names in `/etc/hosts` at once; any other name by the name
/// servers of `/etc/resolv.conf` until the deadline, or not at all where there is none.
pub fn addresses(host: &str, port: u16, deadline: Option<Instant>) -> io::Result<Vec<SocketAddr>> {
    let with_port = |addresses: Vec<IpAddr>| {
        addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect::<Vec<_>>()
    };
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(with_port(vec![address]));
    }
    if host.eq_ignore_ascii_case("localhost") {
        // IPv4 first: it is what memcached and OpenChange bind by default.
        return Ok(with_port(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]));
    }
    let known = std::fs::read_to_string("/etc/hosts").map(|table| hosts(&table, host)).unwrap_or_default();
    if !known.is_empty() {
        return Ok(with_port(known));
    }
    let Some(deadline) = deadline else {
        let why = format!("host name '{host}' is not in /etc/hosts: expected an address");
        return Err(io::Error::new(io::ErrorKind::Unsupported, why));
    };
    let config = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    dns::look_up(host, &dns::Servers::read(&config), deadline).map(with_port)
}

/// The same, for a task: what blocks is done on a thread for that.
#[cfg(feature = "tokio")]
pub(crate) async fn addresses_by(host: &str, port: u16, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let host = host.to_owned();
    let look_up = tokio::task::spawn_blocking(move || addresses(&host, port, Some(deadline)));
    look_up.await.map_err(io::Error::other)?
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
    fn numeric_and_local_names_need_no_name_server() {
        assert_eq!(addresses("127.0.0.1", 1, None).unwrap(), ["127.0.0.1:1".parse().unwrap()]);
        assert_eq!(addresses("::1", 1, None).unwrap(), ["[::1]:1".parse().unwrap()]);
        assert_eq!(addresses("LocalHost", 1, None).unwrap()[0], "127.0.0.1:1".parse().unwrap());
        let error = addresses("no-such-host.invalid", 1, None).unwrap_err();
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
    }

    #[test]
    fn the_hosts_table_is_read_as_the_system_does() {
        let table = "# 10.0.0.9 cache\n10.0.0.1\tcache cache.example.org # x\nfe80::1 CACHE\nbad cache\n";
        assert_eq!(hosts(table, "cache").len(), 2);
        assert_eq!(hosts(table, "x"), Vec::<IpAddr>::new());
    }
}
