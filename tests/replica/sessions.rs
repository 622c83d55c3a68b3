//! IMAP sessions that do random things.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ocbus::sandbox::{Dovecot, ImapClient, SandboxError};

/// Folders that all sessions of a user change.
const SHARED: [&str; 4] = ["INBOX", "F0", "F1", "F2"];

const FLAGS: [&str; 7] = ["\\Seen", "\\Flagged", "\\Answered", "\\Deleted", "\\Draft", "$Work", "$Later"];

pub struct Session {
    imap: ImapClient,
    random: Random,
    at: usize,
    /// Folders that this session alone makes, renames and deletes; others copy to them.
    own: Vec<String>,
    made: usize,
    commands: u64,
    slowest: Duration,
}

impl Session {
    /// Makes the folders that all share.
    pub fn prepare(dovecot: &Dovecot, user: &str) {
        let mut imap = dovecot.imap(user).unwrap();
        for folder in &SHARED[1..] {
            // A second run finds them there.
            let _ = imap.command(&format!("CREATE {folder}"));
        }
        imap.logout().unwrap();
    }

    pub fn new(dovecot: &Dovecot, user: &str, at: usize, seed: u64) -> Session {
        let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (at as u64 + 1) << 32 | 1);
        Session {
            imap: dovecot.imap(user).unwrap(),
            random,
            at,
            own: Vec::new(),
            made: usize::try_from(seed % 7).unwrap() * 1000,
            commands: 0,
            slowest: Duration::ZERO,
        }
    }

    /// Until it is told to stop. Gives the number of commands, and what the slowest took.
    pub fn run(mut self, stop: &AtomicBool) -> (u64, Duration) {
        self.command("SELECT INBOX");
        while !stop.load(Ordering::Relaxed) {
            self.act();
        }
        self.imap.logout().unwrap();
        (self.commands, self.slowest)
    }

    fn act(&mut self) {
        let uids = self.uids();
        match self.random.below(100) {
            0..20 => self.append(),
            20..30 => {
                let folder = SHARED[self.random.below(SHARED.len())];
                self.command(&format!("SELECT {folder}"));
            }
            30..60 => {
                let how = ["+FLAGS", "-FLAGS", "FLAGS"][self.random.below(3)];
                let flags = self.flags();
                self.command(&format!("UID STORE {uids} {how} ({flags})"));
            }
            60..68 => {
                let folder = self.target();
                self.command(&format!("UID COPY {uids} {folder}"));
            }
            68..78 => {
                let folder = self.target();
                self.command(&format!("UID MOVE {uids} {folder}"));
            }
            78..84 => self.command(&format!("UID EXPUNGE {uids}")),
            84..86 => self.command("EXPUNGE"),
            86..90 => self.command(&format!("UID FETCH {uids} BODY[]")),
            90..93 => {
                let folder = self.target();
                self.command(&format!("UID COPY {uids} {folder}"));
                self.command(&format!("UID STORE {uids} +FLAGS (\\Deleted)"));
                self.command(&format!("UID EXPUNGE {uids}"));
            }
            _ => self.change_folders(),
        }
    }

    fn append(&mut self) {
        let folder = SHARED[self.random.below(SHARED.len())];
        let flags = self.flags();
        let begun = Instant::now();
        let mail = format!("Subject: {}\r\n\r\n{}\r\n", self.commands, "x".repeat(self.random.below(300)));
        self.imap.append(folder, &flags, mail).unwrap();
        self.done(begun);
    }

    fn change_folders(&mut self) {
        match (self.random.below(6), self.own.len()) {
            (0 | 1, 0..3) | (_, 0) => {
                self.made += 1;
                let name = format!("S{}-{}", self.at, self.made);
                self.command(&format!("CREATE {name}"));
                self.own.push(name.clone());
                if self.random.below(2) == 0 {
                    let child = format!("{name}/child");
                    self.command(&format!("CREATE {child}"));
                    let uids = self.uids();
                    self.command(&format!("UID COPY {uids} {child}"));
                }
            }
            (2, own) => {
                self.made += 1;
                let at = self.random.below(own);
                let new = format!("R{}-{}", self.at, self.made);
                let old = std::mem::replace(&mut self.own[at], new.clone());
                self.command(&format!("RENAME {old} {new}"));
            }
            (3, own) => {
                let at = self.random.below(own);
                let name = self.own.swap_remove(at);
                self.command(&format!("DELETE {name}/child"));
                self.command(&format!("DELETE {name}"));
            }
            (4, own) => {
                let name = self.own[self.random.below(own)].clone();
                self.command(&format!("SUBSCRIBE {name}"));
            }
            (_, own) => {
                let name = self.own[self.random.below(own)].clone();
                self.command(&format!("UNSUBSCRIBE {name}"));
            }
        }
    }

    /// Where to copy or move to: mostly a folder of all, else one of somebody's own, which may be gone.
    fn target(&mut self) -> String {
        match self.random.below(4) {
            0 if !self.own.is_empty() => self.own[self.random.below(self.own.len())].clone(),
            1 => format!("S{}-{}", self.random.below(20), 1 + self.random.below(4)),
            _ => SHARED[self.random.below(SHARED.len())].to_owned(),
        }
    }

    fn uids(&mut self) -> String {
        let first = 1 + self.random.below(400);
        match self.random.below(4) {
            0 => "*".to_owned(),
            1 => first.to_string(),
            _ => format!("{first}:{}", first + self.random.below(40)),
        }
    }

    fn flags(&mut self) -> String {
        let bits = self.random.below(1 << FLAGS.len()) & self.random.below(1 << FLAGS.len());
        let flags: Vec<&str> =
            FLAGS.iter().enumerate().filter(|(at, _)| bits & 1 << at != 0).map(|(_, flag)| *flag).collect();
        flags.join(" ")
    }

    /// NO is an answer too: somebody else was first.
    fn command(&mut self, command: &str) {
        let begun = Instant::now();
        match self.imap.command(command) {
            Ok(_) => {}
            Err(SandboxError::Answer { answer, .. }) if answer.starts_with("NO ") => {
                assert!(!answer.contains("[SERVERBUG]"), "{command}: {answer}");
                if command.starts_with("CREATE") {
                    println!("{command}: {answer}");
                }
            }
            Err(error) => panic!("{command}: {error}"),
        }
        self.done(begun);
    }

    fn done(&mut self, begun: Instant) {
        self.commands += 1;
        self.slowest = self.slowest.max(begun.elapsed());
    }
}

/// Marsaglia's xorshift: enough to choose by, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % bound as u64).unwrap()
    }
}
