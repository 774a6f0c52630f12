//! The SSH server behind a proxy's tunnel (wire §f.2.B): just enough for a client to reach auth through one channel.
//!
//! Our own because its channel and request types are Teleport's, which no server crate lets through. What is not needed
//! is not there: one suite (curve25519, AES-128-GCM), no second key exchange, one channel at a time.

mod channel;
mod handshake;
mod packets;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::{
    AuthorityKind,
    net::stream::Stream,
    pki::{
        private_key::PrivateKey,
        public_key::PublicKey,
        ssh::{self, Kind},
        x509::BACKDATE,
    },
    state::State,
};

/// What the server's host certificate is for: every name under which the proxy is reached.
const HOST_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Which server a client has come to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// That of tunnels.
    Tunnel,
    /// The proxy's own, which leaves it to hosts whom they let in under which name.
    Proxy,
}

/// Serves one client until it goes away.
pub(crate) async fn serve(state: Arc<State>, stream: Stream, door: Door) -> Result<()> {
    let (key, certificate) = host_key(&state)?;
    let (read, write) = tokio::io::split(stream);
    let (mut reader, mut writer, session) = handshake::exchange_keys(read, write, &key, &certificate).await?;
    let user = handshake::authenticate(&mut reader, &mut writer, &session, |user, certificate| {
        // Any of them: 12 takes the first, 15 `-teleport-internal-join` (wire §f.2.B).
        let authorities = trusted(&state)?;
        let shown = ssh::verify(certificate, Kind::User, &authorities)?;
        let named = door == Door::Proxy || shown.principals.iter().any(|name| name == user);
        ensure!(named, "`{user}` is no principal of the certificate");
        Ok((shown.key_id, shown.key))
    });
    let user = user.await.context("authenticating")?;
    channel::serve(&state, &user, reader, writer).await
}

/// A new host key with its certificate, as a proxy makes one at its start.
fn host_key(state: &State) -> Result<(PrivateKey, Vec<u8>)> {
    let authority = state.authority(AuthorityKind::Host, |host| Ok(host.serving.clone()))?;
    let key = PrivateKey::ed25519()?;
    let now = std::time::SystemTime::now();
    let names = HOST_NAMES.iter().map(|name| (*name).to_owned());
    let template = ssh::Template {
        kind: Kind::Host,
        key: key.public(),
        key_id: "",
        principals: &names.chain([state.options.cluster_name.clone()]).collect::<Vec<_>>(),
        valid_after: now - BACKDATE,
        valid_before: now + crate::net::tls::SERVER_LIFE,
        extensions: Vec::new(),
    };
    let certificate = ssh::sign(template, authority.ssh.as_ref().context("this authority has no SSH key")?)?;
    Ok((key, certificate.wire))
}

/// The SSH keys that may sign a user's certificate.
fn trusted(state: &State) -> Result<Vec<PublicKey>> {
    state.authority(AuthorityKind::User, |user| {
        Ok(user.trusted().filter_map(|keys| keys.ssh.as_ref()).map(|key| key.public().clone()).collect())
    })
}
