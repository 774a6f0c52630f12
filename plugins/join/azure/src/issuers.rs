//! The certificates between the document's signer and its root: a cluster of version 18 and later wants them sent along (wire §d.4).

use tbot_sdk::host::http;
use tbot_sdk::log;

/// Below this Microsoft publishes its authorities; certificates name them by it.
const PUBLISHED: &str = "://www.microsoft.com/pkiops/certs/";
/// Authorities in one chain: Azure has two, the root among them, and a call only eight requests.
const DEPTH: usize = 3;

/// DER, one after another, without the root; empty where they cannot be had, which only newer clusters mind.
pub(crate) fn intermediates(document: &[u8]) -> Vec<u8> {
    let Some(signed) = signature(document) else { return Vec::new() };
    let (mut chain, mut next) = (Vec::new(), issuer_url(&signed));
    for _ in 0..DEPTH {
        let Some(url) = next else { break };
        let certificate = match http::send(&http::request("GET", url, &[])) {
            Ok(answer) if answer.status == 200 => answer.body,
            Ok(answer) => return unknown(&format!("Microsoft answers {}", answer.status)),
            Err(e) => return unknown(&e.message),
        };
        match self_signed(&certificate) {
            Some(true) => break,
            Some(false) => next = issuer_url(&certificate),
            None => return unknown("Microsoft answered with no certificate"),
        }
        chain.extend(certificate);
    }
    chain
}

fn unknown(reason: &str) -> Vec<u8> {
    log::info(&format!("the issuers of the attested document are not known ({reason}): clusters before 18 need none"));
    Vec::new()
}

/// The PKCS#7 message in `{"encoding": "pkcs7", "signature": "<base64>"}`.
fn signature(document: &[u8]) -> Option<Vec<u8>> {
    let document: serde_json::Value = serde_json::from_slice(document).ok()?;
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for c in document["signature"].as_str()?.bytes().filter(|c| !c.is_ascii_whitespace() && *c != b'=') {
        let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        bits = bits << 6 | u32::try_from(digits.iter().position(|digit| *digit == c)?).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

/// Where the issuer of the first certificate in `der` is published: a URI (tag 6) of its "authority information access".
fn issuer_url(der: &[u8]) -> Option<String> {
    let uris = der.windows(2).enumerate().filter(|(_, head)| head[0] == 0x86);
    uris.filter_map(|(at, head)| std::str::from_utf8(der.get(at + 2..at + 2 + usize::from(head[1]))?).ok())
        .find(|uri| uri.strip_prefix("http").is_some_and(|rest| rest.trim_start_matches('s').starts_with(PUBLISHED)))
        .filter(|uri| uri.ends_with(".crt"))
        .map(str::to_owned)
}

/// Are subject and issuer the same? `None` for what is no certificate.
fn self_signed(der: &[u8]) -> Option<bool> {
    let (0x30, certificate, []) = element(der)? else { return None };
    let (0x30, mut rest, _) = element(certificate)? else { return None };
    let mut fields = Vec::new();
    while fields.len() < 5 {
        let (tag, value, behind) = element(rest)?;
        // The version is optional.
        if tag != 0xa0 {
            fields.push(value);
        }
        rest = behind;
    }
    // Serial number, algorithm, issuer, validity, subject (RFC 5280 §4.1).
    Some(fields[2] == fields[4])
}

/// Tag, value and what is behind, of one DER element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let count = usize::from(first & 0x7f);
        let bytes = rest.get(..count).filter(|bytes| (1..=3).contains(&bytes.len()))?;
        length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        rest = &rest[count..];
    }
    Some((tag, rest.get(..length)?, &rest[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tbot_sdk::host::http::Response;
    use tbot_sdk::testing::Machine;

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let value = parts.concat();
        let length = u8::try_from(value.len()).unwrap();
        if length < 0x80 {
            [&[tag, length], value.as_slice()].concat()
        } else {
            [&[tag, 0x81, length], value.as_slice()].concat()
        }
    }

    /// As much of a certificate as is looked at.
    fn certificate(subject: &str, issuer: &str, published: &str) -> Vec<u8> {
        let name = |name: &str| der(0x30, &[name.as_bytes()]);
        let uri = der(0x86, &[published.as_bytes()]);
        let version = der(0xa0, &[&[2, 1, 2]]);
        let fields =
            [version, vec![2, 1, 1], der(0x30, &[]), name(issuer), der(0x30, &[]), name(subject), der(0xa3, &[&uri])];
        let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
        der(0x30, &[&der(0x30, &fields), &der(0x30, &[]), &der(3, &[&[0]])])
    }

    fn document(certificate: &[u8]) -> Vec<u8> {
        let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let text: String = certificate
            .chunks(3)
            .flat_map(|three| {
                let bits =
                    three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
                (0..=three.len()).map(move |at| char::from(digits[(bits >> (18 - 6 * at) & 63) as usize]))
            })
            .collect();
        format!(r#"{{"encoding": "pkcs7", "signature": "{text}"}}"#).into_bytes()
    }

    #[test]
    fn the_chain_is_followed_to_its_root_which_is_left_out() {
        let at = |name: &str| format!("http{PUBLISHED}{name}.crt");
        let (one, root) = (certificate("one", "root", &at("root")), certificate("root", "root", &at("root")));
        let leaf = document(&certificate("vm", "one", &at("one")));
        let (sent, whole) = (one.clone(), leaf.clone());
        let machine = Machine::default().server(move |request| {
            let body = if request.url.ends_with("/one.crt") { one.clone() } else { root.clone() };
            Ok(Response { status: 200, headers: vec![], body })
        });
        let (chain, machine) = machine.run(|| intermediates(&whole));
        assert_eq!((chain, machine.requests.len()), (sent, 2));
        for status in [404, 200] {
            let server = move |_: &http::Request| Ok(Response { status, headers: vec![], body: b"<html>".to_vec() });
            assert!(Machine::default().server(server).run(|| intermediates(&leaf)).0.is_empty());
        }
        assert!(Machine::default().run(|| intermediates(&leaf)).0.is_empty(), "no web, and no failure");
    }

    #[test]
    fn only_microsofts_own_place_is_asked() {
        for place in [
            "http://evil.example/a.crt",
            "ftp://www.microsoft.com/pkiops/certs/a.crt",
            "http://www.microsoft.com/pkiops/crl/a.crt",
        ] {
            let (chain, machine) =
                Machine::default().run(|| intermediates(&document(&certificate("vm", "one", place))));
            assert!(chain.is_empty() && machine.requests.is_empty(), "{place}");
        }
        for garbage in [b"".as_slice(), b"{}", br#"{"signature": "!"}"#, br#"{"signature": "MII"}"#] {
            assert!(Machine::default().run(|| intermediates(garbage)).0.is_empty());
        }
    }
}
