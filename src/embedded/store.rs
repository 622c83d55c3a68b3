//! Records with expiry, versions and a bound on memory. No I/O and no clock: `now_ms` is the time in milliseconds
//! since the Unix epoch, by which all calls go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The longest key, as memcached has it.
pub(super) const MAX_KEY: usize = 250;

/// The largest value, as memcached's default has it.
pub(super) const MAX_VALUE: usize = 1024 * 1024;

/// What a record takes beside its key (which stands in two places, once) and its value: both tables' entries.
const OVERHEAD: usize = 200;

/// memcached reads an expiry above 30 days as a point in time.
const LONGEST_RELATIVE_S: i64 = 30 * 24 * 60 * 60;

/// When a record ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    Never,
    AtMs(u64),
    /// It has ended already.
    Over,
}

impl Expiry {
    /// As a client says it: 0 is never, up to 30 days are seconds from now, more is a point in time in seconds since
    /// the Unix epoch, and what is negative or past has ended.
    pub(super) fn of(said_s: i64, now_ms: u64) -> Expiry {
        let said_ms = u64::try_from(said_s).ok().and_then(|said| said.checked_mul(1000));
        match said_ms {
            Some(0) => Expiry::Never,
            Some(said) if said_s <= LONGEST_RELATIVE_S => Expiry::AtMs(now_ms.saturating_add(said)),
            Some(said) if said > now_ms => Expiry::AtMs(said),
            _ => Expiry::Over,
        }
    }
}

/// When a write happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Set,
    /// Where there is none.
    Add,
    /// Where there is one.
    Replace,
    /// Behind what is there; keeps its flags and its end.
    Append,
    /// In front, likewise.
    Prepend,
}

/// A write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Put<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) flags: u32,
    pub(super) expiry: Expiry,
    pub(super) mode: Mode,
    /// Only if this is its version.
    pub(super) version: Option<u64>,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has this version now (0 after a delete).
    Done(u64),
    /// The mode forbade it.
    NotStored,
    /// It has another version.
    Exists,
    /// There is none.
    NotFound,
    /// All memory is taken; what was there stays. Nothing is evicted: a registration that is there is worth as much as
    /// a new one, and its holder would not know.
    NoMemory,
    /// The value became longer than any may be.
    TooLarge,
}

/// One record.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) value: Arc<[u8]>,
    pub(super) flags: u32,
    pub(super) version: u64,
    pub(super) ends_ms: Option<u64>,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) gets: u64,
    pub(super) hits: u64,
    pub(super) puts: u64,
    pub(super) refused: u64,
    pub(super) expired: u64,
}

#[derive(Debug)]
pub(super) struct Store {
    items: HashMap<Arc<[u8]>, Item>,
    /// By end and version, which together are one record's own.
    ends: BTreeMap<(u64, u64), Arc<[u8]>>,
    last_version: u64,
    octets: usize,
    max_octets: usize,
    pub(super) counts: Counts,
}

fn cost(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + OVERHEAD
}

impl Store {
    pub(super) fn new(max_octets: usize) -> Store {
        Store {
            items: HashMap::new(),
            ends: BTreeMap::new(),
            last_version: 0,
            octets: 0,
            max_octets,
            counts: Counts::default(),
        }
    }

    /// Records that have not ended, and the memory they take.
    pub(super) fn size(&mut self, now_ms: u64) -> (usize, usize) {
        self.purge(now_ms);
        (self.items.len(), self.octets)
    }

    /// A record. Its value is shared, not copied.
    pub(super) fn get(&mut self, key: &[u8], now_ms: u64) -> Option<Item> {
        self.counts.gets += 1;
        let item = self.live(key, now_ms).cloned();
        self.counts.hits += u64::from(item.is_some());
        item
    }

    /// The length of a value, if there is one, before memory is taken to answer with it.
    pub(super) fn length(&self, key: &[u8]) -> usize {
        self.items.get(key).map_or(0, |item| item.value.len())
    }

    /// A record whose end becomes another; its version stays.
    pub(super) fn touch(&mut self, key: &[u8], expiry: Expiry, now_ms: u64) -> Option<Item> {
        self.counts.gets += 1;
        let mut item = self.live(key, now_ms)?.clone();
        self.counts.hits += 1;
        let (key, _) = self.take(key)?;
        if let Some(ends_ms) = ends(expiry) {
            item.ends_ms = ends_ms;
            self.insert(key, item.clone());
        }
        Some(item)
    }

