//! Asking the DNS once. Tells an answer ("there is nobody of that name") from silence, over the whole search list: a
//! server that fails must not look like a name that is gone.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{TokioResolver, system_conf};
use remora_config::plan::Discover;
use tokio::task::JoinSet;

use super::members::{Answer, MEMBERS_MAX};

/// Longest time that asking takes, whatever the servers do: then it has failed.
const ASK_MAX: Duration = Duration::from_secs(15);
/// For a server given by `nameserver`: how long to wait, how often to try.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
/// How long a name that is in `/etc/hosts` is known not to be there in the other family.
const HOSTS_TTL: Duration = Duration::from_secs(60);
/// SRV targets looked up at the same time.
const AT_ONCE: usize = 16;

/// What asking came to.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) answer: Answer,
    /// How long the answer is good for.
    pub(super) ttl: Option<Duration>,
    /// What went wrong, if anything did.
    pub(super) failure: Option<String>,
}

/// Asks for the addresses of a name, in all families.
pub(super) async fn ask(spec: &Discover) -> Asked {
    match tokio::time::timeout(ASK_MAX, ask_patiently(spec)).await {
        Ok(asked) => asked,
        Err(_) => Asked {
            failure: Some(format!("no answer within {} s", ASK_MAX.as_secs())),
            ..Asked::default()
        },
    }
}

async fn ask_patiently(spec: &Discover) -> Asked {
    let mut asked = Asked::default();
    let server = match Server::new(spec) {
        Ok(server) => server,
        Err(e) => {
            asked.failure = Some(e);
            return asked;
        }
    };
    if spec.is_srv() {
        services(&server, spec, &mut asked).await;
    } else {
        let port = spec.port.unwrap_or_default();
        for name in &server.names {
            let hosts = server.hosts(name).await;
            let exists = hosts.exists();
            (asked.answer.v4, asked.answer.v6) = (true, true);
            asked.take(hosts, port);
            if asked.failure.is_some() && !exists {
                // Maybe it does exist here, maybe under the next name.
                (asked.answer.v4, asked.answer.v6) = (false, false);
            }
            if exists || asked.failure.is_some() {
                break;
            }
        }
    }
    asked
}

/// Targets of the SRV records, then their addresses.
async fn services(server: &Server, spec: &Discover, asked: &mut Asked) {
    let mut targets: BTreeSet<(Name, u16)> = BTreeSet::new();
    for name in &server.names {
        match lookup(&server.resolver, name, RecordType::SRV).await {
            Found::Records(found) => {
                asked.good_for(ttl(&found));
                let records = found.answers().iter().filter_map(|r| match &r.data {
                    // RFC 2782: the root is "no such service".
                    RData::SRV(srv) if !srv.target.is_root() => Some(srv),
                    _ => None,
                });
                targets
                    .extend(records.map(|srv| (srv.target.clone(), spec.port.unwrap_or(srv.port))));
                break;
            }
            Found::Nothing(ttl) => asked.good_for(ttl),
            Found::Failure(e) => {
                asked.failure = Some(e);
                return;
            }
        }
    }
    let all = targets.len() <= MEMBERS_MAX;
    (asked.answer.v4, asked.answer.v6) = (all, all);
    if !all {
        asked.failure = Some(format!("more than {MEMBERS_MAX} services"));
    }
    let mut targets = targets.into_iter().take(MEMBERS_MAX);
    let mut tasks = JoinSet::new();
    loop {
        while tasks.len() < AT_ONCE
            && let Some((name, port)) = targets.next()
        {
            if let Some(known) = server.known(&name) {
                asked.take(known, port);
                continue;
            }
            let resolver = server.resolver.clone();
            tasks.spawn(async move { (hosts(&resolver, &name).await, port) });
        }
        match tasks.join_next().await {
            Some(Ok((found, port))) => asked.take(found, port),
            Some(Err(e)) => {
                (asked.answer.v4, asked.answer.v6) = (false, false);
                asked.failure = Some(e.to_string());
            }
            None => return,
        }
    }
}

impl Asked {
    fn take(&mut self, hosts: Hosts, port: u16) {
        self.answer.v4 &= self.take_family(hosts.v4, port);
        self.answer.v6 &= self.take_family(hosts.v6, port);
    }

