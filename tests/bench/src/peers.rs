//! The registries that are compared: where their programs are, how they are configured, started and stopped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cloud::{self, Mooring, REGION};
use crate::daemon::{Daemon, Trouble, answers, free_port, system};

/// The Go package of distribution's server, and the version that is compared.
const DISTRIBUTION: &str = "github.com/distribution/distribution/v3/cmd/registry@v3.1.2";

/// A registry program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// This project's.
    Roadstead,
    /// An earlier build of it.
    Before,
    /// distribution v3.
    Distribution,
    /// Debian's package of distribution v2.
    DockerRegistry,
}

impl Kind {
    /// All of them, in the order of the report.
    pub(crate) const ALL: [Self; 4] = [Self::Roadstead, Self::Before, Self::Distribution, Self::DockerRegistry];

    /// Whether it is this project's.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Roadstead | Self::Before)
    }

    /// Its name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Roadstead => "roadstead",
            Self::Before => "before",
            Self::Distribution => "distribution",
            Self::DockerRegistry => "docker-registry",
        }
    }

    /// How to get it, for a report that it is missing.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Roadstead => "build it with `cargo build --release`, or give --roadstead",
            Self::Before => "give --before to see what a change costs",
            Self::Distribution => "run once with --install (needs Go, some minutes), or give --distribution",
            Self::DockerRegistry => "apt-get install docker-registry, or give --docker-registry",
        }
    }
}

/// Where a registry keeps what it stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stores {
    /// Everything in a folder.
    Disk,
    /// Bytes in S3, names in S3 too (its peers) or in a file (roadstead).
    S3,
    /// Bytes in S3, names in DynamoDB; only roadstead.
    S3AndDynamoDb,
}

