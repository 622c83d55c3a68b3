//! The registrar: tasks on tokio around the decisions of `core`.

mod file;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use ocbus_resolver::{Census, Cn, Config, MemoryStore, Registration, Resolver};
use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use uuid::Uuid;

use self::file::Kept;
use super::claims::Claims;
use super::core::{Act, Core, Entry, Now, Outcome, Refusal, State, Task};
use super::reach::Request;
use super::settings::RegistrationConfig;
use crate::now_us;

/// Users that are told to the core, or looked up, at once: others wait for it meanwhile.
const AT_ONCE: usize = 2048;
/// Users whose last event waits for its place in the list at most.
const MAX_SEEN: usize = 4096;

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
    /// Last events, for which the core had no time yet.
    seen: Mutex<HashMap<Cn, u64>>,
    /// What all daemons know of each other's users; only where they share a resolver.
    claims: Option<Claims>,
    /// Something is to be done sooner than it was.
    wake: Notify,
    /// A claim may have been given up.
    released: Notify,
    /// Something has come to its end.
    changed: watch::Sender<u64>,
    /// We have had our place among the daemons.
    has_met: AtomicBool,
    file: Mutex<Kept>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
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
        let shares = matches!(sessions, Sessions::Memcached { .. });
        let claims = shares.then(|| Claims::new(&config.group, &config.daemon, resolver.clone()));
        let shared = Arc::new(Shared {
            config: RwLock::new(Arc::new(config)),
            id: Uuid::now_v7(),
            resolver,
            sessions,
            core: Mutex::new(core),
            seen: Mutex::default(),
            claims,
            wake: Notify::new(),
            released: Notify::new(),
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
            tokio::spawn(Arc::clone(&shared).keep_claims()),
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

    /// An event of a user was seen: for the list.
    pub fn saw(&self, cn: &Cn, unix_us: u64) {
        // Whoever takes events does not wait for somebody who lists all users.
        if let Ok(mut core) = self.shared.core.try_lock() {
            core.saw(cn, unix_us);
            return;
        }
        let mut seen = self.shared.seen();
        if let Some(last) = seen.get_mut(cn) {
            *last = unix_us.max(*last);
        } else if seen.len() < MAX_SEEN {
            seen.insert(cn.clone(), unix_us);
        }
    }

    /// What has been done so far, and how it stands.
    pub fn statistics(&self) -> RegistrarStatistics {
        let (counts, tally) = {
            let core = self.shared.core();
            (core.counts(), core.tally())
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
        if let Some(claims) = &shared.claims {
            claims.give_up_at_the_end(&shared.core).await;
        }
    }

    /// Everybody of whom this daemon knows. Of many users it takes long.
    pub fn list(&self) -> Vec<Entry> {
        self.shared.core().list(now())
    }

    /// Makes a user permanent and waits until that is done, has failed, or takes longer than `limit`.
    pub async fn register(&self, cn: &Cn, limit: Duration) -> Result<Option<Entry>, Refusal> {
        let shared = &self.shared;
        shared.core().register(now(), cn)?;
        if let Some(claims) = &shared.claims {
            // First the others must know. Where they cannot be told now, they are later.
            claims.tell_of(&shared.core, cn).await;
        }
        shared.wake.notify_one();
        let settled = |entry: Option<&Entry>| {
            entry.is_some_and(|entry| matches!(entry.state, State::Registered | State::Failed))
        };
        Ok(self.settle(cn, limit, settled).await)
    }

    /// Takes a user's registration back, likewise. `None`: it is gone.
    pub async fn unregister(&self, cn: &Cn, limit: Duration) -> Result<Option<Entry>, Refusal> {
        let shared = &self.shared;
        let mut kept_by = None;
        if let Some(claims) = &shared.claims {
            // Who has a session only since the last census, or was missed by it, has one.
            if shared.has_session(cn).await {
                shared.core().came(now(), [cn]);
            }
            kept_by = claims.added_elsewhere(cn).await.unwrap_or_default();
        }
        if let Some(daemon) = kept_by {
            shared.core().disclaim(now(), cn);
            shared.released.notify_one();
            return Err(Refusal::Elsewhere { user: cn.clone(), daemon });
        }
        let unregistered = shared.core().unregister(now(), cn);
        shared.released.notify_one();
        unregistered?;
        if let Some(claims) = &shared.claims {
            claims.tell_of(&shared.core, cn).await;
        }
        shared.wake.notify_one();
        let settled = |entry: Option<&Entry>| {
            entry.is_none_or(|entry| {
                matches!(entry.state, State::Barred | State::Elsewhere) || entry.fault.is_some()
            })
        };
        match self.settle(cn, limit, settled).await {
            // It is taken back here, and a session has begun meanwhile.
            Some(Entry { state: State::Elsewhere, daemon, .. }) => {
                Err(Refusal::Session { user: cn.clone(), daemon })
            }
            entry => Ok(entry),
        }
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
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        for (cn, unix_us) in std::mem::take(&mut *self.seen()) {
            core.saw(&cn, unix_us);
        }
        core
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<Cn, u64>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a user is registered with the resolver right now. When that cannot be asked, no.
    async fn has_session(&self, cn: &Cn) -> bool {
        self.resolver.lookup(cn).await.is_ok_and(|listeners| !listeners.is_empty())
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
        // What other daemons claim is left as it is.
        let mut outcomes = match &self.claims {
            Some(claims) => claims.objections(batch).await,
            None => vec![None; batch.len()],
        };
        let open = |(task, outcome): (&Task, &Option<Outcome>)| outcome.is_none().then(|| request(task));
        let requests: Vec<Request> = batch.iter().zip(&outcomes).filter_map(open).collect();
        let mut ran = match requests.is_empty() {
            true => Vec::new(),
            false => config.mailboxes.run(&requests).await,
        }
        .into_iter();
        let missing = || Outcome::Failed("internal error".to_owned());
        outcomes
            .iter_mut()
            .map(|outcome| outcome.take().unwrap_or_else(|| ran.next().unwrap_or_else(missing)))
            .collect()
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
            let present = self.settle_sessions(present, failure.is_none()).await;
            self.core().sessions(now(), &present, failure.is_none());
            self.wake.notify_one();
            self.released.notify_one();
            sleep_until(begun + self.config().sessions).await;
        }
    }

    /// Who of a census has a session: they, and those that it missed and a look-up finds, or cannot be made for.
    async fn settle_sessions(&self, mut present: HashSet<Cn>, complete: bool) -> HashSet<Cn> {
        let all: Vec<&Cn> = present.iter().collect();
        for some in all.chunks(AT_ONCE) {
            self.core().came(now(), some.iter().copied());
            tokio::task::yield_now().await;
        }
        if complete && self.claims.is_some() {
            let missing = self.core().missing(&present);
            for some in missing.chunks(AT_ONCE) {
                let found = self.resolver.lookup_many(some).await;
                for (cn, listeners) in some.iter().zip(found) {
                    if listeners.is_ok_and(|listeners| listeners.is_empty()) {
                        continue;
                    }
                    self.core().came(now(), [cn]);
                    present.insert(cn.clone());
                }
            }
        }
        present
    }

    /// Tells other daemons what was done by hand here, again and again: a memcached forgets.
    async fn keep_claims(self: Arc<Shared>) {
        let Some(claims) = &self.claims else { return };
        let mut told = None;
        loop {
            let next = claims.tell_all(&self.core, &mut told, &self.released).await;
            loop {
                claims.give_up_released(&self.core).await;
                tokio::select! {
                    () = sleep_until(next) => break,
                    () = self.released.notified() => {}
                }
            }
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
