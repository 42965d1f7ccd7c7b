//! Says which rule of a policy decides about a request, and where it is written.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use oci::{RepositoryName, Tag};
use registry::auth::{ActionKind, Decision, Rules, Subject};
use registry::policy::Policy;
use registry::store::Timestamp;

/// What a principal wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Read content and lists.
    Pull,
    /// Push content, and tags that do not exist.
    Create,
    /// Push to a tag that exists.
    Move,
    /// Push content, new tags, and other manifests to tags that exist.
    Push,
    /// Delete a tag, a manifest or a blob.
    Delete,
}

/// The text is no action.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not an action: expected pull, create, move, push or delete")]
pub struct WishError;

impl Wish {
    /// Every action.
    pub const ALL: [Self; 5] = [Self::Pull, Self::Create, Self::Move, Self::Push, Self::Delete];

    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Create => "create",
            Self::Move => "move",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }

    /// The permissions that it needs. Whether a push moves its tag depends on whether the tag exists.
    fn needs(self, tag: TagCondition) -> &'static [ActionKind] {
        match (self, tag) {
            (Self::Pull, _) => &[ActionKind::Read],
            (Self::Delete, _) => &[ActionKind::Delete],
            (Self::Create, TagCondition::Unknown) | (Self::Create | Self::Push, TagCondition::Absent) => {
                &[ActionKind::Write]
            }
            (Self::Move, _)
            | (Self::Push, TagCondition::Unknown)
            | (Self::Create | Self::Push, TagCondition::Since(_)) => &[ActionKind::Write, ActionKind::Move],
        }
    }
}

impl FromStr for Wish {
    type Err = WishError;

