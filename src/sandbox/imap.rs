//! A small IMAP client.

use super::SandboxError;
use super::line::Line;
use super::mail::crlf;
use std::time::Duration;

/// A connection to Dovecot's IMAP server, logged in.
#[derive(Debug)]
pub struct ImapClient {
    line: Line,
    tag: u32,
}

impl ImapClient {
    /// Connects to a port of 127.0.0.1 and logs in; the sandbox takes any password. `deadline` bounds each
    /// wait for an answer.
    ///
    /// # Errors
    /// When nobody answers, or the login fails.
    pub fn login(port: u16, user: &str, deadline: Duration) -> Result<Self, SandboxError> {
        let mut client = Self { line: Line::connect("IMAP", port, deadline)?, tag: 0 };
        let greeting = client.line.line()?;
        if !greeting.starts_with("* OK") {
            return Err(answer("connect", &greeting));
        }
        client.command(&format!("LOGIN {} password", quoted(user)))?;
        Ok(client)
    }

    /// Changes how long an answer may take.
    ///
    /// # Errors
    /// When the deadline is zero.
    pub fn set_deadline(&mut self, deadline: Duration) -> Result<(), SandboxError> {
        self.line.set_deadline(deadline)
    }

    /// Sends a command and gives all lines of its answer, the tagged one (without its tag) last. Literals
    /// stand in their lines, after their `{length}`. Mailbox names go through [`mailbox_name`].
    ///
    /// # Errors
    /// When the server says NO or BAD, or the connection breaks.
    pub fn command(&mut self, command: &str) -> Result<Vec<String>, SandboxError> {
        let tag = self.send(command)?;
        self.answer(&tag, command)
    }

    /// Stores a mail in a mailbox, with flags such as `\Seen`.
    ///
    /// # Errors
    /// When the server says NO or BAD, or the connection breaks.
    pub fn append(
        &mut self,
        mailbox: &str,
        flags: &str,
        mail: impl AsRef<[u8]>,
    ) -> Result<Vec<String>, SandboxError> {
        let mail = crlf(mail.as_ref());
        let command = format!("APPEND {} ({flags}) {{{}}}", mailbox_name(mailbox), mail.len());
        let tag = self.send(&command)?;
        let go = self.line.line()?;
        if !go.starts_with('+') {
            return Err(answer(&command, &go));
        }
        self.line.send(&mail)?;
        self.line.send(b"\r\n")?;
        self.answer(&tag, &command)
    }

    /// Says LOGOUT and closes.
    ///
    /// # Errors
    /// When the server does not say goodbye.
    pub fn logout(mut self) -> Result<(), SandboxError> {
        self.command("LOGOUT").map(|_| ())
    }

    fn send(&mut self, command: &str) -> Result<String, SandboxError> {
        self.tag += 1;
        let tag = format!("a{}", self.tag);
        self.line.send(format!("{tag} {command}\r\n").as_bytes())?;
        Ok(tag)
    }

    fn answer(&mut self, tag: &str, request: &str) -> Result<Vec<String>, SandboxError> {
        let mut lines = Vec::new();
        loop {
            let line = self.logical_line()?;
            if let Some(status) = line.strip_prefix(tag).and_then(|rest| rest.strip_prefix(' ')) {
                if !status.starts_with("OK") {
                    return Err(answer(request, status));
                }
                lines.push(status.to_owned());
                return Ok(lines);
            }
            lines.push(line);
        }
    }

    /// A line together with the literals that it contains.
    fn logical_line(&mut self) -> Result<String, SandboxError> {
        let mut line = self.line.line()?;
        while let Some(length) = literal_length(&line) {
            let octets = self.line.octets(length)?;
            line.push_str(&String::from_utf8_lossy(&octets));
            line.push_str(&self.line.line()?);
        }
        Ok(line)
    }
}

fn answer(request: &str, answer: &str) -> SandboxError {
    SandboxError::Answer { peer: "IMAP", request: request.to_owned(), answer: answer.to_owned() }
}

/// The length of the literal that follows this line.
fn literal_length(line: &str) -> Option<usize> {
    line.strip_suffix('}')?.rsplit_once('{')?.1.parse().ok()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A mailbox's name as IMAP writes it: quoted, in modified UTF-7.
#[must_use]
pub fn mailbox_name(name: &str) -> String {
    quoted(&modified_utf7(name))
}

/// RFC 3501, 5.1.3. Dovecot's Maildir uses it for folder names too.
pub(super) fn modified_utf7(name: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";
    fn close(text: &mut String, shifted: &mut Vec<u16>) {
        if shifted.is_empty() {
            return;
        }
        text.push('&');
        let mut bits = 0u32;
        let mut count = 0;
        for octet in shifted.drain(..).flat_map(u16::to_be_bytes) {
            bits = (bits << 8 | u32::from(octet)) & 0xffff;
            count += 8;
            while count >= 6 {
                count -= 6;
                push(text, bits >> count);
            }
        }
        if count > 0 {
            push(text, bits << (6 - count));
        }
        text.push('-');
    }
    fn push(text: &mut String, sextet: u32) {
        let index = usize::try_from(sextet & 63).unwrap_or_default();
        text.extend(ALPHABET.get(index).copied().map(char::from));
    }
    let mut text = String::with_capacity(name.len());
    let mut shifted = Vec::new();
    for character in name.chars() {
        match character {
            ' '..='~' => {
                close(&mut text, &mut shifted);
                text.push(character);
                if character == '&' {
                    text.push('-');
                }
            }
            _ => shifted.extend_from_slice(character.encode_utf16(&mut [0; 2])),
        }
    }
    close(&mut text, &mut shifted);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_ascii_are_shifted() {
        // The examples of RFC 3501 and RFC 2152.
        assert_eq!(modified_utf7("~peter/mail/台北/日本語"), "~peter/mail/&U,BTFw-/&ZeVnLIqe-");
        assert_eq!(modified_utf7("Entwürfe"), "Entw&APw-rfe");
        assert_eq!(modified_utf7("a & b"), "a &- b");
        assert_eq!(modified_utf7("😀"), "&2D3eAA-");
        assert_eq!(mailbox_name("a\"b"), "\"a\\\"b\"");
    }

    #[test]
    fn a_literal_is_announced_at_the_end_of_a_line() {
        assert_eq!(literal_length("* 1 FETCH (BODY[] {42}"), Some(42));
        assert_eq!(literal_length("* 1 FETCH (BODY[] {x}"), None);
        assert_eq!(literal_length("a1 OK"), None);
    }
}
