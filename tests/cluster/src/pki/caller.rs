//! Who is on the other end of a connection, read from the client certificate's subject (wire §h.1, §h.2).

use std::time::SystemTime;

use anyhow::{Context, Result};
use der::Decode;
use x509_cert::Certificate;

use super::{
    issue::DatabaseGrant,
    subject::{
        APP_NAME, APP_SESSION, BOT_INSTANCE, COMMON_NAME, DATABASE_NAME, DATABASE_PROTOCOL, DATABASE_SERVICE,
        DATABASE_USER, DISALLOW_REISSUE, GENERATION, IMPERSONATOR, ORGANIZATION, Oid, RENEWABLE, attributes,
    },
};

/// The identity in a verified client certificate.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub user: String,
    pub roles: Vec<String>,
    pub renewable: bool,
    pub generation: u64,
    pub disallow_reissue: bool,
    /// Set on certificates made by impersonation.
    pub impersonator: Option<String>,
    pub app_name: Option<String>,
    pub app_session: Option<String>,
    pub database: Option<DatabaseGrant>,
    pub bot_instance: Option<String>,
    pub not_after: SystemTime,
}

impl Caller {
    pub fn from_certificate(der: &[u8]) -> Result<Self> {
        let certificate = Certificate::from_der(der)?;
        let tbs = certificate.tbs_certificate();
        let attributes = attributes(tbs.subject());
        let all = |oid: Oid| attributes.iter().filter(move |(key, _)| *key == oid).map(|(_, value)| value.clone());
        let one = |oid: Oid| all(oid).next();
        Ok(Self {
            user: one(COMMON_NAME).context("the client certificate names no user")?,
            roles: all(ORGANIZATION).collect(),
            renewable: one(RENEWABLE).is_some(),
            generation: one(GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0),
            disallow_reissue: one(DISALLOW_REISSUE).is_some(),
            impersonator: one(IMPERSONATOR),
            app_name: one(APP_NAME),
            app_session: one(APP_SESSION),
            database: one(DATABASE_SERVICE).map(|service| DatabaseGrant {
                service,
                protocol: one(DATABASE_PROTOCOL).unwrap_or_default(),
                user: one(DATABASE_USER).unwrap_or_default(),
                name: one(DATABASE_NAME).unwrap_or_default(),
            }),
            bot_instance: one(BOT_INSTANCE),
            not_after: tbs.validity().not_after.to_system_time(),
        })
    }
}
