//! The runtime CLI: its protocol, its table commands with every documented error, its information commands.

use std::collections::BTreeSet;

use cluster_tests::wait::{until, until_true};
use cluster_tests::{Client, Launch, Proxy, Server, get};

use crate::common::{config, haproxy_lacks, site};

/// Tables of every kind, and a frontend to fill them.
fn tables() -> Proxy {
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
    assert!((299_000..=300_000).contains(&exp), "{exp}");
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
fn one_line_is_read_unless_prompted() {
    if haproxy_lacks("goes on with further lines") {
        return;
    }
    let proxy = tables();
    let mut session = proxy.cli().open();
    session.send("set table t_str key a data.gpc0 1; set table t_str key b\\;c; show table t_str key a\nset table t_str key never\n");
    let answer = session.rest();
    assert!(
        answer.starts_with("\n\n# table: t_str, type: string, size:1024, used:2\n0x"),
        "{answer:?}"
    );
    assert!(answer.ends_with("gpc0=1\n\n"), "{answer:?}");
    let keys: BTreeSet<String> = proxy
        .cli()
        .entries("t_str")
        .iter()
        .map(|e| e.key().to_owned())
        .collect();
    assert_eq!(keys, BTreeSet::from(["a".to_owned(), "b;c".to_owned()]));
}

#[test]
fn prompt_mode_stays_open() {
    if haproxy_lacks("prints help for an empty line") {
        return;
    }
    let proxy = tables();
    let mut session = proxy.cli().open();
    session.send("prompt\n");
    assert_eq!(session.read_until("> "), "\n> ");
    session.send("show cli level\n");
    assert_eq!(session.read_until("> "), "admin\n\n> ");
    session.send("bogus\r\n");
    let answer = session.read_until("\n\n> ");
    assert!(
        answer.starts_with("Unknown command")
            && answer.contains("but maybe one of the following ones is a better match:\n"),
        "{answer}"
    );
    for line in ["  help [<command>] ", "  prompt ", "  quit "] {
        assert!(answer.contains(line), "{line:?} in {answer}");
    }
    session.send("\n");
    assert_eq!(session.read_until("> "), "\n> ");
    session.send("set table t_str key x;show table t_str key x\n");
    assert!(session.read_until("gpc0=0\n\n> ").contains("key=x"));
    session.send("quit\n");
    assert_eq!(session.rest(), "");
}

#[test]
fn levels_limit_what_may_be_done() {
    if haproxy_lacks("lets users clear tables") {
        return;
    }
    let proxy = Launch::new(
        "
global
  stats socket {{cli}} level admin
  stats socket {{dir}}/user.sock level user
  stats socket {{dir}}/operator.sock mode 600 level operator
frontend fe
  mode http
  timeout client 5s
  bind 127.0.0.1:{{port:fe}}
  stick-table type ip size 100k store gpc0
  http-request return status 200
",
    )
    .start();
    let cli = |name: &str| cluster_tests::cli::Cli::new(proxy.dir().join(name));
    let (user, operator) = (cli("user.sock"), cli("operator.sock"));
    until("the other sockets", || {
        (user.try_open().is_ok() && operator.try_open().is_ok()).then_some(())
    });
    assert_eq!(proxy.ask("show cli level"), "admin\n\n");
    assert_eq!(
        (user.ask("show cli level"), operator.ask("show cli level")),
        ("user\n\n".into(), "operator\n\n".into())
    );
    assert_eq!(operator.ask("set table fe key 10.0.0.1 data.gpc0 1"), "\n");
    let heads = "# table: fe, type: ip, size:102400, used:1\n";
    assert_eq!(user.ask("show table"), format!("{heads}\n"));
    let refused = format!("{heads}# contents not dumped due to insufficient privileges\n\n");
    assert_eq!(user.ask("show table fe"), refused);
    for command in ["set table fe key 10.0.0.2", "clear table fe"] {
        assert_eq!(user.ask(command), "Permission denied\n\n", "{command}");
    }
    assert!(operator.ask("show table fe").contains("key=10.0.0.1"));
    // Lowering the level is for good.
    let mut session = proxy.cli().open();
    session.send("operator; show cli level; user; show cli level; operator; show cli level; clear table fe\n");
    let answer = session.rest();
    let lines: Vec<&str> = answer.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.first(), Some(&"operator"), "{answer:?}");
    assert_eq!(lines.last(), Some(&"Permission denied"), "{answer:?}");
    assert!(
        !lines
            .iter()
            .skip(1)
            .any(|line| *line == "operator" || *line == "admin"),
        "{answer:?}"
    );
    assert!(proxy.cli().entry("fe", "10.0.0.1").is_some());
}

#[test]
fn help_lists_the_commands() {
    let proxy = tables();
    let help = proxy.ask("help");
    assert!(
        help.starts_with("The following commands are valid at this level:\n"),
        "{help}"
    );
    for command in [
        "show table",
        "set table",
        "clear table",
        "show info",
        "show stat",
        "show sess",
        "help",
        "prompt",
        "quit",
    ] {
        let line = help
            .lines()
            .find(|line| line.starts_with(&format!("  {command}")));
        let line = line.unwrap_or_else(|| panic!("no {command} in {help}"));
        assert!(line.contains(':'), "{line}");
    }
    let narrowed = proxy.ask("help show table");
    assert!(
        narrowed.contains("  show table") && !narrowed.contains("  clear table"),
        "{narrowed}"
    );
}

