//! Properties of all policies, against the [reference](super::reference). The environment variable `PROPTEST_CASES` sets how
//! many policies are tried.

use oci::{RepositoryName, Tag};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use super::reference;
use crate::auth::{
    ActionKind, Creation, Delete, Identity, Move, Principal, Pull, Push, RepositoryGrant, Scope, Subject,
};
use crate::policy::Policy;
use crate::policy::document::{AccessEntry, Document, ImmutableEntry, RepositoryEntry};
use crate::policy::template::RepositoryTemplate;
use crate::policy::tree::Position;
use crate::policy::who::Who;
use crate::timestamp::Timestamp;

const REPOSITORIES: [&str; 14] = [
    "a",
    "b",
    "a/b",
    "a/b/c",
    "b/a",
    "home/alice",
    "home/alice/x",
    "home/bob/x",
    "home/ci/x",
    "ci",
    "alice",
    "acme/app",
    "acme/app/x",
    "a/b-c",
];
const PATTERNS: [&str; 16] = [
    "**",
    "*",
    "a/**",
    "a/*",
    "a/b",
    "*/b",
    "a",
    "a*",
    "*/b*",
    "home/{name}/**",
    "{name}",
    "{name}/**",
    "home/{name}*/x",
    "home/**",
    "acme/*/x",
    "b/**",
];
const WHO: [&str; 13] = [
    "anyone",
    "signed-in",
    "users",
    "robots",
    "workloads",
    "user:alice",
    "user:\u{c9}",
    "robot:ci",
    "group:team",
    "group:admins",
    "group:ci",
    "workload:named",
    "workload:unnamed",
];
const ISSUER: &str = r#""issuer":[{"name":"g","url":"https://g.example","audience":["r"]}]"#;
const WORKLOADS: &str = r#"{"name":"named","issuer":"g","claims":{"a":"b"},"as":"{a}","groups":["ci"]},
    {"name":"unnamed","issuer":"g","claims":{"a":"b"}}"#;

fn actions() -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(vec!["pull", "create", "move", "push", "delete"], 1..=5)
}

fn entry() -> impl Strategy<Value = AccessEntry> {
    let parts = (
        subsequence(WHO.to_vec(), 1..=3),
        subsequence(PATTERNS.to_vec(), 1..=3),
        actions(),
        any::<u16>(),
    );
    parts.prop_map(|(who, repositories, actions, number)| AccessEntry {
        at: Position::START,
        name: format!("rule {number}").into(),
        who: who.into_iter().map(|word| word.parse::<Who>().unwrap()).collect(),
        repositories: repositories
            .into_iter()
            .map(|text| text.parse::<RepositoryTemplate>().unwrap())
            .collect(),
        actions: serde_json::from_value(actions.into()).unwrap(),
    })
}

/// A policy with some of the workloads, and its rules.
fn policy() -> impl Strategy<Value = Policy> {
    let entries = || prop::collection::vec(entry(), 0..4);
    (entries(), entries()).prop_map(|(allow, deny)| {
        of(&Document {
            allow,
            deny,
            ..Document::default()
        })
    })
}

