//! `discover dns` against a DNS server that answers, lies, fails and keeps silent on demand.

#[path = "discover/dns.rs"]
mod dns;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use dns::{Dns, Reply};
use remora::peers::discover::{Book, Change, watch};
use remora_config::plan::{Discover, Place};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;

/// Everything here takes milliseconds; this is for machines that are busy.
const PATIENCE: Duration = Duration::from_secs(20);
const EVERY_MS: u32 = 100;

fn spec(name: &str, port: Option<u16>, dns: &Dns) -> Discover {
    Discover {
        name: name.to_owned(),
        port,
        every_ms: EVERY_MS,
        nameserver: Some(dns.address()),
        tls: None,
        place: Place { file: 0, line: 1 },
    }
}

fn start(spec: Discover) -> Receiver<Change> {
    let (tx, rx) = channel(8);
    tokio::spawn(watch(spec, Book::default(), tx));
    rx
}

async fn next(rx: &mut Receiver<Change>) -> Change {
    timeout(PATIENCE, rx.recv())
        .await
        .expect("a change in time")
        .expect("the watch goes on")
}

/// The changes up to the one that says that the list is complete.
async fn listed(rx: &mut Receiver<Change>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    loop {
        match next(rx).await {
            Change::Added(a) => assert!(found.insert(a.to_string()), "{a} twice"),
            Change::Listed(n) => {
                assert_eq!(n, found.len());
                return found;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn added(address: &str) -> Change {
    Change::Added(address.parse().expect("an address"))
}

fn gone(address: &str) -> Change {
    Change::Gone(address.parse().expect("an address"))
}

fn set<'a>(list: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    list.into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn both_families_come_and_go() {
    let dns = Dns::start().await;
    dns.set("nodes", "A", Reply::records(["10.0.0.1", "10.0.0.2"]));
    dns.set("nodes", "AAAA", Reply::records(["2001:db8::1"]));
    let mut rx = start(spec("nodes", Some(7000), &dns));
    assert_eq!(
        listed(&mut rx).await,
        set(["10.0.0.1:7000", "10.0.0.2:7000", "[2001:db8::1]:7000"])
    );
    dns.set("nodes", "A", Reply::records(["10.0.0.1", "10.0.0.3"]));
    assert_eq!(next(&mut rx).await, added("10.0.0.3:7000"));
    assert_eq!(next(&mut rx).await, gone("10.0.0.2:7000"));
    // So does a family.
    dns.set("nodes", "AAAA", Reply::Nobody);
    assert_eq!(next(&mut rx).await, gone("[2001:db8::1]:7000"));
}

/// A server that has lost its data looks like a name that nobody has any more.
#[tokio::test]
async fn a_name_without_addresses_removes_nobody() {
    let dns = Dns::start().await;
    let mut rx = start(spec("nodes", Some(7000), &dns));
    assert_eq!(next(&mut rx).await, Change::Listed(0));
    assert_eq!(
        next(&mut rx).await,
        Change::Empty,
        "it was no early question"
    );
    dns.set("nodes", "A", Reply::records(["10.0.0.1", "10.0.0.2"]));
    assert_eq!(next(&mut rx).await, added("10.0.0.1:7000"));
    assert_eq!(next(&mut rx).await, added("10.0.0.2:7000"));
    assert_eq!(next(&mut rx).await, Change::Answering);
    dns.set("nodes", "A", Reply::Nobody);
    assert_eq!(next(&mut rx).await, Change::Empty);
    // Far more answers than the grace time has intervals.
    dns.answered("nodes", "A", 12).await;
    dns.set("nodes", "A", Reply::records(["10.0.0.1"]));
    assert_eq!(next(&mut rx).await, Change::Answering);
    // Who is missing now is missing among others.
    assert_eq!(next(&mut rx).await, gone("10.0.0.2:7000"));
}

#[tokio::test]
async fn a_server_that_fails_removes_nobody() {
    let dns = Dns::start().await;
    dns.set("nodes", "A", Reply::records(["10.0.0.1", "10.0.0.2"]));
    let mut rx = start(spec("nodes", Some(1), &dns));
    assert_eq!(listed(&mut rx).await.len(), 2);
    for broken in [Reply::Failure, Reply::Refused] {
        dns.set("nodes", "A", broken);
        assert!(matches!(next(&mut rx).await, Change::Failing(_)));
        // Far more failures than the grace time has intervals.
        dns.answered("nodes", "A", 12).await;
        dns.set("nodes", "A", Reply::records(["10.0.0.1", "10.0.0.2"]));
        assert_eq!(next(&mut rx).await, Change::Answering);
    }
    // One family fails, the other is answered: only there somebody can be missing.
    dns.set("nodes", "AAAA", Reply::Failure);
    dns.set("nodes", "A", Reply::records(["10.0.0.2"]));
    assert!(matches!(next(&mut rx).await, Change::Failing(_)));
    assert_eq!(next(&mut rx).await, gone("10.0.0.1:1"));
}

#[tokio::test]
async fn a_name_that_nobody_has_yet_is_a_list_too() {
    let dns = Dns::start().await;
    let mut rx = start(spec("nodes", Some(1), &dns));
    assert_eq!(next(&mut rx).await, Change::Listed(0));
    dns.set("nodes", "A", Reply::records(["10.0.0.1"]));
    assert_eq!(next(&mut rx).await, added("10.0.0.1:1"));
}

#[tokio::test]
async fn a_list_is_complete_only_when_somebody_answered() {
    let dns = Dns::start().await;
    dns.set("nodes", "A", Reply::Failure);
    dns.set("nodes", "AAAA", Reply::records(["2001:db8::1"]));
    let mut rx = start(spec("nodes", Some(1), &dns));
    assert_eq!(next(&mut rx).await, added("[2001:db8::1]:1"));
    assert!(matches!(next(&mut rx).await, Change::Failing(_)));
    dns.set("nodes", "A", Reply::records(["10.0.0.1"]));
    assert_eq!(next(&mut rx).await, added("10.0.0.1:1"));
    assert_eq!(next(&mut rx).await, Change::Answering);
    assert_eq!(next(&mut rx).await, Change::Listed(2));
}

#[tokio::test]
async fn long_lists_come_over_tcp() {
    let dns = Dns::start().await;
    let many: Vec<String> = (1..=200).map(|n| format!("10.0.0.{n}")).collect();
    dns.set(
        "nodes",
        "A",
        Reply::records(many.iter().map(String::as_str)),
    );
    let mut rx = start(spec("nodes", Some(1), &dns));
    assert_eq!(listed(&mut rx).await.len(), 200);
    assert!(
        dns.over_tcp() > 0,
        "200 addresses do not fit into 512 bytes"
    );
}

#[tokio::test]
async fn services_have_ports_of_their_own() {
    let dns = Dns::start().await;
    let name = "_peers._tcp.nodes.example";
    dns.set(
        name,
        "SRV",
        Reply::records(["a.nodes.example 7001", "b.nodes.example 7002"]),
    );
    dns.set("a.nodes.example", "A", Reply::records(["10.0.0.1"]));
    dns.set("b.nodes.example", "A", Reply::records(["10.0.0.2"]));
    dns.set("b.nodes.example", "AAAA", Reply::records(["2001:db8::2"]));
    let mut rx = start(spec(name, None, &dns));
    assert_eq!(
        listed(&mut rx).await,
        set(["10.0.0.1:7001", "10.0.0.2:7002", "[2001:db8::2]:7002"])
    );
    let mut fixed = start(spec(name, Some(9), &dns));
    assert_eq!(
        listed(&mut fixed).await,
        set(["10.0.0.1:9", "10.0.0.2:9", "[2001:db8::2]:9"])
    );
    // A target that nobody can look up is not one that is gone.
    dns.set("b.nodes.example", "A", Reply::Failure);
    assert!(matches!(next(&mut rx).await, Change::Failing(_)));
    dns.answered("b.nodes.example", "A", 12).await;
    dns.set(name, "SRV", Reply::records(["a.nodes.example 7001"]));
    assert_eq!(next(&mut rx).await, Change::Answering);
    let last = BTreeSet::from([
        next(&mut rx).await.to_string(),
        next(&mut rx).await.to_string(),
    ]);
    assert_eq!(
        last,
        set(["10.0.0.2:7002 is gone", "[2001:db8::2]:7002 is gone"])
    );
}

#[tokio::test]
async fn addresses_that_nobody_can_have_are_left_out() {
    let dns = Dns::start().await;
    dns.set(
        "nodes",
        "A",
        Reply::records(["0.0.0.0", "224.0.0.1", "10.0.0.1"]),
    );
    dns.set(
        "nodes",
        "AAAA",
        Reply::records(["::ffff:10.0.0.1", "::", "ff02::1"]),
    );
    let mut rx = start(spec("nodes", Some(1), &dns));
    assert_eq!(listed(&mut rx).await, set(["10.0.0.1:1"]));
}

#[tokio::test]
async fn it_ends_with_its_receiver() {
    let dns = Dns::start().await;
    dns.set("nodes", "A", Reply::Silence);
    let (tx, rx) = channel(1);
    let watching = tokio::spawn(watch(spec("nodes", Some(1), &dns), Book::default(), tx));
    dns.answered("nodes", "AAAA", 1).await;
    drop(rx);
    timeout(PATIENCE, watching)
        .await
        .expect("it ends although the server is silent")
        .expect("without a panic");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_failure() {
    let dns = Dns::start().await;
    let mut spec = spec("nodes", Some(1), &dns);
    // Nobody listens on the address of a socket that was closed.
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let nobody: SocketAddr = closed.local_addr().expect("its address");
    drop(closed);
    spec.nameserver = Some(nobody);
    let mut rx = start(spec);
    assert!(matches!(next(&mut rx).await, Change::Failing(_)));
}

/// What the process before knew is known as long as nobody answers, and then as long as answers say.
#[tokio::test]
async fn who_was_known_before_stays_until_servers_answer() {
    let dns = Dns::start().await;
    for kind in ["A", "AAAA"] {
        dns.set("nodes", kind, Reply::Failure);
    }
    let at = |text: &str| -> SocketAddr { text.parse().expect("an address") };
    let [a, b] = [at("10.0.0.1:7000"), at("10.0.0.2:7000")];
    let book = Book::new(&[(a, None), (b, Some(1))]);
    let (tx, mut rx) = channel(8);
    tokio::spawn(watch(spec("nodes", Some(7000), &dns), book.clone(), tx));
    assert_eq!(next(&mut rx).await, Change::Kept(a));
    assert_eq!(next(&mut rx).await, Change::Kept(b));
    assert!(matches!(next(&mut rx).await, Change::Failing(_)));
    dns.answered("nodes", "A", 5).await; // longer than the grace time
    let known: Vec<_> = book.known().into_iter().map(|(at, _)| at).collect();
    assert_eq!(known, [a, b]);
    dns.set("nodes", "AAAA", Reply::Nobody);
    dns.set("nodes", "A", Reply::records(["10.0.0.1", "10.0.0.3"]));
    let c = at("10.0.0.3:7000");
    let mut moves = 0;
    while moves < 2 {
        match next(&mut rx).await {
            Change::Gone(address) => assert_eq!(address, b),
            Change::Added(address) => assert_eq!(address, c),
            Change::Answering | Change::Listed(_) => continue,
            other => panic!("{other:?}"),
        }
        moves += 1;
    }
    // The book is brought up to date before it is said.
    let known: Vec<_> = book.known().into_iter().collect();
    assert_eq!(known, [(a, None), (c, None)]);
}
