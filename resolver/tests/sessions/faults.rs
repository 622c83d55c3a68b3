//! A memcached that breaks off in the middle of a take: what was read is given out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use ocbus_resolver::SessionsError;

use super::*;

fn value(octets: &[u8], cas: u32) -> Vec<u8> {
    [format!("VA {} c{cas}\r\n", octets.len()).as_bytes(), octets, b"\r\n"].concat()
}

/// The write happens, its answer is lost; it is not repeated, but the record read again. Meanwhile somebody has appended.
fn breaks_off() -> FakeServer {
    let connections = Arc::new(AtomicUsize::new(0));
    FakeServer::start(move |mut peer| {
        let connection = connections.fetch_add(1, SeqCst);
        if connection == 0 {
            assert!(peer.line().starts_with("mg deliver:"));
            peer.send(&value(&reply(1), 1));
            assert!(peer.line().ends_with(" C1"));
            return;
        }
        let line = peer.line();
        assert!(line.starts_with("mg deliver:"), "{line}");
        peer.send(&value(&reply(2), 3));
        assert!(peer.line().ends_with(" C3"));
        peer.line();
        peer.send(b"HD\r\n");
        peer.wait_for_end();
    })
}

#[tokio::test]
async fn a_take_whose_answer_was_lost_gives_out_what_it_read() {
    let taken = connect(breaks_off().port).await.take(&SESSION).await.unwrap();
    assert_eq!((handles(&taken.replies), taken.may_come_again), (vec![1, 2], false));
    let taken = blocking(breaks_off().port).take(&SESSION, soon()).unwrap();
    assert_eq!((handles(&taken.replies), taken.may_come_again), (vec![1, 2], false));
}

#[tokio::test]
async fn a_take_that_is_not_answered_gives_out_what_it_read_and_says_so() {
    let silent = || {
        FakeServer::start(|mut peer| {
            peer.line();
            peer.send(&value(&reply(1), 1));
            peer.wait_for_end();
        })
    };
    let limit = Duration::from_millis(200);
    let taken = blocking(silent().port).take(&SESSION, Instant::now() + limit).unwrap();
    assert_eq!((handles(&taken.replies), taken.may_come_again), (vec![1], true));
    let resolver = Resolver::new(&config(silent().port), DosCharset::default(), limit).await.unwrap();
    let taken = SessionRecords::new(&resolver).take(&SESSION).await.unwrap();
    assert_eq!((handles(&taken.replies), taken.may_come_again), (vec![1], true));
}

#[tokio::test]
async fn what_could_not_be_read_is_an_error_and_stays() {
    let mut memcached = Memcached::start();
    let records = connect(memcached.port).await;
    records.append(&SESSION, &reply(1), b"").await.unwrap();
    memcached.stop();
    let limit = Duration::from_millis(200);
    let error = blocking(memcached.port).take(&SESSION, Instant::now() + limit).unwrap_err();
    assert!(matches!(&error, SessionsError::Store(store) if store.is_timeout()), "{error}");
    memcached.go_on();
    assert_eq!(handles(&records.take(&SESSION).await.unwrap().replies), [1]);
    memcached.kill();
    let error = records.take(&SESSION).await.unwrap_err();
    assert!(matches!(&error, SessionsError::Store(store) if store.is_outage()), "{error}");
}
