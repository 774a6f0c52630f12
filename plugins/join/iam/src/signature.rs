//! Signature version 4 of AWS, as far as one request needs it.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::credentials::Credentials;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The host that speaks for AWS in a region.
pub(crate) fn endpoint(region: &str) -> String {
    let china = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("sts.{region}.amazonaws.com{china}")
}

/// A request to `/` without a query.
pub(crate) struct Request {
    method: &'static str,
    /// Lower case and sorted, as the signature wants them; the date is added.
    headers: Vec<(&'static str, String)>,
    body: &'static str,
}

impl Request {
    /// "Who am I?", at the region's own endpoint: the cluster takes no other.
    pub(crate) fn caller_identity(region: &str, credentials: &Credentials, challenge: &str) -> Self {
        const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
        let mut headers = vec![
            ("accept", "application/json".to_owned()),
            ("content-length", BODY.len().to_string()),
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8".to_owned()),
            ("host", endpoint(region)),
            ("x-teleport-challenge", challenge.to_owned()),
        ];
        if !credentials.session.is_empty() {
            headers.push(("x-amz-security-token", credentials.session.clone()));
        }
        Self { method: "POST", headers, body: BODY }
    }

    /// The whole request in HTTP/1.1; `now` is `YYYYMMDDThhmmssZ`.
    pub(crate) fn signed(mut self, credentials: &Credentials, region: &str, service: &str, now: &str) -> Vec<u8> {
        self.headers.push(("x-amz-date", now.to_owned()));
        self.headers.sort();
        let names = self.headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = self.headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let hash = |text: &str| hex(&Sha256::digest(text));
        let canonical = format!("{}\n/\n\n{lines}\n{names}\n{}", self.method, hash(self.body));
        let scope = format!("{}/{region}/{service}/aws4_request", &now[..8]);
        let to_sign = format!("{ALGORITHM}\n{now}\n{scope}\n{}", hash(&canonical));
        let first = format!("AWS4{}", credentials.secret).into_bytes();
        let key = scope.split('/').fold(first, |key, part| mac(&key, part));
        let signature = hex(&mac(&key, &to_sign));
        let mut out = format!("{} / HTTP/1.1\r\n", self.method);
        for (name, value) in &self.headers {
            let _ = write!(out, "{name}: {value}\r\n");
        }
        let credential = format!("{}/{scope}", credentials.id);
        let _ = write!(
            out,
            "authorization: {ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}\r\n\r\n{}",
            self.body
        );
        out.into_bytes()
    }
}

/// `YYYYMMDDThhmmssZ` of seconds since 1970. Days are counted in years that begin in March, so that the leap day is the last.
pub(crate) fn stamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * march + 2) / 5 + 1, if march < 10 { march + 3 } else { march - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

fn mac(key: &[u8], message: &str) -> Vec<u8> {
    // A key of any length will do: there is no error to report.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example `get-vanilla` of Amazon's own test suite for this signature.
    #[test]
    fn a_known_request_has_its_known_signature() {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned();
        let credentials = Credentials { id: "AKIDEXAMPLE".into(), secret, session: String::new() };
        let host = ("host", "example.amazonaws.com".to_owned());
        let request = Request { method: "GET", headers: vec![host], body: "" };
        let signed =
            String::from_utf8(request.signed(&credentials, "us-east-1", "service", "20150830T123600Z")).unwrap();
        let signature = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        assert!(signed.contains(&format!("Signature={signature}\r\n")), "{signed}");
    }

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_799, "20000229T235959Z"),
            (1_709_210_096, "20240229T123456Z"),
            (1_735_689_599, "20241231T235959Z"),
            (4_102_444_800, "21000101T000000Z"),
        ] {
            assert_eq!(stamp(seconds), text);
        }
    }
}
