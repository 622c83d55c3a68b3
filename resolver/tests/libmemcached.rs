//! The real libmemcached beside us: what it makes of strings and keys, and where it stores. Its answers come from
//! a small C program, `libmemcached/oracle.c`. Without the library (Debian: libmemcached-dev) or a C compiler the
//! tests say so and pass.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ocbus_resolver::{Config, Distribution, KeyHash, Selection, Server};
use tempfile::TempDir;

#[path = "memcached/server.rs"]
#[allow(dead_code, reason = "shared with the tests that need more of it")]
mod server;

use server::Memcached;

struct Oracle {
    program: PathBuf,
    _folder: TempDir,
}

impl Oracle {
    /// Compiles it; `None` where that cannot be.
    fn new() -> Option<Oracle> {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("oracle");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/libmemcached/oracle.c");
        let headers =
            ["/usr/include/libmemcached/memcached.h", "/usr/local/include/libmemcached/memcached.h"];
        if !headers.iter().any(|header| std::fs::exists(header).unwrap()) {
            eprintln!("skipped: libmemcached-dev is not installed");
            return None;
        }
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Wextra", "-Werror", "-o"]).arg(&program).arg(source);
        let status = match compiler.args(["-lmemcached", "-lhashkit"]).status() {
            Ok(status) => status,
            Err(error) => {
                eprintln!("skipped: cc: {error}");
                return None;
            }
        };
        assert!(status.success(), "{compiler:?}: {status}");
        Some(Oracle { program, _folder: folder })
    }

