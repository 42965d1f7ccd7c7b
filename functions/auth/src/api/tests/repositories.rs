//! Repositories and tags: what each caller sees and may change, by the permissions and the guard of the protocol.

use registry::api_endpoint::ApiOperation;
use serde_json::{Value, json};

use super::support::{Reply, World};

/// Users pull and push `a/**`, the robot creates in `a/**` and pulls nothing, and tags that are versions are immutable after
/// ten minutes in `prod/**`, where users may only create.
const POLICY: &str = r#"{
    "syntax": 1,
    "allow": [
        {"name": "team", "who": ["users"], "repositories": ["a/**"], "actions": ["pull", "push"]},
        {"name": "machines", "who": ["robots"], "repositories": ["a/**"], "actions": ["create"]},
        {"name": "releases", "who": ["users"], "repositories": ["prod/**"], "actions": ["pull", "create"]}
    ],
    "immutable": [{"name": "frozen releases", "repositories": ["prod/**"], "tags": ["semver"], "grace": "10m"}]
}"#;
const GRACE_MS: u64 = 600_000;

/// A registry under this policy.
async fn world() -> World {
    let world = World::new().await;
    let set = world.example(ApiOperation::SetPolicy).user("root");
    set.text("application/json", POLICY).send().await.expect(200);
    world
}

fn names(reply: &Reply, member: &str) -> Vec<String> {
    let items = reply.json()["items"].as_array().unwrap().clone();
    items
        .iter()
        .map(|item| item[member].as_str().unwrap().to_owned())
        .collect()
}

async fn roll_back(world: &World, user: &str, tag: &str, to: Value) -> Reply {
    let (repository, tag) = tag.split_once(':').unwrap();
    let body = json!({ "repository": repository, "tag": tag, "to": to });
    world.call("POST", "tags/rollback").user(user).json(&body).send().await
}

async fn promote(world: &World, user: &str, from: &str, to: &str) -> Reply {
    let body = json!({ "from": from, "to": to });
    world.call("POST", "tags/promote").user(user).json(&body).send().await
}

/// A list has what its caller may pull, also of the names that begin with a text.
#[tokio::test]
async fn a_list_of_repositories_has_what_the_caller_may_pull() {
    let world = world().await;
    for repository in ["a/app", "a/c", "b/x", "prod/app"] {
        world.put(repository, &["1"], 1).await;
    }
    for (user, query, expected) in [
        ("root", "", &["a/app", "a/b", "a/c", "b/x", "prod/app"] as &[&str]),
        ("alice", "", &["a/app", "a/b", "a/c", "prod/app"]),
        ("alice", "?prefix=a/", &["a/app", "a/b", "a/c"]),
        ("alice", "?prefix=a/c", &["a/c"]),
        ("alice", "?prefix=b/", &[]),
        ("alice", "?prefix=a&after=a/b", &["a/c"]),
        ("alice", "?prefix=prod/app", &["prod/app"]),
        ("root", "?prefix=b", &["b/x"]),
        ("root", "?prefix=", &["a/app", "a/b", "a/c", "b/x", "prod/app"]),
    ] {
        let found = world
            .get(&format!("repositories{query}"))
            .user(user)
            .send()
            .await
            .expect(200);
        assert_eq!(names(&found, "name"), expected, "{user} {query}");
        assert_eq!(found.header("warning"), None);
    }
    let robot = world.get("repositories").basic("ci", &world.robot_key);
    assert_eq!(
        robot.send().await.expect(200).json(),
        json!({ "items": [], "next": null })
    );
    let page = world
        .get("repositories?n=2")
        .user("alice")
        .send()
        .await
        .expect(200)
        .json();
    assert_eq!(page["next"], "a/b");
}

