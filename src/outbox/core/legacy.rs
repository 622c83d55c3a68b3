//! What is promised to legacy endpoints: each mail at most once, and one that refuses may be kept.

use ocbus_wire::{EventKind, Mailbox, NewMessage};
use uuid::Uuid;

use super::*;

const URL: &str = "tcp://10.0.0.1:1";
const SECOND: Duration = Duration::from_secs(1);

/// One user with one legacy endpoint, in virtual time.
struct Legacy {
    core: Core,
    now: Now,
    /// How its sends end.
    sent: Sent,
    /// What was sent to it: so many events each time.
    sends: Vec<usize>,
    /// Whether a native lease says that it is the same subscriber.
    twin: Option<Lease>,
}

impl Legacy {
    fn new(sent: Sent) -> Legacy {
        let now = Now { at: Instant::now(), us: 0 };
        let config =
            OutboxConfig { gather: Duration::ZERO, grace: Duration::ZERO, ..OutboxConfig::default() };
        Legacy { core: Core::new(config, now, 1), now, sent, sends: Vec::new(), twin: None }
    }

    fn mail(&mut self) {
        let message = NewMessage { uid: Some(1), ..NewMessage::default() };
        let kind = EventKind::MessageNew(message);
        let event = Event::new(Uuid::now_v7(), 0, "bob", Mailbox::new("INBOX", '/'), kind);
        self.core.accept(self.now, Source::HandOver, vec![event]).unwrap();
        self.run();
    }

    fn run(&mut self) {
        loop {
            let orders = self.core.take_orders();
            if orders.is_empty() {
                return;
            }
            for order in orders {
                match order {
                    Order::LookUp(cn) => {
                        let (native, legacy) = (self.twin.iter().cloned().collect(), vec![URL.to_owned()]);
                        let listeners = Listeners { native, legacy, ..Listeners::default() };
                        self.core.looked_up(self.now, &cn, listeners, Duration::ZERO);
                    }
                    Order::Send(dispatch) => {
                        let native = dispatch.leases.iter().map(|lease| (Who::native(lease), Sent::Taken));
                        let legacy = dispatch.legacy.iter().map(|url| (Who::legacy(url), self.sent));
                        for (who, sent) in native.chain(legacy).collect::<Vec<_>>() {
                            if !who.is_native() {
                                self.sends.push(dispatch.items.len());
                            }
                            self.core.sent(self.now, &dispatch.cn, &who, dispatch.through, sent);
                        }
                    }
                    Order::Settle(..) | Order::TellEverybody(_) => {}
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.at + time;
        while let Some(at) = self.core.next_wake().filter(|at| *at <= end) {
            self.now.at = at.max(self.now.at);
            self.core.wake(self.now);
            self.run();
        }
        self.now.at = end;
    }

    fn check_even(&self) {
        let statistics = self.core.statistics();
        assert!(self.core.is_empty(), "{statistics:?}");
        let accepted: u64 = statistics.accepted.iter().sum();
        assert_eq!(accepted, statistics.delivered + statistics.dropped.iter().sum::<u64>(), "{statistics:?}");
        assert_eq!(self.core.accepted, self.core.settled, "the ledger");
    }
}

#[test]
fn one_that_refuses_is_gone_and_nothing_is_held_for_it() {
    // Its entry was removed from the record.
    let mut bob = Legacy::new(Sent::Gone);
    bob.mail();
    bob.pass(60 * SECOND);
    assert_eq!((bob.sends.as_slice(), bob.core.statistics().legacy_lost), (&[1][..], 1));
    bob.check_even();
}

#[test]
fn one_that_refuses_and_is_kept_gets_what_it_lacks_when_it_takes_again() {
    let mut bob = Legacy::new(Sent::Failed { unsent: true });
    bob.mail();
    bob.pass(20 * SECOND);
    bob.mail();
    bob.pass(20 * SECOND);
    let refused = bob.sends.len();
    assert!((10..60).contains(&refused), "with back-off: {refused}");
    assert_eq!((bob.core.statistics().held_events, bob.core.statistics().legacy_lost), (2, 0));
    bob.sent = Sent::Taken;
    bob.pass(3 * SECOND);
    assert_eq!(bob.sends[refused..], [2], "both, once");
    bob.check_even();
}

#[test]
fn one_that_refuses_for_longer_than_its_mails_live_has_lost_them() {
    let mut bob = Legacy::new(Sent::Failed { unsent: true });
    bob.mail();
    bob.pass(61 * SECOND);
    let statistics = bob.core.statistics();
    let expired = Reason::ALL.iter().position(|one| *one == Reason::Expired).unwrap();
    assert_eq!(statistics.dropped[expired], 1, "{statistics:?}");
    bob.check_even();
    // Nobody asks for nothing.
    let before = bob.sends.len();
    bob.pass(600 * SECOND);
    assert_eq!(bob.sends.len(), before);
}

#[test]
fn one_that_was_silent_may_have_it_and_gets_nothing_twice() {
    let mut bob = Legacy::new(Sent::Failed { unsent: false });
    bob.mail();
    bob.pass(30 * SECOND);
    assert_eq!((bob.sends.as_slice(), bob.core.statistics().legacy_lost), (&[1][..], 1));
    // The next mail is another matter.
    bob.sent = Sent::Taken;
    bob.mail();
    assert_eq!((bob.sends.as_slice(), bob.core.statistics().delivered), (&[1, 1][..], 1));
    bob.check_even();
}

#[test]
fn what_cannot_be_said_to_it_is_not_lost() {
    let mut bob = Legacy::new(Sent::Nothing);
    bob.core.traced = true;
    bob.mail();
    let statistics = bob.core.statistics();
    let dropped = |reason| statistics.dropped[Reason::ALL.iter().position(|one| *one == reason).unwrap()];
    assert_eq!((dropped(Reason::Unheard), dropped(Reason::Refused), statistics.legacy_lost), (1, 0, 0));
    let steps: Vec<&Step> = bob.core.traces.iter().map(|trace| &trace.step).collect();
    assert!(matches!(steps.last(), Some(Step::Dropped { reason: Reason::Unheard })), "{steps:?}");
    bob.check_even();
}

#[test]
fn a_subscriber_that_listens_both_ways_gets_it_natively() {
    let mut bob = Legacy::new(Sent::Taken);
    bob.twin = Some(Lease {
        endpoint: "tcp://10.0.0.1:2".to_owned(),
        subscriber: Uuid::from_u128(1),
        until_ms: u64::MAX,
        legacy: Some(URL.to_owned()),
        missed: 0,
    });
    bob.mail();
    assert_eq!((bob.sends.len(), bob.core.statistics().delivered), (0, 1));
    bob.check_even();
}
