//! An HTTP client that sends exactly the octets that it is given.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

pub(crate) const NOTIFY: &str = "/preliminary/http-notify/v1/notify";

pub(crate) struct Client(BufReader<TcpStream>);

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The one line that says why.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        let error = self.json()["error"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned();
        assert!(!error.is_empty() && !error.contains('\n'), "{self:?}");
        error
    }
}

impl Client {
    pub(crate) fn connect(port: u16) -> Client {
        let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(15))).unwrap();
        Client(BufReader::new(stream))
    }

    pub(crate) fn send(&mut self, octets: &[u8]) {
        self.try_send(octets).unwrap();
    }

    pub(crate) fn try_send(&mut self, octets: &[u8]) -> std::io::Result<()> {
        self.0.get_mut().write_all(octets)
    }

    /// No more octets from us.
    pub(crate) fn finish(&mut self) {
        self.0.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// The next answer; `None` when the connection is closed instead.
    pub(crate) fn try_answer(&mut self) -> Option<Answer> {
        let mut head = String::new();
        loop {
            let mut line = String::new();
            match self.0.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) if line == "\r\n" => break,
                Ok(_) => head.push_str(&line),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}: after {head:?}"),
            }
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("{head}"));
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        self.0.read_exact(&mut body).unwrap();
        Some(Answer { status, head, body: String::from_utf8(body).unwrap() })
    }

    /// Whatever comes until the connection is closed; `None` when it is reset.
    pub(crate) fn try_answer_raw(&mut self) -> Option<Vec<u8>> {
        let mut octets = Vec::new();
        self.0.read_to_end(&mut octets).ok().map(|_| octets)
    }

    /// Reads lines up to the one that has this.
    #[track_caller]
    pub(crate) fn read_until(&mut self, pattern: &str) {
        let mut line = String::new();
        while !line.contains(pattern) {
            line.clear();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "closed before {pattern}");
        }
    }

    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().expect("an answer before the connection is closed")
    }

    /// Sends a request and gives its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: &[u8]) -> Answer {
        self.send(request);
        self.answer()
    }
}

/// One request on a connection of its own.
#[track_caller]
pub(crate) fn ask(port: u16, request: &[u8]) -> Answer {
    Client::connect(port).ask(request)
}

/// A request. `authorization` is the header's value; empty: no header.
pub(crate) fn request(method: &str, path: &str, authorization: &str, body: &[u8]) -> Vec<u8> {
    let authorization = match authorization {
        "" => String::new(),
        value => format!("Authorization: {value}\r\n"),
    };
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{authorization}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// What Dovecot's OX driver sends for a new mail.
pub(crate) fn notify(user: &str, uid: u32) -> Vec<u8> {
    let body = format!(
        r#"{{"user":"{user}","event":"messageNew","folder":"INBOX","imap-uidvalidity":7,"imap-uid":{uid},"from":"alice@example.org","subject":"hello {uid}","snippet":"Hi","unseen":1}}"#
    );
    request("PUT", NOTIFY, super::BASIC, body.as_bytes())
}
