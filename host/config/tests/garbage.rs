//! Whatever the file: an answer, no panic, and no more memory or time than a large configuration takes.

use std::path::Path;

use config::{Flags, migrate, parse};
use proptest::prelude::*;

const SEEDS: [&str; 4] = [
    include_str!("../../../tests/recordings/v12/runs/seed-database/tbot.yaml"),
    include_str!("../../../tests/recordings/v15/cli/migrate/ssh-host/in.yaml"),
    include_str!("../../../tests/recordings/v15/cli/migrate/identity-cluster-roles/stdout"),
    include_str!("../../../examples/configs/services.yaml"),
];
const PIECES: [&str; 28] = [
    "- ",
    "[",
    "]",
    "{",
    "}",
    ": ",
    "\n",
    "  ",
    "\t",
    "*a ",
    "&a ",
    "<<: *a",
    "!!binary ",
    "!x ",
    "|\n",
    ">-\n",
    "'",
    "\"",
    "#",
    "---\n",
    "...\n",
    "? ",
    "%YAML 1.1\n",
    "\u{feff}",
    "\u{0}",
    "é",
    "1e999",
    "tbot+proxy+token://a:b@c:1",
];

/// Reads and migrates `bytes`; what was migrated is of the newest schema.
fn answers(bytes: &[u8]) {
    let path = Path::new("t.yaml");
    if let Err(mistakes) = parse(Some((path, bytes)), &Flags::default(), &|_| None) {
        assert!(!mistakes.0.is_empty());
    }
    match migrate(path, bytes) {
        Ok(migrated) => {
            let again = migrate(path, migrated.yaml.as_bytes()).err().map(|refused| refused.to_string());
            assert_eq!(again.as_deref(), Some("configuration already the latest version. nothing to migrate."));
        }
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
}

fn edited() -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<proptest::sample::Index>(), any::<proptest::sample::Index>(), 0..4_u8, 0..PIECES.len());
    (0..SEEDS.len(), proptest::collection::vec(edit, 1..12)).prop_map(|(seed, edits)| {
        let mut lines: Vec<String> = SEEDS[seed].lines().map(str::to_owned).collect();
        for (first, second, what, piece) in edits {
            let (a, b) = (first.index(lines.len()), second.index(lines.len()));
            match what {
                0 => lines.swap(a, b),
                1 => lines[a] = format!("{}{}", lines[b], PIECES[piece]),
                2 => lines[a].insert_str(0, PIECES[piece]),
                _ => {
                    let at = lines[a].char_indices().nth(b).map_or(lines[a].len(), |(at, _)| at);
                    lines[a].insert_str(at, PIECES[piece]);
                }
            }
        }
        lines.join("\n").into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn edited_files(bytes in edited()) {
        answers(&bytes);
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        answers(&bytes);
    }

    #[test]
    fn pieces_of_yaml(pieces in proptest::collection::vec(0..PIECES.len(), 0..60)) {
        let text: String = pieces.into_iter().map(|piece| PIECES[piece]).collect();
        answers(text.as_bytes());
    }
}

#[test]
fn bombs_depth_and_size_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", format!("*a{}, ", level - 1).repeat(10)));
    }
    let destinations = |value: &str| format!("destinations: {value}\n");
    for text in [
        bomb,
        destinations(&"[".repeat(100_000)),
        destinations(&format!("{}1", "{a: ".repeat(100_000))),
        destinations(&format!("[{}]", "{directory: /a}, ".repeat(60_000))),
        "a".repeat(10 << 20),
        "- ".repeat(5 << 20),
        "a: b\n".repeat(2 << 20),
    ] {
        let path = Path::new("t.yaml");
        assert!(parse(Some((path, text.as_bytes())), &Flags::default(), &|_| None).is_err());
        assert!(migrate(path, text.as_bytes()).is_err());
    }
}
