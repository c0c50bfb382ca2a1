//! Hashes as the reference computes them, so that keys and shares stay the same when a configuration moves.

use super::Hash;

impl Hash {
    /// `argument`: the avalanche flag, or the seed of xxHash.
    pub(super) fn compute(self, bytes: &[u8], argument: i64) -> i64 {
        let plain = match self {
            Hash::Xxh32 => {
                return i64::from(twox_hash::XxHash32::oneshot(argument as u32, bytes));
            }
            Hash::Xxh64 => return twox_hash::XxHash64::oneshot(argument as u64, bytes) as i64,
            Hash::Crc32 => crc32fast::hash(bytes),
            Hash::Crc32c => crc32c(bytes),
            Hash::Djb2 => bytes.iter().fold(5381u32, |hash, &b| {
                hash.wrapping_mul(33).wrapping_add(u32::from(b))
            }),
            Hash::Sdbm => bytes.iter().fold(0u32, |hash, &b| {
                u32::from(b)
                    .wrapping_add(hash << 6)
                    .wrapping_add(hash << 16)
                    .wrapping_sub(hash)
            }),
            Hash::Wt6 => wt6(bytes),
        };
        i64::from(if argument == 0 {
            plain
        } else {
            avalanche(plain)
        })
    }
}

/// Bob Jenkins' 32-bit integer mix, then a multiplication that spreads the result over the whole range.
pub(in crate::rule) fn avalanche(mut a: u32) -> u32 {
    a = a.wrapping_add(0x7ed5_5d16).wrapping_add(a << 12);
    a = (a ^ 0xc761_c23c) ^ (a >> 19);
    a = a.wrapping_add(0x1656_67b1).wrapping_add(a << 5);
    a = a.wrapping_add(0xd3a2_646c) ^ (a << 9);
    a = a.wrapping_add(0xfd70_46c5).wrapping_add(a << 3);
    a = (a ^ 0xb55a_4f09) ^ (a >> 16);
    a.wrapping_mul(3_221_225_473)
}

fn wt6(bytes: &[u8]) -> u32 {
    let (mut h0, mut h1) = (0xa53c_965au32, 0x5ca6_953au32);
    let (mut step0, mut step1) = (6u32, 18u32);
    for &b in bytes {
        h0 = !(h0 ^ u32::from(b));
        h1 = !(h1.wrapping_add(u32::from(b)));
        let t = h1.rotate_left(step0);
        h1 = h0.rotate_left(step1);
        h0 = t;
        let steps = ((h0 >> 16) ^ h1) & 0xffff;
        step0 = steps & 0x1f;
        step1 = steps >> 11;
    }
    h0 ^ h1
}

fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut word = i as u32;
            let mut bit = 0;
            while bit < 8 {
                word = (word >> 1) ^ (0x82f6_3b78 & (word & 1).wrapping_neg());
                bit += 1;
            }
            table[i] = word;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0u32, |crc, &b| {
        (crc >> 8) ^ TABLE[((crc ^ u32::from(b)) & 0xff) as usize]
    })
}
