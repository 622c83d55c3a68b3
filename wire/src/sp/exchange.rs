//! The whole conversation of a short-lived sender: some messages to one peer, then close.
//!
//! The caller writes [`Exchange::output`], says with [`Exchange::wrote`] how much of it went out, hands what
//! it reads to [`Exchange::feed`] and the peer's end of stream to [`Exchange::closed`]. Once
//! [`Exchange::outcome`] is not `None` any more there is nothing left to do but close the socket.
//!
//! PUSH ends when our octets are out and the peer's header was read and is right: a sender that closes
//! with the header unread resets the connection and loses up to half of its messages. Over ipc the sender also
//! waits for the peer's end of stream after it has closed its own direction ([`Exchange::wants_half_close`]):
//! a unix socket that is closed on one side tells the other at once, even before it has read what is
//! there, and libraries drop the message then (libnanomsg 1.1.5: 131 of 1,000 arrive). Over tcp they do not.
//!
//! REQ sends one request after the other, each when the one before it is answered.

use std::collections::VecDeque;

use super::Transport;
use super::frame::{FrameDecoder, FrameError, encode_frame, take};
use super::handshake::{HANDSHAKE_LEN, Handshake, HandshakeError, Protocol};

/// The largest reply that is accepted, its id not counted, unless [`Exchange::with_reply_limit`] says otherwise.
pub const REPLY_LIMIT: u64 = 64 * 1024;

/// The bit that ends the backtrace of an SP request; the rest of that word is the request's id.
const LAST_HOP: u32 = 0x8000_0000;

/// How an exchange ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// PUSH: our octets are out and the peer's header is right.
    Pushed {
        /// The peer closed its side after we had closed ours: it has read everything.
        receipt: bool,
    },
    /// REQ: the peer answered; the bodies of its replies, in the order of the requests.
    Replied(Vec<Vec<u8>>),
}

/// How an exchange failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The peer closed the connection too early.
    #[error("the peer closed the connection {}", match .read { 0 => "before it said anything".to_owned(), n => format!("after {n} octets, too early") })]
    ClosedEarly {
        /// Octets that it sent before.
        read: u64,
    },
    /// The peer's header is not that of a fitting SP socket.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The peer's frame is too large or no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A reply without the id of a request.
    #[error("reply of {len} octets without a request id: expected at least 4 octets")]
    BadReply {
        /// Its length.
        len: usize,
    },
}

#[derive(Debug, Clone)]
enum State {
    /// Waiting for the peer's header.
    Header,
    /// PUSH: the header is right; our octets may not be out yet.
    Pushing,
    /// PUSH: everything is out; the peer's end of stream is the receipt.
    Receipt,
    /// REQ: waiting for the reply.
    Reply,
    Ended(Result<Outcome, ExchangeError>),
}

/// Some messages to one peer; see the module's documentation.
#[derive(Debug, Clone)]
pub struct Exchange {
    transport: Transport,
    protocol: Protocol,
    output: Vec<u8>,
    written: usize,
    /// REQ: the id of the request that is out.
    request: u32,
    /// REQ: the payloads of those that are to follow.
    waiting: VecDeque<Vec<u8>>,
    answers: Vec<Vec<u8>>,
    header: Vec<u8>,
    read: u64,
    replies: FrameDecoder,
    receipt: bool,
    state: State,
}

impl Exchange {
    /// Sends one message to a PULL socket.
    pub fn push(transport: Transport, payload: &[u8]) -> Exchange {
        Exchange::push_all(transport, [payload])
    }

