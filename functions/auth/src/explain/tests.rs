//! Explanations of one policy by example, and of random policies.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use registry::auth::{ActionKind, Principal};

use super::*;
use crate::grant;

const POLICY: &str = r#"syntax = 1
[[issuer]]
name = "github"
url = "https://token.actions.githubusercontent.com"
audience = ["https://registry.example.com"]
[[workload]]
name = "acme-main"
issuer = "github"
claims = { repository_owner_id = "65" }
as = "{repository}"
groups = ["ci"]
[[allow]]
name = "public images"
who = ["anyone"]
repositories = ["public/**"]
actions = ["pull"]
[[allow]]
name = "homes"
who = ["users"]
repositories = ["home/{name}/**"]
actions = ["pull", "push", "delete"]
[[allow]]
name = "payments team"
who = ["group:payments", "user:zoe"]
repositories = ["payments/**", "prod/payments-*"]
actions = ["pull", "push", "delete"]
[[allow]]
name = "a pipeline publishes its own repository"
who = ["workload:acme-main"]
repositories = ["{name}"]
actions = ["pull", "create"]
[[deny]]
name = "production is never deleted"
who = ["anyone"]
repositories = ["prod/**"]
actions = ["delete"]
[[immutable]]
name = "releases"
repositories = ["**"]
tags = ["semver", "release-*"]
except = ["*-snapshot"]
grace = "10m"
"#;
const NOW: Timestamp = Timestamp(1_796_000_000_000);
const MINUTE: u64 = 60_000;

fn since(minutes: u64) -> TagCondition {
    TagCondition::Since(Timestamp(NOW.0 - minutes * MINUTE))
}

fn subject(principal: &str, groups: &[&str], grants: &[&str]) -> Subject {
    Subject {
        groups: groups.iter().map(|text| text.parse().unwrap()).collect(),
        grants: grants.iter().map(|text| grant::parse(text).unwrap()).collect(),
        ..Subject::new(principal.parse().unwrap())
    }
}

fn ask(policy: &Policy, subject: &Subject, wish: Wish, target: &str, condition: TagCondition) -> Explanation {
    ask_where(policy, subject, wish, target, RepositoryCondition::Exists, condition)
}

fn ask_where(
    policy: &Policy,
    subject: &Subject,
    wish: Wish,
    target: &str,
    existence: RepositoryCondition,
    condition: TagCondition,
) -> Explanation {
    let (repository, tag) = target
        .split_once(':')
        .map_or((target, None), |(name, tag)| (name, Some(tag)));
    let question = Question {
        wish,
        repository: repository.parse().unwrap(),
        existence,
        tag: tag.map(|tag| (tag.parse().unwrap(), condition)),
        now: NOW,
    };
    explain(policy, subject, &question)
}

