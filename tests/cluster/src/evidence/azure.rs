//! Azure: documents that a virtual machine attests itself with, and tokens of its managed identity (wire §c.1).

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use der::Decode;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};
use x509_cert::Certificate;

use super::{jwt::TokenIssuer, pkcs7};
use crate::pki::{
    private_key::PrivateKey,
    subject::{COMMON_NAME, Name, Subject},
    x509::{self, BACKDATE, Purpose, Template},
};

/// What access tokens are for.
const AUDIENCE: &str = "https://management.azure.com/";
/// Life of a document.
const LIFE: Duration = Duration::from_secs(6 * 3600);
/// Where issuers of a document's signer may be found; nothing else is asked (wire §d.4).
const ISSUERS: &str = "http://www.microsoft.com/pkiops/certs/Stand-in%20Issuing%20CA.crt";
/// `11/21/26 02:38:55 -0000` (recorded).
const STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[month]/[day]/[year repr:last_two] [hour]:[minute]:[second] -0000");

/// A cloud with its own root, one authority below it, and one tenant.
#[derive(Debug)]
pub struct AzureCloud {
    root: Vec<u8>,
    intermediate: Vec<u8>,
    signer: (Vec<u8>, PrivateKey),
    tenant: TokenIssuer,
    machines: Vec<VirtualMachine>,
}

/// A virtual machine as the resource manager knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualMachine {
    /// Subscription, a UUID.
    pub subscription: String,
    /// Resource group.
    pub resource_group: String,
    /// Name.
    pub name: String,
    /// `vmId`, a UUID.
    pub id: String,
}

impl VirtualMachine {
    /// What a system-assigned identity's token names.
    #[must_use]
    pub fn resource_id(&self) -> String {
        let Self { subscription, resource_group, name, .. } = self;
        format!(
            "/subscriptions/{subscription}/resourcegroups/{resource_group}/providers/Microsoft.Compute/virtualMachines/{name}"
        )
    }
}

impl AzureCloud {
    /// A cloud with these machines.
    ///
    /// # Errors
    /// When keys cannot be made.
    pub fn new(machines: Vec<VirtualMachine>) -> Result<Self> {
        let (root, issuing, signer) = (PrivateKey::rsa()?, PrivateKey::rsa()?, PrivateKey::rsa()?);
        let names = ["Stand-in Root", "Stand-in Issuing CA", "metadata.azure.com"].map(name);
        let [root_name, issuing_name, signer_name] = names;
        let (root_name, issuing_name) = (root_name?, issuing_name?);
        let certificate = |subject: &Name, issuer: &Name, key: &PrivateKey, by: &PrivateKey, purpose| {
            let (now, serial) = (SystemTime::now(), rand::random());
            let template = Template {
                serial,
                subject: subject.clone(),
                issuer: issuer.clone(),
                key: key.public(),
                not_before: now - BACKDATE,
                not_after: now + 24 * LIFE,
                purpose,
            };
            x509::sign(template, by)
        };
        let leaf = Purpose::DocumentSigner { issuer: issuing.public(), issuers_at: ISSUERS };
        Ok(Self {
            root: certificate(&root_name, &root_name, &root, &root, Purpose::Authority)?,
            intermediate: certificate(&issuing_name, &root_name, &issuing, &root, Purpose::Authority)?,
            signer: (certificate(&signer_name?, &issuing_name, &signer, &issuing, leaf)?, signer),
            tenant: TokenIssuer::new(&format!("https://sts.windows.net/{}/", crate::state::uuid()))?,
            machines,
        })
    }

    /// DER of the root.
    #[must_use]
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// DER of the authority between the documents' signer and the root: what clients of `teleport.join.v1` look for on the
    /// web and send along.
    #[must_use]
    pub fn intermediate(&self) -> &[u8] {
        &self.intermediate
    }

