//! Nodes that find each other by names: several of them, beside `server` lines, and names that do not lead to a newcomer yet.
//!
//! Every node is a host of its own and has a file of its own in the place of `/etc/hosts`, so that names can lag behind on one
//! and not on another.

use std::fmt::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cluster_tests::cli::Cli;
use cluster_tests::cluster::{Cluster, Spec};
use cluster_tests::dump::Expected;
use cluster_tests::hits::Tally;
use cluster_tests::netns::Net;
use cluster_tests::wait::until_true;

/// Where every node listens, on its own address.
const PORT: u16 = 10_000;

/// Nodes and their files of names.
struct Site {
    cluster: Cluster,
    names: tempfile::TempDir,
}

impl Site {
    /// `lines`: of each node's `peers` section. `None` when there can be no hosts here.
    fn new(count: usize, lines: &[&str]) -> Option<Self> {
        if !Net::possible() {
            return None;
        }
        let names = tempfile::tempdir().expect("a directory");
        let mut spec = Spec::of(count).isolated();
        for (node, lines) in (0..count).zip(lines.iter().cycle()) {
            let file = names.path().join(node.to_string());
            std::fs::write(&file, "").expect("a file");
            let lines = format!("  learn-timeout 10m\n  allow-plaintext\n{lines}");
            let bind = format!("mount --bind {} /etc/hosts && exec \"$@\"", file.display());
            spec = spec
                .peers_on(node, &lines)
                .wrapper_on(node, &["unshare", "-m", "sh", "-c", &bind, "sh"]);
            spec = (0..count).fold(spec, |spec, other| spec.unaware(node, other));
        }
        let mut cluster = spec.prepare();
        for node in 0..count {
            let node = cluster.node_mut(node);
            let port = node.peers_port();
            node.reconfigure(|config| config.replace(&format!(":{port} "), &format!(":{PORT} ")));
        }
        Some(Self { cluster, names })
    }

    /// What the names lead to, as this node sees it.
    fn set(&self, node: usize, names: &[(&str, &[usize])]) {
        let path: PathBuf = self.names.path().join(node.to_string());
        let mut text = "127.0.0.1 localhost\n".to_owned();
        for (name, nodes) in names {
            for other in *nodes {
                let address = self.cluster.net().address(*other);
                let _infallible = writeln!(text, "{address} {name}");
            }
        }
        write_in_place(&path, &text);
    }

    fn set_all(&self, names: &[(&str, &[usize])]) {
        (0..self.cluster.len()).for_each(|node| self.set(node, names));
    }

    /// The lines of `show peers` about the sessions that a node dials to another one.
    fn dialed(&self, node: usize, to: usize) -> Vec<String> {
        let address = format!(" addr={}:{PORT} ", self.cluster.net().address(to));
        let shown = self.cluster.node(node).ask("show peers");
        let lines = shown.lines().filter(|line| line.contains(&address));
        lines.map(str::to_owned).collect()
    }

    #[track_caller]
    fn all_count(&self, tally: &mut Tally) {
        for node in 0..self.cluster.len() {
            if self.cluster.node(node).runs() {
                self.cluster.node(node).hit("k", 5, tally);
            }
        }
        self.cluster.settled(&Expected::of(tally));
    }
}

/// Replaces the content of a file that is mounted, so that another one cannot take its place: in one write, or whoever reads
/// meanwhile finds nobody.
fn write_in_place(path: &Path, text: &str) {
    assert!(text.len() < FILE_BYTES, "one page");
    let file = std::fs::OpenOptions::new().write(true).open(path);
    let text = format!("{text:\n<FILE_BYTES$}");
    let written = file.and_then(|file| file.write_at(text.as_bytes(), 0));
    assert_eq!(written.ok(), Some(FILE_BYTES));
}

const FILE_BYTES: usize = 2_048;

const LINE: &str = "  discover dns all.test:10000 every 200ms\n";

