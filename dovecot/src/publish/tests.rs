use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ocbus_resolver::{Listeners, MemoryStore};
use ocbus_wire::native::{Batch, Lease, LeaseRecord};
use ocbus_wire::openchange::{DosCharset, ResolverRecord};
use ocbus_wire::sp::frame::encode_frame;
use ocbus_wire::sp::{Handshake, Protocol, Transport};
use ocbus_wire::{EventKind, Mailbox};

use super::*;
use crate::transaction::{Commit, Mail, Transaction};

/// Where time is looked at: far more than a busy machine adds, far less than a budget.
const BUDGET: Duration = Duration::from_millis(600);
const SLACK: Duration = Duration::from_millis(250);

fn delivery(uids: &[u32]) -> Delivery {
    let mailbox = Mailbox {
        name: "Entwürfe".to_owned(),
        separator: '/',
        storage_name: "Entw&APw-rfe".to_owned(),
        list_separator: '.',
    };
    let mut transaction = Transaction::new(mailbox, true);
    uids.iter().for_each(|_| transaction.save(Mail::default()));
    let saved = uids.iter().copied().collect();
    let commit = Commit { saved, uid_validity: Some(9), time_us: now_us(), ..Commit::default() };
    Delivery { waited: Duration::ZERO, changes: transaction.committed(commit) }
}

struct Scene {
    store: MemoryStore,
    user: User,
}

fn scene(raw: &RawSettings) -> Scene {
    let store = MemoryStore::new();
    let settings = Settings::parse(raw).unwrap();
    let publisher = Publisher {
        resolver: BlockingResolver::in_memory(store.clone()),
        bus: settings.bus.clone().map(HandOver::new),
        settings,
        outage: Outage::default(),
        silence: Silence::default(),
        kept: Kept::new(),
        underway: None,
        requests: 0,
    };
    let user = User {
        cn: Cn::new("bob").unwrap(),
        shown: "bob".to_owned(),
        debug: false,
        publisher: Arc::new(Mutex::new(publisher)),
    };
    Scene { store, user }
}

impl Scene {
    fn register(&self, native: &[&str], legacy: &[&str]) {
        let until_ms = now_us() / 1000 + 60_000;
        let lease = |url: &&str| Lease {
            endpoint: (*url).to_owned(),
            subscriber: Uuid::now_v7(),
            until_ms,
            legacy: None,
            missed: 0,
        };
        let leases = LeaseRecord::new(native.iter().map(lease).collect());
        let hosts = ResolverRecord { hosts: legacy.iter().map(|url| (*url).to_owned()).collect() };
        self.store.set("ocbus:bob", &leases.encode().unwrap());
        self.store.set("resolver:bob", &hosts.encode(DosCharset::default()).unwrap());
    }

    fn listeners(&self) -> Listeners {
        let deadline = Instant::now() + Duration::from_secs(1);
        BlockingResolver::in_memory(self.store.clone()).lookup(&self.user.cn, deadline).unwrap()
    }

    fn texts(&self, uids: &[u32]) -> Vec<String> {
        published(&self.user, uids).into_iter().map(|line| line.text).collect()
    }
}

/// Both halves, as when Dovecot is done with the user at once.
fn published(user: &User, uids: &[u32]) -> Vec<Line> {
    let mut lines = user.publish(delivery(uids));
    lines.extend(user.finish());
    lines
}

/// OpenChange's receiver: gives all octets of so many messages. The connection stays open.
fn pull(messages: usize) -> (String, mpsc::Receiver<Vec<u8>>) {
    listen(move |mut stream| {
        stream.write_all(&Handshake::new(Protocol::Pull).to_octets()).unwrap();
        let mut all = vec![0; 8];
        stream.read_exact(&mut all).unwrap();
        for _ in 0..messages {
            let at = all.len();
            all.resize(at + 8, 0);
            stream.read_exact(&mut all[at..]).unwrap();
            let len = u64::from_be_bytes(*all.last_chunk().unwrap());
            let at = all.len();
            all.resize(at + usize::try_from(len).unwrap(), 0);
            stream.read_exact(&mut all[at..]).unwrap();
        }
        all
    })
}

