//! Clients that stall, trickle, or crowd the server, and those who must not notice.

use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use crate::metrics;
use crate::support::{EMPTY, Http1Client, MANIFEST_TYPE, Server, digest, eventually, manifest};

/// A body so large that no socket's buffers hold it.
fn large() -> Vec<u8> {
    vec![7; 48 << 20]
}

/// All of them at once, each stuck at another place, while the server goes on for everyone else; and each is ended.
#[test]
fn s30_stalled_clients_delay_no_others_and_are_cut_off() {
    let server = Server::start(&[
        "--header-timeout",
        "700ms",
        "--keep-alive",
        "900ms",
        "--idle-timeout",
        "800ms",
        "--stall-timeout",
        "800ms",
    ]);
    let blob = server.push_blob("app", &large());
    let pull = format!("/v2/app/blobs/{blob}");

    let start = Instant::now();
    let mut silent = server.connect();
    let mut slow_head = server.connect();
    slow_head.send(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-Slow: ");
    let mut unused = server.connect();
    assert_eq!(unused.request("GET", "/v2/", &[], b"").status, 200);
    let mut second_head = server.connect();
    assert_eq!(second_head.request("GET", "/v2/", &[], b"").status, 200);
    second_head.send(b"GET /v2/ HT");
    let mut stalled_upload = server.connect();
    let upload = server.open_upload("app", &[]);
    stalled_upload.send_head("PATCH", &upload, &[], 1000);
    stalled_upload.send(b"some bytes");
    let mut stalled_manifest = server.connect();
    stalled_manifest.send_head("PUT", "/v2/app/manifests/stalled", &[MANIFEST_TYPE], 1000);
    let mut stalled_reader = server.connect();
    stalled_reader.send_head("GET", &pull, &[("User-Agent", "stalled-reader")], 0);

    // While all of them hang, others are served.
    for _ in 0..20 {
        assert_eq!(server.request("GET", "/v2/", &[], b"").status, 200);
    }

    assert!(silent.is_closed());
    assert!(start.elapsed() >= Duration::from_millis(700), "{:?}", start.elapsed());
    assert!(slow_head.is_closed());
    assert!(unused.is_closed());
    assert!(second_head.is_closed());
    for stalled in [&mut stalled_upload, &mut stalled_manifest] {
        let response = stalled.response("PUT");
        assert_eq!(response.status, 408, "{response:?}");
        assert!(stalled.is_closed());
        assert!(start.elapsed() >= Duration::from_millis(800), "{:?}", start.elapsed());
    }
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    let line = server.wait_for_line("the stalled reader is cut off", |line| {
        line["agent"] == "stalled-reader"
    });
    assert_eq!(line["cut"], true);
    assert!(line["bytes"].as_u64().unwrap() < large().len() as u64);
    assert!(
        stalled_reader.try_response("GET").is_none(),
        "the response ends before its length"
    );
    // The upload that stalled is not lost: nothing of the cut body was kept, and it can go on.
    assert_eq!(server.request("PATCH", &upload, &[], EMPTY).status, 202);
}

/// With the time limits as they are by default: clients that compress while they send are silent for a minute and more.
#[test]
#[ignore = "long: tests/run --full"]
fn a_body_may_pause_for_almost_two_minutes() {
    let server = Server::start(&[]);
    let paused = || {
        let upload = server.open_upload("app", &[]);
        let mut client = server.connect();
        client.send_head("PATCH", &upload, &[], EMPTY.len());
        client.send(&EMPTY[..1]);
        client
    };
    let start = Instant::now();
    let (mut goes_on, mut stays_silent) = (paused(), paused());
    thread::sleep(Duration::from_secs(110));
    goes_on.send(&EMPTY[1..]);
    assert_eq!(goes_on.response("PATCH").status, 202);
    assert!(stays_silent.is_silent_for(Duration::from_secs(1)));
    assert_eq!(stays_silent.response("PATCH").status, 408);
    let silent = start.elapsed().as_secs();
    assert!((119..130).contains(&silent), "ended after {silent} s");
}

/// A byte now and then does not keep a head or a body alive beyond its time.
#[test]
fn s30_trickling_clients_are_ended() {
    let server = Server::start(&[
        "--header-timeout",
        "600ms",
        "--idle-timeout",
        "10s",
        "--stall-timeout",
        "2s",
        "--request-timeout",
        "900ms",
    ]);
    let blob = server.push_blob("app", &large());
    let trickle = |mut client: Http1Client, text: Vec<u8>| {
        thread::spawn(move || {
            let mut bytes = text.into_iter().cycle();
            eventually("the server ends a trickle", || {
                thread::sleep(Duration::from_millis(50));
                let byte = [bytes.next().unwrap()];
                (client.send_what_goes(&byte).is_err() || !client.is_silent_for(Duration::from_millis(1))).then_some(())
            });
            client
        })
    };
    let mut head = server.connect();
    head.send(b"GET /v2/ HTTP/1.1\r\nX-Slow: ");
    let head = trickle(head, b"x".to_vec());
    let mut body = server.connect();
    body.send_head("PATCH", &server.open_upload("app", &[]), &[], 1_000_000);
    let body = trickle(body, b"y".to_vec());
    let mut reader = server.connect();
    reader.send_head(
        "GET",
        &format!("/v2/app/blobs/{blob}"),
        &[("User-Agent", "trickling-reader")],
        0,
    );
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let reading = thread::spawn(move || {
        use std::io::Read as _;
        let mut bytes = [0; 1 << 10];
        while stopped.recv_timeout(Duration::from_millis(20)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            reader.stream().read_exact(&mut bytes).unwrap();
        }
        reader
    });
    assert_eq!(server.request("GET", "/v2/", &[], b"").status, 200);
    assert!(head.join().unwrap().is_closed());
    assert_eq!(body.join().unwrap().response("PATCH").status, 408);
    let line = server.wait_for_line("the trickling reader is cut off", |line| {
        line["agent"] == "trickling-reader"
    });
    assert_eq!(line["cut"], true);
    drop(stop);
    // What was on its way is still read; then the connection ends.
    assert!(reading.join().unwrap().is_closed());
}

/// A connection beyond the cap waits and is not refused; idle ones are closed for it, busy ones are not.
#[test]
fn connections_beyond_the_maximum_wait_for_a_slot() {
    let server = Server::start(&[
        "--max-connections",
        "2",
        "--keep-alive",
        "1h",
        "--header-timeout",
        "1h",
        "--metrics",
        "127.0.0.1:0",
    ]);
    let counted = metrics::own_address(&server);
    let mut kept = [server.connect(), server.connect()];
    for client in &mut kept {
        assert_eq!(client.request("GET", "/v2/", &[], b"").status, 200);
    }
    assert_eq!(
        server.request("GET", "/v2/", &[], b"").status,
        200,
        "an idle connection is closed for a new one"
    );
    let asked_to_leave = eventually("one of them was closed", || {
        kept.iter_mut()
            .position(|client| !client.is_silent_for(Duration::from_millis(1)))
    });
    let [first, second] = kept;
    let (mut closed, other) = if asked_to_leave == 0 {
        (first, second)
    } else {
        (second, first)
    };
    assert!(closed.is_closed());
    other.hang_up();

    let mut busy = [server.connect(), server.connect()];
    for client in &mut busy {
        client.send_head(
            "POST",
            &format!("/v2/app/blobs/uploads/?digest={}", digest(EMPTY)),
            &[],
            EMPTY.len(),
        );
        client.send(&EMPTY[..1]);
    }
    // A connection whose request has not been seen yet would be closed.
    eventually("both uploads have begun", || {
        let reported = String::from_utf8(metrics::scrape(counted).body).unwrap();
        (metrics::value(&reported, "roadstead_uploads_open") == Some(2)).then_some(())
    });
    let mut waiting = server.connect();
    waiting.send_head("GET", "/v2/", &[], 0);
    // Longer than the interval in which the server looks for a free slot.
    assert!(
        waiting.is_silent_for(Duration::from_millis(1500)),
        "both connections are busy"
    );
    let [mut first, mut second] = busy;
    first.send(&EMPTY[1..]);
    let response = first.response("POST");
    assert_eq!(response.status, 201, "{response:?}");
    assert_eq!(
        response.header("connection"),
        Some("close"),
        "others wait for this connection"
    );
    assert_eq!(waiting.response("GET").status, 200);
    second.send(&EMPTY[1..]);
    assert_eq!(second.response("POST").status, 201);
}

/// Clients that have answers coming and send on without reading get them all the same.
#[test]
fn a_client_that_sends_its_whole_body_before_it_looks_gets_the_early_answer() {
    let server = Server::start(&[]);
    let body = large();
    for (method, path, status) in [
        ("PUT", "/v2/app/manifests/large", 413),
        ("PATCH", "/v2/app/blobs/uploads/no-such-token", 404),
        ("PUT", "/nowhere", 404),
        ("POST", "/livez", 405),
    ] {
        for length in [1 << 10, 5 << 20, body.len()] {
            let mut client = server.connect();
            client.send_head(method, path, &[MANIFEST_TYPE], length);
            client.send(&body[..length]);
            let response = client.response(method);
            let small_manifest = method == "PUT" && path.contains("manifests") && length < 4 << 20;
            assert_eq!(
                response.status,
                if small_manifest { 400 } else { status },
                "{method} {path} {length}"
            );
            if length == 1 << 10 && path != "/livez" {
                assert_eq!(
                    client.request("GET", "/v2/", &[], b"").status,
                    200,
                    "the connection is kept"
                );
            }
        }
    }
}

/// A client that waits for `100 Continue` gets none when its body is not needed.
#[test]
fn a_body_gets_100_continue_only_when_it_is_needed() {
    let server = Server::start(&[]);
    let expect = ("Expect", "100-continue");
    let mut client = server.connect();
    client.send_head(
        "PUT",
        "/v2/app/blobs/uploads/no-such-token?digest=sha256:0",
        &[expect],
        10,
    );
    assert_eq!(client.response("PUT").status, 400);
    assert!(client.is_closed());
    let mut client = server.connect();
    let post = format!("/v2/app/blobs/uploads/?digest={}", digest(EMPTY));
    client.send_head("POST", &post, &[expect], EMPTY.len());
    assert_eq!(client.response("POST").status, 100);
    client.send(EMPTY);
    assert_eq!(client.response("POST").status, 201);
}

/// Heads beyond reason are refused, and the server goes on.
#[test]
fn heads_are_bounded() {
    let server = Server::start(&[]);
    let long = "x".repeat(100 << 10);
    let many: Vec<(String, &str)> = (0..200).map(|index| (format!("X-{index}"), "y")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    for headers in [&[("X-Long", long.as_str())][..], &many] {
        let mut client = server.connect();
        let _ = client.stream().flush();
        client.send_head("GET", "/v2/", headers, 0);
        assert_eq!(client.try_response("HEAD").map(|response| response.status), Some(431));
    }
    assert_eq!(server.request("GET", "/v2/", &[], b"").status, 200);
}

/// Clients that stall with an upload keep no memory that others need.
#[test]
fn s30_stalled_uploads_leave_memory_to_others() {
    // Room for two.
    let server = Server::start(&["--upload-memory", "256KiB"]);
    let stalled: Vec<_> = (0..6)
        .map(|_| {
            let upload = server.open_upload("app", &[]);
            let mut client = server.connect();
            client.send_head("PATCH", &upload, &[], 1000);
            client.send(b"a byte or two");
            client
        })
        .collect();
    for note in 0..3_u8 {
        server.push_blob("app", &vec![note; 300_000]);
    }
    drop(stalled);
}

/// What manifests hold in memory while they arrive is bounded for all of them together: a large one waits for another,
/// and the answer names memory when none becomes free in time, not that it stalled itself. One that stalls gives way.
#[test]
fn s07_manifests_wait_for_memory() {
    let server = Server::start(&["--upload-memory", "1MiB", "--memory-timeout", "1s"]);
    server.push_blob("app", EMPTY);
    let begin = |name: &str| {
        let mut client = server.connect();
        client.send_head("PUT", &format!("/v2/app/manifests/{name}"), &[MANIFEST_TYPE], 3 << 20);
        client.send(&vec![b' '; 100 << 10]);
        client
    };
    // More than the memory for first bytes: it takes all the memory for the rest.
    let mut stalled = begin("stalled");
    thread::sleep(Duration::from_millis(300));
    let mut waiting = begin("waits");
    let response = waiting.response("PUT");
    assert_eq!(response.status, 503, "{response:?}");
    assert!(response.header("retry-after").is_some());
    // Small ones are not held up, and neither is one that comes when the stalled one has been slow for long enough.
    let bytes = manifest("small");
    let path = "/v2/app/manifests/small";
    assert_eq!(server.request("PUT", path, &[MANIFEST_TYPE], &bytes).status, 201);
    let large = [manifest("large"), vec![b' '; 200 << 10]].concat();
    eventually("the stalled manifest gives way", || {
        let response = server.request("PUT", "/v2/app/manifests/large", &[MANIFEST_TYPE], &large);
        assert!(matches!(response.status, 201 | 503), "{response:?}");
        (response.status == 201).then_some(())
    });
    let response = stalled.response("PUT");
    assert_eq!(response.status, 503, "{response:?}");
}
