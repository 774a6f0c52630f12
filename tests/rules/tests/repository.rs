//! The rules, applied to this repository.

use tests_rules::{Findings, Repository, arrows, docs, length, links, places, top_level, unsafety};

fn assert_none(rule: impl Fn(&Repository) -> Findings) {
    let findings = rule(&Repository::here().unwrap());
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn arrows_point_where_the_architecture_allows() {
    assert_none(arrows::findings);
}

#[test]
fn public_items_are_documented() {
    assert_none(docs::findings);
}

#[test]
fn files_are_short() {
    assert_none(length::findings);
}

#[test]
fn links_lead_somewhere() {
    assert_none(links::findings);
}

#[test]
fn no_text_names_a_registry_or_a_machine() {
    assert_none(places::findings);
}

#[test]
fn the_top_level_is_complete_and_nothing_else() {
    assert_none(top_level::findings);
}

#[test]
fn unsafe_stays_in_the_sandbox() {
    assert_none(unsafety::findings);
}

/// Every rule above looks at files: an empty listing would let all of them pass.
#[test]
fn the_repository_is_really_read() {
    let repository = Repository::here().unwrap();
    assert!(repository.exists("tests/rules/tests/repository.rs"));
    assert!(repository.rust(&["host"]).count() > 20);
}
