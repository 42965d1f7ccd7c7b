//! The order of the system calls: nothing is acknowledged before it is synced.
//!
//! Killing a process proves nothing about syncs, because the kernel keeps its writes. So this test runs its program
//! again under `strace`. The program makes one durable operation after the other, and reports each acknowledgement on
//! standard error. For each acknowledgement, the trace shows which files and directories a power failure would have
//! damaged. The trace includes SQLite's own files and the blobs.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use contract::source::{Body, noise};
use oci::{Algorithm, Digest, RepositoryName};
use registry::store::access::Author;
use registry::store::blobs::{BlobStore, Upload};
use registry::store::metadata::{AllowAll, ManifestPut, MetadataStore, NewContent, PutManifest, Removal};
use registry::store::sessions::{Claim, Claimed, End, Expected, Progress, Publishing, SessionKey, SessionStore};
use registry::store::{Context, SessionId, Timestamp, Uid};
use store_embedded::{Embedded, EmbeddedOptions, Sync};

const DATA: &str = "STORE_EMBEDDED_TEST_TRACED";

const TEST: &str = "nothing_is_acknowledged_before_it_is_synced";

/// The prefix of an acknowledgement on standard error.
const PREFIX: &str = "acknowledged ";

const CALLS: &str = "trace=openat,write,writev,pwrite64,pwritev,pwritev2,copy_file_range,sendfile,ftruncate,fallocate,\
    fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat";

/// A change or a sync of a file or directory in the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepKind {
    Create,
    Write,
    Sync,
    Rename,
}

/// A relevant step, with the path of its file below the data directory.
#[derive(Clone, PartialEq, Eq)]
struct TraceStep(StepKind, String);

impl fmt::Debug for TraceStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.0, self.1)
    }
}

/// What the disk may not contain yet, according to the trace.
#[derive(Default)]
struct TracedDisk {
    clock: u64,
    /// The time of the last unsynced change for each path: of the bytes of a file, or of the names in a directory.
    changed: BTreeMap<String, u64>,
    /// Running syncs, by thread: the path and the start time.
    syncing: BTreeMap<String, (String, u64)>,
    steps: Vec<TraceStep>,
}

impl TracedDisk {
    fn step(&mut self, kind: StepKind, path: &str) {
        let step = TraceStep(kind, path.to_owned());
        if self.steps.last() != Some(&step) {
            self.steps.push(step);
        }
    }

    fn change(&mut self, kind: StepKind, path: &str) {
        self.clock += 1;
        if kind == StepKind::Write {
            self.changed.insert(path.to_owned(), self.clock);
        } else {
            self.changed.insert(directory(path), self.clock);
        }
        self.step(kind, path);
    }

    fn sync(&mut self, path: &str, begun: u64) {
        // Writes during the sync may not be included in it.
        if self.changed.get(path).is_some_and(|changed| *changed <= begun) {
            self.changed.remove(path);
        }
        self.step(StepKind::Sync, path);
    }

    /// Handles one line of the trace, without its thread.
    fn call(&mut self, thread: &str, line: &str, data: &str) {
        if let Some(rest) = line.strip_prefix("<... ") {
            if let Some((path, begun)) = self.syncing.remove(thread)
                && rest.starts_with('f')
            {
                assert!(rest.ends_with("= 0"), "a sync failed: {rest}");
                self.sync(&path, begun);
            }
            return;
        }
        let Some((call, arguments)) = line.split_once('(') else {
            return;
        };
        let paths: Vec<_> = paths_below(arguments, data);
        match call {
            "fsync" | "fdatasync" => {
                let Some(path) = paths.first() else { return };
                self.clock += 1;
                if line.ends_with("<unfinished ...>") {
                    self.syncing.insert(thread.to_owned(), (path.clone(), self.clock));
                } else {
                    assert!(line.ends_with("= 0"), "a sync failed: {line}");
                    self.sync(path, self.clock);
                }
            }
            // The first open of a file, which creates the file if it does not exist.
            "openat" if line.contains("O_CREAT") && !line.contains("= -1") => {
                if let Some(path) = opened(line, data) {
                    self.change(StepKind::Create, &path);
                }
            }
            "rename" | "renameat" | "renameat2" => {
                let names: Vec<_> = arguments.split('"').skip(1).step_by(2).collect();
                let [Some(from), Some(to)] = [names.first(), names.last()] else {
                    return;
                };
                let directory = paths.last().map_or_else(String::new, |path| format!("{path}/"));
                let (from, to) = (format!("{directory}{from}"), format!("{directory}{to}"));
                // The unsynced bytes now belong to the new name.
                if let Some(changed) = self.changed.remove(&from) {
                    self.changed.insert(to.clone(), changed);
                }
                self.change(StepKind::Rename, &to);
            }
            // Removals need not be durable, and a removed file needs no sync.
            "unlink" | "unlinkat" => {
                let name = arguments.split('"').nth(1).unwrap_or_default();
                let path = match paths.first() {
                    Some(directory) => format!("{directory}/{name}"),
                    None => name
                        .strip_prefix(data)
                        .unwrap_or(name)
                        .trim_start_matches('/')
                        .to_owned(),
                };
                self.changed.remove(&path);
            }
            "openat" => {}
            _ => {
                // In a call that copies, the written file is the last one.
                if let Some(path) = paths.last() {
                    self.change(StepKind::Write, path);
                }
            }
        }
    }
}

