//! All operations at the same time: several workers push and delete through several instances of the core over one set
//! of stores, while collections run one after the other and simulated time advances.
//!
//! Each worker has a repository of its own, of which it knows the whole content, and shares others with all workers, of
//! which it knows its own content. All use a small pool of blobs, so that the same digests are pushed, mounted, deleted
//! and collected at the same time in several repositories. Every read of content that was acknowledged and not deleted
//! must answer all its bytes, and checks that run meanwhile must find nothing. In the end everything is deleted, the
//! grace periods pass, and the stores must be empty except for the history.
//!
//! Each worker is a user under a policy that lets it do some things in some repositories and makes some tags immutable: at
//! once, after a grace, or so that they may be deleted and come back. A model of the policy says which requests are refused.
//! No immutable tag may ever change, and in the end the history must have no change that the rules forbid, and the audit
//! trail one event for every change and no other.
//!
//! With [`ChurnOptions::cuts`], some pushes are interrupted, which is the same as a crash: what they leave must not
//! affect other operations, and must be gone in the end.
//!
//! `clock` has the simulated time. It advances as fast as it can, but during a request or a push by no more than a
//! bound: the grace periods protect operations that take less. `jitter` delays store calls.

mod client;
mod clock;
mod collector;
mod end;
mod frozen;
mod jitter;
mod pool;
mod releases;
mod trail;
mod users;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{BoxFuture, join, join_all};
use registry::budget::ClientKey;
use registry::collection::Report;
use registry::delivery::Delivery;
use registry::environment::context;
use registry::limits::Limits;
use registry::store::Context;
use registry::store::access::AccessStore;
use registry::store::blobs::BlobStore;
use registry::store::collection::{CollectionStore, GracePeriods};
use registry::store::metadata::MetadataStore;
use registry::store::records::RecordStore;
use registry::store::sessions::SessionStore;
use registry::store::wrapped::Wrapped;
use registry::{Registry, Settings, Stores};

use self::client::RoundRobinClient;
use self::clock::{Clock, HOUR, MINUTE};
use self::jitter::Jitter;
use self::pool::Pool;
use self::releases::Releases;
use self::users::Users;
use self::worker::Worker;
use super::{ContractTest, Spawn};

/// The size of a churn.
#[derive(Clone, Copy, Debug)]
pub struct ChurnOptions {
    /// The seed of all random choices. The interleaving of tasks does not follow from it.
    pub seed: u64,
    /// The number of concurrent workers.
    pub workers: usize,
    /// The number of operations of each worker: a push, a deletion or a verification.
    pub operations: usize,
    /// The size of the largest blob in bytes, so that a store uses its code for large blobs. Each of the 24 blobs is
    /// pushed and read as often as the others.
    pub largest: usize,
    /// Whether some pushes are interrupted.
    pub cuts: bool,
}

impl Default for ChurnOptions {
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

/// What a churn has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChurnStatistics {
    /// Manifests that were acknowledged.
    pub pushed: u64,
    /// Pushes that were refused, because another worker deleted a blob that they had found.
    pub refused: u64,
    /// Pushes that were interrupted.
    pub cut: u64,
    /// Manifests, tags and blobs that were deleted.
    pub deleted: u64,
    /// Deletions that were refused, because a reference exists.
    pub still_referenced: u64,
    /// Requests that were refused, because their principal may not do it.
    pub denied: u64,
    /// Requests that were refused, because a tag is immutable, or may only be created.
    pub protected: u64,
    /// Manifests that were read with all their bytes.
    pub verified: u64,
    /// Collections.
    pub collections: u64,
    /// Checks.
    pub checks: u64,
    /// The sums of all collections.
    pub collected: Report,
}

/// The maximum time of a request, in milliseconds: less than the time for which references are young, and less than
/// that of a claim.
const REQUEST: u64 = 20 * MINUTE;

/// The maximum time of a push, from its first request to its last: less than the grace period of a link.
const PUSH: u64 = 100 * MINUTE;

