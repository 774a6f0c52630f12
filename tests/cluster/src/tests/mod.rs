//! The stand-in against recordings of a real cluster, and its ports from outside.

mod certificates;
mod client;
mod faults;
mod paths;
pub(crate) mod recorded;
mod refusals;
mod routes;
mod shapes;
