//! The one record that every instance reads to decide: the version of the policy, the public keys of tokens, and what was
//! withdrawn.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::super::Timestamp;
use super::account::KeyHashError;
use crate::auth::{CredentialId, Principal};

/// The id of a key that signs tokens: the first 16 characters of its RFC 7638 thumbprint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId([u8; KeyId::LEN]);

/// The text is not the id of a key that signs tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not the id of a signing key: expected {} characters of base64url", KeyId::LEN)]
pub struct KeyIdError;

impl KeyId {
    /// The length of an id, in bytes.
    pub const LEN: usize = 16;

    /// The id, among the seeds, of the secret by which counters of wrong passwords are found. No key has it: ids of keys are
    /// parts of hashes.
    pub const PASSWORD_SECRET: Self = Self(*b"password-secret-");

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // The constructor admits ASCII alone.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for KeyId {
    type Err = KeyIdError;

    fn from_str(text: &str) -> Result<Self, KeyIdError> {
        let bytes: [u8; Self::LEN] = text.as_bytes().try_into().map_err(|_| KeyIdError)?;
        let is_legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        if bytes.iter().all(is_legal) {
            Ok(Self(bytes))
        } else {
            Err(KeyIdError)
        }
    }
}

impl TryFrom<String> for KeyId {
    type Error = KeyIdError;

    fn try_from(text: String) -> Result<Self, KeyIdError> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// The public part of a key that signs tokens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PublicKey {
    /// Its id.
    pub kid: KeyId,
    /// The Ed25519 public key, as RFC 8037 names it; base64url in JSON.
    pub x: PublicKeyBytes,
    /// The time from which it signs. It is published before that, so that every instance knows it.
    pub from: Timestamp,
    /// The time until which its tokens are accepted; `None` until it is replaced. It signs until the time of its successor
    /// begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// The 32 bytes of an Ed25519 public key. As JSON they are base64url without padding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKeyBytes(pub [u8; 32]);

impl TryFrom<String> for PublicKeyBytes {
    type Error = KeyHashError;

    fn try_from(text: String) -> Result<Self, KeyHashError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyHashError)?;
        bytes.try_into().map(Self).map_err(|_| KeyHashError)
    }
}

impl From<PublicKeyBytes> for String {
    fn from(bytes: PublicKeyBytes) -> Self {
        URL_SAFE_NO_PAD.encode(bytes.0)
    }
}

/// A generation below which the tokens of a principal are withdrawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WithdrawnPrincipal {
    /// The lowest generation whose tokens are good.
    pub generation: u64,
    /// When the entry was made.
    pub at: Timestamp,
}

/// The tokens that are refused although they have not ended.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Withdrawn {
    /// By the text of the principal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub principals: BTreeMap<String, WithdrawnPrincipal>,
    /// The keys that were removed, and when.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<CredentialId, Timestamp>,
    /// Tokens that were issued before this time are refused for every principal: there were more entries than
    /// [`Withdrawn::MAX_ENTRIES`]. It may be some seconds ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_before: Option<Timestamp>,
}

impl Withdrawn {
    /// How long an entry stays, in milliseconds: as long as the longest token lives, with its slack.
    pub const LIFETIME_MS: u64 = 70 * 60 * 1000;

    /// The maximum number of entries.
    pub const MAX_ENTRIES: usize = 200;

    /// The maximum number of entries for keys that changes of accounts make. Every account may remove its own keys, as many as
    /// it makes, and must not fill the list that all accounts share. See [`Withdrawn::has_room_for_keys`].
    pub const MAX_KEYS: usize = 50;

    /// How long some instance may not have learned of an entry yet, and still issue tokens, in milliseconds: the maximum age of
    /// what an instance decides by, and as much again for clocks that differ.
    pub const UNSEEN_MS: u64 = 20_000;

    /// Withdraws the tokens of a principal that were issued for a generation below `generation`.
    pub fn withdraw_principal(&mut self, principal: &Principal, generation: u64, now: Timestamp) {
        let entry = WithdrawnPrincipal { generation, at: now };
        self.principals
            .entry(principal.to_string())
            .and_modify(|old| {
                *old = WithdrawnPrincipal {
                    generation: old.generation.max(generation),
                    at: now,
                }
            })
            .or_insert(entry);
        self.bound(now);
    }