/// A list that would read too many rows that its caller may not see ends, and says so. It names none of them.
#[tokio::test]
async fn a_list_that_skips_too_much_says_that_it_ends() {
    let world = World::new().await;
    let policy = r#"{"syntax":1,"allow":[{"name":"p","who":["users"],"repositories":["*/app"],"actions":["pull"]}]}"#;
    let set = world.example(ApiOperation::SetPolicy).user("root");
    set.text("application/json", policy).send().await.expect(200);
    for number in 0..10_000 {
        world.put(&format!("a/hidden{number}"), &[], 1).await;
    }
    world.put("z/app", &["1"], 1).await;
    let found = world.get("repositories").user("alice").send().await.expect(200);
    assert_eq!(found.json(), json!({ "items": [], "next": null }));
    assert!(found.header("warning").unwrap().starts_with("299 "));
    let found = world
        .get("repositories?prefix=z")
        .user("alice")
        .send()
        .await
        .expect(200);
    assert_eq!(
        (names(&found, "name"), found.header("warning")),
        (vec!["z/app".to_owned()], None)
    );
}

/// A repository is created once. It is in the list while it is empty, and the audit trail says who created it.
#[tokio::test]
async fn a_repository_is_created_once() {
    let world = world().await;
    let create = |user: &'static str, name: &str| {
        let call = world.call("PUT", &format!("repositories?name={name}"));
        call.user(user).send()
    };
    create("alice", "a/new").await.expect(403);
    assert_eq!(
        create("root", "a/new").await.expect(201).json(),
        json!({ "name": "a/new" })
    );
    create("root", "a/new").await.expect(200);
    let found = world
        .get("repositories?prefix=a/n")
        .user("alice")
        .send()
        .await
        .expect(200);
    assert_eq!(names(&found, "name"), ["a/new"]);
    let empty = world
        .get("tags?repository=a/new")
        .user("alice")
        .send()
        .await
        .expect(200);
    assert_eq!(empty.json(), json!({ "items": [], "next": null }));
    let events = world.events("repository.created").await;
    assert_eq!(events.len(), 1);
    assert_eq!(
        (&events[0]["principal"], &events[0]["address"]),
        (&json!("root"), &json!("192.0.2.1"))
    );
}

/// Whether a tag is frozen depends on the time that it has stood.
#[tokio::test]
async fn tags_are_shown_with_what_they_name() {
    let world = world().await;
    world.put("prod/app", &["1.0.0", "latest"], 1).await;
    let tags = || async {
        let reply = world.get("tags?repository=prod/app").user("alice").send().await;
        reply.expect(200).json()["items"].clone()
    };
    let before = tags().await;
    assert_eq!(before.as_array().unwrap().len(), 2);
    assert_eq!(
        (&before[0]["tag"], &before[0]["digest"], &before[0]["size"]),
        (
            &json!("1.0.0"),
            &json!(World::digest(1)),
            &json!(World::manifest(1).len())
        )
    );
    assert_eq!(before[0]["updated"], "2026-11-30T00:53:20Z");
    world.clock.pass(GRACE_MS);
    let after = tags().await;
    for (items, tag, frozen, rule) in [
        (&before, 0, false, Value::Null),
        (&after, 0, true, json!("frozen releases")),
        (&after, 1, false, Value::Null),
    ] {
        assert_eq!(
            (&items[tag]["frozen"], &items[tag]["frozen_by"]),
            (&json!(frozen), &rule)
        );
    }
}

