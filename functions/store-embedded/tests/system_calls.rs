//! What the kernel is asked for, in which order: nothing is acknowledged before it is synced.
//!
//! A process that is killed proves nothing about syncs, since the kernel keeps what it was given. Here this test
//! program runs again under `strace`, does one durable operation after the other, and says so on standard error. The
//! trace tells, for every such moment, which files and directories a loss of power would have cut. It sees SQLite's own
//! files as well as the blobs.
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
use registry::store::blobs::{BlobStore, Upload};
use registry::store::metadata::{ManifestPut, MetadataStore, NewContent, PutManifest};
use registry::store::sessions::{
    Claim, Claimed, End, Expected, Progress, Publishing, SessionId, SessionKey, SessionStore,
};
use registry::store::{Context, Timestamp, Uid};
use store_embedded::{Embedded, Options, Sync};

const DATA: &str = "STORE_EMBEDDED_TEST_TRACED";

const TEST: &str = "nothing_is_acknowledged_before_it_is_synced";

/// What an acknowledgement on standard error begins with.
const SAID: &str = "acknowledged ";

const CALLS: &str = "trace=openat,write,writev,pwrite64,pwritev,pwritev2,copy_file_range,sendfile,ftruncate,fallocate,\
    fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat";

/// What was done to a file or directory of the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Create,
    Write,
    Sync,
    Rename,
}

/// A step that matters, by the file it was about: its path below the data directory.
#[derive(Clone, PartialEq, Eq)]
struct Step(Kind, String);

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.0, self.1)
    }
}

/// What a disk may not have yet, as the trace tells it.
#[derive(Default)]
struct Disk {
    clock: u64,
    /// When something about a path was last changed that was not synced since: bytes of a file, names of a directory.
    changed: BTreeMap<String, u64>,
    /// Syncs that are under way, by thread: the path, and when they began.
    syncing: BTreeMap<String, (String, u64)>,
    steps: Vec<Step>,
}

impl Disk {
    fn step(&mut self, kind: Kind, path: &str) {
        let step = Step(kind, path.to_owned());
        if self.steps.last() != Some(&step) {
            self.steps.push(step);
        }
    }

    fn change(&mut self, kind: Kind, path: &str) {
        self.clock += 1;
        if kind == Kind::Write {
            self.changed.insert(path.to_owned(), self.clock);
        } else {
            self.changed.insert(directory(path), self.clock);
        }
        self.step(kind, path);
    }

    fn sync(&mut self, path: &str, begun: u64) {
        // What was written while it ran may have come too late for it.
        if self.changed.get(path).is_some_and(|changed| *changed <= begun) {
            self.changed.remove(path);
        }
        self.step(Kind::Sync, path);
    }

    /// One line of the trace, without its thread.
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
        let paths: Vec<_> = below(arguments, data);
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
            // A file that was opened for the first time, and made if there was none.
            "openat" if line.contains("O_CREAT") && !line.contains("= -1") => {
                if let Some(path) = opened(line, data) {
                    self.change(Kind::Create, &path);
                }
            }
            "rename" | "renameat" | "renameat2" => {
                let names: Vec<_> = arguments.split('"').skip(1).step_by(2).collect();
                let [Some(from), Some(to)] = [names.first(), names.last()] else {
                    return;
                };
                let directory = paths.last().map_or_else(String::new, |path| format!("{path}/"));
                let (from, to) = (format!("{directory}{from}"), format!("{directory}{to}"));
                // The bytes go along with the name.
                if let Some(changed) = self.changed.remove(&from) {
                    self.changed.insert(to.clone(), changed);
                }
                self.change(Kind::Rename, &to);
            }
            // Whether a removal lasts is nobody's claim, and what is gone needs no sync.
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
                // The file that is written comes last in a call that copies.
                if let Some(path) = paths.last() {
                    self.change(Kind::Write, path);
                }
            }
        }
    }
}

fn directory(path: &str) -> String {
    path.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned()
}

/// The paths that the descriptors of a call stand for (`9</data/metadata.db-wal>`), those below `data`. The index of
/// the log is memory that processes share, and made anew after a crash.
fn below(arguments: &str, data: &str) -> Vec<String> {
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
    below(result, data).pop()
}

