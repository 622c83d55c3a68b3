//! One client: reads requests, answers them, and is not waited for longer than its limits.

use std::io::{self, ErrorKind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use super::request::{MAX_LINE, Reading, Request, read, words};
use super::shared::{Large, Shared};
use super::store::MAX_VALUE;
use super::{meta, text};

/// What a connection reads at once, and keeps while it is idle.
const USUAL: usize = 16 * 1024;

/// The longest request: its line, its value, and what ends that.
const MOST: usize = MAX_LINE + MAX_VALUE + 2;

/// An answer is written out when it is longer.
const FLUSH: usize = 64 * 1024;

/// Serves a client until it goes, or until it breaks a limit.
pub(super) async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Shared) -> io::Result<()> {
    let mut client = Client {
        stream,
        shared,
        input: vec![0; USUAL],
        begin: 0,
        end: 0,
        out: Vec::new(),
        large_out: Large::none(shared),
        begun: None,
    };
    let mut large = Large::none(shared);
    loop {
        match client.step().await? {
            Next::Go => {}
            Next::End => return client.flush().await,
            Next::Read { least } => {
                // All that it asked for is answered before it is waited for.
                client.flush().await?;
                // Once so much has come, not for what is claimed. The next request may be larger than the last.
                if client.end - client.begin >= USUAL {
                    large.hold(least).await?;
                } else if least <= USUAL && client.shrink() {
                    large.let_go();
                }
                if client.read(least).await? == 0 {
                    return Ok(());
                }
            }
        }
    }
}

struct Client<'s, S> {
    stream: S,
    shared: &'s Shared,
    input: Vec<u8>,
    /// What was read and not used yet.
    begin: usize,
    end: usize,
    out: Vec<u8>,
    /// Of answers that are longer than usual.
    large_out: Large<'s>,
    /// When a request was found that is not whole yet.
    begun: Option<Instant>,
}

/// What follows a step.
enum Next {
    Go,
    /// More octets: of the present request there are this many at least.
    Read {
        least: usize,
    },
    End,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<'_, S> {
    /// Answers one request.
    async fn step(&mut self) -> io::Result<Next> {
        if self.begin == self.end {
            return Ok(Next::Read { least: 1 });
        }
        // Taken out for as long as the request borrows from it.
        let input = std::mem::take(&mut self.input);
        let octets = input.get(self.begin..self.end).unwrap_or_default();
        let (next, used, skip) = match read(octets) {
            Reading::Part { least } => (Ok(Next::Read { least }), 0, 0),
            Reading::Whole(request, used) => (self.answer(&request).await, used, 0),
            Reading::Refused { answer, used, skip } => {
                self.shared.malformed.fetch_add(1, Ordering::Relaxed);
                text::line(&mut self.out, answer);
                (Ok(Next::Go), used, skip)
            }
            Reading::Lost(answer) => {
                self.shared.malformed.fetch_add(1, Ordering::Relaxed);
                text::line(&mut self.out, answer);
                (Ok(Next::End), 0, 0)
            }
            Reading::Binary => {
                self.shared.tell_binary();
                (Ok(Next::End), 0, 0)
            }
        };
        self.input = input;
        self.begin += used;
        if used > 0 {
            self.begun = None;
        }
        if skip > 0 {
            self.skip(skip).await?;
        }
        if self.out.len() > FLUSH {
            self.flush().await?;
        }
        next
    }

    async fn answer(&mut self, request: &Request<'_>) -> io::Result<Next> {
        let (shared, now_ms) = (self.shared, self.shared.now_ms());
        match *request {
            Request::Get { keys, versions } => {
                for key in words(keys) {
                    self.make_room(key).await?;
                    let item = shared.store().get(key, now_ms);
                    if let Some(item) = item {
                        text::value(key, &item, versions, &mut self.out);
                    }
                    // A line may name hundreds of keys, each with a large value.
                    if self.out.len() > FLUSH {
                        self.flush().await?;
                    }
                }
                text::line(&mut self.out, "END");
            }
            Request::Keys => {
                let keys = shared.store().keys(now_ms);
                for (key, item) in keys {
                    text::key(&key, &item, &mut self.out);
                    if self.out.len() > FLUSH {
                        self.flush().await?;
                    }
                }
                text::line(&mut self.out, "END");
            }
            Request::MetaGet { key, flags } => {
                self.make_room(key).await?;
                meta::get(key, flags, &mut shared.store(), now_ms, &mut self.out);
            }
            Request::MetaPut { key, value, flags } => {
                meta::put(key, value, flags, &mut shared.store(), now_ms, &mut self.out);
            }
            Request::MetaDelete { key, flags } => {
                meta::delete(key, flags, &mut shared.store(), now_ms, &mut self.out);
            }
            Request::MetaNoop => text::line(&mut self.out, "MN"),
            Request::Statistics => {
                shared.rows(&mut self.out);
                text::line(&mut self.out, "END");
            }
            Request::Quit => return Ok(Next::End),
            _ => text::answer(request, &mut shared.store(), now_ms, &mut self.out),
        }
        Ok(Next::Go)
    }

