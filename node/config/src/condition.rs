//! The condition language of `.if`, `.elif` and `-cc` (config-dialect 1.5).

use crate::env::DIALECT_VERSION;

/// A condition that cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CondError {
    /// What is wrong, without place.
    pub text: String,
    /// Byte offset in the condition, from 0.
    pub at: usize,
}

/// HAProxy's names of features that Remora covers.
const FEATURES: [&str; 12] = [
    "ACCEPT4",
    "CPU_AFFINITY",
    "CRYPT_H",
    "DL",
    "EPOLL",
    "GETADDRINFO",
    "LIBCRYPT",
    "LINUX_SPLICE",
    "NETFILTER",
    "POLL",
    "PRCTL",
    "THREAD",
];
/// Of those, the ones that hold; the others are known names whose effect users cannot ask of Remora.
const COVERED: [&str; 6] = [
    "ACCEPT4",
    "EPOLL",
    "GETADDRINFO",
    "LINUX_SPLICE",
    "POLL",
    "THREAD",
];
/// What `enabled()` knows: (name, on).
const ENABLED: [(&str, bool); 9] = [
    ("POLL", false),
    ("EPOLL", true),
    ("KQUEUE", false),
    ("EVPORTS", false),
    ("SPLICE", true),
    ("GETADDRINFO", true),
    ("REUSEPORT", true),
    ("FAST-FORWARD", true),
    ("SERVER-SSL-VERIFY-NONE", false),
];

/// Evaluates a condition. An empty one is false. `defined` answers for the environment.
pub fn evaluate(text: &str, defined: &dyn Fn(&str) -> bool) -> Result<bool, CondError> {
    let mut p = Parser {
        text: text.as_bytes(),
        pos: 0,
        depth: 0,
        defined,
    };
    p.blanks();
    if p.pos == p.text.len() {
        return Ok(false);
    }
    let value = p.or_expr()?;
    p.blanks();
    if p.pos < p.text.len() {
        let odd = p.rest().chars().next().unwrap_or(' ');
        return p.fail(
            p.pos,
            format!("unexpected character '{odd}' at the end of conditional expression '{text}'"),
        );
    }
    Ok(value)
}

struct Parser<'p> {
    text: &'p [u8],
    pos: usize,
    depth: usize,
    defined: &'p dyn Fn(&str) -> bool,
}

/// Nesting of `(` and `!` that makes sense; bounds the recursion.
const DEPTH_MAX: usize = 128;