/// What happened before each acknowledgement, and that nothing was volatile then.
fn acknowledged(trace: &str, data: &str) -> Vec<(String, Vec<Step>)> {
    let mut disk = Disk::default();
    let mut acknowledged = Vec::new();
    let mut known = Vec::new();
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        if let Some((_, said)) = call.split_once(&format!("\"{SAID}")) {
            let what = said.split('\\').next().unwrap().to_owned();
            let volatile: Vec<_> = disk.changed.keys().collect();
            assert!(
                volatile.is_empty(),
                "{what}: a loss of power takes {volatile:?} after {:?}",
                disk.steps
            );
            acknowledged.push((what, std::mem::take(&mut disk.steps)));
            continue;
        }
        // Opening a file that is there makes no name.
        if call.starts_with("openat") && call.contains("O_CREAT") {
            match opened(call, data) {
                Some(path) if known.contains(&path) => continue,
                Some(path) => known.push(path),
                None => {}
            }
        }
        disk.call(thread, call, data);
    }
    acknowledged
}

fn say(what: &str) {
    // In one call, so that it is one line of the trace.
    let line = format!("{SAID}{what}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

fn cx(number: u64) -> Context {
    Context {
        now: Timestamp(1_000 + number),
        deadline: Timestamp(61_000 + number),
        uid: Uid(number),
        client: registry::budget::ClientKey::INTERNAL,
    }
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
        panic!("nobody else is here");
    };
    claim
}

/// All that is acknowledged as durable, one after the other.
async fn push(data: PathBuf) {
    let stores = Embedded::open(&Options {
        data,
        sync: Sync::Full,
        upload_memory: 4 << 20,
        memory_timeout: Options::MEMORY_TIMEOUT,
    })
    .unwrap();
    say("open");
    let key = SessionKey {
        expires: Timestamp(90_000),
        id: SessionId(7),
    };
    let first = claim(&stores, key).await;
    say("claim");
    let (one, two) = (noise(1, 700_000), noise(2, 1_000));
    let mut body = Body::of(&one, 64 << 10);
    let appended = stores.blobs.append(cx(2), first.attempt, &[], &mut body).await.unwrap();
    say("append");
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
    say("save");

    let second = claim(&stores, key).await;
    let mut body = Body::of(&two, 64 << 10);
    let appended = stores
        .blobs
        .append(cx(4), second.attempt, &appended.state, &mut body)
        .await
        .unwrap();
    say("small append");
    let upload = Upload {
        session: key.id,
        state: appended.state,
        parts: appended.part.into_iter().collect(),
        size: (one.len() + two.len()) as u64,
    };
    let location = stores.blobs.seal(cx(5), &upload).await.unwrap();
    say("seal");
    let publishing = Publishing {
        digest: Digest::of(Algorithm::Sha256, &[one, two].concat()),
        location,
        size: upload.size,
    };
    // Acknowledged to nobody by itself: it is synced with what follows.
    assert!(stores.sessions.commit(cx(6), &second, &publishing).await.unwrap());
    let Publishing { digest, location, size } = &publishing;
    let committed = stores
        .metadata
        .commit_blob(cx(6), &repository(), digest, location, *size)
        .await;
    committed.unwrap();
    say("commit");
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
        who: "somebody".to_owned(),
    };
    assert_eq!(
        stores.metadata.put_manifest(cx(8), &put).await.unwrap(),
        ManifestPut::Stored
    );
    say("put");
    let tag = "latest".parse().unwrap();
    assert!(
        stores
            .metadata
            .delete_tag(cx(9), &repository(), &tag, "somebody")
            .await
            .unwrap()
    );
    say("delete");
    stores.close();
    say("close");
}

/// Runs this test again under `strace`; `None`, with the reason, where that is not possible.
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

    let step = |kind, path: &str| Step(kind, path.to_owned());
    let log = || {
        vec![
            step(Kind::Write, "metadata.db-wal"),
            step(Kind::Sync, "metadata.db-wal"),
        ]
    };
    let segment = |number| format!("blobs/0/{:032x}.{number}", 7);
    let joining = format!("{}.0.0", segment(2));
    let of_segment = |number| {
        let segment = segment(number);
        vec![
            step(Kind::Create, &segment),
            step(Kind::Write, &segment),
            step(Kind::Sync, &segment),
            step(Kind::Sync, "blobs/0"),
        ]
    };
    let sealed = vec![
        step(Kind::Create, &joining),
        step(Kind::Write, &joining),
        step(Kind::Sync, &joining),
        step(Kind::Rename, &segment(2)),
        step(Kind::Sync, "blobs/0"),
    ];
    let expected = [
        ("claim", log()),
        ("append", of_segment(1)),
        ("save", log()),
        ("small append", [log(), of_segment(2)].concat()),
        ("seal", sealed),
        // The mark before it is written, and synced with it.
        ("commit", log()),
        // So is the end of the session.
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
    // The schema itself: SQLite's journal or log, and the directory that names the files.
    let opened = &acknowledged[0].1;
    for path in ["metadata.db-wal", "", "blobs"] {
        assert!(opened.contains(&step(Kind::Sync, path)), "{path:?} in {opened:?}");
    }
}
