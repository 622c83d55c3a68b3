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
    Batch(Batch),
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
    /// Native endpoints that miss events because these are too large for any batch, with how many.
    pub missed: Vec<(Lease, u64)>,
}

/// Decides what goes where: native endpoints get batches, legacy ones new mail. Events may be shared (`Arc`).
pub fn plan<E: Borrow<Event>>(listeners: &Listeners, events: &[E], options: &Options) -> Plan {
    let mut plan = Plan::default();
    for malformed in &listeners.malformed {
        plan.skip(&malformed.key, &malformed.why);
    }
    if listeners.is_empty() && !listeners.expired.is_empty() {
        // Their holders would have renewed them, or are gone and memcached drops the record soon.
        let count = listeners.expired.len();
        let why = "none holds: they crashed a moment ago, or clocks do not agree within a lease";
        plan.skip("leases", format!("{count} ended, {why}"));
    }
    if !listeners.native.is_empty() {
        let payloads = plan.batches(events);
        let sent: usize = payloads.iter().map(Payload::events).sum();
        if let Ok(missed @ 1..) = u64::try_from(events.len() - sent) {
            plan.missed = listeners.native.iter().map(|lease| (lease.clone(), missed)).collect();
        }
        for lease in listeners.native.iter().take(MAX_ENDPOINTS) {
            plan.send(&lease.endpoint, Target::Native(lease.clone()), &payloads);
        }
    }
    if !listeners.legacy.is_empty() {
        let payloads = plan.new_mails(events, options);
        // A subscriber that listens both ways gets each event once: natively.
        let twins: HashSet<&String> =
            listeners.native.iter().filter_map(|lease| lease.legacy.as_ref()).collect();
        for url in listeners.legacy.iter().filter(|url| !twins.contains(url)).take(MAX_ENDPOINTS) {
            plan.send(url, Target::Legacy, &payloads);
        }
    }
    for (key, count) in
        [("native endpoints", listeners.native.len()), ("legacy endpoints", listeners.legacy.len())]
    {
        if let Some(left @ 1..) = count.checked_sub(MAX_ENDPOINTS) {
            plan.skip(key, format!("{left} beyond the first {MAX_ENDPOINTS} of one user"));
        }
    }
    plan
}

/// Endpoints of one kind that are tried for one user: far more than anybody has sessions. Beyond it a record is
/// full of the dead; those that refuse are removed, and the next ones get their turn.
const MAX_ENDPOINTS: usize = 256;

impl Plan {
    fn skip(&mut self, what: &str, why: impl ToString) {
        self.skipped.push(Skipped { what: what.escape_debug().to_string(), why: why.to_string() });
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
                payloads.push(Payload::Batch(std::mem::take(batch)));
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
