//! `tbot proxy`, and `tbot` with words alone.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

use super::{World, binary, text, until};

/// A running `tbot proxy`, and what it prints.
pub struct Proxy {
    child: Child,
    printed: NamedTempFile,
    logged: NamedTempFile,
}

impl Proxy {
    pub fn start(world: &World, arguments: &[&str]) -> Self {
        Self::spawn(world.run(arguments))
    }

    pub fn spawn(mut command: Command) -> Self {
        let (printed, logged) = (NamedTempFile::new().unwrap(), NamedTempFile::new().unwrap());
        command.stdout(printed.reopen().unwrap()).stderr(logged.reopen().unwrap());
        Self { child: command.spawn().unwrap(), printed, logged }
    }

    /// The first line, without its end; the port is open when it is there.
    pub async fn line(&self) -> String {
        until("the port is open", || self.printed().contains('\n')).await;
        self.printed().lines().next().unwrap().to_owned()
    }

    /// All that it printed so far.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(self.printed.path()).unwrap()
    }

    /// All that it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.logged.path()).unwrap()
    }

    /// Ends it as systemd does.
    pub async fn end(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        until("the proxy ends", || self.child.try_wait().unwrap().is_some()).await;
        self.child.wait().unwrap().code()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl World {
    /// `tbot` with these words alone.
    pub fn run(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).env_clear().env("SSL_CERT_FILE", self.path("web-ca.pem")).stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    pub async fn refused(&self, arguments: &[&str]) -> String {
        let mut command = self.run(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        text(&output)
    }
}
