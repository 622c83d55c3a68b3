//! The decisions one by one, in virtual time.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use ocbus_resolver::Cn;

use super::share;
use super::{Act, Claim, Core, Now, Outcome, Pace, Refusal, State, Task, Why};

const PACE: Pace = Pace {
    reconcile: Duration::from_secs(600),
    reconcile_per_s: 10,
    grace: Duration::from_secs(60),
    retry: Duration::from_secs(5),
};

fn cn(name: &str) -> Cn {
    Cn::new(name).unwrap()
}

fn set(names: &[&str]) -> HashSet<Cn> {
    names.iter().map(|name| cn(name)).collect()
}

struct Clock(Instant);

impl Clock {
    fn now(&self) -> Now {
        Now { at: self.0, unix_us: 1_000_000 }
    }

    fn pass(&mut self, seconds: f64) -> Now {
        self.0 += Duration::from_secs_f64(seconds);
        self.now()
    }
}

fn start() -> (Core, Clock) {
    (Core::new("mail1", PACE), Clock(Instant::now()))
}

fn only(core: &mut Core, now: Now) -> Task {
    let mut tasks = core.next(now, 100);
    assert_eq!(tasks.len(), 1, "{tasks:?}");
    tasks.remove(0)
}

fn expect(core: &mut Core, now: Now, name: &str, act: Act, outcome: Outcome) {
    let task = only(core, now);
    assert_eq!((task.user.as_str(), task.act), (name, act));
    core.done(now, &cn(name), outcome);
}

/// A census, and one more when the first misses somebody.
fn census(core: &mut Core, now: Now, names: &[&str]) {
    all_present(core, now, &set(names));
}

fn all_present(core: &mut Core, now: Now, present: &HashSet<Cn>) {
    for _ in 0..2 {
        core.came(now, present);
        core.sessions(now, present, true);
    }
}

fn state(core: &Core, now: Now, name: &str) -> Option<State> {
    core.find(now, &cn(name)).map(|entry| entry.state)
}

const FOREIGN: Outcome = Outcome::Found { ours: false };
const OURS: Outcome = Outcome::Found { ours: true };

#[test]
fn a_session_is_registered_and_taken_back_behind_its_grace() {
    let (mut core, mut clock) = start();
    let now = clock.now();
    census(&mut core, now, &["bob"]);
    expect(&mut core, now, "bob", Act::Look, FOREIGN);
    expect(&mut core, now, "bob", Act::Set, Outcome::Done);
    assert!(core.next(now, 100).is_empty());
    assert_eq!(state(&core, now, "bob"), Some(State::Registered));

    let gone = clock.pass(10.0);
    census(&mut core, gone, &[]);
    assert_eq!(core.wake_at(), Some(gone.at + PACE.grace));
    assert!(core.next(clock.pass(59.0), 100).is_empty());
    let back = clock.now();
    census(&mut core, back, &["bob"]);
    assert!(core.next(clock.pass(2.0), 100).is_empty(), "a session came back within the grace");

    core.sessions(clock.now(), &set(&[]), false);
    assert!(core.next(clock.pass(61.0), 100).is_empty(), "a census with a hole ends no session");
    census(&mut core, clock.now(), &[]);
    let over = clock.pass(60.0);
    expect(&mut core, over, "bob", Act::Unset, Outcome::Done);
    assert_eq!(state(&core, over, "bob"), None);
    assert_eq!(core.wake_at(), None);
}

#[test]
fn what_is_set_already_is_not_set_again_and_is_looked_at_in_each_period() {
    let (mut core, mut clock) = start();
    core.set_listed(clock.now(), &set(&["bob"]));
    expect(&mut core, clock.now(), "bob", Act::Look, OURS);
    let wait = core.wake_at().unwrap() - clock.0;
    assert!(wait >= PACE.reconcile / 2 && wait <= PACE.reconcile, "{wait:?}");
    let later = clock.pass(600.0);
    expect(&mut core, later, "bob", Act::Look, FOREIGN);
    expect(&mut core, later, "bob", Act::Set, Outcome::Done);
    assert_eq!((core.counts().lost, core.counts().set), (1, 1));
}

