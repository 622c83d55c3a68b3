use std::collections::HashMap;

use serde_json::Value;

use super::*;
use crate::selection::Ring;

fn parse(text: &str) -> Config {
    Config::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> String {
    match Config::parse(text) {
        Ok(config) => panic!("{text}: {config:?}"),
        Err(error) => error.to_string(),
    }
}

/// As libmemcached reports it.
fn reported(server: &Server) -> String {
    let (name, port) = server.name_and_port();
    format!("{name}:{port}")
}

/// One of libmemcached's behaviours as we have it; `None` for those that are nothing to us.
fn behavior(config: &Config, name: &str) -> Option<u64> {
    let number = |number: i32| u64::try_from(number).unwrap();
    // Their numbers in libmemcached.
    let hash = |hash| match hash {
        KeyHash::OneAtATime => 0,
        KeyHash::Md5 => 1,
        KeyHash::Crc => 2,
        KeyHash::Fnv1_64 => 3,
        KeyHash::Fnv1a64 => 4,
        KeyHash::Fnv1_32 => 5,
        KeyHash::Fnv1a32 => 6,
        KeyHash::Murmur => 8,
        KeyHash::Jenkins => 9,
    };
    let option = match name {
        "HASH" => return Some(hash(config.hash)),
        "KETAMA_HASH" => return Some(hash(config.distribution_hash)),
        "KETAMA" => return Some(u64::from(matches!(config.distribution, Distribution::Consistent(_)))),
        "DISTRIBUTION" => {
            return Some(match config.distribution {
                Distribution::Modula => 0,
                Distribution::Consistent(_) => 1,
                Distribution::Random => 3,
            });
        }
        "SORT_HOSTS" => return Some(config.sort_hosts.into()),
        "TCP_KEEPALIVE" => return Some(config.tcp_keepalive.into()),
        "CONNECT_TIMEOUT" => return Some(number(config.timeouts.connect_ms)),
        "RCV_TIMEOUT" => return Some(number(config.timeouts.receive_us)),
        "RETRY_TIMEOUT" => return Some(number(config.timeouts.retry_s)),
        "NUMBER_OF_REPLICAS" => return Some(config.number_of_replicas.into()),
        "HASH_WITH_PREFIX_KEY" => return Some(config.hash_with_namespace.into()),
        "BINARY_PROTOCOL" => return Some(config.binary_protocol().into()),
        // Set by USE-UDP as well.
        "NOREPLY" | "SOCKET_RECV_SIZE" => return None,
        "SOCKET_SEND_SIZE" if config.ignores("--USE-UDP") => return None,
        other => format!("--{}", other.replace('_', "-")),
    };
    let ignored = config.without_effect.iter().find_map(|ignored| ignored.strip_prefix(&option));
    let ignored = ignored.unwrap_or_else(|| panic!("{option} in {config:?}"));
    Some(ignored.strip_prefix('=').map_or(1, |value| value.parse().unwrap()))
}

#[test]
fn every_string_is_taken_as_libmemcached_takes_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/openchange/memcached_config_strings.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (mut accepted, mut refusals, mut widened, mut behaviors) = (0, 0, 0, 0);
    for case in &cases {
        let text = case["string"].as_str().unwrap();
        if case["memcached_ok"] == true {
            let config = parse(text);
            let servers: Vec<String> = config.servers.iter().map(reported).collect();
            assert_eq!(Value::from(servers), case["servers"], "{text}");
            for (name, value) in case["changed"].as_object().unwrap() {
                if name == "NAMESPACE" {
                    assert_eq!(config.namespace.as_deref(), value.as_str(), "{text}");
                } else if let Some(ours) = behavior(&config, name) {
                    assert_eq!(Some(ours), value.as_u64(), "{name} of {text}");
                    behaviors += 1;
                }
            }
            assert_eq!(parse(&config.to_string()), config, "{text}");
            accepted += 1;
        } else if text.contains('[') {
            assert_eq!(parse(text).servers, [Server::tcp("::1", 11211)]);
            widened += 1;
        } else {
            let error = refused(text);
            assert!(error.contains("at octet ") && error.contains(": expected "), "{text}: {error}");
            refusals += 1;
        }
    }
    assert_eq!((cases.len(), accepted, refusals, widened), (92, 46, 45, 1));
    assert_eq!(behaviors, 33);
}

