//! The frames, and their encoding: one byte of magic, two of version, then bincode. The only place that knows bincode.
//!
//! Builds with the same [`VERSION`] understand each other. What may be added with a new [`MINOR`]: frames at the end of
//! [`Frame`] and [`Pass`], which older builds skip; and fields at the end of a frame, which older builds leave unread, and
//! which read as zero, empty or `None` when they come from one. Everything else needs a new [`VERSION`].

use std::io;
use std::net::SocketAddr;

use bincode::error::DecodeError;
use bincode::{Decode, Encode};

pub mod tables;

use tables::Pass;

/// Version of the frames of this build. Both sides say theirs in [`Hello`] and the lower one is spoken; a build speaks
/// every version from [`VERSION_MIN`] on.
pub const VERSION: u8 = 1;
/// The oldest version this build understands.
pub const VERSION_MIN: u8 = 1;
/// Additions to [`VERSION`] that this build knows: 1 = `Begin.guarded`; 2 = [`Frame::TeachAgain`], [`Frame::LearnAgain`],
/// [`Frame::Cut`], `Begin.hard`, `Tables.seeds`, `Tables.entries`, [`Pass::Accepting`], [`Pass::Quiet`]; 3 = `Tables.shared_as`;
/// 4 = `Tables.sizes`; 5 = `Known.lacks`, `Known.crowded`, [`Frame::Closed`]; 6 = `Rows.stripe`; 7 = `Drain.alone`,
/// [`Frame::Back`]; 8 = [`Pass::Found`]; 9 = `Begin.asks`, `Settings.untaught`, [`Frame::Opens`], [`Frame::Open`].
pub const MINOR: u8 = 9;
/// No frame is longer, encoded.
pub const FRAME_MAX: usize = 64 * 1024;
/// Descriptors in one frame (the kernel's limit for one message).
pub const DESCRIPTORS_MAX: usize = 253;

/// Nothing packed is longer.
const PACKED_MAX: usize = 64 * 1024 * 1024;
const MAGIC: u8 = b'R';
/// Number of [`Frame::Hello`].
const HELLO: u8 = 0;
/// Text in a frame is cut after so many bytes.
const TEXT_MAX: usize = 16 * 1024;

