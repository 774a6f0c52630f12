//! Listeners, TLS and the routing of connections.

pub(crate) mod auth_port;
pub(crate) mod backend;
pub(crate) mod listener;
pub(crate) mod proxy_port;
pub(crate) mod serve;
pub(crate) mod tls;
pub(crate) mod web_authority;
