//! Reading a batch that came from another node.

use super::varint::{Fault, Stream};
use super::{
    BadBatch, ColumnDef, ColumnKind, Columns, EdictRow, LINEAGES_MAX, ROWS_MAX, RowFlags, RowHead,
    TEXT_MAX,
};
use crate::table::{Lineage, Stamp};

/// The rows of a batch that was found sound as a whole. A clone reads on from the same place.
#[derive(Clone, Debug)]
pub struct BatchReader<'a> {
    columns: &'a [ColumnDef],
    rows_left: u32,
    heads: Heads<'a>,
    /// One for each of `columns`, empty when the column is absent.
    values: Vec<Stream<'a>>,
    /// Which column the next value belongs to.
    at: usize,
}

impl<'a> BatchReader<'a> {
    /// Checks the whole batch: every length, count and index, so that reading its rows cannot fail. `sender_columns` are
    /// those of the sender's table as far as this version knows them; other columns are skipped.
    pub fn new(
        source: &'a Columns,
        sender_columns: &'a [ColumnDef],
    ) -> Result<BatchReader<'a>, BadBatch> {
        if source.rows as usize > ROWS_MAX {
            return Err(BadBatch::TooMany("rows"));
        }
        if source.lineages.len() > LINEAGES_MAX {
            return Err(BadBatch::TooMany("lineages"));
        }
        let mut values = vec![Stream::default(); sender_columns.len()];
        for (i, (number, bytes)) in source.values.iter().enumerate() {
            if source.values.iter().take(i).any(|(n, _)| n == number) {
                return Err(BadBatch::Twice(*number));
            }
            let position = sender_columns.iter().position(|c| c.number() == *number);
            let Some((column, stream)) =
                position.and_then(|at| Some((sender_columns.get(at)?, values.get_mut(at)?)))
            else {
                continue; // of a later version
            };
            *stream = Stream(bytes);
            if !bytes.is_empty() {
                check_values(column.kind, *stream, source)?;
            }
        }
        let heads = Heads::new(source, sender_columns);
        heads.check(source.rows)?;
        Ok(BatchReader {
            columns: sender_columns,
            rows_left: source.rows,
            heads,
            values,
            at: sender_columns.len(),
        })
    }

    /// The sender's columns, in the order in which each row gives its values.
    pub fn columns(&self) -> &'a [ColumnDef] {
        self.columns
    }
    /// Rows not read yet.
    pub fn rows_left(&self) -> usize {
        self.rows_left as usize
    }
    /// Bytes of every key, if all have as many.
    pub fn key_width(&self) -> Option<usize> {
        self.heads.uniform.then_some(self.heads.key_width)
    }
    /// Refuses the batch if a key not read yet cannot be one of the receiver's table.
    pub fn check_keys(&self, fits: impl Fn(&[u8]) -> bool) -> Result<(), BadBatch> {
        let mut heads = self.heads.clone();
        for _ in 0..self.rows_left {
            if !heads.next().is_ok_and(|(key, ..)| fits(key)) {
                return Err(BadBatch::Key);
            }
        }
        Ok(())
    }

    /// The next row: its key, its head and its edicts. Values of the last row that were not read are skipped.
    #[inline]
    pub fn next_row(&mut self) -> Option<(&'a [u8], RowHead, Edicts<'a>)> {
        while self.at < self.columns.len() {
            self.skip();
        }
        self.rows_left = self.rows_left.checked_sub(1)?;
        self.at = 0;
        self.heads.next().ok()
    }

    #[inline]
    fn stream(&mut self) -> Option<&mut Stream<'a>> {
        let stream = self.values.get_mut(self.at)?;
        self.at += 1;
        (!stream.0.is_empty()).then_some(stream)
    }

    /// The next value, of a counter or gauge.
    #[inline]
    pub fn counter(&mut self) -> u64 {
        self.stream().and_then(|s| s.number().ok()).unwrap_or(0)
    }
    /// The next value, of a rate: age of the period in progress, its events, those of the period before; `None` when idle.
    #[inline]
    pub fn rate(&mut self) -> Option<(u32, u32, u32)> {
        rate(self.stream()?).ok()?
    }
    /// The next value, of a register; `None`: never assigned.
    pub fn register(&mut self) -> Option<(u32, Stamp)> {
        let (names, stream) = self.named()?;
        let stamp = names.optional_stamp(stream).ok()??;
        Some((stream.word().ok()?, stamp))
    }
    /// The next value, of a server key; `None`: never assigned.
    pub fn text(&mut self) -> Option<(&'a [u8], Stamp)> {
        let (names, stream) = self.named()?;
        let stamp = names.optional_stamp(stream).ok()??;
        Some((text(stream).ok()?, stamp))
    }
    /// Passes over the next value, of whatever kind.
    #[inline]
    pub fn skip(&mut self) {
        match self.columns.get(self.at).map(|c| c.kind) {
            Some(ColumnKind::Counter | ColumnKind::Gauge) => drop(self.counter()),
            Some(ColumnKind::Rate) => drop(self.rate()),
            Some(ColumnKind::Register) => drop(self.register()),
            Some(ColumnKind::ServerKey) => drop(self.text()),
            None => {}
        }
    }

    fn named(&mut self) -> Option<(Names<'a>, &mut Stream<'a>)> {
        let names = self.heads.names;
        Some((names, self.stream()?))
    }
}

