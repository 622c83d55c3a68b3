//! Requests and answers of the DoveAdm HTTP API, as octets.
//!
//! Observed of Dovecot 2.3.19 and 2.4.4 (`tests/data/doveadm/` has the captures): a request is an array of
//! `["command", {parameters}, "tag"]`, the answer an array of `["doveadmResponse", [rows], "tag"]` or
//! `["error", {"type": ..., "exitCode": n}, "tag"]`, in the same order. A key that is not set reads as an empty
//! value, and unsetting it again is no error. A set without a value closes the connection without an answer, so
//! that a command here cannot be without one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::SerializeTuple as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::gateway::settings::Secret;

/// The path of the API.
pub(super) const PATH: &str = "/doveadm/v1";

/// How we prove who we are.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Dovecot's `doveadm_api_key`.
    ApiKey(Secret),
    /// Dovecot's `doveadm_password`.
    Password(Secret),
}

impl Auth {
    /// The value of the `Authorization` header: not to be logged.
    pub(super) fn header(&self) -> String {
        match self {
            Auth::ApiKey(key) => format!("X-Dovecot-API {}", STANDARD.encode(key.expose())),
            Auth::Password(password) => {
                format!("Basic {}", STANDARD.encode(format!("doveadm:{}", password.expose())))
            }
        }
    }
}

/// One command on a key of a mailbox's metadata. The mailbox `""` is the server, for the user who asks.
#[derive(Debug, Clone, Copy)]
pub(in crate::registration) enum Command<'a> {
    /// `mailboxMetadataGet`.
    Get { user: &'a str, key: &'a str },
    /// `mailboxMetadataSet`.
    Set { user: &'a str, key: &'a str, value: &'a str },
    /// `mailboxMetadataUnset`.
    Unset { user: &'a str, key: &'a str },
    /// `mailboxMetadataList`.
    List { user: &'a str },
}

impl<'a> Command<'a> {
    /// Whose it is.
    pub(super) fn user(&self) -> &'a str {
        match self {
            Command::Get { user, .. }
            | Command::Set { user, .. }
            | Command::Unset { user, .. }
            | Command::List { user } => user,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Parameters<'a> {
    user: &'a str,
    /// Without it the mailbox `""` is refused with exit code 64.
    allow_empty_mailbox_name: bool,
    mailbox: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
}

/// A command and its place in the request, which is its tag.
struct Tagged<'a>(Command<'a>, usize);

impl Serialize for Tagged<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (name, user, key, value) = match self.0 {
            Command::Get { user, key } => ("mailboxMetadataGet", user, Some(key), None),
            Command::Set { user, key, value } => ("mailboxMetadataSet", user, Some(key), Some(value)),
            Command::Unset { user, key } => ("mailboxMetadataUnset", user, Some(key), None),
            Command::List { user } => ("mailboxMetadataList", user, None, None),
        };
        let parameters = Parameters { user, allow_empty_mailbox_name: true, mailbox: "", key, value };
        let mut tuple = serializer.serialize_tuple(3)?;
        tuple.serialize_element(name)?;
        tuple.serialize_element(&parameters)?;
        tuple.serialize_element(&self.1.to_string())?;
        tuple.end()
    }
}

/// The body of one request with these commands.
pub(super) fn body(commands: &[Command<'_>]) -> Result<Vec<u8>, ApiError> {
    let tagged: Vec<Tagged<'_>> = commands.iter().enumerate().map(|(at, one)| Tagged(*one, at)).collect();
    serde_json::to_vec(&tagged).map_err(|error| ApiError::Answer(error.to_string()))
}

/// What a command that went well has to say: nothing (set, unset), one value (get), keys (list).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Value {
    /// Of a get: the value, empty when the key is not set.
    pub value: Option<String>,
    /// Of a list: the keys, without `/private/`.
    pub keys: Vec<String>,
}

/// Why one command of a request was not done. The others of the request may have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Exit code 67.
    #[error("Dovecot knows no such user (exit code 67)")]
    UnknownUser,
    /// Exit code 68.
    #[error("the user has no such mailbox (exit code 68)")]
    UnknownMailbox,
    /// Exit code 64.
    #[error("Dovecot finds fault with the command's arguments (exit code 64)")]
    Usage,
    /// Exit code 75: the storage, a lock, or a service behind Dovecot.
    #[error("Dovecot failed for the moment (exit code 75)")]
    Temporary,
    /// Any other exit code of doveadm.
    #[error("doveadm ended with exit code {0}")]
    ExitCode(i64),
    /// `unknownMethod`: this Dovecot's doveadm does not have the command.
    #[error("this Dovecot's API does not have the command (unknownMethod): expected Dovecot 2.2.22 or later")]
    UnknownMethod,
    /// `invalidRequest`: it does not take a parameter.
    #[error("this Dovecot's API does not take a parameter of the command (invalidRequest)")]
    InvalidRequest,
    /// Another type of error.
    #[error("Dovecot answered with the error '{0}'")]
    Other(String),
}

