//! Hand-overs between two supervisors, or two processes without, that go wrong at every frame: someone always serves, never
//! two, nobody is refused, and what was counted is there.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use cluster_tests::Proxy;
use cluster_tests::middleman;
use cluster_tests::wait::{PATIENCE, until, until_true, until_within};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::haproxy_lacks;
use crate::house::{HALF, House, PROBE, Probe, serving};

/// What has passed through the process in between.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn push(&self, name: &str) {
        self.0.lock().expect("no panic").push(name.to_owned());
    }
    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }
}

pub(crate) fn relay(house: &House) -> (PathBuf, PathBuf) {
    let dir = house.first.dir();
    (dir.join("relay.sock"), dir.join("handoff.sock"))
}

/// One more process, with its own supervisor, that takes over through the process in between.
fn taker(house: &House) -> Proxy {
    taker_with(house, &["-W"])
}

fn taker_with(house: &House, args: &[&str]) -> Proxy {
    let path = relay(house).0.to_string_lossy().into_owned();
    house.next(&[args, &["-x", &path]].concat())
}

fn has_left(supervisor: &Proxy) -> bool {
    supervisor
        .stderr()
        .contains("Another process has taken over")
}

/// All that is said until one of them has taken over.
const FRAMES: [&str; 17] = [
    "Hello",
    "Take",
    "Listeners",
    "Begin",
    "Pass/Ask",
    "Pass/Tables",
    "Pass/Rows",
    "Pass/Walked",
    "Hold",
    "Pass/Totals",
    "Pass/Sealed",
    "Held",
    "Drain",
    "Yours",
    "Pass/Accepting",
    "Pass/Quiet",
    "Pass/Released",
];