/// A native subscriber: gives the one batch that it acknowledges.
fn rep() -> (String, mpsc::Receiver<Vec<u8>>) {
    listen(|mut stream| {
        stream.write_all(&Handshake::new(Protocol::Rep).to_octets()).unwrap();
        let mut head = [0; 16];
        stream.read_exact(&mut head).unwrap();
        let len = u64::from_be_bytes(*head.last_chunk().unwrap());
        let mut request = vec![0; usize::try_from(len).unwrap()];
        stream.read_exact(&mut request).unwrap();
        let ack = Ack::taken(1, 0, Vec::new()).encode().unwrap();
        let mut reply = Vec::new();
        encode_frame(Transport::Tcp, &[&request[..4], &ack], &mut reply);
        stream.write_all(&reply).unwrap();
        request.split_off(4)
    })
}

fn listen(
    peer: impl FnOnce(TcpStream) -> Vec<u8> + std::marker::Send + 'static,
) -> (String, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(peer(listener.accept().unwrap().0)).ok());
    (url, receiver)
}

fn dead() -> String {
    format!("tcp://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

#[test]
fn both_kinds_of_endpoint_get_what_they_understand_and_the_log_stays_empty() {
    let scene = scene(&RawSettings::default());
    let (native, batch) = rep();
    let (legacy, stream) = pull(2);
    scene.register(&[&native], &[&legacy]);
    assert_eq!(scene.texts(&[142, 143]), Vec::<String>::new());

    let events = Batch::decode(&batch.recv().unwrap()).unwrap().events;
    let uids: Vec<_> = events
        .iter()
        .map(|event| match &event.kind {
            EventKind::MessageNew(message) => message.uid,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(uids, [Some(142), Some(143)]);
    assert_eq!((events[0].user.as_str(), events[0].uidvalidity), ("bob", Some(9)));

    let mut expected = Handshake::new(Protocol::Push).to_octets().to_vec();
    for uid in ["142", "143"] {
        let payload = [b"\x01\x02\0sogo\0", uid.as_bytes(), b".eml\0Entw&APw-rfe\0."].concat();
        encode_frame(Transport::Tcp, &[&payload], &mut expected);
    }
    assert_eq!(stream.recv().unwrap(), expected);
}

#[test]
fn nobody_there_is_nothing_to_say() {
    let scene = scene(&RawSettings::default());
    assert_eq!(scene.texts(&[1]), Vec::<String>::new());
}

#[test]
fn one_warning_names_each_endpoint_that_failed_and_the_records_are_settled() {
    let scene = scene(&RawSettings::default());
    let (gone, gone_legacy) = (dead(), dead());
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("tcp://{}", mute.local_addr().unwrap());
    let (live, stream) = pull(1);
    scene.register(&[&gone, &silent], &[&gone_legacy, &live, "tcp://elsewhere.invalid:1", "nonsense"]);
    let begun = Instant::now();
    let texts = scene.texts(&[1]);
    assert!(begun.elapsed() < Duration::from_millis(50) + SLACK, "{:?}", begun.elapsed());
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].starts_with("openchange: bob: 1 event: "), "{texts:?}");
    for part in [
        format!("{gone} refused (removed)"),
        format!("{gone_legacy} refused (removed)"),
        format!("{silent} no answer within the budget"),
        "tcp://elsewhere.invalid:1 host name 'elsewhere.invalid' is not in /etc/hosts".to_owned(),
        "nonsense skipped".to_owned(),
    ] {
        assert!(texts[0].contains(&part), "{part}: {texts:?}");
    }
    stream.recv().unwrap();
    let left = scene.listeners();
    assert_eq!(left.legacy, [live, "tcp://elsewhere.invalid:1".to_owned(), "nonsense".to_owned()]);
    assert_eq!(left.native.len(), 1);
    assert_eq!((left.native[0].endpoint.as_str(), left.native[0].missed), (silent.as_str(), 1));
}

#[test]
fn what_is_published_is_sent_at_once_and_answered_later() {
    let scene = scene(&RawSettings { budget: Some("1000".to_owned()), ..RawSettings::default() });
    let (asked, is_asked) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let (native, served) = listen(move |mut stream| {
        // The same connection for both.
        stream.write_all(&Handshake::new(Protocol::Rep).to_octets()).unwrap();
        stream.read_exact(&mut [0; 8]).unwrap();
        let mut ids = Vec::new();
        for _ in 0..2 {
            let mut head = [0; 8];
            stream.read_exact(&mut head).unwrap();
            let mut request = vec![0; usize::try_from(u64::from_be_bytes(head)).unwrap()];
            stream.read_exact(&mut request).unwrap();
            asked.send(()).unwrap();
            may_go.recv().unwrap();
            ids.push(request[3]);
            let ack = Ack::taken(1, 0, Vec::new()).encode().unwrap();
            let mut reply = Vec::new();
            encode_frame(Transport::Tcp, &[&request[..4], &ack], &mut reply);
            stream.write_all(&reply).unwrap();
        }
        ids
    });
    scene.register(&[&native], &[]);
    for _ in 0..2 {
        assert_eq!(scene.user.publish(delivery(&[1])), []);
        is_asked.recv_timeout(Duration::from_secs(5)).expect("sent before anybody waits for it");
        go.send(()).unwrap();
        assert_eq!(scene.user.finish(), []);
        assert_eq!(scene.user.finish(), [], "once");
    }
    let ids = served.recv().unwrap();
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn time_that_is_spent_elsewhere_is_not_the_budgets() {
    let scene = scene(&RawSettings { budget: Some("300".to_owned()), ..RawSettings::default() });
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    scene.register(&[&format!("tcp://{}", mute.local_addr().unwrap())], &[]);
    assert_eq!(scene.user.publish(delivery(&[1])), []);
    thread::sleep(Duration::from_millis(400));
    let begun = Instant::now();
    assert_eq!(scene.user.finish().len(), 1);
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(150) && took < Duration::from_millis(300) + SLACK, "{took:?}");
}

/// A mail to many recipients is many transactions.
#[test]
fn a_silent_endpoint_costs_one_budget_for_a_while_and_what_it_missed_is_told_or_said() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("tcp://{}", mute.local_addr().unwrap());
    for (native, legacy) in [(vec![silent.as_str()], vec![]), (vec![], vec![silent.as_str()])] {
        let raw = RawSettings { budget: Some(BUDGET.as_millis().to_string()), ..RawSettings::default() };
        let scene = scene(&raw);
        scene.register(&native, &legacy);
        let begun = Instant::now();
        let texts = scene.texts(&[1]);
        assert!(
            texts.len() == 1 && texts[0].ends_with(&format!("{silent} no answer within the budget")),
            "{texts:?}"
        );
        assert!(begun.elapsed() < BUDGET + SLACK, "{:?}", begun.elapsed());
        let left_alone = Instant::now();
        for uids in [&[2][..], &[3, 4]] {
            assert_eq!(scene.texts(uids), Vec::<String>::new());
        }
        assert!(left_alone.elapsed() < SLACK, "{:?}", left_alone.elapsed());
        if !native.is_empty() {
            assert_eq!(scene.listeners().native[0].missed, 4);
        }
        assert_eq!(scene.user.account(left_alone), None, "not over");
        let line = scene.user.account(scene.user.account_at().unwrap()).unwrap();
        let account =
            format!("openchange: left alone after no answer: {silent} missed 3 events in 2 transactions");
        assert_eq!((line.level, line.text), (Level::Warning, account));
    }
}

/// OpenChange's server has an endpoint for each user: none of them is silent twice.
#[test]
fn many_silent_endpoints_are_waited_for_in_haste() {
    let budget = BUDGET / 2;
    let scene =
        scene(&RawSettings { budget: Some(budget.as_millis().to_string()), ..RawSettings::default() });
    let (mut slow, mut in_haste) = (0, 0);
    for _ in 0..12 {
        let mute = TcpListener::bind("127.0.0.1:0").unwrap();
        scene.register(&[], &[&format!("tcp://{}", mute.local_addr().unwrap())]);
        let begun = Instant::now();
        let texts = scene.texts(&[1]);
        slow += u32::from(begun.elapsed() > budget / 2);
        let hasty = format!("no answer within {} ms (in haste)", (budget / 10).as_millis());
        let said = ["no answer within the budget", &hasty].map(|said| texts[0].ends_with(said));
        assert!(texts.len() == 1 && said != [false; 2], "{texts:?}");
        in_haste += u32::from(said[1]);
    }
    assert!(in_haste >= 6, "{in_haste} of 12 were");
    assert!(slow <= 6, "two in a second, and {slow} of 12 were");
}

/// Each had too small a part of the budget for its silence to say something of it.
#[test]
fn of_hundreds_that_are_silent_together_none_is_left_alone() {
    let mute = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = mute.local_addr().unwrap().port();
    let urls = |from: u8| -> Vec<String> {
        (from..from + 20).flat_map(|a| (1..9).map(move |b| format!("tcp://127.77.{a}.{b}:{port}"))).collect()
    };
    let (native, legacy) = (urls(0), urls(20));
    let (native, legacy): (Vec<&str>, Vec<&str>) =
        (native.iter().map(String::as_str).collect(), legacy.iter().map(String::as_str).collect());
    for (native, legacy, alone) in [(&native[..20], &legacy[..20], 40), (&native, &legacy, 0)] {
        let raw = RawSettings { budget: Some(BUDGET.as_millis().to_string()), ..RawSettings::default() };
        let mut scene = scene(&raw);
        scene.user.debug = true;
        scene.register(native, legacy);
        let first = scene.texts(&[1]);
        assert!(first.iter().any(|text| text.contains("no answer within")), "{first:?}");
        let second = scene.texts(&[2]);
        let left = second.iter().filter(|text| text.contains("is left alone for now"));
        assert_eq!(left.count(), alone, "{second:?}");
    }
}

#[test]
fn each_transaction_pushes_over_a_connection_of_its_own_and_waits_until_it_was_read() {
    let scene = scene(&RawSettings { budget: Some("1000".to_owned()), ..RawSettings::default() });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = stream.unwrap();
            stream.write_all(&Handshake::new(Protocol::Pull).to_octets()).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
        }
        // The third reads too little, and hangs up: its mail is lost.
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&Handshake::new(Protocol::Pull).to_octets()).unwrap();
        stream.read_exact(&mut [0; 16]).unwrap();
    });
    scene.register(&[], &[&url]);
    assert_eq!(scene.texts(&[1]), Vec::<String>::new());
    assert_eq!(scene.texts(&[2]), Vec::<String>::new());
    let lost = scene.texts(&[3]);
    assert!(lost.len() == 1 && lost[0].contains("connection broken"), "{lost:?}");
    server.join().unwrap();
}

