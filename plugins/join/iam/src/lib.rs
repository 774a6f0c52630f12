//! Join method `iam`: a signed `sts:GetCallerIdentity` request that holds the cluster's challenge (wire §c.3).

mod credentials;
mod profile;
mod signature;

use tbot_sdk::{Attempt, Error, Join, Method, Opening, Proof};

use signature::{Request, stamp};

/// No keys of its own: everything comes from where AWS puts it.
#[derive(serde::Deserialize)]
struct Config {}

struct Iam;

impl Join for Iam {
    type Config = Config;
    const METHODS: &'static [Method] = &[Method { name: "iam", keys: &[], opening: Opening::Challenge }];

    fn prove(_: &Config, attempt: &Attempt) -> Result<Proof, Error> {
        let challenge =
            attempt.challenge.as_deref().filter(|challenge| challenge.bytes().all(|b| b.is_ascii_graphic()));
        let challenge = challenge.ok_or_else(|| Error::denied("the cluster sent no challenge that can be a header"))?;
        let (credentials, region) = credentials::find()?;
        let now = stamp(tbot_sdk::host::clock::now());
        Ok(Proof::Iam(Request::caller_identity(&region, &credentials, challenge).signed(
            &credentials,
            &region,
            "sts",
            &now,
        )))
    }
}

tbot_sdk::export_join!(Iam);

#[cfg(test)]
mod tests {
    use super::*;
    use tbot_sdk::ErrorKind;
    use tbot_sdk::host::http::{self, Response};
    use tbot_sdk::testing::{Machine, call};

    const KEYS: &str = r#"{"AccessKeyId": "ASIA", "SecretAccessKey": "s3cret", "Token": "session"}"#;

    fn prove(challenge: Option<&str>, machine: Machine) -> (Result<String, Error>, Machine) {
        let attempt = Attempt { method: "iam".into(), token_name: "t".into(), challenge: challenge.map(str::to_owned) };
        let (proof, machine) = machine.run(|| call::prove::<Iam>("{}", attempt));
        let text = proof.map(|proof| match proof {
            Proof::Iam(request) => String::from_utf8(request).unwrap(),
            other => panic!("{other:?}"),
        });
        (text, machine)
    }

    fn answer(status: u16, body: &str) -> Result<Response, Error> {
        Ok(Response { status, headers: vec![], body: body.into() })
    }

    fn instance(request: &http::Request) -> Result<Response, Error> {
        let path = request.url.strip_prefix("http://169.254.169.254/latest/").unwrap();
        let token =
            request.headers.iter().any(|header| header.name == "X-aws-ec2-metadata-token" && header.value == "t0ken");
        match (request.method.as_str(), path) {
            ("PUT", "api/token") => answer(200, "t0ken"),
            ("GET", _) if !token => answer(401, ""),
            ("GET", "meta-data/iam/security-credentials/") => answer(200, "role\n"),
            ("GET", "meta-data/iam/security-credentials/role") => answer(200, KEYS),
            ("GET", "meta-data/placement/region") => answer(200, "eu-west-1"),
            _ => answer(404, ""),
        }
    }

