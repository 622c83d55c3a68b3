//! How an event comes to be told: ids are found, then its user's sessions are told, in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ocbus_resolver::Cn;
use ocbus_wire::{Event, EventKind, ResyncReason};

use super::answers::{fill, fill_folder};
use super::asking::{FolderAsker, MessageAsker, ask_messages, forget_moved};
use super::changes::changes;
use super::folders::FolderKey;
use super::owed::Ask;
use super::pending::{Pending, Slot, Stage, is_told, old_mailbox};
use super::query::{Asked, Waiting};
use super::telling::tell;
use super::{Answer, Engine, QueryId, User};

/// How many answers fail until the log says so again: at powers of two.
fn is_worth_a_line(count: u64) -> bool {
    count.is_power_of_two()
}

impl Engine {
    /// Takes an event of the bus.
    pub fn event(&mut self, event: &Arc<Event>, now: Duration) {
        self.counters.events += 1;
        let resync = matches!(event.kind, EventKind::Resync { .. });
        self.counters.resyncs += u64::from(resync);
        if event.user.is_empty() {
            if resync {
                let users: Vec<Cn> = self.users.keys().cloned().collect();
                users.iter().for_each(|cn| self.user_event(cn, event, now));
            }
            return;
        }
        match Cn::new(&event.user) {
            Ok(cn) if self.users.contains_key(&cn) => self.user_event(&cn, event, now),
            _ => self.counters.unheard += 1,
        }
    }

    fn user_event(&mut self, cn: &Cn, event: &Arc<Event>, now: Duration) {
        let Some(user) = self.users.get_mut(cn) else { return };
        if user.sessions.is_empty() {
            self.counters.unheard += 1;
            return;
        }
        if !is_told(&event.kind) {
            return;
        }
        let is_barrier = event.mailbox.is_none();
        if is_barrier && !matches!(event.kind, EventKind::Resync { .. }) {
            return;
        }
        if is_barrier && user.pending.back().is_some_and(|last| last.keys.is_none()) {
            // One waits already, and nothing behind it.
            return;
        }
        if user.pending.len() >= self.config.pending_per_user || self.pending >= self.config.pending {
            self.event_over(cn, event, now);
            // With nothing of the user's in front it is told at once: no answer would come to do it.
            self.settle(cn, now);
            return;
        }
        user.last_number += 1;
        let mut pending = Pending::new(user.last_number, Arc::clone(event));
        if !is_barrier {
            let mut asker = FolderAsker {
                cn,
                user,
                queries: &mut self.queries,
                counters: &mut self.counters,
                config: &self.config,
                deadline: now.saturating_add(self.config.query_timeout),
            };
            pending.folders = asker.folders(event, &self.sessions);
            if let Some(order) = event.order {
                let key = FolderKey::of(event.mailbox.as_ref());
                let counted = event.messages.is_some() || event.unseen.is_some();
                if !user.folders.is_youngest(&key, event.uidvalidity, order) && counted {
                    let without = Event { messages: None, unseen: None, ..Event::clone(event) };
                    pending.event = Arc::new(without);
                }
            }
        }
        self.pending += pending.weight;
        user.pending.push_back(pending);
        let at = user.pending.len() - 1;
        if self.step(cn, at, now) {
            self.settle(cn, now);
        }
    }

    /// Too many events wait for ids: one resync behind them stands for what comes now.
    fn event_over(&mut self, cn: &Cn, event: &Arc<Event>, now: Duration) {
        self.counters.events_over += 1;
        if is_worth_a_line(self.counters.events_over) {
            let count = self.counters.events_over;
            tracing::warn!(event = "ids_too_slow", user = %cn, count, "too many events wait for ids: a resync instead");
        }
        let Some(user) = self.users.get_mut(cn) else { return };
        // Ids of before are not to be taken for those of after.
        forget_moved(user, event);
        // The resync names only folders that are known by then.
        let mailboxes = [event.mailbox.as_ref(), old_mailbox(event)].into_iter().flatten();
        self.owe(cn, mailboxes.map(|mailbox| Some(mailbox.clone())).collect(), Ask::Later, now);
        let Some(user) = self.users.get_mut(cn) else { return };
        if user.pending.back().is_some_and(|last| last.keys.is_none()) {
            return;
        }
        self.counters.resyncs += 1;
        let resync = Event::resync(event.id, event.time_us, cn.as_str(), ResyncReason::Overflow, 1);
        user.last_number += 1;
        let resync = Pending::new(user.last_number, Arc::new(resync));
        self.pending += resync.weight;
        user.pending.push_back(resync);
    }

    /// Answers a question. One that was not asked, or given up since, is counted and does nothing.
    pub fn answer(&mut self, id: QueryId, answer: Answer, now: Duration) {
        match &answer {
            Answer::Failed => self.counters.query_failures += 1,
            Answer::Unknown => self.counters.query_unknown += 1,
            _ => {}
        }
        self.resolve(id, answer, now);
    }