    /// Whether entries for so many more keys fit. If not, the tokens of the keys' principal are withdrawn instead of those of
    /// the keys: that is one entry, however often it happens.
    #[must_use]
    pub fn has_room_for_keys(&self, count: usize) -> bool {
        count == 0 || self.keys.len().saturating_add(count) <= Self::MAX_KEYS
    }

    /// Withdraws the tokens that were issued for a key.
    pub fn withdraw_key(&mut self, key: CredentialId, now: Timestamp) {
        self.keys.insert(key, now);
        self.bound(now);
    }

    /// Drops the entries that no token can meet any more. If too many are left, the older ones are replaced by a time before
    /// which every token is refused. Those stay that some instance may not know yet: it may still issue a token. If these are
    /// too many themselves, the tokens are refused that any instance issues until it knows them.
    pub fn bound(&mut self, now: Timestamp) {
        let is_current = |at: Timestamp| now.millis_since(at) < Self::LIFETIME_MS;
        self.principals.retain(|_, entry| is_current(entry.at));
        self.keys.retain(|_, at| is_current(*at));
        self.all_before = self.all_before.filter(|at| is_current(*at));
        if self.principals.len() + self.keys.len() > Self::MAX_ENTRIES {
            let is_unseen = |at: Timestamp| now.millis_since(at) < Self::UNSEEN_MS;
            self.principals.retain(|_, entry| is_unseen(entry.at));
            self.keys.retain(|_, at| is_unseen(*at));
            self.all_before = self.all_before.max(Some(now));
        }
        if self.principals.len() + self.keys.len() > Self::MAX_ENTRIES {
            self.principals.clear();
            self.keys.clear();
            self.all_before = Some(now.plus_millis(Self::UNSEEN_MS));
        }
    }

    /// Whether a token is withdrawn: of this principal and generation, issued at `issued`, for this key.
    #[must_use]
    pub fn contains(
        &self,
        principal: &Principal,
        generation: u64,
        key: Option<CredentialId>,
        issued: Timestamp,
    ) -> bool {
        // `iat` has whole seconds, so a token that was issued in the same second as the withdrawal counts as issued before.
        self.all_before.is_some_and(|before| issued.0 / 1000 <= before.0 / 1000)
            || key.is_some_and(|key| self.keys.contains_key(&key))
            || self
                .principals
                .get(principal.as_str())
                .is_some_and(|entry| generation < entry.generation)
    }
}

