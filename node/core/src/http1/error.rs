//! Why a message was refused: kind, place, and whose message it was.

use std::fmt;

/// Why a head or body was refused. `status()` is what the client gets (400, 408 never, 431, 414, 501, 505) or 502 when
/// a server sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError {
    pub(crate) kind: ErrorKind,
    pub(crate) offset: u64,
    pub(crate) from_server: bool,
}

impl ParseError {
    /// What was wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Where: bytes from the start of the head (empty lines before it included) or, for body errors, from the start of
    /// the body as it was received.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The server broke the rules, not the client.
    pub fn is_from_server(&self) -> bool {
        self.from_server
    }

    /// The status to answer the client with.
    pub fn status(&self) -> u16 {
        if self.from_server {
            502
        } else {
            self.kind.status()
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.from_server {
            "response"
        } else {
            "request"
        };
        write!(f, "{who}: {} at byte {}", self.kind.text(), self.offset)
    }
}

impl std::error::Error for ParseError {}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident $status:literal $text:literal),+ $(,)?) => {
        /// What was wrong with a message. One list: name, status for the client, text for logs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ErrorKind { $($(#[$doc])* $name),+ }

        impl ErrorKind {
            /// All kinds, in order of declaration (for counters: `kind as usize` is the index).
            pub const ALL: &'static [ErrorKind] = &[$(ErrorKind::$name),+];

            /// Status a client gets for sending this.
            pub fn status(self) -> u16 {
                match self { $(ErrorKind::$name => $status),+ }
            }

            /// Short English description, without the place.
            pub fn text(self) -> &'static str {
                match self { $(ErrorKind::$name => $text),+ }
            }
        }
    };
}

kinds! {
    /// CR that is not followed by LF.
    BareCr 400 "carriage return without line feed",
    /// LF that is not preceded by CR.
    BareLf 400 "line feed without carriage return",
    /// NUL or another control character.
    ControlCharacter 400 "control character",
    /// More empty lines before the start line than tolerated.
    LeadingEmptyLines 400 "too many empty lines before the message",
    /// Start line without its three parts, or with blanks of the wrong number or kind.
    StartLine 400 "malformed start line",
    /// Method that is no token.
    Method 400 "malformed method",
    /// Character that may not occur in a request target, or a form that does not go with the method.
    Target 400 "malformed request target",
    /// Status that is not three digits from 100 on.
    Status 400 "malformed status code",
    /// Something else than HTTP/1.0 or HTTP/1.1.
    Version 505 "unsupported HTTP version",
    /// Header line without a colon.
    NoColon 400 "header line without colon",
    /// Header line that starts with a colon.
    EmptyName 400 "empty header name",
    /// Character that may not occur in a header name.
    HeaderName 400 "invalid character in header name",
    /// Blank between header name and colon.
    BlankBeforeColon 400 "blank before colon",
    /// Header value continued on the next line.
    ObsFold 400 "folded header line",
    /// HTTP/1.1 request without `Host`.
    HostMissing 400 "missing Host",
    /// More than one `Host`.
    HostRepeated 400 "repeated Host",
    /// `Host` that is no host with an optional port.
    HostInvalid 400 "malformed Host",
    /// `Host` differs from the authority in the request target.
    HostMismatch 400 "Host differs from request target",
    /// `Content-Length` that is not just digits, or too great.
    ContentLength 400 "malformed Content-Length",
    /// More than one `Content-Length`, equal or not.
    ContentLengthRepeated 400 "repeated Content-Length",
    /// `Content-Length` beside `Transfer-Encoding`.
    LengthAndEncoding 400 "Content-Length with Transfer-Encoding",
    /// `Transfer-Encoding` that does not end in `chunked` or is malformed or repeated.
    TransferEncoding 400 "malformed Transfer-Encoding",
    /// `Transfer-Encoding` with codings before a final `chunked`.
    TransferCoding 501 "unsupported transfer coding",
    /// `Transfer-Encoding` in an HTTP/1.0 message.
    EncodingIn10 400 "Transfer-Encoding in HTTP/1.0",
    /// `Connection` with more options than anyone needs.
    ConnectionOptions 400 "too many connection options",
    /// `CONNECT` with a body.
    ConnectBody 400 "CONNECT with a body",
    /// The head exceeds its limit.
    HeadTooLarge 431 "header too large",
    /// The start line exceeds the limit of the head.
    TargetTooLong 414 "request target too long",
    /// More header lines than allowed.
    TooManyHeaders 431 "too many header lines",
    /// Server switched protocols without having been asked to.
    UnexpectedSwitch 400 "unexpected protocol switch",
    /// Chunk size without digits, with other characters, or too long.
    ChunkSize 400 "malformed chunk size",
    /// Chunk extension with control characters, or too long.
    ChunkExtension 400 "malformed chunk extension",
    /// Chunk data not followed by CR LF.
    ChunkEnd 400 "chunk without line end",
    /// Malformed trailer line.
    Trailer 400 "malformed trailer",
    /// Trailer field that would change framing, routing or authentication.
    TrailerForbidden 400 "forbidden trailer field",
    /// Trailers exceed their limit.
    TrailersTooLarge 431 "trailers too large",
}
