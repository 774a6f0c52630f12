//! One event as one line.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::{Format, redact};

/// The longest line, in bytes: it is for a person, and for collectors that cut longer ones in the middle.
const LINE_BYTES: usize = 16 << 10;
/// What of it is left for message and fields: the rest is for their names, time and level.
const VALUE_BYTES: usize = LINE_BYTES - (2 << 10);
/// What a character that is written as `\u{202e}` takes at most.
const ESCAPE_BYTES: usize = 10;

pub(crate) fn format(event: &Event<'_>, format: Format, colour: bool) -> String {
    let mut parts = Parts::default();
    event.record(&mut parts);
    parts.line(*event.metadata().level(), event.metadata().target(), format, colour)
}

/// A line that is nothing but a message.
pub(crate) fn plain(message: &str, level: Level, component: &str, format: Format, colour: bool) -> String {
    let mut parts = Parts::default();
    parts.message = parts.fit(message);
    parts.line(level, component, format, colour)
}

#[derive(Default)]
struct Parts {
    message: String,
    fields: Vec<(&'static str, Value)>,
    /// Bytes of the line that values have taken.
    taken: usize,
}

impl Parts {
    fn line(self, level: Level, component: &str, format: Format, colour: bool) -> String {
        match format {
            Format::Text => self.text(level, component, colour),
            Format::Json => self.json(level, component),
        }
    }

    fn text(self, level: Level, component: &str, colour: bool) -> String {
        let (word, code) = match level {
            Level::ERROR => ("ERRO", "31"),
            Level::WARN => ("WARN", "33"),
            Level::INFO => ("INFO", "36"),
            _ => ("DEBU", "37"),
        };
        let word = if colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() };
        let mut line = format!("{word} {:<11} {}", format!("[{component}]"), escape(&self.message));
        for (name, value) in &self.fields {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let _ = write!(line, " {name}:{}", escape(&text));
        }
        line.push('\n');
        line
    }

    fn json(self, level: Level, component: &str) -> String {
        let mut object = Map::new();
        let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        object.insert("timestamp".into(), now.into());
        object.insert("level".into(), level.to_string().to_lowercase().into());
        object.insert("message".into(), self.message.into());
        object.insert("component".into(), component.into());
        for (name, value) in self.fields {
            let name = if object.contains_key(name) { format!("field.{name}") } else { name.to_owned() };
            object.insert(name, value);
        }
        // JSON itself asks for the escape of the first 32 only.
        let text = Value::Object(object).to_string();
        let hidden = |c: char| if shows(c) { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) };
        format!("{}\n", text.chars().map(hidden).collect::<String>())
    }

    /// `text` without secrets, cut to what is left of the line.
    fn fit(&mut self, text: &str) -> String {
        let mut text = redact(text);
        let mut room = VALUE_BYTES.saturating_sub(self.taken);
        let end = text.char_indices().find(|(_, c)| {
            let bytes = if shows(*c) && !['"', '\\'].contains(c) { c.len_utf8() } else { ESCAPE_BYTES };
            let full = bytes > room;
            room = room.saturating_sub(bytes);
            full
        });
        if let Some((end, _)) = end {
            text.truncate(end);
            text.push('…');
            room = 0;
        }
        self.taken = VALUE_BYTES - room;
        text
    }

    fn keep(&mut self, field: &Field, text: &str) {
        let text = self.fit(text);
        match field.name() {
            "message" => self.message = text,
            name => self.fields.push((name, text.into())),
        }
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep(field, &format!("{value:?}"));
    }
}

/// Control characters as text: whoever wrote the message cannot forge a line or colour a terminal.
fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match shows(c) {
            true => out.push(c),
            false => out.extend(c.escape_default()),
        }
        out
    })
}

/// Is `c` seen as itself? Not so control characters, line separators and those that turn the direction of what follows.
fn shows(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}
