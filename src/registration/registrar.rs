//! The registrar: tasks on tokio around the decisions of `core`.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use ocbus_resolver::{Census, Cn, Config, MemoryStore, Registration, Resolver};
use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use uuid::Uuid;

use super::core::{Act, Core, Entry, Now, Outcome, Refusal, State, Task};
use super::keep;
use super::reach::Request;
use super::settings::RegistrationConfig;
use crate::now_us;

/// How often the file of users is written at most.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// Where users with sessions are found.
#[derive(Debug, Clone)]
pub enum Sessions {
    /// In memcached: all who are registered there. The limit is for each step of the enumeration.
    Memcached {
        /// The servers.
        config: Box<Config>,
        /// The limit.
        limit: Duration,
    },
    /// In this process's own store.
    Memory(MemoryStore),
    /// Nowhere: only those of whom [`Registrar::session`] tells.
    Told,
}

/// Keeps users registered with Dovecot. Clones are the same.
#[derive(Debug, Clone)]
pub struct Registrar {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// As the settings have it now. What makes up this daemon's place among the others does not change.
    config: RwLock<Arc<RegistrationConfig>>,
    /// This process, among those that ever had the same name.
    id: Uuid,
    resolver: Resolver,
    sessions: Sessions,
    core: Mutex<Core>,
    /// Something is to be done sooner than it was.
    wake: Notify,
    /// Something has come to its end.
    changed: watch::Sender<u64>,
    /// We have had our place among the daemons.
    has_met: AtomicBool,
    file: Mutex<Kept>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// How it stands with the file of users. Held while it is read or written, so that the last writer has the last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// What is in it is not known yet, and must not be lost.
    Unread,
    /// It could not be read; that has been said.
    Unreadable,
    /// It is ours. With the generation that was written last; `None`: that one is not, and that has been said.
    Ours(Option<u64>),
}

/// What the registrar has done since it started, and how it stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistrarStatistics {
    /// Users of whom it knows.
    pub users: u64,
    /// Those that are registered by this daemon.
    pub registered: u64,
    /// Those that this daemon could not register.
    pub failing: u64,
    /// Those that another daemon looks after.
    pub elsewhere: u64,
    /// Of those registered by this daemon, the permanent ones.
    pub permanent: u64,
    /// Registrations made.
    pub set: u64,
    /// Registrations taken back.
    pub unset: u64,
    /// Registrations that were as they should be when they were looked at.
    pub kept: u64,
    /// Registrations that were gone, or another's, when they were looked at.
    pub lost: u64,
    /// Attempts for users whom Dovecot does not know.
    pub unknown: u64,
    /// Attempts that failed for one user.
    pub failed: u64,
    /// Times that Dovecot went away.
    pub outages: u64,
    /// Users beyond what is kept.
    pub refused: u64,
    /// Dovecot's servers, by the settings.
    pub endpoints: u64,
    /// Those of them that failed and have not answered since.
    pub endpoints_aside: u64,
}

impl Registrar {
    /// Begins. A Dovecot or a resolver that does not answer is no error: it goes on when they do.
    pub async fn start(config: RegistrationConfig, resolver: Resolver, sessions: Sessions) -> Registrar {
        let mut core = Core::new(&config.daemon, config.pace);
        let now = now();
        core.set_listed(now, &config.listed);
        let shared = Arc::new(Shared {
            config: RwLock::new(Arc::new(config)),
            id: Uuid::now_v7(),
            resolver,
            sessions,
            core: Mutex::new(core),
            wake: Notify::new(),
            changed: watch::Sender::new(0),
            has_met: AtomicBool::new(false),
            file: Mutex::new(Kept::Unread),
            tasks: Mutex::new(Vec::new()),
        });
        shared.turn_file().await;
        // Whose users are ours is known before the first of them is touched.
        let mut lonely = None;
        shared.meet(&mut lonely).await;
        let tasks = vec![
            tokio::spawn(Arc::clone(&shared).work()),
            tokio::spawn(Arc::clone(&shared).enumerate()),
            tokio::spawn(Arc::clone(&shared).keep_meeting(lonely)),
            tokio::spawn(Arc::clone(&shared).keep_file()),
        ];
        *shared.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
        Registrar { shared }
    }

