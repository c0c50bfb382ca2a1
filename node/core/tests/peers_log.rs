//! What hubs say in the log: each thing once, and by its right name.

use std::sync::Arc;

use remora_core::peers::messages::{Push, Refusal, Reply};
use remora_core::peers::store::{Store, Stores};
use remora_core::peers::{Action, Ended, Hub, HubConfig, PeerIx, SessionId};
use remora_core::table::{Key, Lineage, Lineages, TableId, Tag};

struct NoTables;

impl Stores for NoTables {
    fn store(&self, _: TableId) -> Option<&dyn Store> {
        None
    }
    fn write_tags(&self, _: TableId, _: &[(Key, Vec<Tag>)], _: u64) {}
}

/// A node without tables, and what it has logged.
struct Node {
    hub: Hub,
    said: Vec<String>,
    closed: Vec<Ended>,
}

impl Node {
    fn new(name: &str, cluster: &str, lineage: u64) -> Node {
        let config = HubConfig {
            cluster: cluster.into(),
            node: name.into(),
            lineages: Arc::new(Lineages::new(Lineage(lineage))),
            newcomer: true,
            discovers: false,
            learn_timeout_ms: 5_000,
            sole: false,
            seed: lineage,
        };
        Node {
            hub: Hub::new(config, Arc::new(NoTables), &[], 0),
            said: Vec::new(),
            closed: Vec::new(),
        }
    }
    /// Peers to be dialed.
    fn act(&mut self, now: u64) -> Vec<PeerIx> {
        let mut dials = Vec::new();
        while let Some(action) = self.hub.poll_action(now) {
            match action {
                Action::Dial(ix) => dials.push(ix),
                Action::Log(event) => self.said.push(event.to_string()),
                Action::Close(_, why) => self.closed.push(why),
                Action::Ready | Action::Lend(_) => {}
            }
        }
        dials
    }
    fn says(&self, text: &str) -> usize {
        self.said.iter().filter(|line| line.contains(text)).count()
    }
}

/// Carries messages on one stream until there are none.
fn carry(dialer: &mut Node, out: SessionId, answerer: &mut Node, into: SessionId, now: u64) {
    loop {
        let push: Option<Push> = dialer.hub.poll_push(out, now);
        let reply: Option<Reply> = answerer.hub.poll_reply(into, now);
        if push.is_none() && reply.is_none() {
            break;
        }
        if let Some(push) = push {
            answerer.hub.handle_push(into, push, now);
        }
        if let Some(reply) = reply {
            dialer.hub.handle_reply(out, reply, now);
        }
        dialer.act(now);
        answerer.act(now);
    }
}

/// `dialer` opens a stream to its peer `ix` at `answerer`.
fn open(
    dialer: &mut Node,
    ix: PeerIx,
    answerer: &mut Node,
    port: u64,
    now: u64,
) -> (SessionId, SessionId) {
    let remote = format!("127.0.0.1:{port}");
    let (out, into) = (
        dialer.hub.opened_out(ix, now),
        answerer.hub.opened_in(remote, now),
    );
    carry(dialer, out, answerer, into, now);
    (out, into)
}

#[test]
fn a_peer_that_is_refused_each_time_is_reported_once_by_both() {
    let (mut a, mut b) = (Node::new("a", "one", 1), Node::new("b", "two", 2));
    a.hub.add_peer("b", "127.0.0.1:1", false, 0);
    let mut dialed = 0;
    for now in (0..60_000).step_by(100) {
        a.hub.tick(now, now);
        b.hub.tick(now, now);
        b.act(now);
        for ix in a.act(now) {
            dialed += 1;
            let (out, into) = open(&mut a, ix, &mut b, 40_000 + now, now);
            a.hub.closed(out, "gone", now);
            b.hub.closed(into, "gone", now);
        }
    }
    assert!(dialed > 5, "it goes on trying: {dialed}");
    assert_eq!(a.says("other cluster"), 1, "{:?}", a.said);
    assert_eq!(b.says("other cluster"), 1, "{:?}", b.said);
}

#[test]
fn strangers_of_one_host_are_reported_once() {
    let mut a = Node::new("a", "one", 1);
    for port in 1..100 {
        let id = a.hub.opened_in(format!("10.0.0.1:{port}"), port);
        let push = Push::Goodbye {
            numbers: vec![],
            heir: false,
        };
        a.hub.handle_push(id, push, port);
        a.act(port);
    }
    assert_eq!(a.says("10.0.0.1"), 1, "{:?}", a.said);
    // What is remembered of strangers has an end.
    for host in 0..5_000u32 {
        let id = a.hub.opened_in(format!("node{host}:1"), 1_000);
        let push = Push::Goodbye {
            numbers: vec![],
            heir: false,
        };
        a.hub.handle_push(id, push, 1_000);
        a.act(1_000);
    }
    let id = a.hub.opened_in("10.0.0.1:7".into(), 2_000);
    a.hub.handle_push(
        id,
        Push::Goodbye {
            numbers: vec![],
            heir: false,
        },
        2_000,
    );
    a.act(2_000);
    assert_eq!(a.says("10.0.0.1"), 2, "forgotten meanwhile");
}

