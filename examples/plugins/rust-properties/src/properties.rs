use std::fmt;

/// A text that `java.util.Properties.load` reads back, also where it takes the bytes for ISO 8859-1.
pub(crate) struct Properties(String);

impl Properties {
    /// Begins with a comment of one line.
    pub(crate) fn titled(comment: &str) -> Self {
        Self(format!("# {comment}\n"))
    }

    /// Adds a line.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.0.push_str(&format!("{}={}\n", escaped(key, true), escaped(value, false)));
        self
    }
}

impl fmt::Display for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// As `java.util.Properties.store` does it: a blank only where it would be skipped, everything beyond printable ASCII as UTF-16 units.
fn escaped(text: &str, key: bool) -> String {
    let mut out = String::new();
    for (index, c) in text.chars().enumerate() {
        match c {
            ' ' if !key && index > 0 => out.push(' '),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\u{c}' => out.push_str("\\f"),
            ' ' | '\\' | '=' | ':' | '#' | '!' => out.extend(['\\', c]),
            '!'..='~' => out.push(c),
            _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04X}"))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_java_would_misread() {
        let text = Properties::titled("t").with("a b:c", " C:\\x y=#!é𝄞\n").to_string();
        assert_eq!(text, "# t\na\\ b\\:c=\\ C\\:\\\\x y\\=\\#\\!\\u00E9\\uD834\\uDD1E\\n\n");
    }
}
