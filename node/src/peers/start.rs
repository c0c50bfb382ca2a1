//! From the plan to running sections, and their end.

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use remora_config::plan::{PeersSection, PeersTls, Plan};
use remora_core::peers::store::{Store, Stores};
use remora_core::peers::{Hub, HubConfig};
use remora_core::table::{Key, Lineages, Table, TableId, Tag};
use tokio::runtime::LocalOptions;
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};

use super::alarm::Alarm;
use super::check;
use super::dial::Target;
use super::discover;
use super::door::Door;
use super::expiry;
use super::follow::Followed;
use super::section::{self, Section, Totals};
use super::tls;
use crate::handoff::Inherited;
use crate::handoff::frames::tables::Found;
use crate::handoff::inherited::Offer;
use crate::handoff::tables::Hubs;
use crate::proxy::clock;
use crate::shared::Shared;

/// The sockets of the sections that are not switched off.
pub struct Open(Vec<OpenSection>);

struct OpenSection {
    index: usize,
    doors: Vec<Door>,
    targets: Vec<Target>,
    followed: Vec<Followed>,
    certificates: expiry::Files,
}

impl Open {
    /// How many sections there are.
    pub fn sections(&self) -> usize {
        self.0.len()
    }
}

/// Opens the sockets of all sections, or takes them from `pool`, and reads their certificates, while the process still
/// may. What is open is added to `offer`.
///
/// # Errors
/// One message per line that could not be used.
pub fn open(plan: &Plan, pool: &mut Inherited, offer: &mut Offer) -> Result<Open, Vec<String>> {
    let mut sections = Vec::new();
    let mut errors = Vec::new();
    let root = plan.global.chroot.as_deref().map(Path::new);
    if root.is_some() {
        tls::expect_chroot();
        discover::keep_files();
    }
    for (index, section) in plan.peers.iter().enumerate().filter(|(_, s)| !s.disabled) {
        let place = |place: &remora_config::plan::Place| check::at(plan, place);
        let names = tls::expected_names(dialed(section)).unwrap_or_default();
        let mut opened = OpenSection {
            index,
            doors: Vec::new(),
            targets: Vec::new(),
            followed: Vec::new(),
            certificates: expiry::Files::of(section),
        };
        for bind in &section.binds {
            match Door::open(bind, &names, section.allow_plaintext, pool, offer) {
                Ok(door) => opened.doors.push(door),
                Err(why) => errors.push(format!(
                    "Binding {} for peers section {}: {why} for [{}]",
                    place(&bind.place),
                    section.name,
                    bind.text
                )),
            }
        }
        for server in section.servers.iter().filter(|s| !s.disabled) {
            let target = Target::new(
                server.name.clone(),
                server.address.clone(),
                server.tls.as_ref(),
            );
            match target.and_then(|target| target.pinned(root)) {
                Ok(target) => opened.targets.push(target),
                Err(why) => errors.push(format!(
                    "{} : peers section '{}', peer '{}': {why}",
                    place(&server.place),
                    section.name,
                    server.name
                )),
            }
        }
        for line in &section.discover {
            match Followed::new(line) {
                Ok(followed) => opened.followed.push(followed),
                Err(why) => errors.push(format!(
                    "{} : peers section '{}', discover '{}': {why}",
                    place(&line.place),
                    section.name,
                    line.name
                )),
            }
        }
        sections.push(opened);
    }
    if errors.is_empty() {
        Ok(Open(sections))
    } else {
        Err(errors)
    }
}

/// TLS options of all lines that lead to other nodes.
fn dialed(section: &PeersSection) -> impl Iterator<Item = &PeersTls> {
    let servers = section.servers.iter().map(|s| s.tls.as_ref());
    let discover = section.discover.iter().map(|d| d.tls.as_ref());
    servers.chain(discover).flatten()
}

