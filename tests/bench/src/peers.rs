//! The registries that are compared: where their programs are, how they are configured, started and stopped.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::Failure;
use rustix::process::{Pid, Signal, kill_process};

/// The Go package of distribution's server, and the version that is compared.
const DISTRIBUTION: &str = "github.com/distribution/distribution/v3/cmd/registry@v3.1.2";

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
    /// `go install` did not succeed.
    #[error("go install {0} failed: {1}")]
    Install(&'static str, String),
}

/// A registry program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// This project's.
    Roadstead,
    /// distribution v3.
    Distribution,
    /// Debian's package of distribution v2.
    DockerRegistry,
}

impl Kind {
    /// All of them, in the order of the report.
    pub(crate) const ALL: [Self; 3] = [Self::Roadstead, Self::Distribution, Self::DockerRegistry];

    /// Its name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Roadstead => "roadstead",
            Self::Distribution => "distribution",
            Self::DockerRegistry => "docker-registry",
        }
    }

    /// How to get it, for a report that it is missing.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Roadstead => "build it with `cargo build --release`, or give --roadstead",
            Self::Distribution => "run once with --install (needs Go, some minutes), or give --distribution",
            Self::DockerRegistry => "apt-get install docker-registry, or give --docker-registry",
        }
    }
}

/// A program that was found.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// What it is.
    pub(crate) kind: Kind,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it says of its version.
    pub(crate) version: String,
    /// For roadstead: whether it syncs, `full` or `off`.
    pub(crate) sync: String,
}

impl Program {
    /// The program at `given`, or where it is looked for otherwise: roadstead beside this driver, distribution in the
    /// cache, Debian's in the search path.
    pub(crate) fn find(kind: Kind, given: Option<&Path>, sync: &str) -> Option<Self> {
        let path = match given {
            Some(path) => path.to_owned(),
            None => match kind {
                Kind::Roadstead => std::env::current_exe().ok()?.with_file_name("roadstead"),
                Kind::Distribution => cache()?.join("bin/registry"),
                Kind::DockerRegistry => std::env::split_paths(&std::env::var_os("PATH")?)
                    .map(|folder| folder.join("docker-registry"))
                    .find(|path| path.is_file())?,
            },
        };
        if !path.is_file() {
            return None;
        }
        let version = Command::new(&path).arg("--version").output().ok()?;
        // All of them end the line with it, after names and paths.
        let version = String::from_utf8_lossy(&version.stdout);
        let version = version.split_whitespace().last().unwrap_or_default().to_owned();
        Some(Self {
            kind,
            path,
            version,
            sync: sync.to_owned(),
        })
    }

    /// Builds distribution into the cache.
    pub(crate) fn install_distribution() -> Result<(), Trouble> {
        let failed = |what: String| Trouble::Install(DISTRIBUTION, what);
        let folder =
            cache().ok_or_else(|| failed("no cache folder: neither HOME nor XDG_CACHE_HOME is set".to_owned()))?;
        let made = Command::new("go")
            .args(["install", DISTRIBUTION])
            .env("GOBIN", folder.join("bin"))
            .status()
            .map_err(|error| failed(error.to_string()))?;
        if made.success() {
            Ok(())
        } else {
            Err(failed(made.to_string()))
        }
    }

    fn command(&self, folder: &Path, port: u16) -> Result<Command, Trouble> {
        let data = folder.join("data");
        let mut command = Command::new(&self.path);
        if self.kind == Kind::Roadstead {
            let listen = format!("127.0.0.1:{port}");
            command
                .args(["serve", "--listen", &listen, "--sync", &self.sync, "--data"])
                .arg(data);
            return Ok(command);
        }
        let config = folder.join("config.yml");
        std::fs::write(&config, distribution_config(&data, port)).map_err(system(&config))?;
        command.arg("serve").arg(config);
        // distribution v3 otherwise spends time on sending traces to a collector that is not there.
        command.env("OTEL_TRACES_EXPORTER", "none");
        Ok(command)
    }
}

