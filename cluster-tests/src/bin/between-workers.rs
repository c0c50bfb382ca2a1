//! Stands in for the program that a supervisor starts as its worker: starts the real one, passes everything on between the two,
//! notes each frame, and kills one side when a certain one has been passed on.
//!
//! It finds its orders in a file `between.conf` beside it: the real program, the frame, and the process to kill (0: the worker
//! itself), a line each. Frames are noted in `seen`; when it has killed, it says so there, too, and does nothing more. With `hold`
//! in place of the process nobody is killed: the frame, and all that would come after it, waits until there is a file `release`. With
//! `newer` or `older` either side takes the other one for a build of the next minor version of the hand-off, or of the one before.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use cluster_tests::middleman::{self, Passing};
use cluster_tests::wait::until_true;
use rustix::process::{Pid, Signal, kill_process};

fn main() {
    let mut args = std::env::args_os();
    let name = args.next().expect("a name");
    let dir = Path::new(&name).parent().expect("a directory").to_owned();
    let orders = std::fs::read_to_string(dir.join("between.conf")).expect("orders");
    let [program, frame, victim] = orders.lines().collect::<Vec<_>>()[..] else {
        panic!("three orders: {orders}");
    };
    let frame = frame.to_owned();
    let holds = victim == "hold";
    let minor = victim.to_owned();
    let release = dir.join("release");
    let victim = victim.parse().ok().and_then(Pid::from_raw);
    let (ours, theirs) = middleman::pair();
    let supervisor = std::io::stdin().as_fd().try_clone_to_owned();
    let mut child = Command::new(program)
        .arg0(&name)
        .args(args)
        .stdin(Stdio::from(theirs))
        .spawn()
        .expect("the program");
    let pid = Pid::from_raw(child.id() as i32).expect("a pid");
    let seen = OpenOptions::new()
        .append(true)
        .create(true)
        .open(dir.join("seen"));
    let seen = Arc::new(Mutex::new(seen.expect("a file")));
    let (noting, held) = (Arc::clone(&seen), Arc::clone(&seen));
    let fires = Arc::new(Mutex::new(
        !std::fs::read_to_string(dir.join("seen"))
            .expect("a file")
            .contains(FIRED),
    ));
    let firing = Arc::clone(&fires);
    let (stopped, wanted) = (victim.unwrap_or(pid), frame.clone());
    middleman::attend(
        ours,
        supervisor.expect("a channel"),
        pid,
        move |passing| {
            if passing.name == "Hello" {
                // The supervisor stays the program that it is.
                passing.bytes[6..8].fill(u8::MAX);
            }
            speak(passing, &minor);
            if passing.name == wanted && holds {
                note(&held, HELD);
                until_true("it may go on", || release.exists());
            } else if passing.name == wanted && *fires.lock().expect("no panic") {
                // What it does next must not depend on who is faster.
                let _ = kill_process(stopped, Signal::STOP);
            }
        },
        move |passed| {
            note(&noting, passed.name);
            let mut fires = firing.lock().expect("no panic");
            if *fires && !holds && passed.name == frame {
                *fires = false;
                note(&noting, FIRED);
                let _ = kill_process(victim.unwrap_or(pid), Signal::KILL);
            }
        },
    );
    let status = child.wait().expect("a child");
    if status.signal().is_some() {
        let _ = kill_process(rustix::process::getpid(), Signal::KILL);
    }
    std::process::exit(status.code().unwrap_or(1));
}

/// Makes a frame what a build of another minor version would say.
fn speak(passing: &mut Passing, minor: &str) {
    match minor {
        "newer" => passing.renew(),
        "older" => passing.age(),
        _ => {}
    }
}

fn note(seen: &Mutex<File>, what: &str) {
    let mut seen = seen.lock().expect("no panic");
    seen.write_all(format!("{what}\n").as_bytes())
        .expect("a file");
}

const FIRED: &str = "fired";
const HELD: &str = "held";
