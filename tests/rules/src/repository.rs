use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The files of the checkout this crate stands in: what git tracks, and what it would with `git add`.
pub struct Repository {
    root: PathBuf,
    files: Vec<String>,
    tracked: Vec<String>,
}

impl Repository {
    /// Asks git.
    ///
    /// # Errors
    /// No git, or no checkout.
    pub fn here() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        let tracked = git(&root, &["ls-files", "-z"])?;
        let new = git(&root, &["ls-files", "-z", "--others", "--exclude-standard"])?;
        let all: BTreeSet<_> = tracked.iter().chain(&new).cloned().collect();
        let files = all.into_iter().filter(|path| root.join(path).is_file()).collect();
        Ok(Self { root, files, tracked })
    }

    /// Paths relative to the root, sorted, that exist.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    /// Paths relative to the root that git tracks.
    pub fn tracked(&self) -> impl Iterator<Item = &str> {
        self.tracked.iter().map(String::as_str)
    }

    /// Rust sources below the top-level `folders`, with their text.
    pub fn rust(&self, folders: &[&str]) -> impl Iterator<Item = (&str, String)> {
        let below = |path: &&str| folders.iter().any(|folder| path.starts_with(&format!("{folder}/")));
        self.files()
            .filter(|path| path.ends_with(".rs"))
            .filter(below)
            .filter_map(|path| Some((path, self.text(path)?)))
    }

    /// The text of a file; `None` where it is no text.
    pub fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    /// Is there a file or folder of this name?
    pub fn exists(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        path.is_empty() || self.files().any(|file| file == path || file.starts_with(&folder))
    }
}

fn git(root: &Path, arguments: &[&str]) -> Result<Vec<String>> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().context("git cannot be started")?;
    ensure!(output.status.success(), "git: {}", String::from_utf8_lossy(&output.stderr).trim());
    let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}
