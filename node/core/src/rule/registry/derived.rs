//! ACL spellings: `path_beg` is `path` with the method `beg`, and so on for eight fetches and seven suffixes.

use super::FetchInfo;
use crate::rule::cond::MatchMethod;

/// Fetches that have ACL spellings. In ACLs their plain name compares whole strings.
const BASES: [&str; 8] = [
    "base", "cook", "hdr", "path", "scook", "shdr", "url", "urlp",
];

const SUFFIXES: [(&str, MatchMethod); 7] = [
    ("_beg", MatchMethod::Beg),
    ("_dir", MatchMethod::Dir),
    ("_dom", MatchMethod::Dom),
    ("_end", MatchMethod::End),
    ("_len", MatchMethod::Len),
    ("_reg", MatchMethod::Reg),
    ("_sub", MatchMethod::Sub),
];

/// Gives the plain names their method and returns the rows with suffixes.
pub(super) fn rows(plain: &mut [FetchInfo]) -> Vec<FetchInfo> {
    let mut rows = Vec::with_capacity(BASES.len() * SUFFIXES.len());
    for base in plain.iter_mut().filter(|row| BASES.contains(&row.name)) {
        base.acl_match = Some(MatchMethod::Str);
        for (suffix, method) in SUFFIXES {
            rows.push(FetchInfo {
                // Built once per process and kept for its life, like the literal names.
                name: String::leak(format!("{}{suffix}", base.name)),
                acl_match: Some(method),
                acl_only: true,
                ..*base
            });
        }
    }
    rows
}
