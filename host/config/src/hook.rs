use std::path::PathBuf;
use std::time::Duration;

use crate::mistake::Report;
use crate::section::{Field, Unknown, one_of};

/// How long a hook may take unless told otherwise: a server that reloads answers within seconds.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// What happens after an output's files have changed: `on_change`, an extension of ours to the original's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnChange {
    /// What is done.
    pub action: Action,
    /// How long it may take; 30 s where nothing is said.
    pub timeout: Duration,
}

/// One way to tell another program that its files have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A program and its arguments, run without a shell; never empty.
    Command(Vec<String>),
    /// A signal to the process whose id a file holds.
    Signal {
        /// The file, read at each use; an absolute path.
        pid_file: PathBuf,
        /// Which signal.
        signal: Signal,
    },
    /// `systemctl reload` of this unit.
    SystemdReload(String),
}

/// The signals that programs reload on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// `HUP`.
    Hup,
    /// `USR1`.
    Usr1,
    /// `USR2`.
    Usr2,
    /// `WINCH`.
    Winch,
    /// `INT`.
    Int,
    /// `TERM`.
    Term,
    /// `QUIT`.
    Quit,
}

impl Signal {
    const ALL: [(&'static str, Self); 7] = [
        ("HUP", Self::Hup),
        ("USR1", Self::Usr1),
        ("USR2", Self::Usr2),
        ("WINCH", Self::Winch),
        ("INT", Self::Int),
        ("TERM", Self::Term),
        ("QUIT", Self::Quit),
    ];

    /// As `kill -l` names it, without `SIG`.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, signal)| *signal == self).map_or("", |(name, _)| name)
    }
}

impl OnChange {
    /// Reads `on_change`: exactly one of `command`, `signal` and `systemd_reload`.
    pub(crate) fn read(field: &Field, report: &mut Report) -> Option<Self> {
        let mut section = field.section(report)?;
        let mut actions = Vec::new();
        if let Some(field) = section.field("command") {
            actions.push(command(&field, report));
        }
        if let Some(field) = section.field("signal") {
            actions.push(signal(&field, report));
        }
        if let Some(field) = section.field("systemd_reload") {
            actions.push(unit(&field, report));
        }
        let timeout = section.field("timeout").map(|field| (field.duration(report), field.place));
        section.close(Unknown::Mistake, "", report);
        let timeout = match timeout {
            Some((Some(Duration::ZERO), place)) => {
                report.mistake(&place, "must be longer than zero: write a duration such as `30s`");
                return None;
            }
            Some((timeout, _)) => timeout?,
            None => DEFAULT_TIMEOUT,
        };
        let count = actions.len();
        match (count, actions.pop()) {
            (1, Some(action)) => Some(Self { action: action?, timeout }),
            _ => {
                let message = "`on_change` has exactly one of `command`, `signal` and `systemd_reload`: add or remove";
                report.mistake(&field.place, message);
                None
            }
        }
    }
}

fn command(field: &Field, report: &mut Report) -> Option<Action> {
    let arguments: Vec<String> = field.texts(report).into_iter().map(|(_, text)| text).collect();
    if arguments.first().is_none_or(String::is_empty) {
        report
            .mistake(&field.place, "no command: write a list of the program and its arguments, such as `[/bin/true]`");
        return None;
    }
    Some(Action::Command(arguments))
}

fn signal(field: &Field, report: &mut Report) -> Option<Action> {
    let mut section = field.section(report)?;
    let path = section.field("pid_file").and_then(|field| field.text(report)).map(PathBuf::from);
    let name = section.field("signal").map(|field| (field.text(report), field.place));
    section.close(Unknown::Mistake, "", report);
    let signal = match name {
        None => Some(Signal::Hup),
        Some((name, place)) => {
            let name = name?.to_ascii_uppercase();
            let name = name.strip_prefix("SIG").unwrap_or(&name);
            let found = Signal::ALL.into_iter().find(|(known, _)| *known == name);
            if found.is_none() {
                let remedy = one_of(name, &Signal::ALL.map(|(name, _)| name));
                report.mistake(&place, format!("unknown signal: {remedy}"));
            }
            found.map(|(_, signal)| signal)
        }
    };
    match path.filter(|path| path.is_absolute()) {
        Some(pid_file) => Some(Action::Signal { pid_file, signal: signal? }),
        None => {
            report.mistake(&field.place, "`pid_file` must be an absolute path: add it, such as `/run/nginx.pid`");
            None
        }
    }
}

fn unit(field: &Field, report: &mut Report) -> Option<Action> {
    let name = field.text(report)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@');
    if name.is_empty() || name.starts_with('-') || !name.chars().all(plain) {
        report.mistake(&field.place, "no name of a unit: write one such as `nginx.service`");
        return None;
    }
    Some(Action::SystemdReload(name))
}
