//! The claims of an access token as JSON.
//!
//! The registry reads only what it wrote itself, so nothing else is accepted: no unknown member, no member twice, no other
//! type, no second spelling. Programs of a later version must not add a member before all instances know it.

use std::collections::BTreeSet;

use registry::auth::{Actions, CredentialId, GroupName, Principal, PrincipalKind, RepositoryGrant, Scope};
use registry::store::Timestamp;
use registry::store::access::Account;
use serde::{Deserialize, Serialize};

use super::VerifiedToken;
use crate::scope::{GrantedScope, MAX_SCOPES, Resource, ResourceActions, ScopeActions};

/// The claims.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims {
    #[serde(rename = "iss")]
    pub(super) issuer: String,
    #[serde(rename = "aud")]
    pub(super) audience: String,
    /// The text of the principal; empty if anonymous.
    #[serde(rename = "sub")]
    pub(super) subject: String,
    /// Seconds since the Unix epoch.
    #[serde(rename = "iat")]
    pub(super) issued: u64,
    #[serde(rename = "exp")]
    pub(super) expires: u64,
    #[serde(rename = "jti")]
    pub(super) id: String,
    pub(super) access: Vec<Access>,
    #[serde(rename = "rs")]
    pub(super) roadstead: Roadstead,
}

/// What the registry needs beyond the claims that other programs read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Roadstead {
    #[serde(rename = "gen")]
    pub(super) generation: String,
    #[serde(rename = "cred", default, skip_serializing_if = "Option::is_none")]
    pub(super) credential: Option<CredentialId>,
    /// The scope of the key; absent if the key has none.
    #[serde(rename = "scope", default, skip_serializing_if = "Option::is_none")]
    pub(super) key_scope: Option<Vec<Grant>>,
    /// Instead of a scope that is too long: what it says of the granted repositories.
    #[serde(rename = "part", default, skip_serializing_if = "Option::is_none")]
    pub(super) key_scope_part: Option<Vec<Grant>>,
    pub(super) groups: BTreeSet<GroupName>,
    pub(super) grants: Vec<Grant>,
}

/// A resource with its actions, as the distribution project's token page has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Access {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Vec<String>,
}

/// A grant: the pattern, then the words of the actions.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Grant(Vec<String>);

impl Claims {
    pub(super) fn to_json(&self) -> Vec<u8> {
        // Serializing texts and numbers into memory does not fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(super) fn from_json(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    pub(super) fn verified(self, issued: Timestamp, expires: Timestamp) -> Option<VerifiedToken> {
        let principal = match self.subject.as_str() {
            "" => Principal::ANONYMOUS,
            text => text
                .parse()
                .ok()
                .filter(|principal: &Principal| !principal.is_anonymous())?,
        };
        let Roadstead {
            generation,
            credential,
            key_scope,
            key_scope_part,
            groups,
            grants,
        } = self.roadstead;
        let of_key = key_scope.as_ref().or(key_scope_part.as_ref());
        let has_account = matches!(principal.kind(), PrincipalKind::User | PrincipalKind::Robot);
        if self.access.len() > MAX_SCOPES
            || groups.len() > Account::MAX_GROUPS
            || grants.len() > Account::MAX_GRANTS
            || credential.is_some() && !has_account
            || key_scope.is_some() && key_scope_part.is_some()
            || of_key.is_some() && credential.is_none()
            || of_key.is_some_and(|scope| scope.len() > Account::MAX_GRANTS)
        {
            return None;
        }
        let access: Vec<ResourceActions> = self.access.iter().map(Access::read).collect::<Option<_>>()?;
        let count = access.len();
        let access = GrantedScope::new(access);
        let grants = grants.iter().map(Grant::read).collect::<Option<_>>()?;
        let key_scope_of = |scope: Vec<Grant>| Scope::new(scope.iter().map(Grant::read).collect::<Option<_>>()?).ok();
        let scope = match (key_scope, key_scope_part) {
            (Some(whole), _) => {
                let key = key_scope_of(whole)?;
                access.permissions_within(&key).ok()?.within_key(key)
            }
            (None, Some(part)) => {
                let part = key_scope_of(part)?;
                let known = access.repositories().cloned().collect();
                access.permissions_within(&part).ok()?.within_part_of_key(part, known)
            }
            (None, None) => access.permissions().ok()?.extensible(),
        };
        // Each resource is there once, and has an action.
        (access.resources().len() == count).then_some(VerifiedToken {
            principal,
            scope,
            access,
            generation: generation.parse().ok()?,
            credential,
            groups,
            grants,
            issued,
            expires,
            id: self.id,
        })
    }
}

impl From<&ResourceActions> for Access {
    fn from(granted: &ResourceActions) -> Self {
        Self {
            kind: granted.resource.kind().to_owned(),
            name: granted.resource.name().to_owned(),
            actions: granted.words().into_iter().map(str::to_owned).collect(),
        }
    }
}

impl Access {
    fn read(&self) -> Option<ResourceActions> {
        let actions = self
            .actions
            .iter()
            .map(|word| ScopeActions::of_word(word))
            .fold(ScopeActions::default(), ScopeActions::union);
        let granted = ResourceActions {
            resource: Resource::find(&self.kind, &self.name)?,
            actions,
        };
        // Exactly the words that are written: no other word, none twice, no other order.
        (granted.words() == self.actions).then_some(granted)
    }
}

impl From<&RepositoryGrant> for Grant {
    fn from(grant: &RepositoryGrant) -> Self {
        let words = grant.actions.words().into_iter().map(str::to_owned);
        Self([grant.repositories.to_string()].into_iter().chain(words).collect())
    }
}

impl Grant {
    fn read(&self) -> Option<RepositoryGrant> {
        let (pattern, words) = self.0.split_first()?;
        let actions = Actions::try_from(words.to_vec()).ok()?;
        (actions.words() == words).then_some(RepositoryGrant {
            repositories: pattern.parse().ok()?,
            actions,
        })
    }
}
