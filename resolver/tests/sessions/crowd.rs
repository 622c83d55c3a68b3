//! Many writers, one taker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;

use ocbus_resolver::{Appended, SessionsError};
use ocbus_wire::openchange::Subscription;
use tokio::task::{AbortHandle, JoinSet};

use super::openchange::OpenChange;
use super::*;

const WRITERS: u32 = 8;
const EACH: u32 = 1000;
const RESYNC: u32 = u32::MAX;

/// Blobs carry their writer and their number.
fn blob(writer: u32, number: u32) -> Vec<u8> {
    reply(writer << 16 | number)
}

/// What came of each writer, in the order in which it came.
fn by_writer(came: &[u32]) -> BTreeMap<u32, Vec<u32>> {
    let mut by_writer: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for handle in came {
        by_writer.entry(handle >> 16).or_default().push(handle & 0xffff);
    }
    by_writer
}

/// Takes until `over` and nothing is left. Says how often it found something.
async fn take_all(records: &SessionRecords, over: impl Fn() -> bool) -> (Vec<u32>, usize) {
    let (mut came, mut times) = (Vec::new(), 0);
    loop {
        let last = over();
        let taken = records.take(&SESSION).await.unwrap();
        assert!(!taken.may_come_again);
        times += usize::from(!taken.replies.is_empty());
        came.extend(handles(&taken.replies));
        if last && taken.replies.is_empty() {
            return (came, times);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_tasks_append_a_thousand_each_and_one_takes() {
    let memcached = Memcached::start();
    let records = connect(memcached.port).await;
    let mut writers = JoinSet::new();
    let mut handles = Vec::new();
    for writer in 0..WRITERS {
        let records = records.clone();
        handles.push(writers.spawn(async move {
            for number in 0..EACH {
                let appended = records.append(&SESSION, &blob(writer, number), &reply(RESYNC)).await.unwrap();
                assert!(matches!(appended, Appended::Waiting { .. }), "{appended:?}");
            }
        }));
    }
    let (came, times) = take_all(&records, || handles.iter().all(AbortHandle::is_finished)).await;
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    let races = memcached.stats()["cas_badval"];
    println!("{times} takes, {races} lost races");
    assert!(races > 0 && times > 10, "nobody was in anybody's way: {races} races, {times} takes");
    let by_writer = by_writer(&came);
    assert_eq!(by_writer.len(), WRITERS as usize);
    for (writer, numbers) in by_writer {
        assert!(numbers.iter().copied().eq(0..EACH), "writer {writer}: {numbers:?}");
    }
    assert_eq!(memcached.get(KEY).as_deref(), Some(b"".as_slice()), "for OpenChange's append");
}

/// Ours in tasks and in a thread, and OpenChange's, which knows no compare-and-swap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openchange_appends_as_well() {
    const EACH: u32 = 500;
    let memcached = Memcached::start();
    let port = memcached.port;
    let records = connect(port).await;
    // OpenChange's add loses against another writer's: the first one is ours.
    records.append(&SESSION, &blob(0, 0), b"").await.unwrap();
    let mut threads = Vec::new();
    for writer in [1, 2] {
        threads.push(std::thread::spawn(move || {
            let mut openchange = OpenChange::connect(port);
            for number in 0..EACH {
                assert!(openchange.deliver_add(KEY, &blob(writer, number)), "{writer}: {number}");
            }
        }));
    }
    threads.push(std::thread::spawn(move || {
        let mut records = blocking(port);
        for number in 0..EACH {
            records.append(&SESSION, &blob(3, number), b"", Instant::now() + 20 * SECOND).unwrap();
        }
    }));
    let writer = records.clone();
    let task = tokio::spawn(async move {
        for number in 1..EACH {
            writer.append(&SESSION, &blob(0, number), b"").await.unwrap();
        }
    });
    let over = || task.is_finished() && threads.iter().all(JoinHandle::is_finished);
    let (came, _) = take_all(&records, over).await;
    task.await.unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let by_writer = by_writer(&came);
    assert_eq!(by_writer.len(), 4);
    for (writer, numbers) in by_writer {
        assert!(numbers.iter().copied().eq(0..EACH), "writer {writer}: {numbers:?}");
    }
}

/// The taker is far too slow: what does not come is counted, and a resync comes in its place, before what was
/// written later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_resynced_and_counted() {
    let memcached = Memcached::start();
    let records = connect(memcached.port).await.with_deliver_limit(200);
    let over = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let records = records.clone();
        writers.spawn(async move {
            let (mut dropped, mut resyncs) = (0, 0);
            for number in 0..200 {
                match records.append(&SESSION, &blob(writer, number), &reply(RESYNC)).await.unwrap() {
                    Appended::Waiting { octets } => assert!(octets <= 200),
                    Appended::Resynced { dropped: some, dropped_octets } => {
                        assert_eq!(dropped_octets, 10 * some);
                        dropped += some;
                        resyncs += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
            (dropped, resyncs)
        });
    }
    let (taker, ended) = (records.clone(), Arc::clone(&over));
    let taker = tokio::spawn(async move {
        let mut came = Vec::new();
        loop {
            let last = ended.load(SeqCst);
            let taken = taker.take(&SESSION).await.unwrap();
            assert!(!taken.may_come_again);
            came.extend(handles(&taken.replies));
            if last && taken.replies.is_empty() {
                return came;
            }
            // Slower than the writers, as a client is that has to be woken up first.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let (mut dropped, mut resyncs) = (0, 0);
    while let Some(ended) = writers.join_next().await {
        let (some, one) = ended.unwrap();
        (dropped, resyncs) = (dropped + some, resyncs + one);
    }
    over.store(true, SeqCst);
    let came = taker.await.unwrap();
    // A take that reads again, because what it saw was resynced, has given out what counts as dropped: at most the
    // sum is off by that, and never the other way.
    let blobs = came.iter().filter(|handle| **handle != RESYNC).count();
    let resyncs_came = came.len() - blobs;
    let written = (WRITERS * 200) as usize;
    println!("{written} written, {blobs} came, {resyncs} resyncs, {resyncs_came} came, {dropped} dropped");
    assert!(resyncs > 0 && resyncs_came > 0 && blobs < written);
    assert!(blobs + resyncs_came + dropped >= written + resyncs, "some are neither here nor counted");
    // In order, and no gap without a resync in it.
    for writer in 0..WRITERS {
        let (mut next, mut covered) = (0, false);
        for handle in &came {
            if *handle == RESYNC {
                covered = true;
            } else if handle >> 16 == writer {
                let number = handle & 0xffff;
                assert!(number == next || (number > next && covered), "{writer}: {number} and not {next}");
                (next, covered) = (number + 1, false);
            }
        }
        assert!(next == 200 || covered, "{writer}: the last ones are missing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_of_many_writers_are_all_there_up_to_a_hundred() {
    let memcached = Memcached::start();
    let records = connect(memcached.port).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let records = records.clone();
        writers.spawn(async move {
            let (mut added, mut refused) = (Vec::new(), 0);
            for number in 0..20 {
                let handle = 100 * writer + number;
                let one = Subscription { handle, flags: 2, ..Subscription::default() };
                match records.subscribe(&SESSION, &one).await {
                    Ok(()) => added.push(handle),
                    Err(SessionsError::Invalid { .. }) => refused += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            (added, refused)
        });
    }
    let (mut added, mut refused) = (Vec::new(), 0);
    while let Some(ended) = writers.join_next().await {
        let (some, none) = ended.unwrap();
        added.extend(some);
        refused += none;
    }
    assert_eq!((added.len(), refused), (100, 60));
    let stored = records.subscriptions(&SESSION).await.unwrap();
    let mut stored: Vec<u32> = stored.iter().map(|subscription| subscription.handle).collect();
    stored.sort_unstable();
    added.sort_unstable();
    assert_eq!(stored, added);

    // And all out again, by as many at once.
    let mut writers = JoinSet::new();
    for handles in added.chunks(13).map(<[u32]>::to_vec) {
        let records = records.clone();
        writers.spawn(async move {
            for handle in handles {
                records.unsubscribe(&SESSION, handle).await.unwrap();
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    assert!(matches!(records.subscriptions(&SESSION).await, Err(SessionsError::NotFound { .. })));
}
