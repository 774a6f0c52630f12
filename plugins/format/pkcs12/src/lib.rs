//! Format `pkcs12`: key, certificate, chain and trusted authorities in one file under a password, for Java and .NET.

mod store;

use der::pem;
use tbot_sdk::host::{input, private_key};
use tbot_sdk::{Authority, CaCertType, Error, File, FileName, Format, Material};

use crate::store::Store;

/// Keys of the format in `tbot.yaml`.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Config {
    file_name: FileName,
    ca_cert_type: CaCertType,
    password_variable: String,
    password_file: String,
}

/// Where the password is.
enum Password<'c> {
    Variable(&'c str),
    File(&'c str),
}

impl Config {
    fn password(&self) -> Result<Password<'_>, Error> {
        match (self.password_variable.as_str(), self.password_file.as_str()) {
            (variable, "") if !variable.is_empty() => Ok(Password::Variable(variable)),
            ("", file) if file.starts_with('/') => Ok(Password::File(file)),
            ("", file) if !file.is_empty() => {
                Err(Error::invalid_config("`password_file` must be an absolute path: begin it with `/`"))
            }
            _ => Err(Error::invalid_config(
                "a key store has one password: name its place with `password_file` or with `password_variable`",
            )),
        }
    }
}

struct Pkcs12;

impl Format for Pkcs12 {
    type Config = Config;
    const KEYS: &'static [&'static str] = &["file_name", "ca_cert_type", "password_variable", "password_file"];

    fn files(config: &Config, _directory: Option<&str>) -> Result<Vec<String>, Error> {
        config.password()?;
        Ok(vec![config.file_name.or("tls.p12").to_owned()])
    }

    fn render(config: &Config, material: &Material) -> Result<Vec<File>, Error> {
        let password = read(&config.password()?)?;
        let trusted = certificates(config.ca_cert_type.of(material))?;
        let mut chain = certificates(&material.user_authorities)?;
        chain.retain(|certificate| !trusted.contains(certificate));
        let store = Store {
            key: private_key::pkcs8_der()?,
            certificate: certificate(material.certificate()?)?,
            chain,
            trusted,
        };
        let bytes = store.encode(&password).map_err(|e| Error::internal(format!("the key store: {e}")))?;
        Ok(vec![File::new(config.file_name.or("tls.p12"), bytes)])
    }
}

tbot_sdk::export_format!(Pkcs12);

fn read(password: &Password) -> Result<String, Error> {
    let (text, place) = match *password {
        Password::Variable(name) => {
            let place = format!("environment variable `{name}`");
            let unset = || Error::invalid_config(format!("{place} is not set: put the password there"));
            (input::environment(name)?.ok_or_else(unset)?, place)
        }
        Password::File(path) => {
            let place = format!("file `{path}`");
            let text = String::from_utf8(input::file(path)?);
            let text =
                text.map_err(|_| Error::invalid_config(format!("{place} is not UTF-8: put a password there")))?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            (text.strip_suffix('\r').unwrap_or(text).to_owned(), place)
        }
    };
    match text.is_empty() || text.chars().any(char::is_control) {
        true => Err(Error::invalid_config(format!("{place} must hold the password, in one line and nothing else"))),
        false => Ok(text),
    }
}

fn certificates(authorities: &[Authority]) -> Result<Vec<Vec<u8>>, Error> {
    authorities.iter().flat_map(|authority| &authority.tls_certificates).map(|text| certificate(text)).collect()
}

/// DER of one certificate in PEM.
fn certificate(text: &str) -> Result<Vec<u8>, Error> {
    match pem::decode_vec(text.as_bytes()) {
        Ok(("CERTIFICATE", der)) => Ok(der),
        _ => Err(Error::denied("the cluster sent a certificate that is none")),
    }
}

#[cfg(test)]
mod tests;
