//! `deliver:<session>`: what waits to be told to a session. The value is packed RopNotify replies one after
//! the other, with neither version nor framing: each reply says by its own fields where it ends. OpenChange
//! appends to it on one side; on the other it reads, then deletes, and what is appended in between is lost.
//!
//! Splitting a value into its replies takes the RopNotify format, which is not in this room.

use uuid::Uuid;

use super::error::EncodeError;

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

#[cfg(test)]
mod tests {
    use super::*;

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
