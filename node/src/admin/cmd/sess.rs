//! `show sess` and `shutdown session`: asked of the worker threads, page by page. (reference: admin-cli 4.6)

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Answer, err, servers};
use crate::admin::line::Words;
use crate::admin::session::{Context, Registry};
use crate::proxy::clock;
use crate::proxy::control::{Ask, SessionLine, WorkerHandle};
use crate::shared::Shared;

pub(in crate::admin) fn show(cx: &mut Context, words: &Words) -> Answer {
    let filter = match Filter::parse(cx, words) {
        Ok(Some(filter)) => filter,
        Ok(None) => return Answer::Text(USAGE.into()),
        Err(text) => return err(text),
    };
    let (shared, own) = (Arc::clone(&cx.shared), Rc::clone(&cx.sessions));
    Answer::Later(Box::pin(async move {
        let mut text = String::new();
        let mut shown = false;
        for worker in &shared.workers {
            let mut pages = Pages::of(worker);
            while let Some(page) = pages.next().await {
                for line in page.iter().filter(|l| filter.wants(l)) {
                    shown = true;
                    write_line(line, &filter, &mut text);
                }
            }
        }
        for line in own_sessions(&own).iter().filter(|l| filter.wants(l)) {
            shown = true;
            write_line(line, &filter, &mut text);
        }
        if !shown && filter.id.is_some() {
            return err("Session not found.");
        }
        Answer::Text(text.into())
    }))
}

pub(in crate::admin) fn shutdown(cx: &mut Context, words: &Words) -> Answer {
    let text = words.text(2);
    if text.is_empty() {
        return err("Session pointer expected (use 'show sess').");
    }
    let Some(id) = pointer(&text) else {
        return err("No such session (use 'show sess').");
    };
    let shared = Arc::clone(&cx.shared);
    Answer::Later(Box::pin(async move {
        if end(&shared, id).await {
            Answer::Empty
        } else {
            err("No such session (use 'show sess').")
        }
    }))
}

pub(in crate::admin) fn shutdown_of_server(cx: &mut Context, words: &Words) -> Answer {
    let (proxy, server) = match servers::find(&cx.shared, &words.text(3)) {
        Ok(found) => found,
        Err(text) => return err(text),
    };
    let shared = Arc::clone(&cx.shared);
    Answer::Later(Box::pin(async move {
        let Some((p, s)) = servers::state(&shared, proxy, server) else {
            return Answer::Empty;
        };
        for worker in &shared.workers {
            let mut pages = Pages::of(worker);
            while let Some(page) = pages.next().await {
                for line in &page {
                    if line.backend.as_deref() == Some(&p.name)
                        && line.server.as_deref() == Some(&s.name)
                    {
                        end_at(worker, line.id).await;
                    }
                }
            }
        }
        Answer::Empty
    }))
}

/// A worker's streams, page by page.
struct Pages<'w> {
    worker: &'w WorkerHandle,
    /// Id of the last one so far; `None`: there are no more.
    after: Option<u64>,
}

impl Pages<'_> {
    fn of(worker: &WorkerHandle) -> Pages<'_> {
        let after = Some(0);
        Pages { worker, after }
    }
    async fn next(&mut self) -> Option<Vec<SessionLine>> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask::Sessions {
            after: self.after?,
            limit: PAGE,
            answer,
        };
        // A worker that has drained is gone; it has no streams.
        self.worker.ask.send(ask).ok()?;
        let page = answered.await.ok()?;
        self.after = page.last().map(|l| l.id).filter(|_| page.len() == PAGE);
        Some(page)
    }
}

async fn end(shared: &Shared, id: u64) -> bool {
    for worker in &shared.workers {
        if end_at(worker, id).await {
            return true;
        }
    }
    false
}

async fn end_at(worker: &WorkerHandle, id: u64) -> bool {
    let (answer, answered) = oneshot::channel();
    worker.ask.send(Ask::Shutdown { id, answer }).is_ok() && answered.await.unwrap_or(false)
}

/// The CLI's own connections, which no worker knows.
fn own_sessions(own: &Registry) -> Vec<SessionLine> {
    let now_ms = clock::read().mono_ms;
    own.list()
        .into_iter()
        .map(|s| SessionLine {
            id: s.id,
            proto: s.proto,
            src: "unix:1".into(),
            frontend: "GLOBAL".into(),
            backend: None,
            server: None,
            age_ms: now_ms.saturating_sub(s.since_ms),
            calls: 1,
            thread: 0,
            uri: None,
        })
        .collect()
}

#[derive(Default)]
struct Filter {
    id: Option<u64>,
    frontend: Option<String>,
    backend: Option<String>,
    /// Backend and server.
    server: Option<(String, String)>,
    older_ms: u64,
    uri: bool,
}

