//! Every change of accounts, keys, the policy and the keys that sign tokens: the one implementation behind the commands and
//! the HTTP API.
//!
//! Read in this order: this file, [`error`] (why a change is not made), `change` (what a change of an account takes away, and
//! how tokens learn of it), then one file for each thing that is changed: [`accounts`], [`keys`], [`policies`],
//! [`signing_keys`].
//!
//! Every change has the same four steps. It reads the state, and then the account. It computes the new state, whose version
//! is one more. It makes the row of the audit trail. Then [`AccessStore::apply`] writes all of it in one transaction, or
//! nothing, if another change came first. All changes share one version, so the other one may be about something else: the four
//! steps are made again, after a wait, with every condition of the change. Only after ten lost races the caller learns of it,
//! by [`AdministrationError::Conflict`].

pub mod accounts;
mod change;
pub mod error;
pub mod keys;
pub mod limits;
pub mod policies;
pub mod signing_keys;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use registry::auth::AccountName;
use registry::backoff::Backoff;
use registry::budget::ClientKey;
use registry::environment::{Environment, context, random_u64};
use registry::store::access::{
    AccessChange, AccessState, AccessStore, Account, AccountKind, Applied, AuditEvent, AuditKind,
};
use registry::store::{Context, Timestamp, Uid};
use sha2::{Digest as _, Sha256};

pub use self::error::AdministrationError;
pub use registry::store::access::Author;

/// How often a change is tried that others have come before.
const TRIES: u32 = 10;
/// The wait before a change is tried again: together at most about four seconds.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));

/// Whether a change may leave the registry without an enabled administrator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LastAdmin {
    /// It may not: nobody could undo it over the API.
    Stays,
    /// It may. Only for an operator, who can make another administrator on the stores.
    MayGo,
}

/// An account that a caller names.
#[derive(Clone, Copy, Debug)]
pub struct AccountRef<'a> {
    /// Its name.
    pub name: &'a AccountName,
    /// The kind that the caller expects. An account of another kind is refused.
    pub kind: Option<AccountKind>,
}

impl<'a> From<&'a AccountName> for AccountRef<'a> {
    /// An account of either kind.
    fn from(name: &'a AccountName) -> Self {
        Self { name, kind: None }
    }
}

/// A version of an account: another one for any other content of its record. Its text reveals nothing of the record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountVersion(String);

impl AccountVersion {
    /// How much of the hash of the record it has, in bytes.
    const LEN: usize = 12;

    /// The version of an account.
    #[must_use]
    pub fn of(account: &Account) -> Self {
        // Serializing texts and numbers into memory does not fail.
        let record = serde_json::to_vec(account).unwrap_or_default();
        let hash: [u8; 32] = Sha256::digest(&record).into();
        Self(URL_SAFE_NO_PAD.encode(&hash[..Self::LEN]))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The result of a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Changed<T> {
    /// The change is made.
    Yes(T),
    /// Everything was already as asked for. Nothing was written.
    No(T),
}

impl<T> Changed<T> {
    /// The value after the call.
    pub fn into_inner(self) -> T {
        let (Self::Yes(value) | Self::No(value)) = self;
        value
    }

    /// Whether something was written.
    #[must_use]
    pub const fn is_changed(&self) -> bool {
        matches!(self, Self::Yes(_))
    }
}

/// Changes accounts, keys, the policy and signing keys. Cloning is cheap.
#[derive(Clone)]
pub struct Administration {
    store: Arc<dyn AccessStore>,
    environment: Arc<dyn Environment>,
    timeout_ms: u64,
    /// The version that an account must have to be changed.
    version: Option<AccountVersion>,
}

impl fmt::Debug for Administration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Administration")
            .field("timeout_ms", &self.timeout_ms)
            .finish_non_exhaustive()
    }
}

impl Administration {
    /// `timeout_ms` is the maximum time of each call of the store, in milliseconds.
    #[must_use]
    pub fn new(store: Arc<dyn AccessStore>, environment: Arc<dyn Environment>, timeout_ms: u64) -> Self {
        Self {
            store,
            environment,
            timeout_ms,
            version: None,
        }
    }

