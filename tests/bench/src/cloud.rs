//! The object store of the registries, where blobs are not on their own disks: one S3 server for all of them. For this
//! project's registries there is also a server that stands in for DynamoDB.
//!
//! Both are stand-ins on this machine (versitygw, ministack), so a figure holds for the registries relative to each
//! other, not for a cloud. The S3 server writes a line for each request, from which the requests of a row are counted.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::content::hex;
use crate::daemon::{Daemon, Trouble, answers, free_port, system};
use crate::measure::Process;

/// What requests are signed for.
pub(crate) const REGION: &str = "us-east-1";

/// Where the S3 server listens: registries do not redirect a pull to the host that they were asked at.
const STORE_HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The log is complete when nothing was added for so long.
const SETTLED: Duration = Duration::from_millis(30);

/// It is not waited for longer, whatever is added.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);

/// The programs of the stand-ins.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    /// versitygw.
    pub(crate) versitygw: PathBuf,
    /// A Python that has the package `ministack`.
    pub(crate) ministack_python: PathBuf,
}

impl Tools {
    /// The programs given, or those that the tests have installed into their cache.
    pub(crate) fn find(
        versitygw: Option<&Path>,
        ministack_python: Option<&Path>,
        cache: Option<&Path>,
    ) -> Option<Self> {
        let found = Self {
            versitygw: match versitygw {
                Some(path) => path.to_owned(),
                None => newest(&cache?.join("go"), "versitygw@")?.join("versitygw"),
            },
            ministack_python: match ministack_python {
                Some(path) => path.to_owned(),
                None => cache?.join("venv/ministack/bin/python"),
            },
        };
        (found.versitygw.is_file() && found.ministack_python.is_file()).then_some(found)
    }

    /// Has the harness of the tests install them, which holds their versions.
    pub(crate) fn install() -> Result<(), Trouble> {
        const SCRIPT: &str = "from harness import ensure; [ensure(name) for name in ('versitygw', 'ministack')]";
        let mut command = Command::new("python3");
        command
            .args(["-c", SCRIPT])
            .env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        run(command, "installing versitygw and ministack")
    }
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command, what: &str) -> Result<(), Trouble> {
    let failed = |why: String| Trouble::Command(what.to_owned(), why);
    let done = command.output().map_err(|error| failed(error.to_string()))?;
    if done.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&done.stderr);
    Err(failed(format!("{}: {}", done.status, told.trim())))
}

/// Of the folder's entries that begin so, that of the highest version.
fn newest(folder: &Path, beginning: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let named = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let version = numbers(name.strip_prefix(beginning)?);
        Some((version, entry.path()))
    });
    named.max().map(|(_, path)| path)
}

/// The numbers of a version, so that `v1.10` comes behind `v1.8`.
fn numbers(version: &str) -> Vec<u64> {
    let words = version.split(|letter: char| !letter.is_ascii_digit());
    words.filter_map(|word| word.parse().ok()).collect()
}

/// A key pair that nobody else has.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    /// Tells whose request it is.
    pub(crate) access_key: String,
    /// Signs it.
    pub(crate) secret_key: String,
}

impl Credentials {
    fn random() -> Result<Self, Trouble> {
        let mut bytes = [0; 28];
        getrandom::fill(&mut bytes).map_err(|error| Trouble::Command("a random key".to_owned(), error.to_string()))?;
        let hex = hex(&bytes).to_uppercase();
        Ok(Self {
            access_key: format!("AKIA{}", &hex[..16]),
            secret_key: hex[16..].to_owned(),
        })
    }
}

/// Takes out of a command's environment what begins so: a person's settings for servers of their own.
fn without(command: &mut Command, beginnings: &[&str]) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if beginnings.iter().any(|beginning| text.starts_with(beginning)) {
            command.env_remove(&name);
        }
    }
}

/// Takes whatever an AWS SDK would read out of a command's environment, and gives it these credentials.
pub(crate) fn only_credentials(command: &mut Command, credentials: &Credentials) {
    without(command, &["AWS_"]);
    command
        .env("AWS_ACCESS_KEY_ID", &credentials.access_key)
        .env("AWS_SECRET_ACCESS_KEY", &credentials.secret_key)
        .env("AWS_REGION", REGION)
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_EC2_METADATA_DISABLED", "true");
}

/// One registry's place in the cloud.
#[derive(Debug, Clone)]
pub(crate) struct Mooring {
    /// The S3 server.
    pub(crate) s3: String,
    /// A bucket of its own.
    pub(crate) bucket: String,
    /// Where DynamoDB's requests go.
    pub(crate) dynamodb: String,
    /// For both.
    pub(crate) credentials: Credentials,
    /// Whether pulls are sent to the S3 server, or pass through the registry.
    pub(crate) redirect: bool,
}

/// Both stand-ins while they are up.
pub(crate) struct Cloud {
    versitygw: Daemon,
    ministack: Daemon,
    objects: PathBuf,
    log: PathBuf,
    mooring: Mooring,
}

