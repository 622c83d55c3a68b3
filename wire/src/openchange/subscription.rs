//! `subscription:<session>`: what a session asked to be told.

use uuid::Uuid;

use super::{
    error::{DecodeError, EncodeError},
    ndr::{Reader, Writer},
};

/// How many subscriptions a session may have. OpenChange writes the 101st, and can never read the record
/// again; here it is refused both ways.
pub const MAX_SUBSCRIPTIONS: usize = 100;

/// How many property tags a subscription may have: as many as its count can say.
pub const MAX_PROPERTIES: usize = 0xffff;

const MIN_SUBSCRIPTION_OCTETS: usize = 4 + 2 + 8 + 8 + 2;
const PROPERTY_OCTETS: usize = 4;

/// One subscription of a session (RopRegisterNotification), or a table that it has open.
///
/// ```text
/// 0   u32 handle
/// 4   u16 flags
/// 6   u64 fid
/// 14  u64 mid
/// 22  u16 k
/// 24  k times u32: property tags
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Subscription {
    /// The handle of the notification, one of a kind in its session.
    pub handle: u32,
    /// What to be told, a sum of: 0x0001 whole store, 0x0002 new mail, 0x0004 created, 0x0008 deleted,
    /// 0x0010 modified, 0x0020 moved, 0x0040 copied, 0x0080 search completed, 0x0100 table modified,
    /// 0x0400 reserved. Kept as it is, unknown bits too.
    pub flags: u16,
    /// The folder, 0 for the whole store.
    pub fid: u64,
    /// The message, or 0.
    pub mid: u64,
    /// The columns of the table, in order.
    pub properties: Vec<u32>,
}

/// The subscriptions of one emsmdb session.
///
/// ```text
/// 0  u8  1
/// 1  u32 n
/// 5  u32 n again
/// 9  n subscriptions
/// ```
///
/// Reading takes an empty value for no subscriptions and ignores what follows the last one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubscriptionRecord {
    /// In the order in which they were made.
    pub subscriptions: Vec<Subscription>,
}

impl SubscriptionRecord {
    /// Adds a subscription, under OpenChange's rule that a handle stands in a session once.
    pub fn add(&mut self, subscription: Subscription) -> Result<(), EncodeError> {
        if self.subscriptions.iter().any(|present| present.handle == subscription.handle) {
            return Err(EncodeError::DuplicateHandle { handle: subscription.handle });
        }
        let count = self.subscriptions.len() + 1;
        if count > MAX_SUBSCRIPTIONS {
            return Err(EncodeError::TooMany { what: "subscriptions", count, max: MAX_SUBSCRIPTIONS });
        }
        self.subscriptions.push(subscription);
        Ok(())
    }

    /// The octets of the record.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut writer = Writer::new();
        writer.version();
        writer.counts("subscriptions", self.subscriptions.len(), MAX_SUBSCRIPTIONS)?;
        for subscription in &self.subscriptions {
            subscription.write(&mut writer)?;
        }
        Ok(writer.finish())
    }

    /// Reads a record.
    pub fn decode(octets: &[u8]) -> Result<Self, DecodeError> {
        if octets.is_empty() {
            return Ok(Self::default());
        }
        let mut reader = Reader::new(octets);
        reader.version()?;
        let count = reader.counts("subscriptions", MAX_SUBSCRIPTIONS, MIN_SUBSCRIPTION_OCTETS)?;
        let mut subscriptions = Vec::with_capacity(count);
        for _ in 0..count {
            subscriptions.push(Subscription::read(&mut reader)?);
        }
        Ok(Self { subscriptions })
    }
}

impl Subscription {
    fn write(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        let count = self.properties.len();
        let too_many = EncodeError::TooMany { what: "property tags", count, max: MAX_PROPERTIES };
        let count = u16::try_from(count).map_err(|_| too_many)?;
        writer.u32(self.handle);
        writer.u16(self.flags);
        writer.u64(self.fid);
        writer.u64(self.mid);
        writer.u16(count);
        for property in &self.properties {
            writer.u32(*property);
        }
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let handle = reader.u32("handle")?;
        let flags = reader.u16("flags")?;
        let fid = reader.u64("fid")?;
        let mid = reader.u64("mid")?;
        let count = usize::from(reader.u16("count of property tags")?);
        reader.holds("property tags", count, PROPERTY_OCTETS)?;
        let mut properties = Vec::with_capacity(count);
        for _ in 0..count {
            properties.push(reader.u32("property tag")?);
        }
        Ok(Self { handle, flags, fid, mid, properties })
    }
}

