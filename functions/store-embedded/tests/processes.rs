//! Several processes over one data directory, and the state after one of them is killed.
//!
//! The other processes run this test program again, for the same test, with their role in an environment variable.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use contract::source::{Body, noise};
use futures_util::TryStreamExt;
use oci::{Algorithm, Digest, RepositoryName};
use registry::store::access::Author;
use registry::store::blobs::{BlobStore, Upload};
use registry::store::metadata::{AllowAll, ManifestPut, MetadataStore, NewContent, PutManifest};
use registry::store::sessions::{Claimed, End, Expected, Publishing, SessionKey, SessionStore, SigningKey};
use registry::store::{Context, SessionId, Timestamp, Uid};
use store_embedded::{Embedded, EmbeddedOptions, Sync};

const DATA: &str = "STORE_EMBEDDED_TEST_DATA";
const NUMBER: &str = "STORE_EMBEDDED_TEST_NUMBER";

const PROCESSES: u64 = 3;
const PUSHES: u64 = 40;

/// The values in the environment of a started process: the data directory and the number of the process.
fn role() -> Option<(PathBuf, u64)> {
    let data = std::env::var_os(DATA)?;
    let number = std::env::var(NUMBER).unwrap().parse().unwrap();
    Some((data.into(), number))
}

fn start(test: &str, data: &Path, number: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(DATA, data)
        .env(NUMBER, number.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn open(data: &Path) -> Embedded {
    Embedded::open(&EmbeddedOptions {
        data: data.to_owned(),
        sync: Sync::Full,
        upload_memory: 4 << 20,
        memory_timeout: EmbeddedOptions::MEMORY_TIMEOUT,
    })
    .unwrap()
}

fn cx() -> Context {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let now = Timestamp(u64::try_from(now).unwrap());
    Context::internal(now, 60_000, Uid(getrandom::u64().unwrap()))
}

fn repository(number: u64) -> RepositoryName {
    format!("process/n{number}").parse().unwrap()
}

/// The bytes that are pushed for a number. They are the same in every process.
fn layer(number: u64) -> (Digest, Bytes) {
    let bytes = noise(number, 700 + usize::try_from(number).unwrap());
    (Digest::of(Algorithm::Sha256, &bytes), bytes)
}

/// Makes all calls of a blob's push.
async fn push(stores: &Embedded, repository: &RepositoryName, number: u64) -> Digest {
    let (digest, bytes) = layer(number);
    let id = u128::from(getrandom::u64().unwrap()) << 64 | u128::from(getrandom::u64().unwrap());
    let key = SessionKey {
        expires: cx().now.plus_millis(86_400_000),
        id: SessionId(id),
    };
    let until = cx().now.plus_millis(60_000);
    let claimed = stores.sessions.claim(cx(), key, Expected::New, until, u32::MAX).await;
    let Claimed::Granted(claim) = claimed.unwrap() else {
        panic!("a new session must be claimable");
    };
    let appended = stores
        .blobs
        .append(cx(), claim.attempt, &[], &mut Body::of(&bytes, 100))
        .await
        .unwrap();
    let upload = Upload {
        session: key.id,
        state: appended.state,
        parts: appended.part.into_iter().collect(),
        size: bytes.len() as u64,
    };
    let location = stores.blobs.seal(cx(), &upload).await.unwrap();
    let publishing = Publishing {
        digest,
        location,
        size: upload.size,
    };
    assert!(stores.sessions.commit(cx(), &claim, &publishing).await.unwrap());
    stores
        .metadata
        .commit_blob(cx(), repository, &digest, &publishing.location, upload.size)
        .await
        .unwrap();
    stores.sessions.finish(cx(), &claim, End::Done).await.unwrap();
    digest
}

async fn put_manifest(stores: &Embedded, repository: &RepositoryName, tag: &str, layers: &[Digest]) -> Digest {
    let text = format!("{{\"{repository}:{tag}\":{}}}", layers.len());
    let digest = Digest::of(Algorithm::Sha256, text.as_bytes());
    let put = PutManifest {
        repository: repository.clone(),
        digest,
        media_type: "application/vnd.oci.image.manifest.v1+json".parse().unwrap(),
        size: text.len() as u64,
        content: NewContent::Inline(text.into()),
        artifact_type: None,
        subject: None,
        required: layers.iter().copied().collect(),
        excepted: std::iter::empty().collect(),
        tags: vec![tag.parse().unwrap()],
        author: Author::new("alice"),
    };
    assert_eq!(
        stores
            .metadata
            .put_manifest(cx(), &put, &AllowAll::shared())
            .await
            .unwrap(),
        ManifestPut::Stored
    );
    digest
}

async fn assert_readable(stores: &Embedded, repository: &RepositoryName, number: u64) {
    let (digest, bytes) = layer(number);
    let link = stores.metadata.link(cx(), repository, &digest).await.unwrap();
    let link = link.unwrap_or_else(|| panic!("{repository} has no layer {number}"));
    assert_eq!(link.size, bytes.len() as u64);
    let stream = stores
        .blobs
        .read(cx(), &link.location, 0..link.size)
        .await
        .unwrap()
        .unwrap();
    let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
    assert!(chunks.concat() == bytes, "the bytes of layer {number}");
}

/// Every process pushes the same layers at the same time into its own repository, and creates tags in a common one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_processes_share_a_data_directory() {
    if let Some((data, number)) = role() {
        let stores = Arc::new(open(&data));
        let pushes: Vec<_> = (0..4)
            .map(|task| {
                let stores = Arc::clone(&stores);
                tokio::spawn(async move {
                    for layer in (0..PUSHES).filter(|layer| layer % 4 == task) {
                        let digest = push(&stores, &repository(number), layer).await;
                        // The layer must exist when another process pushes it.
                        push(&stores, &repository(99), layer).await;
                        put_manifest(&stores, &repository(99), &format!("n{number}-{layer}"), &[digest]).await;
                    }
                })
            })
            .collect();
        for push in pushes {
            push.await.unwrap();
        }
        let key = SigningKey {
            id: u32::try_from(number).unwrap(),
            secret: [0; 32],
            created: cx().now,
        };
        let keys = stores.sessions.signing_keys(cx(), key).await.unwrap();
        println!("\nkeys {:?}", keys.iter().map(|key| key.id).collect::<Vec<_>>());
        return;
    }

    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    // All processes try to create the directory, the file and its schema.
    let children: Vec<_> = (0..PROCESSES)
        .map(|number| start("several_processes_share_a_data_directory", &data, number))
        .collect();
    let mut keys = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let output_text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output_text}");
        keys.extend(
            output_text
                .lines()
                .filter(|line| line.starts_with("keys"))
                .map(str::to_owned),
        );
    }
    assert_eq!(keys.len(), 3);
    assert!(
        keys.iter().all(|key| *key == keys[0]),
        "one signing key for all: {keys:?}"
    );

    let stores = open(&data);
    for layer in 0..PUSHES {
        for number in (0..PROCESSES).chain([99]) {
            assert_readable(&stores, &repository(number), layer).await;
        }
    }
    let tags = stores.metadata.tags(cx(), &repository(99), None, 1_000).await.unwrap();
    assert_eq!(tags.items.len() as u64, PROCESSES * PUSHES);
    assert!(tags.items.is_sorted());
}