/// The policy with these rules. It is read from its text, so the reader is part of what is tried.
fn of(rules: &Document) -> Policy {
    let mut document = rules.clone();
    document.issuers.clear();
    document.workloads.clear();
    let all = document.allow.iter_mut().chain(&mut document.deny);
    for (index, entry) in all.enumerate() {
        entry.name = format!("{}, number {index}", entry.name.split(',').next().unwrap()).into();
    }
    let text = serde_json::to_string(&document).unwrap();
    let rest = text.strip_prefix(r#"{"syntax":1"#).unwrap();
    Policy::from_json(&format!(r#"{{"syntax":1,{ISSUER},"workload":[{WORKLOADS}]{rest}"#)).unwrap()
}

fn grant() -> impl Strategy<Value = RepositoryGrant> {
    let patterns: Vec<_> = PATTERNS.into_iter().filter(|pattern| !pattern.contains('{')).collect();
    (select(patterns), actions()).prop_map(|(pattern, actions)| RepositoryGrant {
        repositories: pattern.parse().unwrap(),
        actions: serde_json::from_value(actions.into()).unwrap(),
    })
}

fn subject() -> impl Strategy<Value = Subject> {
    let principals = [
        Principal::ANONYMOUS,
        Principal::user("alice").unwrap(),
        Principal::user("\u{c9}").unwrap(),
        Principal::robot("ci").unwrap(),
        Principal::workload("named", "acme/app").unwrap(),
        Principal::workload("named", "repo:acme/app").unwrap(),
        Principal::workload("unnamed", "acme/app").unwrap(),
        Principal::workload("removed", "acme/app").unwrap(),
    ];
    let groups = prop::sample::subsequence(vec!["team", "admins", "ci"], 0..=2);
    let grants = prop::collection::vec(grant(), 0..3);
    (select(principals.to_vec()), groups, grants).prop_map(|(principal, groups, grants)| Subject {
        principal,
        groups: groups.into_iter().map(|group| group.parse().unwrap()).collect(),
        grants,
    })
}

/// What a subject may do: a mark for each action in each repository.
fn allowed(policy: &Policy, subject: &Subject) -> Vec<bool> {
    let rules = policy.rules(subject);
    marks(|action, repository| rules.allow(action, repository))
}

fn marks(is_allowed: impl Fn(ActionKind, &RepositoryName) -> bool) -> Vec<bool> {
    let names: Vec<RepositoryName> = REPOSITORIES.iter().map(|name| name.parse().unwrap()).collect();
    let all = names
        .iter()
        .flat_map(|name| ActionKind::ALL.map(|action| is_allowed(action, name)));
    all.collect()
}

/// Whether nothing is allowed in `one` that is not in `other`.
fn is_within(one: &[bool], other: &[bool]) -> bool {
    one.iter().zip(other).all(|(one, other)| !one || *other)
}

/// A policy with immutable tags and settings of repositories.
fn shared_policy() -> impl Strategy<Value = Policy> {
    let patterns = || {
        let patterns: Vec<&str> = PATTERNS.into_iter().filter(|pattern| !pattern.contains('{')).collect();
        subsequence(patterns, 1..=2)
    };
    let tags = subsequence(vec!["semver", "v*", "*", "latest", "sha256-*", "*-rc*"], 1..=2);
    let except = subsequence(vec!["latest", "*-rc*", "v1*"], 0..=2);
    let immutable = (patterns(), tags, except, select(vec![0, 600_000]), any::<bool>());
    let immutable = immutable.prop_map(|(repositories, tags, except, grace_ms, delete)| ImmutableEntry {
        at: Position::START,
        name: "".into(),
        repositories: repositories.iter().map(|text| text.parse().unwrap()).collect(),
        tags: tags.iter().map(|text| text.parse().unwrap()).collect(),
        except: except.iter().map(|text| text.parse().unwrap()).collect(),
        grace_ms,
        delete,
    });
    let settings = (patterns(), any::<bool>(), prop::option::of(1_u64..9999), any::<bool>());
    let settings = settings.prop_map(|(repositories, is_listed, max_blob, foreign_layers)| RepositoryEntry {
        at: Position::START,
        repositories: repositories.iter().map(|text| text.parse().unwrap()).collect(),
        create: if is_listed { Creation::Listed } else { Creation::OnPush },
        max_blob,
        foreign_layers,
    });
    let entries = (
        prop::collection::vec(immutable, 0..4),
        prop::collection::vec(settings, 0..3),
    );
    entries.prop_map(|(mut immutable, repositories)| {
        for (index, entry) in immutable.iter_mut().enumerate() {
            entry.name = format!("frozen {index}").into();
        }
        of(&Document {
            immutable,
            repositories,
            ..Document::default()
        })
    })
}

/// Tags, and some that look like versions or like those of signatures.
fn tags() -> Vec<String> {
    let hex = "0f".repeat(32);
    let mut tags: Vec<_> = [
        "v1.0.0",
        "1.2.3",
        "1.2.3-rc.1",
        "1.02.3",
        "v1.2",
        "vv1.2.3",
        "1.2.3.4",
        "1.2.3-",
        "latest",
    ]
    .map(ToOwned::to_owned)
    .into();
    tags.extend([
        format!("sha256-{hex}"),
        format!("sha256-{hex}.sig"),
        format!("sha256-{hex}x"),
    ]);
    tags
}

proptest! {
    #[test]
    fn immutable_tags_and_settings_are_those_of_the_reference(policy in shared_policy(), ages in [0_u64..599_999, 599_999..600_002]) {
        let (document, shared) = (policy.document(), policy.shared());
        for name in REPOSITORIES {
            let repository: RepositoryName = name.parse().unwrap();
            let settings = shared.settings(&repository);
            let expected = reference::settings(document, name).map_or((Creation::OnPush, None, true), |entry| {
                (entry.create, entry.max_blob, entry.foreign_layers)
            });
            prop_assert_eq!((settings.create, settings.max_blob, settings.foreign_layers), expected, "{}", name);
            for (tag, age) in tags().into_iter().flat_map(|tag| ages.map(|age| (tag.clone(), age))) {
                let now = Timestamp(1_000_000);
                let since = Timestamp(now.0 - age);
                let parsed: Tag = tag.parse().unwrap();
                let found = (
                    shared.frozen(&repository, &parsed, since, now).is_some(),
                    shared.kept(&repository, &parsed, since, now).is_some(),
                );
                prop_assert_eq!(found, reference::is_frozen(document, name, &tag, age), "{}:{} after {}", name, tag, age);
            }
        }
    }

    #[test]
    fn compiled_rules_are_those_of_the_reference(policy in policy(), subject in subject()) {
        let expected = marks(|action, repository| reference::is_allowed(policy.document(), &subject, action, repository));
        prop_assert_eq!(allowed(&policy, &subject), expected);
        let rules = policy.rules(&subject);
        for name in REPOSITORIES {
            let name = name.parse().unwrap();
            for action in ActionKind::ALL {
                prop_assert_eq!(rules.allow(action, &name), rules.decide(action, &name).is_allowed());
            }
            // A list finds whatever may be pulled.
            prop_assert!(!rules.allow(ActionKind::Read, &name) || rules.pull_ranges().contains(&name));
        }
    }

    #[test]
    fn one_more_rule_to_deny_never_grants(policy in policy(), subject in subject(), rule in entry()) {
        let mut document = policy.document().clone();
        document.deny.push(rule);
        prop_assert!(is_within(&allowed(&of(&document), &subject), &allowed(&policy, &subject)));
    }

    #[test]
    fn one_more_rule_to_allow_never_takes_away(policy in policy(), subject in subject(), rule in entry()) {
        let mut document = policy.document().clone();
        document.allow.push(rule);
        prop_assert!(is_within(&allowed(&policy, &subject), &allowed(&of(&document), &subject)));
    }

    #[test]
    fn the_order_of_rules_means_nothing(policy in policy(), subject in subject(), turns in 0..4_usize) {
        let mut document = policy.document().clone();
        for rules in [&mut document.allow, &mut document.deny] {
            let length = rules.len().max(1);
            rules.rotate_left(turns % length);
            rules.reverse();
        }
        prop_assert_eq!(allowed(&policy, &subject), allowed(&of(&document), &subject));
    }

    /// A token allows what policy and scope allow; with fewer grants in its scope it allows no more.
    #[test]
    fn a_narrower_scope_never_grants(
        policy in policy(),
        subject in subject(),
        grants in prop::collection::vec(grant(), 0..4),
        kept in 0..4_usize,
    ) {
        let scope = Scope::new(grants.clone()).unwrap();
        let narrower = Scope::new(grants.into_iter().take(kept).collect()).unwrap();
        let rules = policy.rules(&subject);
        let permitted = |scope: &Scope| {
            let identity = Identity::new(subject.principal.clone(), rules.clone()).with_token_scope(scope.clone());
            marks(|action, repository| match action {
                ActionKind::Read => identity.permit::<Pull>(repository).is_ok(),
                ActionKind::Write => identity.permit::<Push>(repository).is_ok(),
                ActionKind::Move => identity.permit::<Move>(repository).is_ok(),
                ActionKind::Delete => identity.permit::<Delete>(repository).is_ok(),
            })
        };
        let found = permitted(&scope);
        prop_assert_eq!(&found, &marks(|action, repository| {
            scope.covers(action, repository) && rules.allow(action, repository)
        }));
        prop_assert!(is_within(&permitted(&narrower), &found));
        prop_assert!(is_within(&found, &allowed(&policy, &subject)));
    }

    /// A document is read back from its canonical text, and has no other.
    #[test]
    fn canonical_texts_are_read_back(policy in policy()) {
        let text = policy.to_canonical_json();
        prop_assert_eq!(Policy::from_json(&text).unwrap().to_canonical_json(), text);
    }

    /// A text of which one character is another one, or is missing, is read without a panic: as a policy that has a canonical text,
    /// or with mistakes, each of which is in the text.
    #[test]
    fn one_changed_character(policy in policy(), at in any::<Index>(), other in prop::option::of("[ -~\n]")) {
        let mut characters: Vec<String> = policy.to_canonical_json().chars().map(String::from).collect();
        let at = at.index(characters.len());
        characters[at] = other.unwrap_or_default();
        let text = characters.concat();
        match Policy::from_json(&text) {
            Ok(policy) => {
                let canonical = policy.to_canonical_json();
                prop_assert_eq!(Policy::from_json(&canonical).unwrap().to_canonical_json(), canonical);
            }
            Err(mistakes) => {
                prop_assert!(!mistakes.is_empty());
                let lines = u32::try_from(text.split('\n').count()).unwrap();
                prop_assert!(mistakes.iter().all(|mistake| (1..=lines).contains(&mistake.at.line)), "{:?}", mistakes);
            }
        }
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in "\\PC{0,60}|[\\[\\]{}\",:a-z0-9 ]{0,60}|\\{\"syntax\":1,[\\[\\]{}\",:a-z0-9 ]{0,40}\\}") {
        if let Ok(policy) = Policy::from_json(&text) {
            let canonical = policy.to_canonical_json();
            prop_assert_eq!(Policy::from_json(&canonical).unwrap().to_canonical_json(), canonical);
        }
    }
}
