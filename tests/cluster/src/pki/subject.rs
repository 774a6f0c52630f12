//! The subject names Teleport packs an identity into (wire §h.1, §h.2).

use anyhow::Result;
use const_oid::ObjectIdentifier;
use der::{Any, Tag};
use x509_cert::{
    attr::AttributeTypeAndValue,
    name::{self, RelativeDistinguishedName},
};

/// An attribute type of a subject.
pub(crate) type Oid = ObjectIdentifier;

pub(crate) const COMMON_NAME: Oid = Oid::new_unwrap("2.5.4.3");
pub(crate) const SERIAL_NUMBER: Oid = Oid::new_unwrap("2.5.4.5");
pub(crate) const LOCALITY: Oid = Oid::new_unwrap("2.5.4.7");
pub(crate) const STREET: Oid = Oid::new_unwrap("2.5.4.9");
pub(crate) const ORGANIZATION: Oid = Oid::new_unwrap("2.5.4.10");
pub(crate) const POSTAL_CODE: Oid = Oid::new_unwrap("2.5.4.17");
pub(crate) const APP_SESSION: Oid = Oid::new_unwrap("1.3.9999.1.4");
pub(crate) const APP_CLUSTER: Oid = Oid::new_unwrap("1.3.9999.1.5");
pub(crate) const APP_PUBLIC_ADDRESS: Oid = Oid::new_unwrap("1.3.9999.1.6");
pub(crate) const CLUSTER: Oid = Oid::new_unwrap("1.3.9999.1.7");
pub(crate) const LOGIN_IP: Oid = Oid::new_unwrap("1.3.9999.1.9");
pub(crate) const APP_NAME: Oid = Oid::new_unwrap("1.3.9999.1.10");
pub(crate) const RENEWABLE: Oid = Oid::new_unwrap("1.3.9999.1.13");
pub(crate) const GENERATION: Oid = Oid::new_unwrap("1.3.9999.1.14");
pub(crate) const KEY_POLICY: Oid = Oid::new_unwrap("1.3.9999.1.15");
pub(crate) const USER_TYPE: Oid = Oid::new_unwrap("1.3.9999.1.20");
pub(crate) const DATABASE_SERVICE: Oid = Oid::new_unwrap("1.3.9999.2.1");
pub(crate) const DATABASE_PROTOCOL: Oid = Oid::new_unwrap("1.3.9999.2.2");
pub(crate) const DATABASE_USER: Oid = Oid::new_unwrap("1.3.9999.2.3");
pub(crate) const DATABASE_NAME: Oid = Oid::new_unwrap("1.3.9999.2.4");
pub(crate) const DATABASE_NAMES: Oid = Oid::new_unwrap("1.3.9999.2.5");
pub(crate) const DATABASE_USERS: Oid = Oid::new_unwrap("1.3.9999.2.6");
pub(crate) const IMPERSONATOR: Oid = Oid::new_unwrap("1.3.9999.2.7");
pub(crate) const DISALLOW_REISSUE: Oid = Oid::new_unwrap("1.3.9999.2.9");
pub(crate) const BOT_NAME: Oid = Oid::new_unwrap("1.3.9999.2.18");
pub(crate) const BOT_INSTANCE: Oid = Oid::new_unwrap("1.3.9999.2.20");

/// A subject or an issuer.
pub(crate) type Name = name::RdnSequence;

/// Builds a name from its relative names, in order; values of one relative name share one set.
#[derive(Default)]
pub(crate) struct Subject(Name);

impl Subject {
    /// One set with every value; none for no values.
    pub fn with<'a>(mut self, oid: Oid, values: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut set = RelativeDistinguishedName::default();
        for value in values {
            set.insert(AttributeTypeAndValue { oid, value: text(value)? })?;
        }
        if !set.is_empty() {
            self.0.push(set);
        }
        Ok(self)
    }

    pub fn name(self) -> Name {
        self.0
    }
}

/// PrintableString where the alphabet allows, as Go encodes; else UTF8String.
fn text(value: &str) -> Result<Any> {
    let printable = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte));
    Ok(Any::new(if printable { Tag::PrintableString } else { Tag::Utf8String }, value.as_bytes())?)
}

/// Every attribute of a name with its value, in order.
pub(crate) fn attributes(name: &name::Name) -> Vec<(Oid, String)> {
    name.iter().map(|part| (part.oid, String::from_utf8_lossy(part.value.value()).into_owned())).collect()
}
