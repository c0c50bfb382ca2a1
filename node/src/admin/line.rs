//! One line of the CLI: commands, their words, and the mark of a payload. (reference: admin-cli section 2)

/// A line taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// The commands between `;`, empty ones left out.
    pub(super) commands: Vec<Words>,
    /// The line ends in ` <<` or ` <<TAG`: a payload follows for its last command, up to a line that equals this text
    /// (the empty line without a tag).
    pub(super) payload_until: Option<Vec<u8>>,
}

/// The words of one command. Those beyond the last are empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words(Vec<Vec<u8>>);

impl Words {
    /// The word at this position, empty if there is none.
    pub(super) fn at(&self, i: usize) -> &[u8] {
        self.0.get(i).map_or(b"", Vec::as_slice)
    }
    /// As [`Words::at`], as text.
    pub(super) fn text(&self, i: usize) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.at(i))
    }
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
    /// The words from `i` on.
    pub(super) fn from(&self, i: usize) -> &[Vec<u8>] {
        self.0.get(i..).unwrap_or_default()
    }
    #[cfg(test)]
    pub(super) fn of(text: &str) -> Words {
        parse(text.as_bytes()).commands.pop().unwrap_or_default()
    }
}

/// Takes a line (without its line feed) apart. Quotes and `#` mean nothing; a backslash makes the next character an
/// ordinary one.
pub(super) fn parse(line: &[u8]) -> Line {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut commands = Vec::new();
    let mut words = Words::default();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = line.iter().copied();
    while let Some(b) = bytes.next() {
        match b {
            b' ' | b'\t' => words.0.extend(word.take()),
            b';' => {
                words.0.extend(word.take());
                if words.len() > 0 {
                    commands.push(std::mem::take(&mut words));
                }
            }
            b'\\' => match bytes.next() {
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => word.get_or_insert_default().push(b'\\'),
            },
            b => word.get_or_insert_default().push(b),
        }
    }
    words.0.extend(word.take());
    let mut payload_until = None;
    // The mark is told by the line as typed: an escaped one is a word like others.
    if words.len() > 1 && raw_last_word(line).starts_with(b"<<") {
        payload_until = words
            .0
            .pop()
            .and_then(|mark| mark.get(2..).map(<[u8]>::to_vec));
    }
    if words.len() > 0 {
        commands.push(words);
    }
    Line {
        commands,
        payload_until,
    }
}

fn raw_last_word(line: &[u8]) -> &[u8] {
    let end = line.trim_ascii_end();
    let start = end
        .iter()
        .rposition(|b| matches!(b, b' ' | b'\t'))
        .map_or(0, |i| i + 1);
    end.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(line: &str) -> Vec<Vec<String>> {
        parse(line.as_bytes())
            .commands
            .iter()
            .map(|w| (0..w.len()).map(|i| w.text(i).into_owned()).collect())
            .collect()
    }

    #[test]
    fn words_escapes_and_lists() {
        let cases: [(&str, &[&[&str]]); 9] = [
            ("show table", &[&["show", "table"]]),
            ("  show\t table  \r", &[&["show", "table"]]),
            ("a;b c; ;d", &[&["a"], &["b", "c"], &["d"]]),
            (r"echo a\;b", &[&["echo", "a;b"]]),
            (r"key some\ key", &[&["key", "some key"]]),
            (r"a\\b c\", &[&[r"a\b", r"c\"]]),
            (r#"echo "a b" #c"#, &[&["echo", "\"a", "b\"", "#c"]]),
            ("", &[]),
            (" ; ;", &[]),
        ];
        for (line, expected) in cases {
            assert_eq!(commands(line), expected, "{line:?}");
        }
    }

    #[test]
    fn payload_marks() {
        let cases: [(&str, Option<&str>, usize); 6] = [
            ("add map x <<", Some(""), 3),
            ("add map x <<EOF", Some("EOF"), 3),
            ("add map x <<EOF\r", Some("EOF"), 3),
            (r"add map x \<<", None, 4),
            ("<<", None, 1),
            ("add map x <<EOF y", None, 5),
        ];
        for (line, until, words) in cases {
            let got = parse(line.as_bytes());
            assert_eq!(
                got.payload_until.as_deref(),
                until.map(str::as_bytes),
                "{line:?}"
            );
            assert_eq!(got.commands[0].len(), words, "{line:?}");
        }
    }
}
