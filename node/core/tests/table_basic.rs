//! A table's life: tracking, looking up, expiry, full tables.

mod table_common;
use remora_core::table::{Cursor, DataType as D, Refused, Removal};
use table_common::{ip, spec, table, text_of};

#[test]
fn tracking_counts_and_releases() {
    let t = table(
        spec("ip")
            .store("conn_cnt,conn_cur,conn_rate(10s),http_req_rate(10s)")
            .expire(60_000),
    );
    let a = t.track(&ip("127.0.0.1"), 1_000).unwrap();
    let b = t.track(&ip("127.0.0.1"), 1_500).unwrap();
    assert_eq!(a, b);
    t.read(a, |e| {
        assert_eq!(e.uses(), 2);
        assert_eq!(e.get(D::ConnCnt, 0, 1_500), Some(2));
        assert_eq!(e.get(D::ConnCur, 0, 1_500), Some(2));
        assert_eq!(e.get(D::ConnRate, 0, 1_500), Some(2));
        assert_eq!(e.get(D::HttpReqRate, 0, 1_500), Some(0));
        assert_eq!(e.get(D::HttpReqCnt, 0, 1_500), None);
        assert_eq!(e.expires_in_ms(2_500), 59_000);
        assert_eq!(e.idle_ms(2_500), 1_000);
        assert_eq!(text_of(&t, e.key()), "127.0.0.1");
    });
    t.untrack(a, 3_000);
    t.untrack(b, 4_000);
    let seen = t.peek(&ip("127.0.0.1"), 5_000, |e| {
        (
            e.uses(),
            e.get(D::ConnCur, 0, 5_000),
            e.get(D::ConnCnt, 0, 5_000),
            e.expires_in_ms(5_000),
        )
    });
    assert_eq!(
        seen,
        Some((0, Some(0), Some(2), 59_000)),
        "ending refreshes when conn_cur is stored"
    );
    assert!(t.peek(&ip("127.0.0.2"), 5_000, |_| ()).is_none());
    assert_eq!(t.used(5_000), 1);
    assert_eq!(t.used(64_000), 0);
}

#[test]
fn expired_is_absent_to_the_millisecond() {
    let t = table(spec("ip").store("gpc0").expire(10_000));
    t.upsert(&ip("1.1.1.1"), 500, |mut e| e.inc(D::Gpc0, 0, 3, 500))
        .unwrap();
    assert!(
        t.peek(&ip("1.1.1.1"), 10_499, |e| e.expires_in_ms(10_499) == 1)
            .unwrap()
    );
    assert!(t.peek(&ip("1.1.1.1"), 10_500, |_| ()).is_none());
    let fresh = t.upsert(&ip("1.1.1.1"), 10_500, |mut e| e.inc(D::Gpc0, 0, 1, 10_500));
    assert_eq!(fresh, Ok(Some(1)), "a new life starts at zero");
    assert_eq!(t.events().expirations, 1);
    assert_eq!(t.used(10_500), 1);
}

#[test]
fn an_entry_in_use_gets_another_lifetime() {
    let t = table(spec("ip").store("gpc0").expire(10_000));
    let held = t.track(&ip("1.1.1.1"), 0).unwrap();
    t.write(held, |mut e| e.add(D::Gpc0, 0, 5, 0));
    assert_eq!(t.read(held, |e| e.expires_in_ms(10_000)), 10_000);
    assert_eq!(
        t.peek(&ip("1.1.1.1"), 34_000, |e| e.expires_in_ms(34_000)),
        Some(6_000)
    );
    assert_eq!(t.used(34_000), 1);
    t.untrack(held, 34_000); // no conn_cur: not refreshed
    assert_eq!(
        t.peek(&ip("1.1.1.1"), 34_000, |e| e.expires_in_ms(34_000)),
        Some(6_000)
    );
    assert_eq!(t.used(39_999), 1);
    assert_eq!(t.used(40_000), 0);
}