#[test]
fn reconciling_is_bounded_in_its_rate() {
    let (mut core, mut clock) = start();
    let names: Vec<String> = (0..1000).map(|number| format!("user{number}")).collect();
    let users: HashSet<Cn> = names.iter().map(|name| cn(name)).collect();
    core.set_listed(clock.now(), &users);
    // Those that come to us are looked at at once.
    let first = core.next(clock.now(), usize::MAX);
    assert_eq!(first.len(), 1000);
    for task in first {
        core.done(clock.now(), &task.user, OURS);
    }
    clock.pass(600.0);
    let mut looked = 0;
    for _ in 0..50 {
        let now = clock.pass(1.0);
        let tasks = core.next(now, usize::MAX);
        looked += tasks.len();
        assert!(tasks.len() <= 10 + 16, "{}", tasks.len());
        tasks.iter().for_each(|task| core.done(now, &task.user, OURS));
    }
    assert!((500..=530).contains(&looked), "{looked}");
}

#[test]
fn what_fails_is_tried_again_ever_later_and_alone() {
    let (mut core, mut clock) = start();
    core.set_listed(clock.now(), &set(&["bob"]));
    let mut waits = Vec::new();
    for _ in 0..9 {
        let task = only(&mut core, clock.now());
        assert_eq!(task.alone, !waits.is_empty());
        core.done(clock.now(), &task.user, Outcome::Failed("75".to_owned()));
        assert_eq!(state(&core, clock.now(), "bob"), Some(State::Failed));
        let wait = core.wake_at().unwrap() - clock.0;
        waits.push(wait.as_secs_f64());
        clock.pass(wait.as_secs_f64());
    }
    for (wait, longest) in waits.iter().zip([5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0]) {
        assert!((longest / 2.0..=longest).contains(wait), "{waits:?}");
    }
    expect(&mut core, clock.now(), "bob", Act::Look, OURS);
    assert_eq!(core.find(clock.now(), &cn("bob")).unwrap().fault, None);
}

#[test]
fn while_dovecot_is_away_one_asks_for_all() {
    let (mut core, mut clock) = start();
    core.set_listed(clock.now(), &set(&["ann", "bob", "eve"]));
    for task in core.next(clock.now(), 100) {
        core.done(clock.now(), &task.user, Outcome::Away("refused".to_owned()));
    }
    assert!(core.next(clock.pass(4.9), 100).is_empty());
    for wait in [0.1, 10.0, 20.0, 30.0, 30.0] {
        let now = clock.pass(wait);
        let task = only(&mut core, now);
        assert!(core.next(now, 100).is_empty(), "only one");
        core.done(now, &task.user, Outcome::Away("refused".to_owned()));
        assert!(core.next(now, 100).is_empty());
    }
    let back = clock.pass(30.0);
    let task = only(&mut core, back);
    core.done(back, &task.user, OURS);
    assert_eq!(core.next(back, 100).len(), 2, "the others at once");
    assert_eq!(core.counts().outages, 1);
}

/// ann's look has found Dovecot away, and is to be tried again behind bob, who is to be taken back.
fn away_while_bob_goes() -> (Core, Clock) {
    let (mut core, mut clock) = start();
    census(&mut core, clock.now(), &["bob"]);
    expect(&mut core, clock.now(), "bob", Act::Look, OURS);
    census(&mut core, clock.now(), &[]);
    core.set_listed(clock.pass(59.0), &set(&["ann"]));
    let task = only(&mut core, clock.now());
    core.done(clock.pass(2.0), &task.user, Outcome::Away("refused".to_owned()));
    clock.pass(5.0);
    (core, clock)
}

