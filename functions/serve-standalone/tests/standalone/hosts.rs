//! A server without passwords, and the pages that a browser on the same machine shows.

use std::net::Ipv4Addr;

use crate::support::{EMPTY, MANIFEST_TYPE, Response, Server, digest, folder_with_users, h2, manifest};

/// A request with exactly these lines after the first one.
fn raw(server: &Server, first: &str, fields: &[&str]) -> Response {
    let mut client = server.connect();
    client.send(format!("{first}\r\n").as_bytes());
    for field in fields {
        client.send(format!("{field}\r\n").as_bytes());
    }
    client.send(b"\r\n");
    client.response("GET")
}

fn ping(server: &Server, fields: &[&str]) -> u16 {
    raw(server, "GET /v2/ HTTP/1.1", fields).status
}

#[test]
fn s32_a_request_has_exactly_one_host() {
    let users = folder_with_users(&[("alice", "secret")]);
    // With users and without: it is HTTP that asks for this.
    for (server, right) in [
        (Server::start(&[]), 200),
        (Server::start_in(users, &["--htpasswd", "users"]), 401),
    ] {
        for (first, fields, expected) in [
            ("GET /v2/ HTTP/1.1", &["Host: localhost"][..], right),
            ("GET /v2/ HTTP/1.0", &["Host: localhost"], right),
            ("GET http://localhost/v2/ HTTP/1.1", &["Host: localhost"], right),
            ("GET /v2/ HTTP/1.1", &[], 400),
            ("GET /v2/ HTTP/1.1", &["Host:"], 400),
            ("GET /v2/ HTTP/1.1", &["Host: localhost", "Host: localhost"], 400),
            ("GET /v2/ HTTP/1.1", &["Host: localhost", "Host: evil.example"], 400),
            ("GET /v2/ HTTP/1.1", &["Host: a@localhost"], 400),
            ("GET http://evil.example/v2/ HTTP/1.1", &["Host: localhost"], 400),
            ("GET http://localhost/v2/ HTTP/1.1", &[], 400),
        ] {
            let answer = raw(&server, first, fields);
            assert_eq!(answer.status, expected, "{first} {fields:?}: {answer:?}");
        }
        // What keeps the server running asks as it likes.
        assert_eq!(raw(&server, "GET /livez HTTP/1.0", &[]).status, 200);
    }
}

/// DNS rebinding: a page's own name leads to this machine, and the browser takes the registry for the page's server.
#[test]
fn s32_without_passwords_only_names_of_this_machine_are_answered() {
    let server = Server::start(&["--metrics", "here"]);
    let port = server.address.port();
    for host in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        format!("registry.localhost:{port}"),
        "127.8.8.8".into(),
        // A port that ssh or kubectl forwards.
        "localhost:15000".into(),
    ] {
        assert_eq!(ping(&server, &[&format!("Host: {host}")]), 200, "{host}");
    }
    for host in [
        format!("evil.example:{port}"),
        format!("127.0.0.1.evil.example:{port}"),
        format!("localhost.evil.example:{port}"),
        format!("host.docker.internal:{port}"),
        format!("192.0.2.1:{port}"),
        format!("0.0.0.0:{port}"),
    ] {
        let field = format!("Host: {host}");
        for path in ["/v2/", "/", "/v2/_catalog", "/metrics", "/v2/app/tags/list"] {
            let answer = raw(&server, &format!("GET {path} HTTP/1.1"), &[&field]);
            assert_eq!(answer.status, 403, "{host} {path}");
            let error = &answer.json()["errors"][0];
            assert_eq!(error["code"], "DENIED", "{host}");
            assert!(error["message"].as_str().unwrap().contains("--allow-host"), "{error}");
        }
    }
    // Nothing of a refused push is done.
    let push = raw(
        &server,
        &format!("POST /v2/app/blobs/uploads/?digest={} HTTP/1.1", digest(b"")),
        &["Host: evil.example", "Content-Length: 0"],
    );
    assert_eq!(push.status, 403);
    let catalog = server.request("GET", "/v2/_catalog", &[], b"");
    assert_eq!(catalog.json()["repositories"], serde_json::json!([]));
    assert_eq!(raw(&server, "GET /metrics HTTP/1.1", &["Host: localhost"]).status, 200);
}

#[test]
fn s32_names_can_be_allowed() {
    let server = Server::start(&[
        "--allow-host",
        "host.docker.internal,Registry.Test",
        "--allow-host",
        "192.0.2.1",
    ]);
    for (host, expected) in [
        ("host.docker.internal:5000", 200),
        ("HOST.docker.internal", 200),
        ("registry.test", 200),
        ("192.0.2.1:443", 200),
        ("localhost:5000", 200),
        ("a.registry.test", 403),
        ("evil.example", 403),
    ] {
        assert_eq!(ping(&server, &[&format!("Host: {host}")]), expected, "{host}");
    }
    // With users too, if names are given; and every name without.
    let users = folder_with_users(&[("alice", "secret")]);
    let server = Server::start_in(users.clone(), &["--htpasswd", "users", "--allow-host", "registry.test"]);
    let refused = raw(&server, "GET /v2/ HTTP/1.1", &["Host: evil.example"]);
    assert_eq!(refused.status, 403);
    // As true of a registry that asks for passwords.
    assert_eq!(
        refused.json()["errors"][0]["message"],
        "the registry is not served under the host name evil.example; its operator can allow it with --allow-host"
    );
    assert_eq!(ping(&server, &["Host: registry.test"]), 401);
    let server = Server::start_in(users, &["--htpasswd", "users"]);
    assert_eq!(
        ping(&server, &["Host: evil.example", "Origin: https://evil.example"]),
        401
    );
}

