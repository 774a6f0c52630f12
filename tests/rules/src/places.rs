//! No committed text knows the machine it was written on, or where its registry is.

use crate::{Findings, Repository};

/// Where packages come from is a setting of the machine. Written apart, so that this file passes.
const HOSTS: [[&str; 2]; 9] = [
    ["index.", "crates.io"],
    ["static.", "crates.io"],
    ["static.", "rust-lang.org"],
    ["registry.", "npmjs.org"],
    ["files.", "pythonhosted.org"],
    ["pypi.", "org"],
    ["proxy.", "golang.org"],
    ["deb.", "debian.org"],
    ["archive.", "ubuntu.com"],
];
/// Absolute folders of one machine.
const FOLDERS: [[&str; 2]; 4] = [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"], ["/tmp/", "lab"]];
/// The one source that a lock file may name: cargo's own name for its default registry, wherever that is mirrored.
const LOCKED_SOURCE: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

/// Lines that name a registry host, a folder of a machine, or a source of packages other than the default one.
pub fn findings(repository: &Repository) -> Findings {
    let texts = repository.files().filter_map(|path| Some((path, repository.text(path)?)));
    texts.flat_map(|(path, text)| in_file(path, &text)).collect()
}

fn in_file(path: &str, text: &str) -> Findings {
    let mut findings = Findings::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut find = |what: &str| findings.push(format!("{path}:{number}: {what}"));
        for host in HOSTS.map(|parts| parts.concat()) {
            if line.contains(&host) {
                find(&format!("names the registry host `{host}`"));
            }
        }
        for folder in FOLDERS.map(|parts| parts.concat()) {
            if stands_alone(line, &folder) {
                find(&format!("names the folder `{folder}` of one machine"));
            }
        }
        if path.ends_with("Cargo.lock") && line.starts_with("source = ") && line != LOCKED_SOURCE {
            find("locks a package from another source than the default registry");
        }
        if path.ends_with(".cargo/config.toml") && ["[source", "[registr"].iter().any(|table| line.starts_with(table)) {
            find("sets a registry: that is the machine's business");
        }
    }
    findings
}

/// As an absolute path, not as the end of a relative one.
fn stands_alone(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-}$*".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_folders_are_found() {
        for parts in HOSTS {
            assert_eq!(in_file("a.md", &format!("see https://{}/x", parts.concat())).len(), 1);
        }
        for parts in FOLDERS {
            assert_eq!(in_file("a.md", &format!("in `{}x`", parts.concat())).len(), 1);
        }
        let relative = format!("target{}x and {{root}}{0}x", FOLDERS[0].concat());
        assert!(in_file("a.md", &relative).is_empty());
    }

    #[test]
    fn another_source_of_packages_is_found() {
        assert!(in_file("Cargo.lock", LOCKED_SOURCE).is_empty());
        assert_eq!(in_file("examples/a/Cargo.lock", "source = \"registry+https://mirror.example.com/index\"").len(), 1);
        assert_eq!(in_file(".cargo/config.toml", "[source.crates-io]").len(), 1);
        assert_eq!(in_file(".cargo/config.toml", "[registries.mirror]").len(), 1);
    }
}
