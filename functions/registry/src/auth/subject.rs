//! A principal, as a policy sees it.

use std::collections::BTreeSet;

use super::{GroupName, Principal, RepositoryGrant};

/// A principal with its attributes, for which a policy is compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    /// The principal.
    pub principal: Principal,
    /// The groups of its account. Those of a workload are in the policy, and are not needed here.
    pub groups: BTreeSet<GroupName>,
    /// The grants of its account, each judged like an allow rule.
    pub grants: Vec<RepositoryGrant>,
}

impl Subject {
    /// A principal without groups and grants.
    #[must_use]
    pub fn new(principal: Principal) -> Self {
        Self {
            principal,
            groups: BTreeSet::new(),
            grants: Vec::new(),
        }
    }

    /// Whether it is a member of the group `admins`.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.groups.iter().any(GroupName::is_admins)
    }
}
