//! The document: `{"v":1,"events":[...]}`.

use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::read::{Reading, read_event};
use super::{EventJson, FieldError, Fields, JsonError, VERSION, text};
use crate::event::Event;
use crate::native::{Batch, MAX_BATCH_OCTETS};

/// How much a document may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Octets of the document; more are refused before anything is read.
    pub octets: usize,
    /// Events; a document with more is refused whole.
    pub events: usize,
    /// Octets of one event; a longer one is skipped. More than [`MAX_BATCH_OCTETS`] fit in no batch.
    pub event_octets: usize,
}

impl Default for Limits {
    /// 1 MiB, 4,096 events, 64 KiB an event.
    fn default() -> Limits {
        Limits { octets: 1 << 20, events: crate::native::MAX_EVENTS, event_octets: MAX_BATCH_OCTETS }
    }
}

/// What was read of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The events, in order.
    pub events: Vec<Event>,
    /// Those that made no sense, in order.
    pub skipped: Vec<Skipped>,
}

/// An event of a document that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its place among the document's events, from 0.
    pub index: usize,
    /// Which field, what is there, and what would be right.
    pub why: FieldError,
}

/// The events stay as they stand: each is read for itself, so that one that is wrong spoils no other, and only
/// one at a time takes the memory of a tree.
#[derive(Deserialize)]
struct Document<'a> {
    #[serde(default)]
    v: Option<u64>,
    #[serde(borrow)]
    events: Events<'a>,
}

struct Events<'a>(Vec<&'a RawValue>);

impl<'a, 'de: 'a> Deserialize<'de> for Events<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Events<'a>, D::Error> {
        struct Bounded;

        impl<'de> Visitor<'de> for Bounded {
            type Value = Events<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of events")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Events<'de>, A::Error> {
                let mut events = Vec::new();
                while let Some(event) = seq.next_element()? {
                    if events.len() == crate::native::MAX_EVENTS {
                        return Err(A::Error::custom(TooMany(crate::native::MAX_EVENTS)));
                    }
                    events.push(event);
                }
                Ok(Events(events))
            }
        }

        deserializer.deserialize_seq(Bounded)
    }
}

struct TooMany(usize);

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "events: expected at most {}", self.0)
    }
}

/// Reads a document. What is wrong with one event leaves out that one; what is wrong with the document refuses
/// it whole. Events without a time have `now_us`, those without an id one from `ids`.
pub fn decode_events(
    octets: &[u8],
    limits: &Limits,
    now_us: u64,
    ids: &mut dyn FnMut() -> Uuid,
) -> Result<Decoded, JsonError> {
    let text = text(octets, limits.octets)?;
    let document: Document<'_> =
        serde_json::from_str(text).map_err(|error| JsonError::malformed(text, &error))?;
    match document.v {
        None => {}
        Some(v) if v == u64::from(VERSION) => {}
        Some(found) => return Err(JsonError::Version { found }),
    }
    let raw = document.events.0;
    if raw.len() > limits.events {
        let problem = TooMany(limits.events).to_string();
        return Err(JsonError::Malformed { offset: text.len(), problem });
    }
    let mut decoded = Decoded { events: Vec::with_capacity(raw.len()), skipped: Vec::new() };
    for (index, raw) in raw.into_iter().enumerate() {
        match one(index, raw.get(), limits.event_octets.min(MAX_BATCH_OCTETS), now_us, ids) {
            Ok(event) => decoded.events.push(event),
            Err(why) => decoded.skipped.push(Skipped { index, why }),
        }
    }
    Ok(decoded)
}

fn one(
    index: usize,
    text: &str,
    limit: usize,
    now_us: u64,
    ids: &mut dyn FnMut() -> Uuid,
) -> Result<Event, FieldError> {
    let place = || format!("events[{index}]");
    if text.len() > limit {
        let problem = format!("{} octets: expected at most {limit}", text.len());
        return Err(FieldError::new(place(), problem));
    }
    let fields = Fields::parse_at(format!("{}.", place()), text)?;
    let event = read_event(fields, Reading::Tolerant, now_us, ids)?;
    // As MessagePack it may be longer (ranges of UIDs, names for the storage), and it may have too many flags.
    match Batch::new().push(&event) {
        Ok(_) => Ok(event),
        Err(error) => Err(FieldError::new(place(), error.to_string())),
    }
}

/// Writes a document that [`decode_events`] reads as the same events (but for those of unknown kinds).
pub fn encode_events(events: &[Event]) -> String {
    #[derive(Serialize)]
    struct Written<'a> {
        v: u32,
        events: Vec<EventJson<'a>>,
    }
    let events = events.iter().map(|event| EventJson::new(event, None)).collect();
    // Numbers, strings and arrays under names: nothing in it can fail.
    serde_json::to_string(&Written { v: VERSION, events }).unwrap_or_default()
}
