//! Objects that are lost or damaged behind the registry's back: pushing the right bytes again makes every repository
//! whole, and a check tells what cannot be pulled.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::support::{MANIFEST_TYPE, Server, digest, roadstead};

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accident {
    Deleted,
    Truncated,
    Emptied,
    Altered,
}

impl Accident {
    fn befall(self, file: &Path) {
        let bytes = std::fs::read(file).unwrap();
        match self {
            Self::Deleted => std::fs::remove_file(file).unwrap(),
            Self::Truncated => std::fs::write(file, &bytes[..bytes.len() - 1]).unwrap(),
            Self::Emptied => std::fs::write(file, b"").unwrap(),
            Self::Altered => std::fs::write(file, vec![bytes[0] ^ 1; bytes.len()]).unwrap(),
        }
    }
}

/// The files that hold these bytes: that of their digest, and those that wait to be deleted.
fn files_of(server: &Server, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in std::fs::read_dir(server.data().join("blobs")).unwrap() {
        let Ok(files) = std::fs::read_dir(folder.unwrap().path()) else {
            continue;
        };
        let files = files.map(|file| file.unwrap().path());
        found.extend(files.filter(|file| file.is_file() && std::fs::read(file).unwrap() == bytes));
    }
    found
}

/// The one file that holds these bytes.
fn file_of(server: &Server, bytes: &[u8]) -> PathBuf {
    let mut found = files_of(server, bytes);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn image(layer: &[u8], padding: usize) -> Vec<u8> {
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE.1,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(b"{}"), "size": 2 },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": digest(layer),
            "size": layer.len(),
        }],
    });
    let mut bytes = manifest.to_string().into_bytes();
    bytes.resize(bytes.len() + padding, b' ');
    bytes
}

fn put(server: &Server, path: &str, manifest: &[u8]) {
    let put = server.request("PUT", path, &[MANIFEST_TYPE], manifest);
    assert_eq!(put.status, 201, "{put:?}");
}

/// Pushes as clients do: what HEAD says is there is not uploaded. Whether anything was.
pub(crate) fn push(server: &Server, repository: &str, layer: &[u8], tag: &str, padding: usize) -> bool {
    let mut uploaded = false;
    for blob in [b"{}", layer] {
        let path = format!("/v2/{repository}/blobs/{}", digest(blob));
        if server.request("HEAD", &path, &[], b"").status != 200 {
            server.push_blob(repository, blob);
            uploaded = true;
        }
    }
    put(
        server,
        &format!("/v2/{repository}/manifests/{tag}"),
        &image(layer, padding),
    );
    uploaded
}

pub(crate) fn pull(server: &Server, repository: &str, layer: &[u8]) -> (u16, bool) {
    let path = format!("/v2/{repository}/blobs/{}", digest(layer));
    let answer = server.request("GET", &path, &[], b"");
    (answer.status, answer.body == layer)
}

fn fsck(server: &Server, flags: &[&str]) -> Output {
    let mut command = roadstead();
    command.arg("fsck").args(flags).arg("--data").arg(server.data());
    command.output().unwrap()
}

fn report_text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn registry(layer: &[u8]) -> Server {
    let server = Server::start(&[]);
    push(&server, "app", layer, "1", 0);
    let mount = format!("/v2/other/blobs/uploads/?mount={}&from=app", digest(layer));
    assert_eq!(server.request("POST", &mount, &[], b"").status, 201);
    push(&server, "other", layer, "2", 0);
    server
}

/// A client pushes without having asked, before any client has pulled: the push itself looks.
#[test]
fn a_push_replaces_a_lost_layer_in_every_repository() {
    for (number, accident) in (1..).zip([Accident::Deleted, Accident::Truncated, Accident::Emptied]) {
        let layer = vec![number; 100_000];
        let server = registry(&layer);
        accident.befall(&file_of(&server, &layer));
        server.push_blob("other", &layer);
        for repository in ["app", "other"] {
            assert_eq!(pull(&server, repository, &layer), (200, true), "{accident:?}");
        }
        let checked = fsck(&server, &["--hash"]);
        assert_eq!(
            checked.status.code(),
            Some(0),
            "{accident:?}: {}",
            report_text(&checked)
        );
    }
}

