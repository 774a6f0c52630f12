//! Accepts connections until told to stop; every connection can be cut.

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};

use super::{auth_port, load_balancer, proxy_port};
use crate::state::{Ports, State};

/// Opens both ports: those of the options at first, the same ones again after an outage.
pub(crate) async fn open(state: &Arc<State>) -> Result<()> {
    let (auth, proxy) = match state.ports.get() {
        Some(ports) => (bind(ports.auth.port()).await?, bind(ports.proxy.port()).await?),
        None => (bind(state.options.auth_port).await?, bind(state.options.proxy_port).await?),
    };
    let ports = Ports { auth: auth.local_addr()?, proxy: proxy.local_addr()? };
    // The second opening finds the same addresses.
    let _ = state.ports.set(ports);
    let in_front = if state.options.strip_alpn {
        tokio::spawn(accept(state.clone(), proxy, load_balancer::handle))
    } else {
        tokio::spawn(accept(state.clone(), proxy, proxy_port::handle))
    };
    listeners(state).extend([tokio::spawn(accept(state.clone(), auth, auth_port::handle)), in_front]);
    Ok(())
}

/// Closes both ports and cuts every connection.
pub(crate) fn close(state: &State) {
    for task in listeners(state).drain(..) {
        task.abort();
    }
    cut(state);
}

/// Cuts every connection; new ones are accepted.
pub(crate) fn cut(state: &State) {
    state.cut.send_modify(|count| *count += 1);
}

fn listeners(state: &State) -> std::sync::MutexGuard<'_, Vec<tokio::task::JoinHandle<()>>> {
    state.listeners.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

async fn bind(port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.with_context(|| format!("listening on port {port}"))
}

async fn accept<F>(state: Arc<State>, listener: TcpListener, handle: fn(Arc<State>, TcpStream, SocketAddr) -> F)
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    loop {
        let Ok((stream, remote)) = listener.accept().await else { continue };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        until_cut(&state, handle(state.clone(), stream, remote));
    }
}

/// Runs a connection in the background until it ends or is cut.
pub(crate) fn until_cut(state: &State, work: impl Future<Output = Result<()>> + Send + 'static) {
    let mut cut = state.cut.subscribe();
    tokio::spawn(async move {
        tokio::select! {
            result = work => {
                if let Err(error) = result {
                    tracing::debug!(error = format!("{error:#}"), "connection");
                }
            }
            _ = cut.changed() => {}
        }
    });
}