/// The cache folder that the tests of this project share.
fn cache() -> Option<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("ROADSTEAD_TEST_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("roadstead")))
        .or_else(|| Some(variable("HOME")?.join(".cache/roadstead")))
}

fn distribution_config(data: &Path, port: u16) -> String {
    format!(
        "version: 0.1\n\
         storage:\n\
         \x20 cache: {{blobdescriptor: inmemory}}\n\
         \x20 filesystem: {{rootdirectory: {}}}\n\
         \x20 delete: {{enabled: true}}\n\
         http: {{addr: 127.0.0.1:{port}}}\n",
        data.display()
    )
}

/// A running server. Dropping it stops it; its folder remains.
pub(crate) struct Server {
    program: Program,
    folder: PathBuf,
    child: Option<Child>,
    port: u16,
    /// From before the start of the process to its first answer.
    pub(crate) startup: Duration,
}

impl Server {
    /// Starts `program` with its data below `folder`, and waits until it answers.
    pub(crate) fn start(program: &Program, folder: &Path) -> Result<Self, Trouble> {
        std::fs::create_dir_all(folder).map_err(system(folder))?;
        let mut server = Self {
            program: program.clone(),
            folder: folder.to_owned(),
            child: None,
            port: 0,
            startup: Duration::ZERO,
        };
        server.restart()?;
        Ok(server)
    }

    /// Stops the process and starts it again on the same data.
    pub(crate) fn restart(&mut self) -> Result<(), Trouble> {
        self.stop();
        self.port = free_port()?;
        let log = self.folder.join("log");
        let file = File::create(&log).map_err(system(&log))?;
        let copy = file.try_clone().map_err(system(&log))?;
        let mut command = self.program.command(&self.folder, self.port)?;
        command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy);
        let begin = Instant::now();
        self.child = Some(command.spawn().map_err(system(&self.program.path))?);
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        while !answers(address) {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(self.trouble(format!("ended with {status}")));
            }
            if begin.elapsed() > START_LIMIT {
                return Err(self.trouble(format!("gave no answer within {} s", START_LIMIT.as_secs())));
            }
            std::thread::sleep(POLL);
        }
        self.startup = begin.elapsed();
        Ok(())
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its process, 0 when there is none.
    pub(crate) fn process(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Asks the process to end, waits, and kills it if it does not.
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
        let begin = Instant::now();
        while begin.elapsed() < STOP_LIMIT {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    fn trouble(&self, what: String) -> Trouble {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let log = lines[lines.len().saturating_sub(5)..].join(" | ");
        Trouble::Start {
            name: self.program.kind.name(),
            what,
            log,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn system(path: &Path) -> impl FnOnce(std::io::Error) -> Trouble {
    let named = path.display().to_string();
    move |error| Trouble::System(named, error)
}

/// A port that was free a moment ago; servers cannot tell us which one they took.
fn free_port() -> Result<u16, Trouble> {
    let failed = |error| Trouble::System("a free port".to_owned(), error);
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
    Ok(listener.local_addr().map_err(failed)?.port())
}

/// Whether `GET /v2/` is answered with 200.
fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut line = [0; 12];
        stream.read_exact(&mut line)?;
        Ok(&line == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_configuration_names_the_data_and_binds_to_loopback() {
        let config = distribution_config(Path::new("/x/data"), 5001);
        assert!(config.contains("rootdirectory: /x/data}"), "{config}");
        assert!(config.contains("addr: 127.0.0.1:5001"), "{config}");
    }

    #[test]
    fn a_program_that_is_not_there_is_missing_not_an_error() {
        for kind in Kind::ALL {
            assert!(Program::find(kind, Some(Path::new("/no/such/program")), "full").is_none());
        }
    }

    #[test]
    fn a_server_that_ends_at_once_is_reported_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = PathBuf::from("/bin/false");
        let program = Program {
            kind: Kind::DockerRegistry,
            path,
            version: String::new(),
            sync: "full".to_owned(),
        };
        let trouble = Server::start(&program, folder.path()).err().unwrap();
        assert!(trouble.to_string().contains("ended with"), "{trouble}");
    }
}
