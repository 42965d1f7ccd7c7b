//! Makes of a [document](super::document) the rules that concern one principal, and those that concern all.

use std::collections::BTreeSet;

use oci::RepositoryName;

use super::document::{AccessEntry, Document};
use super::who::Who;
use crate::auth::{
    AccessRule, AccountName, Actions, GroupName, ImmutableRule, Principal, PrincipalKind, RepositoryPattern,
    RepositoryRule, RepositorySettings, Rules, SharedRules, Subject,
};

/// The longest name of a workload that `{name}` stands for, in bytes.
const MAX_WORKLOAD_NAME: usize = 200;

/// The rules of a document that concern every principal.
#[must_use]
pub fn shared(document: &Document) -> SharedRules {
    let immutable = document.immutable.iter().map(|entry| ImmutableRule {
        name: entry.name.clone(),
        repositories: entry.repositories.clone(),
        tags: entry.tags.clone(),
        except: entry.except.clone(),
        grace_ms: entry.grace_ms,
        delete: entry.delete,
    });
    let repositories = document.repositories.iter().map(|entry| RepositoryRule {
        repositories: entry.repositories.clone(),
        settings: RepositorySettings {
            create: entry.create,
            max_blob: entry.max_blob,
            foreign_layers: entry.foreign_layers,
        },
    });
    SharedRules::new(immutable.collect(), repositories.collect())
}

/// The rules of a document that concern a principal. A workload whose rule the document does not have may do nothing.
#[must_use]
pub fn rules(document: &Document, subject: &Subject) -> Rules {
    let Some(audience) = Audience::of(document, subject) else {
        return Rules::nothing();
    };
    let concerned = |entries: &[AccessEntry]| -> Vec<AccessRule> {
        entries.iter().filter_map(|entry| audience.rule(entry)).collect()
    };
    let mut allow = concerned(&document.allow);
    if audience.groups.iter().any(|group| group.is_admins()) {
        allow.push(AccessRule {
            name: GroupName::ADMINS.into(),
            repositories: vec![RepositoryPattern::everything()],
            actions: Actions::ALL,
        });
    }
    allow.extend(subject.grants.iter().enumerate().map(|(index, grant)| AccessRule {
        name: format!("{}#{}", subject.principal, index + 1).into(),
        repositories: vec![grant.repositories.clone()],
        actions: grant.actions,
    }));
    Rules::new(allow, concerned(&document.deny))
}

/// A principal, with all that rules ask about it.
struct Audience<'a> {
    principal: &'a Principal,
    groups: BTreeSet<&'a GroupName>,
    /// What `{name}` stands for.
    name: Option<&'a str>,
}

impl<'a> Audience<'a> {
    fn of(document: &'a Document, subject: &'a Subject) -> Option<Self> {
        let principal = &subject.principal;
        let mut groups: BTreeSet<_> = subject.groups.iter().collect();
        let name = match principal.kind() {
            PrincipalKind::Anonymous => None,
            PrincipalKind::User | PrincipalKind::Robot => {
                // A user of a htpasswd file may have a name that is no component of a repository's name.
                principal.name().filter(|name| name.parse::<AccountName>().is_ok())
            }
            PrincipalKind::Workload => {
                let rule = document.workload(principal.rule()?)?;
                groups.extend(&rule.groups);
                let is_legal = |name: &&str| name.len() <= MAX_WORKLOAD_NAME && name.parse::<RepositoryName>().is_ok();
                rule.name_template
                    .as_ref()
                    .and_then(|_| principal.name().filter(is_legal))
            }
        };
        Some(Self {
            principal,
            groups,
            name,
        })
    }

    fn is(&self, who: &Who) -> bool {
        let kind = self.principal.kind();
        let has_name = |expected| kind == expected && self.principal.name().is_some();
        match who {
            Who::Anyone => true,
            Who::SignedIn => kind != PrincipalKind::Anonymous,
            Who::Users => kind == PrincipalKind::User,
            Who::Robots => kind == PrincipalKind::Robot,
            Who::Workloads => kind == PrincipalKind::Workload,
            Who::User(name) => has_name(PrincipalKind::User) && self.principal.name() == Some(name),
            Who::Robot(name) => has_name(PrincipalKind::Robot) && self.principal.name() == Some(name.as_str()),
            Who::Group(group) => self.groups.contains(group),
            Who::Workload(rule) => self.principal.rule() == Some(rule),
        }
    }

    /// What the rule says to this principal; `None` if it does not concern it.
    fn rule(&self, entry: &AccessEntry) -> Option<AccessRule> {
        if !entry.who.iter().any(|who| self.is(who)) {
            return None;
        }
        let templates = entry.repositories.iter();
        let repositories: Vec<_> = templates.filter_map(|template| template.resolve(self.name)).collect();
        (!repositories.is_empty()).then(|| AccessRule {
            name: entry.name.clone(),
            repositories,
            actions: entry.actions,
        })
    }
}
