//! The header that both sides of an SP connection send before anything else:
//! `00 'S' 'P' 00`, the protocol (u16, big-endian), two reserved octets.

/// Octets of a [`Handshake`].
pub const HANDSHAKE_LEN: usize = 8;

const MAGIC: [u8; 4] = [0x00, 0x53, 0x50, 0x00];

/// The SP protocols that ocbus speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Asks; its peer is [`Protocol::Rep`].
    Req,
    /// Answers; its peer is [`Protocol::Req`].
    Rep,
    /// Sends one way; its peer is [`Protocol::Pull`].
    Push,
    /// Receives one way; its peer is [`Protocol::Push`].
    Pull,
}

impl Protocol {
    /// The number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Protocol::Req => 0x30,
            Protocol::Rep => 0x31,
            Protocol::Push => 0x50,
            Protocol::Pull => 0x51,
        }
    }

    /// The protocol with this number, if it is one of ours.
    pub const fn from_number(number: u16) -> Option<Protocol> {
        match number {
            0x30 => Some(Protocol::Req),
            0x31 => Some(Protocol::Rep),
            0x50 => Some(Protocol::Push),
            0x51 => Some(Protocol::Pull),
            _ => None,
        }
    }

    /// What the other end of a connection must speak.
    pub const fn peer_of(self) -> Protocol {
        match self {
            Protocol::Req => Protocol::Rep,
            Protocol::Rep => Protocol::Req,
            Protocol::Push => Protocol::Pull,
            Protocol::Pull => Protocol::Push,
        }
    }
}

/// The header of one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handshake {
    protocol: u16,
}

/// Why the header of a peer is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Fewer octets than a header has.
    #[error("SP header of {len} octets: expected 8")]
    Truncated {
        /// How many there were.
        len: usize,
    },
    /// The peer speaks something else, HTTP say.
    #[error("the peer does not speak SP: it begins with '{}', expected '\\0SP\\0'", .found.escape_ascii())]
    BadMagic {
        /// Its first four octets.
        found: [u8; 4],
    },
    /// The peer speaks SP, but not the protocol that fits ours.
    #[error("the peer speaks SP protocol {found:#06x}, expected {expected:#06x} ({name})", name = name_of(*.expected))]
    WrongPeer {
        /// The number it sent.
        found: u16,
        /// The number that fits.
        expected: u16,
    },
}

fn name_of(number: u16) -> &'static str {
    match Protocol::from_number(number) {
        Some(Protocol::Req) => "REQ",
        Some(Protocol::Rep) => "REP",
        Some(Protocol::Push) => "PUSH",
        Some(Protocol::Pull) => "PULL",
        None => "another protocol",
    }
}

impl Handshake {
    /// Our own header.
    pub const fn new(protocol: Protocol) -> Handshake {
        Handshake { protocol: protocol.number() }
    }

    /// The octets to send.
    pub const fn to_octets(self) -> [u8; HANDSHAKE_LEN] {
        let [m0, m1, m2, m3] = MAGIC;
        let [high, low] = self.protocol.to_be_bytes();
        [m0, m1, m2, m3, high, low, 0, 0]
    }

    /// Reads a peer's header. Like libnanomsg it does not look at the two reserved octets; what follows
    /// the first eight is not its business.
    pub fn decode(octets: &[u8]) -> Result<Handshake, HandshakeError> {
        let Some(&[m0, m1, m2, m3, high, low, _, _]) = octets.first_chunk::<HANDSHAKE_LEN>() else {
            return Err(HandshakeError::Truncated { len: octets.len() });
        };
        let found = [m0, m1, m2, m3];
        if found != MAGIC {
            return Err(HandshakeError::BadMagic { found });
        }
        Ok(Handshake { protocol: u16::from_be_bytes([high, low]) })
    }

    /// The protocol of this header, if it is one of ours.
    pub const fn protocol(self) -> Option<Protocol> {
        Protocol::from_number(self.protocol)
    }

    /// Whether whoever sent this header may talk to us, who speak `ours`.
    pub fn fits(self, ours: Protocol) -> Result<(), HandshakeError> {
        let expected = ours.peer_of().number();
        if self.protocol == expected {
            Ok(())
        } else {
            Err(HandshakeError::WrongPeer { found: self.protocol, expected })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_on_the_wire() {
        assert_eq!(Handshake::new(Protocol::Push).to_octets(), [0, 0x53, 0x50, 0, 0, 0x50, 0, 0]);
        assert_eq!(Handshake::new(Protocol::Rep).to_octets(), [0, 0x53, 0x50, 0, 0, 0x31, 0, 0]);
        for ours in [Protocol::Req, Protocol::Rep, Protocol::Push, Protocol::Pull] {
            assert_eq!(Protocol::from_number(ours.number()), Some(ours));
            assert_eq!(ours.peer_of().peer_of(), ours);
            let peer = Handshake::decode(&Handshake::new(ours.peer_of()).to_octets()).unwrap();
            assert_eq!(peer.fits(ours), Ok(()));
            assert_eq!(peer.protocol(), Some(ours.peer_of()));
        }
    }

    #[test]
    fn bad_headers_are_refused_by_name() {
        let refused = |octets: &[u8]| Handshake::decode(octets).unwrap_err().to_string();
        assert!(refused(b"GET / HT").contains("does not speak SP"));
        assert!(refused(b"\0SP\0").contains("4 octets"));
        let pair = Handshake::decode(&[0, 0x53, 0x50, 0, 0, 0x10, 0, 0]).unwrap();
        assert_eq!(pair.protocol(), None);
        let error = pair.fits(Protocol::Push).unwrap_err();
        assert_eq!(error, HandshakeError::WrongPeer { found: 0x10, expected: 0x51 });
        assert!(error.to_string().contains("0x0010, expected 0x0051 (PULL)"), "{error}");
    }

    #[test]
    fn reserved_octets_are_not_looked_at() {
        assert_eq!(
            Handshake::decode(&[0, 0x53, 0x50, 0, 0, 0x50, 0xff, 1]),
            Ok(Handshake::new(Protocol::Push))
        );
    }
}
