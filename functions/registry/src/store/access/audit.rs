//! The audit trail: who has changed what.

use std::fmt;

use oci::RepositoryName;
use serde::{Deserialize, Serialize};

use super::super::{Timestamp, Uid};
use crate::auth::CredentialId;

/// The kinds of events.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[expect(missing_docs, reason = "each name is the event's own text, in `as_str`")]
pub enum AuditKind {
    ManifestPushed,
    ManifestDeleted,
    TagDeleted,
    TagRolledBack,
    TagPromoted,
    BlobDeleted,
    RepositoryCreated,
    AccountCreated,
    AccountChanged,
    AccountDisabled,
    AccountEnabled,
    AccountRemoved,
    AccountPassword,
    KeyCreated,
    KeyChanged,
    KeyRevoked,
    KeyRotated,
    PolicySet,
    SigningKeyRotated,
}

/// The text is not the kind of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not the kind of an event")]
pub struct AuditKindError;

impl AuditKind {
    /// Every kind.
    pub const ALL: [Self; 19] = [
        Self::ManifestPushed,
        Self::ManifestDeleted,
        Self::TagDeleted,
        Self::TagRolledBack,
        Self::TagPromoted,
        Self::BlobDeleted,
        Self::RepositoryCreated,
        Self::AccountCreated,
        Self::AccountChanged,
        Self::AccountDisabled,
        Self::AccountEnabled,
        Self::AccountRemoved,
        Self::AccountPassword,
        Self::KeyCreated,
        Self::KeyChanged,
        Self::KeyRevoked,
        Self::KeyRotated,
        Self::PolicySet,
        Self::SigningKeyRotated,
    ];

    /// Its text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ManifestPushed => "manifest.pushed",
            Self::ManifestDeleted => "manifest.deleted",
            Self::TagDeleted => "tag.deleted",
            Self::TagRolledBack => "tag.rolled-back",
            Self::TagPromoted => "tag.promoted",
            Self::BlobDeleted => "blob.deleted",
            Self::RepositoryCreated => "repository.created",
            Self::AccountCreated => "account.created",
            Self::AccountChanged => "account.changed",
            Self::AccountDisabled => "account.disabled",
            Self::AccountEnabled => "account.enabled",
            Self::AccountRemoved => "account.removed",
            Self::AccountPassword => "account.password",
            Self::KeyCreated => "key.created",
            Self::KeyChanged => "key.changed",
            Self::KeyRevoked => "key.revoked",
            Self::KeyRotated => "key.rotated",
            Self::PolicySet => "policy.set",
            Self::SigningKeyRotated => "signing-key.rotated",
        }
    }
}

impl std::str::FromStr for AuditKind {
    type Err = AuditKindError;

    fn from_str(text: &str) -> Result<Self, AuditKindError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(AuditKindError)
    }
}

impl TryFrom<String> for AuditKind {
    type Error = AuditKindError;

    fn try_from(text: String) -> Result<Self, AuditKindError> {
        text.parse()
    }
}

impl fmt::Display for AuditKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for AuditKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for AuditKind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// One row of the audit trail. It holds no secret. Texts may hold any character that a client sent; programs that
/// print them escape control characters.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditEvent {
    /// When.
    pub at: Timestamp,
    /// A random number: with `at` it is the key of the row.
    pub id: Uid,
    /// What.
    pub event: AuditKind,
    /// The text of the principal.
    pub principal: String,
    /// The key of its account that proved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialId>,
    /// The address of the client; `None` for a command that an operator ran on the stores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryName>,
    /// What in the repository, or which account, key or version: a tag, a digest, `alice`, `ci.3f9aK2dQ`, `7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The value before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The value after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The id of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// What else there is to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl AuditEvent {
    /// How long a row lives, in milliseconds: 400 days.
    pub const LIFETIME_MS: u64 = 400 * 24 * 60 * 60 * 1000;

    /// An event now, of which nothing else is known.
    #[must_use]
    pub fn new(event: AuditKind, principal: String, at: Timestamp, id: Uid) -> Self {
        Self {
            at,
            id,
            event,
            principal,
            credential: None,
            address: None,
            repository: None,
            reference: None,
            before: None,
            after: None,
            request: None,
            detail: None,
        }
    }
}

/// Which events are asked for: those that match every member that is set.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AuditQuery {
    /// At this time or later.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub to: Option<Timestamp>,
    /// Of the principal with this text.
    pub principal: Option<String>,
    /// In this repository.
    pub repository: Option<RepositoryName>,
    /// Of this kind.
    pub event: Option<AuditKind>,
}

impl AuditQuery {
    /// Whether the event is asked for.
    #[must_use]
    pub fn matches(&self, event: &AuditEvent) -> bool {
        self.from.is_none_or(|from| event.at >= from)
            && self.to.is_none_or(|to| event.at < to)
            && self
                .principal
                .as_ref()
                .is_none_or(|principal| *principal == event.principal)
            && (self.repository.is_none() || self.repository == event.repository)
            && self.event.is_none_or(|kind| kind == event.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_back() {
        for kind in AuditKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert_eq!("login".parse::<AuditKind>(), Err(AuditKindError));
    }

    #[test]
    fn the_manual_lists_every_kind() {
        let manual = include_str!("../../../../../docs/operating.md");
        for kind in AuditKind::ALL {
            assert!(manual.contains(&format!("`{kind}`")), "{kind}");
        }
    }
}
