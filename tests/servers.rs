//! One of several memcacheds fails, end to end: a subscriber's heartbeat and the plugin of a real Dovecot.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ocbus::bus::{Bus, Filter};
use ocbus::outbox::{Outbox, OutboxConfig, Source};
use ocbus::publisher::PublisherConfig;
use ocbus::resolver::{Cn, Config, Resolver, Selection};
use ocbus::sandbox::{DovecotOptions, Memcached, Sandbox};
use ocbus::subscriber::SubscriberConfig;
use ocbus::wire::NewMessage;
use ocbus::wire::openchange::DosCharset;
use ocbus::{Event, EventKind, Mailbox, Publisher, Subscriber};
use support::proxy::{Proxy, Trouble};
use support::{LIMIT, until};
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);

struct Three {
    servers: Vec<Memcached>,
    text: String,
    selection: Selection,
}

impl Three {
    fn start(sandbox: &Sandbox) -> Three {
        Three::with(sandbox, "")
    }

    fn with(sandbox: &Sandbox, options: &str) -> Three {
        let servers: Vec<Memcached> = (0..3).map(|_| sandbox.memcached().unwrap()).collect();
        let text = servers.iter().map(Memcached::configuration).collect::<Vec<_>>().join(" ") + options;
        let selection = Selection::new(&Config::parse(&text).unwrap()).unwrap();
        Three { servers, text, selection }
    }

    async fn resolver(&self) -> Resolver {
        let config = Config::parse(&self.text).unwrap();
        Resolver::new(&config, DosCharset::default(), Duration::from_secs(1)).await.unwrap()
    }

    fn place(&self, cn: &Cn) -> usize {
        self.selection.index(cn.resolver_key().as_bytes())
    }

    fn holds(&self, cn: &Cn) -> bool {
        self.servers[self.place(cn)].get(&cn.lease_key()).unwrap().is_some()
    }

    /// A user of each server.
    fn users(&self) -> Vec<Cn> {
        let of = |place| {
            let mut names = (0..).map(|n| Cn::new(&format!("user{n}")).unwrap());
            names.find(|cn| self.place(cn) == place).unwrap()
        };
        (0..3).map(of).collect()
    }
}

/// One of a memcached's counters.
fn counter(memcached: &Memcached, name: &str) -> u64 {
    let stream = TcpStream::connect(memcached.address()).unwrap();
    (&stream).write_all(b"stats\r\nquit\r\n").unwrap();
    let lines = BufReader::new(stream).lines().map(Result::unwrap);
    let name = format!("STAT {name} ");
    let count = lines.filter_map(|line| line.strip_prefix(&name)?.parse().ok()).next();
    count.unwrap()
}

