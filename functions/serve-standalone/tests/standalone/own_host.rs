//! A pull is never redirected to the host that was asked for it, or below it: clients would send their password along.

use std::sync::Arc;

use crate::s3_options::{Recorder, known};
use crate::support::{Client, Response, Server, basic, digest, folder_with_users};

const LAYER: &[u8] = b"a layer";

/// A request under a host of its own choice.
fn pull(server: &Server, host: &str, forwarded: Option<&str>, authorization: &str) -> Response {
    let mut client = Client::connect(server.address);
    let path = format!("/v2/app/blobs/{}", digest(LAYER));
    let forwarded = forwarded.map(|host| format!("X-Forwarded-Host: {host}\r\n"));
    let forwarded = forwarded.unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n{forwarded}\r\n");
    client.send(request.as_bytes());
    // The listener has no objects, so what goes through the registry fails there. What counts is the way.
    client.response("GET")
}

fn server(flags: &[&str]) -> Server {
    let folder = folder_with_users(&[("alice", "secret")]);
    let data = folder.path().join("data").to_str().unwrap().to_owned();
    let own = [
        "--data",
        &data,
        "--htpasswd",
        "users",
        "--blobs",
        "s3://bucket/registry",
        "--pull",
        "redirect",
    ];
    Server::start_on(Arc::clone(&folder), &[&own, flags].concat(), &known())
}

#[test]
fn s28_a_password_does_not_follow_to_the_object_store() {
    let alice = basic("alice", "secret");
    let recorder = Recorder::start();
    let url = recorder.url();
    let store = recorder.address.ip().to_string();
    let public = ["--s3-public-endpoint", "https://s3.registry.example"];
    for (flags, host, forwarded, redirected) in [
        (&[][..], "registry.example", None, true),
        (&[], "127.0.0.1:5000", None, true),
        (&[], &*store, None, false),
        (&[], &*format!("{store}:5000"), None, false),
        (&public, "other.example", None, true),
        (&public, "s3.registry.example", None, false),
        (&public, "S3.Registry.Example.:8443", None, false),
        (&public, "registry.example:5000", None, false),
        (&public, "deeper.s3.registry.example", None, true),
        // The word of a proxy counts where it is trusted, and nobody else's.
        (&public, "127.0.0.1", Some("registry.example"), true),
        (
            &[&public[..], &["--trusted-proxy", "127.0.0.1"]].concat(),
            "127.0.0.1",
            Some("registry.example:443"),
            false,
        ),
        (
            &[&public[..], &["--trusted-proxy", "127.0.0.1"]].concat(),
            "127.0.0.1",
            Some("other.example"),
            true,
        ),
    ] {
        let server = server(&[&["--s3-endpoint", &*url], flags].concat());
        let headers = [("Authorization", alice.as_str())];
        let upload = server.open_upload("app", &headers);
        let put = server.request("PUT", &format!("{upload}?digest={}", digest(LAYER)), &headers, LAYER);
        assert_eq!(put.status, 201, "{put:?}");
        recorder.noted();
        let answer = pull(&server, host, forwarded, &alice);
        let asked = recorder.noted();
        let what = format!("{flags:?} {host} {forwarded:?}: {answer:?}");
        assert_eq!(answer.status == 307, redirected, "{what}");
        assert_eq!(asked.is_empty(), redirected, "{what}");
        assert_eq!(answer.header("location").is_some(), redirected, "{what}");
        for request in asked {
            assert!(
                request.header("authorization").starts_with("AWS4-HMAC-SHA256 "),
                "{request:?}"
            );
        }
    }
}

/// Where it can be known at the start, a line says so.
#[test]
fn a_store_on_the_registrys_own_host_is_told_at_the_start() {
    let told = |server: &Server| {
        let lines = server.lines();
        lines.iter().any(|line| {
            let text = line["message"].as_str().unwrap_or_default();
            line["level"] == "WARN" && text.contains("are not redirected")
        })
    };
    for (flags, expected) in [
        (&["--s3-endpoint", "http://127.0.0.1:9"][..], true),
        (&["--s3-endpoint", "http://127.0.0.2:9"], false),
        (&["--s3-endpoint", "http://127.0.0.1:9", "--pull", "proxy"], false),
        (
            &[
                "--s3-endpoint",
                "http://127.0.0.1:9",
                "--s3-public-endpoint",
                "http://127.0.0.2:9",
            ],
            false,
        ),
        (
            &[
                "--s3-endpoint",
                "http://127.0.0.2:9",
                "--s3-public-endpoint",
                "http://127.0.0.1:9",
            ],
            true,
        ),
    ] {
        let flags: Vec<_> = flags.to_vec();
        let server = if flags.contains(&"proxy") {
            let folder = folder_with_users(&[("alice", "secret")]);
            let data = folder.path().join("data").to_str().unwrap().to_owned();
            let own = [
                "--data",
                &data,
                "--htpasswd",
                "users",
                "--blobs",
                "s3://bucket/registry",
            ];
            Server::start_on(Arc::clone(&folder), &[&own[..], &flags].concat(), &known())
        } else {
            server(&flags)
        };
        assert_eq!(told(&server), expected, "{flags:?}: {}", server.log());
    }
}
