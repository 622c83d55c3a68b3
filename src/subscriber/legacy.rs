//! A user's OpenChange v1 endpoint: PULL, one new-mail payload for each mail, so that OpenChange's own plugin can
//! reach us. The payload does not name the user: the endpoint stands for one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ocbus_resolver::Cn;
use ocbus_wire::openchange::{DosCharset, NewMail, Notification};
use ocbus_wire::{Endpoint, Event, EventKind, Mailbox, NewMessage};
use uuid::Uuid;

use super::{Counters, SubscriberConfig, SubscriberError};
use crate::bus::Bus;
use crate::now_us;
use crate::sockets::{Role, Server};

/// One user's legacy socket.
#[derive(Debug)]
pub(super) struct LegacySocket(Server);

struct Receiver {
    cn: Cn,
    charset: DosCharset,
    bus: Bus,
    counters: Arc<Counters>,
}

impl LegacySocket {
    pub(super) fn listen(
        config: &SubscriberConfig,
        bind: &Endpoint,
        cn: &Cn,
        bus: &Bus,
        counters: &Arc<Counters>,
    ) -> Result<LegacySocket, SubscriberError> {
        let own = match bind {
            Endpoint::Ipc { path } => Endpoint::Ipc { path: format!("{path}{}", file_name(cn)) },
            tcp => tcp.clone(),
        };
        let receiver = Receiver {
            cn: cn.clone(),
            charset: config.charset,
            bus: bus.clone(),
            counters: Arc::clone(counters),
        };
        let handler = Arc::new(move |payload: &[u8]| {
            receiver.take(payload);
            Vec::new()
        });
        Ok(LegacySocket(Server::listen(Role::Pull, &own, &config.listen_options(counters), handler)?))
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }
}

/// A cn as the end of a file's name: no two have the same, and none names another folder.
fn file_name(cn: &Cn) -> String {
    match cn.as_str() {
        dots @ ("." | "..") => dots.replace('.', "%2E"),
        name => name.replace('%', "%25").replace('/', "%2F"),
    }
}

impl Receiver {
    fn take(&self, payload: &[u8]) {
        match Notification::decode(payload, self.charset) {
            Ok(Notification::NewMail(mail)) => {
                self.counters.legacy_events.fetch_add(1, Ordering::Relaxed);
                self.bus.publish(event(&self.cn, mail));
            }
            // As OpenChange does: a version or a type that is none of ours is passed over.
            Ok(Notification::Ignored { version, kind }) => {
                self.counters.malformed.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(event = "payload_ignored", user = %self.cn, version, kind, "not a new mail");
            }
            Err(error) => {
                let count = self.counters.malformed.fetch_add(1, Ordering::Relaxed) + 1;
                if count.is_power_of_two() {
                    tracing::warn!(event = "payload_refused", user = %self.cn, reason = %error, count, "a payload could not be read");
                }
            }
        }
    }
}

/// The event that a payload tells of, made here: version 1 has neither id nor time.
fn event(cn: &Cn, mail: NewMail) -> Event {
    // An empty folder means the Inbox.
    let folder = if mail.folder.is_empty() { "INBOX".to_owned() } else { mail.folder.clone() };
    let mailbox = Mailbox::from_storage(folder, char::from(mail.separator));
    let uid = mail.uid();
    let message = NewMessage {
        uid,
        name: uid.is_none().then_some(mail.message),
        backend: Some(mail.backend),
        ..NewMessage::default()
    };
    Event::new(Uuid::now_v7(), now_us(), cn.as_str(), mailbox, EventKind::MessageNew(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_users_share_a_file_and_none_leaves_the_folder() {
        let names = ["a/b", "a_b", "a%2fb", "a%2Fb", "a%252fb", "a", ".", "..", "%2e", "bob@example.org"];
        let cns: std::collections::BTreeSet<Cn> = names.iter().map(|name| Cn::new(name).unwrap()).collect();
        let files: std::collections::BTreeSet<String> = cns.iter().map(file_name).collect();
        assert_eq!(files.len(), cns.len(), "{files:?}");
        assert!(files.iter().all(|file| !file.contains('/') && file != "." && file != ".."), "{files:?}");
        assert_eq!(file_name(&Cn::new("bob@example.org").unwrap()), "bob@example.org", "as it was");
    }
}
