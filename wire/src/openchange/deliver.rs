//! `deliver:<session>`: what waits to be told to a session. The value is packed RopNotify replies one after
//! the other, with neither version nor framing: each reply says by its own fields where it ends. OpenChange
//! appends to it on one side; on the other it reads, then deletes, and what is appended in between is lost.

use uuid::Uuid;

use super::error::EncodeError;
use crate::ropnotify;

/// How large a value may grow: memcached's usual limit for an item. What is larger is refused for certain. What
/// is almost as large may be, since memcached counts the key and its own header in.
pub const MAX_OCTETS: usize = 1024 * 1024;

/// The key of a session's replies: the GUID of the emsmdb session, lower case and without braces.
pub fn deliver_key(session: &Uuid) -> String {
    format!("deliver:{}", session.hyphenated())
}

/// Appends a packed reply to those that wait, as memcached's `append` does; refuses what would grow beyond
/// [`MAX_OCTETS`] and leaves the value as it was.
pub fn append(waiting: &mut Vec<u8>, reply: &[u8]) -> Result<(), EncodeError> {
    let octets = waiting.len().saturating_add(reply.len());
    if octets > MAX_OCTETS {
        return Err(EncodeError::TooLarge { octets, max: MAX_OCTETS });
    }
    waiting.extend_from_slice(reply);
    Ok(())
}

/// The octets of each reply of a value, in order, to be passed on as they are. Behind octets that are no reply
/// it is unknown where the next one begins: an error is the last item. What they say:
/// [`ropnotify::split`].
pub fn split(waiting: &[u8]) -> impl Iterator<Item = Result<&[u8], ropnotify::DecodeError>> {
    ropnotify::split_with_octets(waiting).map(|reply| Ok(reply?.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_come_apart_again() {
        let replies: [&[u8]; 2] = [b"\x2a\x31\0\0\0\0\0\x01\x01\0", b"\x2a\x32\0\0\0\0\0\x81\x07\0"];
        let value = replies.concat();
        assert!(split(&value).eq(replies.map(Ok)));
        assert!(split(b"").next().is_none());

        let broken = [value.as_slice(), b"\x2b", &value].concat();
        let split: Vec<_> = split(&broken).collect();
        assert_eq!(split.len(), 3, "what follows octets that are no reply is lost");
        let error = split[2].clone().unwrap_err();
        assert_eq!(error.to_string(), "at octet 20: RopId 0x2b: expected 0x2a");
    }

    #[test]
    fn replies_stand_end_to_end() {
        let mut waiting = Vec::new();
        append(&mut waiting, b"deliver1").unwrap();
        append(&mut waiting, b"deliver2").unwrap();
        assert_eq!(waiting, b"deliver1deliver2");
    }

    /// Case `deliver_over_1MiB`: of four times 400,000 octets the third is the first to be refused.
    #[test]
    fn what_memcached_would_refuse_is_refused_and_changes_nothing() {
        let mut waiting = Vec::new();
        let blob = vec![0; 400_000];
        let accepted: Vec<bool> = (0..4).map(|_| append(&mut waiting, &blob).is_ok()).collect();
        assert_eq!(accepted, [true, true, false, false]);
        assert_eq!(waiting.len(), 800_000);
        append(&mut waiting, &vec![0; MAX_OCTETS - 800_000]).unwrap();
        assert_eq!(
            append(&mut waiting, b"x"),
            Err(EncodeError::TooLarge { octets: MAX_OCTETS + 1, max: MAX_OCTETS })
        );
    }

    #[test]
    fn the_key_is_lower_case() {
        let session = Uuid::parse_str("AABBCCDD-EEFF-0011-2233-445566778899").unwrap();
        assert_eq!(deliver_key(&session), "deliver:aabbccdd-eeff-0011-2233-445566778899");
    }
}