    /// What the metadata service answers to a nonce: `{"encoding":"pkcs7","signature":"…"}`.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn attested_document(&self, machine: &VirtualMachine, nonce: &str) -> Result<String> {
        let now = SystemTime::now();
        let content = json!({
            "licenseType": "", "nonce": nonce, "plan": { "name": "", "product": "", "publisher": "" },
            "sku": "22_04-lts", "subscriptionId": machine.subscription,
            "timestamp": { "createdOn": stamp(now)?, "expiresOn": stamp(now + LIFE)? }, "vmId": machine.id,
        });
        let signed = pkcs7::sign(content.to_string().as_bytes(), &self.signer.0, &self.signer.1)?;
        Ok(json!({ "encoding": "pkcs7", "signature": STANDARD.encode(signed) }).to_string())
    }

    /// An access token of the managed identity with this resource id.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn access_token(&self, resource_id: &str) -> Result<String> {
        self.access_token_with(resource_id, json!({}))
    }

    /// The same with other claims, to be refused.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn access_token_with(&self, resource_id: &str, other: Value) -> Result<String> {
        let tenant = self.tenant.url().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let mut claims = json!({ "aud": AUDIENCE, "tid": tenant, "ver": "1.0", "xms_mirid": resource_id });
        for (name, value) in other.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        self.tenant.sign(claims)
    }

    /// The machine that document and token prove; `intermediate` is what the client sent along, where it had to.
    pub(crate) fn verify(
        &self,
        challenge: &str,
        document: &[u8],
        intermediate: Option<&[u8]>,
        access_token: &str,
    ) -> Result<VirtualMachine> {
        let now = SystemTime::now();
        let document: Value = serde_json::from_slice(document).context("the attested document is not JSON")?;
        ensure!(document["encoding"] == "pkcs7", "the attested document's encoding is {}", document["encoding"]);
        let signed = STANDARD.decode(document["signature"].as_str().unwrap_or_default())?;
        let opened = pkcs7::open(&signed)?;
        let between = pkcs7::split(intermediate.unwrap_or(&self.intermediate))?;
        let root = Certificate::from_der(&self.root)?;
        let sent_root = between.contains(&root);
        ensure!(!sent_root, "the root must not be among the intermediate certificates");
        pkcs7::trace(&opened.signer, &between, &[root], now).context("the attested document")?;
        let content: Value = serde_json::from_slice(&opened.content).context("the attested content is not JSON")?;
        ensure!(content["nonce"] == challenge, "the nonce in the attested document does not match the challenge");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        ensure!(now < end(&text(&content["timestamp"]["expiresOn"]))?, "the attested document has expired");
        let claims = self.tenant.verify(access_token, AUDIENCE).context("the access token")?;
        ensure!(!text(&claims["tid"]).is_empty() && !text(&claims["ver"]).is_empty(), "the access token lacks claims");
        let identity = text(&claims["xms_mirid"]);
        let (id, subscription) = (text(&content["vmId"]), text(&content["subscriptionId"]));
        // A system-assigned identity names its machine, any other one is in the machine's subscription.
        let found = self.machines.iter().find(|machine| machine.id == id && machine.subscription == subscription);
        let found = found.with_context(|| format!("no virtual machine found with vmId {id:?}"))?;
        let of_machine = identity.contains("/providers/Microsoft.Compute/virtualMachines/");
        let owns = match of_machine {
            true => identity.eq_ignore_ascii_case(&found.resource_id()),
            false => identity.starts_with(&format!("/subscriptions/{subscription}/")),
        };
        ensure!(owns, "the access token's identity {identity:?} is not of the attested machine");
        Ok(found.clone())
    }
}

fn name(common: &str) -> Result<Name> {
    Ok(Subject::default().with(COMMON_NAME, [common])?.name())
}

fn stamp(at: SystemTime) -> Result<String> {
    Ok(OffsetDateTime::from(at).format(STAMP)?)
}