/// The edicts of one row.
#[derive(Clone, Debug)]
pub struct Edicts<'a> {
    left: u64,
    stream: Stream<'a>,
    names: Names<'a>,
    columns: &'a [ColumnDef],
}

impl Edicts<'_> {
    /// Whether there is none; those on columns that this version does not know count too.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }
    fn read(&mut self) -> Result<(u64, Stamp), BadBatch> {
        let column = self.stream.number().map_err(in_stream(HEADS))?;
        Ok((column, self.names.stamp(&mut self.stream, HEADS)?))
    }
}

impl Iterator for Edicts<'_> {
    type Item = EdictRow;

    fn next(&mut self) -> Option<EdictRow> {
        loop {
            self.left = self.left.checked_sub(1)?;
            let (column, stamp) = self.read().ok()?;
            let Some(number) = column.checked_sub(1) else {
                return Some(EdictRow {
                    column: None,
                    stamp,
                });
            };
            let known = |c: &ColumnDef| u64::from(c.number()) == number;
            if let Some(at) = self.columns.iter().position(known) {
                return Some(EdictRow {
                    column: Some(at),
                    stamp,
                });
            }
        }
    }
}

/// What stamps are resolved with.
#[derive(Clone, Copy, Debug)]
struct Names<'a> {
    lineages: &'a [u64],
    stamp_base: u64,
}

impl Names<'_> {
    fn lineage(&self, index: u64, name: &'static str) -> Result<Lineage, BadBatch> {
        let index = usize::try_from(index).ok();
        let id = index.and_then(|i| self.lineages.get(i));
        id.map(|id| Lineage(*id)).ok_or(BadBatch::Lineage(name))
    }
    fn stamp(&self, stream: &mut Stream<'_>, name: &'static str) -> Result<Stamp, BadBatch> {
        let index = stream.number().map_err(in_stream(name))?;
        self.stamp_of(index, stream, name)
    }
    fn optional_stamp(&self, stream: &mut Stream<'_>) -> Result<Option<Stamp>, BadBatch> {
        let index = stream.number().map_err(in_stream(VALUES))?;
        let Some(index) = index.checked_sub(1) else {
            return Ok(None);
        };
        self.stamp_of(index, stream, VALUES).map(Some)
    }
    fn stamp_of(
        &self,
        index: u64,
        stream: &mut Stream<'_>,
        name: &'static str,
    ) -> Result<Stamp, BadBatch> {
        Ok(Stamp {
            lineage: self.lineage(index, name)?,
            ms: stream
                .difference(self.stamp_base)
                .map_err(in_stream(name))?,
        })
    }
}

/// Keys and heads.
#[derive(Clone, Debug)]
struct Heads<'a> {
    names: Names<'a>,
    columns: &'a [ColumnDef],
    key_width: usize,
    key: Option<&'a [u8]>,
    keys: Stream<'a>,
    /// Empty when all keys have the same width.
    key_lengths: Stream<'a>,
    uniform: bool,
    heads: Stream<'a>,
    lineage: u64,
    versions: Vec<u64>,
    touch_age_ms: u32,
}