/// What two processes say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Frame {
    /// The first frame of either side.
    Hello(Hello),
    /// Listening sockets; as many descriptors come with it. May be repeated.
    Listeners(Vec<ListenerInfo>),
    /// To a new worker: these were all listeners, start. Nothing is accepted before [`Frame::Go`].
    Begin(Begin),
    /// From a worker that starts: a message, as it was written to standard error.
    Said(String),
    /// From a worker that starts: what its configuration was read from. May be repeated.
    Files(Vec<SeenFile>),
    /// From a new worker, after its listeners: everything is there, nothing is accepted yet.
    Ready(Settings),
    /// To a worker: accept.
    Go,
    /// From a worker: it accepts.
    Serving,
    /// Stop accepting, but keep all sockets. Between unrelated processes a channel comes with it, as with [`Frame::Kin`].
    Hold,
    /// Nothing is accepted any more.
    Held,
    /// Accept again: nobody took over.
    Resume,
    /// Others accept now: close the listening sockets, finish what runs, exit.
    Drain {
        /// [`ListenerInfo::id`] of those that nobody took over: what waits in their queues is still served.
        orphans: Vec<u64>,
        /// From a process of somebody else that takes over: it has no supervisor, so nobody replaces it if it dies.
        alone: bool,
    },
    /// To a worker: serve the CLI connection that comes with it, with rights 0 user, 1 operator, 2 admin.
    Console {
        /// The rights.
        level: u8,
    },
    /// From a worker: another process, not one of this supervisor's, wants to take over and is ready to. It can be told so
    /// ([`Frame::Yours`]) over the channel that comes with it; the supervisor decides.
    Left {
        /// As in [`Frame::Drain`].
        orphans: Vec<u64>,
    },
    /// To a process that offers its sockets: send them (it answers with its listeners and `Begin`), and show your tables
    /// over the channel that comes with it.
    Take,
    /// To the worker that serves: show your tables over the channel that comes with it.
    Teach,
    /// To a new worker, before [`Frame::Begin`]: learn the tables over the channel that comes with it.
    Learn,
    /// To a worker that drains: tell what you count over the channel that comes with it, no longer over the one before.
    Heir,
    /// To the worker that serves: one that drains tells what it counts over the channel that comes with it.
    Child,
    /// Between workers.
    Pass(Box<Pass>),
    /// From a supervisor to itself across the execution of a new program: the first descriptor is a file that holds its
    /// state, the others belong to that.
    State,
    /// From a process that offers its sockets: it will not give them, and goes on.
    Sorry(String),
    /// From a process that offered its sockets, the answer to [`Frame::Drain`]: it does not come back.
    Yours,
    /// To whoever takes over, and from there to its supervisor: over the channel that comes with it, a process that drains
    /// can be told who serves ([`Frame::Heir`]). To a worker that drains: such a channel's other end.
    Kin,
    /// From a worker to its supervisor: it takes over from somebody else's process. With the first comes a channel as with
    /// [`Frame::Kin`] to that process.
    Taking {
        /// That one does not come back.
        sure: bool,
    },
    /// From a supervisor to its worker: that other process has taken over. As [`Frame::Drain`], but this is the end of the
    /// supervisor's service, too.
    Retire {
        /// As in [`Frame::Drain`].
        orphans: Vec<u64>,
    },
    /// To the worker that serves: what has become of reloads.
    Reloads(Reloads),
    /// To a worker that drains, also over the channel of [`Frame::Kin`]: the process that took over has died. Show your tables
    /// once more, over the channel that comes with it, to the one in its place.
    TeachAgain,
    /// To a new worker, before [`Frame::Begin`]: the one before has died; learn the tables of the one that handed over to
    /// it, over the channel that comes with it. The beginning is a new life all the same.
    LearnAgain,
    /// To a worker that has been told to drain: do not wait for what runs.
    Cut,
    /// From a worker that drains: it has closed the listening sockets that nobody took over.
    Closed,
    /// From a worker, in answer to [`Frame::Retire`], after its listeners: the other process has ended before it accepted, and
    /// nobody replaces it. This one serves on.
    Back,
    /// From a worker that was told to go, once: it has all that it needs, and accepts when it is answered with [`Frame::Open`].
    Opens,
    /// To that worker: accept. From here on it is not given up for being late, since it may have served already.
    Open,
}

/// What a supervisor knows of its reloads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Reloads {
    /// How many succeeded.
    pub done: u32,
    /// How many failed, and changed nothing.
    pub failed: u32,
    /// The last one failed, for this reason.
    pub fault: Option<String>,
    /// How long the last one took, in milliseconds; none yet: 0.
    pub took_ms: u32,
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Versions of the frames that it understands.
    pub version_min: u8,
    /// See `version_min`.
    pub version_max: u8,
    /// Versions of a supervisor's state that it can take over.
    pub state_min: u8,
    /// See `state_min`.
    pub state_max: u8,
    /// The program's version.
    pub program: String,
    /// Its process id.
    pub pid: u32,
}

/// What a new worker is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Begin {
    /// Let go of the terminal's output when told to accept.
    pub detach: bool,
    /// No worker of this supervisor has served yet: `-x`, `-sf` and `-st` are for this one.
    pub first: bool,
    /// From a process that offers its sockets: somebody will replace it if it dies.
    pub guarded: bool,
    /// The worker that serves is to go in any case, even if it does not show its tables.
    pub hard: bool,
    /// The worker is to say [`Frame::Opens`], and to wait for the answer, before it accepts for the first time.
    pub asks: bool,
}

/// A file that was read, or looked for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SeenFile {
    /// Absolute.
    pub path: String,
    /// Hash of what was there; 0 for nothing.
    pub content: u64,
}

/// What a supervisor needs to know of its worker's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Settings {
    /// `mworker-max-reloads`
    pub max_reloads: u32,
    /// Whoever was to show its tables ([`Frame::LearnAgain`]) did not: it does not know this process.
    pub untaught: bool,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListenerInfo {
    /// The same for all sockets of one `bind` address; kept when another process takes them over.
    pub id: u64,
    /// What it is for.
    pub purpose: Purpose,
    /// Where it listens, as the configuration asked for it (port 0 stays 0).
    pub at: Where,
}

