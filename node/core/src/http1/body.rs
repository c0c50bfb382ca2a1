//! The body decoder: follows a message's framing over arbitrary pieces of input.
//!
//! Two ways to use it. [`Body::advance`] says how many bytes of the input belong to the message and are valid, so that
//! they may be passed on as they are. [`Body::decode`] additionally tells data from chunk framing, for recipients that
//! need the bare data. Both validate the same.

use std::ops::Range;

use super::Framing;
use super::error::{ErrorKind, ParseError};
use super::names::{is_ctl, is_token_char};

/// Follows one body. Small and without heap memory.
#[derive(Clone, Debug)]
pub struct Body {
    state: State,
    from_server: bool,
    /// Data bytes still to come in this chunk or sized body; in `Size`, the number read so far.
    left: u64,
    /// Digits, extension bytes or trailer bytes seen, depending on the state.
    count: u32,
    trailer_bytes: u32,
    /// Bytes taken so far, for error offsets.
    taken: u64,
    name: TrailerName,
}

/// What [`Body::decode`] made of the start of its input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Bytes of input that are dealt with, framing and data.
    pub consumed: usize,
    /// Where in the input the data is; nothing else of it is data. May be empty.
    pub data: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Data of a sized body.
    Sized,
    UntilClose,
    /// Before the first digit of a chunk size, or between digits.
    Size,
    /// Blanks after a chunk size.
    SizeBlank,
    Extension,
    /// LF after a chunk size line.
    SizeLf,
    ChunkData,
    DataCr,
    DataLf,
    /// At the start of a trailer line, or of the empty line that ends the body.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

impl Body {
    /// For a body framed so. `from_server` decides whose fault errors are.
    pub fn new(framing: Framing, from_server: bool) -> Body {
        let (state, left) = match framing {
            Framing::None | Framing::Sized(0) => (State::Done, 0),
            Framing::Sized(n) => (State::Sized, n),
            Framing::Chunked => (State::Size, 0),
            Framing::UntilClose | Framing::Tunnel => (State::UntilClose, 0),
        };
        Body {
            state,
            from_server,
            left,
            count: 0,
            trailer_bytes: 0,
            taken: 0,
            name: TrailerName::default(),
        }
    }

    /// The body is complete: what follows belongs to the next message.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The body is complete if the connection ends here; otherwise it was cut short.
    pub fn may_end_here(&self) -> bool {
        matches!(self.state, State::Done | State::UntilClose)
    }

    /// Bytes taken so far, framing included.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Data bytes that follow without any framing in between, so that they may be moved without being looked at
    /// (`splice`). 0 between chunks; `u64::MAX` if only the close ends the body.
    pub fn contiguous(&self) -> u64 {
        match self.state {
            State::Sized | State::ChunkData => self.left,
            State::UntilClose => u64::MAX,
            _ => 0,
        }
    }

    /// `n` data bytes were moved without being looked at. More than [`Body::contiguous`] is a caller's mistake; the
    /// excess is not taken.
    pub fn skip(&mut self, n: u64) {
        let n = n.min(self.contiguous());
        self.taken = self.taken.saturating_add(n);
        if self.state != State::UntilClose {
            self.left -= n;
            self.after_data();
        }
    }

