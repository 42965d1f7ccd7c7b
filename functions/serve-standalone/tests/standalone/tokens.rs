//! Logins by token, as docker does them: a challenge, a request for a token, a request with the token.

use std::process::Output;

use crate::support::{EMPTY, Server, basic, digest, folder_with_users, run};

/// The token for a scope; without credentials if `user` is `None`.
fn token(server: &Server, user: Option<&str>, scope: &str) -> String {
    let headers: Vec<_> = user.iter().map(|line| ("Authorization", *line)).collect();
    let granted = server.request("GET", &format!("/token?service=roadstead&scope={scope}"), &headers, b"");
    assert_eq!(granted.status, 200, "{granted:?}");
    assert_eq!(granted.header("cache-control"), Some("no-store"));
    let granted = granted.json();
    assert_eq!(granted["token"], granted["access_token"]);
    assert_eq!(granted["expires_in"], 600);
    granted["token"].as_str().expect("a token").to_owned()
}

#[test]
fn users_of_the_file_get_tokens_and_everyone_may_pull_by_token() {
    let folder = folder_with_users(&[("alice", "secret")]);
    let server = Server::start_in(folder, &["--htpasswd", "users", "--allow-anonymous", "pull"]);
    // The tests name the server so in the field Host.
    let realm = "Bearer realm=\"http://localhost/token\",service=\"roadstead\"";
    let ping = server.request("GET", "/v2/", &[], b"");
    assert_eq!((ping.status, ping.header("www-authenticate")), (401, Some(realm)));
    let push = server.request("POST", "/v2/app/blobs/uploads/", &[], b"");
    let challenge = format!("{realm},scope=\"repository:app:pull,push\"");
    assert_eq!(
        (push.status, push.header("www-authenticate")),
        (401, Some(challenge.as_str()))
    );
    let alice = basic("alice", "secret");
    let bearer = |token: &str| format!("Bearer {token}");
    let pushing = bearer(&token(&server, Some(&alice), "repository:app:pull,push"));
    let authorization = ("Authorization", pushing.as_str());
    assert_eq!(server.request("GET", "/v2/", &[authorization], b"").status, 200);
    let blob = digest(EMPTY);
    let upload = server.open_upload("app", &[authorization]);
    let finish = format!("{upload}?digest={blob}");
    assert_eq!(server.request("PUT", &finish, &[authorization], EMPTY).status, 201);
    // The token is for one repository.
    let other = server.request("POST", "/v2/other/blobs/uploads/", &[authorization], b"");
    let challenge = format!("{realm},scope=\"repository:other:pull,push\",error=\"insufficient_scope\"");
    assert_eq!(
        (other.status, other.header("www-authenticate")),
        (401, Some(challenge.as_str()))
    );
    // Without a login, as docker pulls: by a token that proves nobody.
    let pulling = bearer(&token(&server, None, "repository:app:pull,push"));
    let anonymous = ("Authorization", pulling.as_str());
    let pull = format!("/v2/app/blobs/{blob}");
    assert_eq!(server.request("GET", &pull, &[anonymous], b"").body, EMPTY);
    assert_eq!(
        server
            .request("POST", "/v2/app/blobs/uploads/", &[anonymous], b"")
            .status,
        401
    );
    // A wrong password, and a token that was changed.
    let wrong = basic("alice", "wrong");
    let refused = server.request("GET", "/token", &[("Authorization", &wrong)], b"");
    assert_eq!(
        (refused.status, refused.json()["error"].as_str()),
        (401, Some("invalid_grant"))
    );
    let changed = format!("{pushing}x");
    assert_eq!(
        server.request("GET", &pull, &[("Authorization", &changed)], b"").status,
        401
    );
    let keys = server.request("GET", "/.well-known/jwks.json", &[], b"");
    assert_eq!(keys.json()["keys"].as_array().map(Vec::len), Some(1));
}

/// A client that knows only what challenges say gets a token for both repositories of a mount.
#[test]
fn a_mount_asks_for_a_token_that_contains_its_source() {
    let folder = folder_with_users(&[("alice", "secret")]);
    let server = Server::start_in(folder, &["--htpasswd", "users"]);
    let alice = basic("alice", "secret");
    let bearer = |scope: &str| format!("Bearer {}", token(&server, Some(&alice), scope));
    let blob = digest(EMPTY);
    let source = bearer("repository:app:pull,push");
    let authorization = ("Authorization", source.as_str());
    let finish = format!("{}?digest={blob}", server.open_upload("app", &[authorization]));
    assert_eq!(server.request("PUT", &finish, &[authorization], EMPTY).status, 201);
    let target = bearer("repository:other:pull,push");
    let authorization = ("Authorization", target.as_str());
    let mount = format!("/v2/other/blobs/uploads/?mount={blob}");
    assert_eq!(server.request("POST", &mount, &[authorization], b"").status, 202);
    let from = format!("{mount}&from=app");
    let asked = server.request("POST", &from, &[authorization], b"");
    let scope = "repository:other:pull,push repository:app:pull";
    let challenge = format!(
        "Bearer realm=\"http://localhost/token\",service=\"roadstead\",scope=\"{scope}\",error=\"insufficient_scope\""
    );
    assert_eq!(
        (asked.status, asked.header("www-authenticate")),
        (401, Some(challenge.as_str()))
    );
    let both = bearer(&scope.replace(' ', "%20"));
    let authorization = ("Authorization", both.as_str());
    for query in [&from, &mount] {
        assert_eq!(
            server.request("POST", query, &[authorization], b"").status,
            201,
            "{query}"
        );
        let head = server.request("HEAD", &format!("/v2/other/blobs/{blob}"), &[authorization], b"");
        assert_eq!(head.status, 200);
    }
}

/// The secret lets a public server start without accounts, and is no login.
#[test]
fn s15_a_bootstrap_secret_closes_the_registry() {
    let folder = folder_with_users(&[]);
    let secret = "0123456789abcdef0123456789abcdef";
    std::fs::write(folder.path().join("secret"), format!("{secret}\n")).expect("it can be written");
    let server = Server::start_in(folder, &["--bootstrap-secret-file", "secret"]);
    assert_eq!(server.request("GET", "/v2/", &[], b"").status, 401);
    let bootstrap = basic("bootstrap", secret);
    assert_eq!(
        server
            .request("GET", "/v2/", &[("Authorization", &bootstrap)], b"")
            .status,
        401
    );
    assert_eq!(
        server
            .request("GET", "/token", &[("Authorization", &bootstrap)], b"")
            .status,
        401
    );
}

#[test]
fn s15_files_that_cannot_be_used_stop_the_start() {
    let folder = folder_with_users(&[]);
    let path = folder.path().join("file");
    std::fs::write(&path, "short").expect("it can be written");
    let path = path.to_str().expect("a path as text");
    let data = folder.path().join("data");
    let data = data.to_str().expect("a path as text");
    for flag in ["--bootstrap-secret-file", "--token-key-file"] {
        let Output { status, stderr, .. } = run(["serve", "--listen", "127.0.0.1:0", "--data", data, flag, path]);
        let stderr = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(1), "{flag}: {stderr}");
        assert!(stderr.contains(path) && !stderr.contains("short"), "{flag}: {stderr}");
    }
}
