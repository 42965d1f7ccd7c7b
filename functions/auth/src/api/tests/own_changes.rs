//! How often an account may change its own keys and its password.

use serde_json::json;

use super::support::{PASSWORD, World};
use crate::api::own_changes::OwnChanges;

#[tokio::test]
async fn an_account_changes_itself_thirty_times_in_ten_minutes() {
    let world = World::new().await;
    let path = format!("accounts/alice/keys/{}", world.key.0);
    let change = |user: &'static str, number: u32| {
        let expires = ["2027-01-01T00:00:00Z", "never"][number as usize % 2];
        let call = world.call("PATCH", &path).user(user).header("if-match", "*");
        call.json(&json!({ "expires": expires })).send()
    };
    for number in 0..OwnChanges::MAX {
        change("alice", number).await.expect(200);
    }
    let refused = change("alice", 0).await.expect(429);
    assert_eq!(refused.header("retry-after"), Some("600"));
    let error = &refused.json()["errors"][0];
    assert_eq!(error["code"], "TOOMANYREQUESTS");
    assert!(error["message"].as_str().unwrap().contains("too often"), "{error}");
    assert_eq!(world.events("key.changed").await.len(), OwnChanges::MAX as usize);
    // Neither by another operation, nor with another credential.
    let body = json!({ "expires": "never" });
    let add = || world.call("POST", "accounts/alice/keys").json(&body);
    add().user("alice").send().await.expect(429);
    add().bearer(&world.key.1).send().await.expect(429);
    let rotate = world.call("POST", &format!("{path}/rotate")).user("alice");
    let rotate = rotate.json(&json!({ "overlap": 60, "expires": "never" }));
    rotate.send().await.expect(429);
    world.call("DELETE", &path).user("alice").send().await.expect(429);
    let password = world.call("PUT", "accounts/alice/password").user("alice");
    let password = password.json(&json!({ "password": "another long password", "old_password": PASSWORD }));
    password.header("if-match", "*").send().await.expect(429);
    // It reads as before, and others change themselves.
    world.get("accounts/alice/keys").user("alice").send().await.expect(200);
    let of_bob = world.call("POST", "accounts/bob/keys").user("bob").json(&body);
    of_bob.send().await.expect(201);
    world.clock.pass(OwnChanges::WINDOW_MS - 1);
    let refused = change("alice", 0).await.expect(429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    world.clock.pass(1);
    change("alice", 0).await.expect(200);
}

/// A leaked key of an account must not keep administrators from changing it.
#[tokio::test]
async fn administrators_change_accounts_as_often_as_they_have_to() {
    let world = World::new().await;
    for account in ["alice", "root"] {
        for _ in 0..=OwnChanges::MAX {
            let path = format!("accounts/{account}/keys");
            let add = world.call("POST", &path).user("root");
            let added = add.json(&json!({ "expires": "never" })).send().await.expect(201);
            let id = added.json()["id"].as_str().unwrap().to_owned();
            let remove = world.call("DELETE", &format!("{path}/{id}")).user("root");
            remove.send().await.expect(204);
        }
    }
}
