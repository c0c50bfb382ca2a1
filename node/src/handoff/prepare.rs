//! `remora --handoff-dir DIR USER[:GROUP]`: makes the directory of a `handoff` for a process that has not the rights to make it.
//! On Kubernetes the kubelet makes a `hostPath` directory for root alone; a container that runs first hands it to the proxy's
//! user. Needs the rights of root, of its capabilities only `CHOWN`.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid};

/// Makes `path`, or takes the one that is there, and gives it to the user. Its parents are made if they are missing. `Ok`: what
/// was done, in words.
///
/// # Errors
/// The reason: others may have put something into it, or rights are missing.
pub fn directory(path: &str, user: u32, group: u32) -> Result<String, String> {
    let place = Path::new(path);
    let wrong = |what: &str| format!("'{path}': {what}");
    let fails = |e: io::Error| format!("'{path}': {}", text(&e));
    match DirBuilder::new().recursive(true).mode(0o755).create(place) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            return Err(wrong("is not a directory."));
        }
        Err(e) => return Err(fails(e)),
    }
    let is = |found: &Metadata| (found.uid(), found.gid(), found.mode() & 0o7777);
    // First without opening it: even root may not, if its capabilities do not let it into what belongs to others.
    if std::fs::symlink_metadata(place).is_ok_and(|m| m.is_dir() && is(&m) == (user, group, MODE)) {
        return Ok(format!("{path} belongs to {user}:{group} already."));
    }
    // A link could lead anywhere, and what it leads to would change hands.
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let dir = match rustix::fs::open(place, flags, Mode::empty()) {
        Ok(dir) => std::fs::File::from(dir),
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {
            return Err(wrong("is not a directory, or a link to one."));
        }
        Err(e) => return Err(fails(e.into())),
    };
    let found = dir.metadata().map_err(fails)?;
    let (owner, _, mode) = is(&found);
    if mode & 0o002 != 0 {
        return Err(wrong(
            "everybody may write to it, and may have put something into it: remove it, then it is made anew.",
        ));
    }
    if owner != user && owner != rustix::process::geteuid().as_raw() {
        return Err(wrong(&format!(
            "belongs to user {owner}, not to {user}: remove it, then it is made anew."
        )));
    }
    // In this order: who has given it away may not change its mode any more.
    if mode != MODE {
        rustix::fs::fchmod(&dir, Mode::from_raw_mode(MODE)).map_err(|e| fails(e.into()))?;
    }
    rustix::fs::fchown(&dir, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
        .map_err(|e| fails(e.into()))?;
    Ok(format!("{path} belongs to {user}:{group} now."))
}

fn text(e: &io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// Nobody else may look into it.
const MODE: u32 = 0o700;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn me() -> (u32, u32) {
        (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        )
    }

    #[test]
    fn makes_a_directory_for_its_user_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b");
        let (user, group) = me();
        let text = path.to_str().unwrap();
        assert!(directory(text, user, group).unwrap().ends_with("now."));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        assert!(directory(text, user, group).unwrap().ends_with("already."));
    }

    #[test]
    fn refuses_what_others_may_have_touched() {
        let home = tempfile::tempdir().unwrap();
        let (user, group) = me();
        let all = home.path().join("all");
        std::fs::create_dir(&all).unwrap();
        std::fs::set_permissions(&all, std::fs::Permissions::from_mode(0o777)).unwrap();
        let link = home.path().join("link");
        std::os::unix::fs::symlink(home.path(), &link).unwrap();
        let file = home.path().join("file");
        std::fs::write(&file, "").unwrap();
        for (path, says) in [
            (&all, "everybody may write"),
            (&link, "not a directory"),
            (&file, "not a directory"),
        ] {
            let said = directory(path.to_str().unwrap(), user, group).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
        // Only root may give something away.
        if user != 0 {
            let mine = home.path().join("mine");
            assert!(directory(mine.to_str().unwrap(), user + 1, group).is_err());
        }
    }
}
