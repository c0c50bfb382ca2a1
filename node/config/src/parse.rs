//! Files to sections of statements. Environment statements and condition blocks take effect here, because they decide
//! what the following lines say.

use crate::ast::{Prefix, Section, SectionKind, Statement, shown, whole};
use crate::condition;
use crate::diag::{Diags, Level};
use crate::env::{AtLine, Env};
use crate::known::{self, Kind};
use crate::lexer::{self, Word};
use crate::plan::Place;
use crate::scope::unsupported;
use crate::{Loader, Source};

/// Errors after which a file is given up: it is probably not what its reader thinks it is.
const ERRORS_MAX: usize = 50;
/// Nesting of condition blocks.
const BLOCKS_MAX: usize = 64;
/// A file whose beginning holds a NUL byte is no text.
const BINARY_PROBE: usize = 4096;

/// Reads all files. Messages go to `diags`; sections that could be read are given even when there were errors.
pub(crate) fn parse(
    sources: &[Source],
    env: &mut Env,
    loader: &dyn Loader,
    diags: &mut Diags,
) -> Vec<Section> {
    let mut sections = Vec::new();
    for source in sources {
        let file = diags.add_file(&source.name);
        File {
            source,
            env,
            loader,
            diags,
            sections: &mut sections,
            state: State::NoSection,
            blocks: Vec::new(),
            place: Place { file, line: 0 },
            errors: 0,
        }
        .run();
    }
    sections
}

/// Where statements go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing before the first section.
    NoSection,
    /// The last of `sections`.
    Open,
    /// A section that could not be begun, or that Remora does not have: its statements say nothing more.
    Skipped,
}

/// A condition block.
struct Block {
    /// Its lines count (as far as the blocks around it do).
    taken: bool,
    /// One of its branches was taken: later ones are not.
    done: bool,
    in_else: bool,
    /// The blocks around it are taken.
    outer: bool,
}

struct File<'f> {
    source: &'f Source,
    env: &'f mut Env,
    loader: &'f dyn Loader,
    diags: &'f mut Diags,
    sections: &'f mut Vec<Section>,
    state: State,
    blocks: Vec<Block>,
    place: Place,
    errors: usize,
}

