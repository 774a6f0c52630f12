//! Whom a token admits, besides those who know it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Platforms, VirtualMachine, aws};

/// How a token admits: its join method and its rules.
#[derive(Debug, Clone, Default)]
pub enum Allow {
    /// Method `token`: whoever knows the secret.
    #[default]
    Secret,
    /// Method `azure`: machines that one of these rules names.
    Azure(Vec<AzureRule>),
    /// Method `iam`: callers that one of these rules names.
    Iam(Vec<IamRule>),
    /// Every method whose evidence is a platform's token.
    IdToken(IdTokenRules),
}

/// Machines of one subscription.
#[derive(Debug, Clone, Default)]
pub struct AzureRule {
    /// Subscription.
    pub subscription: String,
    /// Resource groups; empty means all.
    pub resource_groups: Vec<String>,
}

/// Callers of one account.
#[derive(Debug, Clone, Default)]
pub struct IamRule {
    /// Account, twelve digits.
    pub account: String,
    /// ARN with `*` for any text; empty means all.
    pub arn: String,
}

/// Claims that a platform's token must hold.
#[derive(Debug, Clone, Default)]
pub struct IdTokenRules {
    /// The join method, `github` for instance.
    pub method: String,
    /// Who signs: an issuer among [`Platforms::issuers`].
    pub issuer: String,
    /// The claim `aud`; unset, it is what agents ask for: the cluster's name, or `teleport.cluster.local` (wire §c.3).
    pub audience: Option<String>,
    /// Each is a set of claims; one of them must fit whole.
    pub allow: Vec<BTreeMap<String, String>>,
}

impl Allow {
    /// The name on the wire.
    pub(crate) fn method(&self) -> &str {
        match self {
            Self::Secret => "token",
            Self::Azure(_) => "azure",
            Self::Iam(_) => "iam",
            Self::IdToken(rules) => &rules.method,
        }
    }
}

/// The recorded words for a machine that is what it says, and not admitted.
pub(crate) const NO_RULE: &str = "instance did not match any allow rules";

/// Does a rule name the machine?
pub(crate) fn check_azure(machine: &VirtualMachine, rules: &[AzureRule]) -> Result<()> {
    let admitted = rules.iter().any(|rule| {
        let mut groups = rule.resource_groups.iter();
        rule.subscription == machine.subscription
            && (rule.resource_groups.is_empty()
                || groups.any(|group| group.eq_ignore_ascii_case(&machine.resource_group)))
    });
    ensure!(admitted, NO_RULE);
    Ok(())
}

/// Does a rule name the caller?
pub(crate) fn check_iam(request: &[u8], challenge: &str, platforms: &Platforms, rules: &[IamRule]) -> Result<()> {
    let caller = aws::verify(request, challenge, &platforms.aws)?;
    let admitted =
        |rule: &IamRule| rule.account == caller.account && (rule.arn.is_empty() || fits(&rule.arn, &caller.arn));
    ensure!(rules.iter().any(admitted), NO_RULE);
    Ok(())
}

/// Does the platform's token hold what one of the rules asks for?
pub(crate) fn check_id_token(token: &str, platforms: &Platforms, rules: &IdTokenRules, cluster: &str) -> Result<()> {
    let method = &rules.method;
    let usual = if ["github", "gcp"].contains(&method.as_str()) { "teleport.cluster.local" } else { cluster };
    let issuer = platforms.issuers.iter().find(|issuer| issuer.url() == rules.issuer);
    let issuer = issuer.with_context(|| format!("the cluster does not know the issuer {:?}", rules.issuer))?;
    let claims = issuer.verify(token, rules.audience.as_deref().unwrap_or(usual))?;
    let holds = |(name, wanted): (&String, &String)| match &claims[name.as_str()] {
        Value::String(text) => text == wanted,
        other => serde_json::to_string(other).is_ok_and(|text| text == *wanted),
    };
    let admitted = rules.allow.iter().any(|rule| rule.iter().all(holds));
    let what = if method == "kubernetes" { "kubernetes token" } else { "id token claims" };
    ensure!(admitted, "{what} did not match any allow rules");
    Ok(())
}

/// What a cluster says of a join without a platform's token, in the words of each method.
pub(crate) fn no_id_token(method: &str) -> String {
    let (what, method) = match method {
        "github" => ("IDToken", "Github"),
        "gcp" => ("IDToken", "GCP"),
        "kubernetes" => ("IDToken", "Kubernetes"),
        "circleci" => ("IDToken", "\"circleci\""),
        "spacelift" => ("id_token", "spacelift"),
        other => ("IDToken", other),
    };
    format!("{what} not provided for {method} join request")
}

/// `*` stands for any text.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|tail| {
            (0..=tail.len()).filter(|&at| tail.is_char_boundary(at)).any(|at| fits(rest, &tail[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        assert!(fits("arn:aws:sts::1:assumed-role/builder/*", "arn:aws:sts::1:assumed-role/builder/i-07"));
        assert!(fits("*", "") && fits("a*c", "abbc") && fits("a*b*", "ab"));
        assert!(!fits("a*c", "ab") && !fits("a", "ab"));
    }

    #[test]
    fn a_resource_group_is_named_in_any_case() {
        let [subscription, resource_group, name, id] = ["s", "Group", "vm", "id"].map(str::to_owned);
        let machine = VirtualMachine { subscription, resource_group, name, id };
        let rule = |subscription: &str, groups: &[&str]| AzureRule {
            subscription: subscription.to_owned(),
            resource_groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        };
        assert!(check_azure(&machine, &[rule("x", &[]), rule("s", &["a", "group"])]).is_ok());
        assert!(check_azure(&machine, &[rule("s", &[])]).is_ok());
        assert!(check_azure(&machine, &[rule("s", &["a"]), rule("x", &["group"])]).is_err());
        assert!(check_azure(&machine, &[]).is_err());
    }
}
