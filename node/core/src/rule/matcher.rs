//! Pattern sets in the shape that is fast to search: ranges and networks as sorted disjoint ranges, texts sorted, so that
//! a list of a hundred thousand entries costs a binary search.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use regex::bytes::{Regex, RegexBuilder};

use super::cond::{MatchMethod, Patterns};
use super::sample::{Sample, v6_to_v4};

/// Compiles a regular expression as ACLs and converters use it: on bytes, unanchored. What the engine lacks (look-around,
/// back references) is an error.
pub fn compile_regex(pattern: &str, ignore_case: bool) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .case_insensitive(ignore_case)
        .unicode(false)
        .build()
        .map_err(|e| e.to_string())
}

/// The values of one ACL line, ready to compare with.
#[derive(Clone, Debug)]
pub(super) enum Matcher {
    /// No values: never.
    Nothing,
    Found,
    Bool,
    Int(Ranges<i64>),
    Len(Ranges<i64>),
    Ip {
        v4: Ranges<u32>,
        v6: Ranges<u128>,
    },
    /// Whole texts.
    Str(Texts),
    Beg(Texts),
    /// Patterns reversed, compared with the text from its end.
    End(Texts),
    Sub {
        patterns: Box<[Box<[u8]>]>,
        ignore_case: bool,
        /// All of them as one automaton, where there are many.
        joined: Option<Regex>,
    },
    /// Delimited by the given bytes.
    Words {
        patterns: Box<[Box<[u8]>]>,
        delimiters: &'static [u8],
        ignore_case: bool,
    },
    Regex(Box<[Regex]>),
}

/// From so many patterns on, one automaton beats trying each.
const JOIN_FROM: usize = 8;

impl Matcher {
    pub(super) fn new(method: MatchMethod, patterns: Patterns, ignore_case: bool) -> Matcher {
        match (method, patterns) {
            (MatchMethod::Found, _) => Matcher::Found,
            (MatchMethod::Bool, _) => Matcher::Bool,
            (MatchMethod::Int, Patterns::Int(ranges)) => Matcher::Int(Ranges::new(&ranges)),
            (MatchMethod::Len, Patterns::Int(ranges)) => Matcher::Len(Ranges::new(&ranges)),
            (MatchMethod::Ip, Patterns::Ip(networks)) => networks_matcher(&networks),
            (MatchMethod::Str | MatchMethod::Bin, Patterns::Bytes(texts)) => {
                Matcher::Str(Texts::new(texts, ignore_case, Keep::All))
            }
            (MatchMethod::Method, Patterns::Bytes(texts)) => {
                Matcher::Str(Texts::new(texts, ignore_case, Keep::All))
            }
            (MatchMethod::Beg, Patterns::Bytes(texts)) => {
                Matcher::Beg(Texts::new(texts, ignore_case, Keep::Shortest))
            }
            (MatchMethod::End, Patterns::Bytes(texts)) => {
                let reversed = texts
                    .into_iter()
                    .map(|mut t| {
                        t.reverse();
                        t
                    })
                    .collect();
                Matcher::End(Texts::new(reversed, ignore_case, Keep::Shortest))
            }
            (MatchMethod::Sub, Patterns::Bytes(texts)) => Matcher::Sub {
                joined: joined(&texts, ignore_case),
                patterns: boxed(texts),
                ignore_case,
            },
            (MatchMethod::Dir, Patterns::Bytes(texts)) => words(&texts, b"/?", ignore_case),
            (MatchMethod::Dom, Patterns::Bytes(texts)) => words(&texts, b"/?.:", ignore_case),
            (MatchMethod::Reg, Patterns::Regex(list)) => Matcher::Regex(list),
            _ => Matcher::Nothing,
        }
    }

