//! Keys and data types by example: what the reference says, as tables of (input, expected).

mod table_common;
use remora_core::rule::sample::{Sample, SampleType};
use remora_core::table::{DataType as D, Key, KeyType, v6_to_v4};
use std::borrow::Cow;
use std::net::IpAddr;
use table_common::{ip, number, spec, table, text_of};

fn addr(text: &str) -> Sample<'static> {
    match text.parse().unwrap() {
        IpAddr::V4(a) => Sample::Ipv4(a),
        IpAddr::V6(a) => Sample::Ipv6(a),
    }
}
fn text(s: &str) -> Sample<'_> {
    Sample::Str(Cow::Borrowed(s.as_bytes()))
}
fn bin(b: &[u8]) -> Sample<'_> {
    Sample::Bin(Cow::Borrowed(b))
}
fn method(s: &str) -> Sample<'_> {
    Sample::Method(Cow::Borrowed(s.as_bytes()))
}

#[test]
fn samples_become_keys() {
    let hex = |digits: &str| format!("{digits:0<64}");
    let cases: Vec<(&str, Sample<'_>, Option<String>)> = vec![
        ("ip", addr("1.2.3.4"), Some("1.2.3.4".into())),
        ("ip", addr("::ffff:1.2.3.4"), Some("1.2.3.4".into())),
        ("ip", addr("::1"), Some("0.0.0.1".into())),
        ("ip", addr("2002:102:304::9"), Some("1.2.3.4".into())),
        ("ip", addr("2001:db8::1"), None),
        ("ip", Sample::Int(0x0102_0304), Some("1.2.3.4".into())),
        ("ip", Sample::Int(-1), Some("255.255.255.255".into())),
        ("ip", Sample::Bool(true), None),
        ("ip", text("1.2.3.4"), Some("1.2.3.4".into())),
        ("ip", text("01.2.3.4"), None),
        ("ip", text("1.2.3.4 "), None),
        ("ip", text("1.2.3"), None),
        ("ip", text("::1"), None),
        ("ip", text("\u{fffd}"), None),
        ("ip", bin(&[1, 2, 3, 4]), None),
        ("ip", method("GET"), None),
        ("ipv6", addr("1.2.3.4"), Some("::ffff:1.2.3.4".into())),
        (
            "ipv6",
            addr("2001:DB8:0:0:1:0:0:1"),
            Some("2001:db8::1:0:0:1".into()),
        ),
        ("ipv6", Sample::Int(1), Some("::ffff:0.0.0.1".into())),
        ("ipv6", text("1.2.3.4"), Some("::ffff:1.2.3.4".into())),
        ("ipv6", text("::1.2.3.4"), Some("::1.2.3.4".into())),
        ("ipv6", text("::0.0.5.6"), Some("::506".into())),
        ("ipv6", text("::1"), Some("::1".into())),
        ("ipv6", text("::"), Some("::".into())),
        (
            "ipv6",
            text("1:2:3:0:5:6:7:8"),
            Some("1:2:3:0:5:6:7:8".into()),
        ),
        ("ipv6", text("fe80::1%lo"), None),
        ("ipv6", bin(&[0; 16]), None),
        ("ipv6", Sample::Bool(false), None),
        ("integer", Sample::Int(4_294_967_297), Some("1".into())),
        ("integer", Sample::Int(-1), Some("4294967295".into())),
        ("integer", Sample::Bool(true), Some("1".into())),
        ("integer", addr("1.2.3.4"), Some("16909060".into())),
        ("integer", addr("::1"), None),
        ("integer", text("abc"), Some("0".into())),
        ("integer", text("12abc"), Some("12".into())),
        ("integer", text("+7"), Some("7".into())),
        ("integer", text("-5"), Some("4294967291".into())),
        ("integer", text("-"), Some("0".into())),
        ("integer", text("1.5"), Some("1".into())),
        ("integer", text("0x10"), Some("0".into())),
        (
            "integer",
            text("99999999999999999999"),
            Some("4294967295".into()),
        ),
        ("integer", text("-99999999999999999999"), Some("0".into())),
        ("integer", text(""), None),
        ("integer", bin(b"1"), None),
        ("integer", method("GET"), None),
        ("string", text("some key"), Some("some\\ key".into())),
        (
            "string",
            text("a\nb\t\r\x1b"),
            Some("a\\nb\\t\\r\\e".into()),
        ),
        (
            "string",
            text("\u{7f}=\\\u{fc}"),
            Some("\\x7F\\=\\\\\\xC3\\xBC".into()),
        ),
        ("string", text("a\0b"), Some("a".into())),
        ("string", text(""), Some(String::new())),
        (
            "string",
            text("0123456789012345678901234567890123456789"),
            Some("0123456789012345678901234567890".into()),
        ),
        ("string", addr("1.2.3.4"), Some("1.2.3.4".into())),
        ("string", addr("2001:db8::1"), Some("2001:db8::1".into())),
        ("string", Sample::Int(-12), Some("-12".into())),
        ("string", Sample::Bool(false), Some("0".into())),
        ("string", bin(b"ab\xff\0c"), Some("ab\\xFF".into())),
        ("string", method("GET"), Some("GET".into())),
        ("binary", bin(&[0xab, 0, 1]), Some(hex("AB0001"))),
        ("binary", text("GET"), Some(hex("474554"))),
        ("binary", method("GET"), Some(hex("474554"))),
        ("binary", Sample::Int(1), Some(hex("0000000000000001"))),
        ("binary", Sample::Bool(true), Some(hex("0000000000000001"))),
        ("binary", addr("1.2.3.4"), Some(hex("01020304"))),
        (
            "binary",
            addr("2001:db8::1"),
            Some(hex("20010DB8000000000000000000000001")),
        ),
    ];
    for (key_type, sample, expected) in cases {
        let t = table(spec(key_type));
        let key = t.key(&sample);
        assert_eq!(
            key.as_ref().map(|k| text_of(&t, k.as_bytes())),
            expected,
            "{sample:?} to {key_type}"
        );
        let Some(key) = key else { continue };
        // What was cast can be stored, found, and comes back as it went in.
        t.upsert(&key, 0, |_| ()).unwrap();
        assert_eq!(t.peek(&key, 0, |e| e.to_key()), Some(key.clone()));
        let again = t.peek(&key, 0, |e| t.key(&e.key_sample())).unwrap();
        assert_eq!(again, Some(key));
    }
}

