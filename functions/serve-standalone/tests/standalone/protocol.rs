//! HTTP/1.1 and HTTP/2 as clients and proxies speak them.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;

use crate::support::{EMPTY, MANIFEST_TYPE, MAX_WAIT, Server, digest, manifest};

type Body = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

fn full(bytes: &[u8]) -> Body {
    Full::new(Bytes::copy_from_slice(bytes)).boxed()
}

/// An HTTP/2 connection without TLS, by prior knowledge.
async fn http2(server: &Server) -> SendRequest<Body> {
    let socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
        .await
        .unwrap();
    tokio::spawn(connection);
    send
}

/// One request on an HTTP/2 connection of its own.
pub(crate) fn ask_once(server: &Server, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, hyper::Version) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut send = http2(server).await;
        let mut request = Request::builder().method(method).uri(format!("http://localhost{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::new().boxed()).unwrap();
        let response = tokio::time::timeout(MAX_WAIT, send.send_request(request))
            .await
            .unwrap()
            .unwrap();
        (response.status().as_u16(), response.version())
    })
}

async fn ask(send: &SendRequest<Body>, method: &str, path: &str, body: Body) -> hyper::Response<Incoming> {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://localhost{path}"))
        .body(body)
        .unwrap();
    tokio::time::timeout(MAX_WAIT, send.clone().send_request(request))
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn http2_by_prior_knowledge_pushes_and_pulls() {
    let server = Server::start(&[]);
    let send = http2(&server).await;
    let blob: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
    let opened = ask(&send, "POST", "/v2/app/blobs/uploads/", Empty::new().boxed()).await;
    assert_eq!(opened.status(), StatusCode::ACCEPTED);
    assert_eq!(opened.version(), hyper::Version::HTTP_2);
    let location = opened.headers()["location"].to_str().unwrap();
    let finish = format!("{location}?digest={}", digest(&blob));
    assert_eq!(
        ask(&send, "PUT", &finish, full(&blob)).await.status(),
        StatusCode::CREATED
    );
    let pull = format!("/v2/app/blobs/{}", digest(&blob));
    // Many streams of one connection at once.
    let pulls = (0..20).map(|_| {
        let (send, pull) = (send.clone(), pull.clone());
        tokio::spawn(async move {
            let pulled = ask(&send, "GET", &pull, Empty::new().boxed()).await;
            pulled.into_body().collect().await.unwrap().to_bytes()
        })
    });
    for pulled in pulls.collect::<Vec<_>>() {
        assert_eq!(tokio::time::timeout(MAX_WAIT, pulled).await.unwrap().unwrap(), blob);
    }
    let head = ask(&send, "HEAD", &pull, Empty::new().boxed()).await;
    assert_eq!(head.headers()["content-length"], "3000000");
    assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty());
}

/// One stream that is not read neither holds its neighbours nor what the server keeps open for it.
#[tokio::test]
async fn s30_a_stalled_stream_holds_no_other() {
    let server = Server::start(&["--stall-timeout", "500ms"]);
    let blob = server.push_blob("app", &vec![1; 20 << 20]);
    let send = http2(&server).await;
    let stalled = ask(&send, "GET", &format!("/v2/app/blobs/{blob}"), Empty::new().boxed()).await;
    assert_eq!(stalled.status(), StatusCode::OK);
    // It keeps more than the connection's window from the others only until the client's own buffers are full;
    // answers without a body need no window.
    for _ in 0..5 {
        assert_eq!(
            ask(&send, "HEAD", "/v2/", Empty::new().boxed()).await.status(),
            StatusCode::OK
        );
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let read = tokio::time::timeout(MAX_WAIT, stalled.into_body().collect())
        .await
        .unwrap();
    assert!(read.is_err(), "the stream was reset");
    assert_eq!(
        ask(&send, "HEAD", "/v2/", Empty::new().boxed()).await.status(),
        StatusCode::OK
    );
    let line = server.wait_for_line("it is logged", |line| line["cut"] == true);
    assert_eq!(line["path"], format!("/v2/app/blobs/{blob}"));
}

#[test]
fn a_connection_serves_many_requests_and_head_has_no_body() {
    let server = Server::start(&[]);
    let blob = server.push_blob("app", EMPTY);
    let mut client = server.connect();
    for _ in 0..3 {
        let put = client.request("PUT", "/v2/app/manifests/latest", &[MANIFEST_TYPE], &manifest("one"));
        assert_eq!(put.status, 201, "{put:?}");
        // A body after a HEAD's answer would be taken for the next answer.
        let head = client.request("HEAD", "/v2/app/manifests/latest", &[], b"");
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, Some(&*manifest("one").len().to_string()))
        );
        let missing = client.request("HEAD", "/v2/app/manifests/missing", &[], b"");
        assert_eq!(missing.status, 404);
        let blob = client.request("GET", &format!("/v2/app/blobs/{blob}"), &[], b"");
        assert_eq!(blob.body, EMPTY);
    }
}

/// Requests that are sent before the answer to the one before has come are answered in order.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(&[]);
    server.push_blob("app", EMPTY);
    let mut client = server.connect();
    let body = manifest("piped");
    client.send_head("PUT", "/v2/app/manifests/a", &[MANIFEST_TYPE], body.len());
    client.send(&body);
    client.send_head("GET", "/v2/app/tags/list", &[], 0);
    client.send_head("DELETE", "/v2/app/manifests/a", &[], 0);
    client.send_head("GET", "/v2/app/tags/list", &[], 0);
    assert_eq!(client.response("PUT").status, 201);
    assert_eq!(client.response("GET").json()["tags"], json!(["a"]));
    assert_eq!(client.response("DELETE").status, 202);
    assert_eq!(client.response("GET").json()["tags"], json!([]));
}

#[test]
fn s29_forwarded_headers_and_host_steer_nothing() {
    let server = Server::start(&["--allow-host", "evil.example"]);
    let spoofed = [
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Prefix", "/evil"),
        ("X-Forwarded-Port", "1"),
        ("X-Original-URL", "/v2/evil/tags/list"),
        ("X-Rewrite-URL", "/v2/evil/tags/list"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Forwarded", "host=evil.example;proto=https"),
    ];
    let mut client = server.connect();
    client.send(b"POST /v2/app/blobs/uploads/ HTTP/1.1\r\nHost: evil.example\r\n");
    for (name, value) in spoofed {
        client.send(format!("{name}: {value}\r\n").as_bytes());
    }
    client.send(b"Content-Length: 0\r\n\r\n");
    let opened = client.response("POST");
    assert_eq!(opened.status, 202);
    assert!(
        opened.header("location").unwrap().starts_with("/v2/app/blobs/uploads/"),
        "{opened:?}"
    );
    let whole = format!("{opened:?}");
    assert!(!whole.contains("evil"), "{whole}");
    server.push_blob("app", EMPTY);
    let put = server.request(
        "PUT",
        "/v2/app/manifests/a",
        &[&[MANIFEST_TYPE][..], &spoofed].concat(),
        &manifest("a"),
    );
    assert_eq!(put.status, 201);
    assert!(
        put.header("location").unwrap().starts_with("/v2/app/manifests/sha256:"),
        "{put:?}"
    );
    let list = server.request("GET", "/v2/app/tags/list?n=1", &spoofed, b"");
    assert_eq!(list.status, 200);
    assert!(!format!("{list:?}").contains("evil"), "{list:?}");
}