    pub(super) fn matches(&self, sample: &Sample<'_>) -> bool {
        match self {
            Matcher::Nothing => false,
            Matcher::Found => true,
            Matcher::Bool => sample.to_int().is_some_and(|i| i != 0),
            Matcher::Int(ranges) => sample.to_int().is_some_and(|i| ranges.contains(i)),
            Matcher::Len(ranges) => {
                sample.with_text(|t| ranges.contains(i64::try_from(t.len()).unwrap_or(i64::MAX)))
            }
            Matcher::Ip { v4, v6 } => sample.to_addr().is_some_and(|addr| contains(v4, v6, addr)),
            Matcher::Str(texts) => sample.with_text(|t| texts.has(t)),
            Matcher::Beg(texts) => sample.with_text(|t| texts.has_prefix_of(t.iter())),
            Matcher::End(texts) => sample.with_text(|t| texts.has_prefix_of(t.iter().rev())),
            Matcher::Sub {
                joined: Some(all), ..
            } => sample.with_text(|t| all.is_match(t)),
            Matcher::Sub {
                patterns,
                ignore_case,
                ..
            } => sample.with_text(|t| patterns.iter().any(|p| contains_text(t, p, *ignore_case))),
            Matcher::Words {
                patterns,
                delimiters,
                ignore_case,
            } => sample.with_text(|t| {
                patterns
                    .iter()
                    .any(|p| contains_word(t, p, delimiters, *ignore_case))
            }),
            Matcher::Regex(list) => sample.with_text(|t| list.iter().any(|r| r.is_match(t))),
        }
    }
}

// --- ranges

/// Sorted, disjoint, inclusive ranges.
#[derive(Clone, Debug)]
pub(super) struct Ranges<T>(Box<[(T, T)]>);

impl<T: Copy + Ord> Ranges<T> {
    fn new(ranges: &[(T, T)]) -> Ranges<T> {
        let mut sorted: Vec<(T, T)> = ranges.iter().copied().filter(|(a, b)| a <= b).collect();
        sorted.sort_unstable();
        let mut merged: Vec<(T, T)> = Vec::with_capacity(sorted.len());
        for (from, to) in sorted {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        Ranges(merged.into())
    }

    fn contains(&self, value: T) -> bool {
        self.0
            .binary_search_by(|(from, to)| {
                if value < *from {
                    Ordering::Greater
                } else if value > *to {
                    Ordering::Less
                } else {
                    Ordering::Equal
                }
            })
            .is_ok()
    }
}

fn networks_matcher(networks: &[(IpAddr, u8)]) -> Matcher {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (addr, prefix) in networks {
        match addr {
            IpAddr::V4(a) => {
                let host = u32::MAX.checked_shr(u32::from(*prefix)).unwrap_or(0);
                let a = u32::from(*a);
                v4.push((a & !host, a | host));
            }
            IpAddr::V6(a) => {
                let host = u128::MAX.checked_shr(u32::from(*prefix)).unwrap_or(0);
                let a = u128::from(*a);
                v6.push((a & !host, a | host));
            }
        }
    }
    Matcher::Ip {
        v4: Ranges::new(&v4),
        v6: Ranges::new(&v6),
    }
}

/// An IPv4 address is also looked up as mapped IPv6, an IPv6 one that holds an IPv4 address also as that.
fn contains(v4: &Ranges<u32>, v6: &Ranges<u128>, addr: IpAddr) -> bool {
    let in_v4 = |a: Ipv4Addr| v4.contains(u32::from(a));
    let in_v6 = |a: Ipv6Addr| v6.contains(u128::from(a));
    match addr {
        IpAddr::V4(a) => in_v4(a) || in_v6(a.to_ipv6_mapped()),
        IpAddr::V6(a) => in_v6(a) || v6_to_v4(a).is_some_and(in_v4),
    }
}

// --- texts

/// Sorted texts.
#[derive(Clone, Debug)]
pub(super) struct Texts {
    sorted: Box<[Box<[u8]>]>,
    ignore_case: bool,
}

enum Keep {
    All,
    /// Without those that another one is a prefix of: then at most one can be a prefix of any given text.
    Shortest,
}

impl Texts {
    fn new(texts: Box<[Vec<u8>]>, ignore_case: bool, keep: Keep) -> Texts {
        let mut sorted: Vec<Vec<u8>> = texts.into_vec();
        if ignore_case {
            sorted.iter_mut().for_each(|t| t.make_ascii_lowercase());
        }
        sorted.sort_unstable();
        match keep {
            Keep::All => sorted.dedup(),
            Keep::Shortest => sorted.dedup_by(|next, kept| next.starts_with(kept)),
        }
        Texts {
            sorted: sorted.into_iter().map(Vec::into_boxed_slice).collect(),
            ignore_case,
        }
    }

