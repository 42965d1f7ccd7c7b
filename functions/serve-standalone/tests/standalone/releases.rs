//! `roadstead tag rollback` and `roadstead tag promote`, on `SQLite`, beside a running server.

use std::process::Output;

use serde_json::{Value, json};

use crate::support::{EMPTY, MANIFEST_TYPE, Server, digest, manifest, run};

const INDEX_TYPE: (&str, &str) = ("Content-Type", "application/vnd.oci.image.index.v1+json");
const POLICY: &str = "syntax = 1

[[allow]]
name = \"all\"
who = [\"anyone\"]
repositories = [\"**\"]
actions = [\"pull\", \"push\", \"delete\"]

[[immutable]]
name = \"releases\"
repositories = [\"prod/**\"]
tags = [\"semver\"]
";

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a command on the stores of the server.
fn command(server: &Server, arguments: &[&str]) -> Output {
    let data = server.data();
    run([arguments, &["--data", data.to_str().unwrap()]].concat())
}

/// Runs a command that succeeds, and returns what it prints.
fn succeed(server: &Server, arguments: &[&str]) -> String {
    let output = command(server, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn json_of(server: &Server, arguments: &[&str]) -> Vec<Value> {
    let lines = succeed(server, &[arguments, &["--json"]].concat());
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn fail(server: &Server, arguments: &[&str], code: i32, reported: &str) {
    let output = command(server, arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(stderr.contains(reported), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

fn put(server: &Server, repository: &str, reference: &str, header: (&str, &str), body: &[u8]) {
    let path = format!("/v2/{repository}/manifests/{reference}");
    let response = server.request("PUT", &path, &[header], body);
    assert_eq!(response.status, 201, "{response:?}");
}

/// The digest that a tag names, as the server answers it.
fn named(server: &Server, repository: &str, tag: &str) -> Option<String> {
    let response = server.request("HEAD", &format!("/v2/{repository}/manifests/{tag}"), &[], b"");
    response.header("docker-content-digest").map(str::to_owned)
}

/// Pushes an index with one image, and a signature of it. Returns the digest of the index.
fn push_signed(server: &Server, tag: &str) -> String {
    let repository = "staging/app";
    server.push_blob(repository, EMPTY);
    let image = manifest(tag);
    put(server, repository, &digest(&image), MANIFEST_TYPE, &image);
    let entry = json!({ "mediaType": MANIFEST_TYPE.1, "digest": digest(&image), "size": image.len() });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE.1, "manifests": [entry] }).to_string();
    put(server, repository, tag, INDEX_TYPE, index.as_bytes());
    let mut signature: Value = serde_json::from_slice(&manifest("signature")).unwrap();
    signature["subject"] =
        json!({ "mediaType": INDEX_TYPE.1, "digest": digest(index.as_bytes()), "size": index.len() });
    let signature = signature.to_string();
    let reference = digest(signature.as_bytes());
    put(server, repository, &reference, MANIFEST_TYPE, signature.as_bytes());
    digest(index.as_bytes())
}

#[test]
fn an_image_is_promoted_beside_a_running_server() {
    let server = Server::start(&[]);
    let pushed = push_signed(&server, "1.0.0");
    let promote = ["tag", "promote", "staging/app:1.0.0", "prod/app:1.0.0"];
    for moved in [true, false] {
        let expected = json!({
            "repository": "prod/app",
            "tag": "1.0.0",
            "digest": pushed,
            "moved": moved,
            "from": "staging/app:1.0.0",
            "manifests": 2,
            "referrers": 1,
            "kept": [],
            "copied_bytes": 0,
        });
        assert_eq!(json_of(&server, &promote), [expected]);
    }
    assert_eq!(
        succeed(&server, &promote),
        format!("prod/app:1.0.0 named already {pushed} (2 manifests, 1 referrer)\n")
    );
    assert_eq!(named(&server, "prod/app", "1.0.0").as_ref(), Some(&pushed));
    let referrers = server.request("GET", &format!("/v2/prod/app/referrers/{pushed}"), &[], b"");
    assert_eq!(referrers.json()["manifests"].as_array().unwrap().len(), 1);
    let blob = server.request("GET", &format!("/v2/prod/app/blobs/{}", digest(EMPTY)), &[], b"");
    assert_eq!((blob.status, &*blob.body), (200, EMPTY));

    // By digest, and without the signature.
    let from = format!("staging/app@{pushed}");
    let printed = succeed(&server, &["tag", "promote", &from, "other:x", "--without-referrers"]);
    assert_eq!(
        printed,
        format!("other:x names now {pushed} (2 manifests, 0 referrers)\n")
    );
    let history = json_of(&server, &["tag", "history", "other", "x"]);
    assert_eq!(
        (history.len(), &history[0]["principal"], &history[0]["promoted_from"]),
        (1, &json!(":operator"), &json!(from))
    );
    let lines = succeed(&server, &["tag", "history", "prod/app", "1.0.0"]);
    assert!(lines.contains("\t:operator from staging/app:1.0.0\t-\t"), "{lines}");
}

#[test]
fn a_tag_is_rolled_back_beside_a_running_server() {
    let server = Server::start(&[]);
    server.push_blob("app", EMPTY);
    for note in ["one", "two"] {
        put(&server, "app", "latest", MANIFEST_TYPE, &manifest(note));
    }
    let (one, two) = (digest(&manifest("one")), digest(&manifest("two")));
    let version = json_of(&server, &["tag", "history", "app", "latest"])[1]["version"].to_string();
    let roll_back = ["tag", "rollback", "app", "latest", &version];
    for moved in [true, false] {
        let expected = json!({ "repository": "app", "tag": "latest", "digest": one, "moved": moved });
        assert_eq!(json_of(&server, &roll_back), [expected]);
    }
    assert_eq!(named(&server, "app", "latest").as_ref(), Some(&one));
    assert_eq!(
        succeed(&server, &["tag", "rollback", "app", "latest", &two]),
        format!("app:latest names now {two}\n")
    );
    assert_eq!(named(&server, "app", "latest").as_ref(), Some(&two));
    let history = json_of(&server, &["tag", "history", "app", "latest"]);
    assert_eq!((history.len(), &history[0]["principal"]), (4, &json!(":operator")));
    assert_eq!(history[0].get("promoted_from"), None);
}

#[test]
fn failures_of_releases_have_exit_codes_and_say_what_to_do() {
    let server = Server::start(&[]);
    push_signed(&server, "1.0.0");
    put(&server, "staging/app", "2.0.0", MANIFEST_TYPE, &manifest("two"));
    let policy = server.folder.path().join("policy.toml");
    std::fs::write(&policy, POLICY).unwrap();
    succeed(&server, &["policy", "set", policy.to_str().unwrap()]);
    succeed(&server, &["tag", "promote", "staging/app:1.0.0", "prod/app:1.0.0"]);
    let unknown = digest(b"unknown");
    let by_digest = format!("staging/app@{unknown}");
    for (arguments, code, reported) in [
        (
            &["tag", "promote", "staging/app:2.0.0", "prod/app:1.0.0"][..],
            1,
            "immutable by the rule \"releases\"",
        ),
        (&["tag", "promote", "staging/app:3", "prod/app:3"], 3, "has no tag 3"),
        (&["tag", "promote", &by_digest, "prod/app:3"], 3, "has no manifest"),
        (&["tag", "promote", "no/such:1", "prod/app:3"], 3, "repo list"),
        (&["tag", "promote", "staging/app", "prod/app:3"], 2, "REPOSITORY:TAG"),
        (
            &["tag", "promote", "staging/app:1.0.0", "Prod:3"],
            2,
            "not a valid name",
        ),
        (&["tag", "rollback", "staging/app", "2.0.0", "1"], 3, "has no version 1"),
        (&["tag", "rollback", "staging/app", "3", "1"], 3, "has no tag 3"),
        (
            &["tag", "rollback", "staging/app", "2.0.0", &unknown],
            3,
            "did not name",
        ),
        (&["tag", "rollback", "no/such", "1", "1"], 3, "repo list"),
        (&["tag", "rollback", "staging/app", "2.0.0", "old"], 2, "a digest"),
    ] {
        fail(&server, arguments, code, reported);
    }
    // Deleted since.
    let two = digest(&manifest("two"));
    let path = format!("/v2/staging/app/manifests/{two}");
    assert_eq!(server.request("DELETE", &path, &[], b"").status, 202);
    let roll_back = ["tag", "rollback", "staging/app", "2.0.0", &two];
    fail(&server, &roll_back, 3, "was deleted from staging/app since");
}
