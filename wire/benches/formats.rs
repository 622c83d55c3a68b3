//! Encoding and decoding of every format, in octets and elements a second.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "../tests/native/samples.rs"]
mod samples;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ocbus_wire::native::{Ack, Batch, LeaseRecord};
use ocbus_wire::openchange::{
    DosCharset, NewMail, Notification, ResolverRecord, SessionRecord, Subscription, SubscriptionRecord,
};
use ocbus_wire::sp::{FrameDecoder, Transport, encode_frame};
use ocbus_wire::{Event, UidSet};
use uuid::Uuid;

/// Both directions of one format: `encode` gives the octets that `decode` reads.
fn both<T>(
    criterion: &mut Criterion,
    name: &str,
    elements: u64,
    encode: impl Fn() -> Vec<u8>,
    decode: impl Fn(&[u8]) -> T,
) {
    let octets = encode();
    let mut group = criterion.benchmark_group(name);
    match elements {
        1 => group.throughput(Throughput::Bytes(octets.len() as u64)),
        _ => group.throughput(Throughput::Elements(elements)),
    };
    group.bench_function("encode", |bencher| bencher.iter(&encode));
    group.bench_function("decode", |bencher| bencher.iter(|| decode(black_box(&octets))));
    group.finish();
}

fn batch_of(events: &[Event]) -> Vec<u8> {
    let mut batch = Batch::new();
    for event in events {
        assert!(batch.push(black_box(event)).unwrap());
    }
    batch.encode()
}

fn native(criterion: &mut Criterion) {
    for count in [1u32, 100] {
        let events: Vec<Event> = (0..count)
            .map(|n| {
                let mut event = samples::golden_batch();
                event.id = Uuid::from_u128(u128::from(n));
                event
            })
            .collect();
        let decode = |octets: &[u8]| Batch::decode(octets).unwrap();
        both(criterion, &format!("batch/{count}"), u64::from(count), || batch_of(&events), decode);
    }
    let ack = Ack::taken(1, 0, Vec::new());
    both(criterion, "ack", 1, || black_box(&ack).encode().unwrap(), |octets| Ack::decode(octets).unwrap());
    let record = samples::golden_lease();
    let encode = || black_box(&record).encode().unwrap();
    both(criterion, "lease_record", 1, encode, |octets| LeaseRecord::decode(octets).unwrap());
    // Flags of every other message of 20,000.
    let kind = ocbus_wire::EventKind::MessageRead { uids: (1..20_000).step_by(2).collect::<UidSet>() };
    let event = Event { kind, ..samples::golden_batch() };
    let encode = || batch_of(std::slice::from_ref(&event));
    both(criterion, "batch/10000_uid_ranges", 1, encode, |octets| Batch::decode(octets).unwrap());
}

fn openchange(criterion: &mut Criterion) {
    let charset = DosCharset::default();
    for count in [1u16, 100] {
        let hosts = (0..count).map(|n| format!("tcp://127.0.0.1:{}", 9000 + n)).collect();
        let record = ResolverRecord { hosts };
        let encode = || black_box(&record).encode(charset).unwrap();
        let decode = |octets: &[u8]| ResolverRecord::decode(octets, charset).unwrap();
        both(criterion, &format!("resolver_record/{count}"), u64::from(count), encode, decode);
    }
    let session = SessionRecord { session: Uuid::from_u128(1), cn: "user.name@example.com".into() };
    let encode = || black_box(&session).encode(charset).unwrap();
    both(criterion, "session_record", 1, encode, |octets| SessionRecord::decode(octets, charset).unwrap());
    let subscription = Subscription {
        handle: 0x42,
        flags: 0x100,
        fid: 0xf503_0000_0000_0001,
        mid: 0,
        properties: vec![0x0e09_0014, 0x0037_001f],
    };
    let record = SubscriptionRecord { subscriptions: vec![subscription] };
    let encode = || black_box(&record).encode().unwrap();
    both(criterion, "subscription_record", 1, encode, |octets| SubscriptionRecord::decode(octets).unwrap());
    let mail = NewMail { message: NewMail::message_name(142), folder: "INBOX".into(), ..NewMail::default() };
    let encode = || black_box(&mail).encode(charset).unwrap();
    both(criterion, "new_mail", 1, encode, |octets| Notification::decode(octets, charset).unwrap());
}

fn sp(criterion: &mut Criterion) {
    let message = batch_of(&[samples::golden_batch()]);
    let encode = || {
        let mut frame = Vec::with_capacity(message.len() + 12);
        encode_frame(Transport::Tcp, &[&[0x80, 0, 0, 1], black_box(&message)], &mut frame);
        frame
    };
    let decode = |mut octets: &[u8]| {
        let mut decoder = FrameDecoder::new(Transport::Tcp, 65_600);
        decoder.next_message(&mut octets).unwrap().unwrap()
    };
    both(criterion, "sp_frame", 1, encode, decode);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(30)
        .without_plots();
    targets = native, openchange, sp
}
criterion_main!(benches);