#[test]
fn what_was_not_asked_of_dovecot_says_nothing_of_its_outage() {
    for outcome in [Outcome::Claimed("mail2".to_owned()), Outcome::Unasked("memcached is away".to_owned())] {
        let (mut core, mut clock) = away_while_bob_goes();
        expect(&mut core, clock.now(), "bob", Act::Unset, outcome);
        let task = only(&mut core, clock.now());
        assert!(core.next(clock.now(), 100).is_empty(), "only one asks");
        core.done(clock.now(), &task.user, Outcome::Away("refused".to_owned()));
        assert!(core.next(clock.pass(9.9), 100).is_empty(), "the back-off goes on");
        assert_eq!((core.next(clock.pass(0.1), 100).len(), core.counts().outages), (1, 1));
    }
}

#[test]
fn while_claims_cannot_be_read_nobody_is_taken_back_and_dovecot_is_not_blamed() {
    let (mut core, mut clock) = start();
    census(&mut core, clock.now(), &["ann", "bob"]);
    core.next(clock.now(), 100).iter().for_each(|task| core.done(clock.now(), &task.user, OURS));
    census(&mut core, clock.now(), &[]);
    clock.pass(60.0);
    for _ in 0..20 {
        let tasks = core.next(clock.now(), 100);
        assert!(tasks.iter().all(|task| task.act == Act::Unset && !task.alone), "{tasks:?}");
        for task in &tasks {
            core.done(clock.now(), &task.user, Outcome::Unasked("memcached is away".to_owned()));
        }
        assert!(core.next(clock.pass(2.4), 100).is_empty(), "not at once");
        clock.pass(2.6);
    }
    assert_eq!((core.counts().failed, core.tally().failing), (0, 0));
    assert_eq!(core.find(clock.now(), &cn("bob")).unwrap().fault.as_deref(), Some("memcached is away"));
    // One of them has a session again.
    census(&mut core, clock.now(), &["ann"]);
    assert_eq!((state(&core, clock.now(), "ann"), core.tally().failing), (Some(State::Registered), 0));
    let bob = core.next(clock.now(), 100).into_iter().find(|task| task.user == cn("bob")).unwrap();
    assert_eq!(bob.act, Act::Unset, "within the time of one retry behind its return");
    core.done(clock.now(), &bob.user, Outcome::Done);
    assert_eq!(state(&core, clock.now(), "bob"), None);
}

#[test]
fn a_user_whom_dovecot_does_not_know_is_tried_in_each_period_only() {
    let (mut core, mut clock) = start();
    census(&mut core, clock.now(), &["bob"]);
    expect(&mut core, clock.now(), "bob", Act::Look, Outcome::UnknownUser);
    assert_eq!(state(&core, clock.now(), "bob"), Some(State::Failed));
    assert!(core.next(clock.pass(299.0), 100).is_empty());
    let later = clock.pass(301.0);
    expect(&mut core, later, "bob", Act::Set, Outcome::UnknownUser);
    census(&mut core, later, &[]);
    let now = clock.pass(60.0);
    assert!(core.next(now, 100).is_empty());
    assert_eq!(state(&core, now, "bob"), None, "nothing to take back");
}

#[test]
fn wishes_that_change_under_way_are_followed_up() {
    let (mut core, mut clock) = start();
    core.session(clock.now(), &cn("bob"), true);
    expect(&mut core, clock.now(), "bob", Act::Look, FOREIGN);
    let task = only(&mut core, clock.now());
    assert_eq!(task.act, Act::Set);
    core.session(clock.now(), &cn("bob"), false);
    clock.pass(61.0);
    core.done(clock.now(), &cn("bob"), Outcome::Done);
    let task = only(&mut core, clock.now());
    assert_eq!(task.act, Act::Unset);
    core.session(clock.now(), &cn("bob"), true);
    core.done(clock.now(), &cn("bob"), Outcome::Done);
    expect(&mut core, clock.now(), "bob", Act::Set, Outcome::Done);
}