    /// Whether the answer is one.
    fn take_family(&mut self, found: Found, port: u16) -> bool {
        match found {
            Found::Records(found) => {
                self.good_for(ttl(&found));
                let addresses = found.answers().iter().filter_map(|r| r.data.ip_addr());
                let fit = addresses.map(|a| a.to_canonical()).filter(usable);
                let fit = fit.map(|a| SocketAddr::new(a, port));
                self.answer.found.extend(fit);
                true
            }
            Found::Nothing(ttl) => {
                self.good_for(ttl);
                true
            }
            Found::Failure(e) => {
                self.failure = Some(e);
                false
            }
        }
    }

    fn good_for(&mut self, ttl: Duration) {
        self.ttl = Some(self.ttl.map_or(ttl, |t| t.min(ttl)));
    }
}

/// Nobody can be dialed there.
fn usable(address: &IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast()
}

/// Whom to ask, and under which names: those that the search list makes of a short one.
struct Server {
    resolver: TokioResolver,
    names: Vec<Name>,
    /// `/etc/hosts`, unless another server was given.
    known: Option<hickory_resolver::Hosts>,
}

impl Server {
    /// Anew for every round, so that a changed `/etc/resolv.conf` counts and nothing is remembered past its time.
    fn new(spec: &Discover) -> Result<Server, String> {
        let name = Name::from_ascii(&spec.name).map_err(|e| e.to_string())?;
        let provider = TokioRuntimeProvider::default();
        let (names, builder) = match spec.nameserver {
            Some(address) => {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
                let connections = connections.map(|mut c| {
                    c.port = address.port();
                    c
                });
                let server = NameServerConfig::new(address.ip(), true, connections.into());
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                let mut builder = TokioResolver::builder_with_config(config, provider);
                let options = builder.options_mut();
                (options.timeout, options.attempts) = (TIMEOUT, ATTEMPTS);
                options.use_hosts_file = ResolveHosts::Never;
                (vec![absolute(name)], builder)
            }
            None => {
                let (config, options) = system_files().map_err(|e| reason(&e))?;
                let names = candidates(&name, &config, options.ndots);
                let builder =
                    TokioResolver::builder_with_config(config, provider).with_options(options);
                (names, builder)
            }
        };
        let mut builder = builder;
        builder.options_mut().cache_size = 0;
        let resolver = builder.build().map_err(|e| reason(&e))?;
        let own = spec.nameserver.is_none();
        Ok(Server {
            resolver,
            names,
            known: own.then(known_hosts),
        })
    }

    async fn hosts(&self, name: &Name) -> Hosts {
        match self.known(name) {
            Some(known) => known,
            None => hosts(&self.resolver, name).await,
        }
    }

    /// What `/etc/hosts` says. A name that is there in one family is not asked for in the other: no server need know it, or be
    /// there at all.
    fn known(&self, name: &Name) -> Option<Hosts> {
        let file = self.known.as_ref()?;
        let of = |wanted| {
            let found = file.lookup_static_host(&Query::query(name.clone(), wanted));
            match found {
                Some(found) => Found::Records(found),
                None => Found::Nothing(HOSTS_TTL),
            }
        };
        let hosts = Hosts {
            v4: of(RecordType::A),
            v6: of(RecordType::AAAA),
        };
        hosts.exists().then_some(hosts)
    }
}

/// What `/etc/resolv.conf` and `/etc/hosts` said while the process saw them.
static KEPT: OnceLock<[Option<Vec<u8>>; 2]> = OnceLock::new();
const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// Reads the files by which names are looked up, for a process that may not see them any more soon. Where they can still be
/// read, they are read anew.
pub fn keep_files() {
    KEPT.get_or_init(|| [RESOLV_CONF, HOSTS].map(|path| fs::read(path).ok()));
}

fn system_files() -> Result<(ResolverConfig, ResolverOpts), NetError> {
    let [kept, _] = KEPT.get().unwrap_or(&[None, None]);
    match kept {
        Some(text) if !Path::new(RESOLV_CONF).exists() => system_conf::parse_resolv_conf(text),
        _ => system_conf::read_system_conf(),
    }
}