/// Why a request has no outcomes at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// 401.
    #[error("Dovecot refuses the credentials (401): expected its doveadm_api_key or doveadm_password")]
    Unauthorized,
    /// 400, with what it says.
    #[error("Dovecot cannot read the request (400): {0}")]
    BadRequest(String),
    /// Another status: not the API, or a server that is in trouble.
    #[error("status {0}: expected the DoveAdm API at {PATH}")]
    Status(u16),
    /// A body that is no answer to what was asked.
    #[error("no answer of the DoveAdm API: {0}")]
    Answer(String),
    /// An answer of the API, with something in it that cannot be read.
    #[error("an answer of the DoveAdm API that cannot be read: {0}")]
    Unreadable(String),
}

#[derive(Deserialize)]
struct Fault {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "exitCode", default)]
    exit_code: i64,
}

#[derive(Deserialize)]
struct Row {
    value: Option<String>,
    key: Option<String>,
}

/// Reads an answer to `asked` commands: one outcome for each, in their order.
pub(super) fn outcomes(
    status: u16,
    body: &[u8],
    asked: usize,
) -> Result<Vec<Result<Value, CommandError>>, ApiError> {
    match status {
        200 => {}
        400 => return Err(ApiError::BadRequest(shown(body))),
        401 => return Err(ApiError::Unauthorized),
        other => return Err(ApiError::Status(other)),
    }
    let wrong = |error: &dyn std::fmt::Display| ApiError::Answer(format!("{error}: '{}'", shown(body)));
    // Dovecot writes values as they are, also where they are no UTF-8.
    let text = String::from_utf8_lossy(body);
    let answers: Vec<(String, serde_json::Value, String)> = serde_json::from_str(&text).map_err(|error| {
        // Values are the users', and may be anything; what stands in front of them is Dovecot's.
        let heads = [&b"[[\"doveadmResponse\",["[..], b"[[\"error\",{"];
        match error.is_syntax() && heads.iter().any(|head| body.starts_with(head)) {
            true => ApiError::Unreadable(format!("{error}: '{}'", shown(body))),
            false => wrong(&error),
        }
    })?;
    if answers.len() != asked {
        return Err(ApiError::Answer(format!("{} outcomes for {asked} commands", answers.len())));
    }
    let mut outcomes = Vec::with_capacity(asked);
    for (at, (kind, payload, tag)) in answers.into_iter().enumerate() {
        if tag != at.to_string() {
            return Err(ApiError::Answer(format!("outcome {at} has the tag '{}'", tag.escape_debug())));
        }
        outcomes.push(outcome(&kind, payload).map_err(|error| wrong(&error))?);
    }
    Ok(outcomes)
}

fn outcome(kind: &str, payload: serde_json::Value) -> serde_json::Result<Result<Value, CommandError>> {
    if kind == "doveadmResponse" {
        let rows: Vec<Row> = serde_json::from_value(payload)?;
        let value = rows.iter().find_map(|row| row.value.clone());
        return Ok(Ok(Value { value, keys: rows.into_iter().filter_map(|row| row.key).collect() }));
    }
    let fault: Fault = serde_json::from_value(payload)?;
    Ok(Err(match (fault.kind.as_str(), fault.exit_code) {
        ("exitCode", 64) => CommandError::Usage,
        ("exitCode", 67) => CommandError::UnknownUser,
        ("exitCode", 68) => CommandError::UnknownMailbox,
        ("exitCode", 75) => CommandError::Temporary,
        ("exitCode", code) => CommandError::ExitCode(code),
        ("unknownMethod", _) => CommandError::UnknownMethod,
        ("invalidRequest", _) => CommandError::InvalidRequest,
        (other, _) => CommandError::Other(other.escape_debug().to_string()),
    }))
}

/// The beginning of a body, in one line.
fn shown(body: &[u8]) -> String {
    let beginning = body.get(..120).unwrap_or(body);
    String::from_utf8_lossy(beginning).trim().escape_debug().to_string()
}
