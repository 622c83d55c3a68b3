//! Which events a user's subscribers are told: `openchange_events` and `openchange_folders`.

use ocbus_wire::{EventKind, Mailbox};

/// The kinds and the groups that they form.
const KINDS: [(&str, &str); 14] = [
    ("MessageNew", "messages"),
    ("MessageAppend", "messages"),
    ("MessageCopy", "messages"),
    ("MessageMove", "messages"),
    ("MessageExpunge", "messages"),
    ("MessageRead", "flags"),
    ("MessageTrash", "flags"),
    ("FlagsSet", "flags"),
    ("FlagsClear", "flags"),
    ("MailboxCreate", "mailboxes"),
    ("MailboxDelete", "mailboxes"),
    ("MailboxRename", "mailboxes"),
    ("MailboxSubscribe", "mailboxes"),
    ("MailboxUnsubscribe", "mailboxes"),
];

/// Names that stand for a special use where a mailbox has none (RFC 6154; the names that clients make).
const USUAL_NAMES: [(&str, &str); 11] = [
    ("\\Junk", "Junk"),
    ("\\Junk", "Spam"),
    ("\\Junk", "Junk E-mail"),
    ("\\Junk", "Junk Email"),
    ("\\Trash", "Trash"),
    ("\\Trash", "Deleted Items"),
    ("\\Trash", "Deleted Messages"),
    ("\\Sent", "Sent"),
    ("\\Sent", "Sent Items"),
    ("\\Drafts", "Drafts"),
    ("\\Archive", "Archive"),
];

const USES: [&str; 7] = ["\\All", "\\Archive", "\\Drafts", "\\Flagged", "\\Junk", "\\Sent", "\\Trash"];

/// The most entries of one list: each mail of a transaction might ask all of them.
const MAX_ENTRIES: usize = 256;

/// A list as it was read, and what of it was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<'a, T> {
    /// What counts: the rest of the list where only words that take out are wrong; where one that takes in is, nobody
    /// knows what it was to be, and the default is what tells everything.
    pub list: T,
    /// Whether that is the default.
    pub is_default: bool,
    /// The wrong words; an empty one where the list is empty.
    pub wrong: Vec<&'a str>,
}

impl<'a, T: Default> Read<'a, T> {
    /// `takes_in`: a wrong word does, or nothing is left.
    fn new(list: T, wrong: Vec<&'a str>, takes_in: bool) -> Read<'a, T> {
        Read { list: if takes_in { T::default() } else { list }, is_default: takes_in, wrong }
    }
}

/// `openchange_events`: a set of kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kinds(u32);

impl Default for Kinds {
    fn default() -> Kinds {
        Kinds(all())
    }
}

fn all() -> u32 {
    (1 << KINDS.len()) - 1
}

impl Kinds {
    /// Reads names of kinds and of groups, separated by spaces or commas; `!` in front takes out. Begins with all
    /// where the first takes out.
    pub fn parse(value: &str) -> Read<'_, Kinds> {
        let words = || value.split([' ', ',', '\t']).filter(|word| !word.is_empty());
        let Some(first) = words().next() else { return Read::new(Kinds::default(), vec![""], true) };
        let mut kinds = if first.starts_with('!') { all() } else { 0 };
        let (mut wrong, mut takes_in) = (Vec::new(), false);
        for word in words() {
            let (out, name) = match word.strip_prefix('!') {
                Some(name) => (true, name),
                None => (false, word),
            };
            let named = |(_, (kind, group)): &(usize, &(&str, &str))| {
                name.eq_ignore_ascii_case("all")
                    || name.eq_ignore_ascii_case(kind)
                    || name.eq_ignore_ascii_case(group)
            };
            let bits = KINDS.iter().enumerate().filter(named).fold(0, |bits, (at, _)| bits | 1 << at);
            match (bits, out) {
                (0, _) => {
                    wrong.push(word);
                    takes_in |= !out;
                }
                (_, true) => kinds &= !bits,
                (_, false) => kinds |= bits,
            }
        }
        Read::new(Kinds(kinds), wrong, takes_in)
    }

    /// Whether a kind is told. A resync always is.
    pub fn has(&self, kind: &EventKind) -> bool {
        self.has_named(kind.name())
    }

    /// The same by its name.
    pub fn has_named(&self, name: &str) -> bool {
        KINDS.iter().position(|(kind, _)| *kind == name).is_none_or(|at| self.0 & 1 << at != 0)
    }

    /// Whether transactions are to be looked at: of a delivery for new mail, of others for anything else.
    pub fn wants_transactions(&self, delivery: bool) -> bool {
        let messages = |(at, (kind, group)): (usize, &(&str, &str))| {
            self.0 & 1 << at != 0 && *group != "mailboxes" && (delivery || *kind != "MessageNew")
        };
        KINDS.iter().enumerate().any(messages)
    }
}

/// `openchange_folders`: the last entry that fits decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    only_new: bool,
    out: bool,
    which: Which,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    Use(String),
    Name(String),
}