/// A file that cannot be read knows nobody.
fn known_hosts() -> hickory_resolver::Hosts {
    let [_, kept] = KEPT.get().unwrap_or(&[None, None]);
    match kept {
        Some(text) if !Path::new(HOSTS).exists() => {
            let mut hosts = hickory_resolver::Hosts::default();
            let _ = hosts.read_hosts_conf(&text[..]);
            hosts
        }
        _ => hickory_resolver::Hosts::from_system().unwrap_or_default(),
    }
}

fn absolute(mut name: Name) -> Name {
    name.set_fqdn(true);
    name
}

/// As resolv.conf(5) has it: a name with fewer than `ndots` dots is tried with every domain of the search list first,
/// another one as it is first.
fn candidates(name: &Name, config: &ResolverConfig, ndots: usize) -> Vec<Name> {
    if name.is_fqdn() {
        return vec![name.clone()];
    }
    let with = |domain: &Name| name.clone().append_domain(domain).ok().map(absolute);
    let mut names: Vec<Name> = config.search().iter().filter_map(with).collect();
    if names.is_empty() {
        names.extend(config.domain().and_then(with));
    }
    let dots = usize::from(name.num_labels()).saturating_sub(1);
    let itself = absolute(name.clone());
    if dots >= ndots {
        names.insert(0, itself);
    } else {
        names.push(itself);
    }
    names
}

/// An answer to one question.
enum Found {
    Records(Lookup),
    /// There are none, and that is good for so long.
    Nothing(Duration),
    /// Nobody knows.
    Failure(String),
}

/// Both families of a host.
struct Hosts {
    v4: Found,
    v6: Found,
}

impl Hosts {
    fn exists(&self) -> bool {
        [&self.v4, &self.v6]
            .into_iter()
            .any(|f| matches!(f, Found::Records(_)))
    }
}

async fn hosts(resolver: &TokioResolver, name: &Name) -> Hosts {
    let (v4, v6) = tokio::join!(
        lookup(resolver, name, RecordType::A),
        lookup(resolver, name, RecordType::AAAA)
    );
    Hosts { v4, v6 }
}

async fn lookup(resolver: &TokioResolver, name: &Name, wanted: RecordType) -> Found {
    match resolver.lookup(name.clone(), wanted).await {
        // Without a record of the kind: an alias that leads nowhere.
        Ok(found) if !found.answers().iter().any(|r| r.record_type() == wanted) => {
            Found::Nothing(ttl(&found))
        }
        Ok(found) => Found::Records(found),
        // A mere referral comes from a server that does not do what a resolver needs.
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) if none.ns.is_none() => Found::Nothing(
            Duration::from_secs(none.negative_ttl.unwrap_or_default().into()),
        ),
        Err(e) => Found::Failure(format!("{wanted} of {name}: {}", reason(&e))),
    }
}

fn reason(e: &NetError) -> String {
    match e {
        NetError::Timeout => "no answer".to_owned(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the server says '{code}'"),
        other => other.to_string(),
    }
}

fn ttl(found: &Lookup) -> Duration {
    let seconds = found.answers().iter().map(|r| r.ttl).min();
    Duration::from_secs(seconds.unwrap_or_default().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_list() {
        let domain = |text: &str| Name::from_ascii(text).expect("a name");
        let search = vec![domain("ns.svc.cluster.local"), domain("svc.cluster.local.")];
        let config = ResolverConfig::from_parts(Some(domain("lan")), search, Vec::new());
        let none = ResolverConfig::from_parts(Some(domain("lan")), Vec::new(), Vec::new());
        for (name, config, ndots, expected) in [
            (
                "remora",
                &config,
                5,
                "remora.ns.svc.cluster.local. remora.svc.cluster.local. remora.",
            ),
            (
                "a.b",
                &config,
                1,
                "a.b. a.b.ns.svc.cluster.local. a.b.svc.cluster.local.",
            ),
            ("a.b.", &config, 5, "a.b."),
            ("remora", &none, 1, "remora.lan. remora."),
            (
                "_p._tcp.a",
                &config,
                5,
                "_p._tcp.a.ns.svc.cluster.local. _p._tcp.a.svc.cluster.local. _p._tcp.a.",
            ),
        ] {
            let names: Vec<String> = candidates(&domain(name), config, ndots)
                .iter()
                .map(Name::to_ascii)
                .collect();
            assert_eq!(names.join(" "), expected, "{name}");
        }
    }
}
