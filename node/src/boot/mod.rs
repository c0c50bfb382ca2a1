//! From arguments to a running process: the only place where the parts are wired together. Order: configuration,
//! limits, sockets, pid file, privileges, threads; then signals until the end.

pub(crate) mod daemon;
mod hints;
mod identity;
mod limits;
mod room;
pub(crate) mod sources;
mod world;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use remora_config::diag::{Diag, Level};
use remora_config::plan::Plan;
use remora_config::{Loaded, Options};
use remora_core::table::Lineages;
use tokio::sync::mpsc::unbounded_channel;
use tracing::{error, info, warn};

use crate::admin;
use crate::cli::Args;
use crate::endpoint::{self, exporter};
use crate::handoff::directory::{self, Search};
use crate::handoff::frames::{SeenFile, Settings};
use crate::handoff::tables::{self, Heritage, Learner};
use crate::handoff::taker::Taker;
use crate::handoff::{Inherited, giver, worker as supervised};
use crate::health::Health;
use crate::messages::{self, Volume};
use crate::observe::log::{Logs, load_time_zone};
use crate::observe::peaks::Peaks;
use crate::peers::{self, Readiness};
use crate::proxy::control::WorkerHandle;
use crate::proxy::listen;
use crate::proxy::{DataPlane, clock, worker};
use crate::shared::Shared;
use crate::signals::{self, Running};
use crate::supervisor;

/// Checks or runs what the arguments say. Returns the exit code.
pub fn run(args: &Args) -> u8 {
    messages::start(match (args.quiet, args.debug) {
        (true, false) => Volume::Silent,
        (_, true) => Volume::Debug,
        _ => Volume::Normal,
    });
    if args.resumed {
        return supervisor::resume(args);
    }
    match start(args) {
        Ok(Start::Checked(code) | Start::Elsewhere(code)) => code,
        Ok(Start::Running(running)) => signals::wait(*running),
        Ok(Start::Supervising { pidfile, detach }) => supervisor::run(supervisor::Start {
            args,
            pidfile,
            detach,
        }),
        Err(alerts) => {
            introduce();
            for alert in alerts.0 {
                error!("{alert}");
            }
            1
        }
    }
}

enum Start {
    /// `-c`, and no error: 0, or 2 for a configuration that nothing could be started with, as HAProxy has it.
    Checked(u8),
    /// The detached half of `-D` runs, or failed with that code.
    Elsewhere(u8),
    Running(Box<Running>),
    /// `-W`: this process only supervises.
    Supervising {
        pidfile: Option<String>,
        detach: bool,
    },
}

/// What kept the process from starting; none when it has been shown already.
struct Alerts(Vec<String>);

impl From<Vec<String>> for Alerts {
    fn from(all: Vec<String>) -> Alerts {
        Alerts(all)
    }
}
impl From<String> for Alerts {
    fn from(one: String) -> Alerts {
        Alerts(vec![one])
    }
}