#[test]
fn a_node_with_another_name_than_its_line_is_named_once() {
    let (mut a, mut b) = (Node::new("a", "one", 1), Node::new("a", "one", 2));
    a.hub.add_peer("b", "127.0.0.1:1", false, 0);
    for now in [0, 10_000] {
        for ix in a.act(now) {
            let (out, into) = open(&mut a, ix, &mut b, 40_000, now);
            a.hub.closed(out, "cut", now);
            b.hub.closed(into, "cut", now);
            assert_eq!(a.act(now), [], "not at once");
        }
    }
    a.hub.tick(20_000, 20_000);
    a.act(20_000);
    let line = "peer b at 127.0.0.1:1 calls itself 'a'";
    assert_eq!(a.says(line), 1, "{:?}", a.said);
    assert_eq!(a.says("session to peer b ended: cut"), 2, "{:?}", a.said);

    // What discovery finds has no name of its own.
    let mut c = Node::new("c", "one", 3);
    c.hub.add_peer("127.0.0.1:1", "127.0.0.1:1", true, 0);
    for ix in c.act(0) {
        open(&mut c, ix, &mut b, 40_000, 0);
    }
    assert_eq!(c.says("is up"), 1, "{:?}", c.said);
    assert_eq!(c.says("calls itself"), 0, "{:?}", c.said);
}

#[test]
fn the_end_of_a_node_that_said_goodbye_is_no_fault() {
    let (mut a, mut b) = (Node::new("a", "one", 1), Node::new("b", "one", 2));
    a.hub.add_peer("b", "127.0.0.1:1", false, 0);
    let Some(ix) = a.act(0).pop() else {
        panic!("nothing is dialed")
    };
    let (out, into) = open(&mut a, ix, &mut b, 40_000, 0);
    a.hub.stop(10);
    carry(&mut a, out, &mut b, into, 10);
    assert!(!a.hub.is_stopped(), "nobody has read the goodbye");
    b.act(20);
    b.hub.closed(into, "connection reset", 20);
    a.hub.closed_by_peer(out, 20);
    a.act(20);
    assert!(a.hub.is_stopped());
    assert_eq!(a.says("session to peer b ended: stopping"), 1);
    assert_eq!(
        b.says("session from peer a ended: peer stops"),
        1,
        "{:?}",
        b.said
    );
    assert_eq!(b.says("connection reset"), 0, "{:?}", b.said);
}

/// A stop, seen from those who push to the node that stops, and a hand-over to another process of the node: both leave streams
/// behind that end by themselves.
#[test]
fn streams_that_end_because_of_a_stop_or_a_hand_over_are_no_fault() {
    for hands_over in [false, true] {
        let (mut a, mut b) = (Node::new("a", "one", 1), Node::new("b", "one", 2));
        a.hub.add_peer("b", "127.0.0.1:1", false, 0);
        let Some(ix) = a.act(0).pop() else {
            panic!("nothing is dialed")
        };
        let (out, into) = open(&mut a, ix, &mut b, 40_000, 0);
        let why = if hands_over {
            b.hub.suspend();
            "another process of this node goes on"
        } else {
            b.hub.stop(10);
            "stopping"
        };
        b.hub.closed(into, "broken pipe", 20);
        a.hub.closed_by_peer(out, 20);
        a.act(20);
        b.act(20);
        let said = format!("session from peer a ended: {why}");
        assert_eq!(b.says(&said), 1, "{:?}", b.said);
        assert_eq!(b.says("broken pipe"), 0, "{:?}", b.said);
        assert_eq!(a.says("the peer ended the stream"), 1, "{:?}", a.said);
    }
}

