//! Limits on open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The most descriptors this process can have: the hard limit, below [`FILES_MAX`].
pub(super) fn files_available() -> u64 {
    getrlimit(Resource::Nofile)
        .maximum
        .unwrap_or(FILES_MAX)
        .min(FILES_MAX)
}

/// Raises the soft limit (and, where permitted, the hard one) so that `maxconn` connections with one to a server each
/// fit beside `others` descriptors. A warning when they do not.
pub(super) fn raise(maxconn: u32, others: u64, wanted: Option<u64>) -> Result<(), String> {
    let needed = wanted.unwrap_or_else(|| u64::from(maxconn) * 2 + others);
    let limit = getrlimit(Resource::Nofile);
    let set = |current: u64, maximum: Option<u64>| {
        let new = Rlimit {
            current: Some(current),
            maximum,
        };
        setrlimit(Resource::Nofile, new).is_ok()
    };
    if limit.current.is_none_or(|now| now >= needed) {
        return Ok(());
    }
    if limit.maximum.is_none_or(|max| max >= needed) {
        if set(needed, limit.maximum) {
            return Ok(());
        }
    } else if set(needed, Some(needed)) {
        return Ok(());
    }
    let hard = limit.maximum.unwrap_or(0);
    set(hard, limit.maximum);
    Err(format!(
        "FD limit ({hard}) too low for maxconn={maxconn}/maxsock={needed}. Please raise 'ulimit-n' to {needed} or \
         more to avoid any trouble."
    ))
}

/// Raises the soft limit as far as may be: a supervisor holds what two workers listen on while one replaces the other, and each
/// worker has its limit until it has read how many it needs.
pub(super) fn raise_to_hard() {
    let limit = getrlimit(Resource::Nofile);
    let most = files_available();
    if limit.current.is_some_and(|now| now < most) {
        let new = Rlimit {
            current: Some(most),
            maximum: limit.maximum,
        };
        // Whoever may not do so finds out when the descriptors are scarce, and is told then.
        let _ = setrlimit(Resource::Nofile, new);
    }
}

/// Whether there are as many descriptors as it takes to listen.
///
/// # Errors
/// There are fewer; the text says how many.
pub(super) fn enough(needed: u64) -> Result<(), String> {
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < needed => Err(format!(
            "FD limit ({limit}) too low to listen: at least {needed} are needed, and some for each connection. Please raise \
             'ulimit -n'."
        )),
        _ => Ok(()),
    }
}

/// HAProxy's `fd-hard-limit` default: containers often have a hard limit of thousands of millions.
const FILES_MAX: u64 = 1_048_576;