/// The grace periods of a churn.
const GRACES: GracePeriods = GracePeriods {
    link_ms: 2 * HOUR,
    session_ms: HOUR,
    deletion_ms: 4 * HOUR,
    orphan_ms: 2 * HOUR,
};

/// Longer than all grace periods, and than the lifetime of an upload token.
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

/// What all tasks share.
struct Shared {
    stores: Stores,
    client: RoundRobinClient,
    clock: Arc<Clock>,
    options: ChurnOptions,
    pool: Pool,
    users: Arc<Users>,
    releases: Arc<Releases>,
    over: AtomicBool,
}

impl Shared {
    /// The context of a store call that no client makes.
    fn cx(&self) -> Context {
        context(&*self.clock, ClientKey::INTERNAL, MINUTE)
    }
}

/// Runs a churn over empty stores.
///
/// # Panics
/// When anything that must be so is not.
pub fn churn(stores: Stores, spawn: Spawn, options: ChurnOptions) -> BoxFuture<'static, ChurnStatistics> {
    // Boxed here, so that its code is compiled once, in this crate, and not in each crate that runs it.
    Box::pin(run(stores, spawn, options))
}

async fn run(stores: Stores, spawn: Spawn, options: ChurnOptions) -> ChurnStatistics {
    let clock = Arc::new(Clock::new(options.seed));
    let jitter = Jitter::new(options.seed);
    let stores = Stores {
        blobs: Arc::new(Wrapped::<dyn BlobStore, _>::new(stores.blobs, jitter.clone())),
        metadata: Arc::new(Wrapped::<dyn MetadataStore, _>::new(stores.metadata, jitter.clone())),
        sessions: Arc::new(Wrapped::<dyn SessionStore, _>::new(stores.sessions, jitter.clone())),
        collection: Arc::new(Wrapped::<dyn CollectionStore, _>::new(
            stores.collection,
            jitter.clone(),
        )),
        records: Arc::new(Wrapped::<dyn RecordStore, _>::new(stores.records, jitter.clone())),
        access: Arc::new(Wrapped::<dyn AccessStore, _>::new(stores.access, jitter)),
    };
    let users = Arc::new(Users::new());
    let mut instances = Vec::new();
    for _ in 0..3 {
        let settings = Settings {
            limits: limits(),
            delivery: Arc::new(Delivery::Proxy),
            ..Settings::default()
        };
        let registry = Registry::open(stores.clone(), users.clone(), clock.clone(), Arc::new(()), settings);
        let registry = registry.await;
        instances.push(Arc::new(registry.expect("the registry opens")));
    }
    let shared = Arc::new(Shared {
        client: RoundRobinClient::new(instances, clock.clone()),
        stores,
        clock,
        options,
        pool: Pool::new(options.largest),
        users,
        releases: Arc::default(),
        over: AtomicBool::new(false),
    });

    let test = ContractTest::new((Arc::new(()), Box::new(())), spawn);
    let collecting = test.task(collector::run(shared.clone()));
    let working: Vec<_> = (0..options.workers)
        .map(|number| {
            let shared = shared.clone();
            test.task(async move {
                let mut worker = Worker::new(&shared, number);
                worker.work().await;
                worker
            })
        })
        .collect();
    let ending = async {
        let workers = join_all(working).await;
        shared.over.store(true, Ordering::SeqCst);
        workers
    };
    // Joined, because workers would wait for ever when a failed collection no longer advances the clock.
    let (mut statistics, mut workers) = join(collecting, ending).await;

    let mut acknowledged = Vec::new();
    for worker in &mut workers {
        worker.verify_all().await;
        statistics.add(&worker.statistics);
        acknowledged.append(&mut worker.acknowledged);
    }
    end::check(&shared).await;
    trail::check(&shared, &acknowledged).await;
    end::empty(&shared, &mut statistics).await;
    statistics
}

impl ChurnStatistics {
    fn add(&mut self, other: &Self) {
        self.pushed += other.pushed;
        self.refused += other.refused;
        self.cut += other.cut;
        self.deleted += other.deleted;
        self.still_referenced += other.still_referenced;
        self.denied += other.denied;
        self.protected += other.protected;
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
