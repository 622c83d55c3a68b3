use super::Ring;
use super::hash::md5_word;
use crate::config::{DEFAULT_PORT, Server};

/// Points of a server on an even ring.
const EVEN: u16 = 100;
/// Points of an average server on a weighted ring, and how many of them one MD5 gives.
const WEIGHTED: u16 = 160;
const IN_ONE_MD5: u16 = 4;

/// The points of a ring, sorted: a hash, and the index of the server whose point it is.
#[derive(Debug, Clone)]
pub(super) struct Points(Vec<(u32, usize)>);

impl Points {
    pub(super) fn new(servers: &[Server], ring: Ring, lives: impl Fn(usize) -> bool) -> Points {
        let living: Vec<(usize, &Server)> =
            servers.iter().enumerate().filter(|(index, _)| lives(*index)).collect();
        let total: u64 = living.iter().map(|(_, server)| u64::from(server.weight())).sum();
        let mut points = Vec::new();
        for &(index, server) in &living {
            let (name, port) = server.name_and_port();
            let name = match port {
                DEFAULT_PORT => name.to_owned(),
                port => format!("{name}:{port}"),
            };
            match ring {
                Ring::Even(hash) => {
                    let value = |number| hash.value(format!("{name}-{number}").as_bytes());
                    points.extend((0..EVEN).map(|number| (value(number), index)));
                }
                Ring::Weighted => {
                    for number in 0..share(server.weight(), total, living.len()) {
                        let name = format!("{name}-{number}");
                        let words = usize::from(IN_ONE_MD5);
                        points.extend((0..words).map(|word| (md5_word(name.as_bytes(), word), index)));
                    }
                }
            }
        }
        points.sort_unstable();
        Points(points)
    }

    /// Whose the first point is at a hash or behind it; behind the last comes the first.
    pub(super) fn owner(&self, hash: u32) -> usize {
        let next = self.0.partition_point(|(point, _)| *point < hash);
        self.0.get(next).or(self.0.first()).map_or(0, |(_, index)| *index)
    }
}

/// How many MD5 a server of this weight gets. With the precision, and so the rounding, of C's `float`: one more
/// or less would move keys.
fn share(weight: u32, total: u64, servers: usize) -> u16 {
    let part = weight as f32 / total as f32;
    let points = part * f32::from(WEIGHTED) / f32::from(IN_ONE_MD5) * servers as f32 + 0.000_000_000_1;
    // The greatest number that is not above it, without a cast from float.
    let (mut least, mut most) = (0, u16::MAX);
    while least < most {
        let middle = least + (most - least).div_ceil(2);
        match f32::from(middle) <= points {
            true => least = middle,
            false => most = middle - 1,
        }
    }
    least
}
