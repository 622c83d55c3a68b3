mod core;
pub mod doveadm;
mod endpoints;
pub mod metadata;
mod secret;
mod share;
mod template;
mod tls;
/// The key.
pub const KEY: &str = "/private/vendor/vendor.dovecot/http-notify";
