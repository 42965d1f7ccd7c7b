//! Moving a registry: names by export and import, bytes by copy.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::content::{Pushed, push_everything};
use crate::support::{EMPTY, MANIFEST_TYPE, Server, digest, manifest, run};

fn report_text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn succeed(arguments: &[&str]) -> Output {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", report_text(&output));
    output
}

/// A registry that has stopped.
struct Stopped {
    folder: Arc<TempDir>,
    pushed: Pushed,
}

impl Stopped {
    fn new() -> Self {
        let mut server = Server::start(&[]);
        let pushed = push_everything(&server);
        server.signal(rustix::process::Signal::TERM);
        assert!(server.wait().success());
        Self {
            folder: server.folder.clone(),
            pushed,
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }
}

/// The records of an export, without the lines between them, in an order of their own.
fn records(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut records: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("{\"export\""))
        .map(ToOwned::to_owned)
        .collect();
    records.sort();
    records
}

#[test]
fn a_registry_that_was_exported_imported_and_copied_serves_the_same() {
    let old = Stopped::new();
    let (data, file, new) = (old.path("data"), old.path("export"), old.path("new/data"));
    let output = succeed(&["metadata", "export", "--data", &data, "--output", &file]);
    assert!(report_text(&output).contains("records to"), "{}", report_text(&output));
    succeed(&["metadata", "import", &file, "--data", &new]);
    let to = format!("disk:{new}");
    let copied = succeed(&["blobs", "copy", "--data", &data, "--to", &to, "--json"]);
    let report: Value = serde_json::from_slice(&copied.stdout).unwrap();
    assert_eq!(report["failed"], 0);
    assert!(report["copied"].as_u64().unwrap() >= 4, "{report}");

    let again = succeed(&["blobs", "copy", "--data", &data, "--to", &to, "--json"]);
    let second: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&second["copied"], &second["skipped"]), (&0.into(), &report["copied"]));
    succeed(&["metadata", "import", &file, "--data", &new]);

    let second_file = old.path("export again");
    succeed(&["metadata", "export", "--data", &new, "--output", &second_file]);
    assert_eq!(records(Path::new(&second_file)), records(Path::new(&file)));
    let server = Server::start_on(old.folder.clone(), &["--data", &new], &[]);
    old.pushed.is_all_there(&server);
    drop(server);
    succeed(&["fsck", "--hash", "--data", &new]);
}

#[test]
fn an_export_goes_to_standard_output_too() {
    let old = Stopped::new();
    let output = succeed(&["metadata", "export", "--data", &old.path("data")]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["export"], "begin");
    let end = lines.last().unwrap();
    assert_eq!(end["export"], "end");
    let records = lines.iter().filter(|line| line["record"].is_string()).count();
    assert_eq!(end["records"], records);
    let tags = lines.iter().filter(|line| line["record"] == "tag").count();
    assert_eq!(tags, old.pushed.tags());
    assert!(!text.contains("secret"), "no key leaves");
}

/// A file with hashes of passwords and keys is for its owner alone, also one that others could read before.
#[test]
fn an_export_can_be_read_by_its_owner_alone() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let data = path("data").to_str().unwrap().to_owned();
    succeed(&["user", "add", "alice", "--no-password", "--data", &data]);
    let open = Permissions::from_mode(0o666);
    std::fs::write(path("empty"), "").unwrap();
    std::fs::set_permissions(path("empty"), open.clone()).unwrap();
    for name in ["new", "empty"] {
        let file = path(name);
        succeed(&[
            "metadata",
            "export",
            "--data",
            &data,
            "--output",
            file.to_str().unwrap(),
        ]);
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600, "{name}");
        assert!(std::fs::read_to_string(&file).unwrap().contains("alice"), "{name}");
    }

    // An export that was interrupted, to a file that others can read.
    let whole = std::fs::read_to_string(path("new")).unwrap();
    let cut = whole.find("{\"record\"").unwrap();
    std::fs::write(path("interrupted"), &whole[..cut]).unwrap();
    std::fs::set_permissions(path("interrupted"), open).unwrap();
    let file = path("interrupted");
    let output = succeed(&[
        "metadata",
        "export",
        "--data",
        &data,
        "--output",
        file.to_str().unwrap(),
    ]);
    assert!(report_text(&output).contains("continuing"), "{}", report_text(&output));
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn an_import_is_refused_where_it_would_do_harm() {
    let old = Stopped::new();
    let (file, other) = (old.path("export"), old.path("other"));
    succeed(&["metadata", "export", "--data", &old.path("data"), "--output", &file]);
    let whole = std::fs::read(&file).unwrap();

    let cut = old.path("cut");
    std::fs::write(&cut, &whole[..whole.len() - 30]).unwrap();
    let output = run(["metadata", "import", &cut, "--data", &other]);
    assert_eq!(output.status.code(), Some(1));
    assert!(report_text(&output).contains("incomplete"), "{}", report_text(&output));
    assert!(
        !Path::new(&other).exists(),
        "nothing is made for a file that is not whole"
    );

    let mut server = Server::start_on(old.folder.clone(), &["--data", &other], &[]);
    server.push_blob("elsewhere", EMPTY);
    let put = server.request("PUT", "/v2/elsewhere/manifests/a", &[MANIFEST_TYPE], &manifest("a"));
    assert_eq!(put.status, 201);
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait().success());
    let output = run(["metadata", "import", &file, "--data", &other]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        report_text(&output).contains("elsewhere") && report_text(&output).contains("--force"),
        "{}",
        report_text(&output)
    );
    succeed(&["metadata", "import", &file, "--data", &other, "--force"]);
    let listed = succeed(&["repo", "list", "--data", &other]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.lines().any(|line| line == "elsewhere") && listed.lines().count() > 1,
        "{listed}"
    );

    let output = run(["metadata", "export", "--data", &old.path("data"), "--output", &file]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        report_text(&output).contains("complete export"),
        "{}",
        report_text(&output)
    );
    assert_eq!(std::fs::read(&file).unwrap(), whole);
}

