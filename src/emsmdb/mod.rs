//! What makes Outlook refresh: the sessions of an emsmdb server, their subscriptions and tables, the RopNotify replies
//! that wait for them, and their parked waits (EcDoAsyncWaitEx, MAPI/HTTP NotificationWait). By MS-OXCNOTIF and
//! MS-OXCRPC.
//!
//! * [`Emsmdb`]: all sessions of a process, fed by its [`Bus`](crate::Bus); keeps their users registered.
//! * [`Session`]: one of them. `subscribe`, `add_table`, `wait`, `take`.
//! * [`Ids`]: where folder ids (FID), message ids (MID) and rows come from: the server.
//! * [`Sharing`]: OpenChange's records in memcached, for sessions that are served by several processes.
//! * [`engine`]: the state machine below, without I/O and without a clock.
//! * [`sogo`]: the URIs under which OpenChange has its ids.
//!
//! # What a server does
//!
//! | it is asked for | it calls |
//! |---|---|
//! | EcDoConnectEx, MAPI/HTTP Connect | [`Emsmdb::open_session`] |
//! | EcDoAsyncConnectEx | nothing; with [`Sharing`], [`Session::connect_async`] |
//! | RopLogon to another mailbox than the user's own | [`Session::logon`] |
//! | RopRegisterNotification | [`Session::subscribe`] |
//! | RopGetContentsTable, RopGetHierarchyTable | [`Session::add_table`] |
//! | RopSetColumns | [`Session::set_columns`] |
//! | RopQueryRows, RopFindRow, ... | [`Session::open_view`] |
//! | RopResetTable | [`Session::reset_table`] |
//! | RopRelease | [`Session::unsubscribe`] |
//! | EcDoAsyncWaitEx, NotificationWait | [`Session::wait`], in a process that has not opened the session [`Emsmdb::wait_async`]; [`WaitOutcome`] has the answer's fields |
//! | the end of any EcDoRpcExt2 or Execute response | [`Session::take`], with [`Sharing`] [`Session::fetch`]; with [`notification_room`] |
//! | EcDoDisconnect | [`Session::close`] |
//!
//! A fault of the bus, of memcached or of the host's ids never reaches the client as an error: it is told to look again.
//!
//! Without a future, from C for example: [`Session::park`] takes a callback, and so does [`Ids`]. Everything but
//! [`Emsmdb::attach`] may be called from any thread.
//!
//! One session may show several mailboxes, each by a logon; they have one queue and one wait. In OpenChange's records there is
//! no logon: a process that has not opened the session hears of its own mailbox's events alone.
//!
//! ```
//! use ocbus::Bus;
//! use ocbus::emsmdb::{Answer, AsyncIds, Emsmdb, EmsmdbConfig, NewSession, Query, WaitOutcome};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ids = AsyncIds::new(async |_query: Query| Answer::Unknown);
//! let emsmdb = Emsmdb::attach(&Bus::new(), None, ids, EmsmdbConfig::default())?;
//! let new = NewSession { guid: uuid::Uuid::new_v4(), cn: "bob".parse()?, index: 1 };
//! let session = emsmdb.open_session(new).await?;
//! assert!(session.close());
//! assert_eq!(session.wait().await, WaitOutcome::UnknownSession);
//! # Ok(())
//! # }
//! ```
//!
//! `cargo run --example emsmdb_in_process` shows a mail on its way to a waiting session.

pub mod engine;
mod ids;
mod members;
mod records;
mod room;
mod service;
mod session;
pub mod sogo;

pub use engine::{
    Answer, ConfigError, Engine, EngineConfig, HandleError, LogonError, MessageRef, NewSession, NotifyError,
    OpenError, Parked, Query, QueryId, SecondWait, Statistics, Subscription, Table, TableKind, TableRow,
    Taken, UnknownSession, WaitId, WaitOutcome, What,
};
pub use ids::{AsyncIds, Ids, Reply};
pub use records::{JoinError, Part, Sharing, SharingStatistics};
pub use room::{MAX_PAYLOAD_OCTETS, notification_room};
pub use service::{AsyncWait, Emsmdb, EmsmdbConfig};
pub use session::Session;
