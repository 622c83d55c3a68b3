//! An emsmdb server in miniature: one Outlook session, its parked wait, and the replies it fetches. No servers needed.
//!
//! `cargo run --example emsmdb_in_process`
//!
//! A server does the same with its RPC calls: EcDoAsyncWaitEx is `wait`, and `take` fills what a response to
//! EcDoRpcExt2 has left.

use std::time::Duration;

use ocbus::emsmdb::{
    Answer, AsyncIds, Emsmdb, EmsmdbConfig, NewSession, Query, Subscription, Table, TableKind, What,
    notification_room,
};
use ocbus::resolver::Cn;
use ocbus::wire::NewMessage;
use ocbus::wire::ropnotify::{FolderId, MessageId, NotificationTypes, RopNotify, Scope};
use ocbus::{Bus, Event, EventKind, Mailbox, now_us};
use uuid::Uuid;

/// Ids are the server's: OpenChange has them in its indexing database, under SOGo's URIs.
async fn ids(query: Query) -> Answer {
    match query.what {
        What::Folder { sogo_uri, .. } => {
            println!("  which folder is {sogo_uri} ?");
            // A host without such a folder answers Answer::Unknown; one whose database is away, Answer::Failed.
            FolderId::from_parts(1, 0x1234).map_or(Answer::Unknown, Answer::Folder)
        }
        What::Messages { messages, .. } => {
            messages.iter().for_each(|message| println!("  which message is {} ?", message.sogo_uri));
            Answer::Messages(
                messages.iter().map(|message| MessageId::from_parts(1, message.uid?.into())).collect(),
            )
        }
        // Rows of tables: without them Outlook reads the table again.
        _ => Answer::Unknown,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A Subscriber would feed the bus with what Dovecot's plugin sends, and would be the second argument.
    let bus = Bus::new();
    let emsmdb = Emsmdb::attach(&bus, None, AsyncIds::new(ids), EmsmdbConfig::default())?;

    // Outlook connects, ...
    let new = NewSession { guid: Uuid::new_v4(), cn: Cn::new("bob")?, index: 7 };
    let session = emsmdb.open_session(new).await?;
    // ... asks for what is new and modified anywhere (RopRegisterNotification), ...
    let types = NotificationTypes::NEW_MAIL | NotificationTypes::OBJECT_MODIFIED;
    session.subscribe(Subscription { handle: 0x29, logon_id: 0, types, scope: Scope::Store })?;
    // ... opens the Inbox (RopGetContentsTable) and reads its first rows (RopQueryRows), ...
    let folder = FolderId::from_parts(1, 0x1234).unwrap_or_default();
    let kind = TableKind::Contents;
    session.add_table(Table {
        handle: 0x32,
        logon_id: 0,
        kind,
        folder,
        depth: false,
        notifications: true,
    })?;
    session.open_view(0x32)?;

    // ... and waits.
    let waiting = tokio::spawn({
        let session = session.clone();
        async move { session.wait().await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;

    println!("a mail comes for bob");
    let message = NewMessage { uid: Some(7), subject: Some("Lunch?".to_owned()), ..NewMessage::default() };
    let kind = EventKind::MessageNew(message);
    let mut event = Event::new(Uuid::now_v7(), now_us(), "bob", Mailbox::new("INBOX", '/'), kind);
    (event.messages, event.unseen) = (Some(42), Some(3));
    bus.publish(event);

    let outcome = waiting.await?;
    println!(
        "the wait is answered: {} (result {}, flags {})",
        outcome.name(),
        outcome.result(),
        outcome.flags()
    );

    // Outlook calls, and its response has this much room.
    let mut response = Vec::new();
    let taken = session.take(notification_room(32_768, 0, 1), &mut response)?;
    println!("{} replies, {} octets, more: {}", taken.replies, taken.octets, taken.pending);
    let mut rest = &response[..];
    while let Ok((reply, length)) = RopNotify::decode(rest) {
        println!("  handle {:#x}: {:?}", reply.handle, reply.notification);
        rest = rest.get(length..).unwrap_or_default();
    }
    println!("{:?}", emsmdb.statistics());
    emsmdb.stop(Duration::from_secs(1)).await;
    Ok(())
}
