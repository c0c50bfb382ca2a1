//! Random histories, of the model or of real tables.

use super::Dice;
use super::cluster::{Cluster, Node};
use super::node::{COLUMNS, Column, ModelNode};
use super::op::{Mix, Op};
use std::collections::BTreeMap;

pub const START: i64 = 1_000_000;

#[derive(Clone, Copy)]
struct Faults {
    cuts: bool,
    kills: bool,
    /// Everybody hears of each action before the next.
    in_step: bool,
    /// The longest pause, in ms.
    pause: u64,
}

/// Runs a random history; after each settling, calls `check`.
fn run<N: Node>(
    cluster: &mut Cluster<N>,
    dice: &mut Dice,
    mix: Mix,
    faults: Faults,
    mut check: impl FnMut(&Cluster<N>, u64, Option<Op>) -> Result<(), String>,
) -> Result<(), String> {
    for _ in 0..20 + dice.roll(60) {
        let lineages = cluster.lineages();
        let lineage = *dice.pick(&lineages);
        let other = *dice.pick(&lineages);
        match dice.roll(100) {
            0..3 if faults.cuts && lineage != other => cluster.cut(lineage, other),
            3..5 if faults.cuts && lineage != other => cluster.heal(lineage, other),
            5..6 if faults.kills && lineages.len() > 2 => {
                if faults.in_step {
                    cluster.settle(dice)?;
                }
                cluster.kill(lineage, dice);
            }
            6..7 if lineages.len() < 5 && faults.kills => drop(cluster.join()),
            7..50 => {
                let op = Op::random(dice, mix);
                cluster.act(lineage, op);
                if faults.in_step {
                    cluster.settle(dice)?;
                }
                check(cluster, lineage, Some(op))?;
            }
            50..60 => {
                let ms = match dice.roll(4) {
                    0 => dice.roll(faults.pause),
                    1 => dice.roll(faults.pause / 10),
                    _ => dice.roll(30),
                };
                cluster.pass_time(ms as i64);
            }
            _ => {
                for _ in 0..dice.roll(6) {
                    cluster.step(dice);
                }
            }
        }
    }
    cluster.settle(dice)?;
    check(cluster, 0, None)
}

fn agree<N: Node>(cluster: &mut Cluster<N>, dice: &mut Dice, keys: u64) -> Result<(), String> {
    for key in 0..keys as u32 {
        if cluster.differs_in_expiry(key) {
            // Someone saw it held for longer than it was: until it is touched, or gone everywhere.
            let lineage = *dice.pick(&cluster.lineages());
            cluster.act(lineage, Op::Touch(key));
            cluster.settle(dice)?;
        }
        cluster.agreed(key)?;
    }
    Ok(())
}

/// All kinds of actions and faults, no expiry.
pub fn any_history<N: Node>(
    seed: u64,
    expire: Option<i64>,
    make: fn(u64, Option<i64>) -> N,
) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let mix = Mix {
        keys: 1 + dice.roll(3),
        tracks: dice.percent(50),
        edicts: dice.percent(70),
        tags: dice.percent(50),
    };
    let faults = Faults {
        cuts: dice.percent(60),
        kills: dice.percent(30),
        in_step: false,
        pause: 2_000,
    };
    let nodes = 2 + dice.roll(3);
    let mut cluster = Cluster::new(START, nodes, move |lineage| make(lineage, expire));
    for member in cluster.members.values_mut() {
        member.skew = dice.roll(4) as i64 * 300_000;
        if dice.percent(30) {
            member.node.set_budget(1 + dice.roll(3) as usize);
        }
    }
    run(&mut cluster, &mut dice, mix, faults, |_, _, _| Ok(()))?;
    agree(&mut cluster, &mut dice, mix.keys)?;
    if let Some(expire) = expire {
        cluster.now += dice.roll(expire as u64) as i64;
        agree(&mut cluster, &mut dice, mix.keys)?;
    }
    Ok(())
}

/// What a single node would read that saw everything: in step always; else, of plain counting among survivors.
pub fn truth<N: Node>(
    seed: u64,
    in_step: bool,
    expire: Option<i64>,
    make: fn(u64, Option<i64>) -> N,
    small: Option<u64>,
) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let tracks = dice.percent(50) && small.is_none();
    let mix = Mix {
        keys: 1 + dice.roll(if small.is_some() { 8 } else { 3 }),
        tracks,
        edicts: in_step && !tracks && small.is_none(), // tombstones make room first
        tags: in_step && small.is_none(), // forgotten stamps may be made again within one ms
    };
    let faults = Faults {
        cuts: !in_step,
        kills: in_step && !tracks && small.is_none(),
        in_step,
        pause: 2_000,
    };
    let nodes = 2 + dice.roll(3);
    let mut cluster = Cluster::new(START, nodes, move |lineage| make(lineage, expire));
    cluster.small.extend(small);
    let mut alone = ModelNode::new(0, expire, usize::MAX);
    let mut held: BTreeMap<(u64, u32), u32> = BTreeMap::new();
    run(
        &mut cluster,
        &mut dice,
        mix,
        faults,
        |cluster, lineage, op| {
            let now = cluster.now;
            if let Some(op) = op {
                let held = held.entry((lineage, op.key())).or_default();
                match op {
                    Op::Track(_) => *held += 1,
                    Op::Untrack(_) if *held == 0 => return Ok(()),
                    Op::Untrack(_) => *held -= 1,
                    _ => {}
                }
                alone.act(op, now, now as u64);
                if !in_step {
                    return Ok(());
                }
            }
            for key in 0..mix.keys as u32 {
                let (mut read, mut truth) = (cluster.agreed(key)?, alone.read(key, now));
                // Windows of several nodes begin at several moments: another test has them.
                for values in [&mut read, &mut truth].into_iter().flatten() {
                    for column in
                        (0..COLUMNS.len()).filter(|c| matches!(COLUMNS[*c], Column::Rate(_)))
                    {
                        values[column] = 0;
                    }
                }
                if read != truth {
                    return Err(format!(
                        "key {key} at {now}: {read:?} is read, {truth:?} is true"
                    ));
                }
            }
            Ok(())
        },
    )
}
