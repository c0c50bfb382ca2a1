//! The command line: HAProxy's options, which are words of one dash and several letters (`-db`, `-cc`), so no common
//! parser fits. Options that HAProxy has and this release does not are refused by name.

use std::ffi::OsString;
use std::fmt;

use crate::probe::Question;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `--help`
    Help,
    /// `-v`, `-vv`
    Version {
        /// `-vv`
        details: bool,
    },
    /// `-cc 'COND'`
    Condition(String),
    /// `--probe ready|live [PATH]`
    Probe(Probe),
    /// `--handoff-dir DIR USER[:GROUP]`: make a directory for `handoff`, for that user.
    HandoffDir {
        /// The directory.
        path: String,
        /// Its user's number.
        user: u32,
        /// Its group's number; as the user's if none is given.
        group: u32,
    },
    /// Everything else: check or run.
    Run(Args),
}

/// A question to a running process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub question: Question,
    /// The UNIX socket of its admin endpoint; `None`: the first one that the configuration names.
    pub path: Option<String>,
    /// `-f`, `-C` and `-L`, as of a run.
    pub args: Args,
}

/// Options of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// `-f`: files and directories, in order.
    pub configs: Vec<String>,
    /// `-c`: only check.
    pub check: bool,
    /// `-V`
    pub verbose: bool,
    /// `-q`
    pub quiet: bool,
    /// `-d` or `-db`: stay in the foreground whatever the configuration says.
    pub foreground: bool,
    /// `-d`: debug messages too.
    pub debug: bool,
    /// `-D`
    pub daemon: bool,
    /// This process is the detached half of `-D`: standard input is the pipe on which it reports that it is ready.
    pub detached: bool,
    /// `-W`, `-Ws`: a supervisor with workers.
    pub supervise: bool,
    /// `-Ws`: tell systemd.
    pub notify: bool,
    /// `-S`: addresses of the master CLI, with their options.
    pub master_sockets: Vec<String>,
    /// `-sf`: processes that finish once this one accepts.
    pub finish: Vec<i32>,
    /// `-st`: processes that end once this one accepts.
    pub terminate: Vec<i32>,
    /// `-x`: the `handoff` socket of the process to take over from.
    pub take_from: Option<String>,
    /// `--watch`: reload when the configuration changes.
    pub watch: bool,
    /// This process is a supervisor's worker: standard input is the channel between them.
    pub worker: bool,
    /// This process is a supervisor that has just executed a new program: standard input holds what it knew.
    pub resumed: bool,
    /// `-L`
    pub localpeer: Option<String>,
    /// `-n`
    pub maxconn: Option<u32>,
    /// `-p`
    pub pidfile: Option<String>,
    /// `-C`
    pub chdir: Option<String>,
    /// `-dW`
    pub warnings_are_fatal: bool,
    /// `-dr`
    pub ignore_unresolved: bool,
}

