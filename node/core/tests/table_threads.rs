//! Tables shared by threads: nothing is lost, `size` is never exceeded and always reached, holders keep what they hold.

mod table_common;
use remora_core::table::{Cursor, DataType as D, EntryRef, Refused, Removal, Table};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use table_common::{Steps, number, spec, table};

fn for_all(t: &Table, now: u64, mut f: impl FnMut(remora_core::table::Entry<'_>)) {
    let mut cursor = Cursor::default();
    while !t.dump(&mut cursor, now, 500, &mut f) {}
}

fn threads(n: u64, f: impl Fn(u64) + Sync) {
    std::thread::scope(|scope| {
        for i in 0..n {
            let f = &f;
            scope.spawn(move || f(i));
        }
    });
}

#[test]
fn size_is_reached_exactly_and_never_exceeded() {
    for (size, expire) in [
        (1, None),
        (100, None),
        (4_095, None),
        (5_000, None),
        (20_000, Some(50_000)),
    ] {
        let mut build = spec("integer").size(size).store("conn_cnt");
        if let Some(ms) = expire {
            build = build.expire(ms);
        }
        let t = table(build);
        threads(4, |thread| {
            let mut steps = Steps(thread + 1);
            for i in 0..30_000 {
                let key = number(steps.next(200_000) as u32);
                t.upsert(&key, i / 100, |mut e| e.inc(D::ConnCnt, 0, 1, 0))
                    .unwrap();
                if i % 1_000 == 0 {
                    assert!(t.used(i / 100) <= size);
                }
            }
        });
        let mut seen = 0;
        for_all(&t, 300, |_| seen += 1);
        assert_eq!((t.used(300), seen), (size, size));
        assert_eq!(t.events().refusals, 0);
    }
}

/// Threads that bring the same new keys at once to a full table: a place that one of them found in vain is given back.
#[test]
fn places_found_in_vain_are_given_back() {
    let t = table(spec("integer").size(5_000).expire(900));
    threads(4, |_| {
        for k in 0..60_000_u32 {
            let now = u64::from(k / 6);
            t.upsert(&number(k), now, |_| ()).unwrap();
        }
    });
    assert_eq!(t.used(1_000_000), 0);
}

/// One thread, many shards: full means full, wherever the last place or the last unused entry is.
#[test]
fn places_are_found_in_other_shards() {
    let size = 5_000_u32;
    let t = table(spec("integer").size(size as usize));
    let mut held: Vec<EntryRef> = (0..size - 1)
        .map(|k| t.track(&number(k), 0).unwrap())
        .collect();
    for k in 0..2_000 {
        t.upsert(&number(1_000_000 + k), 1, |_| ()).unwrap();
        assert_eq!(t.used(1), size as usize);
    }
    held.push(t.track(&number(2_000_000), 2).unwrap());
    for k in 0..100 {
        assert_eq!(t.track(&number(3_000_000 + k), 3), Err(Refused));
    }
    assert_eq!(t.events().refusals, 100);
    for round in 0..100 {
        t.untrack(held.swap_remove(round * 17), 4);
        held.push(t.track(&number(4_000_000 + round as u32), 5).unwrap());
        assert_eq!(t.track(&number(5_000_000), 5), Err(Refused));
        assert_eq!(
            t.remove(&number(4_000_000 + round as u32), 5),
            Removal::InUse
        );
    }
    // A place that was given back elsewhere, then taken by something that can be evicted again.
    t.untrack(held.swap_remove(0), 6);
    t.upsert(&number(6_000_000), 6, |_| ()).unwrap();
    t.upsert(&number(6_000_001), 6, |_| ()).unwrap();
    assert!(t.peek(&number(6_000_000), 6, |_| ()).is_none());
    held.into_iter().for_each(|at| t.untrack(at, 7));
    assert_eq!(t.used(7), size as usize);
}

#[test]
fn nopurge_takes_newcomers_as_soon_as_any_shard_has_an_expired_entry() {
    let size = 5_000_u64;
    let t = table(spec("integer").size(size as usize).nopurge().expire(10_000));
    for k in 0..size {
        t.upsert(&number(k as u32), k, |_| ()).unwrap();
    }
    for k in 0..500 {
        let now = 10_000 + k;
        assert_eq!(
            t.upsert(&number(1_000_000 + k as u32), now - 1, |_| ()),
            Err(Refused)
        );
        assert_eq!(t.upsert(&number(1_000_000 + k as u32), now, |_| ()), Ok(()));
        assert_eq!(t.used(now), size as usize);
    }
    assert_eq!(t.events().evictions, 0);
}

#[test]
fn every_event_is_counted_once() {
    let t = table(
        spec("integer")
            .size(50_000)
            .expire(1_000_000)
            .store("conn_cnt,conn_cur,gpc(3),bytes_out_cnt"),
    );
    let rounds = 20_000_u64;
    threads(4, |thread| {
        let mut steps = Steps(thread + 77);
        let mut held = Vec::new();
        for i in 0..rounds {
            let at = t.track(&number(steps.next(500) as u32), i).unwrap();
            t.write(at, |mut e| {
                e.inc(D::Gpc, 2, 1, i);
                e.inc(D::BytesOutCnt, 0, 1_000, i);
            });
            held.push(at);
            if held.len() > 20 {
                t.untrack(held.swap_remove(steps.next(20) as usize), i);
            }
        }
        held.into_iter().for_each(|at| t.untrack(at, rounds));
    });
    let (mut starts, mut now, mut tags, mut bytes) = (0, 0, 0, 0);
    for_all(&t, rounds, |e| {
        assert_eq!(e.uses(), 0);
        starts += e.get(D::ConnCnt, 0, 0).unwrap();
        now += e.get(D::ConnCur, 0, 0).unwrap();
        tags += e.get(D::Gpc, 2, 0).unwrap();
        bytes += e.get(D::BytesOutCnt, 0, 0).unwrap();
    });
    assert_eq!(
        (starts, now, tags, bytes),
        (4 * rounds, 0, 4 * rounds, 4_000 * rounds)
    );
}

/// Everything at once, in a small full table with expiry: what is held is never lost, and all adds up in the end.
#[test]
fn stress() {
    for size in [64_usize, 4_500] {
        let t = table(
            spec("integer")
                .size(size)
                .expire(40)
                .store("conn_cnt,conn_cur,gpc0_rate(50)"),
        );
        let clock = AtomicU64::new(1_000);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4_u64)
                .map(|thread| {
                    let (t, clock) = (&t, &clock);
                    scope.spawn(move || {
                        let mut steps = Steps(thread * 31 + size as u64);
                        let mut held: Vec<(u32, EntryRef)> = Vec::new();
                        for i in 0..40_000 {
                            if i % 50 == 0 {
                                clock.fetch_add(1, Relaxed);
                            }
                            let now = clock.load(Relaxed);
                            let key = steps.next(3 * size as u64) as u32;
                            match steps.next(10) {
                                0..=3 => {
                                    if let Ok(at) = t.track(&number(key), now) {
                                        held.push((key, at));
                                    }
                                }
                                4..=5 => {
                                    let _ = t.upsert(&number(key), now, |mut e| {
                                        e.inc(D::Gpc0, 0, 1, now)
                                    });
                                }
                                6 => drop(t.remove(&number(key), now)),
                                7 => {
                                    let seen = t.peek(&number(key), now, |e| {
                                        u32::from_be_bytes(e.key().try_into().unwrap())
                                    });
                                    assert!(seen.is_none_or(|seen| seen == key));
                                }
                                8 if i % 100 == 0 => assert!(t.used(now) <= size),
                                _ => {}
                            }
                            if held.len() > 12 {
                                let (key, at) = held.swap_remove(steps.next(12) as usize);
                                t.write(at, |mut e| {
                                    e.touch(now);
                                    assert_eq!(e.entry().key(), key.to_be_bytes());
                                    assert!(
                                        e.entry().uses() > 0
                                            && e.entry().get(D::ConnCur, 0, now) > Some(0)
                                    );
                                });
                                t.untrack(at, now);
                            }
                        }
                        held.into_iter()
                            .for_each(|(_, at)| t.untrack(at, clock.load(Relaxed)));
                    })
                })
                .collect();
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    let now = clock.load(Relaxed);
                    t.maintain(now, 300);
                    let mut cursor = Cursor::default();
                    while !t.clear(&mut cursor, now, 100, |e| e.key()[3] == 7) {}
                    for_all(&t, now, |e| assert!(e.expires_in_ms(now) <= 40));
                }
            });
            workers
                .into_iter()
                .for_each(|worker| worker.join().unwrap());
            stop.store(true, Relaxed);
        });
        let now = clock.load(Relaxed);
        let mut seen = 0;
        for_all(&t, now, |e| {
            seen += 1;
            assert_eq!((e.uses(), e.get(D::ConnCur, 0, now)), (0, Some(0)));
        });
        assert_eq!(t.used(now), seen);
        assert_eq!(t.used(now + 40), 0, "nothing is left behind");
    }
}

#[test]
fn a_dump_meets_what_stays_exactly_once() {
    let t = table(spec("integer").size(20_000));
    let stop = AtomicBool::new(false);
    for k in 0..3_000 {
        t.upsert(&number(k), 0, |_| ()).unwrap();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut steps = Steps(5);
            while !stop.load(Relaxed) {
                let key = number(1_000_000 + steps.next(10_000) as u32);
                if steps.next(2) == 0 {
                    let _ = t.upsert(&key, 1, |_| ());
                } else {
                    t.remove(&key, 1);
                }
            }
        });
        for _ in 0..20 {
            let mut met = vec![0_u8; 3_000];
            for_all(&t, 1, |e| {
                let key = u32::from_be_bytes(e.key().try_into().unwrap()) as usize;
                if let Some(count) = met.get_mut(key) {
                    *count += 1;
                }
            });
            assert!(met.iter().all(|count| *count == 1));
        }
        stop.store(true, Relaxed);
    });
}
