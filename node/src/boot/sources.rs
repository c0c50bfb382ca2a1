//! Configuration files, and what they refer to: other files, host names, the environment.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use remora_config::{Loader, Source};
use rustix::fs::OFlags;
use twox_hash::XxHash64;

use crate::handoff::frames::SeenFile;

/// Reads the files named by `-f`; of a directory its visible `*.cfg` in byte order. `seen` gets all of them, also those
/// that are not there, and directories. `watched`: see [`System::watched`].
///
/// # Errors
/// Every name that cannot be read, as a message each.
pub(super) fn read(
    names: &[String],
    watched: bool,
    seen: &mut Vec<SeenFile>,
) -> Result<Vec<Source>, Vec<String>> {
    let mut sources = Vec::new();
    let mut errors = Vec::new();
    for name in names {
        if Path::new(name).is_dir() {
            seen.extend(seen_file(name, see(name)));
        }
        let files = match expand(name) {
            Ok(files) => files,
            Err(Unusable { path, why }) => {
                // Its coming is a change.
                seen.extend(seen_file(&path, see(&path)));
                errors.push(format!(
                    "Cannot open configuration file/directory {path} : {}",
                    reason(&why)
                ));
                continue;
            }
        };
        if files.is_empty() {
            errors.push(format!(
                "No configuration file in directory {name} : only its '*.cfg' files are read."
            ));
        }
        for file in files {
            let (text, content) = contents(Path::new(&file), watched);
            seen.extend(seen_file(&file, content));
            match text {
                Ok(text) => sources.push(Source { name: file, text }),
                Err(e) => errors.push(format!(
                    "Could not open configuration file {file} : {}",
                    reason(&e)
                )),
            }
        }
    }
    if errors.is_empty() {
        Ok(sources)
    } else {
        Err(errors)
    }
}

fn seen_file(name: &str, content: u64) -> Option<SeenFile> {
    let path = std::path::absolute(name).ok()?;
    Some(SeenFile {
        path: path.to_string_lossy().into_owned(),
        content,
    })
}

/// What tells the content of a file, or the configuration files of a directory, from another one. That a file cannot be read
/// or is none, like a pipe, is a content of its own. Never waits for somebody to write.
pub(crate) fn see(path: &str) -> u64 {
    if Path::new(path).is_dir() {
        // Names without their directory: it may have been named in another way before.
        let names = expand(path).ok().map(|files| {
            let names = files.iter().filter_map(|file| Path::new(file).file_name());
            names.map(OsStr::as_bytes).collect::<Vec<_>>().join(&b'\n')
        });
        return hash(names.as_deref());
    }
    match regular(Path::new(path)) {
        Ok(Some(text)) => hash(Some(&text)),
        Ok(None) => NO_FILE,
        Err(_) => NOTHING,
    }
}

fn hash(content: Option<&[u8]>) -> u64 {
    content.map_or(NOTHING, |bytes| {
        XxHash64::oneshot(0, bytes).max(NO_FILE + 1)
    })
}

/// In place of a content: it is not there, or cannot be read.
const NOTHING: u64 = 0;
/// In place of a content: a pipe, a device, or the like. It cannot be looked at without taking something away from it.
const NO_FILE: u64 = 1;

/// What the file holds; `None` if it is not a regular one, which is not read.
fn regular(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Before it is opened: that alone may be an event for who is at the other end.
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    // It may have become a pipe since.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = fs::File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(Some(text))
}

/// What can be read at this path, and what [`see`] says of it. `watched`: see [`System::watched`].
fn contents(path: &Path, watched: bool) -> (io::Result<Vec<u8>>, u64) {
    match regular(path) {
        Ok(Some(text)) => {
            let content = hash(Some(&text));
            (Ok(text), content)
        }
        Ok(None) if watched && fs::metadata(path).is_ok_and(|m| m.file_type().is_fifo()) => {
            let why = "it is a pipe, which '--watch' cannot follow";
            (Err(io::Error::other(why)), NO_FILE)
        }
        Ok(None) => (fs::read(path), NO_FILE),
        Err(e) => (Err(e), NOTHING),
    }
}

/// A name given with `-f` that leads nowhere.
struct Unusable {
    /// What cannot be used: it, or a file in it.
    path: String,
    why: io::Error,
}