fn directory(path: &str) -> String {
    path.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned()
}

/// The paths below `data` that the descriptors of a call have (`9</data/metadata.db-wal>`). The index of the log is
/// left out: it is shared memory, and is created again after a crash.
fn paths_below(arguments: &str, data: &str) -> Vec<String> {
    let descriptors = arguments.split('<').skip(1).filter_map(|rest| rest.split('>').next());
    descriptors
        .filter_map(|path| path.strip_prefix(data))
        .map(|path| path.trim_start_matches('/').to_owned())
        .filter(|path| !path.ends_with("-shm"))
        .collect()
}

/// The path that a call has opened.
fn opened(line: &str, data: &str) -> Option<String> {
    let (_, result) = line.rsplit_once(" = ")?;
    paths_below(result, data).pop()
}

/// The steps before each acknowledgement. Asserts that everything was durable at each of them.
fn acknowledged(trace: &str, data: &str) -> Vec<(String, Vec<TraceStep>)> {
    let mut disk = TracedDisk::default();
    let mut acknowledged = Vec::new();
    let mut created = Vec::new();
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        if let Some((_, rest)) = call.split_once(&format!("\"{PREFIX}")) {
            let what = rest.split('\\').next().unwrap().to_owned();
            let volatile: Vec<_> = disk.changed.keys().collect();
            assert!(
                volatile.is_empty(),
                "{what}: a power failure loses {volatile:?} after {:?}",
                disk.steps
            );
            acknowledged.push((what, std::mem::take(&mut disk.steps)));
            continue;
        }
        // Opening an existing file creates no name.
        if call.starts_with("openat") && call.contains("O_CREAT") {
            match opened(call, data) {
                Some(path) if created.contains(&path) => continue,
                Some(path) => created.push(path),
                None => {}
            }
        }
        disk.call(thread, call, data);
    }
    acknowledged
}

