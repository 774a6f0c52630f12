//! What never reaches a log line or an error.

use std::sync::{PoisonError, RwLock};

const DOTS: &str = "••••";
/// In bytes. A shorter value would blot out ordinary words.
const SHORTEST: usize = 6;

/// Longest first: one may be the beginning of another.
static SECRETS: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// From now on `value` is replaced by dots wherever it would appear, as it is or quoted. Values of fewer than six bytes are not
/// worth it.
pub fn secret(value: &str) {
    let value = value.trim();
    let quoted = format!("{value:?}");
    let mut secrets = SECRETS.write().unwrap_or_else(PoisonError::into_inner);
    for form in [value, &quoted[1..quoted.len() - 1]] {
        if form.len() >= SHORTEST && !secrets.iter().any(|known| known == form) {
            secrets.push(form.to_owned());
        }
    }
    secrets.sort_by_key(|known| std::cmp::Reverse(known.len()));
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
    const BEGIN: &str = "-----BEGIN ";
    while let Some(mark) = text.find(MARK) {
        // What stands before an end without a beginning is a key, too; so is all behind a beginning without an end.
        let start = text[..mark].rfind(BEGIN).unwrap_or(0);
        let behind = mark + MARK.len();
        let begins = text[start..].starts_with(BEGIN) && !text[start + BEGIN.len()..mark].contains("-----");
        let end = match (begins, text[behind..].find(MARK)) {
            (false, _) => behind,
            (true, Some(next)) => behind + next + MARK.len(),
            (true, None) => text.len(),
        };
        text.replace_range(start..end, DOTS);
    }
    text
}

fn web_tokens(mut text: String) -> String {
    // The beginning of `{"` in base64.
    const HEADER: &str = "eyJ";
    let part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.' || c == '=';
    let mut from = 0;
    while let Some(at) = text[from..].find(HEADER).map(|at| from + at) {
        let end = text[at..].find(|c| !part(c)).map_or(text.len(), |length| at + length);
        // Three parts, five where it is encrypted, one more where a sentence ends behind it.
        if text[at..end].split('.').count() >= 3 {
            text.replace_range(at..end, DOTS);
            from = at + DOTS.len();
        } else {
            from = end;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_goes_whole_in_every_form() {
        secret("first-part\n");
        secret("first-part-and-\"second\"");
        secret("the");
        assert_eq!(redact("<first-part>, <first-part-and-\"second\">"), "<••••>, <••••>");
        assert_eq!(redact(&format!("{:?}", "first-part-and-\"second\"")), "\"••••\"");
        assert_eq!(redact("the rest"), "the rest");
    }

    #[test]
    fn pieces_of_private_keys_are_private_keys() {
        let (begin, end) = ("-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----");
        for text in [
            format!("a {begin}\nMIIB\n{end} z"),
            format!("a {begin}\\nMIIB"),
            format!("MIIB {end} z"),
            format!("{begin} MIIB {begin} MIIB {end} z"),
            format!("{begin} MIIB {end} {begin} MIIB"),
        ] {
            let clean = redact(&text);
            assert!(!clean.contains("MIIB") && clean.contains(DOTS), "{clean}");
            assert_eq!(clean.ends_with(" z"), text.ends_with(" z"), "{clean}");
        }
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";
        assert_eq!(redact(certificate), certificate);
        assert_eq!(redact(&format!("{certificate} {begin} x {end}")), format!("{certificate} {DOTS}"));
    }

    #[test]
    fn web_tokens_go_and_names_stay() {
        let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJib3QifQ.c2lnbmF0dXJl";
        for text in [jwt.to_owned(), format!("token={jwt}."), format!("\"{jwt}\" and {jwt}.a.b")] {
            assert!(!redact(&text).contains("c2lnb") && !redact(&text).contains("zdWIi"), "{text}");
        }
        assert_eq!(redact("eyJ at teleport.example.com"), "eyJ at teleport.example.com");
    }
}
