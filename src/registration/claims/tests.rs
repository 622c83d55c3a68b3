//! Claims in real memcacheds, some of which fail.

use super::super::core::{Now, Pace, Why};
use super::*;
use crate::now_us;
use crate::sandbox::{Memcached, Sandbox};
use ocbus_resolver::Config;
use ocbus_wire::openchange::DosCharset;

const PACE: Pace = Pace {
    reconcile: Duration::from_secs(600),
    reconcile_per_s: 10,
    grace: Duration::from_secs(60),
    retry: Duration::from_secs(5),
};

fn now() -> Now {
    Now { at: Instant::now().into_std(), unix_us: now_us() }
}

async fn claims(options: &str) -> Claims {
    let config = Config::parse(options).unwrap();
    let resolver = Resolver::new(&config, DosCharset::default(), Duration::from_secs(1)).await.unwrap();
    Claims::new(&Cn::new("dovecot").unwrap(), "mail1", resolver)
}

/// Two memcacheds, of which one is dead, and users by turns: the first one's claims are there, and so on.
async fn one_of_two(sandbox: &Sandbox) -> (Claims, [Memcached; 2], Vec<Cn>) {
    let mut servers = [sandbox.memcached().unwrap(), sandbox.memcached().unwrap()];
    let [one, two] = &mut servers;
    let claims = claims(&format!("{} {}", one.configuration(), two.configuration())).await;
    two.kill();
    let (mut dead, mut live) = (Vec::new(), Vec::new());
    for number in 0..40 {
        let cn = Cn::new(&format!("user{number:02}")).unwrap();
        match claims.of(&cn).await {
            Ok(_) => live.push(cn),
            Err(_) => dead.push(cn),
        }
    }
    // By name: so claims are told and given up.
    let mut users = Vec::new();
    for dead in dead {
        let behind =
            live.iter().position(|live| *live > dead && users.last().is_none_or(|last| dead > *last));
        if let Some(behind) = behind {
            users.extend([dead, live.remove(behind)]);
        }
    }
    assert!(users.len() >= 4, "{users:?}");
    (claims, servers, users)
}

/// The claims to each of the users whose server lives.
async fn of_the_living(claims: &Claims, users: &[Cn]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for cn in users.iter().skip(1).step_by(2) {
        found.push(claims.of(cn).await.unwrap());
    }
    found
}

#[tokio::test]
async fn one_of_several_memcacheds_that_is_away_is_nobody_elses_trouble() {
    let sandbox = Sandbox::new().unwrap();
    let (claims, _servers, users) = one_of_two(&sandbox).await;
    let half = users.len() / 2;
    let mut core = Core::new("mail1", PACE);
    users.iter().for_each(|cn| core.recall(now(), cn, Why::Barred, None));
    let core = Mutex::new(core);
    let mut told = None;
    let again = claims.tell_all(&core, &mut told, &Notify::new()).await;
    assert!(told.is_none() && again > Instant::now() + RENEW_EVERY / 2, "a round, and not again at once");
    assert_eq!(of_the_living(&claims, &users).await, vec![[BARRED]; half]);

    let task = |act, cn: &Cn| Task { user: cn.clone(), act, alone: false, ask_barred: act == Act::Look };
    let batch: Vec<Task> = users.iter().map(|cn| task(Act::Look, cn)).collect();
    for objections in claims.objections(&batch).await.chunks(2) {
        assert_eq!(objections, [None, Some(Outcome::Barred)]);
    }
    let batch: Vec<Task> = users.iter().map(|cn| task(Act::Unset, cn)).collect();
    for objections in claims.objections(&batch).await.chunks(2) {
        assert!(matches!(objections, [Some(Outcome::Unasked(_)), None]), "{objections:?}");
    }

    // Their sessions end.
    for _ in 0..2 {
        lock(&core).sessions(now(), &std::collections::HashSet::new(), true);
    }
    claims.give_up_released(&core).await;
    assert_eq!(of_the_living(&claims, &users).await, vec![Vec::<String>::new(); half]);
    let left: Vec<(Cn, Claim)> = lock(&core).released().into_iter().collect();
    let dead: Vec<(Cn, Claim)> = users.iter().step_by(2).map(|cn| (cn.clone(), Claim::Barred)).collect();
    assert_eq!(left, dead, "to be given up when their server is back");
}

