//! A document with every kind of entry, and what it answers.

use crate::auth::{ActionKind, Decision, GroupName, Principal, Subject};
use crate::policy::{KnownNames, Policy};
use crate::store::Timestamp;

const DOCUMENT: &str = include_str!("example.json");

#[test]
fn the_answers_of_the_example() {
    use ActionKind::{Delete, Move, Read, Write};

    let policy = Policy::from_json(DOCUMENT).unwrap();
    let anonymous = Subject::new(Principal::ANONYMOUS);
    let user = |name| Subject::new(Principal::user(name).unwrap());
    let pipeline = Subject::new(Principal::workload("acme-main", "acme/app").unwrap());
    let member = Subject {
        groups: ["payments".parse().unwrap()].into(),
        ..user("pat")
    };
    let admin = Subject {
        groups: [GroupName::ADMINS.parse().unwrap()].into(),
        ..user("root")
    };
    let robot = Subject {
        grants: vec![serde_json::from_str(r#"{"repositories": "prod/**", "actions": ["pull", "delete"]}"#).unwrap()],
        ..Subject::new(Principal::robot("ci").unwrap())
    };
    let allowed = |rule: &str| Decision::Allowed {
        rule: Some(rule.into()),
    };
    let denied = |rule: &str| Decision::Denied {
        rule: Some(rule.into()),
    };
    let no_rule = Decision::Denied { rule: None };
    for (subject, action, repository, expected) in [
        (&anonymous, Read, "public/a/b", allowed("public images")),
        (&anonymous, Read, "public", no_rule.clone()),
        (&user("alice"), Write, "home/alice/x", allowed("homes")),
        (&user("alice"), Move, "home/alice/x", allowed("homes")),
        (&user("alice"), Write, "home/bob/x", no_rule.clone()),
        // Not a legal component, so `{name}` has no value.
        (&user("A/b"), Write, "home/a/b", no_rule.clone()),
        (
            &user("zoe"),
            Delete,
            "prod/payments-api",
            denied("production is never deleted"),
        ),
        (&user("zoe"), Move, "prod/payments-api", allowed("payments team")),
        (&member, Move, "payments/api", allowed("payments team")),
        (&user("pat"), Move, "payments/api", no_rule.clone()),
        (
            &pipeline,
            Write,
            "acme/app",
            allowed("a pipeline publishes its own repository"),
        ),
        (&pipeline, Move, "acme/app", no_rule.clone()),
        (&pipeline, Write, "acme/other", no_rule.clone()),
        (&admin, Delete, "anything", allowed("admins")),
        (&admin, Delete, "prod/x", denied("production is never deleted")),
        (&robot, Read, "prod/x", allowed("robot:ci#1")),
        (&robot, Delete, "prod/x", denied("production is never deleted")),
        (&robot, Read, "home/ci/x", no_rule.clone()),
    ] {
        let found = policy.rules(subject).decide(action, &repository.parse().unwrap());
        assert_eq!(found, expected, "{subject:?} {action:?} {repository}");
    }

    let (shared, minute) = (policy.shared(), 60_000);
    let signature = format!("sha256-{}.sig", "0".repeat(64));
    for (tag, minutes, expected) in [
        ("1.4.0", 5, None),
        ("1.4.0", 11, Some("releases")),
        ("1.4.0-snapshot", 11, None),
        (&signature, 11, None),
    ] {
        let (repository, tag) = ("payments/api".parse().unwrap(), tag.parse().unwrap());
        let rule = shared.frozen(&repository, &tag, Timestamp(7), Timestamp(7 + minutes * minute));
        assert_eq!(rule.map(|rule| &*rule.name), expected, "{tag} {minutes}");
    }
    assert!(!shared.settings(&"prod/x".parse().unwrap()).foreign_layers);

    assert_eq!(policy.position_of("homes").map(|at| at.line), Some(17));
    let known = KnownNames {
        users: ["zoe".to_owned()].into(),
        groups: ["payments".parse().unwrap()].into(),
        ..KnownNames::default()
    };
    assert_eq!(policy.warnings(&known), Vec::new());
}

/// What a workload may do ends with its rule, whatever else the policy allows to others.
#[test]
fn a_workload_without_its_rule_may_do_nothing() {
    let policy = Policy::from_json(DOCUMENT).unwrap();
    let stranger = Subject::new(Principal::workload("acme-old", "acme/app").unwrap());
    let rules = policy.rules(&stranger);
    for repository in ["public/a", "acme/app"] {
        assert!(!rules.allow(ActionKind::Read, &repository.parse().unwrap()));
    }
}
