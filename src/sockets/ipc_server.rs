//! An ipc server over tokio: SP's handshake and frames from [`ocbus_wire::sp`], one task for each connection.

use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ocbus_wire::sp::{FrameDecoder, HANDSHAKE_LEN, Handshake, Transport, encode_frame};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::MAX_MESSAGE_OCTETS;
use super::server::{Handler, Role};

/// Connections at once; more wait in the listening socket's backlog.
const MAX_CONNECTIONS: usize = 1024;

/// Who may connect, and for how long.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IpcOptions {
    /// Of the socket's file. `None`: as the umask has it.
    pub(crate) mode: Option<u32>,
    /// The file's group. `None`: ours.
    pub(crate) group: Option<u32>,
    /// How long a peer may be silent between messages. `None`: [`IDLE`].
    pub(crate) idle: Option<Duration>,
}

/// How long a peer may take for its handshake, for a whole message from its first octet on, or to take an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a peer may be silent between messages. Publishers dial again when they have something to send; a place
/// that nobody uses is another's.
const IDLE: Duration = Duration::from_secs(60);

/// Words of a request's backtrace: one for each device on its way, and the id.
const MAX_HOPS: usize = 8;

/// The listening socket; its file goes with it.
#[derive(Debug)]
pub(crate) struct IpcServer {
    path: PathBuf,
    acceptor: JoinHandle<()>,
}

impl IpcServer {
    pub(crate) fn listen(
        role: Role,
        path: &Path,
        options: IpcOptions,
        handler: Handler,
    ) -> io::Result<IpcServer> {
        let listener = listen_unix(path, options)?;
        let acceptor = tokio::spawn(accept(listener, role, options.idle.unwrap_or(IDLE), handler));
        Ok(IpcServer { path: path.to_owned(), acceptor })
    }
}

impl Drop for IpcServer {
    fn drop(&mut self) {
        // The file first: once we do not listen any more, a successor may have one of its own there. Where it is
        // gone already, there is nothing to be done.
        let _ = std::fs::remove_file(&self.path);
        self.acceptor.abort();
    }
}

/// Listens at a path, with this owner and mode of its file or as the umask has it. What a killed process left there
/// goes.
pub(crate) fn listen_unix(path: &Path, options: IpcOptions) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let listener = UnixListener::bind(path)?;
    if let Err(error) = set_owner(path, options) {
        // Ours, and of no use.
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    Ok(listener)
}

