//! What the tests of the core share: a registry over memory stores ([`World`]), requests and their answers
//! ([`client`]), bodies that do what a test wants ([`script`]), time and randomness ([`clock`]), users
//! ([`users`]), manifests ([`content`]) and the log ([`log`]).

pub mod client;
pub mod clock;
pub mod content;
pub mod log;
pub mod script;
pub mod users;

use std::sync::Arc;

use registry::contract::counting::{Counts, CountingBlobs, CountingMetadata, CountingSessions};
use registry::contract::faulty::{FaultyBlobs, FaultyMetadata, FaultySessions, Faults};
use registry::store::blobs::BlobStore;
use registry::store::memory::{MemoryBlobs, MemoryMetadata, MemorySessions};
use registry::store::metadata::MetadataStore;
use registry::store::sessions::SessionStore;
use registry::{Anonymous, Authenticator, Registry, Settings, Stores};

pub use client::{Answer, Call};
pub use clock::Clock;
pub use content::{sha256, sha512};
pub use script::Script;
pub use users::Users;

/// With what a world begins.
pub struct Setup {
    pub settings: Settings,
    pub authenticator: Arc<dyn Authenticator>,
    pub blobs: MemoryBlobs,
    pub seed: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            authenticator: Arc::new(Anonymous::all()),
            blobs: MemoryBlobs::new(),
            seed: 1,
        }
    }
}

impl Setup {
    /// A registry that knows the users of [`Users`] and nobody else.
    pub fn private(users: &Arc<Users>) -> Self {
        Self {
            authenticator: users.clone(),
            ..Self::default()
        }
    }
}

/// One instance of a registry, and the stores under it, which count their calls and fail when told to. Clones are the
/// same instance.
#[derive(Clone)]
pub struct World {
    pub registry: Arc<Registry>,
    pub clock: Arc<Clock>,
    pub blobs: Arc<MemoryBlobs>,
    pub metadata: Arc<MemoryMetadata>,
    pub sessions: Arc<MemorySessions>,
    pub faults: Faults,
    pub counts: Counts,
    stores: Stores,
    settings: Settings,
}

impl World {
    /// Everyone may do everything; limits and policies as they are by default.
    pub async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Self {
        let blobs = Arc::new(setup.blobs);
        let metadata = Arc::new(MemoryMetadata::new());
        let sessions = Arc::new(MemorySessions::new());
        let (faults, counts) = (Faults::none(), Counts::new());
        let stores = Stores {
            blobs: Arc::new(CountingBlobs::new(
                Arc::new(FaultyBlobs::new(blobs.clone() as Arc<dyn BlobStore>, faults.clone())),
                counts.clone(),
            )),
            metadata: Arc::new(CountingMetadata::new(
                Arc::new(FaultyMetadata::new(metadata.clone() as Arc<dyn MetadataStore>, faults.clone())),
                counts.clone(),
            )),
            sessions: Arc::new(CountingSessions::new(
                Arc::new(FaultySessions::new(sessions.clone() as Arc<dyn SessionStore>, faults.clone())),
                counts.clone(),
            )),
        };
        let clock = Arc::new(Clock::new(setup.seed));
        let registry = open(&stores, setup.authenticator, &clock, setup.settings.clone()).await;
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
            settings: setup.settings,
        }
    }

    /// Another instance over the same stores.
    pub async fn another(&self, authenticator: Arc<dyn Authenticator>, settings: Settings) -> Self {
        let registry = open(&self.stores, authenticator, &self.clock, settings.clone()).await;
        Self {
            registry,
            settings,
            ..self.clone()
        }
    }

    /// Another instance like this one, open to everyone.
    pub async fn twin(&self) -> Self {
        self.another(Arc::new(Anonymous::all()), self.settings.clone()).await
    }
}

async fn open(
    stores: &Stores,
    authenticator: Arc<dyn Authenticator>,
    clock: &Arc<Clock>,
    settings: Settings,
) -> Arc<Registry> {
    let registry = Registry::open(stores.clone(), authenticator, clock.clone(), settings).await;
    Arc::new(registry.expect("memory stores open"))
}
