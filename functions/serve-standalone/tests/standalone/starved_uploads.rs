//! Uploads and manifests that trickle, more than there is memory for, and pushes of others meanwhile.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::support::crowd::{Cage, ORDINARY, assert_ordinary, files, threads, within_20_s};
use crate::support::h2::{H2, Stream, runtime};
use crate::support::ordinary::{GREEDY, push};
use crate::support::{MANIFEST_TYPE, Server, digest, eventually};

/// Streams of one connection.
const STREAMS: usize = 60;
/// Between two pieces of each body: less than what the registry takes for a pause.
const SHORT: Duration = Duration::from_millis(300);
/// More than that: what has arrived is written to its file, which stays open.
const LONG: Duration = Duration::from_millis(700);

/// What comes of a body at a time. The HTTP/2 library ends a connection on which more than 100 smaller frames wait to be read,
/// and on a busy machine as many may wait.
const PIECE: &[u8] = &[b' '; 256];

/// Bodies of which a little comes now and then.
struct Trickle {
    stop: Arc<AtomicBool>,
    client: thread::JoinHandle<usize>,
}

impl Trickle {
    /// Begins so many uploads, and so many manifests that say that they are large, and pauses for so long between pieces.
    fn begin(server: SocketAddr, uploads: usize, manifests: usize, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (begun, wait) = mpsc::channel();
        let client = thread::spawn({
            let stop = stop.clone();
            move || {
                runtime().block_on(async {
                    let mut connections = Vec::new();
                    let mut streams: Vec<Option<Stream>> = Vec::new();
                    let upload = format!("/v2/greedy/blobs/uploads/?digest={}", digest(b"never"));
                    for number in 0..uploads + manifests {
                        if number % STREAMS == 0 {
                            connections.push(H2::connect(server, GREEDY).await);
                        }
                        let client = connections.last().unwrap();
                        let stream = if number < uploads {
                            client
                                .open("POST", &upload, &[("content-length", "1000000000")], false)
                                .await
                        } else {
                            let path = format!("/v2/greedy/manifests/t{number}");
                            let length = ("content-length", "4000000");
                            client.open("PUT", &path, &[MANIFEST_TYPE, length], false).await
                        };
                        let mut stream = stream.unwrap();
                        stream.send(PIECE, false).unwrap();
                        streams.push(Some(stream));
                        tokio::task::yield_now().await;
                    }
                    begun.send(()).unwrap();
                    let mut ended = 0;
                    while !stop.load(Ordering::Relaxed) {
                        for stream in &mut streams {
                            let sends = stream.as_mut().is_some_and(|stream| stream.send(PIECE, false).is_ok());
                            if !sends && stream.take().is_some() {
                                ended += 1;
                            }
                        }
                        tokio::time::sleep(pause).await;
                    }
                    for connection in connections {
                        connection.hang_up();
                    }
                    ended
                })
            }
        });
        wait.recv().unwrap();
        // Every body is being waited for.
        thread::sleep(2 * pause);
        Self { stop, client }
    }

    /// How many bodies the server had ended by then.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.client.join().unwrap()
    }
}

fn trickled(flags: &[&str], uploads: usize, manifests: usize, pushes: usize, bound: Duration) {
    let server = Server::start(flags);
    let _cage = Cage::around(&server);
    push(server.address, 1).assert_well(Duration::from_secs(30));
    let (before, idle) = (server.resident(), files(&server));
    let trickle = Trickle::begin(server.address, uploads, manifests, SHORT);
    push(server.address, pushes).assert_well(bound);
    let ended = trickle.end();
    let after = server.resident();
    assert!(after.most < before.most + (160 << 20), "{before:?} {after:?}");
    server.wait_for_memory_and_files(before.now + (64 << 20), idle + 20);
    // No upload had to give way: there is enough for what has arrived.
    assert_eq!(ended, 0);
    push(server.address, 3).assert_well(Duration::from_secs(30));
}

/// An eighth of the load, in an eighth of the memory.
#[test]
fn s31_uploads_that_trickle_keep_no_client_out() {
    trickled(&["--upload-memory", "8MiB"], 140, 16, 20, Duration::from_secs(10));
}

/// Twice as many as have been seen to keep everybody else out.
#[test]
#[ignore = "long: tests/run --full"]
fn s31_very_many_uploads_that_trickle_keep_no_client_out() {
    trickled(&[], 1120, 128, 100, Duration::from_secs(2));
}

/// The same over HTTP/1.1, from many connections.
#[test]
fn s31_bodies_that_trickle_over_many_connections_keep_no_client_out() {
    let server = Server::start(&["--upload-memory", "8MiB"]);
    let _cage = Cage::around(&server);
    push(server.address, 1).assert_well(Duration::from_secs(30));
    let (before, idle) = (server.resident(), files(&server));
    let upload = format!("/v2/greedy/blobs/uploads/?digest={}", digest(b"never"));
    let mut clients: Vec<_> = (0..200)
        .map(|number| {
            let mut client = server.connect();
            if number % 8 == 0 {
                let path = format!("/v2/greedy/manifests/t{number}");
                client.send_head("PUT", &path, &[MANIFEST_TYPE], 4_000_000);
            } else {
                client.send_head("POST", &upload, &[], 1_000_000_000);
            }
            client.send(b"{");
            client
        })
        .collect();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for client in &mut clients {
                    client.send(b" ");
                }
                thread::sleep(SHORT);
            }
        });
        push(server.address, 20).assert_well(Duration::from_secs(10));
        is_over.store(true, Ordering::Relaxed);
    });
    let after = server.resident();
    assert!(after.most < before.most + (96 << 20), "{before:?} {after:?}");
    // No upload had to give way.
    for client in &mut clients {
        assert!(client.is_silent_for(Duration::from_millis(1)));
    }
    drop(clients);
    server.wait_for_memory_and_files(before.now + (64 << 20), idle + 20);
}

/// Uploads that pause keep a file open each, as many as one client may have requests. There are files for all of them, and
/// for the connections of others.
fn paused(flags: &[&str], uploads: usize, pushes: usize, bound: Duration) {
    let server = Server::start_with_few_files(flags);
    let _cage = Cage::around(&server);
    push(server.address, 1).assert_well(Duration::from_secs(30));
    let (before, idle) = (server.resident(), files(&server));
    let trickle = Trickle::begin(server.address, uploads, 0, LONG);
    eventually("each has a file", || (files(&server) > idle + uploads).then_some(()));
    runtime().block_on(assert_ordinary(server.address, ORDINARY, &["/livez", "/v2/"], 20));
    push(server.address, pushes).assert_well(bound);
    assert_eq!(trickle.end(), 0);
    // However many uploads there are, the stores have 192 threads; the rest of the server has some, and two for each core.
    let cores = thread::available_parallelism().unwrap().get();
    let threads = threads(&server);
    assert!(threads < 256 + 2 * cores, "{threads} threads");
    let after = server.resident();
    assert!(after.most < before.most + (160 << 20), "{before:?} {after:?}");
    let is_back = async || files(&server) <= idle + 20;
    runtime().block_on(within_20_s("the files are closed", is_back));
}

#[test]
fn s31_uploads_that_pause_leave_files_to_others() {
    let flags = ["--max-connections", "24", "--max-requests", "1100"];
    paused(&flags, 800, 10, Duration::from_secs(10));
}

/// As many as one client may have with the usual bounds.
#[test]
#[ignore = "long: tests/run --full"]
fn s31_very_many_uploads_that_pause_leave_files_to_others() {
    paused(&[], 3_000, 50, Duration::from_secs(2));
}
