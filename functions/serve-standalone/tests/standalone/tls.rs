//! TLS as clients meet it: versions, handshakes that do not end, what is no TLS at all, and the end of connections.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::support::h2::{H2, Windows, dial, runtime};
use crate::support::tls::{Authority, shake};
use crate::support::{Http1Client, MAX_WAIT, Server, digest, eventually, roadstead, run};

/// A body of several records, and larger than what a connection holds back.
fn body() -> Vec<u8> {
    (0..3_000_000_u32).flat_map(u32::to_le_bytes).take(5 << 20).collect()
}

#[test]
fn blobs_are_pushed_and_pulled_over_http_1_in_both_versions_of_tls() {
    let authority = Authority::new();
    let server = authority.serve(&[]);
    for (protocols, old) in [(&["http/1.1"][..], false), (&["http/1.1"], true), (&[], false)] {
        let socket = TcpStream::connect(server.address).unwrap();
        let stream = shake(socket, authority.client(protocols, old)).unwrap();
        assert_eq!(
            stream.conn.alpn_protocol(),
            protocols.first().map(|name| name.as_bytes())
        );
        let mut client = Http1Client::over(stream);
        let (bytes, repository) = (body(), format!("app-{old}-{}", protocols.len()));
        let opened = client.request("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        let location = opened.header("location").unwrap().to_owned();
        assert!(location.starts_with("/v2/"), "{location}");
        let path = format!("{location}?digest={}", digest(&bytes));
        assert_eq!(client.request("PUT", &path, &[], &bytes).status, 201);
        let pulled = client.request("GET", &format!("/v2/{repository}/blobs/{}", digest(&bytes)), &[], b"");
        assert!(pulled.body == bytes);
    }
    let said = server.wait_for_line("how it is reached", |line| line["message"] == "listening");
    assert_eq!(said["scheme"], "https");
}

#[test]
fn alpn_chooses_http_2() {
    let authority = Authority::new();
    let server = authority.serve(&[]);
    runtime().block_on(async {
        for old in [false, true] {
            let connector = TlsConnector::from(authority.client(&["h2", "http/1.1"], old));
            let socket = dial(server.address, Ipv4Addr::LOCALHOST).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let stream = connector.connect(name, socket).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let client = H2::over(stream, Windows::default()).await.unwrap();
            let opened = client.request("POST", "/v2/app/blobs/uploads/", &[]).await.unwrap();
            let location = opened.headers["location"].to_str().unwrap().to_owned();
            let bytes = body();
            let path = format!("{location}?digest={}", digest(&bytes));
            let mut put = client.open("PUT", &path, &[], false).await.unwrap();
            put.send(&bytes, true).unwrap();
            assert_eq!(put.answer().await.unwrap().status, 201);
            let path = format!("/v2/app/blobs/{}", digest(&bytes));
            assert!(client.request("GET", &path, &[]).await.unwrap().body == bytes);
        }
    });
}

#[test]
fn plain_http_gets_an_answer_that_says_what_is_wrong() {
    let authority = Authority::new();
    let server = authority.serve(&[]);
    for head in [
        "GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut client = TcpStream::connect(server.address).unwrap();
        client.set_read_timeout(Some(MAX_WAIT)).unwrap();
        client.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 400 Bad Request\r\n"), "{answer}");
        assert!(
            answer.contains("client sent an HTTP request to an HTTPS server"),
            "{answer}"
        );
    }
    // What is neither is closed.
    let mut client = server.connect();
    client.send(&[0; 64]);
    assert!(client.is_closed());
    let mut client = authority.connect(server.address);
    assert_eq!(client.request("GET", "/v2/", &[], b"").status, 200);
}

/// A socket on which nothing, a part of a handshake, or one byte after the other comes.
#[test]
fn s30_a_handshake_that_does_not_end_is_ended_and_frees_its_slot() {
    let authority = Authority::new();
    let server = authority.serve(&["--header-timeout", "1s", "--max-connections", "4"]);
    let start = Instant::now();
    // A record of a handshake, of which the rest never comes.
    let begun = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    let mut silent = server.connect();
    let mut half = server.connect();
    half.send(&begun);
    let mut trickling = server.connect();
    let trickle = thread::spawn(move || {
        let mut bytes = begun.into_iter().chain(std::iter::repeat(0));
        eventually("the server ends a trickle", || {
            thread::sleep(Duration::from_millis(50));
            trickling.send_what_goes(&[bytes.next().unwrap()]).err()
        });
        start.elapsed()
    });
    assert!(silent.is_closed());
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(half.is_closed());
    let trickled = trickle.join().unwrap();
    assert!(trickled >= Duration::from_secs(1), "{trickled:?}");
    assert!(trickled < Duration::from_secs(10), "{trickled:?}");
    // All slots are free again: each is taken by a client that sends a request.
    let mut clients: Vec<_> = (0..4).map(|_| authority.connect(server.address)).collect();
    for client in &mut clients {
        assert_eq!(client.request("GET", "/v2/", &[], b"").status, 200);
    }
}

/// More connections than there are slots send no handshake. Clients that do send one are still served.
#[test]
fn s30_clients_without_a_handshake_keep_no_client_out() {
    let authority = Authority::new();
    let server = authority.serve(&["--max-connections", "8"]);
    let silent: Vec<_> = (0..32).map(|_| server.connect()).collect();
    for _ in 0..20 {
        let mut client = authority.connect(server.address);
        assert_eq!(client.request("GET", "/v2/", &[], b"").status, 200);
    }
    drop(silent);
}

#[test]
fn an_unused_connection_ends_with_close_notify() {
    let authority = Authority::new();
    let server = authority.serve(&["--keep-alive", "500ms"]);
    let mut client = authority.connect(server.address);
    assert_eq!(client.request("GET", "/v2/", &[], b"").status, 200);
    // A connection that is cut is an error here.
    assert_eq!(client.transport().read(&mut [0]).unwrap(), 0);
}

#[test]
fn s30_a_client_that_does_not_read_is_given_up() {
    let authority = Authority::new();
    let server = authority.serve(&["--stall-timeout", "800ms"]);
    let bytes = vec![7; 48 << 20];
    let mut client = authority.connect(server.address);
    let opened = client.request("POST", "/v2/app/blobs/uploads/", &[], b"");
    let path = format!("{}?digest={}", opened.header("location").unwrap(), digest(&bytes));
    assert_eq!(client.request("PUT", &path, &[], &bytes).status, 201);
    let pull = format!("/v2/app/blobs/{}", digest(&bytes));
    client.send_head("GET", &pull, &[("User-Agent", "stalled")], 0);
    let line = server.wait_for_line("it is cut off", |line| line["agent"] == "stalled");
    assert_eq!(line["cut"], true);
    assert!(client.try_response("GET").is_none());
}

#[test]
fn what_is_in_flight_ends_before_the_server_does() {
    let authority = Authority::new();
    let mut server = authority.serve(&[]);
    let bytes = body();
    let mut client = authority.connect(server.address);
    let opened = client.request("POST", "/v2/app/blobs/uploads/", &[], b"");
    let path = format!("{}?digest={}", opened.header("location").unwrap(), digest(&bytes));
    client.send_head("PUT", &path, &[], bytes.len());
    client.send(&bytes[..1000]);
    let mut idle = authority.connect(server.address);
    assert_eq!(idle.request("GET", "/v2/", &[], b"").status, 200);
    let mut shaking = server.connect();
    server.signal(Signal::TERM);
    server.wait_for_line("it drains", |line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("draining"))
    });
    assert_eq!(idle.transport().read(&mut [0]).unwrap(), 0);
    assert!(shaking.is_closed());
    client.send(&bytes[1000..]);
    let response = client.response("PUT");
    assert_eq!((response.status, response.header("connection")), (201, Some("close")));
    assert_eq!(client.transport().read(&mut [0]).unwrap(), 0);
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
}

