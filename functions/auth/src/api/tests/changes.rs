//! Changes: their conditions, their effects, and what the audit trail says.

use serde_json::json;

use super::support::{PASSWORD, POLICY, World};
use crate::administration::Author;

/// Of two clients that change the same version of an account, one wins, and the other one learns that it has lost.
#[tokio::test]
async fn of_two_changes_of_one_version_one_wins() {
    let world = World::new().await;
    let version = world.version("alice").await;
    let patch = |group: &str| {
        let call = world.call("PATCH", "accounts/alice").user("root").if_match(&version);
        call.json(&json!({ "groups": [group] })).send()
    };
    let first = patch("one").await.expect(200);
    patch("two").await.expect(412);
    assert_eq!(world.groups("alice").await, ["one".to_owned()].into());
    let next = first.json()["version"].as_str().unwrap().to_owned();
    assert_ne!(next, version);
    assert_eq!(first.header("etag"), Some(format!("\"{next}\"").as_str()));
    // Every conditional request about the account is of one version.
    let set = world.call("PUT", "accounts/alice/password").user("root");
    let set = set.json(&json!({ "password": "another long password" }));
    set.if_match(&version).send().await.expect(412);
    let remove = || world.call("DELETE", "accounts/alice").user("root");
    remove().if_match(&version).send().await.expect(412);
    remove().send().await.expect(428);
    // A change of another account is none of this one.
    let other = world.call("PATCH", "accounts/bob").user("root").header("if-match", "*");
    other.json(&json!({ "disabled": true })).send().await.expect(200);
    remove().if_match(&next).send().await.expect(204);
    remove().if_match(&next).send().await.expect(404);
}

#[tokio::test]
async fn of_two_policies_made_from_one_version_one_is_set() {
    let world = World::new().await;
    let toml = "syntax = 1\n[[allow]]\nname = 'x'\nwho = ['users']\nrepositories = ['**']\nactions = ['pull']\n";
    let present = world.policy.to_string();
    let set = |content_type: &'static str, text: &'static str| {
        let call = world.call("PUT", "policy?note=why").user("root").if_match(&present);
        call.text(content_type, text).send()
    };
    let reply = set("application/toml", toml).await.expect(200);
    let version = reply.json()["version"].as_u64().unwrap();
    assert_eq!(reply.header("etag"), Some(format!("\"{version}\"").as_str()));
    set("application/json", POLICY).await.expect(412);
    let shown = world.get("policy").user("audra").send().await.expect(200).json();
    assert_eq!(
        (&shown["source"], &shown["note"], &shown["form"]),
        (&json!(toml), &json!("why"), &json!("toml"))
    );
    let old = world
        .get(&format!("policy/versions/{present}"))
        .user("audra")
        .send()
        .await
        .expect(200);
    assert_eq!(old.json()["source"], POLICY);
    // Mistakes leave it in force, and are reported with their positions.
    let call = world.call("PUT", "policy").user("root").header("if-match", "*");
    let reply = call
        .text("application/toml", "syntax = 1\n[[allow]]\n")
        .send()
        .await
        .expect(400);
    assert_eq!(reply.json()["errors"][0]["detail"]["mistakes"][0]["line"], 2);
    assert_eq!(world.administration.state().await.unwrap().policy, Some(version));
}

/// The first policy replaces the default one, which has the version 0.
#[tokio::test]
async fn the_default_policy_has_a_version() {
    let world = World::empty();
    let body = json!({ "name": "root", "kind": "user", "groups": ["admins"], "password": PASSWORD });
    let create = world
        .call("POST", "accounts")
        .basic("bootstrap", super::support::BOOTSTRAP);
    create.json(&body).send().await.expect(201);
    let shown = world.get("policy").user("root").send().await.expect(200);
    assert_eq!(
        (shown.header("etag"), &shown.json()["version"]),
        (Some("\"0\""), &json!(0))
    );
    let set = || {
        world
            .call("PUT", "policy")
            .user("root")
            .text("application/json", POLICY)
    };
    set().if_match("1").send().await.expect(412);
    set().if_match("0").send().await.expect(200);
    set().if_match("0").send().await.expect(412);
}

