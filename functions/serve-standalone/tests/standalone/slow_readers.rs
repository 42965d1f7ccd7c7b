//! Clients that read slowly and get everything, and clients that do not read and are ended.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::support::crowd::{CROWD, begin, get};
use crate::support::h2::{H2, SMALL_BUFFER, Windows, runtime};
use crate::support::{EMPTY, MANIFEST_TYPE, Server, manifest};

/// Reads at a steady rate until the end; how much came.
async fn read_steadily(mut socket: TcpStream, rate: u64, most: u64) -> u64 {
    let start = tokio::time::Instant::now();
    let mut buffer = vec![0; usize::try_from(rate / 8).unwrap()];
    let mut read = 0;
    while read < most {
        match socket.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => read += count as u64,
        }
        tokio::time::sleep_until(start + Duration::from_millis(read * 1000 / rate)).await;
    }
    read
}

/// The time for which a connection is kept begins when the last byte of an answer was written, and no timeout but that
/// for whole answers ends a reader that goes on, however slow it is.
#[test]
fn s30_a_steady_reader_gets_everything_whatever_the_keep_alive() {
    // The slower ones are seen to get on every 2.2 s: the system asks for more when it has sent 128 KiB.
    let server = Server::start(&["--keep-alive", "500ms", "--stall-timeout", "6s"]);
    let large = server.push_blob("app", &vec![5; 2 << 20]);
    let small = server.push_blob("app", &vec![6; 400 << 10]);
    let (large, small) = (format!("/v2/app/blobs/{large}"), format!("/v2/app/blobs/{small}"));
    runtime().block_on(async {
        let one = async |path: &str, rate: u64, length: u64| {
            let socket = begin(server.address, CROWD, SMALL_BUFFER, &get(path)).await.unwrap();
            // The head comes before the body, and the connection ends after both.
            let read = read_steadily(socket, rate, u64::MAX).await;
            assert!(
                read > length && read < length + 2_000,
                "{read} of {length} bytes at {rate}/s"
            );
        };
        let multiplexed = async |path: &str, rate: u64, length: u64| {
            let client = H2::connect(server.address, CROWD).await;
            let answer = client
                .open("GET", path, &[], true)
                .await
                .unwrap()
                .answer()
                .await
                .unwrap();
            let (read, error) = answer.read_slowly(rate).await;
            assert!(
                read == length && error.is_none(),
                "{read} of {length} bytes at {rate}/s: {error:?}"
            );
        };
        tokio::join!(
            one(&large, 300_000, 2 << 20),
            one(&small, 60_000, 400 << 10),
            multiplexed(&large, 300_000, 2 << 20),
            multiplexed(&small, 60_000, 400 << 10),
        );
    });
    // Each is written down as what it was: whole.
    for line in server.lines().iter().filter(|line| line["method"] == "GET") {
        assert!(line["cut"].is_null(), "{line}");
        let length = line["bytes"].as_u64().unwrap();
        assert!([2 << 20, 400 << 10].contains(&length), "{line}");
    }
}

/// A client that has read a part and goes on with next to nothing is ended like one that reads nothing; what is logged
/// and counted is what it was sent.
#[test]
fn s30_a_client_that_does_not_read_is_cut_off_and_the_log_says_how_much_was_sent() {
    let server = Server::start(&["--stall-timeout", "1500ms", "--keep-alive", "1h", "--metrics", "here"]);
    let length: u64 = 24 << 20;
    let large = server.push_blob("app", &vec![5; 24 << 20]);
    let large = format!("/v2/app/blobs/{large}");
    server.push_blob("app", EMPTY);
    let put = server.request("PUT", "/v2/app/manifests/small", &[MANIFEST_TYPE], &manifest("small"));
    assert_eq!(put.status, 201);
    runtime().block_on(async {
        // Nothing at all, over HTTP/1.1.
        let mut none = begin(server.address, CROWD, SMALL_BUFFER, &get(&large)).await.unwrap();
        // A hundred bytes a second: fewer than what counts.
        let trickle = begin(server.address, CROWD, SMALL_BUFFER, &get(&large)).await.unwrap();
        let trickle = tokio::spawn(read_steadily(trickle, 100, 500));
        // One of several streams: the others go on.
        let client = H2::connect(server.address, CROWD).await;
        let headers = [("User-Agent", "stream")];
        let stalled = client
            .open("GET", &large, &headers, true)
            .await
            .unwrap()
            .answer()
            .await
            .unwrap();
        // A small answer that the library has wholly taken, and of which the client lets ten bytes through.
        let closed = Windows {
            stream: 10,
            ..Windows::default()
        };
        let shut = H2::with_windows(server.address, CROWD, closed).await;
        let headers = [("User-Agent", "shut")];
        let waits = shut
            .open("GET", "/v2/app/manifests/small", &headers, true)
            .await
            .unwrap();
        let waits = waits.answer().await.unwrap();
        assert_eq!((waits.status, waits.headers.contains_key("etag")), (200, true));
        for _ in 0..16 {
            assert_eq!(
                client
                    .request("HEAD", "/v2/app/manifests/small", &[])
                    .await
                    .unwrap()
                    .status,
                200
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // Only the stream was ended, and its connection serves on.
        let (read, error) = stalled.read_slowly(u64::MAX >> 20).await;
        assert!(read < length && error.is_some_and(|error| error.is_reset()), "{read}");
        assert_eq!(client.request("HEAD", "/v2/", &[]).await.unwrap().status, 200);
        // Nothing can end that stream alone.
        shut.ended().await;
        drop(waits);
        trickle.await.unwrap();
        // What the system had taken still arrives.
        let mut rest = Vec::new();
        let _ = none.read_to_end(&mut rest).await;
        assert!((rest.len() as u64) < length);
        client.hang_up();
    });
    let cut = |line: &&serde_json::Value| line["cut"] == true;
    let lines = crate::support::eventually("all four are written down", || {
        let lines: Vec<_> = server.lines().iter().filter(cut).cloned().collect();
        (lines.len() == 4).then_some(lines)
    });
    for line in &lines {
        let (agent, sent) = (&line["agent"], line["bytes"].as_u64().unwrap());
        assert_eq!(line["status"], 200);
        // Not before its time, and soon after it.
        let ms = line["ms"].as_f64().unwrap();
        assert!((1_500.0..10_000.0).contains(&ms), "{line}");
        match agent.as_str().unwrap() {
            "crowd" => assert!(sent > 0 && sent < 8 << 20, "{line}"),
            // The window of the protocol, and no byte more.
            "stream" => assert_eq!(sent, 65_535, "{line}"),
            "shut" => assert_eq!(sent, 10, "{line}"),
            _ => panic!("{line}"),
        }
    }
    let metrics = String::from_utf8(server.request("GET", "/metrics", &[], b"").body).unwrap();
    assert!(metrics.contains("roadstead_answers_cut_total 4\n"), "{metrics}");
}
