//! What a call does to a record: functions from the stored octets to the new ones. No I/O, no clock, so that an
//! edit can be made again on what somebody else wrote meanwhile.

use std::collections::HashSet;
use std::time::Duration;

use ocbus_wire::native::{DecodeError, Lease, LeaseRecord};
use ocbus_wire::openchange::{DosCharset, ResolverRecord};
use uuid::Uuid;

use crate::cn::Cn;
use crate::error::ResolverError;

/// How long ago a lease must have ended before whoever writes the record drops it. Others' clocks differ from ours: what
/// has ended by ours alone is a live holder's. Readers do not send to it meanwhile.
const GRACE_MS: u64 = 10 * 60 * 1000;

/// How long a record is kept that has ended leases only: its holders, if they live, renew them by then.
const ENDED_MS: u64 = 60 * 1000;

/// What an edit makes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// It stays as it is.
    Keep,
    /// It stays as it is, and its copies, if there are any, are made so: one that forgot, or that was away when the
    /// record was written, has it otherwise. For a record that never expires; another's copies go with its leases.
    Mend,
    /// It gets this value, and expires after this long; `None` is never.
    Put { value: Vec<u8>, expiry: Option<Duration> },
    /// It goes, with its last entry.
    Delete,
}

/// One read-modify-write of one record.
pub(crate) trait Edit {
    /// What the caller learns.
    type Outcome;

    /// Attempts before a record that others keep changing is given up. One writer succeeds in each round, so this
    /// many can write one record at the same instant.
    const MAX_ATTEMPTS: u32 = 64;

    /// The record's key.
    fn key(&self) -> String;

    /// The change to the stored value; called again when another writer came first.
    fn apply(&mut self, current: Option<&[u8]>) -> Result<(Change, Self::Outcome), ResolverError>;

    /// Whether it usually puts octets behind the value: then its size is asked for, and not the value.
    fn appends(&self) -> bool {
        false
    }

    /// What to put behind a value of so many octets; `None`: the value must be read.
    fn append(&mut self, _octets: usize) -> Option<(Vec<u8>, Self::Outcome)> {
        None
    }

    /// What the caller learns when the store fails in the middle.
    fn failed(self, error: ResolverError) -> Result<Self::Outcome, ResolverError>
    where
        Self: Sized,
    {
        Err(error)
    }
}

/// What became of a registration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registered {
    /// The endpoint did not stand in the record. For a renewal: somebody had removed or forgotten it.
    pub new: bool,
    /// Events that publishers told they could not deliver since the last renewal.
    pub missed: u64,
}

/// What the sends of one transaction mean for a user's records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settlement {
    /// Native endpoints to remove, as they were looked up: a lease renewed since then stays.
    pub gone: Vec<Lease>,
    /// Native endpoints that missed events, with how many.
    pub missed: Vec<(Lease, u64)>,
    /// Legacy endpoints to remove.
    pub gone_legacy: Vec<String>,
}

impl Settlement {
    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.missed.is_empty() && self.gone_legacy.is_empty()
    }
}

/// What a subscriber registers for a user.
#[derive(Debug, Clone, Copy)]
pub struct Registration<'a> {
    /// Its native endpoint.
    pub endpoint: &'a str,
    /// Its OpenChange v1 endpoint for this user, if it has one: publishers that reach the native one leave
    /// that one out.
    pub legacy: Option<&'a str>,
    /// Its id: another id under the same endpoint is another process.
    pub subscriber: Uuid,
    /// How long it holds without renewal.
    pub lease: Duration,
}

/// Registers or renews a native endpoint, or a member of a group: the record is the same, its key another.
pub(crate) struct Register<'a> {
    pub(crate) key: String,
    pub(crate) registration: Registration<'a>,
    pub(crate) now_ms: u64,
    /// What was found so far. A write that was answered with no may have happened (it was repeated on another
    /// connection, and found its own work): what it replaced is told all the same.
    pub(crate) found: Registered,
}