#[test]
fn the_deciding_rule_is_named_with_its_line() {
    use TagCondition::{Absent, Unknown};
    use Wish::{Create, Delete, Move, Pull, Push};

    let policy = crate::toml::policy(POLICY).unwrap();
    let (anonymous, alice, zoe) = (
        subject(":anonymous", &[], &[]),
        subject("alice", &[], &[]),
        subject("zoe", &[], &[]),
    );
    let member = subject("bob", &["payments"], &[]);
    let admin = subject("root", &["admins"], &[]);
    let pipeline = subject("workload:acme-main:acme/app", &[], &[]);
    let robot = subject("robot:ci", &[], &["pull,create:team/**"]);
    for (subject, wish, target, tag, allowed, rule, line) in [
        (
            &anonymous,
            Pull,
            "public/a/b",
            Unknown,
            true,
            Some("public images"),
            Some(12),
        ),
        (&anonymous, Pull, "public", Unknown, false, None, None),
        (&alice, Push, "home/alice/x", Unknown, true, Some("homes"), Some(17)),
        (&alice, Push, "home/bob/x", Unknown, false, None, None),
        (
            &zoe,
            Delete,
            "prod/payments-api:1",
            since(1),
            false,
            Some("production is never deleted"),
            Some(32),
        ),
        (
            &pipeline,
            Create,
            "acme/app:1.4.0",
            Absent,
            true,
            Some("a pipeline publishes its own repository"),
            Some(27),
        ),
        (
            &pipeline,
            Push,
            "acme/app:1.4.0",
            Absent,
            true,
            Some("a pipeline publishes its own repository"),
            Some(27),
        ),
        (&pipeline, Create, "acme/app:1.4.0", since(1), false, None, None),
        (&pipeline, Push, "acme/app", Unknown, false, None, None),
        (&pipeline, Pull, "acme/other", Unknown, false, None, None),
        (
            &member,
            Move,
            "payments/api:1.4.0",
            since(5),
            true,
            Some("payments team"),
            Some(22),
        ),
        (
            &member,
            Move,
            "payments/api:1.4.0",
            since(11),
            false,
            Some("releases"),
            Some(37),
        ),
        (
            &member,
            Push,
            "payments/api:1.4.0",
            since(11),
            false,
            Some("releases"),
            Some(37),
        ),
        (
            &member,
            Delete,
            "payments/api:1.4.0",
            since(11),
            false,
            Some("releases"),
            Some(37),
        ),
        (
            &member,
            Pull,
            "payments/api:1.4.0",
            since(11),
            true,
            Some("payments team"),
            Some(22),
        ),
        (
            &member,
            Move,
            "payments/api:1.4.0-snapshot",
            since(11),
            true,
            Some("payments team"),
            Some(22),
        ),
        (&admin, Push, "any/thing", Unknown, true, Some("admins"), None),
        (
            &admin,
            Delete,
            "prod/x",
            Unknown,
            false,
            Some("production is never deleted"),
            Some(32),
        ),
        (
            &admin,
            Move,
            "any/thing:1.0.0",
            since(11),
            false,
            Some("releases"),
            Some(37),
        ),
        (&robot, Create, "team/app", Unknown, true, Some("robot:ci#1"), None),
        (&robot, Move, "team/app:x", since(1), false, None, None),
    ] {
        let answer = ask(&policy, subject, wish, target, tag);
        let found = (answer.allowed, answer.rule.as_deref(), answer.line);
        assert_eq!(
            found,
            (allowed, rule, line),
            "{} {wish} {target}: {answer:?}",
            subject.principal
        );
    }
}

#[test]
fn reasons_are_sentences() {
    let policy = crate::toml::policy(POLICY).unwrap();
    let bob = subject("bob", &["payments"], &[]);
    let robot = subject("robot:ci", &[], &["pull,create:team/**"]);
    let admin = subject("root", &["admins"], &[]);
    for (subject, wish, target, condition, reason) in [
        (
            &bob,
            Wish::Push,
            "team/app",
            TagCondition::Unknown,
            "no rule allows bob to push in team/app",
        ),
        (
            &robot,
            Wish::Push,
            "team/app",
            TagCondition::Unknown,
            "no rule allows robot:ci to push in team/app: it may create tags, and not move existing ones",
        ),
        (
            &robot,
            Wish::Push,
            "team/app:x",
            since(1),
            "no rule allows robot:ci to push in team/app: the tag x exists, and another manifest needs the action move",
        ),
        (
            &robot,
            Wish::Pull,
            "team/app",
            TagCondition::Unknown,
            "the grant robot:ci#1 allows it",
        ),
        (
            &admin,
            Wish::Pull,
            "a",
            TagCondition::Unknown,
            "members of the group admins may do everything",
        ),
        (
            &bob,
            Wish::Pull,
            "payments/a",
            TagCondition::Unknown,
            "the rule \"payments team\" (line 22) allows it",
        ),
        (
            &bob,
            Wish::Push,
            "payments/a:1.0.0",
            TagCondition::Absent,
            "the rule \"payments team\" (line 22) allows it; the rule \"releases\" (line 37) freezes the tag 1.0.0 later",
        ),
        (
            &bob,
            Wish::Push,
            "payments/a:1.0.0",
            since(10),
            "the rule \"releases\" (line 37) freezes the tag 1.0.0: it is not moved; the manifest that it names may be \
             pushed again",
        ),
        (
            &bob,
            Wish::Delete,
            "prod/payments-a",
            TagCondition::Unknown,
            "the rule \"production is never deleted\" (line 32) denies it",
        ),
    ] {
        assert_eq!(ask(&policy, subject, wish, target, condition).reason, reason);
    }
}

