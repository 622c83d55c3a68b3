//! The settings of a private Dovecot 2.3, and its module folder.

use super::{MAIL_UID, SandboxError};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// The name that Dovecot loads our plugin by (`mail_plugins = openchange`).
const PLUGIN_FILE: &str = "lib90_openchange_plugin.so";

/// How a private Dovecot is set up.
#[derive(Debug, Clone)]
pub struct DovecotOptions {
    plugins: Vec<String>,
    protocol_plugins: BTreeMap<String, Vec<String>>,
    plugin_file: Option<PathBuf>,
    settings: BTreeMap<String, String>,
    pub(super) separator: char,
    debug: bool,
    extra: String,
    doveadm_http: Option<(String, String)>,
    metadata: bool,
    master: Option<(String, String)>,
    users: Vec<(String, String)>,
}

/// The ports of a Dovecot's listeners.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) imap: u16,
    pub(super) lmtp: u16,
    /// Opened when the options ask for it.
    pub(super) doveadm: u16,
}

impl DovecotOptions {
    /// A Dovecot with these `mail_plugins`, for example none, `["notify"]` or `["notify", "openchange"]`.
    /// Where `openchange` is among them and no [`plugin_file`](Self::plugin_file) is named, it is the one that
    /// Cargo has built last for our profile ([`built_plugin`]).
    #[must_use]
    pub fn new(plugins: &[&str]) -> Self {
        Self {
            plugins: owned(plugins),
            protocol_plugins: BTreeMap::new(),
            plugin_file: None,
            settings: BTreeMap::new(),
            separator: '/',
            debug: false,
            extra: String::new(),
            doveadm_http: None,
            metadata: false,
            master: None,
            users: Vec::new(),
        }
    }

    /// A stock Dovecot, without our plugin, that runs a Lua script (`packaging/dovecot/openchange.lua`) for what
    /// happens in mailboxes.
    #[must_use]
    pub fn stock_lua(script: &str) -> Self {
        Self::new(&["notify", "push_notification", "mail_lua", "push_notification_lua"])
            .setting("push_notification_driver", &format!("lua:file={script}"))
    }

    /// A stock Dovecot, without our plugin, whose own OX driver tells `url` of deliveries to registered users
    /// ([`Dovecot::register_ox`](super::Dovecot::register_ox)).
    #[must_use]
    pub fn stock_ox(url: &str) -> Self {
        Self::new(&["notify", "push_notification"])
            .setting("push_notification_driver", &format!("ox:url={url}"))
            .extra("mail_attribute_dict = file:%h/dovecot-attributes")
    }

    /// Other `mail_plugins` for one protocol: `lda`, `lmtp`, `imap` or `doveadm`.
    #[must_use]
    pub fn protocol_plugins(mut self, protocol: &str, plugins: &[&str]) -> Self {
        self.protocol_plugins.insert(protocol.to_owned(), owned(plugins));
        self
    }