fn start(args: &Args) -> Result<Start, Alerts> {
    let mut above = if args.worker {
        supervisor::signals::unblock().map_err(|e| format!("cannot unblock signals: {e}"))?;
        let start = supervised::Start::open()
            .map_err(|e| format!("no supervisor to work for on descriptor 0: {e}"))?;
        Some(start)
    } else {
        None
    };
    signals::postpone().map_err(|e| format!("cannot block signals: {e}"))?;
    if args.detached {
        daemon::leave_session().map_err(|e| format!("cannot go to the background: {e}"))?;
    }
    if let Some(dir) = args
        .chdir
        .as_deref()
        .filter(|_| !args.detached && !args.worker)
    {
        std::env::set_current_dir(dir).map_err(|e| {
            format!(
                "Could not change to directory {dir} : {}",
                sources::reason(&e)
            )
        })?;
    }
    load_time_zone();
    let mut files = Vec::new();
    let loaded = load(args, &mut files);
    if let Some(above) = &above {
        // Also those of a configuration with mistakes: somebody will correct one of them.
        above
            .files(&files)
            .map_err(|e| format!("cannot talk to the supervisor: {e}"))?;
    }
    let mut plan = loaded?;
    if args.check {
        return Ok(Start::Checked(check(&plan, args)));
    }
    let supervise = supervises(args, &plan);
    if !supervise && !args.worker {
        for (given, option) in [
            (!args.master_sockets.is_empty(), "-S"),
            (args.watch, "--watch"),
        ] {
            if given {
                return Err(format!("'{option}' needs '-W' (or 'master-worker').").into());
            }
        }
    }
    let background = (args.daemon || plan.global.daemon) && !args.foreground && !args.worker;
    if background && !args.detached {
        let code = daemon::launch().map_err(|e| format!("cannot go to the background: {e}"))?;
        return Ok(Start::Elsewhere(code));
    }

    let pidfile = args.pidfile.clone().or(plan.global.pidfile.clone());
    if supervise {
        limits::raise_to_hard();
        return Ok(Start::Supervising {
            pidfile,
            detach: background,
        });
    }

    identity::resolve_names(&mut plan)?;
    // Listeners, the CLI and its connections, logs, the runtimes' own descriptors, idle connections to servers.
    let binds: usize = plan.proxies.iter().map(|p| p.binds.len()).sum();
    let others = (binds + 8) as u64 * u64::from(plan.global.nbthread)
        + u64::from(plan.global.stats_maxconn)
        + endpoint::connections_max(&plan)
        + 32;
    if let Err(why) = limits::raise(plan.global.maxconn, others, plan.global.ulimit_n) {
        warn!("{why}");
    }
    // A listening socket takes two, and an event loop some.
    limits::enough((2 * binds as u64 + 4) * u64::from(plan.global.nbthread) + 16)?;

    let mut pool = above
        .as_mut()
        .map_or_else(Inherited::default, |a| std::mem::take(&mut a.pool));
    if let Some(handoff) = &mut plan.global.handoff {
        directory::normal(handoff);
    }
    let mut taker = Taker::default();
    let mut search = None;
    // A later worker of the same supervisor takes over from the one before it.
    if above.as_ref().is_none_or(|a| a.begin.first) {
        taker = Taker::new(&args.finish, &args.terminate);
        pool.replaces = !(args.finish.is_empty() && args.terminate.is_empty());
        let dir = plan.global.handoff.as_deref();
        let dir = dir.filter(|dir| directory::is_directory(dir));
        if let Some(dir) = dir {
            let own = pool.handoffs().map(PathBuf::from).collect();
            search = Some(Search::begin(dir, own)?);
        }
        let (found, wher) = match (args.take_from.as_deref(), &search, dir) {
            (Some(path), ..) => (taker.ask(Path::new(path), &mut pool, dir.is_none()), path),
            (None, Some(search), Some(dir)) => (taker.find(search, &mut pool), dir),
            _ => (Ok(()), ""),
        };
        found.map_err(|e| format!("cannot take over the sockets of the process at {wher}: {e}"))?;
    }
    let takeover = args.worker || plan.global.handoff.is_some();
    signals::postpone_stops().map_err(|e| format!("cannot block signals: {e}"))?;
    let mut listeners = room::with_room(&taker, || listen::open(&plan, &mut pool, takeover))?;
    if listeners.addresses().is_empty() && plan.global.stats_sockets.is_empty() {
        return Err(String::from(
            "no listening socket: give a 'frontend' or 'listen' section a 'bind' line.",
        )
        .into());
    }
    let mut offer = listeners.offer();
    let binds = offer.len();
    let consoles = room::with_room(&taker, || {
        offer.truncate(binds);
        admin::open(&plan, &mut pool, &mut offer)
    })?;
    let others = offer.len();
    let doors = room::with_room(&taker, || {
        offer.truncate(others);
        peers::open(&plan, &mut pool, &mut offer)
    })?;
    let others = offer.len();
    let endpoints = room::with_room(&taker, || {
        offer.truncate(others);
        endpoint::open(&plan, &mut pool, &mut offer)
    })?;
    let handoff = match &plan.global.handoff {
        Some(path) => Some(giver::open(path, &mut pool, &mut offer)?),
        None => None,
    };
    // Others that start find this process from now on.
    drop(search);
    // What the configuration no longer mentions.
    drop(pool);
    if let Some(path) = pidfile.filter(|_| !args.worker) {
        write_pidfile(&path)?;
    }
    identity::give_up_privileges(&plan)?;
    messages::in_background().map_err(|e| format!("cannot start the messages' thread: {e}"))?;

    let learner = above.as_mut().and_then(|a| a.learn.take());
    let learner = learner.or_else(|| taker.tables());
    // One that has died was to be replaced: whoever served before it shows its tables once more.
    let again = above.as_ref().is_some_and(|a| a.again);
    let hard = above.as_ref().is_some_and(|a| a.begin.hard);
    let unguarded = taker.is_unguarded();
    // From here on this process waits for others, until it has threads of its own that do.
    let waits = learner.is_some() || args.detached || args.worker;
    if waits {
        signals::obey().map_err(|e| format!("cannot unblock signals: {e}"))?;
    }
    if let Some(above) = &above {
        above
            .listens(&offer)
            .map_err(|e| format!("cannot talk to the supervisor: {e}"))?;
    }
    let learner = match learner.map(|channel| Learner::begin(channel, again, unguarded)) {
        Some(Err(e)) if unguarded => {
            let lives = |e| format!("the process that serves does not show its tables: {e}");
            taker.bury().map_err(lives)?;
            warn!(
                "the process before has ended before it showed its tables ({e}): going on without them."
            );
            None
        }
        Some(Err(e)) if again => {
            warn!("the process before the one that died does not show its tables: {e}");
            None
        }
        Some(Err(e)) if hard => {
            warn!("the process that served does not show its tables, which begin empty: {e}");
            None
        }
        learner => learner.transpose().map_err(|e| {
            let all_the_same = if args.worker {
                " ('hard-reload' goes without them)"
            } else {
                ""
            };
            format!("the process that serves does not show its tables: {e}{all_the_same}")
        })?,
    };
    let untaught = again && learner.is_none();
    let continues = learner.as_ref().is_some_and(|l| l.lineage().is_some());
    let now = clock::read();
    let lineages = world::lineages(learner.as_ref().and_then(Learner::lineage));
    let seed = |name: &str| learner.as_ref()?.seed(name);
    let world = world::build(&plan, std::process::id(), now, &lineages, seed);
    let logs = Logs::start(&plan, std::process::id())?;
    let (handles, asks): (Vec<_>, Vec<_>) = (0..plan.global.nbthread)
        .map(|_| {
            let (ask, asks) = unbounded_channel();
            (WorkerHandle { ask }, asks)
        })
        .unzip();
    let (exporter, pages) = exporter::channel();
    let shared = Arc::new(Shared {
        plane: DataPlane::new(&plan),
        peaks: Peaks::new(&world),
        plan,
        world,
        logs,
        workers: handles,
        health: Health::default(),
        exporter,
        // Those who continue know what there is to know.
        ready: Readiness::of(if continues { 0 } else { doors.sections() }),
        heritage: Heritage::new(learner.is_some()),
        peers: OnceLock::new(),
        reloads: Mutex::default(),
    });
    let console = admin::start(&shared, consoles)
        .map_err(|e| format!("cannot start the thread of the CLI: {e}"))?;
    let mut learner = learner;
    if again && let Some(learner) = learner.take() {
        // Peers are asked for the rest.
        learn_again(learner, &shared)?;
    }
    let mut peers_later = None;
    if continues {
        peers_later = Some((doors, lineages));
    } else {
        start_peers(&shared, doors, &lineages)?;
    }
    endpoint::start(&shared, endpoints, pages)
        .map_err(|e| format!("cannot start the thread of the admin endpoint: {e}"))?;
    let threads = asks
        .into_iter()
        .enumerate()
        .map(|(i, asks)| worker::spawn(i as u16, Arc::clone(&shared), listeners.take(i), asks))
        .collect::<Result<Vec<JoinHandle<()>>, _>>()
        .map_err(|e| format!("cannot start a worker thread: {e}"))?;

    if args.detached || args.worker {
        // Who waits for this process to be ready means traffic.
        wait_for_peers(&shared)?;
    }
    if args.detached {
        daemon::report_ready().map_err(|e| format!("cannot let go of the terminal: {e}"))?;
    } else {
        hints::show(&shared.plan, listeners.addresses(), args);
    }
    let learned = learner.map(|learner| tables::learn(learner, &shared));
    let learned = match learned.transpose() {
        Err(e) if unguarded => {
            let useless = |why| {
                format!("the tables of the process that serves could not be learned: {e}; {why}")
            };
            taker.bury().map_err(useless)?;
            shared.heritage.bereave_and_wait().map_err(useless)?;
            if let Some((doors, lineages)) = peers_later.take() {
                start_peers(&shared, doors, &lineages)?;
            }
            if args.detached || args.worker {
                wait_for_peers(&shared)?;
            }
            None
        }
        learned => learned.map_err(|e| {
            format!("the tables of the process that serves could not be learned: {e}")
        })?,
    };
    signals::postpone_stops().map_err(|e| format!("cannot block signals: {e}"))?;
    if let Some(above) = &above {
        let settings = Settings {
            max_reloads: shared.plan.global.mworker_max_reloads,
            untaught,
        };
        above
            .ready(settings)
            .map_err(|e| format!("cannot talk to the supervisor: {e}"))?;
    }
    Ok(Start::Running(Box::new(Running {
        shared,
        threads,
        console,
        offer,
        supervisor: above,
        taker,
        handoff,
        learned,
        peers_later,
    })))
}

