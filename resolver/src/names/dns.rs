//! One question to the name servers, over UDP, with a deadline. The packets are simple-dns's.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Instant;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use uuid::Uuid;

use crate::share::shares;

/// Name servers that are asked, as the system's resolver has it.
const MAX_SERVERS: usize = 3;

/// What UDP without EDNS carries.
const MAX_ANSWER: usize = 512;

/// What `/etc/resolv.conf` says, as far as it matters here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Servers {
    addresses: Vec<SocketAddr>,
    search: Vec<String>,
}

impl Servers {
    pub(super) fn read(config: &str) -> Servers {
        let mut servers = Servers::default();
        for line in config.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => servers.addresses.extend(
                    words
                        .next()
                        .and_then(|word| word.parse::<IpAddr>().ok())
                        .map(|ip| SocketAddr::new(ip, 53)),
                ),
                // The last line of them counts.
                Some("search" | "domain") => servers.search = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        if servers.addresses.is_empty() {
            servers.addresses.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53));
        }
        servers.addresses.truncate(MAX_SERVERS);
        servers
    }

    /// The names that a host may stand for: with dots, itself first.
    fn names(&self, host: &str) -> Vec<String> {
        if host.ends_with('.') {
            return vec![host.to_owned()];
        }
        let searched = self.search.iter().map(|domain| format!("{host}.{domain}"));
        let own = std::iter::once(host.to_owned());
        match host.contains('.') {
            true => own.chain(searched).collect(),
            false => searched.chain(own).collect(),
        }
    }
}

/// The addresses of a host, IPv4 before IPv6.
pub(super) fn look_up(host: &str, servers: &Servers, deadline: Instant) -> io::Result<Vec<IpAddr>> {
    let unknown = || io::Error::new(ErrorKind::NotFound, format!("no name server knows '{host}'"));
    let mut last = unknown();
    for name in servers.names(host) {
        for (server, until) in shares(&servers.addresses, deadline) {
            match ask(&name, *server, until) {
                Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
                // It has answered that there is none: the others would too.
                Ok(_) => {
                    last = unknown();
                    break;
                }
                Err(error) => last = io::Error::new(error.kind(), format!("name server {server}: {error}")),
            }
        }
    }
    Err(last)
}

fn ask(name: &str, server: SocketAddr, deadline: Instant) -> io::Result<Vec<IpAddr>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    // Connected, so that nobody else's datagrams come in.
    socket.connect(server)?;
    let mut addresses = Vec::new();
    for kind in [TYPE::A, TYPE::AAAA] {
        addresses.extend(question(&socket, name, kind, deadline)?);
        if !addresses.is_empty() {
            break;
        }
    }
    Ok(addresses)
}

