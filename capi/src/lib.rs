//! libocbus: the emsmdb sessions of [`ocbus`] for MAPI servers in C. `include/ocbus.h`, made of what stands here by
//! cbindgen, is the reference; `README.md` the walk-through for an OpenChange programmer.
//!
//! * `options`: what to be told before [`ocbus_create`].
//! * `handle`: [`ocbus_create`], [`ocbus_fd`], [`ocbus_dispatch`], [`ocbus_destroy`]; threads, signals, forks.
//! * `session`, `subscription`, `table`: what a client has open.
//! * `wait`: EcDoAsyncWaitEx.
//! * `replies`: what stands at the end of a response.
//! * `ids`: questions to the server and its answers.
//! * `tell`: what the server has seen itself.
//! * `statistics`, `log`.
//! * `status`: codes, messages, and the guard around every call.
//! * `outbox`, `arguments`, `runtime`: what the above share.
//!
//! Each function of the library is a thin layer: it checks what C gave it, calls [`ocbus::Emsmdb`], and makes a
//! status of the outcome. Nothing here calls the server but [`ocbus_dispatch`] and [`ocbus_destroy`].
//!
//! This is, with the Dovecot plugin's `ffi.rs`, where `unsafe` is allowed.
#![allow(unsafe_code)]
// ocbus.h says for each function what its caller has to see to, in the words of C.
#![allow(clippy::missing_safety_doc, clippy::too_many_arguments)]
// The names of the types are C's.
#![allow(non_camel_case_types)]

mod arguments;
mod handle;
mod ids;
mod log;
mod options;
mod outbox;
mod replies;
mod runtime;
mod session;
mod settings;
mod statistics;
mod status;
mod subscription;
mod table;
mod tell;
mod wait;

pub use handle::{ocbus_create, ocbus_destroy, ocbus_dispatch, ocbus_fd, ocbus_t, ocbus_version};
pub use ids::{
    ocbus_answer_failed, ocbus_answer_folder, ocbus_answer_messages, ocbus_answer_row, ocbus_answer_unknown,
    ocbus_ids_callback, ocbus_message, ocbus_query, ocbus_row, ocbus_what,
};
pub use log::{ocbus_log_callback, ocbus_log_level};
pub use options::{
    ocbus_options, ocbus_options_free, ocbus_options_new, ocbus_options_read, ocbus_options_set,
    ocbus_options_set_ids, ocbus_options_set_log,
};
pub use replies::{ocbus_has_replies, ocbus_room, ocbus_take};
pub use session::{
    OCBUS_GUID_OCTETS, ocbus_async_connect, ocbus_session_close, ocbus_session_logoff, ocbus_session_logon,
    ocbus_session_open, ocbus_session_touch,
};
pub use statistics::{ocbus_statistics, ocbus_statistics_read};
pub use status::{ocbus_last_error, ocbus_last_status, ocbus_status, ocbus_status_name};
pub use subscription::{ocbus_release, ocbus_scope, ocbus_subscribe, ocbus_subscribe_rop};
pub use table::{
    OCBUS_TABLE_DEPTH, OCBUS_TABLE_NO_NOTIFICATIONS, ocbus_table_add, ocbus_table_kind,
    ocbus_table_open_view, ocbus_table_reset, ocbus_table_set_columns,
};
pub use tell::{ocbus_notify, ocbus_tell_new_mail};
pub use wait::{
    ocbus_async_wait_park, ocbus_outcome, ocbus_wait_answer, ocbus_wait_body, ocbus_wait_callback,
    ocbus_wait_cancel, ocbus_wait_next, ocbus_wait_park,
};
