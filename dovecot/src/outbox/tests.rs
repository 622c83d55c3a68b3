use std::sync::Arc;

use ocbus_wire::{Mailbox, NewMessage, ResyncReason};

use super::*;

fn change(name: &str, kind: EventKind) -> Change {
    Change {
        mailbox: Arc::new(Mailbox::new(name, '/')),
        uid_validity: Some(9),
        order: Some(1),
        time_us: 1,
        counts: None,
        kind,
    }
}

fn copy(target: &str, uids: (u32, u32), source: &str, old: (u32, u32)) -> Change {
    let set = |(first, last): (u32, u32)| (first..=last).collect::<UidSet>();
    let transfer = Transfer {
        old_uidvalidity: Some(9),
        ..Transfer::new(set(uids), Mailbox::new(source, '/'), set(old))
    };
    change(target, EventKind::MessageCopy(transfer))
}

fn expunge(name: &str, uids: &[u32]) -> Change {
    change(name, EventKind::MessageExpunge { uids: uids.iter().copied().collect() })
}

fn trash(name: &str, uid: u32) -> Change {
    change(name, EventKind::MessageTrash { uids: UidSet::from_iter([uid]) })
}

fn shown(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| {
            let rest = match &change.kind {
                EventKind::MessageCopy(transfer) | EventKind::MessageMove(transfer) => {
                    format!(" {} < {} {}", transfer.uids, transfer.old.name, transfer.old_uids)
                }
                EventKind::MessageExpunge { uids } | EventKind::MessageTrash { uids } => format!(" {uids}"),
                EventKind::Resync { missed, .. } => format!(" {missed}"),
                _ => String::new(),
            };
            format!("{} {}{rest}", change.kind.name(), change.mailbox.name)
        })
        .collect()
}

/// Each change a commit of its own; all of it is taken at the end.
fn told(changes: Vec<Change>) -> Vec<String> {
    let mut outbox = Outbox::new("bob", true);
    let now = Instant::now();
    changes.into_iter().for_each(|change| outbox.push(vec![change], now));
    let taken = outbox.take_all();
    assert!(outbox.is_empty() && outbox.octets == ENVELOPE);
    shown(&taken)
}

#[test]
fn a_copy_and_the_expunge_of_the_same_messages_are_a_move() {
    assert_eq!(
        told(vec![copy("A", (1, 3), "INBOX", (5, 7)), expunge("INBOX", &[5, 6, 7])]),
        ["MessageMove A 1:3 < INBOX 5:7"]
    );
    // What is left over of either is told as what it is.
    assert_eq!(
        told(vec![copy("A", (1, 3), "INBOX", (5, 7)), trash("INBOX", 6), expunge("INBOX", &[2, 6, 7, 9])]),
        [
            "MessageCopy A 1 < INBOX 5",
            "MessageTrash INBOX 6",
            "MessageMove A 2:3 < INBOX 6:7",
            "MessageExpunge INBOX 2,9"
        ]
    );
    // Copied twice: the last copy is what it became.
    assert_eq!(
        told(vec![
            copy("A", (1, 1), "INBOX", (5, 5)),
            copy("B", (1, 1), "INBOX", (5, 5)),
            expunge("INBOX", &[5])
        ]),
        ["MessageCopy A 1 < INBOX 5", "MessageMove B 1 < INBOX 5"]
    );
    // Dovecot moves in batches.
    assert_eq!(
        told(vec![
            copy("A", (1, 10), "INBOX", (1, 10)),
            expunge("INBOX", &(1..=10).collect::<Vec<_>>()),
            copy("A", (11, 20), "INBOX", (11, 20)),
            expunge("INBOX", &(11..=20).collect::<Vec<_>>()),
        ]),
        ["MessageMove A 1:20 < INBOX 1:20"]
    );
}

