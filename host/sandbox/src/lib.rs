//! The only room that knows wasmtime: plugins run here, each call in a store of its own.
//!
//! * [`Engine`] compiles (in a process of its own) and loads components; [`Plugin`] is one that may run.
//! * [`JoinPlugin`], [`OutputPlugin`], [`FormatPlugin`] are the traits of `identity`, played by a guest.
//! * `limits` holds every number. [`CallError`] says what a guest did wrong, and what to do about it.

mod adapter;
mod bindings;
mod call;
mod engine;
mod error;
mod host;
mod limits;
mod log;

pub use adapter::{FormatPlugin, JoinPlugin, OutputPlugin};
pub use engine::{Engine, Grants, Kind, Plugin};
pub use error::CallError;
pub use limits::COMPONENT_BYTES;
