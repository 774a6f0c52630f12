//! Destinations: where sets of files live. The only room that opens files.
//!
//! A set is switched as one: staged in a hidden folder beside its targets, made durable, committed by one rename, then moved into
//! place. Whatever ends the process, the next start finds the whole old set or completes the new one (see `set`).
//!
//! What a reader may count on while a switch goes on: every file is whole, old or new; files of one set change back to back, in the
//! order in which the output names them. Only files that cannot be replaced are rewritten in place, and the log says so.

mod directory;
mod file;
mod memory;
mod root;
mod set;

pub use directory::{Directory, Symlinks};
pub use memory::Memory;
