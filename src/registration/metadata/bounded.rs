//! What a server may say: so many octets, and behind the login ASCII only.
//!
//! The login is the server's, what stands behind it the user's: whoever may write to a mailbox may put there anything
//! as the value of our key. async-imap takes memory for any answer, and its parser panics where a value is no UTF-8.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most octets that a server may send in one session: greeting, capabilities, a few answers.
const MAX_OCTETS: usize = 256 * 1024;

/// Why an answer is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("an answer of more than {MAX_OCTETS} octets")]
    TooLong,
    #[error("an answer that is not ASCII")]
    NotAscii,
}

/// A connection to a server.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug> Stream for T {}

/// A stream that gives so many octets and no more.
#[derive(Debug)]
pub(super) struct Bounded {
    stream: Box<dyn Stream>,
    left: usize,
    ascii_only: bool,
}

impl Bounded {
    pub(super) fn new(stream: Box<dyn Stream>) -> Bounded {
        Bounded { stream, left: MAX_OCTETS, ascii_only: false }
    }

    /// From now on it gives nothing but ASCII: our value is, and so are Dovecot's own words.
    pub(super) fn expect_ascii(&mut self) {
        self.ascii_only = true;
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(std::io::Error::other(Unreadable::TooLong)));
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut *self.stream).poll_read(cx, buf);
        let read = buf.filled().get(before..).unwrap_or_default();
        self.left = self.left.saturating_sub(read.len());
        match self.ascii_only && !read.is_ascii() {
            true => Poll::Ready(Err(std::io::Error::other(Unreadable::NotAscii))),
            false => result,
        }
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}
