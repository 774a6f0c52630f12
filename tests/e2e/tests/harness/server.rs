//! A real database server behind the stand-in, in a folder of its own: it speaks TLS with a certificate of the databases' authority, and
//! lets in whoever shows one for a user.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use stand_in::Control;
use tempfile::TempDir;

use super::text;

/// Database servers refuse to run as root; this user is on every Debian.
const NOBODY: u32 = 65_534;

pub struct Server {
    folder: TempDir,
    running: Option<Child>,
    pub port: u16,
}

impl Server {
    /// A folder with `server.crt`, `server.key` and `clients.pem`, and a free port.
    pub fn new(control: &Control) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        give(folder.path());
        let server = Self { folder, running: None, port };
        let files = control.sign_database().unwrap();
        server.write("server.crt", &files.certificate);
        server.write("server.key", &files.key);
        server.write("clients.pem", &files.client_authority);
        server
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// As the stand-in is told of it.
    pub fn uri(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Writes a file that only the server can read.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        give(&path);
    }

    /// Runs a program in the folder, to its end.
    pub fn run(&self, program: impl AsRef<OsStr>, arguments: &[&str]) {
        let output = self.command(program, arguments).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }

    /// Starts the server; what it logs is in `log`.
    pub fn start(&mut self, program: impl AsRef<OsStr>, arguments: &[&str]) {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = self.command(program, arguments);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.running = Some(command.spawn().unwrap());
    }

    fn command(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        if geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(running) = &mut self.running else { return };
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
        }
        // At once, and PostgreSQL's children with it.
        let _ = kill_process(Pid::from_child(running), Signal::QUIT);
        let _ = running.wait();
    }
}

/// Runs a command without holding up the cluster, which lives in this process.
pub async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// The newest version of a folder, where Debian keeps several.
pub fn newest(folder: &str) -> PathBuf {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).max().unwrap()
}

fn give(path: &Path) {
    if geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}
