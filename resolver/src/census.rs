//! Who is there? Every registration on a memcached, by `lru_crawler metadump`: a stream of keys, which this reads
//! line by line. The records are for [`Resolver::lookup`](crate::Resolver::lookup).

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::cn::Cn;
use crate::config::{Config, Server};
use crate::names::{addresses_by, dial};

/// Along the lists by last use. (`hash`, along the hash table, also holds locks of items, as observed of 1.6.18: when
/// a reader stood still, other connections' gets hung.)
const ORDER: &[u8] = b"lru_crawler metadump all\r\n";
/// One look is not enough. An item that is written moves to another list, which may have been dumped already. An item
/// that is read twice is held by memcached until its LRU maintainer has moved it (`lru_bump_async` in `items.c`), and the
/// crawler passes over what anybody holds (`refcount_incr(search) != 2` in `crawler.c`): a subscriber's heartbeat, each
/// 0.5 s, hides its users so for up to 83 ms, as observed of 1.6.18, some or all of them at once. So there are at least
/// these looks at each server...
const LEAST_LOOKS: u32 = 3;
/// ...then others, until so many in a row have found nobody new...
const QUIET_LOOKS: u32 = 2;
/// ...up to these: with many who come and go there is always somebody new.
const MOST_LOOKS: u32 = 8;
/// From the beginning of one look to the next one's: longer than an item is held, three looks take longer than a heartbeat, and
/// no two of them stand at the same point between heartbeats.
const GAPS: [Duration; 2] = [Duration::from_millis(190), Duration::from_millis(410)];

/// A key of 250 octets, each as `%41`, and what stands behind it, is not half as long.
const MAX_LINE: usize = 2048;
/// memcached's longest key.
const MAX_KEY: usize = 250;
/// How often a server that is busy with another crawl is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// Why the registrations of a server could not be enumerated, or not to the end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CensusError {
    /// The connection did not come about, or broke.
    #[error("memcached {server}: {source}")]
    Io {
        /// host:port, or the socket's path.
        server: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Silence for longer than a step may take.
    #[error("memcached {server}: no answer within its deadline")]
    Deadline {
        /// As above.
        server: String,
    },
    /// Another crawl went on for as long as a step may take. A server does one at a time.
    #[error("memcached {server}: busy with another crawl of its keys: try again later")]
    Busy {
        /// As above.
        server: String,
    },
    /// The server cannot, or must not.
    #[error(
        "memcached {server}: cannot enumerate its keys: '{answer}': expected memcached 1.4.31 or later with its \
         lru_crawler enabled"
    )]
    Unsupported {
        /// As above.
        server: String,
        /// What it said.
        answer: String,
    },
    /// Something that no memcached says.
    #[error("memcached {server}: a line that is none of a key's: '{line}'")]
    Line {
        /// As above.
        server: String,
        /// Its beginning.
        line: String,
    },
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Everybody with a registration on any server of a configuration, each once, as they come: their names, for
/// look-ups to say what there is of them (nothing, for what an older configuration left on a wrong server).
///
/// It remembers a hash of each name, less than 40 octets a user. Who registers or leaves meanwhile may be among
/// them or not. Each server is looked at three times or more, which takes 0.6 s or more for all of them together: memcached
/// does not show whom somebody else is just looking up. So it is next to certain that everybody is among them, and no
/// more than that: whoever must not miss anybody takes another census, or looks those up that are missing.
///
/// Call [`Census::next`] again without delay, and keep the names for later: a memcached whose reader stands still
/// stays in its crawl, and lets nobody else begin one (1.6.18 keeps them waiting, and with them a worker).
pub struct Census {
    servers: std::vec::IntoIter<Server>,
    namespace: String,
    limit: Duration,
    crawl: Option<Crawl>,
    /// Servers that are to be looked at again, in the order of their turns.
    again: VecDeque<Crawl>,
    /// The time between looks.
    idle: Duration,
    seen: HashSet<u64>,
    hasher: RandomState,
}

impl std::fmt::Debug for Census {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Census").field("seen", &self.seen.len()).finish_non_exhaustive()
    }
}

