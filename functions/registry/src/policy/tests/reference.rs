//! A slow evaluator that reads like the rules of policies: the reference for the compiled rules.

use oci::RepositoryName;

use crate::auth::{AccountName, ActionKind, Principal, PrincipalKind, Subject};
use crate::policy::document::{AccessEntry, Document, ImmutableEntry, RepositoryEntry};
use crate::policy::who::Who;

/// Whether a subject may perform an action in a repository: (all matching allow rules and grants) - (all matching deny rules).
pub(super) fn is_allowed(
    document: &Document,
    subject: &Subject,
    action: ActionKind,
    repository: &RepositoryName,
) -> bool {
    if subject.principal.kind() == PrincipalKind::Workload && workload_groups(document, subject).is_none() {
        return false;
    }
    let matches = |entry: &AccessEntry| {
        entry.actions.contains(action)
            && entry.who.iter().any(|who| is_meant(document, subject, who))
            && entry.repositories.iter().any(|template| {
                with_name(document, subject, template.as_str())
                    .is_some_and(|pattern| is_in(&pattern, repository.as_str()))
            })
    };
    let is_admin = groups(document, subject).contains(&"admins".to_owned());
    let has_grant = subject
        .grants
        .iter()
        .any(|grant| grant.actions.contains(action) && is_in(&grant.repositories.to_string(), repository.as_str()));
    let is_granted = is_admin || has_grant || document.allow.iter().any(matches);
    is_granted && !document.deny.iter().any(matches)
}

fn groups(document: &Document, subject: &Subject) -> Vec<String> {
    let own = subject.groups.iter().map(ToString::to_string);
    own.chain(workload_groups(document, subject).unwrap_or_default())
        .collect()
}

/// The groups of a workload; `None`: the document has no rule for it.
fn workload_groups(document: &Document, subject: &Subject) -> Option<Vec<String>> {
    let rule = subject.principal.rule()?;
    let workload = document.workloads.iter().find(|workload| workload.name == rule)?;
    Some(workload.groups.iter().map(ToString::to_string).collect())
}

fn is_meant(document: &Document, subject: &Subject, who: &Who) -> bool {
    let text = subject.principal.to_string();
    match who {
        Who::Anyone => true,
        Who::SignedIn => text != ":anonymous",
        Who::Users => !text.contains(':'),
        Who::Robots => text.starts_with("robot:"),
        Who::Workloads => text.starts_with("workload:"),
        Who::User(name) => text == *name,
        Who::Robot(name) => text == format!("robot:{name}"),
        Who::Workload(rule) => text.starts_with(&format!("workload:{rule}:")),
        Who::Group(group) => groups(document, subject).contains(&group.to_string()),
    }
}

/// A pattern, with the principal's name in place of `{name}`; `None` if it has no such name.
fn with_name(document: &Document, subject: &Subject, pattern: &str) -> Option<String> {
    if !pattern.contains("{name}") {
        return Some(pattern.to_owned());
    }
    let principal: &Principal = &subject.principal;
    let name = principal.name()?;
    let is_legal = match principal.kind() {
        PrincipalKind::Anonymous => false,
        PrincipalKind::User | PrincipalKind::Robot => name.parse::<AccountName>().is_ok(),
        PrincipalKind::Workload => {
            let rule = document
                .workloads
                .iter()
                .find(|rule| Some(&*rule.name) == principal.rule())?;
            rule.name_template.is_some() && name.len() <= 200 && name.parse::<RepositoryName>().is_ok()
        }
    };
    is_legal.then(|| pattern.replace("{name}", name))
}

/// Whether a repository matches a pattern.
fn is_in(pattern: &str, repository: &str) -> bool {
    fn components(pattern: &[&str], names: &[&str]) -> bool {
        match (pattern, names) {
            (["**"], names) => !names.is_empty(),
            ([], []) => true,
            ([first, pattern @ ..], [name, names @ ..]) => {
                letters(first.as_bytes(), name.as_bytes()) && components(pattern, names)
            }
            _ => false,
        }
    }
    let pattern: Vec<_> = pattern.split('/').collect();
    let names: Vec<_> = repository.split('/').collect();
    components(&pattern, &names)
}

/// Whether a text matches a pattern in which `*` stands for any text.
fn letters(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) if letters(rest, name) => true,
        ([b'*', ..], [_, name @ ..]) => letters(pattern, name),
        ([first, pattern @ ..], [letter, name @ ..]) => first == letter && letters(pattern, name),
        _ => false,
    }
}

/// Whether a tag that has named its manifest for so long may not be moved; and whether it may not even be deleted.
pub(super) fn is_frozen(document: &Document, repository: &str, tag: &str, age_ms: u64) -> (bool, bool) {
    let freezes = |rule: &&ImmutableEntry| {
        rule.repositories
            .iter()
            .any(|pattern| is_in(pattern.as_str(), repository))
            && rule.tags.iter().any(|pattern| is_tag(pattern.as_str(), tag))
            && !rule.except.iter().any(|pattern| is_tag(pattern.as_str(), tag))
            && (!is_of_another_manifest(tag) || rule.tags.iter().any(|pattern| pattern.as_str().starts_with("sha")))
            && age_ms >= rule.grace_ms
    };
    let rules: Vec<_> = document.immutable.iter().filter(freezes).collect();
    (!rules.is_empty(), rules.iter().any(|rule| !rule.delete))
}

/// The settings of a repository: those of the first entry that has it.
pub(super) fn settings<'a>(document: &'a Document, repository: &str) -> Option<&'a RepositoryEntry> {
    let has_it = |entry: &&RepositoryEntry| {
        let mut patterns = entry.repositories.iter();
        patterns.any(|pattern| is_in(pattern.as_str(), repository))
    };
    document.repositories.iter().find(has_it)
}

fn is_tag(pattern: &str, tag: &str) -> bool {
    if pattern != "semver" {
        return letters(pattern.as_bytes(), tag.as_bytes());
    }
    let mut numbers = tag.trim_start_matches('v').splitn(3, '.');
    let is_number = |text: &str| text == "0" || (!text.starts_with('0') && text.parse::<u32>().is_ok());
    let [major, minor, rest] = [numbers.next(), numbers.next(), numbers.next()].map(Option::unwrap_or_default);
    let (patch, pre) = rest.split_once('-').unwrap_or((rest, "none"));
    let is_part = |part: &str| {
        let mut letters = part.chars();
        !part.is_empty() && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '-')
    };
    !tag.starts_with("vv") && [major, minor, patch].into_iter().all(is_number) && pre.split('.').all(is_part)
}

/// `sha256-` and 64 digits, alone or before a dot.
fn is_of_another_manifest(tag: &str) -> bool {
    let name = tag.split('.').next().unwrap_or_default();
    let digits = name.strip_prefix("sha256-").unwrap_or_default();
    digits.len() == 64 && digits.chars().all(|digit| "0123456789abcdef".contains(digit))
}
