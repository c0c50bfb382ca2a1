//! The command line.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Measures Remora and HAProxy with the same rules, in interleaved rounds, and prints medians and ratios.

  side-by-side [OPTION VALUE]...

  --rounds N       how often everything is measured (default 5)
  --seconds S      how long one measurement lasts (default 3)
  --only A,B       only these: small chunked close refused 64k 1m idle entry flood;
                   'peers' is all of peers-lost peers-latency peers-push peers-paced peers-hot peers-none
                   peers-teach peers-memory
  --remora PATH    the first proxy (default: built from this workspace, release profile)
  --haproxy PATH   the second one (default: haproxy of the system)
  --nginx PATH     the server behind both (default: nginx of the system)
  --connections N  idle connections held for the memory measurement (default 4000)
  --entries N      table entries for the memory measurement (default 1000000)";

/// The options.
pub(crate) struct Args {
    pub(crate) rounds: usize,
    pub(crate) seconds: u64,
    pub(crate) only: Vec<String>,
    pub(crate) remora: Option<PathBuf>,
    pub(crate) haproxy: Option<PathBuf>,
    pub(crate) nginx: Option<PathBuf>,
    pub(crate) connections: usize,
    pub(crate) entries: u32,
}

impl Args {
    /// Whether the measure of this name was asked for, by itself or with all of its family.
    pub(crate) fn wants(&self, name: &str) -> bool {
        let family = name.split('-').next().unwrap_or(name);
        self.only.is_empty() || self.only.iter().any(|only| only == name || only == family)
    }
}

/// Reads the options; `None` asks for the help text.
pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Args>> {
    let mut args = Args {
        rounds: 5,
        seconds: 3,
        only: Vec::new(),
        remora: None,
        haproxy: None,
        nginx: None,
        connections: 4000,
        entries: 1_000_000,
    };
    while let Some(option) = words.next() {
        if option == "--help" || option == "-h" {
            return Ok(None);
        }
        let value = words
            .next()
            .with_context(|| format!("{option} needs a value"))?;
        let number = || {
            value
                .parse::<u64>()
                .with_context(|| format!("{option} {value}: not a number"))
        };
        match option.as_str() {
            "--rounds" => args.rounds = usize::try_from(number()?.clamp(1, 1000))?,
            "--seconds" => args.seconds = number()?.clamp(1, 600),
            "--only" => args.only = value.split(',').map(str::to_owned).collect(),
            "--remora" => args.remora = Some(program(&value)?),
            "--haproxy" => args.haproxy = Some(program(&value)?),
            "--nginx" => args.nginx = Some(program(&value)?),
            "--connections" => args.connections = usize::try_from(number()?.clamp(10, 8_000))?,
            "--entries" => args.entries = u32::try_from(number()?.clamp(1000, 16_000_000))?,
            _ => bail!("unknown option {option}; --help lists them"),
        }
    }
    Ok(Some(args))
}

/// The program's full path: everything here runs in directories of its own.
fn program(path: &str) -> Result<PathBuf> {
    std::fs::canonicalize(path).with_context(|| format!("no program at {path}"))
}