#[test]
fn an_error_names_the_option_its_place_and_what_would_be_right() {
    for (text, parts) in [
        (
            "--SERVER=abc --BINARY_PROTOCOL",
            &["'--BINARY_PROTOCOL' at octet 13", "expected --BINARY-PROTOCOL"][..],
        ),
        ("--SERVER=abc --connect-timeout", &["at octet 13", "expected --CONNECT-TIMEOUT=NUMBER"]),
        ("--AUTO-EJECT-HOSTS", &["expected --REMOVE-FAILED-SERVERS=1"]),
        ("SERVER=127.0.0.1:1", &["'SERVER=127.0.0.1:1' at octet 0", "expected --SERVER=host:port"]),
        ("127.0.0.1:1", &["'127.0.0.1:1'", "as --SERVER=host:port"]),
        ("--SERVER=abc:1,--SERVER=def", &["',' at octet 14", "exactly one space"]),
        ("--SERVER=abc  --SERVER=def", &["at octet 13", "exactly one between"]),
        ("--SERVER=abc ", &["'' at octet 13", "no space at the end"]),
        ("--SERVER=::1", &["':' at octet 9", "IPv6 address in brackets"]),
        ("--SERVER=[::g]", &["'[' at octet 9"]),
        ("--SERVER=[abc]", &["'[abc]' at octet 9"]),
        ("--SERVER=h:1", &["'h' at octet 9", "3 to 1024"]),
        ("--SERVER=abc:123456", &["'6' at octet 18"]),
        ("--SOCKET=/tmp/x", &["'/' at octet 9", "expected --SOCKET=\"/path\""]),
        ("--HASH=HSIEH", &["without HSIEH", "expected one of MD5, CRC"]),
        ("--HASH=MD5 --HASH=MD5", &["at octet 11", "a second --HASH"]),
        ("--NAMESPACE=abc --NAMESPACE=abc", &["at octet 16", "a second --NAMESPACE"]),
        ("--NAMESPACE=\"a b\"", &["'--NAMESPACE=\\\"a b\\\"'", "without spaces"]),
        ("--DISTRIBUTION=xyz", &["'xyz' at octet 15", "MODULA, CONSISTENT or RANDOM"]),
        ("--BINARY-PROTOCOL --VERIFY-KEY", &["at octet 18", "behind --BINARY-PROTOCOL"]),
        ("--USE-UDP --BUFFER-REQUESTS", &["at octet 10", "behind --USE-UDP"]),
        ("--TCP-NODELAY=1", &["'=' at octet 13", "exactly one space"]),
        (
            "--CONFIGURE-FILE=\"/no/such\"",
            &["at octet 0", "cannot be read: No such file", "expected a readable file"],
        ),
        ("--SERVER=abc INCLUDE \"/no/such\"", &["'INCLUDE \\\"/no/such\\\"' at octet 13", "No such file"]),
        ("INCLUDE \"/\"", &["no regular file"]),
        ("--SERVER=abc\r\nflush_all", &["'flush_all' at octet 14", "exactly one space"]),
        ("--SERVER=abc\0", &["'\\0' at octet 12"]),
    ] {
        let error = refused(text);
        assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        assert!(!error.contains(char::is_control), "{error}");
    }
    assert!(refused("").contains("empty: expected"));
    assert!(refused(&"x".repeat(100_000)).len() < 400);
}

