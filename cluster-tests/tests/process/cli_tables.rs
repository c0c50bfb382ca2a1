//! The table commands of the runtime CLI, with every documented answer and error.

use std::collections::BTreeSet;

use cluster_tests::wait::until_true;
use cluster_tests::{Client, Proxy, Server, get};

use crate::common::{config, haproxy_lacks, site};

/// Tables of every kind, and a frontend to fill them.
pub(crate) fn tables() -> Proxy {
    config(
        "
frontend fe
  bind 127.0.0.1:{{port:fe}}
  http-request return status 200
backend t_ip
  stick-table type ip size 100k expire 5m store gpc0,conn_cnt,conn_rate(10s),http_req_cnt,gpt0
backend t_str
  stick-table type string len 40 size 1k store gpc0
backend t_int
  stick-table type integer size 1k store gpc(2),gpc_rate(2,10s),gpt(2)
backend t_v6
  stick-table type ipv6 size 1k store conn_cnt
backend t_bin
  stick-table type binary len 4 size 1k store conn_cnt
backend t_bare
  stick-table type ip size 2 nopurge
",
    )
    .start()
}

#[test]
fn show_table_lists_tables_last_declared_first() {
    let proxy = tables();
    assert_eq!(
        proxy.ask("show table"),
        "\
# table: t_bare, type: ip, size:2, used:0
# table: t_bin, type: binary, size:1024, used:0
# table: t_v6, type: ipv6, size:1024, used:0
# table: t_int, type: integer, size:1024, used:0
# table: t_str, type: string, size:1024, used:0
# table: t_ip, type: ip, size:102400, used:0

"
    );
}

#[test]
fn set_table_creates_and_show_table_prints_what_is_stored() {
    let proxy = tables();
    assert_eq!(
        proxy.ask("set table t_ip key 10.0.0.1 data.gpc0 3 data.conn_rate 7 data.gpt0 9"),
        "\n"
    );
    let shown = proxy.ask("show table t_ip");
    let (head, entry) = shown.split_once('\n').expect("two lines");
    assert_eq!(head, "# table: t_ip, type: ip, size:102400, used:1");
    assert!(shown.ends_with("\n\n"), "{shown:?}");
    let (pointer, fields) = entry.trim_end().split_once(": ").expect("a pointer");
    assert!(
        u64::from_str_radix(pointer.trim_start_matches("0x"), 16).is_ok(),
        "{pointer}"
    );
    let (before, rest) = fields.split_once("exp=").expect("exp");
    assert_eq!(before, "key=10.0.0.1 use=0 ");
    let (exp, data) = rest.split_once(' ').expect("data");
    let exp: u64 = exp.parse().expect("a number");
    assert!((200_000..=300_000).contains(&exp), "{exp}");
    // HAProxy 2.6 does not print the shard yet.
    let data = data.strip_prefix("shard=0 ").unwrap_or(data);
    assert_eq!(
        data,
        "gpt0=9 gpc0=3 conn_cnt=0 conn_rate(10000)=7 http_req_cnt=0"
    );
    assert_eq!(proxy.is_haproxy(), !shown.contains(" shard=0 "));
}

#[test]
fn arrays_are_flattened() {
    if haproxy_lacks("array elements on the CLI") {
        return;
    }
    let proxy = tables();
    assert_eq!(
        proxy.ask("set table t_int key 5 data.gpc[1] 4 data.gpt[0] 6 data.gpc_rate[0] 2"),
        "\n"
    );
    let entry = proxy.cli().entry("t_int", "5").expect("an entry");
    let data = entry
        .line
        .split(" gpt0=")
        .nth(1)
        .map(|rest| format!("gpt0={rest}"));
    let expected = "gpt0=6 gpt1=0 gpc0=0 gpc1=4 gpc0_rate(10000)=2 gpc1_rate(10000)=0";
    assert_eq!(data.as_deref(), Some(expected));
    assert_eq!(entry.get("exp"), 0, "no expire, so 0");
    assert_eq!(
        proxy.ask("set table t_int key 5 data.gpc0 1"),
        "Data type not stored in this table\n\n"
    );
    assert_eq!(
        proxy.ask("set table t_int key 5 data.gpc[2] 1"),
        "index out of range in this data array\n\n"
    );
}

