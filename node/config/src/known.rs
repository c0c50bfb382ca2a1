//! Names that HAProxy knows, whether Remora supports them or not: what separates "not supported" from "unknown", and
//! what suggestions are taken from. One sorted list per kind in `known/`.

/// Kinds of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Words that begin a section.
    Section,
    /// Statements of `global`.
    Global,
    /// Statements of `defaults`, `frontend`, `backend`, `listen`.
    Proxy,
    /// Statements of `peers`, Remora's own included.
    Peers,
    /// Options of a `bind` line.
    Bind,
    /// Options of a `server` line.
    Server,
    /// What may follow `option`.
    Option,
    /// Actions, prefixed by their rule set: `http-request deny`, `tcp-request content accept`. Those that carry
    /// parentheses or a number are listed without: `http-request sc-inc-gpc`, `http-request track-sc`.
    Action,
    /// Sample fetches, ACL spellings included.
    Fetch,
    /// Converters.
    Converter,
    /// `balance` algorithms.
    Balance,
}

fn list(kind: Kind) -> &'static str {
    match kind {
        Kind::Section => include_str!("known/sections.txt"),
        Kind::Global => include_str!("known/global.txt"),
        Kind::Proxy => include_str!("known/proxy.txt"),
        Kind::Peers => include_str!("known/peers.txt"),
        Kind::Bind => include_str!("known/bind.txt"),
        Kind::Server => include_str!("known/server.txt"),
        Kind::Option => include_str!("known/option.txt"),
        Kind::Action => include_str!("known/action.txt"),
        Kind::Fetch => include_str!("known/fetch.txt"),
        Kind::Converter => include_str!("known/converter.txt"),
        Kind::Balance => include_str!("known/balance.txt"),
    }
}

/// All names of a kind, sorted.
pub fn names(kind: Kind) -> impl Iterator<Item = &'static str> {
    list(kind).lines()
}

/// Whether HAProxy knows this name.
pub fn is_known(kind: Kind, name: &str) -> bool {
    names(kind).any(|n| n == name)
}

/// The candidate that looks most like `word`, if any is close: letters in the same company count, so that swapped,
/// missing and doubled letters are all cheap.
pub fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    const WORD_MAX: usize = 64;
    if word.is_empty() || word.len() > WORD_MAX {
        return None;
    }
    let best = candidates
        .into_iter()
        .map(|c| (distance(word, c), c))
        .min_by_key(|&(d, _)| d)?;
    let limit = 2 * word.len().min(best.1.len());
    (best.0 <= limit).then_some(best.1)
}

/// Number of letter pairs (with the word's ends as letters) that only one of the words has, plus the letters only one of
/// them has.
fn distance(a: &str, b: &str) -> usize {
    fn pairs(word: &str) -> Vec<(u8, u8)> {
        let lower: Vec<u8> = word.bytes().map(|b| b.to_ascii_lowercase()).collect();
        let from = std::iter::once(0).chain(lower.iter().copied());
        let to = lower.iter().copied().chain(std::iter::once(0));
        from.zip(to).collect()
    }
    fn unmatched<T: PartialEq>(a: &[T], b: Vec<T>) -> usize {
        let mut rest = b;
        let mut missing = 0;
        for x in a {
            match rest.iter().position(|y| y == x) {
                Some(i) => {
                    rest.swap_remove(i);
                }
                None => missing += 1,
            }
        }
        missing + rest.len()
    }
    fn letters(pairs: &[(u8, u8)]) -> Vec<u8> {
        let mut l: Vec<u8> = pairs.iter().map(|p| p.1).collect();
        l.sort_unstable();
        l.dedup();
        l
    }
    let (a, b) = (pairs(a), pairs(b));
    let (la, lb) = (letters(&a), letters(&b));
    unmatched(&a, b) + unmatched(&la, lb)
}

/// `; did you mean 'X' maybe ?`, or nothing.
pub fn hint(word: &str, kind: Kind) -> String {
    match closest(word, names(kind)) {
        Some(name) => format!("; did you mean '{name}' maybe ?"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions() {
        for (kind, word, expected) in [
            (Kind::Bind, "foo", Some("tfo")),
            (Kind::Server, "chek", Some("check")),
            (Kind::Proxy, "balanc", Some("balance")),
            (Kind::Proxy, "foo", None),
            (Kind::Proxy, "stick-tabel", Some("stick-table")),
            (Kind::Global, "nbtread", Some("nbthread")),
            (Kind::Fetch, "src_con_rate", Some("src_conn_rate")),
        ] {
            assert_eq!(closest(word, names(kind)), expected, "{word}");
        }
    }

    #[test]
    fn lists_are_sorted_and_unique() {
        for kind in [
            Kind::Section,
            Kind::Global,
            Kind::Proxy,
            Kind::Peers,
            Kind::Bind,
            Kind::Server,
            Kind::Option,
            Kind::Action,
            Kind::Fetch,
            Kind::Converter,
            Kind::Balance,
        ] {
            let all: Vec<_> = names(kind).collect();
            assert!(all.windows(2).all(|w| w[0] < w[1]), "{kind:?}");
        }
    }
}
