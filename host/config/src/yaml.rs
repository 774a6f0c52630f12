//! Plain values as YAML in the style of the original's files: block style, two blanks, lists indented, quotes exactly where it has them.
//! `tbot migrate` and `tbot configure` promise its bytes; the crate that reads YAML quotes more, and otherwise.

use serde_json::{Map, Value};

/// Words that stand for something else than text where they are not quoted: for readers of YAML 1.2, or of 1.1 (the second row).
const WORDS: [&[&str]; 2] = [
    &["true", "True", "TRUE", "false", "False", "FALSE", "null", "Null", "NULL", "~"],
    &["y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "n", "N", "no", "No", "NO", "off", "Off", "OFF"],
];

/// A map as a file.
pub(crate) fn file(root: &Map<String, Value>) -> String {
    let mut out = String::new();
    map(root, 0, &mut out);
    out
}

/// The entries of a map, each on lines of its own. The first one's indentation is already there.
fn map(entries: &Map<String, Value>, indent: usize, out: &mut String) {
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 {
            blanks(indent, out);
        }
        out.push_str(&if key.contains('\n') { double_quoted(key) } else { scalar(key, indent) });
        out.push(':');
        let below = match value {
            Value::Object(entries) => !entries.is_empty(),
            Value::Array(entries) => !entries.is_empty(),
            _ => false,
        };
        if below {
            out.push('\n');
            blanks(indent + 2, out);
        } else {
            out.push(' ');
        }
        node(value, indent + 2, out);
    }
}

/// A value whose first line stands at `indent`, which is already there.
fn node(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(entries) if !entries.is_empty() => return map(entries, indent, out),
        Value::Array(entries) if !entries.is_empty() => {
            for (index, entry) in entries.iter().enumerate() {
                if index > 0 {
                    blanks(indent, out);
                }
                out.push_str("- ");
                node(entry, indent + 2, out);
            }
            return;
        }
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        Value::String(text) => out.push_str(&scalar(text, indent)),
        other => out.push_str(&other.to_string()),
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
}

fn blanks(count: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', count));
}

/// A text with the quotes that it needs; one of several lines as a block at `indent`.
fn scalar(text: &str, indent: usize) -> String {
    let blank_before_break = text.ends_with(' ') || text.contains(" \n");
    if text.chars().any(|c| !printable(c) && !matches!(c, '\t' | '\n')) {
        double_quoted(text)
    } else if text.contains('\n') {
        // A block would lose a break at its beginning, and blanks before one.
        if text.starts_with('\n') || blank_before_break { double_quoted(text) } else { block(text, indent) }
    } else if text.contains('\t') || !is_text(text) {
        double_quoted(text)
    } else if is_plain(text) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// A text of several lines as it is, and in the first line how many breaks it ends with.
fn block(text: &str, indent: usize) -> String {
    let hint = if text.starts_with(' ') { "2" } else { "" };
    let end = match text.strip_suffix('\n') {
        None => "-",
        Some(rest) if rest.ends_with('\n') => "+",
        Some(_) => "",
    };
    let mut out = format!("|{hint}{end}\n");
    for line in text.split_inclusive('\n') {
        if line != "\n" {
            blanks(indent, &mut out);
        }
        out.push_str(line);
    }
    out
}

fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\0' => out.push_str("\\0"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\x1b' => out.push_str("\\e"),
            '\u{85}' => out.push_str("\\N"),
            '\u{2028}' => out.push_str("\\L"),
            '\u{2029}' => out.push_str("\\P"),
            c if printable(c) => out.push(c),
            c if u32::from(c) <= 0xff => out.push_str(&format!("\\x{:02X}", u32::from(c))),
            c if u32::from(c) <= 0xffff => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// What the original writes as it is within a line: no controls, no line ends, nothing from outside the first 65,536.
fn printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a0}'..='\u{fffd}') && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// Does nothing in it have a meaning of its own to YAML?
fn is_plain(text: &str) -> bool {
    let blank_or_end = |at: usize| matches!(text.as_bytes().get(at), None | Some(b' '));
    let first = text.as_bytes().first().copied().unwrap_or_default();
    let indicator = match first {
        b'?' | b':' | b'-' => blank_or_end(1),
        first => b"#,[]{}&*!|>'\"%@` ".contains(&first),
    };
    let marker = text.starts_with("---") || text.starts_with("...");
    let within = |(at, _): (usize, &str)| blank_or_end(at + 1);
    !indicator && !marker && !text.ends_with(' ') && !text.contains(" #") && !text.match_indices(':').any(within)
}

/// Is it text for every reader where it is not quoted: no number, truth value, date or nothing?
fn is_text(text: &str) -> bool {
    if text.is_empty() || WORDS.iter().any(|words| words.contains(&text)) {
        return false;
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if ["inf", "Inf", "INF"].iter().any(|word| unsigned.strip_prefix('.') == Some(word))
        || [".nan", ".NaN", ".NAN"].contains(&text)
    {
        return false;
    }
    let number =
        unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') && is_number(&unsigned.replace('_', ""));
    !number && !is_base_60(unsigned) && !is_date(text)
}

/// A number of YAML 1.1 or 1.2, without sign and underscores: `12`, `0x1f`, `0o17`, `0b11`, `1.5`, `.5`, `1e3`.
fn is_number(text: &str) -> bool {
    let radix = |prefix: [&str; 2], radix| {
        let digits = prefix.iter().find_map(|prefix| text.strip_prefix(prefix));
        digits.is_some_and(|digits| !digits.starts_with('+') && u64::from_str_radix(digits, radix).is_ok())
    };
    let decimal = text.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'.' | b'e' | b'E' | b'+' | b'-'));
    // Larger than any number is none.
    (decimal && text.parse::<f64>().is_ok_and(f64::is_finite))
        || radix(["0x", "0X"], 16)
        || radix(["0o", "0O"], 8)
        || radix(["0b", "0B"], 2)
}

