//! The sandbox itself: real servers start, store, and are gone afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use ocbus::sandbox::{
    DovecotOptions, Sandbox, SandboxError, alive, faults, free_port, mail, mailbox_name, open_descriptors,
};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

const SECOND: Duration = Duration::from_secs(1);

fn notify() -> DovecotOptions {
    DovecotOptions::new(&["notify"])
}

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Zombies count as gone: who reaps orphans is the machine's affair.
fn all_gone(pids: &[i32], within: Duration) -> bool {
    let end = Instant::now() + within;
    while pids.iter().any(|&pid| alive(pid)) {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

#[test]
fn a_mail_is_stored_once_by_each_way() {
    let started = Instant::now();
    let sandbox = Sandbox::new().unwrap();
    let dovecot = sandbox.dovecot(notify()).unwrap();
    println!("sandbox and Dovecot: {:?}", started.elapsed());
    let letter = mail("Alice <alice@example.org>", "hello", "Hi Bob\n.\n..dots\n");

    let delivery = dovecot.deliver_lda("bob", &letter, None).unwrap();
    println!("LDA: {:?}", delivery.took);
    assert!(delivery.is_ok(), "{delivery:?}\n{}", dovecot.log());
    assert_eq!(delivery.stderr, "");
    assert_eq!(dovecot.maildir("bob").count("INBOX"), 1);

    let mut lmtp = dovecot.lmtp().unwrap();
    let replies =
        lmtp.deliver("alice@example.org", &["bob", "erin@example.org", "not valid@"], &letter).unwrap();
    assert_eq!(replies.iter().map(|reply| reply.code).collect::<Vec<_>>(), [250, 250, 501], "{replies:?}");
    assert_eq!(lmtp.deliver("", &["bob"], &letter).unwrap()[0].code, 250);
    lmtp.quit().unwrap();
    assert_eq!(dovecot.maildir("bob").count("INBOX"), 3);
    assert_eq!(dovecot.maildir("erin@example.org").count("inbox"), 1);

    let mut imap = dovecot.imap("bob").unwrap();
    imap.command(&format!("CREATE {}", mailbox_name("Entwürfe/a & b"))).unwrap();
    imap.append("Entwürfe/a & b", "\\Seen", &letter).unwrap();
    assert!(imap.append("no such mailbox", "", &letter).is_err());
    imap.command("SELECT INBOX").unwrap();
    let lines = imap.command("FETCH 1:3 BODY.PEEK[TEXT]").unwrap();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[..3].iter().all(|line| line.contains("Hi Bob\r\n.\r\n..dots\r\n")), "{lines:?}");
    let refused = imap.command("SELECT nowhere").unwrap_err().to_string();
    assert!(refused.contains("SELECT nowhere") && refused.contains("NO"), "{refused}");
    imap.logout().unwrap();
    assert_eq!(dovecot.maildir("bob").count("Entwürfe/a & b"), 1);
    assert_eq!(dovecot.maildir("bob").total(), 4);
    assert_eq!(dovecot.maildir("nobody").total(), 0);

    let delivery = dovecot.deliver_lda("bob", &letter, Some("Lists/ocbus")).unwrap();
    assert!(delivery.is_ok(), "{delivery:?}");
    assert_eq!(dovecot.maildir("bob").count("Lists/ocbus"), 1);
    dovecot.wait_log("saved mail to Lists/ocbus", 5 * SECOND).unwrap();
    assert!(dovecot.plugin_log_lines().is_empty());
    assert!(dovecot.wait_log("nothing like it", Duration::from_millis(20)).is_err());
    assert!(dovecot.doveadm(&["mailbox", "list", "-u", "bob"]).unwrap().contains("Lists/ocbus"));
}

#[test]
fn a_mail_larger_than_a_pipe_is_delivered_whole() {
    let sandbox = Sandbox::new().unwrap();
    let dovecot = sandbox.dovecot(notify()).unwrap();
    let letter = mail("a@example.org", "large", &"0123456789abcde\n".repeat(20_000));
    assert!(dovecot.deliver_lda("bob", &letter, None).unwrap().is_ok());
    assert!(dovecot.lmtp().unwrap().deliver("", &["bob"], &letter).unwrap()[0].is_ok());
    dovecot.imap("bob").unwrap().append("INBOX", "", &letter).unwrap();
    let mails = dovecot.maildir("bob").mails("INBOX");
    assert_eq!(mails.len(), 3);
    for path in mails {
        assert_eq!(fs::read_to_string(path).unwrap().matches("abcde").count(), 20_000);
    }
}

#[test]
fn everything_is_gone_afterwards() {
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let dovecot = sandbox.dovecot(notify()).unwrap();
    let lmtp = dovecot.lmtp().unwrap();
    let imap = dovecot.imap("bob").unwrap();
    let processes = dovecot.processes();
    for name in ["dovecot", "lmtp", "imap", "auth"] {
        // (imap-login is there or not: it ends once it has handed its connection over.)
        let pid = processes.iter().find_map(|(pid, known)| (known == name).then_some(*pid));
        assert!(pid.is_some_and(alive), "no {name} in {processes:?}");
    }
    assert!(open_descriptors(dovecot.pid()) > 3);
    assert!(alive(memcached.pid()));
    let pids: Vec<i32> = processes.iter().map(|(pid, _)| *pid).chain([memcached.pid()]).collect();
    let folder = sandbox.path().to_path_buf();

    let started = Instant::now();
    drop(dovecot);
    println!("Dovecot ended with clients connected: {:?}", started.elapsed());
    drop((lmtp, imap, memcached, sandbox));
    assert!(
        pids.iter().all(|&pid| !alive(pid)),
        "{:?}",
        pids.iter().map(|&pid| alive(pid)).collect::<Vec<_>>()
    );
    assert!(!folder.exists());
}

#[test]
fn servers_outlive_the_thread_that_started_them() {
    let (sandbox, memcached, dovecot) = thread::spawn(|| {
        let sandbox = Sandbox::new().unwrap();
        let memcached = sandbox.memcached().unwrap();
        let dovecot = sandbox.dovecot(notify()).unwrap();
        (sandbox, memcached, dovecot)
    })
    .join()
    .unwrap();
    memcached.flush_all().unwrap();
    assert!(dovecot.deliver_lda("bob", mail("a", "b", "c"), None).unwrap().is_ok());
    drop(dovecot);
    drop((memcached, sandbox));
}

/// Not a test of its own: [`nothing_outlives_a_killed_process`] starts it in another process, and kills that.
#[test]
fn helper_that_holds_a_sandbox() {
    if std::env::var_os("OCBUS_TEST_HOLD").is_none() {
        return;
    }
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let dovecot = sandbox.dovecot(notify()).unwrap();
    let _lmtp = dovecot.lmtp().unwrap();
    let _imap = dovecot.imap("bob").unwrap();
    let pids: Vec<String> = dovecot.processes().iter().map(|(pid, _)| pid.to_string()).collect();
    println!("\nholding {} {} {}", memcached.pid(), dovecot.pid(), pids.join(" "));
    io::stdout().flush().unwrap();
    thread::sleep(60 * SECOND);
}

#[test]
fn nothing_outlives_a_killed_process() {
    let sandbox = Sandbox::new().unwrap();
    let folder = sandbox.path().join("s");
    fs::create_dir(&folder).unwrap();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_that_holds_a_sandbox", "--nocapture", "--test-threads", "2"])
        .env("OCBUS_TEST_HOLD", "1")
        .env("OCBUS_SANDBOX_DIR", &folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = io::BufRead::lines(io::BufReader::new(holder.stdout.take().unwrap()));
    let pids: Vec<i32> = lines
        .map_while(Result::ok)
        .find_map(|line| {
            Some(line.strip_prefix("holding ")?.split(' ').map(|pid| pid.parse().unwrap()).collect())
        })
        .expect("the holder did not start its servers");
    assert!(pids.len() > 4 && pids[..2].iter().all(|&pid| alive(pid)), "{pids:?}");

    let killed = Instant::now();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(all_gone(&pids[..2], SECOND), "memcached or Dovecot's master outlived us");
    println!("servers: {:?}", killed.elapsed());
    assert!(all_gone(&pids, 5 * SECOND), "a process of Dovecot outlived us");
    println!("all {} processes: {:?}", pids.len(), killed.elapsed());
}

#[test]
fn any_program_can_be_a_child() {
    let sandbox = Sandbox::new().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "echo $WORD; echo oops >&2; sleep 100 & sleep 100"]).env("WORD", "ready");
    let mut child = sandbox.start("sh", &command).unwrap();
    child.wait_output("oops", 5 * SECOND).unwrap();
    assert_eq!((child.stdout().as_str(), child.stderr().as_str()), ("ready\n", "oops\n"));
    assert_eq!(child.wait(Duration::from_millis(10)).unwrap(), None);
    let pid = child.pid();
    child.signal("TERM").unwrap();
    assert!(child.wait(5 * SECOND).unwrap().is_some());
    assert!(child.signal("TERM").is_err(), "the pid may be another's by now");
    assert!(!alive(pid));

    let ended = sandbox.start("false", &Command::new("false")).unwrap().wait_output("never", 5 * SECOND);
    assert!(matches!(ended, Err(SandboxError::Ended { .. })), "{ended:?}");
    let started = Instant::now();
    let mut deaf = Command::new("sh");
    deaf.args(["-c", "trap '' TERM; echo deaf; while :; do sleep 100; done"]);
    let mut child = sandbox.start("deaf", &deaf).unwrap();
    child.wait_output("deaf", 5 * SECOND).unwrap();
    let pid = child.pid();
    drop(child);
    assert!(!alive(pid) && started.elapsed() < 5 * SECOND);
}

