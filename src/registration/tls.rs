//! TLS to Dovecot: rustls with the system's certificates, or with those of one file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// Where Debian's ca-certificates has them all.
pub(crate) const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file of certificates.
    #[error("{}: {source}: expected certificates of authorities in PEM", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// None of them can be used.
    #[error("{}: no certificate of an authority that rustls can use", .0.display())]
    Empty(PathBuf),
    /// rustls itself.
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

/// A client that trusts the authorities of a file; `None` trusts nobody (no endpoint has TLS).
pub(crate) fn client(authorities: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = authorities {
        let of_file = |source| TlsError::File { path: path.to_path_buf(), source };
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(of_file)?;
        // A bundle has some that rustls does not take (old, odd): those are passed over.
        let (usable, _) = roots.add_parsable_certificates(certificates);
        if usable == 0 {
            return Err(TlsError::Empty(path.to_path_buf()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
