//! `remora --probe ready|live`: asks the admin endpoint of a running process on its UNIX socket. Small and quick, because
//! it runs every few seconds, and bounded, because a probe that hangs says nothing.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Should it get traffic?
    Ready,
    /// Is it alive?
    Live,
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Question::Ready => "/readyz",
            Question::Live => "/livez",
        }
    }
}

/// How long the whole probe may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Asks. `Ok`: yes, with the answer's text.
///
/// # Errors
/// No, or no answer: the reason.
pub fn ask(question: Question, socket: &str) -> Result<String, String> {
    let answer = exchange(question.path(), socket)
        .map_err(|e| format!("no answer from {socket}: {}", reason(&e)))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .ok_or_else(|| format!("what answers at {socket} does not speak HTTP/1.1"))?;
    let body = body.trim_end();
    match status {
        "200" => Ok(body.to_owned()),
        "503" => Err(body.to_owned()),
        _ => Err(format!(
            "{socket} answers with status {status}: is it an 'admin bind'?"
        )),
    }
}

fn exchange(path: &str, socket: &str) -> std::io::Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut stream = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
    // On a UNIX socket this limits connecting, too: a full queue would block for ever.
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.connect(&SockAddr::unix(socket)?)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while answer.len() < ANSWER_BYTES_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(piece.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(answer)
}

fn reason(e: &std::io::Error) -> String {
    if matches!(
        e.kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
    ) {
        return format!("nothing within {} seconds", PATIENCE.as_secs());
    }
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