/// Starts the thread of the peers. It ends with the process. `continues`: under the lineage of another process, which has
/// let go of it.
///
/// # Errors
/// The thread could not be started.
pub fn start(
    shared: &Arc<Shared>,
    open: Open,
    lineages: &Arc<Lineages>,
    continues: bool,
) -> io::Result<()> {
    let sections: Vec<(Arc<Section>, OpenSection)> = open
        .0
        .into_iter()
        .map(|open| (section(shared, open.index, lineages, continues), open))
        .collect();
    let all = sections.iter().map(|(section, _)| Arc::clone(section));
    let _ = shared.peers.set(all.collect());
    if sections.is_empty() {
        return Ok(());
    }
    let (report, started) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("remora-peers".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build_local(LocalOptions::default());
            let runtime = runtime.and_then(|runtime| {
                let inside = runtime.enter();
                let alarms = sections.iter().map(|_| Alarm::new());
                let alarms = alarms.collect::<io::Result<Vec<Alarm>>>()?;
                drop(inside);
                Ok((runtime, alarms))
            });
            match runtime {
                Ok((runtime, alarms)) => {
                    let _ = report.send(Ok(()));
                    runtime.block_on(run(sections, alarms));
                }
                Err(e) => {
                    let _ = report.send(Err(e));
                }
            }
        })?;
    // Without this thread the node would wait for ever to become ready.
    started
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("it ended at once")))
}

/// The tables of the process, for hubs.
struct Tables(Arc<Shared>);

impl Stores for Tables {
    fn store(&self, table: TableId) -> Option<&dyn Store> {
        self.0.world.store(table)
    }
    fn write_tags(&self, table: TableId, tags: &[(Key, Vec<Tag>)], now_ms: u64) {
        self.0.world.write_tags(table, tags, now_ms);
    }
}

fn section(
    shared: &Arc<Shared>,
    index: usize,
    lineages: &Arc<Lineages>,
    continues: bool,
) -> Arc<Section> {
    let plan = &shared.plan.peers[index];
    let config = HubConfig {
        cluster: plan.cluster.clone(),
        node: plan.local.clone(),
        lineages: Arc::clone(lineages),
        newcomer: !continues,
        discovers: !plan.discover.is_empty(),
        learn_timeout_ms: plan.learn_timeout_ms.into(),
        sole: shared.plan.peers.iter().filter(|p| !p.disabled).count() == 1,
        seed: rand::random(),
    };
    let tables = Arc::new(Tables(Arc::clone(shared)));
    let now = clock::read().mono_ms;
    let mut hub = Hub::new(config, tables, &plan.tables, now);
    if continues {
        let known = shared.heritage.hubs.lock();
        for (table, inheritance) in &known.known {
            hub.inherit(*table, inheritance);
        }
        hub.inherit_lives(&known.lives, now);
    }
    hub.succeed_dead(&shared.heritage.over.lock());
    let section = Section::new(plan.name.clone(), index, hub, Arc::clone(shared));
    section.inherit(&shared.heritage.hubs.lock().totals);
    for table in &plan.tables {
        if let Some(replica) = shared.world.table(*table).and_then(Table::replica) {
            let bell = section.bell();
            replica.set_waker(Arc::new(move || bell.notify_one()));
        }
    }
    section
}

async fn run(sections: Vec<(Arc<Section>, OpenSection)>, alarms: Vec<Alarm>) {
    for ((section, open), alarm) in sections.into_iter().zip(alarms) {
        for target in open.targets {
            section.add_peer(target, false);
        }
        let mut followed = open.followed;
        Followed::share_guests(&mut followed);
        let unlisted = Rc::new(Cell::new(followed.len()));
        for followed in followed {
            spawn_local(followed.follow(Arc::clone(&section), Rc::clone(&unlisted)));
        }
        for door in open.doors {
            spawn_local(door.serve(Arc::clone(&section)));
        }
        spawn_local(open.certificates.watch(Arc::clone(&section)));
        spawn_local(section.run(alarm));
    }
    std::future::pending::<()>().await;
}

/// Blocks until traffic may be accepted.
///
/// # Errors
/// No event loop could be made.
pub fn wait_until_ready(shared: &Shared) -> io::Result<()> {
    if !shared.ready.is_ready() {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(shared.ready.wait());
    }
    Ok(())
}

/// Another process has the sockets and takes what peers have to say. What this one counts from here on is still sent.
pub fn leave(shared: &Shared) {
    doors(shared, section::Door::Closed);
}

