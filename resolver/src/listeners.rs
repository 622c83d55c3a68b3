use std::collections::HashSet;

use ocbus_wire::native::{Lease, LeaseRecord};
use ocbus_wire::openchange::{DosCharset, ResolverRecord};

use crate::cn::Cn;

/// Who listens for a user, from both records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listeners {
    /// Native endpoints whose lease holds.
    pub native: Vec<Lease>,
    /// OpenChange's endpoints, as they stand in the record, each once.
    pub legacy: Vec<String>,
    /// Native endpoints whose lease has ended; they get nothing. All of them expired while the record still
    /// stands in memcached means that clocks differ.
    pub expired: Vec<Lease>,
    /// Records that could not be read. They were skipped.
    pub malformed: Vec<Malformed>,
}

/// A record that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// Its key.
    pub key: String,
    /// What is wrong with it, and where.
    pub why: String,
}

impl Listeners {
    /// Whether nobody listens.
    pub fn is_empty(&self) -> bool {
        self.native.is_empty() && self.legacy.is_empty()
    }

    /// Reads both records. `now_ms`: milliseconds since the Unix epoch.
    pub(crate) fn read(
        cn: &Cn,
        leases: Option<&[u8]>,
        hosts: Option<&[u8]>,
        charset: DosCharset,
        now_ms: u64,
    ) -> Listeners {
        let mut listeners = Listeners::default();
        match LeaseRecord::decode(leases.unwrap_or_default()) {
            Ok(record) => {
                for lease in record.leases {
                    match lease.until_ms > now_ms {
                        true => listeners.native.push(lease),
                        false => listeners.expired.push(lease),
                    }
                }
            }
            Err(error) => {
                listeners.malformed.push(Malformed { key: cn.lease_key(), why: error.to_string() });
            }
        }
        match ResolverRecord::decode(hosts.unwrap_or_default(), charset) {
            Ok(record) => {
                // A set: OpenChange's records hold dead endpoints by the thousand, and a delivery waits for this.
                let mut seen = HashSet::with_capacity(record.hosts.len());
                listeners.legacy =
                    record.hosts.into_iter().filter(|host| seen.insert(host.clone())).collect();
            }
            Err(error) => {
                listeners.malformed.push(Malformed { key: cn.resolver_key(), why: error.to_string() });
            }
        }
        listeners
    }
}
