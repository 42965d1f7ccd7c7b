//! Shared parts of the core's tests: a registry over memory stores ([`World`]), requests and their responses
//! ([`client`]), scripted bodies ([`script`]), time and randomness ([`clock`]), users ([`users`]), tokens ([`tokens`]), manifests
//! ([`content`]), the log ([`log`]) and an API ([`api`]).

pub(crate) mod api;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod content;
pub(crate) mod log;
pub(crate) mod script;
pub(crate) mod tokens;
pub(crate) mod users;

use std::sync::Arc;

use contract::counting::{
    CountingAccess, CountingBlobs, CountingCollection, CountingMetadata, CountingRecords, CountingSessions, Counts,
};
use contract::deadlines::Deadlines;
use contract::faulty::{
    Faults, FaultyAccess, FaultyBlobs, FaultyCollection, FaultyMetadata, FaultyRecords, FaultySessions,
};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use registry::store::StoreError;
use registry::store::access::AccessStore;
use registry::store::blobs::BlobStore;
use registry::store::collection::CollectionStore;
use registry::store::memory::{MemoryBlobs, MemoryCollection, MemoryMetadata, MemorySessions};
use registry::store::metadata::MetadataStore;
use registry::store::records::RecordStore;
use registry::store::sessions::SessionStore;
use registry::store::wrapped::{Hook, StoreMethod, Wrapped};
use registry::{Anonymous, ApiEndpoint, Authenticator, Registry, Settings, Stores, TokenEndpoint};
use tokio::sync::Notify;

use api::TestApi;
pub(crate) use client::Answer;
pub(crate) use clock::Clock;
pub(crate) use content::{sha256, sha512};
pub(crate) use script::Script;
use tokens::TestTokens;
pub(crate) use users::Users;

/// Makes the API of a registry with an authenticator.
pub(crate) type MakeApi = Arc<dyn Fn(Arc<dyn Authenticator>) -> Arc<dyn ApiEndpoint> + Send + Sync>;

/// The initial state of a world.
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) token_endpoint: Option<Arc<dyn TokenEndpoint>>,
    pub(crate) api_endpoint: Option<MakeApi>,
    pub(crate) blobs: MemoryBlobs,
    pub(crate) seed: u64,
    /// Each seal waits for a notification of this.
    pub(crate) seal: Option<Arc<Notify>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            authenticator: Arc::new(Anonymous::all()),
            token_endpoint: Some(Arc::new(TestTokens::default())),
            api_endpoint: Some(Arc::new(|users: Arc<dyn Authenticator>| {
                Arc::new(TestApi::new(users)) as Arc<dyn ApiEndpoint>
            })),
            blobs: MemoryBlobs::new(),
            seed: 1,
            seal: None,
        }
    }
}

impl Setup {
    /// A registry for the users of [`Users`] only.
    pub(crate) fn private(users: &Arc<Users>) -> Self {
        Self {
            authenticator: users.clone(),
            ..Self::default()
        }
    }
}

/// Delays seals.
struct Gate(Option<Arc<Notify>>);

impl Hook for Gate {
    fn before(&self, _method: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }

    fn after(&self, _method: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }

    fn gate(&self, method: StoreMethod) -> BoxFuture<'static, ()> {
        match &self.0 {
            Some(gate) if method == StoreMethod::Seal => {
                let gate = gate.clone();
                async move { gate.notified().await }.boxed()
            }
            _ => std::future::ready(()).boxed(),
        }
    }
}

/// One instance of a registry, and its stores, which count their calls and can be made to fail. Clones are the same
/// instance.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) registry: Arc<Registry>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) blobs: Arc<MemoryBlobs>,
    pub(crate) metadata: Arc<MemoryMetadata>,
    pub(crate) sessions: Arc<MemorySessions>,
    pub(crate) faults: Faults,
    pub(crate) counts: Counts,
    pub(crate) stores: Stores,
    endpoints: Endpoints,
    settings: Settings,
}

/// The parts of a registry that have routes of their own.
#[derive(Clone)]
struct Endpoints {
    tokens: Option<Arc<dyn TokenEndpoint>>,
    api: Option<MakeApi>,
}

