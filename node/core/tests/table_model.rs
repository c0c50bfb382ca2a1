//! Tables against naive models, under arbitrary histories.

mod table_common;
use proptest::prelude::*;
use remora_core::table::{Cursor, DataType as D, EntryRef, Rate, Removal, Table};
use std::collections::BTreeMap;
use table_common::{number, spec, table};

/// Failing seeds are printed, not written beside the sources.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// The formula of the reference, in wide signed arithmetic and without wrapping.
#[derive(Clone, Copy)]
struct NaiveRate {
    start: i128,
    cur: i128,
    prev: i128,
    period: i128,
}

impl NaiveRate {
    fn add(&mut self, n: i128, t: i128) {
        if t - self.start < self.period {
            self.cur += n;
            return;
        }
        self.prev = self.cur;
        self.cur = n;
        self.start += self.period;
        if t - self.start >= self.period {
            self.prev = 0;
            self.start = t;
        }
        self.start -= self.start % 2;
    }
    fn read(&self, t: i128) -> i128 {
        let mut left = self.start + self.period - t;
        let (past, now) = if left < 0 {
            left += self.period;
            (if left >= 0 { self.cur } else { 0 }, 0)
        } else {
            (self.prev, self.cur)
        };
        if now == 0 && past <= 1 {
            past
        } else {
            (past * left + now * self.period) / self.period
        }
    }
}

