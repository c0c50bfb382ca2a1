//! What sharing tables costs and gives: clusters of one program at a time, all nodes on the proxies' core.

mod cost;
mod load;
mod size;
mod truth;

use crate::measures::{Aim, Measure, Row};

const fn row(name: &'static str, unit: &'static str, aim: Option<f64>) -> Row {
    let aim = match aim {
        Some(most) => Some(Aim::Value(most)),
        None => None,
    };
    Row { name, unit, aim }
}

/// All measures in the order of the report.
pub(crate) const ALL: &[Measure] = &[
    Measure {
        name: "peers-lost",
        rows: &[
            row("counts lost, one key, 2 nodes at once", "%", Some(0.0)),
            row("counts lost, one key, 3 nodes at once", "%", Some(0.0)),
            row("counts lost, one key, 4 nodes at once", "%", Some(0.0)),
            row("counts lost, 2 nodes, 5 ms apart", "%", Some(0.0)),
            row("counts lost, 3 nodes, 5 ms apart", "%", Some(0.0)),
            row("counts lost, 4 nodes, 5 ms apart", "%", Some(0.0)),
        ],
        rounds_max: 1,
        run: truth::lost,
    },
    Measure {
        name: "peers-latency",
        rows: &[
            row(
                "event to visible on another node, idle, p50",
                "ms",
                Some(1.0),
            ),
            row(
                "event to visible on another node, idle, p99",
                "ms",
                Some(5.0),
            ),
            row("event to visible at 5,000 other changes/s, p50", "ms", None),
            row(
                "event to visible at 5,000 other changes/s, p99",
                "ms",
                Some(25.0),
            ),
        ],
        rounds_max: 3,
        run: truth::latency,
    },
    Measure {
        name: "peers-push",
        rows: &[
            row("CPU, pushed entry, saturated", "us", Some(0.5)),
            row("CPU, learned entry, saturated", "us", Some(1.0)),
            row(
                "bytes on the wire per changed entry, acks included",
                "bytes",
                Some(20.0),
            ),
        ],
        rounds_max: 3,
        run: cost::push,
    },
    Measure {
        name: "peers-paced",
        rows: &[
            row("CPU, learned entry at 20,000 changes/s", "us", Some(2.0)),
            row("CPU added to a request at 20,000 changes/s", "us", None),
            row("bytes per changed entry at 20,000 changes/s", "bytes", None),
        ],
        rounds_max: 3,
        run: cost::paced,
    },
    Measure {
        name: "peers-hot",
        rows: &[
            row(
                "CPU, request with one hot key, no peers section",
                "us",
                None,
            ),
            row("CPU added by 1 peer, full load", "us", Some(0.1)),
            row("CPU added by 7 peers, full load", "us", Some(0.5)),
            row("CPU added by 1 peer, 5,000 requests/s", "us", Some(0.1)),
            row("CPU added by 7 peers, 5,000 requests/s", "us", Some(0.5)),
        ],
        rounds_max: 3,
        run: cost::hot,
    },
    Measure {
        name: "peers-none",
        rows: &[
            row("CPU, tracked request, no peers section", "us", None),
            row("CPU, tracked request, table names no section", "us", None),
            row("CPU, tracked request, shared, nobody there", "us", None),
        ],
        rounds_max: usize::MAX,
        run: cost::none,
    },
    Measure {
        name: "peers-teach",
        rows: &[
            row(
                "full teach under traffic, start to complete",
                "s",
                Some(0.8),
            ),
            row("CPU of the teacher per entry", "us", None),
            row("CPU of the learner per entry", "us", None),
            row("bytes on the wire per taught entry", "bytes", None),
        ],
        rounds_max: 2,
        run: size::teach,
    },
    Measure {
        name: "peers-memory",
        rows: &[
            row("memory per entry, shared table, own counts", "bytes", None),
            row(
                "memory per entry on a learner, 1 remote lineage",
                "bytes",
                Some(140.0),
            ),
            row(
                "memory per entry on a learner, 2 remote lineages",
                "bytes",
                None,
            ),
            row(
                "memory per entry on a learner, 7 remote lineages",
                "bytes",
                None,
            ),
        ],
        rounds_max: 1,
        run: size::memory,
    },
];
