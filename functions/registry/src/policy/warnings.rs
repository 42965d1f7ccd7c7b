//! What the author of a policy may not have meant.

use std::collections::BTreeSet;
use std::fmt;

use super::document::{AccessEntry, Document, WorkloadEntry};
use super::mistake::quoted;
use super::template::RepositoryTemplate;
use super::tree::Position;
use super::who::Who;
use crate::auth::{ActionKind, Actions, GroupName};

/// The issuer of GitHub's jobs.
const GITHUB: &str = "https://token.actions.githubusercontent.com";

/// Claims of GitHub that contain a name which another owner can get later.
const GITHUB_NAMES: [&str; 5] = ["sub", "repository", "repository_owner", "actor", "job_workflow_ref"];

/// A part of a policy that its author may not have meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warning {
    /// Where the rule begins.
    pub at: Position,
    /// What it does, and what may be meant.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

/// The names that exist.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KnownNames {
    /// The names of the accounts of users. Only the servers that read a htpasswd file know the names in it.
    pub users: BTreeSet<String>,
    /// The names of robots.
    pub robots: BTreeSet<String>,
    /// The groups that accounts are in.
    pub groups: BTreeSet<GroupName>,
}

/// The warnings about a document, in the order of its rules.
#[must_use]
pub fn of(document: &Document, known: &KnownNames) -> Vec<Warning> {
    let mut warnings = Warnings {
        document,
        known,
        found: Vec::new(),
    };
    for workload in &document.workloads {
        warnings.of_workload(workload);
    }
    for entry in &document.allow {
        warnings.of_names(entry);
        warnings.of_allow(entry);
    }
    for entry in &document.deny {
        warnings.of_names(entry);
        warnings.of_deny(entry);
    }
    warnings.found
}

struct Warnings<'a> {
    document: &'a Document,
    known: &'a KnownNames,
    found: Vec<Warning>,
}

