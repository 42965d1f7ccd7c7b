//! Accounts of users and robots.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::super::Timestamp;
use crate::auth::{AccountName, CredentialId, GroupName, Principal, RepositoryGrant};

/// The kinds of accounts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountKind {
    /// A person: has a password, and may have keys.
    User,
    /// A machine: has keys and grants.
    Robot,
}

impl AccountKind {
    /// The word for the kind.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Robot => "robot",
        }
    }
}

/// A password hash as a PHC string. It is not printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// The hash with this PHC string.
    #[must_use]
    pub fn new(phc: String) -> Self {
        Self(phc)
    }

    /// The PHC string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

/// SHA-256 of the whole text of a key. The text is not stored. As JSON it is base64url without padding.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyHash(pub [u8; 32]);

/// The text is not the hash of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not 32 bytes of base64url")]
pub struct KeyHashError;

impl TryFrom<String> for KeyHash {
    type Error = KeyHashError;

    fn try_from(text: String) -> Result<Self, KeyHashError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyHashError)?;
        bytes.try_into().map(Self).map_err(|_| KeyHashError)
    }
}

impl From<KeyHash> for String {
    fn from(hash: KeyHash) -> Self {
        URL_SAFE_NO_PAD.encode(hash.0)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

/// A key of an account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccountKey {
    /// SHA-256 of the key.
    pub hash: KeyHash,
    /// What the key may be used for, at most; `None`: whatever the account may do. Never more than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Vec<RepositoryGrant>>,
    /// When it was made.
    pub created: Timestamp,
    /// The text of the principal that made it.
    pub by: String,
    /// When it ends; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// An account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Account {
    /// Its name.
    pub name: AccountName,
    /// User or robot.
    pub kind: AccountKind,
    /// Grows when the account loses something: a group, a grant, its password, or that it is enabled; and a key, if there is no
    /// room for an entry of the key's own. A token of an earlier generation is then withdrawn (see
    /// [`Withdrawn`](super::Withdrawn)). See [`Account::next_generation`].
    pub generation: u64,
    /// Whether its credentials are refused.
    #[serde(default)]
    pub disabled: bool,
    /// Its groups, at most [`Account::MAX_GROUPS`].
    #[serde(default)]
    pub groups: BTreeSet<GroupName>,
    /// What a robot may do besides what the policy allows; at most [`Account::MAX_GRANTS`].
    #[serde(default)]
    pub grants: Vec<RepositoryGrant>,
    /// The password of a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordHash>,
    /// Its keys, at most [`Account::MAX_KEYS`].
    #[serde(default)]
    pub keys: BTreeMap<CredentialId, AccountKey>,
    /// When it was made.
    pub created: Timestamp,
    /// The text of the principal that made it.
    pub by: String,
}

impl Account {
    /// The maximum number of groups.
    pub const MAX_GROUPS: usize = 20;
    /// The maximum number of grants.
    pub const MAX_GRANTS: usize = 16;
    /// The maximum number of keys.
    pub const MAX_KEYS: usize = 20;

    /// The principal with this account.
    #[must_use]
    pub fn principal(&self) -> Principal {
        match self.kind {
            AccountKind::User => self.name.user(),
            AccountKind::Robot => self.name.robot(),
        }
    }

    /// Whether it is an enabled administrator.
    #[must_use]
    pub fn is_active_admin(&self) -> bool {
        !self.disabled && self.groups.iter().any(GroupName::is_admins)
    }

    /// The generation after a change at `now`: `max(generation + 1, now in milliseconds)`. So an account that is removed and
    /// made again never has a generation that it had before.
    #[must_use]
    pub fn next_generation(last: Option<u64>, now: Timestamp) -> u64 {
        last.map_or(1, |last| last.saturating_add(1)).max(now.0)
    }
}
