//! Mailboxes, as the events tell of them and as IMAP shows them.
//!
//! Events of one process come in order; those of several do not. What makes the replica right all the same:
//!
//! * a UID is given once, and a message that is gone stays gone;
//! * of two changes to one flag of a message the one with the higher `order` counts, in whatever order they come;
//! * messages belong to a UIDVALIDITY, whatever the mailbox is called when the event comes;
//! * who is told to look again at a mailbox learns which messages are there. Of their flags only those of new ones are taken:
//!   what IMAP says of the others may be older or newer than the events so far.
//!
//! Through a fault flag changes are missed too. There the replica looks into the mailbox's transaction log for how far it
//! goes before it asks IMAP: what IMAP says has all changes up to there, and events of later ones are put on top. So what is
//! right in the end was told, or seen behind a Resync: one that came too early leaves what was missed behind it wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ocbus::sandbox::{ImapClient, SandboxError, mailbox_name};
use ocbus::wire::UidSet;
use ocbus::{Event, EventKind};

type Flags = BTreeSet<String>;

/// What IMAP says: each mailbox with its UIDVALIDITY and its messages.
pub struct Truth {
    mailboxes: BTreeMap<String, (u32, BTreeMap<u32, Flags>)>,
    subscribed: BTreeSet<String>,
}

#[derive(Default)]
pub struct Replica {
    /// Names; the UIDVALIDITY as soon as it is told.
    names: BTreeMap<String, Option<u32>>,
    subscribed: BTreeSet<String>,
    contents: BTreeMap<u32, Contents>,
    /// UIDVALIDITYs of mailboxes that were to be looked at again, and could not, for they were renamed meanwhile.
    to_look_at: BTreeSet<u32>,
    /// Changes to mailboxes, where they are put in the order of their times at the end: a daemon that hung tells late what
    /// it was given, and its publishers went the direct way meanwhile.
    tree: Option<Vec<Event>>,
    /// When it was listed what mailboxes there are: earlier changes are in that.
    listed_us: u64,
}

/// A mailbox as IMAP shows it.
struct Seen {
    uidvalidity: u32,
    uidnext: u32,
    messages: BTreeMap<u32, Flags>,
}

/// The messages of one UIDVALIDITY.
#[derive(Default)]
struct Contents {
    /// With what flags a message came, and the order of that.
    came: BTreeMap<u32, (u64, Flags)>,
    gone: BTreeSet<u32>,
    /// The last change to each flag.
    changed: BTreeMap<(u32, String), (u64, bool)>,
    /// What was told or seen of each message, for whoever looks for the fault behind a difference.
    history: BTreeMap<u32, Vec<String>>,
}

impl Contents {
    fn note(&mut self, uid: u32, what: impl FnOnce() -> String) {
        self.history.entry(uid).or_default().push(what());
    }

    fn gone(&mut self, uids: &UidSet, why: &str) {
        for uid in uids.iter() {
            self.note(uid, || format!("gone: {why}"));
            self.gone.insert(uid);
        }
    }

    fn came(&mut self, uid: u32, order: u64, flags: &[String], keywords: &[String]) {
        self.note(uid, || format!("came at {order:#x}: {flags:?} {keywords:?}"));
        // It may have been looked at since.
        if self.came.get(&uid).is_none_or(|(since, _)| *since <= order) {
            let flags = flags.iter().chain(keywords).map(|flag| flag.to_lowercase()).collect();
            self.came.insert(uid, (order, flags));
        }
    }

    fn change<'a>(&mut self, uids: &UidSet, order: u64, flags: impl IntoIterator<Item = &'a str>, on: bool) {
        for flag in flags {
            for uid in uids.iter() {
                self.note(uid, || format!("{} {flag} at {order:#x}", if on { "set" } else { "cleared" }));
                let last = self.changed.entry((uid, flag.to_lowercase())).or_insert((0, false));
                if order >= last.0 {
                    *last = (order, on);
                }
            }
        }
    }

    /// Takes what the events did not tell. What has a UID below UIDNEXT and is not there is gone, even if the event that it
    /// came is still on its way. What IMAP says has all changes up to the order `base`; 0: nobody knows.
    fn look(&mut self, messages: &BTreeMap<u32, Flags>, uidnext: u32, base: u64) {
        for uid in (1..uidnext).filter(|uid| !messages.contains_key(uid)) {
            if self.gone.insert(uid) {
                self.note(uid, || format!("looked: gone; UIDNEXT {uidnext}"));
            }
        }
        for (uid, flags) in messages {
            self.note(*uid, || format!("looked: {flags:?}; UIDNEXT {uidnext}"));
            let came = self.came.entry(*uid).or_insert_with(|| (base, flags.clone()));
            if came.0 < base {
                *came = (base, flags.clone());
            }
        }
    }

    fn messages(&self) -> BTreeMap<u32, Flags> {
        let there = self.came.iter().filter(|(uid, _)| !self.gone.contains(uid));
        there
            .map(|(uid, (since, flags))| {
                let mut flags = flags.clone();
                for ((_, flag), (order, on)) in
                    self.changed.range((*uid, String::new())..(*uid + 1, String::new()))
                {
                    if order > since {
                        if *on {
                            flags.insert(flag.clone())
                        } else {
                            flags.remove(flag)
                        };
                    }
                }
                (*uid, flags)
            })
            .collect()
    }
}

