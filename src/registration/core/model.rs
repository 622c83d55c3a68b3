//! The core against a model of Dovecot: whatever came and went, when all works again the two agree.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bolero::TypeGenerator;
use ocbus_resolver::Cn;

use super::{Act, Core, Now, Outcome, Pace, Tally, Task};

const PACE: Pace = Pace {
    reconcile: Duration::from_secs(100),
    reconcile_per_s: 5,
    grace: Duration::from_secs(20),
    retry: Duration::from_secs(2),
};

/// What may happen. Users and daemons are few, so that it happens to the same ones.
#[derive(Debug, Clone, TypeGenerator)]
enum Happening {
    Sessions(u8, bool),
    Told(u8, bool),
    Listed(u8),
    Register(u8),
    Unregister(u8),
    Daemons(u8),
    /// Dovecot loses a user's key.
    Lost(u8),
    /// Somebody else sets it.
    Foreign(u8),
    /// Tasks begin, up to so many.
    Begin(u8),
    /// One of them ends, in this way.
    End(u8, Fate),
    /// Seconds pass.
    Pass(u8),
}

#[derive(Debug, Clone, Copy, TypeGenerator)]
enum Fate {
    Well,
    /// It was done, and the answer got lost.
    DoneAndFailed,
    Failed,
    Away,
    /// What claims say, where they are asked: nobody knows, or another daemon has it by hand, set or unset.
    Unasked,
    ByHand,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Ours,
    Foreign,
}

fn user(number: u8) -> Cn {
    Cn::new(&format!("user{}", number % 8)).unwrap()
}

fn users(bits: u8) -> HashSet<Cn> {
    (0..8).filter(|bit| bits >> bit & 1 == 1).map(user).collect()
}

struct World {
    core: Core,
    dovecot: HashMap<Cn, Value>,
    under_way: Vec<Task>,
    now: Now,
}

impl World {
    fn new() -> World {
        let now = Now { at: Instant::now(), unix_us: 0 };
        World { core: Core::new("mail0", PACE), dovecot: HashMap::new(), under_way: Vec::new(), now }
    }

    fn happen(&mut self, happening: &Happening) {
        let (core, now) = (&mut self.core, self.now);
        match happening {
            Happening::Sessions(bits, complete) => {
                core.came(now, &users(*bits));
                core.sessions(now, &users(*bits), *complete);
            }
            Happening::Told(number, present) => core.session(now, &user(*number), *present),
            Happening::Listed(bits) => core.set_listed(now, &users(*bits)),
            Happening::Register(number) => core.register(now, &user(*number)).unwrap(),
            Happening::Unregister(number) => drop(core.unregister(now, &user(*number))),
            Happening::Daemons(bits) => {
                let daemons: Vec<String> =
                    (0..4).filter(|bit| bits >> bit & 1 == 1).map(|bit| format!("mail{bit}")).collect();
                core.set_daemons(now, &daemons);
            }
            Happening::Lost(number) => drop(self.dovecot.remove(&user(*number))),
            Happening::Foreign(number) => drop(self.dovecot.insert(user(*number), Value::Foreign)),
            Happening::Begin(count) => self.begin(usize::from(*count)),
            Happening::End(which, fate) => {
                if !self.under_way.is_empty() {
                    let task = self.under_way.remove(usize::from(*which) % self.under_way.len());
                    self.end(&task, *fate);
                }
            }
            Happening::Pass(seconds) => self.now.at += Duration::from_secs(u64::from(*seconds)),
        }
    }

    /// What is counted as it goes is what there is.
    fn count(&self) {
        let mut counted = Tally::default();
        for entry in self.core.list(self.now) {
            counted.add(Some((entry.state, entry.permanent)));
        }
        assert_eq!(self.core.tally(), counted);
    }

    fn begin(&mut self, max: usize) {
        for task in self.core.next(self.now, max) {
            assert!(
                !self.under_way.iter().any(|other| other.user == task.user),
                "two tasks of one user at once"
            );
            self.under_way.push(task);
        }
    }

