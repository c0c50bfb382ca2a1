//! Drives connections and exchanges through the rules.

use super::*;

/// A client's connection and the exchanges on it, driven as the data plane does.
pub struct Client<'w> {
    pub world: &'w World,
    pub conn: ConnState,
    pub stream: StreamState,
}

/// What came of a request, in words.
pub type Said = String;

impl<'w> Client<'w> {
    /// Connects: `tcp-request connection`, then `session`. `Err`: refused.
    pub fn connect(world: &'w World, ip: &str, now_ms: u64) -> Result<Client<'w>, Said> {
        let client = Client {
            world,
            conn: conn(ip, now_ms),
            stream: StreamState::new(3),
        };
        let rules = &world.proxies[0].rules;
        for set in [&rules.tcp_connection, &rules.tcp_session] {
            let verdict = set.run(&cx(world, &client.conn, None, now_ms), &mut Msgs::default());
            if !matches!(verdict, Verdict::Pass) {
                client.conn.slots.release(world, now_ms);
                return Err(name_of(&verdict).to_string());
            }
        }
        track::count_session(world, &client.conn, now_ms);
        Ok(client)
    }

    /// A whole exchange; the server answers `status`. Gives the backend's name and status, or what a rule did.
    pub fn request(&self, head: &mut Head, status: u16, now_ms: u64) -> Said {
        let said = self.begin(head, now_ms);
        let said = if said.starts_with("-> ") {
            let answer = self.answer(status, now_ms);
            format!("{said} {answer}")
        } else {
            said
        };
        self.end(now_ms);
        said
    }

    pub fn begin(&self, head: &mut Head, now_ms: u64) -> Said {
        self.conn.requests.set(self.conn.requests.get() + 1);
        let mut msgs = Msgs {
            req: Some(head),
            ..Msgs::default()
        };
        let cx = cx(self.world, &self.conn, Some(&self.stream), now_ms);
        match request_phase(&cx, &mut msgs, &mut Progress::default()) {
            RequestOutcome::Forward(backend) => {
                format!("-> {}", self.world.proxies[usize::from(backend.0)].name)
            }
            RequestOutcome::Final(proxy, verdict) => {
                let proxy = &self.world.proxies[usize::from(proxy.0)].name;
                format!("{} by {proxy}", name_of(&verdict))
            }
            RequestOutcome::NoBackend => "no backend".to_string(),
            RequestOutcome::Wait { .. } => "wait".to_string(),
        }
    }

    pub fn answer(&self, status: u16, now_ms: u64) -> Said {
        let mut res = response(status);
        let mut msgs = Msgs {
            res: Some(&mut res),
            ..Msgs::default()
        };
        let cx = cx(self.world, &self.conn, Some(&self.stream), now_ms);
        match response_phase(&cx, &mut msgs).1 {
            Verdict::Pass => status.to_string(),
            verdict => name_of(&verdict).to_string(),
        }
    }

    /// The exchange is over.
    pub fn end(&self, now_ms: u64) {
        self.stream.reset(self.world, at(now_ms));
    }

    /// The connection closes.
    pub fn close(self, now_ms: u64) {
        self.end(now_ms);
        self.conn.slots.release(self.world, now_ms);
    }

    /// The value of an expression on this connection, as in a log line.
    pub fn show(&self, text: &str, now_ms: u64) -> String {
        let names = Names::of(self.world);
        let expr = names.expr(text);
        let cx = cx(self.world, &self.conn, Some(&self.stream), now_ms);
        show(expr.eval(&cx, &Msgs::default()))
    }
}

pub fn name_of(verdict: &Verdict<'_>) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Wait => "wait",
        Verdict::Deny(_) => "deny",
        Verdict::Tarpit(_) => "tarpit",
        Verdict::Return(_) => "return",
        Verdict::Redirect(_) => "redirect",
        Verdict::Service(_) => "service",
        Verdict::Reject => "reject",
        Verdict::EditFailed => "edit failed",
        Verdict::SilentDrop { .. } => "silent drop",
    }
}
