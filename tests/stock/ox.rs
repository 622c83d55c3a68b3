//! What Dovecot's own OX driver tells, as our reader reads it.

use ocbus::sandbox::{Dovecot, DovecotOptions, Sandbox, mail};
use ocbus::wire::ox::OxNotification;
use uuid::Uuid;

use super::support::http::HttpServer;
use super::{assert_sound, told};

/// A Dovecot with its own OX driver, telling a server; bob is registered.
fn ox() -> (Sandbox, HttpServer, Dovecot) {
    let sandbox = Sandbox::new().unwrap();
    let server = HttpServer::new();
    let url = server.url("/preliminary/http-notify/v1/notify").replace("://", "://login:pass@");
    let dovecot = sandbox.dovecot(DovecotOptions::stock_ox(&url)).unwrap();
    for user in ["bob", "carol"] {
        dovecot.register_ox(user, &format!("user={user}")).unwrap();
    }
    (sandbox, server, dovecot)
}

#[test]
fn the_ox_driver_tells_deliveries_by_lda_and_lmtp() {
    let (_sandbox, server, dovecot) = ox();
    let sent =
        mail("=?utf-8?q?J=C3=BCrgen?= <j@example.org>", "=?utf-8?b?R3LDvMOfZQ==?=\r\n folded", "Hi Bob");
    assert!(dovecot.deliver_lda("bob", &sent, None).unwrap().is_ok());
    let mut lmtp = dovecot.lmtp().unwrap();
    for reply in lmtp.deliver("a@b", &["bob", "carol"], &sent).unwrap() {
        assert!(reply.is_ok(), "{reply:?}");
    }
    lmtp.quit().unwrap();
    // Not told: other folders, what clients do, users that are not registered.
    assert!(dovecot.deliver_lda("bob", &sent, Some("Work")).unwrap().is_ok());
    assert!(dovecot.deliver_lda("dave", &sent, None).unwrap().is_ok());
    let mut imap = dovecot.imap("bob").unwrap();
    imap.append("INBOX", "", &sent).unwrap();
    imap.logout().unwrap();
    let requests = server.requests();
    for (request, (user, uid, unseen)) in requests.iter().zip([("bob", 1, 1), ("bob", 2, 2), ("carol", 1, 1)])
    {
        assert_eq!(request.line, "PUT /preliminary/http-notify/v1/notify HTTP/1.1");
        assert_eq!(request.header("authorization"), Some("Basic bG9naW46cGFzcw=="));
        let events =
            OxNotification::decode(&request.body).unwrap().into_events(user, 7, &mut Uuid::now_v7).unwrap();
        assert_eq!(events.len(), 1);
        let event = &events[0];
        assert_eq!((event.user.as_str(), event.time_us, event.unseen), (user, 7, Some(unseen)));
        assert_eq!(told(event), format!("MessageNew INBOX {uid} \"Grüße folded\" ()"));
        assert!(event.uidvalidity.is_some_and(|uidvalidity| uidvalidity > 0));
    }
    assert_eq!(requests.len(), 3, "{requests:?}");
    assert_sound(&dovecot);
}

#[test]
fn the_ox_driver_tells_a_registered_name() {
    let (sandbox, server) = (Sandbox::new().unwrap(), HttpServer::new());
    let dovecot = sandbox
        .dovecot(DovecotOptions::stock_ox(&format!("{} user_from_metadata", server.url("/x"))))
        .unwrap();
    dovecot.register_ox("bob", "user=12@3").unwrap();
    assert!(dovecot.deliver_lda("bob", mail("a@b", "x", "x"), None).unwrap().is_ok());
    assert_eq!(OxNotification::decode(&server.requests()[0].body).unwrap().user, "12@3");
}
