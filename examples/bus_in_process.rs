//! The bus in one process, with no server at all: no memcached, no sockets.
//!
//! `cargo run --example bus_in_process`
//!
//! One task publishes what happens in two mailboxes. Two subscribers listen, each for what it wants. A third is too
//! slow for what comes, and learns so by a Resync in the place of what it has lost.

use ocbus::bus::{Filter, Subscription};
use ocbus::wire::{NewMessage, UidSet};
use ocbus::{Bus, Event, EventKind, Mailbox, now_us};
use uuid::Uuid;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // Clones of a bus are the same bus: give one to each part of the program.
    let bus = Bus::new();

    // A subscription is a queue of its own behind a filter. This one wants what is new in bob's Inbox...
    let inbox = bus.subscribe(Filter::user("bob").kind("MessageNew").mailbox("INBOX"));
    // ... this one everything of everybody ...
    let audit = bus.subscribe(Filter::all());
    // ... and this one has room for two events, and does not look at them for now.
    let mut slow = bus.subscribe_with_queue(Filter::user("bob"), 2);

    let inbox = tokio::spawn(print("inbox", inbox, 2));
    let audit = tokio::spawn(print("audit", audit, 5));

    // Publishing never waits for anybody. It says how many got the event.
    for uid in 1..=2 {
        let event = new_mail("bob", "INBOX", uid, "Lunch?");
        println!("published a mail for bob: {} subscribers", bus.publish(event).delivered);
    }
    let elsewhere = new_mail("carol", "INBOX", 7, "Minutes");
    println!("published a mail for carol: {} subscriber", bus.publish(elsewhere.clone()).delivered);

    // Whoever is not sure that an event went out may publish it again: its id was seen, so nobody gets it twice.
    println!("the same again: duplicate {}", bus.publish(elsewhere).duplicate);

    // Other things happen to messages and mailboxes than their arrival.
    let read = EventKind::MessageRead { uids: UidSet::from_iter([1, 2]) };
    bus.publish(event("bob", "INBOX", read));
    bus.publish(event("bob", "Projects/2026", EventKind::MailboxCreate));

    // A join error would be a panic in the task: then this program panics as well.
    for task in [inbox, audit] {
        if let Err(error) = task.await {
            std::panic::resume_unwind(error.into_panic());
        }
    }

    // Four events came for bob. The slow subscriber finds the last two, and in the place of the others a Resync that
    // says how many are missing: time to look at the mailbox itself.
    while let Some(event) = slow.try_recv() {
        tell("slow", &event);
    }
    println!("{:?}", bus.statistics());
}

/// Prints so many events.
async fn print(name: &'static str, mut events: Subscription, count: usize) {
    for _ in 0..count {
        let Some(event) = events.recv().await else { return };
        tell(name, &event);
    }
}

fn tell(name: &str, event: &Event) {
    let mailbox = event.mailbox.as_ref().map_or("all mailboxes", |mailbox| mailbox.name.as_str());
    let more = match &event.kind {
        EventKind::MessageNew(message) => message.subject.clone().unwrap_or_default(),
        EventKind::MessageRead { uids } => format!("uids {uids}"),
        EventKind::Resync { reason, missed } => format!("{missed} events missed: {}", reason.name()),
        _ => String::new(),
    };
    println!("  {name:<5}  {:<5}  {:<13}  {mailbox:<13}  {more}", event.user, event.kind.name());
}

fn new_mail(user: &str, mailbox: &str, uid: u32, subject: &str) -> Event {
    let message = NewMessage { uid: Some(uid), subject: Some(subject.to_owned()), ..NewMessage::default() };
    event(user, mailbox, EventKind::MessageNew(message))
}

/// An event gets its id where it is made, once: a UUIDv7, so that ids are in the order of time.
fn event(user: &str, mailbox: &str, kind: EventKind) -> Event {
    Event::new(Uuid::now_v7(), now_us(), user, Mailbox::new(mailbox, '/'), kind)
}
