use identity::JOIN_METHODS;
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::mistake::{Place, Report};
use crate::onboarding::{Onboarding, method_key};
use crate::{ServerAddress, ServerKind};

/// What `join_uri` or `--join-uri` says: the address and the way to join in one (surface §B.7).
/// `tbot+proxy+<method>://<token>[:<parameter>]@<host>:<port>`, or `tbot+auth+…`; `-` in a method stands for `_`.
///
/// A mistake quotes nothing of it but method and address: it holds the token.
pub(crate) fn read(text: &str, place: &Place, report: &mut Report) -> Option<(ServerAddress, Onboarding)> {
    let form = "not a join URI: write `tbot+proxy+<method>://<token>@<host>:<port>`, as `tctl` shows it";
    let parts = || {
        let (scheme, rest) = text.split_once("://")?;
        let (kind, method) = scheme.strip_prefix("tbot+")?.split_once('+')?;
        let kind = match kind {
            "proxy" => ServerKind::Proxy,
            // As `auth_server`, which the same configuration printed has.
            "auth" => ServerKind::Either,
            _ => return None,
        };
        let (user, address) = rest.rsplit_once('@')?;
        let (token, parameter) = user.split_once(':').map_or((user, None), |(token, more)| (token, Some(more)));
        let parameter = parameter.map(decoded).unwrap_or_else(|| Some(Zeroizing::default()))?;
        let token = decoded(token)?;
        (!method.is_empty() && !token.is_empty()).then_some((kind, named(method), token, parameter, address))
    };
    let Some((kind, method, token, parameter, address)) = parts() else {
        report.mistake(place, form);
        return None;
    };
    let address = match ServerAddress::parse(address, kind) {
        Ok(address) => address,
        Err(message) => {
            report.mistake(place, message);
            return None;
        }
    };
    let mut onboarding = Onboarding::of_flags(&method, Some(&token), &[], report);
    if !parameter.is_empty() {
        let Some(key) = parameter_key(&method) else {
            report.mistake(
                place,
                format!("join method `{method}` takes no parameter: remove `:` and what follows it up to `@`"),
            );
            return None;
        };
        onboarding.method_config = serde_json::json!({ key: parameter.as_str() });
    }
    Some((address, onboarding))
}

/// The method that a scheme names: its `_` cannot stand there, and is a `-` or missing.
fn named(scheme: &str) -> String {
    let bare = |method: &&&str| method.replace('_', "") == scheme.replace('-', "");
    JOIN_METHODS.iter().find(bare).map_or_else(|| scheme.replace('-', "_"), |method| (*method).to_owned())
}

/// What the parameter of a method means, as a key of `onboarding.<method>`.
fn parameter_key(method: &str) -> Option<&'static str> {
    match method_key(method) {
        "azure" => Some("client_id"),
        "gitlab" => Some("token_env_var_name"),
        "terraform" => Some("audience_tag"),
        "bound_keypair" => Some("registration_secret"),
        _ => None,
    }
}

/// Undoes `%41`; `None` where the result is no UTF-8.
fn decoded(text: &str) -> Option<Zeroizing<String>> {
    percent_decode_str(text).decode_utf8().ok().map(|text| Zeroizing::new(text.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Token;

    fn parsed(text: &str) -> Result<(ServerAddress, Onboarding), String> {
        let mut report = Report::default();
        let read = read(text, &Place::flag("--join-uri"), &mut report);
        read.ok_or_else(|| report.mistakes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn reads_each_part() {
        let (address, onboarding) = parsed("tbot+proxy+bound-keypair://na%3Ame:a%40b@p.example.com:443").unwrap();
        assert_eq!((address.kind, address.text.as_str()), (ServerKind::Proxy, "p.example.com:443"));
        assert_eq!(onboarding.join_method, "bound_keypair");
        assert_eq!(onboarding.token, Some(Token::Literal(Zeroizing::new("na:me".to_owned()))));
        assert_eq!(onboarding.method_config, serde_json::json!({"registration_secret": "a@b"}));
        for (scheme, method) in
            [("terraformcloud", "terraform_cloud"), ("azure-devops", "azure_devops"), ("iam", "iam")]
        {
            assert_eq!(parsed(&format!("tbot+proxy+{scheme}://t@a:1")).unwrap().1.join_method, method);
        }
        let (address, onboarding) = parsed("tbot+auth+token://t@[::1]:3025").unwrap();
        assert_eq!((address.kind, address.port), (ServerKind::Either, Some(3025)));
        assert_eq!((onboarding.join_method.as_str(), onboarding.method_config.to_string().as_str()), ("token", "{}"));
    }

    #[test]
    fn a_mistake_quotes_no_token() {
        for text in [
            "",
            "tbot+proxy+token://@a:1",
            "tbot+proxy+token://hunter2",
            "tbot+proxy+token://hunter2@a:b",
            "tbot+proxy+token://hunter2:more@a:1",
            "tbot+other+token://hunter2@a:1",
            "tbot+proxy://hunter2@a:1",
            "tbot+proxy+token://hunter2%ff@a:1",
            "https://hunter2@a:1",
        ] {
            let message = parsed(text).expect_err(text);
            assert!(message.starts_with("--join-uri: ") && !message.contains("hunter2"), "{text}: {message}");
        }
    }
}
