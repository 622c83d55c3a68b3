//! What a reload changes, and what it cannot.

use super::Settings;

/// The keys that differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Taken over at once.
    pub applied: Vec<&'static str>,
    /// Taken over at the next start; until then the old values hold.
    pub restart: Vec<&'static str>,
}

impl Settings {
    /// What differs in `new`.
    pub fn changes(&self, new: &Settings) -> Changes {
        let mut changes = Changes::default();
        // Every field is named, so that a new one cannot be forgotten here.
        macro_rules! compare {
            ($old:expr, $new:expr, $type:ident { $($field:ident => ($list:ident, $key:literal)),* $(,)? }) => {{
                let $type { $($field: _),* } = $old;
                $(if $old.$field != $new.$field { changes.$list.push($key); })*
            }};
        }
        let Settings { resolver: _, resolver_timeout_ms: _, drain_s: _, http, users: _, publisher } = self;
        let pairs = [
            (self.resolver != new.resolver, "resolver"),
            (self.resolver_timeout_ms != new.resolver_timeout_ms, "resolver_timeout_ms"),
        ];
        changes.restart.extend(pairs.iter().filter(|(differs, _)| *differs).map(|(_, key)| *key));
        if self.drain_s != new.drain_s {
            changes.applied.push("drain_s");
        }
        if self.users != new.users {
            changes.applied.push("users");
        }
        use super::{HttpSettings, PublisherSettings};
        compare!(http, new.http, HttpSettings {
            listen => (restart, "http.listen"),
            trusted_networks => (applied, "http.trusted_networks"),
            credentials => (applied, "http.credentials"),
            tls => (applied, "http.tls"),
            max_body_octets => (applied, "http.max_body_octets"),
            max_head_octets => (applied, "http.max_head_octets"),
            max_headers => (applied, "http.max_headers"),
            max_connections => (applied, "http.max_connections"),
            head_timeout_ms => (applied, "http.head_timeout_ms"),
            body_timeout_ms => (applied, "http.body_timeout_ms"),
            idle_timeout_s => (applied, "http.idle_timeout_s"),
            repeat_window_s => (applied, "http.repeat_window_s"),
            repeat_requests => (applied, "http.repeat_requests"),
        });
        compare!(publisher, new.publisher, PublisherSettings {
            budget_ms => (restart, "publisher.budget_ms"),
            backend => (restart, "publisher.backend"),
            charset => (restart, "publisher.charset"),
            keep_refused => (restart, "publisher.keep_refused"),
        });
        changes
    }
}