impl World {
    /// A registry that is open to everyone, with default limits and policies.
    pub(crate) async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let blobs = Arc::new(setup.blobs);
        let metadata = Arc::new(MemoryMetadata::new());
        let sessions = Arc::new(MemorySessions::new());
        let (faults, counts) = (Faults::none(), Counts::new());
        let collection = MemoryCollection::new(metadata.clone(), sessions.clone());
        let stores = Stores {
            blobs: Arc::new(CountingBlobs::new(
                Arc::new(FaultyBlobs::new(
                    Arc::new(Wrapped::new(blobs.clone() as Arc<dyn BlobStore>, Gate(setup.seal))),
                    faults.clone(),
                )),
                counts.clone(),
            )),
            metadata: Arc::new(CountingMetadata::new(
                Arc::new(FaultyMetadata::new(
                    metadata.clone() as Arc<dyn MetadataStore>,
                    faults.clone(),
                )),
                counts.clone(),
            )),
            sessions: Arc::new(CountingSessions::new(
                Arc::new(FaultySessions::new(
                    sessions.clone() as Arc<dyn SessionStore>,
                    faults.clone(),
                )),
                counts.clone(),
            )),
            collection: Arc::new(CountingCollection::new(
                Arc::new(FaultyCollection::new(
                    Arc::new(collection) as Arc<dyn CollectionStore>,
                    faults.clone(),
                )),
                counts.clone(),
            )),
            records: Arc::new(CountingRecords::new(
                Arc::new(FaultyRecords::new(
                    metadata.clone() as Arc<dyn RecordStore>,
                    faults.clone(),
                )),
                counts.clone(),
            )),
            access: Arc::new(CountingAccess::new(
                Arc::new(FaultyAccess::new(
                    metadata.clone() as Arc<dyn AccessStore>,
                    faults.clone(),
                )),
                counts.clone(),
            )),
        };
        let clock = Arc::new(Clock::new(setup.seed));
        let settings = setup.settings;
        let endpoints = Endpoints {
            tokens: setup.token_endpoint,
            api: setup.api_endpoint,
        };
        let registry = open(&stores, setup.authenticator, &endpoints, &clock, settings.clone()).await;
        let _ = counts.take();
        Self {
            registry,
            clock,
            blobs,
            metadata,
            sessions,
            faults,
            counts,
            stores,
            endpoints,
            settings,
        }
    }

    /// Another instance over the same stores.
    pub(crate) async fn another(&self, authenticator: Arc<dyn Authenticator>, settings: Settings) -> Self {
        let registry = open(
            &self.stores,
            authenticator,
            &self.endpoints,
            &self.clock,
            settings.clone(),
        )
        .await;
        Self {
            registry,
            settings,
            ..self.clone()
        }
    }

    /// Another instance over the same stores, of which `deadlines` records the calls.
    pub(crate) async fn recorded(&self, authenticator: Arc<dyn Authenticator>, deadlines: &Deadlines) -> Self {
        let stores = deadlines.of(&self.stores);
        let world = Self { stores, ..self.clone() };
        let recorded = world.another(authenticator, self.settings.clone()).await;
        let _ = deadlines.take();
        recorded
    }

    /// Another instance over the same stores, open to everyone.
    pub(crate) async fn twin(&self) -> Self {
        self.another(Arc::new(Anonymous::all()), self.settings.clone()).await
    }
}

async fn open(
    stores: &Stores,
    authenticator: Arc<dyn Authenticator>,
    endpoints: &Endpoints,
    clock: &Arc<Clock>,
    settings: Settings,
) -> Arc<Registry> {
    let (callers, environment) = (authenticator.clone(), clock.clone());
    let registry = Registry::open(stores.clone(), authenticator, environment, clock.clone(), settings).await;
    let registry = registry.expect("memory stores open");
    let registry = match &endpoints.tokens {
        Some(endpoint) => registry.with_token_endpoint(endpoint.clone()),
        None => registry,
    };
    Arc::new(match &endpoints.api {
        Some(api) => registry.with_api_endpoint(api(callers)),
        None => registry,
    })
}
