//! Fuzz targets for configuration strings. Laid out as those in `wire/tests/fuzz_openchange.rs`; what they cannot
//! know, how libmemcached reads the same string, is in `libmemcached.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::io;
use std::time::Duration;

use bolero::check;
use ocbus_resolver::{Config, Distribution, KeyHash, Ring, Selection};

/// How much each target does in a test run: whichever comes first.
const ITERATIONS: usize = 4000;
const TIME: Duration = Duration::from_secs(1);

/// Nothing panics; what is read is printed so that it reads the same; and every server's index is one.
fn check_config(text: &str, read: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>) {
    match Config::parse_with(text, read) {
        Ok(config) => {
            let printed = config.to_string();
            // `Config` names the exceptions.
            let printable = match config.distribution {
                _ if text.to_ascii_uppercase().contains("L\"") => false,
                Distribution::Consistent(Ring::Even(ring)) => {
                    ring == KeyHash::OneAtATime || ring == config.hash
                }
                _ => true,
            };
            if printable {
                assert_eq!(Config::parse(&printed).as_ref(), Ok(&config), "{text:?} became {printed:?}");
            }
            if let Ok(selection) = Selection::new(&config) {
                assert!(selection.index(text.as_bytes()) < config.servers.len());
                selection.server(text.as_bytes());
            }
        }
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains("expected") && !error.contains(char::is_control), "{error:?}");
            assert!(error.len() < 4000, "{error}");
        }
    }
}

fn no_files(path: &str) -> io::Result<Vec<u8>> {
    Err(io::Error::new(io::ErrorKind::NotFound, path.escape_debug().to_string()))
}

#[test]
fn fuzz_config_octets() {
    check!()
        .with_iterations(ITERATIONS)
        .with_test_time(TIME)
        .for_each(|input: &[u8]| check_config(&String::from_utf8_lossy(input), &mut no_files));
}

/// Options out of parts, some of them noise; each file holds the same options.
#[test]
fn fuzz_config_grammar() {
    check!()
        .with_iterations(ITERATIONS)
        .with_test_time(TIME)
        .with_type::<Vec<(u8, u8, String, u32)>>()
        .for_each(|options| {
            let option = |(form, more, text, number): &(u8, u8, String, u32)| match form % 22 {
                0..6 => format!("--SERVER=host-{more}.example:{}/?{}", number % 100_000, number % 7),
                6 => format!("--SOCKET=\"{text}\""),
                7 => format!("--NAMESPACE=\"{text}\""),
                8 => format!("--NAMESPACE=x{more}y"),
                9 => "--DISTRIBUTION=CONSISTENT".to_owned(),
                10 => ["--DISTRIBUTION=MODULA,MD5", "--DISTRIBUTION=RANDOM,CRC"][usize::from(more % 2)]
                    .to_owned(),
                11 => format!("--HASH={}", ["MD5", "CRC", "MURMUR", "JENKINS"][usize::from(more % 4)]),
                12 => format!("--SORT-HOSTS --RETRY-TIMEOUT={number}"),
                13 => format!("--CONNECT-TIMEOUT={number}{more}"),
                14 => format!("--IO-MSG-WATERMARK={number}"),
                15 => ["--VERIFY-KEY", "--BINARY-PROTOCOL", "--USE-UDP", "RESET"][usize::from(more % 4)]
                    .to_owned(),
                16 => format!("--SERVER=[{text}]:{more}"),
                17 => format!("--SERVER=[2001:db8::{more:x}]"),
                18 => "INCLUDE \"file\"".to_owned(),
                19 => "--CONFIGURE-FILE=\"file\"".to_owned(),
                20 => format!("--{text}"),
                _ => text.clone(),
            };
            let options: Vec<String> = options.iter().map(option).collect();
            let file = options.join("\n");
            let mut read = |_: &str| Ok(file.clone().into_bytes());
            check_config(&options.join(" "), &mut read);
            check_config(&options.join(" "), &mut no_files);
            options.iter().for_each(|option| check_config(option, &mut read));
        });
}