impl File<'_> {
    fn alert(&mut self, text: &str) {
        self.errors += 1;
        self.diags.alert(self.place, text);
    }
    fn active(&self) -> bool {
        self.blocks.iter().all(|b| b.taken)
    }

    fn run(mut self) {
        let text = &self.source.text;
        let probe = text.get(..BINARY_PROBE).unwrap_or(text);
        if let Some(at) = probe.iter().position(|&b| b == 0)
            && !looks_like_text_before(probe, at)
        {
            self.place.line = 1;
            self.alert(&format!(
                "this is not a text file: it holds a NUL byte at position {}.",
                at + 1
            ));
            return;
        }
        let mut rest = text.as_slice();
        while !rest.is_empty() {
            self.place.line = self.place.line.saturating_add(1);
            let (line, tail, complete) = match rest.iter().position(|&b| b == b'\n') {
                Some(n) => (
                    rest.get(..n).unwrap_or_default(),
                    rest.get(n + 1..).unwrap_or_default(),
                    true,
                ),
                None => (rest, &[][..], false),
            };
            if !complete {
                let at = line.len().saturating_add(1);
                self.alert(&format!(
                    "Missing LF on last line, file might have been truncated at position {at}."
                ));
            }
            self.line(line);
            if self.errors >= ERRORS_MAX {
                self.alert(&format!(
                    "too many fatal errors ({ERRORS_MAX}), stopping now."
                ));
                return;
            }
            rest = tail;
        }
        if !self.blocks.is_empty() {
            self.alert("non-terminated '.if' block.");
        }
    }

    fn line(&mut self, line: &[u8]) {
        // A byte order mark is what some editors leave in front of the first line.
        let line = match line.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) if self.place.line == 1 => rest,
            _ => line,
        };
        let section = match self.state {
            State::Open => self.sections.last().map_or("", |s| s.kind.word()),
            _ => "",
        };
        let vars = AtLine {
            env: self.env,
            loader: self.loader,
            file: &self.source.name,
            line: self.place.line,
            section,
        };
        let words = match lexer::words(line, &vars) {
            Ok(words) => words,
            // Nothing in a branch that is not taken needs to make sense, except the directives that end it.
            Err(_) if !self.active() => lexer::first_word(line).into_iter().collect(),
            Err(e) => {
                let text = format!("{}\n{}", e.message(), lexer::caret(line, e.at));
                self.alert(&text);
                return;
            }
        };
        let Some(first) = words.first() else { return };
        if first.bytes.first() == Some(&b'.') {
            self.directive(&words);
        } else if self.active() {
            self.statement(words);
        }
    }

    fn directive(&mut self, words: &[Word]) {
        let name = words.first().map(shown).unwrap_or_default();
        let args = words.get(1..).unwrap_or_default();
        let taken = self.active();
        match name.as_str() {
            ".if" => {
                if self.blocks.len() >= BLOCKS_MAX {
                    self.alert(&format!("too many nested '.if', max is {BLOCKS_MAX}."));
                    return;
                }
                let value = taken && self.condition(".if", args);
                self.blocks.push(Block {
                    taken: value,
                    done: value,
                    in_else: false,
                    outer: taken,
                });
            }
            ".elif" => {
                let Some(block) = self.blocks.last() else {
                    return self.alert("lone '.elif' with no matching '.if'.");
                };
                if block.in_else {
                    return self.alert("'.elif' after '.else' is not permitted.");
                }
                let open = block.outer && !block.done;
                let value = open && self.condition(".elif", args);
                if let Some(block) = self.blocks.last_mut() {
                    block.taken = value;
                    block.done |= value;
                }
            }
            ".else" => {
                let Some(block) = self.blocks.last_mut() else {
                    return self.alert("lone '.else' with no matching '.if'.");
                };
                if block.in_else {
                    return self.alert("'.else' after '.else' is not permitted.");
                }
                block.in_else = true;
                block.taken = block.outer && !block.done;
                block.done = true;
                self.no_argument(".else", args);
            }
            ".endif" => {
                if self.blocks.pop().is_none() {
                    return self.alert("lone '.endif' with no matching '.if'.");
                }
                self.no_argument(".endif", args);
            }
            _ if !taken => {}
            ".notice" | ".warning" | ".alert" | ".diag" => {
                let text = args.first().map(whole).unwrap_or_default();
                if let Some(extra) = args.get(1) {
                    let extra = shown(extra);
                    return self.alert(&format!(
                        "unexpected argument '{extra}' for '{name}': a message of several words needs quotes."
                    ));
                }
                let text = format!("'{text}'.");
                match name.as_str() {
                    ".notice" => self.diags.notice(self.place, &text),
                    ".warning" => self.diags.warn(self.place, &text),
                    ".alert" => self.alert(&text),
                    // Diagnostics are only shown on request, which Remora has no option for.
                    _ => {}
                }
            }
            _ => self.alert(&format!("unknown directive '{name}'.")),
        }
    }

    fn no_argument(&mut self, name: &str, args: &[Word]) {
        if let Some(extra) = args.first() {
            let extra = shown(extra);
            self.alert(&format!("unexpected argument '{extra}' after '{name}'."));
        }
    }

    fn condition(&mut self, name: &str, args: &[Word]) -> bool {
        let text = args.iter().map(|w| w.text()).collect::<Vec<_>>().join(" ");
        let (env, loader) = (&*self.env, self.loader);
        match condition::evaluate(&text, &|v| env.get(v, loader).is_some()) {
            Ok(value) => value,
            Err(e) => {
                let shown = format!("{name} {text}");
                let caret = lexer::caret(shown.as_bytes(), name.len() + 1 + e.at);
                let at = e.at + 1;
                self.alert(&format!(
                    "{} in '{name}' at position {at}:\n{caret}",
                    e.text
                ));
                false
            }
        }
    }

    fn statement(&mut self, mut words: Vec<Word>) {
        let mut prefix = Prefix::None;
        if let Some(first) = words.first()
            && words.len() > 1
        {
            prefix = match first.bytes.as_slice() {
                b"no" => Prefix::No,
                b"default" => Prefix::Default,
                _ => Prefix::None,
            };
            if prefix != Prefix::None {
                words.remove(0);
            }
        }
        let Some(first) = words.first() else { return };
        let keyword = shown(first);
        let section = SectionKind::of(&keyword);
        if prefix != Prefix::None
            && !matches!(keyword.as_str(), "option" | "log" | "busy-polling")
            && !(prefix == Prefix::No && NEGATABLE.contains(&keyword.as_str()))
        {
            let text = "'no' and 'default' only go with options, 'log' and some switches of 'global': negation/default is not supported here.";
            return self.alert(text);
        }
        if let Some(kind) = section {
            return self.begin(kind, &words);
        }
        let inside_global = self.state == State::Open
            && self
                .sections
                .last()
                .is_some_and(|s| s.kind == SectionKind::Global);
        if known::is_known(Kind::Section, &keyword)
            && !known::is_known(Kind::Proxy, &keyword)
            && !known::is_known(Kind::Global, &keyword)
        {
            self.state = State::Skipped;
            return self.alert(&unsupported(&keyword));
        }
        match self.state {
            State::NoSection => {
                let hint = known::hint(&keyword, Kind::Section);
                let end = if hint.is_empty() { "." } else { "" };
                self.alert(&format!(
                    "unknown keyword '{keyword}' out of section{hint}{end}"
                ));
            }
            State::Skipped => {}
            State::Open => {
                if inside_global {
                    self.global_environment(&words);
                }
                let statement = Statement {
                    place: self.place,
                    prefix,
                    words,
                };
                if let Some(section) = self.sections.last_mut() {
                    section.statements.push(statement);
                }
            }
        }
    }

    /// Statements of `global` that change what the following lines mean. They stay in the section too, so that the rest
    /// of the compiler knows them.
    fn global_environment(&mut self, words: &[Word]) {
        match self.env.statement(words, self.loader) {
            Some(Err(text)) => self.alert(&text),
            Some(Ok(())) => {}
            None => {
                if let [keyword, name] = words
                    && *keyword == "localpeer"
                {
                    self.env.local_peer(&name.text());
                }
            }
        }
    }

    fn begin(&mut self, kind: SectionKind, words: &[Word]) {
        self.state = State::Skipped;
        let word = kind.word();
        let mut args = words.get(1..).unwrap_or_default().iter().map(Word::text);
        let mut section = Section {
            kind,
            name: String::new(),
            from: None,
            place: self.place,
            statements: Vec::new(),
        };
        let mut next = args.next();
        match kind {
            SectionKind::Global => {}
            SectionKind::Defaults => {
                if let Some(name) = next.as_deref().filter(|n| *n != "from") {
                    section.name = name.to_owned();
                    next = args.next();
                }
            }
            _ => match next {
                Some(name) => {
                    section.name = name.into_owned();
                    next = args.next();
                }
                None if kind == SectionKind::Peers => {
                    return self.alert("missing name for peers section.");
                }
                None => return self.alert(&format!("'{word}' expects an <id> argument")),
            },
        }
        let heir = !matches!(kind, SectionKind::Global | SectionKind::Peers);
        if heir && next.as_deref() == Some("from") {
            match args.next() {
                Some(parent) => section.from = Some(parent.into_owned()),
                None => {
                    return self.alert("'from' expects the name of a defaults section.");
                }
            }
            next = args.next();
        }
        if let Some(c) = section.name.chars().find(|c| !name_char(*c)) {
            let name = &section.name;
            let text = format!(
                "character '{}' is not permitted in '{word}' name '{}'.",
                c.escape_default(),
                shown(&Word::new(name.as_bytes()))
            );
            // The statements that follow are still worth checking.
            self.alert(&text);
        }
        if let Some(extra) = next {
            let extra = shown(&Word::new(extra.as_bytes()));
            let hint = match kind {
                SectionKind::Frontend | SectionKind::Listen => {
                    " Addresses to listen on go on 'bind' lines."
                }
                _ => "",
            };
            self.alert(&format!(
                "'{word}' cannot handle unexpected argument '{extra}'.{hint}"
            ));
        }
        self.sections.push(section);
        self.state = State::Open;
    }
}

/// Switches of `global` that `no` may precede.
const NEGATABLE: [&str; 5] = [
    "set-dumpable",
    "strict-limits",
    "insecure-fork-wanted",
    "numa-cpu-mapping",
    "shm-stats-file",
];

/// Characters of names of proxies, servers, ACLs.
pub(crate) fn name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '_' | '-')
}

/// Whether the lines before a NUL look written by a person: then the NUL is treated as the end of its line.
fn looks_like_text_before(bytes: &[u8], nul: usize) -> bool {
    let before = bytes.get(..nul).unwrap_or_default();
    let after = bytes.get(nul + 1..).unwrap_or_default();
    let odd = |b: &&u8| **b < 0x20 && !matches!(**b, b'\t' | b'\n' | b'\r');
    before.iter().filter(odd).count() == 0 && after.iter().filter(odd).count() == 0
}

impl Level {
    /// The word in brackets.
    pub fn name(self) -> &'static str {
        match self {
            Level::Notice => "NOTICE",
            Level::Warning => "WARNING",
            Level::Alert => "ALERT",
        }
    }
}
