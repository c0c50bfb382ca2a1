//! What can only be said about a whole `peers` section: who this node is in it, where it listens, and whether strangers
//! could read or write what it shares.

use remora_core::peers::limits::TABLES_MAX;

use super::Builder;
use crate::known;
use crate::plan::{Address, PeerAddress, Place, Verify, is_loopback};
use crate::scope::Scope;

impl Builder<'_> {
    pub(super) fn check(&mut self, scope: &mut Scope<'_>) {
        if self.out.disabled {
            return;
        }
        self.count(scope);
        self.local(scope);
        self.listener(scope);
        self.same_addresses(scope);
        self.own_certificate();
        self.plaintext(scope);
        self.strangers(scope);
        self.names_in_a_chroot(scope);
    }

    /// Nodes tell each other of each table when they meet.
    fn count(&self, scope: &mut Scope<'_>) {
        let tables = self.out.tables.len();
        if tables > TABLES_MAX {
            let text = format!(
                "peers section '{}': {tables} tables are shared, and nodes take no more than {TABLES_MAX} of a section.",
                self.out.name
            );
            scope.diags.alert(self.out.place, &text);
        }
    }

    /// This node must be one of those listed, or find the others by itself.
    fn local(&mut self, scope: &mut Scope<'_>) {
        let local = &self.out.local;
        let listed = self.names.iter().any(|(name, _)| name == local);
        if listed || self.wrong_discover || !self.out.discover.is_empty() {
            for (place, text) in &self.no_address {
                scope.diags.alert(*place, text);
            }
            return;
        }
        // Else a line without address is probably this node's, under another name.
        let source = if scope.options.localpeer.is_some() {
            "by '-L'"
        } else if *local == scope.options.hostname {
            "the host name, as neither 'localpeer' nor '-L' gives another"
        } else {
            "by 'localpeer'"
        };
        let names: Vec<&str> = self.names.iter().map(|(n, _)| n.as_str()).collect();
        let there = match names.as_slice() {
            [] => "no 'server' or 'peer' line at all".to_owned(),
            _ => format!("only '{}'", names.join("', '")),
        };
        let hint = match known::closest(local, names.iter().copied()) {
            Some(near) => format!("; did you mean '{near}' maybe ?"),
            None => ".".to_owned(),
        };
        let text = format!(
            "peers section '{}': no peer named '{local}' (this node's name, {source}), {there}{hint} Give this node one of those names with 'localpeer' in 'global' or '-L', or add its line; HAProxy would drop the section here and count alone.",
            self.out.name
        );
        scope.diags.alert(self.out.place, &text);
    }

    fn listener(&mut self, scope: &mut Scope<'_>) {
        if let (Some(own), Some(bind)) = (self.local_address, self.bind_line) {
            let text = format!(
                "this is the line of this node itself, and a 'bind' line ({}) says already where it listens: remove one of the two addresses.",
                scope.diags.at(bind)
            );
            scope.diags.alert(own, &text);
        }
        if !self.listens {
            let own = self.names.iter().find(|(n, _)| *n == self.out.local);
            let place = own.map_or(self.out.place, |(_, place)| *place);
            let text = format!(
                "peers section '{}': this node ('{}') listens nowhere, so no peer could reach it: add a 'bind' line, or an address on its own 'server' line.",
                self.out.name, self.out.local
            );
            // Who is not listed has been told so.
            if own.is_some() || !self.out.discover.is_empty() {
                scope.diags.alert(place, &text);
            }
        }
    }

    /// A line copied and not changed: two peers, or a peer and this node, at one address.
    fn same_addresses(&self, scope: &mut Scope<'_>) {
        let enabled: Vec<_> = self.out.servers.iter().filter(|s| !s.disabled).collect();
        for (i, server) in enabled.iter().enumerate() {
            let twin = enabled.get(..i).into_iter().flatten();
            if let Some(other) = twin.into_iter().find(|o| o.address == server.address) {
                let text = format!(
                    "'{}' and '{}' ({}) have the same address.",
                    server.name,
                    other.name,
                    scope.diags.at(other.place)
                );
                scope.diags.alert(server.place, &text);
            }
            let own = self
                .out
                .binds
                .iter()
                .find(|b| match (&b.address, &server.address) {
                    (Address::Ip(a), PeerAddress::Ip(b)) => a == b,
                    (Address::Unix(a), PeerAddress::Unix(b)) => a == b,
                    _ => false,
                });
            if let Some(own) = own {
                let text = format!(
                    "'{}' has the address on which this node itself listens ({}).",
                    server.name,
                    scope.diags.at(own.place)
                );
                scope.diags.alert(server.place, &text);
            }
        }
    }

    /// A node that dials shows the certificate it listens with, unless the line names another.
    fn own_certificate(&mut self) {
        let Some(own) = self.out.binds.iter().find_map(|b| b.tls.as_ref()) else {
            return;
        };
        let servers = self.out.servers.iter_mut().map(|s| &mut s.tls);
        let discover = self.out.discover.iter_mut().map(|d| &mut d.tls);
        for tls in servers.chain(discover).flatten() {
            if tls.crt.is_none() {
                tls.crt.clone_from(&own.crt);
                tls.key.clone_from(&own.key);
            }
        }
    }

    /// Plain text stays on this host unless the section says otherwise.
    fn plaintext(&self, scope: &mut Scope<'_>) {
        if self.out.allow_plaintext {
            return;
        }
        let binds = self.out.binds.iter().filter(|b| {
            b.tls.is_none() && matches!(b.address, Address::Ip(a) if !is_loopback(a.ip()))
        });
        let servers = self.out.servers.iter().filter(|s| {
            let leaves = match &s.address {
                PeerAddress::Ip(a) => !is_loopback(a.ip()),
                PeerAddress::Host { host, .. } => host != "localhost",
                PeerAddress::Unix(_) => false,
            };
            s.tls.is_none() && !s.disabled && leaves
        });
        let discover = self.out.discover.iter().filter(|d| d.tls.is_none());
        let mut open: Vec<(Place, String)> = binds
            .map(|b| (b.place, format!("'bind {}'", b.text)))
            .chain(servers.map(|s| (s.place, format!("'server {}'", s.name))))
            .chain(discover.map(|d| (d.place, format!("'discover dns {}'", d.name))))
            .collect();
        open.sort_by_key(|(place, _)| (place.file, place.line));
        let Some((place, first)) = open.first() else {
            return;
        };
        let others = match open.len() {
            1 => String::new(),
            n => format!(" (and {} more lines of this section)", n - 1),
        };
        let text = format!(
            "{first}{others} : peers would speak plain text over the network, and whoever reaches the port could read and change what is counted. Use TLS: 'default-bind ssl crt <file> ca-file <file> verify required' and 'default-server ssl ca-file <file> verify required' above these lines; or write 'allow-plaintext' in this section if everyone on that network may be trusted."
        );
        scope.diags.alert(*place, &text);
    }

    /// Names are looked up while the process runs, when it sees nothing but its new root. What it takes for that is read before,
    /// which may be of another time.
    fn names_in_a_chroot(&self, scope: &mut Scope<'_>) {
        let Some(dir) = &self.global.chroot else {
            return;
        };
        let discover = self.out.discover.iter().filter(|d| d.nameserver.is_none());
        let servers = self
            .out
            .servers
            .iter()
            .filter(|s| !s.disabled && matches!(s.address, PeerAddress::Host { .. }));
        let places = discover.map(|d| d.place).chain(servers.map(|s| s.place));
        if let Some(place) = places.min_by_key(|p| (p.file, p.line)) {
            let text = format!(
                "the addresses of hosts, and for 'discover' the servers to ask, are found out before 'chroot {dir}', once. They are found out anew each time if '{dir}/etc/resolv.conf' and '{dir}/etc/hosts' are there."
            );
            scope.diags.notice(place, &text);
        }
    }

    /// TLS without proof of identity keeps readers out, but not writers.
    fn strangers(&self, scope: &mut Scope<'_>) {
        if self.out.allow_plaintext {
            return;
        }
        let exposed = |a: &Address| match a {
            Address::Ip(a) => !is_loopback(a.ip()),
            Address::Unix(_) => false,
            Address::Fd(_) => true,
        };
        let weak = self.out.binds.iter().find(|b| {
            exposed(&b.address) && b.tls.as_ref().is_some_and(|t| t.verify != Verify::Required)
        });
        if let Some(bind) = weak {
            let text = format!(
                "'bind {}' : it does not insist on a certificate, so whoever reaches this port may join and change what is counted. Add 'verify required ca-file <file>'.",
                bind.text
            );
            if self.trusting_binds.contains(&bind.place) {
                scope.diags.warn(bind.place, &text);
            } else {
                scope.diags.notice(bind.place, &text);
            }
        }
        let believing = self
            .out
            .servers
            .iter()
            .find(|s| !s.disabled && s.tls.as_ref().is_some_and(|t| t.verify == Verify::None));
        if let Some(server) = believing {
            let text = format!(
                "'server {}' : with 'verify none', whoever answers at its address is believed.",
                server.name
            );
            scope.diags.notice(server.place, &text);
        }
    }
}
