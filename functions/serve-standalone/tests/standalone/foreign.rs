//! S13: layers that say where else their bytes are.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{EMPTY, MANIFEST_TYPE, Server, digest, roadstead};

/// No client has connected, and none connects within a short time.
fn is_left_alone(listener: &TcpListener) -> bool {
    thread::sleep(Duration::from_millis(300));
    matches!(listener.accept(), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// An image whose foreign layers, and the blobs that are there, name URLs of an address on this host.
fn image(urls: &[String], own: &[u8]) -> Value {
    let foreign = |media_type: &str| {
        json!({
            "mediaType": media_type, "digest": digest(media_type.as_bytes()), "size": media_type.len(), "urls": urls,
        })
    };
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE.1,
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(EMPTY), "size": EMPTY.len(), "urls": urls,
        },
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(own), "size": own.len(),
                "urls": urls,
            },
            foreign("application/vnd.oci.image.layer.nondistributable.v1.tar"),
            foreign("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        ],
    })
}

#[test]
fn s13_foreign_urls_are_never_fetched() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let urls = ["http", "https", "ftp"].map(|scheme| format!("{scheme}://user:secret@{address}/latest/meta-data"));
    let mut server = Server::start(&["--collect-every", "100ms"]);
    server.push_blob("app", EMPTY);
    server.push_blob("app", b"a layer of our own");
    let body = image(&urls, b"a layer of our own").to_string().into_bytes();
    let put = server.request("PUT", "/v2/app/manifests/foreign", &[MANIFEST_TYPE], &body);
    assert_eq!(put.status, 201, "{put:?}");
    assert!(is_left_alone(&listener), "a push made a connection");
    let pulled = server.request("GET", "/v2/app/manifests/foreign", &[], b"");
    assert_eq!(pulled.body, body, "the URLs stay as they were written");
    for layer in image(&urls, b"a layer of our own")["layers"].as_array().unwrap() {
        let is_own = layer["digest"] == digest(b"a layer of our own");
        for method in ["GET", "HEAD"] {
            let target = format!("/v2/app/blobs/{}", layer["digest"].as_str().unwrap());
            let answer = server.request(method, &target, &[], b"");
            assert_eq!(answer.status, if is_own { 200 } else { 404 }, "{answer:?}");
            assert_eq!(answer.header("location"), None, "nor is a client sent there");
        }
    }
    assert!(is_left_alone(&listener), "a pull made a connection");
    // Those who look at everything. The passes of the server end first, because two at the same time exclude each other.
    server.wait_for_line("a pass is logged", |line| line["message"] == "collected");
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let data = server.data();
    for command in [&["fsck", "--hash"][..], &["collect", "--deep"], &["metadata", "export"]] {
        let output = roadstead().args(command).arg("--data").arg(&data).output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
    }
    assert!(is_left_alone(&listener), "an operator's command made a connection");
    // The listener is one that would have noticed.
    drop(std::net::TcpStream::connect(address).unwrap());
    assert!(!is_left_alone(&listener));
}
