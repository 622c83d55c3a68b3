//! Takes connections, within bounds: trusted peers, a number at once, time limits; TLS when there is a certificate.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::gate::Peer;
use super::patience::{Limits, Patience, Watched};
use super::state::{Count, Entered, Gateway};
use crate::gateway::settings::Loaded;

/// The pause after a failed accept: without descriptors it would fail at once again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const FORBIDDEN: &str = "peer outside http.trusted_networks";
const CROWDED: &str = "as many connections as http.max_connections are open";

/// Takes connections until `stop` says so; then waits until the requests that are under way are answered.
pub(in crate::gateway) async fn serve(
    listener: TcpListener,
    gateway: Gateway,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(entered) = admit(&gateway, &stream, peer) {
                    connections.spawn(connection(
                        stream,
                        peer,
                        entered,
                        gateway.clone(),
                        router.clone(),
                        stop.clone(),
                    ));
                } else {
                    drop(stream);
                }
            }
            Err(error) if of_the_peer(&error) => {}
            Err(error) => {
                gateway.count(Count::AcceptFailed);
                if let Some(passed_over) = gateway.may_log(Count::AcceptFailed) {
                    tracing::warn!(event = "accept_failed", %error, passed_over, "no connection taken");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // From now on it refuses.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The connection was broken before we took it.
fn of_the_peer(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// Whether a connection may be; if not, its peer is told so, without waiting for anything.
fn admit(gateway: &Gateway, stream: &TcpStream, peer: SocketAddr) -> Option<Entered> {
    let settings = gateway.settings();
    let http = &settings.settings.http;
    let (count, status, why) = if !http.trusted_networks.contain(peer.ip()) {
        (Count::Untrusted, "403 Forbidden", FORBIDDEN)
    } else {
        match gateway.enter(http.max_connections.get()) {
            Some(entered) => return Some(entered),
            None => (Count::Crowded, "503 Service Unavailable", CROWDED),
        }
    };
    gateway.count(count);
    if matches!(count, Count::Crowded) {
        gateway.outbox().turn_away_unread();
    }
    if let Some(passed_over) = gateway.may_log(count) {
        tracing::warn!(event = "turned_away", %peer, reason = why, passed_over, "connection refused");
    }
    if settings.tls.is_none() {
        say(stream, status, why);
    }
    None
}

/// Writes an answer into the connection's empty buffer. A peer that does not read it sees a closed connection.
fn say(stream: &TcpStream, status: &str, why: &str) {
    let body = format!("{{\"error\":\"{why}\"}}");
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    // Not by tokio, which does not know yet that it can be written to.
    let _ = rustix::net::send(stream, answer.as_bytes(), rustix::net::SendFlags::NOSIGNAL);
    let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Write);
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    entered: Entered,
    gateway: Gateway,
    router: Router,
    stop: watch::Receiver<bool>,
) {
    // An answer is one small write.
    let _ = stream.set_nodelay(true);
    let settings = gateway.settings();
    let Some(tls) = &settings.tls else {
        talk(stream, peer, &settings, router, stop).await;
        drop(entered);
        return;
    };
    let handshake = tls.acceptor().accept(stream);
    match tokio::time::timeout(settings.settings.http.head_timeout_ms.ms(), handshake).await {
        Ok(Ok(stream)) => talk(stream, peer, &settings, router, stop).await,
        Ok(Err(error)) => tracing::debug!(event = "tls_failed", %peer, %error, "connection closed"),
        Err(_) => tracing::debug!(event = "tls_failed", %peer, error = "too slow", "connection closed"),
    }
    drop(entered);
}

/// HTTP/1 until the peer ends it, owes us something for too long, or we stop.
async fn talk<S>(
    stream: S,
    peer: SocketAddr,
    settings: &Arc<Loaded>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let http = &settings.settings.http;
    let patience = Patience::new(Limits {
        idle: http.idle_timeout_s.s(),
        head: http.head_timeout_ms.ms(),
        write: http.body_timeout_ms.ms(),
    });
    let (of_service, router) = (patience.clone(), TowerToHyperService::new(router));
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let patience = of_service.clone();
        patience.requested();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        let answer = router.call(request);
        async move {
            let answer = answer.await;
            patience.answered();
            answer
        }
    });
    let io = TokioIo::new(Watched { stream, patience: patience.clone() });
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_headers(http.max_headers.count())
        .max_buf_size(http.max_head_octets.count());
    let mut talk = pin!(builder.serve_connection(io, service));
    let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
    let mut stopped = pin!(stop.wait_for(|stop| *stop));
    let mut stopping = false;
    poll_fn(|cx| {
        if !stopping && stopped.as_mut().poll(cx).is_ready() {
            stopping = true;
            talk.as_mut().graceful_shutdown();
        }
        if let Poll::Ready(result) = talk.as_mut().poll(cx) {
            if let Err(error) = result {
                tracing::debug!(event = "connection_failed", %peer, %error, "connection closed");
            }
            return Poll::Ready(());
        }
        // All that changes the deadline happens in this task: there is nobody to wake us for it.
        let Some((deadline, why)) = patience.deadline() else { return Poll::Pending };
        if alarm.deadline() != deadline {
            alarm.as_mut().reset(deadline);
        }
        alarm.as_mut().poll(cx).map(|()| {
            tracing::debug!(event = "connection_timed_out", %peer, reason = why, "connection closed");
        })
    })
    .await;
}
