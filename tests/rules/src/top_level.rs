//! The top level tells what there is: nothing else gathers there.

use std::collections::BTreeSet;

use crate::{Findings, Repository};

const ENTRIES: [&str; 16] = [
    ".cargo",
    ".ci",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "examples",
    "host",
    "plugins",
    "rustfmt.toml",
    "tests",
    "wit",
    "xtask",
];

/// Tracked entries that are not on the list, and listed ones that are absent.
pub fn findings(repository: &Repository) -> Findings {
    let tracked = repository.tracked().filter_map(|path| path.split('/').next()).collect();
    judge(&tracked, |entry| repository.exists(entry))
}

fn judge(tracked: &BTreeSet<&str>, exists: impl Fn(&str) -> bool) -> Findings {
    let alien = tracked.iter().filter(|entry| !ENTRIES.contains(entry));
    let alien = alien.map(|entry| format!("{entry}: does not belong on the top level: move it into a room"));
    let absent = ENTRIES.iter().filter(|entry| !exists(entry)).map(|entry| format!("{entry}: is missing"));
    alien.chain(absent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_and_less_are_found() {
        let all: BTreeSet<&str> = ENTRIES.into_iter().collect();
        assert!(judge(&all, |_| true).is_empty());
        let with_notes = all.iter().copied().chain(["notes.txt"]).collect();
        assert!(judge(&with_notes, |_| true)[0].starts_with("notes.txt: does not belong"));
        assert_eq!(judge(&all, |entry| entry != "LICENSE"), ["LICENSE: is missing"]);
    }
}