impl Cloud {
    /// Starts both with nothing stored; everything of theirs lies below `folder`.
    pub(crate) fn start(tools: &Tools, folder: &Path, redirect: bool) -> Result<Self, Trouble> {
        let credentials = Credentials::random()?;
        let (objects, log) = (folder.join("objects"), folder.join("access.log"));
        let own = folder.join("ministack");
        for path in [&objects, &own] {
            std::fs::create_dir_all(path).map_err(system(path))?;
        }
        let s3_port = free_port()?;
        let mut command = Command::new(&tools.versitygw);
        without(&mut command, &["VGW_", "ROOT_", "AWS_", "LOGFILE", "WEBHOOK"]);
        command
            .args([
                "--port",
                &format!("{STORE_HOST}:{s3_port}"),
                "--quiet",
                "--keep-alive",
                "--access-log",
            ])
            .arg(&log)
            .arg("posix")
            .arg(&objects)
            .env("ROOT_ACCESS_KEY", &credentials.access_key)
            .env("ROOT_SECRET_KEY", &credentials.secret_key)
            .env("VGW_REGION", REGION);
        let versitygw = Daemon::start("versitygw", command, folder, || {
            answers((STORE_HOST, s3_port).into(), "/", "HTTP/1.1 ")
        })?;
        let table_port = free_port()?;
        let mut command = Command::new(&tools.ministack_python);
        // As the harness of the tests starts it (tests/harness/cloud.py).
        without(&mut command, &["LOCALSTACK_", "MINISTACK_", "LAMBDA_"]);
        for name in [
            "EDGE_PORT",
            "HOSTNAME",
            "PERSIST_STATE",
            "S3_PERSIST",
            "SERVICES",
            "USE_SSL",
        ] {
            command.env_remove(name);
        }
        only_credentials(&mut command, &credentials);
        command
            .args(["-m", "ministack"])
            .env("AUTH", "true")
            .env("BIND_HOST", "127.0.0.1")
            // Left alone it would look for containers of its own among the machine's.
            .env("DOCKER_HOST", format!("unix://{}/no-docker", own.display()))
            .env("GATEWAY_PORT", table_port.to_string())
            .env("IOT_MTLS_ENABLED", "0")
            .env("LAMBDA_EXECUTOR", "local")
            .env("LOG_LEVEL", "WARNING")
            .env("MINISTACK_HOST", "localhost")
            .env("MINISTACK_REGION", REGION)
            .env("SFTP_ENABLED", "0")
            .env("TMPDIR", &own);
        let ministack = Daemon::start("ministack", command, &own, || {
            answers((Ipv4Addr::LOCALHOST, table_port).into(), "/", "HTTP/1.1 ")
        })?;
        let mooring = Mooring {
            s3: format!("http://{STORE_HOST}:{s3_port}"),
            bucket: String::new(),
            dynamodb: format!("http://127.0.0.1:{table_port}"),
            credentials,
            redirect,
        };
        Ok(Self {
            versitygw,
            ministack,
            objects,
            log,
            mooring,
        })
    }

    /// A place with a new bucket. A bucket of versitygw is a folder.
    pub(crate) fn mooring(&self, bucket: &str) -> Result<Mooring, Trouble> {
        let folder = self.objects.join(bucket);
        std::fs::create_dir(&folder).map_err(system(&folder))?;
        Ok(Mooring {
            bucket: bucket.to_owned(),
            ..self.mooring.clone()
        })
    }

    /// What can be measured of them.
    pub(crate) fn meters(&self) -> Meters {
        Meters {
            s3: Process::new(self.versitygw.process()),
            table: Process::new(self.ministack.process()),
            log: self.log.clone(),
        }
    }
}

/// What can be measured of the stand-ins.
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    s3: Process,
    table: Process,
    log: PathBuf,
}

/// The state of the meters at one moment.
pub(crate) struct Reading {
    s3_cpu: Option<Duration>,
    table_cpu: Option<Duration>,
    log_end: u64,
}

/// What the stand-ins did between two moments.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResourceUse {
    /// Processor time of the S3 server.
    pub(crate) s3_cpu: Option<Duration>,
    /// Processor time of what answers for DynamoDB.
    pub(crate) table_cpu: Option<Duration>,
    /// Requests to the S3 server, by who made them.
    pub(crate) requests: Requests,
}

/// Requests to the S3 server, by operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    /// Made by the registry.
    pub(crate) registry: BTreeMap<String, RequestCount>,
    /// Made by clients, with a URL that the registry signed.
    pub(crate) clients: BTreeMap<String, RequestCount>,
}

/// Requests of one operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RequestCount {
    /// How many.
    pub(crate) count: u64,
    /// The time that the S3 server took for all of them, in milliseconds as it says itself.
    pub(crate) milliseconds: u64,
}

impl RequestCount {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.milliseconds += other.milliseconds;
    }
}

impl Meters {
    /// Reads them, when the S3 server has written down everything that was done.
    pub(crate) fn read(&self) -> Reading {
        Reading {
            s3_cpu: self.s3.cpu(),
            table_cpu: self.table.cpu(),
            log_end: self.settled(),
        }
    }

