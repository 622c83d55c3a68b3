use memcache::exp::Error;

use super::answer::{MAX_LINE, MAX_VALUE};
use super::exchange::Exchange;

/// What a connection reads at once, and keeps while it is idle.
const USUAL: usize = 16 * 1024;

/// The longest answer: its line, its value, and what ends that.
const MOST: usize = MAX_LINE + MAX_VALUE + 2;

/// What was read and not used yet. It grows when it is full, never for a length that a server only claims.
#[derive(Debug)]
pub(super) struct Buffer {
    octets: Vec<u8>,
    begin: usize,
    end: usize,
}

impl Buffer {
    pub(super) fn new() -> Buffer {
        Buffer { octets: vec![0; USUAL], begin: 0, end: 0 }
    }

    /// Where the next octets are read to; never empty but when an answer is longer than any may be.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
        if self.end == self.octets.len() {
            match self.begin {
                0 => self.octets.resize((2 * self.octets.len()).min(MOST), 0),
                begin => {
                    self.octets.copy_within(begin..self.end, 0);
                    (self.begin, self.end) = (0, self.end - begin);
                }
            }
        }
        self.octets.get_mut(self.end..).unwrap_or_default()
    }

    /// So many octets were read; an exchange takes what it can.
    pub(super) fn feed(&mut self, read: usize, exchange: &mut Exchange<'_>) -> Result<(), Error> {
        self.end = (self.end + read).min(self.octets.len());
        self.begin += exchange.feed(self.octets.get(self.begin..self.end).unwrap_or_default())?;
        Ok(())
    }

    /// Whether all was used: what is left behind the last answer belongs to no request.
    pub(super) fn is_empty(&self) -> bool {
        self.begin == self.end
    }

    /// Lets memory for large answers go.
    pub(super) fn rest(&mut self) {
        if self.octets.len() > 4 * USUAL && self.is_empty() {
            *self = Buffer::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::Request;

    #[test]
    fn it_grows_for_what_has_come_and_no_further() {
        let requests = [Request::Get { keys: vec!["k".to_owned()], any_copy: false }];
        let mut exchange = Exchange::new(&requests, 0);
        exchange.begin(1, 1).unwrap();
        let mut buffer = Buffer::new();
        let mut left =
            [format!("VA {MAX_VALUE} c1\r\n").as_bytes(), &vec![b'v'; MAX_VALUE], b"\r\n"].concat();
        let whole = left.len();
        while !exchange.is_over() {
            let came = whole - left.len();
            assert!(buffer.octets.len() <= (2 * came).max(USUAL), "{} for {came}", buffer.octets.len());
            let room = buffer.room();
            let read = room.len().min(left.len()).min(5000);
            assert!(read > 0);
            room[..read].copy_from_slice(&left[..read]);
            left.drain(..read);
            buffer.feed(read, &mut exchange).unwrap();
        }
        assert!(buffer.is_empty() && left.is_empty());
        buffer.rest();
        assert_eq!(buffer.octets.len(), USUAL);
    }
}
