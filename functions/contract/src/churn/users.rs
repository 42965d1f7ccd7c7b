//! The principals of a churn, and the policy under which they work.
//!
//! [`may`] says as plain code what the policy says as a document. Every answer of the registry, and every event of the audit
//! trail, is compared with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use registry::auth::{ActionKind, AuthenticationError, CredentialId, Credentials, Origin, Rules, SharedRules, Subject};
use registry::policy::Policy;
use registry::{Authenticator, Identity, Principal};

use super::clock::MINUTE;

/// Every second worker is a member of `guests`.
const POLICY: &str = r#"{
    "syntax": 1,
    "allow": [
        {"name": "own", "who": ["users"], "repositories": ["own/{name}"], "actions": ["pull", "push", "delete"]},
        {"name": "of others", "who": ["users"], "repositories": ["own/*"], "actions": ["pull"]},
        {"name": "shared", "who": ["users"], "repositories": ["shared/*"], "actions": ["pull", "push", "delete"]},
        {"name": "open", "who": ["anyone"], "repositories": ["shared/0"], "actions": ["pull"]}
    ],
    "deny": [
        {"name": "closed", "who": ["group:guests"], "repositories": ["own/w0"], "actions": ["pull"]},
        {"name": "only new tags", "who": ["group:guests"], "repositories": ["shared/1"], "actions": ["move", "delete"]}
    ],
    "immutable": [
        {"name": "releases", "repositories": ["**"], "tags": ["r*"]},
        {"name": "late releases", "repositories": ["**"], "tags": ["l*"], "grace": "30m"},
        {"name": "drafts", "repositories": ["**"], "tags": ["d*"], "grace": "30m", "delete": true}
    ]
}"#;

/// The number of immutable tags of each kind in each repository.
const RELEASES: usize = 4;

/// What the policy says about a tag that it freezes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TagRule {
    /// For how long the tag may change after it was created or moved.
    pub(super) grace_ms: u64,
    /// Whether the frozen tag may be deleted. Then it comes back only with the digest that it had.
    pub(super) delete: bool,
}

/// The user that a worker is.
pub(super) fn user(worker: usize) -> String {
    format!("w{worker}")
}

/// The worker that a user is.
pub(super) fn worker(user: &str) -> Option<usize> {
    user.strip_prefix('w')?.parse().ok()
}

fn is_guest(worker: usize) -> bool {
    worker % 2 == 1
}

/// One of the immutable tags, for any number.
pub(super) fn release(number: usize) -> String {
    format!("r{}", number % RELEASES)
}

/// One of the tags that become immutable after a grace.
pub(super) fn late_release(number: usize) -> String {
    format!("l{}", number % RELEASES)
}

/// One of the tags that become immutable after a grace and may be deleted.
pub(super) fn draft(number: usize) -> String {
    format!("d{}", number % RELEASES)
}

/// Whether no principal may move or delete the tag.
pub(super) fn is_release(tag: &str) -> bool {
    tag.starts_with('r')
}

/// Whether the tag is one of [`draft`].
pub(super) fn is_draft(tag: &str) -> bool {
    tag.starts_with('d')
}

/// The rule that freezes the tag, if one does.
pub(super) fn rule_of(tag: &str) -> Option<TagRule> {
    let (grace_ms, delete) = match tag.chars().next()? {
        'r' => (0, false),
        'l' => (30 * MINUTE, false),
        'd' => (30 * MINUTE, true),
        _ => return None,
    };
    Some(TagRule { grace_ms, delete })
}

/// Whether the tag and its manifest cannot be deleted once it is frozen.
pub(super) fn keeps_manifests(tag: &str) -> bool {
    rule_of(tag).is_some_and(|rule| !rule.delete)
}

/// Whether the policy allows an action to a worker, or to a client without credentials.
pub(super) fn may(worker: Option<usize>, action: ActionKind, repository: &str) -> bool {
    let Some(number) = worker else {
        return action == ActionKind::Read && repository == "shared/0";
    };
    match repository.split_once('/') {
        Some(("own", owner)) if owner == user(number) => true,
        Some(("own", owner)) => action == ActionKind::Read && !(is_guest(number) && owner == user(0)),
        Some(("shared", "1")) if is_guest(number) => matches!(action, ActionKind::Read | ActionKind::Write),
        Some(("shared", _)) => true,
        _ => false,
    }
}

