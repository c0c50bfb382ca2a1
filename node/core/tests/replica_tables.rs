//! The laws of merging, of real tables behind the real codec: in random histories they agree with each other, read what is
//! true, and are what the model is, step by step.

mod replica_model;
mod table_common;

use replica_model::cluster::{Node, WALL};
use replica_model::histories::{START, any_history, truth};
use replica_model::node::ModelNode;
use replica_model::op::{Mix, Op};
use replica_model::real::{RealNode, Wire};
use replica_model::row::Row;
use replica_model::{Dice, run};

fn table(lineage: u64, expire: Option<i64>) -> RealNode {
    RealNode::new(lineage, expire, 1_000)
}

#[test]
fn tables_agree() {
    run("no expiry", 500, |seed| any_history(seed, None, table));
}

#[test]
fn tables_agree_about_lives() {
    run("expiry", 500, |seed| any_history(seed, Some(1_500), table));
}

#[test]
fn tables_in_step_are_one_table() {
    run("in step", 100, |seed| truth(seed, true, None, table, None));
    run("in step, expiry", 100, |seed| {
        truth(seed, true, Some(1_500), table, None)
    });
}

#[test]
fn tables_count_everything_once() {
    run("counting", 300, |seed| {
        truth(seed, false, None, table, None)
    });
}

/// Messages delayed, repeated and reordered at will: after each step each table is what its model is.
fn steps(seed: u64, expire: Option<i64>, start: i64) -> Result<(), String> {
    struct Message {
        from: usize,
        to: usize,
        sent: i64,
        rows: Vec<Row>,
        wire: Wire,
    }
    let mut dice = Dice::new(seed);
    let count = 2 + dice.roll(3) as usize;
    let mut nodes: Vec<(ModelNode, RealNode)> = (1..=count as u64)
        .map(|lineage| {
            (
                ModelNode::new(lineage, expire, usize::MAX),
                RealNode::new(lineage, expire, 1_000),
            )
        })
        .collect();
    for (model, real) in &mut nodes {
        for lineage in 1..=count as u64 {
            model.set_alive(lineage, true);
            real.set_alive(lineage, true);
        }
    }
    let mix = Mix {
        keys: 1 + dice.roll(3),
        tracks: dice.percent(50),
        edicts: dice.percent(70),
        tags: dice.percent(50),
    };
    let deaths = dice.percent(30);
    let skews: Vec<_> = nodes
        .iter()
        .map(|_| dice.roll(4) as i64 * 300_000)
        .collect();
    let mut now = start;
    let mut messages: Vec<Message> = Vec::new();
    let mut trail = Vec::new();
    for _ in 0..20 + dice.roll(80) {
        let at = dice.roll(count as u64) as usize;
        match dice.roll(100) {
            0..40 => {
                let op = Op::random(&mut dice, mix);
                let wall = (now + WALL + skews[at]) as u64;
                trail.push(format!("{now} {}: {op:?}", at + 1));
                let (model, real) = &mut nodes[at];
                model.act(op, now, wall);
                real.act(op, now, wall);
            }
            40..60 => {
                let key = dice.roll(mix.keys) as u32;
                let to = dice.roll(count as u64) as usize;
                let (model, real) = &mut nodes[at];
                if dice.percent(50) {
                    model.collect(now);
                    real.collect(now);
                }
                let keys = std::iter::once(key).collect();
                let (rows, wire) = (model.read_keys(&keys, now), real.read_keys(&keys, now));
                trail.push(format!("{now} {}: sends {rows:?}\n  as {wire:?}", at + 1));
                if to != at && !rows.is_empty() {
                    messages.push(Message {
                        from: at,
                        to,
                        sent: now,
                        rows,
                        wire,
                    });
                }
            }
            60..85 if !messages.is_empty() => {
                let which = dice.roll(messages.len() as u64) as usize;
                let m = &messages[which];
                // After a whole lifetime under way, it depends on the order of rows what a held one still proves.
                if expire.is_some_and(|expire| now - m.sent >= expire) {
                    messages.swap_remove(which);
                    continue;
                }
                let acked = *dice.pick(&[0, u64::MAX]);
                let from = m.from as u64 + 1;
                let (model, real) = &mut nodes[m.to];
                let a = Node::apply(model, &m.rows, from, m.sent, acked, now);
                let b = real.apply(&m.wire, from, m.sent, acked, now);
                trail.push(format!("{now} {} hears {:?}: {a:?}", m.to + 1, m.rows));
                // Rows of `read_keys` do not say that their pusher holds others' cells: they come along.
                if a.wants_of_all != b.wants_of_all
                    || !a.unsure.is_subset(&b.unsure)
                    || !a.offers.is_subset(&b.offers)
                {
                    return Err(format!("{}\nmodel {a:?}\ntable {b:?}", trail.join("\n")));
                }
                if dice.percent(70) {
                    messages.swap_remove(which);
                }
            }
            85..87 if deaths => {
                let lineage = 1 + dice.roll(count as u64);
                let alive = dice.percent(60);
                if lineage != at as u64 + 1 {
                    trail.push(format!("{now} {}: {lineage} is alive: {alive}", at + 1));
                    nodes[at].0.set_alive(lineage, alive);
                    nodes[at].1.set_alive(lineage, alive);
                }
            }
            85..90 => {
                let all = *dice.pick(&[0, u64::MAX]);
                let (model, real) = &mut nodes[at];
                model.set_acked_by_all(all, now);
                real.set_acked_by_all(all, now);
            }
            _ => {
                now += match dice.roll(4) {
                    0 => dice.roll(4_000),
                    1 => dice.roll(400),
                    _ => dice.roll(30),
                } as i64;
                // What is over is dropped when someone looks, or by upkeep; by the model, at once.
                nodes.iter_mut().for_each(|(_, real)| real.maintain(now));
            }
        }
        for (number, (model, real)) in nodes.iter_mut().enumerate() {
            model.settle(now);
            let mut visible = 0;
            for key in 0..mix.keys as u32 {
                let (a, b) = (model.read(key, now), real.read(key, now));
                visible += usize::from(a.is_some());
                if a != b {
                    let number = number + 1;
                    let trail = trail.join("\n");
                    return Err(format!(
                        "{trail}\n{now} {number}: key {key}\nmodel {a:?}\ntable {b:?}"
                    ));
                }
            }
            if !deaths && dice.percent(10) && real.table.used(now as u64) != visible {
                return Err(format!(
                    "{}\n{visible} entries are visible, not {}",
                    trail.join("\n"),
                    real.table.used(now as u64)
                ));
            }
        }
    }
    Ok(())
}

