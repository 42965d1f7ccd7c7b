//! How a server ends, and what becomes of requests whose clients end first.

use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{EMPTY, MANIFEST_TYPE, Server, digest, eventually, manifest};

#[test]
fn an_upload_in_flight_is_finished_and_then_the_server_ends() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(&[]);
        let body = vec![3; 1 << 20];
        let (first, rest) = body.split_at(1000);
        let upload = server.open_upload("app", &[]);
        let mut client = server.connect();
        client.send_head("PUT", &format!("{upload}?digest={}", digest(&body)), &[], body.len());
        client.send(first);
        let mut unused = server.connect();
        assert_eq!(unused.request("GET", "/readyz", &[], b"").status, 200);
        server.signal(signal);
        server.wait_for_line("it drains", |line| {
            line["message"]
                .as_str()
                .is_some_and(|text| text.starts_with("draining"))
        });
        assert!(unused.is_closed(), "a connection without a request ends at once");
        eventually("new connections are refused", || {
            TcpStream::connect(server.address).err()
        });
        client.send(rest);
        let response = client.response("PUT");
        assert_eq!(response.status, 201, "{response:?}");
        assert_eq!(response.header("connection"), Some("close"));
        assert_eq!(server.wait().code(), Some(0), "{}", server.log());
        // What was acknowledged is there after the next start.
        let server = Server::start_in(server.folder.clone(), &[]);
        let pulled = server.request("GET", &format!("/v2/app/blobs/{}", digest(&body)), &[], b"");
        assert!(pulled.body == body);
    }
}

#[test]
fn a_download_in_flight_is_finished_too() {
    let mut server = Server::start(&[]);
    let body = vec![5; 32 << 20];
    let blob = server.push_blob("app", &body);
    let mut client = server.connect();
    client.send_head("GET", &format!("/v2/app/blobs/{blob}"), &[], 0);
    assert!(!client.is_silent_for(Duration::from_secs(10)), "it has begun");
    server.signal(Signal::TERM);
    server.wait_for_line("it drains", |line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("draining"))
    });
    assert!(client.response("GET").body == body);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn draining_has_an_end() {
    let mut server = Server::start(&["--drain-timeout", "300ms"]);
    let upload = server.open_upload("app", &[]);
    let mut client = server.connect();
    client.send_head("PATCH", &upload, &[], 1000);
    client.send(b"the rest never comes");
    assert!(client.is_silent_for(Duration::from_millis(100)));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(1));
    assert!(
        server.lines().last().unwrap()["message"]
            .as_str()
            .unwrap()
            .contains("still in progress")
    );
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start(&["--drain-timeout", "1h", "--idle-timeout", "1h"]);
    let upload = server.open_upload("app", &[]);
    let mut client = server.connect();
    client.send_head("PATCH", &upload, &[], 1000);
    client.send(b"the rest never comes");
    assert!(client.is_silent_for(Duration::from_millis(100)));
    server.signal(Signal::TERM);
    server.wait_for_line("it drains", |line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("draining"))
    });
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(1));
}

/// The claim of a body that is cut off is released by the request that outlives its client. If that request died
/// with its client, the claim would stand for a minute, longer than this test waits.
#[test]
fn a_client_that_hangs_up_in_its_body_leaves_the_upload_as_it_was() {
    let server = Server::start(&[]);
    for chunked in [false, true] {
        let upload = server.open_upload("app", &[]);
        assert_eq!(server.request("PATCH", &upload, &[], b"{").status, 202);
        let mut client = server.connect();
        if chunked {
            client.send(
                format!("PATCH {upload} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes(),
            );
            client.send(b"14\r\nthese bytes are lost\r\n");
        } else {
            client.send_head("PATCH", &upload, &[], 1000);
            client.send(b"these bytes are lost");
        }
        assert!(client.is_silent_for(Duration::from_millis(100)));
        let busy = server.request("PATCH", &upload, &[], b"}");
        assert_eq!(busy.status, 416, "another body is on its way: {busy:?}");
        client.hang_up();
        eventually("the claim is released", || {
            let status = server.request("GET", &upload, &[], b"");
            assert_eq!((status.status, status.header("range")), (204, Some("0-0")));
            let next = server.request("PATCH", &upload, &[("Content-Range", "1-1")], b"}");
            (next.status == 202).then_some(())
        });
        let finish = format!("{upload}?digest={}", digest(EMPTY));
        assert_eq!(server.request("PUT", &finish, &[], b"").status, 201);
    }
}

/// A client that hangs up right after its last byte gets everything or nothing: never a manifest without its tag,
/// never a tag that cannot be read.
#[test]
fn a_client_that_hangs_up_after_its_request_gets_all_of_it_or_nothing() {
    let server = Server::start(&[]);
    server.push_blob("app", EMPTY);
    for round in 0..40 {
        let body = manifest(&round.to_string());
        let mut client = server.connect();
        client.send_head(
            "PUT",
            &format!("/v2/app/manifests/t{round}?tag=u{round}"),
            &[MANIFEST_TYPE],
            body.len(),
        );
        client.send(&body);
        client.hang_up();
    }
    // What was begun has ended when its line is written, and the lines of those that never began never come: a
    // request that comes after all of them and two equal looks in a row tell that nothing moves any more.
    let look = || -> Vec<(u16, u16, u16)> {
        (0..40)
            .map(|round| {
                let body = manifest(&round.to_string());
                let status = |reference: &str| {
                    let response = server.request("GET", &format!("/v2/app/manifests/{reference}"), &[], b"");
                    assert!(response.status == 404 || response.body == body, "{response:?}");
                    response.status
                };
                (
                    status(&format!("t{round}")),
                    status(&format!("u{round}")),
                    status(&digest(&body)),
                )
            })
            .collect()
    };
    let seen = eventually("nothing moves any more", || {
        let first = look();
        std::thread::sleep(Duration::from_millis(200));
        (look() == first).then_some(first)
    });
    for (round, statuses) in seen.into_iter().enumerate() {
        assert!(
            statuses == (200, 200, 200) || statuses == (404, 404, 404),
            "{round}: {statuses:?}"
        );
    }
}
