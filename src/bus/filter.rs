use std::borrow::Cow;
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
        // A subscription may be for thousands of users: looked up, not gone through.
        let user = self.users.is_empty()
            || event.user.is_empty()
            || self.users.contains(lower_case(&event.user).as_ref());
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

/// A user's name as filters have it. Mostly it is so already.
pub(super) fn lower_case(user: &str) -> Cow<'_, str> {
    match user.bytes().any(|octet| octet.is_ascii_uppercase()) {
        true => Cow::Owned(user.to_ascii_lowercase()),
        false => Cow::Borrowed(user),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocbus_wire::Mailbox;
    use uuid::Uuid;

    #[test]
    fn users_pass_in_any_case_and_everybodys_resync_does() {
        let filter = Filter::user("Bob").or_user("ALICE");
        let event = |user: &str| {
            Event::new(Uuid::nil(), 0, user, Mailbox::new("INBOX", '/'), EventKind::MailboxCreate)
        };
        for (user, passes) in
            [("bob", true), ("BOB", true), ("aliCe", true), ("", true), ("bo", false), ("bobb", false)]
        {
            assert_eq!(filter.passes(&event(user)), passes, "{user}");
            assert!(Filter::all().passes(&event(user)));
        }
    }
}
