//! The command line.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster_tests::locate::Kind;
use cluster_tests::options;
use cluster_tests::soak::Plan;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Reloads under load, and compares what clients sent, what a server saw, and what tables and statistics say.

  reload-soak [OPTION VALUE]...

  --rounds N         reloads (default 100)
  --nodes N          nodes that share their tables, reloaded in turn (default 1)
  --entries N        entries in a table whose keys are counted at random (default 1000)
  --clients N        clients of each sort, per node (default 4)
  --sorts A,B        which: keep close tunnel slow long (default: all; 'long' is there during all reloads)
  --think MS         what a client waits before its next request (default 0)
  --calm S           seconds of load without reloads, for comparison (default 2)
  --pause MS         between a reload's first answer and the next reload (default 0)
  --program PATH     the proxy (default: built from this workspace, release profile)
  --against haproxy  do it to HAProxy, too
  --only haproxy     do it to HAProxy only";

/// The options.
pub(crate) struct Args {
    pub(crate) plan: Plan,
    pub(crate) against: bool,
    pub(crate) only_other: bool,
}

/// Reads the options; `None` asks for the help text.
pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Option<Args>> {
    let mut args = Args {
        plan: Plan::of(Kind::Remora),
        against: false,
        only_other: false,
    };
    let complete = options::read(words, |option, value| {
        let plan = &mut args.plan;
        match option {
            "--rounds" => plan.rounds = usize::try_from(value.number()?)?,
            "--nodes" => plan.nodes = usize::try_from(value.within(1, 8)?)?,
            "--entries" => plan.entries = u32::try_from(value.within(1, 16_000_000)?)?,
            "--clients" => plan.clients = usize::try_from(value.within(1, 200)?)?,
            "--sorts" => plan.sorts = value.text().replace(',', " "),
            "--think" => plan.think = Duration::from_millis(value.number()?),
            "--calm" => plan.calm = Duration::from_secs(value.number()?),
            "--pause" => plan.pause = Duration::from_millis(value.number()?),
            "--program" => plan.program = Some(value.program()?),
            "--against" | "--only" => {
                ensure!(value.text() == "haproxy", value.is("not known"));
                args.against = true;
                args.only_other = option == "--only";
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(complete.then_some(args))
}
