use std::collections::BTreeSet;

use ocbus_wire::{Event, EventKind};

/// Which events a subscription wants: by user, kind and mailbox. Each part that is not named lets everything
/// through; a [`Resync`](EventKind::Resync) passes whatever kinds are named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    users: BTreeSet<String>,
    kinds: BTreeSet<String>,
    mailboxes: BTreeSet<String>,
}

impl Filter {
    /// Everything.
    pub fn all() -> Filter {
        Filter::default()
    }

    /// The events of one user: a cn, ASCII letters in any case.
    pub fn user(user: &str) -> Filter {
        Filter::all().or_user(user)
    }

    /// And those of another user.
    pub fn or_user(mut self, user: &str) -> Filter {
        self.users.insert(user.to_ascii_lowercase());
        self
    }

    /// Only this kind, by its RFC 5423 name (`MessageNew`); called again, this one too.
    pub fn kind(mut self, name: &str) -> Filter {
        self.kinds.insert(name.to_owned());
        self
    }

    /// Only this mailbox, by its UTF-8 name; called again, this one too. `INBOX` in any case is the Inbox.
    pub fn mailbox(mut self, name: &str) -> Filter {
        let inbox = name.eq_ignore_ascii_case("INBOX");
        self.mailboxes.insert(if inbox { "INBOX".to_owned() } else { name.to_owned() });
        self
    }

    /// The user, if it is exactly one.
    pub(super) fn only_user(&self) -> Option<&str> {
        self.users.first().filter(|_| self.users.len() == 1).map(String::as_str)
    }

    /// Whether the event is wanted.
    pub fn passes(&self, event: &Event) -> bool {
        let user = self.users.is_empty()
            || event.user.is_empty()
            || self.users.iter().any(|user| user.eq_ignore_ascii_case(&event.user));
        user && self.passes_kind(&event.kind) && self.passes_mailbox(event)
    }

    fn passes_kind(&self, kind: &EventKind) -> bool {
        self.kinds.is_empty() || matches!(kind, EventKind::Resync { .. }) || self.kinds.contains(kind.name())
    }

    fn passes_mailbox(&self, event: &Event) -> bool {
        let Some(mailbox) = &event.mailbox else { return true };
        let named = |mailbox: &ocbus_wire::Mailbox| match mailbox.is_inbox() {
            true => self.mailboxes.contains("INBOX"),
            false => self.mailboxes.contains(&mailbox.name),
        };
        // What left a mailbox concerns it as much as what came.
        let old = match &event.kind {
            EventKind::MessageMove(transfer) => Some(&transfer.old),
            EventKind::MailboxRename { old } => Some(old),
            _ => None,
        };
        self.mailboxes.is_empty() || named(mailbox) || old.is_some_and(named)
    }
}
