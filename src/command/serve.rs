//! `ocbus serve`: the daemon.

use std::path::{Path, PathBuf};

use clap::Args;
use ocbus::gateway::lifecycle::{self, End, Signals};
use ocbus::gateway::settings::DEFAULT_PATH;
use ocbus::gateway::{Daemon, Loaded};

use super::failure::Failure;
use super::output;

const HELP: &str = "\
Examples:
  ocbus serve --check                     read the settings, say what the daemon would do, and end
  ocbus serve --config ./ocbus.toml
  systemctl reload ocbus                  (SIGHUP) read settings, secrets and certificates anew

Without a file at /etc/ocbus/ocbus.toml, and without --config, the defaults hold: it listens at 127.0.0.1:8009 and asks
memcached at 127.0.0.1:11211. The resolver is the setting `resolver`; --resolver and --timeout count for nothing here.

Try it, as Dovecot's OX driver would call it:
  curl -X PUT -d '{\"user\":\"bob\",\"event\":\"messageNew\",\"folder\":\"INBOX\",\"imap-uid\":1}' \\
    http://127.0.0.1:8009/preliminary/http-notify/v1/notify

It stays in the foreground and logs to standard error (OCBUS_LOG filters). SIGTERM and SIGINT end it when everything
accepted is sent, or drain_s is over; a second one ends it at once. SIGHUP reloads all settings but those that need a
restart, and names these; after an error in the file the old ones hold.
Exit status: 0 ended in order, 1 failed or ended at once, 2 wrong usage.";

/// Takes events from Dovecot's push drivers over HTTP and from our plugin, and sends them to who listens.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(super) struct Serve {
    /// The settings [default: /etc/ocbus/ocbus.toml].
    #[arg(long, value_name = "FILE", env = "OCBUS_CONFIG")]
    config: Option<PathBuf>,
    /// Only read the settings and say what would be done; status 1 if they are wrong.
    #[arg(long)]
    check: bool,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (path, loaded) = match self.config {
            Some(path) => (path.clone(), Loaded::read(&path)?),
            None if Path::new(DEFAULT_PATH).exists() => {
                (DEFAULT_PATH.into(), Loaded::read(DEFAULT_PATH.as_ref())?)
            }
            None => (DEFAULT_PATH.into(), Loaded::defaults()),
        };
        if self.check {
            for warning in &loaded.warnings {
                output::note(&format!("warning: {warning}"));
            }
            for line in loaded.summary() {
                output::line(&line)?;
            }
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("no threads: {error}")))?;
        let end = runtime.block_on(serve(path, loaded));
        // A host name that is still being looked up must not hold us up.
        runtime.shutdown_background();
        match end? {
            End::InOrder => Ok(()),
            End::AtOnce => Err(Failure::failed("ended at once by a second signal")),
            End::Broken => {
                Err(Failure::failed("internal error: a listener ended by itself: please report it"))
            }
        }
    }
}

async fn serve(path: PathBuf, loaded: Loaded) -> Result<End, Failure> {
    // Before anything listens: nobody may end us without a drain.
    let signals = Signals::new().map_err(|error| Failure::failed(format!("signals: {error}")))?;
    for warning in &loaded.warnings {
        tracing::warn!(event = "settings_warning", "{warning}");
    }
    let tls = loaded.tls.is_some();
    let daemon = Daemon::start(loaded).await?;
    for address in daemon.addresses() {
        tracing::info!(event = "listening", %address, tls, "taking requests");
    }
    if let Some(embedded) = daemon.embedded() {
        tracing::info!(event = "listening", resolver = embedded.config_string(), "being the resolver");
    }
    if let Some(handover) = daemon.handover() {
        tracing::info!(event = "listening", endpoint = %handover.endpoint(), "taking events from the plugin");
    }
    tracing::info!(event = "serving", settings = %path.display(), "ready");
    Ok(lifecycle::run(daemon, path, signals).await)
}
