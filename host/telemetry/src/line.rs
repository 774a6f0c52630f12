//! One event as one line.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::{Format, redact};

/// The longest text of one value: a line is for a person.
const VALUE_BYTES: usize = 16 << 10;

pub(crate) fn format(event: &Event<'_>, format: Format, colour: bool) -> String {
    let mut parts = Parts::default();
    event.record(&mut parts);
    let (level, component) = (*event.metadata().level(), event.metadata().target());
    match format {
        Format::Text => parts.text(level, component, colour),
        Format::Json => parts.json(level, component),
    }
}

#[derive(Default)]
struct Parts {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Parts {
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
        object.extend(self.fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
        format!("{}\n", Value::Object(object))
    }

    fn keep(&mut self, field: &Field, text: &str) {
        let mut text = redact(text);
        if text.len() > VALUE_BYTES {
            let end = (0..=VALUE_BYTES).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
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
        if c.is_control() {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        out
    })
}
