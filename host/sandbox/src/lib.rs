//! The only room that knows wasmtime: plugins run here, each call in a store of its own.
//!
//! * [`Engine`] compiles (in a process of its own) and loads components; [`Plugin`] is one that may run.
//! * [`JoinPlugin`], [`OutputPlugin`], [`FormatPlugin`] are the traits of `identity`, played by a guest.
//! * [`Grants`] are what a plugin may do beyond computing; `http` performs its requests.
//! * `limits` holds every number. [`CallError`] says what a guest did wrong, and what to do about it.

mod adapter;
mod address;
mod bindings;
mod call;
mod engine;
mod error;
mod grants;
mod host;
mod http;
mod limits;
mod log;
mod prefix;

pub use adapter::{FormatPlugin, JoinPlugin, OutputPlugin};
pub use engine::{Engine, Kind, Plugin};
pub use error::CallError;
pub use grants::{Grants, Rights};
pub use limits::COMPONENT_BYTES;