/// Takes a native endpoint or a member out, if it is still this subscriber's.
pub(crate) struct Leave<'a> {
    pub(crate) key: String,
    pub(crate) endpoint: &'a str,
    pub(crate) subscriber: Uuid,
    pub(crate) now_ms: u64,
}

/// Removes and marks native endpoints after sends.
pub(crate) struct SettleNative<'a> {
    pub(crate) cn: &'a Cn,
    pub(crate) settlement: &'a Settlement,
    pub(crate) now_ms: u64,
}

/// Adds or removes legacy endpoints.
pub(crate) struct EditLegacy<'a> {
    pub(crate) cn: &'a Cn,
    pub(crate) add: Option<&'a str>,
    pub(crate) remove: &'a [String],
    pub(crate) charset: DosCharset,
}

/// The leases of a stored record, or why it is garbage. One of a newer ocbus is left alone.
fn decoded(key: &str, current: Option<&[u8]>) -> Result<Result<Vec<Lease>, DecodeError>, ResolverError> {
    match LeaseRecord::decode(current.unwrap_or_default()) {
        Ok(record) => Ok(Ok(record.leases)),
        Err(source @ DecodeError::Version { .. }) => {
            Err(ResolverError::Record { key: key.to_owned(), source })
        }
        Err(error) => Ok(Err(error)),
    }
}

/// The same for who only takes out or marks: garbage has no leases, and stays.
fn leases(key: &str, current: Option<&[u8]>) -> Result<Vec<Lease>, ResolverError> {
    Ok(decoded(key, current)?.unwrap_or_default())
}

/// Says that whoever registers writes over garbage.
fn replaces(key: &str, error: &impl std::fmt::Display) {
    tracing::warn!(event = "record_replaced", key, reason = %error, "a malformed record is replaced");
}

/// The change that stores these leases; those that ended long ago are dropped on the way, and all that have ended
/// where there would be too many.
fn store(key: &str, mut leases: Vec<Lease>, now_ms: u64) -> Result<Change, ResolverError> {
    leases.retain(|lease| lease.until_ms.saturating_add(GRACE_MS) > now_ms);
    if leases.len() > LeaseRecord::MAX_LEASES {
        leases.retain(|lease| lease.until_ms > now_ms);
    }
    let Some(last_ms) = leases.iter().map(|lease| lease.until_ms).max() else {
        return Ok(Change::Delete);
    };
    let unwritable = |why: String| ResolverError::Unwritable { key: key.to_owned(), why };
    if leases.len() > LeaseRecord::MAX_LEASES {
        return Err(unwritable(format!(
            "{} leases: expected at most {}",
            leases.len(),
            LeaseRecord::MAX_LEASES
        )));
    }
    let value = LeaseRecord::new(leases).encode().map_err(|error| unwritable(error.to_string()))?;
    let expiry_ms = last_ms.checked_sub(now_ms).filter(|left| *left > 0).unwrap_or(ENDED_MS);
    Ok(Change::Put { value, expiry: Some(Duration::from_millis(expiry_ms)) })
}

impl Edit for Register<'_> {
    type Outcome = Registered;

    fn key(&self) -> String {
        self.key.clone()
    }

    fn apply(&mut self, current: Option<&[u8]>) -> Result<(Change, Registered), ResolverError> {
        let key = self.key();
        let mut leases = decoded(&key, current)?.unwrap_or_else(|error| {
            replaces(&key, &error);
            Vec::new()
        });
        let Registration { endpoint, legacy, subscriber, lease } = self.registration;
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let renewed = Lease {
            endpoint: endpoint.to_owned(),
            subscriber,
            until_ms: self.now_ms.saturating_add(lease_ms),
            legacy: legacy.map(str::to_owned),
            missed: 0,
        };
        let mut new = true;
        // Another subscriber under this endpoint is a former process: its socket is ours now.
        match leases.iter_mut().find(|lease| lease.endpoint == endpoint) {
            Some(lease) => {
                let ours = lease.subscriber == subscriber && lease.until_ms == renewed.until_ms;
                new = match ours {
                    // By this very call. (Another task's of ours ends at another time.)
                    true => self.found.new,
                    // One that has ended was not sent to any more.
                    false => lease.subscriber != subscriber || lease.until_ms <= self.now_ms,
                };
                self.found.missed = self.found.missed.max(lease.missed);
                *lease = renewed;
            }
            None => leases.push(renewed),
        }
        self.found.new = new;
        Ok((store(&key, leases, self.now_ms)?, self.found))
    }
}

