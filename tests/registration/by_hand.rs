//! What is registered and unregistered by hand where several daemons share the users.

use std::time::{Duration, Instant};

use ocbus::registration::{Refusal, Registrar, State};
use ocbus::resolver::Registration;
use ocbus::sandbox::{Sandbox, free_port};
use uuid::Uuid;

use super::{LIMIT, SECOND, cn, doveadm, entry, of_memcached, options, start, until, value};

fn is(registrar: &Registrar, user: &str, state: State) -> bool {
    entry(registrar, user).is_some_and(|entry| entry.state == state)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_daemon_does_the_others_leave_alone() {
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let dovecot = sandbox.dovecot(options()).unwrap();
    let (resolver, sessions) = of_memcached(&memcached).await;
    // Reconciled once a day: what is right is so without that.
    let toml =
        doveadm(&dovecot) + "lease_s = 2\nsessions_s = 1\ngrace_s = 1\nreconcile_s = 86400\ngroup = 'site'\n";
    let settings = |name: &str| {
        let state = sandbox.path().join(name);
        format!("{toml}daemon = '{name}'\nstate_file = '{}'\n", state.display())
    };
    let one = start(&settings("mail1"), resolver.clone(), sessions.clone()).await;
    let two = start(&settings("mail2"), resolver.clone(), sessions.clone()).await;
    let id = Uuid::now_v7();
    let listener =
        Registration { endpoint: "tcp://127.0.0.1:9", legacy: None, subscriber: id, lease: 60 * SECOND };
    let names: Vec<String> = (0..8).map(|number| format!("user{number}")).collect();
    for name in &names {
        resolver.register(&cn(name), listener).await.unwrap();
    }
    until("they share", LIMIT, || {
        let all = [&one, &two].map(|daemon| daemon.statistics().registered);
        all.iter().sum::<u64>() == 8 && !all.contains(&0)
    });
    // Whose session is the other's.
    let ann = names.iter().find(|name| is(&two, name, State::Registered)).unwrap().as_str();
    let set = format!("user={ann}");

    // Registered by hand at the one: the other does not take it back when the session ends.
    let told = one.register(&cn(ann), LIMIT).await.unwrap().unwrap();
    assert_eq!((told.state, told.permanent), (State::Registered, true));
    resolver.leave(&cn(ann), "tcp://127.0.0.1:9", id).await.unwrap();
    until("the other lets go", LIMIT, || entry(&two, ann).is_none());
    assert_eq!((value(&dovecot, ann), two.statistics().unset), (set.clone(), 0));
    let refused = two.unregister(&cn(ann), LIMIT).await;
    assert_eq!(refused, Err(Refusal::Elsewhere { user: cn(ann), daemon: "mail1".to_owned() }));
    let begun = Instant::now();
    assert_eq!(one.unregister(&cn(ann), LIMIT).await, Ok(None));
    assert!(begun.elapsed() < 5 * SECOND, "it was done, and waited for {:?}", begun.elapsed());
    assert_eq!(value(&dovecot, ann), "");

    // With a session, which is the other's: that one is asked.
    resolver.register(&cn(ann), listener).await.unwrap();
    until("her session is registered", LIMIT, || is(&two, ann, State::Registered));
    one.register(&cn(ann), LIMIT).await.unwrap();
    let refused = one.unregister(&cn(ann), LIMIT).await;
    assert_eq!(refused, Err(Refusal::Session { user: cn(ann), daemon: "mail2".to_owned() }));
    assert_eq!(value(&dovecot, ann), set);
    let told = two.unregister(&cn(ann), LIMIT).await.unwrap().unwrap();
    assert_eq!((told.state, value(&dovecot, ann)), (State::Barred, String::new()));

    // It stays so when the daemon is gone, and when it is back.
    two.stop().await;
    until("the one has her", LIMIT, || is(&one, ann, State::Barred));
    let two = start(&settings("mail2"), resolver.clone(), sessions.clone()).await;
    until("she is back", LIMIT, || is(&two, ann, State::Barred) && is(&one, ann, State::Elsewhere));
    // Longer than some censuses.
    let begun = Instant::now();
    while begun.elapsed() < 3 * SECOND {
        assert!(is(&two, ann, State::Barred) && value(&dovecot, ann).is_empty());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    // Until her session has ended.
    resolver.leave(&cn(ann), "tcp://127.0.0.1:9", id).await.unwrap();
    until("her session has ended", LIMIT, || entry(&two, ann).is_none());
    resolver.register(&cn(ann), listener).await.unwrap();
    until("the next one counts", LIMIT, || value(&dovecot, ann) == set);

    // Since when somebody is registered outlives a restart.
    let since = entry(&one, names.iter().find(|name| is(&one, name, State::Registered)).unwrap()).unwrap();
    one.stop().await;
    let one = start(&settings("mail1"), resolver, sessions).await;
    until("it has its users", LIMIT, || is(&one, &since.user, State::Registered));
    assert_eq!(entry(&one, &since.user).unwrap().since_us, since.since_us);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_daemon_gives_up_while_memcached_hangs_is_given_up_at_its_end() {
    let sandbox = Sandbox::new().unwrap();
    let memcached = sandbox.memcached().unwrap();
    let (resolver, sessions) = of_memcached(&memcached).await;
    // There is no Dovecot, and no need of one.
    let nobody = free_port().unwrap();
    let toml = format!(
        "by = 'doveadm'\nendpoints = ['http://127.0.0.1:{nobody}']\napi_key = 's3cr3t'\n\
         group = 'site'\ndaemon = 'mail1'\n"
    );
    let claimed = async || {
        let members = resolver.members(&cn("site/ann")).await.unwrap();
        members.into_iter().map(|lease| lease.endpoint).collect::<Vec<_>>()
    };
    let one = start(&toml, resolver.clone(), sessions).await;
    one.register(&cn("ann"), LIMIT).await.unwrap();
    assert_eq!(claimed().await, ["added:mail1"]);
    memcached.stop().unwrap();
    one.unregister(&cn("ann"), LIMIT).await.unwrap();
    tokio::join!(one.stop(), async { memcached.cont().unwrap() });
    assert_eq!(claimed().await, [""; 0]);
}
