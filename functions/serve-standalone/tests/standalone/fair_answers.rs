//! Answers that their clients do not read: what they hold is bounded for all of them together, and shared between clients.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpStream;

use crate::support::cloud::Cloud;
use crate::support::crowd::{
    CROWD, Cage, ORDINARY, ask, assert_ordinary, begin, files, get, many_files, memory, within_20_s,
};
use crate::support::h2::{H2, SMALL_BUFFER, Windows, runtime};
use crate::support::{EMPTY, MANIFEST_TYPE, Server, digest, manifest};

/// Blobs of 200 kB, more of them than there are files for reading.
const MANY_SMALL: (u32, usize) = (300, 200_000);

/// What it may take for blobs on their way out, in bytes.
const STREAMS: u64 = 128 << 20;

/// What a server may take beside the memory that its flags name, in bytes.
const BESIDE: u64 = 64 << 20;

/// Pushes so many referrers of one manifest that a page of them is nearly as large as it may be; the path of the page.
fn push_referrers(server: &Server) -> String {
    server.push_blob("app", EMPTY);
    let subject = manifest("subject");
    let put = server.request("PUT", "/v2/app/manifests/subject", &[MANIFEST_TYPE], &subject);
    assert_eq!(put.status, 201);
    let note = "x".repeat(30_000);
    let mut client = server.connect();
    for number in 0..131 {
        let mut referrer: serde_json::Value = serde_json::from_slice(&manifest("referrer")).unwrap();
        referrer["annotations"] = json!({ "note": note, "number": number.to_string() });
        referrer["subject"] = json!({
            "mediaType": MANIFEST_TYPE.1,
            "digest": digest(&subject),
            "size": subject.len(),
        });
        let referrer = referrer.to_string().into_bytes();
        let path = format!("/v2/app/manifests/{}", digest(&referrer));
        let put = client.request("PUT", &path, &[MANIFEST_TYPE], &referrer);
        assert_eq!(put.status, 201, "{put:?}");
    }
    format!("/v2/app/referrers/{}", digest(&subject))
}

/// Clients ask for pages of nearly 4 MiB and read nothing, each on a connection of its own over HTTP/1.1, and many on
/// each connection over HTTP/2.
fn unread_pages(alone: usize, connections: usize, streams: usize) {
    many_files();
    let server = Server::start(&["--stall-timeout", "1h"]);
    let page = push_referrers(&server);
    let _cage = Cage::around(&server);
    runtime().block_on(async {
        let (status, body) = ask(server.address, ORDINARY, &page).await.unwrap();
        assert!(status == 200 && body.len() > 3_900_000, "{status} {}", body.len());
        drop(body);
        let (before, _) = memory(&server);
        let mut sockets: Vec<TcpStream> = Vec::new();
        let mut clients = Vec::new();
        for _ in 0..alone {
            sockets.push(begin(server.address, CROWD, SMALL_BUFFER, &get(&page)).await.unwrap());
        }
        let mut unread = Vec::new();
        for _ in 0..connections {
            let client = H2::connect(server.address, CROWD).await;
            for _ in 0..streams {
                unread.push(client.open("GET", &page, &[], true).await.unwrap());
            }
            clients.push(client);
        }
        let paths = ["/v2/", "/v2/app/manifests/subject", "/v2/app/tags/list", "/livez"];
        assert_ordinary(server.address, ORDINARY, &paths, 40).await;
        let (_, peak) = memory(&server);
        // 32 MiB are for finished answers, those in the making, and what is parsed for them.
        assert!(
            peak < before + (32 << 20) + BESIDE,
            "{} MiB after {} MiB",
            peak >> 20,
            before >> 20
        );
        drop((sockets, unread));
        for client in clients {
            client.hang_up();
        }
        within_20_s("an answer of the whole size is to be had again", async || {
            matches!(ask(server.address, CROWD, &page).await, Ok((200, _)))
        })
        .await;
    });
}

#[test]
fn s31_unread_pages_take_bounded_memory() {
    unread_pages(40, 2, 40);
}

#[test]
#[ignore = "long: tests/run --full"]
fn s31_unread_pages_take_bounded_memory_at_length() {
    unread_pages(200, 8, 64);
}

