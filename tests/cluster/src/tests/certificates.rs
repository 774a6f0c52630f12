//! Certificates have the recorded attributes, extensions and order.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use der::Decode;
use serde_json::Value;
use x509_cert::Certificate;

use super::recorded::{
    CLUSTER, call, caller, calls, cluster, cluster_of, connection, der, folder, json, message, replay_certificates,
};
use crate::{
    Control, Options, Release, Token,
    api::join_service::register,
    evidence::{Allow, IdTokenRules, TokenIssuer},
    pki::{public_key::take_string, subject::attributes},
    state::State,
    wire::{
        proto::{Certs, ChallengedCerts, RegisterUsingAzureMethodRequest},
        types::RegisterUsingTokenRequest,
    },
};

/// One line per attribute and extension of an X.509 certificate; what must differ is blanked.
fn x509_shape(der: &[u8]) -> Vec<String> {
    let certificate = Certificate::from_der(der).unwrap();
    let tbs = certificate.tbs_certificate();
    let mut lines: Vec<String> = Vec::new();
    for (title, name) in [("issuer", tbs.issuer()), ("subject", tbs.subject())] {
        for rdn in name.iter_rdn() {
            lines.push(format!("{title}: a set of {}", rdn.len()));
        }
        for (part, (oid, value)) in name.iter().zip(attributes(name)) {
            let serial = oid.to_string() == "2.5.4.5";
            let value = if serial { "SERIAL".to_owned() } else { blank(&value) };
            lines.push(format!("{title}: {oid} {:?} {value}", der::Tagged::tag(&part.value)));
        }
    }
    for extension in tbs.extensions().unwrap() {
        let key_id = ["2.5.29.14", "2.5.29.35"].contains(&extension.extn_id.to_string().as_str());
        let value = if key_id {
            vec![extension.extn_value.as_bytes().len() as u8]
        } else {
            extension.extn_value.as_bytes().to_vec()
        };
        lines.push(format!("extension {} critical={} {value:02x?}", extension.extn_id, extension.critical));
    }
    lines.push(format!("signature {}", certificate.signature_algorithm().oid));
    let validity = tbs.validity();
    let life = validity.not_after.to_unix_duration() - validity.not_before.to_unix_duration();
    lines.push(format!("life of about {} minutes", (life.as_secs() + 30) / 60));
    lines
}

/// The same for an SSH certificate, field by field (OpenSSH's PROTOCOL.certkeys).
fn ssh_shape(line: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(line).unwrap();
    let wire = STANDARD.decode(text.split_whitespace().nth(1).unwrap()).unwrap();
    let mut rest = wire.as_slice();
    let kind = string(&mut rest);
    assert_eq!(text.split(' ').next(), Some(kind.as_str()));
    assert_eq!(take_string(&mut rest).unwrap().len(), 32, "nonce");
    for _ in 0..if kind.starts_with("ssh-ed25519") { 1 } else { 2 } {
        take_string(&mut rest).unwrap();
    }
    let serial = number::<8>(&mut rest);
    let mut lines = vec![format!("{kind} serial {serial} for {}", number::<4>(&mut rest))];
    lines.push(format!("key id {}", string(&mut rest)));
    let mut principals = take_string(&mut rest).unwrap();
    while !principals.is_empty() {
        lines.push(format!("principal {}", blank(&string(&mut principals))));
    }
    let (after, before) = (number::<8>(&mut rest), number::<8>(&mut rest));
    lines.push(format!("life of about {} minutes", (before - after + 30) / 60));
    for title in ["critical", "extension"] {
        let mut options = take_string(&mut rest).unwrap();
        while !options.is_empty() {
            let name = string(&mut options);
            lines.push(format!("{title} {name} {:?}", string(&mut options)));
        }
    }
    lines.push(format!("reserved {:?}", string(&mut rest)));
    let mut authority = take_string(&mut rest).unwrap();
    lines.push(format!("authority {}", string(&mut authority)));
    let mut signature = take_string(&mut rest).unwrap();
    lines.push(format!("signed with {}", string(&mut signature)));
    lines.push(format!("signature of {} bytes, {} left over", take_string(&mut signature).unwrap().len(), rest.len()));
    lines
}

fn string(wire: &mut &[u8]) -> String {
    String::from_utf8_lossy(take_string(wire).unwrap()).into_owned()
}

