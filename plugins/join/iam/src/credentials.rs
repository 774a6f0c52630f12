//! Where AWS puts credentials: environment, web identity, a profile's files, container, instance, in this order.

use std::fmt::Write as _;

use tbot_sdk::Error;
use tbot_sdk::host::{clock, http, input};

use crate::profile::Profile;
use crate::signature::endpoint;

/// Where every instance finds its metadata service.
const INSTANCE: &str = "http://169.254.169.254";
/// Where ECS has a task's credentials.
const CONTAINER: &str = "http://169.254.170.2";

/// Pauses before an answer "not now" is asked for again, milliseconds: four requests have to fit the deadline of 10 s.
const PAUSES: [u32; 2] = [500, 1500];

/// An access key. Never shown.
#[derive(Clone, serde::Deserialize)]
pub(crate) struct Credentials {
    #[serde(rename = "AccessKeyId")]
    pub(crate) id: String,
    #[serde(rename = "SecretAccessKey")]
    pub(crate) secret: String,
    #[serde(rename = "Token", alias = "SessionToken", default)]
    pub(crate) session: String,
}

/// The credentials, and the region to sign for.
pub(crate) fn find() -> Result<(Credentials, String), Error> {
    let profile = Profile::read()?;
    let region = [variable("AWS_REGION")?, variable("AWS_DEFAULT_REGION")?].into_iter().flatten().next();
    let mut known = environment()?;
    if known.is_none() {
        known = web_identity(region.as_deref())?;
    }
    if known.is_none() {
        known = profile.credentials()?;
    }
    if known.is_none() {
        known = container()?;
    }
    let (credentials, region) = match (known, region.or(profile.region)) {
        (Some(credentials), Some(region)) => (credentials, region),
        (Some(credentials), None) => (credentials, Instance::new()?.region()?),
        (None, region) => {
            let instance = Instance::new()?;
            (instance.credentials()?, region.map_or_else(|| instance.region(), Ok)?)
        }
    };
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain(&credentials.id) || !plain(&credentials.session) || credentials.id.is_empty() {
        return Err(Error::denied("the credentials that AWS gave cannot be sent in a header"));
    }
    check_region(&region)?;
    Ok((credentials, region))
}

fn check_region(region: &str) -> Result<(), Error> {
    match !region.is_empty() && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        true => Ok(()),
        false => Err(Error::invalid_config("the region is no name of one: correct `AWS_REGION`, such as `eu-west-1`")),
    }
}

pub(crate) fn variable(name: &str) -> Result<Option<String>, Error> {
    Ok(input::environment(name)?.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()))
}

fn environment() -> Result<Option<Credentials>, Error> {
    let Some(id) = variable("AWS_ACCESS_KEY_ID")? else { return Ok(None) };
    let missing = || Error::denied("`AWS_ACCESS_KEY_ID` is set without `AWS_SECRET_ACCESS_KEY`: set both or none");
    let secret = variable("AWS_SECRET_ACCESS_KEY")?.ok_or_else(missing)?;
    Ok(Some(Credentials { id, secret, session: variable("AWS_SESSION_TOKEN")?.unwrap_or_default() }))
}

/// The role that a token of the platform stands for, as EKS gives a pod one: the region's own endpoint trades it, unsigned.
fn web_identity(region: Option<&str>) -> Result<Option<Credentials>, Error> {
    let Some(path) = variable("AWS_WEB_IDENTITY_TOKEN_FILE")? else { return Ok(None) };
    let missing = |name| Error::denied(format!("`AWS_WEB_IDENTITY_TOKEN_FILE` is set without `{name}`: set both"));
    let role = variable("AWS_ROLE_ARN")?.ok_or_else(|| missing("AWS_ROLE_ARN"))?;
    let region = region.ok_or_else(|| missing("AWS_REGION"))?;
    check_region(region)?;
    let token = input::file(&path)?;
    let session = variable("AWS_ROLE_SESSION_NAME")?.unwrap_or_else(|| "tbot".to_owned());
    let headers = [("Accept", "application/json"), ("Content-Type", "application/x-www-form-urlencoded")];
    let mut request = http::request("POST", format!("https://{}/", endpoint(region)), &headers);
    let (role, session) = (form(role.as_bytes()), form(session.as_bytes()));
    request.body = format!(
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={role}&RoleSessionName={session}&WebIdentityToken={}",
        form(token.trim_ascii())
    )
    .into_bytes();
    let body = ask("AWS", &request, "does the role of `AWS_ROLE_ARN` trust the issuer and subject of this token?")?;
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let found = answer.pointer("/AssumeRoleWithWebIdentityResponse/AssumeRoleWithWebIdentityResult/Credentials");
    read(&found.map(ToString::to_string).unwrap_or_default(), "AWS").map(Some)
}

