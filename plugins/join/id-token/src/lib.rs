//! Join methods whose proof is a JWT that the platform has signed (wire §c.3): they differ only in where it lies.

use tbot_sdk::host::http::Request;
use tbot_sdk::host::{clock, http, input};
use tbot_sdk::{Attempt, Error, Join, Method, Opening, Proof};

/// What a token is asked for, where the platform lets one ask.
const AUDIENCE: &str = "teleport.cluster.local";
/// Pauses before an answer "not yet" is asked for again, milliseconds.
const PAUSES: [u32; 3] = [500, 1000, 2000];
/// Where Kubernetes puts the token of a pod's service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Config {
    token_env_var_name: String,
    audience_tag: String,
}

struct IdToken;

const fn method(name: &'static str, keys: &'static [&'static str]) -> Method {
    Method { name, keys, opening: Opening::Immediate }
}

impl Join for IdToken {
    type Config = Config;
    const METHODS: &'static [Method] = &[
        method("azure_devops", &[]),
        method("bitbucket", &[]),
        method("circleci", &[]),
        method("env0", &[]),
        method("gcp", &[]),
        method("github", &[]),
        method("gitlab", &["token_env_var_name"]),
        method("kubernetes", &[]),
        method("spacelift", &[]),
        method("terraform_cloud", &["audience_tag"]),
    ];

    fn prove(config: &Config, attempt: &Attempt) -> Result<Proof, Error> {
        let token = match attempt.method.as_str() {
            "azure_devops" => azure_devops(),
            "bitbucket" => variable("BITBUCKET_STEP_OIDC_TOKEN", "set `oidc: true` in the step"),
            "circleci" => variable("CIRCLE_OIDC_TOKEN", "give the job a context: without one CircleCI makes no token"),
            "env0" => variable("ENV0_OIDC_TOKEN", "enable OIDC in the organization's settings"),
            "gcp" => gcp(),
            "github" => github(),
            "gitlab" => match config.token_env_var_name.as_str() {
                "" => variable("TBOT_GITLAB_JWT", "add it to `id_tokens` of the job, with the cluster as `aud`"),
                other => variable(other, "add it to `id_tokens` of the job, or correct `gitlab.token_env_var_name`"),
            },
            "kubernetes" => kubernetes(),
            "spacelift" => variable("SPACELIFT_OIDC_TOKEN", "run it inside a Spacelift run"),
            "terraform_cloud" => match config.audience_tag.as_str() {
                "" => variable("TFC_WORKLOAD_IDENTITY_TOKEN", "set `TFC_WORKLOAD_IDENTITY_AUDIENCE` in the workspace"),
                tag => variable(
                    &format!("TFC_WORKLOAD_IDENTITY_TOKEN_{tag}"),
                    "set `TFC_WORKLOAD_IDENTITY_AUDIENCE_<TAG>` in the workspace, or correct `terraform.audience_tag`",
                ),
            },
            other => Err(Error::unsupported(format!("`{other}` is no method of this plugin"))),
        };
        Ok(Proof::IdToken(web_token(token?)?))
    }
}

tbot_sdk::export_join!(IdToken);

fn variable(name: &str, remedy: &str) -> Result<String, Error> {
    let value = input::environment(name)?.filter(|value| !value.trim().is_empty());
    value.ok_or_else(|| Error::denied(format!("the environment variable `{name}` is not set: {remedy}")))
}

fn kubernetes() -> Result<String, Error> {
    let named = input::environment("KUBERNETES_TOKEN_PATH")?.filter(|path| !path.is_empty());
    let path = named.unwrap_or_else(|| SERVICE_ACCOUNT.to_owned());
    let contents = input::file(&path).map_err(|mut e| {
        e.message.push_str(": is this a pod whose service account token is mounted?");
        e
    })?;
    String::from_utf8(contents).map_err(|_| Error::denied(format!("the file `{path}` holds no token")))
}