impl<'a> Heads<'a> {
    fn new(source: &'a Columns, columns: &'a [ColumnDef]) -> Heads<'a> {
        Heads {
            names: Names {
                lineages: &source.lineages,
                stamp_base: source.stamp_base,
            },
            columns,
            key_width: source.key_width as usize,
            key: None,
            keys: Stream(&source.keys),
            key_lengths: Stream(&source.key_lengths),
            uniform: source.key_lengths.is_empty(),
            heads: Stream(&source.heads),
            lineage: 0,
            versions: vec![0; source.lineages.len()],
            touch_age_ms: 0,
        }
    }

    fn check(&self, rows: u32) -> Result<(), BadBatch> {
        let mut heads = self.clone();
        for _ in 0..rows {
            heads.next()?;
        }
        match (heads.keys.0, heads.key_lengths.0, heads.heads.0) {
            ([], [], []) => Ok(()),
            ([], [], _) => Err(BadBatch::Long(HEADS)),
            _ => Err(BadBatch::Long(KEYS)),
        }
    }

    #[inline]
    fn next(&mut self) -> Result<(&'a [u8], RowHead, Edicts<'a>), BadBatch> {
        let flags = self.heads.number().map_err(in_stream(HEADS))? as u16;
        if flags & RowFlags::SAME_KEY == 0 {
            self.key = Some(self.next_key()?);
        }
        let key = self.key.ok_or(BadBatch::NoKey)?;
        if flags & RowFlags::NEW_LINEAGE != 0 {
            self.lineage = self.heads.number().map_err(in_stream(HEADS))?;
        }
        let lineage = self.names.lineage(self.lineage, HEADS)?;
        let last = self
            .versions
            .get_mut(self.lineage as usize)
            .ok_or(BadBatch::Lineage(HEADS))?;
        let version = self.heads.difference(*last).map_err(in_stream(HEADS))?;
        *last = version;
        let age = self
            .heads
            .difference(u64::from(self.touch_age_ms))
            .map_err(in_stream(HEADS))?;
        self.touch_age_ms = u32::try_from(age).map_err(|_| BadBatch::Range(HEADS))?;
        let lived = if flags & RowFlags::LIVED != 0 {
            self.heads.word().map_err(in_stream(HEADS))?
        } else {
            0
        };
        let born_age_ms = self.touch_age_ms.saturating_add(lived);
        let first = if RowFlags(flags).contains(RowFlags::FRESH) {
            let behind = self.heads.number().map_err(in_stream(HEADS))?;
            version.checked_sub(behind).ok_or(BadBatch::Range(HEADS))?
        } else {
            0
        };
        let epoch = if flags & RowFlags::EPOCH != 0 {
            Some(self.names.stamp(&mut self.heads, HEADS)?)
        } else {
            None
        };
        let mut edicts = Edicts {
            left: 0,
            stream: Stream::default(),
            names: self.names,
            columns: self.columns,
        };
        if flags & RowFlags::EDICTS != 0 {
            edicts.left = self.heads.number().map_err(in_stream(HEADS))?;
            edicts.stream = self.heads;
            self.pass_edicts(edicts.clone())?;
        }
        let head = RowHead {
            flags: RowFlags(flags & RowFlags::PUBLIC),
            lineage,
            version,
            first,
            touch_age_ms: self.touch_age_ms,
            born_age_ms,
            epoch,
        };
        Ok((key, head, edicts))
    }

    #[cold]
    fn pass_edicts(&mut self, mut edicts: Edicts<'a>) -> Result<(), BadBatch> {
        // Ends at the end of the stream, whatever the number claims.
        for _ in 0..edicts.left {
            edicts.read()?;
        }
        self.heads = edicts.stream;
        Ok(())
    }

    #[inline]
    fn next_key(&mut self) -> Result<&'a [u8], BadBatch> {
        let len = if self.uniform {
            self.key_width
        } else {
            let len = self.key_lengths.word().map_err(in_stream(KEYS))?;
            len as usize
        };
        if len > TEXT_MAX {
            return Err(BadBatch::TooMany("bytes of a key"));
        }
        self.keys.take(len).map_err(in_stream(KEYS))
    }
}

/// Walks a whole column.
fn check_values(
    kind: ColumnKind,
    mut stream: Stream<'_>,
    source: &Columns,
) -> Result<(), BadBatch> {
    let names = Names {
        lineages: &source.lineages,
        stamp_base: source.stamp_base,
    };
    let fault = in_stream(VALUES);
    for _ in 0..source.rows {
        match kind {
            ColumnKind::Counter | ColumnKind::Gauge => {
                stream.number().map_err(fault)?;
            }
            ColumnKind::Rate => {
                rate(&mut stream).map_err(fault)?;
            }
            ColumnKind::Register => {
                if names.optional_stamp(&mut stream)?.is_some() {
                    stream.word().map_err(fault)?;
                }
            }
            ColumnKind::ServerKey => {
                if names.optional_stamp(&mut stream)?.is_some() {
                    text(&mut stream).map_err(fault)?;
                }
            }
        }
    }
    if stream.0.is_empty() {
        Ok(())
    } else {
        Err(BadBatch::Long(VALUES))
    }
}

#[inline]
fn rate(stream: &mut Stream<'_>) -> Result<Option<(u32, u32, u32)>, Fault> {
    let Some(age) = stream.number()?.checked_sub(1) else {
        return Ok(None);
    };
    let age = u32::try_from(age).map_err(|_| Fault::Range)?;
    Ok(Some((age, stream.word()?, stream.word()?)))
}

fn text<'a>(stream: &mut Stream<'a>) -> Result<&'a [u8], Fault> {
    let len = stream.word()? as usize;
    if len > TEXT_MAX {
        return Err(Fault::Range);
    }
    stream.take(len)
}

fn in_stream(name: &'static str) -> impl Fn(Fault) -> BadBatch + Copy {
    move |fault| match fault {
        Fault::Short => BadBatch::Short(name),
        Fault::Range => BadBatch::Range(name),
    }
}

const KEYS: &str = "keys";
const HEADS: &str = "heads";
const VALUES: &str = "values";