impl Edit for Leave<'_> {
    type Outcome = bool;

    fn key(&self) -> String {
        self.key.clone()
    }

    fn apply(&mut self, current: Option<&[u8]>) -> Result<(Change, bool), ResolverError> {
        let key = self.key();
        if current.is_none() {
            return Ok((Change::Keep, false));
        }
        let mut leases = leases(&key, current)?;
        let before = leases.len();
        leases.retain(|lease| lease.endpoint != self.endpoint || lease.subscriber != self.subscriber);
        match leases.len() == before {
            true => Ok((Change::Keep, false)),
            false => Ok((store(&key, leases, self.now_ms)?, true)),
        }
    }
}

impl Edit for SettleNative<'_> {
    type Outcome = usize;

    fn key(&self) -> String {
        self.cn.lease_key()
    }

    fn apply(&mut self, current: Option<&[u8]>) -> Result<(Change, usize), ResolverError> {
        let key = self.key();
        let before = leases(&key, current)?;
        let mut after = before.clone();
        after.retain(|lease| {
            !self.settlement.gone.iter().any(|gone| {
                // A lease that was renewed after the look-up has a live holder.
                (&gone.endpoint, gone.subscriber, gone.until_ms)
                    == (&lease.endpoint, lease.subscriber, lease.until_ms)
            })
        });
        let removed = before.len() - after.len();
        for (missed, count) in &self.settlement.missed {
            let same = |lease: &&mut Lease| {
                lease.endpoint == missed.endpoint && lease.subscriber == missed.subscriber
            };
            if let Some(lease) = after.iter_mut().find(same) {
                lease.missed = lease.missed.saturating_add(*count);
            }
        }
        match after == before {
            true => Ok((Change::Keep, 0)),
            false => Ok((store(&key, after, self.now_ms)?, removed)),
        }
    }
}

