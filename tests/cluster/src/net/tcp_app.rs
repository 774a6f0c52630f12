//! Applications that are not HTTP (wire §i.4): raw bytes to where the application is.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use tokio::{io::copy_bidirectional, net::TcpStream};

use super::{admission, stream::Stream};
use crate::{
    api::sessions::{self, Access},
    pki::caller::Caller,
    state::State,
};

/// Serves one connection; whatever is wrong closes it.
pub(crate) async fn serve(state: &Arc<State>, mut stream: Stream, caller: Option<Caller>) -> Result<()> {
    let caller = caller.context("no client certificate")?;
    admission::admit_user(state, "teleport-tcp", &caller.user).await?;
    let name = caller.app_name.as_deref().context("the certificate is not for an application")?;
    ensure!(!state.faults.denies(name), "application `{name}` is denied");
    let session = caller.app_session.as_deref().unwrap_or_default();
    let Access::Forward(uri) = sessions::access(state, &caller.user, session) else {
        bail!("the session leads nowhere");
    };
    let address = uri.strip_prefix("tcp://").with_context(|| format!("`{uri}` is not a TCP application"))?;
    let mut upstream = TcpStream::connect(address).await?;
    upstream.set_nodelay(true)?;
    copy_bidirectional(&mut stream, &mut upstream).await?;
    Ok(())
}
