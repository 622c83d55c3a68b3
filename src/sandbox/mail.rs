//! Mails to deliver.

use uuid::Uuid;

/// A mail with the headers that a notification carries.
#[derive(Debug, Clone)]
pub struct Mail {
    headers: Vec<(String, String)>,
    body: String,
    message_id: String,
    bytes: Vec<u8>,
}

/// A mail with a From, a Subject and a Message-ID of its own. Names and values are written as given: what is
/// not ASCII is the caller's to encode, or not.
#[must_use]
pub fn mail(from: &str, subject: &str, body: &str) -> Mail {
    let message_id = format!("<{}@sandbox.example.org>", Uuid::new_v4().simple());
    let headers = [
        ("From", from),
        ("To", "undisclosed-recipients:;"),
        ("Subject", subject),
        ("Date", "Mon, 05 Jan 2026 10:00:00 +0000"),
        ("Message-ID", &message_id),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Mail { headers: headers.into(), body: body.to_owned(), message_id, bytes: Vec::new() }.written()
}

impl Mail {
    /// Its Message-ID, with the angle brackets.
    #[must_use]
    pub fn message_id(&self) -> &str {
        &self.message_id
    }

    /// Sets a header, or adds it.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        if name.eq_ignore_ascii_case("message-id") {
            value.clone_into(&mut self.message_id);
        }
        self.written()
    }

    /// Leaves a header out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.written()
    }

    /// The mail as an MTA gives it to a local delivery agent, with LF at the ends of lines.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn written(mut self) -> Self {
        let mut text = String::new();
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\n"));
        }
        text.push('\n');
        text.push_str(&self.body);
        if !text.ends_with('\n') {
            text.push('\n');
        }
        self.bytes = text.into_bytes();
        self
    }
}

impl AsRef<[u8]> for Mail {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// The mail with CR LF at the end of every line, as LMTP and IMAP carry it.
pub(super) fn crlf(mail: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(mail.len() + mail.len() / 32);
    let mut previous = 0;
    for &octet in mail {
        if octet == b'\n' && previous != b'\r' {
            wire.push(b'\r');
        }
        wire.push(octet);
        previous = octet;
    }
    wire
}

/// The mail as the lines of an SMTP DATA command, with its final dot.
pub(super) fn dot_stuffed(mail: &[u8]) -> Vec<u8> {
    let plain = crlf(mail);
    let mut wire = Vec::with_capacity(plain.len() + 8);
    for line in plain.split_inclusive(|&octet| octet == b'\n') {
        if line.first() == Some(&b'.') {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    if !wire.ends_with(b"\r\n") {
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_headers_an_empty_line_and_the_body() {
        let mail = mail("a@x", "hi", "body").without("To").without("Date").header("Message-ID", "<1@x>");
        assert_eq!(mail.bytes(), b"From: a@x\nSubject: hi\nMessage-ID: <1@x>\n\nbody\n");
        assert_eq!(mail.message_id(), "<1@x>");
    }

    #[test]
    fn lines_end_in_crlf_once() {
        assert_eq!(crlf(b"a\nb\r\nc"), b"a\r\nb\r\nc");
    }

    #[test]
    fn leading_dots_are_doubled_and_the_end_is_a_dot() {
        assert_eq!(dot_stuffed(b"a\n.b\n..\n"), b"a\r\n..b\r\n...\r\n.\r\n");
        assert_eq!(dot_stuffed(b"a"), b"a\r\n.\r\n");
    }
}