    /// The same, for a change of an account in this version. If the account has another version, nothing is changed
    /// ([`AdministrationError::AccountChanged`]).
    #[must_use]
    pub fn of_version(&self, version: AccountVersion) -> Self {
        Self {
            version: Some(version),
            ..self.clone()
        }
    }

    /// The state from which instances decide. One read.
    pub async fn state(&self) -> Result<AccessState, AdministrationError> {
        Ok(self.store.state(self.cx()).await?)
    }

    /// The state, and then an account. In this order, and in two requests: an account that is older than the state would be
    /// written over a change that the condition on the state's version does not see.
    async fn state_then_account(
        &self,
        name: &AccountName,
    ) -> Result<(AccessState, Option<Account>), AdministrationError> {
        let state = self.store.state(self.cx()).await?;
        let account = self.store.account(self.cx(), name).await?;
        Ok((state, account))
    }

    /// The state, and an account that must exist.
    async fn state_then_existing(
        &self,
        account: AccountRef<'_>,
    ) -> Result<(AccessState, Account), AdministrationError> {
        let (state, found) = self.state_then_account(account.name).await?;
        let found = expected(account, found)?;
        match &self.version {
            Some(version) if *version != AccountVersion::of(&found) => {
                Err(AdministrationError::AccountChanged(found.name))
            }
            _ => Ok((state, found)),
        }
    }

    /// Makes a change again if another one came first. Each attempt reads everything, so it sees what the other one has changed,
    /// and is refused if that is not what the change was meant for.
    async fn persist<T, F>(&self, attempt: impl FnMut() -> F + Send) -> Result<T, AdministrationError>
    where
        F: Future<Output = Result<T, AdministrationError>> + Send,
    {
        let is_lost = |error: &AdministrationError| matches!(error, AdministrationError::Conflict);
        self.again_while(is_lost, attempt).await
    }

    /// Calls `attempt` again while it fails with a lost race, at most [`TRIES`] times, with a random wait before each further
    /// one.
    pub(crate) async fn again_while<T, E, F>(
        &self,
        is_lost: impl Fn(&E) -> bool + Send,
        mut attempt: impl FnMut() -> F + Send,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>> + Send,
    {
        let mut lost = 0;
        loop {
            match attempt().await {
                Err(error) if lost + 1 < TRIES && is_lost(&error) => {}
                result => return result,
            }
            let wait = BACKOFF.delay(lost, random_u64(&*self.environment));
            let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            self.environment.sleep(millis).await;
            lost += 1;
        }
    }

    async fn apply(&self, change: AccessChange) -> Result<(), AdministrationError> {
        match self.store.apply(self.cx(), &change).await? {
            Applied::Applied => Ok(()),
            Applied::Conflict => Err(AdministrationError::Conflict),
        }
    }

    fn cx(&self) -> Context {
        context(&*self.environment, ClientKey::INTERNAL, self.timeout_ms)
    }

    fn now(&self) -> Timestamp {
        self.environment.now()
    }

    /// A row of the audit trail.
    fn event(&self, author: &Author, kind: AuditKind, reference: String, now: Timestamp) -> AuditEvent {
        let id = Uid(random_u64(&*self.environment));
        AuditEvent {
            credential: author.credential,
            address: author.address.clone(),
            request: author.request.clone(),
            reference: Some(reference),
            ..AuditEvent::new(kind, author.principal.clone(), now, id)
        }
    }
}

/// The account, if it exists and is of the kind that the caller expects.
fn expected(asked: AccountRef<'_>, found: Option<Account>) -> Result<Account, AdministrationError> {
    let account = found.ok_or_else(|| AdministrationError::NoAccount {
        name: asked.name.clone(),
        kind: asked.kind,
    })?;
    match asked.kind {
        Some(kind) if kind != account.kind => Err(AdministrationError::OtherKind {
            name: account.name,
            kind: account.kind,
        }),
        _ => Ok(account),
    }
}
