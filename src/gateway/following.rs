//! The other end of `/v1/traces`: reads a daemon's server-sent events.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use ocbus_resolver::Cn;
use serde::Deserialize;

use super::remote::{Remote, RemoteError};

/// The longest silence: the daemon says something each fifteen seconds.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest event, far above what a request's events take.
const MAX_OCTETS: usize = 64 * 1024 * 1024;

/// One user's traces, as they come.
#[derive(Debug)]
pub struct Following {
    remote: Remote,
    body: Incoming,
    lines: Lines,
}

/// What a daemon says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Told {
    /// From now on nothing is missed.
    Ready,
    /// A [`Trace`](crate::outbox::Trace), in JSON.
    Trace(String),
    /// So many were too many for us, and nothing comes any more.
    Missed(u64),
}

impl Following {
    /// Begins to follow a user.
    pub async fn begin(remote: Remote, cn: &Cn) -> Result<Following, RemoteError> {
        let body = remote.follow(cn).await?;
        Ok(Following { remote, body, lines: Lines::default() })
    }

    /// The next one; `None` when the daemon stops. Nothing is lost when its future is dropped.
    pub async fn next(&mut self) -> Result<Option<Told>, RemoteError> {
        loop {
            if let Some(told) = self.lines.next() {
                return Ok(Some(told));
            }
            if self.lines.octets.len() > MAX_OCTETS {
                return Err(self.remote.refused(200, "an event without an end: expected server-sent events"));
            }
            let frame = tokio::time::timeout(SILENCE, self.body.frame()).await;
            match frame.map_err(|_| self.remote.silent(SILENCE))? {
                Some(frame) => {
                    let frame = frame.map_err(|error| self.remote.broken(&error))?;
                    self.lines
                        .octets
                        .extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
                }
                None => return Ok(None),
            }
        }
    }
}

/// Server-sent events, cut out of octets. Of the standard only what the daemon writes: `event`, `data`, comments.
#[derive(Debug, Default)]
struct Lines {
    octets: Vec<u8>,
    name: String,
    data: String,
}

#[derive(Deserialize)]
struct Missed {
    missed: u64,
}

impl Lines {
    fn next(&mut self) -> Option<Told> {
        let mut read = 0;
        let mut told = None;
        while let Some(rest) = self.octets.get(read..)
            && let Some(end) = rest.iter().position(|octet| *octet == b'\n')
        {
            let line = String::from_utf8_lossy(rest.get(..end).unwrap_or_default());
            let line = line.trim_end_matches('\r');
            read += end + 1;
            match line.split_once(':') {
                Some(("event", name)) => name.trim_start().clone_into(&mut self.name),
                Some(("data", data)) => data.trim_start().clone_into(&mut self.data),
                _ if line.is_empty() => {
                    told = Lines::told(&std::mem::take(&mut self.name), std::mem::take(&mut self.data));
                    if told.is_some() {
                        break;
                    }
                }
                _ => {}
            }
        }
        self.octets.drain(..read);
        told
    }

    fn told(name: &str, data: String) -> Option<Told> {
        match name {
            "ready" => Some(Told::Ready),
            "trace" => Some(Told::Trace(data)),
            "missed" => {
                Some(Told::Missed(serde_json::from_str(&data).map_or(0, |missed: Missed| missed.missed)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_out_wherever_the_octets_are() {
        let text = "event: ready\ndata: null\n\n: nothing new\n\nevent: trace\r\ndata: {\"user\":\"a: b\"}\r\n\r\n\
                    event: later\ndata: 1\n\nevent: missed\ndata: {\"missed\":7}\n\nevent: trace\ndata: {";
        for size in 1..text.len() {
            let (mut lines, mut all) = (Lines::default(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                lines.octets.extend_from_slice(piece);
                all.extend(std::iter::from_fn(|| lines.next()));
            }
            let wanted = [Told::Ready, Told::Trace("{\"user\":\"a: b\"}".to_owned()), Told::Missed(7)];
            assert_eq!(all, wanted, "in pieces of {size}");
        }
    }
}
