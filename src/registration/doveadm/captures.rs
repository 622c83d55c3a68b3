//! The codec against what Dovecot really said (`tests/data/doveadm/`).

use std::fs;
use std::path::Path;

use super::super::KEY;
use super::codec::{ApiError, Auth, Command, CommandError, Value, body, outcomes};
use crate::gateway::settings::Secret;

/// One recorded exchange.
struct Capture {
    name: String,
    authorization: Option<String>,
    request: String,
    /// `None`: the server closed without an octet.
    answer: Option<(u16, String)>,
}

fn captures() -> Vec<Capture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/doveadm");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 32);
    files.iter().map(|file| capture(file)).collect()
}

fn capture(file: &Path) -> Capture {
    let text = fs::read_to_string(file).unwrap();
    let (request, answer) = text.split_once("<<<< RESPONSE\n").unwrap();
    let (head, request_body) = request.split_once("\r\n\r\n").unwrap();
    let header = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
    };
    let length: usize = header("Content-Length").map_or(0, |length| length.parse().unwrap());
    let answer = answer.split_once("\r\n\r\n").map(|(head, body)| {
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    });
    Capture {
        name: file.file_stem().unwrap().to_string_lossy().into_owned(),
        authorization: header("Authorization"),
        request: request_body[..length].to_owned(),
        answer,
    }
}

/// The recorded answer with the tags that we would have sent.
fn replay(capture: &Capture, asked: usize) -> Result<Vec<Result<Value, CommandError>>, ApiError> {
    let (status, body) = capture.answer.clone().unwrap();
    let mut body = body;
    for tag in ["tag1", "tag2", "tag3", "tag4", "t", "a"] {
        body = body.replace(&format!("\"{tag}\"]"), "\"0\"]");
    }
    outcomes(status, body.replace("\"b\"]", "\"1\"]").as_bytes(), asked)
}

fn value(value: &str) -> Value {
    Value { value: Some(value.to_owned()), keys: Vec::new() }
}

#[test]
fn every_recorded_answer_is_read_as_what_it_is() {
    let done = || Ok(vec![Ok(Value::default())]);
    let failed = |error| Ok(vec![Err(error)]);
    let keys = |key: &str| Ok(vec![Ok(Value { value: None, keys: vec![key.to_owned()] })]);
    for capture in captures() {
        let number: u32 = capture.name[..2].parse().unwrap();
        let asked = match number {
            10 => 2,
            25 => 0,
            _ => 1,
        };
        let Some((_, _)) = &capture.answer else {
            assert!(matches!(number, 21 | 32), "{}", capture.name);
            continue;
        };
        let read = replay(&capture, asked);
        let wanted = match number {
            1 | 6 | 7 | 9 | 11 => done(),
            2 | 26 => failed(CommandError::Usage),
            3 => Ok(vec![Ok(value("user=11@3"))]),
            4 => keys("vendor/vendor.dovecot/http-notify"),
            5 => keys("/vendor.dovecot/http-notify"),
            8 => Ok(vec![Ok(value(""))]),
            10 => Ok(vec![Ok(Value::default()), Ok(value("user=11@3"))]),
            12..=16 => Err(ApiError::Unauthorized),
            17 => failed(CommandError::UnknownUser),
            18 => failed(CommandError::UnknownMailbox),
            19 => failed(CommandError::UnknownMethod),
            20 => failed(CommandError::InvalidRequest),
            22 => Err(ApiError::BadRequest("JSON parse error: Missing \\'}\\'".to_owned())),
            23 => Err(ApiError::BadRequest("JSON parse error: Invalid data as value".to_owned())),
            24 => Err(ApiError::BadRequest("Request must be a JSON array".to_owned())),
            25 => Ok(Vec::new()),
            27 | 31 => Err(ApiError::Status(404)),
            // Other methods than ours: a list of commands, of paths, nothing.
            28..=30 => {
                assert!(matches!(read, Err(ApiError::Answer(_))), "{}: {read:?}", capture.name);
                continue;
            }
            _ => panic!("{}", capture.name),
        };
        assert_eq!(read, wanted, "{}", capture.name);
    }
}

#[test]
fn our_requests_are_those_that_were_recorded() {
    let (user, key) = ("bob", KEY);
    let set = Command::Set { user, key, value: "user=11@3" };
    let get = Command::Get { user, key };
    let ours: [(u32, &[Command<'_>]); 5] = [
        (1, &[set]),
        (3, &[get]),
        (4, &[Command::List { user }]),
        (7, &[Command::Unset { user, key }]),
        (10, &[set, get]),
    ];
    let captures = captures();
    for (number, commands) in ours {
        let capture = captures.iter().find(|one| one.name.starts_with(&format!("{number:02}-"))).unwrap();
        let mut recorded: serde_json::Value = serde_json::from_str(&capture.request).unwrap();
        for (at, command) in recorded.as_array_mut().unwrap().iter_mut().enumerate() {
            command[2] = serde_json::Value::from(at.to_string());
        }
        let sent: serde_json::Value = serde_json::from_slice(&body(commands).unwrap()).unwrap();
        assert_eq!(sent, recorded, "{}", capture.name);
    }
    let authorization = |number: &str| {
        let capture = captures.iter().find(|one| one.name.starts_with(number)).unwrap();
        capture.authorization.clone().unwrap()
    };
    assert_eq!(Auth::ApiKey(Secret::new("s3cr3t-api-key")).header(), authorization("01"));
    assert_eq!(Auth::Password(Secret::new("dovepass")).header(), authorization("11"));
}

#[test]
fn answers_that_are_not_to_what_was_asked_are_refused() {
    let one = r#"["doveadmResponse",[],"0"]"#;
    for (body, asked) in [
        (format!("[{one}]"), 2),
        (format!("[{one},{one}]"), 2),
        (r#"[["doveadmResponse",[],"1"]]"#.to_owned(), 1),
        (r#"[["doveadmResponse",{},"0"]]"#.to_owned(), 1),
        (r#"[["error",[],"0"]]"#.to_owned(), 1),
        (r#"[["doveadmResponse",[]]]"#.to_owned(), 1),
        (String::new(), 1),
        ("[".repeat(100_000), 1),
    ] {
        assert!(matches!(outcomes(200, body.as_bytes(), asked), Err(ApiError::Answer(_))), "{body}");
    }
    let error = |code| format!(r#"[["error",{{"type":"exitCode","exitCode":{code}}},"0"]]"#);
    assert_eq!(outcomes(200, error(75).as_bytes(), 1).unwrap(), [Err(CommandError::Temporary)]);
    assert_eq!(outcomes(200, error(2).as_bytes(), 1).unwrap(), [Err(CommandError::ExitCode(2))]);
}
