//! What found no room and what was dropped: users are told, and so is the log.

use super::*;

/// A world whose outbox is full of others' events, which the resolver's outage keeps there.
fn full_world() -> World {
    let mut world = World::new(1, OutboxConfig { max_octets: 1 << 20, ..config() });
    world.start(&bob(), 0);
    world.accept(&bob(), 1);
    world.run();
    world.resolver_up = false;
    let mut others = 0..;
    let mut other = || format!("other{}", others.next().unwrap());
    while world.core.accept(world.now, Source::Ox, vec![event(9999, &other())]).is_ok() {}
    world.collect();
    world.run();
    world
}

#[test]
fn whoever_was_refused_is_told_once_as_soon_as_there_is_room() {
    let mut world = full_world();
    for _ in 0..3 {
        assert!(world.core.accept(world.now, Source::Ox, vec![event(9999, "bob")]).is_err());
        world.pass(SECOND);
    }
    let (octets, most) = (world.core.octets, world.core.config.max_octets);
    assert!(octets <= most, "a resync keeps to the bound");
    assert!(world.core.accepted - world.core.settled >= 3, "a killed daemon's heir tells");
    assert_eq!(world.last(&bob(), 0).resyncs, 0);
    world.resolver_up = true;
    world.pass(5 * SECOND);
    assert!(world.last(&bob(), 0).resyncs > 0);
    assert_eq!(world.core.statistics().resyncs, 2, "one for all of bob's, and one of who filled it");
    world.pass(1500 * SECOND);
    world.check_empty();
}

#[test]
fn what_never_has_room_is_told_at_once() {
    let mut world = World::new(1, OutboxConfig { max_octets: 1 << 20, ..config() });
    world.start(&bob(), 0);
    let many = (0..2000).map(|id| event(id, "bob")).collect();
    assert!(world.core.accept(world.now, Source::Http, many).is_err());
    world.collect();
    world.pass(SECOND);
    assert!(world.last(&bob(), 0).resyncs > 0);
    world.check_empty();
}

#[test]
fn whoever_hands_over_and_is_refused_sends_by_itself() {
    let mut world = full_world();
    assert!(world.core.accept(world.now, Source::HandOver, vec![event(9999, "bob")]).is_err());
    world.resolver_up = true;
    world.pass(1500 * SECOND);
    assert_eq!(world.last(&bob(), 0).resyncs, 0);
    world.check_empty();
}

#[test]
fn of_more_refused_users_than_are_remembered_everybody_is_told() {
    let mut world = full_world();
    let users = turned_away::MAX_USERS as u64 + 10;
    for n in 0..users {
        let refused = vec![event(n, &format!("refused{n}")), event(n, &format!("refused{n}"))];
        assert!(world.core.accept(world.now, Source::Http, refused).is_err());
    }
    assert_eq!(world.told_everybody, 0);
    world.resolver_up = true;
    world.pass(1500 * SECOND);
    // Who filled it came before.
    assert!((20..=22).contains(&world.told_everybody), "{}", world.told_everybody);
    world.check_empty();
}

#[test]
fn for_a_silent_subscriber_one_resync_waits_however_often_something_is_missing() {
    let mut world = World::new(1, config());
    world.start(&bob(), 0);
    world.last(&bob(), 0).health = Health::Hangs;
    for _ in 0..300 {
        world.core.resync(world.now, &bob(), 2);
        world.collect();
        world.pass(SECOND);
        assert!(world.core.octets <= user::RESYNC_OCTETS, "{}", world.core.octets);
    }
    assert_eq!((world.core.statistics().resyncs, world.core.accepted - world.core.settled), (1, 300));
    world.last(&bob(), 0).health = Health::Alive;
    world.pass(60 * SECOND);
    assert!((1..=3).contains(&world.last(&bob(), 0).resyncs), "an answer may be lost");
    world.check_empty();
}

#[test]
fn everybody_is_told_once_in_a_while_whatever_the_load() {
    let mut world = World::new(1, OutboxConfig { max_octets: 64 << 20, ..config() });
    let refuse = |world: &mut World, events: u64| {
        for n in 0..turned_away::MAX_USERS as u64 + events {
            world.core.turn_away(world.now, &[event(n, &format!("refused{n}"))]);
        }
        world.core.pump(world.now);
        world.collect();
    };
    refuse(&mut world, 5);
    world.pass(SECOND);
    assert_eq!(world.told_everybody, 5);
    for second in 0..turned_away::PAUSE.as_secs() - 1 {
        assert_eq!(world.told_everybody, 5, "{second}");
        refuse(&mut world, 1);
        world.pass(SECOND);
    }
    world.pass(2 * SECOND);
    // Some joined a resync of their own that was still to be given.
    let most = 5 + turned_away::PAUSE.as_secs() - 1;
    assert!((most - 10..=most).contains(&world.told_everybody), "{}", world.told_everybody);
    world.pass(1500 * SECOND);
    world.check_empty();
}

#[test]
fn what_is_dropped_and_an_outage_s_end_are_news_but_not_many() {
    let mut world = World::new(1, config());
    world.start(&bob(), 0);
    world.resolver_up = false;
    for _ in 0..200 {
        world.accept(&bob(), 1);
        world.pass(SECOND / 2);
    }
    world.resolver_up = true;
    let held = world.core.events as u64;
    world.pass(5 * SECOND);
    let news = std::mem::take(&mut world.core.news);
    let told = |wanted| -> Vec<u64> {
        let of = news.iter().filter_map(move |news| match news {
            News::Dropped { reason, events } => (*reason == wanted).then_some(*events),
            News::ResolverBack { .. } => None,
        });
        of.collect()
    };
    // There is room for some 80 of them.
    let lines = told(Reason::Overflow);
    assert_eq!(lines.iter().sum::<u64>(), world.dropped(Reason::Overflow), "{news:?}");
    assert!((55..=62).contains(&lines.len()), "a line each second: {lines:?}");
    let back = |news: &&News| matches!(news, News::ResolverBack { .. });
    let back: Vec<&News> = news.iter().filter(back).collect();
    let [News::ResolverBack { lasted, held: then, dropped }] = back[..] else { panic!("{back:?}") };
    assert_eq!((*then, *dropped), (held, world.dropped(Reason::Overflow)));
    assert!((99..=105).contains(&lasted.as_secs()), "{lasted:?}");
    // That nobody listens is no news.
    world.accept(&Cn::new("alice").unwrap(), 1);
    world.pass(600 * SECOND);
    assert_eq!((world.dropped(Reason::Unheard), world.core.news.len()), (1, 0));
}