impl Warnings<'_> {
    fn add(&mut self, at: Position, message: String) {
        self.found.push(Warning { at, message });
    }

    /// Names that belong to no account.
    fn of_names(&mut self, entry: &AccessEntry) {
        for who in &entry.who {
            let (is_known, kind, exception) = match who {
                Who::User(name) => {
                    let in_file = ", unless it is a user of the htpasswd file";
                    (self.known.users.contains(name), "account", in_file)
                }
                Who::Robot(name) => (self.known.robots.contains(name.as_str()), "robot", ""),
                Who::Group(group) => (self.is_known(group), "group", ""),
                Who::Anyone | Who::SignedIn | Who::Users | Who::Robots | Who::Workloads | Who::Workload(_) => continue,
            };
            if !is_known {
                let rule = quoted(&entry.name);
                let text = format!("the rule {rule}: there is no such {kind} yet: {who}{exception}");
                self.add(entry.at, text);
            }
        }
    }

    fn is_known(&self, group: &GroupName) -> bool {
        let is_built_in = [GroupName::ADMINS, GroupName::AUDITORS].contains(&group.as_str());
        let mut workloads = self.document.workloads.iter();
        is_built_in || self.known.groups.contains(group) || workloads.any(|workload| workload.groups.contains(group))
    }

    fn of_allow(&mut self, entry: &AccessEntry) {
        let pushes = entry.actions.intersection(Actions::PUSH);
        if !pushes.is_empty() && !entry.actions.contains(ActionKind::Read) && !self.may_pull(entry) {
            let text = format!(
                "the rule {} allows {} without pull: most clients look for what is there before they push",
                quoted(&entry.name),
                pushes.words().join(" and ")
            );
            self.add(entry.at, text);
        }
        for template in &entry.repositories {
            let text = template.as_str();
            if entry.actions.contains(ActionKind::Read) && text.starts_with('*') && text != "**" {
                let text = format!(
                    "the rule {}: a list of repositories has to read all names to find those of {}, and may end before it \
                     has found them. Patterns that begin with the first component are faster",
                    quoted(&entry.name),
                    quoted(text)
                );
                self.add(entry.at, text);
            }
        }
    }

    /// Whether other rules let those whom a rule concerns pull from all its repositories.
    fn may_pull(&self, entry: &AccessEntry) -> bool {
        let concerns = |other: &AccessEntry, who: &Who| {
            let is_wider = |wider: &Who| {
                wider == who
                    || match wider {
                        Who::Anyone => true,
                        Who::SignedIn => *who != Who::Anyone,
                        Who::Users => matches!(who, Who::User(_)),
                        Who::Robots => matches!(who, Who::Robot(_)),
                        Who::Workloads => matches!(who, Who::Workload(_)),
                        Who::User(_) | Who::Robot(_) | Who::Group(_) | Who::Workload(_) => false,
                    }
            };
            other.who.iter().any(is_wider)
        };
        let contains = |other: &AccessEntry, repositories: &RepositoryTemplate| {
            let mut patterns = other.repositories.iter();
            patterns.any(|wider| wider == repositories || wider.as_str() == "**")
        };
        let pulls = |other: &&AccessEntry| other.actions.contains(ActionKind::Read);
        entry.who.iter().all(|who| {
            entry.repositories.iter().all(|repositories| {
                let mut others = self.document.allow.iter().filter(pulls);
                others.any(|other| concerns(other, who) && contains(other, repositories))
            })
        })
    }

    /// A deny rule takes away only what allow rules add.
    fn of_deny(&mut self, entry: &AccessEntry) {
        let meets = |allow: &AccessEntry| {
            let shares_actions = !allow.actions.intersection(entry.actions).is_empty();
            let may_share_repositories = allow.repositories.iter().any(|one| {
                let mut others = entry.repositories.iter();
                others.any(|other| may_overlap(one, other))
            });
            let may_share_principals = allow
                .who
                .iter()
                .any(|one| entry.who.iter().any(|other| may_be_both(one, other)));
            shares_actions && may_share_repositories && may_share_principals
        };
        if !self.document.allow.iter().any(meets) {
            let text = format!(
                "the rule {} takes away what no rule allows: it concerns only administrators and the grants of robots",
                quoted(&entry.name)
            );
            self.add(entry.at, text);
        }
    }

    fn of_workload(&mut self, workload: &WorkloadEntry) {
        let issuer = self
            .document
            .issuers
            .iter()
            .find(|issuer| issuer.name == workload.issuer);
        let is_github = issuer.is_some_and(|issuer| issuer.url.trim_end_matches('/') == GITHUB);
        let has_name = GITHUB_NAMES.iter().any(|claim| workload.claims.contains_key(*claim));
        let has_id = workload.claims.keys().any(|claim| claim.ends_with("_id"));
        if is_github && has_name && !has_id {
            let text = format!(
                "the workload {} matches names at GitHub, which others can get when an owner renames or deletes an account: \
                 match repository_owner_id or repository_id too",
                quoted(&workload.name)
            );
            self.add(workload.at, text);
        }
    }
}

/// Whether some repository may match both: the text of one begins like that of the other, up to the first `*` or `{`.
fn may_overlap(one: &RepositoryTemplate, other: &RepositoryTemplate) -> bool {
    let literal = |template: &'_ RepositoryTemplate| -> (String, bool) {
        let text = template.as_str();
        let prefix = text.split(['*', '{']).next().unwrap_or_default();
        (prefix.to_owned(), prefix.len() == text.len())
    };
    let ((one, one_is_name), (other, other_is_name)) = (literal(one), literal(other));
    match (one_is_name, other_is_name) {
        (true, true) => one == other,
        (true, false) => one.starts_with(&other),
        (false, true) => other.starts_with(&one),
        (false, false) => one.starts_with(&other) || other.starts_with(&one),
    }
}

/// Whether some principal may be both.
fn may_be_both(one: &Who, other: &Who) -> bool {
    /// The kind of all principals that a word means; `None`: they may have several kinds.
    fn kind(who: &Who) -> Option<u8> {
        match who {
            Who::Anyone | Who::SignedIn | Who::Group(_) => None,
            Who::Users | Who::User(_) => Some(1),
            Who::Robots | Who::Robot(_) => Some(2),
            Who::Workloads | Who::Workload(_) => Some(3),
        }
    }
    let is_single = |who: &Who| matches!(who, Who::User(_) | Who::Robot(_) | Who::Workload(_));
    match (kind(one), kind(other)) {
        (Some(a), Some(b)) => a == b && (one == other || !is_single(one) || !is_single(other)),
        _ => true,
    }
}
