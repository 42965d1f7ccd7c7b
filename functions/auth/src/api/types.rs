//! The bodies of requests and answers.

use oci::{Digest, MediaType, RepositoryName, Tag};
use registry::api_endpoint::DescribedTag;
use registry::auth::{AccountName, CredentialId, GroupName, RepositoryGrant};
use registry::policy::{Mistake, Warning};
use registry::store::access::{Account, AccountKey, AccountKind, AuditEvent, AuditKind, PolicyForm, PolicyVersion};
use registry::store::metadata::HistoryRecord;
use serde::Serialize;

use super::names::{EarlierText, ManifestName, TagName};
use super::schema::api_types;
use super::time::{Expiry, Time, day_text};
use crate::administration::keys::IssuedKey;
use crate::administration::signing_keys::SigningKeyEntry;

/// A page of a list.
#[derive(Serialize)]
pub(super) struct Listed<T> {
    /// The items.
    pub(super) items: Vec<T>,
    /// What `after` says in the request for the next page; `null` after the last page.
    pub(super) next: Option<String>,
}

api_types! {
    /// Who asks.
    WhoAmI {
        /// The text of the principal: `alice`, `robot:ci`.
        principal: String,
        /// The account that proved it.
        account: Option<AccountName>,
        /// The groups of the account.
        groups: Vec<GroupName>,
        /// The key that proved it.
        credential: Option<CredentialId>,
    }

    /// A question about the policy.
    ExplainBody {
        /// The text of the principal, or `anonymous`; without one, the client itself. Only auditors may ask about others.
        principal: Option<String>,
        /// `pull`, `create`, `move`, `push` or `delete`.
        action: String,
        /// The repository.
        repository: String,
        /// A tag in it.
        tag: Option<String>,
    }

    /// What the policy says.
    ExplainView {
        /// `allowed` or `denied`.
        decision: String,
        /// The rule that decides; without one, no rule allows it.
        rule: Option<String>,
        /// The line of the rule in the policy as it was written.
        line: Option<u32>,
        /// The reason, as a sentence.
        reason: String,
    }

    /// An account.
    AccountView {
        /// Its name.
        name: AccountName,
        /// A user is a person; a robot is a machine.
        kind: AccountKind,
        /// Whether its credentials are refused.
        disabled: bool,
        /// Its groups.
        groups: Vec<GroupName>,
        /// What a robot may do besides what the policy allows.
        grants: Vec<RepositoryGrant>,
        /// Whether it has a password.
        has_password: bool,
        /// The ids of its keys.
        keys: Vec<CredentialId>,
        /// When it was made.
        created: Time,
        /// The text of the principal that made it.
        by: String,
        /// What `If-Match` says, in quotes, in a request that changes it.
        version: String,
    }

    /// An account that is to be made.
    NewAccountBody {
        /// Its name.
        name: AccountName,
        /// A user is a person; a robot is a machine.
        kind: AccountKind,
        /// Its groups.
        groups: Option<Vec<GroupName>>,
        /// What a robot may do besides what the policy allows.
        grants: Option<Vec<RepositoryGrant>>,
        /// The password of a user: at least 12 bytes.
        password: Option<String>,
        /// Its first key.
        key: Option<NewKeyBody>,
    }

    /// An account that was made.
    CreatedAccount {
        /// The account.
        account: AccountView,
        /// Its first key, if one was asked for.
        key: Option<NewKeyView>,
    }

    /// What changes in an account. What is left out stays.
    AccountPatch {
        /// All its groups from now on.
        groups: Option<Vec<GroupName>>,
        /// All its grants from now on.
        grants: Option<Vec<RepositoryGrant>>,
        /// Whether its credentials are refused from now on.
        disabled: Option<bool>,
    }

    /// A new password.
    PasswordBody {
        /// The password: at least 12 bytes.
        password: String,
        /// The present password. Needed for the own account, if that has one.
        old_password: Option<String>,
    }

    /// A key.
    KeyView {
        /// Its id: the first part of the key after the point.
        id: CredentialId,
        /// What it may be used for, at most; without a scope, whatever the account may do.
        scope: Option<Vec<RepositoryGrant>>,
        /// When it ends.
        expires: Expiry,
        /// When it was made.
        created: Time,
        /// The text of the principal that made it.
        by: String,
        /// The day on which it was last used.
        last_used: Option<String>,
    }

    /// A key that is to be made.
    NewKeyBody {
        /// What it may be used for, at most; without a scope, whatever the account may do.
        scope: Option<Vec<RepositoryGrant>>,
        /// When it ends.
        expires: Expiry,
    }

    /// A key that was made.
    NewKeyView {
        /// Its id.
        id: CredentialId,
        /// The key itself: this answer is the only one that has it.
        key: String,
        /// What it may be used for, at most; without a scope, whatever the account may do.
        scope: Option<Vec<RepositoryGrant>>,
        /// When it ends.
        expires: Expiry,
    }

    /// What changes in a key. What is left out stays.
    KeyPatch {
        /// What it may be used for from now on, at most.
        scope: Option<Vec<RepositoryGrant>>,
        /// When it ends.
        expires: Option<Expiry>,
    }

    /// How a key is replaced.
    RotateKeyBody {
        /// For how many seconds the old key still works, at most those of 365 days; 0: it is removed at once.
        overlap: u64,
        /// When the new key ends.
        expires: Expiry,
    }

    /// A key that was replaced.
    RotatedKey {
        /// The key in its place.
        new: NewKeyView,
        /// When the old key ends; without a time, it is removed.
        old_ends: Option<Time>,
    }

    /// A version of the policy.
    PolicyView {
        /// The version; 0: no policy was set, and this is the default one.
        version: u64,
        /// The syntax of the source.
        form: PolicyForm,
        /// The policy as it was written.
        source: String,
        /// The text of the principal that set it.
        principal: Option<String>,
        /// When it was set.
        at: Option<Time>,
        /// Why it was set.
        note: Option<String>,
    }

    /// A version of the policy, without its source.
    PolicyVersionView {
        /// The version.
        version: u64,
        /// The syntax in which it was written.
        form: PolicyForm,
        /// The text of the principal that set it.
        principal: String,
        /// When it was set.
        at: Time,
        /// Why it was set.
        note: Option<String>,
    }

    /// A place in a policy that has a mistake, or may not be what is meant.
    Finding {
        /// The line, from 1.
        line: u32,
        /// The column, from 1.
        column: u32,
        /// What is wrong, or what may be meant.
        message: String,
    }

    /// A policy that was put in force.
    PolicySetView {
        /// Its version.
        version: u64,
        /// What may not be meant.
        warnings: Vec<Finding>,
    }

    /// What is found in a policy.
    PolicyCheckView {
        /// Why it would not be put in force; empty if it would.
        mistakes: Vec<Finding>,
        /// What may not be meant.
        warnings: Vec<Finding>,
    }

    /// A repository.
    RepositoryView {
        /// Its name.
        name: RepositoryName,
    }

    /// A tag.
    TagView {
        /// Its name.
        tag: Tag,
        /// The manifest that it names.
        digest: Digest,
        /// The media type of the manifest.
        media_type: MediaType,
        /// The size of the manifest, in bytes.
        size: u64,
        /// Grows with every change of the tag.
        version: u64,
        /// Since when it has named the manifest. A frozen tag that was deleted and came back has named it since before its deletion.
        updated: Time,
        /// Whether the policy makes it immutable now.
        frozen: bool,
        /// The rule that does.
        frozen_by: Option<String>,
    }

    /// A change of a tag.
    TagChangeView {
        /// The version of the tag after the change: what a rollback goes back to.
        version: u64,
        /// When.
        at: Time,
        /// The text of the principal that made it.
        principal: String,
        /// What was promoted, if the change was a promotion: the repository with a tag or a digest.
        promoted_from: Option<String>,
        /// The manifest that it named before; without one, the change created the tag.
        before: Option<Digest>,
        /// The manifest that it named after; without one, the change deleted the tag.
        after: Option<Digest>,
    }

    /// A rollback: a tag names an earlier manifest again.
    RollBackBody {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// A version of the tag's history, or a digest that it has named.
        to: EarlierText,
    }

    /// A rollback that was made.
    RolledBackView {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// The manifest that it names now.
        digest: Digest,
        /// Whether it named another one before.
        moved: bool,
    }

    /// A promotion: a manifest, with everything to which it refers, gets a tag in another repository. No bytes of blobs move.
    PromoteBody {
        /// What is promoted: `REPOSITORY:TAG` or `REPOSITORY@DIGEST`.
        from: ManifestName,
        /// The tag that it gets: `REPOSITORY:TAG`.
        to: TagName,
        /// Whether what refers to it is promoted too, such as signatures: `true` unless given.
        referrers: Option<bool>,
    }

    /// A promotion that was made.
    PromotedView {
        /// The repository of the tag.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// The manifest that it names now.
        digest: Digest,
        /// Whether it named another one before.
        moved: bool,
        /// How many manifests there are, with those of its platforms and without referrers; 0 within one repository.
        manifests: u64,
        /// How many manifests were promoted because they refer to it.
        referrers: u64,
        /// Tags for referrers that stay as they are in the target: they list more there than in the source.
        kept: Vec<Tag>,
        /// Bytes of large manifests that were copied.
        copied_bytes: u64,
    }

    /// An event of the audit trail.
    AuditEventView {
        /// When.
        at: Time,
        /// A random number. With `at` it names the event.
        id: String,
        /// What.
        event: AuditKind,
        /// The text of the principal.
        principal: String,
        /// The key that proved the principal.
        credential: Option<CredentialId>,
        /// The address of the client.
        address: Option<String>,
        /// The repository.
        repository: Option<String>,
        /// What in the repository, or which account, key or version.
        reference: Option<String>,
        /// The value before.
        before: Option<String>,
        /// The value after.
        after: Option<String>,
        /// The id of the request.
        request: Option<String>,
        /// What else there is to know.
        detail: Option<String>,
    }

    /// A key that signs or signed tokens.
    SigningKeyView {
        /// Its id.
        kid: String,
        /// `published`, `signing`, `verifying` or `ended`.
        condition: String,
        /// The time from which it signs; 1970-01-01T00:00:00Z for a key of `--token-key-file`, since the file has no times.
        from: Time,
        /// The time until which its tokens are accepted.
        until: Option<Time>,
    }

    /// How the key that signs tokens is replaced.
    RotateSigningKeysBody {
        /// Whether at once: all tokens are then refused, and clients get new ones. For a key that others may know.
        now: Option<bool>,
    }
}