#[test]
fn keys_are_read_and_printed_by_type() {
    if haproxy_lacks("IPv6 notation for an ip key") {
        return;
    }
    let proxy = tables();
    for (table, key, shown) in [
        ("t_ip", "10.0.0.1", "10.0.0.1"),
        ("t_ip", "::ffff:9.9.9.9", "9.9.9.9"),
        ("t_v6", "2001:DB8:0::1", "2001:db8::1"),
        ("t_v6", "10.0.0.1", "::ffff:10.0.0.1"),
        ("t_int", "4294967297", "1"),
        ("t_str", "plain", "plain"),
        ("t_str", "some\\ key", "some\\ key"),
    ] {
        assert_eq!(
            proxy.ask(&format!("set table {table} key {key}")),
            "\n",
            "{table} {key}"
        );
        let answer = proxy.ask(&format!("show table {table} key {key}"));
        assert!(
            answer.contains(&format!(" key={shown} use=0 ")),
            "{table} {key}: {answer}"
        );
    }
    assert_eq!(
        proxy.ask("set table t_ip key 2001:db8::1"),
        "Invalid key\n\n"
    );
    let binary = "Showing keys from tables of type other than ip, ipv6, string and integer is not supported\n\n";
    let answer = proxy.ask("show table t_bin key 01");
    assert!(answer.ends_with(binary), "{answer}");
}

/// Every documented input and its exact answer.
#[test]
fn documented_errors_are_answered_word_for_word() {
    let proxy = tables();
    assert_eq!(proxy.ask("set table t_ip key 10.0.0.1 data.gpc0 1"), "\n");
    let usage = "Required arguments: <table>";
    for (input, answer) in [
        ("show table nosuch", "No such table"),
        (
            "show table t_ip bogus",
            "Optional argument only supports \"data.<store_data_type>\" <operator> <value> ",
        ),
        (
            "show table t_ip data.foo gt 1",
            "Filter entry #1: Unknown data type",
        ),
        (
            "show table t_str data.conn_cnt gt 1",
            "Filter entry #1: Data type not stored in this table",
        ),
        (
            "show table t_int data.gpc0 ge 1",
            "Filter entry #1: Data type not stored in this table",
        ),
        (
            "show table t_ip data.conn_cnt xx 1",
            "Filter entry #1: Require and operator among \"eq\", \"ne\", \"le\", \"ge\", \"lt\", \"gt\"",
        ),
        (
            "show table t_ip data.conn_cnt gt",
            "Filter entry #1: Require a valid integer value to compare against",
        ),
        (
            "show table t_ip data.conn_cnt gt z",
            "Filter entry #1: Require a valid integer value to compare against",
        ),
        (
            "show table t_ip data.conn_cnt gt 1 data.gpc0 zz 2",
            "Filter entry #2: Require and operator among",
        ),
        ("show table t_ip key", "Key value expected"),
        (
            "set table t_ip key 10.0.0.1 data.foo 1",
            "Unknown data type",
        ),
        (
            "set table t_str key a data.conn_cnt 1",
            "Data type not stored in this table",
        ),
        (
            "set table t_ip key 10.0.0.1 data.gpc0 zz",
            "Require a valid integer value to store",
        ),
        (
            "set table t_ip key 10.0.0.1 gpc0 1",
            "\"data.<type>\" followed by a value expected",
        ),
        ("set table nosuch key a", "No such table"),
        ("clear table nosuch", "No such table"),
        ("clear table", usage),
        ("set table", usage),
    ] {
        let got = proxy.ask(input);
        assert!(
            got.contains(answer) && got.ends_with("\n\n"),
            "{input:?} was answered {got:?}"
        );
    }
    assert_eq!(
        proxy
            .ask("show table t_ip key 10.9.9.9")
            .lines()
            .filter(|line| line.starts_with("0x"))
            .count(),
        0
    );
    assert!(
        proxy.cli().entry("t_ip", "10.0.0.1").is_some(),
        "nothing was lost on the way"
    );
    if haproxy_lacks("ptr, quoting of extra words, and the refusal of a bare `set table T`") {
        return;
    }
    for (input, answer) in [
        (
            "show table t_ip bogus",
            "Optional argument only supports \"data.<store_data_type>\" <operator> <value> or key <key> or ptr <ptr>",
        ),
        (
            "show table t_ip ptr 12",
            "Pointer expected (0xffff notation)",
        ),
        (
            "show table t_ip ptr 0xdeadbeef",
            "No entry can be found matching ptr.",
        ),
        (
            "set table t_ip",
            "Required arguments: <table> key <key> [data.<store_data_type> <value>]* or <table> ptr <ptr> [data.<store_data_type> <value>]*",
        ),
        (
            "clear table",
            "Required arguments: <table> \"data.<store_data_type>\" <operator> <value> or <table> key <key> or <table> ptr <ptr>",
        ),
    ] {
        let got = proxy.ask(input);
        assert!(
            got.contains(answer) && got.ends_with("\n\n"),
            "{input:?} was answered {got:?}"
        );
    }
    assert!(
        proxy.cli().entry("t_ip", "10.0.0.1").is_some(),
        "a bare `set table T` erases nothing"
    );
    let extra = proxy.ask(&format!("show table t_ip{}", " data.gpc0 gt 0".repeat(6)));
    assert!(extra.contains("Detected extra data in filter, "), "{extra}");
}