    /// Sends several messages to a PULL socket, back to back.
    pub fn push_all<'a>(transport: Transport, payloads: impl IntoIterator<Item = &'a [u8]>) -> Exchange {
        let mut exchange = Exchange::new(transport, Protocol::Push);
        for payload in payloads {
            encode_frame(transport, &[payload], &mut exchange.output);
        }
        exchange
    }

    /// Sends one request to a REP socket and waits for the reply to it. The top bit of the id is set on the
    /// wire whether it is set here or not.
    pub fn request(transport: Transport, request: u32, payload: &[u8]) -> Exchange {
        Exchange::request_all(transport, request, [payload])
    }

    /// Sends several requests to a REP socket, each when the one before it is answered. Their ids count up
    /// from `first`.
    pub fn request_all<'a>(
        transport: Transport,
        first: u32,
        payloads: impl IntoIterator<Item = &'a [u8]>,
    ) -> Exchange {
        let mut exchange = Exchange::new(transport, Protocol::Req);
        exchange.request = first;
        exchange.waiting = payloads.into_iter().map(<[u8]>::to_vec).collect();
        exchange.next_request();
        exchange
    }

    fn new(transport: Transport, protocol: Protocol) -> Exchange {
        Exchange {
            transport,
            protocol,
            output: Handshake::new(protocol).to_octets().to_vec(),
            written: 0,
            request: 0,
            waiting: VecDeque::new(),
            answers: Vec::new(),
            header: Vec::new(),
            read: 0,
            replies: FrameDecoder::new(transport, REPLY_LIMIT + 4),
            receipt: transport == Transport::Ipc,
            state: State::Header,
        }
    }

    /// The same over a connection on which an exchange of this kind has ended well: without the handshake. Only as
    /// long as nothing was written.
    #[must_use]
    pub fn on_open_connection(mut self) -> Exchange {
        if self.written == 0 && matches!(self.state, State::Header) {
            self.written = HANDSHAKE_LEN;
            self.state = match self.protocol {
                Protocol::Req => State::Reply,
                _ => State::Pushing,
            };
        }
        self
    }

    /// Accepts replies of up to `limit` octets, the request id not counted.
    #[must_use]
    pub fn with_reply_limit(mut self, limit: u64) -> Exchange {
        self.replies = FrameDecoder::new(self.transport, limit.saturating_add(4));
        self
    }

    /// Whether PUSH waits for the peer's end of stream: by default over ipc only.
    #[must_use]
    pub fn with_receipt(mut self, receipt: bool) -> Exchange {
        self.receipt = receipt;
        self
    }

    /// Whether it is REQ.
    pub fn is_request(&self) -> bool {
        self.protocol == Protocol::Req
    }

    /// What carries it.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// What is still to be written.
    pub fn output(&self) -> &[u8] {
        self.output.get(self.written..).unwrap_or(&[])
    }

    /// The first `count` octets of [`Exchange::output`] were written.
    pub fn wrote(&mut self, count: usize) {
        self.written = self.written.saturating_add(count).min(self.output.len());
        self.advance();
    }

    /// These octets were read. What comes after the end is not looked at.
    pub fn feed(&mut self, mut input: &[u8]) {
        self.read = self.read.saturating_add(input.len() as u64);
        if matches!(self.state, State::Header) {
            self.header.extend_from_slice(take(&mut input, HANDSHAKE_LEN - self.header.len()));
            if self.header.len() < HANDSHAKE_LEN {
                return;
            }
            self.state = match Handshake::decode(&self.header).and_then(|peer| peer.fits(self.protocol)) {
                Err(error) => State::Ended(Err(error.into())),
                Ok(()) if self.protocol == Protocol::Req => State::Reply,
                Ok(()) => State::Pushing,
            };
            self.advance();
        }
        while matches!(self.state, State::Reply) {
            match self.replies.next_message(&mut input) {
                Ok(None) => break,
                Ok(Some(message)) => self.reply(message),
                Err(error) => self.state = State::Ended(Err(error.into())),
            }
        }
    }

    /// The peer ended its stream (or the connection broke).
    pub fn closed(&mut self) {
        self.state = match &self.state {
            State::Ended(_) => return,
            State::Receipt => State::Ended(Ok(Outcome::Pushed { receipt: true })),
            State::Header | State::Pushing | State::Reply => {
                State::Ended(Err(ExchangeError::ClosedEarly { read: self.read }))
            }
        };
    }

    /// PUSH: everything is out and the header is right; only the receipt is missing. Close the sending
    /// direction now and go on reading.
    pub fn wants_half_close(&self) -> bool {
        matches!(self.state, State::Receipt)
    }

    /// No more time. Whoever waits only for a receipt has succeeded without one.
    pub fn give_up(&mut self) {
        if matches!(self.state, State::Receipt) {
            self.state = State::Ended(Ok(Outcome::Pushed { receipt: false }));
        }
    }

    /// How it ended, or `None` while there is something to write or to read.
    pub fn outcome(&self) -> Option<&Result<Outcome, ExchangeError>> {
        match &self.state {
            State::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// Octets that the peer sent so far.
    pub fn octets_read(&self) -> u64 {
        self.read
    }

    fn advance(&mut self) {
        if matches!(self.state, State::Pushing) && self.written == self.output.len() {
            self.state = match self.receipt {
                true => State::Receipt,
                false => State::Ended(Ok(Outcome::Pushed { receipt: false })),
            };
        }
    }

    fn reply(&mut self, mut message: Vec<u8>) {
        let Some(&id) = message.first_chunk::<4>() else {
            self.state = State::Ended(Err(ExchangeError::BadReply { len: message.len() }));
            return;
        };
        // A reply to somebody else's request is none of ours: go on waiting.
        if u32::from_be_bytes(id) != self.request || self.written < self.output.len() {
            return;
        }
        message.drain(..4);
        self.answers.push(message);
        self.request = self.request.wrapping_add(1);
        if !self.next_request() {
            self.state = State::Ended(Ok(Outcome::Replied(std::mem::take(&mut self.answers))));
        }
    }

    /// Puts the next request out, if there is one.
    fn next_request(&mut self) -> bool {
        let Some(payload) = self.waiting.pop_front() else { return false };
        self.request |= LAST_HOP;
        encode_frame(self.transport, &[&self.request.to_be_bytes(), &payload], &mut self.output);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PULL: [u8; 8] = Handshake::new(Protocol::Pull).to_octets();
    const REP: [u8; 8] = Handshake::new(Protocol::Rep).to_octets();

    fn replied(request: u32, body: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        encode_frame(Transport::Tcp, &[&request.to_be_bytes(), body], &mut octets);
        octets
    }

    fn write_all(exchange: &mut Exchange) -> Vec<u8> {
        let octets = exchange.output().to_vec();
        exchange.wrote(octets.len());
        octets
    }

    #[test]
    fn an_open_connection_needs_no_header() {
        let mut exchange = Exchange::request(Transport::Tcp, 5, b"abc").on_open_connection();
        assert_eq!(write_all(&mut exchange), b"\0\0\0\0\0\0\0\x07\x80\0\0\x05abc");
        exchange.feed(&replied(0x8000_0004, b"late"));
        assert_eq!(exchange.outcome(), None, "the reply to the exchange before");
        exchange.feed(&replied(0x8000_0005, b"yes"));
        assert_eq!(exchange.outcome(), Some(&Ok(Outcome::Replied(vec![b"yes".to_vec()]))));
        let mut exchange = Exchange::push(Transport::Tcp, b"abc").on_open_connection();
        assert_eq!(write_all(&mut exchange), b"\0\0\0\0\0\0\0\x03abc");
        assert_eq!(exchange.outcome(), Some(&Ok(Outcome::Pushed { receipt: false })));
    }

    #[test]
    fn push_ends_when_all_is_out_and_the_header_is_read() {
        let mut exchange = Exchange::push(Transport::Tcp, b"abc");
        assert_eq!(exchange.output(), b"\0SP\0\0\x50\0\0\0\0\0\0\0\0\0\x03abc");
        exchange.wrote(18);
        assert_eq!(exchange.output(), b"c");
        exchange.feed(&PULL);
        assert_eq!(exchange.outcome(), None, "one octet is not out");
        exchange.wrote(1);
        assert_eq!(exchange.outcome(), Some(&Ok(Outcome::Pushed { receipt: false })));

        let mut exchange = Exchange::push(Transport::Tcp, b"abc");
        write_all(&mut exchange);
        assert_eq!(exchange.outcome(), None, "the header is not read");
        exchange.feed(&PULL[..7]);
        exchange.feed(&PULL[7..]);
        assert_eq!(exchange.outcome(), Some(&Ok(Outcome::Pushed { receipt: false })));
    }

    #[test]
    fn push_over_ipc_waits_for_a_receipt_as_long_as_there_is_time() {
        for (seen, receipt) in [(true, true), (false, false)] {
            let mut exchange = Exchange::push(Transport::Ipc, b"abc");
            write_all(&mut exchange);
            exchange.feed(&PULL);
            assert!(exchange.wants_half_close());
            assert_eq!(exchange.outcome(), None);
            if seen {
                exchange.closed();
            } else {
                exchange.give_up();
            }
            assert_eq!(exchange.outcome(), Some(&Ok(Outcome::Pushed { receipt })));
        }
    }

    #[test]
    fn request_ends_with_the_reply_to_it() {
        let mut exchange = Exchange::request(Transport::Tcp, 5, b"hi");
        assert_eq!(write_all(&mut exchange), b"\0SP\0\0\x30\0\0\0\0\0\0\0\0\0\x06\x80\0\0\x05hi");
        exchange.feed(&REP);
        exchange.feed(&replied(0x8000_0006, b"somebody else's"));
        assert_eq!(exchange.outcome(), None);
        exchange.feed(&replied(0x8000_0005, b"ok"));
        assert_eq!(exchange.outcome(), Some(&Ok(Outcome::Replied(vec![b"ok".to_vec()]))));
        exchange.feed(&replied(0x8000_0005, b"more"));
        exchange.closed();
        assert_eq!(
            exchange.outcome(),
            Some(&Ok(Outcome::Replied(vec![b"ok".to_vec()]))),
            "the end is the end"
        );
    }

    #[test]
    fn several_messages_go_back_to_back_and_several_requests_one_by_one() {
        let payloads = || [&b"a"[..], b"b"];
        let push = Exchange::push_all(Transport::Tcp, payloads());
        assert_eq!(push.output()[8..], *b"\0\0\0\0\0\0\0\x01a\0\0\0\0\0\0\0\x01b");
        let mut exchange = Exchange::request_all(Transport::Tcp, u32::MAX, payloads());
        assert_eq!(write_all(&mut exchange)[16..], *b"\xff\xff\xff\xffa");
        exchange.feed(&REP);
        exchange.feed(&[replied(u32::MAX, b"1"), replied(LAST_HOP, b"too early")].concat());
        assert_eq!(write_all(&mut exchange)[8..], *b"\x80\0\0\0b", "the id wraps, its top bit stays");
        assert_eq!(exchange.outcome(), None);
        exchange.feed(&replied(LAST_HOP, b"2"));
        assert_eq!(exchange.outcome(), Some(&Ok(Outcome::Replied(vec![b"1".to_vec(), b"2".to_vec()]))));
    }

    #[test]
    fn what_goes_wrong_has_a_name() {
        let failed = |exchange: &mut Exchange, octets: &[u8]| {
            write_all(exchange);
            exchange.feed(octets);
            exchange.closed();
            exchange.outcome().unwrap().clone().unwrap_err()
        };
        let push = || Exchange::push(Transport::Tcp, b"x");
        assert_eq!(failed(&mut push(), &[]), ExchangeError::ClosedEarly { read: 0 });
        assert_eq!(failed(&mut push(), &PULL[..3]), ExchangeError::ClosedEarly { read: 3 });
        assert!(matches!(
            failed(&mut push(), b"HTTP/1.1 400"),
            ExchangeError::Handshake(HandshakeError::BadMagic { .. })
        ));
        let pushed = Handshake::new(Protocol::Push).to_octets();
        assert_eq!(
            failed(&mut push(), &pushed),
            ExchangeError::Handshake(HandshakeError::WrongPeer { found: 0x50, expected: 0x51 })
        );
        let ask = || Exchange::request(Transport::Tcp, 1, b"x").with_reply_limit(8);
        assert_eq!(failed(&mut ask(), &REP), ExchangeError::ClosedEarly { read: 8 });
        assert_eq!(
            failed(&mut ask(), &[&REP[..], &replied(0x8000_0001, b"nine long")].concat()),
            ExchangeError::Frame(FrameError::TooLarge { len: 13, limit: 12 })
        );
        let short = [&REP[..], &[0, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3]].concat();
        assert_eq!(failed(&mut ask(), &short), ExchangeError::BadReply { len: 3 });
    }
}
