//! Which stores are asked for, and what is refused.

use crate::support::{Server, run};

#[test]
fn flags_for_a_store_that_is_not_in_use_are_refused_by_every_command() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    for command in [
        &["serve", "--listen", "127.0.0.1:0"][..],
        &["repo", "list"],
        &["tag", "list", "app"],
        &["collect"],
        &["fsck"],
        &["metadata", "export"],
        &["metadata", "init"],
        &["blobs", "copy", "--to", "disk:/nowhere"],
    ] {
        for (flags, reported) in [
            (&["--s3-endpoint", "http://127.0.0.1:1"][..], "--blobs s3://"),
            (&["--dynamodb-endpoint", "http://127.0.0.1:1"], "--metadata dynamodb://"),
            (&["--local-table", "other"], "--metadata dynamodb://"),
        ] {
            let output = run([command, flags, &["--data", data]].concat());
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{command:?} {flags:?}: {stderr}");
            assert!(
                stderr.contains(flags[0]) && stderr.contains(reported),
                "{command:?}: {stderr}"
            );
        }
    }
    assert!(!folder.path().join("data").exists(), "nothing is made before that");
}

#[test]
fn sqlite_needs_no_table() {
    let output = run(["metadata", "init"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("--metadata dynamodb://")
    );
}

/// A proxy's word about its client is taken only from a proxy that is trusted.
#[test]
fn the_client_behind_a_trusted_proxy_is_known() {
    let server = Server::start(&["--trusted-proxy", "127.0.0.0/8,::1", "--allow-anonymous", "all"]);
    let agent = |name| [("X-Forwarded-For", "192.0.2.7"), ("User-Agent", name)];
    assert_eq!(server.request("GET", "/v2/", &agent("behind"), b"").status, 200);
    let line = server.wait_for_line("the request is logged", |line| line["agent"] == "behind");
    assert_eq!(line["peer"], "192.0.2.7");
    let server = Server::start(&[]);
    assert_eq!(server.request("GET", "/v2/", &agent("alone"), b"").status, 200);
    let line = server.wait_for_line("the request is logged", |line| line["agent"] == "alone");
    assert_eq!(line["peer"], "127.0.0.1");
}

/// A server starts while its object store is away, and says that it is not ready.
#[test]
fn readiness_looks_at_the_object_store() {
    let folder = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
    let variables = [("AWS_ACCESS_KEY_ID", "nobody"), ("AWS_SECRET_ACCESS_KEY", "nothing")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    // Nothing listens there.
    let nowhere = ["--blobs", "s3://bucket", "--s3-endpoint", "http://127.0.0.1:1"];
    let server = Server::start_on(folder, &nowhere, &variables);
    let ready = server.request("GET", "/readyz", &[], b"");
    assert_eq!(ready.status, 503, "{ready:?}");
    assert_eq!(server.request("GET", "/livez", &[], b"").status, 200);
    let text = String::from_utf8(ready.body).unwrap();
    let id = text
        .trim_start_matches("not ready (")
        .trim_end_matches("): the object store cannot be reached\n")
        .to_owned();
    server.wait_for_line("the log says why", |line| line["id"] == *id);
}