/// Another process is about to take the sockets over: who dials waits in the kernel's queue, sessions that are open go on.
pub fn hold(shared: &Shared) {
    doors(shared, section::Door::Held);
}

/// Another process may want the addresses: who dials is refused, sessions that are open go on.
pub fn pause(shared: &Shared) {
    doors(shared, section::Door::Paused);
}

/// Another process is about to learn from the peers, under a lineage of its own: whoever dials this node is for that one, and
/// this one, which shares nothing, has nothing to say meanwhile. [`resume`] ends it.
pub fn step_aside(shared: &Shared) {
    doors(shared, section::Door::Aside);
    let _ = suspend(shared);
}

/// The other process did not take over: goes on after [`suspend`] or [`step_aside`].
pub fn resume(shared: &Shared) {
    for section in shared.peers.get().map_or(&[][..], Vec::as_slice) {
        section.resume();
        section.come_back();
    }
}

/// The other process did not take the sockets.
pub fn accept(shared: &Shared) {
    doors(shared, section::Door::Open);
}

fn doors(shared: &Shared, door: section::Door) {
    for section in shared.peers.get().map_or(&[][..], Vec::as_slice) {
        section.set_door(door);
    }
}

/// Falls silent: another process goes on under the same lineage. Shows what its hubs need to know.
pub fn suspend(shared: &Shared) -> Hubs {
    let mut all = Hubs::default();
    for section in shared.peers.get().map_or(&[][..], Vec::as_slice) {
        section.suspend(&mut all);
    }
    all
}

/// Where names lead that sections follow, for the process that goes on.
pub fn found(shared: &Shared) -> Vec<Found> {
    let Some(sections) = shared.peers.get() else {
        // They have not begun: there is what they will begin with.
        return shared.heritage.hubs.lock().found.clone();
    };
    sections.iter().flat_map(|s| s.found()).collect()
}

/// What all sections have counted, for the process that goes on.
pub fn totals(shared: &Shared) -> Totals {
    let Some(sections) = shared.peers.get() else {
        // They have not begun: there is what they will begin with.
        return shared.heritage.hubs.lock().totals.clone();
    };
    let mut all = Totals::new();
    for section in sections {
        section.totals(&mut all);
    }
    all
}

/// Adds what the process before has counted.
pub fn inherit_totals(shared: &Shared, more: &Totals) {
    if let Some(sections) = shared.peers.get() {
        for section in sections {
            section.inherit(more);
        }
        return;
    }
    let mut hubs = shared.heritage.hubs.lock();
    for (name, values) in more {
        section::add(hubs.totals.entry(name.clone()).or_default(), values);
    }
}

/// Tells the peers what they do not know yet, and goodbye; to be called when nothing is counted any more. Waits for peers
/// that go on acknowledging, and says what they lack in the end.
pub async fn stop(shared: &Shared) {
    let sections = shared.peers.get().map_or(&[][..], Vec::as_slice);
    for section in sections {
        section.stop();
    }
    let mut all = pin!(async {
        for section in sections {
            section.stopped().await;
        }
    });
    let begun = Instant::now();
    let (mut least, mut confirmed, mut since) = (usize::MAX, 0, begun);
    let is_complete = loop {
        if timeout(STOP_LOOK, &mut all).await.is_ok() {
            break true;
        }
        let left: usize = sections.iter().map(|s| s.unacknowledged()).sum();
        let told = sections.iter().map(|s| s.confirmed()).sum::<u64>();
        // Who is being taught confirms rows long before it has what was counted here last.
        if left < least || told > confirmed {
            (least, confirmed, since) = (left.min(least), told, Instant::now());
        }
        if since.elapsed() >= STOP_PATIENCE || begun.elapsed() >= STOP_MAX {
            break false;
        }
    };
    for section in sections {
        section.report_stop(is_complete);
    }
}

/// How long the end of the process may be delayed by peers that do not answer, and by peers that do.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
const STOP_MAX: Duration = Duration::from_secs(10);
/// How often is looked whether they do.
const STOP_LOOK: Duration = Duration::from_millis(50);
