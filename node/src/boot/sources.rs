//! Configuration files, and what they refer to: other files, host names, the environment.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use remora_config::{Loader, Source};
use twox_hash::XxHash64;

use crate::handoff::frames::SeenFile;

/// Reads the files named by `-f`; of a directory its visible `*.cfg` in byte order. `seen` gets all of them, and directories.
///
/// # Errors
/// Every name that cannot be read, as a message each.
pub(super) fn read(names: &[String], seen: &mut Vec<SeenFile>) -> Result<Vec<Source>, Vec<String>> {
    let mut sources = Vec::new();
    let mut errors = Vec::new();
    for name in names {
        if Path::new(name).is_dir() {
            seen.extend(seen_file(name, see(name)));
        }
        let files = match expand(name) {
            Ok(files) => files,
            Err(e) => {
                errors.push(format!(
                    "Cannot open configuration file/directory {name} : {}",
                    reason(&e)
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
            let text = fs::read(&file);
            seen.extend(seen_file(&file, hash(text.as_deref().ok())));
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

/// What tells the content of a file, or the configuration files of a directory, from another one; 0 for nothing.
pub(crate) fn see(path: &str) -> u64 {
    if Path::new(path).is_dir() {
        // Names without their directory: it may have been named in another way before.
        let names = expand(path).ok().map(|files| {
            let names = files.iter().filter_map(|file| Path::new(file).file_name());
            names.map(OsStr::as_bytes).collect::<Vec<_>>().join(&b'\n')
        });
        return hash(names.as_deref());
    }
    hash(fs::read(path).ok().as_deref())
}

fn hash(content: Option<&[u8]>) -> u64 {
    content.map_or(0, |bytes| XxHash64::oneshot(0, bytes).max(1))
}

/// The name itself, or the configuration files of the directory of that name.
fn expand(name: &str) -> io::Result<Vec<String>> {
    if !fs::metadata(name)?.is_dir() {
        return Ok(vec![name.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(name)? {
        let entry = entry?;
        let file = entry.file_name();
        let bytes = file.as_bytes();
        if bytes.starts_with(b".") || !bytes.ends_with(b".cfg") {
            continue;
        }
        if !fs::metadata(entry.path())?.is_file() {
            continue;
        }
        let file = file.into_string().map_err(|bad| {
            io::Error::other(format!("the file name {bad:?} in it is not valid UTF-8"))
        })?;
        files.push(Path::new(name).join(file).to_string_lossy().into_owned());
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
    /// Files that were asked for, whether they are there or not.
    pub(super) files: Vec<SeenFile>,
}

impl Loader for System {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        let content = fs::read(path);
        self.files
            .extend(seen_file(path, hash(content.as_deref().ok())));
        content.map_err(|e| reason(&e))
    }

    fn read_renewed(&mut self, path: &str) -> Result<Vec<u8>, String> {
        // While it is not there, the configuration cannot be used: then its coming is a change.
        fs::read(path).map_err(|e| {
            self.files.extend(seen_file(path, hash(None)));
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
        let got = read(&[dir.path().to_str().unwrap().to_owned()], &mut Vec::new()).unwrap();
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
        read(&[relative.to_owned()], &mut files).unwrap();
        assert!(files.iter().any(|f| f.content == seen));
        fs::write(dir.path().join("b.cfg"), "").unwrap();
        assert_ne!(see(relative), seen);
    }

    #[test]
    fn a_directory_without_configuration_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.conf"), "").unwrap();
        let name = dir.path().to_str().unwrap().to_owned();
        let errors = read(std::slice::from_ref(&name), &mut Vec::new()).unwrap_err();
        assert!(errors.len() == 1 && errors[0].contains(&name), "{errors:?}");
    }

    #[test]
    fn a_missing_file_is_named() {
        assert_eq!(
            read(&["/nonexist".into()], &mut Vec::new()).unwrap_err(),
            ["Cannot open configuration file/directory /nonexist : No such file or directory"]
        );
    }
}