    fn end(&mut self, task: &Task, fate: Fate) {
        let found = self.dovecot.get(&task.user).copied();
        if let Some(outcome) = self.objection(task, fate) {
            return self.core.done(self.now, &task.user, outcome);
        }
        // Where claims are not asked it goes well.
        if !matches!(fate, Fate::Failed | Fate::Away) {
            match task.act {
                Act::Look => {}
                Act::Set => drop(self.dovecot.insert(task.user.clone(), Value::Ours)),
                Act::Unset => drop(self.dovecot.remove(&task.user)),
            }
        }
        let outcome = match (fate, task.act) {
            (Fate::Well | Fate::Unasked | Fate::ByHand, Act::Look) => {
                Outcome::Found { ours: found == Some(Value::Ours) }
            }
            (Fate::Well | Fate::Unasked | Fate::ByHand, _) => Outcome::Done,
            (Fate::DoneAndFailed | Fate::Failed, _) => Outcome::Failed("failed".to_owned()),
            (Fate::Away, _) => Outcome::Away("away".to_owned()),
        };
        self.core.done(self.now, &task.user, outcome);
    }

    /// The outcome of a task that is not done.
    fn objection(&mut self, task: &Task, fate: Fate) -> Option<Outcome> {
        match (fate, task.act) {
            (Fate::Unasked, Act::Unset) => Some(Outcome::Unasked("unasked".to_owned())),
            (Fate::ByHand, Act::Unset) => {
                // From here on it is that daemon's.
                self.dovecot.insert(task.user.clone(), Value::Foreign);
                Some(Outcome::Claimed("mail9".to_owned()))
            }
            (Fate::ByHand, Act::Look) if task.ask_barred => Some(Outcome::Barred),
            _ => None,
        }
    }

    /// Everything works from here on, for this long.
    fn heal(&mut self, time: Duration) {
        let end = self.now.at + time;
        loop {
            for task in std::mem::take(&mut self.under_way) {
                self.end(&task, Fate::Well);
            }
            self.begin(usize::MAX);
            if !self.under_way.is_empty() {
                continue;
            }
            match self.core.wake_at().filter(|at| *at <= end) {
                Some(at) => {
                    assert!(at > self.now.at, "awake for nothing");
                    self.now.at = at;
                }
                None => break,
            }
        }
        self.now.at = end;
    }
}

#[test]
fn whatever_happened_in_the_end_dovecot_has_what_is_wanted() {
    bolero::check!().with_type::<Vec<Happening>>().for_each(|happenings| {
        let mut world = World::new();
        for happening in happenings {
            world.happen(happening);
            // A grace period that ends is noticed when the core is next asked what to do.
            if !happenings.iter().any(|happening| matches!(happening, Happening::Pass(_))) {
                world.count();
            }
        }
        // From here on nobody else is there, the sessions stay as they are, and the listed as well.
        world.core.set_daemons(world.now, &[]);
        let sessions: HashSet<Cn> = world
            .core
            .list(world.now)
            .iter()
            .filter(|e| e.session)
            .map(|e| Cn::new(&e.user).unwrap())
            .collect();
        world.core.sessions(world.now, &sessions, true);
        world.heal(PACE.grace + PACE.reconcile * 2 + Duration::from_secs(300));
        world.count();
        let wanted: HashSet<Cn> = world
            .core
            .list(world.now)
            .iter()
            .filter(|entry| entry.state != super::State::Barred)
            .map(|entry| Cn::new(&entry.user).unwrap())
            .collect();
        for entry in world.core.list(world.now) {
            assert!(entry.permanent || entry.session, "{entry:?}");
        }
        for number in 0..8 {
            let user = user(number);
            let found = world.dovecot.get(&user);
            match wanted.contains(&user) {
                true => assert_eq!(found, Some(&Value::Ours), "{user}"),
                false => assert_ne!(found, Some(&Value::Ours), "{user} was left behind"),
            }
        }
    });
}