impl Edit for EditLegacy<'_> {
    type Outcome = bool;

    fn key(&self) -> String {
        self.cn.resolver_key()
    }

    fn apply(&mut self, current: Option<&[u8]>) -> Result<(Change, bool), ResolverError> {
        let key = self.key();
        let mut hosts = match ResolverRecord::decode(current.unwrap_or_default(), self.charset) {
            Ok(record) => record.hosts,
            // OpenChange crashed on it; nobody can be found through it.
            Err(error) => {
                if self.add.is_some() {
                    replaces(&key, &error);
                }
                Vec::new()
            }
        };
        let before = hosts.len();
        let remove: HashSet<&String> = self.remove.iter().collect();
        hosts.retain(|host| !remove.contains(host));
        let removed = hosts.len() != before;
        let add = self.add.filter(|add| !hosts.iter().any(|host| host == add));
        hosts.extend(add.map(str::to_owned));
        if !removed && add.is_none() {
            return Ok((Change::Mend, false));
        }
        if hosts.is_empty() {
            return Ok((Change::Delete, true));
        }
        let value = ResolverRecord { hosts }
            .encode(self.charset)
            .map_err(|error| ResolverError::Unwritable { key, why: error.to_string() })?;
        // OpenChange's records never expire.
        Ok((Change::Put { value, expiry: None }, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listeners::Listeners;
    use crate::update::{Item, Request, Response, Step, Update, Version};

    const NOW: u64 = 1_000_000;

    fn cn() -> Cn {
        Cn::new("bob").unwrap()
    }

    fn register(
        current: Option<&[u8]>,
        endpoint: &str,
        subscriber: Uuid,
        now_ms: u64,
    ) -> (Change, Registered) {
        let registration =
            Registration { endpoint, legacy: None, subscriber, lease: Duration::from_secs(60) };
        let found = Registered::default();
        Register { key: cn().lease_key(), registration, now_ms, found }.apply(current).unwrap()
    }

    fn value(change: &Change) -> &[u8] {
        match change {
            Change::Put { value, .. } => value,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_lease_is_new_then_renewed_and_ends() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (one, registered) = register(None, "tcp://h:9005", a, NOW);
        assert_eq!(registered, Registered { new: true, missed: 0 });
        assert!(matches!(one, Change::Put { expiry: Some(expiry), .. } if expiry == Duration::from_secs(60)));
        let (two, registered) = register(Some(value(&one)), "tcp://h:90", b, NOW + 1000);
        assert!(registered.new, "an endpoint that is a prefix of another is another endpoint");
        let (renewed, registered) = register(Some(value(&two)), "tcp://h:9005", a, NOW + 30_000);
        assert!(!registered.new);
        let listeners =
            Listeners::read(&cn(), Some(value(&renewed)), None, DosCharset::default(), NOW + 61_500);
        assert_eq!(listeners.native.len(), 1);
        assert_eq!(listeners.expired.len(), 1);
        let (taken_over, registered) = register(Some(value(&renewed)), "tcp://h:9005", b, NOW + 62_000);
        assert!(registered.new, "the same endpoint under another process");
        let later = NOW + 61_000 + GRACE_MS;
        let leases = |change: &Change| LeaseRecord::decode(value(change)).unwrap().leases.len();
        assert_eq!(leases(&taken_over), 2, "its holder's clock may be behind ours");
        let (renewed, _) = register(Some(value(&taken_over)), "tcp://h:9005", b, later - 1);
        assert_eq!(leases(&renewed), 2);
        let (renewed, _) = register(Some(value(&taken_over)), "tcp://h:9005", b, later);
        assert_eq!(leases(&renewed), 1, "what ended long ago is dropped by whoever writes next");
    }

    /// Each write of a host whose clock is ahead by more than a lease.
    #[test]
    fn a_clock_ahead_of_the_others_takes_no_live_lease_out() {
        const AHEAD: u64 = NOW + 61_000;
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (one, _) = register(None, "tcp://h:1", a, NOW);
        let live = |change: &Change| {
            let read = Listeners::read(&cn(), Some(value(change)), None, DosCharset::default(), NOW + 1000);
            read.native.iter().any(|lease| lease.subscriber == a)
        };
        let (two, _) = register(Some(value(&one)), "tcp://h:2", b, AHEAD);
        assert!(live(&two));
        let (left, _) = Leave { key: cn().lease_key(), endpoint: "tcp://h:2", subscriber: b, now_ms: AHEAD }
            .apply(Some(value(&two)))
            .unwrap();
        assert!(live(&left));
        assert!(
            matches!(left, Change::Put { expiry: Some(expiry), .. } if expiry == Duration::from_secs(60)),
            "until its holder renews it: {left:?}"
        );
        let missed = LeaseRecord::decode(value(&two)).unwrap().leases;
        let settlement = Settlement { missed: vec![(missed[1].clone(), 3)], ..Settlement::default() };
        let mut settle = SettleNative { cn: &cn(), settlement: &settlement, now_ms: AHEAD };
        assert!(live(&settle.apply(Some(value(&two))).unwrap().0));
    }

    fn lease(n: usize) -> Lease {
        Lease {
            endpoint: format!("tcp://h:{n}"),
            subscriber: Uuid::from_u128(1),
            until_ms: NOW + 1000,
            legacy: None,
            missed: 0,
        }
    }

    #[test]
    fn ended_leases_take_no_place_from_live_ones() {
        let full = LeaseRecord::new((0..LeaseRecord::MAX_LEASES).map(lease).collect()).encode().unwrap();
        let (change, _) = register(Some(&full), "tcp://x:1", Uuid::from_u128(2), NOW + 2000);
        assert_eq!(LeaseRecord::decode(value(&change)).unwrap().leases.len(), 1);
    }

    #[test]
    fn only_the_holder_leaves() {
        let (one, _) = register(None, "ipc:///a", Uuid::from_u128(1), NOW);
        let leave = |subscriber| {
            Leave { key: cn().lease_key(), endpoint: "ipc:///a", subscriber, now_ms: NOW }
                .apply(Some(value(&one)))
                .unwrap()
        };
        assert_eq!(leave(Uuid::from_u128(2)), (Change::Keep, false));
        assert_eq!(leave(Uuid::from_u128(1)), (Change::Delete, true));
    }

    #[test]
    fn a_refused_endpoint_goes_unless_it_was_renewed_meanwhile() {
        let (one, _) = register(None, "tcp://h:1", Uuid::from_u128(1), NOW);
        let seen = LeaseRecord::decode(value(&one)).unwrap().leases;
        let settlement = Settlement { gone: seen.clone(), ..Settlement::default() };
        let settle = |current: &[u8]| {
            SettleNative { cn: &cn(), settlement: &settlement, now_ms: NOW + 10 }
                .apply(Some(current))
                .unwrap()
        };
        assert_eq!(settle(value(&one)), (Change::Delete, 1));
        let (renewed, _) = register(Some(value(&one)), "tcp://h:1", Uuid::from_u128(1), NOW + 5);
        assert_eq!(settle(value(&renewed)), (Change::Keep, 0));
    }

    #[test]
    fn what_was_missed_is_told_at_the_next_renewal_once() {
        let (one, _) = register(None, "tcp://h:1", Uuid::from_u128(1), NOW);
        let seen = LeaseRecord::decode(value(&one)).unwrap().leases;
        let settlement = Settlement { missed: vec![(seen[0].clone(), 3)], ..Settlement::default() };
        let mut edit = SettleNative { cn: &cn(), settlement: &settlement, now_ms: NOW };
        let (marked, _) = edit.apply(Some(value(&one))).unwrap();
        let (renewed, registered) = register(Some(value(&marked)), "tcp://h:1", Uuid::from_u128(1), NOW + 5);
        assert_eq!(registered, Registered { new: false, missed: 3 });
        let (_, registered) = register(Some(value(&renewed)), "tcp://h:1", Uuid::from_u128(1), NOW + 9);
        assert_eq!(registered.missed, 0);
    }

    /// The write is stored, its connection ends before the answer, and over another one it is not sent again: the
    /// record is read again, and is our own.
    #[test]
    fn what_a_write_without_an_answer_replaced_is_told() {
        let item = |value: &[u8]| {
            let version = Version { cas: 1, server: 0, dialled: 1 };
            Response::Items(vec![Some(Item { value: value.to_vec(), version })])
        };
        let registration = Registration {
            endpoint: "tcp://h:1",
            legacy: None,
            subscriber: Uuid::from_u128(1),
            lease: Duration::from_secs(60),
        };
        let (one, _) = register(None, "tcp://h:1", Uuid::from_u128(1), NOW);
        let mut marked = LeaseRecord::decode(value(&one)).unwrap().leases;
        marked[0].missed = 3;
        let marked = LeaseRecord::new(marked).encode().unwrap();
        for (before, expected) in [
            (item(&marked), Registered { new: false, missed: 3 }),
            (Response::Items(vec![None]), Registered { new: true, missed: 0 }),
        ] {
            let found = Registered::default();
            let mut update =
                Update::new(Register { key: cn().lease_key(), registration, now_ms: NOW, found });
            let Step::Ask(Request::Put { value, .. }) = update.step(before).unwrap() else { panic!() };
            assert!(matches!(update.step(Response::NotDone).unwrap(), Step::Ask(Request::Get { .. })));
            assert!(matches!(update.step(item(&value)).unwrap(), Step::Ask(Request::Put { .. })));
            let Step::Over(registered) = update.step(Response::Done).unwrap() else { panic!() };
            assert_eq!(registered, expected);
        }
        // Another task of ours was first: that is no loss.
        let (first, _) = register(None, "tcp://h:1", Uuid::from_u128(1), NOW + 1);
        let found = Registered::default();
        let mut update = Update::new(Register { key: cn().lease_key(), registration, now_ms: NOW, found });
        update.step(Response::Items(vec![None])).unwrap();
        update.step(Response::NotDone).unwrap();
        update.step(item(value(&first))).unwrap();
        let Step::Over(registered) = update.step(Response::Done).unwrap() else { panic!() };
        assert_eq!(registered, Registered { new: false, missed: 0 });
    }

    #[test]
    fn garbage_is_replaced_and_a_newer_version_left_alone() {
        assert!(register(Some(b"garbage"), "tcp://h:1", Uuid::from_u128(1), NOW).1.new);
        let newer = [0x82, 0xa1, b'v', 9, 0xa2, b'l', b's', 0x07];
        let registration = Registration {
            endpoint: "tcp://h:1",
            legacy: None,
            subscriber: Uuid::from_u128(1),
            lease: Duration::from_secs(1),
        };
        let found = Registered::default();
        let applied =
            Register { key: cn().lease_key(), registration, now_ms: NOW, found }.apply(Some(&newer));
        assert!(matches!(applied, Err(ResolverError::Record { .. })));
    }

    fn legacy(current: Option<&[u8]>, add: Option<&str>, remove: &[&str]) -> (Change, bool) {
        let remove: Vec<String> = remove.iter().map(|&host| host.to_owned()).collect();
        let charset = DosCharset::default();
        EditLegacy { cn: &cn(), add, remove: &remove, charset }.apply(current).unwrap()
    }

    #[test]
    fn only_who_writes_over_garbage_says_so() {
        let settlement = Settlement { missed: vec![(lease(1), 1)], ..Settlement::default() };
        let said = |edit: &dyn Fn() -> Change| {
            let mut kept = None;
            let said = crate::logged::events(|| kept = Some(matches!(edit(), Change::Keep | Change::Mend)));
            (kept.unwrap(), said)
        };
        let kept = (true, Vec::new());
        let garbage = Some(&b"garbage"[..]);
        assert_eq!(
            said(&|| SettleNative { cn: &cn(), settlement: &settlement, now_ms: NOW }
                .apply(garbage)
                .unwrap()
                .0),
            kept
        );
        let leave = |subscriber| {
            Leave { key: cn().lease_key(), endpoint: "tcp://h:1", subscriber, now_ms: NOW }.apply(garbage)
        };
        assert_eq!(said(&|| leave(Uuid::from_u128(1)).unwrap().0), kept);
        assert_eq!(said(&|| legacy(garbage, None, &["tcp://h:1"]).0), kept);
        let replaced = (false, vec!["record_replaced".to_owned()]);
        assert_eq!(said(&|| register(garbage, "tcp://h:1", Uuid::from_u128(1), NOW).0), replaced);
        assert_eq!(said(&|| legacy(garbage, Some("tcp://h:1"), &[]).0), replaced);
    }

    #[test]
    fn legacy_endpoints_compare_whole() {
        let (one, added) = legacy(None, Some("tcp://h:9005"), &[]);
        assert!(added);
        assert_eq!(legacy(Some(value(&one)), Some("tcp://h:9005"), &[]), (Change::Mend, false));
        let (two, added) = legacy(Some(value(&one)), Some("tcp://h:90"), &[]);
        assert!(added, "a prefix of another endpoint is another endpoint");
        let (left, removed) = legacy(Some(value(&two)), None, &["tcp://h:90", "tcp://h:9", ""]);
        assert!(removed);
        assert_eq!(value(&left), value(&one));
        assert_eq!(legacy(Some(value(&left)), None, &["tcp://h:9005"]), (Change::Delete, true));
        assert_eq!(legacy(None, None, &["tcp://h:9005"]), (Change::Mend, false));
    }

    #[test]
    fn a_legacy_record_is_written_as_openchange_writes_it() {
        let (change, _) = legacy(None, Some("tcp://127.0.0.1:9005"), &[]);
        let golden = "0101000000010000007463703a2f2f3132372e302e302e313a3930303500";
        let hex: String = value(&change).iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(hex, golden);
        assert!(matches!(change, Change::Put { expiry: None, .. }));
    }
}
