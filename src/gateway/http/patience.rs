//! How long we wait for a peer: one deadline for each connection, which depends on what it owes us.
//!
//! hyper reads and writes through [`Watched`], so that the first octet of a request is seen here before hyper has a
//! request; its own time limit counts from the end of the last request, which is no fault of a peer that is idle.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// The time limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Without a request.
    pub(super) idle: Duration,
    /// From the first octet to the end of the head.
    pub(super) head: Duration,
    /// For an answer that the peer does not read.
    pub(super) write: Duration,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Nothing, since then; or an answer goes on, and went on then.
    Idle(Instant),
    /// A head is coming, since then.
    Head(Instant),
    /// We are at it; a body has a time limit of its own.
    Ours,
}

/// The state of one connection's patience; clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    limits: Limits,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Since when the peer has taken nothing of what we write.
    stalled: Option<Instant>,
}

impl Patience {
    pub(super) fn new(limits: Limits) -> Patience {
        let state = State { phase: Phase::Idle(Instant::now()), stalled: None };
        Patience { limits, state: Arc::new(Mutex::new(state)) }
    }

    /// A whole head is here.
    pub(super) fn requested(&self) {
        self.with(|state| state.phase = Phase::Ours);
    }

    /// The answer's head is made; hyper writes it and what follows.
    pub(super) fn answered(&self) {
        self.with(|state| state.phase = Phase::Idle(Instant::now()));
    }

    /// When to give up, and why; `None` while the peer owes us nothing.
    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        let limits = self.limits;
        self.with(|state| {
            let stalled = state.stalled.map(|since| (since + limits.write, "the answer is not read"));
            let phase = match state.phase {
                Phase::Idle(since) => Some((since + limits.idle, "idle")),
                Phase::Head(since) => Some((since + limits.head, "the head is not complete")),
                Phase::Ours => None,
            };
            match (stalled, phase) {
                (Some(one), Some(other)) => Some(if one.0 < other.0 { one } else { other }),
                (one, other) => one.or(other),
            }
        })
    }

    fn read(&self) {
        self.with(|state| {
            if matches!(state.phase, Phase::Idle(_)) {
                state.phase = Phase::Head(Instant::now());
            }
        });
    }

    /// The peer takes what we write, or does not. `octets`: how many went out.
    fn wrote(&self, goes_on: bool, octets: usize) {
        self.with(|state| {
            if goes_on {
                state.stalled = None;
            } else {
                state.stalled.get_or_insert_with(Instant::now);
            }
            // hyper flushes at every turn, which is no sign of anything.
            if octets > 0 && matches!(state.phase, Phase::Idle(_)) {
                state.phase = Phase::Idle(Instant::now());
            }
        });
    }

    fn wrote_some(&self, result: &Poll<io::Result<usize>>) {
        let octets = if let Poll::Ready(Ok(octets)) = result { *octets } else { 0 };
        self.wrote(result.is_ready(), octets);
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A stream that tells a [`Patience`] what passes.
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) patience: Patience,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if buf.filled().len() > before {
            self.patience.read();
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, octets);
        self.patience.wrote_some(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.patience.wrote_some(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.patience.wrote(result.is_ready(), 0);
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.patience.wrote(result.is_ready(), 0);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { idle: Duration::from_secs(90), head: Duration::from_secs(5), write: Duration::from_secs(7) };

    fn left(patience: &Patience) -> Option<(u64, &'static str)> {
        let (at, why) = patience.deadline()?;
        Some(((at - Instant::now()).as_secs(), why))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_owed_has_a_time() {
        let patience = Patience::new(LIMITS);
        assert_eq!(left(&patience), Some((90, "idle")));
        tokio::time::advance(Duration::from_secs(80)).await;
        patience.read();
        assert_eq!(left(&patience), Some((5, "the head is not complete")));
        tokio::time::advance(Duration::from_secs(4)).await;
        patience.read();
        assert_eq!(left(&patience), Some((1, "the head is not complete")), "one octet more is no delay");
        patience.requested();
        patience.read();
        assert_eq!(left(&patience), None);
        patience.answered();
        patience.wrote(false, 0);
        assert_eq!(left(&patience), Some((7, "the answer is not read")));
        tokio::time::advance(Duration::from_secs(6)).await;
        patience.wrote(false, 0);
        assert_eq!(left(&patience), Some((1, "the answer is not read")));
        patience.wrote(true, 0);
        assert_eq!(left(&patience), Some((84, "idle")), "flushing is no sign of life");
        tokio::time::advance(Duration::from_secs(60)).await;
        patience.wrote(true, 7);
        assert_eq!(left(&patience), Some((90, "idle")), "an answer that goes on is not idle");
    }
}
