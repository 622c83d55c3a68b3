use ocbus_resolver::{Resolver, SessionRecords};
use ocbus_wire::openchange::DosCharset;

use super::*;
use crate::bus::Bus;
use crate::emsmdb::{Answer, AsyncIds, Emsmdb, EmsmdbConfig, NewSession, Part};

/// However long memcached is away: the sessions that end meanwhile are not kept for ever.
#[tokio::test]
async fn what_cannot_be_removed_for_long_is_left_behind() {
    let (keeper, now) = (Keeper::new(None), Instant::now());
    let cn: Cn = "bob".parse().unwrap();
    let (stalled, busy) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for guid in [stalled, busy] {
        keeper.opened(guid, &cn);
        keeper.ended(guid);
    }
    keeper.lock().sessions.get_mut(&stalled).unwrap().stalled = true;
    keeper.sweep(now);
    assert_eq!(keeper.statistics().sessions, 2);
    keeper.sweep(now + 2 * REMOVE);
    let statistics = keeper.statistics();
    assert_eq!((statistics.sessions, statistics.left_behind), (1, 1));
    assert!(keeper.lock().sessions.contains_key(&busy), "it is just tried");
}

/// What has asked memcached nothing does not say that it is back.
#[tokio::test]
async fn who_asks_nothing_ends_neither_an_outage_nor_the_sparing() {
    // Nobody is there, and nobody is asked.
    let config = "--SERVER=127.0.0.1:1".parse().unwrap();
    let limit = Duration::from_secs(60);
    let resolver = Resolver::new(&config, DosCharset::default(), limit).await.unwrap();
    let sharing = Sharing { records: SessionRecords::new(&resolver), part: Part::Both };
    let bus = Bus::new();
    let ids = AsyncIds::new(async |_| Answer::Unknown);
    let emsmdb = Emsmdb::attach_shared(&bus, None, ids, sharing, EmsmdbConfig::default()).unwrap();
    let (inner, guid) = (&emsmdb.inner, Uuid::from_u128(1));
    let (keeper, cn) = (&inner.keeper, "bob".parse().unwrap());
    emsmdb.open(NewSession { guid, cn, index: 0 }).unwrap();
    let until = Instant::now() + limit;
    {
        let mut state = keeper.lock();
        state.spared_until = Some(until);
        let shared = state.sessions.get_mut(&guid).unwrap();
        // Taken care of here, and not by the task.
        shared.busy = true;
        (shared.handles, shared.relay, shared.check, shared.look) = (true, true, true, true);
        shared.written = Some(number_of(&[]));
        shared.front.try_lock().unwrap().add(vec![0x2a]);
    }
    tokio::time::pause();
    let probe = keeper.outages.wait("a").await.unwrap();
    tokio::time::resume();
    keeper.work(inner, guid, Some(probe)).await;
    assert!(!keeper.lock().sessions[&guid].busy, "all is done");
    assert_eq!(keeper.lock().spared_until, Some(until));
    assert!(keeper.outages.wait("a").await.is_some(), "the next one's turn");
}

/// What is not ours need not be removed.
#[tokio::test]
async fn a_joined_session_that_ends_waits_for_no_memcached() {
    let (keeper, guid) = (Keeper::new(None), Uuid::from_u128(1));
    let error = || SessionsError::NotFound { key: String::new() };
    for fails_first in [true, false] {
        keeper.lock().put(guid, Shared::new("bob".parse().unwrap(), false));
        let fail = || keeper.stall(&mut keeper.lock(), guid, &error());
        if fails_first {
            fail();
            keeper.ended(guid);
        } else {
            keeper.ended(guid);
            fail();
        }
        assert_eq!(keeper.statistics().sessions, 0);
        assert!(keeper.lock().removing.is_empty());
    }
}

#[tokio::test]
async fn who_removes_a_former_session_does_not_forget_the_next_one() {
    let (keeper, guid) = (Keeper::new(None), Uuid::from_u128(1));
    let cn: Cn = "bob".parse().unwrap();
    keeper.opened(guid, &cn);
    keeper.ended(guid);
    let former = keeper.lock().sessions[&guid].number;
    keeper.opened(guid, &cn);
    assert!(!keeper.forget(guid, former));
    let number = keeper.lock().sessions[&guid].number;
    assert!(keeper.lock().sessions[&guid].busy, "whoever worked for the former one goes on");
    assert!(keeper.forget(guid, number));
    assert_eq!(keeper.statistics().sessions, 0);
    // Nobody is made ready who is gone, or somebody else by now.
    keeper.opened(guid, &cn);
    keeper.lock().try_again(guid, None);
    assert!(keeper.next_ready().is_some(), "the one that was closed, which is nobody's");
    assert!(keeper.next_ready().is_none());
}