    /// Leave to answer with the value of a key, where that is large: it is held until the answer is taken.
    async fn make_room(&mut self, key: &[u8]) -> io::Result<()> {
        let length = self.shared.store().length(key);
        match length > FLUSH {
            true => self.large_out.hold(self.out.len() + length).await,
            false => Ok(()),
        }
    }

    /// Reads what is there, at least one octet; 0 at the end. Room for more than usual is made as octets come.
    async fn read(&mut self, least: usize) -> io::Result<usize> {
        let waits = match self.begin == self.end {
            true => {
                self.begun = None;
                self.shared.config.idle
            }
            // For the whole request: one octet now and then does not buy more time.
            false => {
                let begun = *self.begun.get_or_insert_with(Instant::now);
                self.shared.config.patience.saturating_sub(begun.elapsed())
            }
        };
        self.input.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end - self.begin);
        if self.end == self.input.len() {
            let room = (2 * self.end).min(least.max(USUAL)).min(MOST);
            self.input.resize(room, 0);
        }
        let room = self.input.get_mut(self.end..).unwrap_or_default();
        let read = in_time(waits, self.stream.read(room)).await?;
        self.end += read;
        Ok(read)
    }

    /// Lets memory for a large request go; says whether it could.
    fn shrink(&mut self) -> bool {
        if self.input.len() <= USUAL || self.end - self.begin > USUAL {
            return self.input.len() <= USUAL;
        }
        self.input.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end - self.begin);
        self.input.truncate(USUAL);
        self.input.shrink_to_fit();
        true
    }

    /// Passes over octets that belong to a refused request.
    async fn skip(&mut self, mut left: u64) -> io::Result<()> {
        self.flush().await?;
        let begun = Instant::now();
        loop {
            let there = self.end - self.begin;
            let part = usize::try_from(left).map_or(there, |left| left.min(there));
            self.begin += part;
            left -= u64::try_from(part).unwrap_or(left);
            if left == 0 {
                return Ok(());
            }
            (self.begin, self.end) = (0, 0);
            let waits = self.shared.config.patience.saturating_sub(begun.elapsed());
            let read = in_time(waits, self.stream.read(&mut self.input)).await?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.end = read;
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        in_time(self.shared.config.patience, self.stream.write_all(&self.out)).await?;
        self.out.clear();
        self.out.shrink_to(FLUSH);
        self.large_out.let_go();
        Ok(())
    }
}

async fn in_time<T>(limit: Duration, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, step).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::embedded::EmbeddedConfig;

    /// How much leave is taken after a client has said something, in KiB, when nothing changes any more.
    async fn taken(shared: &Arc<Shared>, said: &[u8]) -> usize {
        let all = shared.large.available_permits();
        // Answers of more than a kilobyte are not taken.
        let (mut client, server) = tokio::io::duplex(1024);
        let serving = Arc::clone(shared);
        let task = tokio::spawn(async move { serve(server, &serving).await });
        client.write_all(said).await.unwrap();
        let mut before = (all, 0);
        while before.1 < 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let left = shared.large.available_permits();
            before = if left == before.0 { (left, before.1 + 1) } else { (left, 0) };
        }
        drop(client);
        let _ = task.await.unwrap();
        assert_eq!(shared.large.available_permits(), all, "all is given back");
        all - before.0
    }

    #[tokio::test]
    async fn memory_for_each_request_and_answer_is_asked_for() {
        let shared = Arc::new(Shared::new(EmbeddedConfig::default()));
        let set = |length: usize, there: usize| {
            let mut octets = format!("ms a {length}\r\n").into_bytes();
            octets.resize(octets.len() + there, b'x');
            octets
        };
        assert_eq!(taken(&shared, b"mn\r\n").await, 0);
        assert_eq!(taken(&shared, &set(1_000_000, 100)).await, 0, "what is claimed takes nothing");
        assert!(taken(&shared, &set(1_000_000, 100_000)).await >= 976);
        // Behind a request that is a little longer than usual.
        let first = [set(20_000, 20_000), b"\r\n".to_vec()].concat();
        let both = [first, set(1_000_000, 900_000)].concat();
        assert!(taken(&shared, &both).await >= 976, "the larger one, too");
        let stored = [set(1_000_000, 1_000_000), b"\r\n".to_vec()].concat();
        assert_eq!(taken(&shared, &stored).await, 0);
        for get in [b"mg a v\r\n".as_slice(), b"get b a\r\n"] {
            assert!(taken(&shared, get).await >= 976, "an answer that nobody takes");
        }
    }
}
