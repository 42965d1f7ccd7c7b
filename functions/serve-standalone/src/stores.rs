//! The stores that the flags name, opened: four combinations, one shape.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use registry::AllStores;
use registry::store::blobs::BlobStore;
use registry::store::collection::CollectionStore;
use registry::store::metadata::MetadataStore;
use registry::store::records::RecordStore;
use registry::store::sessions::SessionStore;
use registry::store::{Context, Reason, StoreError, Uid};
use store_dynamodb::DynamoStore;
use store_embedded::{DiskBlobs, Embedded, MinFree, SqliteStore, Sync};
use store_s3::S3Blobs;

use crate::cli::{Blobs, Metadata, StoreArgs, Target};
use crate::condition::{Condition, ConditionParts, TimeService};
use crate::environment;

pub(crate) mod admission;
mod cloud;

/// Memory for uploads to a disk, in bytes, unless it was set: less than for an object store, which wants many parts in
/// flight.
const DISK_MEMORY: u64 = 64 << 20;

/// How long a service may take that is asked for the time, in milliseconds.
const TIME_MS: u64 = 5_000;

/// What to do where there is no registry on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// Make one.
    Create,
    /// Fail: a path was mistyped.
    Refuse,
}

/// How stores are opened, beside where they are.
#[derive(Clone, Debug)]
pub(crate) struct OpenHow {
    /// What to do where there is no registry on this host.
    pub(crate) absent: Absent,
    /// What durability costs on this host.
    pub(crate) sync: Sync,
    /// Bytes that uploads may hold together; by store when `None`.
    pub(crate) upload_memory: Option<u64>,
    /// For how long an upload waits for its memory; by store when `None`.
    pub(crate) memory_timeout: Option<Duration>,
    /// How long a redirect works at most.
    pub(crate) presign_lifetime: Duration,
    /// What stays free on the file systems of this host.
    pub(crate) min_free: MinFree,
    /// Whether a table must answer now.
    pub(crate) contact: Contact,
}

/// When a table in the cloud is asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contact {
    /// Now, and it must answer: for commands.
    Now,
    /// By whoever opens it: for a server, which starts while its table is away. See [`admission`].
    Later,
}

impl OpenHow {
    /// Bytes that manifests and lists may hold together, wherever they are stored: as much as uploads, if that was set.
    pub(crate) fn manifest_memory(&self) -> u64 {
        self.upload_memory.unwrap_or(DISK_MEMORY)
    }

    /// Bytes that uploads into the stores of `args` may hold together.
    fn memory(&self, args: &StoreArgs) -> u64 {
        let default = match args.blobs {
            Blobs::Disk => DISK_MEMORY,
            Blobs::S3(_) => store_s3::Options::UPLOAD_MEMORY,
        };
        self.upload_memory.unwrap_or(default)
    }
}

/// A registry's stores.
pub(crate) struct Opened {
    /// All of them.
    pub(crate) stores: AllStores,
    /// What they have counted.
    pub(crate) statistics: Statistics,
    /// In what condition they are.
    pub(crate) condition: Condition,
    /// Whether asking them costs money and a way over a network.
    pub(crate) remote: bool,
}

impl Opened {
    /// Where the names are, for people, and so that no other place is described alike: a table of the same name in
    /// another region or account, or made later, is another one. The error is a sentence for the operator.
    pub(crate) async fn identify_metadata(&self, args: &StoreArgs, cx: Context) -> Result<String, String> {
        let described = describe_metadata(args);
        let Some(table) = &self.statistics.dynamodb else {
            return Ok(described);
        };
        let identity = table.identity(cx).await;
        let identity = identity.map_err(|error| format!("cannot tell {described} from others: {error}"))?;
        Ok(format!("{described}, table {identity}"))
    }
}

/// Opens the stores that the flags name. The error is a sentence for the operator.
pub(crate) async fn open(args: &StoreArgs, how: &OpenHow) -> Result<Opened, String> {
    let mut statistics = Statistics::default();
    let mut parts = ConditionParts::default();
    let mut bytes: Option<Arc<dyn BlobStore>> = None;
    if let Blobs::S3(bucket) = &args.blobs {
        let store = cloud::bucket(args, bucket, how).await?;
        parts.services.push(time_of_bucket(&store));
        statistics.s3 = Some(store.clone());
        bytes = Some(Arc::new(store));
    }
    match &args.metadata {
        Metadata::Sqlite => {
            let Embedded {
                blobs,
                metadata,
                sessions,
            } = embedded(args, how).await?;
            metadata.space().keep(how.min_free);
            parts.spaces.push(metadata.space().clone());
            parts.watches.push(metadata.watch().clone());
            statistics.sqlite = Some(metadata.clone());
            let bytes = bytes.unwrap_or_else(|| on_disk(blobs, how, &mut parts));
            Ok(assembled(bytes, metadata, sessions, statistics, parts))
        }
        Metadata::DynamoDb(table) => {
            let store = cloud::table(args, table, how.contact).await?;
            parts.services.push(time_of_table(&store));
            statistics.dynamodb = Some(store.clone());
            let store = Arc::new(store);
            let bytes = if let Some(bytes) = bytes {
                bytes
            } else {
                let blobs = disk(&args.data, how, how.memory(args)).await?;
                on_disk(blobs, how, &mut parts)
            };
            Ok(assembled(bytes, store.clone(), store, statistics, parts))
        }
    }
}