fn number<const BYTES: usize>(wire: &mut &[u8]) -> u64 {
    let (bytes, rest) = wire.split_first_chunk::<BYTES>().unwrap();
    *wire = rest;
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn blank(value: &str) -> String {
    let nobody = "-teleport-nologin-";
    if value.starts_with(nobody) { format!("{nobody}UUID") } else { value.to_owned() }
}

fn assert_same(ours: &Certs, recorded: &Certs) {
    assert_eq!(x509_shape(&der(&ours.tls)), x509_shape(&der(&recorded.tls)));
    assert_eq!(ssh_shape(&ours.ssh), ssh_shape(&recorded.ssh));
    assert_eq!(ours.ssh.ends_with(b"\n"), recorded.ssh.ends_with(b"\n"));
    assert_eq!(ours.tls_ca_certs.len(), recorded.tls_ca_certs.len());
    assert_eq!(ours.ssh_ca_certs.len(), recorded.ssh_ca_certs.len());
    for (ours, recorded) in ours.tls_ca_certs.iter().zip(&recorded.tls_ca_certs) {
        assert_eq!(x509_shape(&der(ours)), x509_shape(&der(recorded)));
    }
}

/// Number of a call in the run `oneshot-direct`.
fn compare_issued(number: u64) {
    let (_, bot) = cluster("robot3");
    let recording = call("oneshot-direct", number);
    assert_same(&replay_certificates(&bot, &recording), &message(&recording, "response"));
}

#[test]
fn an_impersonated_certificate_is_as_recorded() {
    compare_issued(86);
}

#[test]
fn an_application_certificate_is_as_recorded() {
    compare_issued(105);
}

#[test]
fn a_database_certificate_is_as_recorded() {
    compare_issued(137);
}

#[test]
fn a_renewal_is_as_recorded() {
    let (_, bot) = cluster("genm");
    let recording = call("gen-mismatch", 348);
    assert_same(&replay_certificates(&bot, &recording), &message(&recording, "response"));
}

/// The join over HTTP, for each kind of key that was recorded.
#[test]
fn a_join_is_as_recorded() {
    for (file, bot) in [("rsa", "mrsa"), ("ec", "mec"), ("ed", "med")] {
        let recording = json(&format!("join-http/{file}.json"));
        let name = compare_joined(Release::V15, CLUSTER, &recording);
        assert!(name.contains(&bot[1..]), "{name}");
    }
}

#[test]
fn a_join_of_version_12_is_as_recorded() {
    let path = folder().join("../v12/join-http/ec.json");
    let recording: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(compare_joined(Release::V12, "old.example.com", &recording), "ec12");
}

/// Plays a recorded join and compares what is issued; the name of the bot.
fn compare_joined(release: Release, cluster: &str, recording: &Value) -> String {
    let answer: Value = serde_json::from_str(recording["response"].as_str().unwrap()).unwrap();
    let field = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    let list = |value: &Value| value.as_array().unwrap().iter().map(field).collect::<Vec<_>>();
    let recorded = Certs {
        ssh: field(&answer["ssh"]),
        tls: field(&answer["tls"]),
        tls_ca_certs: list(&answer["tls_ca_certs"]),
        ssh_ca_certs: list(&answer["ssh_ca_certs"]),
    };
    let name = caller(&recorded).user.trim_start_matches("bot-").to_owned();
    let (control, _) = cluster_of(release, cluster, &name);
    let request = RegisterUsingTokenRequest {
        token: "recorded".to_owned(),
        role: "Bot".to_owned(),
        public_ssh_key: field(&recording["request"]["public_ssh_key"]),
        public_tls_key: field(&recording["request"]["public_tls_key"]),
        ..Default::default()
    };
    assert_same(&register(&connection(&control, None), &request).unwrap(), &recorded);
    name
}

/// A certificate that cannot be renewed: joined by azure, which a token with a platform's evidence gives likewise.
#[test]
fn a_delegated_join_is_as_recorded() {
    for run in ["azure-auth", "azure-proxy"] {
        let messages = calls(run);
        let sent = |call: &&Value| call["kind"] == "stream-send";
        let recorded: ChallengedCerts = message(messages.iter().filter(sent).nth(1).unwrap(), "response");
        let asked = messages.iter().find(|call| call["kind"] == "stream-recv").unwrap();
        let asked: RegisterUsingAzureMethodRequest = message(asked, "request");
        let issuer = Arc::new(TokenIssuer::new("https://ci.example.com").unwrap());
        let mut options = Options { cluster_name: CLUSTER.to_owned(), ..Options::default() };
        options.platforms.issuers.push(issuer.clone());
        let control = Control(Arc::new(State::new(options).unwrap()));
        let issuer_url = issuer.url().to_owned();
        let allow = vec![[("sub".to_owned(), "vm".to_owned())].into()];
        let rules = IdTokenRules { method: "gitlab".to_owned(), issuer: issuer_url, audience: None, allow };
        let name = "azure-token".to_owned();
        control.add_token(Token { name, bot: "azbot".to_owned(), allow: Allow::IdToken(rules), ..Token::default() });
        let id_token = issuer.sign(serde_json::json!({ "aud": CLUSTER, "sub": "vm" })).unwrap();
        let request = RegisterUsingTokenRequest { id_token, ..asked.register_using_token_request.unwrap() };
        assert_same(&register(&connection(&control, None), &request).unwrap(), &recorded.certs.unwrap());
    }
}

/// What OpenSSH would check: the signature covers everything before it.
#[test]
fn ssh_signatures_verify() {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey};
    let (_, bot) = cluster("robot3");
    let certs = replay_certificates(&bot, &call("oneshot-direct", 86));
    let wire = STANDARD.decode(std::str::from_utf8(&certs.ssh).unwrap().split(' ').nth(1).unwrap().trim()).unwrap();
    // string { string "rsa-sha2-512", string of 256 bytes }
    let blob = 4 + 4 + 12 + 4 + 256;
    let (signed, signature) = (&wire[..wire.len() - blob], &wire[wire.len() - 256..]);
    let key = bot.state.authority(crate::AuthorityKind::User, |user| Ok(user.active.clone())).unwrap();
    let spki = key.ssh.as_ref().unwrap().public().to_spki().unwrap();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA512, spki.subject_public_key.raw_bytes())
        .verify(signed, signature)
        .unwrap();
}