/// One side is killed after each frame, in a house of its own each time.
fn killed_after_each(frames: &[&'static str], old_dies: bool, new: &[&str]) {
    for &frame in frames {
        let house = House::with("{{dir}}/handoff.sock", &["-W"], PROBE);
        let old = until("the first one serves", || serving(&house));
        house.get(5);
        let client = house.download();
        house.becomes("conns", "conn_cur", 1);
        let seen = Seen::default();
        let fired = Arc::new(Mutex::new(None::<Pid>));
        let (path, target) = relay(&house);
        let since = Seen::default();
        let (names, later, firing) = (seen.clone(), since.clone(), Arc::clone(&fired));
        let once = Arc::clone(&fired);
        let old_pid = Pid::from_raw(old as i32).expect("a pid");
        middleman::listen(
            &path,
            &target,
            move |passing| {
                if passing.name == frame && once.lock().expect("no panic").is_none() {
                    // What it does next must not depend on who is faster.
                    let victim = if old_dies { old_pid } else { passing.new };
                    let _ = kill_process(victim, Signal::STOP);
                }
            },
            move |passed| {
                let mut fired = firing.lock().expect("no panic");
                if fired.is_some() {
                    later.push(passed.name);
                } else {
                    names.push(passed.name);
                    if passed.name == frame {
                        let victim = if old_dies { old_pid } else { passed.new };
                        let _ = kill_process(victim, Signal::KILL);
                        *fired = Some(victim);
                    }
                }
            },
        );
        let probe = Probe::of(&house);
        let mut second = taker_with(&house, new);
        // It is known who serves: the other one has given up, or left.
        let mut outcome = || {
            // Not under the lock: frames pass meanwhile.
            let dead = *fired.lock().expect("no panic");
            let dead = dead.map(|pid| pid.as_raw_nonzero().get() as u32);
            let now = serving(&house).filter(|now| Some(*now) != dead)?;
            if second.try_wait().is_some() {
                return (!has_left(&house.first)).then_some(false);
            }
            (has_left(&house.first) && now != old).then_some(true)
        };
        let mut outcome = || {
            let known = until_within(PATIENCE, &mut outcome);
            known.unwrap_or_else(|| {
                let (before, since) = (seen.all(), since.all());
                panic!(
                    "nobody serves after {before:?}, {since:?}: {}",
                    house.first.stderr()
                )
            })
        };
        let mut taken = outcome();
        // The last frames may still be on their way.
        let has_fired = || fired.lock().expect("no panic").is_some().then_some(());
        if until_within(PATIENCE, has_fired).is_some() {
            taken = outcome();
        }
        let names = seen.all();
        let what = format!("after {frame} of {names:?}, taken over: {taken}");
        let died = fired.lock().expect("no panic").is_some();
        assert!(died, "{what}");
        assert_eq!(probe.finish(), 0, "{what}\n{}", second.stderr());
        // Up to the last word, an old worker that dies is replaced by its own supervisor, and a new one that dies as long as
        // it might have been told it by its own, which asks once more.
        let last = if old_dies {
            &["Yours", "Pass/Accepting", "Pass/Quiet", "Pass/Released"][..]
        } else {
            &[
                "Hold",
                "Pass/Sealed",
                "Held",
                "Drain",
                "Yours",
                "Pass/Accepting",
                "Pass/Quiet",
                "Pass/Released",
            ]
        };
        assert_eq!(taken, last.contains(&frame), "{what}");
        // A worker of the old side that begins in place of a dead one knows nothing.
        let kept = !old_dies || taken;
        let count = house.value("fe", "http_req_cnt").max(0);
        assert_eq!(count, if kept { 6 } else { 0 }, "{what}");
        let open = i64::from(!old_dies);
        let absent = if kept { 0 } else { -1 };
        house.becomes("conns", "conn_cur", if open > 0 { open } else { absent });
        if !old_dies && !taken {
            assert_eq!(serving(&house), Some(old), "{what}");
        }
        house.get(1);
        house.gate.open();
        let mut client = client;
        if !old_dies {
            let answer = client.response().expect("the whole answer");
            assert_eq!(answer.body.len(), 2 * HALF, "{what}");
        }
        drop(client);
        house.becomes("conns", "conn_cur", 0);
    }
}

/// The same where the new process has no supervisor: who is left serves. If the old one has none either, it may die, too.
fn plain_killed_after_each(frames: &[&'static str], old_dies: bool, old_args: &[&str]) {
    for &frame in frames {
        let house = House::with("{{dir}}/handoff.sock", old_args, PROBE);
        let old = house.serving(0);
        house.get(5);
        let mut client = house.download();
        house.becomes("conns", "conn_cur", 1);
        let fired = Arc::<Mutex<bool>>::default();
        let (once, firing) = (Arc::clone(&fired), Arc::clone(&fired));
        let (path, target) = relay(&house);
        let old_pid = Pid::from_raw(old as i32).expect("a pid");
        middleman::listen(
            &path,
            &target,
            move |passing| {
                if passing.name == frame && !*once.lock().expect("no panic") {
                    let victim = if old_dies { old_pid } else { passing.new };
                    let _ = kill_process(victim, Signal::STOP);
                }
            },
            move |passed| {
                let mut fired = firing.lock().expect("no panic");
                if passed.name == frame && !*fired {
                    let victim = if old_dies { old_pid } else { passed.new };
                    let _ = kill_process(victim, Signal::KILL);
                    *fired = true;
                }
            },
        );
        let probe = Probe::of(&house);
        let mut second = house.next(&["-x", &path.to_string_lossy()]);
        until_true("one is dead", || *fired.lock().expect("no panic"));
        let left = if old_dies { second.pid() } else { old };
        if !old_dies {
            second.wait();
        }
        until_true("the other one serves", || serving(&house) == Some(left));
        // Somebody has the sockets all the time, unless it died before it could give them.
        let refused = probe.finish();
        let gave = !old_dies || !["Hello", "Take"].contains(&frame);
        let what = format!("{frame}: {}\n{}", second.stderr(), house.first.stderr());
        assert!(refused == 0 || !gave, "{refused} refused, {what}");
        let at = |name: &str| FRAMES.iter().position(|known| *known == name);
        let known = !old_dies || at(frame) >= at("Pass/Rows");
        let count = house.value("fe", "http_req_cnt");
        // What it said in one go may be under way already.
        let perhaps = old_dies && frame == "Pass/Tables" && count == 6;
        assert!(
            perhaps || count == if known { 6 } else { -1 },
            "{count}, {what}"
        );
        // Its connections ended with it.
        let rows = at(frame) > at("Pass/Rows");
        until_true("as many connections are open as there are", || {
            let open = house.value("conns", "conn_cur");
            match old_dies {
                true => open == 0 || open == -1 && !rows,
                false => open == 1,
            }
        });
        if old_dies && at(frame) < at("Pass/Sealed") {
            until_true("the new one tells of it", || {
                let said = second.stderr();
                said.contains("ended") || said.contains("beginning without")
            });
        }
        house.get(1);
        if !old_args.is_empty() {
            // The supervisor is one as before.
            house.first.signal(Signal::USR2);
            let reloaded = house.serving(old);
            kill_process(Pid::from_raw(reloaded as i32).expect("a pid"), Signal::KILL)
                .expect("it lives");
            house.serving(reloaded);
        }
        house.gate.open();
        if !old_dies {
            let answer = client.response().expect("the whole answer");
            assert_eq!(answer.body.len(), 2 * HALF, "{what}");
        }
        drop(client);
        house.becomes("fe", "http_req_cnt", count.max(0) + 1);
        house.becomes("conns", "conn_cur", 0);
    }
}

/// Until it accepts, the old one does, and goes on.
#[test]
fn a_new_process_without_supervisor_may_die_after_each_frame() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    plain_killed_after_each(&FRAMES[..14], false, &[]);
}

/// The new one goes on with what it was given.
#[test]
fn an_old_process_without_supervisor_may_die_after_each_frame() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    plain_killed_after_each(&FRAMES, true, &[]);
}

