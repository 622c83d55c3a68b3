//! A way to a real memcached that makes trouble on order: it delays, or lets memcached refuse one key.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ocbus::resolver::{Config, Resolver};
use ocbus::sandbox::Memcached;
use ocbus::wire::openchange::DosCharset;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// What it does to those who come.
#[derive(Debug, Clone, Default)]
pub struct Trouble {
    /// Writes of keys that begin so are refused, by memcached itself: they are made larger than any value may be.
    pub refused: Vec<String>,
    /// Requests wait so long.
    pub delay: Duration,
}

/// It ends with the test's runtime.
pub struct Proxy {
    pub address: SocketAddr,
    trouble: Arc<Mutex<Trouble>>,
}

impl Proxy {
    pub async fn to(memcached: &Memcached) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let trouble = Arc::new(Mutex::new(Trouble::default()));
        let (server, made) = (memcached.address(), Arc::clone(&trouble));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let (from_client, mut to_client) = client.into_split();
                let (mut from_server, to_server) = server.into_split();
                tokio::spawn(requests(from_client, to_server, Arc::clone(&made)));
                tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            }
        });
        Proxy { address, trouble }
    }

    pub fn make(&self, trouble: Trouble) {
        *self.trouble.lock().unwrap() = trouble;
    }

    pub async fn resolver(&self) -> Resolver {
        let config = Config::parse(&format!("--SERVER={}", self.address)).unwrap();
        Resolver::new(&config, DosCharset::default(), Duration::from_secs(1)).await.unwrap()
    }
}

/// Larger than memcached's largest value.
const TOO_LARGE: usize = 1024 * 1024 + 1;

async fn requests(
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    trouble: Arc<Mutex<Trouble>>,
) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    let mut line = String::new();
    loop {
        line.clear();
        let there = from.buffer().len();
        if from.read_line(&mut line).await? == 0 {
            return to.shutdown().await;
        }
        let Trouble { refused, delay } = trouble.lock().unwrap().clone();
        // Once for what came together.
        if !delay.is_zero() && there == 0 {
            tokio::time::sleep(delay).await;
        }
        let mut words: Vec<&str> = line.trim_end().split(' ').collect();
        if words[0] != "ms" {
            to.write_all(line.as_bytes()).await?;
            continue;
        }
        let mut value = vec![0; words[2].parse::<usize>().unwrap() + 2];
        from.read_exact(&mut value).await?;
        let length = TOO_LARGE.to_string();
        if refused.iter().any(|prefix| words[1].starts_with(prefix)) {
            words[2] = &length;
            value = vec![b'x'; TOO_LARGE];
            value.extend_from_slice(b"\r\n");
        }
        to.write_all(format!("{}\r\n", words.join(" ")).as_bytes()).await?;
        to.write_all(&value).await?;
    }
}