/// A command line that cannot be followed: the culprit and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// [`Usage`] names the first argument that makes no sense.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Usage> {
    let mut rest = Vec::new();
    for arg in args {
        let text = arg
            .into_string()
            .map_err(|bad| Usage(format!("argument {bad:?} is not valid UTF-8.")))?;
        rest.push(text);
    }
    let mut rest = rest.into_iter().peekable();
    let mut run = Args::default();
    let mut probe = None;
    let mut probed = None;
    while let Some(arg) = rest.next() {
        let mut value = |what: &str| {
            rest.next()
                .filter(|v| !v.is_empty())
                .ok_or_else(|| Usage(format!("'{arg}' needs {what} behind it.")))
        };
        match arg.as_str() {
            "-h" | "--help" | "-help" => return Ok(Command::Help),
            "-v" | "--version" => return Ok(Command::Version { details: false }),
            "-vv" => return Ok(Command::Version { details: true }),
            "-cc" => {
                // An empty condition is a legal one: it is false.
                return rest
                    .next()
                    .map(Command::Condition)
                    .ok_or_else(|| Usage("'-cc' needs a condition behind it.".into()));
            }
            "--probe" => {
                probe = Some(match value("'ready' or 'live'")?.as_str() {
                    "ready" => Question::Ready,
                    "live" => Question::Live,
                    other => {
                        return Err(Usage(format!(
                            "'--probe' wants 'ready' or 'live', not '{other}'."
                        )));
                    }
                });
            }
            "--handoff-dir" => {
                let path = value("a directory, and a user's number")?;
                let owner = rest.next().unwrap_or_default();
                let (user, group) = owner.split_once(':').unwrap_or((&owner, &owner));
                let (Ok(user), Ok(group)) = (user.parse(), group.parse()) else {
                    return Err(Usage(format!(
                        "'--handoff-dir' wants a directory and USER[:GROUP] as numbers, not '{owner}'."
                    )));
                };
                return match rest.next() {
                    Some(more) => Err(refuse(&more)),
                    None => Ok(Command::HandoffDir { path, user, group }),
                };
            }
            path if probe.is_some() && probed.is_none() && !path.starts_with('-') => {
                probed = Some(path.strip_prefix("unix@").unwrap_or(path).to_owned());
            }
            "-f" => run.configs.push(value("a file or a directory")?),
            "--" => run.configs.extend(rest.by_ref()),
            "-c" => run.check = true,
            "-V" => {
                run.verbose = true;
                run.quiet = false;
            }
            "-q" => run.quiet = true,
            "-d" => {
                run.debug = true;
                run.foreground = true;
            }
            "-db" => run.foreground = true,
            "-D" => run.daemon = true,
            "-W" => run.supervise = true,
            "-Ws" => {
                run.supervise = true;
                run.notify = true;
            }
            "-S" => run
                .master_sockets
                .push(value("an address for the master CLI")?),
            "-x" => run.take_from = Some(value("the path of a 'handoff' socket")?),
            "-sf" | "-st" => {
                let list = if arg == "-sf" {
                    &mut run.finish
                } else {
                    &mut run.terminate
                };
                // None at all is fine: `-sf $(cat pidfile)` at the first start. What is no number ends the list.
                while let Some(pid) = rest.peek().and_then(|next| next.parse::<i32>().ok()) {
                    if pid <= 0 {
                        return Err(Usage(format!("'{arg}' wants process ids, not '{pid}'.")));
                    }
                    list.push(pid);
                    rest.next();
                }
            }
            "--watch" => run.watch = true,
            DETACHED => run.detached = true,
            WORKER => run.worker = true,
            RESUMED => run.resumed = true,
            "-L" => run.localpeer = Some(value("the name of this node")?),
            "-n" => {
                let text = value("a number of connections")?;
                let n = text.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
                    Usage(format!(
                        "'-n' wants a number of connections from 1 to {}, not '{text}'.",
                        u32::MAX
                    ))
                })?;
                run.maxconn = Some(n);
            }
            "-p" => run.pidfile = Some(value("a file name")?),
            "-C" => run.chdir = Some(value("a directory")?),
            "-dW" => run.warnings_are_fatal = true,
            "-dr" => run.ignore_unresolved = true,
            // There is nothing to allow: Remora starts no programs.
            "-dI" => {}
            // `-dM`, `-dM50`, `-dMno-merge`: what it would reveal, reading memory that was never written, is
            // excluded by the compiler, as the program holds no unsafe code.
            memory if memory.starts_with("-dM") => {}
            other => return Err(refuse(other)),
        }
    }
    if let Some(question) = probe {
        if probed.is_none() && run.configs.is_empty() {
            return Err(Usage(
                "'--probe' needs the path of the socket to ask, or a configuration that names one ('-f FILE').".into(),
            ));
        }
        return Ok(Command::Probe(Probe {
            question,
            path: probed,
            args: run,
        }));
    }
    if run.configs.is_empty() {
        return Err(Usage(
            "no configuration: name one with '-f FILE', for example 'remora -f docs/examples/throttle.cfg'.".into(),
        ));
    }
    Ok(Command::Run(run))
}

/// Marks the detached half of `-D`; see [`Args::detached`].
pub const DETACHED: &str = "--detached";

/// Marks a worker; see [`Args::worker`].
pub const WORKER: &str = "--worker";
/// Marks a supervisor after it has executed a new program; see [`Args::resumed`].
pub const RESUMED: &str = "--resumed";

/// What to say about an argument that is not an option of ours.
fn refuse(arg: &str) -> Usage {
    let option = HAPROXY_ONLY
        .iter()
        .filter(|(name, exact, _)| {
            if *exact {
                arg == *name
            } else {
                arg.starts_with(name)
            }
        })
        .max_by_key(|(name, ..)| name.len());
    Usage(match option {
        Some((name, _, what)) => format!(
            "'{}' ({what}) is a HAProxy option that Remora does not support.",
            if arg.starts_with("-dK") || arg.len() < 8 {
                arg
            } else {
                name
            }
        ),
        None if arg.starts_with('-') => match nearest(arg) {
            Some(near) => {
                format!("unknown option '{arg}'; did you mean '{near}'? See 'remora --help'.")
            }
            None => format!("unknown option '{arg}'. See 'remora --help'."),
        },
        None => format!(
            "'{arg}' is not an option; if it is a configuration file, write '-f {arg}' (or put '--' before it)."
        ),
    })
}

