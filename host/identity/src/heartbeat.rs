use std::time::Duration;

use crate::Timestamp;

/// What a bot says of itself from time to time; clusters since version 16 show it (wire §f.5).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heartbeat {
    /// The first one of this process.
    pub is_startup: bool,
    /// The machine's name.
    pub hostname: String,
    /// How long this process has run.
    pub uptime: Duration,
    /// As `onboarding.join_method` spells it.
    pub join_method: String,
    /// The process ends after one pass.
    pub one_shot: bool,
    /// Every output and service; long names and reasons are cut.
    pub services: Vec<ServiceHealth>,
}

/// How one output or service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceHealth {
    /// Its type, as the configuration spells it.
    pub kind: String,
    /// What tells it from others of its type.
    pub name: String,
    /// How it is.
    pub health: Health,
    /// Since when.
    pub since: Timestamp,
}

/// The state of one output or service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Nothing has been made yet.
    Initializing,
    /// The last pass succeeded.
    Healthy,
    /// The last pass failed, and why. Never holds a secret.
    Unhealthy(String),
}