#[test]
fn by_hand() {
    let (mut core, mut clock) = start();
    let bob = cn("bob");
    assert_eq!(core.unregister(clock.now(), &bob), Err(Refusal::NotThere(bob.clone())));
    core.register(clock.now(), &bob).unwrap();
    expect(&mut core, clock.now(), "bob", Act::Look, FOREIGN);
    expect(&mut core, clock.now(), "bob", Act::Set, Outcome::Done);
    assert_eq!(core.kept(), [(bob.clone(), Why::Added, Some(1_000_000))]);
    core.unregister(clock.now(), &bob).unwrap();
    expect(&mut core, clock.now(), "bob", Act::Unset, Outcome::Done);
    assert!(core.kept().is_empty());

    // With a session: until that ends.
    census(&mut core, clock.now(), &["bob"]);
    expect(&mut core, clock.now(), "bob", Act::Look, OURS);
    core.unregister(clock.now(), &bob).unwrap();
    expect(&mut core, clock.now(), "bob", Act::Unset, Outcome::Done);
    census(&mut core, clock.pass(10.0), &["bob"]);
    assert!(core.next(clock.pass(1000.0), 100).is_empty());
    assert_eq!(state(&core, clock.now(), "bob"), Some(State::Barred));
    census(&mut core, clock.now(), &[]);
    assert_eq!(state(&core, clock.now(), "bob"), None);
    census(&mut core, clock.now(), &["bob"]);
    expect(&mut core, clock.now(), "bob", Act::Look, OURS);

    core.set_listed(clock.now(), &set(&["eve"]));
    assert_eq!(core.unregister(clock.now(), &cn("eve")), Err(Refusal::Listed(cn("eve"))));
}

#[test]
fn anothers_value_is_not_taken_away() {
    let (mut core, mut clock) = start();
    core.recall(clock.now(), &cn("bob"), Why::Set, None);
    assert!(matches!(core.next(clock.now(), 100).as_slice(), [Task { act: Act::Look, .. }]));
    clock.pass(61.0);
    core.done(clock.now(), &cn("bob"), FOREIGN);
    assert!(core.next(clock.now(), 100).is_empty());
    assert_eq!(state(&core, clock.now(), "bob"), None);
}

#[test]
fn what_a_former_run_left_behind_is_taken_back() {
    let (mut core, mut clock) = start();
    core.recall(clock.now(), &cn("bob"), Why::Set, None);
    expect(&mut core, clock.now(), "bob", Act::Look, OURS);
    census(&mut core, clock.pass(1.0), &[]);
    let over = clock.pass(59.0);
    expect(&mut core, over, "bob", Act::Unset, Outcome::Done);
}

#[test]
fn users_go_to_whom_they_belong_and_come_back_from_the_dead_at_once() {
    let (mut core, mut clock) = start();
    let names: Vec<String> = (0..100).map(|number| format!("user{number}")).collect();
    let users: HashSet<Cn> = names.iter().map(|name| cn(name)).collect();
    core.set_listed(clock.now(), &users);
    let both = ["mail1".to_owned(), "mail2".to_owned()];
    core.set_daemons(clock.now(), &both);
    let mine: HashSet<Cn> = core.next(clock.now(), 1000).into_iter().map(|task| task.user).collect();
    assert!((30..70).contains(&mine.len()), "{}", mine.len());
    mine.iter().for_each(|user| core.done(clock.now(), user, OURS));
    let elsewhere = core.list(clock.now()).iter().filter(|entry| entry.daemon == "mail2").count();
    assert_eq!(elsewhere, 100 - mine.len());
    let theirs = core.list(clock.now()).into_iter().find(|entry| entry.daemon == "mail2").unwrap();
    assert_eq!(theirs.state, State::Elsewhere);

    // mail2 is dead.
    let now = clock.pass(5.0);
    core.set_daemons(now, &["mail1".to_owned()]);
    let taken: HashSet<Cn> = core.next(now, 1000).into_iter().map(|task| task.user).collect();
    assert_eq!(taken.len(), 100 - mine.len());
    assert!(taken.is_disjoint(&mine), "ours are not looked at for that");
    // It lives after all; what is under way comes to its end.
    core.set_daemons(now, &both);
    taken.iter().for_each(|user| core.done(now, user, OURS));
    let wake = core.wake_at().unwrap();
    assert!(wake > now.at + PACE.reconcile / 2 - Duration::from_secs(6));
    assert_eq!(
        core.unregister(now, taken.iter().next().unwrap()),
        Err(Refusal::Listed(taken.iter().next().unwrap().clone()))
    );
}

