//! The keys of this instance that sign tokens: those of the table, or those of a file.
//!
//! The first token makes the first key. Its seed is written first and its public part then, so every key that others learn
//! of can sign. If several instances do that at once, one of them publishes its key, and the others use that one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::lock::Mutex as AsyncMutex;
use registry::auth::AuthenticationError;
use registry::budget::ClientKey;
use registry::environment::{Environment, context};
use registry::store::access::{AccessChange, AccessState, AccessStore, Applied, KeyId};
use registry::store::{Context, Timestamp};

use super::access_cache::{AccessCache, READ_TIMEOUT_MS, unavailable};
use super::in_force::InForce;
use crate::guessing::GuessingKey;
use crate::key_set::KeySet;
use crate::signing_key::TokenSigner;

/// How often the first key is published, if other changes of the state come first.
const MAX_ATTEMPTS: usize = 8;

/// Where the keys that sign tokens are.
#[derive(Clone, Debug, Default)]
pub enum TokenSignerSource {
    /// In the table, where the first token makes the first one.
    #[default]
    Table,
    /// In a file of the operator: the first one signs, and all of them verify. The table has none of them.
    File(Vec<TokenSigner>),
}

impl TokenSignerSource {
    /// The keys that verify tokens, if the table does not have them.
    pub(super) fn verifying(&self) -> Option<KeySet> {
        match self {
            Self::Table => None,
            Self::File(keys) => {
                let keys: Vec<_> = keys.iter().map(|key| key.public(Timestamp(0))).collect();
                Some(KeySet::new(&keys))
            }
        }
    }
}

/// The keys of this instance.
pub(super) struct TokenSigners {
    store: Arc<dyn AccessStore>,
    environment: Arc<dyn Environment>,
    source: TokenSignerSource,
    known: Mutex<BTreeMap<KeyId, Arc<TokenSigner>>>,
    /// Held by the request that reads or makes seeds.
    reader: AsyncMutex<()>,
}

impl TokenSigners {
    pub(super) fn new(
        store: Arc<dyn AccessStore>,
        environment: Arc<dyn Environment>,
        source: TokenSignerSource,
    ) -> Self {
        Self {
            store,
            environment,
            source,
            known: Mutex::default(),
            reader: AsyncMutex::default(),
        }
    }

    /// The key that signs now.
    pub(super) async fn signing(&self, access: &AccessCache) -> Result<Arc<TokenSigner>, AuthenticationError> {
        if let TokenSignerSource::File(keys) = &self.source {
            let first = keys.first().ok_or("the file of token keys has no key");
            return first.cloned().map(Arc::new).map_err(unusable);
        }
        let in_force = access.in_force().await?;
        if let Some(key) = self.known(&in_force) {
            return Ok(key);
        }
        let _one = self.reader.lock().await;
        let mut in_force = access.in_force().await?;
        if let Some(key) = self.known(&in_force) {
            return Ok(key);
        }
        if in_force.state.keys.is_empty() {
            in_force = self.make_first(access).await?;
        }
        self.read().await?;
        if let Some(key) = self.known(&in_force) {
            return Ok(key);
        }
        // The key was replaced at once, and its seed removed, after this instance has read the state.
        in_force = access.read_now().await?;
        if self.known(&in_force).is_none() {
            self.read().await?;
        }
        self.known(&in_force)
            .ok_or_else(|| unusable("the seed of the key that signs tokens is not in the table"))
    }

    /// What the counters of guesses are found by: all instances derive it from the key that signs.
    pub(super) async fn guessing(&self, access: &AccessCache) -> Result<GuessingKey, AuthenticationError> {
        let key = self.signing(access).await?;
        // A signature of this key is the same each time, and nobody without the seed can compute it. No token is signed so: its
        // text has a dot.
        Ok(GuessingKey::derive(&key.sign(b"counters of wrong passwords")))
    }

    fn known(&self, in_force: &InForce) -> Option<Arc<TokenSigner>> {
        let kid = in_force.keys.signs_at(self.environment.now())?;
        self.seeds().get(&kid).cloned()
    }

    async fn read(&self) -> Result<(), AuthenticationError> {
        let seeds = self.store.token_seeds(self.context()).await.map_err(unavailable)?;
        let mut known = BTreeMap::new();
        for seed in &seeds {
            match TokenSigner::from_stored(seed) {
                Ok(key) => {
                    known.insert(key.kid(), Arc::new(key));
                }
                Err(error) => tracing::error!("{error}"),
            }
        }
        *self.seeds() = known;
        Ok(())
    }

    /// Makes the first key, or learns of the one that another instance has made.
    async fn make_first(&self, access: &AccessCache) -> Result<Arc<InForce>, AuthenticationError> {
        let seed = TokenSigner::new_seed(&*self.environment);
        let key = TokenSigner::from_seed(&seed.seed);
        let added = self.store.add_token_seed(self.context(), &seed).await;
        added.map_err(unavailable)?;
        for _ in 0..MAX_ATTEMPTS {
            let in_force = access.read_now().await?;
            let published = &in_force.state.keys;
            if !published.is_empty() {
                // An earlier try of the loop may have published it although the answer was a conflict: its first answer was
                // lost, and another change came before it was sent again.
                if published.iter().all(|key| key.kid != seed.kid) {
                    let removed = self.store.remove_token_seed(self.context(), seed.kid).await;
                    removed.map_err(unavailable)?;
                }
                return Ok(in_force);
            }
            let state = AccessState {
                version: in_force.state.version + 1,
                keys: vec![key.public(self.environment.now())],
                ..in_force.state.clone()
            };
            let change = AccessChange {
                state,
                account: None,
                policy: None,
                event: None,
            };
            let applied = self.store.apply(self.context(), &change).await;
            if applied.map_err(unavailable)? == Applied::Applied {
                tracing::info!(kid = %seed.kid, "the first key that signs tokens was made");
                return access.read_now().await;
            }
        }
        Err(unusable("the access state changes all the time"))
    }

    fn seeds(&self) -> std::sync::MutexGuard<'_, BTreeMap<KeyId, Arc<TokenSigner>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn context(&self) -> Context {
        context(&*self.environment, ClientKey::INTERNAL, READ_TIMEOUT_MS)
    }
}

fn unusable(text: &'static str) -> AuthenticationError {
    AuthenticationError::Unavailable(text.into())
}
