//! Going to the background (`-D`) without `fork`: the process starts itself again, detached. The new one reports over a
//! pipe, its standard input, that it is ready; so the exit code of the first one is right.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Stdio};

use crate::cli::DETACHED;
use crate::messages;

/// Starts the detached half and waits until it is ready or dead. Returns this process's exit code.
pub(crate) fn launch() -> io::Result<u8> {
    let (mut ready, theirs) = io::pipe()?;
    let mut args = std::env::args_os();
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    // In front of the rest, as behind `--` everything is a file name.
    command
        .arg(DETACHED)
        .args(args)
        .stdin(Stdio::from(OwnedFd::from(theirs)));
    let mut child = command.spawn()?;
    // The command keeps its end of the pipe open; without it only the child does.
    drop(command);
    let mut word = [0; 1];
    if ready.read(&mut word)? == 1 {
        return Ok(0);
    }
    let status = child.wait()?;
    Ok(status
        .code()
        .or_else(|| status.signal().map(|s| 128 + s))
        .and_then(|c| u8::try_from(c).ok())
        .filter(|c| *c != 0)
        .unwrap_or(1))
}

/// In the detached half, first thing: leaves the terminal's session.
pub(crate) fn leave_session() -> io::Result<()> {
    match rustix::process::setsid() {
        // EPERM: already leads one.
        Ok(_) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// In the detached half, once everything listens: reports, and lets go of the terminal.
pub(crate) fn report_ready() -> io::Result<()> {
    rustix::io::write(rustix::stdio::stdin(), b"1")?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    messages::settle();
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
