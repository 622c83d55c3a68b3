use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cn::Cn;
use crate::update::{Expect, Item, Request, Response, Version};

/// The resolver's records in this process's memory, for a bus in one process and for tests. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    records: Arc<Mutex<Records>>,
}

#[derive(Debug, Default)]
struct Records {
    by_key: HashMap<String, Record>,
    last_cas: u64,
}

#[derive(Debug)]
struct Record {
    item: Item,
    expires: Option<Instant>,
}

impl MemoryStore {
    /// A store without records.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Forgets every record, as a restarted memcached has.
    pub fn flush_all(&self) {
        self.lock().by_key.clear();
    }

    /// Stores octets under a key as they are, as another program would.
    pub fn set(&self, key: &str, value: &[u8]) {
        let put =
            Request::Put { key: key.to_owned(), value: value.to_vec(), expiry: None, expect: Expect::Any };
        self.run(put, Instant::now());
    }

    /// Everybody who is registered, in no order: what [`Census`](crate::Census) is for a memcached.
    pub fn registered(&self) -> Vec<Cn> {
        let now = Instant::now();
        let records = self.lock();
        let live =
            records.by_key.iter().filter(|(_, record)| record.expires.is_none_or(|expires| expires > now));
        let owners: HashSet<Cn> = live.filter_map(|(key, _)| Cn::of_key(key)).collect();
        owners.into_iter().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Records> {
        // Every change is one insert or remove: the records are whole even behind a panic.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn run(&self, request: Request, now: Instant) -> Response {
        self.lock().run(request, now)
    }
}

impl Records {
    fn run(&mut self, request: Request, now: Instant) -> Response {
        match request {
            Request::Get { keys, .. } => {
                Response::Items(keys.iter().map(|key| self.get(key, now).cloned()).collect())
            }
            Request::Put { key, value, expiry, expect } => {
                let version = self.get(&key, now).map(|item| item.version);
                let expected = match expect {
                    Expect::Any => true,
                    Expect::Absent => version.is_none(),
                    Expect::Version(expected) => version == Some(expected),
                };
                if expected {
                    self.last_cas += 1;
                    let item = Item { value, version: Version { cas: self.last_cas, server: 0, dialled: 0 } };
                    self.by_key.insert(key, Record { item, expires: expires(now, expiry) });
                }
                done(expected)
            }
            Request::Size { key } => {
                Response::Size(self.get(&key, now).map(|item| (item.value.len(), item.version)))
            }
            Request::Append { key, value, version } => {
                let before = self.get(&key, now).filter(|item| version.is_none_or(|v| item.version == v));
                let Some(joined) = before.map(|item| [&item.value, value.as_slice()].concat()) else {
                    return Response::NotDone;
                };
                self.last_cas += 1;
                if let Some(record) = self.by_key.get_mut(&key) {
                    (record.item.value, record.item.version.cas) = (joined, self.last_cas);
                }
                Response::Done
            }
            Request::Delete { key, version } => {
                let same = |item: &Item| version.is_none_or(|version| item.version == version);
                let expected = self.get(&key, now).is_some_and(same);
                if expected {
                    self.by_key.remove(&key);
                }
                done(expected)
            }
            // There are none.
            Request::Copy { .. } => Response::Done,
            Request::Touch { key, expiry } => {
                let there = self.get(&key, now).is_some();
                if let Some(record) = self.by_key.get_mut(&key) {
                    record.expires = expires(now, Some(expiry));
                }
                done(there)
            }
        }
    }

    fn get(&mut self, key: &str, now: Instant) -> Option<&Item> {
        if self.by_key.get(key)?.expires.is_some_and(|expires| expires <= now) {
            self.by_key.remove(key);
        }
        self.by_key.get(key).map(|record| &record.item)
    }
}

fn expires(now: Instant, expiry: Option<Duration>) -> Option<Instant> {
    expiry.and_then(|expiry| now.checked_add(expiry))
}

fn done(done: bool) -> Response {
    match done {
        true => Response::Done,
        false => Response::NotDone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, expect: Expect, expiry: Option<Duration>) -> Request {
        Request::Put { key: key.to_owned(), value: b"v".to_vec(), expiry, expect }
    }

    #[test]
    fn writes_happen_only_as_expected_and_values_expire() {
        let (store, now) = (MemoryStore::new(), Instant::now());
        let get = |at| match store.run(Request::Get { keys: vec!["k".to_owned()], any_copy: false }, at) {
            Response::Items(mut items) => items.remove(0),
            other => panic!("{other:?}"),
        };
        let minute = Some(Duration::from_secs(60));
        let first = Version { cas: 1, server: 0, dialled: 0 };
        assert_eq!(store.run(put("k", Expect::Version(first), None), now), Response::NotDone);
        assert_eq!(store.run(put("k", Expect::Absent, minute), now), Response::Done);
        assert_eq!(store.run(put("k", Expect::Absent, None), now), Response::NotDone);
        let version = get(now).unwrap().version;
        let other = Some(Version { cas: version.cas + 1, ..version });
        let delete = Request::Delete { key: "k".to_owned(), version: other };
        assert_eq!(store.run(delete, now), Response::NotDone);
        let later = now + Duration::from_secs(59);
        let touch = Request::Touch { key: "k".to_owned(), expiry: Duration::from_secs(60) };
        assert_eq!(store.run(touch.clone(), later), Response::Done);
        assert!(get(later + Duration::from_secs(59)).is_some());
        assert!(get(later + Duration::from_secs(60)).is_none());
        assert_eq!(store.run(touch, later), Response::NotDone);
    }

    #[test]
    fn who_is_registered_is_told_once_and_only_while_it_holds() {
        let (store, now) = (MemoryStore::new(), Instant::now());
        for key in ["ocbus:bob", "resolver:bob", "ocbus-canary:x", "ocbus-daemons:x", "resolver:ann"] {
            store.run(put(key, Expect::Any, None), now);
        }
        store.run(put("ocbus:eve", Expect::Any, Some(Duration::ZERO)), now);
        let mut found: Vec<String> = store.registered().iter().map(ToString::to_string).collect();
        found.sort();
        assert_eq!(found, ["ann", "bob"]);
    }
}
