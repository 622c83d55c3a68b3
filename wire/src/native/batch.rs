use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};

use super::error::{DecodeError, EncodeError};
use super::event_map::EventMap;
use super::msgpack;
use crate::event::Event;

/// The largest batch, in octets: what one SP message may carry without loss (see `docs/formats.md`).
pub const MAX_BATCH_OCTETS: usize = 64 * 1024;

/// The most events in a batch.
pub const MAX_EVENTS: usize = 4096;

/// Room kept for what surrounds the events: the map, the version, the array's header.
const ENVELOPE_OCTETS: usize = 16;

/// A batch of events under construction, never larger than [`MAX_BATCH_OCTETS`].
///
/// An event is encoded when it is pushed, so that a batch is filled without encoding anything twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    events: Vec<u8>,
    /// Where each event ends.
    ends: Vec<usize>,
}

/// What was read of a batch: events, or what its reader makes of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedBatch<T = Event> {
    /// The events in order, those of unknown kinds among them.
    pub events: Vec<T>,
    /// Events that were left out because a field is missing without which their kind says nothing.
    pub skipped: usize,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: From<Event>"))]
struct BatchMap<T> {
    v: u32,
    ev: Events<T>,
}

/// The events of a batch. Each is made what it is to be as soon as it is read: events are large, and an array of them
/// larger than a batch.
struct Events<T>(DecodedBatch<T>);

impl<'de, T: From<Event>> Deserialize<'de> for Events<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Events<T>, D::Error> {
        struct Read<T>(PhantomData<T>);

        impl<'de, T: From<Event>> Visitor<'de> for Read<T> {
            type Value = Events<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of at most {MAX_EVENTS} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Events<T>, A::Error> {
                // Grown as they come: a length may only be claimed.
                let mut batch = DecodedBatch { events: Vec::new(), skipped: 0 };
                while let Some(map) = seq.next_element::<EventMap<'de>>()? {
                    if batch.events.len() + batch.skipped == MAX_EVENTS {
                        return Err(A::Error::custom(format_args!(
                            "an array of more than {MAX_EVENTS} elements"
                        )));
                    }
                    match map.into_event() {
                        Some(event) => batch.events.push(event.into()),
                        None => batch.skipped += 1,
                    }
                }
                Ok(Events(batch))
            }
        }

        deserializer.deserialize_seq(Read(PhantomData))
    }
}

impl Batch {
    /// A batch without events.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds an event. `Ok(false)` says that it has no room here and belongs in the next batch; an error that
    /// it has room in none.
    pub fn push(&mut self, event: &Event) -> Result<bool, EncodeError> {
        let limit = MAX_BATCH_OCTETS - ENVELOPE_OCTETS;
        let before = self.events.len();
        let pushed = match msgpack::encode_into(&EventMap::from(event), &mut self.events) {
            Ok(()) if self.events.len() - before > limit => {
                Err(EncodeError::TooLarge { size: self.events.len() - before, limit })
            }
            Ok(()) => Ok(self.ends.len() < MAX_EVENTS && self.events.len() <= limit),
            Err(error) => Err(error),
        };
        match pushed {
            Ok(true) => self.ends.push(self.events.len()),
            _ => self.events.truncate(before),
        }
        pushed
    }

    /// Adds another batch's events behind these, in order, from its event number `from` (the first is 0): as many as
    /// there is room for. Gives how many these are.
    pub fn append(&mut self, other: &Batch, from: usize) -> usize {
        let start = from.checked_sub(1).map_or(0, |last| other.ends.get(last).copied().unwrap_or(usize::MAX));
        let room = (MAX_BATCH_OCTETS - ENVELOPE_OCTETS).saturating_sub(self.events.len());
        let left = other.ends.get(from..).unwrap_or_default();
        let fitting = left.partition_point(|end| end - start <= room).min(MAX_EVENTS - self.ends.len());
        let taken = left.get(..fitting).unwrap_or_default();
        let before = self.events.len();
        let octets = taken.last().and_then(|&end| other.events.get(start..end)).unwrap_or_default();
        self.events.extend_from_slice(octets);
        self.ends.extend(taken.iter().map(|end| before + end - start));
        fitting
    }

    /// Octets of the events alone: less than [`MAX_BATCH_OCTETS`].
    pub fn octets(&self) -> usize {
        self.events.len()
    }

    /// How many events.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The octets to send: `{"v": 1, "ev": [event, ...]}`.
    pub fn encode(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(self.events.len() + ENVELOPE_OCTETS);
        self.encode_to(|piece| octets.extend_from_slice(piece));
        octets
    }

    /// The same, piece by piece, into whatever is to have them; at most [`MAX_BATCH_OCTETS`] together.
    pub fn encode_to(&self, mut put: impl FnMut(&[u8])) {
        // fixmap of 2; "v": 1; "ev": array of the events, in the shortest form, as rmp-serde writes it.
        put(&[0x82, 0xa1, b'v', 0x01, 0xa2, b'e', b'v']);
        // `push` keeps the count at MAX_EVENTS, which an array16 can say.
        let [high, low] = u16::try_from(self.len()).unwrap_or(u16::MAX).to_be_bytes();
        match (high, low) {
            (0, 0..=15) => put(&[0x90 | low]),
            _ => put(&[0xdc, high, low]),
        }
        put(&self.events);
    }

    /// One batch of one event.
    pub fn of(event: &Event) -> Result<Batch, EncodeError> {
        let mut batch = Batch::new();
        batch.push(event)?;
        Ok(batch)
    }

    /// Reads a batch. Unknown fields are passed over, unknown kinds kept as such; an event that lacks a needed
    /// field is skipped and counted. A batch of another version, with octets left over, or that is not of this
    /// shape is refused whole.
    pub fn decode(octets: &[u8]) -> Result<DecodedBatch, DecodeError> {
        Batch::decode_as(octets)
    }

    /// The same, of `Arc<Event>` or whatever else is made of an event.
    pub fn decode_as<T: From<Event>>(octets: &[u8]) -> Result<DecodedBatch<T>, DecodeError> {
        let map: BatchMap<T> =
            msgpack::decode_versioned(octets, MAX_BATCH_OCTETS, |map: &BatchMap<T>| map.v)?;
        Ok(map.ev.0)
    }
}
