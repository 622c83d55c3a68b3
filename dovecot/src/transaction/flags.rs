//! Flag and keyword changes of a transaction, grouped by equal change.
//!
//! What changed is the difference between what this session saw and what it made of it. Where another session was first
//! that is not the truth: Dovecot writes what was asked for, and that counts, though this session saw it so already. Then
//! the shim reads what was written from the mailbox's transaction log ([`FlagChanges::logged_flags`]), and that is told.

use ocbus_wire::{EventKind, UidSet};

/// Dovecot's flags of a mail, in the order of their bits, as IMAP writes them.
const FLAGS: [(u32, &str); 5] = [
    (ANSWERED, "\\Answered"),
    (FLAGGED, "\\Flagged"),
    (DELETED, "\\Deleted"),
    (SEEN, "\\Seen"),
    (DRAFT, "\\Draft"),
];
const ANSWERED: u32 = 1;
const FLAGGED: u32 = 2;
const DELETED: u32 = 4;
const SEEN: u32 = 8;
const DRAFT: u32 = 16;

/// All that IMAP clients can set. (32 is `\Recent`.)
pub const MASK: u32 = ANSWERED | FLAGGED | DELETED | SEEN | DRAFT;

/// The names of flag bits.
pub fn names(bits: u32) -> Vec<String> {
    FLAGS.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| (*name).to_owned()).collect()
}

/// How a client changes flags or keywords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modify {
    /// To exactly these.
    Replace,
    /// These too.
    Add,
    /// These no longer.
    Remove,
}

/// Flags and keywords, of a mail or of a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// Dovecot's bits.
    pub flags: u32,
    /// Keywords, in Dovecot's order.
    pub keywords: Vec<String>,
}

impl Marks {
    fn is_empty(&self) -> bool {
        self.flags == 0 && self.keywords.is_empty()
    }
}

/// What becomes of one mail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Edit {
    set: Marks,
    clear: Marks,
}

/// Mails with equal changes; each at most once.
#[derive(Debug, Default)]
struct Groups {
    read: UidSet,
    trash: UidSet,
    set: Vec<(Marks, UidSet)>,
    clear: Vec<(Marks, UidSet)>,
}

/// Edits in which no mail comes twice, so that their order means nothing.
#[derive(Debug, Default)]
struct Generation {
    highest: u32,
    changed: Groups,
}

/// A mail whose flags were told and whose keywords may follow.
#[derive(Debug, Default)]
struct Pending {
    uid: u32,
    has_flags: bool,
    has_keywords: bool,
    changed: Edit,
}

/// All flag and keyword changes of one transaction.
#[derive(Debug, Default)]
pub struct FlagChanges {
    generations: Vec<Generation>,
    pending: Pending,
    /// What was written, where that was read.
    logged: Option<Groups>,
    ranges: usize,
}

impl FlagChanges {
    /// The flags of a mail were changed: from `old`, as this session saw them, by `modify` with `asked`.
    pub fn flags(&mut self, uid: u32, old: u32, modify: Modify, asked: u32) {
        let (old, asked) = (old & MASK, asked & MASK);
        let (set, clear) = match modify {
            Modify::Replace => (asked, !asked & MASK),
            Modify::Add => (asked, 0),
            Modify::Remove => (0, asked),
        };
        if set & !old == 0 && clear & old == 0 {
            return;
        }
        self.begin(uid, true);
        let pending = &mut self.pending;
        pending.has_flags = true;
        (pending.changed.set.flags, pending.changed.clear.flags) = (set & !old, clear & old);
    }

    /// The keywords of a mail were changed, likewise.
    pub fn keywords(&mut self, uid: u32, old: &[String], modify: Modify, asked: &[String]) {
        let without = |all: &[String], some: &[String]| -> Vec<String> {
            all.iter().filter(|keyword| !some.contains(keyword)).cloned().collect()
        };
        let both = || old.iter().filter(|keyword| asked.contains(keyword)).cloned().collect();
        let (set, clear) = match modify {
            Modify::Replace => (without(asked, old), without(old, asked)),
            Modify::Add => (without(asked, old), Vec::new()),
            Modify::Remove => (Vec::new(), both()),
        };
        if set.is_empty() && clear.is_empty() {
            return;
        }
        self.begin(uid, false);
        self.pending.has_keywords = true;
        (self.pending.changed.set.keywords, self.pending.changed.clear.keywords) = (set, clear);
    }