    /// Validates the start of `input`: that many bytes belong to the body and may be passed on as they are. Fewer than
    /// given only when the body ends ([`Body::is_done`]). On an error nothing of this input should be passed on.
    pub fn advance(&mut self, input: &[u8]) -> Result<usize, ParseError> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            at += self.step(input.get(at..).unwrap_or_default())?.consumed;
        }
        Ok(at)
    }

    /// Validates the start of `input` up to the end of one run of data. Call again with the rest until nothing is
    /// consumed. Trailers are consumed and are no data.
    pub fn decode(&mut self, input: &[u8]) -> Result<Piece, ParseError> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            let piece = self.step(input.get(at..).unwrap_or_default())?;
            let data = at + piece.data.start..at + piece.data.end;
            at += piece.consumed;
            if !data.is_empty() {
                return Ok(Piece { consumed: at, data });
            }
        }
        Ok(Piece {
            consumed: at,
            data: at..at,
        })
    }

    /// Takes one run of data, or framing up to the next data. Consumes at least one byte of a non-empty input.
    fn step(&mut self, input: &[u8]) -> Result<Piece, ParseError> {
        let run = match self.state {
            State::Sized | State::ChunkData => usize::try_from(self.left)
                .unwrap_or(usize::MAX)
                .min(input.len()),
            State::UntilClose => input.len(),
            _ => 0,
        };
        if run > 0 {
            self.taken = self.taken.saturating_add(run as u64);
            if self.state != State::UntilClose {
                self.left -= run as u64;
                self.after_data();
            }
            return Ok(Piece {
                consumed: run,
                data: 0..run,
            });
        }
        let mut consumed = 0;
        for &c in input {
            if matches!(self.state, State::ChunkData | State::Done) {
                break;
            }
            self.state = self.framing_byte(c).map_err(|kind| ParseError {
                kind,
                offset: self.taken,
                from_server: self.from_server,
            })?;
            self.taken = self.taken.saturating_add(1);
            consumed += 1;
        }
        Ok(Piece {
            consumed,
            data: consumed..consumed,
        })
    }

    fn after_data(&mut self) {
        if self.left == 0 {
            self.state = if self.state == State::Sized {
                State::Done
            } else {
                State::DataCr
            };
        }
    }

    /// One byte outside of data: the state after it.
    fn framing_byte(&mut self, c: u8) -> Result<State, ErrorKind> {
        match self.state {
            State::Size => match (hex(c), c) {
                (Some(digit), _) => {
                    // 15 digits keep sums of sizes far from overflow; longer numbers are attacks, zeros included
                    if self.count >= CHUNK_DIGITS_MAX {
                        return Err(ErrorKind::ChunkSize);
                    }
                    self.count += 1;
                    self.left = self.left << 4 | u64::from(digit);
                    Ok(State::Size)
                }
                _ if self.count == 0 => Err(ErrorKind::ChunkSize),
                (_, b'\r') => Ok(State::SizeLf),
                (_, b';') => Ok(self.begin_extension()),
                // servers are known to pad sizes with blanks; clients that do are up to something
                (_, b' ' | b'\t') if self.from_server => {
                    self.count = 0;
                    Ok(State::SizeBlank)
                }
                (_, _) => Err(ErrorKind::ChunkSize),
            },
            State::SizeBlank => match c {
                b' ' | b'\t' if self.count < EXTENSION_BYTES_MAX => {
                    self.count += 1;
                    Ok(State::SizeBlank)
                }
                b'\r' => Ok(State::SizeLf),
                b';' => Ok(self.begin_extension()),
                _ => Err(ErrorKind::ChunkSize),
            },
            State::Extension => match c {
                b'\r' => Ok(State::SizeLf),
                c if is_ctl(c) || self.count >= EXTENSION_BYTES_MAX => {
                    Err(ErrorKind::ChunkExtension)
                }
                _ => {
                    self.count += 1;
                    Ok(State::Extension)
                }
            },
            State::SizeLf if c == b'\n' => {
                self.count = 0;
                Ok(if self.left == 0 {
                    State::TrailerStart
                } else {
                    State::ChunkData
                })
            }
            State::SizeLf => Err(ErrorKind::BareCr),
            State::DataCr if c == b'\r' => Ok(State::DataLf),
            State::DataLf if c == b'\n' => {
                self.left = 0;
                self.count = 0;
                Ok(State::Size)
            }
            State::DataCr | State::DataLf => Err(ErrorKind::ChunkEnd),
            State::EndLf if c == b'\n' => Ok(State::Done),
            State::EndLf => Err(ErrorKind::BareCr),
            _ => self.trailer_byte(c),
        }
    }

    fn begin_extension(&mut self) -> State {
        self.count = 0;
        State::Extension
    }

    fn trailer_byte(&mut self, c: u8) -> Result<State, ErrorKind> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(ErrorKind::TrailersTooLarge);
        }
        match (self.state, c) {
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart, c) if is_token_char(c) => {
                self.name = TrailerName::default();
                self.name.push(c);
                Ok(State::TrailerName)
            }
            (State::TrailerName, c) if is_token_char(c) => {
                self.name.push(c);
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') if self.name.is_forbidden() => {
                Err(ErrorKind::TrailerForbidden)
            }
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, c) if !is_ctl(c) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::TrailerLf, _) => Err(ErrorKind::BareCr),
            _ => Err(ErrorKind::Trailer),
        }
    }
}

/// The start of a trailer's name, lower case: enough to compare it with those that are forbidden.
#[derive(Clone, Copy, Debug, Default)]
struct TrailerName {
    text: [u8; 20],
    len: u8,
}

impl TrailerName {
    fn push(&mut self, c: u8) {
        if let Some(slot) = self.text.get_mut(usize::from(self.len)) {
            *slot = c.to_ascii_lowercase();
        }
        self.len = self.len.saturating_add(1);
    }

    /// Fields that say how to frame, route, or authorize a message: a recipient that merged them into the head would
    /// be fooled. (RFC 9110 section 6.5.1)
    fn is_forbidden(&self) -> bool {
        let Some(name) = self.text.get(..usize::from(self.len)) else {
            return false;
        };
        const FORBIDDEN: &[&[u8]] = &[
            b"authorization",
            b"connection",
            b"content-encoding",
            b"content-length",
            b"content-range",
            b"content-type",
            b"cookie",
            b"expect",
            b"host",
            b"keep-alive",
            b"max-forwards",
            b"proxy-authenticate",
            b"proxy-authorization",
            b"proxy-connection",
            b"set-cookie",
            b"te",
            b"trailer",
            b"transfer-encoding",
            b"upgrade",
            b"www-authenticate",
        ];
        FORBIDDEN.contains(&name)
    }
}

fn hex(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        b'A'..=b'F' => Some(c - b'A' + 10),
        _ => None,
    }
}

/// Digits of a chunk size, leading zeros included.
const CHUNK_DIGITS_MAX: u32 = 15;
/// Bytes of the extension (or padding) of one chunk.
const EXTENSION_BYTES_MAX: u32 = 256;
/// Bytes of all trailers of a body.
const TRAILER_BYTES_MAX: u32 = 8192;