/// Clients at four addresses ask for pages of nearly 4 MiB and read nothing: one of them waits for memory. No client that asks
/// for something small waits behind it.
#[test]
fn s31_small_answers_do_not_wait_behind_pages() {
    let server = Server::start(&["--stall-timeout", "1h"]);
    let page = push_referrers(&server);
    runtime().block_on(async {
        let mut sockets: Vec<TcpStream> = Vec::new();
        for round in 0..8 {
            for number in 10..14 {
                let greedy = Ipv4Addr::new(127, 0, 0, number);
                let socket = begin(server.address, greedy, SMALL_BUFFER, &get(&page)).await;
                sockets.push(socket.unwrap());
            }
            tokio::time::sleep(Duration::from_millis(if round < 2 { 300 } else { 10 })).await;
        }
        let small = ["/v2/app/manifests/subject", "/v2/app/tags/list", "/v2/_catalog"];
        assert_ordinary(server.address, ORDINARY, &small, 40).await;
    });
}

/// Many clients that read slowly and steadily, each on a connection of its own over HTTP/2: all get everything, and what is
/// held for them is bounded.
fn steady_readers(clients: usize, bytes: usize, rate: u64) {
    many_files();
    let server = Server::start(&[]);
    let _cage = Cage::around(&server);
    let blob = format!("/v2/app/blobs/{}", server.push_blob("app", &vec![9; bytes]));
    runtime().block_on(async {
        let (before, _) = memory(&server);
        let idle = files(&server);
        let mut readers = Vec::new();
        for _ in 0..clients {
            let client = H2::connect(server.address, CROWD).await;
            let stream = client.open("GET", &blob, &[], true).await.unwrap();
            readers.push(tokio::spawn(async move {
                let read = stream.answer().await.unwrap().read_slowly(rate).await;
                drop(client);
                read
            }));
        }
        assert_ordinary(server.address, ORDINARY, &["/v2/", "/livez", &blob], 30).await;
        for reader in readers {
            let (read, error) = reader.await.unwrap();
            assert!(
                read == bytes as u64 && error.is_none(),
                "{read} of {bytes} bytes: {error:?}"
            );
        }
        let (_, peak) = memory(&server);
        assert!(
            peak < before + STREAMS + BESIDE,
            "{} MiB after {} MiB",
            peak >> 20,
            before >> 20
        );
        within_20_s("the files are closed", async || files(&server) < idle + 20).await;
    });
}

#[test]
fn s31_two_hundred_steady_readers_take_bounded_memory() {
    steady_readers(200, 1 << 20, 160_000);
}

#[test]
#[ignore = "long: tests/run --full"]
fn s31_four_hundred_steady_readers_take_bounded_memory() {
    steady_readers(400, 2 << 20, 64_000);
}

/// Clients at several addresses take all the memory for small answers, and each reads a few bytes a second, which is
/// progress. They give way when others want to read.
#[test]
fn s31_answers_that_are_read_slowly_give_way() {
    // There is memory for eight such answers, which are kept with the metadata.
    let server = Server::start(&["--upload-memory", "4MiB"]);
    server.push_blob("app", EMPTY);
    let large = manifest(&"x".repeat(30_000));
    let path = "/v2/app/manifests/large";
    let put = server.request("PUT", path, &[MANIFEST_TYPE], &large);
    assert_eq!(put.status, 201);
    runtime().block_on(async {
        let windows = Windows {
            stream: 2_000,
            ..Windows::default()
        };
        let mut readers = Vec::new();
        for round in 0..3 {
            for number in 10..18 {
                let client = H2::with_windows(server.address, Ipv4Addr::new(127, 0, 0, number), windows).await;
                readers.push(tokio::spawn(async move {
                    let stream = client.open("GET", path, &[], true).await.unwrap();
                    match stream.answer().await {
                        Ok(answer) => answer.read_slowly(500).await.1,
                        Err(error) => Some(error),
                    }
                }));
            }
            tokio::time::sleep(Duration::from_millis(if round == 0 { 300 } else { 10 })).await;
        }
        let start = Instant::now();
        let (status, body) = ask(server.address, ORDINARY, path).await.unwrap();
        assert_eq!((status, body.len()), (200, large.len()));
        // A reader is known to be slow after five seconds.
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
        for reader in &readers {
            reader.abort();
        }
        assert_ordinary(server.address, ORDINARY, &[path], 20).await;
    });
}

