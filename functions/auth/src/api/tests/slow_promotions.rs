//! Accounts and policies that change while a promotion brings manifests.

use registry::store::access::PolicyForm;
use serde_json::json;

use super::support::{World, name};
use crate::administration::accounts::AccountEdit;
use crate::administration::policies::{MadeFrom, NewPolicy};
use crate::administration::{Administration, Author, LastAdmin};

/// Users pull and push the source and the target.
const POLICY: &str = r#"{"syntax":1,"allow":[{"name":"p","who":["users"],"repositories":["a/b","prod/app"],"actions":["pull","push"]}]}"#;
/// The source may not be pulled any more.
const NO_SOURCE: &str =
    r#"{"syntax":1,"allow":[{"name":"p","who":["users"],"repositories":["prod/app"],"actions":["pull","push"]}]}"#;
/// The tag in the target is immutable.
const IMMUTABLE: &str = r#"{"syntax":1,"allow":[{"name":"p","who":["users"],"repositories":["a/b","prod/app"],"actions":["pull","push"]}],
    "immutable":[{"name":"i","repositories":["prod/app"],"tags":["stable"]}]}"#;

/// What changes while manifests are brought.
#[derive(Clone, Copy, Debug)]
enum Change {
    Nothing,
    Disabled,
    Policy(&'static str),
}

impl Change {
    async fn make(self, administration: &Administration) {
        let author = Author::operator();
        match self {
            Self::Nothing => {}
            Self::Disabled => {
                let edit = AccountEdit {
                    disabled: Some(true),
                    ..AccountEdit::default()
                };
                let alice = name("alice");
                let changed = administration.change(&author, (&alice).into(), &edit, LastAdmin::Stays);
                changed.await.unwrap();
            }
            Self::Policy(source) => {
                let policy = NewPolicy {
                    form: PolicyForm::Json,
                    source: source.to_owned(),
                    note: None,
                    made_from: MadeFrom::Any,
                };
                administration.set_policy(&author, &policy).await.unwrap();
            }
        }
    }
}

/// A promotion puts its manifest, its signature, the tag of the signature, and then its tag. Before each change of tags, the
/// caller still needs its rights if they were read ten seconds ago or longer. Nothing else ends a promotion that takes long,
/// not even the end of the token that began it.
#[tokio::test]
async fn s17_what_is_taken_away_while_manifests_are_brought_moves_no_tag() {
    let hour = 3_600_000;
    // Before which put how much time passes and what changes; the status, and whether the signature gets its tag.
    for (put, millis, change, status, is_signed) in [
        (1, 9_999, Change::Disabled, 200, true),
        (1, 10_000, Change::Disabled, 401, false),
        (2, 10_000, Change::Disabled, 401, false),
        (3, 10_000, Change::Disabled, 401, true),
        (1, 10_000, Change::Policy(NO_SOURCE), 403, false),
        (1, 10_000, Change::Policy(IMMUTABLE), 403, true),
        (3, 10_000, Change::Policy(IMMUTABLE), 403, true),
        (1, hour, Change::Policy(POLICY), 200, true),
        (3, hour, Change::Nothing, 200, true),
    ] {
        for login in ["password", "key", "token"] {
            let what = format!("{put} {millis} {change:?} {login}");
            let world = World::new().await;
            Change::Policy(POLICY).make(&world.administration).await;
            world.put("prod/app", &["stable"], 1).await;
            let signature = format!("sha256-{}.sig", World::digest(2).hex());
            world.put("a/b", &[&signature], 3).await;
            let call = world.call("POST", "tags/promote");
            let call = call.json(&json!({ "from": "a/b:latest", "to": "prod/app:stable" }));
            let call = match login {
                "password" => call.user("alice"),
                "key" => call.bearer(&world.key.1),
                _ => call.bearer(&world.token("registry:api:*").await),
            };
            let (metadata, clock) = (world.metadata.clone(), world.clock.clone());
            world.meanwhile.before_put(put, async move {
                clock.pass(millis);
                change.make(&Administration::new(metadata, clock, 1000)).await;
            });
            let reply = call.send().await;
            assert_eq!(reply.status, status, "{what}: {reply:?}");
            assert!(world.meanwhile.is_over(), "{what}");
            let named = World::digest(if status == 200 { 2 } else { 1 });
            assert_eq!(world.named("prod/app", "stable").await, Some(named), "{what}");
            let signed = world.named("prod/app", &signature).await;
            assert_eq!(signed, is_signed.then(|| World::digest(3)), "{what}");
        }
    }
}
