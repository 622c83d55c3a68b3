//! What was done by hand at one daemon, and all must know: whom another registered is not taken back, and whom another
//! unregistered is not registered again when it changes hands.
//!
//! A claim is a lease in a record of the shared resolver, one record for each such user:
//! `ocbus-daemons:<group>/<user>`, of which the members are `added:<daemon>` and `barred`. Whoever made the claim
//! renews it; it is read before a registration is taken back, and when a user comes to a daemon.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ocbus_resolver::{Cn, Registration, Resolver, ResolverError};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::core::{Act, Claim, Core, Outcome, Task};

/// How long a daemon may be away until others take back what was registered there by hand: they do so when the
/// user's session ends.
const ADDED_LEASE: Duration = Duration::from_secs(24 * 3600);
/// How long the end of a session may go unseen by all daemons: behind that the next session counts again.
const BARRED_LEASE: Duration = Duration::from_secs(600);
/// Between two renewals of all claims, and between two users of one: 100,000 are through well within a lease.
const RENEW_EVERY: Duration = Duration::from_secs(60);
const SPACING: Duration = Duration::from_millis(1);
/// How long a daemon that ends goes on giving up.
const LAST: Duration = Duration::from_secs(2);
/// Claims that are fetched from the core at once.
const AT_ONCE: usize = 256;

/// Anybody may give up what anybody claimed: the name says it all.
const HOLDER: Uuid = Uuid::from_u128(0x3f0b_9c1e_7a52_4d0c_8e41_c6b0_55d2_1f97);
const ADDED: &str = "added:";
const BARRED: &str = "barred";

/// The claims of a group of daemons.
#[derive(Debug)]
pub(super) struct Claims {
    group: Cn,
    /// The name of this daemon.
    daemon: String,
    resolver: Resolver,
}

impl Claims {
    pub(super) fn new(group: &Cn, daemon: &str, resolver: Resolver) -> Claims {
        Claims { group: group.clone(), daemon: daemon.to_owned(), resolver }
    }

    /// The record of a user. `None`: its name is too long for one, and so there are no claims to it.
    fn record(&self, cn: &Cn) -> Option<Cn> {
        let record = Cn::new(&format!("{}/{cn}", self.group)).ok()?;
        (record.as_str().len() <= self.resolver.longest_group()).then_some(record)
    }

    fn member(&self, claim: Claim) -> String {
        match claim {
            Claim::Added => format!("{ADDED}{}", self.daemon),
            Claim::Barred => BARRED.to_owned(),
        }
    }

    /// Everything that is claimed of a user.
    async fn of(&self, cn: &Cn) -> Result<Vec<String>, ResolverError> {
        let Some(record) = self.record(cn) else { return Ok(Vec::new()) };
        Ok(self.resolver.members(&record).await?.into_iter().map(|lease| lease.endpoint).collect())
    }

    /// The daemon, other than this, that has a user registered by hand.
    pub(super) async fn added_elsewhere(&self, cn: &Cn) -> Result<Option<String>, ResolverError> {
        Ok(self.of(cn).await?.iter().find_map(|member| self.another(member)))
    }

    fn another(&self, member: &str) -> Option<String> {
        member.strip_prefix(ADDED).filter(|daemon| *daemon != self.daemon).map(str::to_owned)
    }

    /// What stands against tasks: for each the outcome that it has without being done, if it is not to be done.
    pub(super) async fn objections(&self, batch: &[Task]) -> Vec<Option<Outcome>> {
        let mut objections = Vec::with_capacity(batch.len());
        let mut outage: Option<String> = None;
        for task in batch {
            if task.act != Act::Unset && !task.ask_barred {
                objections.push(None);
                continue;
            }
            let found = match &outage {
                // The others would each wait as long.
                Some(why) => Err(why.clone()),
                // Another server's users, or this record alone: the others are asked for all the same.
                None => self.of(&task.user).await.map_err(|error| {
                    outage = error.is_outage().then(|| error.to_string());
                    error.to_string()
                }),
            };
            objections.push(match found {
                Ok(members) if task.act == Act::Unset => {
                    members.iter().find_map(|member| self.another(member)).map(Outcome::Claimed)
                }
                Ok(members) => members.iter().any(|member| member == BARRED).then_some(Outcome::Barred),
                // Better a registration too many than one too few.
                Err(why) => (task.act == Act::Unset).then_some(Outcome::Unasked(why)),
            });
        }
        objections
    }