#[test]
fn a_session_that_ended_under_the_care_of_one_who_died_is_not_forgotten() {
    let (mut core, mut clock) = start();
    // Somebody whom mail2 looks after.
    core.set_daemons(clock.now(), &["mail2".to_owned()]);
    let users: HashSet<Cn> = (0..20).map(|number| cn(&format!("user{number}"))).collect();
    all_present(&mut core, clock.now(), &users);
    let theirs = core.list(clock.now()).into_iter().find(|entry| entry.daemon == "mail2").unwrap().user;
    let mine = core.next(clock.now(), 100);
    mine.iter().for_each(|task| core.done(clock.now(), &task.user, OURS));
    assert!(!mine.iter().any(|task| task.user.as_str() == theirs));
    census(&mut core, clock.now(), &[]);
    census(&mut core, clock.pass(61.0), &[]);
    let tasks = core.next(clock.now(), 100);
    tasks.iter().for_each(|task| core.done(clock.now(), &task.user, Outcome::Done));
    core.set_daemons(clock.now(), &[]);
    let looks = core.next(clock.now(), 100);
    assert!(looks.iter().any(|task| task.user.as_str() == theirs && task.act == Act::Look));
    looks.iter().for_each(|task| core.done(clock.now(), &task.user, OURS));
    assert!(core.next(clock.now(), 100).iter().all(|task| task.act == Act::Unset));
}

#[test]
fn a_session_ends_when_two_complete_censuses_in_a_row_do_not_have_it() {
    let (mut core, mut clock) = start();
    let (none, bob) = (set(&[]), set(&["bob"]));
    census(&mut core, clock.now(), &["bob"]);
    expect(&mut core, clock.now(), "bob", Act::Look, OURS);
    let session = |core: &Core, now| core.find(now, &cn("bob")).unwrap().session;
    for _ in 0..3 {
        // Missed once, and there again.
        core.sessions(clock.pass(10.0), &none, true);
        assert!(session(&core, clock.now()));
        assert_eq!(core.missing(&none), [cn("bob")]);
        core.came(clock.pass(10.0), &bob);
        core.sessions(clock.now(), &bob, true);
    }
    core.sessions(clock.now(), &none, true);
    core.sessions(clock.now(), &none, false);
    assert!(session(&core, clock.now()), "the second one had a hole");
    core.sessions(clock.now(), &none, true);
    assert!(!session(&core, clock.now()));
}

#[test]
fn who_is_missed_by_one_census_stays_unregistered_by_hand() {
    let (mut core, mut clock) = start();
    census(&mut core, clock.now(), &["bob"]);
    expect(&mut core, clock.now(), "bob", Act::Look, OURS);
    core.sessions(clock.now(), &set(&[]), true);
    core.unregister(clock.now(), &cn("bob")).unwrap();
    expect(&mut core, clock.now(), "bob", Act::Unset, Outcome::Done);
    assert_eq!(state(&core, clock.now(), "bob"), Some(State::Barred));
    core.came(clock.pass(1.0), &set(&["bob"]));
    core.sessions(clock.now(), &set(&["bob"]), true);
    assert!(core.next(clock.pass(100.0), 100).is_empty());
    assert_eq!(core.claims(None, 10), [(cn("bob"), Claim::Barred)]);
    census(&mut core, clock.now(), &[]);
    assert_eq!(core.released().into_iter().collect::<Vec<_>>(), [(cn("bob"), Claim::Barred)]);
    assert!(core.kept().is_empty() && core.claims(None, 10).is_empty());
}

