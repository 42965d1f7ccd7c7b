//! Collection and checks, beside a server that goes on serving.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::content::push_everything;
use crate::support::{EMPTY, MANIFEST_TYPE, Server, digest, eventually, manifest, roadstead, run};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a command on the server's data.
fn command(server: &Server, arguments: &[&str]) -> Output {
    let data = server.data();
    run([arguments, &["--data", data.to_str().unwrap()]].concat())
}

fn succeed(server: &Server, arguments: &[&str]) -> Output {
    let output = command(server, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    output
}

fn collect(server: &Server, arguments: &[&str]) -> Value {
    let output = succeed(server, &[&["collect", "--json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The files of all objects.
fn objects(data: &Path) -> BTreeSet<PathBuf> {
    let folders = std::fs::read_dir(data.join("blobs")).unwrap();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

fn push_image(server: &Server, repository: &str, layer: &[u8]) -> String {
    server.push_blob(repository, EMPTY);
    let layer_digest = server.push_blob(repository, layer);
    let image = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE.1,
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(EMPTY), "size": EMPTY.len() },
        "layers": [{ "mediaType": "application/x.layer", "digest": layer_digest, "size": layer.len() }],
    });
    let put = server.request(
        "PUT",
        &format!("/v2/{repository}/manifests/latest"),
        &[MANIFEST_TYPE],
        image.to_string().as_bytes(),
    );
    assert_eq!(put.status, 201, "{put:?}");
    put.header("docker-content-digest").unwrap().to_owned()
}

#[test]
fn deleted_content_is_collected_pass_by_pass_and_nothing_else() {
    let server = Server::start(&[]);
    let kept = push_everything(&server);
    let before = objects(&server.data());
    let layer = vec![9; 200_000];
    let image = push_image(&server, "removed", &layer);
    assert!(objects(&server.data()).len() > before.len());
    let path = format!("/v2/removed/manifests/{image}");
    assert_eq!(server.request("DELETE", &path, &[], b"").status, 202);
    thread::sleep(Duration::from_millis(5));

    let dry = collect(&server, &["--grace", "1ms", "--dry-run"]);
    assert_eq!(dry["dry_run"], true);
    assert!(dry["marked"].as_u64().unwrap() >= 2, "{dry}");
    let default = collect(&server, &[]);
    assert_eq!(
        (&default["marked"], &default["complete"]),
        (&0.into(), &true.into()),
        "a day's grace: {default}"
    );

    let mut deleted = 0;
    eventually("all passes that it takes", || {
        let report = collect(&server, &["--grace", "1ms"]);
        deleted += report["objects_deleted"].as_u64().unwrap();
        (objects(&server.data()) == before).then_some(())
    });
    assert!(deleted >= 1);
    let gone = format!("/v2/removed/blobs/{}", digest(&layer));
    assert_eq!(server.request("GET", &gone, &[], b"").status, 404);
    kept.is_all_there(&server);
    succeed(&server, &["fsck", "--hash"]);
}

#[test]
fn a_server_collects_in_the_background_and_counts_it() {
    let server = Server::start(&["--collect-every", "200ms", "--metrics", "here"]);
    let collected = server.wait_for_line("a pass is logged", |line| line["message"] == "collected");
    assert_eq!(collected["complete"], true);
    let metrics = text(&server.request("GET", "/metrics", &[], b"").body);
    let passes = metrics
        .lines()
        .find_map(|line| line.strip_prefix("roadstead_collection_passes_total{outcome=\"whole\"} "));
    assert!(passes.unwrap().parse::<u64>().unwrap() >= 1, "{metrics}");
    assert!(
        metrics.contains("roadstead_collection_last_pass_timestamp_seconds 1"),
        "{metrics}"
    );
    server.signal(rustix::process::Signal::TERM);
    let mut server = server;
    assert!(server.wait().success(), "it does not keep the server from ending");
}

#[test]
fn collection_goes_on_until_a_signal_ends_it_and_a_hangup_does_not() {
    let server = Server::start(&[]);
    push_image(&server, "app", b"layer");
    let mut child = roadstead()
        .args(["collect", "--every", "50ms", "--json", "--data"])
        .arg(server.data())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    for line in lines.take(4) {
        let pass: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(pass["complete"], true, "{pass}");
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = eventually("it ends", || child.try_wait().unwrap());
    assert!(ended.success(), "{ended:?}");
}

#[test]
fn reports_for_people_are_text() {
    let server = Server::start(&[]);
    push_image(&server, "app", b"layer");
    let reported = text(&succeed(&server, &["collect", "--deep"]).stdout);
    assert!(
        reported.contains("newly marked as unreferenced") && reported.contains("0 orphaned records deleted"),
        "{reported}"
    );
    let checked = succeed(&server, &["fsck"]);
    assert!(checked.stdout.is_empty());
    let reported = text(&checked.stderr);
    assert!(
        reported.contains("1 repository, 1 manifest, 1 tag, 2 blobs") && reported.contains("0 findings"),
        "{reported}"
    );
}

#[test]
fn a_check_finds_missing_damaged_and_orphaned_objects() {
    let server = Server::start(&[]);
    let layer = vec![5; 100_000];
    push_image(&server, "app", &layer);
    let put = server.request("PUT", "/v2/app/manifests/other", &[MANIFEST_TYPE], &manifest("other"));
    assert_eq!(put.status, 201);
    succeed(&server, &["fsck", "--hash"]);
    let files = objects(&server.data());
    let find = |bytes: &[u8]| files.iter().find(|file| std::fs::read(file).unwrap() == bytes).unwrap();
    let (layer_file, empty_file) = (find(&layer), find(EMPTY));

    std::fs::write(layer_file, vec![6; layer.len()]).unwrap();
    succeed(&server, &["fsck"]);
    let output = command(&server, &["fsck", "--hash", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let findings: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(findings[0]["finding"], "corrupt");
    assert_eq!(findings[0]["digest"], digest(&layer));
    assert_eq!(
        findings.last().unwrap()["summary"]["findings"],
        2,
        "and the image: {findings:?}"
    );

    std::fs::remove_file(empty_file).unwrap();
    // The first digit of a key is the name of its folder.
    let orphan = server.data().join(format!("blobs/0/{:032x}.1", 0xabc));
    std::fs::write(&orphan, b"orphaned").unwrap();
    let output = command(&server, &["fsck"]);
    assert_eq!(output.status.code(), Some(1));
    let reported = text(&output.stdout);
    assert!(
        reported.contains("object missing") && reported.contains(&digest(EMPTY)),
        "{reported}"
    );
    assert!(
        reported.contains("orphan") && reported.contains(&format!("{:032x}.1", 0xabc)),
        "{reported}"
    );
    assert!(text(&output.stderr).contains("4 findings"), "{}", text(&output.stderr));
}

#[test]
fn an_abandoned_upload_is_collected_when_it_has_expired() {
    let server = Server::start(&["--upload-lifetime", "2s"]);
    let upload = server.open_upload("app", &[]);
    let patched = server.request("PATCH", &upload, &[], &vec![1; 50_000]);
    assert_eq!(patched.status, 202, "{patched:?}");
    let location = patched.header("location").unwrap();
    let early = collect(&server, &["--grace", "1ms"]);
    assert_eq!(early["sessions_swept"], 0, "it may still be continued");
    assert_eq!(objects(&server.data()).len(), 1);
    eventually("its time is over", || {
        (server.request("GET", location, &[], b"").status == 404).then_some(())
    });
    let mut swept = 0;
    eventually("all passes that it takes", || {
        let report = collect(&server, &["--grace", "1ms"]);
        swept += report["sessions_swept"].as_u64().unwrap();
        objects(&server.data()).is_empty().then_some(())
    });
    assert_eq!(swept, 1);
}