#[test]
fn odd_strings_mean_what_they_mean_to_libmemcached() {
    for (text, servers) in [
        ("--SERVER=abc:0", "abc:11211"),
        ("--SERVER=abc:65536", "abc:11211"),
        ("--SERVER=abc:99999/?99999", "abc:34463"),
        ("--server=123abc", "123abc:11211"),
        ("--SERVER=a\"b:1", "a\"b:1"),
        ("--SERVER=abc--TCP-NODELAY", "abc--TCP-NODELAY:11211"),
        ("--SERVER=\tabc\r\n:1\n", "abc:1"),
        ("#x\n --SERVER=abc \n#y\n", "abc:11211"),
        ("--SERVER=abc END garbage", "abc:11211"),
        ("--SERVER=abc RESET --SERVER=def", "def:11211"),
        ("--SERVER=abc:22122 --SERVER=abc --SORT-HOSTS", "abc:11211 abc:22122"),
        (
            "--SORT-HOSTS --SERVER=b10 --SERVER=b90 --SERVER=B90 --SOCKET=\"/b\"/?3",
            "/b:0 B90:11211 b10:11211 b90:11211",
        ),
        ("--SERVER=abc --SERVER=abc", "abc:11211 abc:11211"),
        ("DEBUG", ""),
    ] {
        let config = parse(text);
        assert_eq!(config.servers.iter().map(reported).collect::<Vec<_>>().join(" "), servers, "{text}");
        assert_eq!(parse(&config.to_string()), config, "{config}");
    }
    assert_eq!(parse("--NAMESPACE=L\"foo\"").namespace.as_deref(), Some("\"foo"));
    assert_eq!(parse("--NAMESPACE=\"a\\\"b\"").namespace.as_deref(), Some("a\\\"b"));
    for text in
        ["--SERVER=md5", "--SERVER=end", "--NAMESPACE=127.0.0.1", "--NAMESPACE=fo", "#x", "--HASH=NONE"]
    {
        refused(text);
    }
}

#[test]
fn what_one_option_does_depends_on_those_before_it() {
    let ring = |text: &str| parse(text).distribution;
    let even = |hash| Distribution::Consistent(Ring::Even(hash));
    let (weighted, default) = (Distribution::Consistent(Ring::Weighted), KeyHash::OneAtATime);
    for (text, expected) in [
        ("--SERVER=abc/?5 --DISTRIBUTION=CONSISTENT", even(default)),
        ("--DISTRIBUTION=CONSISTENT --SERVER=abc/?5", weighted),
        ("--DISTRIBUTION=CONSISTENT --SERVER=abc/?1", even(default)),
        ("--DISTRIBUTION=CONSISTENT --SERVER=abc/?5 --SERVER=def --HASH=MD5 --SORT-HOSTS", weighted),
        ("--DISTRIBUTION=CONSISTENT --SERVER=abc/?5 --DISTRIBUTION=CONSISTENT", even(default)),
        ("--DISTRIBUTION=CONSISTENT --SERVER=abc/?5 --DISTRIBUTION=MODULA", Distribution::Modula),
        ("--DISTRIBUTION=CONSISTENT,MD5 --HASH=MD5", even(default)),
        ("--HASH=MD5 --DISTRIBUTION=CONSISTENT", even(KeyHash::Md5)),
        ("--DISTRIBUTION=CONSISTENT --HASH=MD5 --SERVER=abc", even(KeyHash::Md5)),
        ("--DISTRIBUTION=CONSISTENT --HASH=MD5 --SORT-HOSTS", even(KeyHash::Md5)),
        ("--HASH=MD5 --DISTRIBUTION=CONSISTENT RESET --SERVER=abc", Distribution::Modula),
    ] {
        assert_eq!(ring(text), expected, "{text}");
        assert_eq!(ring(&parse(text).to_string()), expected, "{text}");
    }
}

