//! What never reaches a log line or an error.

use std::sync::{PoisonError, RwLock};

const DOTS: &str = "••••";
/// A value shorter than this would blot out ordinary words.
const SHORTEST: usize = 6;

static SECRETS: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// From now on `value` is replaced by dots wherever it would appear. Values of fewer than six bytes are not worth it.
pub fn secret(value: &str) {
    let mut secrets = SECRETS.write().unwrap_or_else(PoisonError::into_inner);
    if value.len() >= SHORTEST && !secrets.iter().any(|known| known == value) {
        secrets.push(value.to_owned());
    }
}

/// `text` without registered secrets, PEM private keys and JSON web tokens.
pub fn redact(text: &str) -> String {
    let mut out = text.to_owned();
    for secret in SECRETS.read().unwrap_or_else(PoisonError::into_inner).iter() {
        if out.contains(secret.as_str()) {
            out = out.replace(secret.as_str(), DOTS);
        }
    }
    web_tokens(private_keys(out))
}

fn private_keys(mut text: String) -> String {
    const MARK: &str = "PRIVATE KEY-----";
    while let Some(mark) = text.find(MARK) {
        let start = text[..mark].rfind("-----BEGIN ").unwrap_or(mark);
        let behind = mark + MARK.len();
        // An unfinished block is a key, too.
        let end = text[behind..].find(MARK).map_or(text.len(), |at| behind + at + MARK.len());
        text.replace_range(start..end, DOTS);
    }
    text
}

fn web_tokens(mut text: String) -> String {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.' || c == '=';
    let mut from = 0;
    while let Some(at) = text[from..].find("eyJ").map(|at| from + at) {
        let end = text[at..].find(|c| !part(c)).map_or(text.len(), |length| at + length);
        if text[at..end].split('.').count() == 3 {
            text.replace_range(at..end, DOTS);
            from = at + DOTS.len();
        } else {
            from = end;
        }
    }
    text
}
