//! Faults of memcached.

use super::*;

#[test]
fn a_refused_memcached_costs_nothing_and_is_said_once_a_process() {
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let options = DovecotOptions::new(&["notify", "openchange"])
        .setting("openchange_resolver", &format!("--SERVER=127.0.0.1:{}", free_port().unwrap()))
        .setting("openchange_budget", &BUDGET.as_millis().to_string());
    let dovecot = sandbox.dovecot(options).unwrap();
    let site = Site { sandbox, memcached, dovecot };
    assert_unharmed(&site, "bob");
    // Three processes of LDA; and one of LMTP, which delivered three.
    wait_warnings(&site, "not sent: memcached", 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_memcached_costs_a_budget_and_its_return_is_told() {
    let site = site();
    let mut bob = site.native("bob").await;
    site.deliver("bob", None, "before");
    bob.next_mail().await;
    let baseline = site.deliver("unconcerned", None, "baseline");
    site.memcached.stop().unwrap();
    let took = site.deliver("bob", None, "during");
    assert!(took <= baseline + BUDGET + NOISE, "{took:?}");
    let mut lmtp = site.dovecot.lmtp().unwrap();
    let mut slow = 0;
    for _ in 0..10 {
        let begun = Instant::now();
        let replies = lmtp.deliver("a@b", &["bob"], mail("a@b", "during", "x")).unwrap();
        assert_eq!(replies[0].code, 250);
        slow += u32::from(begun.elapsed() > BUDGET / 2);
    }
    assert!(slow <= 5, "a process that knows asks only now and then: {slow} of 10 were slow");
    assert_eq!(warnings(&site, "not sent: memcached").len(), 2, "one for LDA's process, one for LMTP's");
    site.memcached.cont().unwrap();
    // Whoever was registered learns that it may have missed something.
    let resync = bob.next().await;
    assert!(
        matches!(resync.kind, EventKind::Resync { reason: ResyncReason::ResolverLost, .. }),
        "{resync:?}"
    );
    until("LMTP asks again and says so", || {
        let replies = lmtp.deliver("a@b", &["bob"], mail("a@b", "after", "x")).unwrap();
        assert_eq!(replies[0].code, 250);
        !warnings(&site, "memcached answers again").is_empty()
    });
    assert_eq!(bob.next_mail().await.1.subject.as_deref(), Some("after"));
    site.deliver("bob", None, "lda after");
    assert_eq!(bob.next_mail().await.1.subject.as_deref(), Some("lda after"));
    site.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memcached_that_was_killed_and_restarted_empty_is_filled_again_within_two_seconds() {
    let mut site = site();
    let (mut native, mut legacy) = (site.native("bob").await, site.legacy("bob").await);
    site.deliver("bob", None, "before");
    native.next_mail().await;
    legacy.next_mail().await;
    site.memcached.kill();
    site.deliver("bob", None, "during");
    assert_eq!(warnings(&site, "not sent: memcached").len(), 1);
    site.memcached.restart().unwrap();
    let begun = Instant::now();
    until("both are registered again", || {
        ["ocbus:bob", "resolver:bob"].iter().all(|key| site.memcached.get(key).unwrap().is_some())
    });
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    for listening in [&mut native, &mut legacy] {
        let resync = listening.next().await;
        assert!(matches!(resync.kind, EventKind::Resync { .. }), "what was missed is told: {resync:?}");
    }
    site.deliver("bob", None, "after");
    assert_eq!(native.next_mail().await.1.subject.as_deref(), Some("after"));
    assert_eq!(legacy.next_mail().await.1.uid, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_started_before_memcached_registers_when_it_comes() {
    let mut site = site();
    site.memcached.kill();
    let bus = ocbus::Bus::new();
    let resolver = site.resolver().await;
    let config = ocbus::subscriber::SubscriberConfig::default();
    let subscriber = ocbus::Subscriber::start(config, resolver, bus.clone()).await.unwrap();
    let mut events = bus.subscribe(ocbus::bus::Filter::user("bob"));
    subscriber.add(&Cn::new("bob").unwrap()).await.unwrap_err();
    site.memcached.restart().unwrap();
    until("it is registered", || site.memcached.get("ocbus:bob").unwrap().is_some());
    site.deliver("bob", None, "x");
    loop {
        // The resync first, perhaps: it was not registered for a while.
        let event = tokio::time::timeout(LIMIT, events.recv()).await.unwrap().unwrap();
        if matches!(event.kind, EventKind::MessageNew(_)) {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_one_record_does_not_hide_the_other() {
    let site = site();
    let pull = Nanocat::pull(&site.sandbox);
    site.register_legacy("bob", &[&pull.url]);
    site.memcached.set("ocbus:bob", b"\xff garbage \r\n").unwrap();
    assert_unharmed(&site, "bob");
    assert_eq!(pull.wait(4).len(), 4);
    wait_warnings(&site, "ocbus:bob skipped: at octet 1: ", 4);

    let mut carol = site.native("carol").await;
    site.memcached.set("resolver:carol", b"\x03garbage").unwrap();
    assert_unharmed(&site, "carol");
    for uid in 1..=4 {
        assert_eq!(carol.next_mail().await.1.uid, Some(uid));
    }
    wait_warnings(&site, "resolver:carol skipped: at octet 0: ", 4);
}

#[test]
fn names_that_are_no_keys_never_reach_memcached() {
    // Dovecot lets few characters through by itself; here it passes all of them on to us.
    let site = Site::with(|options| options.extra("auth_username_chars ="));
    site.memcached.set("witness", b"here").unwrap();
    for user in ["with space", &"c".repeat(250)] {
        let delivery = site.dovecot.deliver_lda(user, mail("a@b", "x", "y"), None).unwrap();
        assert_eq!(delivery.status, Some(0), "{delivery:?}");
        assert_eq!(site.dovecot.maildir(user).total(), 1);
    }
    assert_eq!(warnings(&site, "cn ").len(), 2, "{:?}", site.warnings());
    // A folder's name has at most 255 octets: its mails go elsewhere.
    let elsewhere = site.sandbox.path().join("long");
    std::fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::chown(&elsewhere, Some(ocbus::sandbox::MAIL_UID), None).unwrap();
    let long = format!("{}/mails", elsewhere.display());
    let options =
        |options: DovecotOptions| options.extra("auth_username_chars =").mail_location("maildir", &long);
    let other = Site::with(options);
    let delivery = other.dovecot.deliver_lda(&"c".repeat(300), mail("a@b", "x", "y"), None).unwrap();
    assert_eq!(delivery.status, Some(0), "{delivery:?}\n{}", other.dovecot.log());
    assert_eq!(std::fs::read_dir(elsewhere.join("mails/new")).unwrap().count(), 1);
    assert_eq!(warnings(&other, "cn of 300 octets").len(), 1, "{:?}", other.warnings());
    // Such a name Dovecot may refuse by itself; with our plugin nothing else may happen, and no crash.
    for user in ["x\r\nflush_all", "x\r\nflush_all\r\n", &"c".repeat(300)] {
        let delivery = site.dovecot.deliver_lda(user, mail("a@b", "x", "y"), None).unwrap();
        assert!(delivery.signal.is_none() && delivery.status.is_some(), "{delivery:?}");
    }
    assert_eq!(site.memcached.get("witness").unwrap().as_deref(), Some(&b"here"[..]));
}

#[test]
fn a_memcached_with_a_name_is_found_and_one_whose_name_is_not_known_costs_a_budget() {
    let site = Site::with(|options| options.setting("openchange_budget", "400"));
    let pull = Nanocat::pull(&site.sandbox);
    site.register_legacy("bob", &[&pull.url]);
    for (host, is_found) in [("localhost", true), ("no-such-host.invalid", false)] {
        let resolver = format!("--SERVER={host}:{}", site.memcached.port());
        let options = DovecotOptions::new(&["notify", "openchange"])
            .setting("openchange_resolver", &resolver)
            .setting("openchange_budget", &BUDGET.as_millis().to_string());
        let dovecot = site.sandbox.dovecot(options).unwrap();
        let delivery = dovecot.deliver_lda("bob", mail("a@b", "x", "y"), None).unwrap();
        assert_eq!(delivery.status, Some(0), "{delivery:?}");
        assert!(delivery.took < BUDGET + NOISE, "{delivery:?}");
        let said = dovecot.plugin_log_lines();
        assert_eq!(said.is_empty(), is_found, "{said:?}");
        assert!(said.iter().all(|line| line.contains(host)), "{said:?}");
    }
    assert_eq!(pull.wait(1).len(), 1);
}

#[test]
fn options_without_effect_are_in_dovecots_log_for_who_looks() {
    let site = Site::with(|options| options);
    for (debug, told) in [(false, 0), (true, 1)] {
        let resolver = format!("--SERVER=127.0.0.1:{} --BINARY-PROTOCOL", site.memcached.port());
        let options = DovecotOptions::new(&["notify", "openchange"])
            .setting("openchange_resolver", &resolver)
            .setting("openchange_budget", &BUDGET.as_millis().to_string());
        let options = if debug { options.debug() } else { options };
        let dovecot = site.sandbox.dovecot(options).unwrap();
        let delivery = dovecot.deliver_lda("bob", mail("a@b", "x", "y"), None).unwrap();
        assert_eq!(delivery.status, Some(0), "{delivery:?}");
        let said = dovecot.plugin_log_lines();
        let named = said.iter().filter(|line| line.contains("--BINARY-PROTOCOL is accepted")).count();
        assert_eq!(named, told, "{said:?}");
    }
}
