use std::borrow::{Borrow, Cow};
use std::collections::HashSet;
use std::sync::Arc;

use ocbus_wire::native::{Batch, Lease};
use ocbus_wire::openchange::{DosCharset, NewMail};
use ocbus_wire::{Endpoint, Event, EventKind, NewMessage};

use crate::listeners::Listeners;

/// How a publisher encodes, and how it treats endpoints.
#[derive(Debug, Clone)]
pub struct Options {
    /// The storage backend that a legacy payload names, unless the event does.
    pub backend: String,
    /// The charset of legacy payloads.
    pub charset: DosCharset,
    /// Keep a legacy endpoint that refuses in the record: for sites whose OpenChange comes back under the same
    /// port and does not register again.
    pub keep_refused: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { backend: "sogo".to_owned(), charset: DosCharset::default(), keep_refused: false }
    }
}

/// What an endpoint is: it decides the socket, the encoding and the acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// REQ, batches, acknowledged; under the lease as it was looked up.
    Native(Lease),
    /// PUSH of one new-mail payload for each event, not acknowledged.
    Legacy,
}

/// One SP message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Native: a batch. Kept as such, so that a publisher may join batches that wait for one endpoint.
    Batch(Arc<Batch>),
    /// Legacy: one mail, encoded.
    NewMail(Vec<u8>),
}

impl Payload {
    /// The octets to send.
    pub fn octets(&self) -> Cow<'_, [u8]> {
        match self {
            Payload::Batch(batch) => Cow::Owned(batch.encode()),
            Payload::NewMail(octets) => Cow::Borrowed(octets),
        }
    }

    /// How many events it carries.
    pub fn events(&self) -> usize {
        match self {
            Payload::Batch(batch) => batch.len(),
            Payload::NewMail(_) => 1,
        }
    }
}

/// What goes to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// Where.
    pub endpoint: Endpoint,
    /// The endpoint as it stands in the record.
    pub url: String,
    /// As what.
    pub target: Target,
    /// The messages, one after the other. Endpoints of one kind share them.
    pub payloads: Arc<[Payload]>,
}

impl Send {
    /// How many events these messages carry.
    pub fn events(&self) -> usize {
        self.payloads.iter().map(Payload::events).sum()
    }
}

/// What is not sent, and why: to be logged and counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The endpoint's URL, the record's key, or the event's kind.
    pub what: String,
    /// Why, and what would be right.
    pub why: String,
}

/// Everything that is to be sent for some events of one user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// One entry for each endpoint; all of them at once, under one deadline.
    pub sends: Vec<Send>,
    /// What could not be made into a send.
    pub skipped: Vec<Skipped>,
    /// Events that OpenChange v1 has no words for; they went to native endpoints only. No fault.
    pub unsaid: usize,
    /// Native endpoints that miss events, with how many: these are too large for any batch, or the endpoints too many,
    /// or their leases have ended.
    pub missed: Vec<(Lease, u64)>,
}

