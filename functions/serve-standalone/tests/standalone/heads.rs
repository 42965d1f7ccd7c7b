//! Requests in progress and their heads: how large, how many, and whose.

use std::time::Duration;

use base64::Engine as _;

use crate::support::crowd::{Cage, files};
use crate::support::h2::{H2, Windows, runtime};
use crate::support::ordinary::{GREEDY, ORDINARY, get};
use crate::support::{EMPTY, Server, digest, folder_with_users};

/// The largest head that is taken.
const MAX_HEAD: usize = 32 << 10;

#[test]
fn s31_a_head_at_the_bound_is_taken_and_one_byte_more_is_not() {
    let server = Server::start(&[]);
    for (length, status) in [(MAX_HEAD, 200), (MAX_HEAD + 1, 431)] {
        let mut client = server.connect();
        let begin = "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-Long: ";
        let long = "x".repeat(length - begin.len() - 4);
        client.send(format!("{begin}{long}\r\n\r\n").as_bytes());
        assert_eq!(client.response("GET").status, status, "{length}");
    }
    // HTTP/2 counts 32 bytes more for each field. A token of the largest size has room in both.
    runtime().block_on(async {
        let client = H2::connect(server.address, ORDINARY).await;
        for (length, status) in [(MAX_HEAD - 1_000, 200), (MAX_HEAD + 1, 431)] {
            let long = "x".repeat(length);
            let answer = client.request("GET", "/v2/", &[("x-long", &long)]).await.unwrap();
            assert_eq!(answer.status, status, "{length}");
        }
        let token = format!("Bearer {}", "x".repeat(12 << 10));
        let answer = client
            .request("GET", "/v2/", &[("authorization", &token)])
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
    });
}

/// What one client has in progress leaves slots to others, on every connection of its own; and it gets slots again when
/// its requests have ended.
#[test]
fn s31_requests_in_progress_are_shared_between_clients() {
    const PLACES: usize = 40;
    let server = Server::start(&["--max-requests", "40"]);
    runtime().block_on(async {
        let greedy = [
            H2::connect(server.address, GREEDY).await,
            H2::connect(server.address, GREEDY).await,
        ];
        let path = format!("/v2/app/blobs/uploads/?digest={}", digest(EMPTY));
        let open = async |connection: &H2| {
            let head = [("content-length", "2")];
            connection.open("POST", &path, &head, false).await.unwrap()
        };
        let mut held = Vec::new();
        for _ in 0..PLACES * 3 / 4 {
            held.push(open(&greedy[0]).await);
        }
        // Probes have slots of their own. When it is answered, what was sent before it has been seen.
        let health = greedy[0].request("GET", "/readyz", &[]).await.unwrap();
        assert_eq!(health.status, 200);
        for _ in 0..PLACES / 4 {
            let refused = open(&greedy[1]).await.answer().await.unwrap();
            assert_eq!(refused.status, 503);
            assert!(refused.headers.contains_key("retry-after"));
        }
        let ordinary = H2::connect(server.address, ORDINARY).await;
        for _ in 0..PLACES {
            assert_eq!(ordinary.request("GET", "/v2/", &[]).await.unwrap().status, 200);
        }
        for mut stream in held {
            stream.send(EMPTY, true).unwrap();
            assert_eq!(stream.answer().await.unwrap().status, 201);
        }
        assert_eq!(greedy[0].request("GET", "/v2/", &[]).await.unwrap().status, 200);
    });
    let refused = server.lines().into_iter().filter(|line| line["status"] == 503);
    assert_eq!(refused.count(), PLACES / 4, "they are in the log");
}

/// What waits keeps of its head what is read of it: large heads are no reason to refuse requests for which there is a slot.
#[test]
fn s31_requests_that_wait_hold_no_more_of_their_heads_than_is_read() {
    // With so few, memory for heads is 600 KiB: for 6 of these at one client.
    let server = Server::start(&["--max-requests", "100"]);
    runtime().block_on(async {
        let client = H2::connect(server.address, GREEDY).await;
        let path = format!("/v2/app/blobs/uploads/?digest={}", digest(EMPTY));
        let junk = "x".repeat(MAX_HEAD - 1_000);
        let fields = [("content-length", "2"), ("x-junk", junk.as_str())];
        let mut uploads = Vec::new();
        for _ in 0..50 {
            uploads.push(client.open("POST", &path, &fields, false).await.unwrap());
        }
        for mut stream in uploads {
            stream.send(EMPTY, true).unwrap();
            assert_eq!(stream.answer().await.unwrap().status, 201);
        }
    });
}

