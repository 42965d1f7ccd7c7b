//! Forms of requests and answers, and the `OpenAPI` document.

use std::collections::BTreeSet;

use oci::MediaType;
use registry::api_endpoint::{ApiBodyKind, ApiOperation};
use registry::store::metadata::MetadataStore as _;
use serde_json::{Value, json};

use super::support::{PASSWORD, POLICY, Reply, World, no_key};
use crate::api::document::{document, refusals, successes};

/// The limit of a body, in bytes.
const LIMIT: usize = 64 << 10;

#[test]
fn the_document_names_every_operation() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    let mut named = BTreeSet::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            named.insert((
                method.to_uppercase(),
                path.strip_prefix("/api/v1/").unwrap().to_owned(),
                operation["operationId"].as_str().unwrap().to_owned(),
            ));
        }
    }
    let expected: BTreeSet<_> = ApiOperation::ALL
        .iter()
        .map(|operation| {
            let (method, path) = (operation.method().to_string(), operation.path().to_owned());
            (method, path, operation.as_str().to_owned())
        })
        .collect();
    assert_eq!(named, expected);
    for &operation in ApiOperation::ALL {
        let path = format!("/api/v1/{}", operation.path());
        let described = &document["paths"][path][operation.method().as_str().to_lowercase()];
        let listed: BTreeSet<_> = described["responses"].as_object().unwrap().keys().cloned().collect();
        let statuses = refusals(operation);
        let statuses = statuses.iter().chain(successes(operation));
        let expected: BTreeSet<_> = statuses
            .map(ToString::to_string)
            .chain(["default".to_owned()])
            .collect();
        assert_eq!(listed, expected, "{operation:?}");
        assert_eq!(
            described["requestBody"].is_object(),
            operation.body() != ApiBodyKind::None,
            "{operation:?}"
        );
        let parameters = described["parameters"].as_array().cloned().unwrap_or_default();
        let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
        assert_eq!(in_path.count(), operation.path().matches('{').count());
    }
}

/// Every reference of the document leads to a schema, and every schema is used.
#[test]
fn the_references_of_the_document_are_whole() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(target)) = members.get("$ref") {
                    found.insert(target.clone());
                }
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let expected: BTreeSet<_> = schemas
        .keys()
        .map(|name| format!("#/components/schemas/{name}"))
        .collect();
    assert_eq!(found, expected);
    for (name, schema) in schemas {
        let description = schema["description"].as_str().unwrap_or_default();
        assert!(!description.is_empty(), "{name}");
    }
}

/// Whether a value has the form that a schema says: the parts of JSON Schema that the document uses.
fn conforms(document: &Value, schema: &Value, value: &Value) -> bool {
    if let Some(target) = schema["$ref"].as_str() {
        let name = target.strip_prefix("#/components/schemas/").unwrap();
        return conforms(document, &document["components"]["schemas"][name], value);
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(schemas) = schema[choice].as_array() {
            return schemas.iter().any(|schema| conforms(document, schema, value));
        }
    }
    match schema["type"].as_str() {
        Some("object") => {
            let Some(members) = value.as_object() else {
                return false;
            };
            let properties = schema["properties"].as_object();
            let has = |name: &Value| members.contains_key(name.as_str().unwrap());
            let required = schema["required"].as_array();
            required.is_none_or(|names| names.iter().all(has))
                && members.iter().all(
                    |(name, member)| match properties.and_then(|properties| properties.get(name)) {
                        Some(schema) => conforms(document, schema, member),
                        None => schema["additionalProperties"] != false,
                    },
                )
        }
        Some("array") => value
            .as_array()
            .is_some_and(|items| items.iter().all(|item| conforms(document, &schema["items"], item))),
        Some("string") => {
            let allowed = schema["enum"].as_array();
            value.is_string()
                && allowed.is_none_or(|allowed| allowed.contains(value))
                && (schema["const"].is_null() || schema["const"] == *value)
        }
        Some("integer") => value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => true,
    }
}

