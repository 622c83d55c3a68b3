//! Which daemon a command asks, and how it gets in.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hyper::Uri;
use ocbus::gateway::remote::Remote;
use ocbus::gateway::settings::{Secret, SecretSource};

use super::failure::Failure;
use super::output;

/// The options.
#[derive(Debug, Args)]
pub(super) struct AtDaemon {
    /// The daemon.
    #[arg(long, global = true, env = "OCBUS_DAEMON", value_name = "URL", default_value = "http://127.0.0.1:8009",
        value_parser = url)]
    daemon: Uri,
    /// A file with login:password or a token, in one line; else OCBUS_CREDENTIALS is looked at.
    #[arg(long, global = true, value_name = "FILE")]
    credentials_file: Option<PathBuf>,
    /// For https: the authorities that are trusted, in PEM, instead of the system's.
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

fn url(text: &str) -> Result<Uri, String> {
    let fits = |url: &Uri| {
        matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some() && !text.contains('@')
    };
    text.parse().ok().filter(fits).ok_or_else(|| "expected http://host:port or https://host:port".to_owned())
}

impl AtDaemon {
    /// The daemon; `limit` is for each answer.
    pub(super) fn remote(&self, limit: Duration) -> Result<Remote, Failure> {
        Ok(Remote::new(self.daemon.clone(), self.credentials()?.as_ref(), self.ca_file.as_deref(), limit)?)
    }

    fn credentials(&self) -> Result<Option<Secret>, Failure> {
        const VARIABLE: &str = "OCBUS_CREDENTIALS";
        let source = match &self.credentials_file {
            Some(path) => SecretSource::File(std::path::absolute(path)?),
            None if std::env::var_os(VARIABLE).is_some() => SecretSource::Environment(VARIABLE.to_owned()),
            None => return Ok(None),
        };
        let mut warnings = Vec::new();
        let option = if self.credentials_file.is_some() { "--credentials-file" } else { VARIABLE };
        let secret = source.read(std::path::Path::new("/"), &mut warnings).map_err(|error| {
            Failure::failed(format!("{option}: {error}: expected login:password or a token"))
        })?;
        warnings.iter().for_each(|warning| output::note(&format!("ocbus: warning: {warning}")));
        Ok(Some(secret))
    }
}