/// The name itself, or the configuration files of the directory of that name.
fn expand(name: &str) -> Result<Vec<String>, Unusable> {
    let unusable = |why| Unusable {
        path: name.to_owned(),
        why,
    };
    if !fs::metadata(name).map_err(unusable)?.is_dir() {
        return Ok(vec![name.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(name).map_err(unusable)? {
        let file = entry.map_err(unusable)?.file_name();
        let bytes = file.as_bytes();
        if bytes.starts_with(b".") || !bytes.ends_with(b".cfg") {
            continue;
        }
        let file = file.into_string().map_err(|bad| {
            unusable(io::Error::other(format!(
                "the file name {bad:?} in it is not valid UTF-8"
            )))
        })?;
        let path = Path::new(name).join(file).to_string_lossy().into_owned();
        match fs::metadata(&path) {
            Ok(meta) if meta.is_file() => files.push(path),
            Ok(_) => {}
            Err(why) => return Err(Unusable { path, why }),
        }
    }
    files.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(files)
}

/// The text that the C library has for an error, without the number.
pub(super) fn reason(e: &io::Error) -> String {
    let text = e.to_string();
    match text.find(" (os error") {
        Some(at) => text.get(..at).unwrap_or(&text).to_owned(),
        None => text,
    }
}

/// The machine, as the configuration compiler sees it.
#[derive(Debug, Default)]
pub(crate) struct System {
    /// `-dr`: names that do not resolve give no address instead of an error.
    pub(super) ignore_unresolved: bool,
    /// `--watch`: pipes are refused. Whether one has changed cannot be seen, and nobody may ever write to it.
    pub(super) watched: bool,
    /// Files that were asked for, whether they are there or not.
    pub(super) files: Vec<SeenFile>,
}

impl Loader for System {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        let (text, content) = contents(Path::new(path), self.watched);
        self.files.extend(seen_file(path, content));
        text.map_err(|e| reason(&e))
    }

    fn read_renewed(&mut self, path: &str) -> Result<Vec<u8>, String> {
        // While it is not there, the configuration cannot be used: then its coming is a change.
        let (text, content) = contents(Path::new(path), self.watched);
        text.map_err(|e| {
            self.files.extend(seen_file(path, content));
            reason(&e)
        })
    }

    fn resolve(&mut self, name: &str) -> Result<Vec<IpAddr>, String> {
        match (name, 0).to_socket_addrs() {
            Ok(found) => {
                let mut addresses: Vec<IpAddr> = found.map(|a| a.ip()).collect();
                addresses.dedup();
                Ok(addresses)
            }
            Err(_) if self.ignore_unresolved => Ok(Vec::new()),
            Err(e) => Err(reason(&e)),
        }
    }

    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gives_its_visible_cfg_files_in_byte_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "b.cfg",
            "B.cfg",
            "a.cfg",
            ".hidden.cfg",
            "note.txt",
            "10.cfg",
        ] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        fs::create_dir(dir.path().join("dir.cfg")).unwrap();
        let got = read(
            &[dir.path().to_str().unwrap().to_owned()],
            false,
            &mut Vec::new(),
        )
        .unwrap();
        let texts: Vec<_> = got.iter().map(|s| s.text.as_slice()).collect();
        assert_eq!(texts, [&b"10.cfg"[..], b"B.cfg", b"a.cfg", b"b.cfg"],);
    }

    #[test]
    fn a_directory_looks_the_same_under_each_of_its_names() {
        let dir = tempfile::tempdir_in(".").unwrap();
        fs::write(dir.path().join("a.cfg"), "").unwrap();
        let relative = Path::new(dir.path().file_name().unwrap());
        let absolute = std::path::absolute(relative).unwrap();
        let relative = relative.to_str().unwrap();
        let seen = see(relative);
        assert_eq!(see(absolute.to_str().unwrap()), seen);
        let mut files = Vec::new();
        read(&[relative.to_owned()], false, &mut files).unwrap();
        assert!(files.iter().any(|f| f.content == seen));
        fs::write(dir.path().join("b.cfg"), "").unwrap();
        assert_ne!(see(relative), seen);
    }

    #[test]
    fn a_directory_without_configuration_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.conf"), "").unwrap();
        let name = dir.path().to_str().unwrap().to_owned();
        let errors = read(std::slice::from_ref(&name), false, &mut Vec::new()).unwrap_err();
        assert!(errors.len() == 1 && errors[0].contains(&name), "{errors:?}");
    }

    #[test]
    fn a_missing_file_is_named() {
        assert_eq!(
            read(&["/nonexist".into()], false, &mut Vec::new()).unwrap_err(),
            ["Cannot open configuration file/directory /nonexist : No such file or directory"]
        );
    }

    #[test]
    fn what_is_not_there_or_not_a_file_is_a_content_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::write(path("a.cfg"), "").unwrap();
        let mode = rustix::fs::Mode::RWXU;
        let pipe = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe").as_str(), pipe, mode, 0).unwrap();
        std::os::unix::fs::symlink("nowhere", path("b.cfg")).unwrap();
        // A pipe into which nobody writes does not stop anybody.
        let all = ["a.cfg", "pipe", "nowhere"].map(|name| see(&path(name)));
        assert!(
            all[0] != all[1] && all[1] != all[2] && all[2] != all[0],
            "{all:?}"
        );
        // What reading says is what looking says.
        let root = dir.path().to_str().unwrap().to_owned();
        let names = ["a.cfg", "pipe", "nowhere", "b.cfg"].map(path);
        let mut seen = Vec::new();
        let errors = read(&[&names[..], &[root]].concat(), true, &mut seen).unwrap_err();
        let pipes = errors.iter().filter(|e| e.contains("a pipe")).count();
        assert_eq!((errors.len(), pipes), (4, 1), "{errors:?}");
        for name in &names {
            let found = seen.iter().find(|f| &f.path == name);
            assert_eq!(found.map(|f| f.content), Some(see(name)), "{name}");
        }
        // Without anything to read, and not a file all the same.
        let (text, content) = contents(Path::new("/dev/null"), true);
        assert_eq!((text.unwrap().len(), content), (0, see("/dev/null")));
    }
}
