//! Explanations are what the registry answers: for random policies, every answer of `POST explain` is compared with what the
//! registry says to the request itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use oci::{Algorithm, Digest, MediaType};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use registry::store::access::{AccountKind, PolicyForm};
use serde_json::{Value, json};

use super::support::{Call, PASSWORD, World, name};
use crate::administration::accounts::{AccountEdit, NewAccount};
use crate::administration::keys::NewKey;
use crate::administration::policies::{MadeFrom, NewPolicy};
use crate::administration::{Author, LastAdmin};
use crate::grant;
use crate::test_environment::one_in;

const MINUTE_MS: u64 = 60_000;
/// A digest that no repository has.
const UNKNOWN: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// The groups and grants of accounts. Each has a key.
const ACCOUNTS: [(&str, AccountKind, &[&str], &[&str]); 6] = [
    ("alice", AccountKind::User, &["ops"], &[]),
    ("bob", AccountKind::User, &[], &[]),
    ("dora", AccountKind::User, &["ops"], &[]),
    (
        "ci",
        AccountKind::Robot,
        &[],
        &["pull,create:team/**", "push,delete:alice/x"],
    ),
    ("root", AccountKind::User, &["admins"], &[]),
    ("audra", AccountKind::User, &["auditors"], &[]),
];
/// Its credentials are not good.
const DISABLED: &str = "dora";
/// The principals of the questions. `filer` is a user of a file.
const PRINCIPALS: [&str; 7] = ["anonymous", "alice", "bob", DISABLED, "robot:ci", "root", "filer"];
/// The repositories that exist, and two that do not.
const EXISTING: [&str; 2] = ["team/app", "alice/x"];
const REPOSITORIES: [&str; 4] = [EXISTING[0], EXISTING[1], "team/new", "other"];
/// The tags of the repositories that exist: one that stood for long, one that was made just now, one that was deleted after it
/// had stood for long, and one that no rule freezes; and one that never existed.
const TAGS: [&str; 5] = ["v1.0.0", "v2.0.0", "v3.0.0", "latest", "v4.0.0"];

/// How a client proves who it is.
#[derive(Clone, Copy, Debug)]
enum Proof {
    Basic,
    Bearer,
    /// By a token for all actions in the repository.
    Token,
}

/// A question, and then the requests that it is about.
#[derive(Clone, Debug)]
struct Step {
    principal: &'static str,
    proof: Proof,
    action: &'static str,
    repository: &'static str,
    tag: Option<&'static str>,
    /// The time that passes before it.
    minutes: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        select(PRINCIPALS.to_vec()),
        select(vec![Proof::Basic, Proof::Bearer, Proof::Token]),
        select(vec!["pull", "create", "move", "push", "delete"]),
        select(REPOSITORIES.to_vec()),
        option::weighted(0.7, select(TAGS.to_vec())),
        select(vec![0, 0, 0, 4, 11]),
    );
    let step = step.prop_map(|(principal, proof, action, repository, tag, minutes)| Step {
        principal,
        proof,
        action,
        repository,
        tag,
        minutes,
    });
    vec(step, 1..6)
}

fn list(words: &[&str]) -> String {
    json!(words).to_string()
}

/// A policy with rules that allow and deny, rules that freeze tags, and settings of repositories. `None`: no policy was set.
fn policies() -> impl Strategy<Value = Option<String>> {
    let patterns = || subsequence(vec!["**", "team/**", "team/app", "{name}/**", "other"], 1..3);
    let rule = (
        prop::bool::weighted(0.75),
        subsequence(
            vec![
                "anyone",
                "signed-in",
                "users",
                "robots",
                "user:alice",
                "group:ops",
                "robot:ci",
                "group:admins",
            ],
            1..3,
        ),
        patterns(),
        subsequence(vec!["pull", "create", "move", "push", "delete"], 1..4),
    );
    let immutable = (
        select(vec!["**", "team/**"]),
        select(vec!["semver", "v*", "v1*"]),
        any::<bool>(),
        any::<bool>(),
    );
    let settings = (select(vec!["**", "team/**", "alice/x"]), any::<bool>(), any::<bool>());
    let parts = (vec(rule, 0..6), vec(immutable, 0..3), vec(settings, 0..3));
    let policy = parts.prop_map(|(rules, immutable, settings)| {
        let rules = rules.iter().enumerate().map(|(number, (allows, who, repositories, actions))| {
            format!(
                "[[{}]]\nname = \"rule {number}\"\nwho = {}\nrepositories = {}\nactions = {}\n",
                if *allows { "allow" } else { "deny" },
                list(who),
                list(repositories),
                list(actions),
            )
        });
        let immutable = immutable.iter().enumerate().map(|(number, (repositories, tags, delete, has_grace))| {
            let grace = if *has_grace { "grace = \"10m\"\n" } else { "" };
            format!(
                "[[immutable]]\nname = \"frozen {number}\"\nrepositories = [\"{repositories}\"]\ntags = [\"{tags}\"]\n\
                 {grace}delete = {delete}\n"
            )
        });
        let settings = settings.iter().map(|(repositories, is_listed, foreign_layers)| {
            let create = if *is_listed { "listed" } else { "on-push" };
            format!(
                "[[repository]]\nmatch = [\"{repositories}\"]\ncreate = \"{create}\"\nforeign-layers = {foreign_layers}\n"
            )
        });
        let entries: String = rules.chain(immutable).chain(settings).collect();
        format!("syntax = 1\n{entries}")
    });
    option::weighted(0.95, policy)
}