    pub(super) fn put(&mut self, put: Put<'_>, now_ms: u64) -> Outcome {
        self.counts.puts += 1;
        let Put { key, mode, version, .. } = put;
        let before = self.live(key, now_ms).cloned();
        match (&before, version, mode) {
            (None, Some(_), _) => return Outcome::NotFound,
            (Some(item), Some(version), _) if item.version != version => return Outcome::Exists,
            (Some(_), _, Mode::Add) | (None, _, Mode::Replace | Mode::Append | Mode::Prepend) => {
                return Outcome::NotStored;
            }
            _ => {}
        }
        let joined;
        let (value, flags, ends_ms) = match (&before, mode) {
            (Some(item), Mode::Append | Mode::Prepend) => {
                joined = match mode {
                    Mode::Append => [&item.value, put.value].concat(),
                    _ => [put.value, &item.value].concat(),
                };
                (joined.as_slice(), item.flags, Some(item.ends_ms))
            }
            _ => (put.value, put.flags, ends(put.expiry)),
        };
        if value.len() > MAX_VALUE || key.len() > MAX_KEY {
            return Outcome::TooLarge;
        }
        self.purge(now_ms);
        let freed = before.map_or(0, |item| cost(key, &item.value));
        if self.octets - freed + cost(key, value) > self.max_octets {
            self.counts.refused += 1;
            if self.counts.refused.is_power_of_two() {
                let (octets, max_octets, refused) = (self.octets, self.max_octets, self.counts.refused);
                let why = "a record is refused: expected max_octets with room for all that are registered";
                tracing::warn!(event = "resolver_full", octets, max_octets, refused, "{why}");
            }
            return Outcome::NoMemory;
        }
        let key = self.take(key).map_or_else(|| Arc::from(key), |(key, _)| key);
        self.last_version += 1;
        let version = self.last_version;
        // One that has ended already was stored, and is gone.
        if let Some(ends_ms) = ends_ms {
            self.insert(key, Item { value: Arc::from(value), flags, version, ends_ms });
        }
        Outcome::Done(version)
    }

