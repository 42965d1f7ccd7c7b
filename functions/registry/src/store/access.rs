//! Accounts, the policy, the audit trail, and what instances share about tokens and guesses.
//!
//! Read in this order: this file (the contract), [`account`], [`state`], [`audit`], [`author`].
//!
//! Administration is rare, so all its changes are made one after the other: each is conditional on the version of the
//! one [`AccessState`] from which it was made, and raises it. So a change never overwrites another one that it has not
//! seen, and rules about several accounts ("the last administrator stays") hold without a lock. Requests of clients only
//! read these records, except the counters of guesses and the days of last use.

pub mod account;
pub mod audit;
pub mod author;
pub mod state;

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use self::account::{Account, AccountKey, AccountKind, KeyHash, PasswordHash};
pub use self::audit::{AuditEvent, AuditKind, AuditQuery};
pub use self::author::{Author, Occasion};
pub use self::state::{AccessState, KeyId, PublicKey, Withdrawn};
use super::{Context, Cursor, Page, Slice, StoreError, Timestamp};
use crate::auth::{AccountName, CredentialId};

/// The syntax in which a policy was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyForm {
    /// TOML.
    Toml,
    /// JSON.
    Json,
}

/// A version of the policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyVersion {
    /// The version: the version of the [`AccessState`] that put it in force. So versions grow, with gaps.
    pub version: u64,
    /// The canonical JSON that instances load.
    pub document: String,
    /// The text as it was written.
    pub source: String,
    /// The syntax of `source`.
    pub form: PolicyForm,
    /// The text of the principal that set it.
    pub principal: String,
    /// When it was set.
    pub at: Timestamp,
    /// Why it was set, in the words of the principal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What a change does to an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccountChange {
    /// Makes it, or replaces all of it.
    Put(Box<Account>),
    /// Removes it, with its keys and their days of last use.
    Remove(AccountName),
}

/// One change of administration. All of it is written in one transaction, or nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessChange {
    /// The state after the change. Its version is that of the state from which the change was made, plus one; the change
    /// is conditional on that.
    pub state: AccessState,
    /// The account that changes.
    pub account: Option<AccountChange>,
    /// The version of the policy that comes in force: its version is that of `state`.
    pub policy: Option<PolicyVersion>,
    /// The row of the audit trail. `None` only for changes that nobody decided, such as a password hash that is renewed with
    /// other parameters.
    pub event: Option<AuditEvent>,
}

/// The result of [`AccessStore::apply`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// All of it is written.
    Applied,
    /// Another change came first: the state has another version than the one from which the change was made. Nothing was
    /// written.
    Conflict,
}

/// The key of a counter of wrong passwords: a hash of an account and a client's address, or of an address. The table holds
/// neither.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FailureKey(pub [u8; 16]);

impl fmt::Display for FailureKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FailureKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FailureKey({self})")
    }
}

/// A counter of wrong passwords.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Failures {
    /// The version of the row, for the condition of the next write; 0 if there is no row.
    pub version: u64,
    /// The different wrong passwords that were counted.
    pub count: u32,
    /// Keyed hashes of the last wrong passwords, the newest last, at most [`Failures::REMEMBERED`]. A password that is sent
    /// again is not counted again.
    pub last: Vec<u64>,
    /// The time before which no further password is checked.
    pub until: Option<Timestamp>,
    /// The time of the last failure. The row ends a day later.
    pub at: Option<Timestamp>,
}

impl Failures {
    /// How many wrong passwords a counter remembers.
    pub const REMEMBERED: usize = 8;

    /// How long a row lives after its last failure, in milliseconds.
    pub const LIFETIME_MS: u64 = 24 * 60 * 60 * 1000;
}

/// The seed of a key that signs tokens, or the secret with the id [`KeyId::PASSWORD_SECRET`]. It never leaves the table in an
/// export, and is not in any replica of it.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSeed {
    /// The id of the key.
    pub kid: KeyId,
    /// The Ed25519 seed, or the secret.
    pub seed: [u8; 32],
    /// When it was made.
    pub created: Timestamp,
}

