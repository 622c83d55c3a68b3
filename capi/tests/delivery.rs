//! A mail that real dovecot-lda delivers completes the parked wait of a C program on tevent, which takes the replies:
//! new mail with the ids that its callback gave, and the folder's table. Mail that a Sieve rule files pops up nowhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use ocbus::sandbox::{Child, Dovecot, DovecotOptions, Memcached, Sandbox, mail};
use ocbus_wire::ropnotify::{FolderId, MessageId, Notification, RopNotify, TableEvent, split};
use support::Program;

/// How long anything may take; under valgrind on a busy machine too.
const LIMIT: Duration = Duration::from_secs(30);

/// Files what has this subject into a folder.
const RULE: &str = "require [\"fileinto\", \"mailbox\"];\n\
                    if header :contains \"subject\" \"[list]\" { fileinto :create \"Lists.Rust\"; }\n";

struct Site {
    sandbox: Sandbox,
    memcached: Memcached,
    dovecot: Dovecot,
    program: Program,
}

impl Site {
    fn new() -> Site {
        let sandbox = Sandbox::new().unwrap();
        let memcached = sandbox.memcached().unwrap();
        let rule = sandbox.path().join("rule.sieve");
        std::fs::write(&rule, RULE).unwrap();
        // The rule is compiled into a file beside it, by the mail user.
        let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(sandbox.path(), everyone).unwrap();
        let options = DovecotOptions::new(&["notify", "openchange"])
            .protocol_plugins("lda", &["notify", "openchange", "sieve"])
            .setting("sieve", &format!("file:{}", rule.display()))
            .setting("openchange_resolver", &memcached.configuration())
            .setting("openchange_budget", "2000")
            .separator('.');
        let dovecot = sandbox.dovecot(options).unwrap();
        let flags =
            Command::new("pkg-config").args(["--cflags", "--libs", "tevent", "talloc"]).output().unwrap();
        let flags: Vec<&str> = support::text(&flags.stdout).split_whitespace().collect();
        let more = [&["-D_DEFAULT_SOURCE"][..], &flags].concat();
        let program = Program::build("examples/tevent_server.c", &more);
        Site { sandbox, memcached, dovecot, program }
    }

    fn start(&self, mut command: Command) -> Server {
        command.arg(format!("resolver = {}", self.memcached.configuration())).arg("bob");
        let child = self.sandbox.start("server", &command).unwrap();
        let server = Server { child };
        server.until("bob is registered", || self.memcached.get("ocbus:bob").unwrap().is_some());
        server.line("ready");
        server
    }

    fn deliver(&self, subject: &str) {
        let delivery =
            self.dovecot.deliver_lda("bob", mail("alice@example.org", subject, "Hi"), None).unwrap();
        assert_eq!(delivery.status, Some(0), "{delivery:?}\n{}", self.dovecot.log());
    }
}

struct Server {
    child: Child,
}

impl Server {
    fn lines(&self) -> Vec<String> {
        self.child.stdout().lines().map(str::to_owned).collect()
    }

    /// Waits for a line that begins so; gives its rest.
    fn line(&self, begin: &str) -> String {
        let found = || self.lines().iter().find_map(|line| line.strip_prefix(begin).map(str::to_owned));
        self.until(begin, || found().is_some());
        found().unwrap()
    }

    fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            let output = || format!("{:?}\n{}", self.lines(), self.child.stderr());
            assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}\n{}", output());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The id that the program's callback gave for a URI.
    fn id(&self, uri: &str) -> u64 {
        let end = format!(" {uri}");
        let found = || {
            self.lines()
                .iter()
                .find_map(|line| line.strip_prefix("id ")?.strip_suffix(&end).map(str::to_owned))
        };
        self.until(uri, || found().is_some());
        u64::from_str_radix(&found().unwrap(), 16).unwrap()
    }

    /// All replies that it has taken.
    fn replies(&self) -> Vec<RopNotify> {
        let of_line = |line: &String| {
            let hex = line.strip_prefix("replies ")?.split(' ').nth(1)?.to_owned();
            let octets: Vec<u8> = hex
                .as_bytes()
                .chunks(2)
                .map(|two| u8::from_str_radix(support::text(two), 16).unwrap())
                .collect();
            Some(split(&octets).map(Result::unwrap).collect::<Vec<_>>())
        };
        self.lines().iter().filter_map(of_line).flatten().collect()
    }

    /// Waits until the contents table of a folder was told to have changed.
    fn table_changed(&self, folder: u64) {
        let table = self.lines().iter().find_map(|line| {
            let (handle, of) = line.strip_prefix("table ")?.split_once(" of ")?;
            (of == format!("{folder:016x}")).then(|| u32::from_str_radix(handle, 16).unwrap())
        });
        let handle = table.expect("the program has its table");
        let is_it = |reply: &RopNotify| {
            let changed = matches!(&reply.notification, Notification::ContentsTable(TableEvent::Changed));
            changed && reply.handle == handle
        };
        self.until("TableChanged", || self.replies().iter().any(is_it));
    }

    /// Ends it as an administrator would; it must end well.
    fn end(mut self) -> Vec<String> {
        self.child.signal("TERM").unwrap();
        let status = self.child.wait(LIMIT).unwrap().expect("it ends");
        assert!(status.success(), "{status}: {}", self.child.stderr());
        assert_eq!(self.child.stderr(), "", "no warning, no error of valgrind, no leak");
        let lines = self.lines();
        assert_eq!(
            lines[lines.len() - 2..],
            ["wait 3ed 0", "ended"],
            "the parked wait was answered: {lines:?}"
        );
        lines
    }
}

fn a_mail_is_told(site: &Site, server: Server) {
    site.deliver("Hello");
    let folder = server.id("sogo://bob:bob@mail/folderINBOX/");
    let message = server.id("sogo://bob:bob@mail/folderINBOX/1.eml");
    server.table_changed(folder);
    let (fid, mid) = (FolderId::from_u64(folder), MessageId::from_u64(message));
    let is_new_mail = |reply: &RopNotify| match &reply.notification {
        Notification::NewMail { folder, message, .. } => {
            assert_eq!((reply.handle, *folder, *message), (0x29, fid, mid));
            true
        }
        _ => false,
    };
    assert_eq!(
        server.replies().iter().filter(|reply| is_new_mail(reply)).count(),
        1,
        "{:?}",
        server.replies()
    );

    // Filed by a rule: nothing pops up, but the folder and its table change.
    let before = server.replies().len();
    site.deliver("[list] Hello");
    let folder = server.id("sogo://bob:bob@mail/folderLists/folderRust/");
    let message = server.id("sogo://bob:bob@mail/folderLists/folderRust/1.eml");
    server.table_changed(folder);
    let replies = server.replies().split_off(before);
    let (fid, mid) = (FolderId::from_u64(folder), MessageId::from_u64(message));
    let created = |reply: &RopNotify| {
        matches!(&reply.notification, Notification::MessageCreated { folder, message, .. }
            if (*folder, *message) == (fid, mid))
    };
    let modified = |reply: &RopNotify| matches!(&reply.notification, Notification::FolderModified { folder, .. } if *folder == fid);
    assert!(replies.iter().any(created) && replies.iter().any(modified), "{replies:?}");
    let pop_up = |reply: &RopNotify| reply.flags() == 0x8002;
    assert!(!replies.iter().any(pop_up), "{replies:?}");
    assert_eq!(site.dovecot.maildir("bob").count("Lists.Rust"), 1);

    let lines = server.end();
    let waits = lines.iter().filter(|line| *line == "wait 0 1").count();
    assert!(waits >= 2, "each mail answered a wait: {lines:?}");
}

#[test]
fn a_delivered_mail_completes_the_wait_of_a_c_program() {
    let site = Site::new();
    let server = site.start(site.program.command());
    a_mail_is_told(&site, server);
    let user = site.memcached.get("ocbus:bob").unwrap();
    let lists_nobody = user.is_none_or(|record| !String::from_utf8_lossy(&record).contains("tcp://"));
    assert!(lists_nobody, "its registration was taken back");
}

#[test]
fn the_same_under_valgrind() {
    let site = Site::new();
    let server = site.start(site.program.valgrind());
    a_mail_is_told(&site, server);
}