#[tokio::test]
async fn behind_an_outage_of_all_it_goes_on_where_it_was() {
    let sandbox = Sandbox::new().unwrap();
    let mut server = sandbox.memcached().unwrap();
    let claims = claims(&server.configuration()).await;
    let users: Vec<Cn> = (0..3).map(|number| Cn::new(&format!("user{number}")).unwrap()).collect();
    let mut core = Core::new("mail1", PACE);
    users.iter().for_each(|cn| core.recall(now(), cn, Why::Added, None));
    let core = Mutex::new(core);
    server.kill();
    let mut told = users.first().cloned();
    let again = claims.tell_all(&core, &mut told, &Notify::new()).await;
    assert_eq!(told.as_ref(), users.first());
    assert!(again < Instant::now() + RENEW_EVERY / 2, "soon");
    server.restart().unwrap();
    claims.tell_all(&core, &mut told, &Notify::new()).await;
    assert_eq!(told, None);
    for (cn, expected) in users.iter().zip([&[][..], &["added:mail1"], &["added:mail1"]]) {
        assert_eq!(claims.of(cn).await.unwrap(), expected, "{cn}");
    }
}

#[tokio::test]
async fn a_name_that_has_no_room_in_the_key_is_claimed_by_nobody() {
    let sandbox = Sandbox::new().unwrap();
    let server = sandbox.memcached().unwrap();
    // memcached's 250 less `ocbus-daemons:dovecot/`, and less the namespace.
    for (options, longest) in [("", 228), (" --NAMESPACE=\"site1.\"", 222)] {
        let claims = claims(&(server.configuration() + options)).await;
        for octets in longest - 1..Cn::MAX_OCTETS {
            let cn = Cn::new(&"c".repeat(octets)).unwrap();
            claims.tell(&cn, Claim::Added).await.unwrap();
            let expected = if octets > longest { &[][..] } else { &["added:mail1"] };
            assert_eq!(claims.of(&cn).await.unwrap(), expected, "{octets}");
            let task = Task { user: cn.clone(), act: Act::Unset, alone: false, ask_barred: false };
            assert_eq!(claims.objections(&[task]).await, [None], "{octets}");
            let core = Mutex::new(Core::new("mail1", PACE));
            lock(&core).release(cn, Claim::Added);
            claims.give_up_released(&core).await;
            assert!(lock(&core).released().is_empty(), "{octets}");
        }
    }
}

/// Polled once, it waits for memcached.
async fn begun<F: Future>(mut doing: std::pin::Pin<&mut F>) {
    tokio::select! {
        biased;
        _ = &mut doing => panic!("over"),
        () = std::future::ready(()) => {}
    }
}

#[tokio::test]
async fn nobody_who_is_given_up_waits_for_a_round_of_renewals() {
    let sandbox = Sandbox::new().unwrap();
    let server = sandbox.memcached().unwrap();
    let claims = claims(&server.configuration()).await;
    let [ann, bob, eve] = ["ann", "bob", "eve"].map(|name| Cn::new(name).unwrap());
    let mut core = Core::new("mail1", PACE);
    for cn in [&ann, &bob, &eve] {
        core.recall(now(), cn, Why::Added, None);
        claims.tell(cn, Claim::Added).await.unwrap();
    }
    core.unregister(now(), &ann).unwrap();
    let (core, released) = (Mutex::new(core), Notify::new());
    released.notify_one();
    let mut told = None;
    {
        let mut telling = std::pin::pin!(claims.tell_all(&core, &mut told, &released));
        begun(telling.as_mut()).await;
        // It is among those who are told of next.
        lock(&core).unregister(now(), &eve).unwrap();
        released.notify_one();
        telling.await;
    }
    for (cn, expected) in [(&ann, &[][..]), (&bob, &["added:mail1"]), (&eve, &[])] {
        assert_eq!(claims.of(cn).await.unwrap(), expected, "{cn}");
    }
    assert!(lock(&core).released().is_empty());
}

#[tokio::test]
async fn what_was_not_given_up_in_time_is_so_at_the_end() {
    let sandbox = Sandbox::new().unwrap();
    let server = sandbox.memcached().unwrap();
    let claims = claims(&server.configuration()).await;
    let ann = Cn::new("ann").unwrap();
    claims.tell(&ann, Claim::Added).await.unwrap();
    let mut core = Core::new("mail1", PACE);
    core.release(ann.clone(), Claim::Added);
    let core = Mutex::new(core);
    server.stop().unwrap();
    {
        let mut giving_up = std::pin::pin!(claims.give_up_released(&core));
        begun(giving_up.as_mut()).await;
        assert!(lock(&core).released().is_empty(), "under way");
        // The task is ended in the middle.
    }
    server.cont().unwrap();
    claims.give_up_at_the_end(&core).await;
    assert_eq!(claims.of(&ann).await.unwrap(), [""; 0]);
    assert!(lock(&core).released().is_empty());
}