    pub(super) fn delete(&mut self, key: &[u8], version: Option<u64>, now_ms: u64) -> Outcome {
        match (self.live(key, now_ms), version) {
            (None, _) => Outcome::NotFound,
            (Some(item), Some(version)) if item.version != version => Outcome::Exists,
            (Some(_), _) => {
                self.take(key);
                Outcome::Done(0)
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.ends.clear();
        self.octets = 0;
    }

    /// All keys, and when each ends. Shared, not copied.
    pub(super) fn keys(&mut self, now_ms: u64) -> Vec<(Arc<[u8]>, Item)> {
        self.purge(now_ms);
        self.items.iter().map(|(key, item)| (Arc::clone(key), item.clone())).collect()
    }

    fn live(&mut self, key: &[u8], now_ms: u64) -> Option<&Item> {
        let over = self.items.get(key)?.ends_ms.is_some_and(|ends_ms| ends_ms <= now_ms);
        if over {
            self.take(key);
            self.counts.expired += 1;
        }
        self.items.get(key)
    }

    /// Removes what has ended.
    fn purge(&mut self, now_ms: u64) {
        while let Some((&(ends_ms, _), key)) = self.ends.first_key_value()
            && ends_ms <= now_ms
        {
            let key = Arc::clone(key);
            self.take(&key);
            self.counts.expired += 1;
        }
    }

    fn insert(&mut self, key: Arc<[u8]>, item: Item) {
        self.octets += cost(&key, &item.value);
        if let Some(ends_ms) = item.ends_ms {
            self.ends.insert((ends_ms, item.version), Arc::clone(&key));
        }
        self.items.insert(key, item);
    }

    fn take(&mut self, key: &[u8]) -> Option<(Arc<[u8]>, Item)> {
        let (key, item) = self.items.remove_entry(key)?;
        self.octets -= cost(&key, &item.value);
        if let Some(ends_ms) = item.ends_ms {
            self.ends.remove(&(ends_ms, item.version));
        }
        Some((key, item))
    }
}

/// `None` for what has ended already.
fn ends(expiry: Expiry) -> Option<Option<u64>> {
    match expiry {
        Expiry::Never => Some(None),
        Expiry::AtMs(ends_ms) => Some(Some(ends_ms)),
        Expiry::Over => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn put(key: &'static str, value: &'static str, mode: Mode) -> Put<'static> {
        let (key, value) = (key.as_bytes(), value.as_bytes());
        Put { key, value, flags: 7, expiry: Expiry::Never, mode, version: None }
    }

    fn value(store: &mut Store, key: &str, now_ms: u64) -> Option<String> {
        let item = store.get(key.as_bytes(), now_ms)?;
        Some(String::from_utf8(item.value.to_vec()).unwrap())
    }

    #[test]
    fn an_expiry_is_read_as_memcached_reads_it() {
        assert_eq!(Expiry::of(0, NOW), Expiry::Never);
        assert_eq!(Expiry::of(60, NOW), Expiry::AtMs(NOW + 60_000));
        assert_eq!(Expiry::of(LONGEST_RELATIVE_S, NOW), Expiry::AtMs(NOW + 2_592_000_000));
        assert_eq!(Expiry::of(1_800_000_001, NOW), Expiry::AtMs(NOW + 1000));
        for over in [LONGEST_RELATIVE_S + 1, 1_800_000_000, -1, i64::MIN] {
            assert_eq!(Expiry::of(over, NOW), Expiry::Over, "{over}");
        }
        assert_eq!(Expiry::of(i64::MAX, NOW), Expiry::Over);
    }

    #[test]
    fn each_mode_writes_when_it_may() {
        let mut store = Store::new(1 << 20);
        for (key, mode) in [("a", Mode::Replace), ("a", Mode::Append), ("a", Mode::Prepend)] {
            assert_eq!(store.put(put(key, "x", mode), NOW), Outcome::NotStored);
        }
        assert_eq!(store.put(put("a", "1", Mode::Add), NOW), Outcome::Done(1));
        assert_eq!(store.put(put("a", "2", Mode::Add), NOW), Outcome::NotStored);
        assert_eq!(store.put(put("a", "2", Mode::Append), NOW), Outcome::Done(2));
        assert_eq!(store.put(put("a", "0", Mode::Prepend), NOW), Outcome::Done(3));
        assert_eq!(value(&mut store, "a", NOW).as_deref(), Some("012"));
        let stale = Put { version: Some(2), ..put("a", "x", Mode::Set) };
        assert_eq!(store.put(stale, NOW), Outcome::Exists);
        assert_eq!(store.put(Put { version: Some(3), ..stale }, NOW), Outcome::Done(4));
        assert_eq!(store.put(Put { key: b"b", ..stale }, NOW), Outcome::NotFound);
        assert_eq!(store.delete(b"a", Some(3), NOW), Outcome::Exists);
        assert_eq!(store.delete(b"a", Some(4), NOW), Outcome::Done(0));
        assert_eq!(store.delete(b"a", None, NOW), Outcome::NotFound);
        assert_eq!(store.size(NOW), (0, 0));
    }

    #[test]
    fn records_end_and_take_their_memory_along() {
        let mut store = Store::new(1 << 20);
        for (key, seconds) in [("a", 10), ("b", 20), ("c", 0)] {
            let expiry = Expiry::of(seconds, NOW);
            store.put(Put { expiry, ..put(key, "v", Mode::Set) }, NOW);
        }
        assert!(value(&mut store, "a", NOW + 9_999).is_some());
        assert!(value(&mut store, "a", NOW + 10_000).is_none());
        assert_eq!(store.put(put("a", "v", Mode::Append), NOW + 10_000), Outcome::NotStored);
        let touched = store.touch(b"b", Expiry::of(60, NOW), NOW).unwrap();
        assert_eq!((touched.version, touched.ends_ms), (2, Some(NOW + 60_000)));
        assert_eq!(store.size(NOW + 59_999), (2, 2 * cost(b"b", b"v")));
        assert_eq!(store.size(NOW + 60_000), (1, cost(b"c", b"v")));
        assert_eq!(store.counts.expired, 2);
        // libmemcached asks whether a key exists by adding one that has ended.
        let over = Put { expiry: Expiry::of(2_678_400, NOW), ..put("d", "", Mode::Add) };
        assert!(matches!(store.put(over, NOW), Outcome::Done(_)));
        assert_eq!(store.put(Put { key: b"c", ..over }, NOW), Outcome::NotStored);
        assert!(value(&mut store, "d", NOW).is_none());
        assert!(store.touch(b"c", Expiry::Over, NOW).is_some());
        assert_eq!((store.size(NOW), store.ends.len()), ((0, 0), 0));
    }

    #[test]
    fn a_full_store_refuses_and_keeps_what_it_has() {
        let mut store = Store::new(3 * cost(b"a", b"v"));
        for key in ["a", "b", "c"] {
            let expiry = Expiry::of(60, NOW);
            assert!(matches!(store.put(Put { expiry, ..put(key, "v", Mode::Set) }, NOW), Outcome::Done(_)));
        }
        assert_eq!(store.put(put("d", "v", Mode::Set), NOW), Outcome::NoMemory);
        assert_eq!(store.put(put("a", "longer", Mode::Set), NOW), Outcome::NoMemory);
        assert_eq!(store.put(put("a", "v", Mode::Append), NOW), Outcome::NoMemory);
        assert_eq!(value(&mut store, "a", NOW).as_deref(), Some("v"));
        assert!(matches!(store.put(put("a", "w", Mode::Set), NOW), Outcome::Done(_)), "as much as before");
        assert_eq!(store.counts.refused, 3);
        // What has ended makes room.
        assert!(matches!(store.put(put("d", "v", Mode::Set), NOW + 60_000), Outcome::Done(_)));
    }

    #[test]
    fn a_value_grows_to_the_limit_and_not_beyond() {
        let mut store = Store::new(1 << 22);
        let most = vec![b'v'; MAX_VALUE];
        let whole = Put { value: &most, ..put("a", "", Mode::Set) };
        assert!(matches!(store.put(whole, NOW), Outcome::Done(_)));
        assert_eq!(store.put(put("a", "v", Mode::Append), NOW), Outcome::TooLarge);
    }
}