#[test]
fn an_explicit_len_is_exact() {
    let long = "x".repeat(101);
    for (key_type, len, shown) in [
        ("string", 32, 32),
        ("string", 5, 5),
        ("binary", 3, 6),
        ("string", 100, 100),
    ] {
        let t = table(spec(key_type).len(len));
        let key = t.key(&text(&long)).unwrap();
        assert_eq!(text_of(&t, key.as_bytes()).len(), shown);
        t.upsert(&key, 0, |_| ()).unwrap();
        assert_eq!(t.used(0), 1);
        assert!(
            t.peek(&t.key(&text(&long[1..])).unwrap(), 0, |_| ())
                .is_some(),
            "equal after the cut"
        );
    }
}

#[test]
fn keys_typed_by_people() {
    for (key_type, typed, expected) in [
        ("ip", "9.9.9.9", Some("9.9.9.9")),
        ("ip", "::ffff:9.9.9.9", Some("9.9.9.9")),
        ("ip", "2001:db8::1", None),
        ("ip", "zz", None),
        ("ip", "", None),
        ("ipv6", "9.9.9.9", Some("::ffff:9.9.9.9")),
        ("ipv6", "2001:db8::1", Some("2001:db8::1")),
        ("integer", "12", Some("12")),
        ("integer", "4294967297", Some("1")),
        ("integer", "", None),
        ("string", "some key", Some("some\\ key")),
        ("string", "a=b\\c", Some("a\\=b\\\\c")),
        ("binary", "01", None),
    ] {
        let t = table(spec(key_type));
        let key = t.key_of_text(typed.as_bytes());
        assert_eq!(
            key.map(|k| text_of(&t, k.as_bytes())).as_deref(),
            expected,
            "{typed:?} for {key_type}"
        );
    }
}

#[test]
fn casts_refused_when_the_configuration_is_read() {
    use KeyType as K;
    use SampleType as S;
    for (to, refused) in [
        (K::Ip, &[S::Bool, S::Bin, S::Method][..]),
        (K::Ipv6, &[S::Bool, S::Bin, S::Method]),
        (K::Integer, &[S::Ipv6, S::Bin, S::Method]),
        (K::String, &[]),
        (K::Binary, &[]),
    ] {
        for from in [
            S::Any,
            S::Bool,
            S::Int,
            S::Addr,
            S::Ipv4,
            S::Ipv6,
            S::Str,
            S::Bin,
            S::Method,
        ] {
            assert_eq!(
                to.accepts(from),
                !refused.contains(&from),
                "{from:?} to {to:?}"
            );
        }
    }
    assert_eq!(
        v6_to_v4("::ffff:0:1.2.3.4".parse().unwrap()),
        None,
        "translated is not mapped"
    );
    for name in ["ip", "ipv6", "integer", "string", "binary"] {
        assert_eq!(KeyType::from_name(name).unwrap().name(), name);
    }
    assert_eq!(KeyType::from_name("ipv4"), Some(K::Ip));
    assert_eq!(KeyType::from_name("text"), None);
}

