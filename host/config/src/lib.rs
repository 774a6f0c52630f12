//! Text to one checked [`Config`]: the rest of the host never sees a version of the file, a default that is missing, or a flag.
//!
//! * [`load`] reads a file, lays flags and environment over it and checks the whole: every mistake in one run, each with line and column.
//! * [`parse`] does the same with text that is already here.
//!
//! Within: `node` (YAML to a tree with places), `section` (typed reading of the tree), one file for each part of the configuration,
//! `file` (the versions of the schema), `flags` (what the command line replaces), `check` (rules between the parts).

mod address;
mod check;
mod config;
mod destination;
mod duration;
mod file;
mod flags;
mod load;
mod mistake;
mod node;
mod onboarding;
mod output;
mod places;
mod plugin;
mod section;

pub use address::{ServerAddress, ServerKind};
pub use config::Config;
pub use destination::{Acls, DestinationConfig, Symlinks};
pub use duration::{format_duration, parse_duration};
pub use flags::Flags;
pub use load::{load, parse};
pub use mistake::{Mistake, Mistakes};
pub use onboarding::{Onboarding, Token};
pub use output::OutputConfig;
pub use plugin::{PluginConfig, PluginKind};
pub use section::did_you_mean;

use section::key_name;

/// `sha256:` and 64 hex digits: the form of pins and digests.
fn is_sha256(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:");
    hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