    /// The name of this daemon among the others.
    pub fn daemon(&self) -> String {
        self.shared.config().daemon.clone()
    }

    /// A session came or went of which the resolver does not know.
    pub fn session(&self, cn: &Cn, present: bool) {
        self.shared.core().session(now(), cn, present);
        self.shared.wake.notify_one();
    }

    /// Goes on by other settings: other servers, secrets, limits and permanent users. What failed by the former ones is
    /// tried again at once. Of `daemon`, `group`, `lease`, `state_file`, `value` and `login` the former ones hold.
    pub fn renew(&self, config: RegistrationConfig) {
        let shared = &self.shared;
        let mut held = shared.config.write().unwrap_or_else(PoisonError::into_inner);
        let config = Arc::new(config.in_place_of(&held));
        *held = Arc::clone(&config);
        drop(held);
        let mut core = shared.core();
        core.renew(now(), config.pace);
        core.set_listed(now(), &config.listed);
        drop(core);
        shared.wake.notify_one();
    }

    /// An event of a user was seen: for the list. It is passed over when the list is just being made.
    pub fn saw(&self, cn: &Cn, unix_us: u64) {
        // Whoever takes events does not wait for somebody who lists all users.
        if let Ok(mut core) = self.shared.core.try_lock() {
            core.saw(cn, unix_us);
        }
    }

    /// What has been done so far, and how it stands.
    pub fn statistics(&self) -> RegistrarStatistics {
        let (counts, tally) = {
            let core = self.shared.core();
            (core.counts(), core.tally(now()))
        };
        let (endpoints, endpoints_aside) = self.shared.config().mailboxes.aside();
        RegistrarStatistics {
            users: tally.users,
            registered: tally.registered,
            failing: tally.failing,
            elsewhere: tally.elsewhere,
            permanent: tally.permanent,
            set: counts.set,
            unset: counts.unset,
            kept: counts.kept,
            lost: counts.lost,
            unknown: counts.unknown,
            failed: counts.failed,
            outages: counts.outages,
            refused: counts.refused,
            endpoints,
            endpoints_aside,
        }
    }

