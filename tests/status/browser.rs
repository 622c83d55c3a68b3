//! Debian's chromium, by its DevTools protocol over two pipes: JSON, each message with a NUL behind it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ocbus::sandbox::Sandbox;
use serde_json::{Value, json};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);

/// One window.
pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    next: u64,
    session: Option<String>,
    /// What it answers when a login is demanded; `None`: nothing, as somebody who closes the dialogue.
    login: Option<(String, String)>,
    /// The demands so far: scheme and realm.
    pub(crate) demands: Vec<(String, String)>,
}

impl Browser {
    pub(crate) fn start(sandbox: &Sandbox, login: Option<(&str, &str)>) -> Browser {
        // The protocol's descriptors are 3 and 4.
        let script = "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let profile = format!("--user-data-dir={}", sandbox.path().join("browser").display());
        let mut command = Command::new("sh");
        command.args(["-c", script, "chromium", "--headless", "--no-sandbox", "--disable-gpu"]);
        command.args(["--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe", &profile]);
        command.env("HOME", sandbox.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        // All of its processes, to be ended together.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().unwrap();
        let (to, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, from) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut message = Vec::new();
            while reader.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let login = login.map(|(name, word)| (name.to_owned(), word.to_owned()));
        let mut browser = Browser { child, to, from, next: 0, session: None, login, demands: Vec::new() };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let target = target["targetId"].as_str().unwrap().to_owned();
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        browser.call("Page.enable", json!({}));
        browser.call("Fetch.enable", json!({"handleAuthRequests": true}));
        browser
    }

    fn send(&mut self, method: &str, params: &Value) -> u64 {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut octets = message.to_string().into_bytes();
        octets.push(0);
        self.to.write_all(&octets).expect("chromium of scripts/setup test");
        self.next
    }

    /// Calls a method, and meanwhile lets requests go on and answers demands for a login.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, &params);
        let end = Instant::now() + LIMIT;
        loop {
            let message = self.from.recv_timeout(end.saturating_duration_since(Instant::now()));
            let message = message.unwrap_or_else(|why| {
                panic!("{method}: {why}: chromium did not answer (scripts/setup test installs it)")
            });
            let request = &message["params"]["requestId"];
            match message["method"].as_str() {
                Some("Fetch.requestPaused") => {
                    self.send("Fetch.continueRequest", &json!({"requestId": request}));
                }
                Some("Fetch.authRequired") => {
                    let text =
                        |key: &str| message["params"]["authChallenge"][key].as_str().unwrap().to_owned();
                    self.demands.push((text("scheme"), text("realm")));
                    let answer = match &self.login {
                        // Asked twice, it was wrong.
                        Some((name, word)) if self.demands.len() == 1 => {
                            json!({"response": "ProvideCredentials", "username": name, "password": word})
                        }
                        _ => json!({"response": "CancelAuth"}),
                    };
                    let params = json!({"requestId": request, "authChallengeResponse": answer});
                    self.send("Fetch.continueWithAuth", &params);
                }
                _ if message["id"] == json!(id) => {
                    assert!(message["error"].is_null(), "{method}: {message}");
                    return message["result"].clone();
                }
                _ => {}
            }
        }
    }

    pub(crate) fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// What an expression gives in the page.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let result = self.call("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression holds.
    pub(crate) fn until(&mut self, expression: &str) {
        let begun = Instant::now();
        while self.evaluate(expression) != json!(true) {
            let shown = || "document.documentElement.outerHTML";
            if begun.elapsed() > LIMIT {
                panic!("not within {LIMIT:?}: {expression}\n{}", self.evaluate(shown()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}