#[test]
fn what_is_no_pair_is_told_as_it_happened() {
    let apart = [
        vec![copy("A", (1, 1), "INBOX", (5, 5)), expunge("Other", &[5])],
        vec![copy("A", (1, 1), "INBOX", (5, 5)), expunge("INBOX", &[6])],
        // The target was changed meanwhile, or mailboxes were.
        vec![copy("A", (1, 1), "INBOX", (5, 5)), trash("A", 1), expunge("INBOX", &[5])],
        vec![
            copy("A", (1, 1), "INBOX", (5, 5)),
            change("A", EventKind::MailboxDelete),
            expunge("INBOX", &[5]),
        ],
        // Another mailbox that had the name before.
        vec![copy("A", (1, 1), "INBOX", (5, 5)), Change { uid_validity: Some(8), ..expunge("INBOX", &[5]) }],
    ];
    for changes in apart {
        assert_eq!(told(changes.clone()), shown(&changes));
    }
}

/// Whoever applies what is told in its order has in the end what is there.
#[test]
fn what_moves_on_has_come_before() {
    assert_eq!(
        told(vec![
            copy("A", (1, 1), "INBOX", (1, 1)),
            copy("B", (1, 1), "A", (1, 1)),
            expunge("A", &[1]),
            trash("INBOX", 1),
            expunge("INBOX", &[1]),
        ]),
        [
            "MessageCopy A 1 < INBOX 1",
            "MessageMove B 1 < A 1",
            "MessageTrash INBOX 1",
            "MessageExpunge INBOX 1"
        ]
    );
    // The copy that goes on is older than the one that it goes on from, which is of other messages.
    assert_eq!(
        told(vec![
            copy("B", (1, 1), "A", (1, 1)),
            copy("A", (2, 2), "INBOX", (1, 1)),
            expunge("A", &[1]),
            expunge("INBOX", &[1]),
        ]),
        ["MessageCopy A 2 < INBOX 1", "MessageMove B 1 < A 1", "MessageExpunge INBOX 1"]
    );
    // Within one mailbox.
    let within = || copy("A", (2, 2), "A", (1, 1));
    assert_eq!(told(vec![within(), expunge("A", &[1])]), ["MessageMove A 2 < A 1"]);
    assert_eq!(told(vec![within(), expunge("A", &[1, 2])]), ["MessageMove A 2 < A 1", "MessageExpunge A 2"]);
    // The new one goes first: it has come before that.
    assert_eq!(
        told(vec![within(), expunge("A", &[2]), expunge("A", &[1])]),
        ["MessageCopy A 2 < A 1", "MessageExpunge A 2,1"]
    );
    // Half of it.
    assert_eq!(
        told(vec![copy("A", (4, 6), "A", (1, 3)), expunge("A", &[2, 5])]),
        ["MessageCopy A 4,6 < A 1,3", "MessageMove A 5 < A 2", "MessageExpunge A 5"]
    );
}

#[test]
fn a_copy_waits_and_what_is_behind_it_too() {
    let now = Instant::now();
    let mut outbox = Outbox::new("bob", true);
    outbox.push(vec![trash("INBOX", 1)], now);
    outbox.push(vec![copy("A", (1, 1), "INBOX", (5, 5))], now);
    outbox.push(vec![trash("INBOX", 2)], now);
    assert_eq!(outbox.wake(now), Some(Duration::ZERO));
    assert_eq!(shown(&outbox.take(now)), ["MessageTrash INBOX 1"]);
    assert_eq!(outbox.wake(now), Some(HOLD));
    assert!(outbox.take(now + HOLD - Duration::from_millis(1)).is_empty());
    assert_eq!(shown(&outbox.take(now + HOLD)), ["MessageCopy A 1 < INBOX 5", "MessageTrash INBOX 2"]);
    assert_eq!(outbox.wake(now), None);
    // Who is told of no moves waits for none.
    let mut outbox = Outbox::new("bob", false);
    outbox.push(vec![copy("A", (1, 1), "INBOX", (5, 5)), expunge("INBOX", &[5])], now);
    assert_eq!(shown(&outbox.take(now)), ["MessageCopy A 1 < INBOX 5", "MessageExpunge INBOX 5"]);
}