/// What is told of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// New mail.
    pub new_mail: bool,
    /// Everything else.
    pub rest: bool,
}

impl Allowed {
    /// Whether anything is.
    pub fn anything(self) -> bool {
        self.new_mail || self.rest
    }
}

impl Default for Folders {
    /// Everything, but new mail in Junk and Trash.
    fn default() -> Folders {
        let out = |name: &str| Entry { only_new: true, out: true, which: Which::Use(name.to_owned()) };
        Folders { entries: vec![out("\\Junk"), out("\\Trash")] }
    }
}

impl Folders {
    /// Reads a list separated by commas.
    pub fn parse(value: &str) -> Read<'_, Folders> {
        let (mut entries, mut wrong, mut takes_in) = (Vec::new(), Vec::new(), false);
        for word in value.split(',').map(str::trim) {
            match Entry::parse(word) {
                Some(entry) if entries.len() < MAX_ENTRIES => entries.push(entry),
                Some(entry) => {
                    wrong.push(word);
                    takes_in |= !entry.out;
                }
                None => {
                    wrong.push(word);
                    // `\Impotrant`; an empty one is nothing.
                    let name = word.strip_prefix("new:").unwrap_or(word).trim_start();
                    takes_in |= name.starts_with('\\');
                }
            }
        }
        takes_in |= entries.is_empty();
        Read::new(Folders { entries }, wrong, takes_in)
    }

    /// What is told of a mailbox with these special uses (`\Junk`, separated by spaces).
    pub fn allow(&self, mailbox: &Mailbox, special_use: Option<&str>) -> Allowed {
        Allowed {
            new_mail: self.allows(mailbox, special_use, true),
            rest: self.allows(mailbox, special_use, false),
        }
    }

    fn allows(&self, mailbox: &Mailbox, special_use: Option<&str>, new_mail: bool) -> bool {
        let mut told = self.entries.iter().filter(|entry| new_mail || !entry.only_new).peekable();
        // A list that begins by taking in has nothing else.
        let otherwise = told.peek().is_none_or(|first| first.out);
        told.rfind(|entry| entry.which.fits(mailbox, special_use)).map_or(otherwise, |entry| !entry.out)
    }
}

impl Entry {
    fn parse(entry: &str) -> Option<Entry> {
        let (only_new, entry) = match entry.strip_prefix("new:") {
            Some(rest) => (true, rest.trim_start()),
            None => (false, entry),
        };
        let (out, entry) = match entry.strip_prefix('!') {
            Some(rest) => (true, rest.trim_start()),
            None => (false, entry),
        };
        let which = match entry.starts_with('\\') {
            true => Which::Use(
                USES.iter().find(|known| known.eq_ignore_ascii_case(entry)).map(|&known| known.to_owned())?,
            ),
            false if entry.is_empty() => return None,
            false => Which::Name(entry.to_owned()),
        };
        Some(Entry { only_new, out, which })
    }
}

impl Which {
    fn fits(&self, mailbox: &Mailbox, special_use: Option<&str>) -> bool {
        match self {
            Which::Name(pattern) => matches(pattern.as_bytes(), mailbox.name.as_bytes(), mailbox.separator),
            Which::Use(wanted) => match special_use.filter(|uses| !uses.trim().is_empty()) {
                Some(uses) => uses.split_ascii_whitespace().any(|one| one.eq_ignore_ascii_case(wanted)),
                None => USUAL_NAMES
                    .iter()
                    .any(|(of, usual)| of == wanted && mailbox.name.eq_ignore_ascii_case(usual)),
            },
        }
    }
}

