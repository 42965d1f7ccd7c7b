//! A server process of this run: started, waited for, stopped.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::Failure;

/// Time for a server to answer for the first time.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Time for a server to end after SIGTERM, before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// Time between two tries to connect: what the measured time of a start can be too long by.
const POLL: Duration = Duration::from_micros(200);

/// Why a server is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// A file or process of ours.
    #[error("{0}")]
    System(String, #[source] std::io::Error),
    /// The server ended, or did not answer in time.
    #[error("{name} {what}; its log ends: {log}")]
    Start {
        /// Which.
        name: &'static str,
        /// What it did.
        what: String,
        /// The end of its log.
        log: String,
    },
    /// Its address cannot be used.
    #[error(transparent)]
    Address(#[from] Failure),
    /// A command that installs or prepares did not succeed.
    #[error("{0} failed: {1}")]
    Command(String, String),
}

/// A process that serves until it is stopped or dropped.
pub(crate) struct Daemon {
    child: Child,
    /// From before the start of the process to its first answer.
    pub(crate) startup: Duration,
}

impl Daemon {
    /// Starts `command` in `folder`, with its output in the file `log` there, and waits until `ready`.
    pub(crate) fn start(
        name: &'static str,
        mut command: Command,
        folder: &Path,
        ready: impl Fn() -> bool,
    ) -> Result<Self, Trouble> {
        let log = folder.join("log");
        let file = File::create(&log).map_err(system(&log))?;
        let copy = file.try_clone().map_err(system(&log))?;
        let program = PathBuf::from(command.get_program());
        command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy);
        let begin = Instant::now();
        let mut daemon = Self {
            child: command.spawn().map_err(system(&program))?,
            startup: Duration::ZERO,
        };
        let trouble = |what| Trouble::Start {
            name,
            what,
            log: last_lines(&log),
        };
        while !ready() {
            if let Some(status) = daemon.child.try_wait().ok().flatten() {
                return Err(trouble(format!("ended with {status}")));
            }
            if begin.elapsed() > START_LIMIT {
                return Err(trouble(format!("gave no answer within {} s", START_LIMIT.as_secs())));
            }
            std::thread::sleep(POLL);
        }
        daemon.startup = begin.elapsed();
        Ok(daemon)
    }

    /// Its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    /// Asks the process to end, waits, and kills it if it does not.
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
        let begin = Instant::now();
        while begin.elapsed() < STOP_LIMIT {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn last_lines(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}

/// Names the file at fault.
pub(crate) fn system(path: &Path) -> impl FnOnce(std::io::Error) -> Trouble + use<> {
    let named = path.display().to_string();
    move |error| Trouble::System(named, error)
}

/// A port that was free a moment ago; servers cannot tell us which one they took.
pub(crate) fn free_port() -> Result<u16, Trouble> {
    let failed = |error| Trouble::System("a free port".to_owned(), error);
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
    Ok(listener.local_addr().map_err(failed)?.port())
}

/// Whether a GET of `path` is answered there by a line that begins with `wanted`.
pub(crate) fn answers(address: SocketAddr, path: &str, wanted: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )?;
        let mut line = vec![0; wanted.len()];
        stream.read_exact(&mut line)?;
        Ok(line == wanted.as_bytes())
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_server_that_ends_at_once_is_reported_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo no anchor here; exit 3"]);
        let trouble = Daemon::start("it", command, folder.path(), || false).err().unwrap();
        let text = trouble.to_string();
        assert!(text.contains("ended with") && text.contains("no anchor here"), "{text}");
    }

    #[test]
    fn a_dropped_daemon_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/sleep");
        command.arg("60");
        let daemon = Daemon::start("it", command, folder.path(), || true).unwrap();
        let process = format!("/proc/{}", daemon.process());
        assert!(Path::new(&process).exists());
        drop(daemon);
        assert!(!Path::new(&process).exists());
    }
}
