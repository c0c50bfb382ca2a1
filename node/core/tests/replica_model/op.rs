//! What users do to a table, and what that means to the model.

use super::Dice;
use super::node::{COLUMNS, Column, Entry, KeyNumber, ModelNode, REGISTERS, Value, zero};
use super::window::Window;

/// One action on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Touch(KeyNumber),
    /// A request: its counter and its rate.
    Hit(KeyNumber, u32),
    /// `sc-inc-gpc`: element, events.
    Gpc(KeyNumber, u16, u32),
    Track(KeyNumber),
    /// Ends the tracking of a key, if there is one.
    Untrack(KeyNumber),
    /// `sc-clr-gpc`.
    ClearGpc(KeyNumber, u16),
    /// `set table`: a column of `COLUMNS` but no gauge.
    Set(KeyNumber, usize, u32),
    /// A tag.
    Tag(KeyNumber, usize, u32),
    /// `clear table`.
    Clear(KeyNumber),
}

pub const HIT: [usize; 2] = [2, 3];
pub const GPC: usize = 4;
pub const GPC_RATE: usize = 6;

/// Which kinds of actions a history has.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    pub keys: u64,
    pub tracks: bool,
    pub edicts: bool,
    pub tags: bool,
}

impl Op {
    pub fn random(dice: &mut Dice, mix: Mix) -> Op {
        let key = dice.roll(mix.keys) as KeyNumber;
        loop {
            return match dice.roll(100) {
                0..8 => Op::Touch(key),
                8..32 => Op::Hit(key, 1 + dice.roll(5) as u32),
                32..52 => Op::Gpc(key, dice.roll(2) as u16, 1 + dice.roll(5) as u32),
                52..60 if mix.tracks => Op::Track(key),
                60..70 if mix.tracks => Op::Untrack(key),
                70..75 if mix.edicts => Op::ClearGpc(key, dice.roll(2) as u16),
                75..82 if mix.edicts => {
                    let column = 1 + dice.roll(COLUMNS.len() as u64 - 1) as usize;
                    Op::Set(key, column, dice.roll(9) as u32)
                }
                82..88 if mix.edicts => Op::Clear(key),
                88..100 if mix.tags => {
                    let register = dice.roll(REGISTERS as u64) as usize;
                    Op::Tag(key, register, dice.roll(9) as u32)
                }
                _ => continue,
            };
        }
    }
    pub fn key(&self) -> KeyNumber {
        match *self {
            Op::Touch(key)
            | Op::Hit(key, _)
            | Op::Gpc(key, ..)
            | Op::Track(key)
            | Op::Untrack(key)
            | Op::ClearGpc(key, _)
            | Op::Set(key, ..)
            | Op::Tag(key, ..)
            | Op::Clear(key) => key,
        }
    }
}

fn count(entry: &mut Entry, column: usize, n: u32, now: i64) {
    match (&mut entry.own.values[column], COLUMNS[column]) {
        (Value::Count(value), _) => *value += u64::from(n),
        (Value::Rate(window), Column::Rate(period)) => {
            Window::add(window, n.into(), now, period);
        }
        _ => unreachable!(),
    }
}

impl ModelNode {
    pub fn act(&mut self, op: Op, now: i64, wall: u64) {
        match op {
            Op::Touch(key) => drop(self.touch(key, now)),
            Op::Hit(key, n) => {
                let entry = self.touch(key, now);
                HIT.into_iter()
                    .for_each(|column| count(entry, column, n, now));
            }
            Op::Gpc(key, index, n) => {
                let entry = self.touch(key, now);
                for column in [GPC, GPC_RATE] {
                    count(entry, column + usize::from(index), n, now);
                }
            }
            Op::Track(key) => {
                let entry = self.touch(key, now);
                entry.uses += 1;
                count(entry, 0, 1, now);
                count(entry, 1, 1, now);
            }
            Op::Untrack(key) => {
                if self.entries.get(&key).is_some_and(|e| e.uses > 0) {
                    let entry = self.touch(key, now);
                    entry.uses -= 1;
                    if let Value::Count(trackers) = &mut entry.own.values[0] {
                        *trackers -= 1;
                    }
                }
            }
            Op::ClearGpc(key, index) => {
                self.touch(key, now);
                let column = GPC + usize::from(index);
                if self.read(key, now).unwrap()[column] > 0 {
                    let stamp = self.stamp(key, wall);
                    let entry = self.entries.get_mut(&key).unwrap();
                    entry.learn_edict(Some(column), stamp);
                }
            }
            Op::Set(key, column, value) => {
                self.touch(key, now);
                let stamp = self.stamp(key, wall);
                let entry = self.entries.get_mut(&key).unwrap();
                entry.learn_edict(Some(column), stamp);
                entry.own.values[column] = match zero(column) {
                    Value::Count(_) => Value::Count(value.into()),
                    Value::Rate(_) => Value::Rate(Some(Window::starting(now, value.into()))),
                };
            }
            Op::Tag(key, register, value) => {
                self.touch(key, now);
                let stamp = self.stamp(key, wall);
                let entry = self.entries.get_mut(&key).unwrap();
                entry.registers[register] = (value, Some(stamp));
            }
            Op::Clear(key) => self.clear(key, now, wall),
        }
    }
}
