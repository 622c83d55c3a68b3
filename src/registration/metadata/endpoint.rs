//! Where an IMAP server is.

use std::fmt;
use std::str::FromStr;

use crate::registration::endpoints::is_local;

/// A server: `imap://host[:port]` (143) or `imaps://host[:port]` (993).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImapEndpoint {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

impl ImapEndpoint {
    /// Whether it is `imaps`.
    pub fn has_tls(&self) -> bool {
        self.tls
    }

    /// Whether it is this machine, by its name or number.
    pub fn is_local(&self) -> bool {
        is_local(&self.host)
    }
}

impl FromStr for ImapEndpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<ImapEndpoint, String> {
        let wrong =
            || format!("'{}': expected imap://host[:port] or imaps://host[:port]", text.escape_debug());
        let uri: hyper::Uri = text.parse().map_err(|_| wrong())?;
        let (tls, default) = match uri.scheme_str() {
            Some("imap") => (false, 143),
            Some("imaps") => (true, 993),
            _ => return Err(wrong()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let bare = !text.contains('@') && matches!(uri.path(), "" | "/") && uri.query().is_none();
        match bare && uri.port_u16() != Some(0) {
            true => Ok(ImapEndpoint { host: host.to_owned(), port: uri.port_u16().unwrap_or(default), tls }),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for ImapEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "imap{}://{}:{}", if self.tls { "s" } else { "" }, self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_tls_come_from_the_scheme() {
        for (text, shown, local) in [
            ("imap://mail.example.org", "imap://mail.example.org:143", false),
            ("imaps://mail.example.org/", "imaps://mail.example.org:993", false),
            ("imap://[::1]:1143", "imap://[::1]:1143", true),
            ("imap://127.0.0.2", "imap://127.0.0.2:143", true),
            ("imap://localhost", "imap://localhost:143", true),
        ] {
            let endpoint: ImapEndpoint = text.parse().unwrap();
            assert_eq!((endpoint.to_string().as_str(), endpoint.is_local()), (shown, local));
            assert_eq!(endpoint.has_tls(), text.starts_with("imaps"));
        }
        for text in [
            "",
            "mail",
            "http://h",
            "imap://",
            "imap://h:0",
            "imap://h/INBOX",
            "imap://bob:word@h",
            "imap://h?x",
        ] {
            assert!(text.parse::<ImapEndpoint>().unwrap_err().contains("expected imap://host"), "{text}");
        }
    }
}
