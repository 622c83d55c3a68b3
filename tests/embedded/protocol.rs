//! Octet for octet what memcached answers; and libmemcached itself.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::*;

/// All that a server says to these octets, until it closes.
fn converse(address: &str, octets: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(5 * SECOND)).unwrap();
    stream.write_all(octets).unwrap();
    stream.write_all(b"quit\r\n").unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

/// Versions are numbers of a server's own: each becomes the order in which it was met.
fn without_versions(said: &str) -> String {
    let mut met: Vec<String> = Vec::new();
    let mut named = |version: &str| {
        let at = met.iter().position(|known| known == version).unwrap_or_else(|| {
            met.push(version.to_owned());
            met.len() - 1
        });
        format!("version{at}")
    };
    let line = |line: &str| -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let word = |(at, word): (usize, &&str)| match (words[0], word.strip_prefix('c')) {
            ("VALUE", _) if at == 4 => named(word),
            ("VA" | "HD", Some(version)) if version.bytes().all(|octet| octet.is_ascii_digit()) => {
                named(version)
            }
            _ => (*word).to_owned(),
        };
        words.iter().enumerate().map(word).collect::<Vec<_>>().join(" ")
    };
    said.split("\r\n").map(line).collect::<Vec<_>>().join("\r\n")
}

const TEXT: &str = "get a\r\nset a 5 0 3\r\nabc\r\nget a\r\nget a b a\r\nadd a 0 0 1\r\nx\r\nadd b 1 0 1\r\ny\r\n\
    replace c 0 0 1\r\nx\r\nreplace b 2 0 2\r\nyy\r\nget a b c\r\nappend a 9 0 2\r\nde\r\nprepend a 9 0 1\r\n0\r\nget a\r\n\
    append none 0 0 1\r\nx\r\nprepend none 0 0 1\r\nx\r\n\
    gets a b\r\ncas a 0 0 1 1\r\nx\r\ncas none 0 0 1 1\r\nx\r\ncas b 0 0 1 999999\r\nx\r\n\
    delete b\r\ndelete b\r\ndelete a 0\r\ndelete a 5\r\n\
    set n 0 0 2\r\n10\r\nincr n 5\r\ndecr n 100\r\nincr none 1\r\nset t 0 0 1\r\nx\r\nincr t 1\r\nincr n x\r\n\
    set e 0 -1 1\r\nx\r\nget e\r\nset m 0 2592001 1\r\nx\r\nget m\r\nset l 0 60 0\r\n\r\nget l\r\n\
    touch l 120\r\ntouch none 120\r\ntouch l 0 noreply\r\nset q 0 0 1 noreply\r\nz\r\nget q\r\ndelete q noreply\r\nget q\r\n\
    add t 0 2678400 0\r\n\r\nadd gone 0 2678400 0\r\n\r\nget gone\r\n\
    verbosity 1\r\nflush_all\r\nget t n l\r\nnonsense\r\nget\r\n\r\nset x 0 0\r\nset x 0 0 -1\r\n\
    touch a x\r\nverbosity\r\nverbosity x\r\nstats nothing\r\nflush_all x\r\ndelete noreply noreply\r\n";

const META: &str = "mn\r\nmg a v\r\nms a 2 F7\r\nab\r\nmg a v f s t k Oop\r\nmg a v c\r\nmg a\r\nmg a s v q\r\nmg none v q\r\nmn\r\n\
    ms a 1 ME\r\nx\r\nms b 1 ME T60 c\r\nx\r\nmg b t c v\r\nms b 1 MR\r\ny\r\nms none 1 MR\r\ny\r\nms a 1 MA\r\nc\r\n\
    ms a 1 MP\r\n0\r\nmg a v f\r\nms a 1 C999999 k Ox\r\nz\r\nms none 1 C1\r\nz\r\nms b 1 q\r\nw\r\nmn\r\nmg b v\r\n\
    mg b T120\r\nmg b t\r\nmg b T0 t\r\nmd a C999999\r\nmd none\r\nmd a q\r\nmd a q\r\nmn\r\nmd b k Oy\r\nmg b v\r\n\
    ms l 0 T-1\r\n\r\nmg l v\r\nms l x\r\nms l\r\nmg\r\n";

