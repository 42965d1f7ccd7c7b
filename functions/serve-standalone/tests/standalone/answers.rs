//! Answers that clients met in the field, over real connections: the last request of an upload once more, encoded
//! slashes, the page for people.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{EMPTY, Http1Client, MANIFEST_TYPE, Server, digest, manifest};

/// containerd sends the last request of an upload again, when it was not answered within 30 seconds, with all of its body:
/// it waits for the first one, and both get the same answer.
#[test]
fn the_last_request_of_an_upload_waits_for_itself() {
    let server = Server::start(&[]);
    let layer = vec![7; 3 << 20];
    let upload = server.open_upload("app", &[]);
    let finish = format!("{upload}?digest={}", digest(&layer));
    let mut first = server.connect();
    first.send_head("PUT", &finish, &[], layer.len());
    first.send(&layer[..1 << 20]);
    // Its claim is made when its first bytes are there. Asked with a chunk of nothing, which changes nothing when it comes
    // before them.
    let busy = crate::support::eventually("the session is held", || {
        let chunk = server.request("PATCH", &upload, &[], b"");
        (chunk.status == 416 && chunk.header("retry-after").is_some()).then_some(chunk)
    });
    assert_eq!(busy.header("range"), Some("0-0"));
    let (address, again) = (server.address, layer.clone());
    let repeated = thread::spawn({
        let finish = finish.clone();
        move || Http1Client::connect(address).request("PUT", &finish, &[], &again)
    });
    thread::sleep(Duration::from_millis(300));
    assert!(!repeated.is_finished(), "it waits");
    first.send(&layer[1 << 20..]);
    let first = first.response("PUT");
    assert_eq!(first.status, 201, "{first:?}");
    let repeated = repeated.join().unwrap();
    assert_eq!(repeated.status, 201, "{repeated:?}");
    assert_eq!(repeated.header("docker-content-digest"), Some(&*digest(&layer)));
    assert_eq!(repeated.header("location"), first.header("location"));
    // With other bytes it is another request.
    let other = [&layer[1..], b"x"].concat();
    assert_eq!(server.request("PUT", &finish, &[], &other).status, 404);
}

/// An upload of so many bodies, which are joined by its last request: that is 201, also when it is sent once more meanwhile.
fn assert_joined(bodies: u32) {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let upload = server.open_upload("app", &[]);
    let mut whole = Vec::new();
    for number in 0..bodies {
        let body = number.to_be_bytes();
        let patched = client.request("PATCH", &upload, &[], &body);
        assert_eq!(patched.status, 202, "{number}: {patched:?}");
        whole.extend(body);
    }
    let finish = format!("{upload}?digest={}", digest(&whole));
    let last = |delay: u64| {
        let (address, finish) = (server.address, finish.clone());
        thread::spawn(move || {
            let mut client = Http1Client::connect(address);
            client.stream().set_read_timeout(Some(Duration::from_mins(2))).unwrap();
            thread::sleep(Duration::from_millis(delay));
            let sent = Instant::now();
            let answer = client.request("PUT", &finish, &[], b"");
            (sent, answer, Instant::now())
        })
    };
    let (first, repeated) = (last(0), last(20));
    let ((_, first, answered), (sent, repeated, _)) = (first.join().unwrap(), repeated.join().unwrap());
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(repeated.status, 201, "{repeated:?}");
    assert!(sent < answered, "the repetition came too late to meet the first");
    let blob = server.request("GET", &format!("/v2/app/blobs/{}", digest(&whole)), &[], b"");
    assert_eq!((blob.status, blob.body == whole), (200, true));
}

#[test]
fn a_last_request_that_joins_many_bodies_can_be_sent_again() {
    assert_joined(2_000);
}

/// As many as an upload may have.
#[test]
#[ignore = "long: tests/run --full"]
fn a_last_request_that_joins_all_bodies_that_may_be_can_be_sent_again() {
    assert_joined(102_400);
}