/// Under a lineage of their own.
fn start_peers(
    shared: &Arc<Shared>,
    doors: peers::Open,
    lineages: &Arc<Lineages>,
) -> Result<(), String> {
    peers::start(shared, doors, lineages, false)
        .map_err(|e| format!("cannot start the thread of the peers: {e}"))
}

fn wait_for_peers(shared: &Shared) -> Result<(), String> {
    peers::wait_until_ready(shared).map_err(|e| format!("cannot wait for the peers: {e}"))
}

/// Waits for the tables of the process before the one that died.
fn learn_again(learner: Learner, shared: &Arc<Shared>) -> Result<(), String> {
    let learned = tables::learn(learner, shared);
    let learned =
        learned.map_err(|e| format!("the tables of the process before have not arrived: {e}"))?;
    shared
        .heritage
        .wait_until_arrived()
        .map_err(|e| format!("the tables of the process before have not arrived: {e}"))?;
    info!(
        "hand-off: the process that served has died; the one before it has shown {} entries of {} tables in {} ms.",
        learned.entries, learned.tables, learned.ms,
    );
    Ok(())
}

/// Whether this process only starts others.
fn supervises(args: &Args, plan: &Plan) -> bool {
    !args.worker && (args.supervise || plan.global.master_worker)
}

/// Writes the id of this process.
pub(crate) fn write_pidfile(path: &str) -> Result<(), String> {
    std::fs::File::create(path)
        .and_then(|mut f| writeln!(f, "{}", std::process::id()))
        .map_err(|e| format!("Cannot create pidfile {path} : {}", sources::reason(&e)))
}

