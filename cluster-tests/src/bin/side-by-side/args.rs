//! The command line.

use std::path::PathBuf;

use anyhow::Result;
use cluster_tests::options;

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
pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Option<Args>> {
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
    let complete = options::read(words, |option, value| {
        match option {
            "--rounds" => args.rounds = usize::try_from(value.within(1, 1000)?)?,
            "--seconds" => args.seconds = value.within(1, 600)?,
            "--only" => args.only = value.text().split(',').map(str::to_owned).collect(),
            "--remora" => args.remora = Some(value.program()?),
            "--haproxy" => args.haproxy = Some(value.program()?),
            "--nginx" => args.nginx = Some(value.program()?),
            "--connections" => args.connections = usize::try_from(value.within(10, 8_000)?)?,
            "--entries" => args.entries = u32::try_from(value.within(1000, 16_000_000)?)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(complete.then_some(args))
}
