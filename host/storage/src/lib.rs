//! Destinations: where sets of files live. The only room that opens files.
//!
//! A set is switched as one: staged in a hidden folder beside its targets, made durable, committed by one rename, then moved into
//! place. Whatever ends the process, the next start finds the whole old set or completes the new one (see `set`).

mod directory;
mod memory;
mod set;

pub use directory::{Directory, Symlinks};
pub use memory::Memory;