/// A registry with accounts and tags, and the keys of the accounts.
struct Registry {
    world: World,
    keys: BTreeMap<&'static str, String>,
    /// How many manifests were made. Each is another one.
    manifests: AtomicU64,
}

impl Registry {
    async fn new(policy: Option<&str>, anonymous_pull: bool) -> Self {
        let mut registry = Self {
            world: World::without_accounts(anonymous_pull),
            keys: BTreeMap::new(),
            manifests: AtomicU64::new(0),
        };
        for (account, kind, groups, grants) in ACCOUNTS {
            registry.add(account, kind, groups, grants).await;
        }
        let (author, disabled) = (Author::operator(), name(DISABLED));
        let edit = AccountEdit {
            disabled: Some(true),
            ..AccountEdit::default()
        };
        let administration = &registry.world.administration;
        let changed = administration.change(&author, (&disabled).into(), &edit, LastAdmin::Stays);
        changed.await.unwrap();
        // The default policy lets users do everything.
        for repository in EXISTING {
            for tag in ["v1.0.0", "v3.0.0", "latest"] {
                let put = registry.put(repository, tag);
                registry.by_key(put, "root").send().await.expect(201);
            }
        }
        registry.world.clock.pass(11 * MINUTE_MS);
        for repository in EXISTING {
            let delete = registry.call("DELETE", repository, "manifests/v3.0.0");
            registry.by_key(delete, "root").send().await.expect(202);
            let put = registry.put(repository, "v2.0.0");
            registry.by_key(put, "root").send().await.expect(201);
        }
        if let Some(source) = policy {
            let new = NewPolicy {
                form: PolicyForm::Toml,
                source: source.to_owned(),
                note: None,
                made_from: MadeFrom::Any,
            };
            let set = registry.world.administration.set_policy(&author, &new).await;
            set.unwrap_or_else(|error| panic!("{error}: {source}"));
        }
        // Until then the registry may decide by what it read before.
        registry.world.clock.pass(10_000);
        registry
    }

    async fn add(&mut self, account: &'static str, kind: AccountKind, groups: &[&str], grants: &[&str]) {
        let new = NewAccount {
            groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
            grants: grants.iter().map(|text| grant::parse(text).unwrap()).collect(),
            key: Some(NewKey {
                scope: None,
                expires: None,
            }),
            ..NewAccount::new(name(account), kind)
        };
        let created = self.world.administration.create(&Author::operator(), new).await;
        let key = created.unwrap().key.unwrap().key;
        self.keys.insert(account, key.expose().to_owned());
    }