#[test]
fn memcached_stops_goes_on_and_forgets() {
    let sandbox = Sandbox::new().unwrap();
    let started = Instant::now();
    let mut memcached = sandbox.memcached().unwrap();
    println!("memcached: {:?}", started.elapsed());
    memcached.set("resolver:bob", b"\x00garbage\r\n").unwrap();
    assert_eq!(memcached.get("resolver:bob").unwrap().unwrap(), b"\x00garbage\r\n");

    memcached.stop().unwrap();
    let mut stream = TcpStream::connect(memcached.address()).unwrap();
    stream.write_all(b"mn\r\n").unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let error = stream.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    memcached.cont().unwrap();
    stream.set_read_timeout(Some(5 * SECOND)).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"MN\r\n");

    memcached.flush_all().unwrap();
    assert_eq!(memcached.get("resolver:bob").unwrap(), None);
    memcached.set("a", b"1").unwrap();
    let (port, pid) = (memcached.port(), memcached.pid());
    memcached.restart().unwrap();
    assert_eq!(memcached.port(), port);
    assert!(memcached.pid() != pid && !alive(pid));
    assert_eq!(memcached.get("a").unwrap(), None);

    memcached.stop().unwrap();
    memcached.kill();
    let error = TcpStream::connect(memcached.address()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    memcached.restart().unwrap();
    memcached.flush_all().unwrap();
}