/// 201 says that the blob can be read.
#[test]
fn the_last_request_of_an_upload_after_its_blob_was_deleted() {
    let server = Server::start(&[]);
    for chunks in [&[][..], &[&b"a "[..]]] {
        let upload = server.open_upload("app", &[]);
        for chunk in chunks {
            assert_eq!(server.request("PATCH", &upload, &[], chunk).status, 202);
        }
        let rest: &[u8] = if chunks.is_empty() { b"a layer" } else { b"layer" };
        let finish = format!("{upload}?digest={}", digest(b"a layer"));
        for _ in 0..2 {
            assert_eq!(server.request("PUT", &finish, &[], rest).status, 201);
        }
        let blob = format!("/v2/app/blobs/{}", digest(b"a layer"));
        assert_eq!(server.request("DELETE", &blob, &[], b"").status, 202);
        for body in [rest, b""] {
            let again = server.request("PUT", &finish, &[], body);
            assert_eq!(again.status, 404, "{again:?}");
            assert_eq!(again.json()["errors"][0]["code"], "BLOB_UPLOAD_UNKNOWN");
        }
        assert_eq!(server.request("GET", &blob, &[], b"").status, 404);
    }
}

#[test]
fn paths_as_portainer_sends_them_and_lists_with_a_slash() {
    let server = Server::start(&[]);
    server.push_blob("team/app", EMPTY);
    let put = server.request("PUT", "/v2/team%2Fapp/manifests/1", &[MANIFEST_TYPE], &manifest("1"));
    assert_eq!(put.status, 201, "{put:?}");
    assert!(
        put.header("location")
            .unwrap()
            .starts_with("/v2/team/app/manifests/sha256:")
    );
    let pulled = server.request("GET", "/v2/team%2fapp/manifests/1", &[], b"");
    assert_eq!((pulled.status, pulled.body), (200, manifest("1")));
    let tags = server.request("GET", "/v2/team%2Fapp/tags/list/", &[], b"");
    assert_eq!(tags.json(), json!({ "name": "team/app", "tags": ["1"] }));
    let catalog = server.request("GET", "/v2/_catalog/", &[], b"");
    assert_eq!(catalog.json(), json!({ "repositories": ["team/app"] }));
    for refused in ["/v2/team%252Fapp/tags/list", "/v2/team%2F..%2Fteam%2Fapp/tags/list"] {
        assert_eq!(server.request("GET", refused, &[], b"").status, 400, "{refused}");
    }
}

/// A browser shows a page, also where everything else asks for a password.
#[test]
fn a_page_for_people() {
    let folder = crate::support::folder_with_users(&[("alice", "secret")]);
    let guarded = Server::start_in(folder, &["--htpasswd", "users"]);
    for server in [Server::start(&[]), guarded] {
        let page = server.request("GET", "/", &[("Accept", "text/html,*/*;q=0.8")], b"");
        assert_eq!(page.status, 200);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(
            page.header("content-security-policy")
                .unwrap()
                .contains("default-src 'none'")
        );
        let text = String::from_utf8(page.body).unwrap();
        assert!(text.contains("docker push") && !text.contains("<script"), "{text}");
        let plain = server.request("GET", "/", &[], b"");
        assert_eq!(plain.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(server.request("PUT", "/", &[], b"").status, 405);
    }
}

/// The digest is named already when the session is opened, and nothing is sent with it.
#[test]
fn a_post_that_names_a_digest_and_sends_nothing_opens_a_session() {
    let server = Server::start(&[]);
    let post = format!("/v2/app/blobs/uploads/?digest={}", digest(b"a layer"));
    let opened = server.request("POST", &post, &[], b"");
    assert_eq!(opened.status, 202, "{opened:?}");
    let upload = opened.header("location").unwrap();
    let finish = format!("{upload}?digest={}", digest(b"a layer"));
    assert_eq!(server.request("PUT", &finish, &[], b"a layer").status, 201);
    // The same without a length, as a body of chunks that has none.
    let mut client = server.connect();
    client.send(
        format!("POST {post} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").as_bytes(),
    );
    assert_eq!(client.response("POST").status, 202);
}