/// A request with a status that the document names for its operation.
async fn refused(world: &World, operation: ApiOperation, status: u16) -> Reply {
    let example = || world.example(operation).user("root");
    let call = match status {
        401 => world.example(operation),
        403 => match operation {
            ApiOperation::Explain => example().user("alice").json(&json!({
                "principal": "bob", "action": "pull", "repository": "a/b",
            })),
            ApiOperation::SetPassword => example()
                .user("alice")
                .json(&json!({ "password": "another long password", "old_password": "not the old one" })),
            ApiOperation::CreateKey | ApiOperation::ChangeKey | ApiOperation::RemoveKey | ApiOperation::RotateKey => {
                example().user("audra")
            }
            ApiOperation::DescribeTags | ApiOperation::GetTagHistory => example().basic("ci", &world.robot_key),
            ApiOperation::GetIdentity
            | ApiOperation::GetAccount
            | ApiOperation::ListKeys
            | ApiOperation::SearchRepositories => example().basic("alice", &world.scoped_key),
            _ => example().user("alice"),
        },
        404 => match operation {
            ApiOperation::Explain => example().json(&json!({
                "principal": "robot:nobody", "action": "pull", "repository": "a/b",
            })),
            ApiOperation::GetPolicyVersion => world.get("policy/versions/9999").user("root"),
            ApiOperation::DescribeTags => world.get("tags?repository=no/such").user("root"),
            ApiOperation::GetTagHistory => world.get("tags/history?repository=a/b&tag=none").user("root"),
            ApiOperation::RollBackTag => {
                example().json(&json!({ "repository": "a/b", "tag": "latest", "to": World::digest(3) }))
            }
            ApiOperation::PromoteTag => example().json(&json!({ "from": "a/b:none", "to": "c/d:1.0.0" })),
            ApiOperation::RemoveKey => world
                .call("DELETE", &format!("accounts/alice/keys/{}", no_key()))
                .user("root"),
            _ => example().user("bob"),
        },
        400 => match operation {
            ApiOperation::ListAccounts => world.get("accounts?n=0").user("root"),
            ApiOperation::ListPolicyVersions => world.get("policy/versions?after=x").user("root"),
            ApiOperation::ListAuditEvents => world.get("audit?from=yesterday").user("root"),
            ApiOperation::SearchRepositories => world.get("repositories?prefix=A").user("root"),
            ApiOperation::CreateRepository => world.call("PUT", "repositories?name=A").user("root"),
            ApiOperation::DescribeTags => world.get("tags").user("root"),
            ApiOperation::GetTagHistory => world.get("tags/history?repository=a/b&tag=.").user("root"),
            // A policy that is no text.
            ApiOperation::CheckPolicy => example().bytes("application/json", vec![0xff]),
            _ => example().text("application/json", r#"{"unknown":1}"#),
        },
        409 => return contradicted(world, operation).await,
        412 => example().if_match("another"),
        413 => example().text("application/json", " ".repeat(LIMIT + 1)),
        415 => example().text("text/plain", "{}"),
        428 => example().without("if-match"),
        other => panic!("{other}"),
    };
    call.send().await
}

/// A request that contradicts what exists.
async fn contradicted(world: &World, operation: ApiOperation) -> Reply {
    let root = |method: &str, path: &str| world.call(method, path).user("root").header("if-match", "*");
    match operation {
        ApiOperation::CreateAccount => root("POST", "accounts").json(&json!({ "name": "alice", "kind": "robot" })),
        ApiOperation::ChangeAccount => root("PATCH", "accounts/root").json(&json!({ "disabled": true })),
        ApiOperation::RemoveAccount => root("DELETE", "accounts/root"),
        ApiOperation::SetPassword => {
            root("PUT", "accounts/ci/password").json(&json!({ "password": "another long password" }))
        }
        ApiOperation::CreateKey => {
            let create = || root("POST", "accounts/bob/keys").json(&json!({ "expires": "never" }));
            for _ in 0..20 {
                create().send().await.expect(201);
            }
            create()
        }
        ApiOperation::ChangeKey => {
            let change = || world.example(operation).user("root");
            let ends = json!({ "expires": "2026-11-30T00:54:20Z" });
            change().json(&ends).send().await.expect(200);
            world.clock.pass(60_000);
            change()
        }
        ApiOperation::RollBackTag => {
            // The bytes of the manifest are damaged.
            let repository = "a/b".parse().unwrap();
            world
                .put_bytes("a/b", &["latest"], 3, b"{}".to_vec(), MediaType::OCI_INDEX)
                .await;
            world.put("a/b", &["latest"], 4).await;
            let digest = World::digest(3);
            let metadata = &world.metadata;
            metadata
                .record_damaged_manifest(world.cx(), &repository, &digest)
                .await
                .unwrap();
            root("POST", "tags/rollback").json(&json!({ "repository": "a/b", "tag": "latest", "to": digest }))
        }
        ApiOperation::PromoteTag => {
            // The target has the manifest with another type.
            let bytes = World::manifest(2);
            world.put_bytes("c/d", &[], 2, bytes, "application/x.other").await;
            world.example(operation).user("root")
        }
        ApiOperation::RotateKey => {
            let rotate = || world.example(operation).user("root");
            rotate().send().await.expect(201);
            world.clock.pass(60_000);
            rotate()
        }
        ApiOperation::RotateSigningKeys => {
            let rotate = || root("POST", "signing-keys/rotate").json(&json!({}));
            for _ in 0..24 {
                let reply = rotate().send().await;
                if reply.status == 409 {
                    return reply;
                }
            }
            rotate()
        }
        other => panic!("{other:?}"),
    }
    .send()
    .await
}

/// Each answer that the document names is met by a request, and has the form that the document says.
#[tokio::test]
async fn each_answer_of_the_document_is_met() {
    let document = document();
    for &operation in ApiOperation::ALL {
        let path = format!("/api/v1/{}", operation.path());
        let described = &document["paths"][path][operation.method().as_str().to_lowercase()];
        let world = World::new().await;
        let mut replies = Vec::new();
        for status in successes(operation) {
            replies.push(world.example(operation).user("root").send().await.expect(*status));
        }
        for status in refusals(operation) {
            let reply = refused(&World::new().await, operation, status).await;
            assert_eq!(reply.status, status, "{operation:?}: {reply:?}");
            replies.push(reply);
        }
        for reply in replies {
            let answer = &described["responses"][reply.status.to_string()];
            let Some(schema) = answer["content"]["application/json"].get("schema") else {
                assert_eq!(reply.text, "", "{operation:?}");
                continue;
            };
            assert_eq!(reply.header("content-type"), Some("application/json"));
            assert!(conforms(&document, schema, &reply.json()), "{operation:?}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn the_document_needs_no_login() {
    let world = World::new().await;
    let reply = world.get("openapi.json").send().await.expect(200);
    assert_eq!(reply.json(), document());
    world.call("HEAD", "openapi.json").send().await.expect(200);
    let reply = world.call("PUT", "openapi.json").send().await.expect(405);
    assert_eq!(reply.header("allow"), Some("GET, HEAD"));
}

/// A body up to the limit is read; a larger one is refused, after the caller is known.
#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let world = World::new().await;
    let padded = |length: usize| format!("{POLICY}{}", " ".repeat(length - POLICY.len()));
    let check = |length: usize| {
        world
            .call("POST", "policy/check")
            .text("application/json", padded(length))
    };
    let reply = check(LIMIT).user("root").send().await.expect(200);
    assert_eq!(reply.json()["mistakes"], json!([]));
    check(LIMIT + 1).user("root").send().await.expect(413);
    let declared = check(POLICY.len()).header("content-length", "70000");
    declared.user("root").send().await.expect(413);
    check(LIMIT + 1).user("bob").send().await.expect(403);
    check(LIMIT + 1).send().await.expect(401);
}

/// Pages follow each other by `next`, and together they are the list.
#[tokio::test]
async fn lists_have_pages() {
    let world = World::new().await;
    for repository in ["a/c", "b"] {
        world.put(repository, &["1"], 1).await;
    }
    world.put("a/b", &["1.0.0", "2.0.0"], 2).await;
    for (list, member) in [
        ("accounts", "name"),
        ("audit", "id"),
        ("policy/versions", "version"),
        ("repositories", "name"),
        ("repositories?prefix=a/", "name"),
        ("tags?repository=a/b", "tag"),
        ("tags/history?repository=a/b&tag=latest", "version"),
    ] {
        let whole = world.get(list).user("root").send().await.expect(200).json();
        let whole: Vec<_> = whole["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item[member].clone())
            .collect();
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let begins = if list.contains('?') { '&' } else { '?' };
            let path = format!("{list}{begins}n=1&after={after}");
            let page = world.get(&path).user("audra").send().await.expect(200).json();
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 1);
            found.extend(items.iter().map(|item| item[member].clone()));
            match page["next"].as_str() {
                Some(next) => after = form_urlencoded::byte_serialize(next.as_bytes()).collect(),
                None => break,
            }
        }
        assert_eq!(found, whole, "{list}");
        assert!(!whole.is_empty());
    }
}

/// A secret is in the answer that makes it, and in no other; no hash is in any.
#[tokio::test]
async fn s18_secrets_are_in_the_answer_that_makes_them_only() {
    let world = World::new().await;
    let body = json!({
        "name": "new", "kind": "user", "password": "a very secret text", "key": { "expires": "never" },
    });
    let made = world
        .call("POST", "accounts")
        .user("root")
        .json(&body)
        .send()
        .await
        .expect(201);
    let first = made.json()["key"]["key"].as_str().unwrap().to_owned();
    let create = world.call("POST", "accounts/new/keys").user("root");
    let made_key = create
        .json(&json!({ "expires": "2027-01-01T00:00:00Z" }))
        .send()
        .await
        .expect(201);
    let second = made_key.json()["key"].as_str().unwrap().to_owned();
    for key in [&first, &second] {
        let me = world.get("whoami").bearer(key).send().await.expect(200);
        assert_eq!(me.json()["principal"], "new");
    }
    let mut texts = made.text.replace(&first, "");
    for &operation in ApiOperation::ALL {
        texts += &world.example(operation).user("root").send().await.text;
    }
    for path in ["accounts/new", "accounts/new/keys", "accounts", "audit"] {
        texts += &world.get(path).user("root").send().await.expect(200).text;
    }
    for secret in [
        &first,
        &second,
        &world.key.1,
        &world.robot_key,
        "a very secret text",
        "$argon2id",
        PASSWORD,
    ] {
        assert!(!texts.contains(secret), "{secret}");
    }
    // What is wrong with a body is said without its values.
    let wrong = json!({ "name": "x", "kind": "a very secret text" });
    let reply = world
        .call("POST", "accounts")
        .user("root")
        .json(&wrong)
        .send()
        .await
        .expect(400);
    assert!(!reply.text.contains("secret"), "{reply:?}");
}
