//! Flag and keyword changes of a transaction, grouped by equal change.
//!
//! What changed is the difference between what this session saw and what it made of it. Where another session was first
//! that is not the truth: Dovecot writes what was asked for, and that counts, though this session saw it so already. Then
//! the shim reads what was written from the mailbox's transaction log, and tells that instead.

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

/// All flag and keyword changes of one transaction: mails with equal changes. Dovecot writes one change for each mail,
/// so that the order in which they are told means nothing.
#[derive(Debug, Default)]
pub struct FlagChanges {
    read: UidSet,
    trash: UidSet,
    set: Vec<(Marks, UidSet)>,
    clear: Vec<(Marks, UidSet)>,
    ranges: usize,
}

impl FlagChanges {
    /// These flags of a range of mails were set, and those removed.
    pub fn flags(&mut self, uids: (u32, u32), set: u32, clear: u32) {
        for (bit, group) in [(SEEN, &mut self.read), (DELETED, &mut self.trash)] {
            if set & bit != 0 {
                self.ranges += pushed(group, uids);
            }
        }
        let of = |flags: u32| Marks { flags: flags & MASK, keywords: Vec::new() };
        self.ranges += add(&mut self.set, uids, of(set & !(SEEN | DELETED)));
        self.ranges += add(&mut self.clear, uids, of(clear));
    }

    /// A keyword of a range of mails was set or removed.
    pub fn keyword(&mut self, uids: (u32, u32), keyword: &str, set: bool) {
        let groups = if set { &mut self.set } else { &mut self.clear };
        self.ranges += add(groups, uids, Marks { flags: 0, keywords: vec![keyword.to_owned()] });
    }

    /// Ranges of UIDs so far: what the memory is spent for.
    pub fn ranges(&self) -> usize {
        self.ranges
    }

    /// The events.
    pub fn events(self) -> Vec<EventKind> {
        let FlagChanges { read, trash, set, clear, ranges: _ } = self;
        let mut events = Vec::new();
        if !read.is_empty() {
            events.push(EventKind::MessageRead { uids: read });
        }
        if !trash.is_empty() {
            events.push(EventKind::MessageTrash { uids: trash });
        }
        events.extend(folded(set).into_iter().map(|(marks, uids)| EventKind::FlagsSet {
            uids,
            flags: names(marks.flags),
            keywords: marks.keywords,
        }));
        events.extend(folded(clear).into_iter().map(|(marks, uids)| EventKind::FlagsClear {
            uids,
            flags: names(marks.flags),
            keywords: marks.keywords,
        }));
        events
    }
}

/// Adds a range to the group with these marks; gives how many ranges that took.
fn add(groups: &mut Vec<(Marks, UidSet)>, uids: (u32, u32), marks: Marks) -> usize {
    if marks.is_empty() {
        return 0;
    }
    match groups.iter_mut().rfind(|(known, _)| *known == marks) {
        Some((_, group)) => pushed(group, uids),
        None => {
            let mut group = UidSet::new();
            group.push_range(uids.0, uids.1);
            groups.push((marks, group));
            // A group costs more than a range, on the wire too.
            17
        }
    }
}

/// What became of the same mails is one event. (Dovecot's groups: some flags, or one keyword.)
fn folded(groups: Vec<(Marks, UidSet)>) -> Vec<(Marks, UidSet)> {
    let mut folded: Vec<(Marks, UidSet)> = Vec::with_capacity(groups.len());
    for (marks, uids) in groups {
        match folded.iter_mut().find(|(_, same)| *same == uids) {
            Some((known, _)) => {
                known.flags |= marks.flags;
                known.keywords.extend(marks.keywords);
            }
            None => folded.push((marks, uids)),
        }
    }
    folded
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
        changes.flags((1, 50_000), SEEN | DELETED, 0);
        changes.flags((50_001, 50_001), SEEN | FLAGGED | DELETED, ANSWERED);
        changes.flags((50_002, 100_000), SEEN | DELETED, 0);
        changes.keyword((50_001, 50_001), "$a", true);
        changes.keyword((50_001, 50_001), "$b", true);
        changes.keyword((1, 100_000), "$c", true);
        changes.keyword((50_001, 50_001), "$d", false);
        assert!(changes.ranges() < 200, "{}", changes.ranges());
        assert_eq!(
            shown(&changes.events()),
            [
                "read 1:100000",
                "trash 1:100000",
                "set 50001 \\Flagged $a $b",
                "set 1:100000 $c",
                "clear 50001 \\Answered $d"
            ]
        );
    }

    #[test]
    fn nothing_is_told_of_a_change_that_changes_nothing() {
        let mut changes = FlagChanges::default();
        changes.flags((1, 7), 0x20, 0x20);
        changes.flags((8, 8), 0, 0);
        assert_eq!(shown(&changes.events()), [""; 0]);
        assert_eq!(FlagChanges::default().ranges(), 0);
    }

    #[test]
    fn many_scattered_mails_take_a_range_each() {
        let mut changes = FlagChanges::default();
        (1..=1000).for_each(|uid| changes.flags((uid * 2, uid * 2), FLAGGED, 0));
        assert!((1000..1020).contains(&changes.ranges()), "{}", changes.ranges());
        let events = changes.events();
        let EventKind::FlagsSet { uids, .. } = &events[0] else { panic!("{events:?}") };
        assert_eq!((events.len(), uids.ranges().len()), (1, 1000));
    }

    #[test]
    fn recent_is_no_flag() {
        assert_eq!(names(SEEN | FLAGGED | 0x20), ["\\Flagged", "\\Seen"]);
    }
}