/// Clients ask for blobs of so many bytes on many streams and read nothing of them.
fn unread_blobs(server: &Server, (blobs, bytes): (u32, usize), connections: usize, streams: usize, most_read: usize) {
    many_files();
    let _cage = Cage::around(server);
    let blobs: Vec<_> = (0..blobs)
        .map(|number| {
            let blob = server.push_blob("app", &number.to_le_bytes().repeat(bytes / 4));
            format!("/v2/app/blobs/{blob}")
        })
        .collect();
    server.push_blob("app", EMPTY);
    let put = server.request("PUT", "/v2/app/manifests/latest", &[MANIFEST_TYPE], &manifest("latest"));
    assert_eq!(put.status, 201);
    runtime().block_on(async {
        let (before, _) = memory(server);
        let idle = files(server);
        let mut clients = Vec::new();
        let mut unread = Vec::new();
        for connection in 0..connections {
            let client = H2::connect(server.address, CROWD).await;
            for stream in 0..streams {
                let path = &blobs[(connection * streams + stream) % blobs.len()];
                unread.push(client.open("GET", path, &[], true).await.unwrap());
            }
            clients.push(client);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let paths = [
            "/v2/",
            "/v2/app/manifests/latest",
            blobs[7 % blobs.len()].as_str(),
            "/readyz",
        ];
        assert_ordinary(server.address, ORDINARY, &paths, 60).await;
        let open = files(server);
        // A connection each, those for reading, and some that come and go.
        assert!(open < idle + connections + most_read + 40, "{open} files after {idle}");
        let (_, peak) = memory(server);
        assert!(
            peak < before + STREAMS + BESIDE,
            "{} MiB after {} MiB",
            peak >> 20,
            before >> 20
        );
        drop(unread);
        for client in clients {
            client.hang_up();
        }
        within_20_s("the files are closed", async || files(server) < idle + 20).await;
        // And the requests that waited before are served again.
        assert_ordinary(server.address, CROWD, &paths, 20).await;
    });
}

#[test]
fn s31_unread_blobs_keep_no_files_from_others() {
    let server = Server::start(&["--stall-timeout", "1h"]);
    unread_blobs(&server, MANY_SMALL, 16, 60, 256);
}

#[test]
#[ignore = "long: tests/run --full"]
fn s31_unread_blobs_keep_no_files_from_others_at_length() {
    let server = Server::start(&["--stall-timeout", "1h"]);
    unread_blobs(&server, MANY_SMALL, 80, 63, 256);
}

/// What comes from an object store lies in buffers of the connections to it, too.
#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn s31_unread_blobs_of_a_bucket_take_bounded_memory() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    let flags = ["--pull", "proxy", "--stall-timeout", "1h", "--data", data];
    let server = Cloud::serve(&Cloud::new().s3(), &flags);
    unread_blobs(&server, (8, 8 << 20), 16, 60, 512);
}

/// A stream whose file was closed meanwhile goes on where it was.
#[test]
fn a_reader_that_pauses_gets_the_rest_although_its_file_was_closed() {
    let server = Server::start(&["--stall-timeout", "1h"]);
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
    let first = format!("/v2/app/blobs/{}", server.push_blob("app", &bytes));
    let others: Vec<_> = (0..300_u32)
        .map(|number| {
            format!(
                "/v2/app/blobs/{}",
                server.push_blob("app", &number.to_le_bytes().repeat(50_000))
            )
        })
        .collect();
    runtime().block_on(async {
        let client = H2::connect(server.address, CROWD).await;
        let paused = client
            .open("GET", &first, &[], true)
            .await
            .unwrap()
            .answer()
            .await
            .unwrap();
        let mut clients = Vec::new();
        let mut unread = Vec::new();
        for paths in others.chunks(60) {
            let other = H2::connect(server.address, ORDINARY).await;
            for path in paths {
                unread.push(
                    other
                        .open("GET", path, &[], true)
                        .await
                        .unwrap()
                        .answer()
                        .await
                        .unwrap(),
                );
            }
            clients.push(other);
        }
        let answer = paused.read().await.unwrap();
        assert!(answer.body == bytes);
        drop((unread, clients));
    });
}