#[test]
fn a_refused_legacy_endpoint_may_stay() {
    let scene = scene(&RawSettings { keep_refused: Some("yes".to_owned()), ..RawSettings::default() });
    let gone = dead();
    scene.register(&[], &[&gone]);
    let texts = scene.texts(&[1]);
    assert!(texts[0].contains("refused") && !texts[0].contains("removed"), "{texts:?}");
    assert_eq!(scene.listeners().legacy, [gone]);
}

#[test]
fn a_garbage_record_is_named_and_the_other_still_counts() {
    let scene = scene(&RawSettings::default());
    let (legacy, stream) = pull(1);
    scene.register(&[], &[&legacy]);
    scene.store.set("ocbus:bob", b"garbage");
    let texts = scene.texts(&[1]);
    assert!(texts.len() == 1 && texts[0].contains("ocbus:bob"), "{texts:?}");
    stream.recv().unwrap();
}

#[test]
fn a_memcached_that_hangs_costs_two_budgets_and_one_that_refuses_none_and_either_one_line() {
    let hung = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [hung.local_addr().unwrap(), refused] {
        let mut publishers = Publishers::new();
        let raw = RawSettings {
            resolver: Some(format!("--SERVER={address}")),
            budget: Some(BUDGET.as_millis().to_string()),
            ..RawSettings::default()
        };
        let bob = publishers.user("bob", false, raw.clone()).unwrap();
        let carl = publishers.user("carl@example.org", false, raw).unwrap();
        assert!(Arc::ptr_eq(&bob.publisher, &carl.publisher), "the health of memcached is everybody's");
        let begun = Instant::now();
        let lines = published(&bob, &[1]);
        assert!(begun.elapsed() < BUDGET + SLACK, "{:?}", begun.elapsed());
        assert_eq!(lines.len(), 1);
        assert!(lines[0].text.starts_with("openchange: bob: 1 event: not sent: memcached "), "{lines:?}");
        assert_eq!(published(&carl, &[1, 2]), []);
        let begun = Instant::now();
        assert_eq!(published(&carl, &[3]), []);
        assert!(begun.elapsed() < SLACK);
        let last = publishers.close();
        assert!(last.len() == 1 && last[0].text.contains("4 events in 3 transactions"), "{last:?}");
    }
}

