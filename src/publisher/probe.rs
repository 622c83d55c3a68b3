//! Whether an SP socket of the right kind listens at an endpoint: the handshake alone, then the connection is
//! closed. The whole handshake, because the ipc listener of libnng 1.5.2 dies of a peer that hangs up before.

use std::io::{self, ErrorKind};

use ocbus_resolver::delivery::Outcome;
use ocbus_wire::Endpoint;
use ocbus_wire::sp::{HANDSHAKE_LEN, Handshake, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

/// `Ok` when the endpoint's socket fits one that speaks `ours`; otherwise what is wrong with it.
pub async fn probe(endpoint: &Endpoint, ours: Protocol, deadline: Instant) -> Result<(), Outcome> {
    let connect = async {
        match endpoint {
            Endpoint::Tcp { host, port } => {
                // As the plugin does: a name that only DNS knows would be a wait without a deadline.
                let addresses = ocbus_resolver::addresses(host, *port, None)
                    .map_err(|error| Outcome::BadAddress(error.to_string()))?;
                let stream = TcpStream::connect(addresses.as_slice())
                    .await
                    .map_err(|error| refused(&error, endpoint))?;
                handshake(stream, ours).await
            }
            Endpoint::Ipc { path } => {
                let stream = UnixStream::connect(path).await.map_err(|error| refused(&error, endpoint))?;
                handshake(stream, ours).await
            }
        }
    };
    timeout_at(deadline, connect).await.unwrap_or(Err(Outcome::Silent))
}

/// What a connection that could not be made means.
pub(super) fn refused(error: &io::Error, endpoint: &Endpoint) -> Outcome {
    match (error.kind(), endpoint) {
        (ErrorKind::ConnectionRefused, _) | (ErrorKind::NotFound, Endpoint::Ipc { .. }) => Outcome::Refused,
        (ErrorKind::TimedOut, _) => Outcome::Silent,
        (_, Endpoint::Tcp { .. }) if error.raw_os_error().is_none() => Outcome::BadAddress(error.to_string()),
        _ => Outcome::Broken(error.to_string()),
    }
}

async fn handshake(mut stream: impl AsyncRead + AsyncWrite + Unpin, ours: Protocol) -> Result<(), Outcome> {
    let broken = |error: io::Error| Outcome::Broken(error.to_string());
    stream.write_all(&Handshake::new(ours).to_octets()).await.map_err(broken)?;
    let mut header = [0; HANDSHAKE_LEN];
    stream.read_exact(&mut header).await.map_err(broken)?;
    let theirs = Handshake::decode(&header).and_then(|theirs| theirs.fits(ours));
    theirs.map_err(|error| Outcome::Stranger(error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::time::Duration;

    use super::*;

    /// As for the plugin: both must call the same endpoints good.
    #[tokio::test]
    async fn a_name_that_only_name_servers_may_know_is_not_asked_for() {
        let endpoint = Endpoint::parse("tcp://no-such-host.invalid:1").unwrap();
        let outcome = probe(&endpoint, Protocol::Req, Instant::now() + Duration::from_secs(20)).await;
        let Err(Outcome::BadAddress(why)) = outcome else { panic!("{outcome:?}") };
        assert!(why.contains("/etc/hosts"), "{why}");
    }
}
