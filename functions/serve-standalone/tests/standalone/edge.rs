//! A registry behind an edge, which proves by a secret that it has sent a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::Value;

use crate::support::{Response, Server, basic, folder_with_users, roadstead, run};

const FIRST: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";
const SECOND: &str = "another-secret-of-the-edge-of-43-characters";
const SECRET: &str = "X-Roadstead-Origin-Secret";
const HOST: (&str, &str) = ("X-Roadstead-Host", "registry.example");
const CLIENT: (&str, &str) = ("X-Roadstead-Client", "198.51.100.7");
const AGENT: (&str, &str) = ("X-Roadstead-Agent", "docker/28.0 (linux)");

/// A server with the user `alice` behind an edge with these secrets, which are in the file `edge`.
fn server(secrets: &str, flags: &[&str]) -> Server {
    let folder = folder_with_users(&[("alice", "secret")]);
    std::fs::write(folder.path().join("edge"), secrets).unwrap();
    let own = ["--htpasswd", "users", "--origin-secret-file", "edge"];
    Server::start_in(folder, &[&own[..], flags].concat())
}

/// The line for the last request of this path.
fn access_line(server: &Server, path: &str) -> Value {
    server.wait_for_line(path, |line| line["target"] == "access" && line["path"] == path)
}

#[test]
fn s29_only_requests_of_the_edge_are_answered() {
    let server = server(FIRST, &["--metrics", "here"]);
    let alice = basic("alice", "secret");
    let login = ("Authorization", alice.as_str());
    let copy = ("X-Roadstead-Authorization", alice.as_str());
    let refused = |headers: &[(&str, &str)], path: &str| {
        let response = server.request("GET", path, headers, b"");
        assert_eq!(response.status, 403, "{path} {headers:?}: {response:?}");
        assert_eq!(response.json()["errors"][0]["code"], "DENIED");
        assert_eq!(response.header("www-authenticate"), None);
    };
    for path in ["/v2/", "/", "/token", "/metrics", "/api/v1/whoami", "/no/such/path"] {
        refused(&[login], path);
        refused(&[login, copy, HOST, CLIENT, (SECRET, SECOND)], path);
        refused(&[login, copy, (SECRET, FIRST), (SECRET, FIRST)], path);
        refused(&[login, copy, (SECRET, "")], path);
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(server.request("GET", path, &[], b"").status, 200);
    }
    // A body that nobody reads is no reason to answer later.
    let upload = server.request(
        "POST",
        "/v2/a/blobs/uploads/?digest=sha256:00",
        &[login],
        &vec![0; 100_000],
    );
    assert_eq!(upload.status, 403);
    let admitted = server.request("GET", "/v2/", &[copy, HOST, CLIENT, AGENT, (SECRET, FIRST)], b"");
    assert_eq!(admitted.status, 200);
    let metrics = server.request("GET", "/metrics", &[HOST, (SECRET, FIRST)], b"");
    assert_eq!(metrics.status, 200);
    let metrics = String::from_utf8(metrics.body).unwrap();
    // S18: neither the secret nor one that was tried is anywhere.
    for text in [server.log(), metrics] {
        for secret in [FIRST, SECOND] {
            assert!(!text.contains(&secret[..16]), "{text}");
        }
    }
}