#[test]
fn a_key_of_another_form_is_simply_absent() {
    let t = table(spec("ip"));
    let long = Key::from_stored(&[1, 2, 3, 4, 5]);
    assert!(t.upsert(&long, 0, |_| ()).is_err());
    assert!(t.peek(&long, 0, |_| ()).is_none());
    assert_eq!(t.used(0), 0);
}

#[test]
fn arrays_stand_in_for_scalars_in_rules_only() {
    let t = table(spec("ip").store("gpt(2),gpc(2),gpc_rate(1,1s)"));
    for (what, index, rules, exact) in [
        (D::Gpc0, 0, true, false),
        (D::Gpc1, 0, true, false),
        (D::Gpt0, 0, true, false),
        (D::Gpc0Rate, 0, true, false),
        (D::Gpc1Rate, 0, false, false), // the array has one element
        (D::Gpc, 1, true, true),
        (D::Gpc, 2, false, false),
        (D::Gpc0, 1, false, false),
        (D::Gpt, 0, true, true),
        (D::ConnCnt, 0, false, false),
    ] {
        assert_eq!(
            (t.stores(what, index), t.stores_exact(what, index)),
            (rules, exact),
            "{what:?} {index}"
        );
    }
    t.upsert(&ip("1.1.1.1"), 0, |mut e| {
        assert_eq!(e.inc(D::Gpc0, 0, 1, 0), Some(1));
        assert_eq!(e.inc(D::Gpc1, 0, 4, 0), Some(4));
        assert!(e.set(D::Gpt0, 0, 77, 0));
        assert!(!e.set_exact(D::Gpt0, 0, 1, 0));
        assert!(e.set_exact(D::Gpt, 1, 78, 0));
        let e = e.entry();
        assert_eq!(
            (e.get(D::Gpc, 0, 0), e.get(D::Gpc, 1, 0)),
            (Some(1), Some(4))
        );
        assert_eq!(
            (e.get(D::Gpt, 0, 0), e.get(D::Gpt, 1, 0)),
            (Some(77), Some(78))
        );
        assert_eq!(
            (e.get(D::GpcRate, 0, 0), e.get(D::GpcRate, 1, 0)),
            (Some(1), None)
        );
        assert_eq!(
            (e.get_exact(D::Gpc0, 0, 0), e.get_exact(D::Gpc, 0, 0)),
            (None, Some(1))
        );
    })
    .unwrap();
    let scalars = table(spec("ip").store("gpc0,gpc1,gpt0"));
    assert!(!scalars.stores(D::Gpc, 0), "array names never mean scalars");
}

#[test]
fn counters_stop_gauges_do_not_go_below_zero_and_setting_cuts() {
    let t = table(
        spec("ip").store("server_id,gpt0,gpc0,conn_cnt,conn_cur,bytes_in_cnt,http_req_rate(1s)"),
    );
    t.upsert(&ip("1.1.1.1"), 0, |mut e| {
        for (what, add, then, expected) in [
            (D::Gpc0, u64::MAX, 1, u64::from(u32::MAX)),
            (D::ConnCnt, u64::from(u32::MAX) - 1, 1, u64::from(u32::MAX)),
            (D::BytesInCnt, u64::from(u32::MAX), 1, 1 << 32),
            (D::BytesInCnt, u64::MAX, 1, u64::MAX),
            (D::HttpReqRate, 1 << 40, 1, u64::from(u32::MAX)),
        ] {
            assert!(e.add(what, 0, add, 0) && e.add(what, 0, then, 0));
            assert_eq!(e.entry().get(what, 0, 0), Some(expected), "{what:?}");
        }
        assert!(e.add(D::ConnCur, 0, 1, 0) && e.sub(D::ConnCur, 0, 2));
        assert_eq!(e.entry().get(D::ConnCur, 0, 0), Some(0));
        assert!(!e.sub(D::SessCnt, 0, 1));
        assert!(!e.add(D::SessCnt, 0, 1, 0));
        for (what, value, expected) in [
            (D::Gpc0, -1_i64, u64::from(u32::MAX)),
            (D::Gpc0, 4_294_967_297, 1),
            (D::BytesInCnt, -1, u64::MAX),
            (D::ServerId, -2, -2_i64 as u64),
            (D::Gpt0, 5, 5),
        ] {
            assert!(e.set(what, 0, value as u64, 0));
            assert_eq!(e.entry().get(what, 0, 0), Some(expected), "{what:?}");
        }
        assert_eq!(e.clr(D::Gpc0, 0), Some(1));
        assert_eq!(e.clr(D::Gpc0, 0), Some(0));
        assert_eq!(e.clr(D::Gpc1, 0), None);
        e.set(D::BytesInCnt, 0, 2047, 0);
        assert_eq!(e.entry().kbytes(D::BytesInCnt), Some(1));
        assert_eq!(e.entry().kbytes(D::BytesOutCnt), None);
    })
    .unwrap();
}

