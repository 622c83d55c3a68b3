//! Who may send: logins with passwords, and bearer tokens.
//!
//! Only SHA-256 digests are kept, and compared in constant time, each with all of what is known: neither the
//! length nor a common beginning of a secret shows in the time of an answer.

use std::fmt;
use std::path::Path;

use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::digest;
use subtle::ConstantTimeEq as _;

use super::settings::{CredentialKind, CredentialSettings, Rights};

/// Clients leave out the padding or write it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The longest `Authorization` that is looked at.
const MAX_OCTETS: usize = 8192;

/// Who may send.
#[derive(Default)]
pub struct Credentials(Vec<Known>);

/// One of them.
struct Known {
    name: String,
    may: Rights,
    digest: [u8; digest::SHA256_OUTPUT_LEN],
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unauthorized {
    /// No `Authorization`.
    #[error("no credentials: expected Authorization: Basic or Bearer")]
    Missing,
    /// Neither `Basic` with base64 nor `Bearer`.
    #[error("credentials of another form: expected Authorization: Basic or Bearer")]
    Malformed,
    /// Nobody known.
    #[error("wrong credentials")]
    Wrong,
}

impl Credentials {
    /// Reads the secrets of the settings. An error has the place in the list.
    pub(super) fn read(
        settings: &[CredentialSettings],
        beside: &Path,
        warnings: &mut Vec<String>,
    ) -> Result<Credentials, (usize, String)> {
        let mut known: Vec<Known> = Vec::with_capacity(settings.len());
        for (index, credential) in settings.iter().enumerate() {
            let secret = credential
                .secret()
                .read(beside, warnings)
                .map_err(|error| (index, format!("'{}': {error}", credential.name)))?;
            let digest = match &credential.kind {
                CredentialKind::Basic { login, .. } => {
                    digest("basic", format!("{login}:{}", secret.expose()).as_bytes())
                }
                CredentialKind::Bearer(_) => digest("bearer", secret.expose().as_bytes()),
            };
            if known.iter().any(|other| other.name == credential.name) {
                return Err((index, format!("name '{}' twice: expected each once", credential.name)));
            }
            if let Some(other) = known.iter().find(|other| other.digest == digest) {
                let what = match &credential.kind {
                    CredentialKind::Basic { .. } => "login and password",
                    CredentialKind::Bearer(_) => "token",
                };
                let (name, other) = (&credential.name, &other.name);
                let why = format!("'{name}' has the {what} of '{other}': expected others, or one credential");
                return Err((index, why));
            }
            known.push(Known { name: credential.name.clone(), may: credential.may, digest });
        }
        Ok(Credentials(known))
    }

    /// Whether nobody has to say who he is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name of the credential that an `Authorization` has, and what it is good for; nothing when none is asked for.
    pub fn check(&self, authorization: Option<&HeaderValue>) -> Result<Option<(&str, Rights)>, Unauthorized> {
        if self.is_empty() {
            return Ok(None);
        }
        let value = authorization.ok_or(Unauthorized::Missing)?.as_bytes();
        let value = Some(value).filter(|value| value.len() <= MAX_OCTETS).ok_or(Unauthorized::Malformed)?;
        let space = value.iter().position(|octet| *octet == b' ').ok_or(Unauthorized::Malformed)?;
        let (scheme, rest) = value.split_at_checked(space).ok_or(Unauthorized::Malformed)?;
        let rest = rest.trim_ascii();
        let given = if scheme.eq_ignore_ascii_case(b"basic") {
            digest("basic", &BASE64.decode(rest).map_err(|_| Unauthorized::Malformed)?)
        } else if scheme.eq_ignore_ascii_case(b"bearer") {
            digest("bearer", rest)
        } else {
            return Err(Unauthorized::Malformed);
        };
        // All of them, whichever fits.
        let mut found = None;
        for known in &self.0 {
            if bool::from(known.digest.ct_eq(&given)) {
                found = Some((known.name.as_str(), known.may));
            }
        }
        found.map(Some).ok_or(Unauthorized::Wrong)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|known| &known.name)).finish()
    }
}

fn digest(scheme: &str, octets: &[u8]) -> [u8; digest::SHA256_OUTPUT_LEN] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(scheme.as_bytes());
    context.update(b"\0");
    context.update(octets);
    let mut digest = [0; digest::SHA256_OUTPUT_LEN];
    for (to, from) in digest.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::settings::{Secret, SecretSource};

    fn known() -> Credentials {
        let source = |text: &str| SecretSource::Plain(Secret::new(text));
        let settings = [
            CredentialSettings {
                name: "dovecot".to_owned(),
                kind: CredentialKind::Basic { login: "login".to_owned(), password: source("p@ss:word") },
                may: Rights::ALL,
            },
            CredentialSettings {
                name: "lua".to_owned(),
                kind: CredentialKind::Bearer(source("token")),
                may: Rights::ALL,
            },
        ];
        Credentials::read(&settings, Path::new("/"), &mut Vec::new()).unwrap()
    }

    fn check(value: &str) -> Result<Option<String>, Unauthorized> {
        let value = HeaderValue::from_str(value).unwrap();
        known().check(Some(&value)).map(|found| found.map(|(name, _)| name.to_owned()))
    }

    #[test]
    fn each_kind_is_known_by_its_own_scheme() {
        // printf 'login:p@ss:word' | base64
        assert_eq!(check("Basic bG9naW46cEBzczp3b3Jk"), Ok(Some("dovecot".to_owned())));
        assert_eq!(check("basic  bG9naW46cEBzczp3b3Jk"), Ok(Some("dovecot".to_owned())));
        assert_eq!(check("Bearer token"), Ok(Some("lua".to_owned())));
        // printf 'token' | base64: a token is no Basic credential.
        assert_eq!(check("Basic dG9rZW4="), Err(Unauthorized::Wrong));
        assert_eq!(check("Bearer login:p@ss:word"), Err(Unauthorized::Wrong));
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        assert_eq!(known().check(None), Err(Unauthorized::Missing));
        for malformed in ["", "Basic", "Digest x", "Basic !!!", "Bearer"] {
            assert_eq!(check(malformed), Err(Unauthorized::Malformed), "{malformed}");
        }
        for wrong in ["Bearer toke", "Bearer tokens", "Bearer ", "Basic bG9naW46cGFzcw==", "Basic "] {
            assert_eq!(check(wrong), Err(Unauthorized::Wrong), "{wrong}");
        }
        assert_eq!(Credentials::default().check(None), Ok(None), "nobody is asked");
    }

    #[test]
    fn debug_shows_names_only() {
        assert_eq!(format!("{:?}", known()), r#"["dovecot", "lua"]"#);
    }
}
