//! `tbot`: short-lived credentials for machines, from a Teleport cluster.

mod configure;
mod flags;
mod init;
mod migrate;
mod signals;
mod start;
mod wiring;

use std::process::ExitCode;

use flags::{Command, Flags};

fn main() -> ExitCode {
    let flags = match Flags::read(std::env::args_os()) {
        Ok(flags) => flags,
        Err(exit) => return exit,
    };
    let result = match flags.command {
        Command::Start(ref command) => start::start(&flags, command),
        Command::Configure(ref command) => configure::configure(&flags, command),
        Command::Migrate { ref output } => migrate::migrate(&flags, output.as_deref()),
        Command::Init(ref command) => init::init(&flags, command),
        Command::Version => version(),
        Command::PluginCompile { ref input, ref output } => start::compile(input, output),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("ERROR: {}", telemetry::redact(&message));
            ExitCode::FAILURE
        }
    }
}

fn version() -> Result<(), String> {
    println!("tbot v{} git:{} rust", env!("CARGO_PKG_VERSION"), option_env!("TBOT_GIT").unwrap_or("unknown"));
    Ok(())
}
