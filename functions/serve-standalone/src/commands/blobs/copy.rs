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

use super::super::progress::{Progress, rate, size};
use super::super::signals::Signals;
use super::super::store::{PAGE, cx, how, open, run as run_to_end};
use super::place::place;
use super::source::{ObjectSource, Shared};
use crate::cli::{CopyArgs, Target};
use crate::failure::Failure;

/// How long a store may take to make one object of what it was given.
const SEAL_PATIENCE_MS: u64 = 300_000;
/// The least size of an object that a store may take in parts, in bytes.
const IN_PARTS: u64 = 5 << 20;
/// How often progress is shown while nothing is finished.
const TICK: Duration = Duration::from_millis(250);

/// Copies every object that the metadata names.
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
        let mut tally = Tally::default();
        let mut progress = Progress::new();
        let ended = copier
            .copy_all(
                opened.stores.records.clone(),
                args.jobs.into(),
                &mut tally,
                &mut progress,
            )
            .await;
        watching.abort();
        let elapsed = progress.elapsed();
        drop(progress);
        ended?;
        tally.report(args, elapsed)
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
        return Err("--to names the store that the objects are in already".into());
    }
    Ok(())
}

/// An object that the metadata names.
#[derive(Clone, Debug)]
struct Named {
    digest: Digest,
    location: Location,
    size: u64,
}

/// What became of an object.
#[derive(Debug)]
enum Outcome {
    /// It was there.
    There,
    /// It is there now.
    Copied(u64),
    /// It is not, for this reason.
    Failed(Digest, String),
}

/// What became of all.
#[derive(Debug, Default)]
struct Tally {
    there: u64,
    copied: u64,
    bytes: u64,
    failed: u64,
}

impl Tally {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::There => self.there += 1,
            Outcome::Copied(bytes) => {
                self.copied += 1;
                self.bytes += bytes;
            }
            Outcome::Failed(..) => self.failed += 1,
        }
    }

    fn report(&self, args: &CopyArgs, elapsed: Duration) -> Result<(), Failure> {
        let Self {
            there,
            copied,
            bytes,
            failed,
        } = *self;
        if args.json {
            let report = json!({
                "copied": copied,
                "bytes": bytes,
                "there": there,
                "failed": failed,
                "seconds": elapsed.as_secs_f64(),
            });
            writeln!(std::io::stdout(), "{report}")?;
        } else {
            eprintln!(
                "{copied} objects of {} copied ({}), {there} were there",
                size(bytes),
                rate(bytes, elapsed)
            );
        }
        match failed {
            0 => Ok(()),
            _ => Err(Failure::Failed(format!(
                "{failed} objects were not copied; the same command tries those again"
            ))),
        }
    }
}

struct Copier {
    from: Arc<dyn BlobStore>,
    to: Arc<dyn BlobStore>,
    shared: Arc<Shared>,
}

impl Copier {
    async fn copy_all(
        &self,
        records: Arc<dyn RecordStore>,
        jobs: usize,
        tally: &mut Tally,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let interrupted = || self.shared.stop.load(Ordering::Relaxed);
        let mut copies = std::pin::pin!(
            objects(records)
                .try_take_while(|_| future::ready(Ok(!interrupted())))
                .map_ok(|named| async move { Ok(self.copy(&named).await) })
                .try_buffer_unordered(jobs)
        );
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                outcome = copies.next() => {
                    let Some(outcome) = outcome else { break };
                    let outcome = outcome.map_err(|error: StoreError| Failure::failed("cannot read the metadata", error))?;
                    tally.add(&outcome);
                    if let Outcome::Failed(digest, reason) = outcome && !interrupted() {
                        progress.say(&format!("{digest}: {reason}"));
                    }
                }
                _ = tick.tick() => {}
            }
            let bytes = self.shared.bytes.load(Ordering::Relaxed);
            let elapsed = progress.elapsed();
            progress.show(|| {
                let done = tally.copied + tally.there;
                format!("{done} objects, {} copied, {}", size(bytes), rate(bytes, elapsed))
            });
        }
        if interrupted() {
            return Err(Failure::Failed(
                "interrupted; the same command goes on where this ended".into(),
            ));
        }
        Ok(())
    }

    async fn copy(&self, named: &Named) -> Outcome {
        match self.try_copy(named).await {
            Ok(outcome) => outcome,
            Err(reason) => Outcome::Failed(named.digest, reason),
        }
    }

    async fn try_copy(&self, named: &Named) -> Result<Outcome, String> {
        let there = |error: StoreError| format!("cannot look for it at the destination: {error}");
        let found = self.to.stat(cx(), &named.location).await.map_err(there)?;
        if found == Some(named.size) {
            return Ok(Outcome::There);
        }
        // What a copy that was killed has left: a beginning of the object, or parts that nobody would ever see.
        if found.is_some() || named.size >= IN_PARTS {
            let to_delete = ObjectToDelete {
                location: named.location.clone(),
                unfinished: true,
            };
            self.to.delete(cx(), &[to_delete]).await.map_err(there)?;
        }
        let read = self.from.read(cx(), &named.location, 0..named.size).await;
        let stream = read
            .map_err(|error| format!("cannot read it: {error}"))?
            .ok_or("the metadata names it, and the object is missing")?;
        let mut source = ObjectSource::new(stream, named.digest, named.size, self.shared.clone());
        match place(&*self.to, &named.location, named.size, &mut source, sealing).await {
            Ok(()) => Ok(Outcome::Copied(named.size)),
            Err(AppendError::Body(error) | AppendError::WriteInFlight(error)) => {
                Err(source.spoiled.map_or(error.to_string(), |spoiled| spoiled.to_string()))
            }
            Err(AppendError::Store(error)) => Err(format!("cannot store it: {error}")),
        }
    }
}

/// The context of what makes an object.
fn sealing() -> Context {
    let cx = cx();
    Context {
        deadline: cx.now.plus_millis(SEAL_PATIENCE_MS),
        ..cx
    }
}

/// Every object that the records name, as the walk over them comes along.
fn objects(records: Arc<dyn RecordStore>) -> impl Stream<Item = Result<Named, StoreError>> {
    let slices = stream::try_unfold(Some(None::<Cursor>), move |after| {
        let records = records.clone();
        async move {
            let Some(after) = after else { return Ok(None) };
            let slice = records.records(cx(), after.as_ref(), PAGE).await?;
            Ok::<_, StoreError>(Some((slice.items, slice.next.map(Some))))
        }
    });
    slices
        .map_ok(|items| stream::iter(items.into_iter().filter_map(named).map(Ok)))
        .try_flatten()
}

fn named(record: Record) -> Option<Named> {
    match record {
        Record::Blob {
            digest, location, size, ..
        } => Some(Named { digest, location, size }),
        _ => None,
    }
}