/// A rollback goes back to a version of the history or to a digest, and is in the history and in the audit trail.
#[tokio::test]
async fn a_tag_is_rolled_back() {
    let world = world().await;
    let history = || async {
        let reply = world
            .get("tags/history?repository=a/b&tag=latest")
            .user("alice")
            .send()
            .await;
        reply.expect(200).json()["items"].as_array().unwrap().clone()
    };
    let before = history().await;
    assert_eq!(before.len(), 2);
    let (first, second) = (json!(World::digest(1)), json!(World::digest(2)));
    assert_eq!((&before[0]["before"], &before[0]["after"]), (&first, &second));
    assert_eq!(
        (&before[1]["before"], &before[1]["after"], &before[1]["principal"]),
        (&Value::Null, &first, &json!(":operator"))
    );
    world.clock.pass(1000);
    let done = roll_back(&world, "alice", "a/b:latest", before[1]["version"].clone()).await;
    let expected = json!({ "repository": "a/b", "tag": "latest", "digest": first, "moved": true });
    assert_eq!(done.expect(200).json(), expected);
    assert_eq!(world.named("a/b", "latest").await, Some(World::digest(1)));
    // Once more changes nothing.
    let again = roll_back(&world, "alice", "a/b:latest", first.clone())
        .await
        .expect(200)
        .json();
    assert_eq!(again["moved"], false);
    let after = history().await;
    assert_eq!(after.len(), 3);
    assert_eq!((&after[0]["principal"], &after[0]["after"]), (&json!("alice"), &first));
    world.clock.pass(1);
    let call = world.call("POST", "tags/rollback").bearer(&world.key.1);
    let body = json!({ "repository": "a/b", "tag": "latest", "to": second });
    call.json(&body).send().await.expect(200);
    let events = world.events("tag.rolled-back").await;
    assert_eq!(events.len(), 2);
    let members = [
        "principal",
        "credential",
        "address",
        "repository",
        "reference",
        "before",
        "after",
    ];
    for (event, credential, before, after) in [
        (&events[0], Value::Null, &second, &first),
        (&events[1], json!(world.key.0), &first, &second),
    ] {
        let found: Vec<_> = members.iter().map(|member| &event[*member]).collect();
        let (alice, address, repository, tag) = (json!("alice"), json!("192.0.2.1"), json!("a/b"), json!("latest"));
        assert_eq!(found, [&alice, &credential, &address, &repository, &tag, before, after]);
    }
    for (to, status) in [
        (json!("7"), 404),
        (json!(7), 404),
        (json!(World::digest(9)), 404),
        (json!("latest"), 400),
    ] {
        roll_back(&world, "alice", "a/b:latest", to).await.expect(status);
    }
}

