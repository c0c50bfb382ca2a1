//! The runtime CLI: its protocol, its levels, its information commands.

use std::collections::BTreeSet;

use cluster_tests::wait::{until, until_true};
use cluster_tests::{Client, Launch, Server, get};

use crate::cli_tables::tables;
use crate::common::{config, haproxy_lacks, site};

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
    let all = [
        ("stot", "4"),
        ("req_tot", "4"),
        ("dreq", "1"),
        ("hrsp_2xx", "2"),
        ("hrsp_4xx", "2"),
        ("type", "0"),
        ("status", "OPEN"),
    ];
    cli.stat_becomes("fe", "FRONTEND", &all);
    let all = [
        ("stot", "3"),
        ("hrsp_2xx", "2"),
        ("hrsp_4xx", "1"),
        ("type", "2"),
        ("weight", "1"),
        ("act", "1"),
        ("bck", "0"),
    ];
    cli.stat_becomes("be", "s1", &all);
    let all = [
        ("stot", "3"),
        ("hrsp_2xx", "2"),
        ("hrsp_4xx", "1"),
        ("type", "1"),
        ("status", "UP"),
    ];
    cli.stat_becomes("be", "BACKEND", &all);
    assert_eq!(cli.stat("be", "s1", "status"), "no check");
    until_true("its bytes are counted", || {
        let bytes: u64 = cli
            .stat("fe", "FRONTEND", "bout")
            .parse()
            .expect("a number");
        bytes > 1000
    });
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
