//! Unsigned LEB128 of at most 64 bits, and zigzag differences.

/// Appends `n`.
#[inline]
pub(super) fn put(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends `now - before`, whatever the distance.
#[inline]
pub(super) fn put_difference(out: &mut Vec<u8>, now: u64, before: u64) {
    let d = now.wrapping_sub(before) as i64;
    put(out, ((d << 1) ^ (d >> 63)) as u64);
}

/// Why a number could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Short,
    Range,
}

/// What is left of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stream<'a>(pub &'a [u8]);

impl<'a> Stream<'a> {
    /// The next number.
    #[inline]
    pub fn number(&mut self) -> Result<u64, Fault> {
        match *self.0 {
            [b, ref rest @ ..] if b < 0x80 => {
                self.0 = rest;
                Ok(u64::from(b))
            }
            [a, b, ref rest @ ..] if b < 0x80 => {
                self.0 = rest;
                Ok(u64::from(a & 0x7f) | u64::from(b) << 7)
            }
            _ => self.long_number(),
        }
    }
    fn long_number(&mut self) -> Result<u64, Fault> {
        let mut n = 0;
        for (i, &b) in self.0.iter().enumerate().take(10) {
            if i == 9 && b > 1 {
                return Err(Fault::Range);
            }
            n |= u64::from(b & 0x7f) << (7 * i);
            if b < 0x80 {
                self.0 = self.0.get(i + 1..).unwrap_or_default();
                return Ok(n);
            }
        }
        Err(if self.0.len() < 10 {
            Fault::Short
        } else {
            Fault::Range
        })
    }
    /// The next number, which has 32 bits.
    #[inline]
    pub fn word(&mut self) -> Result<u32, Fault> {
        u32::try_from(self.number()?).map_err(|_| Fault::Range)
    }
    /// The next difference, added to `before`.
    #[inline]
    pub fn difference(&mut self, before: u64) -> Result<u64, Fault> {
        let n = self.number()?;
        Ok(before.wrapping_add((n >> 1) ^ (n & 1).wrapping_neg()))
    }
    /// The next `len` bytes.
    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Fault::Short)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_take_seven_bits_a_byte() {
        for (n, len) in [
            (0, 1),
            (127, 1),
            (128, 2),
            (16_383, 2),
            (16_384, 3),
            (u64::from(u32::MAX), 5),
            (u64::MAX >> 1, 9),
            (u64::MAX, 10),
        ] {
            let mut out = Vec::new();
            put(&mut out, n);
            assert_eq!(out.len(), len, "{n}");
            let mut stream = Stream(&out);
            assert_eq!(stream.number(), Ok(n));
            assert!(stream.0.is_empty());
            for cut in 0..out.len() {
                assert_eq!(Stream(&out[..cut]).number(), Err(Fault::Short));
            }
        }
    }

    #[test]
    fn differences_may_be_as_far_as_64_bits_go() {
        for (now, before) in [
            (0, 0),
            (1, 0),
            (0, 1),
            (u64::MAX, 0),
            (0, u64::MAX),
            (5, 1 << 63),
        ] {
            let mut out = Vec::new();
            put_difference(&mut out, now, before);
            assert_eq!(Stream(&out).difference(before), Ok(now));
        }
        let mut out = Vec::new();
        put_difference(&mut out, 7, 8);
        assert_eq!(out, [1], "one step back is one byte");
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let mut eleven = [0x80; 11];
        eleven[10] = 0;
        assert_eq!(Stream(&eleven).number(), Err(Fault::Range));
        let mut high = [0xff; 10];
        high[9] = 2;
        assert_eq!(Stream(&high).number(), Err(Fault::Range));
        let mut out = Vec::new();
        put(&mut out, 1 << 32);
        assert_eq!(Stream(&out).word(), Err(Fault::Range));
        assert_eq!(Stream(&[1, 2]).take(3), Err(Fault::Short));
    }
}
