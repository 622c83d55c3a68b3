//! TLS by rustls: our certificate and key, read anew at each reload.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};

use super::settings::TlsSettings;

/// Our certificate and its key.
#[derive(Clone)]
pub struct Identity(TlsAcceptor);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// One of the files.
    #[error("{}: {source}: expected {expected} in PEM", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it should have.
        expected: &'static str,
        /// Why not.
        source: pem::Error,
    },
    /// They do not belong together, or are of a kind that rustls does not know.
    #[error("certificate and key: {0}")]
    Pair(#[from] rustls::Error),
}

impl Identity {
    /// Reads both files; relative names are beside the settings.
    pub(super) fn read(
        settings: &TlsSettings,
        beside: &Path,
        warnings: &mut Vec<String>,
    ) -> Result<Identity, IdentityError> {
        let (certificate, key) = (beside.join(&settings.certificate), beside.join(&settings.key));
        let of_certificate =
            |source| IdentityError::File { path: certificate.clone(), expected: "certificates", source };
        let chain = CertificateDer::pem_file_iter(&certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(of_certificate)?;
        if chain.is_empty() {
            return Err(of_certificate(pem::Error::NoItemsFound));
        }
        let private = PrivateKeyDer::from_pem_file(&key).map_err(|source| IdentityError::File {
            path: key.clone(),
            expected: "a private key",
            source,
        })?;
        warnings.extend(super::settings::readable_by_others(&key));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, private)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Identity(TlsAcceptor::from(Arc::new(config))))
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.0
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}