impl Parser<'_> {
    fn rest(&self) -> String {
        String::from_utf8_lossy(self.text.get(self.pos..).unwrap_or_default()).into_owned()
    }
    fn peek(&self) -> Option<u8> {
        self.text.get(self.pos).copied()
    }
    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.pos += 1;
        }
    }
    fn eat(&mut self, token: &str) -> bool {
        let found = self
            .text
            .get(self.pos..)
            .is_some_and(|t| t.starts_with(token.as_bytes()));
        if found {
            self.pos += token.len();
        }
        found
    }
    fn fail<T>(&self, at: usize, text: String) -> Result<T, CondError> {
        Err(CondError { text, at })
    }

    fn or_expr(&mut self) -> Result<bool, CondError> {
        let mut value = self.and_expr()?;
        loop {
            self.blanks();
            if !self.eat("||") {
                return Ok(value);
            }
            let right = self.and_expr()?;
            value |= right;
        }
    }
    fn and_expr(&mut self) -> Result<bool, CondError> {
        let mut value = self.term()?;
        loop {
            self.blanks();
            if !self.eat("&&") {
                return Ok(value);
            }
            let right = self.term()?;
            value &= right;
        }
    }

    fn term(&mut self) -> Result<bool, CondError> {
        self.blanks();
        let start = self.pos;
        if self.depth >= DEPTH_MAX {
            return self.fail(
                start,
                "conditional expression is nested too deep".to_owned(),
            );
        }
        self.depth += 1;
        let value = self.term_inside(start);
        self.depth -= 1;
        value
    }

    fn term_inside(&mut self, start: usize) -> Result<bool, CondError> {
        match self.peek() {
            Some(b'!') => {
                self.pos += 1;
                Ok(!self.term()?)
            }
            Some(b'(') => {
                let whole = self.rest();
                self.pos += 1;
                let value = self.or_expr()?;
                self.blanks();
                if !self.eat(")") {
                    return self.fail(
                        self.pos,
                        format!("expected ')' after conditional expression '{whole}'"),
                    );
                }
                Ok(value)
            }
            Some(c) if c.is_ascii_digit() || c == b'-' => {
                let mut end = self.pos + 1;
                while self.text.get(end).is_some_and(u8::is_ascii_digit) {
                    end += 1;
                }
                let digits = self.text.get(self.pos..end).unwrap_or_default();
                if digits == b"-" {
                    return self.unparsable(start);
                }
                self.pos = end;
                Ok(digits.iter().any(|d| matches!(d, b'1'..=b'9')))
            }
            Some(c) if c.is_ascii_alphabetic() => {
                let mut end = self.pos;
                while self
                    .text
                    .get(end)
                    .is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_')
                {
                    end += 1;
                }
                let name =
                    String::from_utf8_lossy(self.text.get(self.pos..end).unwrap_or_default())
                        .into_owned();
                if self.text.get(end) != Some(&b'(') {
                    return self.unparsable(start);
                }
                self.predicate(start, end, &name)
            }
            _ => self.unparsable(start),
        }
    }

    fn unparsable<T>(&mut self, start: usize) -> Result<T, CondError> {
        self.pos = start;
        let rest = self.rest();
        self.fail(start, format!("unparsable conditional expression '{rest}'"))
    }

    /// `NAME(` stands at `start`; the parenthesis at `open`.
    fn predicate(&mut self, start: usize, open: usize, name: &str) -> Result<bool, CondError> {
        let wanted: usize = match name {
            "streq" | "strneq" | "strstr" => 2,
            "fips_mode" => 0,
            "defined"
            | "feature"
            | "version_atleast"
            | "version_before"
            | "enabled"
            | "ssllib_name_startswith"
            | "openssl_version_atleast"
            | "openssl_version_before"
            | "awslc_api_atleast" => 1,
            _ => return self.unparsable(start),
        };
        self.pos = open + 1;
        let args = self.arguments(name)?;
        if args.len() < wanted {
            return self.fail(
                self.pos,
                format!(
                    "missing arguments (got {}/{wanted}), type 'string' expected in argument {} of predicate '{name}' used in conditional expression",
                    args.len(),
                    args.len().max(1),
                ),
            );
        }
        if args.len() > wanted {
            return self.fail(
                self.pos,
                format!(
                    "too many arguments (got {}, expected {wanted}) for predicate '{name}' used in conditional expression",
                    args.len()
                ),
            );
        }
        let arg = |i: usize| args.get(i).map_or("", String::as_str);
        Ok(match name {
            "defined" => (self.defined)(arg(0)),
            "feature" => COVERED.contains(&arg(0)),
            "streq" => arg(0) == arg(1),
            "strneq" => arg(0) != arg(1),
            "strstr" => arg(0).contains(arg(1)),
            "version_atleast" => version(DIALECT_VERSION) >= version(arg(0)),
            "version_before" => version(DIALECT_VERSION) < version(arg(0)),
            "enabled" => match ENABLED.iter().find(|(n, _)| *n == arg(0)) {
                Some((_, on)) => *on,
                None => return self.unparsable(start),
            },
            // Remora has no OpenSSL, hence no version of it and no FIPS module.
            _ => false,
        })
    }

    /// Arguments up to and with the closing parenthesis; quotes and escapes as in the second level of the grammar.
    fn arguments(&mut self, name: &str) -> Result<Vec<String>, CondError> {
        let mut args = Vec::new();
        let mut arg = Vec::new();
        let mut quote = None;
        let mut any = false;
        loop {
            let Some(c) = self.peek() else {
                let n = args.len() + 1;
                return self.fail(
                    self.pos,
                    format!(
                        "expected ')' in argument {n} of predicate '{name}' used in conditional expression"
                    ),
                );
            };
            self.pos += 1;
            match (c, quote) {
                (b'"' | b'\'', None) => {
                    quote = Some(c);
                    any = true;
                }
                (c, Some(q)) if c == q => quote = None,
                (b'\\', None | Some(b'"')) => {
                    any = true;
                    let next = self.peek();
                    let plain = match next {
                        Some(b'n') => b'\n',
                        Some(b'r') => b'\r',
                        Some(b't') => b'\t',
                        Some(c @ (b' ' | b'\\' | b'"' | b'\'' | b',' | b')')) => c,
                        _ => {
                            arg.push(b'\\');
                            continue;
                        }
                    };
                    self.pos += 1;
                    arg.push(plain);
                }
                (b',' | b')', None) => {
                    let text = String::from_utf8_lossy(&arg).into_owned();
                    if c == b',' || any || !arg.is_empty() || !args.is_empty() {
                        args.push(text);
                    }
                    arg.clear();
                    any = false;
                    if c == b')' {
                        return Ok(args);
                    }
                }
                _ => arg.push(c),
            }
        }
    }
}