#[test]
fn what_an_outage_cost_is_told_to_native_endpoints_afterwards() {
    let scene = scene(&RawSettings::default());
    let (native, requests) = rep();
    scene.register(&[&native], &[]);
    {
        let mut publisher = scene.user.publisher.lock().unwrap();
        publisher.outage.failed(Instant::now(), false, &scene.user.cn, 3);
    }
    scene.texts(&[1]);
    requests.recv().unwrap();
    assert_eq!(scene.listeners().native[0].missed, 3);
    let mut publisher = scene.user.publisher.lock().unwrap();
    assert_eq!(publisher.outage.take_owed(&scene.user.cn), None, "once");
}

#[test]
fn the_holder_of_an_ended_lease_is_told_once_whoever_else_listens() {
    for beside in [true, false] {
        let scene = scene(&RawSettings::default());
        let (legacy, stream) = pull(1);
        let others: &[&str] = &[&legacy];
        scene.register(&[], if beside { others } else { &[] });
        // Its clock is two minutes behind.
        let lease = |missed| Lease {
            endpoint: "tcp://10.0.0.7:9005".to_owned(),
            subscriber: Uuid::from_u128(7),
            until_ms: now_us() / 1000 - 60_000,
            legacy: None,
            missed,
        };
        scene.store.set("ocbus:bob", &LeaseRecord::new(vec![lease(0)]).encode().unwrap());
        let texts = scene.texts(&[1]);
        assert!(texts.len() == 1 && texts[0].contains("leases skipped: 1 ended"), "{texts:?}");
        assert!(texts[0].contains("tcp://10.0.0.7:9005") && texts[0].contains("clock"), "{texts:?}");
        assert_eq!(scene.listeners().expired[0].missed, 1);
        if beside {
            stream.recv().unwrap();
            scene.register(&[], &[]);
            scene.store.set("ocbus:bob", &LeaseRecord::new(vec![lease(1)]).encode().unwrap());
        }
        assert_eq!(scene.texts(&[2]), Vec::<String>::new(), "it knows");
        assert_eq!(scene.listeners().expired[0].missed, 1);
    }
}

