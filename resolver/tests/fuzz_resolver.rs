//! Fuzz targets for what users and administrators type: a cn and a configuration string. Laid out as those in
//! `wire/tests/fuzz_openchange.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bolero::check;
use ocbus_resolver::{Cn, Config};

/// How much each target does in a test run: whichever comes first.
const ITERATIONS: usize = 4000;
const TIME: Duration = Duration::from_secs(1);

fn check_cn(text: &str) {
    match Cn::new(text) {
        Ok(cn) => {
            for key in [cn.resolver_key(), cn.lease_key()] {
                assert!(key.len() <= 250, "{key:?}");
                assert!(!key.chars().any(|c| c.is_whitespace() || c.is_control()), "{key:?}");
                // What memcached goes by: octets.
                assert!(key.bytes().all(|octet| octet > b' ' && octet != 0x7f), "{key:?}");
            }
            assert!(!cn.as_str().is_empty() && cn.as_str().eq_ignore_ascii_case(text));
            assert_eq!(Cn::new(cn.as_str()), Ok(cn));
        }
        Err(error) => {
            assert!(!error.to_string().chars().any(char::is_control), "{error:?}");
            assert!(error.to_string().contains("expected"));
        }
    }
}

fn check_config(text: &str) {
    match Config::parse(text) {
        Ok(config) => {
            let printed = config.to_string();
            assert_eq!(Config::parse(&printed), Ok(config), "{text:?} became {printed:?}");
            assert!(!printed.chars().any(char::is_control));
        }
        Err(error) => assert!(!error.to_string().chars().any(char::is_control), "{error:?}"),
    }
}

#[test]
fn fuzz_cn() {
    check!()
        .with_iterations(ITERATIONS)
        .with_test_time(TIME)
        .for_each(|input: &[u8]| check_cn(&String::from_utf8_lossy(input)));
}

#[test]
fn fuzz_cn_values() {
    check!().with_iterations(ITERATIONS).with_test_time(TIME).with_type::<(String, char, String)>().for_each(
        |(before, character, behind)| {
            check_cn(before);
            check_cn(&format!("{before}{character}{behind}"));
            let bad = character.is_whitespace() || character.is_control();
            assert!(!bad || Cn::new(&format!("a{character}b")).is_err());
        },
    );
}

#[test]
fn fuzz_config() {
    check!()
        .with_iterations(ITERATIONS)
        .with_test_time(TIME)
        .for_each(|input: &[u8]| check_config(&String::from_utf8_lossy(input)));
}

#[test]
fn fuzz_config_values() {
    check!()
        .with_iterations(ITERATIONS)
        .with_test_time(TIME)
        .with_type::<(u8, Vec<(u8, String, u16)>)>()
        .for_each(|(form, options)| {
            let option = |(form, text, port): &(u8, String, u16)| match form % 5 {
                0 => format!("--SERVER=h{port}.example.org:{port}"),
                1 => format!("--SERVER={text}"),
                2 => format!("--server=127.0.0.1:{text}"),
                3 => format!("--{text}"),
                _ => format!("--SERVER={text}:{port}"),
            };
            let options: Vec<String> = options.iter().map(option).collect();
            check_config(&options.join(if form % 2 == 0 { " " } else { "  " }));
            options.iter().for_each(|option| check_config(option));
        });
}

/// bolero says nothing when a corpus is not where it looks. This test does, and writes it when it is run with
/// `OCBUS_WRITE_CORPUS=1`.
#[test]
fn fuzz_resolver_corpus_is_there() {
    let long = "c".repeat(242);
    let cns = [
        "foobar",
        "User.Name@Example.COM",
        "JÜRGEN",
        "foo bar",
        "x\r\nflush_all",
        "x\u{85}",
        "\u{2028}",
        "\u{200b}",
        &long,
        &long[1..],
    ];
    let configs = [
        "--SERVER=127.0.0.1:11211",
        "--server=localhost",
        "--SERVER=h:00011211",
        "--SERVER=h:0",
        "--SERVER=h:65536",
        "--SERVER=::1",
        "--SERVER=a:1 --SERVER=b:2",
        "--SERVER=a:1 --BINARY-PROTOCOL",
        "--SOCKET=\"/run/memcached.sock\"",
        "--SERVER=a:1/?2",
    ];
    for (target, inputs) in [("cn", cns), ("config", configs)] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/__fuzz__").join(target).join("corpus");
        if std::env::var_os("OCBUS_WRITE_CORPUS").is_some() {
            std::fs::create_dir_all(&dir).unwrap();
            for (at, input) in inputs.iter().enumerate() {
                std::fs::write(dir.join(format!("{target}_{at}")), input).unwrap();
            }
        }
        let there: BTreeSet<Vec<u8>> = std::fs::read_dir(&dir)
            .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
            .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
            .collect();
        for input in inputs {
            assert!(there.contains(input.as_bytes()), "{target} lacks {input:?}");
        }
    }
}