fn nearest(arg: &str) -> Option<&'static str> {
    let known = [
        "-f",
        "-c",
        "-V",
        "-v",
        "-vv",
        "-q",
        "-d",
        "-db",
        "-D",
        "-W",
        "-Ws",
        "-S",
        "-x",
        "-sf",
        "-st",
        "--watch",
        "-L",
        "-n",
        "-p",
        "-C",
        "-dW",
        "-dM",
        "-dI",
        "-dr",
        "-cc",
        "--probe",
        "--handoff-dir",
        "--help",
        "--version",
    ];
    known.into_iter().find(|k| {
        k.eq_ignore_ascii_case(arg)
            || arg.trim_start_matches('-') == k.trim_start_matches('-')
            || (arg.starts_with("--") && k.len() > 3 && k.starts_with(arg))
    })
}

/// Options of HAProxy that this release refuses: name, whether it stands alone (else more letters may follow), meaning.
const HAPROXY_ONLY: &[(&str, bool, &str)] = &[
    ("-m", true, "memory limit"),
    ("-N", true, "default maxconn of proxies"),
    ("-G", true, "dump the help of commands"),
    ("-dA", false, "archive on crash"),
    ("-dC", false, "dump the configuration"),
    ("-dD", true, "diagnostic mode"),
    ("-dF", true, "no fast-forward"),
    ("-dG", true, "no getaddrinfo"),
    ("-dK", false, "dump keywords"),
    ("-dL", true, "dump loaded libraries"),
    ("-dR", true, "no SO_REUSEPORT"),
    ("-dS", true, "no splice"),
    ("-dV", true, "no TLS verification of servers"),
    ("-dZ", true, "no zero-copy forwarding"),
    ("-de", true, "no epoll"),
    ("-dk", true, "no kqueue"),
    ("-dp", true, "no poll"),
    ("-dt", false, "traces"),
    ("-dv", true, "no evports"),
    ("-vq", false, "brief version"),
];

/// The text of `--help`.
pub const HELP: &str = "\
Remora, a proxy that throttles abusers. It reads HAProxy's configuration dialect.

Usage: remora -f FILE [OPTION]...

First steps
  remora -f docs/examples/throttle.cfg      start the example, then hit it with curl
  remora -c -V -f FILE                      is this configuration all right?
  echo 'show table' | socat - UNIX-CONNECT:PATH
                                            ask a running one (PATH: its 'stats socket')

Configuration
  -f FILE|DIR    read FILE, or every *.cfg of DIR in byte order; may be repeated
  -- FILE...     more files
  -C DIR         go to DIR first; relative names in files count from there
  -L NAME        name of this node among its peers (default: the host name)
  -n N           at most N connections at a time, whatever 'maxconn' says
  -dr            servers whose names do not resolve are not fatal

Checking
  -c             check the configuration and exit: 0 if it is valid, 1 if not
  -V             say more; with -c: 'Configuration file is valid'
  -dW            warnings are errors
  -cc 'COND'     evaluate a condition as '.if' does: exits with 0 true, 1 false, 2 error

Asking a running process
  --probe ready|live [PATH]
                 ask the 'admin bind' at this UNIX socket, or at the first one that '-f FILE' names:
                 exits with 0 yes, 1 no or no answer; the reason is printed

Preparing
  --handoff-dir DIR USER[:GROUP]
                 make the directory of a 'handoff' and give it to that user (numbers; needs root)

Running
  -db            stay in the foreground (as without -D; overrides 'daemon')
  -d             the same, with debug messages
  -D             go to the background once everything listens; the exit code tells
  -p FILE        write the process id to FILE
  -x PATH        take over the sockets of the process whose 'handoff' socket this is; it then finishes
  -sf PID...     these finish once this one accepts; -st: they end
  -W             a supervisor that starts workers, restarts them if they crash, and reloads
  -Ws            the same, and tells systemd (Type=notify)
  -S ADDR[,...]  the supervisor's CLI: path or address, then options as of 'stats socket' (mode,600,level,admin)
  --watch        with -W: reload when the configuration files, or files they name, change
  -q             no messages; the exit code tells

Versions
  -v, -vv        version; with what it was built for
  --help         this text

Accepted because scripts pass them, without effect
  -dM[...]       memory poisoning: no unsafe code here, so no memory is read before it is written
  -dI            allowing forks: Remora starts no programs