/// What a listening socket is for. Only a socket of the same purpose fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Purpose {
    /// `bind`
    Bind,
    /// `stats socket`
    Console,
    /// `bind` of a `peers` section.
    Peers,
    /// `admin bind`
    Admin,
    /// `handoff`
    HandOff,
}

/// Where a socket listens, and those of its options that cannot be changed afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Where {
    /// A TCP address.
    Inet {
        /// As configured.
        address: SocketAddr,
        /// `IPV6_V6ONLY`, if the configuration says something about it.
        v6only: Option<bool>,
    },
    /// A path.
    Unix {
        /// As configured.
        path: String,
        /// Device and inode of the path after binding: it may have been removed or replaced since.
        file: (u64, u64),
        /// `mode`, `uid`, `gid`.
        rights: (Option<u32>, Option<u32>, Option<u32>),
    },
    /// Inherited with this number.
    Fd(i32),
}

impl Frame {
    /// This process's introduction.
    pub fn hello() -> Frame {
        Frame::Hello(Hello {
            version_min: VERSION_MIN,
            version_max: VERSION,
            state_min: crate::supervisor::STATE_VERSION_MIN,
            state_max: crate::supervisor::STATE_VERSION,
            program: crate::VERSION.into(),
            pid: std::process::id(),
        })
    }

    /// A message of a worker, cut to what a frame can hold.
    pub fn said(text: &str) -> Frame {
        Frame::Said(cut(text))
    }

    /// What has become of reloads; the reason is cut to what a frame can hold.
    pub fn reloads(reloads: &Reloads) -> Frame {
        Frame::Reloads(Reloads {
            fault: reloads.fault.as_deref().map(cut),
            ..reloads.clone()
        })
    }