#[test]
fn incrementing_counts_on_counter_and_rate_and_tells_the_new_value() {
    for (store, first, second) in [
        ("gpc0,gpc0_rate(10s)", Some(2), Some(5)),
        ("gpc0", Some(2), Some(5)),
        ("gpc0_rate(10s)", Some(2), Some(3)), // only the current period
        ("gpt0", None, None),
    ] {
        let t = table(spec("ip").store(store));
        let got = t.upsert(&ip("1.1.1.1"), 0, |mut e| {
            (e.inc(D::Gpc0, 0, 2, 0), e.inc(D::Gpc0, 0, 3, 15_000))
        });
        assert_eq!(got, Ok((first, second)), "{store}");
    }
}

#[test]
fn a_rate_that_was_set_reads_so_for_a_period_then_fades() {
    let t = table(spec("ip").store("http_req_rate(10s)"));
    t.upsert(&ip("1.1.1.1"), 100, |mut e| {
        e.set(D::HttpReqRate, 0, 50, 100)
    })
    .unwrap();
    for (now, expected) in [(100, 50), (10_100, 50), (15_100, 25), (20_100, 0)] {
        assert_eq!(
            t.peek(&ip("1.1.1.1"), now, |e| e.get(D::HttpReqRate, 0, now)),
            Some(Some(expected))
        );
    }
}

#[test]
fn the_factor_rounds_up_when_adding_and_multiplies_when_reading() {
    let t = table(
        spec("ip")
            .factor(1024)
            .store("bytes_in_cnt,bytes_in_rate(1s),bytes_out_rate(1s),http_req_rate(1s)"),
    );
    t.upsert(&ip("1.1.1.1"), 0, |mut e| {
        e.inc(D::BytesInCnt, 0, 1025, 0);
        e.add(D::BytesOutRate, 0, 1 << 41, 0); // does not fit 32 bits without a factor
        e.add(D::HttpReqRate, 0, 3, 0);
        let e = e.entry();
        assert_eq!(e.get(D::BytesInCnt, 0, 0), Some(1025));
        assert_eq!(e.get(D::BytesInRate, 0, 0), Some(2048));
        assert_eq!(e.get(D::BytesOutRate, 0, 0), Some(1 << 41));
        assert_eq!(e.get(D::HttpReqRate, 0, 0), Some(3));
        assert_eq!(e.window(D::BytesInRate, 0).unwrap().cur, 2);
    })
    .unwrap();
}

#[test]
fn servers_are_remembered_by_name() {
    let t = table(spec("string").store("server_id,server_name"));
    let key = t.key(&text("/a")).unwrap();
    t.upsert(&key, 0, |mut e| {
        assert_eq!(e.entry().server_key(), None);
        assert!(e.set(D::ServerId, 0, 2, 0) && e.set_server_key(b"s2"));
        assert_eq!(e.entry().server_key().as_deref(), Some(&b"s2"[..]));
        assert!(e.set_server_key(b"s1") && e.set_server_key(b"s2"));
        assert_eq!(e.entry().get(D::ServerKey, 0, 0), Some(1));
    })
    .unwrap();
    let none = table(spec("string"));
    none.upsert(&key, 0, |mut e| assert!(!e.set_server_key(b"s2")))
        .unwrap();
}

/// All 27 data types side by side do not disturb each other.
#[test]
fn every_data_type_has_its_own_place() {
    let scalars = "server_id,gpt0,gpc0,gpc0_rate(1s),conn_cnt,conn_rate(1s),conn_cur,sess_cnt,sess_rate(1s),http_req_cnt,\
        http_req_rate(1s),http_err_cnt,http_err_rate(1s),bytes_in_cnt,bytes_in_rate(1s),bytes_out_cnt,bytes_out_rate(1s),\
        gpc1,gpc1_rate(1s),server_key,http_fail_cnt,http_fail_rate(1s),glitch_cnt,glitch_rate(1s)";
    let arrays = "server_id,conn_cur,gpt(100),gpc(100),gpc_rate(100,1s),glitch_cnt";
    for store in [scalars, arrays] {
        let t = table(spec("string").len(7).store(store));
        let all: Vec<_> = t
            .spec()
            .store
            .iter()
            .flat_map(|s| (0..s.elements).map(|i| (s.data_type, i)))
            .collect();
        let key = t.key(&text("1234567")).unwrap();
        t.upsert(&key, 0, |mut e| {
            for (n, (what, index)) in all.iter().enumerate() {
                assert!(e.set_exact(*what, *index, n as u64 + 1, 0));
            }
        })
        .unwrap();
        t.peek(&key, 0, |e| {
            for (n, (what, index)) in all.iter().enumerate() {
                assert_eq!(
                    e.get_exact(*what, *index, 0),
                    Some(n as u64 + 1),
                    "{what:?} {index}"
                );
            }
            assert_eq!(e.key(), b"1234567");
        })
        .unwrap();
    }
}