Signals
  TERM           stop at once
  INT, USR1      stop accepting, finish what is running, exit ('hard-stop-after' limits it);
                 a second INT stops at once
  HUP            write the state of servers and proxies to the logs
  TTOU, TTIN     refuse new connections; accept them again

Signals to a supervisor (-W)
  USR2, HUP      reload: the running worker goes on if the new one does not come up
  TERM, INT      stop everything at once; INT exits with 130
  USR1           let all workers finish, then exit
  TTOU, TTIN     passed on
";

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Command, Usage> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn all_options_of_a_run() {
        let got = words(
            "-f a.cfg -f dir -c -V -L me -n 77 -p pid -C /x -dW -dM -dM50 -dI -dr -db -D -- b.cfg -f",
        );
        let expected = Args {
            configs: ["a.cfg", "dir", "b.cfg", "-f"].map(String::from).into(),
            check: true,
            verbose: true,
            foreground: true,
            daemon: true,
            localpeer: Some("me".into()),
            maxconn: Some(77),
            pidfile: Some("pid".into()),
            chdir: Some("/x".into()),
            warnings_are_fatal: true,
            ignore_unresolved: true,
            ..Args::default()
        };
        assert_eq!(got, Ok(Command::Run(expected)));
    }

    #[test]
    fn processes_to_follow() {
        let Ok(Command::Run(args)) = words("-sf 12 13 -st -x /s -f a.cfg -st 14") else {
            panic!("a run");
        };
        assert_eq!((args.finish, args.terminate), (vec![12, 13], vec![14]));
        assert_eq!(args.take_from.as_deref(), Some("/s"));
    }

    #[test]
    fn short_answers() {
        assert_eq!(words("--help"), Ok(Command::Help));
        assert_eq!(words("-v"), Ok(Command::Version { details: false }));
        assert_eq!(words("-vv"), Ok(Command::Version { details: true }));
        assert_eq!(
            parse(["-cc", "feature(THREAD) && 1"].map(OsString::from)),
            Ok(Command::Condition("feature(THREAD) && 1".into()))
        );
    }

    #[test]
    fn probes() {
        let probe = |question, path: Option<&str>, configs: &[&str]| {
            Ok(Command::Probe(Probe {
                question,
                path: path.map(String::from),
                args: Args {
                    configs: configs.iter().map(|c| String::from(*c)).collect(),
                    ..Args::default()
                },
            }))
        };
        let (ready, live) = (Question::Ready, Question::Live);
        assert_eq!(
            words("--probe ready /a.sock"),
            probe(ready, Some("/a.sock"), &[])
        );
        assert_eq!(words("--probe live unix@a"), probe(live, Some("a"), &[]));
        assert_eq!(words("-f x --probe live"), probe(live, None, &["x"]));
        assert_eq!(words("--probe live -f x"), probe(live, None, &["x"]));
    }

    #[test]
    fn directories_for_the_hand_off() {
        for (line, group) in [("--handoff-dir /a 7:8", 8), ("--handoff-dir /a 7", 7)] {
            let (path, user) = ("/a".into(), 7);
            assert_eq!(words(line), Ok(Command::HandoffDir { path, user, group }));
        }
    }

    #[test]
    fn wrong_usage_names_the_culprit() {
        let cases = [
            ("", "'-f FILE'"),
            ("-f", "'-f' needs a file"),
            ("-n 0 -f x", "'0'"),
            ("-n many -f x", "'many'"),
            ("a.cfg", "'-f a.cfg'"),
            (
                "-dt -f x",
                "'-dt' (traces) is a HAProxy option that Remora does not support.",
            ),
            ("-sf 12 -3 -f x", "'-sf' wants process ids"),
            ("-W -S", "'-S' needs an address"),
            ("-x", "'-x' needs the path"),
            ("-m 10", "'-m'"),
            ("-dKall", "'-dKall'"),
            ("-dV", "'-dV'"),
            ("-DB -f x", "did you mean '-db'"),
            ("--hel", "did you mean '--help'"),
            ("-foo", "unknown option '-foo'"),
            ("--probe", "'--probe' needs 'ready' or 'live'"),
            ("--probe no", "not 'no'"),
            ("--probe live", "path of the socket"),
            ("--probe live a b", "'b' is not an option"),
            ("--handoff-dir", "needs a directory"),
            ("--handoff-dir /a nobody", "as numbers, not 'nobody'"),
            ("--handoff-dir /a 1:2 x", "'x' is not an option"),
        ];
        for (line, expected) in cases {
            let got = words(line).unwrap_err().0;
            assert!(got.contains(expected), "{line}: {got}");
        }
    }
}
