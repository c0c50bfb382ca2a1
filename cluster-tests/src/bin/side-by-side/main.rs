//! Side by side: the same rules on Remora and on HAProxy, measured in interleaved rounds of one run.
//!
//! `cargo run --release -p cluster-tests --bin side-by-side` prints a table of medians and ratios. Both proxies have one
//! thread on a core of their own; the load and the servers (nginx) share the other cores. Loopback only.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what this program is for"
)]

mod args;
mod contest;
mod load;
mod measures;
mod peers;
mod report;

use anyhow::Result;

fn main() -> Result<()> {
    let Some(args) = args::parse(std::env::args().skip(1))? else {
        println!("{}", args::HELP);
        return Ok(());
    };
    let machine = contest::Machine::prepare(&args)?;
    let mut report = report::Report::default();
    for round in 1..=args.rounds {
        for measure in measures::ALL
            .iter()
            .chain(peers::ALL)
            .filter(|measure| args.wants(measure.name))
        {
            if round > measure.rounds_max {
                continue;
            }
            // Who goes first alternates, in case the second finds the machine warmer or more tired.
            let mut sides: Vec<_> = machine.sides().iter().collect();
            if round % 2 == 0 {
                sides.reverse();
            }
            for side in sides {
                // One that fails leaves a gap in the table, and the others are still worth having.
                let values = (measure.run)(&machine, side).unwrap_or_else(|error| {
                    eprintln!("{} of {} failed: {error}", measure.name, side.name);
                    Vec::new()
                });
                for (row, value) in measure.rows.iter().zip(values) {
                    eprintln!(
                        "round {round}/{}  {:<8} {:<44} {value:.2} {}",
                        args.rounds, side.name, row.name, row.unit
                    );
                    report.add(row, side.name, value);
                }
            }
        }
    }
    print!("{}", report.table(&machine));
    Ok(())
}
