//! Reloads under full load, and whether anything was lost.
//!
//! Clients of every sort ask through one or several nodes while their configuration is changed and reloaded again and
//! again. Each client knows what it sent and what came back, the server behind the nodes knows what it was asked and what
//! it answered, and at the end the tables and totals of the nodes are compared with both.
//!
//! Which process answers is seen from outside: each configuration sets another `X-Round` in its answers.

mod clients;
mod compare;
mod config;
mod kernel;
mod memory;
mod origin;
mod outcome;
mod processor;
mod rounds;
mod site;
mod tally;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use crate::locate::Kind;

pub use compare::{Difference, Source};
pub use kernel::Counts;
pub use memory::Memory;
pub use outcome::{Outcome, Spans};

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom.
    pub kind: Kind,
    /// Instead of the program of that kind.
    pub program: Option<PathBuf>,
    /// Reloads, over all nodes.
    pub rounds: usize,
    /// Nodes that share their tables; they are reloaded in turn. One node of Remora shares nothing.
    pub nodes: usize,
    /// Clients of each sort for each node; of those that keep their connection twice as many.
    pub clients: usize,
    /// Sorts of clients: words out of `keep close tunnel slow long`.
    pub sorts: String,
    /// What a client waits between an answer and its next request.
    pub think: Duration,
    /// Entries in a table whose keys are counted at random.
    pub entries: u32,
    /// Load without reloads, for comparison.
    pub calm: Duration,
    /// From one reload's first answer to the next reload.
    pub pause: Duration,
}

impl Plan {
    /// A hundred reloads of one node, one after the other.
    pub fn of(kind: Kind) -> Self {
        Self {
            kind,
            program: None,
            rounds: 100,
            nodes: 1,
            clients: 4,
            sorts: "keep close tunnel slow long".to_owned(),
            think: Duration::ZERO,
            entries: 1000,
            calm: Duration::from_secs(2),
            pause: Duration::ZERO,
        }
    }

    /// Outcomes of this plan side by side, as a table in Markdown and a list of what went wrong.
    pub fn table(&self, all: &[(&str, &Outcome)]) -> String {
        outcome::table(self, all)
    }

    /// Does it.
    ///
    /// # Panics
    /// When a node does not start, or does not answer on its CLI.
    pub fn run(&self) -> Outcome {
        rounds::run(self)
    }
}
