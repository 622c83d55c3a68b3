//! Fuzz targets of the SP reader, run briefly by `cargo test`: no panic on any input, and octets fed in pieces mean
//! what the same octets fed at once mean.

// The helpers below are test code too, which clippy does not see.
#![allow(clippy::expect_used, clippy::indexing_slicing)]

use bolero::check;
use ocbus_wire::sp::frame::encode_frame;
use ocbus_wire::sp::{Exchange, FrameDecoder, FrameError, Handshake, Transport};

const RUNS: usize = 10_000;
const LIMIT: u64 = 512;

/// What the first octet of the input asks for: a transport, and how long the pieces are (0: at once).
fn plan(input: &[u8]) -> Option<(Transport, usize, &[u8])> {
    let (&first, rest) = input.split_first()?;
    let transport = if first & 1 == 0 { Transport::Tcp } else { Transport::Ipc };
    Some((transport, usize::from(first >> 1), rest))
}

fn pieces(stream: &[u8], cut: usize) -> Vec<&[u8]> {
    if cut == 0 { vec![stream] } else { stream.chunks(cut).collect() }
}

fn messages(transport: Transport, stream: &[u8], cut: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut decoder = FrameDecoder::new(transport, LIMIT);
    let mut messages = Vec::new();
    for mut piece in pieces(stream, cut) {
        loop {
            match decoder.next_message(&mut piece) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
        assert!(piece.is_empty(), "octets are left over");
    }
    (messages, None)
}

#[test]
fn sp_frames() {
    check!().with_iterations(RUNS).for_each(|input: &[u8]| {
        let Some((transport, cut, stream)) = plan(input) else { return };
        let (whole, error) = messages(transport, stream, 0);
        assert_eq!((whole.clone(), error.clone()), messages(transport, stream, cut));
        let mut again = Vec::new();
        for message in &whole {
            assert!(message.len() as u64 <= LIMIT);
            encode_frame(transport, &[message], &mut again);
        }
        assert!(stream.starts_with(&again), "encoding the messages again gives the octets that were read");
        if let Some(FrameError::TooLarge { len, limit }) = error {
            assert!(len > limit);
        }
    });
}

#[test]
fn sp_exchanges() {
    check!().with_iterations(RUNS).for_each(|input: &[u8]| {
        let Some((transport, cut, stream)) = plan(input) else { return };
        let run = |mut exchange: Exchange, cut| {
            exchange.wrote(exchange.output().len());
            for piece in pieces(stream, cut) {
                exchange.feed(piece);
            }
            exchange.closed();
            exchange.outcome().cloned().expect("a closed exchange has ended")
        };
        let push = Exchange::push(transport, b"payload");
        assert_eq!(run(push.clone(), 0), run(push, cut));
        let ask = Exchange::request(transport, 1, b"payload").with_reply_limit(LIMIT);
        assert_eq!(run(ask.clone(), 0), run(ask, cut));
        if let Ok(header) = Handshake::decode(stream)
            && let Some(protocol) = header.protocol()
        {
            let octets = Handshake::new(protocol).to_octets();
            assert_eq!(octets[..6], stream[..6], "encoding the header again gives the octets that were read");
        }
    });
}