#[test]
fn a_blackhole_lets_connects_hang() {
    let blackhole = faults::Blackhole::new().unwrap();
    for _ in 0..3 {
        let started = Instant::now();
        let error =
            TcpStream::connect_timeout(&at(blackhole.port()), Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert!(started.elapsed() > Duration::from_millis(200));
    }
    // Through the kernel's second SYN, a second after the first, too.
    let error = TcpStream::connect_timeout(&at(blackhole.port()), Duration::from_millis(1300)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
}

#[test]
fn many_blackholes_are_made_quickly() {
    let started = Instant::now();
    let blackholes: Vec<_> = (0..20).map(|_| faults::Blackhole::new().unwrap()).collect();
    println!("20 blackholes: {:?}", started.elapsed());
    assert!(started.elapsed() < 5 * SECOND);
    for blackhole in &blackholes {
        assert!(TcpStream::connect_timeout(&at(blackhole.port()), Duration::from_millis(20)).is_err());
    }
}

#[test]
fn an_ipc_blackhole_lets_connects_hang() {
    let sandbox = Sandbox::new().unwrap();
    let path = sandbox.path().join("hole");
    let blackhole = faults::IpcBlackhole::new(&path).unwrap();
    let connecting = thread::spawn(move || UnixStream::connect(path).map(drop));
    thread::sleep(Duration::from_millis(250));
    assert!(!connecting.is_finished());
    drop(blackhole);
    assert!(connecting.join().unwrap().is_err());
}

#[test]
fn faulty_endpoints_are_faulty_in_their_way() {
    let refused = faults::Refused::new().unwrap();
    for port in [refused.port(), faults::refused_port().unwrap()] {
        let error = TcpStream::connect(at(port)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    let silent = faults::Silent::new().unwrap();
    let mut stream = TcpStream::connect(at(silent.port())).unwrap();
    stream.write_all(b"\0SP\0\0\x50\0\0").unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(silent.accepted(), 1);
    drop(silent);
    stream.set_read_timeout(Some(5 * SECOND)).unwrap();
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));

    let closer = faults::Closer::new().unwrap();
    let mut stream = TcpStream::connect(at(closer.port())).unwrap();
    stream.set_read_timeout(Some(5 * SECOND)).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);

    let garbage = faults::Garbage::new().unwrap();
    let mut stream = TcpStream::connect(at(garbage.port())).unwrap();
    stream.write_all(b"\0SP\0\0\x50\0\0").unwrap();
    stream.set_read_timeout(Some(5 * SECOND)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");
    assert_eq!((closer.accepted(), garbage.accepted()), (1, 1));
}

#[test]
fn a_dovecot_that_cannot_start_says_why() {
    let sandbox = Sandbox::new().unwrap();
    let error = sandbox.dovecot(notify().extra("no_such_setting = yes")).unwrap_err();
    assert!(error.to_string().contains("Unknown setting: no_such_setting"), "{error}");
    let error = sandbox.dovecot(notify().setting("openchange_cn", "a\nb")).unwrap_err();
    assert!(matches!(error, SandboxError::Setting { .. }), "{error}");
    let error = sandbox.dovecot(notify().plugin_file("/nonexistent/plugin.so")).unwrap_err();
    assert!(error.to_string().contains("cargo build -p dovecot-openchange-plugin"), "{error}");
}

#[test]
fn settings_and_separator_reach_dovecot() {
    let sandbox = Sandbox::new().unwrap();
    const NAME: &str = "openchange_resolver";
    let value = r#"--SERVER=127.0.0.1:1 "x" \y # z"#;
    let options = notify().setting(NAME, value).separator('.').debug();
    let dovecot = sandbox.dovecot(options.protocol_plugins("imap", &[])).unwrap();
    let shown = Command::new("doveconf")
        .arg("-c")
        .arg(dovecot.conf())
        .args(["-h", if dovecot.version().starts_with("2.4") { NAME } else { "plugin/openchange_resolver" }])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    // 2.4 shows it as it stands in the file.
    let quoted = format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
    let wanted = if dovecot.version().starts_with("2.4") { &quoted } else { value };
    assert_eq!(shown.lines().next(), Some(wanted), "{shown}");
    assert!(dovecot.deliver_lda("bob", mail("a", "b", "c"), Some("A.B")).unwrap().is_ok());
    assert_eq!(dovecot.maildir("bob").count("A.B"), 1);
    // mail_debug
    dovecot.wait_log("lib15_notify_plugin.so", 5 * SECOND).unwrap();
    assert!(dovecot.stop().contains("lib15_notify_plugin.so"));
}

#[test]
fn two_dovecots_share_a_sandbox() {
    let sandbox = Sandbox::new().unwrap();
    let (one, two) = (sandbox.dovecot(notify()).unwrap(), sandbox.dovecot(DovecotOptions::new(&[])).unwrap());
    assert!(one.deliver_lda("bob", mail("a", "b", "c"), None).unwrap().is_ok());
    assert_eq!((one.maildir("bob").total(), two.maildir("bob").total()), (1, 0));
}

#[test]
fn a_delivery_ends_at_its_deadline() {
    let sandbox = Sandbox::new().unwrap();
    let mut dovecot = sandbox.dovecot(notify()).unwrap();
    let mut lmtp = dovecot.lmtp().unwrap();
    lmtp.set_deadline(Duration::from_millis(100)).unwrap();
    dovecot.set_deadline(Duration::from_millis(100));
    let stopped: Vec<i32> = dovecot
        .processes()
        .into_iter()
        .filter(|(_, name)| matches!(name.as_str(), "auth" | "lmtp" | "dovecot"))
        .map(|(pid, _)| pid)
        .collect();
    for pid in &stopped {
        assert!(Command::new("kill").args(["-STOP", &pid.to_string()]).status().unwrap().success());
    }
    let delivery = dovecot.deliver_lda("bob", mail("a", "b", "c"), None).unwrap();
    assert_eq!((delivery.status, delivery.signal), (None, Some(9)), "{delivery:?}");
    assert!(delivery.took >= Duration::from_millis(100) && delivery.took < SECOND);
    let error = lmtp.command("NOOP").unwrap_err();
    assert!(matches!(error, SandboxError::Deadline { .. }), "{error}");
    // Stopped processes are ended all the same.
    drop(dovecot);
    assert!(stopped.iter().all(|&pid| !alive(pid)));
}

#[test]
fn free_ports_are_free() {
    let port = free_port().unwrap();
    assert_eq!(TcpStream::connect(at(port)).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_free_port_is_none_that_the_kernel_gives_to_connections() {
    let given = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first: u16 = given.split_whitespace().next().unwrap().parse().unwrap();
    if first < 11_000 {
        return eprintln!("skipped: this machine gives nearly all ports to connections");
    }
    for _ in 0..20 {
        let port = free_port().unwrap();
        assert!((10_240..first).contains(&port), "{port}");
    }
}