/// A promotion needs the right to pull at the source and to push at the target; it is in the history with its source.
#[tokio::test]
async fn a_tag_is_promoted() {
    let world = world().await;
    let done = promote(&world, "alice", "a/b:latest", "prod/app:1.0.0")
        .await
        .expect(200)
        .json();
    let expected = json!({
        "repository": "prod/app", "tag": "1.0.0", "digest": World::digest(2), "moved": true,
        "manifests": 1, "referrers": 0, "kept": [], "copied_bytes": 0,
    });
    assert_eq!(done, expected);
    let by_digest = format!("a/b@{}", World::digest(2));
    let again = promote(&world, "alice", &by_digest, "prod/app:1.0.0")
        .await
        .expect(200)
        .json();
    assert_eq!(again["moved"], false);
    let history = world.get("tags/history?repository=prod/app&tag=1.0.0").user("alice");
    let history = history.send().await.expect(200).json();
    assert_eq!(history["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&history["items"][0]["principal"], &history["items"][0]["promoted_from"]),
        (&json!("alice"), &json!("a/b:latest"))
    );
    let events = world.events("tag.promoted").await;
    assert_eq!(
        (&events[0]["principal"], &events[0]["address"], &events[0]["detail"]),
        (&json!("alice"), &json!("192.0.2.1"), &json!("from a/b:latest"))
    );
    let pushed = world
        .get("audit?event=manifest.pushed&repository=prod/app")
        .user("audra");
    let pushed = pushed.send().await.expect(200).json();
    assert_eq!(pushed["items"][0]["principal"], "alice");
}

/// The guard of tags refuses what it refuses to a push: administrators may not move a frozen tag, and users who may only
/// create may not move any. Nothing is changed.
#[tokio::test]
async fn s03_the_guard_of_tags_decides_over_the_api() {
    let world = world().await;
    world.put("prod/app", &["1.0.0", "stable"], 1).await;
    world.put("prod/app", &["other"], 2).await;
    for number in [2, 1] {
        world.put("prod/app", &["moved", "2.0.0"], number).await;
    }
    let two = json!(World::digest(2));
    world.clock.pass(GRACE_MS);
    for (user, tag, rule) in [
        ("root", "2.0.0", Some("frozen releases")),
        ("alice", "2.0.0", Some("frozen releases")),
        ("alice", "moved", None),
    ] {
        let to = format!("prod/app:{tag}");
        let to_frozen = promote(&world, "root", "a/b:latest", "prod/app:1.0.0").await;
        for (tag, rule, reply) in [
            (tag, rule, roll_back(&world, user, &to, two.clone()).await),
            (tag, rule, promote(&world, user, "prod/app:other", &to).await),
            ("1.0.0", Some("frozen releases"), to_frozen),
        ] {
            let error = reply.expect(403).json()["errors"][0].clone();
            assert_eq!(error["code"], "DENIED");
            let detail = &error["detail"];
            assert_eq!(
                (&detail["tag"], &detail["rule"], &detail["digest"]),
                (&json!(tag), &json!(rule), &json!(World::digest(1))),
                "{user} {tag}"
            );
        }
        assert_eq!(world.named("prod/app", tag).await, Some(World::digest(1)));
    }
    assert_eq!(world.named("prod/app", "1.0.0").await, Some(World::digest(1)));
    roll_back(&world, "root", "prod/app:moved", two.clone())
        .await
        .expect(200);
    assert_eq!(world.named("prod/app", "moved").await, Some(World::digest(2)));
}

/// The answer about a repository in which the caller may not do something is the same whether the repository exists.
#[tokio::test]
async fn s23_forbidden_and_absent_repositories_are_the_same_over_the_api() {
    let world = world().await;
    world.put("b/x", &["latest"], 1).await;
    let digest = json!(World::digest(1));
    let requests = |repository: &str| {
        let (named, tag) = (format!("?repository={repository}"), format!("{repository}:latest"));
        let get = |path: &str| world.get(&format!("{path}{named}&tag=latest"));
        let post = |path: &str, body: Value| world.call("POST", path).json(&body);
        [
            get("tags"),
            get("tags/history"),
            post(
                "tags/rollback",
                json!({ "repository": repository, "tag": "latest", "to": digest }),
            ),
            post("tags/promote", json!({ "from": tag, "to": "a/b:mine" })),
            post("tags/promote", json!({ "from": "a/b:latest", "to": tag })),
        ]
    };
    for (there, absent) in requests("b/x").into_iter().zip(requests("b/y")) {
        let there = there.user("alice").send().await.expect(403);
        let absent = absent.user("alice").send().await.expect(403);
        assert_eq!(there.text.replace("b/x", "b/y"), absent.text);
        assert_eq!(there.headers_but_id(), absent.headers_but_id());
        assert_eq!(there.json()["errors"][0]["detail"]["repository"], "b/x");
    }
    assert_eq!(world.named("a/b", "mine").await, None);
    // Who may create and not pull may not read what is there.
    let [tags, history, rollback, promotion, _] = requests("a/b").map(|call| call.basic("ci", &world.robot_key));
    for call in [tags, history, rollback, promotion] {
        let error = call.send().await.expect(403).json()["errors"][0].clone();
        assert_eq!(error["detail"], json!({ "action": "pull", "repository": "a/b" }));
    }
}

/// A token for the API is good for everything that its account may do in it.
#[tokio::test]
async fn a_token_for_the_api_is_good_for_repositories() {
    let world = world().await;
    let token = world.token("registry:api:*").await;
    let tags = world.get("tags?repository=a/b").bearer(&token).send().await.expect(200);
    assert_eq!(names(&tags, "tag"), ["latest"]);
    let listed = world.get("repositories").bearer(&token).send().await.expect(200);
    assert_eq!(names(&listed, "name"), ["a/b"]);
    let body = json!({ "repository": "a/b", "tag": "latest", "to": World::digest(1) });
    let call = world.call("POST", "tags/rollback").bearer(&token).json(&body);
    call.send().await.expect(200);
    // Elsewhere it is good for what its scope names.
    let elsewhere = world
        .request("GET", "/v2/a/b/tags/list")
        .bearer(&token)
        .send()
        .await
        .expect(401);
    assert!(
        elsewhere
            .header("www-authenticate")
            .unwrap()
            .contains("insufficient_scope")
    );
}
