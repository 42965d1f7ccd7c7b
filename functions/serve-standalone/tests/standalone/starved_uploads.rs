//! Uploads and manifests that trickle, more than there is memory for, and pushes of others meanwhile.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::support::h2::{H2, Stream, runtime};
use crate::support::ordinary::{GREEDY, push};
use crate::support::{MANIFEST_TYPE, Server, digest};

/// Streams of one connection.
const STREAMS: usize = 60;
/// Between two bytes of each body: less than what the registry takes for a pause.
const PAUSE: Duration = Duration::from_millis(300);

/// Bodies of which a byte comes now and then.
struct Trickle {
    stop: Arc<AtomicBool>,
    client: thread::JoinHandle<usize>,
}

impl Trickle {
    /// Begins so many uploads, and so many manifests that say that they are large.
    fn begin(server: SocketAddr, uploads: usize, manifests: usize) -> Self {
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
                        stream.send(b"{", false).unwrap();
                        streams.push(Some(stream));
                        tokio::task::yield_now().await;
                    }
                    begun.send(()).unwrap();
                    let mut ended = 0;
                    while !stop.load(Ordering::Relaxed) {
                        for stream in &mut streams {
                            let sends = stream.as_mut().is_some_and(|stream| stream.send(b" ", false).is_ok());
                            if !sends && stream.take().is_some() {
                                ended += 1;
                            }
                        }
                        tokio::time::sleep(PAUSE).await;
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
        thread::sleep(2 * PAUSE);
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
    push(server.address, 1).assert_well(Duration::from_secs(30));
    let before = server.resident();
    let trickle = Trickle::begin(server.address, uploads, manifests);
    push(server.address, pushes).assert_well(bound);
    let ended = trickle.end();
    let after = server.resident();
    assert!(after.most < before.most + (160 << 20), "{before:?} {after:?}");
    server.wait_for_memory(before.now + (64 << 20));
    // Nobody had to give way: there is enough for what has arrived.
    assert_eq!(ended, 0);
    push(server.address, 3).assert_well(Duration::from_secs(30));
}

/// An eighth of the load, in an eighth of the memory.
#[test]
fn s31_uploads_that_trickle_keep_nobody_out() {
    trickled(&["--upload-memory", "8MiB"], 140, 16, 20, Duration::from_secs(10));
}

/// Twice as many as have been seen to keep everybody else out.
#[test]
#[ignore = "long: tests/run --full"]
fn s31_very_many_uploads_that_trickle_keep_nobody_out() {
    trickled(&[], 1120, 128, 100, Duration::from_secs(2));
}
