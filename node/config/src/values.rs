//! Numbers, times, sizes and masks as the dialect writes them (config-dialect 3).

use std::net::{IpAddr, Ipv4Addr};

/// Longest time, in milliseconds (about 24.8 days).
pub const TIME_MAX_MS: u64 = 2_147_483_647;

/// What is wrong with a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeError {
    /// This character does not belong there (or the text is empty).
    Unexpected(char),
    /// Above [`TIME_MAX_MS`].
    Overflow,
}

impl TimeError {
    /// `unexpected character 'y' in 'timeout client'`, or the overflow message for `what`.
    pub fn message(&self, value: &str, what: &str) -> String {
        match self {
            TimeError::Unexpected(c) => format!("unexpected character '{c}' in '{what}'"),
            TimeError::Overflow => format!(
                "timer overflow in argument '{value}' to '{what}' (maximum value is {TIME_MAX_MS} ms or ~24.8 days)"
            ),
        }
    }
}

/// Units of a time without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Seconds.
    S,
}

/// Digits and a unit, in milliseconds. Microseconds are rounded up, so that a time written is never 0 by accident.
pub fn time_ms(text: &str, default: Unit) -> Result<u32, TimeError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(TimeError::Unexpected(text.chars().next().unwrap_or('\0')));
    }
    // More digits than fit are an overflow, whatever the unit.
    let number: u64 = number.parse().map_err(|_| TimeError::Overflow)?;
    let unit_ms = match (unit, default) {
        ("ms", _) | ("", Unit::Ms) => 1,
        ("s", _) | ("", Unit::S) => 1_000,
        ("m", _) => 60_000,
        ("h", _) => 3_600_000,
        ("d", _) => 86_400_000,
        ("us", _) => {
            let ms = number.div_ceil(1_000);
            return narrow(ms);
        }
        (other, _) => {
            let mut rest = other.chars();
            let first = rest.next().unwrap_or('\0');
            let second = rest.next();
            // A valid unit with something behind it: name what is behind.
            let odd = match (first, second) {
                ('s' | 'm' | 'h' | 'd', Some(c)) if !other.starts_with("ms") => c,
                ('m', Some('s')) => rest.next().unwrap_or('m'),
                ('u', Some('s')) => rest.next().unwrap_or('u'),
                _ => first,
            };
            return Err(TimeError::Unexpected(odd));
        }
    };
    narrow(number.checked_mul(unit_ms).ok_or(TimeError::Overflow)?)
}

fn narrow(ms: u64) -> Result<u32, TimeError> {
    if ms > TIME_MAX_MS {
        return Err(TimeError::Overflow);
    }
    u32::try_from(ms).map_err(|_| TimeError::Overflow)
}

/// Digits and `k`, `m` or `g` (either case, powers of 1024). The error is the character that does not belong.
pub fn size(text: &str) -> Result<u64, char> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let first_odd = |t: &str| t.chars().next().unwrap_or('\0');
    if number.is_empty() {
        return Err(first_odd(text));
    }
    let number: u64 = number.parse().map_err(|_| first_odd(text))?;
    let mut rest = unit.chars();
    let factor = match rest.next().map(|c| c.to_ascii_lowercase()) {
        None => 1,
        Some('k') => 1 << 10,
        Some('m') => 1 << 20,
        Some('g') => 1 << 30,
        Some(_) => return Err(first_odd(unit)),
    };
    if let Some(c) = rest.next() {
        return Err(c);
    }
    number.checked_mul(factor).ok_or(first_odd(text))
}

/// `IP[/len]` or `IP/mask`; host bits are kept as written.
pub fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (addr, mask) = match text.split_once('/') {
        Some((a, m)) => (a, Some(m)),
        None => (text, None),
    };
    let addr: IpAddr = addr
        .strip_prefix('[')
        .and_then(|a| a.strip_suffix(']'))
        .unwrap_or(addr)
        .parse()
        .ok()?;
    let width = if addr.is_ipv4() { 32 } else { 128 };
    let len = match mask {
        None => width,
        Some(m) => match (m.parse::<u8>(), m.parse::<Ipv4Addr>()) {
            (Ok(len), _) if len <= width => len,
            (_, Ok(mask)) if addr.is_ipv4() => prefix_len(mask)?,
            _ => return None,
        },
    };
    Some((addr, len))
}

/// Length of a contiguous mask.
fn prefix_len(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let len = bits.leading_ones();
    (len + bits.trailing_zeros().min(32) >= 32).then_some(len as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        use TimeError::{Overflow, Unexpected};
        for (text, expected) in [
            ("0", Ok(0)),
            ("5", Ok(5)),
            ("5ms", Ok(5)),
            ("5s", Ok(5_000)),
            ("2m", Ok(120_000)),
            ("1h", Ok(3_600_000)),
            ("24d", Ok(2_073_600_000)),
            ("5us", Ok(1)),
            ("1500us", Ok(2)),
            ("2147483647", Ok(2_147_483_647)),
            ("2147483648", Err(Overflow)),
            ("25d", Err(Overflow)),
            ("99999999999999999999999s", Err(Overflow)),
            ("5y", Err(Unexpected('y'))),
            ("5sx", Err(Unexpected('x'))),
            ("5msx", Err(Unexpected('x'))),
            ("0.5s", Err(Unexpected('.'))),
            ("-5", Err(Unexpected('-'))),
            ("", Err(Unexpected('\0'))),
        ] {
            assert_eq!(time_ms(text, Unit::Ms), expected, "{text}");
        }
        assert_eq!(time_ms("5", Unit::S), Ok(5_000));
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("200k", Ok(204_800)),
            ("1M", Ok(1_048_576)),
            ("2g", Ok(2_147_483_648)),
            ("7", Ok(7)),
            ("5z", Err('z')),
            ("5kb", Err('b')),
            ("x", Err('x')),
            ("", Err('\0')),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
    }

    #[test]
    fn networks() {
        let v4 = |a: [u8; 4], l| Some((IpAddr::from(a), l));
        for (text, expected) in [
            ("10.0.0.0/8", v4([10, 0, 0, 0], 8)),
            ("10.0.0.1", v4([10, 0, 0, 1], 32)),
            ("10.0.0.0/255.255.0.0", v4([10, 0, 0, 0], 16)),
            ("10.0.0.0/0.0.0.0", v4([10, 0, 0, 0], 0)),
            ("10.0.0.0/255.0.255.0", None),
            ("10.0.0.0/33", None),
            ("::1/128", Some(("::1".parse().unwrap(), 128))),
            ("::1/129", None),
            ("x", None),
        ] {
            assert_eq!(network(text), expected, "{text}");
        }
    }
}
