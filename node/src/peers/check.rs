//! What can be wrong with `peers` sections beside their words: certificates, and what a process below a `chroot` does not
//! see. `remora -c` says the same as a start.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use remora_config::plan::{PeerAddress, PeersSection, PeersTls, Place, Plan};

use super::expiry;
use super::tls;

/// What was found, with file and line.
#[derive(Debug, Default)]
pub struct Findings {
    /// These keep the process from starting.
    pub alerts: Vec<String>,
    /// These do not.
    pub warnings: Vec<String>,
}

/// Looks at the files of all sections that are not switched off.
pub fn check(plan: &Plan) -> Findings {
    let mut found = Findings::default();
    for section in plan.peers.iter().filter(|s| !s.disabled) {
        certificates(plan, section, &mut found);
        if let Some(dir) = &plan.global.chroot {
            sockets(plan, section, Path::new(dir), &mut found.alerts);
        }
    }
    found
}

/// A line, for people: `[file:line]`.
pub(super) fn at(plan: &Plan, place: &Place) -> String {
    let file = plan.files.get(usize::from(place.file));
    format!("[{}:{}]", file.map_or("?", String::as_str), place.line)
}

/// Every certificate is looked at once, where it is used first.
fn certificates(plan: &Plan, section: &PeersSection, found: &mut Findings) {
    let mut seen = BTreeSet::new();
    let mut look = |place: &Place, tls: &PeersTls, what: String, built: Result<(), String>| {
        let context = format!(
            "{} : peers section '{}', {what}",
            at(plan, place),
            section.name
        );
        let is_new = seen.insert((tls.crt.clone(), tls.key.clone()));
        match built {
            Err(why) if is_new => found.alerts.push(format!("{context}: {why}.")),
            Err(_) => {}
            Ok(()) => {
                let Some(crt) = tls.crt.as_deref().filter(|_| is_new) else {
                    return;
                };
                let found_out = [expired(crt), tls::issued_authority(crt)];
                let all = found_out.into_iter().flatten();
                let all = all.map(|why| format!("{context}: {why}."));
                found.warnings.extend(all);
            }
        }
    };
    for bind in &section.binds {
        if let Some(tls) = &bind.tls {
            let what = format!("bind '{}'", bind.text);
            look(&bind.place, tls, what, tls::for_bind(tls).map(drop));
        }
    }
    for server in section.servers.iter().filter(|s| !s.disabled) {
        if let Some(tls) = &server.tls {
            let what = format!("peer '{}'", server.name);
            look(&server.place, tls, what, tls::for_server(tls).map(drop));
        }
    }
    for line in &section.discover {
        if let Some(tls) = &line.tls {
            let what = format!("discover '{}'", line.name);
            look(&line.place, tls, what, tls::for_server(tls).map(drop));
        }
    }
}

fn expired(crt: &str) -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let at = expiry::expiry(crt, expiry::Holds::Chain)?;
    (at <= now.as_secs() as i64).then(|| {
        format!(
            "certificate '{crt}' expired on {}: other nodes refuse it",
            expiry::date(at)
        )
    })
}

/// UNIX sockets of peers are opened whenever there is no session: by then the process sees nothing but its new root.
fn sockets(plan: &Plan, section: &PeersSection, root: &Path, alerts: &mut Vec<String>) {
    for server in section.servers.iter().filter(|s| !s.disabled) {
        let PeerAddress::Unix(path) = &server.address else {
            continue;
        };
        let inside = root.join(path.trim_start_matches('/'));
        let dir = inside.parent().unwrap_or(root);
        if !dir.is_dir() {
            alerts.push(format!(
                "{} : peers section '{}', peer '{}': the process runs below 'chroot {}' when it connects to '{path}', and there is no directory '{}'. Put the peers' sockets below '{}', and name them on 'server' lines as they are seen from there.",
                at(plan, &server.place),
                section.name,
                server.name,
                root.display(),
                dir.display(),
                root.display(),
            ));
        }
    }
}