/// The smallest blobs are sent without memory of their own: an answer that is not read keeps the slot of its request.
#[test]
fn s31_small_unread_answers_keep_their_slots() {
    const PLACES: usize = 20;
    let server = Server::start(&["--max-requests", "20"]);
    let blob = server.push_blob("app", &[7; 2 << 10]);
    let path = format!("/v2/app/blobs/{blob}");
    let closed = Windows {
        stream: 10,
        ..Windows::default()
    };
    runtime().block_on(async {
        let greedy = H2::with_windows(server.address, GREEDY, closed).await;
        let mut unread = Vec::new();
        for number in 0..PLACES {
            let stream = greedy.open("GET", &path, &[], true).await.unwrap();
            let answer = stream.answer().await.unwrap();
            let expected = if number < PLACES * 3 / 4 { 200 } else { 503 };
            assert_eq!(answer.status, expected, "request {number}");
            if expected == 200 {
                unread.push(answer);
            }
        }
        for answer in unread {
            assert_eq!(answer.read().await.unwrap().body, vec![7; 2 << 10]);
        }
        assert_eq!(greedy.request("GET", &path, &[]).await.unwrap().status, 200);
    });
}

/// A client that goes on asking on a connection although there is no slot is asked to stop; what is in progress on the
/// connection ends as it would.
#[test]
fn s31_a_connection_ends_after_many_refusals() {
    const PLACES: usize = 40;
    let server = Server::start(&["--max-requests", "40"]);
    runtime().block_on(async {
        let greedy = H2::connect(server.address, GREEDY).await;
        let path = format!("/v2/app/blobs/uploads/?digest={}", digest(EMPTY));
        let mut uploads = Vec::new();
        for _ in 0..PLACES * 3 / 4 {
            let fields = [("content-length", "2")];
            uploads.push(greedy.open("POST", &path, &fields, false).await.unwrap());
        }
        assert_eq!(greedy.request("GET", "/readyz", &[]).await.unwrap().status, 200);
        let mut refused = 0;
        while let Ok(answer) = greedy.request("GET", "/v2/", &[]).await {
            assert_eq!(answer.status, 503);
            refused += 1;
            assert!(refused < 200, "nothing tells it to stop");
            if refused % 20 == 0 {
                // These have slots of their own, and free none for others.
                assert_eq!(greedy.request("GET", "/livez", &[]).await.unwrap().status, 200);
            }
        }
        assert!(refused >= 64, "after {refused} refusals");
        for mut stream in uploads {
            stream.send(EMPTY, true).unwrap();
            assert_eq!(stream.answer().await.unwrap().status, 201);
        }
        assert!(greedy.ended().await.is_none(), "it ends in good order");
    });
}

/// Clients that send large heads with wrong passwords, on many streams of many connections, and what that costs.
fn guessed(flags: &[&str], connections: usize, growth: u64, requests: usize, bound: Duration) {
    const STREAMS: usize = 60;
    let folder = folder_with_users(&[("someone", "right")]);
    // Dear enough that most of them wait.
    let users = folder.path().join("users");
    std::fs::write(&users, format!("someone:{}", bcrypt::hash("right", 9).unwrap())).unwrap();
    let users = users.to_str().unwrap().to_owned();
    let server = Server::start_in(
        folder,
        &[&["--htpasswd", &users, "--allow-anonymous", "pull"], flags].concat(),
    );
    let _cage = Cage::around(&server);
    get(server.address, "/livez", 1).assert_well(Duration::from_secs(30));
    let (before, idle) = (server.resident(), files(&server));
    let address = server.address;
    let (begun, wait) = std::sync::mpsc::channel();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let greedy = std::thread::spawn(move || {
        runtime().block_on(async {
            let (mut clients, mut held) = (Vec::new(), Vec::new());
            let filler = "x".repeat(MAX_HEAD - 1_000);
            for connection in 0..connections {
                // The server may refuse the connection, too.
                let Ok(client) = H2::try_connect(address, GREEDY, Windows::default()).await else {
                    continue;
                };
                for stream in 0..STREAMS {
                    let guess = format!("someone:{connection} {stream}");
                    let guess = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(guess));
                    let headers = [("authorization", guess.as_str()), ("x-filler", filler.as_str())];
                    let Ok(stream) = client.open("GET", "/v2/", &headers, true).await else {
                        break;
                    };
                    held.push(stream);
                }
                clients.push(client);
                tokio::task::yield_now().await;
            }
            begun.send(held.len()).unwrap();
            while let Err(std::sync::mpsc::TryRecvError::Empty) = stopped.try_recv() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    });
    let sent = wait.recv().unwrap();
    assert!(sent >= connections * STREAMS / 2, "{sent} requests were sent");
    get(address, "/v2/_catalog", requests).assert_well(bound);
    let after = server.resident();
    assert!(after.most < before.most + growth, "{before:?} {after:?}");
    drop(stop);
    greedy.join().unwrap();
    server.wait_for_memory_and_files(before.now + growth / 2, idle + 20);
}

#[test]
fn s31_heads_of_requests_that_wait_for_authentication_are_bounded() {
    // Were all of them held, that would be 120 MiB of bytes alone.
    guessed(&["--max-requests", "512"], 64, 96 << 20, 20, Duration::from_secs(10));
}

/// Twice as many as have been seen to end a server within seconds.
#[test]
#[ignore = "long: tests/run --full"]
fn s31_very_many_heads_are_bounded() {
    guessed(&[], 352, 256 << 20, 100, Duration::from_secs(2));
}