#[test]
fn a_copy_goes_on_after_an_interruption_and_takes_no_damaged_object() {
    let old = Stopped::new();
    let (data, new) = (old.path("data"), old.path("new"));
    let copy = || {
        run([
            "blobs",
            "copy",
            "--data",
            &data,
            "--to",
            &format!("disk:{new}"),
            "--jobs",
            "1",
        ])
    };
    // One is damaged in its place, without a change of its size; one is gone.
    let damaged = file_of(Path::new(&data), old.pushed.layer());
    let bytes = std::fs::read(&damaged).unwrap();
    let mut changed = bytes.clone();
    changed[0] ^= 1;
    std::fs::write(&damaged, &changed).unwrap();
    let gone = file_of(Path::new(&data), EMPTY);
    std::fs::rename(&gone, old.path("gone")).unwrap();
    let output = copy();
    assert_eq!(output.status.code(), Some(1));
    let text = report_text(&output);
    assert!(
        text.contains("damaged") && text.contains(&digest(old.pushed.layer())),
        "{text}"
    );
    assert!(text.contains("missing") && text.contains(&digest(EMPTY)), "{text}");
    assert!(text.contains("2 objects could not be copied"), "{text}");
    let arrived = Path::new(&new)
        .join("blobs")
        .join(damaged.strip_prefix(Path::new(&data).join("blobs")).unwrap());
    assert!(!arrived.exists(), "nothing that is damaged arrives");
    // What a killed copy leaves: a beginning.
    std::fs::write(&arrived, &bytes[..10]).unwrap();
    std::fs::write(&damaged, &bytes).unwrap();
    std::fs::rename(old.path("gone"), &gone).unwrap();
    let output = copy();
    assert_eq!(output.status.code(), Some(0), "{}", report_text(&output));
    assert!(
        report_text(&output).starts_with("2 objects"),
        "{}",
        report_text(&output)
    );
    assert_eq!(std::fs::read(&arrived).unwrap(), bytes);
}

/// The file that holds `bytes`.
fn file_of(data: &Path, bytes: &[u8]) -> std::path::PathBuf {
    let folders = std::fs::read_dir(data.join("blobs")).unwrap();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    let paths = files.map(|file| file.unwrap().path());
    paths
        .into_iter()
        .find(|path| std::fs::read(path).unwrap() == bytes)
        .unwrap()
}

#[test]
fn a_store_is_not_copied_to_itself() {
    let old = Stopped::new();
    let data = old.path("data");
    let output = run(["blobs", "copy", "--data", &data, "--to", &format!("disk:{data}/")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(report_text(&output).contains("already"), "{}", report_text(&output));
}

/// A file that names what the store cannot have is refused at its line before anything is written, also with `--force`.
#[test]
fn an_import_refuses_locations_that_no_store_has() {
    let old = Stopped::new();
    let (data, file, new) = (old.path("data"), old.path("export"), old.path("new"));
    succeed(&["metadata", "export", "--data", &data, "--output", &file]);
    let text = std::fs::read_to_string(&file).unwrap();
    let mut refused = 0;
    for key in ["../metadata.db", "/etc/passwd", "0123.1", ""] {
        for (kind, pointer) in [
            ("blob", "/location/key"),
            ("link", "/location/key"),
            ("manifest", "/content/stored/key"),
        ] {
            let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
            let found = lines.iter().enumerate().find_map(|(index, line)| {
                let mut record: Value = serde_json::from_str(line).unwrap();
                let is_meant = record["record"] == kind;
                *record.pointer_mut(pointer).filter(|_| is_meant)? = key.into();
                Some((index, record.to_string()))
            });
            let (index, line) = found.unwrap_or_else(|| panic!("no {kind} with an object in the export"));
            lines[index] = line;
            std::fs::write(&file, lines.join("\n") + "\n").unwrap();
            for force in [&[][..], &["--force"]] {
                let output = run([&["metadata", "import", &file, "--data", &new], force].concat());
                let said = report_text(&output);
                assert_eq!(output.status.code(), Some(1), "{kind} {key:?}: {said}");
                assert!(
                    said.contains(&format!("line {}: ", index + 1)),
                    "{kind} {key:?}: {said}"
                );
                assert!(said.contains("has no object"), "{kind} {key:?}: {said}");
                assert!(!Path::new(&new).exists(), "something was written");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 24);
    std::fs::write(&file, text).unwrap();
    succeed(&["metadata", "import", &file, "--data", &new]);
}
