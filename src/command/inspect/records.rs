//! OpenChange's records and payload.

use ocbus::resolver::Cn;
use ocbus::wire::json::{Fields, number};
use ocbus::wire::openchange::{
    DosCharset, EncodeError, NewMail, ResolverRecord, SessionRecord, Subscription, SubscriptionRecord,
};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::command::output;

#[derive(Serialize)]
struct SessionJson {
    uuid: Uuid,
    cn: String,
}

#[derive(Serialize)]
struct ResolverJson {
    hosts: Vec<String>,
}

#[derive(Serialize)]
struct SubscriptionsJson {
    subscriptions: Vec<SubscriptionJson>,
}

#[derive(Serialize)]
struct SubscriptionJson {
    handle: u32,
    flags: u16,
    fid: String,
    mid: String,
    properties: Vec<String>,
}

#[derive(Serialize)]
struct NewMailJson {
    backend: String,
    eml: String,
    folder: String,
    separator: u8,
}

fn text(value: &impl Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| error.to_string())
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub(super) fn session_json(octets: &[u8], charset: DosCharset) -> Result<String, String> {
    let SessionRecord { session, cn } = SessionRecord::decode(octets, charset).map_err(said)?;
    text(&SessionJson { uuid: session, cn })
}

pub(super) fn session_octets(json: &str, charset: DosCharset) -> Result<Vec<u8>, String> {
    let mut fields = Fields::parse(json)?;
    // What the key is made of.
    fields.ignore(&["async_uuid", "async_uuid_given"]);
    let session = fields.string("uuid")?;
    let session = fields.needed("uuid", session)?;
    let session = Uuid::try_parse(&session).map_err(|error| format!("uuid: {session:?}: {error}"))?;
    let cn = fields.string("cn")?;
    let cn = fields.needed("cn", cn)?;
    fields.finish(&["uuid", "cn"])?;
    SessionRecord { session, cn }.encode(charset).map_err(said)
}

pub(super) fn resolver_json(octets: &[u8], charset: DosCharset) -> Result<String, String> {
    let ResolverRecord { hosts } = ResolverRecord::decode(octets, charset).map_err(said)?;
    text(&ResolverJson { hosts })
}

pub(super) fn resolver_octets(json: &str, charset: DosCharset) -> Result<Vec<u8>, String> {
    let mut fields = Fields::parse(json)?;
    // It is in the key, not in the record. One that can have no key has no record either.
    if let Some(cn) = fields.string("cn")? {
        Cn::new(&cn).map_err(said)?;
    }
    let hosts = fields.strings("hosts")?;
    fields.finish(&["hosts"])?;
    ResolverRecord { hosts }.encode(charset).map_err(said)
}

pub(super) fn subscription_json(octets: &[u8]) -> Result<String, String> {
    let record = SubscriptionRecord::decode(octets).map_err(said)?;
    let subscription = |one: Subscription| SubscriptionJson {
        handle: one.handle,
        flags: one.flags,
        fid: format!("{:#x}", one.fid),
        mid: format!("{:#x}", one.mid),
        properties: one.properties.iter().map(|tag| format!("{tag:#x}")).collect(),
    };
    text(&SubscriptionsJson { subscriptions: record.subscriptions.into_iter().map(subscription).collect() })
}

pub(super) fn subscription_octets(json: &str) -> Result<Vec<u8>, String> {
    let mut fields = Fields::parse(json)?;
    // It is in the key.
    fields.ignore(&["uuid"]);
    let objects = fields.objects("subscriptions")?;
    fields.finish(&["subscriptions"])?;
    let mut record = SubscriptionRecord::default();
    for object in objects {
        match record.add(subscription(object)?) {
            Ok(()) => {}
            // As OpenChange does it: the first one stays.
            Err(error @ EncodeError::DuplicateHandle { .. }) => {
                output::complain(&format!("warning: subscription: {error}: the first one is kept"));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    record.encode().map_err(said)
}

fn subscription(mut fields: Fields) -> Result<Subscription, String> {
    let handle = fields.number("handle")?;
    let handle = fields.needed("handle", handle)?;
    let flags = fields.number("flags")?;
    let flags = fields.needed("flags", flags)?;
    let fid = fields.number("fid")?.unwrap_or_default();
    let mid = fields.number("mid")?.unwrap_or_default();
    let place = fields.place("properties");
    let tag = |(at, value): (usize, &Value)| number(&format!("{place}[{at}]"), value);
    let properties = fields.array("properties")?.iter().enumerate().map(tag).collect::<Result<_, _>>()?;
    fields.finish(&["handle", "flags", "fid", "mid", "properties"])?;
    Ok(Subscription { handle, flags, fid, mid, properties })
}

pub(super) fn new_mail_json(octets: &[u8], charset: DosCharset) -> Result<String, String> {
    let NewMail { backend, message, folder, separator } = NewMail::decode(octets, charset).map_err(said)?;
    text(&NewMailJson { backend, eml: message, folder, separator })
}

pub(super) fn new_mail_octets(json: &str, charset: DosCharset) -> Result<Vec<u8>, String> {
    let mut fields = Fields::parse(json)?;
    let backend = fields.string("backend")?.unwrap_or_else(|| "sogo".to_owned());
    let message = fields.string("eml")?;
    let message = fields.needed("eml", message)?;
    let folder = fields.string("folder")?;
    let folder = fields.needed("folder", folder)?;
    let separator = fields.number("separator")?.unwrap_or(b'/');
    fields.finish(&["backend", "eml", "folder", "separator"])?;
    NewMail { backend, message, folder, separator }.encode(charset).map_err(said)
}