/// IMAP's LIST patterns: `*` is anything, `%` anything without a separator. INBOX is in any case.
fn matches(pattern: &[u8], name: &[u8], separator: char) -> bool {
    if pattern.eq_ignore_ascii_case(b"INBOX") {
        return name.eq_ignore_ascii_case(pattern);
    }
    // Where to go on after a mismatch: the last wildcard, and how much of the name it has taken.
    let (mut at, mut read) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    let separator = u32::from(separator);
    loop {
        match (pattern.get(at), name.get(read)) {
            (None, None) => return true,
            (Some(b'*' | b'%'), _) => {
                back = Some((at, read));
                at += 1;
                continue;
            }
            (Some(wanted), Some(octet)) if wanted == octet => {
                (at, read) = (at + 1, read + 1);
                continue;
            }
            _ => {}
        }
        // One wildcard is remembered: with % in the pattern that is not all that LIST can do, and enough for names.
        let Some((wildcard, taken)) = back else { return false };
        let Some(octet) = name.get(taken) else { return false };
        if pattern.get(wildcard) == Some(&b'%') && u32::from(*octet) == separator {
            return false;
        }
        back = Some((wildcard, taken + 1));
        (at, read) = (wildcard + 1, taken + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_by_kind_or_group() {
        let kinds = kinds_of("MessageNew, flags !messagetrash");
        let told: Vec<&str> =
            KINDS.iter().map(|(kind, _)| *kind).filter(|kind| kinds.has_named(kind)).collect();
        assert_eq!(told, ["MessageNew", "MessageRead", "FlagsSet", "FlagsClear"]);
        assert!(kinds.has_named("Resync"));
        assert_eq!(kinds_of("all"), Kinds::default());
        let kinds = kinds_of("!mailboxes");
        assert!(kinds.has_named("MessageMove") && !kinds.has_named("MailboxRename"));
        let new = kinds_of("MessageNew");
        assert!(new.wants_transactions(true) && !new.wants_transactions(false));
        assert!(!kinds_of("mailboxes").wants_transactions(true));
    }

    #[test]
    fn a_wrong_kind_never_takes_an_event_away() {
        for (value, wrong) in [
            ("", vec![""]),
            (" ,", vec![""]),
            ("none", vec!["none"]),
            ("MessageNew, Message", vec!["Message"]),
        ] {
            let read = Kinds::parse(value);
            assert_eq!(
                (read.list, read.is_default, read.wrong),
                (Kinds::default(), true, wrong),
                "{value:?}"
            );
        }
        let read = Kinds::parse("!flgas, !mailboxes !");
        assert_eq!((&read.list, read.is_default), (&kinds_of("!mailboxes"), false));
        assert_eq!(read.wrong, ["!flgas", "!"]);
        let read = Kinds::parse("flags !MessageRaed");
        assert_eq!((&read.list, read.wrong), (&kinds_of("flags"), vec!["!MessageRaed"]));
    }

    fn kinds_of(value: &str) -> Kinds {
        let read = Kinds::parse(value);
        assert!(read.wrong.is_empty() && !read.is_default, "{read:?}");
        read.list
    }

    fn allowed(list: &str, name: &str, special_use: Option<&str>) -> (bool, bool) {
        let folders = if list.is_empty() { Folders::default() } else { Folders::parse(list).list };
        let allowed = folders.allow(&Mailbox::new(name, '/'), special_use);
        (allowed.new_mail, allowed.rest)
    }

    #[test]
    fn the_last_entry_that_fits_decides() {
        let (all, none, rest) = ((true, true), (false, false), (false, true));
        assert_eq!(allowed("", "INBOX", None), all);
        assert_eq!(allowed("", "Spam", Some("\\Junk")), rest);
        assert_eq!(allowed("", "junk", None), rest, "by its usual name");
        assert_eq!(allowed("", "Junk", Some("\\Archive")), all, "what Dovecot says counts");
        assert_eq!(allowed("", "Old/Junk", None), all);
        assert_eq!(allowed("INBOX, Projects/*", "Projects/a/b", None), all);
        assert_eq!(allowed("INBOX, Projects/%", "Projects/a/b", None), none);
        assert_eq!(allowed("inbox", "INBOX", None), all);
        assert_eq!(allowed("inbox", "Other", None), none);
        assert_eq!(allowed("!Lists/*, Lists/rust", "Lists/rust", None), all);
        assert_eq!(allowed("!Lists/*, Lists/rust", "Lists/c", None), none);
        assert_eq!(allowed("!Lists/*, Lists/rust", "Other", None), all);
        assert_eq!(allowed("*, !\\Drafts, new:!\\Trash", "Deleted Items", Some("\\Trash \\Flagged")), rest);
        assert_eq!(allowed("*, !\\Drafts, new:!\\Trash", "Drafts", None), none);
        assert_eq!(allowed("new:INBOX", "Other", None), rest);
    }

    #[test]
    fn a_wrong_folder_never_takes_an_event_away() {
        for (value, wrong) in [
            ("", vec![""]),
            ("INBOX, \\Impotrant", vec!["\\Impotrant"]),
            ("INBOX, new:\\Inbox", vec!["new:\\Inbox"]),
            ("!, new:", vec!["!", "new:"]),
        ] {
            let read = Folders::parse(value);
            assert_eq!((read.list, read.is_default, read.wrong), (Folders::default(), true, wrong));
        }
        let read = Folders::parse("INBOX,, !\\Tarsh, !Lists/*");
        assert_eq!((&read.list, read.is_default), (&Folders::parse("INBOX, !Lists/*").list, false));
        assert_eq!(read.wrong, ["", "!\\Tarsh"]);
        let many = "a,".repeat(MAX_ENTRIES) + "b";
        let read = Folders::parse(&many);
        assert_eq!((read.is_default, read.wrong), (true, vec!["b"]));
    }

    #[test]
    fn patterns_are_those_of_list() {
        let fits = |pattern: &str, name: &str| matches(pattern.as_bytes(), name.as_bytes(), '/');
        assert!(fits("*", "a/b") && fits("%", "ab") && !fits("%", "a/b"));
        assert!(fits("a*c", "abcbc") && !fits("a*d", "abc") && fits("a/%", "a/b") && !fits("a/%", "a"));
        assert!(fits("*/ü", "x/y/ü"));
        assert!(!fits(&"*a".repeat(50), &"b".repeat(10_000)), "without backtracking for ever");
    }
}