    /// The .so of our plugin; it is copied.
    #[must_use]
    pub fn plugin_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.plugin_file = Some(path.into());
        self
    }

    /// A setting of the `plugin` section. Its value goes to Dovecot as it is, but for Dovecot's `%` variables.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The namespace's separator, `/` unless told. (Maildir's own stays `.`.)
    #[must_use]
    pub fn separator(mut self, separator: char) -> Self {
        self.separator = separator;
        self
    }

    /// Switches `mail_debug` on.
    #[must_use]
    pub fn debug(mut self) -> Self {
        self.debug = true;
        self
    }

    /// More configuration, written after everything else.
    #[must_use]
    pub fn extra(mut self, text: &str) -> Self {
        self.extra.push_str(text);
        self.extra.push('\n');
        self
    }

    /// Opens the DoveAdm HTTP API, with this key and password.
    #[must_use]
    pub fn doveadm_http(mut self, api_key: &str, password: &str) -> Self {
        self.doveadm_http = Some((api_key.to_owned(), password.to_owned()));
        self
    }

    /// Keeps METADATA, in a file for each user, and lets IMAP at it.
    #[must_use]
    pub fn metadata(mut self) -> Self {
        self.metadata = true;
        self
    }

    /// A master user, who logs in as `user*name`.
    #[must_use]
    pub fn master_user(mut self, name: &str, password: &str) -> Self {
        self.master = Some((name.to_owned(), password.to_owned()));
        self
    }

    /// Only these users, with these passwords; else there is any user, with any password.
    #[must_use]
    pub fn users(mut self, users: &[(&str, &str)]) -> Self {
        self.users = users.iter().map(|&(name, password)| (name.to_owned(), password.to_owned())).collect();
        self
    }

    /// Writes the files of passwords.
    pub(super) fn write_passwords(&self, folder: &Path) -> Result<(), SandboxError> {
        let uid = MAIL_UID;
        let user = |(name, password): &(String, String)| {
            format!("{name}:{{PLAIN}}{password}:{uid}:{uid}::{}/mail/{name}::\n", folder.display())
        };
        for (file, users) in [("users", self.users.as_slice()), ("masters", self.master.as_slice())] {
            let path = folder.join(file);
            fs::write(&path, users.iter().map(user).collect::<String>())
                .map_err(SandboxError::path("write", &path))?;
        }
        Ok(())
    }

    /// Writes `modules/` in `folder`: symlinks to the installed modules, and our plugin.
    pub(super) fn write_modules(&self, folder: &Path, installed: &Path) -> Result<(), SandboxError> {
        let modules = folder.join("modules");
        fs::create_dir(&modules).map_err(SandboxError::path("make", &modules))?;
        let entries = fs::read_dir(installed).map_err(SandboxError::path("read", installed))?;
        for entry in entries {
            let entry = entry.map_err(SandboxError::path("read", installed))?;
            if entry.file_name() == PLUGIN_FILE {
                continue;
            }
            let link = modules.join(entry.file_name());
            symlink(entry.path(), &link).map_err(SandboxError::path("make", &link))?;
        }
        let wanted = self
            .plugins
            .iter()
            .chain(self.protocol_plugins.values().flatten())
            .any(|name| name == "openchange");
        let file = match &self.plugin_file {
            Some(file) => file.clone(),
            None if wanted => built_plugin()?,
            None => return Ok(()),
        };
        if !file.is_file() {
            return Err(SandboxError::MissingPlugin { path: file });
        }
        let target = modules.join(PLUGIN_FILE);
        fs::copy(&file, &target)
            .and_then(|_| fs::set_permissions(&target, fs::Permissions::from_mode(0o644)))
            .map_err(SandboxError::path("copy the plugin to", &target))
    }

    /// The text of `dovecot.conf` for servers below `folder`.
    pub(super) fn text(&self, folder: &Path, ports: Ports) -> Result<String, SandboxError> {
        let Ports { imap, lmtp, doveadm } = ports;
        let folder = folder.to_str().ok_or_else(|| SandboxError::Setting {
            name: "base_dir".to_owned(),
            value: folder.display().to_string(),
            wanted: "a path in UTF-8; name another folder in OCBUS_SANDBOX_DIR",
        })?;
        let separator = quoted("separator", &self.separator.to_string())?;
        let debug = if self.debug { "yes" } else { "no" };
        let uid = MAIL_UID;
        let mut text = format!(
            "base_dir = {folder}/run
state_dir = {folder}/state
protocols = imap lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
log_path = {folder}/log/dovecot.log
auth_mechanisms = plain
first_valid_uid = {uid}
mail_location = maildir:~/Maildir
mail_fsync = never
mail_debug = {debug}
mail_plugin_dir = {folder}/modules
mail_plugins = {plugins}
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
plugin {{
",
            plugins = self.plugins.join(" "),
        );
        for (name, value) in &self.settings {
            writeln!(text, "  {name} = {}", quoted(name, value)?).map_err(unwritable)?;
        }
        text.push_str("}\n");
        self.write_auth(&mut text, folder)?;
        if let Some((api_key, password)) = &self.doveadm_http {
            let (api_key, password) =
                (quoted("doveadm_api_key", api_key)?, quoted("doveadm_password", password)?);
            let listener =
                format!("  inet_listener http {{\n    address = 127.0.0.1\n    port = {doveadm}\n  }}");
            writeln!(
                text,
                "doveadm_api_key = {api_key}\ndoveadm_password = {password}\nservice doveadm {{\n{listener}\n}}"
            )
            .map_err(unwritable)?;
        }
        if self.metadata {
            text.push_str("mail_attribute_dict = file:%h/dovecot-attributes\nprotocol imap {\n  imap_metadata = yes\n}\n");
        }
        for (protocol, plugins) in &self.protocol_plugins {
            writeln!(text, "protocol {protocol} {{\n  mail_plugins = {}\n}}", plugins.join(" "))
                .map_err(unwritable)?;
        }
        text.push_str(&self.extra);
        Ok(text)
    }
}

impl DovecotOptions {
    fn write_auth(&self, text: &mut String, folder: &str) -> Result<(), SandboxError> {
        let uid = MAIL_UID;
        if self.master.is_some() {
            writeln!(
                text,
                "auth_master_user_separator = *\npassdb {{\n  driver = passwd-file\n  master = yes\n  \
                 args = {folder}/masters\n}}"
            )
            .map_err(unwritable)?;
        }
        match self.users.is_empty() {
            true => writeln!(
                text,
                "passdb {{\n  driver = static\n  args = nopassword=y\n}}\nuserdb {{\n  driver = static\n  \
                 args = uid={uid} gid={uid} home={folder}/mail/%u allow_all_users=yes\n}}"
            ),
            false => writeln!(
                text,
                "passdb {{\n  driver = passwd-file\n  args = {folder}/users\n}}\nuserdb {{\n  \
                 driver = passwd-file\n  args = {folder}/users\n}}"
            ),
        }
        .map_err(unwritable)
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
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

/// The plugin that Cargo has built for the profile of this executable: `libopenchange_plugin.so` beside it (or
/// one folder up, for a test), unless `OCBUS_PLUGIN` names another.
///
/// # Errors
/// When it has not been built.
pub fn built_plugin() -> Result<PathBuf, SandboxError> {
    const BUILT: &str = "libopenchange_plugin.so";
    if let Some(path) = std::env::var_os("OCBUS_PLUGIN").map(PathBuf::from) {
        return if path.is_file() { Ok(path) } else { Err(SandboxError::MissingPlugin { path }) };
    }
    let executable = std::env::current_exe().map_err(SandboxError::io("find this executable"))?;
    let mut folder = executable.parent().unwrap_or(Path::new("."));
    // Tests and benchmarks are in target/PROFILE/deps, examples in target/PROFILE/examples.
    if folder.ends_with("deps") || folder.ends_with("examples") {
        folder = folder.parent().unwrap_or(folder);
    }
    let path = folder.join(BUILT);
    if path.is_file() { Ok(path) } else { Err(SandboxError::MissingPlugin { path }) }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            .extra("mail_max_keyword_length = 10");
        let text =
            options.text(Path::new("/tmp/x"), Ports { imap: 1143, lmtp: 1124, doveadm: 1180 }).unwrap();
        assert!(text.contains("mail_plugins = notify openchange\n"));
        assert!(text.contains("  openchange_budget = \"50\"\n"));
        assert!(text.contains("protocol imap {\n  mail_plugins = notify\n}\n"));
        assert!(text.ends_with("mail_max_keyword_length = 10\n"));
    }
}
