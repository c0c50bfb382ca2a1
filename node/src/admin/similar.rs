//! Commands that are not ours: those HAProxy has, and those that resemble one.

use super::line::Words;

/// Whether the typed word may have meant this one.
pub(super) fn alike(word: &str, typed: &str) -> bool {
    if typed.is_empty() {
        return false;
    }
    word.starts_with(typed) || typed.starts_with(word) || distance_at_most_two(word, typed)
}

/// Levenshtein distance of 2 or less (1 for short words).
fn distance_at_most_two(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > 2 || b.len() > 32 {
        return false;
    }
    let most = if a.len().min(b.len()) < 5 { 1 } else { 2 };
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let next = (diagonal + usize::from(x != y))
                .min(*cell + 1)
                .min(left + 1);
            diagonal = *cell;
            *cell = next;
            left = next;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().is_some_and(|d| *d <= most)
}

/// The command of HAProxy that this line begins with, as far as Remora does not have it.
pub(super) fn haproxy_command(words: &Words) -> Option<&'static str> {
    HAPROXY
        .iter()
        .copied()
        .filter(|name| {
            name.split(' ')
                .enumerate()
                .all(|(i, w)| words.at(i) == w.as_bytes())
        })
        .max_by_key(|name| name.len())
}

const HAPROXY: &[&str] = &[
    "abort ssl",
    "acme",
    "add acl",
    "add backend",
    "add map",
    "add server",
    "add ssl",
    "clear acl",
    "clear map",
    "commit acl",
    "commit map",
    "commit ssl",
    "debug",
    "del acl",
    "del backend",
    "del map",
    "del server",
    "del ssl",
    "disable agent",
    "disable dynamic-cookie",
    "disable frontend",
    "disable health",
    "dump ssl",
    "dump stats-file",
    "enable agent",
    "enable dynamic-cookie",
    "enable frontend",
    "enable health",
    "expert-mode",
    "experimental-mode",
    "get acl",
    "get map",
    "get var",
    "hard-reload",
    "httpclient",
    "mcli-debug-mode",
    "mworker",
    "new ssl",
    "prepare acl",
    "prepare map",
    "publish backend",
    "reload",
    "set anon",
    "set dynamic-cookie-key",
    "set map",
    "set profiling",
    "set rate-limit",
    "set ssl",
    "set var",
    "show acl",
    "show activity",
    "show anon",
    "show cache",
    "show dev",
    "show ech",
    "show errors",
    "show events",
    "show fd",
    "show jwt",
    "show libs",
    "show map",
    "show pools",
    "show proc",
    "show profiling",
    "show quic",
    "show resolvers",
    "show schema",
    "show servers conn",
    "show ssl",
    "show startup-logs",
    "show tasks",
    "show threads",
    "show tls-keys",
    "show trace",
    "shutdown frontend",
    "trace",
    "unpublish backend",
    "update ssl",
    "wait",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likeness() {
        for (word, typed, expected) in [
            ("table", "t", true),
            ("table", "tabel", true),
            ("table", "tables", true),
            ("stat", "stats", true),
            ("info", "inof", false),
            ("quit", "exit", false),
            ("show", "bogus", false),
            ("show", "", false),
        ] {
            assert_eq!(alike(word, typed), expected, "{word} {typed}");
        }
    }

    #[test]
    fn commands_of_haproxy_are_known_by_name() {
        assert_eq!(
            haproxy_command(&Words::of("show errors fe")),
            Some("show errors")
        );
        assert_eq!(
            haproxy_command(&Words::of("show servers conn")),
            Some("show servers conn")
        );
        assert_eq!(haproxy_command(&Words::of("show servers state")), None);
        assert_eq!(haproxy_command(&Words::of("bogus")), None);
    }
}