impl Census {
    /// Asks nobody yet. `limit` is for each step: a connection, each silence.
    pub fn new(config: &Config, limit: Duration) -> Census {
        Census {
            servers: config.servers.clone().into_iter(),
            namespace: config.namespace.clone().unwrap_or_default(),
            limit,
            crawl: None,
            again: VecDeque::new(),
            idle: Duration::ZERO,
            seen: HashSet::new(),
            hasher: RandomState::new(),
        }
    }

    /// The next one, in no order; `None` when there are no more. After an error it goes on with the next server.
    pub async fn next(&mut self) -> Result<Option<Cn>, CensusError> {
        loop {
            // After an error the crawl is gone, and its connection with it.
            let Some(mut crawl) = self.turn().await? else { return Ok(None) };
            match crawl.next().await? {
                Some(key) => {
                    let crawl = self.crawl.insert(crawl);
                    if let Some(cn) = owner(&key, &self.namespace)
                        && self.seen.insert(self.hasher.hash_one(&cn))
                    {
                        crawl.news = true;
                        return Ok(Some(cn));
                    }
                }
                None if crawl.is_over() => {}
                None => self.again.push_back(crawl),
            }
        }
    }

    /// How long it has waited between looks, for whoever asks how much work it was.
    pub fn idle(&self) -> Duration {
        self.idle
    }

    /// The crawl that is under way, or the next one: each server once, then those that are to be looked at again.
    async fn turn(&mut self) -> Result<Option<Crawl>, CensusError> {
        if let Some(crawl) = self.crawl.take() {
            return Ok(Some(crawl));
        }
        if let Some(server) = self.servers.next() {
            return Crawl::begin(&server, self.limit).await.map(Some);
        }
        let Some(mut crawl) = self.again.pop_front() else { return Ok(None) };
        let wait = crawl.due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
            self.idle += wait;
        }
        crawl.ask().await?;
        Ok(Some(crawl))
    }
}

/// The keys of one server.
struct Crawl {
    connection: BufReader<Box<dyn Stream>>,
    server: String,
    limit: Duration,
    looks: u32,
    /// Looks that found nobody new, since one did.
    quiet: u32,
    /// When the next one may begin.
    due: Instant,
    /// Whether the present look has found somebody new.
    news: bool,
    /// The line to be read next.
    line: Vec<u8>,
}

impl Crawl {
    async fn begin(server: &Server, limit: Duration) -> Result<Crawl, CensusError> {
        let name = server.to_string();
        let stream = within(limit, &name, connect(server, Instant::now() + limit)).await?;
        let connection = BufReader::new(stream);
        let mut crawl = Crawl {
            connection,
            server: name,
            limit,
            looks: 0,
            quiet: 0,
            due: Instant::now(),
            news: false,
            line: Vec::new(),
        };
        crawl.ask().await?;
        Ok(crawl)
    }

    /// Orders the keys and reads the first line.
    async fn ask(&mut self) -> Result<(), CensusError> {
        let begun = Instant::now();
        let [short, long] = GAPS;
        self.due = begun + if self.looks.is_multiple_of(2) { short } else { long };
        self.looks += 1;
        self.news = false;
        let patience = begun + self.limit;
        loop {
            within(self.limit, &self.server, self.connection.write_all(ORDER)).await?;
            self.read_line().await?;
            let server = || self.server.clone();
            match self.line.as_slice() {
                line if line.starts_with(b"BUSY") && Instant::now() < patience => sleep(PAUSE).await,
                line if line.starts_with(b"BUSY") => return Err(CensusError::Busy { server: server() }),
                line if line == b"END" || line.starts_with(b"key=") => return Ok(()),
                line => return Err(CensusError::Unsupported { server: server(), answer: shown(line) }),
            }
        }
    }

    /// Whether the look that has just come to its end was the last one.
    fn is_over(&mut self) -> bool {
        self.quiet = if self.news { 0 } else { self.quiet + 1 };
        self.looks >= MOST_LOOKS || (self.looks >= LEAST_LOOKS && self.quiet >= QUIET_LOOKS)
    }

