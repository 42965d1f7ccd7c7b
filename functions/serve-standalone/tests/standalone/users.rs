//! Users, their passwords, and everyone else.

use crate::support::{
    EMPTY, MANIFEST_TYPE, Server, basic, digest, eventually, folder_with_users, manifest, write_users,
};

const CHALLENGE: &str = r#"Basic realm="roadstead", charset="UTF-8""#;

/// Every route, with every method that it knows, without credentials and with wrong ones: the same challenge, whether
/// or not there is such a repository.
#[test]
fn s14_no_request_gets_past_the_challenge() {
    let folder = folder_with_users(&[("alice", "secret")]);
    let server = Server::start_in(folder, &["--htpasswd", "users", "--challenge", "basic"]);
    let alice = basic("alice", "secret");
    let authorization = ("Authorization", alice.as_str());
    let blob = digest(EMPTY);
    let upload = server.open_upload("known", &[authorization]);
    let pushed = server.request("PUT", &format!("{upload}?digest={blob}"), &[authorization], EMPTY);
    assert_eq!(pushed.status, 201);
    let pushed = server.request(
        "PUT",
        "/v2/known/manifests/latest",
        &[authorization, MANIFEST_TYPE],
        &manifest(""),
    );
    assert_eq!(pushed.status, 201);
    let wrong = [
        basic("alice", "Secret"),
        basic("bob", "secret"),
        "Bearer x".into(),
        "Basic ?".into(),
        "Basic".into(),
    ];
    let mut asked = 0;
    for repository in ["known", "unknown", "known/blobs/uploads"] {
        for (methods, path) in [
            ("GET HEAD", "/v2/".to_owned()),
            ("GET HEAD", "/v2".to_owned()),
            ("GET HEAD", "/v2/_catalog".to_owned()),
            ("GET HEAD", format!("/v2/{repository}/tags/list")),
            ("GET HEAD", format!("/v2/{repository}/referrers/{blob}")),
            ("GET HEAD DELETE", format!("/v2/{repository}/blobs/{blob}")),
            ("GET HEAD PUT DELETE", format!("/v2/{repository}/manifests/latest")),
            ("GET HEAD PUT DELETE", format!("/v2/{repository}/manifests/{blob}")),
            ("POST", format!("/v2/{repository}/blobs/uploads/")),
            ("POST", format!("/v2/{repository}/blobs/uploads/?digest={blob}")),
            (
                "POST",
                format!("/v2/{repository}/blobs/uploads/?mount={blob}&from=known"),
            ),
            ("POST", format!("/v2/{repository}/blobs/uploads/?mount={blob}")),
        ] {
            for method in methods.split(' ') {
                let body = if method == "PUT" || path.contains("?digest") {
                    EMPTY
                } else {
                    b""
                };
                let mut client = server.connect();
                for credentials in std::iter::once(None).chain(wrong.iter().map(Some)) {
                    let mut headers = vec![MANIFEST_TYPE];
                    headers.extend(credentials.map(|credentials| ("Authorization", credentials.as_str())));
                    let response = client.request(method, &path, &headers, body);
                    let what = format!("{method} {path} {credentials:?}: {response:?}");
                    assert_eq!(response.status, 401, "{what}");
                    assert_eq!(response.header("www-authenticate"), Some(CHALLENGE), "{what}");
                    if method != "HEAD" {
                        assert_eq!(response.json()["errors"][0]["code"], "UNAUTHORIZED", "{what}");
                    }
                    asked += 1;
                }
            }
        }
    }
    assert_eq!(asked, 3 * 25 * 6);
    // Nothing of all that has changed anything, and the right password still opens the door.
    let tags = server.request("GET", "/v2/known/tags/list", &[authorization], b"");
    assert_eq!(tags.json()["tags"], serde_json::json!(["latest"]));
    let catalog = server.request("GET", "/v2/_catalog", &[authorization], b"");
    assert_eq!(catalog.json()["repositories"], serde_json::json!(["known"]));
}

/// What `docker login` does: a ping without credentials, then one with them.
#[test]
fn login_tells_right_passwords_from_wrong_ones() {
    let folder = folder_with_users(&[("alice", "pass:word"), ("zoë", "geheim")]);
    let server = Server::start_in(folder, &["--htpasswd", "users"]);
    let ping = |credentials: &str| {
        server
            .request("GET", "/v2/", &[("Authorization", credentials)], b"")
            .status
    };
    assert_eq!(server.request("GET", "/v2/", &[], b"").status, 401);
    assert_eq!(ping(&basic("alice", "pass:word")), 200);
    assert_eq!(ping(&basic("zoë", "geheim")), 200);
    assert_eq!(ping(&basic("alice", "pass")), 401);
    assert_eq!(ping(&basic("zoe", "geheim")), 401);
}

