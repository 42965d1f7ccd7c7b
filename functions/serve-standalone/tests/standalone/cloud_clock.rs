//! Instances whose clock is off, over a real bucket and table: a relay between a server and its table tells another time.
//! To the server it is its own clock that is wrong.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;

use crate::support::cloud::Cloud;
use crate::support::objects::date;
use crate::support::{EMPTY, MANIFEST_TYPE, MAX_WAIT, Server, digest, eventually, manifest};

/// Passes requests on, one after the other on each connection, and answers with another date.
struct Relay {
    address: SocketAddr,
    ahead: Arc<AtomicI64>,
    over: Arc<AtomicBool>,
}

impl Relay {
    fn to(endpoint: &str) -> Self {
        let target = endpoint.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (ahead, over) = (Arc::<AtomicI64>::default(), Arc::<AtomicBool>::default());
        thread::spawn({
            let (ahead, over) = (ahead.clone(), over.clone());
            move || {
                for client in listener.incoming() {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    let (target, ahead) = (TcpStream::connect(&target).unwrap(), ahead.clone());
                    // It ends with its connection, at the latest when the program under test does.
                    thread::spawn(move || relay(client.unwrap(), target, &ahead));
                }
            }
        });
        Self { address, ahead, over }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes it.
        let _ = TcpStream::connect(self.address);
    }
}

fn relay(client: TcpStream, target: TcpStream, ahead: &AtomicI64) {
    for stream in [&client, &target] {
        stream.set_read_timeout(Some(MAX_WAIT)).unwrap();
        stream.set_nodelay(true).unwrap();
    }
    let (mut client, mut target) = (BufReader::new(client), BufReader::new(target));
    while let Some(request) = message(&mut client, None) {
        if target.get_mut().write_all(&request).is_err() {
            return;
        }
        let date = date(ahead.load(Ordering::SeqCst));
        let Some(answer) = message(&mut target, Some(&date)) else {
            return;
        };
        if client.get_mut().write_all(&answer).is_err() {
            return;
        }
    }
}

/// The next message, whole; with another date, if there is one.
fn message(from: &mut BufReader<TcpStream>, date: Option<&str>) -> Option<Vec<u8>> {
    let (mut whole, mut length, mut line) = (Vec::new(), 0, String::new());
    loop {
        line.clear();
        if from.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let (name, value) = line.split_once(':').unwrap_or((line.trim_end(), ""));
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
        if name.is_empty() {
            if let Some(date) = date {
                whole.extend_from_slice(format!("Date: {date}\r\n").as_bytes());
            }
            whole.extend_from_slice(b"\r\n");
            break;
        }
        if date.is_none() || !name.eq_ignore_ascii_case("date") {
            whole.extend_from_slice(line.as_bytes());
        }
    }
    let head = whole.len();
    whole.resize(head + length, 0);
    from.read_exact(&mut whole[head..]).ok()?;
    Some(whole)
}

fn status(server: &Server, method: &str, path: &str, body: &[u8]) -> u16 {
    server.request(method, path, &[MANIFEST_TYPE], body).status
}

#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn s33_an_instance_with_a_wrong_clock_neither_pushes_nor_removes() {
    let cloud = Cloud::new();
    let both = cloud.both();
    Cloud::succeed(&both, &["metadata", "init"]);
    let relay = Relay::to(&std::env::var("ROADSTEAD_TEST_DYNAMODB").unwrap());
    let mut through = both.clone();
    let endpoint = through.iter().position(|word| word == "--dynamodb-endpoint").unwrap() + 1;
    through[endpoint] = format!("http://{}", relay.address);
    let (right, wrong) = (Cloud::serve(&both, &[]), Cloud::serve(&through, &[]));
    let layer = right.push_blob("app", b"a layer");
    right.push_blob("app", EMPTY);
    assert_eq!(status(&right, "PUT", "/v2/app/manifests/a", &manifest("a")), 201);
    assert_eq!(
        wrong.push_blob("app", b"while its clock is right"),
        digest(b"while its clock is right")
    );

    for hours in [2, -2] {
        relay.ahead.store(hours * 3_600, Ordering::SeqCst);
        // Several times: a response that was under way when the time changed may come after one that was not.
        eventually("it is noticed", || {
            let is_noticed = (0..4).all(|_| {
                let ready = wrong.request("GET", "/readyz", &[], b"");
                std::thread::sleep(std::time::Duration::from_millis(100));
                ready.status == 503 && String::from_utf8_lossy(&ready.body).contains("clock is wrong")
            });
            is_noticed.then_some(())
        });
        let path = format!("/v2/app/blobs/{layer}");
        for (method, path, body) in [
            ("PUT", "/v2/app/manifests/b", &*manifest("b")),
            ("DELETE", "/v2/app/manifests/a", b""),
            ("DELETE", &*path, b""),
        ] {
            assert_eq!(status(&wrong, method, path, body), 503, "{hours} {method} {path}");
        }
        let upload = wrong.open_upload("app", &[]);
        assert_eq!(status(&wrong, "PATCH", &upload, b"bytes"), 503);
        let collected = Cloud::run(&through, &["collect"]);
        let reported = String::from_utf8_lossy(&collected.stderr);
        assert_eq!(collected.status.code(), Some(1), "{reported}");
        assert!(reported.contains("clock"), "{reported}");
        // Nothing was changed, and the other goes on.
        assert_eq!(status(&right, "HEAD", &path, b""), 200);
        assert_eq!(
            right.request("GET", "/v2/app/manifests/a", &[], b"").body,
            manifest("a")
        );
        assert_eq!(status(&right, "PUT", "/v2/app/manifests/c", &manifest("c")), 201);
        relay.ahead.store(0, Ordering::SeqCst);
        // Without a question for readiness: the table is asked for the time also while nothing else is.
        eventually("it is right again", || {
            (status(&wrong, "PUT", "/v2/app/manifests/b", &manifest("b")) == 201).then_some(())
        });
    }
}