fn github() -> Result<String, Error> {
    let remedy = "add `permissions: {id-token: write}` to the workflow";
    let url = variable("ACTIONS_ID_TOKEN_REQUEST_URL", remedy)?;
    let bearer = format!("Bearer {}", variable("ACTIONS_ID_TOKEN_REQUEST_TOKEN", remedy)?.trim());
    // GitHub's URL has a query already.
    let join = if url.contains('?') { '&' } else { '?' };
    let headers = [("Authorization", bearer.as_str()), ("Accept", "application/json; api-version=2.0")];
    let body = ask("GitHub", &http::request("GET", format!("{}{join}audience={AUDIENCE}", url.trim()), &headers))?;
    text(&body, "value").ok_or_else(|| Error::unavailable("GitHub answered without a token: it is tried again later"))
}

fn azure_devops() -> Result<String, Error> {
    let url = variable("SYSTEM_OIDCREQUESTURI", "run it inside a pipeline of Azure DevOps")?;
    let token = variable("SYSTEM_ACCESSTOKEN", "hand it on: `env: {SYSTEM_ACCESSTOKEN: $(System.AccessToken)}`")?;
    let bearer = format!("Bearer {}", token.trim());
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let body = ask("Azure DevOps", &http::request("POST", format!("{}?api-version=7.1", url.trim()), &headers))?;
    text(&body, "oidcToken")
        .ok_or_else(|| Error::unavailable("Azure DevOps answered without a token: it is tried again later"))
}

fn gcp() -> Result<String, Error> {
    let named = input::environment("GCE_METADATA_HOST")?.filter(|host| !host.is_empty());
    let host = named.unwrap_or_else(|| "169.254.169.254".to_owned());
    let path = "computeMetadata/v1/instance/service-accounts/default/identity";
    let url = format!("http://{host}/{path}?audience={AUDIENCE}&format=full&licenses=FALSE");
    let body = ask("Google's metadata service", &http::request("GET", url, &[("Metadata-Flavor", "Google")]))?;
    String::from_utf8(body).map_err(|_| Error::denied("what answers as Google's metadata service is another one"))
}

/// The body of a successful answer.
fn ask(who: &str, request: &Request) -> Result<Vec<u8>, Error> {
    let mut pauses = PAUSES.into_iter();
    loop {
        let answer = http::send(request).map_err(|e| Error { message: format!("{who}: {}", e.message), ..e })?;
        match answer.status {
            200 => return Ok(answer.body),
            429 | 500.. => match pauses.next() {
                Some(pause) => clock::wait(pause),
                None => {
                    return Err(Error::unavailable(format!(
                        "{who} answers {}, it is tried again later",
                        answer.status
                    )));
                }
            },
            status => {
                let remedy = "may this job or machine ask for a token of its own?";
                return Err(Error::denied(format!("{who} refuses a token with {status}: {remedy}")));
            }
        }
    }
}

fn text(body: &[u8], key: &str) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    body[key].as_str().map(str::to_owned)
}