#[test]
fn tables_follow_the_model() {
    run("steps", 500, |seed| steps(seed, None, START));
    run("steps, expiry", 500, |seed| steps(seed, Some(1_500), START));
}

/// The 32-bit clock of records wraps around in the middle.
#[test]
fn tables_follow_the_model_when_clocks_wrap() {
    run("steps, wrap", 250, |seed| {
        steps(seed, Some(1_500), (1 << 32) - 1_000)
    });
    run("steps, wrap, no expiry", 250, |seed| {
        steps(seed, None, (1 << 32) - 1_000)
    });
}

/// One node keeps only three keys: what it forgets comes back to it, and to nobody is anything lost.
#[test]
fn tables_survive_evictions() {
    fn one_small(lineage: u64, expire: Option<i64>) -> RealNode {
        RealNode::new(lineage, expire, if lineage == 1 { 3 } else { 1_000 })
    }
    run("evictions", 200, |seed| {
        truth(seed, true, None, one_small, Some(1))
    });
    run("evictions, expiry", 200, |seed| {
        truth(seed, true, Some(1_500), one_small, Some(1))
    });
}

/// Two nodes that know of each other.
fn pair(expire: Option<i64>, size: usize) -> [RealNode; 2] {
    let mut nodes = [1, 2].map(|l| RealNode::new(l, expire, if l == 1 { size } else { 1_000 }));
    for node in &mut nodes {
        (1..=2).for_each(|lineage| node.set_alive(lineage, true));
    }
    nodes
}

/// How many entries have something to tell.
fn stamped(node: &RealNode, now: i64) -> usize {
    let replica = node.table.replica().unwrap();
    replica.collect(now as u64, 1_000).stamped
}

/// A node that began a key again in ignorance of its life elsewhere asks all others about it, and tells those that may have
/// the late birth from it.
#[test]
fn a_late_birth_is_corrected_everywhere() {
    let [mut one, mut two] = pair(Some(1_500), 1_000);
    for now in [0, 1_400, 2_800] {
        one.act(Op::Touch(5), START + now, 0);
    }
    one.collect(START + 2_800);
    let now = START + 3_000;
    two.act(Op::Hit(5, 1), now, 0);
    assert_eq!(stamped(&two, now), 1);
    let (row, ..) = one.read_journal(0, now);
    let applied = two.apply(&row, 1, now, 0, now);
    assert_eq!(Vec::from_iter(applied.wants_of_all), [5]);
    assert_eq!(stamped(&two, now), 1, "with the earlier birth");
    let again = two.apply(&row, 1, now, 0, now);
    assert!(again.wants_of_all.is_empty());
    assert_eq!(stamped(&two, now), 0);
}

/// What a node said and forgot, it says again when it hears of it: others may not have heard it the first time.
#[test]
fn an_own_edict_or_tag_that_comes_home_is_said_again() {
    for op in [Op::Set(5, 4, 0), Op::Tag(5, 1, 7)] {
        let [mut one, mut two] = pair(None, 1);
        let now = START;
        let wall = (now + WALL) as u64;
        one.act(op, now, wall);
        one.collect(now);
        let (row, ..) = one.read_journal(0, now);
        two.apply(&row, 1, now, 0, now);
        two.act(Op::Hit(5, 1), now, wall);
        two.collect(now);
        // Evicted, and made again.
        one.act(Op::Touch(6), now + 1, wall);
        one.act(Op::Touch(5), now + 2, wall);
        assert_eq!(stamped(&one, now + 2), 1);
        let (row, ..) = two.read_journal(0, now + 2);
        one.apply(&row, 2, now + 2, 0, now + 2);
        assert_eq!(stamped(&one, now + 2), 1, "{op:?}");
    }
}
