//! What becomes of a request whose client resets its stream. A body is whole when `END_STREAM` says so, and never otherwise.

use std::net::Ipv4Addr;
use std::time::Duration;

use h2::Reason;

use crate::support::h2::{H2, runtime};
use crate::support::{EMPTY, MANIFEST_TYPE, Server, digest, manifest};

const POLITE: [Reason; 2] = [Reason::NO_ERROR, Reason::CANCEL];

/// How long the server may take to do what it must not do.
const MOMENT: Duration = Duration::from_millis(400);

/// All the bytes are there, and only the end of the stream is missing: nothing is published.
#[test]
fn a_reset_never_ends_a_body_as_if_it_were_whole() {
    let server = Server::start(&[]);
    server.push_blob("app", EMPTY);
    runtime().block_on(async {
        let client = H2::connect(server.address, Ipv4Addr::LOCALHOST).await;
        let mut sent = Vec::new();
        for (round, reason) in POLITE.iter().cycle().take(6).enumerate() {
            let blob = vec![u8::try_from(round).unwrap() + 1; 50_000];
            let at_once = format!("/v2/app/blobs/uploads/?digest={}", digest(&blob));
            let document = manifest(&format!("reset {round}"));
            let upload = server.open_upload("app", &[]);
            let finish = format!("{}?digest={}", server.open_upload("app", &[]), digest(&blob));
            let tag = format!("/v2/app/manifests/reset-{round}");
            for (method, path, body, headers) in [
                ("POST", &at_once, &blob, &[][..]),
                ("PATCH", &upload, &blob, &[]),
                ("PUT", &finish, &blob, &[]),
                ("PUT", &tag, &document, &[MANIFEST_TYPE]),
            ] {
                let mut stream = client.open(method, path, headers, false).await.unwrap();
                stream.send(body, false).unwrap();
                // The server reads what has come; then it waits for the rest.
                tokio::time::sleep(Duration::from_millis(20)).await;
                stream.reset(*reason);
            }
            sent.push((reason, digest(&blob), digest(&document), tag, upload));
        }
        tokio::time::sleep(MOMENT).await;
        for (reason, blob, document, tag, upload) in sent {
            let status = async |path: String| client.request("HEAD", &path, &[]).await.unwrap().status;
            assert_eq!(status(format!("/v2/app/blobs/{blob}")).await, 404, "{reason:?}");
            assert_eq!(status(format!("/v2/app/manifests/{document}")).await, 404, "{reason:?}");
            assert_eq!(status(tag).await, 404, "{reason:?}");
            // The session stands where it stood, and goes on.
            let position = server.request("GET", &upload, &[], b"");
            assert_eq!(
                (position.status, position.header("range")),
                (204, Some("0-0")),
                "{reason:?}"
            );
            let next = server.request("PATCH", &upload, &[("Content-Range", "0-1")], EMPTY);
            assert_eq!(next.status, 202, "{reason:?} {next:?}");
        }
        client.hang_up();
    });
}

/// The same frames with an end are a whole body, also without a declared length.
#[test]
fn a_stream_that_ends_is_a_whole_body() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let client = H2::connect(server.address, Ipv4Addr::LOCALHOST).await;
        let path = format!("/v2/app/blobs/uploads/?digest={}", digest(EMPTY));
        let mut stream = client.open("POST", &path, &[], false).await.unwrap();
        stream.send(&EMPTY[..1], false).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.send(&EMPTY[1..], true).unwrap();
        assert_eq!(stream.answer().await.unwrap().status, 201);
        let document = manifest("whole");
        let mut stream = client
            .open("PUT", "/v2/app/manifests/whole", &[MANIFEST_TYPE], false)
            .await
            .unwrap();
        stream.send(&document, false).unwrap();
        stream.send(b"", true).unwrap();
        assert_eq!(stream.answer().await.unwrap().status, 201);
        let pulled = client.request("GET", "/v2/app/manifests/whole", &[]).await.unwrap();
        assert_eq!(pulled.body, document);
    });
}
