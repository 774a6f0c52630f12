//! Log lines on stderr: the original's shape (surface §F.4), one event a line, and no secret in any of them.

mod line;
mod redaction;

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

pub use redaction::{redact, secret};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `INFO [TBOT]      message key:value`
    Text,
    /// One JSON object a line: `timestamp`, `level`, `message`, `component` and the event's fields.
    Json,
}

/// Installs the log and a panic message that holds no secret. A second call changes nothing.
pub fn init(format: Format, debug: bool) {
    let colour = std::io::stderr().is_terminal();
    let layer = Lines { format, debug, colour, out: |line: &str| drop(std::io::stderr().write_all(line.as_bytes())) };
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer));
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        let mut message = String::from("a defect of tbot: ");
        let _ = write!(message, "{} ({place})", text.unwrap_or("panic"));
        tracing::error!(target: "TBOT", "{message}");
    }));
}

struct Lines<F> {
    format: Format,
    debug: bool,
    colour: bool,
    out: F,
}

impl<F> Lines<F> {
    /// Our own components are upper-case names; of the libraries only what is wrong is shown.
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata.target().bytes().all(|byte| byte.is_ascii_uppercase());
        let most = match (ours, self.debug) {
            (true, true) => Level::DEBUG,
            (true, false) => Level::INFO,
            (false, true) => Level::WARN,
            (false, false) => return false,
        };
        *metadata.level() <= most
    }
}

impl<S: Subscriber, F: Fn(&str) + 'static> Layer<S> for Lines<F> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if self.wants(event.metadata()) {
            (self.out)(&line::format(event, self.format, self.colour));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn logged(format: Format, debug: bool, events: impl FnOnce()) -> String {
        let out: Arc<Mutex<String>> = Arc::default();
        let sink = out.clone();
        let layer = Lines { format, debug, colour: false, out: move |line: &str| sink.lock().unwrap().push_str(line) };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), events);
        let text = out.lock().unwrap().clone();
        text
    }

    #[test]
    fn lines_have_the_originals_shape() {
        let text = logged(Format::Text, false, || {
            tracing::info!(target: "TBOT", output = "application (directory: /opt/x)", "Generated output.");
            tracing::error!(target: "AUTH", "no");
            tracing::debug!(target: "TBOT", "not shown");
            tracing::error!(target: "hyper::proto", "not ours");
        });
        assert_eq!(
            text,
            "INFO [TBOT]      Generated output. output:application (directory: /opt/x)\nERRO [AUTH]      no\n"
        );
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(Format::Json, true, || tracing::warn!(target: "TBOT", attempts = 3, "two\nlines"));
        let json: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(
            (&json["level"], &json["message"], &json["component"]),
            (&"warn".into(), &"two\nlines".into(), &"TBOT".into())
        );
        assert_eq!(json["attempts"], 3);
        assert_eq!(text.matches('\n').count(), 1);
    }

    #[test]
    fn a_line_stays_a_line_and_holds_no_secret() {
        secret("s3cret-token-value");
        let key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG\n-----END PRIVATE KEY-----";
        let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJib3QifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ";
        for format in [Format::Text, Format::Json] {
            let text = logged(format, false, || {
                tracing::info!(target: "TBOT", token = "s3cret-token-value", "a\nforged line \x1b[31m {key} {jwt} s3cret-token-value");
            });
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            for leak in ["s3cret", "MIGHAgEAMBMG", "eyJzdWIi", "\x1b"] {
                assert!(!text.contains(leak), "{leak} in {text}");
            }
        }
    }

    #[test]
    fn a_very_long_message_is_cut() {
        let text = logged(Format::Text, false, || tracing::info!(target: "TBOT", "{}", "x".repeat(1 << 20)));
        assert!(text.len() < 20_000 && text.ends_with("…\n"));
    }
}
