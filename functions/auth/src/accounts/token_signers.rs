//! The keys of this instance that sign tokens: those of the table, or those of a file. Beside their seeds the table has the
//! secret by which counters of wrong passwords are found.
//!
//! The first token makes the first key. Its seed is written first and its public part then, so every key that others learn
//! of can sign. If several instances do that at once, one of them publishes its key, and the others use that one.
//!
//! Seeds are not in the table of the state if there is a table of its own for them. If that one is lost, or is that of another
//! region, there are published keys without a seed. They verify, and do not sign: the next token makes another key beside
//! them, in the same way as the first one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::lock::Mutex as AsyncMutex;
use registry::auth::AuthenticationError;
use registry::environment::Environment;
use registry::store::Timestamp;
use registry::store::access::{
    AccessChange, AccessState, AccessStore, Applied, KeyId, PublicKey, TokenSeed, Withdrawn,
};

use super::access_cache::{AccessCache, unavailable};
use super::in_force::InForce;
use crate::administration::AdministrationError;
use crate::administration::signing_keys::Rotation;
use crate::guessing::GuessingKey;
use crate::key_set::KeySet;
use crate::signing_key::TokenSigner;

/// How often a new key is published, if other changes of the state come first.
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
    seeds: Mutex<Seeds>,
    /// Held by the request that reads or makes seeds.
    reader: AsyncMutex<LastFailed>,
    /// How many such requests have begun.
    begun: AtomicU64,
}

/// The numbers of the last requests that failed, apart for tokens and passwords: what the one needs may be there without the
/// other.
#[derive(Default)]
struct LastFailed {
    signing: u64,
    guessing: u64,
}

/// What was read of the seeds.
#[derive(Default)]
struct Seeds {
    signers: BTreeMap<KeyId, Arc<TokenSigner>>,
    /// Published keys without a seed. Seeds are written before their keys are published, and were read after the state, so none
    /// will come for these.
    lost: BTreeSet<KeyId>,
    guessing: Option<GuessingKey>,
    /// The seed that this instance has written, or has tried to write, and whose key it does not know to be published.
    next: Option<NextSeed>,
}

/// The seed of a key that is to be published.
#[derive(Clone)]
struct NextSeed {
    seed: TokenSeed,
    /// The keys that were published when it was made.
    beside: BTreeSet<KeyId>,
}