/// The names that its elders know do not lead to a newcomer yet. They dial it all the same, so it learns before it accepts; when
/// a name leads there it is no other peer; and when it goes it is forgotten.
#[test]
fn a_newcomer_that_no_name_leads_to_is_dialed() {
    let Some(mut site) = Site::new(3, &[LINE]) else {
        return;
    };
    site.set_all(&[("all.test", &[0, 1])]);
    let mut tally = Tally::default();
    for node in 0..2 {
        site.cluster.node_mut(node).start();
    }
    site.all_count(&mut tally);
    site.cluster.node_mut(2).start();
    assert_eq!(
        site.cluster.node(2).value("k", "gpc0"),
        10,
        "it accepts, and was not taught"
    );
    site.all_count(&mut tally);
    let newcomer = format!("{}:{PORT}", site.cluster.net().address(2));
    for node in 0..2 {
        let line = format!("{newcomer} is dialed, though all.test does not lead there yet");
        let said = site.cluster.node(node).proxy().says(&line);
        assert_eq!(said.matches(&line).count(), 1, "{said}");
    }

    // The name leads there: it is the same peer, dialed once.
    site.set_all(&[("all.test", &[0, 1, 2])]);
    for node in 0..2 {
        until_true("the name is followed", || {
            let said = site.cluster.node(node).proxy().stderr();
            said.contains(&format!("{newcomer} found"))
        });
    }
    site.all_count(&mut tally);
    for node in 0..2 {
        // What is found is said first, and the peers make of it what they do a moment later.
        until_true("it is one peer", || {
            let dialed = site.dialed(node, 2);
            dialed.len() == 1
                && dialed[0].contains("status=UP")
                && dialed[0].contains("discovered=1")
        });
        let shown = site.cluster.node(node).ask("show peers");
        let after = shown.split(&format!(" addr={newcomer} ")).nth(1);
        let after = after.expect("its lines");
        let dials = after.split(" dials=").nth(1).expect("a number");
        assert!(dials.starts_with("1 "), "{shown}");
    }

    // It goes, and the name with it: nobody dials it after the grace time, nor is there an end to it.
    site.cluster.node_mut(2).kill();
    site.set_all(&[("all.test", &[0, 1])]);
    for node in 0..2 {
        until_true("the leaver is forgotten", || {
            site.dialed(node, 2).is_empty()
        });
        let line = format!("{newcomer} is gone");
        site.cluster.node(node).proxy().says(&line);
    }
    site.all_count(&mut tally);

    // Once more without a name: a guest that stays away is forgotten too.
    site.cluster.node_mut(2).start();
    site.all_count(&mut tally);
    site.cluster.node_mut(2).stop();
    for node in 0..2 {
        until_true("the guest is forgotten", || site.dialed(node, 2).is_empty());
    }
    site.all_count(&mut tally);
}

/// A `server` line and two names lead to the same nodes: each is a peer once.
#[test]
fn several_names_and_a_line_lead_to_the_same_nodes() {
    let names =
        "  discover dns one.test:10000 every 200ms\n  discover dns two.test:10000 every 200ms\n";
    let [first, other] = [1, 0].map(|n| {
        let address = format!("10.77.0.{}", n + 1);
        format!("{names}  server node{n} {address}:{PORT}\n")
    });
    let Some(mut site) = Site::new(4, &[&first, &other, names, names]) else {
        return;
    };
    // Node 1 is found by both names and has a line; node 2 is found by both; node 3 by one only.
    site.set_all(&[("one.test", &[0, 1, 2]), ("two.test", &[1, 2, 3])]);
    for node in 0..4 {
        site.cluster.node_mut(node).spawn();
    }
    for node in 0..4 {
        site.cluster.node_mut(node).ready();
    }
    let mut tally = Tally::default();
    site.all_count(&mut tally);
    until_true("a line is enough", || {
        let dialed = site.dialed(0, 1);
        dialed.len() == 1 && dialed[0].contains("discovered=0")
    });
    for (node, to) in [(0, 2), (0, 3), (1, 0), (2, 0), (2, 1), (2, 3), (3, 0)] {
        until_true("each is reached over one session", || {
            let up = |line: &&String| line.contains("status=UP");
            site.dialed(node, to).iter().filter(up).count() == 1
        });
    }
    // Gone from both names, the line stays.
    site.cluster.node_mut(3).stop();
    site.set_all(&[("one.test", &[0, 2]), ("two.test", &[2])]);
    until_true("who has no line is forgotten", || {
        site.dialed(0, 3).is_empty()
    });
    until_true("who lives stays, though no name leads there", || {
        let said = site.cluster.node(2).proxy().stderr();
        let dialed = site.dialed(2, 1);
        said.contains("stays as long as it has a session")
            && dialed.len() == 1
            && dialed[0].contains("status=UP")
    });
    assert_eq!(site.dialed(0, 1).len(), 1, "its line is still there");
    site.all_count(&mut tally);
}

