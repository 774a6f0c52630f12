//! Destinations: where sets of files live. The only room that opens files.
//!
//! A set is switched as one: staged in a hidden folder beside its targets, made durable, committed by one rename, then moved into
//! place. Whatever ends the process, the next start finds the whole old set or completes the new one (see `set`).
//!
//! What a reader may count on while a switch goes on: every file is whole, old or new; files of one set change back to back, in the
//! order in which the output names them. Only files that cannot be replaced are rewritten in place, and the log says so. In the layout
//! `generations` all files change at one stroke (see `generations`).

mod access;
mod account;
mod acl;
mod directory;
mod file;
mod generations;
mod init;
mod memory;
mod root;
mod set;

pub use access::Reader;
pub use account::{User, group};
pub use directory::{Acls, Directory, Layout, Rules, Symlinks};
pub use init::Preparation;
pub use memory::Memory;