impl Replica {
    /// One that is kept through faults, where a resync may be of everything.
    pub fn through_faults() -> Replica {
        Replica { tree: Some(Vec::new()), ..Replica::default() }
    }

    /// Looks again at what a Resync names: a mailbox, or all. `mdbox`: where the mailboxes are.
    pub fn look_through(&mut self, looker: &mut Looker, mdbox: &Path, event: &Event) {
        if let Some(mailbox) = &event.mailbox
            && self.look_behind_its_log(looker, mdbox, &mailbox.name) == event.uidvalidity
        {
            return;
        }
        self.listed_us = ocbus::now_us();
        let (mut names, subscribed) = looker.ask(list);
        self.subscribed = subscribed;
        self.names = names.iter().map(|name| (name.clone(), None)).collect();
        let mut known: BTreeSet<String> = BTreeSet::new();
        // What has got another name meanwhile is looked at under that. Names are not given twice.
        while !names.is_empty() {
            let mut is_gone = false;
            for name in names {
                let uidvalidity = self.look_behind_its_log(looker, mdbox, &name);
                is_gone |= uidvalidity.is_none();
                if let Some(of) = self.names.get_mut(&name) {
                    *of = uidvalidity;
                }
                known.insert(name);
            }
            names = if is_gone { looker.ask(list).0 } else { Vec::new() };
            names.retain(|name| !known.contains(name));
        }
    }

    /// Gives the UIDVALIDITY; `None`: there is no such mailbox any more.
    fn look_behind_its_log(&mut self, looker: &mut Looker, mdbox: &Path, name: &str) -> Option<u32> {
        let base = logged(mdbox, name).unwrap_or(0);
        let seen = looker.ask(|imap| try_look_at(imap, name))?;
        self.contents.entry(seen.uidvalidity).or_default().look(&seen.messages, seen.uidnext, base);
        Some(seen.uidvalidity)
    }

    /// There are no more events: puts changes to mailboxes in their order.
    pub fn settle_tree(&mut self) {
        let mut tree = self.tree.take().unwrap_or_default();
        tree.retain(|event| event.time_us >= self.listed_us);
        tree.sort_by_key(|event| event.time_us);
        tree.iter().for_each(|event| self.apply(event));
    }

    /// Looks again at a mailbox, as a Resync wants it: under another name, where it has got one meanwhile.
    pub fn look_again(&mut self, imap: &mut ImapClient, event: &Event) {
        let name = &event.mailbox.as_ref().expect("a mailbox").name;
        let found = look_at(imap, name).and_then(|seen| self.looked_again(&seen));
        if event.uidvalidity.is_none() || found == event.uidvalidity {
            return;
        }
        for _ in 0..3 {
            for name in list(imap).unwrap().0 {
                if let Some(seen) =
                    look_at(imap, &name).filter(|seen| Some(seen.uidvalidity) == event.uidvalidity)
                {
                    self.looked_again(&seen);
                    return;
                }
            }
        }
        self.to_look_at.extend(event.uidvalidity);
    }

    /// Gives its UIDVALIDITY.
    fn looked_again(&mut self, seen: &Seen) -> Option<u32> {
        let contents = self.contents.entry(seen.uidvalidity).or_default();
        // In a Maildir the UID of a message that is just being stored may count for UIDNEXT already: another process
        // has met its file. What was told to be there was there before we looked.
        let last = |messages: Option<&u32>| messages.map_or(0, |last| last + 1);
        let below = last(seen.messages.keys().next_back()).max(last(contents.came.keys().next_back()));
        contents.look(&seen.messages, seen.uidnext.min(below), 0);
        Some(seen.uidvalidity)
    }