/// Who has said goodbye is not there, as is to be expected.
#[test]
fn a_node_that_stopped_is_not_unreachable() {
    let (mut a, mut b) = (Node::new("a", "one", 1), Node::new("b", "one", 2));
    let back = a.hub.add_peer("b", "127.0.0.1:1", false, 0);
    let ix = b.hub.add_peer("a", "127.0.0.1:2", false, 0);
    assert_eq!((a.act(0), b.act(0)), (vec![back], vec![ix]));
    let (out, into) = open(&mut b, ix, &mut a, 40_000, 0);
    let (out_a, into_b) = open(&mut a, back, &mut b, 40_000, 0);
    a.hub.stop(10);
    carry(&mut a, out_a, &mut b, into_b, 10);
    carry(&mut b, out, &mut a, into, 10);
    b.hub.closed(into_b, "reset", 20);
    b.hub.closed(out, "reset", 20);
    // Its system accepts once more, for a process that ends.
    for ix in b.act(1_000) {
        let late = b.hub.opened_out(ix, 1_000);
        b.hub.closed(late, "connection reset", 1_000);
    }
    assert_eq!(b.says("connection reset"), 0, "{:?}", b.said);
    for now in (1_020..6_000).step_by(20) {
        for ix in b.act(now) {
            b.hub.dial_failed(ix, true, "Connection refused", now);
        }
    }
    let said = "peer a has stopped, and is not back yet: Connection refused";
    assert_eq!(b.says(said), 1, "{:?}", b.said);
    assert_eq!(b.says("unreachable"), 0, "{:?}", b.said);
}

/// A line that leads to the node itself is a mistake, unlike a name that does.
#[test]
fn a_line_that_leads_to_the_node_itself_is_named_once() {
    for discovered in [false, true] {
        let mut a = Node::new("a", "one", 1);
        a.hub.add_peer("b", "127.0.0.1:1", discovered, 0);
        for now in [0, 100_000] {
            for ix in a.act(now) {
                let out = a.hub.opened_out(ix, now);
                let _hello = a.hub.poll_push(out, now);
                let text = "the dialer reached itself".to_owned();
                let why = Refusal::Myself;
                a.hub.handle_reply(out, Reply::Refuse { why, text }, now);
            }
        }
        a.act(100_000);
        let said = a.says("peer b at 127.0.0.1:1 calls itself 'a'");
        assert_eq!(said, usize::from(!discovered), "{:?}", a.said);
    }
}

/// A session that breaks and is back at once is no fault: the node reloads. One that stays away is.
#[test]
fn a_break_is_a_fault_if_it_lasts() {
    for comes_back in [true, false] {
        let (mut a, mut b) = (Node::new("a", "one", 1), Node::new("b", "one", 2));
        a.hub.add_peer("b", "127.0.0.1:1", false, 0);
        let Some(ix) = a.act(0).pop() else {
            panic!("nothing is dialed")
        };
        let (out, into) = open(&mut a, ix, &mut b, 40_000, 0);
        a.hub.closed(out, "cut", 10);
        b.hub.closed(into, "cut", 10);
        a.act(10);
        b.act(10);
        let again = a.act(500);
        assert_eq!(again, [ix]);
        if comes_back {
            open(&mut a, ix, &mut b, 40_001, 500);
        } else {
            a.hub.dial_failed(ix, true, "refused", 500);
        }
        let said = "session to peer b ended: cut";
        assert_eq!(a.says(said), 0, "{:?}", a.said);
        assert!(a.hub.next_deadline(500) <= 3_010);
        for node in [&mut a, &mut b] {
            node.hub.tick(3_010, 3_010);
            node.act(3_010);
        }
        let lost = usize::from(!comes_back);
        assert_eq!(a.says(said), lost, "{:?}", a.said);
        assert_eq!(
            b.says("session from peer a ended: cut"),
            lost,
            "{:?}",
            b.said
        );
        let renewed = "session to peer b was renewed, the one before ended: cut";
        assert_eq!(a.says(renewed), 1 - lost, "{:?}", a.said);
    }
}

#[test]
fn every_new_reason_is_said() {
    let mut a = Node::new("a", "one", 1);
    a.hub.add_peer("b", "127.0.0.1:1", false, 0);
    let mut now = 0;
    for error in ["refused", "refused", "TLS: no", "TLS: no", "refused"] {
        for ix in a.act(now) {
            a.hub.dial_failed(ix, false, error, now);
        }
        now += 10_000;
    }
    a.act(now);
    assert_eq!(a.says("unreachable: refused"), 2, "{:?}", a.said);
    assert_eq!(a.says("unreachable: TLS: no"), 1, "{:?}", a.said);
}

/// A node that reaches a peer which does not reach it would never know what that counts: it says so, once.
#[test]
fn a_peer_that_never_calls_back_is_warned_of() {
    let (mut a, mut b) = (Node::new("a", "one", 1), Node::new("b", "one", 2));
    let ix = a.hub.add_peer("b", "127.0.0.1:1", false, 0);
    assert_eq!(a.act(0), [ix]);
    let (out, into) = open(&mut a, ix, &mut b, 40_000, 0);
    for now in (0..60_000).step_by(500) {
        a.hub.tick(now, now);
        b.hub.tick(now, now);
        carry(&mut a, out, &mut b, into, now);
        let expected = usize::from(now >= 10_000);
        assert_eq!(
            a.says("peer b is reached but does not reach"),
            expected,
            "at {now}"
        );
    }
    assert_eq!(b.says("does not reach"), 0);
}
