//! Amazon: `sts:GetCallerIdentity` requests signed with Signature Version 4 (wire §c.3).

use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::hmac;
use sha2::{Digest, Sha256};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use crate::state::hex;

/// The whole body of the request.
const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The header that carries the cluster's challenge; it has to be signed.
const CHALLENGE: &str = "x-teleport-challenge";
/// `20261121T023855Z`.
const STAMP: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");
/// A signed request is good for so long, in seconds.
const FRESH: i64 = 300;

/// A key, and who holds it.
#[derive(Clone)]
pub struct AwsKey {
    /// Access key id.
    pub id: String,
    /// Secret access key.
    pub secret: String,
    /// Token that temporary keys come with.
    pub session_token: Option<String>,
    /// Account, twelve digits.
    pub account: String,
    /// ARN of the role that was assumed.
    pub arn: String,
}

impl std::fmt::Debug for AwsKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "AwsKey({})", self.id)
    }
}

impl AwsKey {
    /// The request in HTTP/1.1 as a client sends it to the cluster.
    ///
    /// # Errors
    /// When the time cannot be written.
    pub fn sign(&self, region: &str, challenge: &str) -> Result<Vec<u8>> {
        let now = OffsetDateTime::from(SystemTime::now()).format(STAMP)?;
        let host = format!("sts.{region}.amazonaws.com");
        let mut headers = vec![
            ("accept", "application/json".to_owned()),
            ("content-length", BODY.len().to_string()),
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8".to_owned()),
            ("host", host),
            ("x-amz-date", now.clone()),
        ];
        headers.extend(self.session_token.clone().map(|token| ("x-amz-security-token", token)));
        headers.push((CHALLENGE, challenge.to_owned()));
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let scope = format!("{}/{region}/sts/aws4_request", &now[..8]);
        let signature = self.signature(&headers, &names, &now, &scope);
        let mut text = "POST / HTTP/1.1\r\n".to_owned();
        for (name, value) in &headers {
            text += &format!("{name}: {value}\r\n");
        }
        let credential = format!("{}/{scope}", self.id);
        text += &format!(
            "authorization: {ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}\r\n\r\n{BODY}"
        );
        Ok(text.into_bytes())
    }

    fn signature(&self, headers: &[(&str, String)], names: &str, now: &str, scope: &str) -> String {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let canonical = format!("POST\n/\n\n{lines}\n{names}\n{}", hex(&Sha256::digest(BODY)));
        let to_sign = format!("{ALGORITHM}\n{now}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in scope.split('/') {
            key = mac(&key, part);
        }
        hex(&mac(&key, &to_sign))
    }
}

/// The key whose holder Amazon would name. What it checks itself, and what a cluster checks before it asks.
pub(crate) fn verify<'a>(request: &[u8], challenge: &str, keys: &'a [AwsKey]) -> Result<&'a AwsKey> {
    let text = std::str::from_utf8(request).context("the signed request is not text")?;
    let (head, body) = text.split_once("\r\n\r\n").context("the signed request has no end of headers")?;
    let mut lines = head.split("\r\n");
    ensure!(lines.next() == Some("POST / HTTP/1.1"), "the signed request must be `POST /`");
    ensure!(body == BODY, "the signed request must be sts:GetCallerIdentity");
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let host = header("host").unwrap_or_default();
    let region = host.strip_prefix("sts.").and_then(|rest| rest.strip_suffix(".amazonaws.com"));
    let region = region.filter(|region| !region.contains('.')).with_context(|| format!("{host:?} is not STS"))?;
    ensure!(header(CHALLENGE) == Some(challenge), "the challenge in the signed request does not match");
    ensure!(header("accept") == Some("application/json"), "the signed request must accept JSON");
    let authorization = header("authorization").context("the request is not signed")?;
    let parts = authorization.strip_prefix(ALGORITHM).context("the request is signed with another algorithm")?;
    let part = |name: &str| parts.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
    let (id, scope) = part("Credential").and_then(|text| text.split_once('/')).context("no credential")?;
    let names = part("SignedHeaders").context("no signed headers")?;
    ensure!(names.split(';').any(|name| name == CHALLENGE), "the challenge is not among the signed headers");
    ensure!(names.split(';').any(|name| name == "host"), "the host is not among the signed headers");
    let stamp = header("x-amz-date").context("no date")?;
    let expected = format!("{}/{region}/sts/aws4_request", stamp.get(..8).unwrap_or_default());
    ensure!(scope == expected, "the signature's scope is {scope:?}");
    let age = OffsetDateTime::now_utc() - time::PrimitiveDateTime::parse(stamp, STAMP)?.assume_utc();
    ensure!(age.whole_seconds().abs() <= FRESH, "the signature has expired");
    let key = keys.iter().find(|key| key.id == id).context("the access key is unknown")?;
    ensure!(header("x-amz-security-token") == key.session_token.as_deref(), "the session token is wrong");
    let signed: Option<Vec<_>> = names.split(';').map(|name| Some((name, header(name)?.to_owned()))).collect();
    let signature = key.signature(&signed.context("a signed header is missing")?, names, stamp, scope);
    ensure!(part("Signature") == Some(&signature), "the signature does not match");
    Ok(key)
}

fn mac(key: &[u8], message: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> AwsKey {
        let [id, secret, account, arn] = ["AKID", "secret", "123456789012", "arn"].map(str::to_owned);
        AwsKey { id, secret, session_token: Some("session".to_owned()), account, arn }
    }

    #[test]
    fn only_a_fresh_request_with_this_challenge_is_accepted() {
        let keys = [key()];
        let good = String::from_utf8(key().sign("eu-west-1", "challenge").unwrap()).unwrap();
        let verify = |text: &str| verify(text.as_bytes(), "challenge", &keys).map(|key| key.account.clone());
        assert_eq!(verify(&good).unwrap(), "123456789012");
        let signed_by = |key: AwsKey| String::from_utf8(key.sign("eu-west-1", "challenge").unwrap()).unwrap();
        let cases = [
            (String::from_utf8(key().sign("eu-west-1", "other").unwrap()).unwrap(), "challenge"),
            (good.replace(";x-teleport-challenge,", ","), "not among the signed headers"),
            (good.replace("sts.eu-west-1.amazonaws.com", "sts.example.com"), "is not STS"),
            (good.replace("sts.eu-west-1.amazonaws.com", "sts.eu-west-2.amazonaws.com"), "scope"),
            (good.replace("GetCallerIdentity", "AssumeRole"), "GetCallerIdentity"),
            (good.replace("POST / ", "POST /x "), "POST /"),
            (good.replace("x-amz-security-token: session", "x-amz-security-token: other"), "session token"),
            (signed_by(AwsKey { secret: "wrong".to_owned(), ..key() }), "does not match"),
            (signed_by(AwsKey { id: "unknown".to_owned(), ..key() }), "unknown"),
        ];
        for (request, why) in cases {
            let error = format!("{:#}", verify(&request).unwrap_err());
            assert!(error.contains(why), "{why}: {error}");
        }
    }

    /// The example of Amazon's documentation for signing keys (key of `wJalr…`, 2015-08-30, us-east-1, iam).
    #[test]
    fn the_signing_key_is_derived_as_amazon_documents() {
        let mut derived = b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_vec();
        for part in ["20150830", "us-east-1", "iam", "aws4_request"] {
            derived = mac(&derived, part);
        }
        assert_eq!(hex(&derived), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
    }
}
