//! What is written down, and what never is.

use crate::support::{EMPTY, Server, basic, digest, folder_with_users};

/// As much as can be asked for, also by name of what tells most.
const EVERYTHING: &str = "trace,h2::codec=trace,h2::proto=trace,h2::hpack=trace,hyper::proto=trace";

#[test]
fn s18_no_secret_is_logged_and_no_line_is_forged() {
    let folder = folder_with_users(&[("alice", "correct-horse")]);
    let server = Server::start_in(folder, &["--htpasswd", "users", "--log-level", EVERYTHING]);
    let alice = basic("alice", "correct-horse");
    let wrong = basic("mistyped-password-as-user", "wrong-battery");
    let authorization = ("Authorization", alice.as_str());
    let agent = ("User-Agent", "evil\"agent\\ {\"level\":\"ERROR\"} \u{9b}31m");
    let blob = digest(EMPTY);

    let upload = server.open_upload("app", &[authorization, agent]);
    let token = upload.rsplit('/').next().unwrap().to_owned();
    assert_eq!(server.request("GET", &upload, &[agent], b"").status, 204);
    assert_eq!(
        server
            .request("GET", &format!("/v2/app/blobs/%75ploads/{token}"), &[], b"")
            .status,
        204
    );
    server.request("GET", &format!("/v2/other/blobs/uploads/{token}/more"), &[], b"");
    server.request("GET", &format!("/{token}"), &[], b"");
    server.request("PATCH", &upload, &[("Content-Range", "7-9")], EMPTY);
    let finish = format!("{upload}?digest={blob}&secret=query-value");
    assert_eq!(server.request("PUT", &finish, &[authorization], EMPTY).status, 201);
    assert_eq!(
        server
            .request("GET", "/v2/?token=query-value", &[("Authorization", &wrong)], b"")
            .status,
        401
    );
    server.request("GET", "/v2/app/manifests/a%0a%1b%5b31mforged", &[authorization], b"");
    server.request("GET", "/v2/app/manifests/la\"test", &[authorization], b"");
    // Bytes that no header may hold: refused before anything is logged of them.
    let mut client = server.connect();
    client.send(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a\x1b[31mb\x00c\r\n\r\n");
    assert!(client.is_closed());
    // The same over HTTP/2, whose library likes to tell what it reads.
    let (status, version) = crate::protocol::ask_once(&server, "GET", "/v2/?token=query-value", &[authorization]);
    assert_eq!((status, version), (200, hyper::Version::HTTP_2));
    server.request("GET", "/livez", &[("User-Agent", "the-last-one")], b"");

    // Every line is JSON, or `lines` fails; and the requests above are there.
    server.wait_for_line("the last request is logged", |line| line["agent"] == "the-last-one");
    let lines = server.lines();
    let access: Vec<_> = lines.iter().filter(|line| line["target"] == "access").collect();
    assert!(access.len() >= 12, "{access:?}");
    let finished = access.iter().find(|line| line["status"] == 201).unwrap();
    assert_eq!(finished["user"], "alice");
    assert_eq!(finished["path"], "/v2/app/blobs/uploads/…");
    assert_eq!(finished["method"], "PUT");
    assert!(
        access
            .iter()
            .any(|line| line["agent"].as_str().unwrap().starts_with("evil"))
    );
    let library = lines
        .iter()
        .find(|line| line["target"].as_str().unwrap().starts_with("h2"));
    assert_eq!(library, None, "it tells the bytes of requests");
    let log = server.log();
    let credentials = [alice, wrong].map(|header| header.trim_start_matches("Basic ").to_owned());
    for secret in [
        token.as_str(),
        &token[..20],
        "correct-horse",
        "wrong-battery",
        "mistyped-password",
        "query-value",
        &credentials[0],
        &credentials[1],
        "$2b$",
    ] {
        assert!(!log.contains(secret), "{secret} in\n{log}");
    }
    let control = log
        .chars()
        .find(|character| character.is_control() && *character != '\n');
    assert_eq!(control, None, "{log}");
    assert!(!log.contains("\"level\":\"ERROR\""), "{log}");
}

/// Logins, tokens and denials have lines of their own, with the target `audit`; a login that repeats has one.
#[test]
fn the_log_says_who_logged_in_and_who_was_refused_what() {
    let folder = folder_with_users(&[("alice", "correct-horse")]);
    let server = Server::start_in(folder, &["--htpasswd", "users"]);
    let (alice, wrong) = (basic("alice", "correct-horse"), basic("alice", "wrong-battery"));
    for _ in 0..5 {
        for (credentials, status) in [(&alice, 200), (&wrong, 401)] {
            let headers = [("Authorization", credentials.as_str())];
            assert_eq!(server.request("GET", "/v2/", &headers, b"").status, status);
        }
    }
    let headers = [("Authorization", alice.as_str())];
    let granted = server.request("GET", "/token?scope=repository:team/app:pull", &headers, b"");
    let bearer = format!("Bearer {}", granted.json()["token"].as_str().unwrap());
    let headers = [("Authorization", bearer.as_str())];
    let denied = server.request("DELETE", "/v2/team/app/manifests/v1?secret=query-value", &headers, b"");
    assert_eq!(denied.status, 401);
    server.request("GET", "/livez", &[("User-Agent", "the-last-one")], b"");
    server.wait_for_line("the last request is logged", |line| line["agent"] == "the-last-one");
    let lines: Vec<_> = server
        .lines()
        .into_iter()
        .filter(|line| line["target"] == "audit")
        .collect();
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(
        events,
        ["login.accepted", "login.refused", "token.issued", "request.denied"],
        "{lines:?}"
    );
    for line in &lines {
        assert_eq!(
            (&line["principal"], &line["address"]),
            (&"alice".into(), &"127.0.0.1".into())
        );
    }
    assert_eq!(lines[1]["detail"], "password");
    assert_eq!(lines[2]["detail"], "repository:team/app:pull");
    assert_eq!(
        (&lines[3]["repository"], &lines[3]["reference"], &lines[3]["detail"]),
        (&"team/app".into(), &"v1".into(), &"insufficient_scope".into())
    );
}

#[test]
fn the_line_for_each_request_can_be_left_out() {
    let server = Server::start(&["--log-level", "info,access=off"]);
    assert_eq!(server.request("GET", "/v2/", &[], b"").status, 200);
    server.signal(rustix::process::Signal::TERM);
    let mut server = server;
    assert!(server.wait().success());
    let lines = server.lines();
    assert!(
        lines
            .iter()
            .any(|line| line["message"] == "drained: all requests have ended"),
        "{lines:?}"
    );
    assert!(lines.iter().all(|line| line["target"] != "access"), "{lines:?}");
}