/// A node that drains has no name any more and still counts; a Service that is made anew has none for anybody.
#[test]
fn who_has_lost_its_name_stays_while_it_lives() {
    let Some(mut site) = Site::new(2, &[LINE]) else {
        return;
    };
    site.set_all(&[("all.test", &[0, 1])]);
    for node in 0..2 {
        site.cluster.node_mut(node).spawn();
    }
    for node in 0..2 {
        site.cluster.node_mut(node).ready();
    }
    let mut tally = Tally::default();
    site.all_count(&mut tally);
    let other = format!("{}:{PORT}", site.cluster.net().address(1));
    site.set_all(&[("all.test", &[0])]);
    until_true("the name has lost it", || {
        let said = site.cluster.node(0).proxy().stderr();
        said.contains(&format!("{other} is gone"))
    });
    // Discovery tells what it found first and the peers what they make of it after: two lines of two tasks.
    until_true("its session keeps it", || {
        let said = site.cluster.node(0).proxy().stderr();
        said.contains(&format!("{other} stays as long as it has a session"))
    });
    site.all_count(&mut tally);
    // The file of names is not replaced in one step, so it may have been read when it was empty.
    until_true("how the name stands is shown", || {
        let shown = site.cluster.node(0).ask("show peers");
        shown.contains("  discover=all.test status=OK addresses=1 last_error=")
    });
    let dialed = site.dialed(0, 1);
    let up = dialed.iter().any(|line| line.contains("status=UP"));
    assert!(up, "its session goes on: {dialed:?}");
    let said = site.cluster.node(0).proxy().stderr();
    assert!(!said.contains("counts alone"), "{said}");

    site.cluster.node_mut(1).stop();
    until_true("who is gone is forgotten", || site.dialed(0, 1).is_empty());
    until_true("the last one says that it is", || {
        let said = site.cluster.node(0).proxy().stderr();
        said.lines()
            .any(|line| line.contains("WARNING") && line.contains("counts alone"))
    });
    site.all_count(&mut tally);
}

/// While nobody answers questions about the name, all nodes are reloaded at the same time: no process of them has ever been told
/// who is there, and all know it.
#[test]
fn reloads_keep_addresses_while_names_are_silent() {
    let Some(mut site) = Site::new(3, &[LINE]) else {
        return;
    };
    for index in 0..3 {
        let node = site.cluster.node_mut(index);
        let head = "global\n  master-worker\n";
        node.reconfigure(|config| config.replacen("global\n", head, 1));
        node.spawn();
    }
    for node in 0..3 {
        let said = site.cluster.node(node).proxy();
        said.says("and it has led to nobody yet");
        said.says("counts alone: no other node is known");
    }
    site.set_all(&[("all.test", &[0, 1, 2])]);
    for node in 0..3 {
        site.cluster.node_mut(node).ready();
    }
    let mut tally = Tally::default();
    site.all_count(&mut tally);
    site.set_all(&[]);
    let stands = |how: &str| {
        for node in 0..3 {
            let line = format!("  discover=all.test status={how} addresses=3 ");
            until_true("how the name stands is shown", || {
                let shown = site.cluster.node(node).ask("show peers");
                shown.contains(&line)
            });
        }
    };
    stands("FAILING");
    // Twice: what was told is passed on.
    for _ in 0..2 {
        let sockets = (0..3).map(|node| {
            let dir = site.cluster.node(node).proxy().dir();
            dir.join("master.sock")
        });
        let reloads = sockets.map(|socket| std::thread::spawn(|| Cli::new(socket).ask("reload")));
        for reload in reloads.collect::<Vec<_>>() {
            let said = reload.join().expect("an answer");
            assert!(said.starts_with("Success=1\n"), "{said}");
        }
        site.all_count(&mut tally);
        stands("FAILING");
    }
    site.set_all(&[("all.test", &[0, 1, 2])]);
    stands("OK");
    site.all_count(&mut tally);
    let said = site.cluster.node(0).proxy().stderr();
    assert_eq!(said.matches("counts alone").count(), 1, "{said}");
}