/// A process is killed while it pushes. Everything that it has acknowledged exists, and the next process continues.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_data_survives_a_killed_process() {
    if let Some((data, _)) = role() {
        let stores = Arc::new(open(&data));
        for task in 0..4 {
            let stores = Arc::clone(&stores);
            tokio::spawn(async move {
                for layer in (0_u64..).filter(|layer| layer % 4 == task) {
                    push(&stores, &repository(0), layer).await;
                    println!("\nacknowledged {layer}");
                }
            });
        }
        std::future::pending::<()>().await;
    }

    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    for round in 1..=3 {
        let mut child = start("acknowledged_data_survives_a_killed_process", &data, 0);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = Vec::new();
        while acknowledged.len() < 30 * round {
            let line = lines.next().unwrap().unwrap();
            acknowledged.extend(
                line.strip_prefix("acknowledged ")
                    .map(|layer| layer.parse::<u64>().unwrap()),
            );
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // Lines that the process wrote before it was killed.
        acknowledged.extend(
            lines
                .map_while(Result::ok)
                .filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok()),
        );
        let stores = open(&data);
        for layer in acknowledged {
            assert_readable(&stores, &repository(0), layer).await;
        }
        push(&stores, &repository(1), 7).await;
        assert_readable(&stores, &repository(1), 7).await;
    }
}