#[test]
fn the_new_process_may_die_after_each_frame() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    killed_after_each(&FRAMES, false, &["-W"]);
}

#[test]
fn the_old_process_may_die_after_each_frame() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    killed_after_each(&FRAMES, true, &["-W"]);
}

/// A supervisor has given its word to a process that has none: if that dies before it accepts, it takes the word back.
#[test]
fn a_new_process_without_supervisor_may_die_after_each_frame_of_an_old_one_with() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    plain_killed_after_each(&FRAMES[4..14], false, &["-W"]);
}

/// Up to the word, the supervisor replaces its worker; from then on the new process serves.
#[test]
fn an_old_process_with_supervisor_may_die_after_each_frame_of_a_new_one_without() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    killed_after_each(&FRAMES[7..], true, &[]);
}

/// A side that is stopped, not dead: the other one gives up in time, and the old one goes on.
fn stopped_before(frame: &'static str, old_stops: bool) {
    let house = House::with("{{dir}}/handoff.sock", &["-W"], PROBE);
    let old = until("the first one serves", || serving(&house));
    let old_pid = Pid::from_raw(old as i32).expect("a pid");
    house.get(5);
    let stopped = Arc::new(Mutex::new(None::<Pid>));
    let stopping = Arc::clone(&stopped);
    let (path, target) = relay(&house);
    middleman::listen(
        &path,
        &target,
        move |passed| {
            let mut stopped = stopping.lock().expect("no panic");
            if passed.name == frame && stopped.is_none() {
                let who = if old_stops { old_pid } else { passed.new };
                let _ = kill_process(who, Signal::STOP);
                *stopped = Some(who);
            }
        },
        |_| {},
    );
    let mut second = taker(&house);
    let who = until("one side is stopped", || *stopped.lock().expect("no panic"));
    if old_stops {
        assert_eq!(second.wait().code(), Some(1));
        assert!(
            second.stderr().contains("it does not answer"),
            "{}",
            second.stderr()
        );
        kill_process(who, Signal::CONT).expect("it lives");
    } else {
        house.first.says("this one goes on");
        house.get(1);
        // Its supervisor may have given it up by now.
        let _ = kill_process(who, Signal::CONT);
        let code = second.wait().code();
        let said = second.stderr();
        match code {
            Some(137) => assert!(said.contains("was stopped by signal"), "{said}"),
            code => {
                assert_eq!(code, Some(1), "{said}");
                assert!(said.contains("does not hand over"), "{said}");
            }
        }
    }
    until_true("the first one serves", || serving(&house) == Some(old));
    house.get(1);
    let count = if old_stops { 6 } else { 7 };
    assert_eq!(house.value("fe", "http_req_cnt"), count);
    // Nothing is left of it: the next attempt goes well.
    let third = house.next(&["-W", "-x", &target.to_string_lossy()]);
    until_true("the next one serves", || {
        serving(&house).is_some_and(|now| now != old)
    });
    assert_eq!(
        house.value("fe", "http_req_cnt"),
        count,
        "{}",
        third.stderr()
    );
}

