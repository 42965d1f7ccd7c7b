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

fn server(pull: &str, flags: &[&str]) -> Server {
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
        pull,
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
        let server = server("redirect", &[&["--s3-endpoint", &*url], flags].concat());
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

/// What the store's host means for pulls is said at the start, where it can be known.
#[test]
fn the_start_says_which_pulls_are_not_redirected_and_who_follows_no_redirect() {
    const SAME: &str = "are not redirected";
    const PRIVATE: &str = "built on go-containerregistry";
    let warnings = |server: &Server| -> Vec<&str> {
        let lines = server.lines();
        let said = |text: &&str| {
            lines
                .iter()
                .any(|line| line["level"] == "WARN" && line["message"].as_str().unwrap_or_default().contains(*text))
        };
        [SAME, PRIVATE].into_iter().filter(said).collect()
    };
    let (own, other) = ("http://127.0.0.1:9", "http://127.0.0.2:9");
    for (endpoint, public, pull, expected) in [
        (own, None, "redirect", &[SAME][..]),
        (other, None, "redirect", &[PRIVATE]),
        ("http://10.1.2.3:9", None, "redirect", &[PRIVATE]),
        ("http://[fd00::1]:9", None, "redirect", &[PRIVATE]),
        ("http://192.0.2.1:9", None, "redirect", &[]),
        ("http://localhost:9", None, "redirect", &[]),
        (own, None, "proxy", &[]),
        (other, None, "proxy", &[]),
        (own, Some("http://s3.example:9"), "redirect", &[]),
        (own, Some(other), "redirect", &[PRIVATE]),
        (other, Some(own), "redirect", &[SAME]),
    ] {
        let mut flags = vec!["--s3-endpoint", endpoint];
        flags.extend(public.into_iter().flat_map(|public| ["--s3-public-endpoint", public]));
        let server = server(pull, &flags);
        assert_eq!(warnings(&server), expected, "{flags:?} {pull}: {}", server.log());
    }
}