impl Seeds {
    fn is_lost(&self, kid: KeyId) -> bool {
        self.lost.contains(&kid) && !self.signers.contains_key(&kid)
    }
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
            seeds: Mutex::default(),
            reader: AsyncMutex::default(),
            begun: AtomicU64::new(0),
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
        let arrived = self.begun.load(Ordering::SeqCst);
        let mut failed = self.reader.lock().await;
        let in_force = access.in_force().await?;
        if let Some(key) = self.known(&in_force) {
            return Ok(key);
        }
        let number = self.begin(arrived, failed.signing)?;
        let key = self.read_or_make(&in_force, access).await;
        if key.is_err() {
            failed.signing = number;
        }
        key
    }

    async fn read_or_make(
        &self,
        in_force: &InForce,
        access: &AccessCache,
    ) -> Result<Arc<TokenSigner>, AuthenticationError> {
        if in_force.state.keys.is_empty() {
            return self.make(access).await;
        }
        self.read(access).await?;
        if let Some(key) = self.known(in_force) {
            return Ok(key);
        }
        // The key may have been replaced at once, and its seed removed, after this instance has read the state.
        let in_force = access.read_now().await?;
        if let Some(key) = self.known(&in_force) {
            return Ok(key);
        }
        self.read_after(&in_force, access).await?;
        match self.known(&in_force) {
            Some(key) => Ok(key),
            None => self.make(access).await,
        }
    }

    /// What the counters of guesses are found by. The first password makes it. It does not depend on the key that signs: keys
    /// are replaced, and instances with different keys count together.
    pub(super) async fn guessing(&self, access: &AccessCache) -> Result<GuessingKey, AuthenticationError> {
        if let Some(key) = self.known_guessing() {
            return Ok(key);
        }
        let arrived = self.begun.load(Ordering::SeqCst);
        let mut failed = self.reader.lock().await;
        if let Some(key) = self.known_guessing() {
            return Ok(key);
        }
        let number = self.begin(arrived, failed.guessing)?;
        let key = self.read_or_make_guessing(access).await;
        if key.is_err() {
            failed.guessing = number;
        }
        key
    }

    async fn read_or_make_guessing(&self, access: &AccessCache) -> Result<GuessingKey, AuthenticationError> {
        self.read(access).await?;
        if let Some(key) = self.known_guessing() {
            return Ok(key);
        }
        let mut secret = TokenSeed {
            kid: KeyId::PASSWORD_SECRET,
            seed: [0; 32],
            created: self.environment.now(),
        };
        self.environment.random(&mut secret.seed);
        // Of several instances that do this at once, one writes it, and all of them read that one.
        let added = self.store.add_token_seed(access.context(), &secret).await;
        added.map_err(unavailable)?;
        self.read(access).await?;
        self.known_guessing()
            .ok_or_else(|| unusable("the secret of the counters of wrong passwords is not in the table"))
    }

    /// The number of a request that reads. An error if one of its kind has failed that began after `arrived` other ones: the
    /// request that asks has waited for it.
    fn begin(&self, arrived: u64, failed: u64) -> Result<u64, AuthenticationError> {
        if failed > arrived {
            return Err(unusable("the seeds could not be read by another request"));
        }
        Ok(self.begun.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn known_guessing(&self) -> Option<GuessingKey> {
        self.seeds().guessing.clone()
    }

    /// The key that signs now, if its seed was read. A key without a seed is passed over only after it was looked for. Then one
    /// signs that was not replaced, or that ends later than every token that it signs: in another region the new key is known
    /// before it signs, and has no seed here.
    fn known(&self, in_force: &InForce) -> Option<Arc<TokenSigner>> {
        let now = self.environment.now();
        let kid = in_force.keys.signs_at(now)?;
        let seeds = self.seeds();
        if !seeds.is_lost(kid) {
            return seeds.signers.get(&kid).cloned();
        }
        let keys = in_force.state.keys.iter();
        let outlives_tokens = |until: Timestamp| until.millis_since(now) >= Withdrawn::LIFETIME_MS;
        let keys = keys.filter(|key| key.until.is_none_or(outlives_tokens) && !seeds.is_lost(key.kid));
        let keys: Vec<_> = keys.cloned().collect();
        let kid = KeySet::new(&keys).signs_at(now)?;
        seeds.signers.get(&kid).cloned()
    }

    async fn read(&self, access: &AccessCache) -> Result<(), AuthenticationError> {
        let stored = self.store.token_seeds(access.context()).await.map_err(unavailable)?;
        let mut signers = BTreeMap::new();
        let mut guessing = None;
        for seed in &stored {
            if seed.kid == KeyId::PASSWORD_SECRET {
                guessing = Some(GuessingKey::derive(&seed.seed));
                continue;
            }
            match TokenSigner::from_stored(seed) {
                Ok(key) => {
                    signers.insert(key.kid(), Arc::new(key));
                }
                Err(error) => tracing::error!("{error}"),
            }
        }
        let mut seeds = self.seeds();
        seeds.signers = signers;
        if guessing.is_some() {
            seeds.guessing = guessing;
        }
        Ok(())
    }

    /// Reads the seeds after a state, so it is known which of its keys have none.
    async fn read_after(&self, in_force: &InForce, access: &AccessCache) -> Result<(), AuthenticationError> {
        self.read(access).await?;
        let mut seeds = self.seeds();
        let kids = in_force.state.keys.iter().map(|key| key.kid);
        let lost: BTreeSet<_> = kids.filter(|kid| !seeds.signers.contains_key(kid)).collect();
        seeds.lost = lost;
        Ok(())
    }

    /// Makes the first key, or another one beside keys without seeds, or learns of the one that another instance has made.
    async fn make(&self, access: &AccessCache) -> Result<Arc<TokenSigner>, AuthenticationError> {
        let mut attempts = 0;
        loop {
            let in_force = access.read_now().await?;
            let published = &in_force.state.keys;
            if !published.is_empty() {
                self.read_after(&in_force, access).await?;
            }
            if let Some(known) = self.known(&in_force) {
                self.forget_next(published, access).await?;
                return Ok(known);
            }
            if attempts == MAX_ATTEMPTS {
                return Err(unusable("the access state changes all the time"));
            }
            attempts += 1;
            let now = self.environment.now();
            let verifying = published.iter().filter(|key| key.until.is_none_or(|until| until > now));
            let mut keys: Vec<_> = verifying.cloned().collect();
            if keys.len() >= Rotation::MAX_KEYS {
                let refused = AdministrationError::TooManySigningKeys {
                    found: keys.len(),
                    maximum: Rotation::MAX_KEYS,
                };
                return Err(AuthenticationError::Unavailable(refused.into()));
            }
            let seed = self.write_next(published, access).await?;
            keys.push(TokenSigner::from_seed(&seed.seed).public(now));
            let change = AccessChange {
                state: AccessState {
                    version: in_force.state.version + 1,
                    keys,
                    ..in_force.state.clone()
                },
                account: None,
                policy: None,
                event: None,
            };
            let applied = self.store.apply(access.context(), &change).await;
            if applied.map_err(unavailable)? == Applied::Conflict {
                continue;
            }
            if published.is_empty() {
                tracing::info!(kid = %seed.kid, "the first key that signs tokens was made");
            } else {
                tracing::warn!(
                    kid = %seed.kid,
                    "another key that signs tokens was made: the seeds of the published ones are not in the table"
                );
            }
        }
    }

    /// Writes the seed of the key that is to be published beside these: the one of an earlier attempt that failed, so that no
    /// attempt leaves another seed behind. After a change of the keys it is a new one: a rotation may have been about the
    /// earlier one too.
    async fn write_next(
        &self,
        published: &[PublicKey],
        access: &AccessCache,
    ) -> Result<TokenSeed, AuthenticationError> {
        let beside: BTreeSet<_> = published.iter().map(|key| key.kid).collect();
        let earlier = self.seeds().next.clone();
        let seed = if let Some(next) = earlier.filter(|next| next.beside == beside) {
            next.seed
        } else {
            self.forget_next(published, access).await?;
            let seed = TokenSigner::new_seed(&*self.environment);
            self.seeds().next = Some(NextSeed {
                seed: seed.clone(),
                beside,
            });
            seed
        };
        let added = self.store.add_token_seed(access.context(), &seed).await;
        added.map_err(unavailable)?;
        Ok(seed)
    }

    /// Removes the seed of an earlier attempt, unless its key is one of the published ones. It may have been published although
    /// the answer was an error or a conflict: the first answer was lost, and another change came before it was sent again.
    async fn forget_next(&self, published: &[PublicKey], access: &AccessCache) -> Result<(), AuthenticationError> {
        let next = self.seeds().next.clone();
        let Some(NextSeed { seed, .. }) = next else {
            return Ok(());
        };
        if published.iter().all(|key| key.kid != seed.kid) {
            let removed = self.store.remove_token_seed(access.context(), seed.kid).await;
            removed.map_err(unavailable)?;
        }
        self.seeds().next = None;
        Ok(())
    }

    fn seeds(&self) -> MutexGuard<'_, Seeds> {
        self.seeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unusable(text: &'static str) -> AuthenticationError {
    AuthenticationError::Unavailable(text.into())
}
