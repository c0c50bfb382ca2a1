//! The metrics page: what the process counts, as text for Prometheus. Made on the thread of the admin endpoint, never on
//! one that serves traffic. Documented in `docs/metrics.md`; a test compares the two.

mod certificates;
mod family;
mod peers;
mod process;
mod proxies;
pub mod text;

pub use family::Described;
use family::{describe, write};
use text::{Format, Page};

use crate::shared::Shared;

/// Groups of families. `scope=` in a query names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Process,
    Frontend,
    Backend,
    Server,
    Table,
    Rule,
    Peers,
}

impl Group {
    const ALL: [(&'static str, Group); 7] = [
        ("global", Group::Process),
        ("frontend", Group::Frontend),
        ("backend", Group::Backend),
        ("server", Group::Server),
        ("sticktable", Group::Table),
        ("rule", Group::Rule),
        ("peers", Group::Peers),
    ];
}

/// Which part of the page is asked for, as with HAProxy's exporter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    groups: u8,
    no_maint: bool,
}

impl Default for Query {
    fn default() -> Query {
        Query {
            groups: u8::MAX,
            no_maint: false,
        }
    }
}

impl Query {
    /// Reads the query part of a URL: `scope=NAME` (may be repeated; `*` means all) and `no-maint`. Other parameters mean
    /// nothing here. `None`: no such scope.
    pub fn parse(text: &str) -> Option<Query> {
        let mut query = Query::default();
        let mut scoped = false;
        for parameter in text.split('&') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name {
                "no-maint" => query.no_maint = true,
                "scope" => {
                    if !scoped || value.is_empty() {
                        query.groups = 0;
                    }
                    scoped = true;
                    query.groups |= match value {
                        "" => 0,
                        "*" => u8::MAX,
                        name => {
                            let (_, group) = Group::ALL.iter().find(|(n, _)| *n == name)?;
                            1 << *group as u8
                        }
                    };
                }
                _ => {}
            }
        }
        Some(query)
    }

    fn wants(&self, group: Group) -> bool {
        self.groups & (1 << group as u8) != 0
    }
}

/// The page.
pub fn page(shared: &Shared, query: &Query, format: Format) -> Vec<u8> {
    let mut page = Page::new(format);
    if query.wants(Group::Process) {
        write(
            &mut page,
            "process",
            process::PROCESS,
            &process::process(shared),
        );
        let succession = process::succession(shared);
        write(&mut page, "", process::SUCCESSION, &succession);
    }
    if query.wants(Group::Frontend) {
        write(
            &mut page,
            "frontend",
            proxies::FRONTEND,
            &proxies::fronts(shared),
        );
    }
    if query.wants(Group::Backend) {
        write(
            &mut page,
            "backend",
            proxies::BACKEND,
            &proxies::backs(shared),
        );
    }
    if query.wants(Group::Server) {
        let servers = proxies::servers(shared, query.no_maint);
        write(&mut page, "server", proxies::SERVER, &servers);
    }
    if query.wants(Group::Table) {
        write(
            &mut page,
            "sticktable",
            process::TABLE,
            &process::tables(shared),
        );
    }
    if query.wants(Group::Rule) {
        write(&mut page, "rule", process::RULE, &process::rules(shared));
    }
    if query.wants(Group::Peers) {
        let sections = peers::now(shared);
        write(
            &mut page,
            "peers",
            peers::SECTION,
            &peers::sections(&sections),
        );
        write(
            &mut page,
            "discovery",
            peers::NAME,
            &peers::names(&sections),
        );
        write(&mut page, "peer", peers::PEER, &peers::peers(&sections));
        let files = certificates::files(shared);
        write(&mut page, "certificate", peers::CERTIFICATE, &files);
    }
    page.finish()
}

/// Every family that a page may have, in order.
pub fn families() -> Vec<Described> {
    [
        describe("process", process::PROCESS),
        describe("", process::SUCCESSION),
        describe("frontend", proxies::FRONTEND),
        describe("backend", proxies::BACKEND),
        describe("server", proxies::SERVER),
        describe("sticktable", process::TABLE),
        describe("rule", process::RULE),
        describe("peers", peers::SECTION),
        describe("discovery", peers::NAME),
        describe("peer", peers::PEER),
        describe("certificate", peers::CERTIFICATE),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use text::Kind;

    #[test]
    fn queries_as_of_haproxys_exporter() {
        let scopes = |text: &str| {
            let query = Query::parse(text)?;
            let wanted = Group::ALL.iter().filter(|(_, g)| query.wants(*g));
            Some(wanted.map(|(n, _)| *n).collect::<Vec<_>>().join(" "))
        };
        let all = "global frontend backend server sticktable rule peers";
        for (text, expected) in [
            ("", Some(all)),
            ("foo=1&no-maint", Some(all)),
            ("scope=*", Some(all)),
            ("scope=server", Some("server")),
            ("scope=server&scope=global", Some("global server")),
            ("scope=server&scope=", Some("")),
            ("scope=server&scope=&scope=rule", Some("rule")),
            ("scope=foo", None),
        ] {
            assert_eq!(scopes(text).as_deref(), expected, "{text}");
        }
        assert!(Query::parse("no-maint&scope=*").is_some_and(|q| q.no_maint));
    }

    #[test]
    fn names_follow_the_rules() {
        let families = families();
        for f in &families {
            assert_eq!(
                f.kind == Kind::Counter,
                f.name.ends_with("_total"),
                "{}",
                f.name
            );
            assert_eq!(
                f.kind == Kind::Info,
                f.name.ends_with("_info"),
                "{}",
                f.name
            );
            assert!(
                f.help.ends_with('.') && !f.help.contains(['\n', '\\']),
                "{}: {}",
                f.name,
                f.help
            );
        }
        let mut names: Vec<&str> = families.iter().map(|f| f.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), families.len(), "a name is taken twice");
    }
}