    /// What was spent since then. An error where the log of the S3 server cannot be read.
    pub(crate) fn since(&self, before: &Reading) -> std::io::Result<ResourceUse> {
        let now = self.read();
        let spent = |now: Option<Duration>, before: Option<Duration>| Some(now?.saturating_sub(before?));
        Ok(ResourceUse {
            s3_cpu: spent(now.s3_cpu, before.s3_cpu),
            table_cpu: spent(now.table_cpu, before.table_cpu),
            requests: Requests::counted(&part(&self.log, before.log_end, now.log_end)?),
        })
    }

    /// The length of the log once it has stopped growing.
    fn settled(&self) -> u64 {
        let length = || std::fs::metadata(&self.log).map_or(0, |about| about.len());
        let begin = Instant::now();
        let mut last = length();
        loop {
            std::thread::sleep(SETTLED);
            let now = length();
            if now == last || begin.elapsed() > SETTLE_LIMIT {
                return now;
            }
            last = now;
        }
    }
}

fn part(file: &Path, from: u64, to: u64) -> std::io::Result<String> {
    let mut file = std::fs::File::open(file)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(to.saturating_sub(from)).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Requests {
    /// Counts the lines of a log in the form of S3's own server access logs.
    fn counted(log: &str) -> Self {
        let mut counted = Self::default();
        for line in log.lines() {
            let mut words = line.split(' ');
            let Some(operation) = words.nth(7).and_then(|word| word.strip_prefix("s3_")) else {
                continue;
            };
            let signed_url = words.nth(1).is_some_and(|uri| uri.contains("X-Amz-Signature="));
            // Behind the URI: status, error, bytes sent, size of the object, milliseconds in all.
            let milliseconds = words.nth(4).and_then(|word| word.parse().ok()).unwrap_or(0);
            let of = if signed_url {
                &mut counted.clients
            } else {
                &mut counted.registry
            };
            let one = RequestCount { count: 1, milliseconds };
            of.entry(operation.to_owned()).or_default().add(one);
        }
        counted
    }

    /// Adds those of another pass.
    pub(crate) fn merge(&mut self, other: Self) {
        for (sum, more) in [(&mut self.registry, other.registry), (&mut self.clients, other.clients)] {
            for (operation, count) in more {
                sum.entry(operation).or_default().add(count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const LOG: &str = "\
log starts 2026-11-23 04:41:59.793325809 +0000 UTC m=+0.027562235
AKIA reg [23/November/2026:04:42:01 +0000] 127.0.0.1 AKIA TQ s3_PutObject a/b /reg/a/b 200 - 0 20 1 1 - sdk (x; y) - t= SigV4
AKIA reg [23/November/2026:04:42:01 +0000] 127.0.0.1 AKIA TR s3_PutObject a/c /reg/a/c 200 - 0 20 7 6 - sdk (x; y) - t= SigV4
AKIA reg [23/November/2026:04:42:01 +0000] 127.0.0.1 AKIA TR s3_ListObjectsV2 - /reg?prefix=a 200 - 0 20 1 1 - sdk - t= SigV4
AKIA reg [23/November/2026:04:42:02 +0000] 127.0.0.1 AKIA TS s3_GetObject a/b /reg/a/b?X-Amz-Date=1&X-Amz-Signature=2 200 - 0 0 0 0 - - - t= SigV4
";

    #[test]
    fn requests_are_counted_by_operation_and_by_who_made_them() {
        let mut counted = Requests::counted(LOG);
        counted.merge(Requests::counted(LOG));
        let count = |count, milliseconds| RequestCount { count, milliseconds };
        assert_eq!(
            counted.registry,
            [
                ("PutObject".to_owned(), count(4, 16)),
                ("ListObjectsV2".to_owned(), count(2, 2))
            ]
            .into()
        );
        assert_eq!(counted.clients, [("GetObject".to_owned(), count(2, 0))].into());
    }

    #[test]
    fn only_a_part_of_the_log_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        std::fs::write(&file, "onetwothree").unwrap();
        assert_eq!(part(&file, 3, 6).unwrap(), "two");
    }

    #[test]
    fn tools_that_are_not_there_are_missing() {
        let cache = tempfile::tempdir().unwrap();
        assert!(Tools::find(None, None, Some(cache.path())).is_none());
        let folder = cache.path().join("go/versitygw@v1.10.0");
        std::fs::create_dir_all(cache.path().join("go/versitygw@v1.8.0")).unwrap();
        let python = cache.path().join("venv/ministack/bin");
        for (folder, name) in [(&folder, "versitygw"), (&python, "python")] {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join(name), "").unwrap();
        }
        let found = Tools::find(None, None, Some(cache.path())).unwrap();
        assert_eq!(found.versitygw, folder.join("versitygw"));
    }

    #[test]
    fn no_two_runs_share_a_key() {
        let (one, other) = (Credentials::random().unwrap(), Credentials::random().unwrap());
        assert_ne!(one.access_key, other.access_key);
        assert_ne!(one.secret_key, other.secret_key);
        assert_eq!((one.access_key.len(), one.secret_key.len()), (20, 40));
    }
}