#[test]
fn numbers_are_read_in_32_bits_and_durations_in_their_units() {
    let config = parse("--SERVER=abc");
    assert_eq!(config.timeouts.connect().unwrap().as_millis(), 4_000);
    assert_eq!(config.timeouts.poll().unwrap().as_millis(), 5_000);
    assert_eq!(config.timeouts.retry().as_secs(), 2);
    assert_eq!((config.timeouts.send(), config.timeouts.receive()), (None, None));
    let config = parse(
        "--SND-TIMEOUT=1500 --RCV-TIMEOUT=4294967297 --CONNECT-TIMEOUT=007 --POLL-TIMEOUT=99999999999999999999 \
         --RETRY-TIMEOUT=5 --POOL-MAX=4294967295 --REMOVE-FAILED-SERVERS=3 --NUMBER-OF-REPLICAS=3000000000",
    );
    assert_eq!(config.timeouts.send().unwrap().as_micros(), 1_500);
    assert_eq!(config.timeouts.receive().unwrap().as_micros(), 1);
    assert_eq!(config.timeouts.connect().unwrap().as_millis(), 7);
    assert_eq!((config.timeouts.poll(), config.timeouts.poll_ms), (None, -1));
    assert_eq!(config.timeouts.retry().as_secs(), 5);
    assert_eq!((config.pool_min, config.pool_max), (None, Some(u32::MAX)));
    assert!(config.remove_failed_servers && config.number_of_replicas == 3_000_000_000);
    assert_eq!(parse(&config.to_string()), config);
}

#[test]
fn what_changes_nothing_is_kept_for_the_log() {
    let config =
        parse("--VERIFY-KEY --BINARY-PROTOCOL --NOREPLY --IO-MSG-WATERMARK=1 --NOREPLY --IO-MSG-WATERMARK=2");
    assert_eq!(
        config.without_effect,
        ["--VERIFY-KEY", "--BINARY-PROTOCOL", "--NOREPLY", "--IO-MSG-WATERMARK=2"]
    );
    let copies = |text: &str| parse(text).copies();
    assert_eq!(copies("--SERVER=abc --SERVER=def --NUMBER-OF-REPLICAS=5"), 0);
    assert_eq!(copies("--SERVER=abc --SERVER=def --NUMBER-OF-REPLICAS=5 --BINARY-PROTOCOL"), 1);
}

#[test]
fn the_default_is_openchanges_and_a_resolver_needs_a_server() {
    assert_eq!(Config::default(), parse("--SERVER=127.0.0.1:11211"));
    assert_eq!(Config::default().to_string(), "--SERVER=127.0.0.1:11211");
    assert_eq!("--server=localhost:1".parse::<Config>().unwrap().to_string(), "--SERVER=localhost:1");
    assert_eq!(parse("--SERVER=[2001:db8::1]:5/?2").to_string(), "--SERVER=[2001:db8::1]:5/?2");
    assert_eq!(parse("RESET").to_string(), "RESET");
    assert_eq!(parse("RESET").needs_server(), Err(ConfigError::NoServer));
    assert_eq!(parse("--SOCKET=\"/x\"").server(), None);
}

/// The files of a test.
fn with_files(text: &str, files: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let files: HashMap<&str, &str> = files.iter().copied().collect();
    Config::parse_with(text, &mut |path| match files.get(path) {
        Some(file) => Ok(file.as_bytes().to_vec()),
        None => Err(io::ErrorKind::NotFound.into()),
    })
}

#[test]
fn files_are_read_line_by_line() {
    // What libmemcached made of each.
    for (text, file, servers) in [
        ("INCLUDE \"file\"", "--SERVER=inca\n", "inca"),
        ("INCLUDE file", "--SERVER=inca", "inca"),
        ("INCLUDE \"file\"", "--SERVER=inca\n--SERVER=incb --HASH=MD5\n", "inca incb"),
        ("INCLUDE \"file\"", "# comment\n\n--SERVER=inca\n", "inca"),
        ("INCLUDE \"file\"", "--SERVER=inca\nEND x\n--SERVER=incb\n", "inca incb"),
        ("INCLUDE \"file\"", "--SERVER=inca\nRESET\n--SERVER=incb\n", "incb"),
        ("INCLUDE \"file\"", "--SERVER=inca\r\n--SERVER=incb\r\n", "inca incb"),
        ("INCLUDE \"file\"", "--CONFIGURE-FILE=\"other\"\n", "other"),
        ("--SERVER=abc INCLUDE \"file\" --SERVER=def", "--SERVER=inca\n", "abc inca def"),
        ("--SERVER=abc --CONFIGURE-FILE=\"file\" --SERVER=def", "--SERVER=inca\n", "abc def inca"),
        ("--SERVER=abc --CONFIGURE-FILE=\"other\" --CONFIGURE-FILE=\"file\"", "--SERVER=inca\n", "abc inca"),
        ("--CONFIGURE-FILE=\"file\"", "--SERVER=inca\n--CONFIGURE-FILE=\"other\"\n", "inca"),
        ("--CONFIGURE-FILE=\"file\"", "INCLUDE \"other\"\n--SERVER=inca", "other inca"),
        ("--SERVER=abc --CONFIGURE-FILE=\"file\" RESET --SERVER=def", "--SERVER=inca\n", "def"),
        ("--SERVER=abc --HASH=MD5 INCLUDE \"file\"", "--HASH=CRC\n--SERVER=inca\n", "abc inca"),
    ] {
        let config = with_files(text, &[("file", file), ("other", "--SERVER=other\n")]).unwrap();
        let names: Vec<&str> = config.servers.iter().map(|server| server.name_and_port().0).collect();
        assert_eq!(names.join(" "), servers, "{text} with {file:?}");
    }
}

