//! As much Markdown as the link rule needs.

/// Targets of inline links, images and reference definitions, with their lines; code is skipped.
pub(crate) fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code(line);
        for (at, _) in line.match_indices("](") {
            let target = line[at + 2..].split(')').next().unwrap_or_default();
            let target = target.split_whitespace().next().unwrap_or_default();
            links.push((number, target.trim_matches(['<', '>']).to_owned()));
        }
        let definition = line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        if let Some((_, target)) = definition {
            links.push((number, target.split_whitespace().next().unwrap_or_default().to_owned()));
        }
    }
    links
}

/// The anchors that headings get: lower case, spaces to hyphens, punctuation gone.
pub(crate) fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len() && title.starts_with(' ')).then(|| title.trim())
    });
    headings
        .map(|title| {
            let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// The lines outside fenced code, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_no_link() {
        let text = "[a](b.md) and `[c](d.md)` ![e](f.png \"title\")\n```\n[g](h.md)\n```\n[i]: j.md\n";
        let found: Vec<_> = links(text);
        assert_eq!(found, [(1, "b.md".to_owned()), (1, "f.png".to_owned()), (5, "j.md".to_owned())]);
    }

    #[test]
    fn headings_have_anchors() {
        assert_eq!(anchors("# Where do I change …?\n```\n# no\n```\n## `a` b\n#no"), ["where-do-i-change-", "a-b"]);
    }
}
