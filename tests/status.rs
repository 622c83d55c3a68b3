//! Seeing `ocbus serve` work: metrics as Prometheus reads them, the page in a real browser, traces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "status/browser.rs"]
mod browser;
#[path = "serve/client.rs"]
#[allow(dead_code, reason = "the tests of the end-points use all of it")]
mod client;
#[path = "status/metrics.rs"]
mod metrics;
#[path = "status/page.rs"]
mod page;
#[path = "status/streams.rs"]
mod streams;
mod support;
#[path = "status/trace.rs"]
mod trace;

use ocbus::sandbox::{Daemon, Memcached, Sandbox};

use client::{Answer, ask, request};

/// `login:pass`.
const BASIC: &str = "Basic bG9naW46cGFzcw==";

/// A memcached, and a daemon that asks it, with a login.
struct House {
    daemon: Daemon,
    memcached: Memcached,
    sandbox: Sandbox,
}

impl House {
    fn new() -> House {
        House::with("")
    }

    /// With these lines of settings: dotted keys.
    fn with(lines: &str) -> House {
        let sandbox = Sandbox::new().unwrap();
        let memcached = sandbox.memcached().unwrap();
        House::around(sandbox, memcached, lines)
    }

    /// The daemon of a memcached that knows something already.
    fn around(sandbox: Sandbox, memcached: Memcached, lines: &str) -> House {
        let settings = format!(
            "resolver = '{}'\n{lines}\n[[http.credentials]]\nname = 'x'\nlogin = 'login'\npassword = 'pass'\n",
            memcached.configuration()
        );
        let daemon = sandbox.daemon(&settings).unwrap();
        House { daemon, memcached, sandbox }
    }

    fn get(&self, path: &str) -> Answer {
        ask(self.daemon.port(), &request("GET", path, BASIC, b""))
    }

    /// Posts events in the documented JSON.
    fn post(&self, events: &str) -> Answer {
        ask(self.daemon.port(), &request("POST", "/v1/events", BASIC, events.as_bytes()))
    }

    fn notify(&self, user: &str, uid: u32) {
        let answer = ask(self.daemon.port(), &client::notify(user, uid));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}