#[test]
fn the_settings_of_a_repository_are_explained() {
    use RepositoryCondition::{Absent, Exists, Unknown};

    let text = format!(
        "{POLICY}[[repository]]\nmatch = [\"payments/**\"]\ncreate = \"listed\"\nmax-blob = \"2GiB\"\n\
         foreign-layers = false\n[[repository]]\nmatch = [\"prod/**\"]\nmax-blob = \"1500B\"\n"
    );
    let policy = crate::toml::policy(&text).unwrap();
    let bob = subject("bob", &["payments"], &[]);
    let allowed = |demanded: &str| {
        let demanded = match demanded {
            "" => String::new(),
            text => format!("; the settings of the repository {text}"),
        };
        (
            true,
            Some(22),
            format!("the rule \"payments team\" (line 22) allows it{demanded}"),
        )
    };
    let content = "blobs have at most 2GiB, no layer is stored elsewhere";
    let denied = |line, reason: &str| (false, line, reason.to_owned());
    let not_created = "the repository payments/a does not exist, and its settings (line 43) do not let a push create it: \
                       `roadstead repo create payments/a` does";
    for (wish, target, existence, condition, expected) in [
        (
            Wish::Create,
            "payments/a",
            Exists,
            TagCondition::Unknown,
            allowed(&format!("(line 43) demand: {content}")),
        ),
        (
            Wish::Push,
            "payments/a",
            Unknown,
            TagCondition::Unknown,
            allowed(&format!("(line 43) demand: it exists before the push, {content}")),
        ),
        (
            Wish::Create,
            "payments/a",
            Absent,
            TagCondition::Unknown,
            denied(Some(43), not_created),
        ),
        (
            Wish::Push,
            "payments/a:1.0.0",
            Absent,
            TagCondition::Absent,
            denied(Some(43), not_created),
        ),
        (
            Wish::Move,
            "payments/a:x",
            Absent,
            TagCondition::Absent,
            denied(Some(43), not_created),
        ),
        // What is not there is nevertheless allowed to be pulled and deleted.
        (Wish::Pull, "payments/a", Absent, TagCondition::Unknown, allowed("")),
        (Wish::Delete, "payments/a:x", Absent, TagCondition::Absent, allowed("")),
        // The policy decides first.
        (
            Wish::Push,
            "team/app",
            Absent,
            TagCondition::Unknown,
            denied(None, "no rule allows bob to push in team/app"),
        ),
        (
            Wish::Push,
            "prod/payments-a",
            Absent,
            TagCondition::Unknown,
            allowed("(line 48) demand: blobs have at most 1500B"),
        ),
        (
            Wish::Pull,
            "prod/payments-a",
            Exists,
            TagCondition::Unknown,
            allowed(""),
        ),
    ] {
        let answer = ask_where(&policy, &bob, wish, target, existence, condition);
        assert_eq!(
            (answer.allowed, answer.line, answer.reason),
            expected,
            "{wish} {target}"
        );
    }
}

/// A tag that was deleted while it was frozen comes back only with its manifest.
#[test]
fn a_deleted_tag_is_explained() {
    let policy = crate::toml::policy(POLICY).unwrap();
    let bob = subject("bob", &["payments"], &[]);
    let deleted = |stood: u64| TagCondition::Deleted {
        since: Timestamp(NOW.0 - 30 * MINUTE),
        at: Timestamp(NOW.0 - (30 - stood) * MINUTE),
    };
    for (wish, target, stood, allowed) in [
        (Wish::Push, "payments/a:1.0.0", 9, true),
        (Wish::Push, "payments/a:1.0.0", 10, false),
        (Wish::Create, "payments/a:1.0.0", 10, false),
        (Wish::Create, "payments/a:latest", 10, true),
        (Wish::Pull, "payments/a:1.0.0", 10, true),
        (Wish::Delete, "payments/a:1.0.0", 10, true),
    ] {
        let answer = ask(&policy, &bob, wish, target, deleted(stood));
        assert_eq!(answer.allowed, allowed, "{wish} {target} {stood}: {answer:?}");
        if !allowed {
            let expected = "the rule \"releases\" (line 37) keeps frozen the deleted tag 1.0.0: it comes back only with the \
                            manifest that it named";
            assert_eq!(answer.reason, expected);
        }
    }
}

/// What no text has, has no line.
#[test]
fn rules_that_are_built_in_have_no_line() {
    let default = Policy::default_policy();
    let alice = subject("alice", &[], &[]);
    let everyone = subject(":anonymous", &[], &[]);
    for (policy, subject, wish, rule, reason) in [
        (
            default.clone(),
            &alice,
            Wish::Push,
            "default",
            "no policy was set, and by the default policy users may do everything",
        ),
        (
            default.allowing_anonymous_pull(),
            &everyone,
            Wish::Pull,
            "--allow-anonymous pull",
            "the servers run with --allow-anonymous pull: everyone may pull",
        ),
    ] {
        let answer = ask(&policy, subject, wish, "a/b", TagCondition::Unknown);
        let found = (answer.allowed, answer.rule.as_deref(), answer.line, &*answer.reason);
        assert_eq!(found, (true, Some(rule), None, reason));
    }
}