/// A pull finds the loss. After that, every client gets the answer that the blob is not there, so the next push uploads
/// it.
#[test]
fn a_pull_that_finds_no_layer_lets_the_next_push_upload_it() {
    for (number, accident) in (10..).zip([Accident::Deleted, Accident::Truncated, Accident::Emptied]) {
        let layer = vec![number; 100_000];
        let server = registry(&layer);
        let path = |repository: &str| format!("/v2/{repository}/blobs/{}", digest(&layer));
        accident.befall(&file_of(&server, &layer));
        let head = |repository: &str| server.request("HEAD", &path(repository), &[], b"").status;
        assert_eq!(head("app"), 200, "HEAD asks the table alone");
        // Of what is truncated the first of several ranges is there.
        let several = [("Range", "bytes=0-9,90000-99999")];
        let ranges = if accident == Accident::Truncated {
            &[][..]
        } else {
            &several
        };
        let lost = server.request("GET", &path("app"), ranges, b"");
        assert_eq!(
            (lost.status, &lost.json()["errors"][0]["code"]),
            (404, &"BLOB_UNKNOWN".into())
        );
        assert_eq!((head("app"), head("other")), (404, 404), "{accident:?}");
        server.wait_for_line("it is logged", |line| {
            line["level"] == "ERROR" && line["digest"] == digest(&layer) && line["repository"] == "app"
        });
        let mount = format!("/v2/third/blobs/uploads/?mount={}&from=app", digest(&layer));
        assert_eq!(
            server.request("POST", &mount, &[], b"").status,
            202,
            "a session instead"
        );
        let new = server.request("PUT", "/v2/app/manifests/new", &[MANIFEST_TYPE], &image(&layer, 1));
        assert_eq!(new.status, 400, "{new:?}");

        assert!(push(&server, "app", &layer, "1", 0), "it was uploaded");
        for repository in ["app", "other"] {
            assert_eq!(pull(&server, repository, &layer), (200, true), "{accident:?}");
        }
        let checked = fsck(&server, &["--hash"]);
        assert_eq!(
            checked.status.code(),
            Some(0),
            "{accident:?}: {}",
            report_text(&checked)
        );
    }
}

/// A manifest that lies in an object is lost and pushed again like a layer.
#[test]
fn a_large_manifest_is_pushed_again() {
    let layer = vec![20; 1000];
    let server = registry(&layer);
    for repository in ["app", "other"] {
        push(&server, repository, &layer, "large", 40_000);
    }
    let manifest = image(&layer, 40_000);
    let path = |repository: &str| format!("/v2/{repository}/manifests/{}", digest(&manifest));
    for is_pulled in [false, true] {
        for file in files_of(&server, &manifest) {
            Accident::Deleted.befall(&file);
        }
        if is_pulled {
            for reference in [path("app"), "/v2/app/manifests/large".to_owned(), path("other")] {
                let lost = server.request("GET", &reference, &[], b"");
                assert_eq!(
                    (lost.status, &lost.json()["errors"][0]["code"]),
                    (404, &"MANIFEST_UNKNOWN".into())
                );
            }
            assert_eq!(server.request("HEAD", &path("other"), &[], b"").status, 404);
        }
        push(&server, "other", &layer, "large", 40_000);
        for repository in ["app", "other"] {
            let answer = server.request("GET", &path(repository), &[], b"");
            assert_eq!((answer.status, answer.body == manifest), (200, true), "{is_pulled}");
        }
    }
    let checked = fsck(&server, &["--hash"]);
    assert_eq!(checked.status.code(), Some(0), "{}", report_text(&checked));
}

/// A check names the images that cannot be pulled and what to do; only a repair lets a push come about that asks first,
/// where no client pulls through the registry, and of bytes that are wrong and as many as before.
#[test]
fn a_check_names_what_cannot_be_pulled_and_repairs() {
    for (number, accident) in (30..).zip([Accident::Deleted, Accident::Truncated, Accident::Altered]) {
        let layer = vec![number; 100_000];
        let server = registry(&layer);
        push(&server, "whole", b"another layer", "3", 0);
        accident.befall(&file_of(&server, &layer));
        let hash: &[&str] = if accident == Accident::Altered {
            &["--hash"]
        } else {
            &[]
        };
        let checked = fsck(&server, hash);
        assert_eq!(checked.status.code(), Some(1));
        let text = report_text(&checked);
        for advice in ["push app:1 again", "push other:2 again"] {
            let line = text.lines().find(|line| line.ends_with(advice)).expect(&text);
            assert!(line.starts_with("manifest not pullable "), "{text}");
            assert!(line.contains("run `roadstead fsck --repair`"), "{text}");
        }
        assert!(!text.contains("whole"), "{text}");
        assert!(
            !push(&server, "app", &layer, "1", 0),
            "it is not recorded yet: {accident:?}"
        );

        let repaired = fsck(&server, &[hash, &["--repair", "--json"]].concat());
        assert_eq!(repaired.status.code(), Some(1), "something was found");
        let lines = report_text(&repaired);
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.last().unwrap()["summary"]["repaired"], 1, "{lines:?}");
        let images: Vec<&Value> = lines
            .iter()
            .filter(|line| line["finding"] == "manifest_not_pullable")
            .collect();
        assert_eq!(images.len(), 2, "{lines:?}");
        assert!(images.iter().any(|image| {
            image["repository"] == "app" && image["tags"][0] == "1" && image["missing"][0] == digest(&layer)
        }));
        assert_eq!(pull(&server, "app", &layer).0, 404, "{accident:?}");
        let quick = fsck(&server, &[]);
        assert_eq!(
            quick.status.code(),
            Some(1),
            "{accident:?}: the check reports what is recorded"
        );
        assert!(push(&server, "app", &layer, "1", 0), "it was uploaded");
        for repository in ["app", "other"] {
            assert_eq!(pull(&server, repository, &layer), (200, true), "{accident:?}");
        }
        let checked = fsck(&server, &["--hash"]);
        assert_eq!(
            checked.status.code(),
            Some(0),
            "{accident:?}: {}",
            report_text(&checked)
        );
    }
}