    /// From here on what was written is told, and nothing else.
    pub fn begin_logged(&mut self) {
        self.logged = Some(Groups::default());
    }

    /// Flags that were written for a range of mails.
    pub fn logged_flags(&mut self, uids: (u32, u32), set: u32, clear: u32) {
        let marks = |flags: u32| Marks { flags: flags & MASK, keywords: Vec::new() };
        // Dovecot clears first, so that 255 and some to set is "exactly these".
        self.log(uids, Edit { set: marks(set), clear: marks(clear & !set) });
    }

    /// A keyword that was written for a range of mails.
    pub fn logged_keyword(&mut self, uids: (u32, u32), keyword: &str, set: bool) {
        let marks = Marks { flags: 0, keywords: vec![keyword.to_owned()] };
        self.log(
            uids,
            match set {
                true => Edit { set: marks, clear: Marks::default() },
                false => Edit { set: Marks::default(), clear: marks },
            },
        );
    }

    fn log(&mut self, uids: (u32, u32), edit: Edit) {
        if let Some(logged) = &mut self.logged {
            self.ranges += logged.add(uids, edit);
        }
    }

    /// Ranges of UIDs so far: what the memory is spent for.
    pub fn ranges(&self) -> usize {
        self.ranges
    }

    /// The events, in order.
    pub fn events(mut self) -> Vec<EventKind> {
        self.fold();
        match self.logged {
            Some(logged) => logged.events(),
            None => self.generations.into_iter().flat_map(|generation| generation.changed.events()).collect(),
        }
    }

    fn begin(&mut self, uid: u32, flags: bool) {
        let pending = &self.pending;
        let again = if flags { pending.has_flags || pending.has_keywords } else { pending.has_keywords };
        if pending.uid != uid || again {
            self.fold();
            self.pending.uid = uid;
        }
    }

    fn fold(&mut self) {
        let Pending { uid, changed, .. } = std::mem::take(&mut self.pending);
        if uid == 0 {
            return;
        }
        if self.generations.last().is_none_or(|last| uid <= last.highest) {
            self.generations.push(Generation::default());
        }
        let Some(generation) = self.generations.last_mut() else { return };
        generation.highest = uid;
        self.ranges += generation.changed.add((uid, uid), changed);
    }
}

impl Groups {
    /// Gives how many ranges it took.
    fn add(&mut self, uids: (u32, u32), edit: Edit) -> usize {
        let Edit { mut set, clear } = edit;
        let mut ranges = 0;
        for (bit, group) in [(SEEN, &mut self.read), (DELETED, &mut self.trash)] {
            if set.flags & bit != 0 {
                ranges += pushed(group, uids);
            }
        }
        set.flags &= !(SEEN | DELETED);
        for (groups, marks) in [(&mut self.set, set), (&mut self.clear, clear)] {
            if marks.is_empty() {
                continue;
            }
            match groups.iter_mut().find(|(known, _)| *known == marks) {
                Some((_, group)) => ranges += pushed(group, uids),
                None => {
                    // A group costs more than a range, on the wire too.
                    ranges += 16;
                    let mut group = UidSet::new();
                    group.push_range(uids.0, uids.1);
                    groups.push((marks, group));
                }
            }
        }
        ranges
    }

    fn events(self) -> Vec<EventKind> {
        let Groups { read, trash, set, clear } = self;
        let mut events = Vec::new();
        if !read.is_empty() {
            events.push(EventKind::MessageRead { uids: read });
        }
        if !trash.is_empty() {
            events.push(EventKind::MessageTrash { uids: trash });
        }
        events.extend(set.into_iter().map(|(marks, uids)| EventKind::FlagsSet {
            uids,
            flags: names(marks.flags),
            keywords: marks.keywords,
        }));
        events.extend(clear.into_iter().map(|(marks, uids)| EventKind::FlagsClear {
            uids,
            flags: names(marks.flags),
            keywords: marks.keywords,
        }));
        events
    }
}

