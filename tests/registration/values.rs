//! What a user puts under the key in the own mailbox is nobody else's trouble, and is put right.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use ocbus::registration::{KEY, Registrar, State};
use ocbus::sandbox::{Dovecot, Sandbox};

use super::{LIMIT, alone, cn, doveadm, options, unset, value};

/// As the user's own mail program may.
fn put(dovecot: &Dovecot, user: &str, value: &[u8]) {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", dovecot.imap_port())).unwrap());
    stream.get_mut().set_read_timeout(Some(LIMIT)).unwrap();
    let mut ask = |octets: &[u8], done: &str| {
        stream.get_mut().write_all(octets).unwrap();
        let mut line = String::new();
        while !line.starts_with(done) {
            assert!(!line.contains(" NO ") && !line.contains(" BAD "), "{line}");
            line.clear();
            assert_ne!(stream.read_line(&mut line).unwrap(), 0, "before {done}");
        }
    };
    ask(format!("a LOGIN {user} password\r\n").as_bytes(), "a OK");
    let head = format!("b SETMETADATA \"\" ({KEY} {{{}+}}\r\n", value.len());
    ask(&[head.as_bytes(), value, b")\r\n"].concat(), "b OK");
}

async fn is_registered(registrar: &Registrar, user: &str) {
    let told = registrar.register(&cn(user), LIMIT).await.unwrap().unwrap();
    assert_eq!((told.state, told.fault), (State::Registered, None), "{user}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_under_the_key_harms_nobody_else_and_is_put_right() {
    let sandbox = Sandbox::new().unwrap();
    let dovecot = sandbox.dovecot(options().master_user("ocbus", "masterword")).unwrap();
    let imap = format!(
        "by = 'imap'\nendpoints = ['imap://127.0.0.1:{}']\nretry_s = 60\nmaster_user = 'ocbus'\n\
         password = 'masterword'\npool_size = 1\n",
        dovecot.imap_port()
    );
    let doveadm = doveadm(&dovecot).replace("retry_s = 1", "retry_s = 60\npool_size = 1");
    // Longer than an answer may be, no UTF-8 (which async-imap's parser panics at), and what JSON must escape.
    let values = [vec![b'x'; 1_536_000], b"user=\xff\xfe x".to_vec(), b"a\"\\\t\x01\r\n]}b".to_vec()];
    for toml in [imap, doveadm] {
        for one in &values {
            put(&dovecot, "mallory", one);
            let listed = "permanent = ['ann', 'bob', 'mallory', 'zoe']\n";
            // At first all in one batch, where there are batches.
            let registrar = alone(&format!("{toml}{listed}")).await;
            for user in ["mallory", "ann", "bob", "zoe"] {
                is_registered(&registrar, user).await;
                assert_eq!(value(&dovecot, user), format!("user={user}"));
            }
            let counts = registrar.statistics();
            assert_eq!((counts.outages, counts.failed), (0, 0), "{toml}: {:?}", &one[..5]);
            // With all others registered it is asked for alone.
            put(&dovecot, "eve", one);
            is_registered(&registrar, "eve").await;
            is_registered(&registrar, "frank").await;
            assert_eq!(registrar.statistics().outages, 0);
            registrar.stop().await;
            for user in ["ann", "bob", "eve", "frank", "mallory", "zoe"] {
                unset(&dovecot, user);
            }
        }
    }
}