    /// Tells of one user what the core has to say.
    pub(super) async fn tell_of(&self, core: &Mutex<Core>, cn: &Cn) {
        if let Some(claim) = claimed(core, cn)
            && let Err(error) = self.tell(cn, claim).await
        {
            tracing::warn!(event = "claim_failed", user = %cn, reason = %error, "other daemons are told later");
        }
    }

    async fn tell(&self, cn: &Cn, claim: Claim) -> Result<(), ResolverError> {
        let Some(record) = self.record(cn) else { return Ok(()) };
        let lease = match claim {
            Claim::Added => ADDED_LEASE,
            Claim::Barred => BARRED_LEASE,
        };
        let endpoint = &self.member(claim);
        let registration = Registration { endpoint, legacy: None, subscriber: HOLDER, lease };
        self.resolver.join(&record, registration).await.map(drop)
    }

    /// Tells of everybody, slowly, and says when to do so again; gives up what is `released` meanwhile. Where one server
    /// is out of reach, or one record cannot be written, the others are told all the same; an outage of all of them ends
    /// it, and the next call begins behind `told`, who was told last.
    pub(super) async fn tell_all(
        &self,
        core: &Mutex<Core>,
        told: &mut Option<Cn>,
        released: &Notify,
    ) -> Instant {
        let (mut failed, mut reason) = (0u64, None);
        loop {
            let claims = lock(core).claims(told.as_ref(), AT_ONCE);
            if claims.is_empty() {
                break;
            }
            for (cn, claim) in claims {
                // It may have been given up since.
                if claimed(core, &cn) != Some(claim) {
                    continue;
                }
                if let Err(error) = self.tell(&cn, claim).await {
                    if error.is_outage() {
                        tracing::debug!(event = "claim_failed", user = %cn, reason = %error, "told again later");
                        return Instant::now() + RENEW_EVERY / 12;
                    }
                    failed += 1;
                    reason.get_or_insert(error);
                }
                *told = Some(cn);
                tokio::select! {
                    () = released.notified() => self.give_up_released(core).await,
                    () = sleep(SPACING) => {}
                }
            }
        }
        *told = None;
        if let Some(reason) = reason {
            tracing::debug!(event = "claim_failed", users = failed, %reason, "told again later");
        }
        Instant::now() + RENEW_EVERY
    }

    /// Gives up what the core has let go of. What fails, or is not reached when this is dropped, is given up the next
    /// time.
    pub(super) async fn give_up_released(&self, core: &Mutex<Core>) {
        let mut released = Released::take(core);
        for (cn, claim) in released.left.clone() {
            // It may have been made anew since.
            let claimed = claimed(core, &cn) == Some(claim);
            if let Some(record) = self.record(&cn).filter(|_| !claimed)
                && let Err(error) = self.resolver.resign(&record, &self.member(claim), HOLDER).await
            {
                if error.is_outage() {
                    return;
                }
                continue;
            }
            released.left.remove(&(cn, claim));
        }
    }

    /// The same once more, for a daemon that ends: nobody would do so later, and others would leave a user registered
    /// for it until its lease is over.
    pub(super) async fn give_up_at_the_end(&self, core: &Mutex<Core>) {
        let _ = timeout(LAST, self.give_up_released(core)).await;
        let left = lock(core).released();
        if let Some((cn, _)) = left.first() {
            tracing::warn!(
                event = "claims_left",
                users = left.len(),
                user = %cn,
                "what was given up stands until its lease is over: a day, or until the session ends"
            );
        }
    }
}

/// Claims that are to be given up. What is left goes back to the core.
struct Released<'c> {
    core: &'c Mutex<Core>,
    left: BTreeSet<(Cn, Claim)>,
}

impl Released<'_> {
    fn take(core: &Mutex<Core>) -> Released<'_> {
        Released { core, left: lock(core).released() }
    }
}

impl Drop for Released<'_> {
    fn drop(&mut self) {
        if self.left.is_empty() {
            return;
        }
        let mut core = lock(self.core);
        for (cn, claim) in std::mem::take(&mut self.left) {
            core.release(cn, claim);
        }
    }
}

fn claimed(core: &Mutex<Core>, cn: &Cn) -> Option<Claim> {
    lock(core).claim_to(cn)
}

fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