#[test]
fn a_file_that_is_wrong_is_named_with_its_line() {
    for (file, parts) in [
        ("", &["'INCLUDE file' at octet 0", "nothing is in the file"][..]),
        ("\n\n", &["nothing is in the file"]),
        ("--SERVER=abc\n  \n", &["'' at octet 0 of line 2 of 'file'"]),
        ("\n\n--SERVER=abc --BAD", &["'--BAD' at octet 13 of line 3 of 'file'"]),
        ("--SERVER=abc --SERVER=def \n", &["at octet 27 of line 1"]),
        ("#x", &["line 1"]),
        ("INCLUDE \"file\"", &["too many files", "16 deep"]),
        ("INCLUDE \"none\"", &["'INCLUDE \\\"none\\\"' at octet 0 of line 1 of 'file'", "cannot be read"]),
    ] {
        let error = with_files("INCLUDE file", &[("file", file)]).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{file:?}: {error}");
    }
    // Two at each of 16 depths would be 65,536 files.
    let twice = "INCLUDE \"file\"\nINCLUDE \"file\"\n";
    assert!(with_files("INCLUDE file", &[("file", twice)]).is_err());
    let flat = "INCLUDE \"leaf\"\n".repeat(300);
    let error = with_files("INCLUDE file", &[("file", &flat), ("leaf", "--NOREPLY\n")]).unwrap_err();
    assert!(error.to_string().contains("256 files"), "{error}");
    let long = format!("--SERVER=abc{}\n", "c".repeat(9000));
    assert!(with_files("INCLUDE file", &[("file", &long)]).unwrap_err().to_string().contains("8191"));
}

#[test]
fn files_come_from_the_file_system_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolver.conf");
    std::fs::write(&path, b"# gr\xfc\xdfe\n--SERVER=abc\n").unwrap();
    let text = format!("INCLUDE \"{}\"", path.display());
    assert_eq!(parse(&text).to_string(), "--SERVER=abc:11211");
    std::fs::write(&path, b"--SERVER=abc --SOCKET=\"\xfc\"\n").unwrap();
    assert!(refused(&text).contains("line 1: no UTF-8 at octet 23"));
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(refused(&text).contains("more than 1048576 octets"));
}

#[test]
fn an_option_is_called_ineffective_only_where_it_is() {
    let ineffective = |options: &str| {
        Config::parse(&format!("--SERVER=one.example --SERVER=two.example{options}")).unwrap().ineffective()
    };
    assert_eq!(ineffective(" --TCP-KEEPALIVE --HASH=MD5"), Vec::<String>::new());
    assert_eq!(ineffective(" --BINARY-PROTOCOL --NOREPLY"), ["--BINARY-PROTOCOL", "--NOREPLY"]);
    let replicas = " --NUMBER-OF-REPLICAS=1 --RANDOMIZE-REPLICA-READ";
    assert_eq!(ineffective(replicas), ["--NUMBER-OF-REPLICAS=1", "--RANDOMIZE-REPLICA-READ"]);
    assert_eq!(ineffective(&format!(" --BINARY-PROTOCOL{replicas}")), Vec::<String>::new());
}
