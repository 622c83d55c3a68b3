//! Fuzz targets for what any client may send.

use std::time::Duration;

use bolero::check;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::connection::serve;
use super::request::{MAX_LINE, Reading, read};
use super::shared::Shared;
use super::store::MAX_VALUE;
use super::{EmbeddedConfig, EmbeddedStatistics};

/// How much each target does in a test run: whichever comes first.
const ITERATIONS: usize = 4000;
const TIME: Duration = Duration::from_secs(1);

/// Pieces of which requests are made, so that more than refusals is met.
const PIECES: [&[u8]; 40] = [
    b"get ",
    b"gets ",
    b"set ",
    b"add ",
    b"append ",
    b"prepend ",
    b"replace ",
    b"cas ",
    b"delete ",
    b"touch ",
    b"incr ",
    b"decr ",
    b"mg ",
    b"ms ",
    b"md ",
    b"mn",
    b"version",
    b"stats",
    b"flush_all",
    b"quit",
    b"lru_crawler metadump all",
    b" ",
    b"a ",
    b"b ",
    b"0 ",
    b"1 ",
    b"2 ",
    b"60 ",
    b"-1 ",
    b"1048577 ",
    b"noreply",
    b"v ",
    b"c ",
    b"q ",
    b"MA ",
    b"C1 ",
    b"T60 ",
    b"\r\n",
    b"\n",
    b"\x80",
];

fn text(input: &[u8]) -> Vec<u8> {
    let piece = |octet: &u8| match PIECES.get(usize::from(*octet)) {
        Some(piece) => piece.to_vec(),
        None if *octet >= 200 => b"\r\n".to_vec(),
        None => vec![*octet],
    };
    input.iter().flat_map(piece).collect()
}

fn check_reading(octets: &[u8]) {
    match read(octets) {
        Reading::Part { least } => {
            assert!(least > octets.len() && least <= MAX_LINE + MAX_VALUE + 2, "{least}");
        }
        Reading::Whole(_, used) | Reading::Refused { used, .. } => {
            assert!(used > 0 && used <= octets.len());
            // What comes behind it does not change it, and less of it is none.
            assert_eq!(read(octets), read(&octets[..used]));
            assert!(matches!(read(&octets[..used - 1]), Reading::Part { .. }));
        }
        Reading::Lost(answer) => assert!(answer.starts_with("CLIENT_ERROR ")),
        Reading::Binary => assert_eq!(octets[0], 0x80),
    }
}

/// What a server without records answers to octets that come in pieces of this size.
async fn converse(octets: &[u8], piece: usize) -> (Vec<u8>, EmbeddedStatistics) {
    let shared = Shared::new(EmbeddedConfig { max_octets: 2000, ..EmbeddedConfig::default() });
    let (client, server) = tokio::io::duplex(512);
    let (mut from, mut to) = tokio::io::split(client);
    let mut answers = Vec::new();
    let ask = async {
        for part in octets.chunks(piece) {
            // It may have hung up.
            if to.write_all(part).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    let talk = async { tokio::join!(ask, from.read_to_end(&mut answers)).1 };
    let (served, taken) = tokio::join!(serve(server, &shared), talk);
    taken.unwrap();
    // The end in the middle of a value that is passed over: one too large, or of a command that makes no sense.
    let ended = served.as_ref().err().is_none_or(|error| error.kind() == std::io::ErrorKind::UnexpectedEof);
    assert!(ended, "{served:?}");
    (answers, shared.statistics())
}

#[test]
fn fuzz_request() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each(|input: &[u8]| check_reading(input));
}

#[test]
fn fuzz_request_of_pieces() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each(|input: &[u8]| {
        check_reading(&text(input));
    });
}

#[test]
fn fuzz_conversation() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    check!().with_iterations(ITERATIONS).with_test_time(TIME).for_each(|input: &[u8]| {
        let octets = text(input);
        runtime.block_on(async {
            let (whole, after) = converse(&octets, octets.len().max(1)).await;
            assert!(after.octets <= after.max_octets);
            // `stats` tells how many octets it has, and what time it is.
            if !octets.windows(5).any(|part| part == b"stats") {
                assert_eq!(converse(&octets, 3).await.0, whole);
            }
        });
    });
}
