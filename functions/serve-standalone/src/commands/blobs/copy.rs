//! `roadstead blobs copy`.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, future, stream};
use oci::Digest;
use registry::store::blobs::{AppendError, BlobStore, ObjectToDelete};
use registry::store::records::{Record, RecordStore};
use registry::store::{Context, Cursor, Location, StoreError};
use serde_json::json;
use shell::stores::{self, Absent, BlobBackend};
use shell::text::count;

use super::super::progress::{ProgressLine, rate, size};
use super::super::signals::Signals;
use super::super::store::{PAGE, cx, how, open, run as run_to_end};
use super::source::{CopyState, ObjectSource};
use super::store_object::store_object;
use crate::cli::{CopyArgs, Target};
use crate::failure::Failure;

/// Maximum time in which a store makes one object of the stored bytes, in milliseconds.
const SEAL_TIMEOUT_MS: u64 = 300_000;
/// The smallest object that a store may store in parts, in bytes.
const IN_PARTS: u64 = 5 << 20;
/// How often progress is shown while no copy ends.
const TICK: Duration = Duration::from_millis(250);

/// Copies every object that has a record in the metadata.
pub(in super::super) fn run(args: &CopyArgs) -> Result<(), Failure> {
    args.stores
        .check(matches!(args.to, Target::S3(_)))
        .map_err(Failure::Usage)?;
    refuse_same(args).map_err(Failure::Usage)?;
    run_to_end(async {
        let signals = Signals::new().map_err(|error| Failure::failed("cannot listen to signals", error))?;
        let opened = open(&args.stores, Absent::Refuse).await?;
        let (config, how) = (args.stores.config(), how(Absent::Create));
        let target = match &args.to {
            Target::Disk(data) => stores::open_disk(&config, data, &how).await?,
            Target::S3(bucket) => stores::open_bucket(&config, bucket, &how).await?,
        };
        let copier = Copier {
            from: opened.stores.blobs.clone(),
            to: target,
            shared: Arc::default(),
        };
        let watching = tokio::spawn({
            let shared = copier.shared.clone();
            async move {
                signals.first().await;
                shared.stop.store(true, Ordering::Relaxed);
            }
        });
        let mut statistics = CopyStatistics::default();
        let mut progress = ProgressLine::new();
        let ended = copier
            .copy_all(
                opened.stores.records.clone(),
                args.jobs.into(),
                &mut statistics,
                &mut progress,
            )
            .await;
        watching.abort();
        let elapsed = progress.elapsed();
        drop(progress);
        ended?;
        statistics.report(args, elapsed)
    })
}

/// Refuses to copy a store to itself.
fn refuse_same(args: &CopyArgs) -> Result<(), String> {
    let same = match (&args.stores.blobs, &args.to) {
        (BlobBackend::Disk, Target::Disk(to)) => {
            let (from, to) = (args.stores.data.canonicalize(), to.canonicalize());
            from.is_ok_and(|from| to.is_ok_and(|to| from == to))
        }
        (BlobBackend::S3(from), Target::S3(to)) => from == to,
        _ => false,
    };
    if same {
        return Err("--to names the store that already has the objects: name another store".into());
    }
    Ok(())
}

/// An object with its record in the metadata.
#[derive(Clone, Debug)]
struct ObjectToCopy {
    digest: Digest,
    location: Location,
    size: u64,
}

/// How the copy of one object ended.
#[derive(Debug)]
enum CopyOutcome {
    /// The destination already had the object.
    Skipped,
    /// The object was copied; its size in bytes.
    Copied(u64),
    /// The object was not copied, for this reason.
    Failed(Digest, String),
}

/// How many copies ended in which way.
#[derive(Debug, Default)]
struct CopyStatistics {
    skipped: u64,
    copied: u64,
    bytes: u64,
    failed: u64,
}

impl CopyStatistics {
    fn add(&mut self, outcome: &CopyOutcome) {
        match outcome {
            CopyOutcome::Skipped => self.skipped += 1,
            CopyOutcome::Copied(bytes) => {
                self.copied += 1;
                self.bytes += bytes;
            }
            CopyOutcome::Failed(..) => self.failed += 1,
        }
    }

    fn report(&self, args: &CopyArgs, elapsed: Duration) -> Result<(), Failure> {
        let Self {
            skipped,
            copied,
            bytes,
            failed,
        } = *self;
        if args.json {
            let report = json!({
                "copied": copied,
                "bytes": bytes,
                "skipped": skipped,
                "failed": failed,
                "seconds": elapsed.as_secs_f64(),
            });
            writeln!(std::io::stdout(), "{report}")?;
        } else {
            eprintln!(
                "{} ({}) copied at {}, {} already at the destination",
                count(copied, "object", "objects"),
                size(bytes),
                rate(bytes, elapsed),
                count(skipped, "object", "objects"),
            );
        }
        match failed {
            0 => Ok(()),
            _ => Err(Failure::Failed(format!(
                "{} could not be copied: run the same command again, which tries these again",
                count(failed, "object", "objects")
            ))),
        }
    }
}

