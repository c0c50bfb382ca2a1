//! The runtime CLI over its unix socket.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::wait::{PATIENCE, until, until_within};

/// A CLI socket.
#[derive(Clone, Debug)]
pub struct Cli {
    path: PathBuf,
}

impl Cli {
    /// The socket at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sends `line` (LF is added), half-closes as `socat` and `nc` do, and returns everything up to the end.
    ///
    /// # Panics
    /// When the socket refuses or the answer does not end in time.
    #[track_caller]
    pub fn ask(&self, line: &str) -> String {
        let mut session = self.open();
        session.send(&format!("{line}\n"));
        session.half_close();
        session.rest()
    }

    /// Opens a connection that stays open.
    ///
    /// # Panics
    /// When the socket refuses.
    #[track_caller]
    pub fn open(&self) -> Session {
        match self.try_open() {
            Ok(session) => session,
            Err(error) => panic!("{}: {error}", self.path.display()),
        }
    }

    /// Opens a connection that stays open, or says why not.
    pub fn try_open(&self) -> std::io::Result<Session> {
        let stream = UnixStream::connect(&self.path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Session { stream })
    }

    /// Of a supervisor's CLI: the process id of the worker that serves, once there is one.
    #[track_caller]
    pub fn worker(&self) -> u32 {
        until("a worker serves", || {
            let shown = self.ask("show proc");
            let row = shown.split("# workers\n").nth(1)?.lines().next()?;
            row.split_whitespace().next()?.parse().ok()
        })
    }

    /// What table `table` holds for `key`, if anything.
    #[track_caller]
    pub fn entry(&self, table: &str, key: &str) -> Option<Entry> {
        let answer = self.ask(&format!("show table {table} key {key}"));
        answer
            .lines()
            .find(|line| line.starts_with("0x"))
            .map(Entry::parse)
    }

    /// All entries of `table`.
    #[track_caller]
    pub fn entries(&self, table: &str) -> Vec<Entry> {
        let answer = self.ask(&format!("show table {table}"));
        assert!(
            answer.starts_with("# table: "),
            "show table {table}: {answer}"
        );
        answer
            .lines()
            .filter(|line| line.starts_with("0x"))
            .map(Entry::parse)
            .collect()
    }

    /// Waits until nobody holds an entry of `table`: the last request may do so a moment longer than its answer takes, and
    /// `clear table` leaves out what is held.
    ///
    /// # Panics
    /// When somebody still does after a while.
    #[track_caller]
    pub fn released(&self, table: &str) {
        let held = || -> Vec<Entry> {
            let entries = self.entries(table).into_iter();
            entries.filter(|entry| entry.get("use") != 0).collect()
        };
        let released = until_within(PATIENCE, || held().is_empty().then_some(()));
        assert!(released.is_some(), "still held: {:?}", held());
    }

    /// The value of `name` in `show info`.
    #[track_caller]
    pub fn info(&self, name: &str) -> Option<String> {
        let answer = self.ask("show info");
        answer.lines().find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(": ")
                .map(str::to_owned)
        })
    }

    /// The value of `column` of row `proxy`/`service` in `show stat`.
    ///
    /// # Panics
    /// When there is no such row or column.
    #[track_caller]
    pub fn stat(&self, proxy: &str, service: &str, column: &str) -> String {
        let answer = self.ask("show stat");
        let mut lines = answer.lines();
        let head = lines.next().unwrap_or_default().trim_start_matches("# ");
        let at = head.split(',').position(|name| name == column);
        let at = at.unwrap_or_else(|| panic!("show stat has no column {column}: {head}"));
        lines
            .map(|line| line.split(',').collect::<Vec<_>>())
            .find(|row| row.first() == Some(&proxy) && row.get(1) == Some(&service))
            .and_then(|row| row.get(at).map(|&value| value.to_owned()))
            .unwrap_or_else(|| panic!("show stat has no row {proxy}/{service}:\n{answer}"))
    }
}

