use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// The networks whose peers may send to a subscriber. Everybody in them may tell any user's Outlook to look for
/// new mail; nobody else gets a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedNetworks(Vec<IpNet>);

/// Why a text names no networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("trusted_networks: '{0}': expected networks as in 127.0.0.0/8,10.1.2.3,fd00::/8")]
pub struct TrustedNetworksError(String);

impl TrustedNetworks {
    /// Whether a peer with this address may send. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether no address of another host is in them.
    pub fn only_this_host(&self) -> bool {
        let ends = |network: &IpNet| [network.network(), network.broadcast()];
        self.0.iter().flat_map(ends).all(|address| address.to_canonical().is_loopback())
    }
}

impl Default for TrustedNetworks {
    /// Loopback: `127.0.0.0/8,::1/128`.
    fn default() -> TrustedNetworks {
        let v4 = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8);
        TrustedNetworks(vec![IpNet::V4(v4), IpNet::from(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST))])
    }
}

impl FromStr for TrustedNetworks {
    type Err = TrustedNetworksError;

    /// Networks and addresses, separated by commas or spaces.
    fn from_str(text: &str) -> Result<TrustedNetworks, TrustedNetworksError> {
        let words = text.split([',', ' ']).filter(|word| !word.is_empty());
        let network = |word: &str| {
            word.parse()
                .or_else(|_| word.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| TrustedNetworksError(word.escape_debug().to_string()))
        };
        let networks = words.map(network).collect::<Result<Vec<IpNet>, _>>()?;
        match networks.is_empty() {
            true => Err(TrustedNetworksError(text.escape_debug().to_string())),
            false => Ok(TrustedNetworks(networks)),
        }
    }
}

impl fmt::Display for TrustedNetworks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&networks.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_trusted_by_default_and_nothing_else() {
        let networks = TrustedNetworks::default();
        assert!(
            ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]
                .iter()
                .all(|a| networks.contain(a.parse().unwrap()))
        );
        assert!(["10.0.0.1", "::2", "::ffff:10.0.0.1"].iter().all(|a| !networks.contain(a.parse().unwrap())));
    }

    #[test]
    fn networks_are_read_and_wrong_ones_named() {
        let networks: TrustedNetworks = "10.0.0.0/8, 192.168.1.7 fd00::/8".parse().unwrap();
        assert_eq!(networks.to_string(), "10.0.0.0/8,192.168.1.7/32,fd00::/8");
        for wrong in ["", "10.0.0.0/33", "example.org", "10.0.0.1,x"] {
            assert!(wrong.parse::<TrustedNetworks>().is_err(), "{wrong}");
        }
    }
}
