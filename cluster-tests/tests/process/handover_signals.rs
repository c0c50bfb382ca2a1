//! Signals by hand while another process takes over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cluster_tests::middleman;
use cluster_tests::wait::until_true;
use rustix::process::{Pid, Signal, kill_process};

use crate::common::haproxy_lacks;
use crate::handover_faults::relay;
use crate::house::{HALF, House, PROBE, Probe, serving};

/// Sends this signal to the first process when that frame passes, once.
fn signals_at(house: &House, frame: &'static str, signal: Signal) -> Arc<AtomicBool> {
    let sent = Arc::<AtomicBool>::default();
    let (once, first) = (Arc::clone(&sent), Pid::from_raw(house.first.pid() as i32));
    let first = first.expect("a pid");
    let (path, target) = relay(house);
    middleman::listen(
        &path,
        &target,
        move |passing| {
            if passing.name == frame && !once.swap(true, Ordering::SeqCst) {
                let _ = kill_process(first, signal);
            }
        },
        |_| {},
    );
    sent
}

#[test]
fn a_soft_stop_waits_for_the_process_that_takes_over() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    for frame in [
        "Begin",
        "Pass/Walked",
        "Hold",
        "Drain",
        "Yours",
        "Pass/Accepting",
    ] {
        let mut house = House::with("{{dir}}/handoff.sock", &[], PROBE);
        let first = house.serving(0);
        house.get(5);
        let client = house.download();
        house.becomes("conns", "conn_cur", 1);
        let sent = signals_at(&house, frame, Signal::USR1);
        let probe = Probe::of(&house);
        let path = relay(&house).0.to_string_lossy().into_owned();
        let second = house.next(&["-x", &path]);
        assert_eq!(house.serving(first), second.pid(), "at {frame}");
        // Its CLI answers a moment before it says that it accepts.
        until_true("the frame has passed", || sent.load(Ordering::SeqCst));
        assert_eq!(probe.finish(), 0, "{frame}: refused");
        assert_eq!(house.value("fe", "http_req_cnt"), 6, "{frame}");
        house.completes([client]);
        house.becomes("conns", "conn_cur", 0);
        assert_eq!(house.first.wait().code(), Some(0), "{frame}");
        until_true("its bytes have arrived", || {
            house.value("fe", "bytes_out_cnt") > 2 * HALF as i64
        });
    }
}

/// So do both stops of a supervisor, whoever takes over. The hard one cuts what runs in it, and loses nothing else.
#[test]
fn stops_of_a_supervisor_wait_for_the_process_that_takes_over() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    for (signal, frame, new) in [
        (Signal::USR1, "Begin", &["-W"][..]),
        (Signal::USR1, "Hold", &[]),
        (Signal::USR1, "Drain", &["-W"]),
        (Signal::USR1, "Yours", &[]),
        (Signal::USR1, "Pass/Accepting", &["-W"]),
        (Signal::TERM, "Begin", &[]),
        (Signal::TERM, "Pass/Walked", &["-W"]),
        (Signal::TERM, "Hold", &["-W"]),
        (Signal::TERM, "Drain", &[]),
        (Signal::TERM, "Yours", &["-W"]),
        (Signal::TERM, "Pass/Accepting", &[]),
    ] {
        let mut house = House::with("{{dir}}/handoff.sock", &["-W"], PROBE);
        let first = house.serving(0);
        house.get(5);
        let mut client = house.download();
        house.becomes("conns", "conn_cur", 1);
        let sent = signals_at(&house, frame, signal);
        let probe = Probe::of(&house);
        let path = relay(&house).0.to_string_lossy().into_owned();
        let second = house.next(&[new, &["-x", &path]].concat());
        let what = format!("{signal:?} at {frame}");
        house.serving(first);
        house.taken_over(&second);
        until_true("the frame has passed", || sent.load(Ordering::SeqCst));
        assert_eq!(probe.finish(), 0, "{what}: refused");
        assert_eq!(house.value("fe", "http_req_cnt"), 6, "{what}");
        if signal == Signal::USR1 {
            house.gate.open();
            let answer = client.response().expect("the whole answer");
            assert_eq!(answer.body.len(), 2 * HALF, "{what}");
            drop(client);
        }
        let code = house.first.wait().code();
        assert_eq!(code, Some(0), "{what}: {}", house.first.stderr());
        house.becomes("conns", "conn_cur", 0);
        house.becomes("fe", "conn_cur", 0);
        house.get(1);
        house.becomes("fe", "http_req_cnt", 7);
    }
}

