//! Users and groups by name, and giving up privileges.

use std::fs;
use std::path::Path;

use remora_config::plan::Plan;
use rustix::process::{Gid, Uid};

/// Looks up every user and group that the configuration names, so that only numbers are left.
///
/// # Errors
/// One message per unknown name.
pub(super) fn resolve_names(plan: &mut Plan) -> Result<(), Vec<String>> {
    let mut errors = Vec::new();
    let global = &mut plan.global;
    errors.extend(owner(
        (&mut global.uid, global.user.as_deref()),
        (&mut global.gid, global.group.as_deref()),
    ));
    for s in global
        .stats_sockets
        .iter_mut()
        .chain(&mut global.admin_binds)
    {
        errors.extend(owner(
            (&mut s.uid, s.user.as_deref()),
            (&mut s.gid, s.group.as_deref()),
        ));
    }
    for b in plan.proxies.iter_mut().flat_map(|p| &mut p.binds) {
        errors.extend(owner(
            (&mut b.uid, b.user.as_deref()),
            (&mut b.gid, b.group.as_deref()),
        ));
    }
    for b in plan.peers.iter_mut().flat_map(|p| &mut p.binds) {
        errors.extend(owner(
            (&mut b.uid, b.user.as_deref()),
            (&mut b.gid, b.group.as_deref()),
        ));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

/// Numbers in place of a user's and a group's name; one message per unknown name.
fn owner<'a>(
    user: (&'a mut Option<u32>, Option<&'a str>),
    group: (&'a mut Option<u32>, Option<&'a str>),
) -> impl Iterator<Item = String> {
    let sources = [
        (user, "/etc/passwd", "user"),
        (group, "/etc/group", "group"),
    ];
    sources
        .into_iter()
        .filter_map(|((id, name), database, what)| {
            let name = name.filter(|_| id.is_none())?;
            *id = lookup(database, name);
            id.is_none()
                .then(|| format!("cannot find {what} id for '{name}' in {database}."))
        })
}

/// The third field of the line that begins with `name:`.
fn lookup(database: &str, name: &str) -> Option<u32> {
    let text = fs::read(database).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name))
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    })
}

/// `chroot`, `gid`, `uid`, in this order. Must run while the process has one thread: the kernel changes only the
/// calling one, and threads started later inherit.
///
/// # Errors
/// The step that failed.
pub(super) fn give_up_privileges(plan: &Plan) -> Result<(), String> {
    let global = &plan.global;
    if let Some(dir) = &global.chroot {
        std::env::set_current_dir(Path::new("/"))
            .and_then(|()| rustix::process::chroot(dir.as_str()).map_err(Into::into))
            .and_then(|()| std::env::set_current_dir("/"))
            .map_err(|e| format!("Cannot chroot({dir}): {e}."))?;
    }
    if let Some(gid) = global.gid {
        let _ = rustix::thread::set_thread_groups(&[Gid::from_raw(gid)]);
        rustix::thread::set_thread_gid(Gid::from_raw(gid))
            .map_err(|e| format!("Cannot set gid {gid}: {e}."))?;
    }
    if let Some(uid) = global.uid {
        rustix::thread::set_thread_uid(Uid::from_raw(uid))
            .map_err(|e| format!("Cannot set uid {uid}: {e}."))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_in_the_files() {
        assert_eq!(lookup("/etc/passwd", "root"), Some(0));
        assert_eq!(lookup("/etc/group", "root"), Some(0));
        assert_eq!(lookup("/etc/passwd", "nobody-of-that-name"), None);
    }
}