/// A bucket, which tells the time.
fn time_of_bucket(store: &S3Blobs) -> TimeService {
    let asked = store.clone();
    TimeService::new("object_store", store.clock().clone(), move || {
        let bucket = asked.clone();
        async move { Ok(bucket.check(cx(TIME_MS)).await?) }
    })
}

/// A table, which tells the time.
fn time_of_table(store: &DynamoStore) -> TimeService {
    let asked = store.clone();
    TimeService::new("metadata", store.clock().clone(), move || {
        let table = asked.clone();
        async move {
            let checked = table.check(cx(TIME_MS)).await;
            checked.map_err(|error| StoreError::because(Reason::MetadataUnreachable, error))
        }
    })
}

/// Blobs on a disk, which are watched, and leave some of it free.
fn on_disk(blobs: Arc<DiskBlobs>, how: &OpenHow, parts: &mut ConditionParts) -> Arc<dyn BlobStore> {
    blobs.space().keep(how.min_free);
    parts.spaces.push(blobs.space().clone());
    parts.watches.push(blobs.watch().clone());
    blobs
}

fn assembled<M>(
    blobs: Arc<dyn BlobStore>,
    metadata: Arc<M>,
    sessions: Arc<dyn SessionStore>,
    statistics: Statistics,
    parts: ConditionParts,
) -> Opened
where
    M: MetadataStore + CollectionStore + RecordStore,
{
    let condition = Condition::of(parts);
    let mut statistics = statistics;
    statistics.condition = condition.clone();
    Opened {
        condition,
        remote: statistics.s3.is_some() || statistics.dynamodb.is_some(),
        stores: AllStores {
            blobs,
            metadata: metadata.clone(),
            sessions,
            collection: metadata.clone(),
            records: metadata,
        },
        statistics,
    }
}

async fn embedded(args: &StoreArgs, how: &OpenHow) -> Result<Embedded, String> {
    let options = options(&args.data, how, how.memory(args));
    let absent = how.absent;
    let opened = blocking(move || match absent {
        Absent::Create => Embedded::open(&options),
        Absent::Refuse => Embedded::open_existing(&options),
    });
    opened.await.map_err(|error| unusable(&args.data, &error))
}

async fn disk(data: &Path, how: &OpenHow, memory: u64) -> Result<Arc<DiskBlobs>, String> {
    let options = options(data, how, memory);
    let create = how.absent == Absent::Create;
    let opened = blocking(move || store_embedded::open_blobs(&options, create));
    opened.await.map_err(|error| unusable(data, &error))
}

fn options(data: &Path, how: &OpenHow, upload_memory: u64) -> store_embedded::Options {
    store_embedded::Options {
        data: data.to_owned(),
        sync: how.sync,
        upload_memory,
        memory_timeout: how.memory_timeout.unwrap_or(store_embedded::Options::MEMORY_TIMEOUT),
    }
}

/// Of one call, on behalf of this process.
fn cx(timeout_ms: u64) -> Context {
    let now = environment::now();
    Context {
        now,
        deadline: now.plus_millis(timeout_ms),
        uid: Uid(0),
        client: registry::budget::ClientKey::INTERNAL,
    }
}

/// Opening a file may wait for the disk, and for another process.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

fn unusable(data: &Path, error: &dyn fmt::Display) -> String {
    format!(
        "cannot open the data directory {}: {error}. Name the directory of the server with --data or ROADSTEAD_DATA",
        data.display()
    )
}

/// Makes the tables that the flags name; answers what was done, in words.
pub(crate) async fn init(args: &StoreArgs) -> Result<String, super::commands::Failure> {
    use super::commands::Failure;
    match &args.metadata {
        Metadata::DynamoDb(table) => cloud::init(args, table).await.map_err(Failure::Failed),
        Metadata::Sqlite => Err(Failure::Usage(
            "SQLite needs no preparation: the server makes its file. To make a table, add --metadata dynamodb://TABLE"
                .into(),
        )),
    }
}

