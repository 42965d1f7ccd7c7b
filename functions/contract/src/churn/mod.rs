//! A registry under everything at once: several workers push and delete through several instances of the core over one
//! set of stores, while collections run one after the other and time flies.
//!
//! Each worker has repositories of its own, in which it knows what must be there, and shares others with all workers,
//! where it knows what must be there of its own. All draw on a small pool of blobs, so that the same digests are
//! pushed, mounted, deleted and collected at the same time in several places. Whatever was acknowledged and not deleted
//! must resolve, with all its bytes, at every look; checks run meanwhile must find nothing. In the end everything is
//! deleted, the graces pass, and the stores must be empty but for the catalog and the history.
//!
//! With [`Options::cuts`], some pushes are dropped in the middle, which is the same as a crash: what they leave must
//! never be in anybody's way, and must be gone in the end too.
//!
//! Time is that of `clock`. It goes as fast as it can, but by no more than a bound while a request or a push is under
//! way: the graces protect those who take less. What a store call meets before it begins is `jitter`.

mod client;
mod clock;
mod collector;
mod end;
mod jitter;
mod pool;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{BoxFuture, join, join_all};

use self::client::Client;
use self::clock::{Clock, HOUR, MINUTE};
use self::jitter::Jitter;
use self::pool::Pool;
use self::worker::Worker;
use super::{ContractTest, Spawn};
use registry::auth::Anonymous;
use registry::collection::Report;
use registry::delivery::Delivery;
use registry::limits::Limits;
use registry::store::blobs::BlobStore;
use registry::store::collection::{CollectionStore, GracePeriods};
use registry::store::metadata::MetadataStore;
use registry::store::records::RecordStore;
use registry::store::sessions::SessionStore;
use registry::store::wrapped::Wrapped;
use registry::{AllStores, Registry, Settings};

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What all choices follow from; the order in which tasks meet does not.
    pub seed: u64,
    /// Workers at once.
    pub workers: usize,
    /// Operations of each worker: a push, a deletion, a look.
    pub operations: usize,
    /// Bytes of the largest blob, so that it takes the ways that a store has for large ones. Each of the 24 blobs is
    /// pushed and read as often as the others.
    pub largest: usize,
    /// Whether pushes are cut off now and then.
    pub cuts: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            workers: 4,
            operations: 120,
            largest: 70_000,
            cuts: false,
        }
    }
}

/// What has happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Churned {
    /// Manifests that were acknowledged.
    pub pushed: u64,
    /// Pushes that were refused, because somebody deleted what they had found.
    pub refused: u64,
    /// Pushes that were cut off.
    pub cut: u64,
    /// Manifests, tags and blobs that were deleted.
    pub deleted: u64,
    /// Deletions that were refused, because something refers to it.
    pub held: u64,
    /// Manifests that were looked at with all their bytes.
    pub verified: u64,
    /// Collections.
    pub collections: u64,
    /// Checks.
    pub checks: u64,
    /// What the collections did together.
    pub collected: Report,
}

/// For how long a request may take, in milliseconds: less than references are young for, and less than a claim lives.
const REQUEST: u64 = 20 * MINUTE;

/// For how long a push may take, from its first request to its last: less than a link is left alone for.
const PUSH: u64 = 100 * MINUTE;

/// How long things are left alone here.
const GRACES: GracePeriods = GracePeriods {
    link_ms: 2 * HOUR,
    session_ms: HOUR,
    deletion_ms: 4 * HOUR,
    leftover_ms: 2 * HOUR,
};

/// More than all of these, and than an upload's token lives.
const REST: u64 = 5 * HOUR;

fn limits() -> Limits {
    Limits {
        upload_token_ms: 2 * HOUR,
        claim_ms: 40 * MINUTE,
        manifest_ms: REQUEST,
        // So that large manifests are small.
        inline_manifest_bytes: 2048,
        ..Limits::default()
    }
}

/// Everything that all tasks share.
struct Field {
    stores: AllStores,
    client: Client,
    clock: Arc<Clock>,
    options: Options,
    pool: Pool,
    over: AtomicBool,
}

/// Runs a churn over empty stores.
///
/// # Panics
/// When anything that must be so is not.
pub fn churn(stores: AllStores, spawn: Spawn, options: Options) -> BoxFuture<'static, Churned> {
    // Boxed here, so that its code is compiled once, in this crate, and not in each crate that runs it.
    Box::pin(run(stores, spawn, options))
}

async fn run(stores: AllStores, spawn: Spawn, options: Options) -> Churned {
    let clock = Arc::new(Clock::new(options.seed));
    let jitter = Jitter::new(options.seed);
    let stores = AllStores {
        blobs: Arc::new(Wrapped::<dyn BlobStore, _>::new(stores.blobs, jitter.clone())),
        metadata: Arc::new(Wrapped::<dyn MetadataStore, _>::new(stores.metadata, jitter.clone())),
        sessions: Arc::new(Wrapped::<dyn SessionStore, _>::new(stores.sessions, jitter.clone())),
        collection: Arc::new(Wrapped::<dyn CollectionStore, _>::new(
            stores.collection,
            jitter.clone(),
        )),
        records: Arc::new(Wrapped::<dyn RecordStore, _>::new(stores.records, jitter)),
    };
    let mut instances = Vec::new();
    for _ in 0..3 {
        let settings = Settings {
            limits: limits(),
            delivery: Arc::new(Delivery::Proxy),
            ..Settings::default()
        };
        let registry = Registry::open(
            stores.serving(),
            Arc::new(Anonymous::all()),
            clock.clone(),
            Arc::new(()),
            settings,
        );
        let registry = registry.await;
        instances.push(Arc::new(registry.expect("the registry opens")));
    }
    let field = Arc::new(Field {
        client: Client::new(instances, clock.clone()),
        stores,
        clock,
        options,
        pool: Pool::new(options.largest),
        over: AtomicBool::new(false),
    });

    let test = ContractTest::new((Arc::new(()), Box::new(())), spawn);
    let collecting = test.task(collector::run(field.clone()));
    let working: Vec<_> = (0..options.workers)
        .map(|number| {
            let field = field.clone();
            test.task(async move {
                let mut worker = Worker::new(&field, number);
                worker.work().await;
                worker
            })
        })
        .collect();
    let ending = async {
        let workers = join_all(working).await;
        field.over.store(true, Ordering::SeqCst);
        workers
    };
    // At once, because nobody would wait for workers that rest while a collection that has failed moves no clock.
    let (mut churned, mut workers) = join(collecting, ending).await;

    for worker in &mut workers {
        worker.verify_all().await;
        churned.add(&worker.churned);
    }
    end::check(&field).await;
    end::empty(&field, &mut churned).await;
    churned
}

impl Churned {
    fn add(&mut self, other: &Self) {
        self.pushed += other.pushed;
        self.refused += other.refused;
        self.cut += other.cut;
        self.deleted += other.deleted;
        self.held += other.held;
        self.verified += other.verified;
    }

    fn collect(&mut self, report: &Report) {
        self.collections += 1;
        self.collected.metadata += report.metadata;
        self.collected.sessions_swept += report.sessions_swept;
        self.collected.objects_scheduled += report.objects_scheduled;
        self.collected.objects_deleted += report.objects_deleted;
        self.collected.deletions_cancelled += report.deletions_cancelled;
    }
}
