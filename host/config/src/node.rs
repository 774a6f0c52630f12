//! YAML text to a tree in which every value knows its line and column. All of it is accepted here, whatever its type: judging is
//! left to the readers, so that one run can report every mistake.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error, Options, Spanned};
use zeroize::Zeroizing;

use crate::key_name;
use crate::mistake::{Mistake, Place};

/// Levels of nesting. The deepest key in use is on the eighth; reading recurses, and unoptimised a level takes about 40 KiB of the
/// 2 MiB that a thread's stack has.
const DEPTH: usize = 24;
/// Values in one file, counted after aliases were resolved. The largest configurations known have a few thousand.
const NODES: usize = 100_000;

/// A value of the file.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// From 1, in characters for the column.
    pub(crate) line: u64,
    pub(crate) column: u64,
}

/// What YAML makes of a value. Unquoted numbers and truth values keep their spelling: `token: 0123` is a token.
#[derive(Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool, String),
    Number(serde_json::Number, String),
    Text(Zeroizing<String>),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key and where it stands.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) line: u64,
    pub(crate) column: u64,
}

/// Reads the first document of `text`. Beside the tree, whether others follow, which are not used (surface §B.1).
///
/// # Errors
/// The one place at which the text stops being YAML. Its message quotes nothing of the file but a key given twice.
pub(crate) fn parse(file: &Path, text: &str) -> Result<(Node, bool), Mistake> {
    let mut first = None;
    let result = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |deserializer| {
        first = Some(Spanned::<Shape>::deserialize(deserializer)?);
        Ok(())
    });
    match (result, first) {
        (Ok(()), Some(raw)) => Ok((node(raw, text), false)),
        (Err(Error::MultipleDocuments { .. }), Some(raw)) => Ok((node(raw, text), true)),
        (Err(error), _) => Err(mistake(file, &error)),
        (Ok(()), None) => Err(Place::file(file).mistake("failed parsing config file: the file is empty")),
    }
}

fn options() -> Options {
    let mut options = Options::default();
    if let Some(budget) = &mut options.budget {
        budget.max_depth = DEPTH;
        budget.max_nodes = NODES;
        budget.max_recorded_anchor_events = NODES;
    }
    options.alias_limits.max_total_replayed_events = NODES;
    // `yes` and `on` are words; where a truth value is wanted, the readers know them.
    options.strict_booleans = true;
    options.non_finite_float_policy = serde_saphyr::NonFiniteFloatPolicy::AsString;
    options.with_snippet = false;
    options
}

fn mistake(file: &Path, error: &Error) -> Mistake {
    let mut cause = error.without_snippet();
    while let Error::AliasError { error, .. } = cause {
        cause = error.without_snippet();
    }
    let what = match cause {
        Error::Budget { breach: serde_saphyr::budget::BudgetBreach::Depth { .. }, .. } => {
            format!("more than {DEPTH} levels of nesting")
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. } => {
            format!("more than {NODES} values, counting those that aliases (`*name`) repeat")
        }
        Error::DuplicateMappingKey { key, .. } => match key {
            Some(key) => format!("key `{}` is given twice: remove one of the two", key_name(key)),
            None => "a key is given twice: remove one of the two".to_owned(),
        },
        Error::UnknownAnchor { .. } => {
            "alias (`*name`) of an anchor that is not defined above: put text that begins with `*` in quotes".to_owned()
        }
        Error::Eof { .. } => "EOF: the file is empty".to_owned(),
        Error::ExternalMessage { msg, .. } => {
            format!("not YAML: {}: check indentation, quotes and brackets here and on the line above", single_line(msg))
        }
        _ => "not YAML that a configuration can use: check indentation, quotes, tags and brackets here".to_owned(),
    };
    let location = error.location();
    let (line, column) = location.map_or((0, 0), |at| (at.line(), at.column()));
    Place { line, column, ..Place::file(file) }.mistake(format!("failed parsing config file: {what}"))
}