#[test]
fn a_new_process_that_is_stopped_takes_nothing() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    stopped_before("Held", false);
}

#[test]
fn an_old_process_that_is_stopped_gives_nothing() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    stopped_before("Hold", true);
}

/// A build with additions that this one does not know, and one that lacks some that this one has.
#[test]
fn other_minor_versions_hand_over() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    for newer in [true, false] {
        let house = House::with("{{dir}}/handoff.sock", &["-W"], PROBE);
        let old = until("the first one serves", || serving(&house));
        house.get(5);
        let client = house.download();
        house.becomes("fe", "http_req_cnt", 6);
        let (path, target) = relay(&house);
        middleman::listen(
            &path,
            &target,
            move |frame| {
                if newer {
                    frame.renew();
                } else {
                    frame.age();
                }
            },
            |_| {},
        );
        let second = taker(&house);
        until_true("the second one serves", || {
            serving(&house).is_some_and(|now| now != old)
        });
        assert_eq!(house.value("fe", "http_req_cnt"), 6, "{}", second.stderr());
        house.becomes("conns", "conn_cur", 1);
        house.gate.open();
        let mut client = client;
        assert!(client.response().is_ok());
        drop(client);
        house.becomes("conns", "conn_cur", 0);
    }
    // Another version altogether is refused by name.
    let house = House::with("{{dir}}/handoff.sock", &["-W"], PROBE);
    let old = until("the first one serves", || serving(&house));
    let (path, target) = relay(&house);
    middleman::listen(&path, &target, |frame| frame.bytes[1] += 1, |_| {});
    let mut second = taker(&house);
    assert_eq!(second.wait().code(), Some(1));
    // Each says so, or finds the other gone.
    let said = second.stderr();
    assert!(
        said.contains("version 2 of the hand-off") || said.contains("it hung up"),
        "{said}"
    );
    assert_eq!(serving(&house), Some(old));
}

/// More tables than a frame can describe.
#[test]
fn hundreds_of_tables_are_handed_over() {
    if haproxy_lacks("a 'handoff' socket") {
        return;
    }
    let all: String = (0..500)
        .map(|i| {
            let name = format!("a-table-with-a-rather-long-name-that-takes-some-room-{i}");
            format!("backend {name}\n  stick-table type string len 900 size 1k store http_req_cnt,gpc(20),gpc_rate(20,10s),gpt(20),conn_cur\n")
        })
        .collect();
    let house = House::with("{{dir}}/handoff.sock", &["-W"], &all);
    let old = until("the first one serves", || serving(&house));
    let table = "a-table-with-a-rather-long-name-that-takes-some-room-499";
    // Long keys, too; some of them are removed while they are shown.
    let key = |i: usize| format!("{i:0>800}");
    for i in 0..200 {
        house.cli().ask(&format!(
            "set table {table} key {} data.http_req_cnt {i}",
            key(i)
        ));
    }
    let path = house.first.dir().join("handoff.sock");
    let second = house.next(&["-W", "-x", &path.to_string_lossy()]);
    let said = house
        .cli()
        .ask(&format!("clear table {table} data.http_req_cnt lt 100"));
    assert_eq!(said.trim(), "");
    until_true("the second one serves", || {
        serving(&house).is_some_and(|now| now != old)
    });
    let entries = house.cli().entries(table);
    assert_eq!(entries.len(), 100, "{}", second.stderr());
    assert_eq!(
        house
            .cli()
            .entry(table, &key(150))
            .map(|e| e.get("http_req_cnt")),
        Some(150)
    );
    let now = serving(&house);
    second.signal(Signal::USR2);
    until_true("its next worker serves", || {
        serving(&house).is_some_and(|new| Some(new) != now)
    });
    assert_eq!(house.cli().entries(table).len(), 100);
}
