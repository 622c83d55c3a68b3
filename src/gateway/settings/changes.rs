//! What a reload changes, and what it cannot.

use crate::registration::RegistrationSettings;

use super::{EmbeddedSettings, HandOverSettings, HttpSettings, OutboxSettings, PublisherSettings, Settings};

/// The keys that differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Taken over at once.
    pub applied: Vec<&'static str>,
    /// Taken over at the next start; until then the old values hold.
    pub restart: Vec<&'static str>,
}

impl Settings {
    /// What holds after a reload of `new`, and what differs: all of it but what only a start can change.
    pub fn take_over(&self, new: &Settings) -> (Settings, Changes) {
        let mut merged = self.clone();
        let mut changes = Changes::default();
        // Every field of every section is named: a new one cannot be forgotten here.
        macro_rules! compare {
            ($old:expr, $new:expr, $merged:expr, $type:ident { $($list:ident $field:ident $key:literal,)* } $($nested:ident)*) => {{
                let $type { $($field: _,)* $($nested: _,)* } = $old;
                $(if $old.$field != $new.$field {
                    changes.$list.push($key);
                    compare!($list $merged.$field, $new.$field);
                })*
            }};
            (applied $merged:expr, $new:expr) => { $merged = $new.clone() };
            (restart $merged:expr, $new:expr) => {};
        }
        compare!(self, new, merged, Settings {
            restart resolver "resolver",
            restart resolver_timeout_ms "resolver_timeout_ms",
            applied drain_s "drain_s",
            applied users "users",
        } http publisher outbox handover embedded registration);
        compare!(&self.http, new.http, merged.http, HttpSettings {
            restart listen "http.listen",
            restart notify_paths "http.notify_paths",
            applied trusted_networks "http.trusted_networks",
            applied credentials "http.credentials",
            applied tls "http.tls",
            applied max_body_octets "http.max_body_octets",
            applied max_head_octets "http.max_head_octets",
            applied max_headers "http.max_headers",
            applied max_connections "http.max_connections",
            applied max_streams "http.max_streams",
            applied head_timeout_ms "http.head_timeout_ms",
            applied body_timeout_ms "http.body_timeout_ms",
            applied idle_timeout_s "http.idle_timeout_s",
            applied repeat_window_s "http.repeat_window_s",
            applied repeat_requests "http.repeat_requests",
        });
        compare!(&self.publisher, new.publisher, merged.publisher, PublisherSettings {
            applied budget_ms "publisher.budget_ms",
            applied backend "publisher.backend",
            restart charset "publisher.charset",
            applied keep_refused "publisher.keep_refused",
        });
        compare!(&self.outbox, new.outbox, merged.outbox, OutboxSettings {
            applied max_octets "outbox.max_octets",
            applied max_user_octets "outbox.max_user_octets",
            applied time_to_live_s "outbox.time_to_live_s",
            applied retry_min_ms "outbox.retry_min_ms",
            applied retry_max_ms "outbox.retry_max_ms",
            applied grace_s "outbox.grace_s",
            applied gather_ms "outbox.gather_ms",
            applied lookups "outbox.lookups",
            restart state_dir "outbox.state_dir",
        });
        compare!(&self.handover, new.handover, merged.handover, HandOverSettings {
            restart listen "handover.listen",
            restart mode "handover.mode",
            restart group "handover.group",
        });
        // Whether there is a registrar at all is decided at the start.
        if self.registration.by.is_some() != new.registration.by.is_some() {
            changes.restart.push("registration.by");
        } else {
            compare!(&self.registration, new.registration, merged.registration, RegistrationSettings {
                applied by "registration.by",
                applied endpoints "registration.endpoints",
                applied api_key "registration.api_key",
                applied api_key_file "registration.api_key_file",
                applied api_key_env "registration.api_key_env",
                applied password "registration.password",
                applied password_file "registration.password_file",
                applied password_env "registration.password_env",
                applied master_user "registration.master_user",
                applied master_separator "registration.master_separator",
                applied passwords_file "registration.passwords_file",
                applied tls_ca_file "registration.tls_ca_file",
                applied pool_size "registration.pool_size",
                applied batch "registration.batch",
                applied connect_timeout_ms "registration.connect_timeout_ms",
                applied read_timeout_ms "registration.read_timeout_ms",
                applied deadline_ms "registration.deadline_ms",
                applied retry_s "registration.retry_s",
                applied reconcile_s "registration.reconcile_s",
                applied reconcile_per_s "registration.reconcile_per_s",
                applied grace_s "registration.grace_s",
                applied sessions_s "registration.sessions_s",
                applied permanent "registration.permanent",
                applied permanent_file "registration.permanent_file",
                restart value "registration.value",
                restart login "registration.login",
                restart daemon "registration.daemon",
                restart group "registration.group",
                restart lease_s "registration.lease_s",
                restart state_file "registration.state_file",
            });
        }
        compare!(&self.embedded, new.embedded, merged.embedded, EmbeddedSettings {
            restart listen "embedded.listen",
            restart trusted_networks "embedded.trusted_networks",
            restart max_octets "embedded.max_octets",
            restart max_connections "embedded.max_connections",
        });
        (merged, changes)
    }
}