    fn from_str(text: &str) -> Result<Self, WishError> {
        Self::ALL
            .into_iter()
            .find(|wish| wish.as_str() == text)
            .ok_or(WishError)
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known of the tag of a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TagCondition {
    /// Nothing, or the question has no tag.
    Unknown,
    /// It does not exist.
    Absent,
    /// It has named the same manifest since this time.
    Since(Timestamp),
}

/// A question about one request.
#[derive(Clone, Debug)]
pub struct Question {
    /// What.
    pub wish: Wish,
    /// Where.
    pub repository: RepositoryName,
    /// The tag, and what is known of it.
    pub tag: Option<(Tag, TagCondition)>,
    /// When.
    pub now: Timestamp,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// Whether the request is allowed.
    pub allowed: bool,
    /// The rule that decides. `None`: no rule allows it.
    pub rule: Option<Arc<str>>,
    /// The line of the rule. `None`: no document has it: it is built in, or a grant of an account.
    pub line: Option<u32>,
    /// The reason, as a sentence.
    pub reason: String,
}

/// Answers a question about a principal.
///
/// The answer is what a server says to a request of this principal, if its token contains the action. For a push to a tag
/// that exists, it is the answer to a push of another manifest; the same manifest may always be pushed again.
#[must_use]
pub fn explain(policy: &Policy, subject: &Subject, question: &Question) -> Explanation {
    let rules = policy.rules(subject);
    let condition = question
        .tag
        .as_ref()
        .map_or(TagCondition::Unknown, |(_, condition)| *condition);
    let needs = question.wish.needs(condition);
    let decisions = needs
        .iter()
        .map(|kind| (*kind, rules.decide(*kind, &question.repository)));
    let mut allowed_by = None;
    for (kind, decision) in decisions {
        match decision {
            Decision::Allowed { rule } => allowed_by = rule,
            Decision::Denied { rule } => return denied(policy, &rules, subject, question, kind, rule),
        }
    }
    if let Some(frozen) = frozen(policy, question) {
        return frozen;
    }
    let at = place(policy, allowed_by.as_deref());
    let reason = match &allowed_by {
        None => format!("{} may do everything here", subject.principal),
        Some(rule) if at.is_none() && subject.is_admin() && &**rule == "admins" => {
            "members of the group admins may do everything".to_owned()
        }
        Some(rule) if at.is_none() && !subject.grants.is_empty() => format!("the grant {rule} allows it"),
        Some(rule) => format!("the rule {rule:?}{} allows it", line_text(at)),
    };
    Explanation {
        allowed: true,
        line: at,
        rule: allowed_by,
        reason: format!("{reason}{}", hint(policy, question)),
    }
}

fn denied(
    policy: &Policy,
    rules: &Rules,
    subject: &Subject,
    question: &Question,
    kind: ActionKind,
    rule: Option<Arc<str>>,
) -> Explanation {
    let (wish, repository) = (question.wish, &question.repository);
    // What was asked for may need two permissions, of which one is there.
    let part = match (kind, question.wish) {
        (ActionKind::Move, Wish::Create | Wish::Push) if rules.allow(ActionKind::Write, repository) => {
            match &question.tag {
                Some((tag, TagCondition::Since(_))) => {
                    format!(": the tag {tag} exists, and another manifest needs the action move")
                }
                _ => ": it may create tags, and not move existing ones".to_owned(),
            }
        }
        _ => String::new(),
    };
    let at = place(policy, rule.as_deref());
    let reason = match &rule {
        Some(rule) => format!("the rule {rule:?}{} denies it{part}", line_text(at)),
        None => format!("no rule allows {} to {wish} in {repository}{part}", subject.principal),
    };
    Explanation {
        allowed: false,
        line: at,
        rule,
        reason,
    }
}

/// The answer if an immutable rule forbids the request.
fn frozen(policy: &Policy, question: &Question) -> Option<Explanation> {
    let (tag, TagCondition::Since(since)) = question.tag.as_ref()? else {
        return None;
    };
    let shared = policy.shared();
    let (repository, now) = (&question.repository, question.now);
    let (rule, consequence) = match question.wish {
        Wish::Pull => return None,
        Wish::Delete => (shared.kept(repository, tag, *since, now)?, "is not deleted"),
        Wish::Create | Wish::Move | Wish::Push => (
            shared.frozen(repository, tag, *since, now)?,
            "is not moved; the manifest that it names may be pushed again",
        ),
    };
    let at = place(policy, Some(&rule.name));
    Some(Explanation {
        allowed: false,
        line: at,
        rule: Some(rule.name.clone()),
        reason: format!(
            "the rule {:?}{} freezes the tag {tag}: it {consequence}",
            &*rule.name,
            line_text(at)
        ),
    })
}

/// What will change about the tag.
fn hint(policy: &Policy, question: &Question) -> String {
    let Some((tag, condition)) = &question.tag else {
        return String::new();
    };
    // Later than any grace.
    let later = Timestamp(u64::MAX);
    match (
        question.wish,
        policy.shared().frozen(&question.repository, tag, Timestamp(0), later),
    ) {
        (Wish::Create | Wish::Move | Wish::Push, Some(rule)) if *condition != TagCondition::Unknown => {
            format!(
                "; the rule {:?}{} freezes the tag {tag} later",
                &*rule.name,
                line_text(place(policy, Some(&rule.name)))
            )
        }
        _ => String::new(),
    }
}

fn place(policy: &Policy, rule: Option<&str>) -> Option<u32> {
    policy.position_of(rule?).map(|at| at.line)
}

fn line_text(line: Option<u32>) -> String {
    line.map_or_else(String::new, |line| format!(" (line {line})"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
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
        let (repository, tag) = target
            .split_once(':')
            .map_or((target, None), |(name, tag)| (name, Some(tag)));
        let question = Question {
            wish,
            repository: repository.parse().unwrap(),
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
            let expected = match wish {
                Wish::Pull => may(&[ActionKind::Read]),
                Wish::Delete => may(&[ActionKind::Delete]) && !is_frozen,
                Wish::Move => may(&[ActionKind::Write, ActionKind::Move]) && !is_frozen,
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
                    tag: Some((tag.clone(), TagCondition::Absent)),
                    now: NOW,
                };
                prop_assert!(explain(&policy, &user, &question).allowed);
            }
        }
    }
}