/// A value in a form (`application/x-www-form-urlencoded`).
fn form(value: &[u8]) -> String {
    value.iter().fold(String::new(), |mut text, byte| {
        let _ = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                write!(text, "{}", char::from(*byte))
            }
            _ => write!(text, "%{byte:02X}"),
        };
        text
    })
}

fn container() -> Result<Option<Credentials>, Error> {
    let relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")?.map(|path| format!("{CONTAINER}{path}"));
    let Some(url) = relative.map_or_else(|| variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"), |url| Ok(Some(url)))?
    else {
        return Ok(None);
    };
    let token = match variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")? {
        Some(path) => Some(String::from_utf8_lossy(&input::file(&path)?).trim().to_owned()),
        None => variable("AWS_CONTAINER_AUTHORIZATION_TOKEN")?,
    };
    let headers: Vec<_> = token.iter().map(|token| ("Authorization", token.as_str())).collect();
    let body = ask("the container's endpoint", &http::request("GET", url, &headers), "does the task have a role?")?;
    read(&body, "the container's endpoint").map(Some)
}

fn read(body: &str, who: &str) -> Result<Credentials, Error> {
    serde_json::from_str(body).map_err(|_| Error::unavailable(format!("{who} answered without credentials")))
}

/// The metadata service of an instance, version 2: a session first.
struct Instance {
    service: String,
    token: String,
}

impl Instance {
    fn new() -> Result<Self, Error> {
        let service = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT")?.unwrap_or_else(|| INSTANCE.to_owned());
        let service = service.trim_end_matches('/').to_owned();
        let life = [("X-aws-ec2-metadata-token-ttl-seconds", "60")];
        let request = http::request("PUT", format!("{service}/latest/api/token"), &life);
        let remedy = "on another machine set `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_REGION`";
        let token = ask("the metadata service", &request, remedy)?;
        Ok(Self { service, token })
    }

    fn get(&self, path: &str, remedy: &str) -> Result<String, Error> {
        let headers = [("X-aws-ec2-metadata-token", self.token.as_str())];
        let request = http::request("GET", format!("{}/latest/meta-data/{path}", self.service), &headers);
        ask("the metadata service", &request, remedy)
    }

    fn credentials(&self) -> Result<Credentials, Error> {
        let remedy = "attach a role to the instance";
        let roles = self.get("iam/security-credentials/", remedy)?;
        let role = roles.lines().next().unwrap_or_default();
        read(&self.get(&format!("iam/security-credentials/{role}"), remedy)?, "the metadata service")
    }

    fn region(&self) -> Result<String, Error> {
        self.get("placement/region", "set `AWS_REGION`")
    }
}

/// The body of a successful answer, without white space around it.
fn ask(who: &str, request: &http::Request, remedy: &str) -> Result<String, Error> {
    let mut pauses = PAUSES.into_iter();
    loop {
        let answer = http::send(request)
            .map_err(|e| Error { message: format!("{who} does not answer: {}: {remedy}", e.message), ..e })?;
        match answer.status {
            200 => return Ok(String::from_utf8_lossy(&answer.body).trim().to_owned()),
            status @ (429 | 500..) => match pauses.next() {
                Some(pause) => clock::wait(pause),
                None => return Err(Error::unavailable(format!("{who} answers {status}, it is tried again later"))),
            },
            status => return Err(Error::denied(format!("{who} refuses with {status}: {remedy}"))),
        }
    }
}
