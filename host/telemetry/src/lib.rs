//! What an operator sees: log lines on stderr in the original's shape (surface §F.4), one event a line, no secret in any of them; and over
//! HTTP the health of every service, with metrics.

mod diagnostics;
mod health;
mod line;
mod metrics;
mod redaction;

use std::io::{IsTerminal, Write};

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

pub use diagnostics::Diagnostics;
pub use health::Services;
pub use redaction::{redact, secret};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `INFO [TBOT]      message key:value`
    Text,
    /// One JSON object a line: `timestamp`, `level`, `message`, `component` and the event's fields.
    Json,
}

/// Installs the log and a panic message that holds no secret. A second call changes nothing of the log.
pub fn init(format: Format, debug: bool) {
    let colour = std::io::stderr().is_terminal();
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Lines {
        format,
        debug,
        colour,
        out: stderr,
    }));
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("panic");
        // Not by way of the log: it may be what panicked.
        stderr(&line::plain(&format!("a defect of tbot at {place}: {text}"), Level::ERROR, "TBOT", format, colour));
    }));
}

/// One write for a line: lines of several threads do not mix.
fn stderr(line: &str) {
    drop(std::io::stderr().write_all(line.as_bytes()));
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
        let target = metadata.target();
        let ours = !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_uppercase());
        let most = match (ours, self.debug) {
            (true, true) => Level::DEBUG,
            (true, false) => Level::INFO,
            (false, _) => Level::WARN,
        };
        *metadata.level() <= most
    }
}

impl<S: Subscriber, F: Fn(&str) + 'static> Layer<S> for Lines<F> {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    /// What the libraries say at finer levels then costs them one comparison.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if self.debug { LevelFilter::DEBUG } else { LevelFilter::INFO })
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        (self.out)(&line::format(event, self.format, self.colour));
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
        out.lock().unwrap().clone()
    }

    #[test]
    fn lines_have_the_originals_shape() {
        let text = logged(Format::Text, false, || {
            tracing::info!(target: "TBOT", output = "application (directory: /opt/x)", tries = 3, "Generated output.");
            tracing::error!(target: "AUTH", "no");
        });
        assert_eq!(
            text,
            "INFO [TBOT]      Generated output. output:application (directory: /opt/x) tries:3\nERRO [AUTH]      no\n"
        );
    }

    #[test]
    fn of_the_libraries_only_what_is_wrong_is_shown() {
        for debug in [false, true] {
            let text = logged(Format::Text, debug, || {
                tracing::debug!(target: "TBOT", "ours, fine");
                tracing::trace!(target: "TBOT", "too fine");
                tracing::info!(target: "hyper::proto", "theirs");
                tracing::debug!(target: "hyper::proto", "theirs");
                tracing::warn!(target: "hyper::proto", "wrong");
            });
            let fine = if debug { "DEBU [TBOT]      ours, fine\n" } else { "" };
            assert_eq!(text, format!("{fine}WARN [hyper::proto] wrong\n"));
        }
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
    fn no_line_is_longer_than_16_kib_nor_damaged_by_the_cut() {
        let fields = ["x".repeat(1 << 20), "\u{1}".repeat(1 << 20), "…\"".repeat(1 << 20)];
        for long in &fields {
            for format in [Format::Text, Format::Json] {
                let text = logged(format, false, || {
                    tracing::info!(target: "TBOT", first = long.as_str(), second = long.as_str(), "{long}");
                });
                assert!((1000..=16 << 10).contains(&text.len()) && text.contains('…'), "{}", text.len());
                assert_eq!(text.matches('\n').count(), 1);
                if format == Format::Json {
                    serde_json::from_str::<serde_json::Value>(&text).unwrap();
                }
            }
        }
    }

    #[test]
    fn json_fields_cannot_pass_for_what_the_log_itself_says() {
        let text = logged(Format::Json, false, || {
            tracing::info!(target: "TBOT", level = "fatal", ratio = 0.5, "\u{9b}31m \u{202e}");
        });
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&json["level"], &json["field.level"]), (&"info".into(), &"fatal".into()));
        assert_eq!((&json["ratio"], &json["message"]), (&0.5.into(), &"\u{9b}31m \u{202e}".into()));
        assert!(!text.contains(['\u{9b}', '\u{202e}']), "{text:?}");
    }
}