impl AccountView {
    pub(super) fn new(account: &Account, version: &str) -> Self {
        Self {
            name: account.name.clone(),
            kind: account.kind,
            disabled: account.disabled,
            groups: account.groups.iter().cloned().collect(),
            grants: account.grants.clone(),
            has_password: account.password.is_some(),
            keys: account.keys.keys().copied().collect(),
            created: Time(account.created),
            by: account.by.clone(),
            version: version.to_owned(),
        }
    }
}

impl KeyView {
    pub(super) fn new(id: CredentialId, key: &AccountKey, last_used: Option<u32>) -> Self {
        Self {
            id,
            scope: key.scope.clone(),
            expires: key.expires.into(),
            created: Time(key.created),
            by: key.by.clone(),
            last_used: last_used.map(|day| day_text(day.into())),
        }
    }
}

impl From<&IssuedKey> for NewKeyView {
    fn from(issued: &IssuedKey) -> Self {
        Self {
            id: issued.id,
            key: issued.key.expose().to_owned(),
            scope: issued.record.scope.clone(),
            expires: issued.record.expires.into(),
        }
    }
}

impl From<PolicyVersion> for PolicyView {
    fn from(version: PolicyVersion) -> Self {
        Self {
            version: version.version,
            form: version.form,
            source: version.source,
            principal: Some(version.principal),
            at: Some(Time(version.at)),
            note: version.note,
        }
    }
}

