//! Endpoints that do not work, each in its own way.

use super::{SandboxError, free_port};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with,
};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A port of 127.0.0.1 where nobody listens: it was free a moment ago. Where it has to stay so, while other
/// tests take ports, use [`Refused`].
///
/// # Errors
/// When there is none.
pub fn refused_port() -> Result<u16, SandboxError> {
    free_port()
}

/// A port that refuses for as long as this lives: bound, so that nobody else gets it, but not listening.
#[derive(Debug)]
pub struct Refused {
    _socket: OwnedFd,
    port: u16,
}

impl Refused {
    /// Takes a port.
    ///
    /// # Errors
    /// When there is none.
    pub fn new() -> Result<Self, SandboxError> {
        let (socket, port) = bound().map_err(SandboxError::io("bind a port of 127.0.0.1"))?;
        Ok(Self { _socket: socket, port })
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A listening socket whose backlog is full: Linux drops each further SYN, so a connect hangs until its own
/// deadline (or gets through when this is dropped: then it is refused).
#[derive(Debug)]
pub struct Blackhole {
    _listener: OwnedFd,
    _filling: Vec<OwnedFd>,
    port: u16,
}

impl Blackhole {
    /// Listens at a port of 127.0.0.1, and fills the backlog.
    ///
    /// # Errors
    /// When the backlog does not fill up.
    pub fn new() -> Result<Self, SandboxError> {
        let (listener, port) = bound().map_err(SandboxError::io("bind a port of 127.0.0.1"))?;
        listen(&listener, 0).map_err(SandboxError::io("listen"))?;
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let filling = fill(|socket| connect(socket, &address), AddressFamily::INET)?;
        Ok(Self { _listener: listener, _filling: filling, port })
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// The same for a unix socket: a blocking connect hangs, a non-blocking one fails with EAGAIN. Every uid may
/// connect to it.
#[derive(Debug)]
pub struct IpcBlackhole {
    _listener: OwnedFd,
    _filling: Vec<OwnedFd>,
}

impl IpcBlackhole {
    /// Listens at `path`, and fills the backlog.
    ///
    /// # Errors
    /// When the path cannot be bound, or the backlog does not fill up.
    pub fn new(path: &Path) -> Result<Self, SandboxError> {
        let address = SocketAddrUnix::new(path).map_err(SandboxError::path("bind", path))?;
        let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(SandboxError::io("make a socket"))?;
        bind(&listener, &address).map_err(SandboxError::path("bind", path))?;
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(path, everybody).map_err(SandboxError::path("set the mode of", path))?;
        listen(&listener, 0).map_err(SandboxError::io("listen"))?;
        let filling = fill(|socket| connect(socket, &address), AddressFamily::UNIX)?;
        Ok(Self { _listener: listener, _filling: filling })
    }
}

/// Connects until a connection hangs. `listen(0)` takes one; the bound is for other kernels.
fn fill(
    connect: impl Fn(&OwnedFd) -> rustix::io::Result<()>,
    family: AddressFamily,
) -> Result<Vec<OwnedFd>, SandboxError> {
    /// The loopback shakes hands within the call to connect: what is not there by then has been dropped.
    const HANGS: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    const MOST: usize = 16;
    let failed = || SandboxError::io::<Errno>("fill a backlog");
    let mut filling = Vec::new();
    while filling.len() < MOST {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None).map_err(failed())?;
        match connect(&socket) {
            // A unix socket says at once that the backlog is full.
            Err(Errno::AGAIN) => return Ok(filling),
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(failed()(error)),
        }
        let ready = poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&HANGS)).map_err(failed())?;
        filling.push(socket);
        if ready == 0 {
            return Ok(filling);
        }
    }
    Err(SandboxError::Io {
        what: "make a blackhole".to_owned(),
        source: io::Error::other(format!("{MOST} connects to a backlog of 0 all succeeded")),
    })
}

/// A bound TCP socket and its port.
fn bound() -> rustix::io::Result<(OwnedFd, u16)> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    let address = SocketAddr::try_from(getsockname(&socket)?)?;
    Ok((socket, address.port()))
}

/// Accepts, and never reads nor speaks.
#[derive(Debug)]
pub struct Silent(Server);

/// Accepts, and closes at once.
#[derive(Debug)]
pub struct Closer(Server);

/// Accepts, and speaks HTTP.
#[derive(Debug)]
pub struct Garbage(Server);

/// What [`Garbage`] says to everybody.
const HTTP: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nServer: sandbox\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

impl Silent {
    /// Listens at a port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is none.
    pub fn new() -> Result<Self, SandboxError> {
        Server::start(Some).map(Self)
    }
}

impl Closer {
    /// Listens at a port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is none.
    pub fn new() -> Result<Self, SandboxError> {
        Server::start(|_| None).map(Self)
    }
}

impl Garbage {
    /// Listens at a port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is none.
    pub fn new() -> Result<Self, SandboxError> {
        Server::start(|mut stream| {
            let _ = stream.write_all(HTTP);
            // Held open for reading: a close with unread octets would be a reset, and the answer lost.
            let _ = stream.shutdown(Shutdown::Write);
            Some(stream)
        })
        .map(Self)
    }
}

macro_rules! server {
    ($($name:ident)*) => {$(
        impl $name {
            /// The port.
            #[must_use]
            pub fn port(&self) -> u16 {
                self.0.port
            }

            /// How many connections it has accepted.
            #[must_use]
            pub fn accepted(&self) -> usize {
                self.0.accepted.load(Ordering::Relaxed)
            }
        }
    )*};
}
server!(Silent Closer Garbage);

/// A thread that accepts until it is dropped.
#[derive(Debug)]
struct Server {
    port: u16,
    accepted: Arc<AtomicUsize>,
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// `greet` gets each connection and gives back those that stay open.
    fn start(greet: impl Fn(TcpStream) -> Option<TcpStream> + Send + 'static) -> Result<Self, SandboxError> {
        let start = || -> io::Result<Self> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            let port = listener.local_addr()?.port();
            let (stop, stopped) = UnixStream::pair()?;
            let accepted = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&accepted);
            let thread = thread::Builder::new()
                .name("ocbus-fault".to_owned())
                .spawn(move || serve(&listener, stopped, &count, greet))?;
            Ok(Self { port, accepted, stop, thread: Some(thread) })
        };
        start().map_err(SandboxError::io("start a fault endpoint"))
    }
}

fn serve(
    listener: &TcpListener,
    mut stopped: UnixStream,
    count: &AtomicUsize,
    greet: impl Fn(TcpStream) -> Option<TcpStream>,
) {
    /// The oldest goes where a test makes more.
    const HELD: usize = 256;
    let mut held = std::collections::VecDeque::new();
    loop {
        let mut wanted = [PollFd::new(listener, PollFlags::IN), PollFd::new(&stopped, PollFlags::IN)];
        match poll(&mut wanted, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        if wanted.last().is_some_and(|end| !end.revents().is_empty()) {
            let _ = stopped.read(&mut [0]);
            return;
        }
        match listener.accept() {
            Ok((stream, _)) => {
                count.fetch_add(1, Ordering::Relaxed);
                held.extend(greet(stream));
                if held.len() > HELD {
                    held.pop_front();
                }
            }
            // No descriptor is free, for example: not a reason to spin.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(5))
            }
            Err(_) => {}
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
