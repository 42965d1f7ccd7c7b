//! Who makes a change, and the events of changes in repositories.

use std::fmt::Display;

use oci::{RepositoryName, Tag};
use serde::Serialize;

use super::super::Context;
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
    /// The id of the request.
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

/// A tag that a push sets, as the detail of its event lists it. Afterwards the tag names the manifest of the event.
#[derive(Serialize)]
struct SetTag<'a> {
    tag: &'a str,
    /// The digest that the tag named before; absent if the push has created the tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
}

impl Author {
    /// The text for an operator who runs a command on the stores. It is not the text of any principal.
    pub const OPERATOR: &'static str = ":operator";

    /// Stands between a principal and what it has promoted, in the text for the history. The text of a principal has no
    /// control characters.
    pub const PROMOTED: char = '\t';

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

    /// The text for the history of a tag that is set: the principal, and from where it promoted.
    #[must_use]
    pub fn history_text(&self) -> String {
        match &self.occasion {
            Occasion::Push | Occasion::Rollback => self.principal.clone(),
            Occasion::Promotion { from } => format!("{}{}{from}", self.principal, Self::PROMOTED),
        }
    }

    /// An operator who runs a command on the stores.
    #[must_use]
    pub fn operator() -> Self {
        Self::new(Self::OPERATOR)
    }

    /// An event of the call `cx` in a repository. A call has at most one event, so its uid is the id of the event.
    fn event(&self, kind: AuditKind, cx: Context, repository: &RepositoryName) -> AuditEvent {
        AuditEvent {
            credential: self.credential,
            address: self.address.clone(),
            request: self.request.clone(),
            repository: Some(repository.clone()),
            ..AuditEvent::new(kind, self.principal.clone(), cx.now, cx.uid)
        }
    }

    /// The event of a push, promotion or rollback that makes a manifest or sets tags. `tags` are those that it sets, each with the digest that it
    /// named before. Its detail is a JSON list of them.
    #[must_use]
    pub fn manifest_pushed<'a, D: Display>(
        &self,
        cx: Context,
        repository: &RepositoryName,
        digest: &impl Display,
        tags: impl IntoIterator<Item = (&'a Tag, Option<D>)>,
    ) -> AuditEvent {
        let tags = tags.into_iter().map(|(tag, before)| SetTag {
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
        // Texts are always valid JSON.
        let detail = serde_json::to_string(&tags).ok().filter(|_| !tags.is_empty());
        AuditEvent {
            reference: Some(digest.to_string()),
            after: Some(digest.to_string()),
            detail,
            ..self.event(kind, cx, repository)
        }
    }

    /// The event of the deletion of a manifest with its tags.
    #[must_use]
    pub fn manifest_deleted(&self, cx: Context, repository: &RepositoryName, digest: &impl Display) -> AuditEvent {
        self.deleted(AuditKind::ManifestDeleted, cx, repository, digest)
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
