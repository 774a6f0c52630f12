//! A link leads somewhere.

use crate::{Findings, Repository, markdown};

/// Relative links of Markdown files to what is not in the repository, or to a heading that is not there.
pub fn findings(repository: &Repository) -> Findings {
    let documents = repository.files().filter(|path| path.ends_with(".md"));
    documents
        .filter_map(|path| Some((path, repository.text(path)?)))
        .flat_map(|(path, text)| in_file(path, &text, |path| repository.exists(path), |path| repository.text(path)))
        .collect()
}

fn in_file(path: &str, text: &str, exists: impl Fn(&str) -> bool, read: impl Fn(&str) -> Option<String>) -> Findings {
    let mut findings = Findings::new();
    for (line, link) in markdown::links(text) {
        if ["http://", "https://", "mailto:"].iter().any(|scheme| link.starts_with(scheme)) {
            continue;
        }
        let (target, anchor) = link.split_once('#').unwrap_or((&link, ""));
        let target = if target.is_empty() { Some(path.to_owned()) } else { resolve(path, target) };
        let Some(target) = target.filter(|target| exists(target)) else {
            findings.push(format!("{path}:{line}: the link `{link}` leads nowhere"));
            continue;
        };
        let known = || read(&target).is_some_and(|text| markdown::anchors(&text).iter().any(|known| known == anchor));
        if target.ends_with(".md") && !anchor.is_empty() && !known() {
            findings.push(format!("{path}:{line}: `{target}` has no heading `#{anchor}`"));
        }
    }
    findings
}

/// `target` as seen from the document at `path`, relative to the root; `None` outside it.
fn resolve(path: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(text: &str) -> Findings {
        let files = ["README.md", "host/README.md", "host/a.rs"];
        let exists =
            |path: &str| path.is_empty() || files.iter().any(|f| *f == path || f.starts_with(&format!("{path}/")));
        in_file("host/README.md", text, exists, |_| Some("# One thing".to_owned()))
    }

    #[test]
    fn dead_links_are_found() {
        assert!(
            judge("[a](a.rs) [b](../README.md#one-thing) [c](..) [d](#one-thing) [e](https://example.com)").is_empty()
        );
        for dead in
            ["[a](b.rs)", "[a](/a.rs)", "[a](../../x)", "[a](../README.md#other)", "[a](#other)", "[a]: gone.md"]
        {
            assert_eq!(judge(dead).len(), 1, "{dead}");
        }
    }
}