/// The own password is changed with the old one, also by an administrator; that of another user without.
#[tokio::test]
async fn the_own_password_is_changed_with_the_old_one() {
    let world = World::new().await;
    let key = world.key.1.clone();
    let set = |user: &str, account: &str, old: Option<&str>| {
        let mut body = json!({ "password": "another long password" });
        if let Some(old) = old {
            body["old_password"] = old.into();
        }
        let call = world.call("PUT", &format!("accounts/{account}/password")).user(user);
        call.header("if-match", "*").json(&body).send()
    };
    set("alice", "alice", None).await.expect(400);
    set("alice", "alice", Some("not the old one")).await.expect(403);
    set("alice", "alice", Some(&key)).await.expect(403);
    set("root", "root", None).await.expect(400);
    set("alice", "alice", Some(PASSWORD)).await.expect(200);
    set("root", "bob", None).await.expect(200);
    for user in ["alice", "bob"] {
        world.get("whoami").user(user).send().await.expect(401);
        world
            .get("whoami")
            .basic(user, "another long password")
            .send()
            .await
            .expect(200);
    }
    let short = world
        .call("PUT", "accounts/bob/password")
        .user("root")
        .header("if-match", "*");
    let reply = short.json(&json!({ "password": "short" })).send().await.expect(400);
    assert!(reply.text.contains("12 bytes"), "{reply:?}");
}

/// What is taken away has no effect any more on the instance that took it, from the next request on.
#[tokio::test]
async fn s02_a_change_works_at_once_where_it_was_made() {
    let world = World::new().await;
    let token = world.token("registry:api:*").await;
    let path = format!("accounts/alice/keys/{}", world.key.0);
    world.get("whoami").bearer(&world.key.1).send().await.expect(200);
    world.call("DELETE", &path).user("alice").send().await.expect(204);
    world.get("whoami").bearer(&world.key.1).send().await.expect(401);
    world.get("whoami").bearer(&token).send().await.expect(200);
    let disable = world
        .call("PATCH", "accounts/alice")
        .user("root")
        .header("if-match", "*");
    disable.json(&json!({ "disabled": true })).send().await.expect(200);
    world.get("whoami").bearer(&token).send().await.expect(401);
    world.get("whoami").user("alice").send().await.expect(401);
    let rotate = world.call("POST", "signing-keys/rotate").user("root");
    rotate.json(&json!({ "now": true })).send().await.expect(201);
    let keys = world.get("signing-keys").user("audra").send().await.expect(200).json();
    assert_eq!(keys["items"].as_array().unwrap().len(), 1);
    assert_eq!(keys["items"][0]["condition"], "signing");
}

/// Every account may remove its own keys. However many these are, the tokens of all other accounts stay good.
#[tokio::test]
async fn an_account_that_removes_many_keys_ends_its_own_tokens_only() {
    let world = World::new().await;
    let of_alice = world.token("registry:api:*").await;
    let bob = super::support::name("bob");
    let mut of_bob = Vec::new();
    for number in 0..300 {
        let (id, key) = world.issue("bob", None).await;
        if number % 60 == 20 {
            // The account is known for ten seconds.
            world.clock.pass(10_000);
            let call = world.request("GET", "/token?scope=registry:api:*").basic("key", &key);
            let reply = call.send().await.expect(200);
            let token = reply.json()["token"].as_str().unwrap().to_owned();
            world.get("whoami").bearer(&token).send().await.expect(200);
            of_bob.push(token);
        }
        let (author, id) = (Author::new("bob"), id.parse().unwrap());
        let removed = world.administration.remove_key(&author, (&bob).into(), id).await;
        removed.unwrap();
    }
    world.clock.pass(10_000);
    world.get("whoami").bearer(&of_alice).send().await.expect(200);
    for token in of_bob {
        world.get("whoami").bearer(&token).send().await.expect(401);
    }
    world.get("whoami").user("bob").send().await.expect(200);
    world.get("whoami").bearer(&world.robot_key).send().await.expect(200);
}

/// The last enabled administrator stays.
#[tokio::test]
async fn the_last_administrator_stays() {
    let world = World::new().await;
    let root = |method: &str| world.call(method, "accounts/root").user("root").header("if-match", "*");
    for patch in [json!({ "disabled": true }), json!({ "groups": [] })] {
        root("PATCH").json(&patch).send().await.expect(409);
    }
    root("DELETE").send().await.expect(409);
    let promote = world.call("PATCH", "accounts/bob").user("root").header("if-match", "*");
    promote.json(&json!({ "groups": ["admins"] })).send().await.expect(200);
    root("DELETE").send().await.expect(204);
}

/// The grants of a robot are replaced as a whole.
#[tokio::test]
async fn grants_are_replaced() {
    let world = World::new().await;
    let patch = |grants: serde_json::Value| {
        let call = world.call("PATCH", "accounts/ci").user("root").header("if-match", "*");
        call.json(&json!({ "grants": grants })).send()
    };
    for grants in [
        json!([{ "repositories": "a/**", "actions": ["pull", "create"] }]),
        json!([{ "repositories": "a/**", "actions": ["pull"] }, { "repositories": "b", "actions": ["push"] }]),
        json!([]),
    ] {
        assert_eq!(patch(grants.clone()).await.expect(200).json()["grants"], grants);
    }
    patch(json!([{ "repositories": "a/**", "actions": ["fly"] }]))
        .await
        .expect(400);
}

