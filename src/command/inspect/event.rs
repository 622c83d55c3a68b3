//! Native batches of events.

use ocbus::wire::json::{EventJson, Fields, Reading, VERSION, read_event};
use ocbus::wire::native::{Batch, DecodeError};
use ocbus::{EventKind, now_us};
use serde::Serialize;
use uuid::Uuid;

use crate::command::output;

#[derive(Serialize)]
struct BatchJson<'a> {
    v: u32,
    events: Vec<EventJson<'a>>,
    skipped: usize,
}

pub(super) fn json(octets: &[u8]) -> Result<String, String> {
    let batch = Batch::decode(octets).map_err(|error| match error {
        // These say it themselves.
        DecodeError::Malformed { .. } | DecodeError::Trailing { .. } => error.to_string(),
        other => format!("at octet {}: {other}", other.offset()),
    })?;
    let events = batch.events.iter().map(|event| EventJson::new(event, None)).collect();
    let json = BatchJson { v: VERSION, events, skipped: batch.skipped };
    serde_json::to_string(&json).map_err(|error| error.to_string())
}

pub(super) fn octets(json: &str) -> Result<Vec<u8>, String> {
    let mut fields = Fields::parse(json)?;
    let version = fields.number("v")?.unwrap_or(VERSION);
    if version != VERSION {
        return Err(format!("v: {version}: expected {VERSION}"));
    }
    // Events that a reader could not make sense of cannot be written again.
    fields.ignore(&["skipped"]);
    let objects = fields.objects("events")?;
    fields.finish(&["v", "events", "skipped"])?;
    let mut batch = Batch::new();
    for (at, object) in objects.into_iter().enumerate() {
        let event = read_event(object, Reading::Exact, now_us(), &mut Uuid::now_v7)?;
        if let EventKind::Unknown { name } = &event.kind {
            let what = format!("events[{at}]: kind {name:?} is none that this ocbus knows");
            output::complain(&format!("warning: event: {what}"));
        }
        match batch.push(&event) {
            Ok(true) => {}
            Ok(false) => return Err(format!("events[{at}]: the batch is full: expected {at} events in it")),
            Err(error) => return Err(format!("events[{at}]: {error}")),
        }
    }
    Ok(batch.encode())
}