#[test]
fn it_answers_as_memcached_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let _within = runtime.enter();
    let embedded = Embedded::listen(anywhere()).unwrap();
    let address = embedded.config_string().replace("--SERVER=", "");
    for script in [TEXT, META] {
        let theirs = without_versions(&converse(&memcached.address(), script.as_bytes()));
        let ours = without_versions(&converse(&address, script.as_bytes()));
        assert!(theirs.lines().count() > 30, "{theirs}");
        for (number, (our, their)) in ours.lines().zip(theirs.lines()).enumerate() {
            assert_eq!(our, their, "line {number} of\n{theirs}");
        }
        assert_eq!(ours, theirs);
    }
    // In step behind a value that it does not take.
    let large = [b"set a 0 0 1048577\r\n".as_slice(), &vec![b'v'; 1_048_577], b"\r\nmn\r\n"].concat();
    assert_eq!(converse(&address, &large), "SERVER_ERROR object too large for cache\r\nMN\r\n");
    assert_eq!(converse(&address, b"\x80\x0b\0\0\0\0\0\0"), "");
    assert_eq!(embedded.statistics().binary, 1);
}

/// `memccapable` of libmemcached's tools tests a server's text protocol.
#[test]
fn libmemcacheds_own_test_of_servers_passes() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _within = runtime.enter();
    let embedded = Embedded::listen(anywhere()).unwrap();
    let address = embedded.config_string().replace("--SERVER=", "");
    let (host, port) = address.split_once(':').unwrap();
    let output = match Command::new("memccapable").args(["-h", host, "-p", port, "-a"]).output() {
        Ok(output) => output,
        Err(error) => return eprintln!("skipped: memccapable (Debian: libmemcached-tools): {error}"),
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("All tests passed"), "{said}{output:?}");
}

#[test]
fn what_libmemcached_stores_is_found_and_the_other_way_round() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("oracle");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/resolver/tests/libmemcached/oracle.c");
    let mut compiler = Command::new("cc");
    compiler.arg("-o").arg(&program).arg(source).args(["-lmemcached", "-lhashkit"]);
    if !std::fs::exists("/usr/include/libmemcached/memcached.h").unwrap()
        || !compiler.status().is_ok_and(|status| status.success())
    {
        return eprintln!("skipped: libmemcached-dev or a C compiler is not installed");
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _within = runtime.enter();
    let embedded: Vec<Embedded> = (0..3).map(|_| Embedded::listen(anywhere()).unwrap()).collect();
    let config = embedded.iter().map(Embedded::config_string).collect::<Vec<_>>().join(" ");
    let keys: Vec<String> = (0..60).map(|n| format!("resolver:user{n}")).collect();
    let ask = |what: &str| {
        let output = Command::new(&program).args([what, &config]).args(&keys).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let stored = ask("store");
    assert_eq!(stored.lines().count(), 60, "{stored}");
    assert_eq!(embedded.iter().map(|one| one.statistics().records).sum::<usize>(), 60);
    let hex = |text: &str| text.bytes().map(|octet| format!("{octet:02x}")).collect::<String>();
    let fetched: Vec<String> = ask("fetch").lines().map(str::to_owned).collect();
    assert_eq!(fetched, keys.iter().map(|key| hex(key)).collect::<Vec<_>>());
    // Ours, where the library looks for them.
    let parsed: Config = config.parse().unwrap();
    runtime.block_on(async {
        let resolver = connect(&parsed).await;
        for key in &keys {
            let user = cn(key.strip_prefix("resolver:").unwrap());
            resolver.register_legacy(&user, "tcp://h:1").await.unwrap();
        }
    });
    let record = "0101000000010000007463703a2f2f683a3100";
    assert!(ask("fetch").lines().all(|value| value == record));
}
