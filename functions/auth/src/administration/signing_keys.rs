//! The keys that sign tokens.

use registry::store::Timestamp;
use registry::store::access::{AccessChange, AccessState, AuditKind, KeyId, PublicKey, Withdrawn};

use super::{Administration, AdministrationError, Author};
use crate::key_set::KeySet;
use crate::signing_key::TokenSigner;

/// How signing keys are replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rotation {
    /// The new key signs after this time, in milliseconds. The old ones verify until the last token that they sign has
    /// ended, so no client notices. One of them that would begin to sign after the new one never signs. If there is no key yet,
    /// the new one signs at once: nothing else could sign until then.
    Published(u64),
    /// The new key signs at once. The old ones do not verify any more: all tokens are refused, and clients get new ones. For
    /// a key that others may know.
    Now,
}

impl Rotation {
    /// How long a key is known before it signs, in milliseconds: longer than instances use one state.
    pub const PUBLISHED_MS: u64 = 30_000;

    /// The maximum number of keys that verify tokens. The state stays within one unit of a read.
    pub const MAX_KEYS: usize = 24;
}

/// A key that signs or signed tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SigningKeyEntry {
    /// The public part.
    pub key: PublicKey,
    /// What it does.
    pub condition: SigningKeyCondition,
}

/// What a key does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SigningKeyCondition {
    /// It is published, and will sign.
    Published,
    /// It signs.
    Signing,
    /// It verifies the tokens that it has signed.
    Verifying,
    /// The last token that it has signed has ended.
    Ended,
}

impl SigningKeyCondition {
    /// Its text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Signing => "signing",
            Self::Verifying => "verifying",
            Self::Ended => "ended",
        }
    }
}

impl Administration {
    /// The keys that sign and verify tokens, in the order in which they were published. Empty before the first token, and if
    /// the keys are in a file and not in the table.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKeyEntry>, AdministrationError> {
        let keys = self.store.state(self.cx()).await?.keys;
        let now = self.now();
        let signing = KeySet::new(&keys).signs_at(now);
        let entries = keys.into_iter().map(|key| SigningKeyEntry {
            condition: match key.until {
                _ if Some(key.kid) == signing => SigningKeyCondition::Signing,
                Some(until) if until <= now => SigningKeyCondition::Ended,
                _ if key.from > now => SigningKeyCondition::Published,
                _ => SigningKeyCondition::Verifying,
            },
            key,
        });
        Ok(entries.collect())
    }

    /// Makes a key that signs tokens instead of the present ones.
    pub async fn rotate_signing_keys(
        &self,
        author: &Author,
        rotation: Rotation,
    ) -> Result<SigningKeyEntry, AdministrationError> {
        self.persist(|| self.try_rotate_signing_keys(author, rotation)).await
    }

    async fn try_rotate_signing_keys(
        &self,
        author: &Author,
        rotation: Rotation,
    ) -> Result<SigningKeyEntry, AdministrationError> {
        let before = self.store.state(self.cx()).await?;
        // A seed that is not published now, and was there before the change, is of a rotation that failed: if its change
        // were still to come, the change below would make it fail.
        let seeds = self.store.token_seeds(self.cx()).await?;
        let now = self.now();
        let seed = TokenSigner::new_seed(&*self.environment);
        let (from, keys) = rotated(&before, rotation, now);
        let found = keys.len() + 1;
        if found > Rotation::MAX_KEYS {
            return Err(AdministrationError::TooManySigningKeys {
                found: found - 1,
                maximum: Rotation::MAX_KEYS,
            });
        }
        let key = TokenSigner::from_seed(&seed.seed).public(from);
        let mut after = AccessState {
            version: before.version + 1,
            keys,
            ..before.clone()
        };
        after.keys.push(key.clone());
        after.withdrawn.bound(now);
        let mut event = self.event(author, AuditKind::SigningKeyRotated, key.kid.to_string(), now);
        event.before = KeySet::new(&before.keys).signs_at(now).map(|kid| kid.to_string());
        event.after = Some(key.kid.to_string());
        event.detail = (rotation == Rotation::Now).then(|| "at once: all tokens are refused".to_owned());
        // The seed first: an instance that learns of the key can sign with it.
        self.store.add_token_seed(self.cx(), &seed).await?;
        let change = AccessChange {
            state: after.clone(),
            account: None,
            policy: None,
            event: Some(event),
        };
        if let Err(error) = self.apply(change).await {
            if matches!(error, AdministrationError::Conflict) {
                self.store.remove_token_seed(self.cx(), key.kid).await?;
            }
            return Err(error);
        }
        let stays = |kid: KeyId| kid == KeyId::PASSWORD_SECRET || after.keys.iter().any(|key| key.kid == kid);
        for seed in seeds.into_iter().filter(|seed| !stays(seed.kid)) {
            self.store.remove_token_seed(self.cx(), seed.kid).await?;
        }
        let condition = if key.from > now {
            SigningKeyCondition::Published
        } else {
            SigningKeyCondition::Signing
        };
        Ok(SigningKeyEntry { key, condition })
    }
}

/// When the new key signs, and the keys beside it, after which it comes in the list.
fn rotated(before: &AccessState, rotation: Rotation, now: Timestamp) -> (Timestamp, Vec<PublicKey>) {
    let published = match rotation {
        Rotation::Now => return (now, Vec::new()),
        Rotation::Published(_) if KeySet::new(&before.keys).signs_at(now).is_none() => 0,
        Rotation::Published(millis) => millis,
    };
    let from = now.plus_millis(published);
    // As long as the longest token lives, with its slack.
    let until = from.plus_millis(Withdrawn::LIFETIME_MS);
    let current = before
        .keys
        .iter()
        .filter(|key| key.until.is_none_or(|until| until > now));
    let keys = current.map(|key| PublicKey {
        // A key whose time begins later would sign instead of the new one from then on. It still verifies: an instance that
        // does not know the new key yet may sign with it.
        from: key.from.min(from),
        until: Some(key.until.map_or(until, |earlier| earlier.min(until))),
        ..key.clone()
    });
    (from, keys.collect())
}