/// The first UNIX socket among the `admin bind`s of a configuration.
///
/// # Errors
/// There is none, or the configuration cannot be read that far.
pub fn admin_socket(args: &Args) -> Result<String, String> {
    if let Some(dir) = args.chdir.as_deref() {
        std::env::set_current_dir(dir).map_err(|e| {
            format!(
                "Could not change to directory {dir} : {}",
                sources::reason(&e)
            )
        })?;
    }
    let sources =
        sources::read(&args.configs, false, &mut Vec::new()).map_err(|all| all.join("\n"))?;
    let found = remora_config::admin_sockets(&sources, &options(args), &mut system(args));
    match found {
        Ok(paths) => paths.into_iter().next().ok_or_else(|| {
            "the configuration has no 'admin bind' on a UNIX socket, which a probe needs".to_owned()
        }),
        Err(diags) => Err(diags
            .iter()
            .filter(|d| d.level == Level::Alert)
            .map(|d| d.text.as_str())
            .collect::<Vec<_>>()
            .join("\n")),
    }
}

fn options(args: &Args) -> Options {
    Options {
        hostname: hostname(),
        localpeer: args.localpeer.clone(),
        cpus: std::thread::available_parallelism()
            .ok()
            .and_then(|n| u16::try_from(n.get()).ok())
            .unwrap_or(1),
        fd_limit: limits::files_available(),
        maxconn: args.maxconn,
        pid: std::process::id(),
    }
}

