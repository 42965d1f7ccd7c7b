//! More clients than connections, and all of them slow: those who get on are served all the same.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use crate::support::crowd::{
    CROWD, Cage, ORDINARY, assert_ordinary, begin, files, get, many_files, memory, ordinary, within_20_s,
};
use crate::support::h2::{SMALL_BUFFER, runtime};
use crate::support::{EMPTY, MANIFEST_TYPE, Server, manifest};

/// A third of the clients says nothing, a third sends half a head, and a third reads slowly.
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
            let text = match number % 3 {
                0 => String::new(),
                1 => "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-Sl".to_owned(),
                _ => get(&blob),
            };
            // A refused connection is what a crowd may expect.
            let Ok(mut socket) = begin(server.address, CROWD, SMALL_BUFFER, &text).await else {
                continue;
            };
            if number % 3 == 2 {
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

/// All places are taken by those who get on: others of the same client wait a moment and are told to come again, and who
/// asks whether the server lives is answered at once. Another client is served.
#[test]
fn s31_a_full_house_answers_probes_and_makes_room_for_others() {
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
