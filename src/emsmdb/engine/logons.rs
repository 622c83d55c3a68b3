//! Several mailboxes in one session (RopLogon): the user's own, shared ones, public folders. Each logon has a number in its
//! session, which stands in every RopNotify; handles belong to the logon in which they were opened. There is one queue and
//! one wait for all.

use std::time::Duration;

use ocbus_resolver::Cn;
use uuid::Uuid;

use super::folders::Folders;
use super::session::Session;
use super::{Engine, UnknownSession, User, UserChange};

/// Logons of a session beside its first.
pub const MAX_LOGONS: usize = 64;

/// Why a logon is not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogonError {
    /// No such session: never opened, closed or expired.
    #[error(transparent)]
    Session(#[from] UnknownSession),
    /// There are subscriptions or tables of a logon of this number already.
    #[error(
        "logon {logon_id} is in use: expected ocbus to be told of a logon before its subscriptions and tables"
    )]
    InUse {
        /// The number.
        logon_id: u8,
    },
    /// The session has as many as allowed.
    #[error("the session has {MAX_LOGONS} other mailboxes: expected no more")]
    TooMany,
}

/// Whose mailbox a logon shows, in a session that has these.
pub(super) fn cn_of<'a>(own: &'a Cn, logons: &'a [(u8, Cn)], logon_id: u8) -> &'a Cn {
    logons.iter().find(|(of, _)| *of == logon_id).map_or(own, |(_, cn)| cn)
}

impl Session {
    /// Whose mailbox a logon shows.
    pub(super) fn cn_of(&self, logon_id: u8) -> &Cn {
        cn_of(&self.cn, &self.logons, logon_id)
    }

    /// Every mailbox that it shows, its own first; each once.
    pub(super) fn cns(&self) -> Vec<Cn> {
        let mut cns = vec![self.cn.clone()];
        for (_, cn) in &self.logons {
            if !cns.contains(cn) {
                cns.push(cn.clone());
            }
        }
        cns
    }

    fn has_handles_of(&self, logon_id: u8) -> bool {
        self.subscriptions.iter().any(|subscription| subscription.logon_id == logon_id)
            || self.tables.iter().any(|open| open.table.logon_id == logon_id)
    }
}

impl Engine {
    /// A client has logged on to another mailbox in its session (RopLogon): what is opened with this number from now on
    /// is told of that user's events. Numbers that were not told of here are logons to the session's own mailbox.
    ///
    /// To be called before anything is opened in it. A number that is used again is another logon.
    pub fn logon(&mut self, session: Uuid, logon_id: u8, cn: Cn, now: Duration) -> Result<(), LogonError> {
        let found = self.sessions.touch(session, now)?;
        if found.cn_of(logon_id) == &cn {
            return Ok(());
        }
        if found.has_handles_of(logon_id) {
            return Err(LogonError::InUse { logon_id });
        }
        let known = found.logons.iter().position(|(of, _)| *of == logon_id);
        if known.is_none() && found.logons.len() >= MAX_LOGONS {
            return Err(LogonError::TooMany);
        }
        let before = found.cns();
        if let Some(at) = known {
            found.logons.swap_remove(at);
        }
        if cn != found.cn {
            found.logons.push((logon_id, cn.clone()));
        }
        let after = found.cns();
        if !before.contains(&cn) {
            self.join(session, &cn);
        }
        before.iter().filter(|cn| !after.contains(cn)).for_each(|cn| self.part(session, cn, now));
        Ok(())
    }

    /// The client has released a logon (RopRelease): so are its subscriptions and tables. Says whether anything was there.
    pub fn logoff(&mut self, session: Uuid, logon_id: u8, now: Duration) -> Result<bool, UnknownSession> {
        let found = self.sessions.touch(session, now)?;
        let subscriptions =
            found.subscriptions.iter().filter(|of| of.logon_id == logon_id).map(|of| of.handle);
        let tables = found.tables.iter().filter(|open| open.table.logon_id == logon_id);
        let handles: Vec<u32> = subscriptions.chain(tables.map(|open| open.table.handle)).collect();
        let before = found.cns();
        let logons = found.logons.len();
        found.logons.retain(|(of, _)| *of != logon_id);
        let had = logons > found.logons.len() || !handles.is_empty();
        let after = found.cns();
        for handle in handles {
            self.release(session, handle, now)?;
        }
        before.iter().filter(|cn| !after.contains(cn)).for_each(|cn| self.part(session, cn, now));
        Ok(had)
    }

    /// A session shows a user's mailbox from now on.
    pub(super) fn join(&mut self, session: Uuid, cn: &Cn) {
        if !self.users.contains_key(cn) {
            self.user_changes.push_back(UserChange::Joined(cn.clone()));
        }
        let user = self.users.entry(cn.clone()).or_default();
        user.sessions.push(session);
        if let Some(leaves_at) = user.leaves_at.take() {
            self.graces.remove(&(leaves_at, cn.clone()));
        }
    }

    /// A session does not any more.
    pub(super) fn part(&mut self, session: Uuid, cn: &Cn, now: Duration) {
        let Some(user) = self.users.get_mut(cn) else { return };
        user.sessions.retain(|guid| *guid != session);
        if user.sessions.is_empty() {
            // Nobody is left to be told.
            self.pending -= user.pending.iter().map(|pending| pending.weight).sum::<usize>();
            user.pending.clear();
            self.queries.forget(cn);
            user.folders = Folders::default();
            let leaves_at = now.saturating_add(self.config.grace);
            user.leaves_at = Some(leaves_at);
            self.graces.insert((leaves_at, cn.clone()));
            self.forget_owed(cn);
        }
    }

    /// Of these sessions (a user's own, or anybody's) those that have not been called for the longest, at most so many.
    pub(in crate::emsmdb) fn most_silent_sessions(
        &self,
        of: Option<&Cn>,
        most: usize,
        is_one: impl Fn(&Uuid) -> bool,
    ) -> Vec<Uuid> {
        let all =
            self.sessions.touched().filter(|(_, cn, guid)| of.is_none_or(|of| of == *cn) && is_one(guid));
        let mut silent: Vec<(Duration, Uuid)> = all.map(|(touched, _, guid)| (touched, *guid)).collect();
        if silent.len() > most {
            silent.select_nth_unstable(most);
            silent.truncate(most);
        }
        silent.into_iter().map(|(_, guid)| guid).collect()
    }

    /// Sessions that a user has opened; those of others that show the mailbox as well are not among them.
    pub(super) fn own_sessions(&self, user: &User, cn: &Cn) -> usize {
        let is_own = |guid: &&Uuid| self.sessions.get(**guid).is_some_and(|session| session.cn == *cn);
        user.sessions.iter().filter(is_own).count()
    }
}