/// The key of a [`SubscriptionRecord`]: the GUID of the emsmdb session, lower case and without braces.
pub fn subscription_key(session: &Uuid) -> String {
    format!("subscription:{}", session.hyphenated())
}

#[cfg(test)]
mod tests {
    use super::{super::Malformed, *};

    fn subscription(handle: u32, properties: &[u32]) -> Subscription {
        Subscription { handle, flags: 0x100, fid: 1, mid: 0, properties: properties.to_vec() }
    }

    fn many(count: u32) -> SubscriptionRecord {
        SubscriptionRecord { subscriptions: (0..count).map(|handle| subscription(handle, &[])).collect() }
    }

    #[test]
    fn one_table_with_a_column() {
        let record = SubscriptionRecord { subscriptions: vec![subscription(0x42, &[0x0037_001f])] };
        let octets =
            b"\x01\x01\0\0\0\x01\0\0\0\x42\0\0\0\0\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x1f\0\x37\0";
        assert_eq!(record.encode().unwrap(), octets);
        assert_eq!(SubscriptionRecord::decode(octets).unwrap(), record);
        assert_eq!(SubscriptionRecord::decode(&[octets, b"zz".as_slice()].concat()).unwrap(), record);
        for length in 1..octets.len() {
            let error = SubscriptionRecord::decode(&octets[..length]).unwrap_err();
            assert!(matches!(error.reason(), Malformed::Truncated { .. }), "{length}: {error}");
            assert!(error.offset() <= length, "{length}: {error}");
        }
    }

    #[test]
    fn nothing_reads_as_no_subscriptions() {
        assert_eq!(SubscriptionRecord::decode(b"").unwrap(), many(0));
        assert_eq!(SubscriptionRecord::decode(b"\x01\0\0\0\0\0\0\0\0").unwrap(), many(0));
    }

    #[test]
    fn the_101st_is_refused_on_adding_writing_and_reading() {
        let mut record = many(100);
        let mut octets = record.encode().unwrap();
        assert_eq!(SubscriptionRecord::decode(&octets).unwrap(), record);
        assert_eq!(
            record.add(subscription(100, &[])).unwrap_err().to_string(),
            "101 subscriptions, at most 100 fit"
        );
        assert_eq!(many(101).encode().unwrap_err().to_string(), "101 subscriptions, at most 100 fit");

        octets[1] = 101;
        octets[5] = 101;
        octets.extend_from_slice(&[0; MIN_SUBSCRIPTION_OCTETS]);
        assert_eq!(
            SubscriptionRecord::decode(&octets).unwrap_err().to_string(),
            "at octet 1: 101 subscriptions, at most 100 are allowed"
        );
    }

    #[test]
    fn a_handle_is_added_once() {
        let mut record = SubscriptionRecord::default();
        record.add(subscription(0x42, &[])).unwrap();
        assert_eq!(
            record.add(subscription(0x42, &[1])).unwrap_err().to_string(),
            "handle 0x42 is subscribed already"
        );
        record.add(subscription(0x43, &[])).unwrap();
        assert_eq!(record.subscriptions.len(), 2);
    }

    #[test]
    fn counts_that_disagree_and_other_versions_are_errors() {
        let mut octets = many(1).encode().unwrap();
        octets[5] = 2;
        assert_eq!(
            SubscriptionRecord::decode(&octets).unwrap_err().to_string(),
            "at octet 5: the two counts of subscriptions, 1 and 2, disagree"
        );
        octets[0] = 0;
        assert_eq!(
            SubscriptionRecord::decode(&octets).unwrap_err().reason(),
            &Malformed::Version { found: 0 }
        );
    }

    #[test]
    fn more_property_tags_than_the_count_can_say_are_refused() {
        let full = SubscriptionRecord { subscriptions: vec![subscription(1, &vec![7; MAX_PROPERTIES])] };
        assert_eq!(SubscriptionRecord::decode(&full.encode().unwrap()).unwrap(), full);
        let over = SubscriptionRecord { subscriptions: vec![subscription(1, &vec![7; MAX_PROPERTIES + 1])] };
        assert_eq!(over.encode().unwrap_err().to_string(), "65536 property tags, at most 65535 fit");
    }

    #[test]
    fn a_large_tag_count_in_a_small_record_reserves_nothing() {
        let mut octets = many(1).encode().unwrap();
        let count_at = octets.len() - 2;
        octets[count_at..].copy_from_slice(b"\xff\xff");
        assert_eq!(
            SubscriptionRecord::decode(&octets).unwrap_err().to_string(),
            "at octet 33: the input ends too early for the property tags: at least 262140 octets needed, 0 left"
        );
    }
}
