//! The text of a private Dovecot's settings, in the grammars of 2.3 and of 2.4.

use super::dovecot_conf::{MailLocation, PushDriver};
use super::{DovecotOptions, MAIL_UID, SandboxError};
use std::fmt::Write as _;
use std::path::Path;

/// The ports of a Dovecot's listeners.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) imap: u16,
    pub(super) lmtp: u16,
    /// Opened when the options ask for it.
    pub(super) doveadm: u16,
}

/// The grammars of Dovecot's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// 2.2 and 2.3.
    V23,
    /// 2.4 and later.
    V24,
}

impl Version {
    /// Of what `dovecot --version` prints; `None` when we know no grammar for it.
    pub(super) fn of(printed: &str) -> Option<Version> {
        match printed.split('.').take(2).collect::<Vec<_>>()[..] {
            ["2", "2" | "3"] => Some(Version::V23),
            ["2", "4"] => Some(Version::V24),
            _ => None,
        }
    }
}

impl DovecotOptions {
    /// The text of `dovecot.conf` for servers below `folder`.
    pub(super) fn text(&self, version: Version, folder: &Path, ports: Ports) -> Result<String, SandboxError> {
        let folder = folder.to_str().ok_or_else(|| SandboxError::Setting {
            name: "base_dir".to_owned(),
            value: folder.display().to_string(),
            wanted: "a path in UTF-8; name another folder in OCBUS_SANDBOX_DIR",
        })?;
        let separator = quoted("separator", &self.separator.to_string())?;
        let mut text = match version {
            Version::V23 => self.mail_23(),
            Version::V24 => self.mail_24(),
        };
        text.push_str(&common(folder, ports, &separator));
        text.push_str(&format!(
            "mail_debug = {}\nmail_plugins = {}\n",
            if self.debug { "yes" } else { "no" },
            self.plugins.join(" ")
        ));
        text.push_str(&match version {
            Version::V23 => self.users_23(folder),
            Version::V24 => self.users_24(folder),
        });
        text.push_str(&self.plugin_settings(version)?);
        if let Some((api_key, password)) = &self.doveadm_http {
            let (api_key, password) =
                (quoted("doveadm_api_key", api_key)?, quoted("doveadm_password", password)?);
            let doveadm = ports.doveadm;
            let address = match version {
                Version::V23 => "address",
                Version::V24 => "listen",
            };
            let listener =
                format!("  inet_listener http {{\n    {address} = 127.0.0.1\n    port = {doveadm}\n  }}");
            writeln!(
                text,
                "doveadm_api_key = {api_key}\ndoveadm_password = {password}\nservice doveadm {{\n{listener}\n}}"
            )
            .map_err(unwritable)?;
        }
        if self.metadata || matches!(self.push, Some(PushDriver::Ox { .. })) {
            text.push_str(match version {
                Version::V23 => "mail_attribute_dict = file:%h/dovecot-attributes\n",
                Version::V24 => {
                    "mail_attribute {\n  dict file {\n    path = %{home}/dovecot-attributes\n  }\n}\n"
                }
            });
        }
        if self.metadata {
            text.push_str("protocol imap {\n  imap_metadata = yes\n}\n");
        }
        for (protocol, plugins) in &self.protocol_plugins {
            writeln!(text, "protocol {protocol} {{\n  mail_plugins = {}\n}}", plugins.join(" "))
                .map_err(unwritable)?;
        }
        let (old, new) = &self.extra_by_version;
        text.push_str(if version == Version::V23 { old } else { new });
        text.push_str(&self.extra);
        Ok(text)
    }

    /// What plugins are set to, Dovecot's push drivers among them. 2.4 has no section for all of them.
    fn plugin_settings(&self, version: Version) -> Result<String, SandboxError> {
        let mut settings = String::new();
        for (name, value) in &self.settings {
            writeln!(settings, "  {name} = {}", quoted(name, value)?).map_err(unwritable)?;
        }
        let driver = |value: &str| quoted("push_notification_driver", value);
        Ok(match (version, &self.push) {
            (Version::V23, None) => format!("plugin {{\n{settings}}}\n"),
            (Version::V23, Some(push)) => {
                let driver = match push {
                    PushDriver::Lua { script } => driver(&format!("lua:file={script}"))?,
                    PushDriver::Ox { url } => driver(&format!("ox:url={url}"))?,
                };
                format!("plugin {{\n  push_notification_driver = {driver}\n{settings}}}\n")
            }
            (Version::V24, None) => settings,
            (Version::V24, Some(PushDriver::Lua { script })) => {
                let script = quoted("lua_file", script)?;
                format!(
                    "push_notification openchange {{
  driver = lua
  lua_file = {script}
  lua_settings {{
{settings}  }}
}}
"
                )
            }
            (Version::V24, Some(PushDriver::Ox { url })) => {
                let (url, from_metadata) = match url.strip_suffix(" user_from_metadata") {
                    Some(url) => (url, "yes"),
                    None => (url.as_str(), "no"),
                };
                let url = quoted("push_notification_ox_url", url)?;
                format!(
                    "push_notification ox {{
  driver = ox
  ox_url = {url}
  ox_user_from_metadata = {from_metadata}
}}
{settings}"
                )
            }
        })
    }

    fn mail_23(&self) -> String {
        let MailLocation { driver, path, utf8 } = &self.mail_location;
        let utf8 = if *utf8 { ":UTF-8" } else { "" };
        format!("disable_plaintext_auth = no\nmail_location = {driver}:{path}{utf8}\n")
    }

    fn mail_24(&self) -> String {
        let MailLocation { driver, path, utf8 } = &self.mail_location;
        let utf8 = if *utf8 { "yes" } else { "no" };
        format!(
            "dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
auth_allow_cleartext = yes
mail_driver = {driver}
mail_path = {path}
mailbox_list_utf8 = {utf8}
"
        )
    }

    fn users_23(&self, folder: &str) -> String {
        let uid = MAIL_UID;
        let master = match self.master {
            Some(_) => format!(
                "auth_master_user_separator = *
passdb {{
  driver = passwd-file
  master = yes
  args = {folder}/masters
}}
"
            ),
            None => String::new(),
        };
        let users = match self.users.is_empty() {
            true => format!(
                "passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid={uid} gid={uid} home={folder}/mail/%u allow_all_users=yes
}}
"
            ),
            false => format!(
                "passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = passwd-file
  args = {folder}/users
}}
"
            ),
        };
        master + &users
    }

    fn users_24(&self, folder: &str) -> String {
        let uid = MAIL_UID;
        let master = match self.master {
            Some(_) => format!(
                "auth_master_user_separator = *
passdb masters {{
  driver = passwd-file
  master = yes
  passwd_file_path = {folder}/masters
}}
"
            ),
            None => String::new(),
        };
        let users = match self.users.is_empty() {
            true => format!(
                "passdb static {{
  fields {{
    nopassword = yes
  }}
}}
userdb static {{
  allow_all_users = yes
  fields {{
    uid = {uid}
    gid = {uid}
    home = {folder}/mail/%{{user}}
  }}
}}
"
            ),
            false => format!(
                "passdb passwd-file {{
  passwd_file_path = {folder}/users
}}
userdb passwd-file {{
  passwd_file_path = {folder}/users
}}
"
            ),
        };
        master + &users
    }
}