    #[test]
    fn credentials_of_the_environment_sign_the_challenge() {
        let variables =
            [("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "s3cret"), ("AWS_REGION", "us-west-2")];
        let (request, machine) = prove(Some("challenge"), Machine::default().environment(&variables));
        let request = request.unwrap();
        assert!(request.starts_with("POST / HTTP/1.1\r\n"), "{request}");
        for line in [
            "host: sts.us-west-2.amazonaws.com",
            "accept: application/json",
            "content-length: 43",
            "x-amz-date: 19700101T000000Z",
            "x-teleport-challenge: challenge",
        ] {
            assert!(request.contains(&format!("{line}\r\n")), "{line} in {request}");
        }
        let names = "SignedHeaders=accept;content-length;content-type;host;x-amz-date;x-teleport-challenge, ";
        assert!(request.contains("Credential=AKID/19700101/us-west-2/sts/aws4_request, ") && request.contains(names));
        assert!(request.ends_with("\r\n\r\nAction=GetCallerIdentity&Version=2011-06-15"));
        assert!(!request.contains("s3cret") && machine.requests.is_empty());
    }

    #[test]
    fn an_instance_gets_them_of_its_role() {
        let (request, machine) = prove(Some("c"), Machine::default().server(instance));
        let request = request.unwrap();
        assert!(
            request.contains("host: sts.eu-west-1.amazonaws.com\r\n")
                && request.contains("x-amz-security-token: session\r\n")
        );
        assert_eq!(machine.requests.len(), 4);
    }

    #[test]
    fn a_container_gets_them_of_its_endpoint() {
        let ecs = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/1"), ("AWS_REGION", "cn-north-1")];
        let machine = Machine::default().environment(&ecs).server(|_| answer(200, KEYS));
        let (request, machine) = prove(Some("c"), machine);
        assert!(request.unwrap().contains("host: sts.cn-north-1.amazonaws.com.cn\r\n"));
        assert_eq!(machine.requests[0].url, "http://169.254.170.2/v2/credentials/1");
        let eks = [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/t"),
            ("AWS_REGION", "us-east-1"),
        ];
        let machine = Machine::default().environment(&eks).file("/t", "jwt\n").server(|_| answer(200, KEYS));
        let (request, machine) = prove(Some("c"), machine);
        request.unwrap();
        assert_eq!(machine.requests[0].headers[0].value, "jwt");
    }

    #[test]
    fn a_pod_trades_its_token_for_a_role() {
        let pod = [
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"),
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/bot"),
            ("AWS_REGION", "eu-west-1"),
        ];
        let machine = || Machine::default().environment(&pod).file("/t", "head.pay_load.sign-ature\n");
        let keys = KEYS.replace("Token", "SessionToken");
        let body = format!(
            r#"{{"AssumeRoleWithWebIdentityResponse": {{"AssumeRoleWithWebIdentityResult": {{"Credentials": {keys}}}}}}}"#
        );
        let (request, machine_after) = prove(Some("c"), machine().server(move |_| answer(200, &body)));
        let request = request.unwrap();
        assert!(request.contains("Credential=ASIA/") && request.contains("x-amz-security-token: session\r\n"));
        let asked = &machine_after.requests[0];
        assert_eq!((asked.method.as_str(), asked.url.as_str()), ("POST", "https://sts.eu-west-1.amazonaws.com/"));
        let form = String::from_utf8(asked.body.clone()).unwrap();
        for part in [
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&",
            "&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fbot&",
            "&WebIdentityToken=head.pay_load.sign-ature",
        ] {
            assert!(form.contains(part), "{part} in {form}");
        }
        let refused = prove(Some("c"), machine().server(|_| answer(403, "{}"))).0.unwrap_err();
        assert!(refused.message.contains("AWS refuses with 403: does the role"), "{}", refused.message);
        let other = prove(Some("c"), machine().server(|_| answer(200, KEYS))).0.unwrap_err();
        assert_eq!(other.kind, ErrorKind::Unavailable);
        for (name, value) in [("AWS_ROLE_ARN", ""), ("AWS_REGION", ""), ("AWS_REGION", "x.evil.example/")] {
            let broken = machine().environment(&[(name, value)]).server(|_| panic!("asked for nothing"));
            let refused = prove(Some("c"), broken).0.unwrap_err();
            assert!(refused.message.contains(name), "{}", refused.message);
        }
    }

    const HOME: (&str, &str) = ("HOME", "/home/bot");

    fn profiles(variables: &[(&str, &str)]) -> Machine {
        let credentials = "[default]\naws_access_key_id = DEFAULT\naws_secret_access_key=s3cret\n# a = b\n[ci]\n\
            aws_access_key_id=CI\naws_secret_access_key=s3cret\naws_session_token = session\n[role]\nregion=x-1\n";
        let config = "[default]\nregion = eu-west-1\n\n[profile ci]\nregion=eu-west-2\n[ci]\nregion=no-1\n";
        let machine = Machine::default().environment(&[HOME]).environment(variables);
        machine.file("/home/bot/.aws/credentials", credentials).file("/home/bot/.aws/config", config)
    }

    #[test]
    fn a_profile_has_keys_and_a_region() {
        for (variables, key, region) in [
            (&[][..], "DEFAULT", "eu-west-1"),
            (&[("AWS_PROFILE", "ci")], "CI", "eu-west-2"),
            (&[("AWS_PROFILE", "ci"), ("AWS_REGION", "us-east-1")], "CI", "us-east-1"),
            (&[("AWS_ACCESS_KEY_ID", "ENV"), ("AWS_SECRET_ACCESS_KEY", "s")], "ENV", "eu-west-1"),
        ] {
            let (request, machine) = prove(Some("c"), profiles(variables));
            let request = request.unwrap();
            assert!(request.contains(&format!("Credential={key}/19700101/{region}/sts/aws4_request")), "{request}");
            assert_eq!(request.contains("x-amz-security-token: session\r\n"), key == "CI");
            assert!(machine.requests.is_empty());
        }
        let elsewhere = [("AWS_SHARED_CREDENTIALS_FILE", "/c"), ("AWS_REGION", "us-east-1")];
        let machine = profiles(&elsewhere).file("/c", "[default]\naws_access_key_id=C\naws_secret_access_key=s\n");
        assert!(prove(Some("c"), machine).0.unwrap().contains("Credential=C/"));
        for profile in ["role", "missing"] {
            let refused = prove(Some("c"), profiles(&[("AWS_PROFILE", profile)])).0.unwrap_err();
            assert!(refused.message.contains(&format!("profile `{profile}` has no")), "{}", refused.message);
        }
        let gone = prove(Some("c"), profiles(&[("AWS_CONFIG_FILE", "/gone")])).0.unwrap_err();
        assert!(gone.message.starts_with("`AWS_CONFIG_FILE`: "), "{}", gone.message);
    }

    #[test]
    fn not_now_is_asked_again_and_not_for_ever() {
        for status in [429, 500, 503] {
            let mut left = 2;
            let (request, machine) = prove(
                Some("c"),
                Machine::default().server(move |request| {
                    left -= i32::from(left > 0);
                    if left > 0 { answer(status, "") } else { instance(request) }
                }),
            );
            request.unwrap();
            assert_eq!((machine.requests.len(), machine.milliseconds), (5, 500), "{status}");
        }
        let (refused, machine) = prove(Some("c"), Machine::default().server(|_| answer(429, "")));
        let refused = refused.unwrap_err();
        assert_eq!((refused.kind, machine.requests.len()), (ErrorKind::Unavailable, 3));
        assert!(refused.message.contains("answers 429"), "{}", refused.message);
    }

    #[test]
    fn refusals_name_cause_and_remedy() {
        let refused = |machine: Machine| prove(Some("c"), machine).0.unwrap_err();
        let nowhere = refused(Machine::default());
        assert_eq!(nowhere.kind, ErrorKind::Unavailable);
        assert!(nowhere.message.contains("AWS_ACCESS_KEY_ID"), "{}", nowhere.message);
        let roleless =
            refused(Machine::default().server(|r| if r.method == "PUT" { answer(200, "t") } else { answer(404, "") }));
        assert!(roleless.message.contains("attach a role"), "{}", roleless.message);
        let half = [("AWS_ACCESS_KEY_ID", "AKID")];
        assert!(refused(Machine::default().environment(&half)).message.contains("`AWS_SECRET_ACCESS_KEY`"));
        let region = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_REGION", "x.evil.example/")];
        assert_eq!(refused(Machine::default().environment(&region)).kind, ErrorKind::InvalidConfig);
        let injected =
            [("AWS_ACCESS_KEY_ID", "A\r\nx: y"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_REGION", "us-east-1")];
        assert_eq!(refused(Machine::default().environment(&injected)).kind, ErrorKind::Denied);
        for challenge in [None, Some("a\r\nb: c"), Some("a b")] {
            assert_eq!(prove(challenge, Machine::default()).0.unwrap_err().kind, ErrorKind::Denied);
        }
    }
}
