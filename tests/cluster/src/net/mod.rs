//! Listeners, TLS and the routing of connections.

pub(crate) mod admission;
pub(crate) mod auth_port;
pub(crate) mod backend;
pub(crate) mod database;
mod framing;
pub(crate) mod listener;
mod load_balancer;
mod mysql;
mod postgres;
pub(crate) mod proxy_port;
pub(crate) mod serve;
pub(crate) mod stream;
mod tcp_app;
pub(crate) mod tls;
pub(crate) mod upgrade;
pub(crate) mod web_authority;