    /// The next key; one that cannot be read is empty.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, CensusError> {
        if self.line == b"END" {
            return Ok(None);
        }
        let words = self.line.strip_prefix(b"key=").map(|words| words.split(|octet| *octet == b' '));
        let Some(key) = words.and_then(|mut words| words.next()) else {
            return Err(CensusError::Line { server: self.server.clone(), line: shown(&self.line) });
        };
        let key = decode(key).unwrap_or_default();
        self.read_line().await?;
        Ok(Some(key))
    }

    /// Reads one line, without its end.
    async fn read_line(&mut self) -> Result<(), CensusError> {
        self.line.clear();
        loop {
            let octets = within(self.limit, &self.server, self.connection.fill_buf()).await?;
            if octets.is_empty() {
                let why = "closed the connection before the end";
                let source = io::Error::new(io::ErrorKind::UnexpectedEof, why);
                return Err(CensusError::Io { server: self.server.clone(), source });
            }
            let (part, used) = match octets.iter().position(|octet| *octet == b'\n') {
                Some(end) => (octets.get(..end).unwrap_or_default(), Some(end + 1)),
                None => (octets, None),
            };
            let length = part.len();
            if self.line.len() + length > MAX_LINE {
                self.line.extend_from_slice(part);
                return Err(CensusError::Line { server: self.server.clone(), line: shown(&self.line) });
            }
            self.line.extend_from_slice(part);
            self.connection.consume(used.unwrap_or(length));
            if used.is_some() {
                if self.line.last() == Some(&b'\r') {
                    self.line.pop();
                }
                return Ok(());
            }
        }
    }
}

/// Whose registration a key is. Anything may stand beside ours in a memcached.
fn owner(key: &[u8], namespace: &str) -> Option<Cn> {
    let key = key.strip_prefix(namespace.as_bytes())?;
    let cn = Cn::of_key(std::str::from_utf8(key).ok()?)?;
    (namespace.len() + cn.resolver_key().len() <= MAX_KEY).then_some(cn)
}

async fn within<T>(
    limit: Duration,
    server: &str,
    step: impl Future<Output = io::Result<T>>,
) -> Result<T, CensusError> {
    let server = || server.to_owned();
    match timeout(limit, step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(source)) if source.kind() == io::ErrorKind::TimedOut => {
            Err(CensusError::Deadline { server: server() })
        }
        Ok(Err(source)) => Err(CensusError::Io { server: server(), source }),
        Err(_) => Err(CensusError::Deadline { server: server() }),
    }
}

async fn connect(server: &Server, deadline: Instant) -> io::Result<Box<dyn Stream>> {
    let (host, port) = match server {
        Server::Socket { path, .. } => return Ok(Box::new(UnixStream::connect(path).await?)),
        Server::Tcp { host, port, .. } => (host, *port),
    };
    let addresses = addresses_by(host, port, deadline).await?;
    Ok(Box::new(dial::connect(&addresses, deadline).await?))
}

/// A key as it is; metadump shows `:` as `%3A`.
fn decode(shown: &[u8]) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(shown.len());
    let mut octets = shown.iter();
    let digit = |octet: Option<&u8>| char::from(*octet?).to_digit(16);
    while let Some(octet) = octets.next() {
        key.push(match octet {
            b'%' => u8::try_from(digit(octets.next())? * 16 + digit(octets.next())?).ok()?,
            other => *other,
        });
    }
    Some(key)
}