    /// Ends: others may take its users over at once. Registrations stay as they are. The file is written first:
    /// whoever gives up waiting for the resolver has lost nothing.
    pub async fn stop(&self) {
        let shared = &self.shared;
        let tasks = std::mem::take(&mut *shared.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
        shared.turn_file().await;
        let config = shared.config();
        if let Err(error) = shared.resolver.resign(&config.group, &config.daemon, shared.id).await {
            tracing::warn!(event = "resign_failed", reason = %error, "others wait until the lease is over");
        }
    }

    /// Everybody of whom this daemon knows.
    pub fn list(&self) -> Vec<Entry> {
        self.shared.core().list(now())
    }

    /// Makes a user permanent and waits until that is done, has failed, or takes longer than `limit`.
    pub async fn register(&self, cn: &Cn, limit: Duration) -> Result<Option<Entry>, Refusal> {
        self.shared.core().register(now(), cn)?;
        self.shared.wake.notify_one();
        let settled = |entry: Option<&Entry>| {
            entry.is_some_and(|entry| matches!(entry.state, State::Registered | State::Failed))
        };
        Ok(self.settle(cn, limit, settled).await)
    }

    /// Takes a user's registration back, likewise. `None`: it is gone.
    pub async fn unregister(&self, cn: &Cn, limit: Duration) -> Result<Option<Entry>, Refusal> {
        self.shared.core().unregister(now(), cn)?;
        self.shared.wake.notify_one();
        let settled = |entry: Option<&Entry>| {
            entry.is_none_or(|entry| entry.state == State::Barred || entry.fault.is_some())
        };
        Ok(self.settle(cn, limit, settled).await)
    }

    async fn settle(
        &self,
        cn: &Cn,
        limit: Duration,
        settled: impl Fn(Option<&Entry>) -> bool,
    ) -> Option<Entry> {
        let mut changed = self.shared.changed.subscribe();
        let deadline = Instant::now() + limit;
        loop {
            changed.borrow_and_update();
            let entry = self.shared.core().find(now(), cn);
            if settled(entry.as_ref()) {
                return entry;
            }
            tokio::select! {
                Ok(()) = changed.changed() => {}
                () = sleep_until(deadline) => return entry,
            }
        }
    }
}

impl Shared {
    fn config(&self) -> Arc<RegistrationConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        // The core is asked again and again: what one panic left undone is seen by the next look.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries tasks to Dovecot and outcomes back, so many at once.
    async fn work(self: Arc<Shared>) {
        let mut under_way = 0;
        let mut batches = JoinSet::new();
        let mut users: HashMap<Id, Vec<Cn>> = HashMap::new();
        loop {
            let config = self.config();
            let most = config.pool_size * config.batch;
            let (tasks, wake_at) = {
                let mut core = self.core();
                let tasks = core.next(now(), most.saturating_sub(under_way));
                (tasks, core.wake_at().filter(|_| under_way < most))
            };
            for batch in in_batches(tasks, config.batch) {
                under_way += batch.len();
                let names = batch.iter().map(|task| task.user.clone()).collect();
                let shared = Arc::clone(&self);
                let handle = batches.spawn(async move { shared.carry(&batch).await });
                users.insert(handle.id(), names);
            }
            let woken = async {
                match wake_at {
                    Some(at) if under_way < most => sleep_until(at.into()).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(ended) = batches.join_next_with_id() => {
                    let (id, outcomes) = match ended {
                        Ok((id, outcomes)) => (id, outcomes),
                        Err(error) => (error.id(), Vec::new()),
                    };
                    let names = users.remove(&id).unwrap_or_default();
                    under_way -= names.len();
                    let mut outcomes = outcomes.into_iter();
                    let mut core = self.core();
                    for name in names {
                        let panicked = || Outcome::Failed("internal error".to_owned());
                        core.done(now(), &name, outcomes.next().unwrap_or_else(panicked));
                    }
                    drop(core);
                    self.changed.send_modify(|count| *count = count.wrapping_add(1));
                }
                () = self.wake.notified() => {}
                () = woken => {}
            }
        }
    }

    async fn carry(&self, batch: &[Task]) -> Vec<Outcome> {
        let config = self.config();
        let request = |task: &Task| Request {
            login: config.login.of(&task.user),
            value: config.value.of(&task.user),
            act: task.act,
        };
        let requests: Vec<Request> = batch.iter().map(request).collect();
        config.mailboxes.run(&requests).await
    }

    /// Asks the resolver who has a session, again and again.
    async fn enumerate(self: Arc<Shared>) {
        let mut complained = false;
        loop {
            let begun = Instant::now();
            let (present, failure) = match &self.sessions {
                Sessions::Told => return,
                Sessions::Memory(store) => (store.registered().into_iter().collect(), None),
                Sessions::Memcached { config, limit } => census(config, *limit).await,
            };
            if let Some(why) = &failure
                && !complained
            {
                tracing::warn!(event = "census_failed", reason = %why, "no session ends until it works again");
            }
            complained = failure.is_some();
            self.core().sessions(now(), &present, failure.is_none());
            self.wake.notify_one();
            sleep_until(begun + self.config().sessions).await;
        }
    }

    /// Says that we live, and sees who else does; three times in a lease.
    async fn keep_meeting(self: Arc<Shared>, mut lonely: Option<Instant>) {
        let mut ticks = interval(self.config().lease / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.meet(&mut lonely).await;
        }
    }

    /// One meeting. `lonely`: since when the others cannot be seen. After a lease all users are ours: better two
    /// daemons for a user than none.
    async fn meet(&self, lonely: &mut Option<Instant>) {
        let config = self.config();
        let RegistrationConfig { group, daemon, lease, .. } = &*config;
        let registration =
            Registration { endpoint: daemon, legacy: None, subscriber: self.id, lease: *lease };
        let meeting = async {
            let joined = self.resolver.join(group, registration).await?;
            Ok::<_, ocbus_resolver::ResolverError>((joined, self.resolver.members(group).await?))
        };
        let met = timeout(*lease, meeting).await;
        let error = match met {
            Ok(Ok((joined, members))) => {
                if lonely.take().is_some() {
                    tracing::info!(event = "daemons_seen", "the resolver answers again");
                } else if joined.new && self.has_met.swap(true, Ordering::AcqRel) {
                    tracing::warn!(
                        event = "daemon_replaced",
                        daemon,
                        "our place was another's or gone: expected a name of its own for each daemon"
                    );
                }
                self.has_met.store(true, Ordering::Release);
                let names: Vec<String> = members.into_iter().map(|lease| lease.endpoint).collect();
                self.core().set_daemons(now(), &names);
                self.wake.notify_one();
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", lease.as_secs()),
        };
        let now = Instant::now();
        let since = *lonely.get_or_insert_with(|| {
            tracing::warn!(event = "daemons_unseen", reason = %error, "other daemons cannot be seen");
            now
        });
        if now.duration_since(since) >= *lease {
            self.core().set_daemons(self::now(), &[]);
            self.wake.notify_one();
        }
    }

    async fn keep_file(self: Arc<Shared>) {
        if self.config().state_file.is_none() {
            return;
        }
        let mut ticks = interval(KEEP_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.turn_file().await;
        }
    }

    /// Reads the file if that has not worked yet, else writes it if something has changed.
    async fn turn_file(self: &Arc<Shared>) {
        if self.config().state_file.is_none() {
            return;
        }
        let shared = Arc::clone(self);
        // A disk may be slow. A panic in it leaves things as they were.
        let _ = tokio::task::spawn_blocking(move || {
            let config = shared.config();
            let Some(path) = &config.state_file else { return };
            let mut file = shared.file.lock().unwrap_or_else(PoisonError::into_inner);
            *file = match *file {
                Kept::Unread | Kept::Unreadable => shared.read_file(path, *file),
                Kept::Ours(written) => shared.write_file(path, written),
            };
        })
        .await;
    }

    fn read_file(&self, path: &Path, was: Kept) -> Kept {
        let shown = path.display();
        match keep::read(path) {
            Ok(kept) => {
                if kept.odd > 0 {
                    let lines = kept.odd;
                    tracing::warn!(event = "users_odd", path = %shown, lines, "lines that name nobody are dropped");
                }
                if was == Kept::Unreadable {
                    tracing::info!(event = "users_recalled", path = %shown, users = kept.users.len(), "readable again");
                }
                let mut core = self.core();
                kept.users.iter().for_each(|(cn, by_hand)| core.recall(now(), cn, *by_hand));
                drop(core);
                self.wake.notify_one();
                Kept::Ours(Some(0))
            }
            Err(error) => {
                if was == Kept::Unread {
                    tracing::error!(event = "users_unreadable", path = %shown, reason = %error,
                        "who was registered by hand is not known; the file is left as it is, and tried again");
                }
                Kept::Unreadable
            }
        }
    }

    fn write_file(&self, path: &Path, written: Option<u64>) -> Kept {
        let (generation, kept) = {
            let core = self.core();
            let generation = core.generation();
            if written == Some(generation) {
                return Kept::Ours(written);
            }
            (generation, core.kept())
        };
        match keep::write(path, &kept) {
            Ok(()) => Kept::Ours(Some(generation)),
            Err(error) => {
                if written.is_some() {
                    let shown = path.display();
                    tracing::warn!(event = "users_unwritable", path = %shown, reason = %error, "not kept; tried again");
                }
                Kept::Ours(None)
            }
        }
    }
}

/// Everybody on every server, and what went wrong with one of them.
async fn census(config: &Config, limit: Duration) -> (HashSet<Cn>, Option<String>) {
    let mut census = Census::new(config, limit);
    let (mut present, mut failure) = (HashSet::new(), None);
    loop {
        match census.next().await {
            Ok(Some(cn)) => drop(present.insert(cn)),
            Ok(None) => return (present, failure),
            Err(error) => failure = Some(error.to_string()),
        }
    }
}

/// Those that may go together, so many at a time; of one kind, as a reader of Dovecot's log expects it.
fn in_batches(tasks: Vec<Task>, most: usize) -> Vec<Vec<Task>> {
    let mut batches: Vec<Vec<Task>> = Vec::new();
    for act in [Act::Set, Act::Unset, Act::Look] {
        let (alone, together): (Vec<Task>, Vec<Task>) =
            tasks.iter().filter(|task| task.act == act).cloned().partition(|task| task.alone);
        batches.extend(alone.into_iter().map(|task| vec![task]));
        batches.extend(together.chunks(most.max(1)).map(<[Task]>::to_vec));
    }
    batches
}

fn now() -> Now {
    Now { at: Instant::now().into_std(), unix_us: now_us() }
}
