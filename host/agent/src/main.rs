//! `tbot`: short-lived credentials for machines, from a Teleport cluster.

mod client;
mod configure;
mod copy;
mod db;
mod flags;
mod init;
mod inspect;
mod migrate;
mod proxy;
mod signals;
mod ssh;
mod start;
mod systemd;
mod tunnels;
mod wait;
mod wiring;

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use flags::{Command, Flags, Install};

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
        Command::Validate(ref report) => inspect::validate(&flags, report),
        Command::Plan(ref report) => inspect::plan(&flags, report),
        Command::Install(Install::Systemd(ref command)) => systemd::install(&flags, command),
        Command::Wait(ref command) => wait::wait(command),
        Command::CopyBinaries { ref directory } => copy::copy(directory),
        Command::Completion { shell } => completion(shell),
        Command::ManPages { ref directory } => man_pages(directory),
        Command::Proxy(ref through) => proxy::proxy(&flags, through),
        Command::Db(ref through) => db::db(&flags, through),
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

fn completion(shell: clap_complete::Shell) -> Result<(), String> {
    clap_complete::generate(shell, &mut Flags::command(), "tbot", &mut std::io::stdout());
    Ok(())
}

fn man_pages(directory: &Path) -> Result<(), String> {
    clap_mangen::generate_to(Flags::command(), directory).map_err(|e| format!("{}: {e}", directory.display()))
}