/// A program that was found.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// What it is.
    pub(crate) kind: Kind,
    /// What it stores in.
    pub(crate) stores: Stores,
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
                Kind::Before => return None,
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
            stores: Stores::Disk,
            path,
            version,
            sync: sync.to_owned(),
        })
    }

    /// The same program with other stores.
    pub(crate) fn with(&self, stores: Stores) -> Self {
        Self { stores, ..self.clone() }
    }

    /// Its name in reports.
    pub(crate) fn name(&self) -> &'static str {
        match (self.kind, self.stores) {
            (Kind::Roadstead, Stores::S3) => "roadstead, SQLite",
            (Kind::Roadstead, Stores::S3AndDynamoDb) => "roadstead, DynamoDB",
            (Kind::Before, Stores::S3) => "before, SQLite",
            (Kind::Before, Stores::S3AndDynamoDb) => "before, DynamoDB",
            (kind, _) => kind.name(),
        }
    }

    /// Its name where only lower-case letters and hyphens may be: folders, buckets, tables.
    pub(crate) fn slug(&self) -> &'static str {
        match (self.kind, self.stores) {
            (Kind::Roadstead, Stores::S3) => "roadstead-sqlite",
            (Kind::Roadstead, Stores::S3AndDynamoDb) => "roadstead-dynamodb",
            (Kind::Before, Stores::S3) => "before-sqlite",
            (Kind::Before, Stores::S3AndDynamoDb) => "before-dynamodb",
            (kind, _) => kind.name(),
        }
    }

    /// Builds distribution into the cache.
    pub(crate) fn install_distribution() -> Result<(), Trouble> {
        let what = format!("go install {DISTRIBUTION}");
        let Some(folder) = cache() else {
            let why = "no cache folder: neither HOME nor XDG_CACHE_HOME is set";
            return Err(Trouble::Command(what, why.to_owned()));
        };
        let mut command = Command::new("go");
        command.args(["install", DISTRIBUTION]).env("GOBIN", folder.join("bin"));
        cloud::run(command, &what)
    }

    /// What has to be done once before the first start.
    fn prepare(&self, mooring: Option<&Mooring>) -> Result<(), Trouble> {
        match mooring {
            Some(mooring) if self.stores == Stores::S3AndDynamoDb => {
                let mut command = Command::new(&self.path);
                command.args(["metadata", "init"]);
                self.stored(&mut command, Path::new(""), Some(mooring));
                cloud::run(command, "roadstead metadata init")
            }
            _ => Ok(()),
        }
    }

    /// The command that serves at `port`.
    fn command(&self, folder: &Path, port: u16, mooring: Option<&Mooring>) -> Result<Command, Trouble> {
        let data = folder.join("data");
        let mut command = Command::new(&self.path);
        if self.kind.is_ours() {
            command.args(["serve", "--listen", &format!("127.0.0.1:{port}")]);
            if self.stores != Stores::S3AndDynamoDb {
                command.args(["--sync", &self.sync]);
            }
            if mooring.is_some_and(|mooring| !mooring.redirect) {
                command.args(["--pull", "proxy"]);
            }
            self.stored(&mut command, &data, mooring);
            return Ok(command);
        }
        let config = folder.join("config.yml");
        let storage = mooring.map_or_else(|| filesystem(&data), s3);
        std::fs::write(&config, distribution_config(&storage, port)).map_err(system(&config))?;
        command.arg("serve").arg(config);
        // distribution v3 otherwise spends time on sending traces to a collector that is not there.
        command.env("OTEL_TRACES_EXPORTER", "none");
        if let Some(mooring) = mooring {
            cloud::only_credentials(&mut command, &mooring.credentials);
        }
        Ok(command)
    }

    /// Tells a command of roadstead where its stores are.
    fn stored(&self, command: &mut Command, data: &Path, mooring: Option<&Mooring>) {
        if let Some(mooring) = mooring {
            command.args([
                "--blobs",
                &format!("s3://{}", mooring.bucket),
                "--s3-endpoint",
                &mooring.s3,
            ]);
            cloud::only_credentials(command, &mooring.credentials);
        }
        match mooring {
            Some(mooring) if self.stores == Stores::S3AndDynamoDb => {
                let table = format!("dynamodb://{}", mooring.bucket);
                command.args(["--metadata", &table, "--dynamodb-endpoint", &mooring.dynamodb]);
            }
            _ => {
                command.arg("--data").arg(data);
            }
        }
    }
}

/// The cache folder that the tests of this project share.
pub(crate) fn cache() -> Option<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("ROADSTEAD_TEST_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("roadstead")))
        .or_else(|| Some(variable("HOME")?.join(".cache/roadstead")))
}

/// The configuration of distribution, which both of its generations read.
fn distribution_config(storage: &str, port: u16) -> String {
    format!(
        "version: 0.1\n\
         storage:\n\
         \x20 cache: {{blobdescriptor: inmemory}}\n\
         {storage}\
         \x20 delete: {{enabled: true}}\n\
         http: {{addr: 127.0.0.1:{port}}}\n"
    )
}

fn filesystem(data: &Path) -> String {
    format!("\x20 filesystem: {{rootdirectory: {}}}\n", data.display())
}

fn s3(mooring: &Mooring) -> String {
    let Mooring {
        s3,
        bucket,
        redirect,
        credentials,
        ..
    } = mooring;
    format!(
        "\x20 s3: {{region: {REGION}, regionendpoint: \"{s3}\", bucket: {bucket}, forcepathstyle: true, secure: false, \
         accesskey: {}, secretkey: {}}}\n\
         \x20 redirect: {{disable: {}}}\n",
        credentials.access_key, credentials.secret_key, !redirect
    )
}

/// A running server. Dropping it stops it; its folder remains.
pub(crate) struct Server {
    program: Program,
    folder: PathBuf,
    mooring: Option<Mooring>,
    daemon: Option<Daemon>,
    port: u16,
}