impl From<PolicyVersion> for PolicyVersionView {
    fn from(version: PolicyVersion) -> Self {
        Self {
            version: version.version,
            form: version.form,
            principal: version.principal,
            at: Time(version.at),
            note: version.note,
        }
    }
}

impl From<&Mistake> for Finding {
    fn from(mistake: &Mistake) -> Self {
        Self {
            line: mistake.at.line,
            column: mistake.at.column,
            message: mistake.message.clone(),
        }
    }
}

impl From<&Warning> for Finding {
    fn from(warning: &Warning) -> Self {
        Self {
            line: warning.at.line,
            column: warning.at.column,
            message: warning.message.clone(),
        }
    }
}

impl From<DescribedTag> for TagView {
    fn from(found: DescribedTag) -> Self {
        let DescribedTag { tag, record, frozen } = found;
        Self {
            tag,
            digest: record.digest,
            media_type: record.media_type,
            size: record.size,
            version: record.version,
            updated: Time(record.at),
            frozen: frozen.is_some(),
            frozen_by: frozen.map(|rule| rule.to_string()),
        }
    }
}

impl From<HistoryRecord> for TagChangeView {
    fn from(change: HistoryRecord) -> Self {
        Self {
            version: change.version,
            at: Time(change.at),
            principal: change.principal,
            promoted_from: change.promoted_from,
            before: change.before,
            after: change.after,
        }
    }
}

impl From<AuditEvent> for AuditEventView {
    fn from(event: AuditEvent) -> Self {
        Self {
            at: Time(event.at),
            id: format!("{:016x}", event.id.0),
            event: event.event,
            principal: event.principal,
            credential: event.credential,
            address: event.address,
            repository: event.repository.map(|repository| repository.to_string()),
            reference: event.reference,
            before: event.before,
            after: event.after,
            request: event.request,
            detail: event.detail,
        }
    }
}

impl From<&SigningKeyEntry> for SigningKeyView {
    fn from(entry: &SigningKeyEntry) -> Self {
        Self {
            kid: entry.key.kid.to_string(),
            condition: entry.condition.as_str().to_owned(),
            from: Time(entry.key.from),
            until: entry.key.until.map(Time),
        }
    }
}
