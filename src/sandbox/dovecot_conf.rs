//! How a private Dovecot is set up, its module folder and its files of passwords.

use super::dovecot_text::Version;
use super::{MAIL_UID, SandboxError};
use std::collections::BTreeMap;
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
    pub(super) plugins: Vec<String>,
    pub(super) protocol_plugins: BTreeMap<String, Vec<String>>,
    plugin_file: Option<PathBuf>,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) push: Option<PushDriver>,
    pub(super) separator: char,
    pub(super) debug: bool,
    pub(super) mail_location: MailLocation,
    pub(super) extra: String,
    /// By grammar: 2.3's, 2.4's.
    pub(super) extra_by_version: (String, String),
    pub(super) doveadm_http: Option<(String, String)>,
    pub(super) metadata: bool,
    pub(super) master: Option<(String, String)>,
    pub(super) users: Vec<(String, String)>,
}

/// One of Dovecot's own push drivers.
#[derive(Debug, Clone)]
pub(super) enum PushDriver {
    /// A script, whose settings are the options' own.
    Lua { script: String },
    /// Behind the URL may stand the driver's options, in 2.3's spelling.
    Ox { url: String },
}

/// Where mails are: 2.3 has it in one setting, 2.4 in several.
#[derive(Debug, Clone)]
pub(super) struct MailLocation {
    pub(super) driver: String,
    pub(super) path: String,
    pub(super) utf8: bool,
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
            push: None,
            separator: '/',
            debug: false,
            mail_location: MailLocation {
                driver: "maildir".to_owned(),
                path: "~/Maildir".to_owned(),
                utf8: false,
            },
            extra: String::new(),
            extra_by_version: <(String, String)>::default(),
            doveadm_http: None,
            metadata: false,
            master: None,
            users: Vec::new(),
        }
    }

    /// A stock Dovecot, without our plugin, that runs a Lua script (`packaging/dovecot/openchange.lua`) for what
    /// happens in mailboxes. Its [`setting`](Self::setting)s are the script's.
    #[must_use]
    pub fn stock_lua(script: &str) -> Self {
        let plugins = ["notify", "push_notification", "mail_lua", "push_notification_lua"];
        Self { push: Some(PushDriver::Lua { script: script.to_owned() }), ..Self::new(&plugins) }
    }

    /// A stock Dovecot, without our plugin, whose own OX driver tells `url` of deliveries to registered users
    /// ([`Dovecot::register_ox`](super::Dovecot::register_ox)). Behind the URL may stand ` user_from_metadata`.
    #[must_use]
    pub fn stock_ox(url: &str) -> Self {
        Self::new(&["notify", "push_notification"]).push_by_ox(url)
    }

    /// Has the OX driver tell `url`, as [`stock_ox`](Self::stock_ox), wherever `push_notification` is among the plugins.
    #[must_use]
    pub fn push_by_ox(mut self, url: &str) -> Self {
        self.push = Some(PushDriver::Ox { url: url.to_owned() });
        self
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

    /// A setting of the `plugin` section; 2.4 has it outside of any, or in the Lua driver's own. Its value goes to Dovecot as it is, but for Dovecot's `%` variables.
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
        let ours = self.push.is_none() && !self.settings.is_empty();
        if version == Version::V24 && ours && !settings.is_file() {
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
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
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
