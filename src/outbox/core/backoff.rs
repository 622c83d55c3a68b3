//! Endpoints that did not answer, and when each is asked again: for all users alike. A dead one costs one send at a
//! time, not one for each user who has something for it. The others wait, and nothing is made for them; they take turns
//! at asking, so that what is wrong with one user's events holds up nobody else's for long.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use ocbus_resolver::Cn;

use super::Who;

/// An endpoint, whoever it is for: whether it is native, and its URL.
type Address = (bool, String);

#[derive(Debug)]
struct Fault {
    /// Failures in a row.
    attempts: u32,
    /// Nobody asks before.
    retry_at: Instant,
    /// The pause that ended, or ends, then.
    pause: Duration,
    /// Whose send is under way to find out.
    asking: Option<Cn>,
    /// Who has something for it, the one who asks next first; each once.
    waiting: VecDeque<Cn>,
    known: HashSet<Cn>,
}

/// The endpoints that did not answer last.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    faults: HashMap<Address, Fault>,
    /// When to let the next user ask.
    due: BTreeSet<(Instant, Address)>,
}

impl Fault {
    fn wait(&mut self, cn: &Cn) {
        if self.known.insert(cn.clone()) {
            self.waiting.push_back(cn.clone());
        }
    }

    fn next(&mut self) -> Option<Cn> {
        let cn = self.waiting.pop_front()?;
        self.known.remove(&cn);
        Some(cn)
    }
}

impl Backoff {
    /// Whether a user's events may be sent there now. If not, the user is among those that [`Backoff::due`] and
    /// [`Backoff::ended`] give later.
    pub(super) fn may_send(&mut self, who: &Who, cn: &Cn, now: Instant) -> bool {
        if self.faults.is_empty() {
            return true;
        }
        let address = address(who);
        let Some(fault) = self.faults.get_mut(&address) else { return true };
        if fault.asking.is_some() || fault.retry_at > now {
            fault.wait(cn);
            return false;
        }
        fault.asking = Some(cn.clone());
        true
    }

    /// A send failed, and is to be made again. Of those that were under way together one counts.
    pub(super) fn failed(&mut self, who: &Who, cn: &Cn, now: Instant, pause: impl FnOnce(u32) -> Duration) {
        let address = address(who);
        let (known, attempts) = match self.faults.get(&address) {
            Some(fault) => (fault.asking.as_ref() != Some(cn), fault.attempts),
            None => (false, 0),
        };
        if !known {
            let pause = pause(attempts);
            let retry_at = now + pause;
            let fault = self.faults.entry(address.clone()).or_insert_with(|| Fault {
                attempts: 0,
                retry_at,
                pause,
                asking: None,
                waiting: VecDeque::new(),
                known: HashSet::new(),
            });
            (fault.attempts, fault.retry_at, fault.pause) = (attempts.saturating_add(1), retry_at, pause);
            fault.asking = None;
            self.due.insert((retry_at, address.clone()));
        }
        if let Some(fault) = self.faults.get_mut(&address) {
            fault.wait(cn);
        }
    }

    /// A send ended otherwise: whoever waits may go on.
    pub(super) fn ended(&mut self, who: &Who) -> Vec<Cn> {
        if self.faults.is_empty() {
            return Vec::new();
        }
        let fault = self.faults.remove(&address(who));
        fault.map(|fault| fault.waiting.into()).unwrap_or_default()
    }

    /// Who is to ask now, one for each endpoint whose pause is over. If they do not come, because they have nothing for
    /// it any more, it is the next one's turn after the same time. What nobody waits for is forgotten.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Cn> {
        let mut users = Vec::new();
        while let Some((at, address)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, address));
                break;
            }
            // It may have answered since, and failed again.
            let Some(fault) = self.faults.get_mut(&address).filter(|fault| fault.retry_at <= now) else {
                continue;
            };
            if fault.asking.is_some() {
                continue;
            }
            match fault.next() {
                Some(cn) => {
                    users.push(cn);
                    self.due.insert((now + fault.pause, address));
                }
                None => drop(self.faults.remove(&address)),
            }
        }
        users
    }

    /// When somebody is to ask next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// How long nobody asks.
    pub(super) fn pause(&self, who: &Who, now: Instant) -> Duration {
        let fault = self.faults.get(&address(who));
        fault.map_or(Duration::ZERO, |fault| fault.retry_at.saturating_duration_since(now))
    }
}

fn address(who: &Who) -> Address {
    (who.is_native(), who.url().to_owned())
}
