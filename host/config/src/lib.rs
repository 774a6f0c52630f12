//! Text to one checked [`Config`]: the rest of the host never sees a version of the file, a default that is missing, or a flag.
//!
//! * [`load`] reads a file, lays flags and environment over it and checks the whole: every mistake in one run, each with line and column.
//! * [`parse`] does the same with text that is already here.
//!
//! * [`migrate_file`] turns a file of the first schema into one of the second, [`configure`] flags into a file.
//!
//! Within: `node` (YAML to a tree with places), `section` (typed reading of the tree), one file for each part of the configuration,
//! `file` (the versions of the schema; `v1` for the destinations of the first), `print` (back to text; `yaml` is its style), `flags` (what the command line replaces), `check` (rules between the parts).

mod address;
mod check;
mod config;
mod configure;
mod destination;
mod duration;
mod file;
mod flags;
mod hook;
mod join_uri;
mod load;
mod migrate;
mod mistake;
mod node;
mod onboarding;
mod output;
mod places;
mod plugin;
mod print;
mod section;
mod service;
mod service_flags;
mod tunnel;
mod v1;
mod yaml;

pub use address::{ServerAddress, ServerKind};
pub use config::Config;
pub use configure::configure;
pub use destination::{Acls, DestinationConfig, Layout, Reader, Symlinks};
pub use duration::{format_duration, parse_duration, parse_flag_duration};
pub use flags::Flags;
pub use hook::{Action, OnChange, Signal};
pub use load::{load, parse};
pub use migrate::{Migrated, Unmigrated, migrate, migrate_file};
pub use mistake::{Mistake, Mistakes};
pub use onboarding::{Onboarding, Token, method_key};
pub use output::OutputConfig;
pub use plugin::{PluginConfig, PluginKind};
pub use section::did_you_mean;
pub use service::SERVICES_NOT_YET;
pub use service_flags::{DestinationFlags, ServiceFlags};
pub use tunnel::{Listen, TunnelConfig, TunnelKind};

use section::key_name;

/// `sha256:` and 64 hex digits: the form of pins and digests.
fn is_sha256(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:");
    hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