/// The store that objects are copied to.
pub(crate) async fn open_target(args: &StoreArgs, to: &Target, how: &OpenHow) -> Result<Arc<dyn BlobStore>, String> {
    match to {
        Target::Disk(data) => Ok(disk(data, how, how.memory(args)).await?),
        Target::S3(bucket) => Ok(Arc::new(cloud::bucket(args, bucket, how).await?)),
    }
}

/// Refuses to copy a store to itself.
pub(crate) fn refuse_same(args: &StoreArgs, to: &Target) -> Result<(), String> {
    let same = match (&args.blobs, to) {
        (Blobs::Disk, Target::Disk(to)) => {
            let (from, to) = (args.data.canonicalize(), to.canonicalize());
            from.is_ok_and(|from| to.is_ok_and(|to| from == to))
        }
        (Blobs::S3(from), Target::S3(to)) => from == to,
        _ => false,
    };
    if same {
        return Err("--to names the store that the objects are in already".into());
    }
    Ok(())
}

/// Where bytes are, for people: without anything secret, because flags hold nothing secret.
pub(crate) fn describe_blobs(args: &StoreArgs) -> String {
    match &args.blobs {
        Blobs::Disk => format!("disk in {}", absolute(&args.data)),
        Blobs::S3(bucket) => with_endpoint(
            bucket.to_string(),
            args.s3_endpoint.as_ref().map(|endpoint| &*endpoint.0),
        ),
    }
}

/// Where names are, for people.
pub(crate) fn describe_metadata(args: &StoreArgs) -> String {
    match &args.metadata {
        Metadata::Sqlite => format!("sqlite in {}", absolute(&args.data)),
        Metadata::DynamoDb(table) => with_endpoint(
            format!("dynamodb://{}", table.0),
            args.dynamodb_endpoint.as_ref().map(|endpoint| &*endpoint.0),
        ),
    }
}

/// A path that says the same wherever it is read.
fn absolute(path: &Path) -> String {
    let absolute = std::path::absolute(path);
    absolute.as_deref().unwrap_or(path).display().to_string()
}

fn with_endpoint(store: String, endpoint: Option<&str>) -> String {
    match endpoint {
        Some(endpoint) => format!("{store} at {endpoint}"),
        None => store,
    }
}

/// What the stores in use count.
#[derive(Clone, Default)]
pub(crate) struct Statistics {
    sqlite: Option<Arc<SqliteStore>>,
    dynamodb: Option<DynamoStore>,
    s3: Option<S3Blobs>,
    condition: Condition,
}

/// What has been asked of the tables of metadata and sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableCounts {
    /// Statements, items and pages that were read.
    pub(crate) reads: u64,
    /// Rows or items that were written.
    pub(crate) writes: u64,
}

impl Statistics {
    pub(crate) fn table(&self) -> TableCounts {
        let mut counts = TableCounts::default();
        if let Some(store) = &self.sqlite {
            let statistics = store.statistics();
            counts.reads += statistics.reads;
            counts.writes += statistics.writes;
        }
        if let Some(store) = &self.dynamodb {
            let statistics = store.statistics();
            counts.reads += statistics.reads + statistics.queries;
            counts.writes += statistics.writes;
        }
        counts
    }

    /// The object store; `None` when there is none.
    pub(crate) fn bucket(&self) -> Option<&S3Blobs> {
        self.s3.as_ref()
    }

    /// In what condition the stores are.
    pub(crate) fn condition(&self) -> &Condition {
        &self.condition
    }

    /// What was asked of the object store; `None` when there is none.
    pub(crate) fn object_store(&self) -> Option<store_s3::Statistics> {
        self.s3.as_ref().map(S3Blobs::statistics)
    }
}

impl fmt::Debug for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statistics").finish_non_exhaustive()
    }
}

/// Stores in memory over `metadata`.
#[cfg(test)]
pub(crate) fn in_memory(metadata: &std::sync::Arc<registry::store::memory::MemoryMetadata>) -> registry::AllStores {
    use std::sync::Arc;

    use registry::store::memory::{MemoryBlobs, MemoryCollection, MemorySessions};

    let sessions = Arc::new(MemorySessions::new());
    registry::AllStores {
        blobs: Arc::new(MemoryBlobs::new()),
        metadata: metadata.clone(),
        sessions: sessions.clone(),
        collection: Arc::new(MemoryCollection::new(metadata.clone(), sessions)),
        records: metadata.clone(),
    }
}