#[test]
fn oldest_goes_first_and_holders_stay() {
    let t = table(spec("ip").size(3).store("gpc0"));
    let held = t.track(&ip("10.0.0.1"), 1).unwrap();
    for (i, now) in [(2, 2), (3, 3), (4, 4)] {
        t.upsert(&ip(&format!("10.0.0.{i}")), now, |_| ()).unwrap();
    }
    assert!(t.peek(&ip("10.0.0.1"), 5, |_| ()).is_some());
    assert!(t.peek(&ip("10.0.0.2"), 5, |_| ()).is_none());
    assert_eq!((t.used(5), t.events().evictions), (3, 1));
    let h3 = t.track(&ip("10.0.0.3"), 6).unwrap();
    let h4 = t.track(&ip("10.0.0.4"), 6).unwrap();
    assert_eq!(t.track(&ip("10.0.0.5"), 7), Err(Refused));
    assert_eq!(t.events().refusals, 1);
    t.untrack(h3, 8);
    let h5 = t.track(&ip("10.0.0.5"), 9).unwrap();
    assert!(t.peek(&ip("10.0.0.3"), 9, |_| ()).is_none());
    for h in [held, h4, h5] {
        t.untrack(h, 10);
    }
    assert_eq!(t.used(11), 3);
}

#[test]
fn nopurge_refuses_until_something_expires() {
    let t = table(spec("ip").size(2).nopurge().expire(1_000));
    t.upsert(&ip("10.0.0.1"), 0, |_| ()).unwrap();
    t.upsert(&ip("10.0.0.2"), 500, |_| ()).unwrap();
    assert_eq!(t.upsert(&ip("10.0.0.3"), 999, |_| ()), Err(Refused));
    assert_eq!(t.upsert(&ip("10.0.0.3"), 1_000, |_| ()), Ok(()));
    assert_eq!(t.used(1_000), 2);
    assert_eq!(
        (
            t.events().refusals,
            t.events().evictions,
            t.events().expirations
        ),
        (1, 0, 1)
    );
}

#[test]
fn remove_and_clear_spare_what_is_in_use() {
    let t = table(spec("ip").size(100).store("gpc0"));
    let held = t.track(&ip("10.0.0.1"), 0).unwrap();
    for i in 2..=9 {
        t.upsert(&ip(&format!("10.0.0.{i}")), 0, |mut e| {
            e.set(D::Gpc0, 0, i, 0)
        })
        .unwrap();
    }
    assert_eq!(t.remove(&ip("10.0.0.1"), 1), Removal::InUse);
    assert_eq!(t.remove(&ip("10.0.0.2"), 1), Removal::Removed);
    assert_eq!(t.remove(&ip("10.0.0.2"), 1), Removal::Absent);
    let mut cursor = Cursor::default();
    while !t.clear(&mut cursor, 1, 3, |e| e.get(D::Gpc0, 0, 1) > Some(5)) {}
    assert_eq!(t.used(1), 4, "1 (held), 3, 4, 5");
    let mut cursor = Cursor::default();
    while !t.clear(&mut cursor, 1, 1_000, |_| true) {}
    assert_eq!(t.used(1), 1);
    t.untrack(held, 2);
}

#[test]
fn pointers_find_entries() {
    let t = table(spec("ip").size(100_000).expire(1_000));
    let key = ip("10.0.0.1");
    t.upsert(&key, 0, |_| ()).unwrap();
    let ptr = t.peek(&key, 0, |e| e.ptr()).unwrap();
    assert_eq!(t.entry_by_ptr(ptr, 0), Some(key));
    assert_eq!(t.entry_by_ptr(ptr, 1_000), None, "expired");
    for wrong in [0, 1, ptr + 1, ptr ^ (1 << 40), u64::MAX] {
        assert_eq!(t.entry_by_ptr(wrong, 0), None);
    }
}