fn single_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What serde sees, before spellings are looked up in the text.
enum Shape {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(Zeroizing<String>),
    List(Vec<Spanned<Shape>>),
    Map(Vec<(Spanned<String>, Spanned<Shape>)>),
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Shape, E> {
        Ok(Shape::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Shape, E> {
        Ok(Shape::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Shape, E> {
        Ok(Shape::Number(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Shape, E> {
        Ok(Shape::Text(Zeroizing::new(value.to_string())))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Shape, E> {
        Ok(Shape::Text(Zeroizing::new(value.to_string())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Shape, E> {
        Ok(match serde_json::Number::from_f64(value) {
            Some(number) => Shape::Number(number),
            None => Shape::Text(Zeroizing::new(value.to_string())),
        })
    }

    fn visit_str<E>(self, value: &str) -> Result<Shape, E> {
        Ok(Shape::Text(Zeroizing::new(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Shape, E> {
        Ok(Shape::Text(Zeroizing::new(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            entries.push(entry);
        }
        Ok(Shape::List(entries))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Shape::Map(entries))
    }
}

fn node(raw: Spanned<Shape>, text: &str) -> Node {
    let spelling = || {
        let span = raw.defined.span();
        let start = usize::try_from(span.byte_offset()?).ok()?;
        let length = usize::try_from(span.byte_len()?).ok()?;
        let spelled = text.get(start..start.checked_add(length)?)?.trim();
        // What a tag made a number of may be quoted.
        (!spelled.starts_with(['"', '\''])).then(|| spelled.to_owned())
    };
    let value = match raw.value {
        Shape::Null => Value::Null,
        Shape::Bool(value) => Value::Bool(value, spelling().unwrap_or_else(|| value.to_string())),
        Shape::Number(number) => {
            let text = spelling().unwrap_or_else(|| number.to_string());
            Value::Number(number, text)
        }
        Shape::Text(text) => Value::Text(text),
        Shape::List(entries) => Value::List(entries.into_iter().map(|entry| node(entry, text)).collect()),
        Shape::Map(entries) => {
            let key = |key: Spanned<String>| Key {
                name: key.value,
                line: key.referenced.line(),
                column: key.referenced.column(),
            };
            Value::Map(entries.into_iter().map(|(name, entry)| (key(name), node(entry, text))).collect())
        }
    };
    Node { value, line: raw.referenced.line(), column: raw.referenced.column() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str) -> Node {
        parse(Path::new("t.yaml"), text).unwrap_or_else(|e| panic!("{e}")).0
    }

    fn refused(text: &str) -> String {
        parse(Path::new("t.yaml"), text).err().expect("must be refused").to_string()
    }

    fn entry(node: &Node, index: usize) -> (&Key, &Node) {
        let Value::Map(entries) = &node.value else { panic!("no map") };
        (&entries[index].0, &entries[index].1)
    }

    #[test]
    fn keys_and_values_know_their_places() {
        let root = first("a: 1\nb:\n  - x\n  - c: y\n");
        let (key, list) = entry(&root, 1);
        assert_eq!((key.name.as_str(), key.line, key.column), ("b", 2, 1));
        let Value::List(entries) = &list.value else { panic!("no list") };
        assert_eq!((entries[0].line, entries[0].column), (3, 5));
        let (key, value) = entry(&entries[1], 0);
        assert_eq!((key.line, key.column, value.line, value.column), (4, 5, 4, 8));
    }

    #[test]
    fn unquoted_numbers_keep_their_spelling() {
        let text = "a: 00000000000000000000000000000000\nb: 1e3\nc: True\nd: 12345678901234567890123456789012\ne: 0x1f # c\nf: .inf\ng: on\n";
        let root = first(text);
        let spellings: Vec<String> = (0..7)
            .map(|index| match &entry(&root, index).1.value {
                Value::Number(_, text) | Value::Bool(_, text) => text.clone(),
                Value::Text(text) => text.to_string(),
                _ => panic!("no scalar"),
            })
            .collect();
        let wanted = [
            "00000000000000000000000000000000",
            "1e3",
            "True",
            "12345678901234567890123456789012",
            "0x1f",
            ".inf",
            "on",
        ];
        assert_eq!(spellings, wanted);
    }

    #[test]
    fn an_alias_points_to_where_it_is_used_and_merges_work() {
        let root = first("a: &x {p: 007}\nb: *x\nc:\n  <<: *x\n  q: 2\n");
        let (_, used) = entry(&root, 1);
        assert_eq!(used.line, 2);
        let Value::Number(_, text) = &entry(used, 0).1.value else { panic!("no number") };
        assert_eq!(text, "007");
        let Value::Map(merged) = &entry(&root, 2).1.value else { panic!("no map") };
        assert_eq!(merged.len(), 2);
    }

    #[test]
    fn only_the_first_document_counts() {
        let (root, more) = parse(Path::new("t"), "a: 1\n---\nb: 2\n").unwrap_or_else(|e| panic!("{e}"));
        assert!(more);
        assert_eq!(entry(&root, 0).0.name, "a");
        assert!(!parse(Path::new("t"), "---\na: 1\n").unwrap_or_else(|e| panic!("{e}")).1);
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_place_and_without_its_text() {
        for (text, wanted) in [
            ("a: 1\nb:\n\t- secret\n", "t.yaml:3:"),
            ("a: 1\nb: [secret\n", "t.yaml:"),
            ("a: 1\nb: 2\na: secret\n", "t.yaml:3:1: failed parsing config file: key `a` is given twice"),
            ("a: *secret\n", "anchor that is not defined"),
            ("a: secret: b\n", "t.yaml:1:"),
            ("a: \"secret\n", "t.yaml:"),
            ("a: !!binary secret!\n", "t.yaml:1:"),
            ("a: !!int secret\n", "t.yaml:1:"),
            ("? [secret]\n: b\n", "t.yaml:1:"),
        ] {
            let message = refused(text);
            assert!(message.contains(wanted), "{text:?}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let below = format!("*a{}, ", level - 1).repeat(10);
            bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        assert!(refused(&bomb).contains("more than 100000 values"), "{}", refused(&bomb));
        // Each alias is one level deeper than the one before, while the text is flat.
        for length in [30, 100, 1_000] {
            let mut chain = "a0: &a0 [x]\n".to_owned();
            for level in 1..length {
                chain.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
            }
            assert!(refused(&chain).contains("levels of nesting"), "{length}: {}", refused(&chain));
        }
        let wide = format!("a: [{}]", "1, ".repeat(200_000));
        assert!(refused(&wide).contains("more than 100000 values"));
        for deep in [format!("{}1", "a: {".repeat(5_000)), "[".repeat(100_000), "- ".repeat(50_000)] {
            let message = refused(&deep);
            assert!(message.contains("levels of nesting") || message.contains("not YAML"), "{message}");
        }
    }
}
