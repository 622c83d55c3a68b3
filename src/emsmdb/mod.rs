//! What makes Outlook refresh: the sessions of an emsmdb server, their subscriptions and tables, the RopNotify replies
//! that wait for them, and their parked waits (EcDoAsyncWaitEx, MAPI/HTTP NotificationWait).

pub mod engine;
mod ids;
mod members;
mod room;
mod service;
mod session;
pub mod sogo;

pub use engine::{
    Answer, ConfigError, Engine, EngineConfig, HandleError, MessageRef, NewSession, NotifyError, OpenError,
    Parked, Query, QueryId, SecondWait, Statistics, Subscription, Table, TableKind, TableRow, Taken,
    UnknownSession, WaitId, WaitOutcome, What,
};
pub use ids::{AsyncIds, Ids, Reply};
pub use room::{MAX_PAYLOAD_OCTETS, notification_room};
pub use service::{Emsmdb, EmsmdbConfig};
pub use session::Session;
