//! The policy: its versions, and which one is in force.

use registry::auth::{Principal, PrincipalKind, Subject};
use registry::policy::{KnownNames, Mistake, Policy, Warning};
use registry::store::Page;
use registry::store::access::{AccessChange, AccessState, Account, AccountKind, AuditKind, PolicyForm, PolicyVersion};

use super::{AccountRef, Administration, AdministrationError, Author, expected};
use crate::toml;

/// From which policy a new one was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MadeFrom {
    /// Not said: it replaces the one in force, whichever that is.
    Any,
    /// This version; `None`: no policy was set. If another one is in force, the new one is refused.
    Version(Option<u64>),
}

/// A policy that is to be put in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewPolicy {
    /// The syntax of the text.
    pub form: PolicyForm,
    /// The text.
    pub source: String,
    /// Why it is set.
    pub note: Option<String>,
    /// The version that its author has changed.
    pub made_from: MadeFrom,
}

/// A policy that was put in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicySet {
    /// The version.
    pub version: PolicyVersion,
    /// The version that was in force before; `None`: no policy was set.
    pub replaced: Option<u64>,
    /// What its author may not have meant.
    pub warnings: Vec<Warning>,
}

/// The policy in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyInForce {
    /// Its version; `None`: no policy was set, and the default one is in force.
    pub version: Option<PolicyVersion>,
    /// The policy, with the positions of its rules in the text as it was written.
    pub policy: Policy,
}

/// Whether a principal has an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccountCondition {
    /// It has one.
    Enabled,
    /// It has one, and its credentials are refused.
    Disabled,
    /// It has none: it is anonymous, a workload, or a user of a htpasswd file.
    None,
}

/// Reads a policy. Fails with all mistakes.
pub fn parse(form: PolicyForm, source: &str) -> Result<Policy, Vec<Mistake>> {
    match form {
        PolicyForm::Toml => toml::policy(source),
        PolicyForm::Json => Policy::from_json(source),
    }
}

impl Administration {
    /// A version of the policy, with its source.
    pub async fn policy(&self, version: u64) -> Result<PolicyVersion, AdministrationError> {
        let found = self.store.policy(self.cx(), version).await?;
        found.ok_or(AdministrationError::NoPolicy(version))
    }

    /// The policy in force.
    pub async fn policy_in_force(&self) -> Result<PolicyInForce, AdministrationError> {
        let Some(version) = self.state().await?.policy else {
            return Ok(PolicyInForce {
                version: None,
                policy: Policy::default_policy(),
            });
        };
        let found = self.policy(version).await?;
        let policy = parse(found.form, &found.source).map_err(|_| AdministrationError::UnreadablePolicy(version))?;
        Ok(PolicyInForce {
            version: Some(found),
            policy,
        })
    }

    /// Versions of the policy below `before`, newest first, at most `limit` (1 or more).
    pub async fn policies(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<PolicyVersion>, AdministrationError> {
        Ok(self.store.policies(self.cx(), before, limit).await?)
    }

    /// The names of all accounts and groups, for the warnings about a policy. Reads all accounts.
    pub async fn known_names(&self) -> Result<KnownNames, AdministrationError> {
        let mut known = KnownNames::default();
        self.each_account(|account| {
            let names = match account.kind {
                AccountKind::User => &mut known.users,
                AccountKind::Robot => &mut known.robots,
            };
            names.insert(account.name.to_string());
            known.groups.extend(account.groups);
        })
        .await?;
        Ok(known)
    }

    /// Puts a policy in force.
    pub async fn set_policy(&self, author: &Author, new: &NewPolicy) -> Result<PolicySet, AdministrationError> {
        let policy = parse(new.form, &new.source).map_err(AdministrationError::Mistakes)?;
        if !policy.document().issuers.is_empty() || !policy.document().workloads.is_empty() {
            return Err(AdministrationError::Workloads);
        }
        let document = policy.to_canonical_json();
        // What instances could not read would end in 503 on all of them.
        Policy::from_json(&document).map_err(AdministrationError::Mistakes)?;
        let warnings = policy.warnings(&self.known_names().await?);
        let (version, replaced) = self.persist(|| self.try_set_policy(author, new, &document)).await?;
        Ok(PolicySet {
            version,
            replaced,
            warnings,
        })
    }

    /// The new version, and the number of the one that it replaces.
    async fn try_set_policy(
        &self,
        author: &Author,
        new: &NewPolicy,
        document: &str,
    ) -> Result<(PolicyVersion, Option<u64>), AdministrationError> {
        let before = self.state().await?;
        let replaced = before.policy;
        if let MadeFrom::Version(made_from) = new.made_from
            && made_from != before.policy
        {
            return Err(AdministrationError::PolicyConflict {
                made_from,
                in_force: before.policy,
            });
        }
        let now = self.now();
        let version = PolicyVersion {
            version: before.version + 1,
            document: document.to_owned(),
            source: new.source.clone(),
            form: new.form,
            principal: author.principal.clone(),
            at: now,
            note: new.note.clone(),
        };
        let mut event = self.event(author, AuditKind::PolicySet, version.version.to_string(), now);
        event.before = before.policy.map(|version| version.to_string());
        event.after = Some(version.version.to_string());
        event.detail.clone_from(&new.note);
        let mut state = AccessState {
            version: version.version,
            policy: Some(version.version),
            ..before
        };
        state.withdrawn.bound(now);
        self.apply(AccessChange {
            state,
            account: None,
            policy: Some(version.clone()),
            event: Some(event),
        })
        .await?;
        Ok((version, replaced))
    }

    /// A principal as the policy sees it. A user without an account is one of a htpasswd file.
    pub async fn subject(&self, principal: &Principal) -> Result<(Subject, AccountCondition), AdministrationError> {
        let kind = match principal.kind() {
            PrincipalKind::User => AccountKind::User,
            PrincipalKind::Robot => AccountKind::Robot,
            PrincipalKind::Anonymous | PrincipalKind::Workload => {
                return Ok((Subject::new(principal.clone()), AccountCondition::None));
            }
        };
        let name = principal.name().and_then(|name| name.parse().ok());
        let found = match &name {
            Some(name) => self.store.account(self.cx(), name).await?,
            None => None,
        };
        match (found, name) {
            (None, Some(name)) if kind == AccountKind::Robot => {
                Err(AdministrationError::NoAccount { name, kind: Some(kind) })
            }
            (Some(account), Some(name)) => {
                let kind = Some(kind);
                let account = expected(AccountRef { name: &name, kind }, Some(account))?;
                let condition = if account.disabled {
                    AccountCondition::Disabled
                } else {
                    AccountCondition::Enabled
                };
                Ok((of_account(principal, account), condition))
            }
            _ => Ok((Subject::new(principal.clone()), AccountCondition::None)),
        }
    }
}

fn of_account(principal: &Principal, account: Account) -> Subject {
    Subject {
        principal: principal.clone(),
        groups: account.groups,
        grants: account.grants,
    }
}