/// Minutes and seconds of YAML 1.1, such as `1:30`.
fn is_base_60(text: &str) -> bool {
    let mut parts = text.split(':');
    let first = parts.next().unwrap_or_default();
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit() || c == b'_');
    let sixty = |part: &str| {
        let part = part.split('.').next().unwrap_or_default();
        digits(part) && part.len() <= 2 && (part.len() == 1 || part.as_bytes()[0] < b'6')
    };
    let rest: Vec<&str> = parts.collect();
    first.starts_with(|c: char| c.is_ascii_digit()) && digits(first) && !rest.is_empty() && rest.into_iter().all(sixty)
}

/// A date, alone or with a time behind it.
fn is_date(text: &str) -> bool {
    let (date, time) = text.split_at(text.find(['T', 't', ' ']).unwrap_or(text.len()));
    let parts: Vec<&str> = date.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    let within = |part: &str, most: u8| {
        (1..=2).contains(&part.len()) && part.parse::<u8>().is_ok_and(|number| (1..=most).contains(&number))
    };
    let clock = |c: char| c.is_ascii_digit() || matches!(c, ':' | '.' | '+' | '-' | 'Z');
    year.len() == 4
        && year.bytes().all(|c| c.is_ascii_digit())
        && within(month, 12)
        && within(day, 31)
        && (time.is_empty() || (time.contains(':') && time.chars().skip(1).all(clock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the original printed them.
    #[test]
    fn quotes_are_where_the_original_has_them() {
        for (text, printed) in [
            ("127.0.0.1:3025", "127.0.0.1:3025"),
            ("/opt/machine-id", "/opt/machine-id"),
            ("sha256:abc", "sha256:abc"),
            (".", "."),
            ("=", "="),
            ("<<", "<<"),
            ("a,b", "a,b"),
            ("it's", "it's"),
            ("a\\b", "a\\b"),
            ("a\"b", "a\"b"),
            ("-x", "-x"),
            ("?x", "?x"),
            ("héllo", "héllo"),
            ("1e400", "1e400"),
            ("0x1g", "0x1g"),
            ("1.2.3", "1.2.3"),
            ("2024-13-01", "2024-13-01"),
            ("", "\"\""),
            ("yes", "\"yes\""),
            ("n", "\"n\""),
            ("True", "\"True\""),
            ("~", "\"~\""),
            ("0123", "\"0123\""),
            ("00000000000000000000000000000000", "\"00000000000000000000000000000000\""),
            ("08", "\"08\""),
            ("0x1F", "\"0x1F\""),
            ("1_000", "\"1_000\""),
            ("1e3", "\"1e3\""),
            ("1.", "\"1.\""),
            (".5", "\".5\""),
            ("+5", "\"+5\""),
            ("-.inf", "\"-.inf\""),
            (".NaN", "\".NaN\""),
            ("1:30", "\"1:30\""),
            ("2024-01-01", "\"2024-01-01\""),
            ("2024-01-01T00:00:00Z", "\"2024-01-01T00:00:00Z\""),
            ("2024-01-01 10:00:00", "\"2024-01-01 10:00:00\""),
            ("&a", "'&a'"),
            ("@x", "'@x'"),
            ("`a`", "'`a`'"),
            ("{x}", "'{x}'"),
            ("a:", "'a:'"),
            ("a: b", "'a: b'"),
            ("a #b", "'a #b'"),
            ("-", "'-'"),
            ("---", "'---'"),
            (" a", "' a'"),
            ("a ", "'a '"),
            ("1 ", "'1 '"),
            ("'x", "'''x'"),
            ("a\tb", "\"a\\tb\""),
            ("a\u{1}b", "\"a\\x01b\""),
            ("a\u{85}b", "\"a\\Nb\""),
            ("a\u{a0}b", "a\u{a0}b"),
            ("\u{1f600}", "\"\\U0001F600\""),
            ("a\nb", "|-\n    a\n    b"),
            ("a\nb\n", "|\n    a\n    b\n"),
            ("a\n\n", "|+\n    a\n\n"),
            ("  a\nb", "|2-\n      a\n    b"),
            ("a \nb", "\"a \\nb\""),
        ] {
            assert_eq!(scalar(text, 4), printed, "{text:?}");
        }
    }

    #[test]
    fn maps_and_lists_are_indented() {
        let value = serde_json::json!({"a": {"b": [{"c": 1, "d": []}, ["x", "w"], "z\n"], "e": {}}, "f": true});
        let wanted = "a:\n  b:\n    - c: 1\n      d: []\n    - - x\n      - w\n    - |\n      z\n  e: {}\nf: true\n";
        assert_eq!(file(value.as_object().unwrap()), wanted);
    }
}
