//! Rows that wait for a shared session: never under other columns, or another object, than they were made for.

use ocbus::emsmdb::{Part, Session, Subscription, TableKind};
use ocbus::wire::ropnotify::{MessageRow, Notification, Scope, TableEvent};

use super::rig::{ALL, CONTENTS, fid, mid, table};
use super::service::until;
use super::sharing::{GUID, Scene, fetch, open, told};

fn row() -> Notification {
    let row = MessageRow { folder: fid("INBOX"), message: mid("INBOX", 1), instance: 1 };
    let after = MessageRow { folder: fid("INBOX"), message: mid("INBOX", 2), instance: 1 };
    Notification::ContentsTable(TableEvent::RowModified { row, after, data: vec![7; 9] })
}

fn changed() -> Notification {
    Notification::ContentsTable(TableEvent::Changed)
}

/// A table with a view, of which others know.
async fn viewed(scene: &Scene, session: &Session) {
    view(session, "INBOX");
    let records = scene.records().await;
    until("written", async || {
        let entries = records.subscriptions(&GUID).await.unwrap_or_default();
        entries.iter().any(|entry| entry.handle == CONTENTS && entry.properties == [0x674a_0014])
    })
    .await;
    // What is written is known to be a moment later.
    until("known", async || {
        session.notify(CONTENTS, row()).unwrap();
        appended(scene).await;
        let came = told(session).await;
        assert!(came.iter().all(|came| [row(), changed()].contains(came)), "{came:?}");
        came.contains(&row())
    })
    .await;
    until("nothing waits", async || told(session).await.is_empty()).await;
}

async fn appended(scene: &Scene) {
    let records = scene.records().await;
    until("appended", async || records.waiting_octets(&GUID).await.unwrap() > 0).await;
}

#[tokio::test]
async fn rows_for_former_columns_become_one_changed_table() {
    let scene = Scene::new();
    let (_, emsmdb) = scene.server(Part::Both).await;
    let session = open(&emsmdb).await;
    viewed(&scene, &session).await;
    // In `deliver:`, and in a queue for the client, when the columns change.
    session.notify(CONTENTS, row()).unwrap();
    appended(&scene).await;
    let (none, pending) = fetch(&session, 20).await;
    assert!(none.is_empty() && pending);
    session.notify(CONTENTS, row()).unwrap();
    appended(&scene).await;
    session.set_columns(CONTENTS, &[0x0037_001f]).unwrap();
    assert_eq!(told(&session).await, [changed()]);
    // asyncemsmdb may not have read of it yet, or wait for a row that it has asked for before.
    session.notify(CONTENTS, row()).unwrap();
    appended(&scene).await;
    assert_eq!(told(&session).await, [changed()]);
}

#[tokio::test]
async fn what_was_for_a_released_handle_is_nobody_elses() {
    let scene = Scene::new();
    let (_, emsmdb) = scene.server(Part::Both).await;
    let session = open(&emsmdb).await;
    viewed(&scene, &session).await;
    session.notify(CONTENTS, row()).unwrap();
    appended(&scene).await;
    session.unsubscribe(CONTENTS).unwrap();
    session
        .subscribe(Subscription { handle: CONTENTS, logon_id: 0, types: ALL, scope: Scope::Store })
        .unwrap();
    assert_eq!(told(&session).await, []);
    assert_eq!(emsmdb.sharing_statistics().released, 1);

    // Another table's.
    session.unsubscribe(CONTENTS).unwrap();
    view(&session, "Sent");
    session.notify(CONTENTS, row()).unwrap();
    appended(&scene).await;
    session.unsubscribe(CONTENTS).unwrap();
    view(&session, "INBOX");
    assert_eq!(told(&session).await, [changed()]);

    // Without a view there is nothing that changes.
    session.notify(CONTENTS, row()).unwrap();
    appended(&scene).await;
    session.reset_table(CONTENTS).unwrap();
    assert_eq!(told(&session).await, []);
}

fn view(session: &Session, folder: &str) {
    session.add_table(table(CONTENTS, TableKind::Contents, folder)).unwrap();
    session.set_columns(CONTENTS, &[0x674a_0014]).unwrap();
    session.open_view(CONTENTS).unwrap();
}