/// Decides what goes where: native endpoints get batches, legacy ones new mail. Events may be shared (`Arc`).
pub fn plan<E: Borrow<Event>>(listeners: &Listeners, events: &[E], options: &Options) -> Plan {
    let mut plan = Plan::default();
    for malformed in &listeners.malformed {
        plan.skip(&malformed.key, &malformed.why);
    }
    let all = u64::try_from(events.len()).unwrap_or(u64::MAX);
    if let Some(first) = listeners.ended().next() {
        // Said once: they are marked. Who renews behind that is a live one, and it is said again.
        let (count, first) = (listeners.ended().count(), first.endpoint.escape_debug());
        let why = "it crashed, or its clock is behind this host's by more than a lease";
        plan.skip("leases", format!("{count} ended, of {first} first: {why}"));
        plan.missed.extend(listeners.ended().filter(|_| all > 0).map(|lease| (lease.clone(), all)));
    }
    if listeners.unsettled {
        let why = "nobody is registered yet on a memcached that has just taken this user over";
        plan.skip("memcached", why);
    }
    if !listeners.native.is_empty() {
        let (passed_over, native) = newest(&listeners.native);
        let payloads = plan.batches(events);
        let sent: usize = payloads.iter().map(Payload::events).sum();
        if let Ok(missed @ 1..) = u64::try_from(events.len() - sent) {
            plan.missed.extend(native.iter().map(|lease| (lease.clone(), missed)));
        }
        plan.missed.extend(passed_over.iter().filter(|_| all > 0).map(|lease| (lease.clone(), all)));
        plan.pass_over("native endpoints", passed_over.len());
        for lease in native {
            plan.send(&lease.endpoint, Target::Native(lease.clone()), &payloads);
        }
    }
    if !listeners.legacy.is_empty() {
        let payloads = plan.new_mails(events, options);
        // A subscriber that listens both ways gets each event once: natively.
        let twins: HashSet<&String> =
            listeners.native.iter().filter_map(|lease| lease.legacy.as_ref()).collect();
        let legacy: Vec<&String> = listeners.legacy.iter().filter(|url| !twins.contains(url)).collect();
        let (passed_over, legacy) = newest(&legacy);
        plan.pass_over("legacy endpoints", passed_over.len());
        for url in legacy {
            plan.send(url, Target::Legacy, &payloads);
        }
    }
    plan
}

/// Endpoints of one kind that are tried for one user: far more than anybody has sessions. Beyond it a record is
/// full of the dead; those that refuse are removed, and others get their turn.
const MAX_ENDPOINTS: usize = 256;

/// Those that are passed over, and those that are tried: the last ones. Whoever comes stands behind those who are there,
/// so the dead, some of which are silent and stay for ever, are in front.
fn newest<T>(all: &[T]) -> (&[T], &[T]) {
    all.split_at_checked(all.len().saturating_sub(MAX_ENDPOINTS)).unwrap_or((&[], all))
}

impl Plan {
    fn skip(&mut self, what: &str, why: impl ToString) {
        self.skipped.push(Skipped { what: what.escape_debug().to_string(), why: why.to_string() });
    }

    fn pass_over(&mut self, what: &str, count: usize) {
        if count > 0 {
            self.skip(what, format!("{count} in front of the last {MAX_ENDPOINTS} of one user"));
        }
    }

    fn send(&mut self, url: &str, target: Target, payloads: &Arc<[Payload]>) {
        if payloads.is_empty() {
            return;
        }
        match Endpoint::parse(url) {
            Ok(endpoint) => {
                self.sends.push(Send {
                    endpoint,
                    url: url.to_owned(),
                    target,
                    payloads: Arc::clone(payloads),
                });
            }
            Err(error) => self.skip(url, error),
        }
    }

    fn batches<E: Borrow<Event>>(&mut self, events: &[E]) -> Arc<[Payload]> {
        let mut payloads = Vec::new();
        let mut batch = Batch::new();
        let mut close = |batch: &mut Batch| {
            if !batch.is_empty() {
                payloads.push(Payload::Batch(Arc::new(std::mem::take(batch))));
            }
        };
        for event in events.iter().map(Borrow::borrow) {
            let mut pushed = batch.push(event);
            if let Ok(false) = pushed {
                close(&mut batch);
                pushed = batch.push(event);
            }
            if let Err(error) = pushed {
                self.skip(event.kind.name(), error);
            }
        }
        close(&mut batch);
        payloads.into()
    }

    fn new_mails<E: Borrow<Event>>(&mut self, events: &[E], options: &Options) -> Arc<[Payload]> {
        let mut payloads = Vec::new();
        for event in events.iter().map(Borrow::borrow) {
            let EventKind::MessageNew(message) = &event.kind else {
                self.unsaid += 1;
                continue;
            };
            match new_mail(event, message, options) {
                Ok(octets) => payloads.push(Payload::NewMail(octets)),
                Err(why) => self.skip("OpenChange payload", why),
            }
        }
        payloads.into()
    }
}

