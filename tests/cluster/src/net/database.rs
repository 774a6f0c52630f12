//! The database path (wire §i.2): from a protocol name and a certificate to the database behind it, with mutual TLS.
//!
//! PostgreSQL and MySQL are understood as far as a proxy must; every other protocol is passed on as it is, so it reaches only
//! databases that begin with TLS, as MongoDB and Redis do.

use std::{sync::Arc, time::SystemTime};

use anyhow::{Context, Result, bail, ensure};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::{io::copy_bidirectional, net::TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    admission, mysql, postgres,
    serve::caller,
    stream::Stream,
    tls::{SERVER_LIFE, Shown, provider},
};
use crate::{
    AuthorityKind,
    api::refusal::Refusal,
    pki::{
        caller::Caller,
        issue::DatabaseGrant,
        private_key::{PrivateKey, pem},
        subject::{COMMON_NAME, ORGANIZATION, Subject},
        x509::{self, BACKDATE, Purpose, Template},
    },
    state::State,
};

/// Protocol names, and the protocols of databases that go by them (wire §i.1).
const PROTOCOLS: [(&str, &[&str]); 11] = [
    ("teleport-postgres", &["postgres", "cockroachdb"]),
    ("teleport-mysql", &["mysql"]),
    ("teleport-mongodb", &["mongodb"]),
    ("teleport-oracle", &["oracle"]),
    ("teleport-redis", &["redis"]),
    ("teleport-sqlserver", &["sqlserver"]),
    ("teleport-snowflake", &["snowflake"]),
    ("teleport-cassandra", &["cassandra"]),
    ("teleport-elasticsearch", &["elasticsearch"]),
    ("teleport-opensearch", &["opensearch"]),
    ("teleport-clickhouse", &["clickhouse", "clickhouse-http"]),
];

/// Whether a protocol name, without its suffix for frames, is one of a database.
pub(super) fn speaks(name: &str) -> bool {
    PROTOCOLS.iter().any(|(known, _)| *known == name)
}

/// Serves one connection. With a certificate for a database it is the protocol itself; without one, the client brings its
/// certificate in a TLS session inside.
pub(super) async fn serve(state: &Arc<State>, stream: Stream, caller: Option<Caller>, protocol: &str) -> Result<()> {
    let caller = caller.filter(|caller| caller.database.is_some());
    match protocol {
        "teleport-postgres" => return postgres::serve(state, stream, caller).await,
        "teleport-mysql" => return mysql::serve(state, stream, caller).await,
        _ => {}
    }
    let (mut stream, caller) = match caller {
        Some(caller) => (stream, caller),
        None => inside(state, stream).await?,
    };
    let route = admit(state, &caller, protocol).await?;
    let mut database = route.encrypt(state, &route.grant.user, route.dial().await?).await?;
    copy_bidirectional(&mut stream, &mut database).await?;
    Ok(())
}

/// The client's own TLS session, which must bring a certificate for a database.
pub(super) async fn inside(state: &Arc<State>, stream: Stream) -> Result<(Stream, Caller)> {
    let tls = TlsAcceptor::from(state.tls().offering(Shown::Host, &[""; 0])).accept(stream).await?;
    let caller = caller(tls.get_ref().1)?.context("no client certificate")?;
    ensure!(caller.database.is_some(), "the certificate is not for a database");
    Ok((Box::new(tls), caller))
}

/// A certificate's way to its database.
pub(super) struct Route {
    pub grant: DatabaseGrant,
    /// `host:port`.
    address: String,
}

/// Whether the certificate's database is there and open to it, past faults.
pub(super) async fn admit(state: &Arc<State>, caller: &Caller, protocol: &str) -> Result<Route, Refusal> {
    admission::admit_user(state, protocol, &caller.user).await?;
    let grant = caller.database.clone().unwrap_or_default();
    let name = &grant.service;
    if state.faults.denies(name) {
        return Err(Refusal::AccessDenied(format!("access to db denied. User {} cannot open {name:?}", caller.user)));
    }
    let registry = state.registry();
    let database = registry.databases.get(name);
    let database = database.ok_or_else(|| Refusal::NotFound(format!("database {name:?} not found")))?;
    let wanted = PROTOCOLS.iter().find(|(known, _)| *known == protocol).map_or(&[][..], |(_, list)| list);
    if !wanted.contains(&database.protocol.as_str()) {
        return Err(Refusal::BadParameter(format!("database {name:?} speaks {:?}", database.protocol)));
    }
    let address = database.uri.rsplit("://").next().unwrap_or_default().trim_end_matches('/').to_owned();
    Ok(Route { grant, address })
}

