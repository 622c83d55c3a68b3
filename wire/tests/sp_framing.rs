//! What libnanomsg 1.1.5 sent and did, played against our handshake, frames and exchange.

// The helpers below are test code too, which clippy does not see.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use ocbus_wire::sp::frame::NANOMSG_LIMIT;
use ocbus_wire::sp::{
    Exchange, ExchangeError, FrameDecoder, HANDSHAKE_LEN, Handshake, HandshakeError, Outcome, Protocol,
    Transport,
};

fn cases() -> serde_json::Map<String, serde_json::Value> {
    let text = include_str!("../../tests/data/openchange/sp_framing.json");
    serde_json::from_str(text).unwrap()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A PULL socket: its messages, and whether it would close the connection.
fn pull(stream: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let header = &stream[..HANDSHAKE_LEN];
    if Handshake::decode(header).and_then(|peer| peer.fits(Protocol::Pull)).is_err() {
        return (Vec::new(), true);
    }
    let mut decoder = FrameDecoder::new(Transport::Tcp, NANOMSG_LIMIT);
    let mut rest = &stream[HANDSHAKE_LEN..];
    let mut messages = Vec::new();
    loop {
        match decoder.next_message(&mut rest) {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, false),
            Err(_) => return (messages, true),
        }
    }
}

#[test]
fn a_pull_socket_of_ours_reacts_as_libnanomsg_does() {
    let cases = cases();
    let mut received = Vec::new();
    let mut played = 0;
    for (name, case) in cases.iter().filter(|(name, _)| name.starts_with("pull_")) {
        let (messages, closed) = pull(&unhex(case["sent"].as_str().unwrap()));
        assert_eq!(closed, case["closed_by_pull"].as_bool().unwrap(), "{name}");
        let header = Handshake::new(Protocol::Pull).to_octets().to_vec();
        assert_eq!(header, unhex(case["pull_sent"].as_str().unwrap()), "{name}");
        // nanocat prints nothing for an empty message.
        received.extend(messages.into_iter().filter(|message| !message.is_empty()));
        played += 1;
    }
    assert_eq!(played, 11);
    let sink: Vec<Vec<u8>> =
        cases["sink_output"].as_array().unwrap().iter().map(|hex| unhex(hex.as_str().unwrap())).collect();
    assert_eq!(received.len(), sink.len());
    assert!(sink.iter().all(|message| received.contains(message)));
}

#[test]
fn our_push_sends_what_libnanomsg_sends() {
    let cases = cases();
    let payload = unhex(&cases["tcp_peer_pull_0051"]["frame"].as_str().unwrap()[16..]);
    for (transport, prefix) in [(Transport::Tcp, "tcp"), (Transport::Ipc, "ipc")] {
        for (peer, header) in
            [("pull_0051", Some(Protocol::Pull)), ("push_0050", Some(Protocol::Push)), ("none", None)]
        {
            let case = &cases[&format!("{prefix}_peer_{peer}")];
            let frame = unhex(case["frame"].as_str().unwrap());
            // The two captures carry different process ids, so the payload is taken from each.
            let payload = frame.get(if prefix == "tcp" { 8 } else { 9 }..).unwrap_or(&payload);
            let mut exchange = Exchange::push(transport, payload);
            let output = exchange.output().to_vec();
            assert_eq!(
                output[..HANDSHAKE_LEN],
                unhex(case["handshake"].as_str().unwrap()),
                "{prefix} {peer}"
            );
            if !frame.is_empty() {
                assert_eq!(output[HANDSHAKE_LEN..], frame, "{prefix} {peer}");
            }
            exchange.wrote(output.len());
            if let Some(protocol) = header {
                exchange.feed(&Handshake::new(protocol).to_octets());
            }
            exchange.closed();
            let delivered = exchange.outcome().unwrap();
            match peer {
                "pull_0051" => assert!(matches!(delivered, Ok(Outcome::Pushed { .. }))),
                "push_0050" => assert!(matches!(
                    delivered,
                    Err(ExchangeError::Handshake(HandshakeError::WrongPeer { found: 0x50, .. }))
                )),
                _ => assert_eq!(delivered, &Err(ExchangeError::ClosedEarly { read: 0 })),
            }
            assert_eq!(delivered.is_ok(), case["sender_exit"] == 0, "{prefix} {peer}");
        }
    }
}
