//! Messages about a configuration, in the reference's format (config-dialect 9.1).

use std::collections::HashSet;

use crate::plan::Place;

/// Severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Level {
    Notice,
    Warning,
    Alert,
}

/// One message. `text` is everything after `[LEVEL]    (PID) : ` and may span several lines (the configuration line and
/// its caret).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Diag {
    pub level: Level,
    pub text: String,
}

/// Collects messages while a configuration is read. They come out in the order of the lines they are about, those about
/// the whole configuration last, each once.
#[derive(Debug, Default)]
pub struct Diags {
    files: Vec<String>,
    list: Vec<(Option<Place>, Diag)>,
    /// Texts of `list`, to say each once.
    known: HashSet<(Level, String)>,
}

impl Diags {
    /// Registers a file and gives its index for [`Place::file`].
    pub fn add_file(&mut self, name: &str) -> u16 {
        self.files.push(name.to_owned());
        u16::try_from(self.files.len() - 1).unwrap_or(u16::MAX)
    }
    /// Names of the files, by index.
    pub fn files(&self) -> &[String] {
        &self.files
    }
    /// `FILE:LINE`.
    pub fn at(&self, place: Place) -> String {
        let file = self
            .files
            .get(usize::from(place.file))
            .map_or("?", String::as_str);
        format!("{file}:{}", place.line)
    }
    /// A message about a line.
    pub fn push(&mut self, level: Level, place: Place, text: &str) {
        let text = format!("config : parsing [{}] : {text}", self.at(place));
        self.add(Some(place), Diag { level, text });
    }
    /// A message about the whole configuration or a proxy.
    pub fn push_global(&mut self, level: Level, text: &str) {
        let text = format!("config : {text}");
        self.add(None, Diag { level, text });
    }
    fn add(&mut self, place: Option<Place>, diag: Diag) {
        // A rule of a defaults section is compiled once per proxy that inherits it: say it once.
        if self.known.insert((diag.level, diag.text.clone())) {
            self.list.push((place, diag));
        }
    }
    /// An error about a line.
    pub fn alert(&mut self, place: Place, text: &str) {
        self.push(Level::Alert, place, text);
    }
    /// A warning about a line.
    pub fn warn(&mut self, place: Place, text: &str) {
        self.push(Level::Warning, place, text);
    }
    /// A remark about a line.
    pub fn notice(&mut self, place: Place, text: &str) {
        self.push(Level::Notice, place, text);
    }
    /// Whether anything of this level or worse was said.
    pub fn any(&self, level: Level) -> bool {
        self.list.iter().any(|(_, d)| d.level >= level)
    }
    /// Whether a line of this file has an error.
    pub fn file_failed(&self, file: u16) -> bool {
        self.list
            .iter()
            .any(|(p, d)| d.level == Level::Alert && p.is_some_and(|p| p.file == file))
    }
    /// All messages, in their final order.
    pub fn into_list(mut self) -> Vec<Diag> {
        self.list.sort_by_key(|(p, _)| match p {
            Some(p) => (0, p.file, p.line),
            None => (1, 0, 0),
        });
        self.list.into_iter().map(|(_, d)| d).collect()
    }
}
