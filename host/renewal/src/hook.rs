//! What is done after an output has changed: a command, or a signal to a process.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use identity::{Failure, FailureKind};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::Command;
use tracing::{debug, info};

/// Largest PID file: a number and a newline.
const PID_FILE_BYTES: u64 = 64;

/// What is done after each verified switch of an output's files: at least once for every generation, also where the agent was killed in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// Runs a program, without a shell. Its environment holds `PATH` and `TBOT_OUTPUT`, and `TBOT_DESTINATION` where there is a directory.
    Command {
        /// Program and arguments; not empty.
        argv: Vec<String>,
        /// It is killed after this long, with all its children that stayed in its process group.
        timeout: Duration,
    },
    /// Signals the process whose id is in a file.
    Signal {
        /// The file.
        pid_file: PathBuf,
        /// The signal.
        signal: Signal,
    },
}

impl Hook {
    /// Runs to the end.
    ///
    /// # Errors
    /// [`FailureKind::Unavailable`]: it could not be run, failed, or took too long. It is tried again.
    pub(crate) async fn run(&self, output: &str, directory: Option<&str>) -> Result<(), Failure> {
        let failed = |message: String| Failure::new(FailureKind::Unavailable, format!("on_change: {message}"));
        match self {
            Self::Command { argv, timeout } => command(argv, *timeout, output, directory).await.map_err(failed),
            Self::Signal { pid_file, signal } => {
                let (file, signal) = (pid_file.clone(), *signal);
                let sent = tokio::task::spawn_blocking(move || send(&file, signal)).await;
                sent.unwrap_or_else(|e| Err(e.to_string())).map_err(failed)
            }
        }?;
        info!(target: "TBOT", output, "Ran the output's on_change hook.");
        Ok(())
    }
}

async fn command(argv: &[String], timeout: Duration, output: &str, directory: Option<&str>) -> Result<(), String> {
    let [program, arguments @ ..] = argv else { return Err("the command is empty".into()) };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("TBOT_OUTPUT", output);
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.envs(directory.map(|directory| ("TBOT_DESTINATION", directory)));
    // What it prints goes to the agent's own stderr: nothing of ours is on stdout.
    command.stdin(Stdio::null()).stdout(std::io::stderr()).process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| format!("`{program}` cannot be run: {e}"))?;
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let status = match tokio::time::timeout(timeout, child.wait()).await {
        Ok(ended) => {
            // What it has started and left running is meant to stay.
            group.0 = None;
            ended.map_err(|e| format!("`{program}`: {e}"))?
        }
        Err(_) => {
            drop(group);
            let _ = child.wait().await;
            return Err(format!(
                "`{program}` did not end within {} s and was killed: raise `timeout`",
                timeout.as_secs()
            ));
        }
    };
    if status.success() { Ok(()) } else { Err(format!("`{program}` ended with {status}")) }
}

/// The processes of a hook that has not ended. They do not outlive its wait: the next start runs it again.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(Err(e)) = self.0.map(|group| kill_process_group(group, Signal::KILL)) {
            debug!(target: "TBOT", error = %e, "The hook's processes cannot be killed.");
        }
    }
}

fn send(pid_file: &std::path::Path, signal: Signal) -> Result<(), String> {
    use std::io::Read;
    let name = pid_file.display();
    let mut text = String::new();
    let file = std::fs::File::open(pid_file).map_err(|e| format!("pid file {name}: {e}"))?;
    file.take(PID_FILE_BYTES).read_to_string(&mut text).map_err(|e| format!("pid file {name}: {e}"))?;
    // 1 is init, smaller ones are groups of processes.
    let id = text.trim().parse::<i32>().ok().filter(|id| *id > 1);
    let pid = id.and_then(Pid::from_raw).ok_or_else(|| format!("pid file {name} holds no process id"))?;
    kill_process(pid, signal)
        .map_err(|e| format!("process {id} of pid file {name} cannot be signalled: {e}", id = pid.as_raw_pid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Duration) -> Hook {
        Hook::Command { argv: ["/bin/sh", "-c", script].map(String::from).to_vec(), timeout }
    }

    #[tokio::test]
    async fn a_command_sees_what_it_is_about_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("seen");
        let hook = shell(&format!("env > {}", out.display()), Duration::from_secs(20));
        hook.run("app", Some("/opt/machine-id")).await.unwrap();
        let seen = std::fs::read_to_string(out).unwrap();
        let mut names: Vec<&str> = seen.lines().filter_map(|line| line.split('=').next()).collect();
        names.retain(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(name));
        names.sort_unstable();
        assert_eq!(names, ["PATH", "TBOT_DESTINATION", "TBOT_OUTPUT"]);
        assert!(seen.contains("TBOT_DESTINATION=/opt/machine-id\n") && seen.contains("TBOT_OUTPUT=app\n"));
    }

    #[tokio::test]
    async fn what_fails_or_hangs_says_so_and_leaves_no_process() {
        let failure = shell("exit 3", Duration::from_secs(20)).run("app", None).await.unwrap_err();
        assert!(failure.message.contains("exit status: 3"), "{failure}");
        let missing = Hook::Command { argv: vec!["/no/such/program".into()], timeout: Duration::from_secs(20) };
        assert!(missing.run("app", None).await.unwrap_err().message.contains("cannot be run"));
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let failure = shell(&leaves_a_child(&pid), Duration::from_secs(1)).run("app", None).await.unwrap_err();
        assert!(failure.message.contains("did not end within 1 s"), "{failure}");
        ended(&pid).await;
    }

    #[tokio::test]
    async fn what_the_end_of_the_agent_interrupts_leaves_no_process() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let hook = shell(&leaves_a_child(&pid), Duration::from_secs(600));
        let running = tokio::spawn(async move { hook.run("app", None).await });
        while std::fs::read_to_string(&pid).unwrap_or_default().trim().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        running.abort();
        ended(&pid).await;
    }

    fn leaves_a_child(pid: &std::path::Path) -> String {
        format!("sleep 600 & echo $! > {}; wait", pid.display())
    }

    /// Waits until the process that the file names has ended. A killed process that nobody has waited for yet is a zombie.
    async fn ended(pid: &std::path::Path) {
        let id = std::fs::read_to_string(pid).unwrap();
        for _ in 0..1000 {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.trim()));
            if stat.map_or(true, |stat| stat.contains(") Z ") || stat.contains(") X ")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the grandchild {id} lives on");
    }

    #[tokio::test]
    async fn a_signal_goes_to_the_process_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let hook = Hook::Signal { pid_file: pid_file.clone(), signal: Signal::TERM };
        assert!(hook.run("app", None).await.unwrap_err().message.contains("No such file"));
        for bad in ["", "x", "0", "-1", "1"] {
            std::fs::write(&pid_file, bad).unwrap();
            assert!(hook.run("app", None).await.unwrap_err().message.contains("holds no process id"), "{bad}");
        }
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        std::fs::write(&pid_file, format!("{}\n", child.id().unwrap())).unwrap();
        hook.run("app", None).await.unwrap();
        assert!(!child.wait().await.unwrap().success());
    }
}
