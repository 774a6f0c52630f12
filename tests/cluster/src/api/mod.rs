//! The services of a cluster: what they answer, apart from how connections are made.

pub(crate) mod auth_service;
pub(crate) mod bot_instances;
pub(crate) mod certificates;
pub(crate) mod grpc;
pub(crate) mod hostile;
pub(crate) mod http_api;
pub(crate) mod join;
pub(crate) mod join_service;
pub(crate) mod join_stream;
pub(crate) mod json;
pub(crate) mod modern;
pub(crate) mod refusal;
pub(crate) mod resources;
pub(crate) mod sessions;
pub(crate) mod transport;
pub(crate) mod trust_service;
pub(crate) mod watch;