/// The one record that every instance reads to decide.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AccessState {
    /// Grows by one with each change of administration; 0 before the first.
    pub version: u64,
    /// The version of the policy in force; `None`: the default policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<u64>,
    /// The public keys of tokens, in the order in which they were published.
    #[serde(default)]
    pub keys: Vec<PublicKey>,
    /// The number of accounts.
    #[serde(default)]
    pub accounts: u64,
    /// The number of administrators that are enabled.
    #[serde(default)]
    pub admins: u64,
    /// Whether an administrator was ever made. The bootstrap secret is void from then on.
    #[serde(default)]
    pub had_admin: bool,
    /// What was withdrawn.
    #[serde(default)]
    pub withdrawn: Withdrawn,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn principal(name: &str) -> Principal {
        name.parse().unwrap()
    }

    #[test]
    fn a_token_of_an_earlier_generation_is_withdrawn() {
        let mut withdrawn = Withdrawn::default();
        let now = Timestamp(1_796_000_000_500);
        withdrawn.withdraw_principal(&principal("alice"), 7, now);
        withdrawn.withdraw_principal(&principal("alice"), 5, now);
        let key: CredentialId = "3f9aK2dQ".parse().unwrap();
        let other: CredentialId = "3f9aK2dR".parse().unwrap();
        withdrawn.withdraw_key(key, now);
        for (name, generation, credential, expected) in [
            ("alice", 6, None, true),
            ("alice", 7, None, false),
            ("alice", 7, Some(key), true),
            ("alice", 7, Some(other), false),
            ("robot:alice", 6, None, false),
        ] {
            assert_eq!(
                withdrawn.contains(&principal(name), generation, credential, now),
                expected,
                "{name} {generation} {credential:?}"
            );
        }
        let json = serde_json::to_string(&withdrawn).unwrap();
        assert_eq!(serde_json::from_str::<Withdrawn>(&json).unwrap(), withdrawn);
    }

    #[test]
    fn entries_stay_as_long_as_a_token_lives() {
        let mut withdrawn = Withdrawn::default();
        let now = Timestamp(1_000_000);
        withdrawn.withdraw_principal(&principal("alice"), 7, now);
        withdrawn.bound(now.plus_millis(Withdrawn::LIFETIME_MS - 1));
        assert!(withdrawn.contains(&principal("alice"), 6, None, now));
        withdrawn.bound(now.plus_millis(Withdrawn::LIFETIME_MS));
        assert_eq!(withdrawn, Withdrawn::default());
    }

    #[test]
    fn only_a_part_of_the_entries_is_for_keys() {
        let mut withdrawn = Withdrawn::default();
        let now = Timestamp(1_000_000);
        for number in 0..Withdrawn::MAX_KEYS {
            assert!(withdrawn.has_room_for_keys(1), "{number}");
            withdrawn.withdraw_key(format!("{number:08}").parse().unwrap(), now);
        }
        assert!(withdrawn.has_room_for_keys(0) && !withdrawn.has_room_for_keys(1));
        withdrawn.bound(now.plus_millis(Withdrawn::LIFETIME_MS));
        assert!(withdrawn.has_room_for_keys(Withdrawn::MAX_KEYS));
        assert!(!withdrawn.has_room_for_keys(Withdrawn::MAX_KEYS + 1));
    }

    #[test]
    fn one_entry_more_than_fit_withdraws_every_token() {
        let mut withdrawn = Withdrawn::default();
        let now = Timestamp(10_000_500);
        for number in 0..Withdrawn::MAX_ENTRIES {
            withdrawn.withdraw_principal(&principal(&format!("user{number}")), 7, now);
        }
        assert_eq!(withdrawn.all_before, None);
        assert!(!withdrawn.contains(&principal("zoe"), 1, None, Timestamp(0)));
        withdrawn.withdraw_principal(&principal("one-more"), 7, now);
        assert!(withdrawn.principals.is_empty());
        assert!(withdrawn.contains(&principal("zoe"), 1, None, Timestamp(10_000_000)));
        // Also the tokens of instances that do not know the entries yet.
        let seen = now.0 + Withdrawn::UNSEEN_MS;
        assert!(withdrawn.contains(&principal("user7"), 6, None, Timestamp(seen)));
        assert!(!withdrawn.contains(&principal("zoe"), 1, None, Timestamp(seen + 1_000)));
    }

    /// An instance that has not read the state for some seconds may still issue a token for what was withdrawn just now.
    #[test]
    fn entries_that_an_instance_may_not_know_yet_stay() {
        let mut withdrawn = Withdrawn::default();
        let long_ago = Timestamp(10_000_000);
        for number in 0..Withdrawn::MAX_ENTRIES {
            withdrawn.withdraw_principal(&principal(&format!("user{number}")), 7, long_ago);
        }
        let now = long_ago.plus_millis(Withdrawn::UNSEEN_MS);
        let later = now.plus_millis(5_000);
        let key: CredentialId = "3f9aK2dQ".parse().unwrap();
        withdrawn.withdraw_key(key, now);
        assert_eq!((withdrawn.principals.len(), withdrawn.keys.len()), (0, 1));
        assert!(withdrawn.contains(&principal("zoe"), 1, None, now));
        assert!(!withdrawn.contains(&principal("zoe"), 1, None, later));
        assert!(withdrawn.contains(&principal("zoe"), 1, Some(key), later));
        withdrawn.withdraw_principal(&principal("mallory"), 7, now);
        assert!(withdrawn.contains(&principal("mallory"), 6, None, later));
    }
}