    /// Looks at what was renamed again and again when it was to be looked at. Says how many these are: what else was missed
    /// there is not found any more.
    pub fn look_at_the_rest(&mut self, truth: &Truth) -> usize {
        let mut count = 0;
        for uidvalidity in std::mem::take(&mut self.to_look_at) {
            if let Some((_, messages)) = truth.mailboxes.values().find(|(known, _)| *known == uidvalidity) {
                let contents = self.contents.entry(uidvalidity).or_default();
                let last = contents.came.keys().next_back().copied().unwrap_or(0);
                contents.look(messages, last + 1, 0);
                count += 1;
            }
        }
        count
    }

    pub fn apply(&mut self, event: &Event) {
        let Some(mailbox) = &event.mailbox else { return };
        let name = mailbox.name.clone();
        let known = event.uidvalidity;
        let order = || event.order.unwrap_or_else(|| panic!("without order: {event:?}"));
        if let Some(tree) = self.tree.as_mut().filter(|_| event.kind.name().starts_with("Mailbox")) {
            tree.push(event.clone());
            return;
        }
        match &event.kind {
            EventKind::MailboxCreate => {
                assert!(known.is_some(), "{event:?}");
                self.names.insert(name, known);
                return;
            }
            EventKind::MailboxDelete => {
                self.names.remove(&name);
                return;
            }
            EventKind::MailboxRename { old } => {
                let children = format!("{}{}", old.name, old.separator);
                let moved: Vec<String> = self
                    .names
                    .keys()
                    .filter(|known| **known == old.name || known.starts_with(&children))
                    .cloned()
                    .collect();
                for from in moved {
                    let uidvalidity = self.names.remove(&from).unwrap();
                    self.names.insert(from.replacen(&old.name, &name, 1), uidvalidity);
                }
                return;
            }
            EventKind::MailboxSubscribe => {
                self.subscribed.insert(name);
                return;
            }
            EventKind::MailboxUnsubscribe => {
                self.subscribed.remove(&name);
                return;
            }
            _ => {}
        }
        // INBOX is there without being made.
        if name == "INBOX" {
            self.names.insert(name, known);
        }
        let contents = self.contents.entry(known.unwrap_or_else(|| panic!("{event:?}"))).or_default();
        match &event.kind {
            EventKind::MessageNew(message) | EventKind::MessageAppend(message) => {
                contents.came(message.uid.unwrap(), order(), &message.flags, &message.keywords);
            }
            EventKind::MessageCopy(transfer) | EventKind::MessageMove(transfer) => {
                for uid in transfer.uids.iter() {
                    contents.came(uid, order(), &transfer.flags, &transfer.keywords);
                }
                if matches!(event.kind, EventKind::MessageMove(_)) {
                    let source = self.contents.entry(transfer.old_uidvalidity.unwrap()).or_default();
                    source.gone(&transfer.old_uids, "moved");
                }
            }
            EventKind::MessageRead { uids } => contents.change(uids, order(), ["\\Seen"], true),
            EventKind::MessageTrash { uids } => contents.change(uids, order(), ["\\Deleted"], true),
            EventKind::FlagsSet { uids, flags, keywords } => {
                contents.change(uids, order(), flags.iter().chain(keywords).map(String::as_str), true);
            }
            EventKind::FlagsClear { uids, flags, keywords } => {
                contents.change(uids, order(), flags.iter().chain(keywords).map(String::as_str), false);
            }
            EventKind::MessageExpunge { uids } => contents.gone(uids, "expunged"),
            other => panic!("{other:?}"),
        }
    }

    /// Where it differs from what IMAP says.
    pub fn differences(&self, truth: &Truth) -> Vec<String> {
        let mut differences = Vec::new();
        let names: BTreeSet<&String> = self.names.keys().collect();
        let there: BTreeSet<&String> = truth.mailboxes.keys().collect();
        if names != there {
            let (more, less): (Vec<_>, Vec<_>) =
                (names.difference(&there).collect(), there.difference(&names).collect());
            differences.push(format!("mailboxes: {more:?} too many, {less:?} missing"));
        }
        if self.subscribed != truth.subscribed {
            differences.push(format!("subscribed: {:?}, really {:?}", self.subscribed, truth.subscribed));
        }
        for (name, (uidvalidity, messages)) in &truth.mailboxes {
            if let Some(Some(told)) = self.names.get(name).filter(|told| **told != Some(*uidvalidity)) {
                differences.push(format!("{name}: UIDVALIDITY {told}, really {uidvalidity}"));
            }
            let contents = self.contents.get(uidvalidity);
            let history = |uid: &u32| contents.and_then(|contents| contents.history.get(uid));
            let told = contents.map(Contents::messages).unwrap_or_default();
            for uid in told.keys().chain(messages.keys()).collect::<BTreeSet<_>>() {
                let (told, really) = (told.get(uid), messages.get(uid));
                if told != really {
                    let history = history(uid).map(|lines| lines.join("\n    ")).unwrap_or_default();
                    differences.push(format!("{name}: {uid}: {told:?}, really {really:?}\n    {history}"));
                }
            }
        }
        differences
    }
}