/// The payload as OpenChange's plugin sends it: storage name, list separator, `<uid>.eml`.
fn new_mail(event: &Event, message: &NewMessage, options: &Options) -> Result<Vec<u8>, String> {
    let mailbox = event.mailbox.as_ref().ok_or("no mailbox")?;
    let named = || message.uid.map(NewMail::message_name);
    let mail = NewMail {
        backend: message.backend.clone().unwrap_or_else(|| options.backend.clone()),
        message: message.name.clone().or_else(named).ok_or("neither uid nor message name")?,
        folder: mailbox.storage_name.clone(),
        separator: u8::try_from(mailbox.list_separator)
            .map_err(|_| format!("list separator {:?}: expected one octet", mailbox.list_separator))?,
    };
    mail.encode(options.charset).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocbus_wire::Mailbox;
    use uuid::Uuid;

    fn lease(n: usize) -> Lease {
        Lease {
            endpoint: format!("tcp://10.0.0.1:{n}"),
            subscriber: Uuid::from_u128(1),
            until_ms: 1,
            legacy: None,
            missed: 0,
        }
    }

    #[test]
    fn an_ended_lease_is_told_and_marked_once_whoever_else_listens() {
        let ended = |missed| Lease { missed, ..lease(7) };
        let legacy = vec!["tcp://10.0.0.2:1".to_owned()];
        let mail = NewMessage { uid: Some(7), ..NewMessage::default() };
        let kind = EventKind::MessageNew(mail);
        let events = [Event::new(Uuid::from_u128(2), 1, "bob", Mailbox::new("INBOX", '/'), kind)];
        for (native, legacy) in [(vec![], vec![]), (vec![], legacy.clone()), (vec![lease(1)], legacy)] {
            let sends = native.len() + legacy.len();
            let listeners = |missed| Listeners {
                native: native.clone(),
                legacy: legacy.clone(),
                expired: vec![ended(missed)],
                ..Listeners::default()
            };
            let first = plan(&listeners(0), &events, &Options::default());
            assert_eq!((first.sends.len(), first.missed), (sends, vec![(ended(0), 1)]));
            assert_eq!(first.skipped.len(), 1);
            let said = format!("{}: {}", first.skipped[0].what, first.skipped[0].why);
            assert!(said.starts_with("leases: 1 ended, of tcp://10.0.0.1:7 first: "), "{said}");
            let second = plan(&listeners(1), &events, &Options::default());
            assert_eq!((second.sends.len(), second.missed, second.skipped), (sends, vec![], vec![]));
        }
    }

    /// Whoever came last stands behind everybody, and is who lives.
    #[test]
    fn of_too_many_endpoints_the_last_are_tried_and_the_others_missed_it() {
        let most = MAX_ENDPOINTS + 3;
        let legacy = |n: usize| format!("tcp://10.0.0.2:{n}");
        let mut native: Vec<Lease> = (1..=most).map(lease).collect();
        // A twin is no legacy endpoint to be tried, nor one to be counted.
        native.last_mut().unwrap().legacy = Some(legacy(most));
        let listeners =
            Listeners { native, legacy: (1..=most).map(legacy).collect(), ..Listeners::default() };
        let mail = NewMessage { uid: Some(7), ..NewMessage::default() };
        let kind = EventKind::MessageNew(mail);
        let event = Event::new(Uuid::from_u128(2), 1, "bob", Mailbox::new("INBOX", '/'), kind);
        let plan = plan(&listeners, &[event.clone(), event], &Options::default());
        let urls: Vec<&str> = plan.sends.iter().map(|send| send.url.as_str()).collect();
        assert_eq!(urls.len(), 2 * MAX_ENDPOINTS);
        assert!(urls.contains(&lease(most).endpoint.as_str()) && urls.contains(&legacy(most - 1).as_str()));
        assert_eq!(plan.missed, [(lease(1), 2), (lease(2), 2), (lease(3), 2)]);
        let skipped: Vec<String> =
            plan.skipped.iter().map(|skipped| format!("{}: {}", skipped.what, skipped.why)).collect();
        assert_eq!(
            skipped,
            [
                "native endpoints: 3 in front of the last 256 of one user",
                "legacy endpoints: 2 in front of the last 256 of one user"
            ]
        );
    }
}