/// What a browser sends for the pages that it shows, to a server on its own machine.
#[test]
fn s32_without_passwords_pages_of_other_sites_reach_nothing() {
    for flags in [&[][..], &["--allow-anonymous", "all"], &["--allow-anonymous", "pull"]] {
        let server = Server::start(flags);
        let own = format!("127.0.0.1:{}", server.address.port());
        let host = format!("Host: {own}");
        let origin = |origin: &str| format!("Origin: {origin}");
        for (what, fields, expected) in [
            ("a client", vec![], 200),
            ("an address that was typed", vec!["Sec-Fetch-Site: none".into()], 200),
            (
                "the registry's own page",
                vec![origin(&format!("http://{own}")), "Sec-Fetch-Site: same-origin".into()],
                200,
            ),
            ("TLS in front", vec![origin(&format!("https://{own}"))], 200),
            ("an image in a page", vec!["Sec-Fetch-Site: cross-site".into()], 403),
            (
                "another port of this machine",
                vec!["Sec-Fetch-Site: same-site".into()],
                403,
            ),
            ("a script", vec![origin("https://evil.example")], 403),
            ("a script on this machine", vec![origin("http://127.0.0.1:3000")], 403),
            (
                "the same under another name",
                vec![origin(&format!("http://localhost:{}", server.address.port()))],
                403,
            ),
            ("a frame in a sandbox, a file", vec![origin("null")], 403),
            (
                "one of two",
                vec![origin(&format!("http://{own}")), origin("https://evil.example")],
                403,
            ),
        ] {
            let fields: Vec<&str> = std::iter::once(host.as_str())
                .chain(fields.iter().map(String::as_str))
                .collect();
            assert_eq!(ping(&server, &fields), expected, "{flags:?}: {what}");
        }
        // A preflight is no way in either: it names no method and no origin that would be allowed.
        let preflight = raw(
            &server,
            "OPTIONS /v2/app/manifests/latest HTTP/1.1",
            &[
                &host,
                "Origin: https://evil.example",
                "Access-Control-Request-Method: PUT",
            ],
        );
        assert_eq!(preflight.status, 403);
        assert!(preflight.header("access-control-allow-origin").is_none());
    }
}

/// A form of another site that pushes and deletes, as it could without a preflight, and a method that needs one.
#[test]
fn s32_a_page_of_another_site_changes_nothing() {
    let server = Server::start(&[]);
    server.push_blob("app", EMPTY);
    let body = manifest("a");
    let put = |headers: &[(&str, &str)]| {
        let headers = [&[MANIFEST_TYPE][..], headers].concat();
        server
            .request("PUT", "/v2/app/manifests/latest", &headers, &body)
            .status
    };
    let evil = ("Origin", "https://evil.example");
    assert_eq!(put(&[evil]), 403);
    assert_eq!(put(&[("Sec-Fetch-Site", "cross-site")]), 403);
    assert_eq!(put(&[]), 201);
    for (method, path) in [
        ("DELETE", "/v2/app/manifests/latest".to_owned()),
        ("DELETE", format!("/v2/app/blobs/{}", digest(EMPTY))),
        ("POST", "/v2/app/blobs/uploads/".to_owned()),
        (
            "POST",
            format!("/v2/evil/blobs/uploads/?mount={}&from=app", digest(EMPTY)),
        ),
    ] {
        assert_eq!(
            server.request(method, &path, &[evil], b"").status,
            403,
            "{method} {path}"
        );
    }
    let tags = server.request("GET", "/v2/app/tags/list", &[], b"");
    assert_eq!(tags.json()["tags"], serde_json::json!(["latest"]));
    let catalog = server.request("GET", "/v2/_catalog", &[], b"");
    assert_eq!(catalog.json()["repositories"], serde_json::json!(["app"]));
}

/// On HTTP/2 `:authority` is the host, and a `Host` beside it says the same or nothing.
#[test]
fn s32_the_host_of_http_2_is_its_authority() {
    let server = Server::start(&[]);
    let answers = h2::runtime().block_on(async {
        let client = h2::H2::connect(server.address, Ipv4Addr::LOCALHOST).await;
        let mut answers = Vec::new();
        for headers in [
            &[][..],
            &[("host", "localhost")],
            &[("host", "evil.example")],
            &[("host", "localhost"), ("host", "localhost")],
            &[("origin", "https://evil.example")],
            &[("sec-fetch-site", "cross-site")],
        ] {
            // The client's authority is `localhost`.
            answers.push(client.request("GET", "/v2/", headers).await.unwrap().status);
        }
        client.hang_up();
        answers
    });
    assert_eq!(answers, [200, 200, 400, 400, 403, 403]);
}