#[test]
fn what_nobody_could_be_registered_for_yet_is_owed_to_who_comes() {
    let scene = scene(&RawSettings::default());
    let held = |held: u64| {
        let mut publisher = scene.user.publisher.lock().unwrap();
        let told = Told {
            cn: scene.user.cn.clone(),
            debug: false,
            head: String::new(),
            begun: Instant::now(),
            deadline: Instant::now() + BUDGET,
        };
        let run = Run::start(Vec::new(), told.deadline, &mut publisher.kept);
        let stage =
            Stage::Sent { plan: Plan::default(), leases: Vec::new(), held: Some(held), patience: Vec::new() };
        publisher.underway = Some(Underway { told, stage, run, left: Instant::now() });
        assert_eq!(publisher.finish(), []);
    };
    held(2);
    // A session's try to pay, with nothing new.
    held(0);
    assert!(scene.user.owes());
    held(3);
    assert!(scene.user.owes());
    let (native, requests) = rep();
    scene.register(&[&native], &[]);
    scene.texts(&[1]);
    requests.recv().unwrap();
    assert_eq!(scene.listeners().native[0].missed, 5);
    // Nobody comes: then there is nobody to be told.
    held(1);
    scene.register(&[], &[]);
    scene.texts(&[1]);
    assert!(!scene.user.owes());
}

#[test]
fn debug_tells_what_went_well() {
    let mut scene = scene(&RawSettings::default());
    scene.user.debug = true;
    let lines = published(&scene.user, &[1]);
    assert_eq!((lines.len(), lines[0].level), (1, Level::Debug));
    assert!(lines[0].text.starts_with("openchange: bob: 1 event to 0 endpoints in "), "{lines:?}");
}

#[test]
fn settings_are_checked_once_for_each_kind_and_few_are_kept() {
    let mut publishers = Publishers::new();
    for budget in 1..=40 {
        let raw = RawSettings { budget: Some(budget.to_string()), ..RawSettings::default() };
        publishers.user("bob", false, raw).unwrap();
    }
    assert_eq!(publishers.known.len(), MAX_PUBLISHERS);
    assert!(publishers.user("a b", false, RawSettings::default()).is_err());
}

#[test]
fn options_without_effect_are_told_once_a_process_to_who_looks() {
    let mut publishers = Publishers::new();
    let raw = |budget: &str| RawSettings {
        resolver: Some("--SERVER=127.0.0.1:1 --BINARY-PROTOCOL --HASH=MD5".to_owned()),
        budget: Some(budget.to_owned()),
        ..RawSettings::default()
    };
    publishers.user("bob", false, raw("50")).unwrap();
    assert_eq!(publishers.warnings(), []);
    publishers.user("bob", true, raw("50")).unwrap();
    let lines = publishers.warnings();
    assert_eq!((lines.len(), lines[0].level), (1, Level::Debug), "{lines:?}");
    assert!(lines[0].text.contains("--BINARY-PROTOCOL is accepted, and changes nothing"), "{lines:?}");
    publishers.user("bob", true, raw("60")).unwrap();
    assert_eq!(publishers.warnings(), []);
}