impl Filter {
    /// `None`: help is wanted.
    fn parse(cx: &Context, words: &Words) -> Result<Option<Filter>, String> {
        let mut filter = Filter::default();
        let proxies = &cx.shared.world.proxies;
        let mut i = 2;
        while i < words.len() {
            let argument = words.text(i + 1);
            let mut used = 2;
            match words.at(i) {
                b"all" => {
                    filter.uri = true;
                    used = 1;
                }
                b"help" => return Ok(None),
                b"show-uri" => {
                    filter.uri = true;
                    used = 1;
                }
                b"frontend" => {
                    if !proxies.iter().any(|p| p.is_frontend && p.name == argument) {
                        return Err("No such frontend.".into());
                    }
                    filter.frontend = Some(argument.into_owned());
                }
                b"backend" => {
                    if !proxies.iter().any(|p| p.is_backend && p.name == argument) {
                        return Err("No such backend.".into());
                    }
                    filter.backend = Some(argument.into_owned());
                }
                b"server" => {
                    let (p, s) = servers::find(&cx.shared, &argument)?;
                    if let Some((p, s)) = servers::state(&cx.shared, p, s) {
                        filter.server = Some((p.name.clone(), s.name.clone()));
                    }
                }
                b"older" => {
                    filter.older_ms = servers::delay_ms(&argument)
                        .ok_or("Invalid age, a time such as '5s' is expected.")?;
                }
                _ if i == 2 => {
                    let text = words.text(2);
                    filter.id = Some(pointer(&text).ok_or_else(|| {
                        format!("Unknown argument '{text}', see 'show sess help'.")
                    })?);
                    filter.uri = true;
                    used = 1;
                }
                _ => {
                    return Err(format!(
                        "Unknown argument '{}', see 'show sess help'.",
                        words.text(i)
                    ));
                }
            }
            i += used;
        }
        Ok(Some(filter))
    }

    fn wants(&self, line: &SessionLine) -> bool {
        self.id.is_none_or(|id| line.id == id)
            && self.frontend.as_ref().is_none_or(|f| line.frontend == *f)
            && self
                .backend
                .as_ref()
                .is_none_or(|b| line.backend.as_ref() == Some(b))
            && self.server.as_ref().is_none_or(|(b, s)| {
                line.backend.as_ref() == Some(b) && line.server.as_ref() == Some(s)
            })
            && line.age_ms >= self.older_ms
    }
}

fn write_line(l: &SessionLine, filter: &Filter, text: &mut String) {
    text.push_str(&format!(
        "0x{:x}: proto={} src={} fe={} be={} srv={} thr={} age={} calls={}",
        l.id,
        l.proto,
        l.src,
        l.frontend,
        l.backend.as_deref().unwrap_or("<NONE>"),
        l.server.as_deref().unwrap_or("<none>"),
        l.thread,
        age(l.age_ms / 1000),
        l.calls
    ));
    if let Some(uri) = l.uri.as_ref().filter(|_| filter.uri) {
        text.push_str(&format!(" uri=\"{}\"", uri.escape_debug()));
    }
    text.push('\n');
}

/// `1m8s`: the two greatest units.
fn age(s: u64) -> String {
    let (d, h, m, s) = (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60);
    let two = |a: u64, x: &str, b: u64, y: &str| {
        if b > 0 {
            format!("{a}{x}{b}{y}")
        } else {
            format!("{a}{x}")
        }
    };
    if d > 0 {
        two(d, "d", h, "h")
    } else if h > 0 {
        two(h, "h", m, "m")
    } else if m > 0 {
        two(m, "m", s, "s")
    } else {
        format!("{s}s")
    }
}

fn pointer(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// Streams asked for at a time.
const PAGE: usize = 200;

const USAGE: &str = "\
Usage: show sess [<id> | all | help] [<option>]*
  <id>           only the session of that number, with its URI
  all            all of them, with their URIs
  backend <b>    only those on this backend
  frontend <f>   only those of this frontend
  older <age>    only those older than this (default unit: ms)
  server <b/s>   only those on this server
  show-uri       with their URIs
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        for (s, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (68, "1m8s"),
            (3600, "1h"),
            (3900, "1h5m"),
            (97_200, "1d3h"),
        ] {
            assert_eq!(age(s), expected);
        }
    }

    #[test]
    fn the_short_form() {
        let line = SessionLine {
            id: 0x2a,
            proto: "tcpv4",
            src: "127.0.0.1:55972".into(),
            frontend: "A".into(),
            backend: None,
            server: None,
            age_ms: 68_000,
            calls: 21,
            thread: 1,
            uri: Some("/\"x".into()),
        };
        let mut text = String::new();
        write_line(&line, &Filter::default(), &mut text);
        assert_eq!(
            text,
            "0x2a: proto=tcpv4 src=127.0.0.1:55972 fe=A be=<NONE> srv=<none> thr=1 age=1m8s calls=21\n"
        );
        text.clear();
        let with_uri = Filter {
            uri: true,
            ..Filter::default()
        };
        write_line(&line, &with_uri, &mut text);
        assert!(text.ends_with("uri=\"/\\\"x\"\n"), "{text}");
    }
}
