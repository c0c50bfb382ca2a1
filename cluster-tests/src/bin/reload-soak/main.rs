//! Reloads under full load, counted: `cargo run --release -p cluster-tests --bin reload-soak -- --rounds 1000`.
//!
//! Prints a table, and fails if Remora lost a connection, a request or a count. With `--against haproxy` the same is done
//! to HAProxy (master-worker with peers), to see what it loses. Loopback only.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what this program is for"
)]

mod args;

use std::process::ExitCode;

use anyhow::{Context, Result};
use cluster_tests::locate::{self, Kind};
use cluster_tests::tools;
use rustix::process::{Resource, Rlimit};

fn main() -> Result<ExitCode> {
    let Some(args) = args::parse(std::env::args().skip(1))? else {
        println!("{}", args::HELP);
        return Ok(ExitCode::SUCCESS);
    };
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    rustix::process::setrlimit(Resource::Nofile, wanted).context("raising the descriptor limit")?;

    let mut plan = args.plan;
    let mut outcomes = Vec::new();
    if !args.only_other {
        if plan.program.is_none() && std::env::var_os("REMORA_BIN").is_none() {
            plan.program = Some(locate::build("release"));
        }
        eprintln!("remora: {} reloads", plan.rounds);
        let outcome = plan.run();
        if args.against {
            eprintln!("{}", plan.table(&[("remora", &outcome)]));
        }
        outcomes.push(("remora", outcome));
    }
    if args.against {
        let mut other = plan.clone();
        other.kind = Kind::Haproxy;
        other.program = Some(tools::find("haproxy").context("haproxy is not installed")?);
        eprintln!("haproxy: {} reloads", plan.rounds);
        outcomes.push(("haproxy", other.run()));
    }
    let shown: Vec<_> = outcomes.iter().map(|(name, o)| (*name, o)).collect();
    print!("{}", plan.table(&shown));
    let lost = outcomes
        .iter()
        .filter(|(name, _)| *name == "remora")
        .any(|(_, outcome)| !outcome.losses().is_empty());
    Ok(if lost {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
