//! `unsafe` has one room.

use std::str::FromStr;

use proc_macro2::{TokenStream, TokenTree};

use crate::{Findings, Repository};

const FOLDERS: [&str; 5] = ["host", "plugins", "tests", "examples", "xtask"];
/// wasmtime's loading of precompiled code is `unsafe`: it stays where the code is known to be our own.
const ROOM: &str = "host/sandbox/";

/// The keyword `unsafe` outside the sandbox, in macros and attributes too; comments and strings may say it.
pub fn findings(repository: &Repository) -> Findings {
    let outside = repository.rust(&FOLDERS).filter(|(path, _)| !path.starts_with(ROOM));
    outside.flat_map(|(path, text)| in_file(path, &text)).collect()
}

fn in_file(path: &str, text: &str) -> Findings {
    match TokenStream::from_str(text) {
        Ok(tokens) => {
            let mut lines = Vec::new();
            collect(tokens, &mut lines);
            lines.into_iter().map(|line| format!("{path}:{line}: `unsafe` outside `{ROOM}`")).collect()
        }
        Err(e) => vec![format!("{path}: {e}")],
    }
}

fn collect(tokens: TokenStream, lines: &mut Vec<usize>) {
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if ident == "unsafe" => lines.push(ident.span().start().line),
            TokenTree::Group(group) => collect(group.stream(), lines),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keyword_is_found_and_the_word_is_not() {
        let bad = "fn a() {\n    let x = unsafe { b() };\n}\n#[unsafe(no_mangle)]\nfn c() {}\nmacro_rules! m { () => { unsafe {} } }";
        let found = in_file("a.rs", bad);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("a.rs:2: "));
        assert!(in_file("a.rs", "// unsafe\n#![deny(unsafe_code)]\nconst A: &str = \"unsafe\";").is_empty());
    }
}
