//! Files that one can read in one go.

use crate::{Findings, Repository};

const FOLDERS: [&str; 6] = ["host", "plugins", "wit", "tests", "examples", "xtask"];
/// Lines of the longest file: what fits in one head.
const LONGEST: usize = 600;
/// Lines of the file in the middle.
const MEDIAN: usize = 150;

/// Rust sources that are too long, and all of them where half are.
pub fn findings(repository: &Repository) -> Findings {
    let lengths = repository.rust(&FOLDERS).map(|(path, text)| (path.to_owned(), text.lines().count()));
    judge(&lengths.collect::<Vec<_>>())
}

fn judge(lengths: &[(String, usize)]) -> Findings {
    let long = lengths.iter().filter(|(_, lines)| *lines > LONGEST);
    let mut findings: Findings =
        long.map(|(path, lines)| format!("{path}: {lines} lines, more than {LONGEST}: split it by idea")).collect();
    let mut lines: Vec<usize> = lengths.iter().map(|(_, lines)| *lines).collect();
    lines.sort_unstable();
    if let Some(median) = lines.get(lines.len() / 2).filter(|median| **median > MEDIAN) {
        findings.push(format!("half of all files are longer than {median} lines, more than {MEDIAN}: split some"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(lines: &[usize]) -> Vec<(String, usize)> {
        lines.iter().map(|lines| ("a.rs".to_owned(), *lines)).collect()
    }

    #[test]
    fn a_long_file_is_found() {
        assert!(judge(&files(&[100, 100, 600])).is_empty());
        assert_eq!(judge(&files(&[100, 100, 601])).len(), 1);
    }

    #[test]
    fn long_files_throughout_are_found() {
        assert!(judge(&files(&[150, 150, 400])).is_empty());
        assert_eq!(judge(&files(&[10, 151, 151])).len(), 1);
    }
}