fn system(args: &Args) -> sources::System {
    sources::System {
        ignore_unresolved: args.ignore_unresolved,
        watched: args.watch,
        ..sources::System::default()
    }
}

/// Reads and compiles the configuration, and says what there is to say about it. `files` gets all that it was read
/// from.
fn load(args: &Args, files: &mut Vec<SeenFile>) -> Result<Plan, Alerts> {
    let sources = sources::read(&args.configs, args.watch, files)?;
    let mut system = system(args);
    let Loaded { plan, diags } = remora_config::load(&sources, &options(args), &mut system);
    files.append(&mut system.files);
    let plan = match plan {
        Some(plan) if diags.iter().all(|d| d.level != Level::Alert) => plan,
        _ => {
            introduce();
            show(&diags);
            return Err(Alerts(Vec::new()));
        }
    };
    // The first half of `-D` has shown them; and a supervisor's worker will.
    let elsewhere = args.detached || (supervises(args, &plan) && !args.check);
    if !elsewhere && (!plan.global.quiet || args.verbose || args.debug) {
        show(&diags);
    }
    let found = peers::check(&plan);
    if !found.alerts.is_empty() {
        return Err(found.alerts.into());
    }
    // A process that runs says the same every day.
    if args.check || args.warnings_are_fatal || plan.global.zero_warning {
        for text in &found.warnings {
            warn!("{text}");
        }
    }
    let warned = diags.iter().any(|d| d.level == Level::Warning) || !found.warnings.is_empty();
    if warned && (args.warnings_are_fatal || plan.global.zero_warning) {
        return Err(
            String::from("Some warnings were found and 'zero-warning' is set. Aborting.").into(),
        );
    }
    if args.check && args.verbose && warned {
        let _ = std::io::stdout().write_all(b"Warnings were found.\n");
    }
    Ok(plan)
}

/// The verdict of `-c` on a configuration without errors, as exit code.
fn check(plan: &Plan, args: &Args) -> u8 {
    let listens = plan
        .proxies
        .iter()
        .any(|p| p.is_frontend && !p.disabled && !p.binds.is_empty());
    if !listens && plan.global.stats_sockets.is_empty() {
        warn!("The configuration has no error, but would not start: no listening socket.");
        return 2;
    }
    if args.verbose {
        let _ = std::io::stdout().write_all(b"Configuration file is valid\n");
    }
    0
}

fn show(diags: &[Diag]) {
    for d in diags {
        match d.level {
            Level::Notice => info!("{}", d.text),
            Level::Warning => warn!("{}", d.text),
            Level::Alert => error!("{}", d.text),
        }
    }
}

/// Two lines in front of alerts: which program, and where it is.
fn introduce() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        info!("remora version is {}", crate::VERSION);
        if let Ok(path) = std::env::current_exe() {
            info!("path to executable is {}", path.display());
        }
    });
}

/// The machine's name, as the kernel knows it.
fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Lets the log thread finish; a blocked target does not keep the process from ending.
pub(crate) const LOG_PATIENCE: Duration = Duration::from_secs(1);