    /// Gives an answer to who waits for it.
    pub(super) fn resolve(&mut self, id: QueryId, answer: Answer, now: Duration) {
        let Some(Asked { cn, waiting }) = self.queries.close(id) else {
            self.counters.late_answers += 1;
            return;
        };
        if answer == Answer::Failed {
            let count = self.counters.query_failures + self.counters.query_timeouts;
            if is_worth_a_line(count) {
                tracing::warn!(event = "ids_failed", user = %cn, count, "an id could not be found: less is told");
            }
        }
        let Some(user) = self.users.get_mut(&cn) else { return };
        let waiting = match waiting {
            Waiting::Event(number) => {
                let Ok(at) = user.pending.binary_search_by_key(&number, |pending| pending.number) else {
                    return;
                };
                if let Some(pending) = user.pending.get_mut(at) {
                    fill(pending, id, answer, &self.config, &mut self.counters);
                }
                vec![number]
            }
            Waiting::Folder(key) => {
                let waiting = fill_folder(user, &key, id, &answer, &mut self.counters);
                self.owed_answered(&cn, id, &answer, now);
                waiting
            }
        };
        let mut ready = false;
        for number in waiting {
            let place = self.users.get(&cn).map(|user| &user.pending);
            let at = place.and_then(|pending| pending.binary_search_by_key(&number, |p| p.number).ok());
            ready |= at.is_some_and(|at| self.step(&cn, at, now));
        }
        if ready {
            self.settle(&cn, now);
        }
    }

    /// Brings one event on its way as far as it can go without an answer. Says whether it is ready.
    fn step(&mut self, cn: &Cn, at: usize, now: Duration) -> bool {
        let Engine { users, sessions, queries, counters, config, .. } = self;
        let Some(user) = users.get_mut(cn) else { return false };
        let deadline = now.saturating_add(config.query_timeout);
        let mut asking = MessageAsker { cn, queries, counters, config, deadline };
        let User { sessions: guids, pending, .. } = user;
        let Some(pending) = pending.get_mut(at) else { return false };
        let own = || guids.iter().filter_map(|guid| Some((*guid, sessions.get(*guid)?)));
        loop {
            match pending.stage {
                Stage::Folders => {
                    if pending.folders.all().into_iter().any(Slot::is_asked) {
                        return false;
                    }
                    pending.stage = Stage::Messages;
                    ask_messages(pending, own, &mut asking);
                }
                Stage::Messages => {
                    if pending.messages.is_asked() || pending.old_messages.is_asked() {
                        return false;
                    }
                    pending.stage = Stage::Rows;
                    let made = pending.folders.folder.known().map(|folder| {
                        changes(&pending.event, *folder, &pending.found(), &config.message_class)
                    });
                    if let Some(made) = &made {
                        for (guid, session) in own() {
                            for open in session.tables.iter().filter(|open| open.listens()) {
                                if session.cn_of(open.table.logon_id) != cn {
                                    continue;
                                }
                                asking.rows(pending, made, guid, open);
                            }
                        }
                    }
                    pending.changes = made;
                }
                Stage::Rows => {
                    if pending.rows.iter().any(|row| row.row.is_asked()) {
                        return false;
                    }
                    pending.stage = Stage::Ready;
                }
                Stage::Ready => return true,
            }
        }
    }

    /// Tells what is ready and not behind an event of the same folder that is not.
    fn settle(&mut self, cn: &Cn, now: Duration) {
        let Engine { users, sessions, counters, config, pending: total, .. } = self;
        let Some(user) = users.get_mut(cn) else { return };
        let mut blocked: Vec<FolderKey> = Vec::new();
        let mut owed = Vec::new();
        let mut at = 0;
        while let Some(pending) = user.pending.get(at) {
            let waits = match &pending.keys {
                Some(keys) => keys.iter().any(|key| blocked.contains(key)),
                None => at > 0,
            };
            if pending.stage == Stage::Ready && !waits {
                if let Some(pending) = user.pending.remove(at) {
                    *total -= pending.weight;
                    let untold = tell(cn, &pending, user, sessions, counters, config, now);
                    owed.extend(Some(untold).filter(|(folders, _)| !folders.is_empty()));
                }
                continue;
            }
            match &pending.keys {
                Some(keys) => {
                    for key in keys {
                        if !blocked.contains(key) {
                            blocked.push(key.clone());
                        }
                    }
                }
                None => break,
            }
            at += 1;
        }
        if user.pending.is_empty() {
            // An idle user's room for events would be most of what a session takes.
            user.pending = VecDeque::new();
        }
        for (folders, ask) in owed {
            self.owe(cn, folders, ask, now);
        }
    }
}