/// With the edge's word, `Host`, `Authorization`, `User-Agent` and the client are those that it copies, or absent.
#[test]
fn s29_the_edge_speaks_for_its_clients() {
    let server = server(FIRST, &[]);
    let alice = basic("alice", "secret");
    let originals = [
        (SECRET, FIRST),
        ("Authorization", alice.as_str()),
        ("User-Agent", "Amazon CloudFront"),
        ("X-Forwarded-For", "192.0.2.99"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Proto", "http"),
        ("Via", "2.0 front.example"),
    ];
    let get =
        |path: &str, copies: &[(&str, &str)]| server.request("GET", path, &[&originals[..], copies].concat(), b"");
    // The original login counts for nothing, and the challenge leads to the URL of the edge.
    let asked = get("/v2/", &[HOST, CLIENT]);
    let realm = r#"Bearer realm="https://registry.example/token",service="roadstead""#;
    assert_eq!((asked.status, asked.header("www-authenticate")), (401, Some(realm)));
    let copy = ("X-Roadstead-Authorization", alice.as_str());
    let token = get("/token?scope=repository:a:pull,push", &[HOST, CLIENT, copy]);
    let bearer = format!("Bearer {}", token.json()["token"].as_str().unwrap());
    let found = get(
        "/v2/a/tags/list",
        &[HOST, CLIENT, AGENT, ("X-Roadstead-Authorization", &bearer)],
    );
    assert_eq!(found.status, 404);
    let line = access_line(&server, "/v2/a/tags/list");
    assert_eq!(
        (&line["peer"], &line["agent"], &line["user"]),
        (&CLIENT.1.into(), &AGENT.1.into(), &"alice".into())
    );
    // Absent copies.
    assert_eq!(get("/v2/b/tags/list", &[CLIENT, copy]).status, 400);
    let line = access_line(&server, "/v2/b/tags/list");
    assert_eq!((&line["agent"], &line["peer"]), (&Value::Null, &CLIENT.1.into()));
    assert_eq!(get("/v2/c/tags/list", &[HOST, copy]).status, 404);
    let line = access_line(&server, "/v2/c/tags/list");
    assert_eq!(line["peer"], "127.0.0.1");
    // Several copies: the registry answers as to a client that has sent them.
    assert_eq!(get("/v2/", &[HOST, HOST, copy]).status, 400);
    assert_eq!(get("/v2/", &[HOST, copy, copy]).status, 401);
}

/// Without the setting these fields mean nothing.
#[test]
fn s29_without_an_edge_its_fields_mean_nothing() {
    let folder = folder_with_users(&[("alice", "secret")]);
    let server = Server::start_in(folder, &["--htpasswd", "users"]);
    let alice = basic("alice", "secret");
    let fields = [
        (SECRET, FIRST),
        HOST,
        CLIENT,
        AGENT,
        ("X-Roadstead-Authorization", alice.as_str()),
    ];
    let asked = server.request("GET", "/v2/", &fields, b"");
    let realm = r#"Bearer realm="http://localhost/token",service="roadstead""#;
    assert_eq!((asked.status, asked.header("www-authenticate")), (401, Some(realm)));
    let line = access_line(&server, "/v2/");
    assert_eq!((&line["peer"], &line["agent"]), (&"127.0.0.1".into(), &Value::Null));
    assert!(!server.log().contains(&FIRST[..16]));
}

/// An edge is changed while requests come: the registry takes both secrets, then the edge sends the new one, then the
/// registry takes that alone.
#[test]
fn a_secret_is_replaced_under_load_and_no_request_fails() {
    let server = Arc::new(server(FIRST, &[]));
    let uses_second = Arc::new(AtomicBool::new(false));
    let (ends, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let edges: Vec<_> = (0..4)
        .map(|_| {
            let (server, uses_second) = (server.clone(), uses_second.clone());
            let (ends, answered) = (ends.clone(), answered.clone());
            thread::spawn(move || {
                let mut connection = server.connect();
                let alice = basic("alice", "secret");
                while !ends.load(Ordering::SeqCst) {
                    let secret = if uses_second.load(Ordering::SeqCst) {
                        SECOND
                    } else {
                        FIRST
                    };
                    let headers = [(SECRET, secret), HOST, ("X-Roadstead-Authorization", alice.as_str())];
                    let Response { status, .. } = connection.request("GET", "/v2/", &headers, b"");
                    assert_eq!(status, 200);
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let some_more = || {
        let before = answered.load(Ordering::SeqCst);
        crate::support::eventually("more requests are answered", || {
            (answered.load(Ordering::SeqCst) > before + 50).then_some(())
        });
    };
    let file = server.folder.path().join("edge");
    let effect = "the secrets of the edge were read again";
    some_more();
    std::fs::write(&file, format!("{SECOND}\n{FIRST}\n")).unwrap();
    server.hang_up(effect);
    some_more();
    uses_second.store(true, Ordering::SeqCst);
    some_more();
    std::fs::write(&file, SECOND).unwrap();
    server.hang_up(effect);
    some_more();
    ends.store(true, Ordering::SeqCst);
    for edge in edges {
        edge.join().unwrap();
    }
    let status = |secret: &str| server.request("GET", "/v2/", &[(SECRET, secret), HOST], b"").status;
    assert_eq!((status(FIRST), status(SECOND)), (403, 401));
    // A file that cannot be used changes nothing.
    std::fs::write(&file, "short").unwrap();
    server.hang_up("the secrets of the edge cannot be used");
    assert_eq!((status(FIRST), status(SECOND)), (403, 401));
    assert!(!server.log().contains("short"));
}

#[test]
fn the_environment_may_hold_the_secrets() {
    let folder = folder_with_users(&[("alice", "secret")]);
    let data = folder.path().join("data");
    let flags = ["--data", data.to_str().unwrap(), "--htpasswd", "users"];
    let secrets = format!("{FIRST},{SECOND}");
    let server = Server::start_on(folder, &flags, &[("ROADSTEAD_ORIGIN_SECRET".into(), secrets)]);
    let status = |secret: &str| server.request("GET", "/v2/", &[(SECRET, secret), HOST], b"").status;
    assert_eq!((status(FIRST), status(SECOND), status("third")), (401, 401, 403));
}

#[test]
fn secrets_that_cannot_be_used_stop_the_start() {
    let folder = folder_with_users(&[]);
    let path = folder.path().join("edge");
    let data = folder.path().join("data");
    let (path, data) = (path.to_str().unwrap(), data.to_str().unwrap());
    for (text, words) in [
        ("", "expected one secret"),
        ("tooshortforasecret", "32 to 512 bytes"),
        (&format!("{FIRST} {SECOND} {FIRST}"), "expected one secret"),
    ] {
        std::fs::write(path, text).unwrap();
        let output = run([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--data",
            data,
            "--origin-secret-file",
            path,
        ]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(path) && stderr.contains(words), "{stderr}");
        assert!(!stderr.contains("tooshort") && !stderr.contains(FIRST), "{stderr}");
    }
    let mut empty = roadstead();
    empty.args(["serve", "--listen", "127.0.0.1:0", "--data", data]);
    let output = empty.env("ROADSTEAD_ORIGIN_SECRET", "").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("ROADSTEAD_ORIGIN_SECRET: it is empty"), "{stderr}");
    // S15: the clients of an edge are on other machines.
    std::fs::write(path, FIRST).unwrap();
    let output = run([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data",
        data,
        "--origin-secret-file",
        path,
    ]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("roadstead user add NAME --admin"), "{stderr}");
}