/// Takes each bearer token as the name of a user.
#[derive(Debug)]
pub(super) struct Users {
    policy: Policy,
    is_lifted: AtomicBool,
}

impl Users {
    pub(super) fn new() -> Self {
        Self {
            policy: Policy::from_json(POLICY).expect("a legal policy"),
            is_lifted: AtomicBool::new(false),
        }
    }

    /// From now on every principal may do everything, and no tag is immutable.
    pub(super) fn lift_policy(&self) {
        self.is_lifted.store(true, Ordering::SeqCst);
    }

    fn identity(&self, principal: Principal) -> Identity {
        if self.is_lifted.load(Ordering::SeqCst) {
            return Identity::new(principal, Rules::everything());
        }
        let mut subject = Subject::new(principal.clone());
        if principal.name().and_then(worker).is_some_and(is_guest) {
            subject.groups.insert("guests".parse().expect("a legal name"));
        }
        let rules = self.policy.rules(&subject);
        Identity::new(principal, rules.with_shared(self.policy.shared()))
    }
}

#[async_trait]
impl Authenticator for Users {
    async fn authenticate(&self, _: &Origin, credentials: &Credentials) -> Result<Identity, AuthenticationError> {
        let principal = match credentials {
            Credentials::Absent => Principal::ANONYMOUS,
            Credentials::Bearer { token } => {
                Principal::user(token).map_err(|_| AuthenticationError::Unauthenticated)?
            }
            Credentials::Basic { .. } | Credentials::Unreadable => return Err(AuthenticationError::Unauthenticated),
        };
        Ok(self.identity(principal))
    }

    async fn reauthorize(
        &self,
        principal: &Principal,
        _credential: Option<CredentialId>,
    ) -> Result<Identity, AuthenticationError> {
        Ok(self.identity(principal.clone()))
    }

    fn shared_rules(&self) -> Option<Arc<SharedRules>> {
        (!self.is_lifted.load(Ordering::SeqCst)).then(|| self.policy.shared())
    }

    fn takes_credentials(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use registry::store::Timestamp;

    use super::*;

    /// The plain code and the document agree about every tag.
    #[test]
    fn the_model_freezes_what_the_policy_freezes() {
        let shared = Users::new().policy.shared();
        let name = "shared/0".parse().expect("a legal name");
        for tag in [release(1), late_release(2), draft(3), "t1".to_owned()] {
            let rule = rule_of(&tag);
            let tag = tag.parse().expect("a legal tag");
            for age in [0, 30 * MINUTE - 1, 30 * MINUTE] {
                let (since, now) = (Timestamp(7), Timestamp(7 + age));
                let is_frozen = rule.is_some_and(|rule| age >= rule.grace_ms);
                let is_kept = is_frozen && rule.is_some_and(|rule| !rule.delete);
                assert_eq!(
                    shared.frozen(&name, &tag, since, now).is_some(),
                    is_frozen,
                    "{tag} {age}"
                );
                assert_eq!(shared.kept(&name, &tag, since, now).is_some(), is_kept, "{tag} {age}");
            }
        }
    }

    /// The plain code and the document agree about every principal, action and repository.
    #[test]
    fn the_model_says_what_the_policy_says() {
        let users = Users::new();
        for worker in [None, Some(0), Some(1), Some(2), Some(3)] {
            let principal = worker.map_or(Principal::ANONYMOUS, |number| {
                Principal::user(&user(number)).expect("a legal name")
            });
            let rules = users.identity(principal);
            for repository in ["own/w0", "own/w1", "own/w2", "own/w3", "shared/0", "shared/1"] {
                let name = repository.parse().expect("a legal name");
                let found = [
                    (ActionKind::Read, rules.may::<registry::auth::Pull>(&name)),
                    (ActionKind::Write, rules.may::<registry::auth::Push>(&name)),
                    (ActionKind::Move, rules.may::<registry::auth::Move>(&name)),
                    (ActionKind::Delete, rules.may::<registry::auth::Delete>(&name)),
                ];
                for (action, is_allowed) in found {
                    assert_eq!(
                        may(worker, action, repository),
                        is_allowed,
                        "{worker:?} {action:?} {repository}"
                    );
                }
            }
        }
    }
}