/// The beginning of a line, for an error.
fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(line.get(..80).unwrap_or(line)).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// A census of a server that gives these answers, one for each order. It plays in this very runtime: a machine that
    /// stands still for a moment must not make it late.
    async fn of(text: &str, answers: &[&str]) -> Result<Vec<String>, CensusError> {
        within_limit(Duration::from_secs(5), text, answers).await
    }

    /// The same, where the limit is what ends it.
    async fn soon(answers: &[&str]) -> CensusError {
        within_limit(Duration::from_millis(300), "", answers).await.unwrap_err()
    }

    async fn within_limit(limit: Duration, text: &str, answers: &[&str]) -> Result<Vec<String>, CensusError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in &answers {
                let _ = stream.read(&mut [0; 64]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
            // After half a line it goes away, else it falls silent.
            if answers.last().is_some_and(|answer| !answer.ends_with("half")) {
                sleep(Duration::from_secs(60)).await;
            }
        });
        let config = Config::parse(&format!("--SERVER=127.0.0.1:{port}{text}")).unwrap();
        let mut census = Census::new(&config, limit);
        let mut found = Vec::new();
        while let Some(cn) = census.next().await? {
            found.push(cn.to_string());
        }
        assert_eq!(census.next().await.unwrap(), None);
        Ok(found)
    }

    #[tokio::test]
    async fn keys_are_decoded_and_others_passed_over() {
        let lines = "key=resolver%3Aj%C3%BCrgen%25 exp=-1 la=1 cas=1 fetch=no cls=1 size=85\nkey=other exp=-1\n\
                     key=ocbus:bob exp=1\r\nkey=ocbus%3ABob exp=1\nkey=ocbus%3A exp=1\nkey=ocbus%3Aa%20b exp=1\n\
                     key=ocbus%3A%FF exp=1\nkey=ocbus%3 exp=1\nkey=nsp-ocbus%3Aann exp=1\n\
                     key=resolver%3Abob exp=1\nkey=ocbus-canary%3Ax exp=1\nEND\r\n";
        assert_eq!(of("", &[lines; 3]).await.unwrap(), ["jürgen%", "bob"]);
        assert_eq!(of(" --NAMESPACE=\"nsp-\"", &[lines; 3]).await.unwrap(), ["ann"]);
    }

    #[tokio::test]
    async fn there_are_three_looks_and_two_in_a_row_without_news() {
        let (bob, ann, none) = ("key=ocbus%3Abob e=1\nEND\r\n", "key=ocbus%3Aann e=1\nEND\r\n", "END\r\n");
        // A server that is asked once more than it has answers for falls silent: an error.
        let begun = Instant::now();
        assert_eq!(of("", &[none, none, none]).await.unwrap(), [""; 0]);
        assert!(begun.elapsed() > Duration::from_millis(500), "not all within one heartbeat");
        // Who is held at one look is seen at another, whether or not the first found somebody.
        assert_eq!(of("", &[none, none, bob, bob, none]).await.unwrap(), ["bob"]);
        assert_eq!(of("", &[bob, none, ann, bob, ann]).await.unwrap(), ["bob", "ann"]);
        assert!(soon(&[bob, none, ann, bob]).await.to_string().contains("deadline"));
        let looks: Vec<String> = (0..8).map(|user| format!("key=ocbus%3Au{user} exp=1\nEND\r\n")).collect();
        let looks: Vec<&str> = looks.iter().map(String::as_str).collect();
        assert_eq!(of("", &looks).await.unwrap().len(), 8, "no end of news comes to an end");
    }

    #[tokio::test]
    async fn what_is_no_census_ends_in_time() {
        let busy = "BUSY currently processing crawler request\r\n";
        assert_eq!(of("", &[busy, busy, "END\r\n", "END\r\n", busy, "END\r\n"]).await.unwrap(), [""; 0]);
        assert!(matches!(soon(&[busy; 20]).await, CensusError::Busy { .. }));
        let error = of("", &["ERROR\r\n"]).await.unwrap_err();
        assert!(matches!(&error, CensusError::Unsupported { answer, .. } if answer == "ERROR"), "{error}");
        let silent = soon(&["key=ocbus%3Abob exp=1\n"]).await.to_string();
        assert!(silent.contains("deadline"), "{silent}");
        for (answer, part) in [
            (&["key=ocbus%3Abob exp=1\nkey=half"][..], "before the end"),
            (&["key=ocbus%3Abob exp=1\nnonsense\x1b\n"], "'nonsense\\u{1b}'"),
        ] {
            let error = of("", answer).await.unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
        let long = format!("key={}", "x".repeat(5000));
        assert!(matches!(of("", &[&long]).await.unwrap_err(), CensusError::Line { .. }));
    }

    #[tokio::test]
    async fn a_unix_socket_is_read_and_a_server_that_fails_is_passed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memcached.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..3 {
                let _ = stream.read(&mut [0; 64]).await;
                stream.write_all(b"key=ocbus%3Abob exp=1\nEND\r\n").await.unwrap();
            }
        });
        let text = format!("--SERVER=127.0.0.1:1 --SOCKET=\"{}\"", path.display());
        let mut census = Census::new(&Config::parse(&text).unwrap(), Duration::from_secs(1));
        let error = census.next().await.unwrap_err().to_string();
        assert!(error.starts_with("memcached 127.0.0.1:1: ") && error.contains("refused"), "{error}");
        assert_eq!(census.next().await.unwrap(), Some(Cn::new("bob").unwrap()));
        assert_eq!(census.next().await.unwrap(), None);
    }
}
