//! What tests of hand-overs have in common: a proxy with tables, more of them with the same configuration, clients that wait for
//! the second half of an answer, and who serves.

use std::io::{Error, ErrorKind};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use cluster_tests::cli::Cli;
use cluster_tests::cluster::Cluster;
use cluster_tests::locate::{kind_under_test, program};
use cluster_tests::server::Gate;
use cluster_tests::wait::{PATIENCE, until, until_true, until_within};
use cluster_tests::{Client, Launch, Proxy, Server, get};
use rustix::process::Signal;

use crate::common::HEAD;
use crate::reload_tables::TABLES;
use crate::supervisor::{kill, worker};

/// The first process, and what all have in common: its configuration, and so the CLI's socket.
pub(crate) struct House {
    pub(crate) first: Proxy,
    _server: Server,
    pub(crate) gate: Gate,
}

/// A server's answer has two halves; the second waits for the gate.
pub(crate) const HALF: usize = 100_000;

impl House {
    pub(crate) fn new(handoff: &str, args: &[&str]) -> House {
        House::with(handoff, args, "")
    }

    /// With more sections.
    pub(crate) fn with(handoff: &str, args: &[&str], more: &str) -> House {
        House::of(&program(kind_under_test()), handoff, args, more)
    }

    /// With another name for the program.
    pub(crate) fn of(program: &Path, handoff: &str, args: &[&str], more: &str) -> House {
        let gate = Gate::default();
        let held = gate.clone();
        let server = Server::with(move |_, peer| {
            peer.write(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                2 * HALF
            ));
            peer.write(vec![b'x'; HALF]);
            held.wait();
            peer.write(vec![b'x'; HALF])
        });
        let head = HEAD.replacen("global\n", &format!("global\n  handoff {handoff}\n"), 1);
        let launch = Launch::new(&format!("{head}{TABLES}{more}"))
            .file("hand/.keep", "")
            .set("s1", server.addr())
            .program(program);
        let launch = args.iter().fold(launch, |launch, arg| launch.arg(arg));
        House {
            first: launch.arg("-f").arg("test.cfg").start(),
            _server: server,
            gate,
        }
    }

    /// One more process with the same configuration.
    pub(crate) fn next(&self, args: &[&str]) -> Proxy {
        let config = self.first.dir().join("test.cfg");
        let launch = args
            .iter()
            .fold(Launch::new(""), |launch, arg| launch.arg(arg));
        launch.arg("-f").arg(&config.to_string_lossy()).spawn()
    }

    pub(crate) fn cli(&self) -> Cli {
        self.first.cli()
    }

    /// The process that serves, once it is not this one.
    pub(crate) fn serving(&self, not: u32) -> u32 {
        until("another process serves", || {
            self.cli().try_open().ok()?;
            let now = self.cli().info("Pid")?.parse().ok()?;
            (now != not).then_some(now)
        })
    }

    /// Waits until `next` has taken over from the process before, which accepts nothing any more; until then, both do.
    pub(crate) fn taken_over(&self, next: &Proxy) {
        until_true("it has taken over", || next.stderr().contains("hand-off: "));
    }

    pub(crate) fn get(&self, times: usize) {
        for _ in 0..times {
            let answer = get(self.first.addr("fe"), "/");
            assert_eq!(answer.map(|r| r.status), Ok(200));
        }
    }

    /// A client that is being sent the first half of its answer: the head, which depends on whether the process drains, has
    /// been made.
    pub(crate) fn download(&self) -> Client {
        let before = self.value("fe", "bytes_out_cnt").max(0);
        let mut client = Client::connect(self.first.addr("fe"));
        client.get("/long");
        until_true("the first half is counted", || {
            self.value("fe", "bytes_out_cnt") >= before + HALF as i64
        });
        client
    }

    /// Lets the second halves go: these clients get theirs, and are gone.
    #[track_caller]
    pub(crate) fn completes(&self, clients: impl IntoIterator<Item = Client>) {
        self.gate.open();
        for mut client in clients {
            let answer = client.response().expect("the whole answer");
            assert_eq!(answer.body.len(), 2 * HALF);
        }
    }

    pub(crate) fn value(&self, table: &str, name: &str) -> i64 {
        let entry = self.cli().entry(table, "127.0.0.1");
        entry.map_or(-1, |entry| entry.get(name))
    }

    #[track_caller]
    pub(crate) fn becomes(&self, table: &str, name: &str, wanted: i64) {
        let mut last = 0;
        let seen = until_within(PATIENCE, || {
            last = self.value(table, name);
            (last == wanted).then_some(())
        });
        assert!(seen.is_some(), "{name} of {table} is {last}, not {wanted}");
    }
}

pub(crate) const PROBE: &str = "
frontend probe
  bind 127.0.0.1:{{port:probe}}
  http-request return status 200
";

/// Connects all the time to a port that counts nothing.
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Probe {
    pub(crate) fn of(house: &House) -> Probe {
        let (stop, refused) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let address = house.first.addr("probe");
        let (stops, counts) = (Arc::clone(&stop), Arc::clone(&refused));
        let thread = std::thread::spawn(move || {
            while !stops.load(Ordering::Relaxed) {
                // That no port is left to connect from is nobody's refusal.
                let refused = |e: &Error| e.kind() != ErrorKind::AddrNotAvailable;
                if TcpStream::connect(address).is_err_and(|e| refused(&e)) {
                    counts.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::yield_now();
            }
        });
        Probe {
            stop,
            refused,
            thread: Some(thread),
        }
    }

    /// How many connections were refused.
    pub(crate) fn finish(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
        self.refused.load(Ordering::Relaxed)
    }
}

/// The process id that the CLI of whoever serves tells, if somebody does.
pub(crate) fn serving(house: &House) -> Option<u32> {
    house.cli().try_open().ok()?;
    house.cli().info("Pid")?.parse().ok()
}

/// A supervisor with a master CLI.
pub(crate) const MASTER: [&str; 3] = ["-W", "-S", "{{dir}}/master.sock"];

/// The worker that serves as its supervisor knows, once it is not this one: until then, the one before would go on.
pub(crate) fn settled(supervisor: &Proxy, not: u32) -> u32 {
    let socket = supervisor.dir().join("master.sock");
    until("another worker serves", || {
        socket.exists().then_some(())?;
        Some(worker(supervisor)).filter(|now| *now != not)
    })
}

/// Kills the worker that serves, and waits for the next one.
pub(crate) fn killed(supervisor: &Proxy, serving: u32) -> u32 {
    kill(serving, Signal::KILL);
    settled(supervisor, serving)
}

/// A frontend of every node whose downloads come from this server and are counted together, under `down` in table `downs`.
pub(crate) fn downloads(server: &Server) -> String {
    format!(
        "
frontend down
  bind unix@{{{{dir}}}}/down.sock
  http-request track-sc0 str(down) table downs
  default_backend origin
backend downs
  stick-table type string size 100 expire 10m store conn_cur,http_req_cnt,bytes_out_cnt peers p
backend origin
  server s1 {}
",
        server.addr()
    )
}

/// Starts all nodes, these with a supervisor, and waits until they serve.
pub(crate) fn serve_supervised(cluster: &mut Cluster, supervised: &[usize]) {
    let all = "global\n  master-worker\n";
    for &index in supervised {
        let node = cluster.node_mut(index);
        node.reconfigure(|config| config.replacen("global\n", all, 1));
    }
    for index in 0..cluster.len() {
        cluster.node_mut(index).spawn();
    }
    for index in 0..cluster.len() {
        cluster.node_mut(index).ready();
    }
}
