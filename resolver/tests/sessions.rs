//! OpenChange's `session:`, `subscription:` and `deliver:` records on a real memcached: every case of OpenChange's own,
//! and many at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
// Of the server, which other tests need more of.
#![allow(dead_code)]

#[path = "sessions/crowd.rs"]
mod crowd;
#[path = "sessions/faults.rs"]
mod faults;
#[path = "sessions/openchange.rs"]
mod openchange;
#[path = "memcached/server.rs"]
mod server;
#[path = "sessions/vectors.rs"]
mod vectors;

use std::time::{Duration, Instant};

use ocbus_resolver::{BlockingResolver, BlockingSessionRecords, Config, Resolver, SessionRecords};
use ocbus_wire::openchange::DosCharset;
use server::{FakeServer, Memcached};
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);
const SESSION: Uuid = uuid::uuid!("11111111-2222-3333-4444-555566667777");
const KEY: &str = "deliver:11111111-2222-3333-4444-555566667777";

fn config(port: u16) -> Config {
    format!("--SERVER=127.0.0.1:{port}").parse().unwrap()
}

async fn connect(port: u16) -> SessionRecords {
    let resolver = Resolver::new(&config(port), DosCharset::default(), 20 * SECOND).await.unwrap();
    SessionRecords::new(&resolver)
}

fn blocking(port: u16) -> BlockingSessionRecords {
    BlockingSessionRecords::new(BlockingResolver::new(&config(port), DosCharset::default()))
}

fn soon() -> Instant {
    Instant::now() + 5 * SECOND
}

/// A reply with a number: TableChanged for that handle.
fn reply(handle: u32) -> Vec<u8> {
    [&[0x2a][..], &handle.to_le_bytes(), &[0, 0x00, 0x01, 1, 0]].concat()
}

/// The handles of replies end to end.
fn handles(replies: &[u8]) -> Vec<u32> {
    ocbus_wire::ropnotify::split(replies).map(|reply| reply.unwrap().handle).collect()
}
