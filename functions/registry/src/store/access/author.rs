//! Who makes a change, and the events of changes in repositories.

use std::fmt::Display;

use oci::{RepositoryName, Tag};
use serde::Serialize;

use super::super::{Context, Uid};
use super::audit::{AuditEvent, AuditKind};
use crate::auth::CredentialId;

/// Who makes a change: what the history of tags and the audit trail say of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Author {
    /// The text of the principal, or [`Author::OPERATOR`].
    pub principal: String,
    /// The key of its account that proved it.
    pub credential: Option<CredentialId>,
    /// The address of the client; `None` for a command that an operator runs on the stores.
    pub address: Option<String>,
    /// The id of the request; `None` for a command.
    pub request: Option<String>,
    /// What the request does.
    pub occasion: Occasion,
}

/// What makes tags change, beside deletions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Occasion {
    /// A push.
    #[default]
    Push,
    /// A promotion from another repository.
    Promotion {
        /// The repository with a tag or a digest.
        from: String,
    },
    /// A rollback to an earlier version of the tag.
    Rollback,
}

/// A tag that a push sets, or that is deleted because of its manifest, as the detail of the event lists it. After a push the
/// tag names the manifest of the event, and before a deletion it did.
#[derive(Serialize)]
struct ChangedTag<'a> {
    tag: &'a str,
    /// The digest that the tag named before; absent if the push has created the tag, and for deletions.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
}

/// A JSON list of tags; `None` if there are none.
fn list_of(tags: &[ChangedTag<'_>]) -> Option<String> {
    // Texts are always valid JSON.
    serde_json::to_string(tags).ok().filter(|_| !tags.is_empty())
}

/// The list of tags that are deleted.
fn list_of_deleted<'a>(tags: impl IntoIterator<Item = &'a Tag>) -> Option<String> {
    let tags = tags.into_iter().map(|tag| ChangedTag {
        tag: tag.as_str(),
        before: None,
    });
    list_of(&tags.collect::<Vec<_>>())
}

impl Author {
    /// The text for an operator who runs a command on the stores. It is not the text of any principal.
    pub const OPERATOR: &'static str = ":operator";

    /// An author of which only the principal is known.
    #[must_use]
    pub fn new(principal: impl Into<String>) -> Self {
        Self {
            principal: principal.into(),
            credential: None,
            address: None,
            request: None,
            occasion: Occasion::Push,
        }
    }

    /// What it promotes, if the change is a promotion: the repository with a tag or a digest.
    #[must_use]
    pub fn promoted_from(&self) -> Option<&str> {
        match &self.occasion {
            Occasion::Push | Occasion::Rollback => None,
            Occasion::Promotion { from } => Some(from),
        }
    }

    /// An operator who runs a command on the stores.
    #[must_use]
    pub fn operator() -> Self {
        Self::new(Self::OPERATOR)
    }

    /// An event of the call `cx` in a repository. Its id is the uid of the call: only [`Author::tags_deleted`] are further
    /// events of one call.
    fn event(&self, kind: AuditKind, cx: Context, repository: &RepositoryName) -> AuditEvent {
        AuditEvent {
            credential: self.credential,
            address: self.address.clone(),
            request: self.request.clone(),
            repository: Some(repository.clone()),
            ..AuditEvent::new(kind, self.principal.clone(), cx.now, cx.uid)
        }
    }

    /// The event of a push, promotion or rollback that makes a manifest or sets tags. `tags` are those that it sets, each with
    /// the digest that it named before. Its detail is a JSON list of them.
    #[must_use]
    pub fn manifest_pushed<'a, D: Display>(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &impl Display,
        tags: impl IntoIterator<Item = (&'a Tag, Option<D>)>,
    ) -> AuditEvent {
        let tags = tags.into_iter().map(|(tag, before)| ChangedTag {
            tag: tag.as_str(),
            before: before.map(|digest| digest.to_string()),
        });
        let tags: Vec<_> = tags.collect();
        let (kind, from) = match &self.occasion {
            Occasion::Push => (AuditKind::ManifestPushed, None),
            // The manifests of a promotion are put before the tag is set.
            Occasion::Promotion { .. } if tags.is_empty() => (AuditKind::ManifestPushed, None),
            Occasion::Promotion { from } => (AuditKind::TagPromoted, Some(from)),
            Occasion::Rollback => (AuditKind::TagRolledBack, None),
        };
        if let ([tag], AuditKind::TagPromoted | AuditKind::TagRolledBack) = (tags.as_slice(), kind) {
            return AuditEvent {
                reference: Some(tag.tag.to_owned()),
                before: tag.before.clone(),
                after: Some(digest.to_string()),
                detail: from.map(|from| format!("from {from}")),
                ..self.event(kind, cx, repository)
            };
        }
        AuditEvent {
            reference: Some(digest.to_string()),
            after: Some(digest.to_string()),
            detail: list_of(&tags),
            ..self.event(kind, cx, repository)
        }
    }

    /// The event of the deletion of a manifest. Its detail is a JSON list of the tags that the same transaction deletes.
    #[must_use]
    pub fn manifest_deleted<'a>(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &impl Display,
        tags: impl IntoIterator<Item = &'a Tag>,
    ) -> AuditEvent {
        AuditEvent {
            detail: list_of_deleted(tags),
            ..self.deleted(AuditKind::ManifestDeleted, cx, repository, digest)
        }
    }

    /// The event of a transaction that deletes some tags of a manifest, which has too many of them to be deleted in one
    /// transaction. Its reference is the digest, and its detail is a JSON list of these tags. `part` counts such transactions
    /// of the call, from 1: each event has its own id.
    #[must_use]
    pub fn tags_deleted<'a>(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &impl Display,
        tags: impl IntoIterator<Item = &'a Tag>,
        part: u64,
    ) -> AuditEvent {
        AuditEvent {
            // The factor is odd, so that different parts have different ids.
            id: Uid(cx.uid.0.wrapping_add(part.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
            detail: list_of_deleted(tags),
            ..self.deleted(AuditKind::TagDeleted, cx, repository, digest)
        }
    }

    /// The event of the deletion of a repository's link to a blob.
    #[must_use]
    pub fn blob_deleted(&self, cx: Context, repository: &RepositoryName, digest: &impl Display) -> AuditEvent {
        self.deleted(AuditKind::BlobDeleted, cx, repository, digest)
    }

    fn deleted(&self, kind: AuditKind, cx: Context, repository: &RepositoryName, digest: &impl Display) -> AuditEvent {
        AuditEvent {
            reference: Some(digest.to_string()),
            before: Some(digest.to_string()),
            ..self.event(kind, cx, repository)
        }
    }

    /// The event of the deletion of a tag alone. `before` is the digest that it named.
    #[must_use]
    pub fn tag_deleted(
        &self,
        cx: Context,
        repository: &RepositoryName,
        tag: &Tag,
        before: &impl Display,
    ) -> AuditEvent {
        AuditEvent {
            reference: Some(tag.to_string()),
            before: Some(before.to_string()),
            ..self.event(AuditKind::TagDeleted, cx, repository)
        }
    }

    /// The event of the creation of a repository. `was_listed`: it was listed before, and is permanent from now on.
    #[must_use]
    pub fn repository_created(&self, cx: Context, repository: &RepositoryName, was_listed: bool) -> AuditEvent {
        AuditEvent {
            detail: was_listed.then(|| "was listed before".to_owned()),
            ..self.event(AuditKind::RepositoryCreated, cx, repository)
        }
    }
}