fn policies() -> impl Strategy<Value = Policy> {
    let words = |words: &'static [&'static str]| prop::collection::btree_set(prop::sample::select(words), 1..3);
    let rule = (
        words(&["anyone", "users", "robots", "user:alice", "group:ops", "signed-in"]),
        words(&["**", "a/**", "a/b", "b", "{name}/**"]),
        words(&["pull", "create", "move", "push", "delete"]),
        any::<bool>(),
    );
    prop::collection::vec(rule, 0..6).prop_map(|rules| {
        let quoted = |words: &BTreeSet<&str>| {
            let words: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
            words.join(", ")
        };
        let rules = rules
            .iter()
            .enumerate()
            .map(|(number, (who, repositories, actions, is_allow))| {
                let kind = if *is_allow { "allow" } else { "deny" };
                format!(
                    "[[{kind}]]\nname = \"r{number}\"\nwho = [{}]\nrepositories = [{}]\nactions = [{}]\n",
                    quoted(who),
                    quoted(repositories),
                    quoted(actions)
                )
            });
        let immutable = "[[immutable]]\nname = \"frozen\"\nrepositories = [\"a/**\"]\ntags = [\"v*\"]\n";
        crate::toml::policy(&format!("syntax = 1\n{}{immutable}", rules.collect::<String>())).unwrap()
    })
}

proptest! {
    /// The answer is what the compiled rules decide about the permissions that the request needs, and the named rule is in
    /// the document at that line.
    #[test]
    fn an_explanation_is_what_the_rules_decide(
        policy in policies(),
        principal in prop::sample::select(vec![":anonymous", "alice", "bob", "robot:ci"]),
        group in any::<bool>(),
        repository in prop::sample::select(vec!["a", "a/b", "b", "alice/x", "c"]),
        wish in prop::sample::select(Wish::ALL.to_vec()),
        tag in prop::sample::select(vec![TagCondition::Unknown, TagCondition::Absent, since(1)]),
    ) {
        let subject = subject(principal, if group { &["ops"] } else { &[] }, &[]);
        let rules = policy.rules(&subject);
        let name = repository.parse().unwrap();
        let may = |kinds: &[ActionKind]| kinds.iter().all(|kind| rules.allow(*kind, &name));
        let exists = matches!(tag, TagCondition::Since(_));
        let is_frozen = exists && repository == "a/b";
        let is_never_moved = is_frozen || (tag == TagCondition::Absent && repository == "a/b");
        let expected = match wish {
            Wish::Pull => may(&[ActionKind::Read]),
            Wish::Delete => may(&[ActionKind::Delete]) && !is_frozen,
            Wish::Move => may(&[ActionKind::Write, ActionKind::Move]) && !is_never_moved,
            Wish::Create | Wish::Push if exists => may(&[ActionKind::Write, ActionKind::Move]) && !is_frozen,
            Wish::Push if tag == TagCondition::Unknown => may(&[ActionKind::Write, ActionKind::Move]),
            Wish::Create | Wish::Push => may(&[ActionKind::Write]),
        };
        let answer = ask(&policy, &subject, wish, &format!("{repository}:v1"), tag);
        prop_assert_eq!(answer.allowed, expected, "{:?}", answer);
        let line = answer.rule.as_deref().and_then(|rule| policy.position_of(rule)).map(|at| at.line);
        prop_assert_eq!(answer.line, line);
        prop_assert!(answer.rule.is_none() || line.is_some());
        prop_assert!(!answer.allowed || answer.rule.is_some());
    }

    #[test]
    fn any_principal_and_tag(name in "[a-z]{1,8}", tag in "[a-z0-9.]{1,12}") {
        let policy = Policy::default_policy();
        let user = Subject::new(Principal::user(&name).unwrap());
        let Ok(tag) = tag.parse::<Tag>() else { return Ok(()) };
        for wish in Wish::ALL {
            let question = Question {
                wish,
                repository: "a".parse().unwrap(),
                existence: RepositoryCondition::Exists,
                tag: Some((tag.clone(), TagCondition::Absent)),
                now: NOW,
            };
            prop_assert!(explain(&policy, &user, &question).allowed);
        }
    }
}