#[test]
fn everyone_may_pull_and_users_push_when_that_was_asked_for() {
    let folder = folder_with_users(&[("alice", "secret")]);
    let server = Server::start_in(
        folder,
        &[
            "--htpasswd",
            "users",
            "--allow-anonymous",
            "pull",
            "--challenge",
            "basic",
        ],
    );
    let alice = basic("alice", "secret");
    let authorization = ("Authorization", alice.as_str());
    let blob = digest(EMPTY);
    let upload = server.open_upload("app", &[authorization]);
    assert_eq!(
        server
            .request("PUT", &format!("{upload}?digest={blob}"), &[authorization], EMPTY)
            .status,
        201
    );
    let pull = format!("/v2/app/blobs/{blob}");
    assert_eq!(server.request("GET", &pull, &[], b"").body, EMPTY);
    let push = server.request("POST", "/v2/app/blobs/uploads/", &[], b"");
    assert_eq!((push.status, push.header("www-authenticate")), (401, Some(CHALLENGE)));
    assert_eq!(server.request("DELETE", &pull, &[], b"").status, 401);
    // Wrong credentials are not the same as none.
    assert_eq!(
        server
            .request("GET", &pull, &[("Authorization", &basic("alice", "x"))], b"")
            .status,
        401
    );
    assert_eq!(server.request("DELETE", &pull, &[authorization], b"").status, 202);
}

#[test]
fn everyone_may_only_pull_where_there_are_no_users() {
    let server = Server::start(&["--allow-anonymous", "pull"]);
    assert_eq!(server.request("GET", "/v2/", &[], b"").status, 200);
    let push = server.request("POST", "/v2/app/blobs/uploads/", &[], b"");
    assert_eq!((push.status, push.header("www-authenticate")), (403, None));
}

/// A user who is removed while an upload is open can send bytes with its token, as some clients send no credentials
/// there, but cannot publish them.
#[test]
fn s17_a_revoked_user_publishes_nothing() {
    let folder = folder_with_users(&[("alice", "secret"), ("bob", "secret")]);
    let server = Server::start_in(folder.clone(), &["--htpasswd", "users"]);
    let alice = basic("alice", "secret");
    let authorization = ("Authorization", alice.as_str());
    let blob = digest(EMPTY);
    let upload = server.open_upload("app", &[authorization]);
    let patched = server.request("PATCH", &upload, &[], EMPTY);
    assert_eq!(patched.status, 202);
    let upload = patched.header("location").unwrap().to_owned();
    write_users(&folder.path().join("users"), &[("bob", "secret")]);
    eventually("the change of the file takes effect", || {
        (server.request("GET", "/v2/", &[authorization], b"").status == 401).then_some(())
    });
    let finish = format!("{upload}?digest={blob}");
    assert_eq!(server.request("PUT", &finish, &[], b"").status, 401);
    assert_eq!(server.request("PUT", &finish, &[authorization], b"").status, 401);
    assert_eq!(
        server
            .request("PUT", &finish, &[("Authorization", &basic("bob", "secret"))], b"")
            .status,
        403
    );
    let other = basic("bob", "secret");
    let pulled = server.request(
        "GET",
        &format!("/v2/app/blobs/{blob}"),
        &[("Authorization", &other)],
        b"",
    );
    assert_eq!(pulled.status, 404);
}

#[test]
fn health_needs_no_password_and_tells_nothing() {
    let folder = folder_with_users(&[("alice", "secret")]);
    let server = Server::start_in(folder, &["--htpasswd", "users"]);
    for (path, text) in [("/livez", "ok\n"), ("/readyz", "ready\n")] {
        let response = server.request("GET", path, &[], b"");
        assert_eq!(
            (response.status, response.body.as_slice()),
            (200, text.as_bytes()),
            "{path}"
        );
        assert_eq!(server.request("HEAD", path, &[], b"").status, 200, "{path}");
        assert_eq!(server.request("DELETE", path, &[], b"").status, 405, "{path}");
    }
    assert_eq!(server.request("GET", "/readyz/", &[], b"").status, 404);
}