/// The audit trail says who made a change, by which key and from where; and it is filtered.
#[tokio::test]
async fn the_audit_trail_says_who_and_from_where() {
    let world = World::new().await;
    world.clock.pass(1000);
    let create = world.call("POST", "accounts/alice/keys").bearer(&world.key.1);
    let created = create.json(&json!({ "expires": "never" })).send().await.expect(201);
    let events = |query: &str| world.get(&format!("audit?{query}")).user("audra").send();
    let found = events("principal=alice&event=key.created").await.expect(200).json();
    let [event] = &found["items"].as_array().unwrap()[..] else {
        panic!("{found}");
    };
    assert_eq!(event["principal"], "alice");
    assert_eq!(event["credential"], world.key.0);
    assert_eq!(event["address"], "192.0.2.1");
    assert_eq!(event["request"].as_str(), created.header("x-request-id"));
    assert_eq!(created.header("x-request-id").map(str::len), Some(16));
    assert_eq!(event["at"], "2026-11-30T00:53:21Z");
    let since = events("from=2026-11-30T00:53:21Z").await.expect(200).json();
    assert_eq!(since["items"].as_array().unwrap().len(), 1);
    let before = events("to=2026-11-30T00:53:21Z&event=key.created")
        .await
        .expect(200)
        .json();
    assert_eq!(before["items"].as_array().unwrap().len(), 3);
    for wrong in ["event=login", "repository=A", "n=x", "to=1"] {
        events(wrong).await.expect(400);
    }
}

/// The scope and the end of a key are changed in place. What its scope loses is lost to the tokens that it got before.
#[tokio::test]
async fn s02_a_key_is_changed_in_place() {
    let world = World::new().await;
    let (id, key) = world.key.clone();
    let path = format!("accounts/alice/keys/{id}");
    let keys = || world.get("accounts/alice/keys").user("alice").send();
    let change = |version: &str, body: serde_json::Value| {
        let call = world.call("PATCH", &path).user("alice").header("if-match", version);
        call.json(&body).send()
    };
    let get_token = world
        .request("GET", "/token?scope=repository:a/b:pull")
        .basic("key", &key);
    let token = get_token.send().await.expect(200).json()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let pull = |repository: &str| {
        let call = world.request("GET", &format!("/v2/{repository}/tags/list"));
        call.bearer(&token).send()
    };
    pull("a/b").await.expect(200);
    let version = keys().await.expect(200).header("etag").unwrap().to_owned();
    let changed = change(&version, json!({ "expires": "2027-01-01T00:00:00Z" }))
        .await
        .expect(200);
    assert_eq!(
        (&changed.json()["expires"], &changed.json()["scope"]),
        (&json!("2027-01-01T00:00:00Z"), &json!(null))
    );
    // A token lives as long as before.
    pull("a/b").await.expect(200);
    change(&version, json!({ "expires": "never" })).await.expect(412);
    world.clock.pass(1);
    let version = changed.header("etag").unwrap().to_owned();
    let scope = json!([{ "repositories": "c/**", "actions": ["pull"] }]);
    let narrowed = change(&version, json!({ "scope": scope })).await.expect(200);
    assert_eq!(
        (&narrowed.json()["scope"], &narrowed.json()["expires"]),
        (&scope, &json!("2027-01-01T00:00:00Z"))
    );
    // The token is not good any more, and the key is, for other things.
    pull("a/b").await.expect(401);
    world.get("whoami").bearer(&key).send().await.expect(403);
    let listed = keys().await.expect(200);
    assert_eq!(listed.header("etag"), narrowed.header("etag"));
    let version = listed.header("etag").unwrap();
    for (body, status) in [
        (json!({}), 200),
        (json!({ "scope": scope, "expires": "2027-01-01T00:00:00Z" }), 200),
        (json!({ "expires": "2020-01-01T00:00:00Z" }), 400),
        (json!({ "scope": [{ "repositories": "**", "actions": [] }] }), 400),
    ] {
        let reply = change(version, body).await.expect(status);
        assert!(status != 200 || reply.header("etag") == Some(version));
    }
    let events = world.events("key.changed").await;
    assert_eq!(events.len(), 2);
    assert_eq!(events[1]["reference"], format!("alice.{id}"));
    assert!(events[1]["after"].as_str().unwrap().starts_with("scope: pull:c/**; "));
}
