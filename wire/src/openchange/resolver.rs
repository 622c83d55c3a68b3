//! `resolver:<cn>`: which endpoints listen for a user.

use super::{
    DosCharset,
    error::{DecodeError, EncodeError},
    ndr::{End, Reader, Writer},
};

/// How many endpoints a record may have. OpenChange reads no more; writers and readers here stop there too.
pub const MAX_HOSTS: usize = 100_000;

/// A host takes an octet at least: its NUL, or for the last one what stands in its place.
const MIN_HOST_OCTETS: usize = 1;

/// The endpoints that listen for one user, in the order in which they registered.
///
/// ```text
/// 0  u8    1
/// 1  u32   n
/// 5  u32   n again
/// 9  hosts n endpoint URLs in the dos charset, each with a NUL
/// ```
///
/// The two counts must agree. Reading accepts a missing last NUL, ignores what follows, and takes an empty
/// value for no endpoints, as OpenChange does. Unlike OpenChange, which takes a first octet of 0 or 255 for an
/// empty record and crashes on others, it refuses every version but 1: a record that is misread as empty is
/// soon overwritten.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolverRecord {
    /// Endpoint URLs: `tcp://127.0.0.1:9005`. Not checked here.
    pub hosts: Vec<String>,
}

impl ResolverRecord {
    /// The octets of the record. (OpenChange deletes the key of a record that has no hosts left.)
    pub fn encode(&self, charset: DosCharset) -> Result<Vec<u8>, EncodeError> {
        let mut writer = Writer::new();
        writer.version();
        writer.counts("hosts", self.hosts.len(), MAX_HOSTS)?;
        for host in &self.hosts {
            writer.string("host", host, charset)?;
        }
        Ok(writer.finish())
    }

    /// Reads a record.
    pub fn decode(octets: &[u8], charset: DosCharset) -> Result<Self, DecodeError> {
        if octets.is_empty() {
            return Ok(Self::default());
        }
        let mut reader = Reader::new(octets);
        reader.version()?;
        let count = reader.counts("hosts", MAX_HOSTS, MIN_HOST_OCTETS)?;
        let mut hosts = Vec::with_capacity(count);
        for _ in 0..count {
            hosts.push(reader.string("host", charset, End::NulOrInput)?);
        }
        Ok(Self { hosts })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Malformed, *};

    fn record(hosts: &[&str]) -> ResolverRecord {
        ResolverRecord { hosts: hosts.iter().map(ToString::to_string).collect() }
    }

    fn decode(octets: &[u8]) -> Result<ResolverRecord, DecodeError> {
        ResolverRecord::decode(octets, DosCharset::default())
    }

    const OCTETS: &[u8] = b"\x01\x02\0\0\0\x02\0\0\0a:1\0b:2\0";

    #[test]
    fn two_hosts() {
        assert_eq!(record(&["a:1", "b:2"]).encode(DosCharset::default()).unwrap(), OCTETS);
        assert_eq!(decode(OCTETS).unwrap(), record(&["a:1", "b:2"]));
    }

    #[test]
    fn nothing_reads_as_no_hosts() {
        assert_eq!(decode(b"").unwrap(), record(&[]));
        assert_eq!(decode(b"\x01\0\0\0\0\0\0\0\0").unwrap(), record(&[]));
    }

    #[test]
    fn a_missing_last_nul_and_trailing_octets_are_accepted() {
        assert_eq!(decode(&OCTETS[..OCTETS.len() - 1]).unwrap(), record(&["a:1", "b:2"]));
        assert_eq!(decode(&[OCTETS, b"xx"].concat()).unwrap(), record(&["a:1", "b:2"]));
    }

    #[test]
    fn truncation_is_an_error_at_the_field_that_is_cut() {
        for (length, offset) in [(1, 1), (4, 1), (5, 5), (8, 5), (9, 9), (10, 9), (12, 12), (13, 13)] {
            let error = decode(&OCTETS[..length]).unwrap_err();
            assert_eq!(error.offset(), offset, "{length}: {error}");
            assert!(matches!(error.reason(), Malformed::Truncated { .. }), "{length}: {error}");
        }
    }

    #[test]
    fn another_version_is_an_error_even_where_openchange_read_no_hosts() {
        for found in [0, 2, 3, 255, b'h'] {
            let mut octets = OCTETS.to_vec();
            octets[0] = found;
            let error = decode(&octets).unwrap_err();
            assert_eq!((error.offset(), error.reason()), (0, &Malformed::Version { found }));
        }
        assert_eq!(
            decode(b"hello").unwrap_err().to_string(),
            "at octet 0: version 104 is unknown, only 1 is known"
        );
    }

    #[test]
    fn counts_that_disagree_are_an_error() {
        let error = decode(b"\x01\x02\0\0\0\x01\0\0\0a:1\0b:2\0").unwrap_err();
        assert_eq!(error.to_string(), "at octet 5: the two counts of hosts, 2 and 1, disagree");
    }

    #[test]
    fn a_hundred_thousand_hosts_and_not_one_more() {
        let most = ResolverRecord { hosts: vec![String::new(); MAX_HOSTS] };
        let octets = most.encode(DosCharset::default()).unwrap();
        assert_eq!(octets.len(), 9 + MAX_HOSTS);
        assert_eq!(decode(&octets).unwrap(), most);

        let more = ResolverRecord { hosts: vec![String::new(); MAX_HOSTS + 1] };
        assert_eq!(
            more.encode(DosCharset::default()).unwrap_err().to_string(),
            "100001 hosts, at most 100000 fit"
        );
        let octets = [b"\x01\xa1\x86\x01\0\xa1\x86\x01\0".as_slice(), &[0; MAX_HOSTS + 1]].concat();
        assert_eq!(
            decode(&octets).unwrap_err().to_string(),
            "at octet 1: 100001 hosts, at most 100000 are allowed"
        );
    }

    #[test]
    fn a_large_count_in_a_small_record_reserves_nothing() {
        assert_eq!(
            decode(b"\x01\xa0\x86\x01\0\xa0\x86\x01\0a\0").unwrap_err().to_string(),
            "at octet 9: the input ends too early for the hosts: at least 100000 octets needed, 2 left"
        );
    }

    #[test]
    fn hosts_that_have_no_octets_are_refused() {
        assert!(record(&["tcp://хост:9005"]).encode(DosCharset::default()).is_err());
        assert!(record(&["a\0b"]).encode(DosCharset::default()).is_err());
    }
}
