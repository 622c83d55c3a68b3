//! RopPending, and RopRegisterNotification with its answer.

use ocbus::wire::json::Fields;
use ocbus::wire::ropnotify::{
    FolderId, MessageId, NotificationTypes, RegisterNotification, RegisterNotificationResponse, RopPending,
    Scope,
};
use serde::Serialize;

#[derive(Serialize)]
struct PendingJson {
    session_index: u16,
}

#[derive(Serialize)]
struct RequestJson {
    logon_id: u8,
    input_handle_index: u8,
    output_handle_index: u8,
    types: String,
    whole_store: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mid: Option<String>,
}

#[derive(Serialize)]
struct ResponseJson {
    output_handle_index: u8,
    return_value: String,
}

fn text(value: &impl Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| error.to_string())
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A value must be all there is.
fn alone<T>(octets: &[u8], (value, length): (T, usize)) -> Result<T, String> {
    match octets.len().saturating_sub(length) {
        0 => Ok(value),
        left => Err(format!("at octet {length}: {left} octets left over: expected none")),
    }
}

pub(super) fn pending_json(octets: &[u8]) -> Result<String, String> {
    let RopPending { session_index } = alone(octets, RopPending::decode(octets).map_err(said)?)?;
    text(&PendingJson { session_index })
}

pub(super) fn pending_octets(json: &str) -> Result<Vec<u8>, String> {
    let mut fields = Fields::parse(json)?;
    let session_index = fields.number("session_index")?;
    let session_index = fields.needed("session_index", session_index)?;
    fields.finish(&["session_index"])?;
    Ok(RopPending { session_index }.encode().to_vec())
}

/// The answer has as many octets as no request has.
pub(super) fn register_json(octets: &[u8]) -> Result<String, String> {
    if octets.len() == RegisterNotificationResponse::OCTETS {
        let (response, _) = RegisterNotificationResponse::decode(octets).map_err(said)?;
        let RegisterNotificationResponse { output_handle_index, return_value } = response;
        return text(&ResponseJson { output_handle_index, return_value: format!("0x{return_value:08x}") });
    }
    let request = alone(octets, RegisterNotification::decode(octets).map_err(said)?)?;
    let (fid, mid) = match request.scope {
        Scope::Store => (None, None),
        Scope::Folder(folder) => (Some(folder), None),
        Scope::Message { folder, message } => (Some(folder), Some(message)),
    };
    text(&RequestJson {
        logon_id: request.logon_id,
        input_handle_index: request.input_handle_index,
        output_handle_index: request.output_handle_index,
        types: request.types.to_string(),
        whole_store: fid.is_none(),
        fid: fid.map(|fid| fid.to_string()),
        mid: mid.map(|mid| mid.to_string()),
    })
}

pub(super) fn register_octets(json: &str) -> Result<Vec<u8>, String> {
    let mut fields = Fields::parse(json)?;
    let output_handle_index = fields.number("output_handle_index")?;
    let output_handle_index = fields.needed("output_handle_index", output_handle_index)?;
    if let Some(return_value) = fields.number("return_value")? {
        fields.finish(&["output_handle_index", "return_value"])?;
        return Ok(RegisterNotificationResponse { output_handle_index, return_value }.encode().to_vec());
    }
    let logon_id = fields.number("logon_id")?.unwrap_or_default();
    let input_handle_index = fields.number("input_handle_index")?;
    let input_handle_index = fields.needed("input_handle_index", input_handle_index)?;
    let types = fields.number("types")?;
    let types = NotificationTypes::from_bits(fields.needed("types", types)?);
    let whole_store = fields.boolean("whole_store")?;
    let fid = fields.number("fid")?.map(FolderId::from_u64);
    let mid = fields.number("mid")?.map(MessageId::from_u64);
    fields.finish(&[
        "logon_id",
        "input_handle_index",
        "output_handle_index",
        "types",
        "whole_store",
        "fid",
        "mid",
        "return_value",
    ])?;
    let scope = match (whole_store, fid, mid) {
        (Some(true), None, None) => Scope::Store,
        (Some(true), ..) => return Err("whole_store: true: expected no fid and no mid beside it".to_owned()),
        (_, Some(folder), Some(message)) if message != MessageId::NONE => Scope::Message { folder, message },
        (_, Some(folder), _) => Scope::Folder(folder),
        (_, None, _) => return Err("fid: missing: expected one, or whole_store: true".to_owned()),
    };
    RegisterNotification { logon_id, input_handle_index, output_handle_index, types, scope }
        .encode()
        .map_err(said)
}
