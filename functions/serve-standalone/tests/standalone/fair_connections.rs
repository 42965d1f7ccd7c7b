//! More clients than connections, and all of them slow: those who get on are served all the same.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;

use crate::support::crowd::{
    CROWD, Cage, ORDINARY, ask, assert_ordinary, begin, deaf, deaf_request, files, get, many_files, memory, ordinary,
    within_20_s,
};
use crate::support::h2::{H2, SMALL_BUFFER, Socket, runtime};
use crate::support::{EMPTY, MANIFEST_TYPE, Server, manifest};

/// A quarter of the clients says nothing, one sends half a head, one reads slowly, and one asks for something over HTTP/2
/// and does not listen when the server asks it to leave.
fn slow_clients(connections: &str, clients: usize) {
    many_files();
    let server = Server::start(&["--max-connections", connections]);
    let _cage = Cage::around(&server);
    let blob = server.push_blob("app", &vec![7; 4 << 20]);
    let blob = format!("/v2/app/blobs/{blob}");
    server.push_blob("app", EMPTY);
    let put = server.request("PUT", "/v2/app/manifests/latest", &[MANIFEST_TYPE], &manifest("latest"));
    assert_eq!(put.status, 201);
    runtime().block_on(async {
        let idle = files(&server);
        let mut reading = Vec::new();
        let mut waiting = Vec::new();
        for number in 0..clients {
            let text = match number % 4 {
                0 => Vec::new(),
                1 => b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-Sl".to_vec(),
                2 => get(&blob).into_bytes(),
                _ => deaf_request(),
            };
            // A refused connection is what a crowd may expect.
            let Ok(mut socket) = begin(server.address, CROWD, SMALL_BUFFER, &text).await else {
                continue;
            };
            if number % 4 == 2 {
                reading.push(tokio::spawn(async move {
                    let mut buffer = vec![0; 512];
                    while socket.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                }));
            } else {
                waiting.push(socket);
            }
        }
        let paths = ["/v2/", "/v2/app/manifests/latest", blob.as_str(), "/readyz", "/livez"];
        assert_ordinary(server.address, ORDINARY, &paths, 60).await;
        // Who asks whether the server lives is answered in any company.
        let (good, others) = ordinary(server.address, CROWD, &["/livez", "/readyz"], 20).await;
        assert!(good >= 19, "{others:#?}");
        let (_, peak) = memory(&server);
        assert!(peak < 400 << 20, "{} MiB", peak >> 20);
        for reader in reading {
            reader.abort();
        }
        drop(waiting);
        within_20_s("the files are closed", async || files(&server) < idle + 20).await;
        assert_ordinary(server.address, CROWD, &paths, 20).await;
    });
}

#[test]
fn s31_slow_clients_take_no_connection_from_others() {
    slow_clients("128", 400);
}

#[test]
#[ignore = "long: tests/run --full"]
fn s31_slow_clients_take_no_connection_from_others_at_length() {
    slow_clients("1024", 2_200);
}

/// All slots are taken by those who get on: others of the same client wait briefly and are asked to retry, and who
/// asks whether the server lives is answered at once. Another client is served.
#[test]
fn s31_a_full_server_answers_probes_and_frees_slots_for_others() {
    let server = Server::start(&["--max-connections", "3"]);
    let upload = || server.open_upload("app", &[]);
    let paths = [upload(), upload(), upload()];
    let busy: Vec<_> = paths
        .iter()
        .map(|path| {
            let mut client = server.connect();
            client.send_head("PATCH", path, &[], 1000);
            client.send(b"some bytes");
            assert!(client.is_silent_for(Duration::from_millis(50)));
            client
        })
        .collect();
    assert_eq!(server.request("GET", "/livez", &[], b"").status, 200);
    assert_eq!(server.request("GET", "/readyz", &[], b"").status, 200);
    let refused = server.request("GET", "/v2/", &[], b"");
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("2")),
        "{refused:?}"
    );
    assert_eq!(refused.json()["errors"][0]["code"], "TOOMANYREQUESTS");
    assert_eq!(refused.header("cache-control"), Some("no-store"));
    assert_eq!(refused.header("docker-distribution-api-version"), Some("registry/2.0"));
    assert_eq!(refused.header("connection"), Some("close"));
    runtime().block_on(assert_ordinary(server.address, ORDINARY, &["/v2/"], 5));
    // One of the busy ones had to go, and one only.
    let gone = busy
        .into_iter()
        .map(|mut client| !client.is_silent_for(Duration::from_millis(50)));
    assert_eq!(gone.filter(|gone| *gone).count(), 1);
}

/// Clients that were served once and do not listen when the server asks them to leave, each followed by the next one:
/// others are let in at once all the same.
#[test]
fn s31_clients_that_ignore_goaway_delay_no_other_client() {
    many_files();
    let server = Server::start(&["--max-connections", "64"]);
    runtime().block_on(async {
        let idle = files(&server);
        let mut deaf_clients = Vec::new();
        let start = Instant::now();
        for _ in 0..800 {
            deaf_clients.push(deaf(server.address, CROWD).await.unwrap());
        }
        // Were each of them given its second, only 64 could be let in in each: more than ten seconds in all.
        assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
        assert_ordinary(server.address, ORDINARY, &["/v2/", "/livez"], 40).await;
        drop(deaf_clients);
        within_20_s("the files are closed", async || files(&server) < idle + 20).await;
    });
}

/// A client with many connections that are all in use gets no slot of another one, which has one connection and keeps it for later.
#[test]
fn s31_the_client_with_the_fewest_connections_keeps_an_idle_one() {
    let server = Server::start(&["--max-connections", "3", "--keep-alive", "1h"]);
    let uploads = [server.open_upload("app", &[]), server.open_upload("app", &[])];
    runtime().block_on(async {
        let kept = H2::connect(server.address, ORDINARY).await;
        assert_eq!(kept.request("GET", "/v2/", &[]).await.unwrap().status, 200);
        let mut busy = Vec::new();
        for path in &uploads {
            let head = format!("PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nbytes");
            busy.push(begin(server.address, CROWD, Socket::default(), head).await.unwrap());
        }
        // Longer than a connection counts as new.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let (status, _) = ask(server.address, CROWD, "/v2/").await.unwrap();
        assert_eq!(status, 503);
        assert_eq!(kept.request("GET", "/v2/", &[]).await.unwrap().status, 200);
        drop(busy);
    });
}