#[test]
fn health_uses_tls_by_its_flag_or_the_variable_of_the_server() {
    let authority = Authority::new();
    let server = authority.serve(&["--metrics", "127.0.0.1:0"]);
    let address = server.address.to_string();
    let asked = run(["health", "--tls", "--listen", &address]);
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");
    assert_eq!(asked.stdout, b"ready\n");
    let asked = roadstead()
        .arg("health")
        .env("ROADSTEAD_LISTEN", &address)
        .env("ROADSTEAD_TLS_CERT", "/etc/roadstead/tls.crt")
        .env("ROADSTEAD_TLS_KEY", "/etc/roadstead/tls.key")
        .output()
        .unwrap();
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");
    let asked = run(["health", "--listen", &address]);
    assert_eq!(asked.status.code(), Some(1), "{asked:?}");
    assert!(String::from_utf8_lossy(&asked.stderr).contains("--tls"), "{asked:?}");
    // And the other way round.
    let plain = Server::start(&[]).address.to_string();
    assert_eq!(run(["health", "--tls", "--listen", &plain]).status.code(), Some(1));
}

#[test]
fn tls_alone_needs_no_password() {
    let authority = Authority::new();
    let folder = Arc::new(tempfile::TempDir::new().unwrap());
    authority.issue().write(folder.path());
    let flags = [
        "serve",
        "--listen",
        "0.0.0.0:0",
        "--tls-cert",
        "tls.crt",
        "--tls-key",
        "tls.key",
    ];
    let refused = roadstead().args(flags).current_dir(folder.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("without authentication"));
}
