//! A pull is never redirected to the host that was asked for it, or below it: clients would send their password along.

use std::sync::Arc;

use crate::s3_options::{Recorder, known};
use crate::support::{Http1Client, Response, Server, basic, digest, folder_with_users};

const LAYER: &[u8] = b"a layer";

/// A request under a host of its own choice.
fn pull(server: &Server, host: &str, forwarded: &str, authorization: &str) -> Response {
    let mut client = Http1Client::connect(server.address);
    let path = format!("/v2/app/blobs/{}", digest(LAYER));
    let end = if forwarded.is_empty() { "" } else { "\r\n" };
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n{forwarded}{end}\r\n");
    client.send(request.as_bytes());
    // The listener has no objects, so what goes through the registry fails there. What counts is the way.
    client.response("GET")
}

fn server(pull: &str, flags: &[&str]) -> Server {
    server_with(pull, flags, &known())
}

fn server_with(pull: &str, flags: &[&str], variables: &[(String, String)]) -> Server {
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
    Server::start_on(Arc::clone(&folder), &[&own, flags].concat(), variables)
}

#[test]
fn s28_a_password_does_not_follow_to_the_object_store() {
    let alice = basic("alice", "secret");
    let recorder = Recorder::start();
    let url = recorder.url();
    let store = recorder.address.ip().to_string();
    let public = ["--s3-public-endpoint", "https://s3.registry.example"];
    for (flags, host, forwarded, redirected) in [
        (&[][..], "registry.example", "", true),
        (&[], "127.0.0.1:5000", "", true),
        (&[], &*store, "", false),
        (&[], &*format!("{store}:5000"), "", false),
        (&public, "other.example", "", true),
        (&public, "s3.registry.example", "", false),
        (&public, "S3.Registry.Example.:8443", "", false),
        (&public, "registry.example:5000", "", false),
        (&public, "deeper.s3.registry.example", "", true),
        // A proxy that rewrites `Host` says where it was asked. Everybody is believed: a false word costs only the one who
        // says it a redirect.
        (
            &public,
            "127.0.0.1:5000",
            "X-Forwarded-Host: registry.example:443",
            false,
        ),
        (
            &public,
            "127.0.0.1:5000",
            "Forwarded: for=192.0.2.1;host=registry.example",
            false,
        ),
        (&public, "127.0.0.1:5000", "X-Forwarded-Host: what is this", false),
        (&public, "127.0.0.1:5000", "X-Forwarded-Host: other.example", true),
        (&public, "127.0.0.1:5000", "Forwarded: host=\"other.example\"", true),
    ] {
        let server = server("redirect", &[&["--s3-endpoint", &*url], flags].concat());
        let headers = [("Authorization", alice.as_str())];
        let upload = server.open_upload("app", &headers);
        let put = server.request("PUT", &format!("{upload}?digest={}", digest(LAYER)), &headers, LAYER);
        assert_eq!(put.status, 201, "{put:?}");
        recorder.noted();
        let answer = pull(&server, host, forwarded, &alice);
        let asked = recorder.noted();
        let what = format!("{flags:?} {host} {forwarded}: {answer:?}");
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
fn the_start_says_which_pulls_are_not_redirected_and_which_clients_follow_no_redirect() {
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
    let at = |endpoint| vec!["--s3-endpoint", endpoint];
    let public = |endpoint, public| vec!["--s3-endpoint", endpoint, "--s3-public-endpoint", public];
    let with = |flags: Vec<&'static str>, more: &[&'static str]| [&flags, more].concat();
    let everywhere = &["--listen", "0.0.0.0:0"][..];
    let named = |name| ["--allow-host", name];
    let rows: Vec<(Vec<&str>, &str, &[&str])> = vec![
        (at(own), "redirect", &[SAME]),
        (at(own), "auto", &[SAME]),
        (at(other), "redirect", &[PRIVATE]),
        (at("http://10.1.2.3:9"), "redirect", &[PRIVATE]),
        (at("http://[fd00::1]:9"), "redirect", &[PRIVATE]),
        (at("http://192.0.2.1:9"), "redirect", &[]),
        (at("http://localhost:9"), "redirect", &[]),
        (at(own), "proxy", &[]),
        (at(other), "proxy", &[]),
        (public(own, "http://s3.example:9"), "redirect", &[]),
        (public(own, other), "redirect", &[PRIVATE]),
        (public(other, own), "redirect", &[SAME]),
        // The start tells people to push to 127.0.0.1 then; others ask for other hosts.
        (with(at(own), everywhere), "redirect", &[SAME, PRIVATE]),
        (with(at(other), everywhere), "redirect", &[PRIVATE]),
        (with(at("http://s3.example:9"), everywhere), "redirect", &[]),
        (
            with(at("https://s3.example"), &named("S3.example")),
            "redirect",
            &[SAME],
        ),
        (with(at("https://s3.example"), &named("example")), "redirect", &[SAME]),
        (with(at("https://s3.example"), &named("other.example")), "redirect", &[]),
        (with(at(own), &named("registry.example")), "redirect", &[SAME, PRIVATE]),
        // A bucket's own host name counts.
        (
            with(
                at("https://s3.example"),
                &["--s3-path-style", "never", "--allow-host", "bucket.s3.example"],
            ),
            "redirect",
            &[SAME],
        ),
        (
            with(at(own), &["--pull-rule", "redirect,network=10.0.0.0/8"]),
            "proxy",
            &[SAME],
        ),
        (
            with(at(own), &["--pull-rule", "proxy,network=10.0.0.0/8"]),
            "proxy",
            &[],
        ),
    ];
    // At the same time: a store that does not answer is waited for.
    std::thread::scope(|scope| {
        for (flags, pull, expected) in rows {
            scope.spawn(move || {
                let server = server(pull, &flags);
                assert_eq!(warnings(&server), expected, "{flags:?} {pull}: {}", server.log());
            });
        }
    });
    // Endpoints come from elsewhere too.
    let configuration = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&configuration, format!("[profile other]\nendpoint_url = {other}\n")).unwrap();
    let file = configuration.path().to_str().unwrap();
    for (variables, expected) in [
        (&[("AWS_ENDPOINT_URL_S3", own)][..], SAME),
        (&[("AWS_ENDPOINT_URL", own)], SAME),
        (&[("AWS_CONFIG_FILE", file), ("AWS_PROFILE", "other")], PRIVATE),
    ] {
        let set = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let server = server_with("redirect", &[], &known().into_iter().chain(set).collect::<Vec<_>>());
        assert_eq!(warnings(&server), [expected], "{variables:?}: {}", server.log());
    }
}
