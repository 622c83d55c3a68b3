//! Bob Jenkins' lookup3 ("hashlittle", 2006, in the public domain), with libmemcached's initial value.

use super::hash::{length_32, word};

const INITIAL: u32 = 13;

/// Octets of a block: three words.
const BLOCK: usize = 12;

pub(super) fn jenkins(octets: &[u8]) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(length_32(octets)).wrapping_add(INITIAL);
    let mut state = [start; 3];
    let mut blocks = octets.chunks(BLOCK).peekable();
    while let Some(block) = blocks.next() {
        for (sum, octets) in state.iter_mut().zip(block.chunks(4)) {
            *sum = sum.wrapping_add(word(octets));
        }
        state = match blocks.peek() {
            Some(_) => mix(state),
            None => last(state),
        };
    }
    let [_, _, hash] = state;
    hash
}

/// Each step takes one word from another, turns it in and adds the third; then they change places.
fn mix(state: [u32; 3]) -> [u32; 3] {
    [4, 6, 8, 16, 19, 4].into_iter().fold(state, |[a, b, c], turn| {
        let a = a.wrapping_sub(c) ^ c.rotate_left(turn);
        let c = c.wrapping_add(b);
        [b, c, a]
    })
}

fn last(state: [u32; 3]) -> [u32; 3] {
    let [b, c, a] = [14, 11, 25, 16, 4, 14, 24].into_iter().fold(state, |[a, b, c], turn| {
        let c = (c ^ b).wrapping_sub(b.rotate_left(turn));
        [b, c, a]
    });
    // Seven steps left them one place further.
    [a, b, c]
}
