use std::path::PathBuf;
use std::time::Duration;

use crate::{DestinationConfig, Mistake, Onboarding, OutputConfig, PluginConfig, ServerAddress, TunnelConfig};

/// A configuration that holds together: file, flags, environment and defaults in one (surface §A.6, §B).
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it was read from.
    pub source: Option<PathBuf>,
    /// Where the cluster is. Its text is empty where nobody says so and nobody has to (`Flags::outputs_only`).
    pub address: ServerAddress,
    /// How the bot joins.
    pub onboarding: Onboarding,
    /// Where the bot keeps its own identity.
    pub storage: DestinationConfig,
    /// What it writes, in the order of the file: `services`, then `outputs`.
    pub outputs: Vec<OutputConfig>,
    /// Local listeners: services of the newest schema.
    pub tunnels: Vec<TunnelConfig>,
    /// Third-party plugins.
    pub plugins: Vec<PluginConfig>,
    /// Life of certificates; 1 h where nothing is said.
    pub ttl: Duration,
    /// Time between renewals; 20 min where nothing is said.
    pub renewal_interval: Duration,
    /// Renew everything once and exit.
    pub oneshot: bool,
    /// Features for debugging. The log level is the command line's alone.
    pub debug: bool,
    /// Trust the cluster on first contact without verifying it.
    pub insecure: bool,
    /// `host:port` for diagnostics.
    pub diag_addr: Option<String>,
    /// Something in it has keys of its own in the newest schema: [`Config::to_yaml`] writes that one.
    pub(crate) newest: bool,
    /// What an operator should know and nothing has to stop for.
    pub warnings: Vec<Mistake>,
}