/// The token without white space around it, where it has the form of one: the cluster's own message would not say where it came from.
fn web_token(token: String) -> Result<String, Error> {
    let token = token.trim();
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte))
    };
    match token.split('.').count() == 3 && token.split('.').all(part) {
        true => Ok(token.to_owned()),
        false => Err(Error::denied("what the platform gave is no JSON web token: three parts, separated by dots")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tbot_sdk::ErrorKind;
    use tbot_sdk::host::http::Response;
    use tbot_sdk::testing::{Machine, call};

    const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln";

    fn prove(method: &str, config: &str, machine: Machine) -> (Result<Proof, Error>, Machine) {
        let attempt = Attempt { method: method.into(), token_name: "t".into(), challenge: None };
        machine.run(|| call::prove::<IdToken>(config, attempt))
    }

    fn answers(status: u16, body: String) -> Machine {
        Machine::default().server(move |_| Ok(Response { status, headers: vec![], body: body.clone().into() }))
    }

    #[test]
    fn every_variable_is_the_platforms_own() {
        for (method, config, name) in [
            ("bitbucket", "{}", "BITBUCKET_STEP_OIDC_TOKEN"),
            ("circleci", "{}", "CIRCLE_OIDC_TOKEN"),
            ("env0", "{}", "ENV0_OIDC_TOKEN"),
            ("gitlab", "{}", "TBOT_GITLAB_JWT"),
            ("gitlab", r#"{"token_env_var_name": "MINE"}"#, "MINE"),
            ("spacelift", "{}", "SPACELIFT_OIDC_TOKEN"),
            ("terraform_cloud", "{}", "TFC_WORKLOAD_IDENTITY_TOKEN"),
            ("terraform_cloud", r#"{"audience_tag": "BLUE"}"#, "TFC_WORKLOAD_IDENTITY_TOKEN_BLUE"),
        ] {
            let value = format!(" {JWT}\n");
            let (proof, _) = prove(method, config, Machine::default().environment(&[(name, value.as_str())]));
            assert_eq!(proof.unwrap(), Proof::IdToken(JWT.into()), "{method}");
            let refused = prove(method, config, Machine::default()).0.unwrap_err();
            assert_eq!(refused.kind, ErrorKind::Denied);
            assert!(refused.message.contains(&format!("`{name}` is not set: ")), "{}", refused.message);
            let secret = prove(method, config, Machine::default().environment(&[(name, "hunter2")])).0.unwrap_err();
            assert!(secret.message.contains("no JSON web token") && !secret.message.contains("hunter2"));
        }
    }

    #[test]
    fn a_pod_has_its_token_in_a_file() {
        let (proof, _) = prove("kubernetes", "{}", Machine::default().file(SERVICE_ACCOUNT, JWT));
        assert_eq!(proof.unwrap(), Proof::IdToken(JWT.into()));
        let elsewhere = Machine::default().environment(&[("KUBERNETES_TOKEN_PATH", "/t")]).file("/t", JWT);
        prove("kubernetes", "{}", elsewhere).0.unwrap();
        let refused = prove("kubernetes", "{}", Machine::default()).0.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unavailable);
        assert!(refused.message.ends_with("is mounted?"), "{}", refused.message);
    }

    #[test]
    fn platforms_that_make_a_token_on_demand_are_asked_as_they_want_it() {
        let variables =
            [("ACTIONS_ID_TOKEN_REQUEST_URL", "https://ci.example/t?v=2"), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "b")];
        let machine = answers(200, format!(r#"{{"value": "{JWT}"}}"#)).environment(&variables);
        let (proof, machine) = prove("github", "{}", machine);
        assert_eq!(proof.unwrap(), Proof::IdToken(JWT.into()));
        let asked = &machine.requests[0];
        assert_eq!(
            (asked.method.as_str(), asked.url.as_str()),
            ("GET", "https://ci.example/t?v=2&audience=teleport.cluster.local")
        );
        assert_eq!((asked.headers[0].name.as_str(), asked.headers[0].value.as_str()), ("Authorization", "Bearer b"));

        let variables = [("SYSTEM_OIDCREQUESTURI", "https://dev.example/o"), ("SYSTEM_ACCESSTOKEN", "b")];
        let machine = answers(200, format!(r#"{{"oidcToken": "{JWT}"}}"#)).environment(&variables);
        let (proof, machine) = prove("azure_devops", "{}", machine);
        assert_eq!(proof.unwrap(), Proof::IdToken(JWT.into()));
        let asked = &machine.requests[0];
        assert_eq!((asked.method.as_str(), asked.url.as_str()), ("POST", "https://dev.example/o?api-version=7.1"));

        let (proof, machine) = prove("gcp", "{}", answers(200, JWT.into()));
        assert_eq!(proof.unwrap(), Proof::IdToken(JWT.into()));
        assert_eq!(
            machine.requests[0].url,
            "http://169.254.169.254/computeMetadata/v1/instance/service-accounts/default/identity?audience=teleport.cluster.local&format=full&licenses=FALSE"
        );
        assert_eq!(machine.requests[0].headers[0].value, "Google");
    }

    #[test]
    fn a_platform_that_refuses_is_named_and_one_that_is_busy_asked_again() {
        let (refused, machine) = prove("gcp", "{}", answers(403, String::new()));
        assert!(refused.unwrap_err().message.contains("Google's metadata service refuses a token with 403"));
        assert_eq!(machine.requests.len(), 1);
        let (refused, machine) = prove("gcp", "{}", answers(503, String::new()));
        assert_eq!((refused.unwrap_err().kind, machine.requests.len()), (ErrorKind::Unavailable, 4));
        assert_eq!(prove("gcp", "{}", answers(200, "<html>".into())).0.unwrap_err().kind, ErrorKind::Denied);
        assert_eq!(prove("nonsense", "{}", Machine::default()).0.unwrap_err().kind, ErrorKind::Unsupported);
    }
}
