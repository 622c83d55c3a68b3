use serde::{Deserialize, Deserializer};

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

/// What was read of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedBatch {
    /// The events in order, those of unknown kinds among them.
    pub events: Vec<Event>,
    /// Events that were left out because a field is missing without which their kind says nothing.
    pub skipped: usize,
}

#[derive(Deserialize)]
struct BatchMap {
    v: u32,
    #[serde(deserialize_with = "msgpack::bounded::<MAX_EVENTS, _, _>")]
    ev: Vec<Told>,
}

/// An event of a batch, or `None` where a needed field is missing.
struct Told(Option<Event>);

impl<'de> Deserialize<'de> for Told {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Told, D::Error> {
        EventMap::deserialize(deserializer).map(|map| Told(map.into_event()))
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
        // fixmap of 2; "v": 1; "ev": array of the events, in the shortest form, as rmp-serde writes it.
        octets.extend_from_slice(&[0x82, 0xa1, b'v', 0x01, 0xa2, b'e', b'v']);
        // `push` keeps the count at MAX_EVENTS, which an array16 can say.
        let [high, low] = u16::try_from(self.len()).unwrap_or(u16::MAX).to_be_bytes();
        match (high, low) {
            (0, 0..=15) => octets.push(0x90 | low),
            _ => octets.extend_from_slice(&[0xdc, high, low]),
        }
        octets.extend_from_slice(&self.events);
        octets
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
        let map: BatchMap = msgpack::decode_versioned(octets, MAX_BATCH_OCTETS, |map: &BatchMap| map.v)?;
        let told = map.ev.len();
        let events: Vec<Event> = map.ev.into_iter().filter_map(|event| event.0).collect();
        Ok(DecodedBatch { skipped: told - events.len(), events })
    }
}
