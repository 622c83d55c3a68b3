//! RopNotify replies, alone and end to end. Which fields a reply has depends on its kind.

mod parse;
mod print;

use ocbus::wire::json::Fields;
use ocbus::wire::openchange::deliver;
use ocbus::wire::ropnotify::{DecodeError, RopNotify, split};
use serde::Serialize;

use print::Object;

/// Instead of a list of tags: the server does not say which.
const UNSPECIFIED: &str = "unspecified";

#[derive(Serialize)]
struct RepliesJson {
    replies: Vec<Object>,
}

pub(super) fn json(octets: &[u8]) -> Result<String, String> {
    let (reply, length) = RopNotify::decode(octets).map_err(|error| error.to_string())?;
    if length < octets.len() {
        return Err(format!(
            "at octet {length}: {} octets behind the reply: expected none, or kind deliver",
            octets.len() - length
        ));
    }
    serde_json::to_string(&Object::of(&reply)).map_err(|error| error.to_string())
}

pub(super) fn octets(json: &str) -> Result<Vec<u8>, String> {
    parse::reply(Fields::parse(json)?)
}

pub(super) fn deliver_json(octets: &[u8]) -> Result<String, String> {
    let replies: Result<Vec<Object>, _> = split(octets).map(|reply| Ok(Object::of(&reply?))).collect();
    let replies = replies.map_err(|error: DecodeError| error.to_string())?;
    serde_json::to_string(&RepliesJson { replies }).map_err(|error| error.to_string())
}

pub(super) fn deliver_octets(json: &str) -> Result<Vec<u8>, String> {
    let mut fields = Fields::parse(json)?;
    // It is in the key.
    fields.ignore(&["uuid"]);
    let objects = fields.objects("replies")?;
    fields.finish(&["replies"])?;
    let mut waiting = Vec::new();
    for object in objects {
        let octets = parse::reply(object)?;
        deliver::append(&mut waiting, &octets).map_err(|error| error.to_string())?;
    }
    Ok(waiting)
}