/// The captured dump of the reference: nine connections with one request each within a period.
#[test]
fn the_captured_entry() {
    let t = table(spec("ip").size(102_400).expire(300_000).store(
        "conn_cnt,conn_rate(10s),conn_cur,sess_cnt,sess_rate(10s),http_req_cnt,http_req_rate(10s),http_err_cnt,\
         http_err_rate(10s),bytes_in_cnt,bytes_in_rate(10s),gpt(2),gpc(2),gpc_rate(2,10s)",
    ));
    let key = ip("127.0.0.1");
    for i in 0..9_u64 {
        let now = 1_000 + i * 20;
        let at = t.track(&key, now).unwrap();
        t.write(at, |mut e| {
            e.inc(D::SessCnt, 0, 1, now);
            e.inc(D::HttpReqCnt, 0, 1, now);
            e.inc(D::Gpc, 0, 1, now);
            e.inc(D::BytesInCnt, 0, if i == 0 { 84 } else { 88 }, now);
            if i < 2 {
                e.inc(D::HttpErrCnt, 0, 1, now);
            }
        });
        t.untrack(at, now);
    }
    let now = 1_176; // 16 ms after the last one ended
    let mut line = String::new();
    t.peek(&key, now, |e| {
        line = format!("use={} exp={}", e.uses(), e.expires_in_ms(now));
        for s in &t.spec().store {
            for i in 0..s.elements {
                line += &format!(" {}", s.data_type.element_name(i));
                if s.period_ms > 0 {
                    line += &format!("({})", s.period_ms);
                }
                line += &format!("={}", e.get_exact(s.data_type, i, now).unwrap());
            }
        }
    });
    assert_eq!(
        line,
        "use=0 exp=299984 conn_cnt=9 conn_rate(10000)=9 conn_cur=0 sess_cnt=9 sess_rate(10000)=9 http_req_cnt=9 \
         http_req_rate(10000)=9 http_err_cnt=2 http_err_rate(10000)=2 bytes_in_cnt=788 bytes_in_rate(10000)=788 gpt0=0 \
         gpt1=0 gpc0=9 gpc1=0 gpc0_rate(10000)=9 gpc1_rate(10000)=0"
    );
}

#[test]
fn clocks_may_wrap_when_upkeep_runs() {
    let t = table(spec("integer").store("gpc0,gpc0_rate(10s)"));
    let held = t.track(&number(1), 0).unwrap();
    t.write(held, |mut e| e.inc(D::Gpc0, 0, 7, 0));
    t.upsert(&number(2), 0, |mut e| e.inc(D::Gpc0, 0, 7, 0))
        .unwrap();
    let wrap = 1_u64 << 32;
    for now in (0..=wrap).step_by(40_000_000) {
        t.maintain(now, 1_000);
    }
    for key in [1, 2] {
        let rate = t.peek(&number(key), wrap + 5, |e| e.get(D::Gpc0Rate, 0, wrap + 5));
        assert_eq!(
            rate,
            Some(Some(0)),
            "key {key}: not the events of 49.7 days ago"
        );
        assert_eq!(
            t.peek(&number(key), wrap, |e| e.get(D::Gpc0, 0, wrap)),
            Some(Some(7))
        );
    }
    let t = table(spec("integer").expire(5_000));
    let held = t.track(&number(1), 0).unwrap();
    for now in (0..=wrap).step_by(40_000_000) {
        t.maintain(now, 1_000);
    }
    t.untrack(held, wrap + 3);
    let left = 5_000 - (wrap + 3) % 5_000;
    assert_eq!(
        t.peek(&number(1), wrap + 3, |e| u64::from(
            e.expires_in_ms(wrap + 3)
        )),
        Some(left)
    );
    assert!(t.peek(&number(1), wrap + 3 + left, |_| ()).is_none());
}