    fn call(&self, method: &str, repository: &str, target: &str) -> Call<'_> {
        self.world.request(method, &format!("/v2/{repository}/{target}"))
    }

    fn by_key<'a>(&self, call: Call<'a>, account: &str) -> Call<'a> {
        call.basic(account, &self.keys[account])
    }

    /// A push of a manifest that was never pushed before, under a tag or, without one, under its digest.
    fn put(&self, repository: &str, tag: &str) -> Call<'_> {
        let number = self.manifests.fetch_add(1, Ordering::SeqCst);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::OCI_INDEX,
            "manifests": [],
            "annotations": { "number": number.to_string() },
        });
        let manifest = manifest.to_string();
        let reference = match tag {
            "" => Digest::of(Algorithm::Sha256, manifest.as_bytes()).to_string(),
            tag => tag.to_owned(),
        };
        let call = self.call("PUT", repository, &format!("manifests/{reference}"));
        call.text(MediaType::OCI_INDEX, manifest)
    }

    /// The answer of `POST explain` to `caller`.
    async fn explained(&self, caller: &str, step: &Step) -> Explained {
        let body = json!({
            "principal": step.principal,
            "action": step.action,
            "repository": step.repository,
            "tag": step.tag,
        });
        let call = self.world.call("POST", "explain").json(&body);
        let answer = self.by_key(call, caller).send().await.expect(200).json();
        let is_allowed = match answer["decision"].as_str() {
            Some("allowed") => true,
            Some("denied") => false,
            _ => panic!("{answer}"),
        };
        Explained {
            is_allowed,
            rule: answer["rule"].as_str().map(ToOwned::to_owned),
            reason: answer["reason"].as_str().unwrap().to_owned(),
        }
    }

    /// The requests that the action consists of. Each is sent only if those before it were permitted.
    fn requests(&self, step: &Step) -> Vec<Call<'_>> {
        let repository = step.repository;
        // Another tag each time, which no rule freezes.
        let new_tag = format!("new-{}", self.manifests.load(Ordering::SeqCst));
        match (step.action, step.tag) {
            ("pull", Some(tag)) => vec![self.call("GET", repository, &format!("manifests/{tag}"))],
            ("pull", None) => vec![
                self.call("GET", repository, "tags/list"),
                self.call("HEAD", repository, &format!("blobs/{UNKNOWN}")),
            ],
            ("create", None) => vec![
                self.call("POST", repository, "blobs/uploads/"),
                self.put(repository, ""),
                self.put(repository, &new_tag),
            ],
            ("create" | "push", Some(tag)) => vec![self.put(repository, tag)],
            // The first one makes the tag, if it does not exist.
            ("move", Some(tag)) => vec![self.put(repository, tag), self.put(repository, tag)],
            ("move" | "push", None) => vec![self.put(repository, &new_tag), self.put(repository, &new_tag)],
            ("delete", Some(tag)) => vec![self.call("DELETE", repository, &format!("manifests/{tag}"))],
            ("delete", None) => vec![self.call("DELETE", repository, &format!("blobs/{UNKNOWN}"))],
            (action, _) => panic!("{action} is no action"),
        }
    }

    /// The credentials of a principal: the call with them, or the status with which it gets none.
    async fn prove<'a>(&'a self, call: Call<'a>, step: &Step) -> Result<Call<'a>, u16> {
        let account = step.principal.trim_start_matches("robot:");
        let basic = |call: Call<'a>| match step.principal {
            "anonymous" => call,
            "filer" => call.basic("filer", PASSWORD),
            _ => self.by_key(call, account),
        };
        match step.proof {
            Proof::Bearer if self.keys.contains_key(account) => Ok(call.bearer(&self.keys[account])),
            Proof::Basic | Proof::Bearer => Ok(basic(call)),
            Proof::Token => {
                let path = format!("/token?scope=repository:{}:pull,push,delete", step.repository);
                let granted = basic(self.world.request("GET", &path)).send().await;
                if granted.status != 200 {
                    return Err(granted.status);
                }
                Ok(call.bearer(granted.json()["token"].as_str().unwrap()))
            }
        }
    }

    /// Whether the registry permits all requests, and else the rule that it names.
    async fn permits(&self, step: &Step) -> Result<(), NamedRule> {
        for call in self.requests(step) {
            let (status, rule) = match self.prove(call, step).await {
                Ok(call) => {
                    let reply = call.send().await;
                    let rule = match reply.status {
                        // A HEAD has no body.
                        403 if !reply.text.is_empty() => named_rule(&reply.json()["errors"][0]["detail"]),
                        _ => NamedRule::Unknown,
                    };
                    (reply.status, rule)
                }
                Err(status) => (status, NamedRule::Unknown),
            };
            let is_push = !matches!(step.action, "pull" | "delete");
            match status {
                200..=202 => {}
                // What is permitted and not there.
                404 if !is_push => {}
                // The repository of a push has to exist.
                404 | 401 | 403 => return Err(rule),
                status => panic!("{status}: {step:?}"),
            }
        }
        Ok(())
    }
}

/// An answer of `POST explain`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Explained {
    is_allowed: bool,
    rule: Option<String>,
    reason: String,
}

/// The rule that a refusal names.
#[derive(Clone, PartialEq, Eq, Debug)]
enum NamedRule {
    /// The refusal has no details, or those of a tag that the principal may only create.
    Unknown,
    /// No rule allows the action.
    None,
    /// This one forbids it.
    Rule(String),
}

