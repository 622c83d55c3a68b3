//! OpenChange's own writer and reader of `deliver:`, command for command as they were observed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

pub(crate) struct OpenChange(BufReader<TcpStream>);

impl OpenChange {
    pub(crate) fn connect(port: u16) -> OpenChange {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        OpenChange(BufReader::new(stream))
    }

    fn ask(&mut self, command: &str, value: &[u8]) -> String {
        self.0.get_mut().write_all(&[command.as_bytes(), b"\r\n", value, b"\r\n"].concat()).unwrap();
        self.line()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Whether a key is there: an item that has expired is added, which works if none is.
    fn exists(&mut self, key: &str) -> bool {
        self.ask(&format!("add {key} 0 2678400 0"), b"") == "NOT_STORED"
    }

    /// Says whether it was taken.
    pub(crate) fn deliver_add(&mut self, key: &str, blob: &[u8]) -> bool {
        let verb = if self.exists(key) { "append" } else { "add" };
        self.ask(&format!("{verb} {key} 0 0 {}", blob.len()), blob) == "STORED"
    }

    pub(crate) fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        write!(self.0.get_mut(), "get {key}\r\n").unwrap();
        let line = self.line();
        let length: usize = line.strip_prefix("VALUE ")?.rsplit(' ').next()?.parse().unwrap();
        let mut value = vec![0; length + 2];
        self.0.read_exact(&mut value).unwrap();
        assert_eq!(self.line(), "END");
        value.truncate(length);
        Some(value)
    }
}
