//! How much memory octets from outside take: what they justify, whatever they claim. A binary of its own, since
//! it counts every allocation; one test, so that nobody else allocates meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ocbus_wire::native::{Ack, Batch, DecodeError, LeaseRecord, MAX_BATCH_OCTETS};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory that `read` held at once, beyond what there was before.
fn peak<T>(read: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let value = read();
    (value, PEAK.load(Relaxed) - before)
}

type Reader = fn(&[u8]) -> Result<usize, DecodeError>;

const READERS: [(&str, Reader); 3] = [
    ("batch", |octets| Batch::decode(octets).map(|batch| batch.events.len() + batch.skipped)),
    ("ack", |octets| Ack::decode(octets).map(|ack| ack.strangers.len())),
    ("lease", |octets| LeaseRecord::decode(octets).map(|record| record.leases.len())),
];

/// Heads that claim four billion elements or octets: array32, map32, str32, bin32, ext32.
const CLAIMS: [&[u8]; 5] = [
    &[0xdd, 0xff, 0xff, 0xff, 0xff],
    &[0xdf, 0xff, 0xff, 0xff, 0xff],
    &[0xdb, 0xff, 0xff, 0xff, 0xff],
    &[0xc6, 0xff, 0xff, 0xff, 0xff],
    &[0xc9, 0xff, 0xff, 0xff, 0xff, 0x01],
];

/// Every place of the three formats at which a value stands, as the octets before it.
fn places() -> Vec<Vec<u8>> {
    let id = [&b"\xa2id\xc4\x10"[..], &[7; 16]].concat();
    let event = |fields: &[u8]| [&b"\x82\xa1v\x01\xa2ev\x91\x8f"[..], &id, fields].concat();
    let mut places = vec![
        vec![],
        b"\x82\xa1v".to_vec(),
        b"\x82\xa1v\x01\xa2ev".to_vec(),
        b"\x82\xa1v\x01\xa2ev\x91".to_vec(),
        b"\x83\xa1v\x01\xa1x".to_vec(),
        b"\x83\xa1v\x01\xa1x\x91\x91".to_vec(),
        b"\x82\xa1v\x01\xa4gone".to_vec(),
        b"\x82\xa1v\x01\xa4gone\x91".to_vec(),
        b"\x82\xa1v\x01\xa3err".to_vec(),
        b"\x82\xa1v\x01\xa2ls".to_vec(),
        b"\x82\xa1v\x01\xa2ls\x91".to_vec(),
        b"\x82\xa1v\x01\xa2ls\x91\x85\xa2ep".to_vec(),
        b"\x82\xa1v\x01\xa2ls\x91\x85\xa3sub".to_vec(),
        b"\x82\xa1v\x01\xa2ls\x91\x85\xa3leg".to_vec(),
        b"\x82".to_vec(),
    ];
    for field in
        ["user", "kind", "mb", "uids", "fl", "kw", "from", "subj", "omb", "ouids", "why", "unheard-of"]
    {
        let mut name = vec![0xa0 | u8::try_from(field.len()).unwrap()];
        name.extend(field.as_bytes());
        places.push(event(&name));
    }
    places.push(event(b"\xa2mb\x82\xa1n"));
    places.push(event(b"\xa2mb\x82\xa1n\xa1x\xa1s"));
    places.push(event(b"\xa2fl\x91"));
    places
}

#[test]
fn memory_is_taken_for_what_is_there_not_for_what_is_claimed() {
    for place in places() {
        for claim in CLAIMS {
            // With nothing behind the claim, and with something.
            for behind in [0usize, 1000] {
                let octets = [&place[..], claim, &vec![0x01; behind]].concat();
                for (name, read) in READERS {
                    let (result, peak) = peak(|| read(&octets).is_err());
                    assert!(result, "{name}: {octets:02x?}");
                    assert!(peak < 16 * 1024, "{name} took {peak} octets for {octets:02x?}");
                }
            }
        }
    }

    // Too large: refused before anything is taken.
    let large = vec![0xc0; LeaseRecord::MAX_OCTETS + 1];
    for (name, read) in READERS {
        let (result, peak) = peak(|| read(&large).is_err());
        assert!(result && peak == 0, "{name} took {peak}");
    }

    // What 64 KiB can really hold: as many of the smallest events as fit, of the largest sets, of empty words.
    let event = [&b"\x82\xa2id\xc4\x10"[..], &[7; 16], b"\xa4kind\xa1x"].concat();
    let fields = |field: &[u8]| {
        [&b"\x82\xa1v\x01\xa2ev\x91\x83\xa2id\xc4\x10"[..], &[7; 16], b"\xa4kind\xa1x", field].concat()
    };
    // An array of pieces, each of which is one element.
    let fill = |mut octets: Vec<u8>, piece: &[u8], most: usize| {
        let count = ((MAX_BATCH_OCTETS - octets.len() - 3) / piece.len()).min(most);
        octets.push(0xdc);
        octets.extend(u16::try_from(count).unwrap().to_be_bytes());
        octets.extend(piece.repeat(count));
        octets
    };
    // 1, 127, 1, 127: ranges that do not join.
    let uids = [&fields(b"\xa4uids\xdc\xfe\x00")[..], &[1, 127].repeat(0xfe00 / 2)].concat();
    let cases = [
        ("events", fill(b"\x82\xa1v\x01\xa2ev".to_vec(), &event, 4096), true),
        ("uids", uids, true),
        ("words", fill(fields(b"\xa2fl"), &[0xa0], 1024), true),
        ("too many words", fill(fields(b"\xa2fl"), &[0xa0], 60_000), false),
        ("strangers", fill(b"\x82\xa1v\x01\xa4gone".to_vec(), &[0xa0], 4096), true),
        ("one word", fields(&[&b"\xa4from\xda\xf0\x00"[..], &[b'x'; 0xf000]].concat()), true),
    ];
    for (name, octets, good) in cases {
        let read = if name == "strangers" { READERS[1].1 } else { READERS[0].1 };
        let (result, peak) = peak(|| read(&octets));
        assert_eq!(result.is_ok(), good, "{name}: {result:?}");
        println!("{name}: {} octets took {peak}", octets.len());
        assert!(peak < 3 * 1024 * 1024, "{name} took {peak} octets for {}", octets.len());
    }
}