/// An IMAP session that looks at mailboxes while others delete them. Dovecot ends it where that is the one that it has open.
pub struct Looker {
    port: u16,
    user: String,
    imap: ImapClient,
}

impl Looker {
    pub fn new(port: u16, user: &str) -> Looker {
        let imap = ImapClient::login(port, user, Looker::DEADLINE).unwrap();
        Looker { port, user: user.to_owned(), imap }
    }

    const DEADLINE: Duration = Duration::from_secs(20);

    fn ask<T>(&mut self, what: impl Fn(&mut ImapClient) -> Result<T, SandboxError>) -> T {
        let begun = Instant::now();
        loop {
            match what(&mut self.imap) {
                Ok(answer) => return answer,
                Err(error) => assert!(begun.elapsed() < Looker::DEADLINE, "{error}"),
            }
            *self = Looker::new(self.port, &self.user);
        }
    }
}

/// The names of the mailboxes, and those that are subscribed.
fn list(imap: &mut ImapClient) -> Result<(Vec<String>, BTreeSet<String>), SandboxError> {
    let listed = |lines: Vec<String>, what: &str| -> Vec<String> {
        let prefix = format!("* {what} ");
        lines
            .iter()
            .filter_map(|line| line.strip_prefix(&prefix))
            .filter(|line| !line.contains("\\Noselect") && !line.contains("\\NonExistent"))
            .map(|line| line.rsplit_once("\"/\" ").unwrap().1.trim_matches('"').to_owned())
            .collect()
    };
    let names = listed(imap.command("LIST \"\" *")?, "LIST");
    Ok((names, listed(imap.command("LSUB \"\" *")?, "LSUB").into_iter().collect()))
}

/// How far a mailbox's transaction log goes, as events say it in `order`. From `mail-transaction-log.h`: the index's id is at
/// octet 4 of its header, the file's number at octet 8; a commit's order is their sum, and the offset behind the commit.
fn logged(mdbox: &Path, name: &str) -> Option<u64> {
    let path = mdbox.join("mailboxes").join(name).join("dbox-Mails/dovecot.index.log");
    // The one that is open, whatever takes its name meanwhile.
    let mut file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    let mut header = [0; 12];
    file.read_exact(&mut header).ok()?;
    let [.., index, number] = header.as_chunks::<4>().0 else { return None };
    let number = u64::from(u32::from_ne_bytes(*index)) + u64::from(u32::from_ne_bytes(*number));
    Some(number << 32 | size)
}

/// Reads all that IMAP has to say.
pub fn look(imap: &mut ImapClient) -> Truth {
    let (names, subscribed) = list(imap).unwrap();
    let mut mailboxes = BTreeMap::new();
    for name in names {
        let seen = look_at(imap, &name).expect("a mailbox that LIST named");
        mailboxes.insert(name, (seen.uidvalidity, seen.messages));
    }
    Truth { mailboxes, subscribed }
}

/// `None`: there is no such mailbox.
fn look_at(imap: &mut ImapClient, name: &str) -> Option<Seen> {
    try_look_at(imap, name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn try_look_at(imap: &mut ImapClient, name: &str) -> Result<Option<Seen>, SandboxError> {
    let opened = match imap.command(&format!("EXAMINE {}", mailbox_name(name))) {
        Ok(lines) => lines,
        Err(SandboxError::Answer { answer, .. }) if answer.starts_with("NO ") => return Ok(None),
        Err(error) => return Err(error),
    };
    let number = |key: &str| {
        let prefix = format!("* OK [{key} ");
        opened.iter().find_map(|line| line.strip_prefix(&prefix)?.split(']').next()?.parse::<u32>().ok())
    };
    let fetched = imap.command("UID FETCH 1:* (FLAGS)")?;
    Ok(Some(Seen {
        uidvalidity: number("UIDVALIDITY").unwrap(),
        uidnext: number("UIDNEXT").unwrap(),
        messages: fetched.iter().filter_map(|line| message(line)).collect(),
    }))
}

/// `* 1 FETCH (UID 7 FLAGS (\Seen $Work))`
fn message(line: &str) -> Option<(u32, Flags)> {
    let rest = line.split_once(" FETCH (")?.1;
    let uid = rest.split_once("UID ")?.1.split([' ', ')']).next()?.parse().ok()?;
    let flags = rest.split_once("FLAGS (")?.1.split(')').next()?;
    let flags = flags.split_whitespace().map(str::to_lowercase).filter(|flag| flag != "\\recent").collect();
    Some((uid, flags))
}