fn end(stamp: &str) -> Result<SystemTime> {
    let (month, rest) = stamp.split_once('/').context("the document's end")?;
    let (day, rest) = rest.split_once('/').context("the document's end")?;
    let (year, rest) = rest.split_once(' ').context("the document's end")?;
    let clock = rest.strip_suffix(" -0000").context("the document's end")?;
    Ok(format!("20{year}-{month}-{day}T{clock}Z").parse::<prost_types::Timestamp>()?.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> VirtualMachine {
        let [subscription, resource_group, name, id] = ["sub", "group", "vm", "id"].map(str::to_owned);
        VirtualMachine { subscription, resource_group, name, id }
    }

    #[test]
    fn only_this_machines_own_evidence_for_this_challenge_is_accepted() {
        let cloud = AzureCloud::new(vec![machine()]).unwrap();
        let other = AzureCloud::new(vec![machine()]).unwrap();
        let document = cloud.attested_document(&machine(), "nonce").unwrap();
        let token = cloud.access_token(&machine().resource_id()).unwrap();
        let verify = |document: &str, between: Option<&[u8]>, token: &str| {
            cloud.verify("nonce", document.as_bytes(), between, token).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(verify(&document, None, &token), Ok(machine()));
        assert_eq!(verify(&document, Some(cloud.intermediate()), &token), Ok(machine()));
        let user = "/subscriptions/sub/resourcegroups/x/providers/Microsoft.ManagedIdentity/userAssignedIdentities/y";
        assert_eq!(verify(&document, None, &cloud.access_token(user).unwrap()), Ok(machine()));

        let elsewhere = VirtualMachine { id: "elsewhere".to_owned(), ..machine() };
        let neighbour = VirtualMachine { name: "neighbour".to_owned(), ..machine() };
        let with_root = [cloud.intermediate(), cloud.root()].concat();
        let touched = {
            let mut json: Value = serde_json::from_str(&document).unwrap();
            let mut der = STANDARD.decode(json["signature"].as_str().unwrap()).unwrap();
            let at = der.windows(5).position(|bytes| bytes == b"nonce").unwrap() + 9;
            der[at] ^= 1;
            json["signature"] = STANDARD.encode(der).into();
            json.to_string()
        };
        let made = |nonce, machine| cloud.attested_document(&machine, nonce).unwrap();
        let cases: Vec<(String, Option<&[u8]>, String, &str)> = vec![
            (made("other", machine()), None, token.clone(), "nonce"),
            (made("nonce", elsewhere), None, token.clone(), "vmId"),
            (other.attested_document(&machine(), "nonce").unwrap(), None, token.clone(), "no issuer"),
            (document.clone(), Some(&[]), token.clone(), "no issuer"),
            (document.clone(), Some(&with_root), token.clone(), "must not be among"),
            (touched, None, token.clone(), "signature"),
            ("{}".to_owned(), None, token, "encoding"),
            (document.clone(), None, other.access_token(&machine().resource_id()).unwrap(), "key is unknown"),
            (
                document.clone(),
                None,
                cloud.access_token(&neighbour.resource_id()).unwrap(),
                "not of the attested machine",
            ),
            (
                document,
                None,
                cloud.access_token_with(&machine().resource_id(), json!({ "aud": "https://vault.azure.net" })).unwrap(),
                "audience",
            ),
        ];
        for (document, between, token, why) in cases {
            let error = verify(&document, between, &token).unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
    }

    /// The signature that a real cluster accepted; its authority has gone with the cloud that was recorded.
    #[test]
    fn a_recorded_document_opens() {
        for run in ["azure-auth", "azure-proxy", "err-azure-denied"] {
            let calls = crate::tests::recorded::calls(run);
            let answer = calls.iter().find(|call| call["kind"] == "stream-send").unwrap();
            let challenge: crate::wire::proto::ChallengedCerts = crate::tests::recorded::message(answer, "response");
            let asked = calls.iter().find(|call| call["kind"] == "stream-recv").unwrap();
            let request: crate::wire::proto::RegisterUsingAzureMethodRequest =
                crate::tests::recorded::message(asked, "request");
            let document: Value = serde_json::from_slice(&request.attested_data).unwrap();
            let opened = pkcs7::open(&STANDARD.decode(document["signature"].as_str().unwrap()).unwrap()).unwrap();
            let content: Value = serde_json::from_slice(&opened.content).unwrap();
            assert_eq!(content["nonce"], challenge.challenge);
            end(content["timestamp"]["expiresOn"].as_str().unwrap()).unwrap();
        }
    }
}