fn report(what: &str) {
    // One call, so that it is one line of the trace.
    let line = format!("{PREFIX}{what}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

fn cx(number: u64) -> Context {
    Context::internal(Timestamp(1_000 + number), 60_000, Uid(number))
}

fn repository() -> RepositoryName {
    "library/app".parse().unwrap()
}

async fn claim(stores: &Embedded, key: SessionKey) -> Claim {
    let Claimed::Granted(claim) = stores
        .sessions
        .claim(cx(1), key, Expected::New, Timestamp(50_000), u32::MAX)
        .await
        .unwrap()
    else {
        panic!("no other process claims the session");
    };
    claim
}

/// All operations that are acknowledged as durable, in order.
async fn push(data: PathBuf) {
    let stores = Embedded::open(&EmbeddedOptions {
        data,
        sync: Sync::Full,
        upload_memory: 4 << 20,
        memory_timeout: EmbeddedOptions::MEMORY_TIMEOUT,
    })
    .unwrap();
    report("open");
    let key = SessionKey {
        expires: Timestamp(90_000),
        id: SessionId(7),
    };
    let first = claim(&stores, key).await;
    report("claim");
    let (one, two) = (noise(1, 700_000), noise(2, 1_000));
    let mut body = Body::of(&one, 64 << 10);
    let appended = stores.blobs.append(cx(2), first.attempt, &[], &mut body).await.unwrap();
    report("append");
    let progress = Progress {
        offset: one.len() as u64,
        store: appended.state.clone(),
        ..Progress::default()
    };
    assert!(
        stores
            .sessions
            .save(cx(3), &first, progress, appended.part)
            .await
            .unwrap()
    );
    report("save");

    let second = claim(&stores, key).await;
    let mut body = Body::of(&two, 64 << 10);
    let appended = stores
        .blobs
        .append(cx(4), second.attempt, &appended.state, &mut body)
        .await
        .unwrap();
    report("small append");
    let upload = Upload {
        session: key.id,
        state: appended.state,
        parts: appended.part.into_iter().collect(),
        size: (one.len() + two.len()) as u64,
    };
    let location = stores.blobs.seal(cx(5), &upload).await.unwrap();
    report("seal");
    let publishing = Publishing {
        digest: Digest::of(Algorithm::Sha256, &[one, two].concat()),
        location,
        size: upload.size,
    };
    // This is not acknowledged by itself: it is synced with the next operation.
    assert!(stores.sessions.commit(cx(6), &second, &publishing).await.unwrap());
    let Publishing { digest, location, size } = &publishing;
    let committed = stores
        .metadata
        .commit_blob(cx(6), &repository(), digest, location, *size)
        .await;
    committed.unwrap();
    report("commit");
    stores.sessions.finish(cx(7), &second, End::Done).await.unwrap();

    let put = PutManifest {
        repository: repository(),
        digest: Digest::of(Algorithm::Sha256, b"{}"),
        media_type: "application/vnd.oci.image.manifest.v1+json".parse().unwrap(),
        size: 2,
        content: NewContent::Inline(Bytes::from_static(b"{}")),
        artifact_type: None,
        subject: None,
        required: [*digest].into(),
        excepted: std::iter::empty().collect(),
        tags: vec!["latest".parse().unwrap()],
        author: Author::new("alice"),
    };
    assert_eq!(
        stores
            .metadata
            .put_manifest(cx(8), &put, &AllowAll::shared())
            .await
            .unwrap(),
        ManifestPut::Stored
    );
    report("put");
    let tag = "latest".parse().unwrap();
    assert_eq!(
        stores
            .metadata
            .delete_tag(cx(9), &repository(), &tag, &Author::new("alice"), &AllowAll::shared())
            .await
            .unwrap(),
        Removal::Removed
    );
    report("delete");
    stores.close();
    report("close");
}

/// Runs this test again under `strace`. `None` if this is not possible; the reason is printed.
fn traced(data: &Path, trace: &Path) -> Option<String> {
    let output = Command::new("strace")
        .args(["-f", "-y", "-qq", "-s", "64", "-e", "signal=none", "-e", CALLS, "-o"])
        .arg(trace)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture", "--test-threads", "1"])
        .env(DATA, data)
        .output();
    let refused = match output {
        Ok(output) if output.status.success() => return Some(std::fs::read_to_string(trace).unwrap()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    assert!(!refused.contains("panicked"), "{refused}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "needs strace: {refused}");
    println!("not run: strace: {}", refused.trim().replace('\n', "; "));
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_before_it_is_synced() {
    if let Some(data) = std::env::var_os(DATA) {
        push(data.into()).await;
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let data = root.join("data");
    let Some(trace) = traced(&data, &root.join("trace")) else {
        return;
    };
    let acknowledged = acknowledged(&trace, data.to_str().unwrap());

    let step = |kind, path: &str| TraceStep(kind, path.to_owned());
    let log = || {
        vec![
            step(StepKind::Write, "metadata.db-wal"),
            step(StepKind::Sync, "metadata.db-wal"),
        ]
    };
    let segment = |number| format!("blobs/0/{:032x}.{number}", 7);
    let joining = format!("{}.0.0", segment(2));
    let of_segment = |number| {
        let segment = segment(number);
        vec![
            step(StepKind::Create, &segment),
            step(StepKind::Write, &segment),
            step(StepKind::Sync, &segment),
            step(StepKind::Sync, "blobs/0"),
        ]
    };
    let sealed = vec![
        step(StepKind::Create, &joining),
        step(StepKind::Write, &joining),
        step(StepKind::Sync, &joining),
        step(StepKind::Rename, &segment(2)),
        step(StepKind::Sync, "blobs/0"),
    ];
    let expected = [
        ("claim", log()),
        ("append", of_segment(1)),
        ("save", log()),
        ("small append", [log(), of_segment(2)].concat()),
        ("seal", sealed),
        // The change of the session before it is written and synced with it.
        ("commit", log()),
        // The end of the session is written and synced with this one.
        ("put", log()),
        ("delete", log()),
    ];
    let what: Vec<_> = acknowledged.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(what.first(), Some(&"open"), "{what:?}");
    assert_eq!(what.last(), Some(&"close"), "{what:?}");
    assert_eq!(acknowledged.len(), expected.len() + 2, "{what:?}");
    for ((what, steps), (expected_what, expected)) in acknowledged[1..].iter().zip(expected) {
        assert_eq!(what, expected_what);
        assert_eq!(*steps, expected, "{what}");
    }
    // Opening syncs the schema in SQLite's log, and the directories that contain the files.
    let opened = &acknowledged[0].1;
    for path in ["metadata.db-wal", "", "blobs"] {
        assert!(opened.contains(&step(StepKind::Sync, path)), "{path:?} in {opened:?}");
    }
}