proptest! {
    #![proptest_config(config(400))]
    #[test]
    fn rates_follow_the_formula(
        period in prop_oneof![1_u32..50, 1_u32..100_000, 1_u32..1 << 29],
        origin in prop_oneof![Just(0_u64), Just((1 << 32) - 500), any::<u32>().prop_map(u64::from)],
        steps in prop::collection::vec((0_u64..4, 0_u64..2_000, 0_u32..1_000, any::<bool>()), 1..60),
    ) {
        let mut rate = Rate::IDLE;
        // Long before the first event nothing was counted.
        let far = -4 * i128::from(period) - 2;
        let mut naive = NaiveRate { start: i128::from(origin) + far, cur: 0, prev: 0, period: i128::from(period) };
        let mut t = origin;
        for (scale, step, n, settle) in steps {
            // Steps around the period and its double are where mistakes are.
            let until = t + match scale {
                0 => step,
                1 => u64::from(period) * step / 1_000,
                2 => (u64::from(period) + step).saturating_sub(1_000),
                _ => (u64::from(period) * 2 + step).saturating_sub(1_000),
            };
            // Tables look after rates long before 32 bits become ambiguous; here, about every six days.
            while until - t > 1 << 29 {
                t += 1 << 29;
                rate.settle(t as u32, period);
            }
            t = until;
            if settle {
                rate.settle(t as u32, period);
            }
            prop_assert_eq!(i128::from(rate.read(t as u32, period)), naive.read(i128::from(t)), "at {}", t);
            if n > 0 {
                rate.add(n, t as u32, period);
                naive.add(i128::from(n), i128::from(t));
                prop_assert_eq!(i128::from(rate.read(t as u32, period)), naive.read(i128::from(t)), "added at {}", t);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Upsert(u32),
    Track(u32),
    Untrack(usize),
    Touch(usize),
    Peek(u32),
    Remove(u32),
    ClearOdd,
    Maintain,
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0_u32..12;
    prop_oneof![
        4 => key.clone().prop_map(Op::Upsert),
        4 => key.clone().prop_map(Op::Track),
        3 => any::<usize>().prop_map(Op::Untrack),
        1 => any::<usize>().prop_map(Op::Touch),
        1 => key.clone().prop_map(Op::Peek),
        1 => key.prop_map(Op::Remove),
        1 => Just(Op::ClearOdd),
        1 => Just(Op::Maintain),
        4 => prop_oneof![0_u64..3, 0_u64..60, 0_u64..400].prop_map(Op::Wait),
    ]
}

#[derive(Clone, Debug)]
struct NaiveEntry {
    date: u64,
    uses: u32,
    starts: u64,
}

struct Naive {
    entries: BTreeMap<u32, NaiveEntry>,
    size: usize,
    lifetime: Option<u64>,
    nopurge: bool,
    gauge: bool,
    now: u64,
}

impl Naive {
    fn age(&mut self) {
        let Some(lifetime) = self.lifetime else {
            return;
        };
        let now = self.now;
        self.entries
            .retain(|_, e| e.uses > 0 || e.date + lifetime > now);
        for e in self.entries.values_mut() {
            while e.date + lifetime <= now {
                e.date += lifetime;
            }
        }
    }
    /// Creates or refreshes; with the keys of which one had to be evicted. `None`: refused.
    fn enter(&mut self, key: u32) -> Option<Vec<u32>> {
        let mut victims = Vec::new();
        if !self.entries.contains_key(&key) && self.entries.len() >= self.size {
            let oldest = self
                .entries
                .values()
                .filter(|e| e.uses == 0)
                .map(|e| e.date)
                .min();
            if self.nopurge || oldest.is_none() {
                return None;
            }
            victims = self
                .entries
                .iter()
                .filter(|(_, e)| e.uses == 0 && Some(e.date) == oldest)
                .map(|(k, _)| *k)
                .collect();
        }
        self.entries
            .entry(key)
            .or_insert(NaiveEntry {
                date: 0,
                uses: 0,
                starts: 0,
            })
            .date = self.now;
        Some(victims)
    }
    fn leave(&mut self, key: u32) {
        let e = self.entries.get_mut(&key).unwrap();
        e.uses -= 1;
        // Without a lifetime there is no date, and leaving counts as being touched.
        if self.gauge || (self.lifetime.is_none() && e.uses == 0) {
            e.date = self.now;
        }
    }
}

fn living(t: &Table, now: u64) -> BTreeMap<u32, (u32, u64, u32)> {
    let mut found = BTreeMap::new();
    let mut cursor = Cursor::default();
    while !t.dump(&mut cursor, now, 3, |e| {
        let key = u32::from_be_bytes(e.key().try_into().unwrap());
        let starts = e.get(D::ConnCnt, 0, now).unwrap();
        assert!(
            found
                .insert(key, (e.uses(), starts, e.expires_in_ms(now)))
                .is_none(),
            "seen twice"
        );
    }) {}
    found
}

proptest! {
    #![proptest_config(config(300))]
    #[test]
    fn one_shard_behaves_like_the_model(
        size in 1_usize..8,
        lifetime in prop_oneof![Just(None), (1_u32..300).prop_map(Some)],
        nopurge: bool,
        gauge: bool,
        ops in prop::collection::vec(op(), 1..150),
    ) {
        let mut build = spec("integer").size(size).store(if gauge { "conn_cnt,conn_cur" } else { "conn_cnt" });
        if let Some(ms) = lifetime {
            build = build.expire(ms);
        }
        if nopurge {
            build = build.nopurge();
        }
        let t = table(build);
        let mut naive = Naive { entries: BTreeMap::new(), size, lifetime: lifetime.map(u64::from), nopurge, gauge, now: 1_000 };
        let mut held: Vec<(u32, EntryRef)> = Vec::new();
        for op in ops {
            let now = naive.now;
            match op {
                Op::Wait(ms) => {
                    naive.now += ms;
                    naive.age();
                }
                Op::Upsert(key) | Op::Track(key) => {
                    let tracks = matches!(op, Op::Track(_));
                    let got = if tracks {
                        t.track(&number(key), now).map(Some)
                    } else {
                        t.upsert(&number(key), now, |_| None)
                    };
                    let expected = naive.enter(key);
                    prop_assert_eq!(got.is_ok(), expected.is_some(), "{:?}", op);
                    if let Some(victims) = expected {
                        let gone: Vec<u32> = victims.iter().copied().filter(|k| t.peek(&number(*k), now, |_| ()).is_none()).collect();
                        prop_assert_eq!(gone.len(), usize::from(!victims.is_empty()), "one of the oldest {:?}", victims);
                        for key in gone {
                            naive.entries.remove(&key);
                        }
                    }
                    if let Ok(Some(at)) = got {
                        held.push((key, at));
                        let e = naive.entries.get_mut(&key).unwrap();
                        e.uses += 1;
                        e.starts += 1;
                    }
                }
                Op::Untrack(which) if !held.is_empty() => {
                    let (key, at) = held.swap_remove(which % held.len());
                    t.untrack(at, now);
                    naive.leave(key);
                }
                Op::Touch(which) if !held.is_empty() => {
                    let (key, at) = held[which % held.len()];
                    t.write(at, |mut e| e.touch(now));
                    naive.entries.get_mut(&key).unwrap().date = now;
                }
                Op::Untrack(_) | Op::Touch(_) => {}
                Op::Peek(key) => {
                    prop_assert_eq!(t.peek(&number(key), now, |_| ()).is_some(), naive.entries.contains_key(&key));
                }
                Op::Remove(key) => {
                    let expected = match naive.entries.get(&key) {
                        None => Removal::Absent,
                        Some(e) if e.uses > 0 => Removal::InUse,
                        Some(_) => Removal::Removed,
                    };
                    prop_assert_eq!(t.remove(&number(key), now), expected);
                    if expected == Removal::Removed {
                        naive.entries.remove(&key);
                    }
                }
                Op::ClearOdd => {
                    let mut cursor = Cursor::default();
                    while !t.clear(&mut cursor, now, 2, |e| e.key()[3] % 2 == 1) {}
                    naive.entries.retain(|k, e| k % 2 == 0 || e.uses > 0);
                }
                Op::Maintain => while t.maintain(now, 2) {},
            }
            let now = naive.now;
            let expected: BTreeMap<_, _> = naive.entries.iter().map(|(k, e)| {
                let left = naive.lifetime.map_or(0, |l| e.date + l - now);
                (*k, (e.uses, e.starts, left as u32))
            }).collect();
            prop_assert_eq!(living(&t, now), expected);
            prop_assert_eq!(t.used(now), naive.entries.len());
        }
        for (_, at) in held {
            t.untrack(at, naive.now);
        }
    }

    /// Many entries left without a refresh: their place is in the middle of the order.
    #[test]
    fn leaving_late_does_not_make_an_entry_younger(order in Just((0..40_u32).collect::<Vec<_>>()).prop_shuffle()) {
        let t = table(spec("integer").size(80).expire(1_000_000).store("gpc0"));
        let held: Vec<EntryRef> = (0..40_u32).map(|k| t.track(&number(k), u64::from(k)).unwrap()).collect();
        for k in 40..80_u32 {
            t.upsert(&number(k), u64::from(k), |_| ()).unwrap();
        }
        for k in order {
            t.untrack(held[k as usize], 500);
        }
        for k in 0..80_u32 {
            t.upsert(&number(1_000 + k), 1_000, |_| ()).unwrap();
            prop_assert!(t.peek(&number(k), 1_000, |_| ()).is_none(), "{} goes next", k);
            prop_assert_eq!(t.used(1_000), 80);
        }
    }

    #[test]
    fn integers_keep_their_low_32_bits(n: i64) {
        let t = table(spec("integer"));
        let key = t.key(&remora_core::rule::sample::Sample::Int(n)).unwrap();
        prop_assert_eq!(key.as_bytes(), &(n as u32).to_be_bytes()[..]);
        prop_assert_eq!(t.key_of_text(n.to_string().as_bytes()), Some(key));
    }

    #[test]
    fn any_text_is_a_key_and_shows_as_one_word(text in prop::collection::vec(any::<u8>(), 0..60), len in 1_usize..40) {
        let t = table(spec("string").len(len));
        let key = t.key_of_text(&text).unwrap();
        let cut: Vec<u8> = text.iter().copied().take_while(|c| *c != 0).take(len).collect();
        prop_assert_eq!(key.as_bytes(), &cut[..]);
        t.upsert(&key, 0, |_| ()).unwrap();
        prop_assert!(t.peek(&key, 0, |e| e.key() == cut).unwrap());
        let shown = table_common::text_of(&t, key.as_bytes());
        let blanks = shown.replace("\\ ", "").contains([' ', '\n', '\t', '\r']);
        prop_assert!(!blanks && shown.is_ascii());
    }

    #[test]
    fn addresses_of_both_families_meet_in_both_tables(bits: u32) {
        let v4 = std::net::Ipv4Addr::from_bits(bits);
        let (four, six) = (table(spec("ip")), table(spec("ipv6")));
        let mapped = v4.to_ipv6_mapped();
        prop_assert_eq!(four.key_of_addr(mapped.into()), four.key_of_addr(v4.into()));
        prop_assert_eq!(six.key_of_addr(mapped.into()), six.key_of_addr(v4.into()));
        prop_assert_eq!(six.key_of_addr(v4.into()), six.key_of_text(v4.to_string().as_bytes()));
    }
}
