//! Subscribers that a look-up does not find though they live: their clocks are behind, or their memcached has just been
//! replaced by another.

use ocbus_wire::{EventKind, Mailbox, NewMessage};
use uuid::Uuid;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn bob() -> Cn {
    Cn::new("bob").unwrap()
}

fn lease(n: u128, missed: u64) -> Lease {
    Lease {
        endpoint: format!("tcp://10.0.0.1:{n}"),
        subscriber: Uuid::from_u128(n),
        until_ms: 1,
        legacy: None,
        missed,
    }
}

/// A core that has taken so many mails for bob, and looks him up.
fn core(now: Now, mails: usize) -> Core {
    let config = OutboxConfig { gather: Duration::ZERO, grace: Duration::ZERO, ..OutboxConfig::default() };
    let mut core = Core::new(config, now, 1);
    let mail = |_| {
        let message = NewMessage { uid: Some(1), ..NewMessage::default() };
        Event::new(Uuid::now_v7(), 0, "bob", Mailbox::new("INBOX", '/'), EventKind::MessageNew(message))
    };
    core.accept(now, Source::Http, (0..mails).map(mail).collect()).unwrap();
    let orders = core.take_orders();
    assert!(matches!(orders[..], [Order::LookUp(_)]), "{orders:?}");
    core
}

fn dropped(core: &Core, reason: Reason) -> u64 {
    core.statistics().dropped[Reason::ALL.iter().position(|one| *one == reason).unwrap()]
}

#[test]
fn the_holder_of_an_ended_lease_is_told_whoever_else_listens() {
    let now = Now { at: Instant::now(), us: 0 };
    let legacy = vec!["tcp://10.0.0.2:1".to_owned()];
    for (native, legacy) in [(vec![], vec![]), (vec![], legacy), (vec![lease(1, 0)], vec![])] {
        let alone = native.is_empty() && legacy.is_empty();
        let mut core = core(now, 3);
        let expired = vec![lease(7, 0), lease(8, 5)];
        let listeners = Listeners { native, legacy, expired, ..Listeners::default() };
        core.looked_up(now, &bob(), listeners, Duration::ZERO);
        let orders = core.take_orders();
        let mut settlements = orders.iter().filter_map(|order| match order {
            Order::Settle(_, settlement) => Some(settlement),
            _ => None,
        });
        let settlement = settlements.next().unwrap();
        // The other knows that it has missed something.
        assert_eq!(settlement.missed, [(lease(7, 0), 3)]);
        assert!(settlements.next().is_none());
        assert_eq!(orders.len(), if alone { 1 } else { 2 }, "the others get it: {orders:?}");
        assert_eq!(dropped(&core, Reason::Unheard), if alone { 3 } else { 0 });
    }
}

#[test]
fn nobody_is_unheard_where_a_memcached_has_just_taken_users_over() {
    let mut now = Now { at: Instant::now(), us: 0 };
    let mut core = core(now, 2);
    let unsettled = Listeners { unsettled: true, ..Listeners::default() };
    core.looked_up(now, &bob(), unsettled, Duration::ZERO);
    assert_eq!((core.statistics().held_events, dropped(&core, Reason::Unheard)), (2, 0));
    // Looked up again soon: the subscriber is there.
    let next = core.next_wake().unwrap();
    assert!(next <= now.at + SECOND, "{:?}", next - now.at);
    now.at = next;
    core.wake(now);
    let orders = core.take_orders();
    assert!(matches!(orders[..], [Order::LookUp(_)]), "{orders:?}");
    let listeners = Listeners { native: vec![lease(1, 0)], ..Listeners::default() };
    core.looked_up(now, &bob(), listeners, Duration::ZERO);
    let orders = core.take_orders();
    assert!(matches!(&orders[..], [Order::Send(dispatch)] if dispatch.items.len() == 2), "{orders:?}");

    // Or it is not, when all have had their time.
    let mut core = self::core(now, 1);
    core.looked_up(now, &bob(), Listeners::default(), Duration::ZERO);
    assert_eq!(dropped(&core, Reason::Unheard), 1);
}