impl Cli {
    /// Waits until these columns of row `proxy`/`service` in `show stat` have these values: what an answer adds to them may be
    /// added a moment after it was sent.
    ///
    /// # Panics
    /// When they do not in time, or there is no such row or column.
    #[track_caller]
    pub fn stat_becomes(&self, proxy: &str, service: &str, wanted: &[(&str, &str)]) {
        let is = || -> Vec<String> {
            let columns = wanted.iter();
            columns
                .map(|(column, _)| self.stat(proxy, service, column))
                .collect()
        };
        let becomes = until_within(PATIENCE, || {
            let is = is();
            let mut both = is.iter().zip(wanted);
            both.all(|(is, (_, wanted))| is == wanted).then_some(())
        });
        assert!(
            becomes.is_some(),
            "{proxy}/{service}: {wanted:?} are {:?}",
            is()
        );
    }
}

/// One open CLI connection.
#[derive(Debug)]
pub struct Session {
    stream: UnixStream,
}

impl Session {
    /// Sends text as it stands. A peer that has gone is not an error here: what it answered is what counts.
    pub fn send(&mut self, text: &str) {
        let _gone = self.stream.write_all(text.as_bytes());
    }

    /// Says that nothing more will be sent.
    pub fn half_close(&mut self) {
        let _gone = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads until `end` appears (inclusive).
    ///
    /// # Panics
    /// When the stream ends or stalls before.
    #[track_caller]
    pub fn read_until(&mut self, end: &str) -> String {
        let mut got = Vec::new();
        let mut byte = [0];
        while !got.ends_with(end.as_bytes()) {
            match self.stream.read(&mut byte) {
                Ok(1) => got.push(byte[0]),
                other => panic!(
                    "{other:?} before {end:?}; got {:?}",
                    String::from_utf8_lossy(&got)
                ),
            }
        }
        String::from_utf8_lossy(&got).into_owned()
    }

    /// Reads at most `limit` bytes in one go; empty at the end of the stream.
    #[track_caller]
    pub fn read_some(&mut self, limit: usize) -> Vec<u8> {
        let mut piece = vec![0; limit];
        let count = self
            .stream
            .read(&mut piece)
            .expect("the CLI goes on answering");
        piece.truncate(count);
        piece
    }

    /// Everything up to the end of the stream. A reset counts as an end, a stall does not.
    ///
    /// # Panics
    /// When the stream stalls.
    #[track_caller]
    pub fn rest(&mut self) -> String {
        let mut got = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut got) {
            let reset = error.kind() == std::io::ErrorKind::ConnectionReset;
            assert!(
                reset,
                "the CLI neither answers nor closes ({error}); got {:?}",
                String::from_utf8_lossy(&got)
            );
        }
        String::from_utf8_lossy(&got).into_owned()
    }
}

/// A line of `show table NAME`.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The line as printed.
    pub line: String,
    fields: Vec<(String, String)>,
}

impl Entry {
    /// Reads `0xHEX: key=K use=U exp=MS shard=S name(period)=value …`.
    pub fn parse(line: &str) -> Self {
        // A blank inside a key is printed as `\ `.
        let joined = line.replace("\\ ", "\u{0}");
        let fields = joined.split(' ').filter_map(|word| word.split_once('='));
        let fields = fields.map(|(name, value)| (name.to_owned(), value.replace('\u{0}', " ")));
        Self {
            line: line.to_owned(),
            fields: fields.collect(),
        }
    }

    /// All fields in the order of the line, names as printed.
    pub fn fields(&self) -> &[(String, String)] {
        &self.fields
    }

    /// The key as printed.
    pub fn key(&self) -> &str {
        self.text("key").unwrap_or_default()
    }

    /// The text of a field, named with or without its `(period)`.
    pub fn text(&self, name: &str) -> Option<&str> {
        let wanted = |field: &str| field == name || field.split('(').next() == Some(name);
        self.fields
            .iter()
            .find(|(field, _)| wanted(field))
            .map(|(_, value)| value.as_str())
    }

    /// The number in a field.
    ///
    /// # Panics
    /// When the entry has no such field.
    #[track_caller]
    pub fn get(&self, name: &str) -> i64 {
        let value = self.text(name).and_then(|text| text.parse().ok());
        value.unwrap_or_else(|| panic!("no number {name} in: {}", self.line))
    }
}
