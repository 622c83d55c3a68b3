//! Which daemon looks after a user: rendezvous hashing over the live daemons.

use uuid::Uuid;

/// The namespace of the weights, made once for this purpose (UUIDv4).
const WEIGHTS: Uuid = Uuid::from_u128(0x6f3c_52a1_0d7e_4b7c_9a55_2b1f_7d0a_9e43);

/// How much a daemon is for a user: the UUIDv5 (RFC 9562) of the daemon's name, a NUL and the user. The same
/// everywhere and in every version: daemons must agree.
fn weight(daemon: &str, user: &str) -> Uuid {
    Uuid::new_v5(&WEIGHTS, format!("{daemon}\0{user}").as_bytes())
}

/// The daemon that looks after `user`: the one of most weight. A daemon that goes takes only its own users along,
/// spread over all others; one that comes takes only those that are now its own. `None`: there is no daemon.
pub(super) fn owner<'a>(user: &str, daemons: &'a [String]) -> Option<&'a str> {
    daemons.iter().map(String::as_str).max_by_key(|daemon| (weight(daemon, user), *daemon))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(range: std::ops::Range<u32>) -> Vec<String> {
        range.map(|number| format!("mail{number}")).collect()
    }

    #[test]
    fn a_daemon_that_comes_or_goes_moves_only_its_own_users() {
        bolero::check!().with_type::<(Vec<u16>, u8, u8)>().for_each(|(users, count, gone)| {
            let before = names(0..u32::from(count % 8) + 1);
            let gone = usize::from(*gone) % before.len();
            let mut after = before.clone();
            let lost = after.remove(gone);
            for user in users.iter().map(u16::to_string) {
                let (was, is) = (owner(&user, &before).unwrap(), owner(&user, &after));
                match was == lost {
                    true => assert_ne!(is, Some(was)),
                    false => assert_eq!(is, Some(was), "moved without need"),
                }
                let mut turned = before.clone();
                turned.reverse();
                assert_eq!(owner(&user, &turned), Some(was), "the order of daemons counts for nothing");
            }
        });
    }

    #[test]
    fn users_are_spread_evenly_also_those_of_one_that_died() {
        let shares = |daemons: &[String]| {
            let mut counts = vec![0u32; daemons.len()];
            for user in 0..10_000 {
                let owner = owner(&format!("user{user}@example.org"), daemons).unwrap();
                counts[daemons.iter().position(|daemon| daemon == owner).unwrap()] += 1;
            }
            counts
        };
        assert!(shares(&names(0..4)).iter().all(|count| (2300..2700).contains(count)));
        assert!(shares(&names(1..4)).iter().all(|count| (3130..3540).contains(count)));
    }

    #[test]
    fn weights_are_the_same_in_every_version() {
        assert_eq!(owner("bob", &[]), None);
        let three = names(0..3);
        let owners: Vec<_> =
            ["ann", "bob", "carol", "dave", "erin", "frank"].map(|user| owner(user, &three).unwrap()).into();
        assert_eq!(weight("mail0", "bob").to_string(), "55c9de94-b0c6-553f-a01e-d77a94212877");
        assert_eq!(owners, ["mail0", "mail2", "mail2", "mail0", "mail1", "mail1"]);
    }
}
