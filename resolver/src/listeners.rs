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
    /// Native endpoints whose lease has ended; they get nothing.
    pub expired: Vec<Lease>,
    /// Records that could not be read. They were skipped.
    pub malformed: Vec<Malformed>,
    /// Nobody is found, on a server that took the user over less than 10 s ago: it stands in for one that failed
    /// (`--REMOVE-FAILED-SERVERS`), or has just come back. Whoever listens may not have registered there yet, so that it
    /// does not mean that nobody does.
    pub unsettled: bool,
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

    /// Of the leases that have ended those whose holders have not been told. Either they crashed, or their clocks are
    /// behind this one by more than a lease; then they renew, and learn of what they miss by a mark.
    pub fn ended(&self) -> impl Iterator<Item = &Lease> {
        self.expired.iter().filter(|lease| lease.missed == 0)
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