#[test]
fn what_fits_into_no_batch_is_one_resync_for_each_mailbox() {
    let scattered = |name: &str| expunge(name, &(1..20_000).step_by(2).collect::<Vec<_>>());
    let changes = vec![change("B", EventKind::MailboxCreate), scattered("A"), scattered("B"), trash("A", 1)];
    assert_eq!(told(changes), ["MailboxCreate B", "Resync A 2", "Resync B 1"]);
    // Thousands of mailboxes: one for all.
    let all: Vec<Change> = (0..3000).map(|n| trash(&format!("{n:0100}"), 1)).collect();
    let told = told(all);
    assert!(told.len() < 1000 && told.iter().any(|line| line.starts_with("Resync  ")), "{}", told.len());
}

/// Each change is told, or counted by a resync; new mail, of which alone legacy endpoints hear, is told.
#[test]
fn one_resync_for_all_mailboxes_takes_nothing_away_that_has_room() {
    let new = |name: &str| change(name, EventKind::MessageNew(NewMessage::default()));
    let first = vec![new("INBOX"), change("A", EventKind::MailboxCreate), new("A")];
    let many = (0..3000).map(|n| trash(&format!("{n:0100}"), 1));
    let lines = told(first.into_iter().chain(many).collect());
    assert_eq!(lines[..3], ["MessageNew INBOX", "MailboxCreate A", "MessageNew A"]);
    assert_eq!(missed(&lines) + lines.iter().filter(|line| line.starts_with("MessageTrash")).count(), 3000);

    // Changes to mailboxes: the first ones have room; of no later one the beginning is missing.
    let made = |n: usize, len: usize| change(&format!("{n:0len$}"), EventKind::MailboxCreate);
    let mut outbox = Outbox::new("bob", true);
    let long = (0..400).map(|n| made(n, 200)).chain([made(400, 1), new("INBOX"), trash("INBOX", 1)]);
    outbox.push(long.collect(), Instant::now());
    let lines = shown(&outbox.take_all());
    let last = lines.iter().rposition(|line| line.starts_with("MailboxCreate ")).unwrap();
    assert!(last > 50 && lines[last].ends_with(&format!("{last:0200}")), "{last}: {}", lines[last]);
    assert_eq!(lines[last + 1], "MessageNew INBOX");
    assert_eq!(lines[last + 2..], [format!("Resync  {}", 400 - last + 1)]);
}

/// What the resyncs stand for.
fn missed(lines: &[String]) -> usize {
    let resyncs = lines.iter().filter(|line| line.starts_with("Resync "));
    resyncs.map(|line| line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap()).sum()
}

#[test]
fn what_has_room_becomes_no_resync() {
    let (mut outbox, now) = (Outbox::new("bob", true), Instant::now());
    let mut count = 0;
    let next =
        |count: u32| vec![copy("Target", (2 * count + 1, 2 * count + 1), "Source", (count + 1, count + 1))];
    while outbox.has_room(&next(count)) {
        outbox.push(next(count), now);
        count += 1;
    }
    assert!((200..2000).contains(&count), "{count}");
    let taken = outbox.take_all();
    assert_eq!(taken.len(), usize::try_from(count).unwrap());
    assert!(taken.iter().all(|change| !change.is_resync()));
    assert!(outbox.has_room(&next(count)), "there is again");
}

#[test]
fn ranges_are_taken_out_of_ranges() {
    assert_eq!(without(&[(1, 10)], &[(3, 4), (7, 7)]), [(1, 2), (5, 6), (8, 10)]);
    assert_eq!(without(&[(1, 3), (5, 9)], &[(2, 6)]), [(1, 1), (7, 9)]);
    assert_eq!(without(&[(1, u32::MAX)], &[(5, u32::MAX)]), [(1, 4)]);
    assert_eq!(without(&[(4, 4)], &[(1, 9)]), []);
    assert!(contains(&[(1, 3), (5, 9)], 5) && !contains(&[(1, 3), (5, 9)], 4));
}

