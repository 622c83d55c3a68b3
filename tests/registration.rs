//! Registration with Debian's Dovecot, by its DoveAdm HTTP API and by IMAP METADATA; who is registered comes from a
//! real memcached.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "registration/by_hand.rs"]
mod by_hand;
#[path = "registration/state_file.rs"]
mod state_file;
#[path = "registration/values.rs"]
mod values;

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ocbus::registration::{Entry, KEY, Registrar, RegistrationSettings, Sessions, State};
use ocbus::resolver::{Cn, Config, MemoryStore, Registration, Resolver};
use ocbus::sandbox::{Dovecot, DovecotOptions, Memcached, Sandbox, free_port, mail};
use ocbus::wire::openchange::DosCharset;
use tokio::runtime::Runtime;
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(10);

fn cn(name: &str) -> Cn {
    Cn::new(name).unwrap()
}

fn options() -> DovecotOptions {
    DovecotOptions::new(&["notify"]).doveadm_http("s3cr3t", "dovepass").metadata()
}

/// What Dovecot itself says of a user's key.
fn value(dovecot: &Dovecot, user: &str) -> String {
    let value = dovecot.doveadm(&["mailbox", "metadata", "get", "-u", user, "-s", "", KEY]);
    value.unwrap().trim().to_owned()
}

fn unset(dovecot: &Dovecot, user: &str) {
    dovecot.doveadm(&["mailbox", "metadata", "unset", "-u", user, "-s", "", KEY]).unwrap();
}

/// Asks again until it is so; gives how long that took.
#[track_caller]
fn until(what: &str, limit: Duration, mut is: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < limit, "{what} did not happen within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    started.elapsed()
}

async fn start(toml: &str, resolver: Resolver, sessions: Sessions) -> Registrar {
    let settings: RegistrationSettings = toml::from_str(toml).unwrap();
    let mut warnings = Vec::new();
    let config = settings.read(Path::new("/"), &mut warnings).unwrap().unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    Registrar::start(config, resolver, sessions).await
}

async fn alone(toml: &str) -> Registrar {
    start(toml, Resolver::in_memory(MemoryStore::new()), Sessions::Told).await
}

fn doveadm(dovecot: &Dovecot) -> String {
    let port = dovecot.doveadm_port();
    format!("by = 'doveadm'\nendpoints = ['http://127.0.0.1:{port}']\napi_key = 's3cr3t'\nretry_s = 1\n")
}

async fn of_memcached(memcached: &Memcached) -> (Resolver, Sessions) {
    let config = Config::parse(&memcached.configuration()).unwrap();
    let resolver = Resolver::new(&config, DosCharset::default(), SECOND).await.unwrap();
    (resolver, Sessions::Memcached { config: Box::new(config), limit: SECOND })
}

fn entry(registrar: &Registrar, user: &str) -> Option<Entry> {
    registrar.list().into_iter().find(|entry| entry.user == user)
}

/// An HTTP server that takes what the OX driver sends; each request's body.
fn listener() -> (u16, Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            if length == 0 || stream.read_exact(&mut body).is_err() {
                continue;
            }
            let _ = stream
                .get_mut()
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            if sender.send(String::from_utf8(body).unwrap()).is_err() {
                return;
            }
        }
    });
    (port, receiver)
}

fn ox(port: u16) -> DovecotOptions {
    options()
        .protocol_plugins("lda", &["notify", "push_notification"])
        .protocol_plugins("lmtp", &["notify", "push_notification"])
        .push_by_ox(&format!(
            "http://login:pass@127.0.0.1:{port}/preliminary/http-notify/v1/notify user_from_metadata"
        ))
}

fn deliver(dovecot: &Dovecot, user: &str) {
    let delivery = dovecot.deliver_lda(user, mail("a@example.org", "hello", "Hi"), None).unwrap();
    assert!(delivery.is_ok(), "{delivery:?}\n{}", dovecot.log());
}