struct Copier {
    from: Arc<dyn BlobStore>,
    to: Arc<dyn BlobStore>,
    shared: Arc<CopyState>,
}

impl Copier {
    async fn copy_all(
        &self,
        records: Arc<dyn RecordStore>,
        jobs: usize,
        statistics: &mut CopyStatistics,
        progress: &mut ProgressLine,
    ) -> Result<(), Failure> {
        let interrupted = || self.shared.stop.load(Ordering::Relaxed);
        let mut copies = std::pin::pin!(
            objects(records)
                .try_take_while(|_| future::ready(Ok(!interrupted())))
                .map_ok(|object| async move { Ok(self.copy(&object).await) })
                .try_buffer_unordered(jobs)
        );
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                outcome = copies.next() => {
                    let Some(outcome) = outcome else { break };
                    let outcome = outcome.map_err(|error: StoreError| Failure::failed("cannot read the metadata", error))?;
                    statistics.add(&outcome);
                    if let CopyOutcome::Failed(digest, reason) = outcome && !interrupted() {
                        progress.say(&format!("{digest}: {reason}"));
                    }
                }
                _ = tick.tick() => {}
            }
            let bytes = self.shared.bytes.load(Ordering::Relaxed);
            let elapsed = progress.elapsed();
            progress.show(|| {
                let done = statistics.copied + statistics.skipped;
                let done = count(done, "object", "objects");
                format!("{done}, {} copied, {}", size(bytes), rate(bytes, elapsed))
            });
        }
        if interrupted() {
            return Err(Failure::Failed(
                "interrupted: run the same command again, which continues from here".into(),
            ));
        }
        Ok(())
    }

    async fn copy(&self, object: &ObjectToCopy) -> CopyOutcome {
        match self.try_copy(object).await {
            Ok(outcome) => outcome,
            Err(reason) => CopyOutcome::Failed(object.digest, reason),
        }
    }

    async fn try_copy(&self, object: &ObjectToCopy) -> Result<CopyOutcome, String> {
        let unreachable = |error: StoreError| format!("the destination cannot be asked for the object: {error}");
        let found = self.to.stat(cx(), &object.location).await.map_err(unreachable)?;
        if found == Some(object.size) {
            return Ok(CopyOutcome::Skipped);
        }
        // A killed copy may have left a beginning of the object, or parts of an upload, which no listing shows.
        if found.is_some() || object.size >= IN_PARTS {
            let to_delete = ObjectToDelete {
                location: object.location.clone(),
                unfinished: true,
            };
            self.to.delete(cx(), &[to_delete]).await.map_err(unreachable)?;
        }
        let read = self.from.read(cx(), &object.location, 0..object.size).await;
        let stream = read
            .map_err(|error| format!("the object cannot be read: {error}"))?
            .ok_or("the object is missing, and the metadata has a record of it")?;
        let mut source = ObjectSource::new(stream, object.digest, object.size, self.shared.clone());
        match store_object(&*self.to, &object.location, object.size, &mut source, sealing).await {
            Ok(()) => Ok(CopyOutcome::Copied(object.size)),
            Err(AppendError::Body(error) | AppendError::WriteInFlight(error)) => {
                Err(source.error.map_or(error.to_string(), |error| error.to_string()))
            }
            Err(AppendError::Store(error)) => Err(format!("the object cannot be stored: {error}")),
        }
    }
}

/// The context of the calls that store an object.
fn sealing() -> Context {
    let cx = cx();
    Context {
        deadline: cx.now.plus_millis(SEAL_TIMEOUT_MS),
        ..cx
    }
}

/// The objects of all records, in the order of the walk over the records.
fn objects(records: Arc<dyn RecordStore>) -> impl Stream<Item = Result<ObjectToCopy, StoreError>> {
    let slices = stream::try_unfold(Some(None::<Cursor>), move |after| {
        let records = records.clone();
        async move {
            let Some(after) = after else { return Ok(None) };
            let slice = records.records(cx(), after.as_ref(), PAGE).await?;
            Ok::<_, StoreError>(Some((slice.items, slice.next.map(Some))))
        }
    });
    slices
        .map_ok(|items| stream::iter(items.into_iter().filter_map(object).map(Ok)))
        .try_flatten()
}

fn object(record: Record) -> Option<ObjectToCopy> {
    match record {
        Record::Blob {
            digest, location, size, ..
        } => Some(ObjectToCopy { digest, location, size }),
        _ => None,
    }
}
