//! The `remora` program. See `remora --help`.

use std::io::Write as _;
use std::process::ExitCode;

use remora::cli::{self, Command, Probe};
use remora::messages::{self, Volume};

fn main() -> ExitCode {
    let code = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => print(cli::HELP),
        Ok(Command::Version { details }) => print(&remora::version_text(details)),
        Ok(Command::Condition(text)) => condition(&text),
        Ok(Command::Probe(probe)) => ask(&probe),
        Ok(Command::HandoffDir { path, user, group }) => {
            match remora::handoff::prepare::directory(&path, user, group) {
                Ok(text) => print(&format!("{text}\n")),
                Err(why) => {
                    messages::start(Volume::Normal);
                    tracing::error!("--handoff-dir {why}");
                    1
                }
            }
        }
        Ok(Command::Run(args)) => remora::boot::run(&args),
        Err(usage) => {
            messages::start(Volume::Normal);
            tracing::error!("{usage}");
            1
        }
    };
    messages::settle();
    ExitCode::from(code)
}

/// `-cc`: 0 true, 1 false, 2 error.
fn condition(text: &str) -> u8 {
    messages::start(Volume::Normal);
    match remora_config::condition::evaluate(text, &|name| std::env::var_os(name).is_some()) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(e) => {
            tracing::error!("config : Failed to evaluate condition: {}", e.text);
            2
        }
    }
}

/// `--probe`: 0 yes, 1 no.
fn ask(probe: &Probe) -> u8 {
    let path = match &probe.path {
        Some(path) => Ok(path.clone()),
        None => remora::boot::admin_socket(&probe.args),
    };
    match path.and_then(|path| remora::probe::ask(probe.question, &path)) {
        Ok(text) => print(&format!("{text}\n")),
        Err(why) => {
            print(&format!("{why}\n"));
            1
        }
    }
}

fn print(text: &str) -> u8 {
    // A closed pipe behind `--help | head` is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    0
}