/// The other process gives up, or dies: then the hard stop is due, too.
#[test]
fn a_supervisor_ends_when_nobody_takes_over_after_all() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    for signal in [Signal::USR1, Signal::TERM] {
        let mut house = House::new("{{dir}}/handoff.sock", &["-W"]);
        house.get(1);
        let first = Pid::from_raw(house.first.pid() as i32).expect("a pid");
        let (path, target) = relay(&house);
        middleman::listen(
            &path,
            &target,
            move |passing| {
                if passing.name == "Hold" {
                    let _ = kill_process(first, signal);
                    let _ = kill_process(passing.new, Signal::KILL);
                }
            },
            |_| {},
        );
        let mut second = house.next(&["-x", &path.to_string_lossy()]);
        second.wait();
        let code = house.first.wait().code();
        assert_eq!(code, Some(0), "{}", house.first.stderr());
    }
}

/// The other process gives up: then the stop is due.
#[test]
fn a_soft_stop_comes_when_nobody_takes_over_after_all() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    let mut house = House::new("{{dir}}/handoff.sock", &[]);
    house.get(1);
    let first = Pid::from_raw(house.first.pid() as i32).expect("a pid");
    let (path, target) = relay(&house);
    middleman::listen(
        &path,
        &target,
        move |passing| {
            if passing.name == "Pass/Walked" {
                let _ = kill_process(first, Signal::USR1);
                let _ = kill_process(passing.new, Signal::KILL);
            }
        },
        |_| {},
    );
    let mut second = house.next(&["-x", &path.to_string_lossy()]);
    second.wait();
    assert_eq!(
        house.first.wait().code(),
        Some(0),
        "{}",
        house.first.stderr()
    );
}

/// A hard stop is one: who is left goes on with what it was given, as after a death.
#[test]
fn a_hard_stop_leaves_everything_to_the_process_that_takes_over() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    for (frame, open) in [("Begin", -1), ("Pass/Walked", 0), ("Held", 0), ("Yours", 0)] {
        let mut house = House::with("{{dir}}/handoff.sock", &[], PROBE);
        house.get(5);
        let client = house.download();
        house.becomes("conns", "conn_cur", 1);
        let sent = signals_at(&house, frame, Signal::TERM);
        let probe = Probe::of(&house);
        let path = relay(&house).0.to_string_lossy().into_owned();
        let second = house.next(&["-x", &path]);
        assert_eq!(house.first.wait().code(), Some(143), "{frame}");
        assert!(sent.load(Ordering::SeqCst));
        until_true("the other one serves", || {
            serving(&house) == Some(second.pid())
        });
        assert_eq!(probe.finish(), 0, "{frame}: refused");
        // Not told yet, or told while it was still there.
        let count = house.value("fe", "http_req_cnt");
        let known = if open < 0 { [-1, 6] } else { [6, 6] };
        assert!(known.contains(&count), "{frame}: {count}");
        drop(client);
        house.get(1);
        house.becomes("conns", "conn_cur", 0);
        house.becomes("fe", "conn_cur", 0);
        house.becomes("fe", "http_req_cnt", count.max(0) + 1);
    }
}

/// Processes that drain are told to end: the one that serves counts all they had.
#[test]
fn a_hard_stop_of_processes_that_drain_loses_nothing() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    let mut house = House::new("{{dir}}/handoff.sock", &[]);
    let socket = house.first.dir().join("handoff.sock");
    let socket = socket.to_string_lossy().into_owned();
    let mut clients = vec![house.download()];
    house.becomes("conns", "conn_cur", 1);
    let mut second = house.next(&["-x", &socket]);
    house.taken_over(&second);
    clients.push(house.download());
    house.becomes("conns", "conn_cur", 2);
    let third = house.next(&["-x", &socket]);
    house.taken_over(&third);
    clients.push(house.download());
    house.becomes("conns", "conn_cur", 3);
    // The answers' first halves, with their heads, have been sent.
    let half = HALF as i64;
    until_true("all halves are counted", || {
        house.value("fe", "bytes_out_cnt") >= 3 * half
    });
    let bytes = house.value("fe", "bytes_out_cnt");
    house.first.signal(Signal::TERM);
    assert_eq!(house.first.wait().code(), Some(143));
    house.becomes("conns", "conn_cur", 2);
    second.signal(Signal::TERM);
    assert_eq!(second.wait().code(), Some(143));
    house.becomes("conns", "conn_cur", 1);
    house.becomes("fe", "conn_cur", 1);
    assert_eq!(house.value("fe", "bytes_out_cnt"), bytes);
    assert_eq!(house.value("conns", "conn_cnt"), 3);
    house.gate.open();
    let answer = clients[2].response().expect("the whole answer");
    assert_eq!(answer.body.len(), 2 * HALF);
    assert!(clients[0].response().is_err() && clients[1].response().is_err());
    drop(clients);
    house.becomes("conns", "conn_cur", 0);
    assert_eq!(house.value("fe", "bytes_out_cnt"), bytes + half);
}
