//! Join method `azure`: an attested document for the cluster's challenge, and an access token (wire §c.1).

mod issuers;

use tbot_sdk::host::{clock, http};
use tbot_sdk::{Attempt, AzureProof, Error, Join, Method, Opening, Proof};

/// Where every virtual machine finds its metadata service.
const SERVICE: &str = "http://169.254.169.254";
/// The first version that attests documents with a nonce.
const OLDEST: &str = "2019-06-04";
/// Audience of the token: the cluster looks the machine up there.
const RESOURCE: &str = "https%3A%2F%2Fmanagement.azure.com%2F";
/// Pauses before an answer "not yet" is asked for again, milliseconds: with three requests well within the deadline of 10 s.
const PAUSES: [u32; 3] = [500, 1000, 2000];

/// `onboarding.azure`.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Config {
    client_id: String,
    metadata_url: String,
}

struct Azure;

impl Join for Azure {
    type Config = Config;
    const METHODS: &'static [Method] =
        &[Method { name: "azure", keys: &["client_id", "metadata_url"], opening: Opening::Challenge }];

    fn prove(config: &Config, attempt: &Attempt) -> Result<Proof, Error> {
        let challenge = attempt.challenge.as_deref().filter(|challenge| plain(challenge));
        let challenge = challenge.ok_or_else(|| Error::denied("the cluster sent no challenge that can be a nonce"))?;
        if !plain(&config.client_id) {
            return Err(Error::invalid_config(
                "`client_id`: it is a UUID, write the client ID of the managed identity",
            ));
        }
        let service = match config.metadata_url.trim_end_matches('/') {
            "" => SERVICE,
            other => other,
        };
        let version = version(service)?;
        let document = format!("attested/document?api-version={version}&format=json&nonce={challenge}");
        let attested_data = ask(service, &document)?;
        let client = match config.client_id.as_str() {
            "" => String::new(),
            id => format!("&client_id={id}"),
        };
        let token = format!("identity/oauth2/token?api-version={version}&resource={RESOURCE}{client}");
        let access_token = text(&ask(service, &token)?, "access_token")
            .ok_or_else(|| Error::unavailable("the metadata service answered without an access token"))?;
        let intermediate = issuers::intermediates(&attested_data);
        Ok(Proof::Azure(AzureProof { attested_data, access_token, intermediate }))
    }
}

tbot_sdk::export_join!(Azure);

