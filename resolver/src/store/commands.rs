//! Requests as commands of memcached's meta protocol: the crate builds and writes them.

use std::time::Duration;

use memcache::exp::{
    DeleteOptions, Error, GetOptions, SetMode, SetOptions, build_delete, build_get, build_set,
};

use crate::update::{Expect, Request};

/// memcached reads an expiry above 30 days as a point in time. No lease is that long.
const MAX_EXPIRY_S: u64 = 30 * 24 * 60 * 60;

/// Adds what is to be written for a request. An error: a key that memcached has no place for.
pub(super) fn write(request: &Request, octets: &mut Vec<u8>) -> Result<(), Error> {
    match request {
        Request::Get { keys, .. } => {
            let mut options = GetOptions::default();
            options.return_cas = true;
            keys.iter().try_for_each(|key| build_get(key, &options)?.encode_into(octets))
        }
        Request::Put { key, value, expiry, expect } => {
            let mut options = SetOptions::default();
            options.ttl = Some(expiry_s(*expiry));
            match expect {
                Expect::Any => {}
                Expect::Absent => options.mode = SetMode::Add,
                Expect::Version(version) => options.compare_cas = Some(version.cas),
            }
            build_set(key, value.as_slice(), &options)?.encode_into(octets)
        }
        Request::Size { key } => {
            let mut options = GetOptions::default();
            (options.value, options.return_size, options.return_cas) = (false, true, true);
            build_get(key, &options)?.encode_into(octets)
        }
        Request::Append { key, value, version } => {
            let mut options = SetOptions::default();
            options.mode = SetMode::Append;
            options.compare_cas = version.map(|version| version.cas);
            build_set(key, value.as_slice(), &options)?.encode_into(octets)
        }
        Request::Delete { key, version } => {
            let mut options = DeleteOptions::default();
            options.compare_cas = version.map(|version| version.cas);
            build_delete(key, &options)?.encode_into(octets)
        }
        Request::Touch { key, expiry } => {
            let mut options = GetOptions::default();
            options.value = false;
            options.touch = Some(expiry_s(Some(*expiry)));
            build_get(key, &options)?.encode_into(octets)
        }
        // Each copy gets a write of its own; of the record itself nothing is asked.
        Request::Copy { .. } => Ok(()),
    }
}

/// About as many octets as a request has.
pub(super) fn length(request: &Request) -> usize {
    const WORDS: usize = 64;
    match request {
        Request::Get { keys, .. } => keys.iter().map(|key| key.len() + 9).sum(),
        Request::Put { key, value, .. } | Request::Append { key, value, .. } => {
            key.len() + value.len() + WORDS
        }
        Request::Size { key } | Request::Delete { key, .. } | Request::Touch { key, .. } => key.len() + WORDS,
        Request::Copy { .. } => 0,
    }
}

/// Whole seconds for memcached, so that a record never goes before its last lease: rounded up, and one more, as
/// memcached's clock ticks in seconds and the first one may be short. `None` is never.
fn expiry_s(expiry: Option<Duration>) -> u32 {
    let Some(expiry) = expiry else { return 0 };
    let seconds = expiry.as_secs().saturating_add(u64::from(expiry.subsec_nanos() > 0)).saturating_add(1);
    u32::try_from(seconds.clamp(1, MAX_EXPIRY_S)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::Version;

    fn put(expect: Expect) -> Request {
        let expiry = Some(Duration::from_secs(60));
        Request::Put { key: "k".to_owned(), value: b"va\r\nl".to_vec(), expiry, expect }
    }

    #[test]
    fn requests_are_commands() {
        let version = Version { cas: 7, server: 3, dialled: 1 };
        let requests = [
            Request::Get { keys: vec!["a".to_owned(), "b".to_owned()], any_copy: false },
            put(Expect::Any),
            put(Expect::Absent),
            put(Expect::Version(version)),
            Request::Delete { key: "k".to_owned(), version: None },
            Request::Delete { key: "k".to_owned(), version: Some(version) },
            Request::Touch { key: "k".to_owned(), expiry: Duration::from_secs(600) },
            Request::Size { key: "k".to_owned() },
            Request::Append { key: "k".to_owned(), value: b"va".to_vec(), version: Some(version) },
            Request::Append { key: "k".to_owned(), value: b"va".to_vec(), version: None },
        ];
        let mut octets = Vec::new();
        for request in &requests {
            let begin = octets.len();
            write(request, &mut octets).unwrap();
            assert!(octets.len() - begin <= length(request), "{request:?}");
        }
        let expected = "mg a v c\r\nmg b v c\r\nms k 5 T61\r\nva\r\nl\r\nms k 5 ME T61\r\nva\r\nl\r\n\
                        ms k 5 T61 C7\r\nva\r\nl\r\nmd k\r\nmd k C7\r\nmg k T601\r\n\
                        mg k c s\r\nms k 2 MA C7\r\nva\r\nms k 2 MA\r\nva\r\n";
        assert_eq!(String::from_utf8(octets).unwrap(), expected);
    }

    #[test]
    fn a_key_too_long_for_memcached_is_an_error() {
        let delete = |length| Request::Delete { key: "k".repeat(length), version: None };
        write(&delete(250), &mut Vec::new()).unwrap();
        assert!(matches!(write(&delete(251), &mut Vec::new()), Err(Error::Usage(_))));
    }

    #[test]
    fn an_expiry_is_never_short_and_never_zero() {
        assert_eq!(expiry_s(None), 0);
        assert_eq!(expiry_s(Some(Duration::ZERO)), 1);
        assert_eq!(expiry_s(Some(Duration::from_secs(1))), 2);
        assert_eq!(expiry_s(Some(Duration::from_millis(1001))), 3);
        assert_eq!(expiry_s(Some(Duration::from_secs(u64::MAX))), 2_592_000);
    }
}
