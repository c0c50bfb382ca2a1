//! `show proc` (reference: admin-cli section 6).

use super::machine::{Machine, Phase, Worker};

/// The processes, one a line.
pub(super) fn processes(machine: &Machine, started_ms: u64, now_ms: u64) -> String {
    let mut text = row("#<PID>", "<type>", "<reloads>", "<uptime>", "<version>");
    text += &row(
        &std::process::id().to_string(),
        "master",
        &format!(
            "{} [failed: {}]",
            machine.counts.reloads, machine.counts.failed
        ),
        &uptime(now_ms.saturating_sub(started_ms)),
        crate::VERSION,
    );
    type Wanted = fn(Phase) -> bool;
    let parts: [(&str, Wanted); 3] = [
        ("# workers", |p| matches!(p, Phase::Serving | Phase::Old)),
        ("# new workers", |p| {
            matches!(
                p,
                Phase::Starting { .. }
                    | Phase::Ready { .. }
                    | Phase::Going { .. }
                    | Phase::Opening { .. }
            )
        }),
        ("# old workers", |p| {
            matches!(p, Phase::Draining | Phase::Dying)
        }),
    ];
    for (i, (head, wanted)) in parts.into_iter().enumerate() {
        let some: Vec<&Worker> = machine.workers.iter().filter(|w| wanted(w.phase)).collect();
        if i > 0 && some.is_empty() {
            continue;
        }
        text += head;
        text.push('\n');
        for w in some {
            text += &row(
                &w.pid.to_string(),
                "worker",
                &w.reloads.to_string(),
                &uptime(now_ms.saturating_sub(w.started_ms)),
                &w.version,
            );
        }
    }
    text
}

fn row(pid: &str, kind: &str, reloads: &str, uptime: &str, version: &str) -> String {
    format!("{pid:<15} {kind:<15} {reloads:<15} {uptime:<15} {version:<15}\n")
}

fn uptime(ms: u64) -> String {
    let s = ms / 1000;
    format!(
        "{}d{:02}h{:02}m{:02}s",
        s / 86_400,
        s / 3600 % 24,
        s / 60 % 60,
        s % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_as_wide_as_haproxys() {
        assert_eq!(
            row("#<PID>", "<type>", "<reloads>", "<uptime>", "<version>"),
            "#<PID>          <type>          <reloads>       <uptime>        <version>      \n"
        );
        assert_eq!(uptime(93_784_000), "1d02h03m04s");
    }
}