/// `3.2-dev5-12` as numbers; a development version is before its release.
fn version(text: &str) -> (u32, u32, i32, u32) {
    let (release, dev) = match text.split_once("-dev") {
        Some((r, d)) => (r, Some(d)),
        None => (text, None),
    };
    let mut parts = release.split(['.', '-']).map(|p| p.parse().unwrap_or(0u32));
    let major = parts.next().unwrap_or(0);
    let minor = parts.next().unwrap_or(0);
    let patch = parts.next().unwrap_or(0);
    match dev {
        Some(d) => {
            let n: i32 = d
                .split('-')
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or(0);
            (major, minor, n.saturating_sub(1_000_000), 0)
        }
        None => (major, minor, 0, patch),
    }
}

/// Names of features, for `-vv`: (name, covered).
pub fn features() -> impl Iterator<Item = (&'static str, bool)> {
    FEATURES.iter().map(|f| (*f, COVERED.contains(f)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eval(text: &str) -> Result<bool, CondError> {
        evaluate(text, &|name| name == "HOME")
    }

    #[test]
    fn values() {
        for (text, expected) in [
            ("", false),
            ("  ", false),
            ("0", false),
            ("1", true),
            ("-1", true),
            ("!1", false),
            ("! !1", true),
            ("1 && 0", false),
            ("1 || 0 && 0", true),
            ("(1 || 0) && 0", false),
            ("0||1", true),
            ("defined(HOME)", true),
            ("defined(NOPE)", false),
            ("feature(THREAD)", true),
            ("feature(QUIC)", false),
            ("streq(a,a)", true),
            ("streq(\"a b\",a b)", true),
            ("streq(a,b)", false),
            ("strneq(a,b)", true),
            ("strstr(abc,b)", true),
            ("version_atleast(2.6)", true),
            ("version_atleast(3.2)", true),
            ("version_atleast(3.3)", false),
            ("version_atleast(3.2-dev3)", true),
            ("version_before(3.2-dev0)", false),
            ("version_before(3.3-dev0)", true),
            ("enabled(EPOLL)", true),
            ("enabled(KQUEUE)", false),
            ("openssl_version_atleast(1.1.1)", false),
            ("!fips_mode()", true),
            ("streq(,)", true),
        ] {
            assert_eq!(eval(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn errors() {
        for (text, at, message) in [
            (
                "feature(THREAD",
                14,
                "expected ')' in argument 1 of predicate 'feature' used in conditional expression",
            ),
            ("abc", 0, "unparsable conditional expression 'abc'"),
            ("foo(1)", 0, "unparsable conditional expression 'foo(1)'"),
            (
                "enabled(FOO)",
                0,
                "unparsable conditional expression 'enabled(FOO)'",
            ),
            (
                "1 )",
                2,
                "unexpected character ')' at the end of conditional expression '1 )'",
            ),
            ("(1", 2, "expected ')' after conditional expression '(1'"),
            (
                "streq(a)",
                8,
                "missing arguments (got 1/2), type 'string' expected in argument 1 of predicate 'streq' used in conditional expression",
            ),
        ] {
            let e = eval(text).unwrap_err();
            assert_eq!((e.at, e.text.as_str()), (at, message), "{text}");
        }
        assert!(eval(&"(".repeat(100_000)).is_err());
        assert!(eval(&"!".repeat(100_000)).is_err());
    }
}