    /// Its lines.
    fn ask(&self, what: &[&str], keys: &[Vec<u8>], input: &[u8]) -> Vec<String> {
        let mut stdin = tempfile::tempfile().unwrap();
        stdin.write_all(input).unwrap();
        stdin.rewind().unwrap();
        let mut command = Command::new(&self.program);
        command.args(what).args(keys.iter().map(|key| OsStr::from_bytes(key)));
        let output = command.stdin(stdin).stderr(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{what:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

/// The same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 16) % u64::try_from(bound).unwrap()).unwrap()
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

fn hex(octets: &[u8]) -> String {
    if octets.is_empty() {
        return "-".to_owned();
    }
    octets.iter().fold(String::new(), |mut hex, octet| {
        write!(hex, "{octet:02x}").unwrap();
        hex
    })
}

#[test]
fn every_octet_and_every_length_has_the_same_hash() {
    let Some(oracle) = Oracle::new() else { return };
    let mut random = Random(3);
    let mut octet = || u8::try_from(random.below(255) + 1).unwrap();
    let keys: Vec<Vec<u8>> = (1..=130_usize).map(|length| (0..length).map(|_| octet()).collect()).collect();
    for (name, hash) in [
        ("DEFAULT", KeyHash::OneAtATime),
        ("MD5", KeyHash::Md5),
        ("CRC", KeyHash::Crc),
        ("FNV1_64", KeyHash::Fnv1_64),
        ("FNV1A_64", KeyHash::Fnv1a64),
        ("FNV1_32", KeyHash::Fnv1_32),
        ("FNV1A_32", KeyHash::Fnv1a32),
        ("MURMUR", KeyHash::Murmur),
        ("JENKINS", KeyHash::Jenkins),
    ] {
        let theirs = oracle.ask(&["hash", name], &keys, b"");
        let ours: Vec<String> = keys.iter().map(|key| hash.value(key).to_string()).collect();
        assert_eq!(ours, theirs, "{name}");
    }
}

/// Values that are taken, and some that are not.
struct Choice(&'static [&'static str], &'static [&'static str]);

const HOSTS: Choice = Choice(
    &["abc", "127.0.0.1", "b-c.example", "10.0.0.12", "1.2.3.4.5", "a\"b", "x_y"],
    &["ab", "MD5", "10"],
);
const PORTS: Choice = Choice(&["", "", ":11211", ":1", ":0", ":99999", ":65536"], &[":123456", ":"]);
const WEIGHTS: Choice = Choice(&["", "", "/?1", "/?2", "/?0", "/?7", "/?99999"], &["/?", "/?123456"]);
const HASHES: Choice = Choice(
    &["MD5", "crc", "FNV1_64", "FNV1A_64", "FNV1_32", "fnv1a_32", "MURMUR", "JENKINS"],
    &["HSIEH", "NONE", "\"MD5\""],
);
const STRINGS: Choice = Choice(
    &["foo", "\"a\"", "L\"x\"", "\"x\\\"y\"", "\"/tmp/x\"", "a\"b\"c"],
    &["\"a b\"", "fo", "\"\"", "md5", "123", "1.2.3.4"],
);
const NUMBERS: Choice =
    Choice(&["0", "1", "007", "4294967297", "99999999999999999999"], &["x", "", "1a", "12ab"]);
const WAYS: Choice =
    Choice(&["MODULA", "consistent", "CONSISTENT", "Consistent", "RANDOM"], &["KETAMA", "abc"]);
const TAKING_NUMBERS: Choice = Choice(
    &[
        "CONNECT-TIMEOUT",
        "POLL-TIMEOUT",
        "SND-TIMEOUT",
        "RCV-TIMEOUT",
        "RETRY-TIMEOUT",
        "REMOVE-FAILED-SERVERS",
        "NUMBER-OF-REPLICAS",
        "POOL-MIN",
        "POOL-MAX",
        "IO-BYTES-WATERMARK",
        "IO-KEY-PREFETCH",
        "IO-MSG-WATERMARK",
        "SOCKET-RECV-SIZE",
        "SOCKET-SEND-SIZE",
    ],
    &["TCP-NODELAY", "DEAD-TIMEOUT"],
);
const FLAGS: Choice = Choice(
    &[
        "HASH-WITH-NAMESPACE",
        "RANDOMIZE-REPLICA-READ",
        "SORT-HOSTS",
        "Sort-Hosts",
        "TCP-KEEPALIVE",
        "tcp-nodelay",
        "BINARY-PROTOCOL",
        "BUFFER-REQUESTS",
        "FETCH-VERSION",
        "NOREPLY",
        "SUPPORT-CAS",
        "TCP-KEEPIDLE",
        "USE-UDP",
        "USER-DATA",
        "VERIFY-KEY",
    ],
    &["META-PROTOCOL", "HASH", "VERIFY_KEY", ""],
);
const OTHERS: Choice = Choice(
    &["RESET", "reset\t", "#x\n", "\n# y z\n", "END", "end x"],
    &["garbage", "INCLUDE \"/no/such\"", "SERVERS", "TRUE", "", "\t"],
);
const BETWEEN: Choice = Choice(&[" ", " ", " ", "\n ", " \n", "\t "], &["  ", ",", "", "\t", ";"]);

/// A string that the grammar allows, or one near it.
fn configuration(random: &mut Random) -> String {
    let valid = random.below(3) > 0;
    let of = |random: &mut Random, Choice(good, odd): &Choice| match valid || random.below(6) > 0 {
        true => random.of(good),
        false => random.of(odd),
    };
    let mut text = String::new();
    for number in 0..=random.below(7) {
        if number > 0 {
            text.push_str(of(random, &BETWEEN));
        }
        match random.below(16) {
            0..8 => {
                let host = match random.below(4) {
                    0 => of(random, &HOSTS).to_owned(),
                    _ => format!("h{}.example", random.below(300)),
                };
                let port = of(random, &PORTS);
                let weight = of(random, &WEIGHTS);
                write!(text, "--SERVER={host}{port}{weight}").unwrap();
            }
            8 => write!(text, "--SOCKET={}{}", of(random, &STRINGS), of(random, &WEIGHTS)).unwrap(),
            9 => write!(text, "--HASH={}", of(random, &HASHES)).unwrap(),
            10 | 11 => {
                write!(text, "--DISTRIBUTION={}", of(random, &WAYS)).unwrap();
                if random.below(4) == 0 {
                    write!(text, ",{}", of(random, &HASHES)).unwrap();
                }
            }
            12 => write!(text, "--{}", of(random, &FLAGS)).unwrap(),
            13 => write!(text, "--NAMESPACE={}", of(random, &STRINGS)).unwrap(),
            14 => write!(text, "--{}={}", of(random, &TAKING_NUMBERS), of(random, &NUMBERS)).unwrap(),
            _ => text.push_str(of(random, &OTHERS)),
        }
    }
    if !valid && random.below(2) == 0 && !text.is_empty() {
        let at = random.below(text.len());
        match random.below(2) {
            0 => drop(text.remove(at)),
            _ => text.insert(at, char::from(b"-= ,\"\\:/?#\n\tAz09._"[random.below(18)])),
        }
    }
    text
}

/// What the oracle would say.
fn described(config: &Config, keys: &[Vec<u8>]) -> String {
    let mut line = hex(config.namespace.as_deref().unwrap_or_default().as_bytes());
    for server in &config.servers {
        let (name, port) = match server {
            Server::Tcp { host, port, .. } => (host, *port),
            Server::Socket { path, .. } => (path, 0),
            other => panic!("{other:?}"),
        };
        write!(line, " {}:{port}", hex(name.as_bytes())).unwrap();
    }
    if let Ok(selection) = Selection::new(config) {
        keys.iter().for_each(|key| write!(line, " {}", selection.index(key)).unwrap());
    }
    line
}

#[test]
fn strings_made_at_random_are_read_as_the_library_reads_them() {
    let Some(oracle) = Oracle::new() else { return };
    // More of them, for an hour of waiting: OCBUS_STRINGS=1000000.
    let count = std::env::var("OCBUS_STRINGS").map_or(6_000, |count| count.parse().unwrap());
    let long = "k".repeat(249);
    let keys = (0..24).map(|number| format!("resolver:user{number}").into_bytes());
    let keys: Vec<Vec<u8>> = keys.chain([long.into_bytes(), "resolver:jürgen".into()]).collect();
    let mut random = Random(42);
    let texts: Vec<String> =
        (0..count).map(|_| configuration(&mut random)).filter(|text| !text.is_empty()).collect();
    let theirs = oracle.ask(
        &["describe"],
        &keys,
        texts.iter().flat_map(|text| [text, "\0"]).collect::<String>().as_bytes(),
    );
    assert_eq!(texts.len(), theirs.len());
    let (mut accepted, mut refused, mut chosen) = (0, 0, 0);
    for (text, theirs) in texts.iter().zip(&theirs) {
        match Config::parse(text) {
            Ok(config) => {
                let ours = described(&config, &keys);
                // Random choices are not compared, the rest is.
                let last = if config.distribution == Distribution::Random {
                    config.servers.len()
                } else {
                    usize::MAX
                };
                let (ours, theirs) = (ours.split(' '), theirs.split(' '));
                assert!(ours.take(last).eq(theirs.take(last)), "{text:?}: {config:?}");
                // One of the exceptions that `Config` names.
                if !text.to_ascii_uppercase().contains("L\"") {
                    assert_eq!(
                        Config::parse(&config.to_string()).as_ref(),
                        Ok(&config),
                        "{text:?}: {config}"
                    );
                }
                accepted += 1;
                chosen += usize::from(config.servers.len() > 1);
            }
            // The one thing that we refuse and libmemcached does not: a namespace that no text protocol can say.
            Err(error) if error.to_string().contains("a namespace of ") && text.contains("BINARY") => {}
            Err(error) => {
                assert_eq!(theirs, "refused", "{text:?}: {error}");
                assert!(!error.to_string().contains(char::is_control), "{error:?}");
                refused += 1;
            }
        }
    }
    assert!(
        accepted > count / 4 && refused > count / 4 && chosen > count / 8,
        "{accepted} {refused} {chosen}"
    );
}

/// Everything that has a part in the choice of server. `{servers}` stands for these, `{weighted}` for these
/// with weights.
const CONFIGURATIONS: [&str; 12] = [
    "{servers}",
    "{servers} --BINARY-PROTOCOL",
    "{servers} --HASH=MD5 --TCP-NODELAY",
    "{servers} --SORT-HOSTS --HASH=CRC",
    "{servers} --NAMESPACE=\"name:\"",
    "{servers} --NAMESPACE=\"name:\" --HASH-WITH-NAMESPACE --HASH=FNV1_64",
    "{servers} --DISTRIBUTION=CONSISTENT",
    "{servers} --DISTRIBUTION=CONSISTENT,MD5 --HASH=JENKINS",
    "--HASH=FNV1A_32 {weighted} --DISTRIBUTION=CONSISTENT",
    "--DISTRIBUTION=CONSISTENT {weighted} --HASH=MURMUR",
    "--DISTRIBUTION=CONSISTENT {weighted} --SORT-HOSTS --NAMESPACE=name --HASH-WITH-NAMESPACE",
    "{weighted} --DISTRIBUTION=MODULA,MD5 --HASH=FNV1A_64",
];

#[test]
fn what_the_library_stores_we_find_and_the_other_way_round() {
    let Some(oracle) = Oracle::new() else { return };
    for count in [1, 3, 5] {
        let memcacheds: Vec<Memcached> = (0..count).map(|_| Memcached::start()).collect();
        let servers = |weight: fn(usize) -> usize| {
            let server = |(at, memcached): (usize, &Memcached)| match weight(at) {
                0 => format!("--SERVER=127.0.0.1:{}", memcached.port),
                weight => format!("--SERVER=localhost:{}/?{weight}", memcached.port),
            };
            memcacheds.iter().enumerate().map(server).collect::<Vec<_>>().join(" ")
        };
        let (plain, weighted) = (servers(|_| 0), servers(|at| 2 * at + 1));
        let mut used = vec![0; count];
        for (number, form) in CONFIGURATIONS.iter().enumerate() {
            let text = form.replace("{servers}", &plain).replace("{weighted}", &weighted);
            let selection = Selection::new(&Config::parse(&text).unwrap()).unwrap();
            let at = |key: &str| {
                let port = match selection.server(key.as_bytes()) {
                    Server::Tcp { port, .. } => *port,
                    other => panic!("{other:?}"),
                };
                memcacheds.iter().position(|memcached| memcached.port == port).unwrap()
            };
            let keys = |who: &str| -> Vec<String> {
                (0..30).map(|user| format!("resolver:{who}{number}.user{user}@example.com")).collect()
            };
            let octets =
                |keys: &[String]| keys.iter().map(|key| key.clone().into_bytes()).collect::<Vec<_>>();

            let theirs = keys("theirs");
            let stored = oracle.ask(&["store", &text], &octets(&theirs), b"");
            assert!(stored.len() == 30 && stored.iter().all(|status| status == "0"), "{text}: {stored:?}");
            for key in &theirs {
                let name = format!("{}{key}", selection.namespace());
                let found = memcacheds[at(key)].get(&name);
                assert_eq!(found.as_deref(), Some(key.as_bytes()), "{key} under {text}");
                used[at(key)] += 1;
            }

            let ours = keys("ours");
            for key in &ours {
                memcacheds[at(key)].set(&format!("{}{key}", selection.namespace()), key.as_bytes());
            }
            let fetched = oracle.ask(&["fetch", &text], &octets(&ours), b"");
            assert_eq!(fetched, ours.iter().map(|key| hex(key.as_bytes())).collect::<Vec<_>>(), "{text}");
        }
        assert!(used.iter().all(|times| *times > 10), "{used:?}");
    }
}

/// As the library moves them, so that whoever asks by one finds what the other has registered.
#[test]
fn keys_of_a_killed_server_move_to_where_the_library_moves_them() {
    let Some(oracle) = Oracle::new() else { return };
    // At the same time: the library takes 8 s for each.
    std::thread::scope(|scope| {
        for more in ["", " --HASH=MD5", " --SORT-HOSTS"] {
            let oracle = &oracle;
            scope.spawn(move || keys_move(oracle, more));
        }
    });
}

fn keys_move(oracle: &Oracle, more: &str) {
    const FAILED: usize = 1;
    let mut memcacheds: Vec<Memcached> = (0..3).map(|_| Memcached::start()).collect();
    // Sorted they stay as they are.
    memcacheds.sort_by_key(|memcached| memcached.port.to_string());
    let servers: Vec<String> =
        memcacheds.iter().map(|memcached| format!("--SERVER=127.0.0.1:{}", memcached.port)).collect();
    let options = "--DISTRIBUTION=CONSISTENT --REMOVE-FAILED-SERVERS=1 --RETRY-TIMEOUT=1";
    let text = format!("{} {options}{more}", servers.join(" "));
    let config = Config::parse(&text).unwrap();
    let all = Selection::new(&config).unwrap();
    let left = Selection::without_failed(&config, |index| index != FAILED).unwrap();
    let keys: Vec<String> = (0..60).map(|user| format!("resolver:user{user}")).collect();
    let moved: Vec<&String> = keys.iter().filter(|key| all.index(key.as_bytes()) == FAILED).collect();
    assert!(moved.len() > 5, "{}", moved.len());

    memcacheds[FAILED].kill();
    let theirs: Vec<Vec<u8>> = keys.iter().map(|key| key.clone().into_bytes()).collect();
    println!("{text}: moved within {} s", oracle.ask(&["insist", &text], &theirs, b"")[0]);
    for key in moved {
        let holds = |index: &usize| *index != FAILED && memcacheds[*index].get(key).is_some();
        let holders: Vec<usize> = (0..3).filter(holds).collect();
        assert_eq!(holders, [left.index(key.as_bytes())], "{key} under {text}");
    }
}