impl Route {
    pub async fn dial(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(&self.address).await.with_context(|| format!("`{}`", self.address))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Begins mutual TLS as this database user.
    pub async fn encrypt(&self, state: &State, user: &str, stream: TcpStream) -> Result<Stream> {
        let host = self.address.rsplit_once(':').context("the database's address has no port")?.0;
        let host = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).context("the database's address")?;
        let config = client(state, user)?;
        Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(host, stream).await?))
    }
}

/// What a database server needs to let the cluster in: what an administrator signs for it.
#[derive(Debug, Clone)]
pub struct DatabaseFiles {
    /// Its certificate, PEM.
    pub certificate: String,
    /// Its private key, PKCS#8 PEM.
    pub key: String,
    /// The authority of those who may log in, PEM; the name of the user is the certificate's common name.
    pub client_authority: String,
}

impl DatabaseFiles {
    /// For a database server reached as `localhost` or 127.0.0.1.
    pub(crate) fn new(state: &State) -> Result<Self> {
        let key = PrivateKey::p256()?;
        let authority = state.authority(AuthorityKind::Db, |db| Ok(db.serving.clone()))?;
        let now = SystemTime::now();
        let cluster = &state.options.cluster_name;
        let subject = Subject::default().with(ORGANIZATION, [cluster.as_str()])?.with(COMMON_NAME, ["localhost"])?;
        let template = Template {
            serial: rand::random(),
            subject: subject.name(),
            issuer: authority.issuer(cluster)?,
            key: key.public(),
            not_before: now - BACKDATE,
            not_after: now + SERVER_LIFE,
            purpose: Purpose::Leaf {
                issuer: authority.tls.public(),
                names: &["localhost"],
                addresses: &[[127, 0, 0, 1]],
            },
        };
        Ok(Self {
            certificate: pem("CERTIFICATE", &x509::sign(template, &authority.tls)?),
            key: key.to_pem()?,
            client_authority: state.authority(clients(state), |clients| {
                Ok(clients.trusted().map(crate::pki::authority::KeySet::certificate_pem).collect())
            })?,
        })
    }
}

/// The authority that vouches for database users: the databases' own before it was split (wire §p).
fn clients(state: &State) -> AuthorityKind {
    let split = AuthorityKind::all(state.options.release).contains(&AuthorityKind::DbClient);
    if split { AuthorityKind::DbClient } else { AuthorityKind::Db }
}

/// Trusts the databases' authority and shows a certificate for this database user.
fn client(state: &State, user: &str) -> Result<ClientConfig> {
    if user.is_empty() {
        bail!("no database user is given: name one in the certificate's route or in the client");
    }
    let mut roots = RootCertStore::empty();
    for certificate in state
        .authority(AuthorityKind::Db, |db| Ok(db.trusted().map(|keys| keys.certificate.clone()).collect::<Vec<_>>()))?
    {
        roots.add(CertificateDer::from(certificate))?;
    }
    let authority = state.authority(clients(state), |clients| Ok(clients.active.clone()))?;
    let (key, now, cluster) = (PrivateKey::p256()?, SystemTime::now(), &state.options.cluster_name);
    let template = Template {
        serial: rand::random(),
        subject: Subject::default().with(ORGANIZATION, [cluster.as_str()])?.with(COMMON_NAME, [user])?.name(),
        issuer: authority.issuer(cluster)?,
        key: key.public(),
        not_before: now - BACKDATE,
        not_after: now + SERVER_LIFE,
        purpose: Purpose::Leaf { issuer: authority.tls.public(), names: &[], addresses: &[] },
    };
    let certificate = CertificateDer::from(x509::sign(template, &authority.tls)?);
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_pkcs8()?));
    Ok(builder.with_root_certificates(roots).with_client_auth_cert(vec![certificate], key)?)
}
