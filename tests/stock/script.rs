//! What the Lua script tells: of deliveries, of what IMAP does, of headers of any octets.

use ocbus::EventKind;
use ocbus::sandbox::mail;

use super::{APPENDED, IMAP, append_three, assert_sound, lua, posted, posts};

#[test]
fn the_script_tells_deliveries_by_lda_and_lmtp() {
    let (_sandbox, server, dovecot) = lua();
    let sent = mail("=?utf-8?q?J=C3=BCrgen?= <j@example.org>", "Grüße \"x\"\\\r\n folded", "Hi Bob");
    assert!(dovecot.deliver_lda("bob", &sent, Some("Entwürfe/2026")).unwrap().is_ok());
    let expected: [&[&str]; 2] =
        [&["MailboxCreate Entwürfe/2026"], &[r#"MessageNew Entwürfe/2026 1 "Grüße \"x\"\\ folded" ()"#]];
    // Dovecot 2.4 makes INBOX as well.
    let made = posts(&server, 0).into_iter().filter(|post| post != &["MailboxCreate INBOX"]);
    assert_eq!(made.collect::<Vec<_>>(), expected);
    let event = posted(server.requests().last().unwrap()).remove(0);
    let mailbox = event.mailbox.as_ref().unwrap();
    assert_eq!((mailbox.storage_name.as_str(), mailbox.list_separator), ("Entw&APw-rfe.2026", '.'));
    assert!(event.uidvalidity.is_some_and(|uidvalidity| uidvalidity > 0));
    let EventKind::MessageNew(message) = &event.kind else { panic!("{event:?}") };
    assert_eq!(message.from.as_deref(), Some("Jürgen <j@example.org>"));
    assert_eq!(message.message_id.as_deref(), Some(sent.message_id()));

    let mut lmtp = dovecot.lmtp().unwrap();
    for (uid, subject) in [(1, "one"), (2, "two")] {
        let before = server.requests().len();
        let replies = lmtp.deliver("a@example.org", &["bob"], mail("a@example.org", subject, "x")).unwrap();
        assert!(replies[0].is_ok(), "{replies:?}");
        assert_eq!(posts(&server, before), [[format!("MessageNew INBOX {uid} {subject:?} ()")]]);
    }
    lmtp.quit().unwrap();
    assert_sound(&dovecot);
}

#[test]
fn the_script_tells_headers_of_any_octets() {
    let (_sandbox, server, dovecot) = lua();
    let subjects = ["\u{1}\u{7f}tab\there", "</script>\\u0000", "😀 é", "=?utf-8?q?a=0Ab?=", ""];
    for subject in subjects {
        assert!(dovecot.deliver_lda("bob", mail("a@b", subject, "x"), None).unwrap().is_ok());
    }
    let raw = [
        b"From: Z\xeb <z@example.org>\nSubject: \xff\xc3( \xed\xa0\x80 ".as_slice(),
        &b"\xc3\xa9".repeat(5000),
        b"\n\nx\n",
    ];
    assert!(dovecot.deliver_lda("bob", raw.concat(), None).unwrap().is_ok());
    assert!(dovecot.deliver_lda("bob", "\nno header at all\n", None).unwrap().is_ok());
    let messages: Vec<_> = server.requests()[1..]
        .iter()
        .map(|request| match posted(request).remove(0).kind {
            EventKind::MessageNew(message) => (message.uid, message.from, message.subject),
            other => panic!("{other:?}"),
        })
        .collect();
    let from = || Some("a@b".to_owned());
    let subject = |text: &str| Some(text.to_owned());
    assert_eq!(messages[0], (Some(1), from(), subject(" tab here")));
    assert_eq!(messages[1], (Some(2), from(), subject("</script>\\u0000")));
    assert_eq!(messages[2], (Some(3), from(), subject("😀 é")));
    assert_eq!(messages[3], (Some(4), from(), subject("a b")));
    assert_eq!(messages[4], (Some(5), from(), None));
    assert_eq!((messages[5].0, messages[5].1.as_deref()), (Some(6), Some("Z\u{fffd} <z@example.org>")));
    let long = messages[5].2.as_deref().unwrap();
    assert!(long.contains("\u{fffd}") && long.ends_with("éé") && (900..1100).contains(&long.len()), "{long}");
    assert_eq!(messages[6], (Some(7), None, None));
    assert_sound(&dovecot);
}

#[test]
fn the_script_tells_what_imap_does_as_its_right_kinds() {
    let (_sandbox, server, dovecot) = lua();
    let mut imap = dovecot.imap("bob").unwrap();
    append_three(&mut imap);
    // INBOX is made at the first look at it.
    let made =
        posts(&server, 0).into_iter().filter(|post| post != &["MailboxCreate INBOX"]).collect::<Vec<_>>();
    assert_eq!(made, APPENDED.map(|line| [line]));
    for (command, expected) in IMAP {
        let before = server.requests().len();
        imap.command(command).unwrap();
        assert_eq!(&posts(&server, before), expected, "{command}");
    }
    imap.logout().unwrap();
    assert_sound(&dovecot);
}

#[test]
fn a_transaction_too_large_to_tell_is_told_as_a_resync() {
    let (_sandbox, server, dovecot) = lua();
    let mut imap = dovecot.imap("bob").unwrap();
    imap.command("CREATE Work").unwrap();
    for _ in 0..4 {
        imap.append("INBOX", "", mail("a@b", "x", "x")).unwrap();
    }
    imap.command("SELECT INBOX").unwrap();
    // 4, 8, ... 1024.
    for _ in 0..8 {
        imap.command("COPY 1:* INBOX").unwrap();
    }
    let all = posts(&server, 0);
    let last = all.last().unwrap();
    assert_eq!(last.len(), 501, "500 messages and");
    assert_eq!(last[500], "Resync INBOX overflow 12");
    let before = server.requests().len();
    imap.command("STORE 1:* +FLAGS (\\Flagged)").unwrap();
    imap.command("EXPUNGE").unwrap();
    assert_eq!(posts(&server, before), [[r"FlagsSet INBOX 1:1024 (\Flagged)"]]);
    assert_sound(&dovecot);
}

#[test]
fn long_headers_do_not_make_a_request_that_the_daemon_refuses() {
    let (_sandbox, server, dovecot) = lua();
    let mut imap = dovecot.imap("bob").unwrap();
    for _ in 0..4 {
        imap.append("INBOX", "", mail("a@b", &"\\ ".repeat(2000), "x")).unwrap();
    }
    imap.command("SELECT INBOX").unwrap();
    // 4, 8, ... 512.
    for _ in 0..7 {
        imap.command("COPY 1:* INBOX").unwrap();
    }
    let request = server.requests().pop().unwrap();
    assert!((150_000..262_144).contains(&request.body.len()), "{}", request.body.len());
    let told = posts(&server, server.requests().len() - 1).remove(0);
    assert_eq!(told.last().unwrap(), &format!("Resync INBOX overflow {}", 256 - (told.len() - 1)));
    assert_sound(&dovecot);
}