    fn fold(&self, b: u8) -> u8 {
        if self.ignore_case {
            b.to_ascii_lowercase()
        } else {
            b
        }
    }

    fn has(&self, text: &[u8]) -> bool {
        if self.sorted.len() == 1 && !self.ignore_case {
            return self.sorted.first().is_some_and(|only| **only == *text);
        }
        self.sorted
            .binary_search_by(|p| p.iter().copied().cmp(text.iter().map(|b| self.fold(*b))))
            .is_ok()
    }

    /// Whether one of them is a prefix of the text.
    fn has_prefix_of<'t>(&self, text: impl Iterator<Item = &'t u8> + Clone) -> bool {
        let text = text.map(|b| self.fold(*b));
        // The only candidate is the greatest pattern that is not above the text.
        let above = self
            .sorted
            .partition_point(|p| p.iter().copied().cmp(text.clone()) != Ordering::Greater);
        let Some(candidate) = above.checked_sub(1).and_then(|at| self.sorted.get(at)) else {
            return false;
        };
        let mut text = text;
        candidate.iter().all(|b| text.next() == Some(*b))
    }
}

fn boxed(texts: Box<[Vec<u8>]>) -> Box<[Box<[u8]>]> {
    texts.into_iter().map(Vec::into_boxed_slice).collect()
}

fn joined(texts: &[Vec<u8>], ignore_case: bool) -> Option<Regex> {
    if texts.len() < JOIN_FROM {
        return None;
    }
    let mut pattern = String::new();
    for text in texts {
        if !pattern.is_empty() {
            pattern.push('|');
        }
        for b in text {
            // bytes, not characters: the text need not be UTF-8
            pattern.push_str(&format!("\\x{b:02X}"));
        }
    }
    // Too large for one automaton: each is tried instead.
    RegexBuilder::new(&format!("(?-u:{pattern})"))
        .case_insensitive(ignore_case)
        .unicode(false)
        .build()
        .ok()
}

fn contains_text(text: &[u8], pattern: &[u8], ignore_case: bool) -> bool {
    if !ignore_case {
        return memchr::memmem::find(text, pattern).is_some();
    }
    pattern.is_empty()
        || text
            .windows(pattern.len())
            .any(|w| w.eq_ignore_ascii_case(pattern))
}

fn words(texts: &[Vec<u8>], delimiters: &'static [u8], ignore_case: bool) -> Matcher {
    let bare = texts
        .iter()
        .map(|t| {
            // delimiters around a pattern mean nothing
            let start = t.iter().position(|b| !delimiters.contains(b));
            let end = t.iter().rposition(|b| !delimiters.contains(b));
            match (start, end) {
                (Some(start), Some(end)) => t.get(start..=end).unwrap_or_default().into(),
                _ => Box::default(),
            }
        })
        .collect();
    Matcher::Words {
        patterns: bare,
        delimiters,
        ignore_case,
    }
}

/// Whether the pattern stands between delimiters (or the ends) in the text. It may hold delimiters itself.
fn contains_word(text: &[u8], pattern: &[u8], delimiters: &[u8], ignore_case: bool) -> bool {
    let delimits = |at: usize| text.get(at).is_none_or(|b| delimiters.contains(b));
    let mut start = 0;
    while let Some(rest) = text.get(start..).filter(|r| r.len() >= pattern.len()) {
        let here = rest.get(..pattern.len()).unwrap_or_default();
        let same = if ignore_case {
            here.eq_ignore_ascii_case(pattern)
        } else {
            here == pattern
        };
        if same && delimits(start + pattern.len()) && !delimits(start) {
            return true;
        }
        // on to what follows the next delimiter
        match rest.iter().position(|b| delimiters.contains(b)) {
            Some(at) => start += at + 1,
            None => return false,
        }
    }
    false
}