impl fmt::Debug for TokenSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSeed")
            .field("kid", &self.kid)
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
}

/// Stores accounts, the policy, the audit trail, and what instances share about tokens and guesses.
///
/// All methods keep the rules of [`MetadataStore`](super::metadata::MetadataStore): atomic, durable once acknowledged,
/// strongly consistent, with their own retries until the deadline of the [`Context`].
///
/// The first change that makes an account or sets a policy also marks the store, so that programs that know neither do not
/// open it any more: they would let every client in.
#[async_trait]
pub trait AccessStore: Send + Sync + 'static {
    /// The state; [`AccessState::default`] before the first change. One read, of one unit while it has at most 4 KiB.
    async fn state(&self, cx: Context) -> Result<AccessState, StoreError>;

    /// An account. One read.
    async fn account(&self, cx: Context, name: &AccountName) -> Result<Option<Account>, StoreError>;

    /// The state and an account, in one request.
    async fn state_and_account(
        &self,
        cx: Context,
        name: &AccountName,
    ) -> Result<(AccessState, Option<Account>), StoreError>;

    /// Accounts in ASCII order of their names, at most `limit` (1 or more), after `after`.
    async fn accounts(&self, cx: Context, after: Option<&str>, limit: usize) -> Result<Page<Account>, StoreError>;

    /// The canonical JSON of a version of the policy. `None`: there is no such version. One read.
    async fn policy_document(&self, cx: Context, version: u64) -> Result<Option<String>, StoreError>;

    /// A version of the policy with its source. One read.
    async fn policy(&self, cx: Context, version: u64) -> Result<Option<PolicyVersion>, StoreError>;

    /// Versions of the policy below `before`, newest first, at most `limit` (1 or more).
    async fn policies(&self, cx: Context, before: Option<u64>, limit: usize)
    -> Result<Page<PolicyVersion>, StoreError>;

    /// Makes a change, if the state has the version from which it was made. One transaction.
    ///
    /// A lost answer may be of a change that was made; the store finds that out by the version and the event's id, and says
    /// [`Applied::Applied`].
    async fn apply(&self, cx: Context, change: &AccessChange) -> Result<Applied, StoreError>;

    /// Events of the audit trail, oldest first, about `limit` in a slice.
    async fn audit(
        &self,
        cx: Context,
        query: &AuditQuery,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<AuditEvent>, StoreError>;

    /// The seeds of the keys that sign tokens and the secret beside them, in the order of their ids. A damaged one is logged
    /// and left out. One read.
    async fn token_seeds(&self, cx: Context) -> Result<Vec<TokenSeed>, StoreError>;

    /// Writes a seed, also in the place of a damaged one. `false`: there is a seed with that id already, and nothing was
    /// written.
    async fn add_token_seed(&self, cx: Context, seed: &TokenSeed) -> Result<bool, StoreError>;

    /// Deletes a seed. Idempotent.
    async fn remove_token_seed(&self, cx: Context, kid: KeyId) -> Result<(), StoreError>;

    /// A counter of wrong passwords; [`Failures::default`] if there is none. One read.
    async fn failures(&self, cx: Context, key: FailureKey) -> Result<Failures, StoreError>;

    /// Writes a counter, if its version is still `failures.version`; the new version is one more. `false`: it has another
    /// version, and nothing was written. One write.
    async fn put_failures(&self, cx: Context, key: FailureKey, failures: &Failures) -> Result<bool, StoreError>;

    /// Deletes a counter. Idempotent. One write.
    async fn clear_failures(&self, cx: Context, key: FailureKey) -> Result<(), StoreError>;

    /// Records that a key was used on a day: days since the Unix epoch. An earlier day never replaces a later one. One write.
    async fn record_use(
        &self,
        cx: Context,
        account: &AccountName,
        key: CredentialId,
        day: u32,
    ) -> Result<(), StoreError>;

    /// The days on which the keys of an account were last used.
    async fn last_uses(&self, cx: Context, account: &AccountName) -> Result<BTreeMap<CredentialId, u32>, StoreError>;
}
