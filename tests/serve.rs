//! `ocbus serve` as a process: what Dovecot's drivers send reaches subscribers, and nothing that anybody sends harms it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "serve/captures.rs"]
mod captures;
#[path = "serve/client.rs"]
mod client;
#[path = "serve/lifecycle.rs"]
mod lifecycle;
#[path = "serve/limits.rs"]
mod limits;
#[path = "serve/log.rs"]
mod log;
#[path = "serve/outbox.rs"]
mod outbox;
#[path = "serve/reload.rs"]
mod reload;
#[path = "serve/requests.rs"]
mod requests;
#[path = "serve/secrets.rs"]
mod secrets;
#[path = "serve/settings.rs"]
mod settings;
mod support;
#[path = "serve/tls.rs"]
mod tls;
#[path = "serve/unit.rs"]
mod unit;

use ocbus::sandbox::{Daemon, Memcached, Sandbox};

/// A memcached, and a daemon that asks it. Login and password are those of the captures.
struct House {
    daemon: Daemon,
    memcached: Memcached,
    sandbox: Sandbox,
}

const CREDENTIALS: &str = "
[[http.credentials]]
name = 'dovecot'
login = 'login'
password = 'pass'
[[http.credentials]]
name = 'script'
bearer = 'token'
";

/// `login:pass` as Dovecot sends it.
const BASIC: &str = "Basic bG9naW46cGFzcw==";

impl House {
    /// With the credentials above, and these lines in front of them: dotted keys, as in `http.max_headers = 20`.
    fn with(lines: &str) -> House {
        let sandbox = Sandbox::new().unwrap();
        let memcached = sandbox.memcached().unwrap();
        let daemon = sandbox.daemon(&text(&memcached, lines)).unwrap();
        House { daemon, memcached, sandbox }
    }

    fn new() -> House {
        House::with("")
    }

    /// The settings of [`House::with`].
    fn text(&self, lines: &str) -> String {
        text(&self.memcached, lines)
    }

    /// The outbox has nothing of ours to say about errors.
    fn assert_sound(&self) {
        let log = self.daemon.log();
        assert!(!log.contains("internal error") && !log.contains("ERROR"), "{log}");
    }
}

fn text(memcached: &Memcached, lines: &str) -> String {
    format!("resolver = '{}'\n{lines}\n{CREDENTIALS}", memcached.configuration())
}