#[test]
fn who_is_unregistered_by_hand_stays_so_behind_a_restart_and_at_another_daemon() {
    let (mut core, mut clock) = start();
    core.recall(clock.now(), &cn("bob"), Why::Barred, None);
    core.recall(clock.now(), &cn("eve"), Why::Barred, None);
    // What was under way at the end may not have come to Dovecot.
    for task in core.next(clock.now(), 10) {
        assert_eq!(task.act, Act::Look);
        core.done(clock.now(), &task.user, FOREIGN);
    }
    census(&mut core, clock.now(), &["bob"]);
    assert!(core.next(clock.pass(1000.0), 10).is_empty());
    assert_eq!(
        (state(&core, clock.now(), "bob"), state(&core, clock.now(), "eve")),
        (Some(State::Barred), None)
    );
    assert_eq!(core.kept(), [(cn("bob"), Why::Barred, None)]);

    // At another daemon, whom the resolver tells when he comes there.
    let (mut core, clock) = start();
    census(&mut core, clock.now(), &["bob"]);
    let task = only(&mut core, clock.now());
    assert!(task.ask_barred);
    core.done(clock.now(), &cn("bob"), Outcome::Barred);
    let task = only(&mut core, clock.now());
    assert!(!task.ask_barred && task.act == Act::Look, "it may be set");
    core.done(clock.now(), &cn("bob"), OURS);
    expect(&mut core, clock.now(), "bob", Act::Unset, Outcome::Done);
    assert_eq!(state(&core, clock.now(), "bob"), Some(State::Barred));
    assert_eq!(core.claims(None, 10), [(cn("bob"), Claim::Barred)]);
}

/// Another daemon had it registered by hand meanwhile, and cannot take it back while it has a session.
#[test]
fn who_is_unregistered_by_hand_once_more_is_looked_at_once_more() {
    let (mut core, mut clock) = start();
    census(&mut core, clock.now(), &["bob"]);
    expect(&mut core, clock.now(), "bob", Act::Look, OURS);
    core.unregister(clock.now(), &cn("bob")).unwrap();
    expect(&mut core, clock.now(), "bob", Act::Unset, Outcome::Done);
    for (found, last) in [(OURS, Act::Unset), (FOREIGN, Act::Look)] {
        core.unregister(clock.pass(10.0), &cn("bob")).unwrap();
        assert_eq!(state(&core, clock.now(), "bob"), Some(State::Leaving), "not done yet");
        expect(&mut core, clock.now(), "bob", Act::Look, found);
        if last == Act::Unset {
            expect(&mut core, clock.now(), "bob", Act::Unset, Outcome::Done);
        }
        assert!(core.next(clock.pass(100.0), 10).is_empty());
        assert_eq!(state(&core, clock.now(), "bob"), Some(State::Barred));
        assert_eq!(core.claims(None, 10), [(cn("bob"), Claim::Barred)]);
    }
    // Its session has ended in the middle of that.
    core.unregister(clock.now(), &cn("bob")).unwrap();
    census(&mut core, clock.now(), &[]);
    expect(&mut core, clock.now(), "bob", Act::Look, OURS);
    expect(&mut core, clock.now(), "bob", Act::Unset, Outcome::Done);
    assert_eq!(state(&core, clock.now(), "bob"), None);
}

#[test]
fn who_becomes_permanent_while_others_bar_it_is_registered() {
    let (mut core, clock) = start();
    census(&mut core, clock.now(), &["ann", "bob"]);
    let looks = core.next(clock.now(), 10);
    assert!(looks.len() == 2 && looks.iter().all(|task| task.ask_barred));
    core.set_listed(clock.now(), &set(&["ann"]));
    core.register(clock.now(), &cn("bob")).unwrap();
    looks.iter().for_each(|task| core.done(clock.now(), &task.user, Outcome::Barred));
    core.next(clock.now(), 10).iter().for_each(|task| core.done(clock.now(), &task.user, OURS));
    for name in ["ann", "bob"] {
        assert_eq!(state(&core, clock.now(), name), Some(State::Registered));
    }
    assert_eq!(core.claims(None, 10), [(cn("bob"), Claim::Added)], "and nobody else bars ann for us");
}