/// Waits for so many heartbeats of the subscriber: each touches its canary.
fn heartbeats(memcached: &Memcached, count: u64) {
    let before = counter(memcached, "cmd_touch");
    until("heartbeats", || counter(memcached, "cmd_touch") >= before + count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_keeps_the_users_of_the_others_and_is_back_within_two_seconds() {
    let sandbox = Sandbox::new().unwrap();
    let mut three = Three::start(&sandbox);
    let bus = Bus::new();
    // No renewals in between: they would be writes, too.
    let config = SubscriberConfig { lease: Duration::from_secs(3600), ..SubscriberConfig::default() };
    let subscriber = Subscriber::start(config, three.resolver().await, bus.clone()).await.unwrap();
    let users: Vec<Cn> = (0..60).map(|n| Cn::new(&format!("user{n}")).unwrap()).collect();
    for user in &users {
        subscriber.add(user).await.unwrap();
    }
    let canary = format!("ocbus-canary:{}", subscriber.id());
    until("the canaries are planted", || {
        three.servers.iter().all(|server| server.get(&canary).unwrap().is_some())
    });

    let own = users.iter().find(|user| three.place(user) == 1).unwrap();
    for hangs in [false, true] {
        match hangs {
            true => three.servers[1].stop().unwrap(),
            false => three.servers[1].kill(),
        }
        // Until it has noticed; a hung one costs a heartbeat its time limit, once.
        heartbeats(&three.servers[0], 3);
        let writes = || [0, 2].map(|index: usize| counter(&three.servers[index], "cmd_set"));
        let before = writes();
        let mut events = bus.subscribe(Filter::user(own.as_str()));
        heartbeats(&three.servers[0], 4);
        assert_eq!(writes(), before, "nobody registers anew");
        assert!(events.try_recv().is_none(), "nor is anybody told to resync");
        match hangs {
            true => three.servers[1].cont().unwrap(),
            false => three.servers[1].restart().unwrap(),
        }
        let begun = Instant::now();
        until("all are registered", || users.iter().all(|user| three.holds(user)));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        let event = tokio::time::timeout(Duration::from_secs(2), events.recv()).await.unwrap().unwrap();
        assert!(matches!(event.kind, EventKind::Resync { .. }), "what was missed is made good: {event:?}");
        until("the canary is planted again", || three.servers[1].get(&canary).unwrap().is_some());
    }
    // Only those that the killed one had, and each once.
    let lost = users.iter().filter(|user| three.place(user) == 1).count();
    let counted = subscriber.statistics().registrations_lost;
    assert_eq!(counted, u64::try_from(lost).unwrap(), "{:?}", subscriber.statistics());
}

/// From before the fault until after the return: the users of the others are told nothing. Where it comes back empty all
/// are, then and once: the records of shared sessions stand by keys of their own.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_users_of_the_one_that_failed_are_told_to_resync() {
    let sandbox = Sandbox::new().unwrap();
    let mut three = Three::start(&sandbox);
    let bus = Bus::new();
    // Answers may take half a second: a busy test machine is none that is slow.
    let config = SubscriberConfig {
        lease: Duration::from_secs(3600),
        heartbeat: Duration::from_secs(1),
        ..SubscriberConfig::default()
    };
    let subscriber = Subscriber::start(config, three.resolver().await, bus.clone()).await.unwrap();
    let users = three.users();
    for user in &users {
        subscriber.add(user).await.unwrap();
    }
    let canary = format!("ocbus-canary:{}", subscriber.id());
    until("the canaries are planted", || {
        three.servers.iter().all(|server| server.get(&canary).unwrap().is_some())
    });
    let mut events: Vec<_> = users.iter().map(|user| bus.subscribe(Filter::user(user.as_str()))).collect();
    for hangs in [true, false] {
        match hangs {
            true => three.servers[1].stop().unwrap(),
            false => three.servers[1].kill(),
        }
        heartbeats(&three.servers[0], 2);
        for (user, events) in users.iter().zip(&mut events) {
            assert!(events.try_recv().is_none(), "{user}: nothing is known to be missed yet");
        }
        match hangs {
            true => three.servers[1].cont().unwrap(),
            false => three.servers[1].restart().unwrap(),
        }
        let event = tokio::time::timeout(LIMIT, events[1].recv()).await.unwrap().unwrap();
        assert!(matches!(event.kind, EventKind::Resync { .. }), "{event:?}");
        heartbeats(&three.servers[0], 2);
        // What was found by a look and by a heartbeat is told by each.
        while events[1].try_recv().is_some() {}
        for place in [0, 2] {
            let told = std::iter::from_fn(|| events[place].try_recv()).count();
            assert_eq!(told, usize::from(!hangs), "{} is another's; hangs: {hangs}", users[place]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_one_concerns_its_own_users() {
    let sandbox = Sandbox::new().unwrap();
    let servers = [sandbox.memcached().unwrap(), sandbox.memcached().unwrap()];
    let proxy = Proxy::to(&servers[1]).await;
    let text = format!("{} --SERVER={}", servers[0].configuration(), proxy.address);
    let parsed = Config::parse(&text).unwrap();
    let selection = Selection::new(&parsed).unwrap();
    let limit = Duration::from_secs(8);
    let resolver = Resolver::new(&parsed, DosCharset::default(), limit).await.unwrap();
    let config = SubscriberConfig {
        lease: Duration::from_secs(3600),
        heartbeat: Duration::from_secs(2),
        ..SubscriberConfig::default()
    };
    let bus = Bus::new();
    let subscriber = Subscriber::start(config, resolver, bus.clone()).await.unwrap();
    let users = [0, 1].map(|place: usize| {
        let mut names = (0..).map(|n| Cn::new(&format!("user{n}")).unwrap());
        names.find(|cn| selection.index(cn.resolver_key().as_bytes()) == place).unwrap()
    });
    for user in &users {
        subscriber.add(user).await.unwrap();
    }
    let canary = format!("ocbus-canary:{}", subscriber.id());
    until("the canaries are planted", || servers.iter().all(|server| server.get(&canary).unwrap().is_some()));
    let [mut other, mut own] = users.each_ref().map(|user| bus.subscribe(Filter::user(user.as_str())));
    // Beyond half a heartbeat, and below the time limit.
    proxy.make(Trouble { delay: Duration::from_millis(1300), ..Trouble::default() });
    heartbeats(&servers[1], 2);
    proxy.make(Trouble::default());
    let event = tokio::time::timeout(LIMIT, own.recv()).await.unwrap().unwrap();
    assert!(matches!(event.kind, EventKind::Resync { .. }), "when it is over: {event:?}");
    // All who are told are told in one heartbeat.
    heartbeats(&servers[1], 1);
    let told = other.try_recv();
    assert!(told.is_none(), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_delivers_to_the_users_of_the_others_as_if_nothing_were() {
    let sandbox = Sandbox::new().unwrap();
    let mut three = Three::start(&sandbox);
    let options = DovecotOptions::new(&["notify", "openchange"])
        .setting("openchange_resolver", &three.text)
        .setting("openchange_budget", "2000")
        .extra("lda_mailbox_autocreate = yes");
    let dovecot = sandbox.dovecot(options).unwrap();
    let users = three.users();
    let bus = Bus::new();
    let subscriber =
        Subscriber::start(SubscriberConfig::default(), three.resolver().await, bus.clone()).await.unwrap();
    for user in &users {
        subscriber.add(user).await.unwrap();
    }
    let mut lmtp = dovecot.lmtp().unwrap();
    let mut deliver = |user: &Cn| {
        let mail = ocbus::sandbox::mail("a@example.org", "Hi", "x");
        let begun = Instant::now();
        assert_eq!(lmtp.deliver("a@example.org", &[user.as_str()], mail).unwrap()[0].code, 250);
        begun.elapsed()
    };
    deliver(&users[0]);
    three.servers[1].stop().unwrap();
    // A hung one costs its first user the look-up's share of the budget.
    let first = deliver(&users[1]);
    assert!(first < Duration::from_millis(2500), "{first:?}");
    for user in [&users[1], &users[0], &users[2]] {
        let took = deliver(user);
        assert!(took < Duration::from_millis(1000), "{user}: {took:?}");
    }
    for user in [&users[0], &users[2]] {
        let mut events = bus.subscribe(Filter::user(user.as_str()));
        deliver(user);
        let event = tokio::time::timeout(LIMIT, events.recv()).await.unwrap().unwrap();
        assert!(matches!(event.kind, EventKind::MessageNew(_)), "{event:?}");
    }
    let warnings: Vec<String> =
        dovecot.plugin_log_lines().into_iter().filter(|line| line.contains("Warning: ")).collect();
    assert!(warnings.len() <= 2, "one for each time that it was tried: {warnings:?}");
    assert!(warnings[0].contains("one of several"), "{warnings:?}");
    three.servers[1].kill();
    assert!(deliver(&users[1]) < Duration::from_millis(1000));

    // Back, and empty: its user is registered again, and told of what was missed.
    three.servers[1].restart().unwrap();
    until("registered again", || three.holds(&users[1]));
    let mut events = bus.subscribe(Filter::user(users[1].as_str()));
    let begun = Instant::now();
    loop {
        deliver(&users[1]);
        let event = tokio::time::timeout(Duration::from_millis(300), events.recv()).await;
        if event.is_ok_and(|event| matches!(event.unwrap().kind, EventKind::MessageNew(_))) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(4), "the plugin finds it again");
    }
}

/// Mails for a user go on all the time, from a daemon that counts for itself; none may be lost, or taken for nobody's.
#[tokio::test(flavor = "multi_thread")]
async fn users_of_a_removed_server_move_to_another_and_come_back() {
    let sandbox = Sandbox::new().unwrap();
    let ring = " --DISTRIBUTION=CONSISTENT --REMOVE-FAILED-SERVERS=1 --RETRY-TIMEOUT=1";
    let mut three = Three::with(&sandbox, ring);
    let user = three.users().remove(1);
    let left = Selection::without_failed(&Config::parse(&three.text).unwrap(), |index| index != 1).unwrap();
    let stand_in = left.index(user.resolver_key().as_bytes());
    let bus = Bus::new();
    let mut events = bus.subscribe(Filter::user(user.as_str()));
    let subscriber =
        Subscriber::start(SubscriberConfig::default(), three.resolver().await, bus).await.unwrap();
    subscriber.add(&user).await.unwrap();
    let config = OutboxConfig { grace: Duration::ZERO, retry_max: SECOND, ..OutboxConfig::default() };
    let publisher = Publisher::new(three.resolver().await, PublisherConfig::default()).unwrap();
    let outbox = Outbox::start(publisher, three.resolver().await, config).unwrap();
    let mut uid = 0;
    let mut mail = || {
        uid += 1;
        let kind = EventKind::MessageNew(NewMessage { uid: Some(uid), ..NewMessage::default() });
        let event = Event::new(Uuid::now_v7(), 1, user.as_str(), Mailbox::new("INBOX", '/'), kind);
        outbox.accept(Source::Http, vec![event]).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        u64::from(uid)
    };
    let lease = |three: &Three, index: usize| three.servers[index].get(&user.lease_key()).unwrap().is_some();

    mail();
    three.servers[1].kill();
    let killed = Instant::now();
    while !lease(&three, stand_in) {
        mail();
        assert!(killed.elapsed() < LIMIT, "the subscriber moves within its count");
    }
    let sent = mail();
    until("all are delivered", || outbox.statistics().delivered == sent);

    three.servers[1].restart().unwrap();
    let restarted = Instant::now();
    while !lease(&three, 1) {
        mail();
        assert!(restarted.elapsed() < LIMIT, "and comes back");
    }
    let sent = (0..40).map(|_| mail()).last().unwrap();
    until("all are delivered", || outbox.statistics().delivered == sent);
    let statistics = outbox.statistics();
    assert_eq!(statistics.dropped.iter().sum::<u64>(), 0, "{statistics:?}");
    let mut got = Vec::new();
    let mut resyncs = 0;
    while let Some(event) = events.try_recv() {
        match &event.kind {
            EventKind::MessageNew(message) => got.push(u64::from(message.uid.unwrap())),
            EventKind::Resync { .. } => resyncs += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, (1..=sent).collect::<Vec<_>>(), "each once and in order");
    assert!(resyncs >= 2, "and whoever may have missed something is told at each move: {resyncs}");
}
