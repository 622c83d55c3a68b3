use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::{DecodeError, EncodeError};
use super::{VERSION, msgpack};

/// One native endpoint of a user, and until when it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The endpoint's URL, compared whole.
    #[serde(rename = "ep")]
    pub endpoint: String,
    /// The subscriber process that holds it: another id under the same URL is another process.
    #[serde(rename = "sub")]
    pub subscriber: Uuid,
    /// When it ends, in milliseconds since the Unix epoch.
    #[serde(rename = "end")]
    pub until_ms: u64,
    /// The OpenChange v1 endpoint of the same subscriber for this user, if it has one: publishers that send
    /// here leave that one out.
    #[serde(rename = "leg", default, skip_serializing_if = "Option::is_none")]
    pub legacy: Option<String>,
    /// Events that publishers could not deliver here since the holder last renewed: it resyncs and clears it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The value under `ocbus:<cn>`: who listens for the user at native endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    v: u32,
    #[serde(rename = "ls", deserialize_with = "msgpack::bounded::<{ LeaseRecord::MAX_LEASES }, _, _>")]
    /// The leases, oldest first.
    pub leases: Vec<Lease>,
}

impl Default for LeaseRecord {
    fn default() -> LeaseRecord {
        LeaseRecord { v: VERSION, leases: Vec::new() }
    }
}

impl LeaseRecord {
    /// The most leases of one user.
    pub const MAX_LEASES: usize = 4096;

    /// The largest record: memcached's default limit for a value.
    pub const MAX_OCTETS: usize = 1024 * 1024;

    /// A record of these leases.
    pub fn new(leases: Vec<Lease>) -> LeaseRecord {
        LeaseRecord { v: VERSION, leases }
    }

    /// The octets to store.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        if self.leases.len() > LeaseRecord::MAX_LEASES {
            return Err(EncodeError::TooMany {
                what: "leases",
                count: self.leases.len(),
                limit: LeaseRecord::MAX_LEASES,
            });
        }
        msgpack::encode(self, LeaseRecord::MAX_OCTETS)
    }

    /// Reads a stored record. An empty value has no leases.
    pub fn decode(octets: &[u8]) -> Result<LeaseRecord, DecodeError> {
        if octets.is_empty() {
            return Ok(LeaseRecord::default());
        }
        msgpack::decode_versioned(octets, LeaseRecord::MAX_OCTETS, |record: &LeaseRecord| record.v)
    }
}