/// Two daemons, and a user whom mail2 looks after.
fn of_mail2() -> (Core, Clock, String) {
    let (mut core, clock) = start();
    core.set_daemons(clock.now(), &["mail2".to_owned()]);
    let daemons = ["mail1".to_owned(), "mail2".to_owned()];
    let mut names = (0..).map(|number| format!("user{number}"));
    let theirs = names.find(|user| share::owner(user, &daemons) == Some("mail2")).unwrap();
    (core, clock, theirs)
}

#[test]
fn by_hand_at_one_of_several_daemons() {
    let (mut core, mut clock, ann) = of_mail2();
    // Without a session it is ours alone, and taken back it is gone: nobody waits for mail2.
    core.register(clock.now(), &cn(&ann)).unwrap();
    assert_eq!(core.claims(None, 10), [(cn(&ann), Claim::Added)]);
    expect(&mut core, clock.now(), &ann, Act::Look, FOREIGN);
    expect(&mut core, clock.now(), &ann, Act::Set, Outcome::Done);
    core.unregister(clock.now(), &cn(&ann)).unwrap();
    expect(&mut core, clock.now(), &ann, Act::Unset, Outcome::Done);
    assert_eq!(state(&core, clock.now(), &ann), None);
    assert_eq!(core.released().into_iter().collect::<Vec<_>>(), [(cn(&ann), Claim::Added)]);

    // With a session, which is mail2's.
    census(&mut core, clock.now(), &[&ann]);
    core.register(clock.now(), &cn(&ann)).unwrap();
    expect(&mut core, clock.now(), &ann, Act::Look, OURS);
    let refused = core.unregister(clock.now(), &cn(&ann)).unwrap_err();
    assert_eq!(refused, Refusal::Session { user: cn(&ann), daemon: "mail2".to_owned() });
    assert!(core.next(clock.pass(1000.0), 10).is_empty(), "it is left as it is");
    assert_eq!(state(&core, clock.now(), &ann), Some(State::Elsewhere));

    // Its session ends: mail2 may have taken it back, and is not waited for.
    core.register(clock.now(), &cn(&ann)).unwrap();
    expect(&mut core, clock.now(), &ann, Act::Look, OURS);
    let soon = clock.pass(31.0);
    expect(&mut core, soon, &ann, Act::Look, OURS);
    clock.pass(40.0);
    census(&mut core, clock.now(), &[]);
    let now = clock.pass(60.0 + 31.0);
    expect(&mut core, now, &ann, Act::Look, FOREIGN);
    expect(&mut core, now, &ann, Act::Set, Outcome::Done);
}

#[test]
fn whom_another_daemon_registered_by_hand_is_not_taken_back() {
    let (mut core, mut clock) = start();
    census(&mut core, clock.now(), &["bob"]);
    expect(&mut core, clock.now(), "bob", Act::Look, OURS);
    census(&mut core, clock.now(), &[]);
    let now = clock.pass(61.0);
    expect(&mut core, now, "bob", Act::Unset, Outcome::Claimed("mail2".to_owned()));
    assert_eq!(state(&core, now, "bob"), None);
    assert!(core.next(now, 10).is_empty() && core.kept().is_empty());
    assert_eq!(core.tally(), super::Tally::default());
}

#[test]
fn since_when_outlives_a_restart_and_a_look() {
    let (mut core, mut clock) = start();
    core.recall(clock.now(), &cn("bob"), Why::Set, Some(7));
    core.set_listed(clock.now(), &set(&["bob"]));
    let since = |core: &Core, now| core.find(now, &cn("bob")).unwrap().since_us;
    expect(&mut core, clock.now(), "bob", Act::Look, OURS);
    assert_eq!(since(&core, clock.now()), Some(7));
    let later = clock.pass(600.0);
    expect(&mut core, later, "bob", Act::Look, Outcome::Failed("75".to_owned()));
    assert_eq!(core.kept(), [(cn("bob"), Why::Set, Some(7))], "it may still be there");
    let later = clock.pass(600.0);
    expect(&mut core, later, "bob", Act::Look, FOREIGN);
    assert_eq!(since(&core, later), None);
    expect(&mut core, later, "bob", Act::Set, Outcome::Done);
    assert_eq!(since(&core, later), Some(1_000_000));
}
