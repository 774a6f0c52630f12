//! Native tests of a plugin: a [`Machine`] for join methods, sample material, material read back from a real destination, and golden folders.

use std::path::Path;

pub use crate::machine::Machine;
use crate::{Authority, Cluster, Error, File, KeyEncoding, Material, Piece};

/// Material of an invented cluster with two host authorities (a rotation) and one leaf cluster. Its certificates are placeholders.
pub fn sample() -> Material {
    let pem = |name: &str| format!("-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n");
    let authority = |cluster: &str, names: &[&str], keys: &[&str]| Authority {
        cluster: cluster.to_owned(),
        tls_certificates: names.iter().map(|name| pem(name)).collect(),
        ssh_keys: keys.iter().map(|key| format!("ssh-rsa {key}")).collect(),
    };
    Material {
        cluster: Cluster { name: "root.example.com".to_owned(), proxy: "proxy.example.com:443".to_owned() },
        tls_certificate: Some(pem("TEVBRi1DRVJU")),
        ssh_certificate: Some("ssh-rsa-cert-v01@openssh.com U1NILUNFUlQ=\n".to_owned()),
        public_key: "ssh-rsa UFVCTElD".to_owned(),
        expires: 1_800_000_000,
        host_authorities: vec![
            authority("root.example.com", &["SE9TVDE=", "SE9TVDI="], &["SE9TVDE=", "SE9TVDI="]),
            authority("leaf.example.com", &["TEVBRg=="], &["TEVBRg=="]),
        ],
        user_authorities: vec![authority("root.example.com", &["VVNFUg=="], &["VVNFUg=="])],
        database_authorities: vec![authority("root.example.com", &["REI="], &[])],
        directory: Some("/opt/machine-id/out".to_owned()),
        executable: "/usr/local/bin/tbot".to_owned(),
    }
}

/// Puts files together as the host does, with `key` in the place of the private key. Gives paths and contents, in order.
pub fn written(files: &[File], key: impl Fn(KeyEncoding) -> String) -> Vec<(String, String)> {
    let piece = |piece: &Piece| match piece {
        Piece::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Piece::PrivateKey(encoding) => key(*encoding),
    };
    files.iter().map(|file| (file.path.clone(), file.pieces.iter().map(piece).collect())).collect()
}

/// Reads what an output of type `identity`, `application` or `database` wrote, by `tbot` or by the original, back into the
/// material it was made of, and the private key as PEM. `proxy` is `host:port`; the executable is `/usr/local/bin/tbot`, the time of expiry 0.
///
/// # Errors
/// A file that is missing or is not what its name says.
pub fn read_destination(folder: &Path, directory: &str, proxy: &str) -> std::io::Result<(Material, String)> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name));
    let identity = read("identity")?;
    let mut clusters: Vec<(String, Vec<String>)> = Vec::new();
    for line in identity.lines().filter_map(|line| line.strip_prefix("@cert-authority ")) {
        let (hosts, key) = line.split_once(' ').ok_or(std::io::ErrorKind::InvalidData)?;
        let cluster = hosts.split(',').next().unwrap_or_default();
        let key = key.trim_end_matches(" type=host").to_owned();
        match clusters.iter_mut().find(|(name, _)| name == cluster) {
            Some((_, keys)) => keys.push(key),
            None => clusters.push((cluster.to_owned(), vec![key])),
        }
    }
    let (name, keys) = clusters.first().cloned().ok_or(std::io::ErrorKind::InvalidData)?;
    let authorities = |file: &str, keys: Vec<String>| {
        let pem = read(file)?;
        let tls_certificates = pem.split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned).collect();
        std::io::Result::Ok(vec![Authority { cluster: name.clone(), tls_certificates, ssh_keys: keys }])
    };
    let mut host_authorities = authorities("teleport-host-ca.crt", keys)?;
    host_authorities.extend(clusters.into_iter().skip(1).map(|(cluster, ssh_keys)| Authority {
        cluster,
        tls_certificates: Vec::new(),
        ssh_keys,
    }));
    let material = Material {
        cluster: Cluster { name: name.clone(), proxy: proxy.to_owned() },
        tls_certificate: Some(read("tlscert")?),
        ssh_certificate: Some(read("key-cert.pub")?).filter(|line| !line.is_empty()),
        public_key: read("key.pub")?.trim_end().to_owned(),
        expires: 0,
        host_authorities,
        user_authorities: authorities("teleport-user-ca.crt", Vec::new())?,
        database_authorities: authorities("teleport-database-ca.crt", Vec::new())?,
        directory: Some(directory.to_owned()),
        executable: "/usr/local/bin/tbot".to_owned(),
    };
    Ok((material, read("key")?))
}

/// Compares `render` with golden folders. Every folder inside `folder` is a case: `config.json`, `material.json`, and what comes of
/// them: `files/…`, with `<private key: encoding>` in the place of the key, or `error.txt`. Set `BLESS=1` to write what comes
/// instead, and read the difference before you commit it.
///
/// # Panics
/// Where a case differs or cannot be read: it is for tests.
pub fn golden(folder: &Path, render: impl Fn(&str, &Material) -> Result<Vec<File>, Error>) {
    let mut cases: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty(), "no golden case in `{}`", folder.display());
    for case in cases {
        let config = std::fs::read_to_string(case.join("config.json")).unwrap();
        let material = std::fs::read_to_string(case.join("material.json")).unwrap();
        let outcome: Vec<(String, String)> = match render(&config, &serde_json::from_str(&material).unwrap()) {
            Ok(files) => written(&files, |encoding| format!("<private key: {encoding:?}>\n"))
                .into_iter()
                .map(|(path, contents)| (format!("files/{path}"), contents))
                .collect(),
            Err(error) => vec![("error.txt".to_owned(), format!("{:?}: {}\n", error.kind, error.message))],
        };
        if std::env::var_os("BLESS").is_some() {
            let _ = std::fs::remove_dir_all(case.join("files"));
            let _ = std::fs::remove_file(case.join("error.txt"));
            for (path, contents) in &outcome {
                let path = case.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, contents).unwrap();
            }
        }
        let expected = tree(&case);
        let paths: Vec<_> = expected.iter().map(|(path, _)| path).collect();
        let mut sorted = outcome;
        sorted.sort();
        assert_eq!(sorted.iter().map(|(path, _)| path).collect::<Vec<_>>(), paths, "files of `{}`", case.display());
        for ((path, contents), (_, expected)) in sorted.iter().zip(&expected) {
            assert_eq!(contents, expected, "`{path}` of `{}`", case.display());
        }
    }
}

