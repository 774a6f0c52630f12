//! What the format writes, read by `openssl`.

use std::path::Path;
use std::process::Command;

use tbot_sdk::testing::{Machine, call, sample};
use tbot_sdk::{ErrorKind, Material, Piece};

use super::Pkcs12;

const CONFIG: &str = r#"{"password_file": "/password"}"#;
/// What is awkward in an encoding: outside of ASCII, and outside of the basic plane.
const PASSWORD: &str = "Grüße 🔑 0815";

fn openssl(folder: &Path, arguments: &str) -> String {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A key, its certificate, and authorities, of real bytes.
fn material(folder: &Path, algorithm: &str) -> (Material, Vec<u8>) {
    let own = |name: &str, algorithm: &str| {
        openssl(folder, &format!("genpkey {algorithm} -out {name}.key"));
        openssl(folder, &format!("req -x509 -new -key {name}.key -subj /CN={name} -days 2 -out {name}.pem"));
        std::fs::read_to_string(folder.join(format!("{name}.pem"))).unwrap()
    };
    let mut material = sample();
    material.tls_certificate = Some(own("leaf", algorithm));
    material.host_authorities.truncate(1);
    material.host_authorities[0].tls_certificates =
        ["host-1", "host-2"].map(|name| own(name, "-algorithm ed25519")).into();
    material.user_authorities[0].tls_certificates = vec![own("user", "-algorithm ed25519")];
    openssl(folder, "pkcs8 -topk8 -nocrypt -in leaf.key -outform DER -out leaf.der");
    (material, std::fs::read(folder.join("leaf.der")).unwrap())
}

fn rendered(material: &Material, key: Vec<u8>, config: &str) -> Vec<u8> {
    let machine = Machine::default().file("/password", &format!("{PASSWORD}\n"));
    let machine = machine.environment(&[("STORE", PASSWORD)]).private_key(key);
    let (files, _) = machine.run(|| call::format_render::<Pkcs12>(config, material));
    let [file] = files.unwrap().try_into().unwrap();
    assert_eq!(file.path, "tls.p12");
    let [Piece::Bytes(bytes)] = &file.pieces[..] else { panic!("a piece that is not ours") };
    bytes.clone()
}

#[test]
fn openssl_reads_key_chain_and_authorities_of_every_kind_of_key() {
    for algorithm in [
        "-algorithm rsa -pkeyopt rsa_keygen_bits:2048",
        "-algorithm ec -pkeyopt ec_paramgen_curve:P-256",
        "-algorithm ed25519",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let (material, key) = material(folder, algorithm);
        std::fs::write(folder.join("tls.p12"), rendered(&material, key, CONFIG)).unwrap();
        std::fs::write(folder.join("pass"), PASSWORD).unwrap();

        let all = openssl(folder, "pkcs12 -in tls.p12 -passin file:pass -nodes -info");
        for wanted in [
            "MAC: sha256, Iteration 10000",
            "Shrouded Keybag: PBES2, PBKDF2, AES-256-CBC, Iteration 10000, PRF hmacWithSHA256",
            "PKCS7 Encrypted data: PBES2, PBKDF2, AES-256-CBC, Iteration 10000, PRF hmacWithSHA256",
            "friendlyName: tbot",
            "friendlyName: ca-1",
            "friendlyName: ca-2",
        ] {
            assert!(all.contains(wanted), "{wanted} is missing:\n{all}");
        }
        assert_eq!(all.matches("BEGIN CERTIFICATE").count(), 4, "{all}");
        let extracted = |flags: &str| {
            let all = openssl(folder, &format!("pkcs12 -in tls.p12 -passin file:pass {flags}"));
            all.lines().filter(|line| line.len() == 64 || line.ends_with("-----")).collect::<String>()
        };
        assert!(extracted("-clcerts -nokeys").contains(&first_line(&material.tls_certificate.clone().unwrap())));
        let authorities = extracted("-cacerts -nokeys");
        for pem in [&material.host_authorities, &material.user_authorities]
            .into_iter()
            .flatten()
            .flat_map(|a| &a.tls_certificates)
        {
            assert!(authorities.contains(&first_line(pem)), "{authorities}");
        }
        openssl(folder, "pkcs12 -in tls.p12 -passin file:pass -nodes -nocerts -out key.pem");
        openssl(folder, "pkcs8 -topk8 -nocrypt -in key.pem -outform DER -out key.der");
        assert_eq!(std::fs::read(folder.join("key.der")).unwrap(), std::fs::read(folder.join("leaf.der")).unwrap());

        std::fs::write(folder.join("pass"), "another").unwrap();
        let wrong = Command::new("openssl")
            .args("pkcs12 -in tls.p12 -passin file:pass -noout".split(' '))
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(!wrong.status.success(), "it opens with any password");
    }
}

/// The second line of a PEM text: the first of its contents.
fn first_line(pem: &str) -> String {
    pem.lines().nth(1).unwrap().to_owned()
}

#[test]
fn equal_contents_are_an_equal_file_and_others_share_no_salt() {
    let folder = tempfile::tempdir().unwrap();
    let (mut material, key) = material(folder.path(), "-algorithm ed25519");
    let one = rendered(&material, key.clone(), CONFIG);
    assert_eq!(one, rendered(&material, key.clone(), r#"{"password_variable": "STORE"}"#));
    let trusting = rendered(&material, key.clone(), r#"{"password_variable": "STORE", "ca_cert_type": "user"}"#);
    assert_ne!(one, trusting);
    material.host_authorities[0].tls_certificates.pop();
    let other = rendered(&material, key, CONFIG);
    // The last 16 bytes before the number of rounds are the salt of the MAC.
    let salt = |store: &[u8]| store[store.len() - 20..store.len() - 4].to_vec();
    assert_ne!(salt(&one), salt(&other));
}

#[test]
fn a_password_that_is_none_is_the_operators_mistake() {
    let file = |contents: &str| Machine::default().file("/password", contents);
    for (config, machine, words) in [
        ("{}", Machine::default(), "name its place"),
        (r#"{"password_file": "/a", "password_variable": "A"}"#, Machine::default(), "one password"),
        (r#"{"password_file": "password"}"#, Machine::default(), "absolute"),
        (r#"{"password_variable": "STORE"}"#, Machine::default(), "`STORE` is not set"),
        (CONFIG, file("\n"), "must hold the password"),
        (CONFIG, file("one\ntwo\n"), "in one line"),
    ] {
        let (refused, _) = machine.run(|| call::format_render::<Pkcs12>(config, &sample()));
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::InvalidConfig);
        assert!(refused.message.contains(words) && !refused.message.contains("two"), "{}", refused.message);
    }
    let (refused, _) = Machine::default().run(|| call::format_render::<Pkcs12>(CONFIG, &sample()));
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Unavailable, "the file may come later");
}

#[test]
fn without_the_grant_there_is_no_store() {
    let folder = tempfile::tempdir().unwrap();
    let (material, _) = material(folder.path(), "-algorithm ed25519");
    let (refused, _) =
        Machine::default().file("/password", PASSWORD).run(|| call::format_render::<Pkcs12>(CONFIG, &material));
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Denied);
    assert!(refused.message.contains("private_key: reveal"), "{}", refused.message);
}