    /// The bytes of it.
    ///
    /// # Errors
    /// It is longer than [`FRAME_MAX`].
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![MAGIC, VERSION, MINOR];
        bincode::encode_into_std_write(self, &mut bytes, bincode::config::standard())
            .map_err(io::Error::other)?;
        if bytes.len() > FRAME_MAX {
            return Err(io::Error::other("the frame is too long"));
        }
        Ok(bytes)
    }

    /// Reads what [`Frame::encode`] wrote, here or in another build. `None`: a frame that only newer builds know.
    ///
    /// # Errors
    /// The bytes are no frame of a version that is understood here.
    pub fn decode(bytes: &[u8]) -> io::Result<Option<Frame>> {
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        match bytes {
            [MAGIC, VERSION_MIN..=VERSION, minor, rest @ ..] => {
                let padded;
                let body = if *minor < MINOR {
                    padded = [rest, &[0; PADDING]].concat();
                    &padded
                } else {
                    rest
                };
                let limits = bincode::config::standard().with_limit::<FRAME_MAX>();
                match bincode::decode_from_slice(body, limits) {
                    Ok((frame, used)) if used == rest.len() || *minor != MINOR => Ok(Some(frame)),
                    Ok(_) => Err(wrong("bytes are left over after the frame".into())),
                    Err(DecodeError::UnexpectedVariant { type_name, .. })
                        if *minor > MINOR && is_frame(type_name) =>
                    {
                        Ok(None)
                    }
                    Err(e) => Err(wrong(format!("not a frame: {e}"))),
                }
            }
            // Whatever else a newer build says, both introduce themselves alike: so they find out what they have in common.
            [MAGIC, version, _, rest @ ..]
                if *version > VERSION && rest.first() == Some(&HELLO) =>
            {
                let limits = bincode::config::standard().with_limit::<FRAME_MAX>();
                let hello = bincode::decode_from_slice(rest, limits);
                hello
                    .map(|(frame, _)| Some(frame))
                    .map_err(|e| wrong(format!("not a frame: {e}")))
            }
            [MAGIC, version, ..] => Err(wrong(format!(
                "the other process speaks version {version} of the hand-off, this one {VERSION_MIN} to {VERSION}"
            ))),
            _ => Err(wrong("the other process is not Remora".into())),
        }
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// Unknown variants of anything else are not additions that may be skipped.
fn is_frame(type_name: &str) -> bool {
    type_name == "Frame" || type_name == "Pass"
}

/// Fields that an older build does not know are at most so long when they are zero.
const PADDING: usize = 32;

/// The bytes of something that no frame carries.
///
/// # Errors
/// None that is known.
pub fn pack<T: Encode>(value: &T) -> io::Result<Vec<u8>> {
    bincode::encode_to_vec(value, bincode::config::standard()).map_err(io::Error::other)
}

/// Reads what [`pack`] wrote.
///
/// # Errors
/// It is something else.
pub fn unpack<T: Decode<()>>(bytes: &[u8]) -> io::Result<T> {
    let limits = bincode::config::standard().with_limit::<PACKED_MAX>();
    match bincode::decode_from_slice(bytes, limits) {
        Ok((value, _)) => Ok(value),
        Err(e) => Err(io::Error::new(io::ErrorKind::InvalidData, e)),
    }
}

impl Hello {
    /// Whether both sides have a version in common.
    ///
    /// # Errors
    /// They have none; the text says which versions there are.
    pub fn agree(&self) -> Result<u8, String> {
        let common = self.version_max.min(VERSION);
        if common >= self.version_min.max(VERSION_MIN) {
            return Ok(common);
        }
        Err(format!(
            "process {} (version {}) speaks versions {} to {} of the hand-off, this one {VERSION_MIN} to {VERSION}",
            self.pid, self.program, self.version_min, self.version_max
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_their_encoding() {
        let info = ListenerInfo {
            id: 7,
            purpose: Purpose::Bind,
            at: Where::Inet {
                address: "[::1]:80".parse().unwrap(),
                v6only: Some(true),
            },
        };
        for frame in [
            Frame::hello(),
            Frame::Listeners(vec![info]),
            Frame::said("text"),
            Frame::Drain {
                orphans: vec![1, 2],
                alone: true,
            },
        ] {
            assert_eq!(
                Frame::decode(&frame.encode().unwrap()).unwrap(),
                Some(frame)
            );
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let good = Frame::Go.encode().unwrap();
        let mut newer = good.clone();
        newer[1] = VERSION + 1;
        let mut longer = good.clone();
        longer.push(0);
        for (bytes, why) in [
            (&b""[..], "not Remora"),
            (b"GET / HTTP/1.1", "not Remora"),
            (&newer, "speaks version"),
            (&longer, "left over"),
            (b"R\x01\x01\xfa", "not a frame"),
            // A length far beyond what is there or allowed.
            (b"R\x01\x01\x03\xfc\xff\xff\xff\xff", "not a frame"),
        ] {
            let error = Frame::decode(bytes).unwrap_err().to_string();
            assert!(error.contains(why), "{bytes:?}: {error}");
        }
        assert!(Frame::Said("x".repeat(FRAME_MAX)).encode().is_err());
    }

    /// Whatever a stranger sends, it is refused or it is a frame; what is a frame can be sent again.
    #[test]
    fn damaged_frames_are_refused_or_read() {
        use rand::{RngExt as _, SeedableRng as _};
        let listeners = ["[::1]:80", "127.0.0.1:8080"].map(|address| ListenerInfo {
            id: 7,
            purpose: Purpose::Console,
            at: Where::Inet {
                address: address.parse().unwrap(),
                v6only: Some(true),
            },
        });
        let unix = ListenerInfo {
            at: Where::Unix {
                path: "/run/remora.sock".into(),
                file: (1, u64::MAX),
                rights: (Some(0o600), None, Some(7)),
            },
            ..listeners[0].clone()
        };
        let frames = [
            Frame::hello(),
            Frame::Listeners(listeners.into_iter().chain([unix]).collect()),
            Frame::said("text"),
            Frame::Begin(Begin::default()),
            Frame::Drain {
                orphans: vec![1, 2, u64::MAX],
                alone: true,
            },
        ];
        let mut rng = rand::rngs::SmallRng::seed_from_u64(1);
        for round in 0..20_000 {
            let mut bytes = frames[round % frames.len()].encode().unwrap();
            for _ in 0..rng.random_range(1..5) {
                let at = rng.random_range(0..bytes.len() + 1);
                match rng.random_range(0..4) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, rng.random()),
                    2 => bytes.extend_from_within(..at),
                    _ if at < bytes.len() => bytes[at] = rng.random(),
                    _ => {}
                }
            }
            if let Ok(Some(frame)) = Frame::decode(&bytes) {
                assert_eq!(
                    Frame::decode(&frame.encode().unwrap()).unwrap(),
                    Some(frame)
                );
            }
        }
    }

    #[test]
    fn other_minor_versions_are_understood() {
        let begin = Frame::Begin(Begin {
            first: true,
            ..Begin::default()
        });
        let good = begin.encode().unwrap();
        // From a build that knows one field less.
        let mut older = good.clone();
        older[2] = MINOR - 1;
        older.pop();
        assert_eq!(Frame::decode(&older).unwrap(), Some(begin.clone()));
        // From one that knows more.
        let mut newer = good;
        newer[2] = MINOR + 1;
        newer.extend([7, 7, 7]);
        assert_eq!(Frame::decode(&newer).unwrap(), Some(begin));
        let mut later = Frame::hello().encode().unwrap();
        later[1] = VERSION + 1;
        later.push(9);
        assert_eq!(Frame::decode(&later).unwrap(), Some(Frame::hello()));
        for unknown in [&[200][..], &[19, 200]] {
            let bytes = [&[MAGIC, VERSION, MINOR + 1], unknown].concat();
            assert_eq!(Frame::decode(&bytes).unwrap(), None);
            let same = [&[MAGIC, VERSION, MINOR], unknown].concat();
            assert!(Frame::decode(&same).is_err(), "nobody says that");
        }
    }

    /// Builds that are upgraded in place rely on it: each frame keeps its number, and new ones go to the end.
    #[test]
    fn frames_keep_their_numbers() {
        let hello = Frame::hello();
        let pass = Frame::Pass(Box::new(Pass::Ask));
        let retire = Frame::Retire {
            orphans: Vec::new(),
        };
        for (frame, bytes) in [
            (hello, &[0][..]),
            (Frame::Begin(Begin::default()), &[2, 0, 0, 0]),
            (Frame::Hold, &[8]),
            (
                Frame::Drain {
                    orphans: vec![],
                    alone: false,
                },
                &[11, 0, 0],
            ),
            (Frame::Take, &[14]),
            (pass, &[19, 0]),
            (Frame::Yours, &[22]),
            (retire, &[25, 0]),
        ] {
            let encoded = frame.encode().unwrap();
            assert_eq!(encoded[..3], [MAGIC, VERSION, MINOR]);
            assert!(encoded[3..].starts_with(bytes), "{frame:?}: {encoded:?}");
        }
        for (pass, number) in [
            (Pass::Ask, 0),
            (Pass::Walked, 3),
            (Pass::Sealed { held_ms: 0 }, 10),
            (Pass::Released, 11),
            (Pass::Heard { seq: None }, 13),
            (Pass::Ack { seq: 0 }, 15),
            (Pass::Drained, 16),
            (Pass::Accepting, 17),
            (Pass::Found(tables::Found::default()), 19),
        ] {
            let encoded = Frame::Pass(Box::new(pass)).encode().unwrap();
            assert_eq!(encoded[3..5], [19, number]);
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let Frame::Said(text) = Frame::said(&"ä".repeat(TEXT_MAX)) else {
            panic!("a message");
        };
        assert_eq!(text.len(), TEXT_MAX);
        assert!(
            Frame::said(&format!("x{}", "ä".repeat(TEXT_MAX)))
                .encode()
                .is_ok()
        );
    }

    #[test]
    fn versions_must_overlap() {
        let Frame::Hello(mut hello) = Frame::hello() else {
            panic!("a hello");
        };
        assert_eq!(hello.agree(), Ok(VERSION));
        hello.version_max = VERSION + 3;
        assert_eq!(hello.agree(), Ok(VERSION));
        hello.version_min = VERSION + 1;
        assert!(hello.agree().is_err());
    }
}
