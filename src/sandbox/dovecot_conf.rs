//! The settings of a private Dovecot 2.3 or 2.4, and its module folder.

use super::{MAIL_UID, SandboxError};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// The name that Dovecot loads our plugin by (`mail_plugins = openchange`).
const PLUGIN_FILE: &str = "lib90_openchange_plugin.so";

/// Where Dovecot 2.4 looks for what our settings are called, below its modules. It looks in the folder that it was
/// compiled with, whatever `mail_plugin_dir` says.
const SETTINGS_FILE: &str = "settings/libopenchange_settings.so";

/// How a private Dovecot is set up.
#[derive(Debug, Clone)]
pub struct DovecotOptions {
    plugins: Vec<String>,
    protocol_plugins: BTreeMap<String, Vec<String>>,
    plugin_file: Option<PathBuf>,
    settings: BTreeMap<String, String>,
    pub(super) separator: char,
    debug: bool,
    mail_location: MailLocation,
    extra: String,
    /// By grammar: 2.3's, 2.4's.
    extra_by_version: (String, String),
}

/// Where mails are: 2.3 has it in one setting, 2.4 in several.
#[derive(Debug, Clone)]
struct MailLocation {
    driver: String,
    path: String,
    utf8: bool,
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
            mail_location: MailLocation {
                driver: "maildir".to_owned(),
                path: "~/Maildir".to_owned(),
                utf8: false,
            },
            extra: String::new(),
            extra_by_version: <(String, String)>::default(),
        }
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

    /// Where mails are: a driver (`maildir`, `sdbox`, `mdbox`) and its path; `maildir` and `~/Maildir` unless told.
    #[must_use]
    pub fn mail_location(mut self, driver: &str, path: &str) -> Self {
        driver.clone_into(&mut self.mail_location.driver);
        path.clone_into(&mut self.mail_location.path);
        self
    }

    /// Mailboxes are stored under their names in UTF-8, not in modified UTF-7.
    #[must_use]
    pub fn utf8_names(mut self) -> Self {
        self.mail_location.utf8 = true;
        self
    }

    /// More configuration in the two grammars: Dovecot 2.3's and 2.4's.
    #[must_use]
    pub fn extra_by_version(mut self, v23: &str, v24: &str) -> Self {
        let (old, new) = &mut self.extra_by_version;
        for (all, text) in [(old, v23), (new, v24)] {
            all.push_str(text);
            all.push('\n');
        }
        self
    }

    /// More configuration that both grammars know, written after everything else.
    #[must_use]
    pub fn extra(mut self, text: &str) -> Self {
        self.extra.push_str(text);
        self.extra.push('\n');
        self
    }

    /// Writes `modules/` in `folder`: symlinks to the installed modules, and our plugin.
    pub(super) fn write_modules(
        &self,
        version: Version,
        folder: &Path,
        installed: &Path,
    ) -> Result<(), SandboxError> {
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
        let settings = installed.join(SETTINGS_FILE);
        if version == Version::V24 && !self.settings.is_empty() && !settings.is_file() {
            return Err(SandboxError::MissingSettings { path: settings });
        }
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
    pub(super) fn text(
        &self,
        version: Version,
        folder: &Path,
        imap: u16,
        lmtp: u16,
    ) -> Result<String, SandboxError> {
        let folder = folder.to_str().ok_or_else(|| SandboxError::Setting {
            name: "base_dir".to_owned(),
            value: folder.display().to_string(),
            wanted: "a path in UTF-8; name another folder in OCBUS_SANDBOX_DIR",
        })?;
        let mut text = String::new();
        let common = Common {
            folder,
            imap,
            lmtp,
            plugins: &self.plugins.join(" "),
            separator: &quoted("separator", &self.separator.to_string())?,
            debug: if self.debug { "yes" } else { "no" },
            location: &self.mail_location,
        };
        text.push_str(&match version {
            Version::V23 => common.text_23(),
            Version::V24 => common.text_24(),
        });
        // 2.4 has no section for what plugins are set to.
        let (open, close) = match version {
            Version::V23 => ("plugin {\n", "}\n"),
            Version::V24 => ("", ""),
        };
        text.push_str(open);
        for (name, value) in &self.settings {
            writeln!(text, "  {name} = {}", quoted(name, value)?).map_err(unwritable)?;
        }
        text.push_str(close);
        for (protocol, plugins) in &self.protocol_plugins {
            writeln!(text, "protocol {protocol} {{\n  mail_plugins = {}\n}}", plugins.join(" "))
                .map_err(unwritable)?;
        }
        let (old, new) = &self.extra_by_version;
        text.push_str(if version == Version::V23 { old } else { new });
        text.push_str(&self.extra);
        Ok(text)
    }
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

/// What stands in every private Dovecot's settings.
struct Common<'a> {
    folder: &'a str,
    imap: u16,
    lmtp: u16,
    plugins: &'a str,
    separator: &'a str,
    debug: &'a str,
    location: &'a MailLocation,
}

impl Common<'_> {
    fn text_23(&self) -> String {
        let Common { folder, plugins, debug, .. } = self;
        let MailLocation { driver, path, utf8 } = self.location;
        let utf8 = if *utf8 { ":UTF-8" } else { "" };
        let uid = MAIL_UID;
        format!(
            "disable_plaintext_auth = no
mail_location = {driver}:{path}{utf8}
mail_debug = {debug}
mail_plugin_dir = {folder}/modules
mail_plugins = {plugins}
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid={uid} gid={uid} home={folder}/mail/%u allow_all_users=yes
}}
{}",
            self.text_of_both()
        )
    }

    fn text_24(&self) -> String {
        let Common { folder, plugins, debug, .. } = self;
        let MailLocation { driver, path, utf8 } = self.location;
        let utf8 = if *utf8 { "yes" } else { "no" };
        let uid = MAIL_UID;
        format!(
            "dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
auth_allow_cleartext = yes
mail_driver = {driver}
mail_path = {path}
mailbox_list_utf8 = {utf8}
mail_debug = {debug}
mail_plugin_dir = {folder}/modules
mail_plugins = {plugins}
passdb static {{
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
{}",
            self.text_of_both()
        )
    }

    fn text_of_both(&self) -> String {
        let Common { folder, imap, lmtp, separator, .. } = self;
        format!(
            "base_dir = {folder}/run
state_dir = {folder}/state
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
",
            uid = MAIL_UID,
        )
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
            .mail_location("mdbox", "~/mdbox")
            .utf8_names()
            .extra_by_version("old = 1", "new = 1")
            .extra("mail_max_keyword_length = 10");
        let text = |version| options.text(version, Path::new("/tmp/x"), 1143, 1124).unwrap();
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
