//! The plugin in Dovecot's other processes: POP3, which reads and removes mail, and ManageSieve, which changes none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use ocbus::sandbox::{DovecotOptions, free_port};
use support::{Listening, Site, shown, until};

/// A client that sends lines and reads lines.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(port: u16) -> Client {
        let mut connected = None;
        until("the server listens", || {
            connected = TcpStream::connect(("127.0.0.1", port)).ok();
            connected.is_some()
        });
        let stream = connected.unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client { stream: BufReader::new(stream) }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the connection has ended behind {line:?}");
        line.trim_end().to_owned()
    }

    fn send(&mut self, text: &str) {
        self.stream.get_mut().write_all(format!("{text}\r\n").as_bytes()).unwrap();
    }

    /// POP3: one line of an answer, which must be good.
    fn pop3(&mut self, command: &str) {
        self.send(command);
        let line = self.line();
        assert!(line.starts_with("+OK"), "{command}: {line}");
    }

    /// POP3: the rest of a mail.
    fn rest(&mut self) {
        while self.line() != "." {}
    }

    /// ManageSieve: lines until OK.
    fn until_ok(&mut self) {
        loop {
            let line = self.line();
            assert!(!line.starts_with("NO") && !line.starts_with("BYE"), "{line}");
            if line.starts_with("OK") {
                return;
            }
        }
    }
}

/// A site that serves this protocol too, and its port.
fn site(protocol: &str, service: &str) -> (Site, u16) {
    let port = free_port().unwrap();
    let more = |options: DovecotOptions| {
        options.debug().extra(&format!(
            "protocols = imap lmtp {protocol}\nservice {service}-login {{\n  inet_listener {protocol} {{\n    \
             port = {port}\n  }}\n}}\n"
        ))
    };
    (Site::with(more), port)
}

async fn expect(bob: &mut Listening, expected: &[&str]) {
    let mut seen = Vec::new();
    for _ in expected {
        seen.push(shown(&*bob.next().await));
    }
    assert_eq!(seen, expected);
}

fn assert_loaded(site: &Site, process: &str) {
    let log = site.dovecot.log();
    let loaded = |line: &str| line.contains(process) && line.contains("lib90_openchange_plugin.so");
    assert!(log.lines().any(loaded), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pop3_tells_what_it_reads_and_removes() {
    let (site, port) = site("pop3", "pop3");
    let mut bob = site.native("bob").await;
    for subject in ["one", "two", "three"] {
        site.deliver("bob", None, subject);
    }
    expect(&mut bob, &["MessageNew INBOX 1", "MessageNew INBOX 2", "MessageNew INBOX 3"]).await;
    let mut pop3 = Client::connect(port);
    assert!(pop3.line().starts_with("+OK"));
    pop3.pop3("USER bob");
    pop3.pop3("PASS x");
    for number in 1..=2 {
        pop3.pop3(&format!("RETR {number}"));
        pop3.rest();
    }
    pop3.pop3("DELE 1");
    pop3.pop3("DELE 3");
    bob.assert_quiet();
    // All of it is done when the client says that it is done.
    pop3.pop3("QUIT");
    expect(&mut bob, &["MessageRead INBOX 2", "MessageExpunge INBOX 1,3"]).await;
    assert_loaded(&site, "pop3(bob)");
    bob.assert_quiet();
    assert_eq!(site.warnings(), Vec::<String>::new());
    site.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn managesieve_is_not_harmed() {
    let (site, port) = site("sieve", "managesieve");
    let mut bob = site.native("bob").await;
    let mut sieve = Client::connect(port);
    sieve.until_ok();
    // NUL bob NUL x
    sieve.send("AUTHENTICATE \"PLAIN\" \"AGJvYgB4\"");
    sieve.until_ok();
    sieve.send("PUTSCRIPT \"rules\" {7+}\r\nkeep;\r\n");
    sieve.until_ok();
    sieve.send("SETACTIVE \"rules\"");
    sieve.until_ok();
    sieve.send("LOGOUT");
    sieve.until_ok();
    // 2.3 writes managesieve(bob), 2.4 sieve(bob).
    assert_loaded(&site, "sieve(bob)");
    site.deliver("bob", None, "x");
    expect(&mut bob, &["MessageNew INBOX 1"]).await;
    bob.assert_quiet();
    assert_eq!(site.warnings(), Vec::<String>::new());
    site.assert_sound();
}