/// The newest version that the service speaks.
fn version(service: &str) -> Result<String, Error> {
    let answer = ask(service, "versions?format=json").map_err(|mut e| {
        if e.kind == tbot_sdk::ErrorKind::Unavailable {
            e.message.push_str(": is this an Azure VM, and may it reach that address?");
        }
        e
    })?;
    let versions: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
    let versions = versions["apiVersions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let newest = versions.iter().filter_map(|version| version.as_str()).filter(|version| plain(version)).max();
    match newest {
        Some(newest) if newest >= OLDEST => Ok(newest.to_owned()),
        Some(newest) => Err(Error::unsupported(format!(
            "the metadata service speaks `{newest}` at most, and `{OLDEST}` is needed: is this Azure's own service?"
        ))),
        None => Err(Error::denied("what answers as the metadata service is not Azure's: is this machine an Azure VM?")),
    }
}

/// The body of a successful answer.
fn ask(service: &str, path: &str) -> Result<Vec<u8>, Error> {
    let request = http::request("GET", format!("{service}/metadata/{path}"), &[("Metadata", "True")]);
    let mut pauses = PAUSES.into_iter();
    loop {
        let answer = http::send(&request)
            .map_err(|e| Error { message: format!("the metadata service does not answer: {}", e.message), ..e })?;
        match answer.status {
            200 => return Ok(answer.body),
            404 | 410 | 429 | 500.. => match pauses.next() {
                Some(pause) => clock::wait(pause),
                None => return Err(Error::unavailable(refusal(path, answer.status, &answer.body))),
            },
            status => return Err(Error::denied(refusal(path, status, &answer.body))),
        }
    }
}

/// What the service says, and what to do about it.
fn refusal(path: &str, status: u16, body: &[u8]) -> String {
    let what = path.split('?').next().unwrap_or_default();
    let words = text(body, "error_description").or_else(|| text(body, "error")).unwrap_or_default();
    let remedy = match words.to_ascii_lowercase() {
        words if words.contains("identity not found") => {
            "assign a managed identity to this VM, or correct `azure.client_id`"
        }
        words if words.contains("multiple") => "name one of them with `azure.client_id`",
        _ if status == 429 => "too many requests are made on this VM, it is tried again later",
        _ if status >= 500 => "it is tried again later",
        _ => "is this machine an Azure VM?",
    };
    format!("the metadata service refuses `{what}` with {status} (`{words}`): {remedy}")
}

fn text(body: &[u8], key: &str) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    body[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Fit for a query as it is: base64 for URLs, UUIDs, dates.
fn plain(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tbot_sdk::ErrorKind;
    use tbot_sdk::host::http::{Request, Response};
    use tbot_sdk::testing::{Machine, call};

    fn answer(status: u16, body: &str) -> Result<Response, Error> {
        Ok(Response { status, headers: vec![], body: body.into() })
    }

    fn vm(request: &Request) -> Result<Response, Error> {
        assert!(request.headers.iter().any(|header| header.name == "Metadata" && header.value == "True"));
        match request.url.split('?').next().unwrap().rsplit('/').next().unwrap() {
            "versions" => answer(200, r#"{"apiVersions": ["2017-03-01", "2023-07-01"]}"#),
            "document" => answer(200, r#"{"encoding": "pkcs7",  "signature": "x"}"#),
            _ if request.url.contains("client_id=unknown") => {
                answer(400, r#"{"error": "invalid_request", "error_description": "Identity not found"}"#)
            }
            _ => answer(200, r#"{"access_token": "jwt", "expires_in": "600"}"#),
        }
    }

    fn prove(
        config: &str,
        challenge: &str,
        server: impl FnMut(&Request) -> Result<Response, Error> + 'static,
    ) -> (Result<Proof, Error>, Machine) {
        let challenge = Some(challenge.to_owned());
        let attempt = Attempt { method: "azure".into(), token_name: "t".into(), challenge };
        Machine::default().server(server).run(|| call::prove::<Azure>(config, attempt))
    }

    fn urls(machine: &Machine) -> Vec<&str> {
        machine.requests.iter().map(|request| request.url.as_str()).collect()
    }

    /// The nonce and the requests of a recorded join (recording `azure-auth`, `imds.jsonl`).
    #[test]
    fn it_asks_what_the_original_asked() {
        let nonce = "mED6Cg80yjepro7qP17druGBzKDD67AW";
        let (proof, machine) = prove("{}", nonce, vm);
        let document = br#"{"encoding": "pkcs7",  "signature": "x"}"#.to_vec();
        assert_eq!(
            proof.unwrap(),
            Proof::Azure(AzureProof { attested_data: document, access_token: "jwt".into(), intermediate: vec![] })
        );
        let recorded = [
            "http://169.254.169.254/metadata/versions?format=json".to_owned(),
            format!("http://169.254.169.254/metadata/attested/document?api-version=2023-07-01&format=json&nonce={nonce}"),
            "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2023-07-01&resource=https%3A%2F%2Fmanagement.azure.com%2F".to_owned(),
        ];
        assert_eq!(urls(&machine), recorded);
    }

    #[test]
    fn the_operator_names_the_identity_and_the_service() {
        let (proof, machine) = prove(r#"{"client_id": "2222-2", "metadata_url": "http://10.0.0.1/"}"#, "n", vm);
        proof.unwrap();
        assert!(urls(&machine).iter().all(|url| url.starts_with("http://10.0.0.1/metadata/")));
        assert!(urls(&machine)[2].ends_with("&client_id=2222-2"));
        let (refused, machine) = prove(r#"{"client_id": "a&b"}"#, "n", vm);
        assert_eq!((refused.unwrap_err().kind, machine.requests.len()), (ErrorKind::InvalidConfig, 0));
        assert!(prove("{}", "n&client_id=x", vm).0.is_err(), "a challenge cannot add to the query");
    }

    #[test]
    fn refusals_name_cause_and_remedy() {
        let (refused, _) = prove(r#"{"client_id": "unknown"}"#, "n", vm);
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Denied);
        assert!(refused.message.contains("Identity not found") && refused.message.contains("`azure.client_id`"));
        let several = r#"{"error": "invalid_request", "error_description": "Multiple user assigned identities exist"}"#;
        let refused = prove("{}", "n", move |r| if r.url.contains("oauth2") { answer(400, several) } else { vm(r) });
        assert!(refused.0.unwrap_err().message.ends_with("name one of them with `azure.client_id`"));
        let refused = prove("{}", "n", |_| Err(Error::unavailable("no route"))).0.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unavailable);
        assert!(refused.message.contains("is this an Azure VM"), "{}", refused.message);
        for (versions, kind) in [
            (r#"{"apiVersions": ["2017-03-01"]}"#, ErrorKind::Unsupported),
            ("<html>", ErrorKind::Denied),
            (r#"{"apiVersions": ["2023-07-01&x=y"]}"#, ErrorKind::Denied),
        ] {
            assert_eq!(prove("{}", "n", move |_| answer(200, versions)).0.unwrap_err().kind, kind, "{versions}");
        }
        let empty = prove("{}", "n", |r| if r.url.contains("oauth2") { answer(200, "{}") } else { vm(r) });
        assert_eq!(empty.0.unwrap_err().kind, ErrorKind::Unavailable);
    }

    #[test]
    fn not_yet_is_asked_again_and_not_for_ever() {
        for status in [404, 410, 429, 503] {
            let mut left = 2;
            let (proof, machine) = prove("{}", "n", move |request| {
                left -= i32::from(left > 0);
                if left > 0 { answer(status, "") } else { vm(request) }
            });
            proof.unwrap();
            assert_eq!((machine.requests.len(), machine.milliseconds), (4, 500), "{status}");
        }
        let (refused, machine) = prove("{}", "n", |_| answer(429, r#"{"error": "Too many requests"}"#));
        assert_eq!(refused.unwrap_err().kind, ErrorKind::Unavailable);
        assert_eq!((machine.requests.len(), machine.milliseconds), (4, 3500));
        assert_eq!(prove("{}", "n", |_| answer(403, "")).1.requests.len(), 1);
    }
}
