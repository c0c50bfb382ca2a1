//! The registry: every documented name is there once, in all its spellings.

use remora_core::rule::cond::MatchMethod;
use remora_core::rule::registry::{converter, converters, fetch, fetches};

#[test]
fn names_are_unique_and_found() {
    for (names, find) in [
        (
            fetches().iter().map(|r| r.name).collect::<Vec<_>>(),
            (|n| fetch(n).map(|r| r.name)) as fn(&str) -> Option<&'static str>,
        ),
        (
            converters().iter().map(|r| r.name).collect::<Vec<_>>(),
            |n| converter(n).map(|r| r.name),
        ),
    ] {
        assert!(
            names.windows(2).all(|w| w[0] < w[1]),
            "sorted, no name twice"
        );
        for name in names {
            assert_eq!(find(name), Some(name));
        }
    }
    assert!(fetch("nosuchfetch").is_none());
    assert!(converter("bogus").is_none());
}

#[test]
fn all_documented_fetches_exist() {
    let names = "src src_port dst dst_port fc_src fc_src_port fc_dst fc_dst_port src_is_local dst_is_local dst_conn \
        fc_rcvd_proxy fc_http_major path pathq query url base baseq base32 url32 base32+src url32+src method req.ver \
        req_ver req.hdr hdr req.fhdr req.hdr_cnt hdr_cnt req.fhdr_cnt req.hdr_ip hdr_ip req.hdr_val hdr_val \
        req.hdr_names res.hdr res.fhdr res.hdr_cnt res.hdr_ip res.hdr_val res.hdr_names shdr shdr_cnt shdr_ip shdr_val \
        status txn.status res.ver resp_ver req.cook cook cook_cnt cook_val req.cook_cnt req.cook_val res.cook scook \
        urlp url_param urlp_val url_ip req.len req.payload payload req.proto_http wait_end http_first_req var str int \
        bool ipv4 ipv6 env date date_us rand uuid hostname pid thread nbproc nbthread always_true always_false stopping \
        ssl_fc table_cnt table_avl fe_name fe_id fe_defbe be_name be_id srv_name srv_id so_name so_id fe_conn be_conn \
        be_conn_free fe_sess_rate fe_req_rate be_sess_rate nbsrv queue avg_queue connslots srv_conn srv_conn_free \
        srv_queue srv_is_up srv_sess_rate srv_weight act_conn";
    for name in names.split_whitespace() {
        assert!(fetch(name).is_some(), "{name}");
    }
}

#[test]
fn the_table_family_in_all_its_spellings() {
    let both = "bytes_in_rate bytes_out_rate kbytes_in kbytes_out conn_cnt conn_cur conn_rate sess_cnt sess_rate \
        http_req_cnt http_req_rate http_err_cnt http_err_rate http_fail_cnt http_fail_rate glitch_cnt glitch_rate \
        gpc0_rate gpc1_rate inc_gpc0 inc_gpc1 clr_gpc0 clr_gpc1";
    for name in both.split_whitespace() {
        for prefix in ["sc_", "sc0_", "sc1_", "sc2_", "src_"] {
            assert!(
                fetch(&format!("{prefix}{name}")).is_some(),
                "{prefix}{name}"
            );
        }
        assert!(
            converter(&format!("table_{name}")).is_some(),
            "table_{name}"
        );
    }
    for name in ["get_gpc0", "get_gpc1", "get_gpt0"] {
        for prefix in ["sc_", "sc0_", "sc1_", "sc2_", "src_"] {
            assert!(
                fetch(&format!("{prefix}{name}")).is_some(),
                "{prefix}{name}"
            );
        }
    }
    for name in ["gpc_rate", "get_gpc", "get_gpt", "inc_gpc", "clr_gpc"] {
        for prefix in ["sc_", "src_"] {
            assert!(
                fetch(&format!("{prefix}{name}")).is_some(),
                "{prefix}{name}"
            );
        }
        assert!(
            fetch(&format!("sc0_{name}")).is_none(),
            "the array forms have no sc0_"
        );
    }
    for name in ["key", "tracked", "trackers"] {
        assert!(fetch(&format!("sc_{name}")).is_some() && fetch(&format!("sc2_{name}")).is_some());
        assert!(fetch(&format!("src_{name}")).is_none());
    }
    assert!(fetch("src_updt_conn_cnt").is_some());
    for name in
        "gpc0 gpc1 gpt0 gpc gpt gpc_rate inc_gpc clr_gpc trackers server_id expire idle".split(' ')
    {
        assert!(
            converter(&format!("table_{name}")).is_some(),
            "table_{name}"
        );
    }
    assert!(converter("in_table").is_some());
}

#[test]
fn acl_spellings() {
    for base in [
        "base", "cook", "hdr", "path", "scook", "shdr", "url", "urlp",
    ] {
        assert_eq!(fetch(base).unwrap().acl_match, Some(MatchMethod::Str));
        for (suffix, method) in [
            ("beg", MatchMethod::Beg),
            ("dir", MatchMethod::Dir),
            ("dom", MatchMethod::Dom),
            ("end", MatchMethod::End),
            ("len", MatchMethod::Len),
            ("reg", MatchMethod::Reg),
            ("sub", MatchMethod::Sub),
        ] {
            let row = fetch(&format!("{base}_{suffix}")).unwrap();
            assert_eq!(row.acl_match, Some(method));
            assert!(row.acl_only);
        }
    }
    assert_eq!(fetch("req.hdr").unwrap().acl_match, None);
    assert_eq!(fetch("payload").unwrap().acl_match, Some(MatchMethod::Bin));
    assert_eq!(
        fetch("method").unwrap().acl_match,
        Some(MatchMethod::Method)
    );
}