/// What both grammars say alike.
fn common(folder: &str, ports: Ports, separator: &str) -> String {
    let (uid, Ports { imap, lmtp, .. }) = (MAIL_UID, ports);
    format!(
        "base_dir = {folder}/run
state_dir = {folder}/state
mail_plugin_dir = {folder}/modules
protocols = imap lmtp
listen = 127.0.0.1
ssl = no
log_path = {folder}/log/dovecot.log
auth_mechanisms = plain
first_valid_uid = {uid}
mail_fsync = never
postmaster_address = postmaster@example.org
lda_mailbox_autocreate = yes
namespace inbox {{
  inbox = yes
  separator = {separator}
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
"
    )
}

fn unwritable(_: std::fmt::Error) -> SandboxError {
    SandboxError::Io { what: "write settings".to_owned(), source: std::io::Error::other("formatting failed") }
}

/// A value in Dovecot's double quotes.
fn quoted(name: &str, value: &str) -> Result<String, SandboxError> {
    if value.contains(['\n', '\r', '\0']) {
        return Err(SandboxError::Setting {
            name: name.to_owned(),
            value: value.to_owned(),
            wanted: "one line without NUL",
        });
    }
    Ok(format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports { imap: 1143, lmtp: 1124, doveadm: 1180 };

    #[test]
    fn values_are_quoted_and_stay_on_their_line() {
        assert_eq!(quoted("a", r#"x "y" \z # $w"#).unwrap(), r#""x \"y\" \\z # $w""#);
        let error = quoted("openchange_cn", "a\nb").unwrap_err().to_string();
        assert!(error.contains("openchange_cn = \"a\\nb\""), "{error}");
    }

    #[test]
    fn the_text_has_the_plugins_and_the_settings() {
        let options = DovecotOptions::new(&["notify", "openchange"])
            .protocol_plugins("imap", &["notify"])
            .setting("openchange_budget", "50")
            .mail_location("mdbox", "~/mdbox")
            .utf8_names()
            .extra_by_version("old = 1", "new = 1")
            .extra("mail_max_keyword_length = 10");
        let text = |version| options.text(version, Path::new("/tmp/x"), PORTS).unwrap();
        for text in [text(Version::V23), text(Version::V24)] {
            assert!(text.contains("mail_plugins = notify openchange\n"));
            assert!(text.contains("  openchange_budget = \"50\"\n"));
            assert!(text.contains("protocol imap {\n  mail_plugins = notify\n}\n"));
            assert!(text.ends_with("mail_max_keyword_length = 10\n"));
        }
        assert!(text(Version::V23).contains("plugin {\n  openchange_budget"));
        assert!(!text(Version::V24).contains("plugin {\n"));
        assert!(text(Version::V23).contains("mail_location = mdbox:~/mdbox:UTF-8\n"));
        assert!(
            text(Version::V24)
                .contains("mail_driver = mdbox\nmail_path = ~/mdbox\nmailbox_list_utf8 = yes\n")
        );
        assert!(text(Version::V23).contains("\nold = 1\n") && !text(Version::V23).contains("new = 1"));
        assert!(text(Version::V24).contains("\nnew = 1\n") && !text(Version::V24).contains("old = 1"));
    }

    #[test]
    fn versions_are_told_by_what_dovecot_prints() {
        assert_eq!(Version::of("2.3.19.1 (9b53102964)"), Some(Version::V23));
        assert_eq!(Version::of("2.2.33.2 (d6601f4ec)"), Some(Version::V23));
        assert_eq!(Version::of("2.4.1-4 (7d8c0e5759)"), Some(Version::V24));
        assert_eq!(Version::of("3.0"), None);
        assert_eq!(Version::of(""), None);
    }
}