/// The group first: with the mode alone the former group would have its rights for a moment.
fn set_owner(path: &Path, options: IpcOptions) -> io::Result<()> {
    if let Some(group) = options.group {
        std::os::unix::fs::chown(path, None, Some(group))?;
    }
    if let Some(mode) = options.mode {
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Removes a socket's file that nobody listens at: what a killed process leaves behind.
fn remove_stale(path: &Path) -> io::Result<()> {
    // Not blocking: a hung process may have a full backlog there.
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?).map_err(io::Error::from) {
        Ok(()) => Err(ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::AddrInUse.into()),
        // A plain file refuses connections too, and is not ours to remove: bind says so.
        Err(error)
            if error.kind() == ErrorKind::ConnectionRefused
                && std::fs::metadata(path)?.file_type().is_socket() =>
        {
            std::fs::remove_file(path)
        }
        Err(_) => Ok(()),
    }
}

async fn accept(listener: UnixListener, role: Role, idle: Duration, handler: Handler) {
    // Dropped with this task, and the connections with it.
    let mut connections = tokio::task::JoinSet::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Before the accept, so that a peer beyond the limit waits instead of being cut off.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let handler = Arc::clone(&handler);
                connections.spawn(async move {
                    if let Err(error) = serve(stream, role, idle, &handler).await {
                        tracing::debug!(event = "ipc_peer_ended", reason = %error, "a connection ended early");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(event = "accept_failed", reason = %error, "a peer could not be let in");
                // Descriptors are short: others have to be closed first.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: UnixStream, role: Role, idle: Duration, handler: &Handler) -> io::Result<()> {
    let ours = role.protocol();
    let mut header = [0; HANDSHAKE_LEN];
    // A peer that had no time to wait has gone; what it had written is there all the same.
    let greeted = stream.write_all(&Handshake::new(ours).to_octets()).await;
    if let Err(error) = greeted
        && error.kind() != ErrorKind::BrokenPipe
    {
        return Err(error);
    }
    in_time(Instant::now(), stream.read_exact(&mut header)).await?;
    Handshake::decode(&header).and_then(|theirs| theirs.fits(ours)).map_err(invalid)?;
    let mut frames = FrameDecoder::new(Transport::Ipc, u64::try_from(MAX_MESSAGE_OCTETS).unwrap_or(u64::MAX));
    let mut buffer = vec![0; 16 * 1024];
    // When the message that is not whole was begun: an octet now and then does not buy more time.
    let mut begun = None;
    loop {
        let read = stream.read(&mut buffer);
        let count = match begun {
            Some(begun) => in_time(begun, read).await?,
            // Nobody was in the middle of something: as if the peer had gone.
            None => tokio::time::timeout(idle, read).await.unwrap_or(Ok(0))?,
        };
        let Some(mut octets) = buffer.get(..count).filter(|octets| !octets.is_empty()) else { return Ok(()) };
        while let Some(message) = frames.next_message(&mut octets).map_err(invalid)? {
            begun = None;
            let Some(reply) = take(role, &message, handler)? else { continue };
            in_time(Instant::now(), stream.write_all(&reply)).await?;
        }
        begun = frames.is_inside().then(|| begun.unwrap_or_else(Instant::now));
    }
}

/// Hands a message over; gives the frame to answer with, if there is one.
fn take(role: Role, message: &[u8], handler: &Handler) -> io::Result<Option<Vec<u8>>> {
    if role == Role::Pull {
        handler(message);
        return Ok(None);
    }
    let (backtrace, body) = split_backtrace(message).ok_or_else(|| invalid("a request without an id"))?;
    let mut frame = Vec::new();
    encode_frame(Transport::Ipc, &[backtrace, &handler(body)], &mut frame);
    Ok(Some(frame))
}

/// Cuts a request behind the word whose top bit is set: it ends the backtrace, which the reply repeats.
fn split_backtrace(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let words = message.chunks_exact(4).take(MAX_HOPS);
    let hops =
        words.map(|word| word.first().is_some_and(|&first| first & 0x80 != 0)).position(|last| last)?;
    message.split_at_checked((hops + 1) * 4)
}

async fn in_time<T>(begun: Instant, operation: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let done = tokio::time::timeout_at(begun + PATIENCE, operation).await;
    done.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixStream;

    fn mode(mode: u32) -> IpcOptions {
        IpcOptions { mode: Some(mode), ..IpcOptions::default() }
    }

    #[tokio::test]
    async fn a_peer_that_is_idle_for_long_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let options = IpcOptions { idle: Some(Duration::from_millis(50)), ..IpcOptions::default() };
        let _server = IpcServer::listen(Role::Reply, &path, options, echo()).unwrap();
        let mut peer = UnixStream::connect(&path).await.unwrap();
        peer.write_all(b"\0SP\0\0\x30\0\0").await.unwrap();
        let mut all = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), peer.read_to_end(&mut all)).await;
        assert_eq!(ended.unwrap().unwrap(), HANDSHAKE_LEN);
    }

    /// In virtual time: how long a peer keeps its place that says hello, then an octet of a message every 2 s.
    async fn keeps_its_place(message: &[u8]) -> Duration {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _server = IpcServer::listen(Role::Reply, &path, IpcOptions::default(), echo()).unwrap();
        let mut peer = UnixStream::connect(&path).await.unwrap();
        peer.write_all(b"\0SP\0\0\x30\0\0").await.unwrap();
        peer.read_exact(&mut [0; HANDSHAKE_LEN]).await.unwrap();
        tokio::time::pause();
        let begun = Instant::now();
        for octet in message {
            if peer.write_all(&[*octet]).await.is_err() {
                return begun.elapsed();
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let _ = tokio::time::timeout(Duration::from_secs(3600), peer.read_to_end(&mut Vec::new())).await;
        begun.elapsed()
    }

    #[tokio::test]
    async fn nobody_keeps_a_place_without_using_it() {
        let silent = keeps_its_place(b"").await;
        assert!(silent >= IDLE && silent < IDLE + Duration::from_secs(10), "{silent:?}");
    }

    #[tokio::test]
    async fn an_octet_now_and_then_buys_no_time() {
        // Of a message of 200 octets.
        let slow = keeps_its_place(&[b"\x01\0\0\0\0\0\0\0\xc8".as_slice(), &[0; 100]].concat()).await;
        assert!(slow >= PATIENCE && slow < PATIENCE + Duration::from_secs(10), "{slow:?}");
    }

    fn echo() -> Handler {
        Arc::new(|message| message.to_vec())
    }

    #[test]
    fn a_backtrace_ends_at_the_top_bit() {
        assert_eq!(split_backtrace(b"\x80\0\0\x01x"), Some((&b"\x80\0\0\x01"[..], &b"x"[..])));
        assert_eq!(
            split_backtrace(b"\0\0\0\x07\xff\0\0\x01"),
            Some((&b"\0\0\0\x07\xff\0\0\x01"[..], &b""[..]))
        );
        for bad in [&b""[..], b"\x80\0\0", &[0; 400]] {
            assert_eq!(split_backtrace(bad), None);
        }
    }

    #[tokio::test]
    async fn peers_that_hang_up_or_talk_nonsense_harm_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let server = IpcServer::listen(Role::Reply, &path, mode(0o600), echo()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for nonsense in
            [&b""[..], b"\0SP\0\0\x30\0\0", b"GET / HTTP", b"\0SP\0\0\x50\0\0", b"\0SP\0\0\x30\0\0\x02"]
        {
            let mut peer = UnixStream::connect(&path).await.unwrap();
            peer.write_all(nonsense).await.unwrap();
        }
        let mut huge = UnixStream::connect(&path).await.unwrap();
        huge.write_all(b"\0SP\0\0\x30\0\0\x01\0\0\0\x01\0\0\0\0").await.unwrap();
        let mut end = Vec::new();
        huge.read_to_end(&mut end).await.unwrap();
        assert_eq!(end, b"\0SP\0\0\x31\0\0", "cut off at its claim");

        let mut peer = UnixStream::connect(&path).await.unwrap();
        peer.write_all(b"\0SP\0\0\x30\0\0\x01\0\0\0\0\0\0\0\x06\x80\0\0\x09hi").await.unwrap();
        let mut answer = [0; 8 + 9 + 6];
        peer.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"\0SP\0\0\x31\0\0\x01\0\0\0\0\0\0\0\x06\x80\0\0\x09hi");
        drop(server);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_file_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let server = IpcServer::listen(Role::Pull, &path, IpcOptions::default(), echo()).unwrap();
        let error = IpcServer::listen(Role::Pull, &path, IpcOptions::default(), echo()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        drop(server);
        let file = folder.path().join("file");
        std::fs::write(&file, "mine").unwrap();
        assert!(IpcServer::listen(Role::Pull, &file, IpcOptions::default(), echo()).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine", "what is no socket is not touched");
    }
}