/// A Maildir's sync finds what others put there in the same moment as a delivery: who looks again is told of the new mail
/// all the same, since a legacy endpoint hears of nothing else.
#[test]
fn new_mail_is_told_beside_a_resync_of_its_mailbox() {
    let found = || change("INBOX", EventKind::Resync { reason: ResyncReason::Other, missed: 2 });
    let new = || change("INBOX", EventKind::MessageNew(NewMessage::default()));
    assert_eq!(
        told(vec![found(), trash("INBOX", 1), new(), expunge("INBOX", &[2])]),
        ["Resync INBOX 4", "MessageNew INBOX"]
    );
}

#[test]
fn new_mail_stays_where_the_rest_is_too_much_for_a_batch() {
    let new = change("INBOX", EventKind::MessageNew(NewMessage::default()));
    let scattered: Vec<u32> = (1..40_000).step_by(2).collect();
    assert_eq!(
        told(vec![new, expunge("INBOX", &scattered), trash("INBOX", 2)]),
        ["MessageNew INBOX", "Resync INBOX 2"]
    );
}

#[test]
fn expunges_that_follow_on_each_other_are_one() {
    let mut last = expunge("INBOX", &[7]);
    last.order = Some(9);
    let mut outbox = Outbox::new("bob", true);
    let now = Instant::now();
    for change in [expunge("INBOX", &[1, 2]), expunge("INBOX", &[3, 5]), last] {
        outbox.push(vec![change], now);
    }
    let taken = outbox.take(now);
    assert_eq!((shown(&taken), taken[0].order), (vec!["MessageExpunge INBOX 1:3,5,7".to_owned()], Some(9)));
    assert_eq!(outbox.octets, ENVELOPE);
    let others = vec![expunge("A", &[1]), expunge("B", &[2]), trash("B", 3), expunge("B", &[4])];
    assert_eq!(
        told(others),
        ["MessageExpunge A 1", "MessageExpunge B 2", "MessageTrash B 3", "MessageExpunge B 4"]
    );
}

/// imapsieve flags a message within the commit that adds it, and is done first.
#[test]
fn what_was_committed_first_is_told_first_though_it_comes_later() {
    let at = |order, change: Change| Change { order: Some(order), ..change };
    let added = || change("Ham", EventKind::MessageAppend(NewMessage::default()));
    assert_eq!(
        told(vec![at(9, trash("INBOX", 5)), at(7, trash("Ham", 1)), at(8, trash("Ham", 2)), at(6, added())]),
        ["MessageTrash INBOX 5", "MessageAppend Ham", "MessageTrash Ham 1", "MessageTrash Ham 2"]
    );
    // A copy too; and it is told at once, as the rest is.
    let copied = || at(6, copy("Ham", (1, 1), "INBOX", (5, 5)));
    assert_eq!(
        told(vec![at(7, trash("Ham", 1)), copied(), at(8, expunge("INBOX", &[5]))]),
        ["MessageCopy Ham 1 < INBOX 5", "MessageTrash Ham 1", "MessageExpunge INBOX 5"]
    );
    let (mut outbox, now) = (Outbox::new("bob", true), Instant::now());
    outbox.push(vec![at(7, trash("Ham", 1))], now);
    outbox.push(vec![copied()], now);
    assert_eq!(shown(&outbox.take(now)), ["MessageCopy Ham 1 < INBOX 5", "MessageTrash Ham 1"]);
    assert!(outbox.is_empty() && outbox.octets == ENVELOPE);
    // Orders of different mailboxes, or of none, say nothing.
    let unknown = Change { order: None, ..added() };
    assert_eq!(
        told(vec![at(7, trash("Ham", 1)), at(9, trash("INBOX", 5)), at(6, added()), unknown]),
        ["MessageTrash Ham 1", "MessageTrash INBOX 5", "MessageAppend Ham", "MessageAppend Ham"]
    );
}