/// Adds a range; gives how many ranges that took: none or one.
pub(super) fn pushed(set: &mut UidSet, (first, last): (u32, u32)) -> usize {
    let before = set.ranges().len();
    set.push_range(first, last);
    set.ranges().len() - before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(all: &[&str]) -> Vec<String> {
        all.iter().map(|&word| word.to_owned()).collect()
    }

    fn shown(events: &[EventKind]) -> Vec<String> {
        events
            .iter()
            .map(|event| match event {
                EventKind::MessageRead { uids } => format!("read {uids}"),
                EventKind::MessageTrash { uids } => format!("trash {uids}"),
                EventKind::FlagsSet { uids, flags, keywords } => {
                    format!("set {uids} {}", [&flags[..], &keywords[..]].concat().join(" "))
                }
                EventKind::FlagsClear { uids, flags, keywords } => {
                    format!("clear {uids} {}", [&flags[..], &keywords[..]].concat().join(" "))
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn equal_changes_are_one_event_and_kinds_are_told_apart() {
        let mut changes = FlagChanges::default();
        for uid in 1..=100_000 {
            // Every third is flagged already.
            changes.flags(uid, if uid % 3 == 0 { FLAGGED } else { 0 }, Modify::Add, SEEN | FLAGGED | DELETED);
            changes.keywords(uid, &[], Modify::Add, &words(&["$a"]));
        }
        assert!(changes.ranges() < 150_000);
        let events = changes.events();
        assert_eq!(shown(&events[..2]), ["read 1:100000", "trash 1:100000"]);
        let EventKind::FlagsSet { uids, flags, keywords } = &events[2] else { panic!("{:?}", events[2]) };
        assert_eq!(
            (uids.ranges()[0], &flags[..], &keywords[..]),
            ((1, 2), &words(&["\\Flagged"])[..], &words(&["$a"])[..])
        );
        assert_eq!(events.len(), 4);
    }

    #[test]
    fn nothing_is_told_of_a_change_that_changes_nothing() {
        let mut changes = FlagChanges::default();
        changes.flags(1, SEEN | 0x20, Modify::Add, SEEN);
        changes.flags(2, 0, Modify::Remove, SEEN);
        changes.flags(3, SEEN | DRAFT, Modify::Replace, SEEN | DRAFT);
        changes.keywords(4, &words(&["a", "b"]), Modify::Add, &words(&["b"]));
        changes.keywords(5, &words(&["a"]), Modify::Remove, &words(&["b"]));
        changes.keywords(6, &words(&["a", "b"]), Modify::Replace, &words(&["b", "a"]));
        assert_eq!(shown(&changes.events()), [""; 0]);
    }

    #[test]
    fn what_was_written_is_told_where_it_was_read() {
        let mut changes = FlagChanges::default();
        changes.flags(1, SEEN, Modify::Replace, SEEN | FLAGGED);
        changes.begin_logged();
        changes.logged_flags((1, 3), SEEN | FLAGGED, 0xff);
        changes.logged_keyword((1, 1), "a", true);
        changes.logged_keyword((2, 3), "b", false);
        changes.logged_keyword((5, 5), "a", true);
        assert_eq!(
            shown(&changes.events()),
            [
                "read 1:3",
                "set 1:3 \\Flagged",
                "set 1,5 a",
                "clear 1:3 \\Answered \\Deleted \\Draft",
                "clear 2:3 b"
            ]
        );
        let mut changes = FlagChanges::default();
        changes.flags(1, 0, Modify::Add, SEEN);
        changes.begin_logged();
        assert_eq!(shown(&changes.events()), [""; 0], "nothing was written");
    }

    #[test]
    fn a_mail_that_comes_again_keeps_the_order() {
        let mut changes = FlagChanges::default();
        changes.flags(7, 0, Modify::Add, FLAGGED);
        changes.flags(7, FLAGGED, Modify::Remove, FLAGGED);
        changes.flags(7, 0, Modify::Add, FLAGGED);
        assert_eq!(shown(&changes.events()), ["set 7 \\Flagged", "clear 7 \\Flagged", "set 7 \\Flagged"]);
    }

    #[test]
    fn recent_is_no_flag() {
        assert_eq!(names(SEEN | FLAGGED | 0x20), ["\\Flagged", "\\Seen"]);
    }
}
