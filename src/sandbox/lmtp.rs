//! A small LMTP client: one connection, many mails.

use super::SandboxError;
use super::line::Line;
use super::mail::dot_stuffed;
use std::time::Duration;

/// One reply of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 250 when it worked.
    pub code: u16,
    /// What follows the code; several lines are joined by LF.
    pub text: String,
}

impl Reply {
    /// Whether the code is 2xx.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

/// A connection to Dovecot's LMTP server.
#[derive(Debug)]
pub struct LmtpClient {
    line: Line,
}

impl LmtpClient {
    /// Connects to a port of 127.0.0.1 and says LHLO. `deadline` bounds each reply.
    ///
    /// # Errors
    /// When nobody answers, or not with a greeting.
    pub fn connect(port: u16, deadline: Duration) -> Result<Self, SandboxError> {
        let mut client = Self { line: Line::connect("LMTP", port, deadline)? };
        let greeting = client.reply()?;
        client.expect(&greeting, "connect")?;
        client.command("LHLO sandbox.example.org")?;
        Ok(client)
    }

    /// Changes how long a reply may take.
    ///
    /// # Errors
    /// When the deadline is zero.
    pub fn set_deadline(&mut self, deadline: Duration) -> Result<(), SandboxError> {
        self.line.set_deadline(deadline)
    }

    /// Delivers one mail; gives one reply for each recipient, in their order: that to RCPT where it was
    /// refused, else that to the mail. An empty sender is the null sender.
    ///
    /// # Errors
    /// When the connection breaks, or MAIL or DATA is refused.
    pub fn deliver(
        &mut self,
        from: &str,
        recipients: &[&str],
        mail: impl AsRef<[u8]>,
    ) -> Result<Vec<Reply>, SandboxError> {
        self.command(&format!("MAIL FROM:<{from}>"))?;
        let mut replies = Vec::with_capacity(recipients.len());
        for recipient in recipients {
            self.send(&format!("RCPT TO:<{recipient}>"))?;
            replies.push(self.reply()?);
        }
        if !replies.iter().any(Reply::is_ok) {
            self.command("RSET")?;
            return Ok(replies);
        }
        self.send("DATA")?;
        let go = self.reply()?;
        if go.code != 354 {
            return Err(refused("DATA", &go));
        }
        self.line.send(&dot_stuffed(mail.as_ref()))?;
        for reply in &mut replies {
            if reply.is_ok() {
                *reply = self.reply()?;
            }
        }
        Ok(replies)
    }

    /// Sends a command and gives its reply, which is 2xx.
    ///
    /// # Errors
    /// When it is refused, or the connection breaks.
    pub fn command(&mut self, command: &str) -> Result<Reply, SandboxError> {
        self.send(command)?;
        let reply = self.reply()?;
        self.expect(&reply, command)?;
        Ok(reply)
    }

    /// Says QUIT and closes.
    ///
    /// # Errors
    /// When the server does not say goodbye.
    pub fn quit(mut self) -> Result<(), SandboxError> {
        self.command("QUIT").map(|_| ())
    }

    fn send(&mut self, command: &str) -> Result<(), SandboxError> {
        self.line.send(format!("{command}\r\n").as_bytes())
    }

    fn expect(&self, reply: &Reply, request: &str) -> Result<(), SandboxError> {
        if reply.is_ok() { Ok(()) } else { Err(refused(request, reply)) }
    }

    fn reply(&mut self) -> Result<Reply, SandboxError> {
        let mut texts = Vec::new();
        loop {
            let line = self.line.line()?;
            let malformed = || SandboxError::Answer {
                peer: "LMTP",
                request: "anything (a reply begins with three digits)".to_owned(),
                answer: line.clone(),
            };
            let (code, rest) = line.split_at_checked(3).ok_or_else(malformed)?;
            let code = code.parse().map_err(|_| malformed())?;
            texts.push(rest.get(1..).unwrap_or_default().to_owned());
            if !rest.starts_with('-') {
                return Ok(Reply { code, text: texts.join("\n") });
            }
        }
    }
}

fn refused(request: &str, reply: &Reply) -> SandboxError {
    SandboxError::Answer {
        peer: "LMTP",
        request: request.to_owned(),
        answer: format!("{} {}", reply.code, reply.text),
    }
}