/// A plugin's answers as the host gets them: configuration and errors included.
pub mod call {
    use super::{Error, File, Material};
    use crate::bindings::{format, join, output};
    use crate::{Attempt, Format, FormatGuest, Join, JoinGuest, Output, OutputGuest, Proof, Request};

    /// [`Output::plan`] with JSON.
    ///
    /// # Errors
    /// The plugin's, and that of a configuration that cannot be read.
    pub fn plan<P: Output + 'static>(config: &str, directory: Option<&str>) -> Result<Request, Error> {
        <OutputGuest<P> as output::exports::tbot::output::output::Guest>::plan(
            config.to_owned(),
            directory.map(str::to_owned),
        )
    }

    /// [`Output::render`] with JSON.
    ///
    /// # Errors
    /// As [`plan`].
    pub fn render<P: Output + 'static>(config: &str, material: &Material) -> Result<Vec<File>, Error> {
        <OutputGuest<P> as output::exports::tbot::output::output::Guest>::render(config.to_owned(), material.clone())
    }

    /// [`Format::files`] with JSON.
    ///
    /// # Errors
    /// As [`plan`].
    pub fn format_files<P: Format + 'static>(config: &str, directory: Option<&str>) -> Result<Vec<String>, Error> {
        <FormatGuest<P> as format::exports::tbot::format::format::Guest>::files(
            config.to_owned(),
            directory.map(str::to_owned),
        )
    }

    /// [`Format::render`] with JSON.
    ///
    /// # Errors
    /// As [`plan`].
    pub fn format_render<P: Format + 'static>(config: &str, material: &Material) -> Result<Vec<File>, Error> {
        <FormatGuest<P> as format::exports::tbot::format::format::Guest>::render(config.to_owned(), material.clone())
    }

    /// [`Join::prove`] with JSON.
    ///
    /// # Errors
    /// As [`plan`].
    pub fn prove<P: Join + 'static>(config: &str, attempt: Attempt) -> Result<Proof, Error> {
        <JoinGuest<P> as join::exports::tbot::join::method::Guest>::prove(config.to_owned(), attempt)
    }
}

/// [`golden`] for an output.
///
/// # Panics
/// As [`golden`].
pub fn golden_output<P: crate::Output + 'static>(folder: &Path) {
    golden(folder, |config, material| {
        call::plan::<P>(config, material.directory.as_deref())?;
        call::render::<P>(config, material)
    });
}

/// [`golden`] for a format.
///
/// # Panics
/// As [`golden`].
pub fn golden_format<P: crate::Format + 'static>(folder: &Path) {
    golden(folder, |config, material| {
        call::format_files::<P>(config, material.directory.as_deref())?;
        call::format_render::<P>(config, material)
    });
}

/// Renders an output of what it wrote into `folder` ([`read_destination`]), compares each file with the bytes that lie there under its
/// name, and gives the paths: what is planned and what is rendered, in this order.
///
/// # Panics
/// Where it differs: it is for tests.
pub fn output_as_recorded<P: crate::Output + 'static>(
    folder: &Path,
    directory: &str,
    proxy: &str,
    config: &str,
) -> Vec<String> {
    let (material, key) = read_destination(folder, directory, proxy).unwrap();
    let planned = call::plan::<P>(config, Some(directory)).unwrap().files;
    let files = call::render::<P>(config, &material).unwrap();
    assert_eq!(files.iter().map(|file| &file.path).collect::<Vec<_>>(), planned.iter().collect::<Vec<_>>());
    as_recorded(folder, &files, &key);
    planned
}

/// How many files a recorded destination holds; not `.write-test`, which is the host's.
///
/// # Panics
/// Where the folder cannot be read: it is for tests.
pub fn recorded_files(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| !name.to_str().unwrap().starts_with('.')).count()
}

/// Renders a format, without options, of what an output wrote into `folder` ([`read_destination`]): its files are `paths`, and each
/// holds the bytes that lie there under its name.
///
/// # Panics
/// Where it differs: it is for tests.
pub fn format_as_recorded<P: crate::Format + 'static>(folder: &Path, directory: &str, proxy: &str, paths: &[&str]) {
    let (material, key) = read_destination(folder, directory, proxy).unwrap();
    assert_eq!(call::format_files::<P>("{}", Some(directory)).unwrap(), paths);
    as_recorded(folder, &call::format_render::<P>("{}", &material).unwrap(), &key);
}

fn as_recorded(folder: &Path, files: &[File], key: &str) {
    for (path, contents) in written(files, |_| key.to_owned()) {
        assert_eq!(contents, std::fs::read_to_string(folder.join(&path)).unwrap(), "{}/{path}", folder.display());
    }
}

fn tree(case: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![case.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(case).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name != "config.json" && name != "material.json" {
                found.push((name, std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}