impl Server {
    /// Starts `program` with its data below `folder`, or in the cloud, and waits until it answers.
    pub(crate) fn start(program: &Program, folder: &Path, mooring: Option<Mooring>) -> Result<Self, Trouble> {
        std::fs::create_dir_all(folder).map_err(system(folder))?;
        program.prepare(mooring.as_ref())?;
        let mut server = Self {
            program: program.clone(),
            folder: folder.to_owned(),
            mooring,
            daemon: None,
            port: 0,
        };
        server.restart()?;
        Ok(server)
    }

    /// Stops the process and starts it again on the same data.
    pub(crate) fn restart(&mut self) -> Result<(), Trouble> {
        self.daemon = None;
        let port = free_port()?;
        let command = self.program.command(&self.folder, port, self.mooring.as_ref())?;
        let ready = || answers(SocketAddr::from(([127, 0, 0, 1], port)), "/v2/", "HTTP/1.1 200");
        self.daemon = Some(Daemon::start(self.program.name(), command, &self.folder, ready)?);
        self.port = port;
        Ok(())
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its process, 0 when there is none.
    pub(crate) fn process(&self) -> u32 {
        self.daemon.as_ref().map_or(0, Daemon::process)
    }

    /// How long the last start took, to the first answer.
    pub(crate) fn startup(&self) -> Duration {
        self.daemon.as_ref().map_or(Duration::ZERO, |daemon| daemon.startup)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::cloud::Credentials;

    fn mooring() -> Mooring {
        Mooring {
            s3: "http://127.0.0.1:1".to_owned(),
            bucket: "own".to_owned(),
            dynamodb: "http://127.0.0.1:2".to_owned(),
            credentials: Credentials {
                access_key: "key".to_owned(),
                secret_key: "secret".to_owned(),
            },
            redirect: false,
        }
    }

    fn program(kind: Kind, stores: Stores) -> Program {
        Program {
            kind,
            stores,
            path: PathBuf::from("/bin/false"),
            version: String::new(),
            sync: "full".to_owned(),
        }
    }

    fn words(command: &Command) -> String {
        let words: Vec<_> = command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        words.join(" ")
    }

    #[test]
    fn the_configuration_names_the_data_and_binds_to_loopback() {
        let config = distribution_config(&filesystem(Path::new("/x/data")), 5001);
        assert!(config.contains("rootdirectory: /x/data}"), "{config}");
        assert!(config.contains("addr: 127.0.0.1:5001"), "{config}");
        let config = distribution_config(&s3(&mooring()), 5001);
        assert!(config.contains("bucket: own,"), "{config}");
        assert!(config.contains("\n  redirect: {disable: true}\n"), "{config}");
        assert!(!config.contains("filesystem"), "{config}");
    }

    #[test]
    fn roadstead_is_told_of_its_stores() {
        let folder = tempfile::tempdir().unwrap();
        let line = |stores, mooring: Option<&Mooring>| {
            words(
                &program(Kind::Roadstead, stores)
                    .command(folder.path(), 1, mooring)
                    .unwrap(),
            )
        };
        let (disk, s3) = (line(Stores::Disk, None), line(Stores::S3, Some(&mooring())));
        let both = line(Stores::S3AndDynamoDb, Some(&mooring()));
        assert!(disk.contains("--data") && !disk.contains("s3://"), "{disk}");
        assert!(
            s3.contains("--blobs s3://own") && s3.contains("--data") && s3.contains("--pull proxy"),
            "{s3}"
        );
        assert!(
            both.contains("--metadata dynamodb://own") && !both.contains("--data"),
            "{both}"
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_missing_not_an_error() {
        for kind in Kind::ALL {
            assert!(Program::find(kind, Some(Path::new("/no/such/program")), "full").is_none());
        }
    }

    #[test]
    fn a_server_that_ends_at_once_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let program = program(Kind::DockerRegistry, Stores::Disk);
        let trouble = Server::start(&program, folder.path(), None).err().unwrap();
        assert!(trouble.to_string().contains("ended with"), "{trouble}");
    }
}
