//! Properties of documents with every kind of entry. The environment variable `PROPTEST_CASES` sets how many are tried.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use crate::policy::Policy;

/// The members of an entry; those that are `None` are left out.
type Members = Vec<(&'static str, Option<Value>)>;

/// An entry with these members.
fn entry(members: Members) -> Value {
    let members = members
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(members.collect::<Map<_, _>>())
}

fn texts(all: &'static [&'static str]) -> impl Strategy<Value = Value> {
    subsequence(all.to_vec(), 1..=all.len().min(3)).prop_map(|texts| json!(texts))
}

fn durations() -> impl Strategy<Value = Value> {
    (1..500_u64, select(vec!["s", "m", "h", "d"])).prop_map(|(number, unit)| Value::from(format!("{number}{unit}")))
}

/// Any text that a name may be, but for the number before it, which makes it different from all others.
fn names() -> impl Strategy<Value = String> {
    "[ -~\u{e9}\u{1f980}]{0,20}"
}

fn issuer() -> impl Strategy<Value = Members> {
    let text = || option::of("[ -~\n]{1,20}".prop_map(Value::from));
    let parts = (
        texts(&["a", "https://r.example"]),
        text(),
        text(),
        option::of(any::<bool>()),
    );
    parts.prop_map(|(audience, jwks, ca, private)| {
        vec![
            ("url", Some("https://g.example/x".into())),
            ("audience", Some(audience)),
            ("jwks", jwks),
            ("ca", ca),
            ("private", private.map(Value::from)),
        ]
    })
}

fn workload() -> impl Strategy<Value = Members> {
    let claims = btree_map("[a-z_]{1,5}", "[ -~\u{e9}]{0,8}[!-~]", 1..4);
    let session = option::of((1..=720_u64).prop_map(|minutes| Value::from(format!("{minutes}m"))));
    let template = option::of(select(vec!["{a}", "x/{a}-{b}", "fixed"]).prop_map(Value::from));
    (claims, template, option::of(texts(&["ci", "dev", "a.b-c"])), session).prop_map(
        |(claims, template, groups, session)| {
            vec![
                ("issuer", Some("0".into())),
                ("claims", Some(json!(claims))),
                ("as", template),
                ("groups", groups),
                ("session", session),
            ]
        },
    )
}

fn access() -> impl Strategy<Value = Members> {
    let who = texts(&[
        "anyone",
        "signed-in",
        "users",
        "user:\u{e9}",
        "robot:ci",
        "group:admins",
        "workload:0",
    ]);
    let repositories = texts(&["**", "home/{name}/**", "a/*", "{name}"]);
    let actions = texts(&["pull", "create", "move", "push", "delete"]);
    (who, repositories, actions).prop_map(|(who, repositories, actions)| {
        vec![
            ("who", Some(who)),
            ("repositories", Some(repositories)),
            ("actions", Some(actions)),
        ]
    })
}

fn immutable() -> impl Strategy<Value = Members> {
    let tags = || texts(&["semver", "*", "release-*", "sha256-*", "V1_x"]);
    let parts = (
        texts(&["**", "a/**", "b", "*/c"]),
        tags(),
        option::of(tags()),
        option::of(durations()),
        option::of(any::<bool>()),
    );
    parts.prop_map(|(repositories, tags, except, grace, delete)| {
        vec![
            ("repositories", Some(repositories)),
            ("tags", Some(tags)),
            ("except", except),
            ("grace", grace),
            ("delete", delete.map(Value::from)),
        ]
    })
}

fn repository() -> impl Strategy<Value = Value> {
    let size = (1..5000_u64, select(vec!["B", "KiB", "MiB", "GiB", "TiB"]));
    let size = size.prop_map(|(number, unit)| Value::from(format!("{number}{unit}")));
    let create = select(vec!["on-push", "listed"]).prop_map(Value::from);
    let parts = (
        texts(&["**", "a/**", "b", "*/c"]),
        option::of(create),
        option::of(size),
        option::of(any::<bool>()),
    );
    parts.prop_map(|(repositories, create, max_blob, foreign_layers)| {
        entry(vec![
            ("match", Some(repositories)),
            ("create", create),
            ("max-blob", max_blob),
            ("foreign-layers", foreign_layers.map(Value::from)),
        ])
    })
}

/// Entries with names. The name of the first one is the number `start`, by which others refer to it.
fn named<S>(members: S, start: usize, min: usize) -> impl Strategy<Value = Vec<Value>>
where
    S: Strategy<Value = Members>,
{
    vec((members, names()), min..4).prop_map(move |entries| {
        let entries = entries.into_iter().enumerate().map(|(index, (mut members, name))| {
            let name = if index == 0 {
                start.to_string()
            } else {
                format!("{}{name}", start + index)
            };
            // The names of workloads are parts of names of principals, and `#` is for the names of grants.
            members.push(("name", Some(name.replace([':', '#'], "-").into())));
            entry(members)
        });
        entries.collect::<Vec<_>>()
    })
}

fn document() -> impl Strategy<Value = Value> {
    let parts = (
        named(issuer(), 0, 1),
        named(workload(), 0, 1),
        named(access(), 10, 0),
        named(access(), 20, 0),
        named(immutable(), 30, 0),
        vec(repository(), 0..4),
    );
    parts.prop_map(|(issuer, workload, allow, deny, immutable, repository)| {
        json!({
            "syntax": 1, "issuer": issuer, "workload": workload, "allow": allow, "deny": deny, "immutable": immutable,
            "repository": repository,
        })
    })
}

proptest! {
    /// The canonical text of a document is read as the same document, and there is one such text: whatever order the members
    /// had, and whether defaults were written.
    #[test]
    fn a_document_of_all_entries_is_read_back_from_its_canonical_text(document in document()) {
        let policy = Policy::from_json(&document.to_string()).unwrap();
        let text = policy.to_canonical_json();
        let again = Policy::from_json(&text).unwrap();
        prop_assert_eq!(again.to_canonical_json(), text.clone());
        prop_assert_eq!(again.shared(), policy.shared());
        let (one, other) = (policy.document(), again.document());
        prop_assert_eq!((one.issuers.len(), one.workloads.len()), (other.issuers.len(), other.workloads.len()));
        for (one, other) in one.workloads.iter().zip(&other.workloads) {
            prop_assert_eq!((&one.claims, &one.name_template, one.session_ms), (&other.claims, &other.name_template, other.session_ms));
        }
        for (one, other) in one.immutable.iter().zip(&other.immutable) {
            prop_assert_eq!((&one.tags, &one.except, one.grace_ms, one.delete), (&other.tags, &other.except, other.grace_ms, other.delete));
        }
        for (one, other) in one.repositories.iter().zip(&other.repositories) {
            prop_assert_eq!(
                (&one.repositories, one.create, one.max_blob, one.foreign_layers),
                (&other.repositories, other.create, other.max_blob, other.foreign_layers)
            );
        }
        prop_assert!(text.len() <= document.to_string().len(), "no longer than what was written");
    }
}