fn question(socket: &UdpSocket, name: &str, kind: TYPE, deadline: Instant) -> io::Result<Vec<IpAddr>> {
    let invalid =
        |error: simple_dns::SimpleDnsError| io::Error::new(ErrorKind::InvalidInput, error.to_string());
    // Not to be guessed by whoever wants to answer in the server's place.
    let [high, low, ..] = *Uuid::new_v4().as_bytes();
    let id = u16::from_be_bytes([high, low]);
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let qname = Name::new(name).map_err(invalid)?.into_owned();
    packet.questions.push(Question::new(qname, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    socket.send(&packet.build_bytes_vec().map_err(invalid)?)?;
    let mut buffer = [0; MAX_ANSWER];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let count = match socket.recv(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        };
        // What is no answer to this question is passed over.
        let Some(answer) = buffer.get(..count).and_then(|octets| Packet::parse(octets).ok()) else {
            continue;
        };
        if answer.id() != id || !answer.has_flags(PacketFlag::RESPONSE) {
            continue;
        }
        // Whoever could not find out, or would not say, knows nothing of the name: another may.
        if !matches!(answer.rcode(), RCODE::NoError | RCODE::NameError) {
            return Err(io::Error::other(format!("answered {:?}", answer.rcode())));
        }
        return Ok(answer.answers.iter().filter_map(|record| address(&record.rdata)).collect());
    }
}

fn address(data: &RData<'_>) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(Ipv4Addr::from(a.address).into()),
        RData::AAAA(aaaa) => Some(Ipv6Addr::from(aaaa.address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use simple_dns::ResourceRecord;
    use simple_dns::rdata::A;

    fn servers(addresses: &[SocketAddr]) -> Servers {
        Servers { addresses: addresses.to_vec(), search: vec!["example.org".to_owned()] }
    }

    /// A name server that knows `cache.example.org`, and sends nonsense first.
    fn name_server() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((count, peer)) = socket.recv_from(&mut buffer) {
                let query = Packet::parse(&buffer[..count]).unwrap();
                let mut reply = Packet::new_reply(query.id());
                let question = query.questions[0].clone().into_owned();
                if question.qname.to_string() == "cache.example.org" && question.qtype == QTYPE::TYPE(TYPE::A)
                {
                    let data = RData::A(A { address: u32::from(Ipv4Addr::new(127, 0, 0, 9)) });
                    reply.answers.push(ResourceRecord::new(question.qname.clone(), CLASS::IN, 60, data));
                }
                reply.questions.push(question);
                socket.send_to(b"nonsense", peer).unwrap();
                socket
                    .send_to(&Packet::new_reply(query.id().wrapping_add(1)).build_bytes_vec().unwrap(), peer)
                    .unwrap();
                socket.send_to(&reply.build_bytes_vec().unwrap(), peer).unwrap();
            }
        });
        address
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn a_name_is_found_with_and_without_its_domain() {
        let servers = servers(&[name_server()]);
        for name in ["cache.example.org", "cache", "cache.example.org."] {
            assert_eq!(look_up(name, &servers, soon()).unwrap(), [IpAddr::from([127, 0, 0, 9])], "{name}");
        }
        let error = look_up("other.example.org", &servers, soon()).unwrap_err();
        assert!(error.to_string().contains("'other.example.org'"), "{error}");
    }

    #[test]
    fn a_silent_name_server_costs_its_share_and_the_deadline_holds() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let both = servers(&[silent.local_addr().unwrap(), name_server()]);
        let found = look_up("cache.example.org", &both, Instant::now() + Duration::from_millis(400)).unwrap();
        assert_eq!(found.len(), 1);
        let begun = Instant::now();
        let only = servers(&[silent.local_addr().unwrap()]);
        let error = look_up("cache.example.org", &only, begun + Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_name_server_that_fails_is_not_believed() {
        for rcode in [RCODE::ServerFailure, RCODE::Refused] {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let failing = socket.local_addr().unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 512];
                while let Ok((count, peer)) = socket.recv_from(&mut buffer) {
                    let mut reply = Packet::new_reply(Packet::parse(&buffer[..count]).unwrap().id());
                    *reply.rcode_mut() = rcode;
                    socket.send_to(&reply.build_bytes_vec().unwrap(), peer).unwrap();
                }
            });
            let found = look_up("cache.example.org", &servers(&[failing, name_server()]), soon()).unwrap();
            assert_eq!(found, [IpAddr::from([127, 0, 0, 9])]);
            let error = look_up("cache.example.org", &servers(&[failing]), soon()).unwrap_err();
            assert!(error.to_string().contains(&format!("answered {rcode:?}")), "{error}");
        }
    }

    #[test]
    fn resolv_conf_is_read_as_the_system_does() {
        let config = "# c\nnameserver 10.0.0.1\nsearch a b\nnameserver ::1\nnameserver bad\nsearch example.org\noptions x\n";
        let servers = Servers::read(config);
        assert_eq!(servers.addresses, ["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!(servers.names("h"), ["h.example.org", "h"]);
        assert_eq!(servers.names("h.x"), ["h.x", "h.x.example.org"]);
        assert_eq!(Servers::read("").addresses, ["127.0.0.1:53".parse().unwrap()]);
    }
}