/// Registers bob by `toml` and unregisters him; Dovecot says so, and its driver acts on it.
async fn a_mail_is_told_of_once_registered(dovecot: &Dovecot, requests: &Receiver<String>, toml: &str) {
    let registrar = alone(toml).await;
    deliver(dovecot, "bob");
    assert!(requests.try_recv().is_err(), "the driver is silent without the key");
    assert_eq!(value(dovecot, "bob"), "");

    let told = registrar.register(&cn("bob"), LIMIT).await.unwrap().unwrap();
    assert_eq!((told.state, told.fault), (State::Registered, None));
    assert_eq!(value(dovecot, "bob"), "user=bob;local=bob");
    deliver(dovecot, "bob");
    // dovecot-lda waits for the answer: the request has been made.
    let body: serde_json::Value = serde_json::from_str(&requests.recv_timeout(LIMIT).unwrap()).unwrap();
    assert_eq!((body["user"].as_str(), body["event"].as_str()), (Some("bob;local=bob"), Some("messageNew")));

    assert_eq!(registrar.unregister(&cn("bob"), LIMIT).await, Ok(None));
    assert_eq!(value(dovecot, "bob"), "");
    deliver(dovecot, "bob");
    assert!(requests.try_recv().is_err(), "silent again");
    let statistics = registrar.statistics();
    assert_eq!((statistics.set, statistics.unset, statistics.failed), (1, 1, 0));
    registrar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_each_way_a_mail_then_notifies() {
    let (port, requests) = listener();
    let sandbox = Sandbox::new().unwrap();
    let users = [("bob", "bobsword"), ("eve", "eves")];
    let dovecot = sandbox.dovecot(ox(port).users(&users).master_user("ocbus", "masterword")).unwrap();
    let value = "value = 'user={user};local={local}'\n";
    let words = sandbox.path().join("words");
    std::fs::write(&words, "bob:bobsword\nmallory:x\n").unwrap();
    std::fs::set_permissions(&words, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();

    let key = doveadm(&dovecot) + value;
    let password = key.replace("api_key = 's3cr3t'", "password = 'dovepass'");
    let imap = format!(
        "by = 'imap'\nendpoints = ['imap://127.0.0.1:{}']\nretry_s = 1\n{value}",
        dovecot.imap_port()
    );
    let master = format!("{imap}master_user = 'ocbus'\npassword = 'masterword'\n");
    let own = format!("{imap}passwords_file = '{}'\n", words.display());
    for toml in [key, password, master, own.clone()] {
        a_mail_is_told_of_once_registered(&dovecot, &requests, &toml).await;
    }

    // Users without credentials, with wrong ones, and users that Dovecot does not know: each by itself.
    let registrar = alone(&own).await;
    let fault = |entry: Option<Entry>| entry.unwrap().fault.unwrap_or_default();
    let eve = fault(registrar.register(&cn("eve"), LIMIT).await.unwrap());
    assert!(eve.contains("no credentials for this user"), "{eve}");
    let mallory = fault(registrar.register(&cn("mallory"), LIMIT).await.unwrap());
    assert!(mallory.contains("login refused") && mallory.contains("AUTHENTICATIONFAILED"), "{mallory}");
    registrar.stop().await;
    let registrar = alone(&doveadm(&dovecot)).await;
    let mallory = fault(registrar.register(&cn("mallory"), LIMIT).await.unwrap());
    assert!(mallory.contains("knows no such user"), "{mallory}");
    let eve = registrar.register(&cn("eve"), LIMIT).await.unwrap().unwrap();
    assert_eq!(eve.state, State::Registered);
    assert_eq!(registrar.statistics().outages, 0);
    registrar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_users_go_in_few_requests_and_wrong_credentials_are_told_in_time() {
    let sandbox = Sandbox::new().unwrap();
    let dovecot = sandbox.dovecot(options()).unwrap();
    let names: Vec<String> = (0..100).map(|number| format!("user{number}")).collect();
    let listed = format!("permanent = {names:?}\n");
    let registrar = alone(&(doveadm(&dovecot) + &listed)).await;
    let took = until("100 registrations", 30 * SECOND, || registrar.statistics().registered == 100);
    println!("100 users looked at and set: {took:?}");
    assert_eq!(value(&dovecot, "user0"), "user=user0");
    assert_eq!(value(&dovecot, "user99"), "user=user99");
    registrar.stop().await;
    // A restarted daemon finds them set, and sets nothing.
    let registrar = alone(&(doveadm(&dovecot) + &listed)).await;
    let took = until("100 looks", 30 * SECOND, || registrar.statistics().registered == 100);
    println!("100 users looked at: {took:?}");
    assert_eq!(registrar.statistics().set, 0);
    registrar.stop().await;

    let started = Instant::now();
    let registrar = alone(&doveadm(&dovecot).replace("s3cr3t", "wrong")).await;
    let told = registrar.register(&cn("bob"), LIMIT).await.unwrap().unwrap();
    assert!(started.elapsed() < 5 * SECOND, "{:?}", started.elapsed());
    assert!(
        told.fault.as_ref().is_some_and(|fault| fault.contains("refuses the credentials (401)")),
        "{told:?}"
    );
    assert_eq!(value(&dovecot, "bob"), "");
    registrar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_and_a_hung_endpoint_are_left_aside() {
    let sandbox = Sandbox::new().unwrap();
    let dovecot = sandbox.dovecot(options()).unwrap();
    let dead = free_port().unwrap();
    // It takes connections and says nothing.
    let hung = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let [dead, hung, live] = [dead, hung.local_addr().unwrap().port(), dovecot.doveadm_port()]
        .map(|port| format!("'http://127.0.0.1:{port}'"));
    let toml = format!(
        "by = 'doveadm'\nendpoints = [{dead}, {hung}, {live}]\napi_key = 's3cr3t'\nread_timeout_ms = 300\n\
         connect_timeout_ms = 200\nretry_s = 60\npool_size = 1\n"
    );
    let registrar = alone(&toml).await;
    for number in 0..6 {
        let user = format!("user{number}");
        let told = registrar.register(&cn(&user), LIMIT).await.unwrap().unwrap();
        assert_eq!(told.state, State::Registered, "{told:?}");
        assert_eq!(value(&dovecot, &user), format!("user={user}"));
    }
    // By now both have failed as often as it takes; they cost nothing more.
    let started = Instant::now();
    for number in 6..10 {
        registrar.register(&cn(&format!("user{number}")), LIMIT).await.unwrap();
    }
    assert!(started.elapsed() < 300 * Duration::from_millis(4), "{:?}", started.elapsed());
    assert_eq!(registrar.statistics().outages, 0);
    registrar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_come_and_go_while_dovecot_is_restarted_and_loses_a_key() {
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let mut dovecot = sandbox.dovecot(options()).unwrap();
    let (resolver, sessions) = of_memcached(&memcached).await;
    let toml = doveadm(&dovecot) + "sessions_s = 1\ngrace_s = 1\nreconcile_s = 2\npermanent = ['ann']\n";
    let state = sandbox.path().join("users");
    let toml = format!("{toml}state_file = '{}'\n", state.display());
    let registrar = start(&toml, resolver.clone(), sessions.clone()).await;
    let id = Uuid::now_v7();
    let lease = Duration::from_secs(60);
    let registration = |endpoint| Registration { endpoint, legacy: None, subscriber: id, lease };

    resolver.register(&cn("bob"), registration("tcp://127.0.0.1:9")).await.unwrap();
    until("bob is registered", LIMIT, || value(&dovecot, "bob") == "user=bob");
    until("ann is registered", LIMIT, || value(&dovecot, "ann") == "user=ann");
    let bob = entry(&registrar, "bob").unwrap();
    assert_eq!((bob.permanent, bob.session, bob.last_event_us), (false, true, None));
    assert!(bob.since_us.is_some());
    registrar.saw(&cn("bob"), 42);
    assert_eq!(entry(&registrar, "bob").unwrap().last_event_us, Some(42));

    // Somebody takes a key away: it is put back.
    unset(&dovecot, "ann");
    let took = until("ann's key is put back", LIMIT, || value(&dovecot, "ann") == "user=ann");
    println!("a lost key with reconcile_s = 2: {took:?}");
    until("it is counted", LIMIT, || registrar.statistics().lost >= 1);

    // Dovecot is away while a session comes and another goes.
    dovecot.shut_down();
    resolver.register(&cn("carol"), registration("tcp://127.0.0.1:9")).await.unwrap();
    resolver.leave(&cn("bob"), "tcp://127.0.0.1:9", id).await.unwrap();
    until("the outage is seen", LIMIT, || registrar.statistics().outages >= 1);
    until("carol waits", LIMIT, || {
        entry(&registrar, "carol").is_some_and(|carol| carol.state != State::Registered)
    });
    dovecot.restart().unwrap();
    let took = until("carol is registered", LIMIT, || value(&dovecot, "carol") == "user=carol");
    println!("a session that came while Dovecot was away, with retry_s = 1: {took:?} after its start");
    until("bob is not any more", LIMIT, || value(&dovecot, "bob").is_empty());
    until("bob is forgotten", LIMIT, || entry(&registrar, "bob").is_none());
    assert_eq!(value(&dovecot, "ann"), "user=ann");

    // The daemon itself is away while carol's session ends: the next one takes her back.
    registrar.stop().await;
    assert!(std::fs::read_to_string(&state).unwrap().contains("session carol "));
    resolver.leave(&cn("carol"), "tcp://127.0.0.1:9", id).await.unwrap();
    let registrar = start(&toml, resolver, sessions).await;
    until("carol is taken back", LIMIT, || value(&dovecot, "carol").is_empty());
    assert_eq!(value(&dovecot, "ann"), "user=ann");
    registrar.stop().await;
}

#[test]
fn the_users_of_a_daemon_that_is_killed_are_taken_over() {
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let dovecot = sandbox.dovecot(options()).unwrap();
    let names: Vec<String> = (0..30).map(|number| format!("user{number}")).collect();
    // Reconciled once a day: what happens sooner is a take-over.
    let toml = doveadm(&dovecot) + &format!("permanent = {names:?}\nlease_s = 2\nreconcile_s = 86400\n");
    let daemon = |name: &str| {
        let runtime = Runtime::new().unwrap();
        let toml = format!("{toml}daemon = '{name}'\n");
        let registrar = runtime.block_on(async {
            let (resolver, _) = of_memcached(&memcached).await;
            start(&toml, resolver, Sessions::Told).await
        });
        (runtime, registrar)
    };
    let registered = |registrar: &Registrar, name: &str| -> HashSet<String> {
        let mine = |entry: &Entry| entry.state == State::Registered && entry.daemon == name;
        registrar.list().into_iter().filter(mine).map(|entry| entry.user).collect()
    };
    let (first, one) = daemon("mail1");
    until("one has all", LIMIT, || registered(&one, "mail1").len() == 30);
    let (second, two) = daemon("mail2");
    until("they share", LIMIT, || {
        let (ones, twos) = (registered(&one, "mail1"), registered(&two, "mail2"));
        ones.len() + twos.len() == 30 && !ones.is_empty() && !twos.is_empty()
    });
    let (ones, twos) = (registered(&one, "mail1"), registered(&two, "mail2"));
    assert!(ones.is_disjoint(&twos));
    assert!(one.list().iter().all(|entry| (entry.daemon == "mail1") == ones.contains(&entry.user)));

    // It is gone without a word.
    first.shutdown_background();
    let killed = Instant::now();
    let lost = ones.iter().next().unwrap();
    unset(&dovecot, lost);
    until("its users are taken over", LIMIT, || registered(&two, "mail2").len() == 30);
    println!("{} users taken over {:?} after the kill, with lease_s = 2", ones.len(), killed.elapsed());
    assert!(killed.elapsed() < 4 * SECOND, "{:?}", killed.elapsed());
    assert_eq!(value(&dovecot, lost), format!("user={lost}"), "and looked at");

    // Another comes in its place, under the same name: it gets the same users back.
    let (third, again) = daemon("mail1");
    until("they share again", LIMIT, || {
        registered(&again, "mail1") == ones && registered(&two, "mail2") == twos
    });
    // One that ends in order is not waited for.
    let stopped = Instant::now();
    third.block_on(again.stop());
    until("taken over", LIMIT, || registered(&two, "mail2").len() == 30);
    println!("after an orderly end: {:?}", stopped.elapsed());
    second.block_on(two.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_memcached_every_daemon_looks_after_all() {
    let sandbox = Sandbox::new().unwrap();
    let mut memcached = sandbox.memcached().unwrap();
    let dovecot = sandbox.dovecot(options()).unwrap();
    let (resolver, sessions) = of_memcached(&memcached).await;
    let names: Vec<String> = (0..20).map(|number| format!("user{number}")).collect();
    let toml =
        doveadm(&dovecot) + &format!("permanent = {names:?}\nlease_s = 2\nsessions_s = 1\ngrace_s = 1\n");
    let one = start(&format!("{toml}daemon = 'mail1'\n"), resolver.clone(), sessions.clone()).await;
    let two = start(&format!("{toml}daemon = 'mail2'\n"), resolver.clone(), sessions).await;
    let registration = Registration {
        endpoint: "tcp://127.0.0.1:9",
        legacy: None,
        subscriber: Uuid::now_v7(),
        lease: Duration::from_secs(60),
    };
    resolver.register(&cn("bob"), registration).await.unwrap();
    until("bob is registered", LIMIT, || value(&dovecot, "bob") == "user=bob");
    until("they share", LIMIT, || {
        one.statistics().registered + two.statistics().registered == 21
            && one.list().len() == two.list().len()
    });
    memcached.kill();
    until("each has all", LIMIT, || one.statistics().registered == 21 && two.statistics().registered == 21);
    assert_eq!(value(&dovecot, "bob"), "user=bob", "an outage ends no session");
    memcached.restart().unwrap();
    until("they share again", LIMIT, || {
        let listed = |registrar: &Registrar| {
            registrar
                .list()
                .iter()
                .filter(|entry| entry.permanent && entry.state == State::Registered)
                .count()
        };
        listed(&one) + listed(&two) == 20
    });
    one.stop().await;
    two.stop().await;
}

/// Runs the command; its status, output and errors.
fn ocbus(port: u16, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ocbus"))
        .arg("users")
        .args(["--daemon", &format!("http://127.0.0.1:{port}")])
        .args(arguments)
        .env("OCBUS_CREDENTIALS", "admin:word")
        .output()
        .unwrap();
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_command_lists_registers_and_unregisters_at_the_daemon() {
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let users = [("bob", "b"), ("ann", "a"), ("eve@example.org", "e")];
    // Dovecot tells the daemon; the daemon makes that Dovecot do so.
    let port = free_port().unwrap();
    let dovecot = sandbox.dovecot(ox(port).users(&users)).unwrap();
    let settings = |permanent: &str| {
        format!(
            "resolver = '{}'\n[http]\nlisten = '127.0.0.1:{port}'\n\
             [[http.credentials]]\nname = 'dovecot'\nlogin = 'login'\npassword = 'pass'\n\
             [[http.credentials]]\nname = 'admin'\nlogin = 'admin'\npassword = 'word'\n\
             [users]\ncn = 'email'\n\
             [registration]\n{}permanent = [{permanent}]\ndaemon = 'mail1'\n",
            memcached.configuration(),
            doveadm(&dovecot),
        )
    };
    let mut daemon = sandbox.daemon(&settings("'ann'")).unwrap();
    until("ann is registered", LIMIT, || value(&dovecot, "ann") == "user=ann");

    let (status, out, err) = ocbus(port, &[]);
    assert_eq!((status, err.as_str()), (0, ""));
    let line = out.lines().find(|line| line.starts_with("ann")).unwrap();
    assert!(line.contains("permanent  registered") && line.ends_with("mail1"), "{out}");
    let (status, out, err) = ocbus(port, &["register", "Eve@example.org"]);
    assert_eq!((status, out.as_str(), err.as_str()), (0, "eve@example.org is registered, permanently\n", ""));
    assert_eq!(value(&dovecot, "eve@example.org"), "user=eve@example.org");

    // A mail of hers, and the list knows of it.
    deliver(&dovecot, "eve@example.org");
    let (status, out, _) = ocbus(port, &["--json"]);
    let listed: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let eve = listed.iter().find(|entry| entry["user"] == "eve@example.org").unwrap();
    assert_eq!(
        (status, eve["state"].as_str(), eve["daemon"].as_str()),
        (0, Some("registered"), Some("mail1"))
    );
    let (since, last) = (eve["since_us"].as_u64().unwrap(), eve["last_event_us"].as_u64().unwrap());
    assert!(last > since, "{eve}");
    assert!(listed.iter().find(|entry| entry["user"] == "ann").unwrap()["last_event_us"].is_null());

    let (status, out, _) = ocbus(port, &["unregister", "eve@example.org", "--json"]);
    assert_eq!((status, out.as_str()), (0, "{\"state\":\"unregistered\",\"user\":\"eve@example.org\"}\n"));
    assert_eq!(value(&dovecot, "eve@example.org"), "");

    for (arguments, status, why) in [
        (&["unregister", "ann"][..], 1, "409: 'ann' is permanent by the settings"),
        (&["unregister", "nobody"], 1, "404: 'nobody' is not registered"),
        (&["register", "mallory"], 1, "failed: Dovecot knows no such user"),
        (&["register", "two words"], 2, "expected no spaces"),
    ] {
        let (found, _, err) = ocbus(port, arguments);
        assert!(
            found == status && err.contains(why) && err.lines().count() == 1,
            "{arguments:?}: {found} {err}"
        );
    }
    let wrong =
        Command::new(env!("CARGO_BIN_EXE_ocbus")).args(["users", "--daemon", "localhost:8009"]).output();
    let wrong = wrong.unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("expected http://host:port"), "{wrong:?}");
    let nobody = Command::new(env!("CARGO_BIN_EXE_ocbus"))
        .args(["users", "--daemon", &format!("http://127.0.0.1:{port}")])
        .env_remove("OCBUS_CREDENTIALS")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("401"), "{nobody:?}");

    // Another list of permanent users, without a restart.
    daemon.reload(&settings("'bob'")).unwrap();
    until("bob is registered", LIMIT, || value(&dovecot, "bob") == "user=bob");
    until("ann is not any more", LIMIT, || value(&dovecot, "ann").is_empty());
    let log = daemon.wait_log("registration.permanent", LIMIT).unwrap();
    assert!(!log.contains("s3cr3t") && !log.contains("word"), "{log}");
    daemon.kill();
    let told = ocbus(port, &[]).2;
    assert!(
        told.contains("Connection refused") && told.contains("is `ocbus serve` running there?"),
        "{told}"
    );
}

#[test]
fn another_key_of_dovecots_is_taken_over_without_a_restart() {
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let dovecot = sandbox.dovecot(options()).unwrap();
    let key = sandbox.path().join("key");
    let write = |text: &str| std::fs::write(&key, text).unwrap();
    write("former");
    let settings = format!(
        "resolver = '{}'\n[registration]\n{}permanent = ['bob']\nretry_s = 3600\n",
        memcached.configuration(),
        doveadm(&dovecot)
            .replace("retry_s = 1\n", "")
            .replace("api_key = 's3cr3t'", &format!("api_key_file = '{}'", key.display())),
    );
    let mut daemon = sandbox.daemon(&settings).unwrap();
    daemon.wait_log("event=\"dovecot_away\"", LIMIT).unwrap();
    assert_eq!(value(&dovecot, "bob"), "");
    // The settings are the same; what they name is not. Nobody waits for retry_s.
    write("s3cr3t");
    daemon.reload(&settings).unwrap();
    until("bob is registered", LIMIT, || value(&dovecot, "bob") == "user=bob");
    let log = daemon.wait_log("event=\"reloaded\"", LIMIT).unwrap();
    assert!(!log.contains("restart_needed") && !log.contains("s3cr3t"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_only_with_dovecots_own_certificate() {
    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");
    let sandbox = Sandbox::new().unwrap();
    let (https, imaps) = (free_port().unwrap(), free_port().unwrap());
    let tls = |files: &str, listen: &str| {
        format!(
            "ssl = yes\n{files}\
             service doveadm {{\n  inet_listener http {{\n    {listen} = 127.0.0.1\n    port = {https}\n    ssl = yes\n  }}\n}}\n\
             service imap-login {{\n  inet_listener imaps {{\n    port = {imaps}\n    ssl = yes\n  }}\n}}\n"
        )
    };
    let v23 = tls(&format!("ssl_cert = <{FOLDER}/one.pem\nssl_key = <{FOLDER}/one.key\n"), "address");
    let files = format!("ssl_server_cert_file = {FOLDER}/one.pem\nssl_server_key_file = {FOLDER}/one.key\n");
    let v24 = tls(&files, "listen");
    let options = options().master_user("ocbus", "masterword").extra_by_version(&v23, &v24);
    let dovecot = sandbox.dovecot(options).unwrap();
    let doveadm = format!("by = 'doveadm'\nendpoints = ['https://localhost:{https}']\napi_key = 's3cr3t'\n");
    let imap = format!(
        "by = 'imap'\nendpoints = ['imaps://localhost:{imaps}']\nmaster_user = 'ocbus'\npassword = 'masterword'\n"
    );
    for toml in [doveadm, imap] {
        let registrar = alone(&format!("{toml}tls_ca_file = '{FOLDER}/one.pem'\n")).await;
        let told = registrar.register(&cn("bob"), LIMIT).await.unwrap().unwrap();
        assert_eq!((told.state, told.fault), (State::Registered, None), "{}", dovecot.log());
        assert_eq!(value(&dovecot, "bob"), "user=bob");
        registrar.unregister(&cn("bob"), LIMIT).await.unwrap();
        registrar.stop().await;
        let registrar = alone(&format!("{toml}tls_ca_file = '{FOLDER}/two.pem'\n")).await;
        let told = registrar.register(&cn("bob"), LIMIT).await.unwrap().unwrap();
        assert!(told.fault.as_ref().is_some_and(|why| why.contains("certificate")), "{told:?}");
        assert_eq!(value(&dovecot, "bob"), "");
        registrar.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_memcached_sessions_are_those_of_the_daemons_own_resolver() {
    let sandbox = Sandbox::new().unwrap();
    let dovecot = sandbox.dovecot(options()).unwrap();
    let store = MemoryStore::new();
    let resolver = Resolver::in_memory(store.clone());
    let toml = doveadm(&dovecot) + "sessions_s = 1\ngrace_s = 0\nvalue = 'user={local}'\nlogin = '{local}'\n";
    let registrar = start(&toml, resolver.clone(), Sessions::Memory(store)).await;
    resolver.register_legacy(&cn("bob@example.org"), "tcp://127.0.0.1:9").await.unwrap();
    until("bob is registered", LIMIT, || value(&dovecot, "bob") == "user=bob");
    resolver.leave_legacy(&cn("bob@example.org"), "tcp://127.0.0.1:9").await.unwrap();
    until("bob is not any more", LIMIT, || value(&dovecot, "bob").is_empty());
    // One of whom the resolver does not know.
    registrar.session(&cn("eve"), true);
    until("eve is registered", LIMIT, || value(&dovecot, "eve") == "user=eve");
    registrar.session(&cn("eve"), false);
    until("eve is not any more", LIMIT, || value(&dovecot, "eve").is_empty());
    registrar.stop().await;
}