#[test]
fn show_info_and_show_stat_are_what_tools_read() {
    let server = Server::http();
    let proxy = site("  http-request deny if { path /deny }", "", &server).start();
    for path in ["/", "/size/1000", "/status/404", "/deny"] {
        assert!(get(proxy.addr("fe"), path).is_ok());
    }
    let cli = proxy.cli();
    let name = if proxy.is_haproxy() {
        "HAProxy"
    } else {
        "Remora"
    };
    assert_eq!(cli.info("Name").as_deref(), Some(name));
    assert_eq!(cli.info("Pid"), Some(proxy.pid().to_string()));
    for field in [
        "Version",
        "Uptime",
        "Uptime_sec",
        "Nbthread",
        "Process_num",
        "Maxconn",
        "CurrConns",
        "CumConns",
        "CumReq",
    ] {
        assert!(cli.info(field).is_some(), "{field}");
    }
    let stat = proxy.ask("show stat");
    let head = stat.lines().next().expect("a head");
    let fixed = "# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,status,weight,act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,rate_lim,rate_max,check_status,check_code,check_duration,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,hanafail,req_rate,req_rate_max,req_tot,cli_abrt,srv_abrt,";
    assert!(head.starts_with(fixed), "{head}");
    assert!(!stat.contains("(null)") && stat.ends_with("\n\n"));
    let columns = head.matches(',').count();
    for line in stat.lines().filter(|line| !line.is_empty()) {
        assert_eq!(line.matches(',').count(), columns, "{line}");
        assert!(line.ends_with(','), "{line}");
    }
    let of = |svname: &str, pxname: &str, names: &[&str]| -> Vec<String> {
        names
            .iter()
            .map(|name| cli.stat(pxname, svname, name))
            .collect()
    };
    let names = [
        "stot", "req_tot", "dreq", "hrsp_2xx", "hrsp_4xx", "type", "status",
    ];
    assert_eq!(
        of("FRONTEND", "fe", &names),
        ["4", "4", "1", "2", "2", "0", "OPEN"]
    );
    assert_eq!(
        of(
            "s1",
            "be",
            &[
                "stot", "hrsp_2xx", "hrsp_4xx", "type", "weight", "act", "bck"
            ]
        ),
        ["3", "2", "1", "2", "1", "1", "0"]
    );
    assert_eq!(
        of(
            "BACKEND",
            "be",
            &["stot", "hrsp_2xx", "hrsp_4xx", "type", "status"]
        ),
        ["3", "2", "1", "1", "UP"]
    );
    assert_eq!(cli.stat("be", "s1", "status"), "no check");
    let bytes: u64 = cli
        .stat("fe", "FRONTEND", "bout")
        .parse()
        .expect("a number");
    assert!(bytes > 1000, "{bytes}");
    let only = proxy.ask("show stat be 4 -1");
    assert_eq!(
        only.lines().filter(|line| !line.is_empty()).count(),
        2,
        "{only}"
    );
}

#[test]
fn show_sess_shows_what_is_open() {
    let server = Server::http();
    let proxy = config(
        "
listen tcp
  mode tcp
  bind 127.0.0.1:{{port:tcp}}
  server s1 {{s1}}
",
    )
    .set("s1", server.addr())
    .start();
    let mut client = Client::connect(proxy.addr("tcp"));
    assert_eq!(client.get("/").response().map(|r| r.status), Ok(200));
    let source = client.local().expect("TCP");
    let shown = proxy.ask("show sess");
    let line = shown
        .lines()
        .find(|line| line.contains(&format!("src={source} ")))
        .unwrap_or_else(|| panic!("{shown}"));
    assert!(
        line.starts_with("0x") && line.contains(": proto=tcpv4 "),
        "{line}"
    );
    assert!(
        line.contains(" fe=tcp be=tcp srv=s1 ") && line.contains(" age="),
        "{line}"
    );
    assert!(
        shown.contains("proto=unix_stream"),
        "the CLI's own stream is listed: {shown}"
    );
    drop(client);
    until_true("it goes", || {
        !proxy.ask("show sess").contains(&format!("src={source} "))
    });
}

#[test]
fn a_line_of_a_mebibyte_is_refused_not_swallowed() {
    if haproxy_lacks("waits for the time-out") {
        return;
    }
    let proxy = tables();
    let mut session = proxy.cli().open();
    session.send(&format!("show table {}\n", "x".repeat(1 << 20)));
    session.half_close();
    let answer = session.rest();
    assert!(answer.len() < 10_000, "{} bytes came back", answer.len());
    assert_eq!(
        proxy.ask("show cli level"),
        "admin\n\n",
        "others are served"
    );
    // Without an end of line as well.
    let mut session = proxy.cli().open();
    session.send(&"y".repeat(1 << 20));
    session.half_close();
    assert!(session.rest().len() < 10_000);
    assert_eq!(proxy.ask("show cli level"), "admin\n\n");
}

#[test]
fn a_client_that_sends_half_a_line_and_stays_blocks_nobody() {
    let proxy = tables();
    let mut held: Vec<_> = (0..5).map(|_| proxy.cli().open()).collect();
    for session in &mut held {
        session.send("show ta");
    }
    assert_eq!(proxy.ask("show cli level"), "admin\n\n");
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

#[test]
fn many_sessions_and_rude_endings_leave_the_cli_alive() {
    let proxy = tables();
    for _ in 0..30 {
        drop(proxy.cli().open());
        let mut session = proxy.cli().open();
        session.send("show info");
        drop(session);
        let mut session = proxy.cli().open();
        session.send("show info\n");
        drop(session);
    }
    until_true("it still answers", || {
        proxy.cli().try_open().is_ok_and(|mut session| {
            session.send("show cli level\n");
            session.rest() == "admin\n\n"
        })
    });
}
