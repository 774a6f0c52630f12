//! JSON Web Tokens (RFC 7519), signed with RS256 as every platform does.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Value, json};

use crate::pki::{private_key::PrivateKey, public_key::PublicKey};

/// Life of a token, unless its claims say otherwise.
const LIFE: Duration = Duration::from_secs(600);
/// Clocks may differ by so much.
const LEEWAY: u64 = 60;

/// Signs tokens as a platform does.
pub struct TokenIssuer {
    url: String,
    key_id: String,
    key: PrivateKey,
}

impl TokenIssuer {
    /// An issuer with a new key; `url` becomes the claim `iss`.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self { url: url.to_owned(), key_id: crate::state::uuid(), key: PrivateKey::rsa()? })
    }

    /// What tokens name as their issuer.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A token with these claims; `iss`, `iat`, `nbf` and `exp` are added where they are missing.
    ///
    /// # Errors
    /// When `claims` is no object.
    pub fn sign(&self, claims: Value) -> Result<String> {
        let Value::Object(given) = claims else { bail!("claims must be an object") };
        let now = seconds(SystemTime::now());
        let mut claims = json!({ "iss": self.url, "iat": now, "nbf": now - LEEWAY, "exp": now + LIFE.as_secs() });
        for (name, value) in given {
            claims[name] = value;
        }
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": self.key_id });
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign_x509(signed.as_bytes())?;
        Ok(format!("{signed}.{}", BASE64URL.encode(signature)))
    }

    /// The key set (RFC 7517) that a platform publishes.
    #[must_use]
    pub fn jwks(&self) -> Value {
        let PublicKey::Rsa { modulus, exponent } = self.key.public() else { return json!({ "keys": [] }) };
        json!({ "keys": [{
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.key_id,
            "n": BASE64URL.encode(modulus), "e": BASE64URL.encode(exponent),
        }] })
    }

    /// The claims of a token that this issuer signed for `audience` and that is valid now.
    pub(crate) fn verify(&self, token: &str, audience: &str) -> Result<Value> {
        let claims = verify_signature(token, &self.jwks())?;
        ensure!(claims["iss"] == self.url, "the token's issuer is {}", claims["iss"]);
        let wanted = Value::from(audience);
        let meant = claims["aud"] == wanted || claims["aud"].as_array().is_some_and(|all| all.contains(&wanted));
        ensure!(meant, "the token is for the audience {}, not {wanted}", claims["aud"]);
        let now = seconds(SystemTime::now());
        let number = |name: &str| claims[name].as_u64().with_context(|| format!("the token has no `{name}`"));
        ensure!(now < number("exp")? + LEEWAY, "the token has expired");
        ensure!(number("nbf")? <= now + LEEWAY, "the token is not valid yet");
        Ok(claims)
    }
}

impl std::fmt::Debug for TokenIssuer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "TokenIssuer({})", self.url)
    }
}

fn verify_signature(token: &str, jwks: &Value) -> Result<Value> {
    let (signed, signature) = token.rsplit_once('.').context("the token has no signature")?;
    let (header, claims) = signed.split_once('.').context("the token has no claims")?;
    let json = |part: &str| -> Result<Value> { Ok(serde_json::from_slice(&BASE64URL.decode(part)?)?) };
    let header = json(header).context("the token's header")?;
    ensure!(header["alg"] == "RS256", "the token's algorithm is {}", header["alg"]);
    let keys = jwks["keys"].as_array().context("no keys")?;
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).context("the token's key is unknown")?;
    let number = |name: &str| BASE64URL.decode(key[name].as_str().unwrap_or_default());
    let key = PublicKey::Rsa { modulus: number("n")?, exponent: number("e")? };
    key.verify(signed.as_bytes(), &BASE64URL.decode(signature)?).context("the token's signature")?;
    json(claims).context("the token's claims")
}

fn encode(value: &Value) -> String {
    BASE64URL.encode(value.to_string())
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_untouched_token_for_us_and_for_now_is_accepted() {
        let issuer = TokenIssuer::new("https://ci.example.com").unwrap();
        let good = issuer.sign(json!({ "aud": ["x", "us"], "sub": "job" })).unwrap();
        assert_eq!(issuer.verify(&good, "us").unwrap()["sub"], "job");
        let touched = {
            let mut parts: Vec<String> = good.split('.').map(str::to_owned).collect();
            parts[1] = encode(&json!({ "aud": "us", "sub": "other" }));
            parts.join(".")
        };
        let unsigned = format!("{}.{}.", encode(&json!({ "alg": "none" })), encode(&json!({ "aud": "us" })));
        let of_another = TokenIssuer::new("https://ci.example.com").unwrap().sign(json!({ "aud": "us" })).unwrap();
        let cases = [
            (touched, "signature"),
            (unsigned, "algorithm"),
            (of_another, "key is unknown"),
            (issuer.sign(json!({ "aud": "them" })).unwrap(), "audience"),
            (issuer.sign(json!({ "aud": "us", "exp": 7 })).unwrap(), "expired"),
            (issuer.sign(json!({ "aud": "us", "nbf": 9_999_999_999_u64 })).unwrap(), "not valid yet"),
            (issuer.sign(json!({ "aud": "us", "iss": "https://x" })).unwrap(), "issuer"),
            ("nonsense".to_owned(), "no signature"),
        ];
        for (token, why) in cases {
            let error = format!("{:#}", issuer.verify(&token, "us").unwrap_err());
            assert!(error.contains(why), "{why}: {error}");
        }
    }
}
