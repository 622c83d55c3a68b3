//! Messages on an SP connection: over tcp a length (u64, big-endian) and the message; over ipc one octet
//! 01 before the length.

use super::Transport;

/// The head of an ipc frame that is an ordinary message; libnanomsg sends no other.
const IPC_MESSAGE: u8 = 0x01;

/// libnanomsg's own limit of a received message (`NN_RCVMAXSIZE`).
pub const NANOMSG_LIMIT: u64 = 1024 * 1024;

/// Memory is taken for at most this much of a message before its octets are there.
const FIRST_ALLOCATION: usize = 4096;

/// Why a peer's frame is refused. The connection is of no use afterwards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length is above the limit.
    #[error("SP frame of {len} octets: the limit is {limit}")]
    TooLarge {
        /// The length it claims.
        len: u64,
        /// What is accepted.
        limit: u64,
    },
    /// An ipc frame that does not begin with 01.
    #[error("SP frame over ipc begins with octet {found:#04x}, expected 0x01")]
    BadHead {
        /// The octet.
        found: u8,
    },
}

/// Appends the frame of the message that consists of `parts`, one after the other.
pub fn encode_frame(transport: Transport, parts: &[&[u8]], out: &mut Vec<u8>) {
    let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
    if transport == Transport::Ipc {
        out.push(IPC_MESSAGE);
    }
    out.extend_from_slice(&len.to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Takes a stream of octets, cut anywhere, apart into messages.
#[derive(Debug, Clone)]
pub struct FrameDecoder {
    transport: Transport,
    limit: u64,
    /// The head of the frame as far as it has come.
    head: Vec<u8>,
    /// How much of the body is missing; `None` while the head is not complete.
    missing: Option<u64>,
    body: Vec<u8>,
    failed: Option<FrameError>,
}

impl FrameDecoder {
    /// A decoder that accepts messages of up to `limit` octets.
    pub fn new(transport: Transport, limit: u64) -> FrameDecoder {
        FrameDecoder { transport, limit, head: Vec::new(), missing: None, body: Vec::new(), failed: None }
    }

    /// Takes octets from the front of `input` up to the end of the next message, and gives that message,
    /// or `None` when `input` is used up before. After an error it gives the same error for ever.
    pub fn next_message(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.step(input).inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Whether part of a message has come, and the rest is missing.
    pub fn is_inside(&self) -> bool {
        !self.head.is_empty() || self.missing.is_some()
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        if self.missing.is_none() {
            let Some(len) = self.head(input)? else { return Ok(None) };
            self.body = Vec::with_capacity(FIRST_ALLOCATION.min(usize::try_from(len).unwrap_or(usize::MAX)));
            self.missing = Some(len);
        }
        let missing = self.missing.unwrap_or(0);
        let part = take(input, usize::try_from(missing).unwrap_or(usize::MAX));
        self.body.extend_from_slice(part);
        let missing = missing - part.len() as u64;
        if missing > 0 {
            self.missing = Some(missing);
            return Ok(None);
        }
        self.missing = None;
        Ok(Some(std::mem::take(&mut self.body)))
    }

    fn head(&mut self, input: &mut &[u8]) -> Result<Option<u64>, FrameError> {
        let size = match self.transport {
            Transport::Tcp => 8,
            Transport::Ipc => 9,
        };
        self.head.extend_from_slice(take(input, size - self.head.len()));
        if let (Transport::Ipc, Some(&found)) = (self.transport, self.head.first())
            && found != IPC_MESSAGE
        {
            return Err(FrameError::BadHead { found });
        }
        if self.head.len() < size {
            return Ok(None);
        }
        let len = u64::from_be_bytes(self.head.last_chunk::<8>().copied().unwrap_or_default());
        if len > self.limit {
            return Err(FrameError::TooLarge { len, limit: self.limit });
        }
        self.head.clear();
        Ok(Some(len))
    }
}

/// Takes at most `count` octets from the front of `input`.
pub(super) fn take<'a>(input: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (front, rest) = input.split_at_checked(count).unwrap_or((input, &[]));
    *input = rest;
    front
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(transport: Transport, parts: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_frame(transport, parts, &mut out);
        out
    }

    #[test]
    fn frames_are_those_on_the_wire() {
        assert_eq!(encoded(Transport::Tcp, &[b"ab", b"c"]), b"\0\0\0\0\0\0\0\x03abc");
        assert_eq!(encoded(Transport::Ipc, &[b"abc"]), b"\x01\0\0\0\0\0\0\0\x03abc");
        assert_eq!(encoded(Transport::Tcp, &[]), [0; 8]);
    }

    #[test]
    fn messages_come_out_whatever_the_cuts() {
        for transport in [Transport::Tcp, Transport::Ipc] {
            let stream =
                [encoded(transport, &[b"one"]), encoded(transport, &[]), encoded(transport, &[&[7; 9000]])]
                    .concat();
            for cut in [1, 2, 3, 5, 8, 13, 4096, stream.len()] {
                let mut decoder = FrameDecoder::new(transport, 9000);
                let mut messages = Vec::new();
                for mut part in stream.chunks(cut) {
                    while let Some(message) = decoder.next_message(&mut part).unwrap() {
                        messages.push(message);
                    }
                }
                assert_eq!(messages, [b"one".to_vec(), Vec::new(), vec![7; 9000]], "cut {cut}");
                assert!(!decoder.is_inside());
            }
        }
    }

    #[test]
    fn a_claim_takes_no_memory() {
        let mut decoder = FrameDecoder::new(Transport::Tcp, u64::MAX);
        let mut head: &[u8] = &[0xff; 8];
        assert_eq!(decoder.next_message(&mut head), Ok(None));
        assert!(decoder.body.capacity() <= FIRST_ALLOCATION);
        assert!(decoder.is_inside());
    }

    #[test]
    fn what_is_refused_stays_refused() {
        let mut decoder = FrameDecoder::new(Transport::Tcp, 3);
        let error = Err(FrameError::TooLarge { len: 4, limit: 3 });
        assert_eq!(decoder.next_message(&mut &b"\0\0\0\0\0\0\0\x04"[..]), error);
        assert_eq!(decoder.next_message(&mut &b"\0\0\0\0\0\0\0\x01x"[..]), error);
        let mut decoder = FrameDecoder::new(Transport::Ipc, 3);
        assert_eq!(decoder.next_message(&mut &b"\x02"[..]), Err(FrameError::BadHead { found: 2 }));
    }
}
