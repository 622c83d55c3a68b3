//! What `ocbus serve --check` prints: what the daemon would do, without any secret.

use super::{CredentialKind, Loaded, ResolverSettings};

impl Loaded {
    /// A line for each thing that the daemon would do.
    pub fn summary(&self) -> Vec<String> {
        let settings = &self.settings;
        let mut lines = vec![match &settings.resolver {
            ResolverSettings::Memory => format!(
                "is the resolver itself, at {}, for peers in {}",
                settings.embedded.listen, settings.embedded.trusted_networks
            ),
            ResolverSettings::Memcached { text, .. } => {
                format!("asks memcached who listens: {text}, {} ms", settings.resolver_timeout_ms)
            }
        }];
        let http = &settings.http;
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        for address in &http.listen {
            lines.push(format!("listens at {scheme}://{address}, for peers in {}", http.trusted_networks));
        }
        if http.listen.is_empty() {
            lines.push("listens to no HTTP".to_owned());
        }
        for credential in &http.credentials {
            let place = format!("{}, {}", credential.secret().place(), credential.may);
            lines.push(match &credential.kind {
                CredentialKind::Basic { login, .. } => {
                    format!("takes requests of {}: login {login}, password {place}", credential.name)
                }
                CredentialKind::Bearer(_) => {
                    format!("takes requests of {}: bearer token {place}", credential.name)
                }
            });
        }
        if http.credentials.is_empty() && !http.listen.is_empty() {
            lines.push("takes requests of every process of this host".to_owned());
        }
        lines.push(format!(
            "takes bodies of {} octets and {} connections at most",
            http.max_body_octets, http.max_connections
        ));
        lines.push(format!(
            "knows users by {} names in a table, {} patterns, then by {}",
            settings.users.table.len(),
            settings.users.patterns.len(),
            match settings.users.cn {
                crate::gateway::users::CnRule::Username => "what stands before the @",
                crate::gateway::users::CnRule::Email => "the whole name",
            }
        ));
        if let Some(handover) = settings.handover.config() {
            let group = handover.group.as_deref().unwrap_or("the daemon's own");
            lines.push(format!(
                "takes events from the plugin at {}, mode {:04o}, group {group}",
                handover.listen, handover.mode
            ));
        }
        let outbox = settings.outbox.config();
        lines.push(format!(
            "holds events for {} s, {} octets of them at most, {} of one user",
            outbox.time_to_live.as_secs(),
            outbox.max_octets,
            outbox.max_user_octets
        ));
        lines.push(match &outbox.state_dir {
            Some(folder) => format!("counts what it has accepted in {}", folder.display()),
            None => {
                "keeps no ledger (neither outbox.state_dir nor systemd's STATE_DIRECTORY): what a kill loses \
                     is silent"
                    .to_owned()
            }
        });
        if let Some(registration) = &self.registration {
            lines.push(registration.summary());
        }
        lines.push(format!("ends {} s after SIGTERM at the latest", settings.drain_s));
        lines
    }
}
