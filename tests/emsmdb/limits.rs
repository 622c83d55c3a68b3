//! asyncemsmdb at its limits, and a `session:` that cannot be read: no client waits in vain, and those that are gone make
//! room. On a real memcached.

use std::time::{Duration, Instant};

use ocbus::bus::Bus;
use ocbus::emsmdb::{Emsmdb, EmsmdbConfig, EngineConfig, JoinError, OpenError, Part, Sharing, WaitOutcome};
use ocbus::resolver::{Config, Resolver, SessionRecords};
use ocbus::sandbox::{Memcached, Sandbox};
use ocbus::wire::openchange::{DosCharset, SessionRecord, session_key};
use uuid::Uuid;

use super::service::{LIMIT, knows};

struct Scene {
    _sandbox: Sandbox,
    memcached: Memcached,
    records: SessionRecords,
    asyncemsmdb: Emsmdb,
}

/// The session of a client, and its asynchronous one.
fn ids(client: u128) -> (Uuid, Uuid) {
    (Uuid::from_u128(client), Uuid::from_u128(client + 1_000))
}

impl Scene {
    async fn new(engine: EngineConfig) -> Scene {
        let sandbox = Sandbox::new().unwrap();
        let memcached = sandbox.memcached().unwrap();
        let config: Config = memcached.configuration().parse().unwrap();
        let resolver =
            Resolver::new(&config, DosCharset::default(), Duration::from_millis(500)).await.unwrap();
        let records = SessionRecords::new(&resolver);
        let sharing = Sharing { records: records.clone(), part: Part::AsyncEmsmdb };
        let config = EmsmdbConfig { engine, ..EmsmdbConfig::default() };
        let asyncemsmdb = Emsmdb::attach_shared(&Bus::new(), None, knows, sharing, config).unwrap();
        Scene { _sandbox: sandbox, memcached, records, asyncemsmdb }
    }

    /// As emsmdb writes it.
    async fn connects(&self, client: u128, cn: &str) {
        let (session, async_session) = ids(client);
        self.records.register(&async_session, &SessionRecord { session, cn: cn.to_owned() }).await.unwrap();
    }

    /// As emsmdb does when a session ends.
    async fn is_gone(&self, client: u128) {
        self.records.unregister(&ids(client).1).await.unwrap();
    }

    /// Its wait, which is answered at once, and not at its end.
    async fn waits(&self, client: u128) -> WaitOutcome {
        let begun = Instant::now();
        let wait = tokio::time::timeout(LIMIT, self.asyncemsmdb.wait_async(ids(client).1)).await;
        assert!(begun.elapsed() < LIMIT);
        wait.expect("an answer at once")
    }

    async fn joins(&self, client: u128) -> Result<(), JoinError> {
        self.asyncemsmdb.join_session(ids(client).1).await.map(|_| ())
    }
}

#[tokio::test]
async fn who_is_one_too_many_is_told_so_and_who_is_gone_makes_room() {
    let of_user = EngineConfig { sessions_per_user: 3, ..EngineConfig::default() };
    let of_all = EngineConfig { sessions: 3, ..EngineConfig::default() };
    for (engine, users) in [(of_user, ["bob"; 4]), (of_all, ["bob", "eve", "alice", "bob"])] {
        let scene = Scene::new(engine).await;
        for (client, cn) in (1..).zip(users) {
            scene.connects(client, cn).await;
        }
        for client in 1..=3 {
            scene.joins(client).await.unwrap();
        }
        assert_eq!(scene.waits(4).await, WaitOutcome::Rejected, "{users:?}");
        let refused = scene.joins(4).await.unwrap_err();
        let expected = matches!(
            refused,
            JoinError::Open(OpenError::TooManyOfUser { max: 3, .. } | OpenError::TooMany { max: 3, .. })
        );
        assert!(expected, "{refused}");
        // Not the one that was opened first.
        scene.is_gone(2).await;
        scene.joins(4).await.unwrap();
        let open = |client| scene.asyncemsmdb.session(ids(client).0).is_some();
        assert_eq!([1, 2, 3, 4].map(open), [true, false, true, true]);
        assert_eq!(scene.asyncemsmdb.statistics().sessions, 3);
    }
}

#[tokio::test]
async fn a_session_record_that_cannot_be_read_is_an_answer_at_once() {
    let scene = Scene::new(EngineConfig::default()).await;
    scene.memcached.set(&session_key(&ids(1).1), b"\xff\xff\xff").unwrap();
    assert_eq!(scene.waits(1).await, WaitOutcome::Rejected);
    assert!(matches!(scene.joins(1).await, Err(JoinError::Records(_))));
    // Written anew, it is a session as any other.
    scene.memcached.flush_all().unwrap();
    assert_eq!(scene.waits(1).await, WaitOutcome::UnknownSession);
    scene.connects(1, "bob").await;
    scene.joins(1).await.unwrap();
}