#[test]
fn filters_choose_entries() {
    let proxy = tables();
    for (last, value) in [(1, 1), (2, 2), (3, 3), (4, 4)] {
        let line = format!(
            "set table t_ip key 10.0.0.{last} data.gpc0 {value} data.conn_cnt {}",
            10 - value
        );
        assert_eq!(proxy.ask(&line), "\n");
    }
    let keys = |filter: &str| {
        let answer = proxy.ask(&format!("show table t_ip {filter}"));
        let entries = answer.lines().filter(|line| line.starts_with("0x"));
        let keys: BTreeSet<String> = entries
            .map(|line| {
                cluster_tests::cli::Entry::parse(line)
                    .key()
                    .trim_start_matches("10.0.0.")
                    .to_owned()
            })
            .collect();
        keys.into_iter().collect::<String>()
    };
    for (filter, expected) in [
        ("data.gpc0 eq 2", "2"),
        ("data.gpc0 ne 2", "134"),
        ("data.gpc0 le 2", "12"),
        ("data.gpc0 ge 3", "34"),
        ("data.gpc0 lt 2", "1"),
        ("data.gpc0 gt 9", ""),
        ("data.gpc0 gt -1", "1234"),
        ("data.gpc0 gt 1 data.conn_cnt gt 6", "23"),
        (
            "data.gpc0 gt 0 data.gpc0 lt 4 data.conn_cnt ge 8 data.conn_cnt le 8",
            "2",
        ),
    ] {
        assert_eq!(keys(filter), expected, "{filter}");
    }
    assert_eq!(proxy.ask("clear table t_ip data.gpc0 ge 3"), "\n");
    assert_eq!(keys(""), "12");
    assert_eq!(proxy.ask("clear table t_ip key 10.0.0.1"), "\n");
    assert_eq!(keys(""), "2", "one entry went, and only that");
    assert_eq!(
        proxy.ask("clear table t_ip key 10.0.0.1"),
        "\n",
        "an absent one goes in silence"
    );
    assert_eq!(proxy.ask("clear table t_ip"), "\n");
    assert_eq!(keys(""), "");
}

#[test]
fn entries_in_use_stay() {
    let server = Server::http();
    let lines = "  stick-table type ip size 1k expire 1h store conn_cnt\n  tcp-request connection track-sc0 src";
    let proxy = site(lines, "", &server).start();
    let mut client = Client::connect(proxy.addr("fe"));
    assert_eq!(client.get("/").response().map(|r| r.status), Ok(200));
    let entry = proxy.cli().entry("fe", "127.0.0.1").expect("tracked");
    assert_eq!(entry.get("use"), 1);
    assert_eq!(
        proxy.ask("clear table fe key 127.0.0.1"),
        "Entry currently in use, cannot remove\n\n"
    );
    assert_eq!(proxy.ask("clear table fe"), "\n");
    assert!(proxy.cli().entry("fe", "127.0.0.1").is_some());
    drop(client);
    until_true("it can go when its user has", || {
        proxy.ask("clear table fe key 127.0.0.1") == "\n"
            && proxy.cli().entry("fe", "127.0.0.1").is_none()
    });
}

#[test]
fn a_table_that_cannot_take_more_says_so() {
    let proxy = tables();
    assert_eq!(proxy.ask("set table t_bare key 10.0.0.1"), "\n");
    assert_eq!(proxy.ask("set table t_bare key 10.0.0.2"), "\n");
    assert_eq!(
        proxy.ask("set table t_bare key 10.0.0.3"),
        "Unable to allocate a new entry\n\n"
    );
    assert_eq!(
        proxy.ask("set table t_bare key 10.0.0.1"),
        "\n",
        "the ones inside can be touched"
    );
}

#[test]
fn a_huge_dump_streams_while_traffic_flows() {
    let server = Server::http();
    let lines = "  stick-table type integer size 200k expire 1h store gpc0,conn_cnt
  http-request track-sc0 src_port";
    let proxy = site(lines, "", &server).start();
    const COUNT: usize = 50_000;
    for batch in (0..COUNT).collect::<Vec<_>>().chunks(500) {
        let commands: Vec<String> = batch
            .iter()
            .map(|key| format!("set table fe key {}", 1_000_000 + key))
            .collect();
        assert_eq!(proxy.ask(&commands.join(";")), "\n".repeat(batch.len()));
    }
    let mut dump = proxy.cli().open();
    dump.send("show table fe\n");
    // The dump is read slowly; the proxy must neither hold up traffic nor the table meanwhile.
    let mut got = dump.read_some(1000);
    for _ in 0..50 {
        assert_eq!(get(proxy.addr("fe"), "/").map(|r| r.status), Ok(200));
    }
    assert!(proxy.cli().entry("fe", "1000001").is_some());
    got.extend(dump.rest().bytes());
    let text = String::from_utf8(got).expect("text");
    let keys: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split(" key=").nth(1)?.split(' ').next())
        .filter(|key| key.len() == 7)
        .collect();
    assert_eq!(
        keys.len(),
        COUNT,
        "every entry that was there all the time is shown"
    );
    assert!(text.ends_with("\n\n"));
}