fn named_rule(detail: &Value) -> NamedRule {
    match (detail["rule"].as_str(), &detail["action"]) {
        (Some(rule), _) => NamedRule::Rule(rule.to_owned()),
        (None, Value::String(_)) => NamedRule::None,
        (None, _) => NamedRule::Unknown,
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(test);
}

proptest! {
    // Each case makes accounts in a registry of its own, which answers many requests: a third of a second.
    #![proptest_config(one_in(200))]

    /// What an explanation allows, the registry permits; what it denies, the registry refuses, and by the same rule.
    #[test]
    fn an_explanation_is_what_the_registry_answers(
        policy in policies(),
        anonymous_pull in prop::bool::weighted(0.2),
        steps in steps(),
    ) {
        run(async {
            let registry = Registry::new(policy.as_deref(), anonymous_pull).await;
            for step in &steps {
                registry.world.clock.pass(step.minutes * MINUTE_MS);
                let answer = registry.explained("audra", step).await;
                let about_oneself = match registry.keys.get_key_value(step.principal.trim_start_matches("robot:")) {
                    Some((account, _)) if *account != DISABLED => Some(registry.explained(account, step).await),
                    _ => None,
                };
                let pulls = Step { action: "pull", ..step.clone() };
                let knows_all = registry.explained("audra", &pulls).await.is_allowed;
                let permitted = registry.permits(step).await;
                assert_eq!(answer.is_allowed, permitted.is_ok(), "{step:?}: {answer:?}\n{policy:?}");
                match permitted {
                    Ok(()) | Err(NamedRule::Unknown) => {}
                    // A token has only those grants of a robot that allow what it grants, so that a rule may deny nothing of it.
                    Err(NamedRule::None) if matches!(step.proof, Proof::Token) => {}
                    Err(NamedRule::None) => assert_eq!(answer.rule, None, "{step:?}: {answer:?}\n{policy:?}"),
                    Err(NamedRule::Rule(rule)) => {
                        assert_eq!(answer.rule, Some(rule), "{step:?}: {answer:?}\n{policy:?}");
                    }
                }
                // Principals that may pull a repository get the same answer about themselves as an auditor.
                if knows_all && let Some(own) = about_oneself {
                    assert_eq!(own, answer, "{step:?}");
                }
            }
        });
    }
}

/// Each kind of answer by example, and the requests themselves.
#[test]
fn explanations_are_of_every_kind() {
    const POLICY: &str = r#"syntax = 1
[[allow]]
name = "team"
who = ["users"]
repositories = ["team/**"]
actions = ["pull", "push", "delete"]
[[deny]]
name = "kept"
who = ["user:bob"]
repositories = ["**"]
actions = ["delete"]
[[immutable]]
name = "releases"
repositories = ["**"]
tags = ["v*"]
grace = "10m"
[[repository]]
match = ["team/new"]
create = "listed"
"#;
    run(async {
        let registry = Registry::new(Some(POLICY), false).await;
        for (question, is_allowed, reason) in [
            (
                "alice push team/app latest",
                true,
                "the rule \"team\" (line 2) allows it",
            ),
            ("alice push alice/x", false, "no rule allows alice to push in alice/x"),
            ("bob delete team/app", false, "the rule \"kept\" (line 7) denies it"),
            ("alice push team/app v1.0.0", false, "freezes the tag v1.0.0"),
            ("alice delete team/app v1.0.0", false, "is not deleted"),
            ("alice push team/app v2.0.0", true, "freezes the tag v2.0.0 later"),
            (
                "alice create team/app v3.0.0",
                false,
                "keeps frozen the deleted tag v3.0.0",
            ),
            (
                "alice push team/new",
                false,
                "its settings (line 17) do not let a push create it",
            ),
            (
                "filer push team/app latest",
                true,
                "allows it; there is no account filer: this is the answer for a user of a htpasswd file",
            ),
            ("root push other", true, "members of the group admins may do everything"),
            ("robot:ci create team/app", true, "the grant robot:ci#1 allows it"),
            (
                "robot:ci move team/app latest",
                false,
                "no rule allows robot:ci to move",
            ),
            ("robot:ci push team/app latest", false, "needs the action move"),
            ("dora pull team/app", false, "the account dora is disabled"),
            ("anonymous pull team/app", false, "no rule allows :anonymous to pull"),
        ] {
            let mut words = question.split(' ');
            let mut word = || words.next().unwrap();
            let step = Step {
                principal: word(),
                proof: Proof::Token,
                action: word(),
                repository: word(),
                tag: words.next(),
                minutes: 0,
            };
            let answer = registry.explained("audra", &step).await;
            assert_eq!(answer.is_allowed, is_allowed, "{step:?}: {answer:?}");
            assert!(answer.reason.contains(reason), "{step:?}: {answer:?}");
            let permits = registry.permits(&step).await;
            assert_eq!(permits.is_ok(), is_allowed, "{step:?}");
            if question == "bob delete team/app" {
                assert_eq!(permits, Err(NamedRule::Rule("kept".to_owned())));
            }
        }
    });
}
