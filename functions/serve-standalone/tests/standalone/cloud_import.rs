//! An import into a table that is killed in the middle, again and again.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cloud::{Cloud, Row, key};
use crate::support::content::push_everything;
use crate::support::{Server, eventually};

/// How often the records of a small registry are repeated, under other names of repositories: so that an import takes
/// some seconds, on a fast service too.
const COPIES: usize = 700;

/// An export of a registry of many repositories that are like one that was pushed to.
fn large_export(folder: &Path) -> String {
    let mut server = Server::start(&[]);
    push_everything(&server);
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let here = [String::from("--data"), server.data().to_str().unwrap().to_owned()];
    let small = Cloud::succeed(&here, &["metadata", "export"]);
    let (mut large, mut count) = (String::new(), 0);
    for line in small.lines() {
        let parsed: Value = serde_json::from_str(line).unwrap();
        let names = ["\"team/app\"", "\"other\""];
        if parsed["export"] == "begin" {
            writeln!(large, "{line}").unwrap();
        } else if parsed["record"].is_string() {
            let of_repository = names.iter().any(|name| line.contains(name));
            for copy in 0..if of_repository { COPIES } else { 1 } {
                let renamed = line
                    .replace(names[0], &format!("\"team/app{copy}\""))
                    .replace(names[1], &format!("\"other{copy}\""));
                writeln!(large, "{renamed}").unwrap();
                count += 1;
            }
        }
    }
    assert!(count > 10 * COPIES, "{count} records");
    writeln!(large, "{}", json!({ "export": "end", "records": count })).unwrap();
    let file = folder.join("export");
    fs::write(&file, large).unwrap();
    file.to_str().unwrap().to_owned()
}

/// What a table holds but for the version of its layout, in an order of its own.
fn rows(cloud: &Cloud) -> Vec<String> {
    let text = |row: &Row| {
        let mut attributes: Vec<_> = row.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        attributes.sort();
        attributes.join(", ")
    };
    let rows = cloud.rows();
    let mut rows: Vec<_> = rows.iter().filter(|row| key(row).0 != "K").map(text).collect();
    rows.sort();
    rows
}

/// The records of an export in an order of their own.
fn records(export: &str) -> Vec<&str> {
    let mut records: Vec<_> = export.lines().filter(|line| !line.starts_with("{\"export\"")).collect();
    records.sort_unstable();
    records
}

fn begin(stores: &[String], file: &str) -> Child {
    Cloud::command(stores, &["metadata", "import", file])
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills it, which must not have come to its end.
fn kill(mut import: Child) {
    assert!(import.try_wait().unwrap().is_none(), "it was not killed in the middle");
    import.kill().unwrap();
    import.wait().unwrap();
}

#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn an_import_that_was_killed_goes_on_and_ends_with_the_same() {
    let folder = TempDir::new().unwrap();
    let file = large_export(folder.path());
    let progress = format!("{file}.progress");
    let (whole, killed) = (Cloud::new(), Cloud::new());
    for cloud in [&whole, &killed] {
        Cloud::succeed(&cloud.dynamodb(), &["metadata", "init"]);
    }
    let stores = killed.dynamodb();

    // Before it has noted how far it has come: as soon as there is anything.
    let import = begin(&stores, &file);
    eventually("the first rows", || killed.has_rows().then_some(()));
    kill(import);
    // After it has; the rest must still be long for a machine that is slow to notice.
    let import = begin(&stores, &file);
    eventually("it notes how far it has come", || fs::read(&progress).ok());
    kill(import);
    let noted: Value = serde_json::from_slice(&fs::read(&progress).unwrap()).unwrap();
    let all = fs::read_to_string(&file).unwrap();
    let all = records(&all);
    let reached = noted["records"].as_u64().unwrap();
    assert!(reached > 0 && reached < all.len() as u64, "{noted}");

    let last = Cloud::run(&stores, &["metadata", "import", &file]);
    let told = String::from_utf8_lossy(&last.stderr);
    assert_eq!(last.status.code(), Some(0), "{told}");
    assert!(told.contains(&format!("going on after {reached} records")), "{told}");
    assert!(!Path::new(&progress).exists(), "nothing is left beside the file");

    Cloud::succeed(&whole.dynamodb(), &["metadata", "import", &file]);
    assert!(rows(&killed) == rows(&whole), "every row is as without an interruption");
    for cloud in [&killed, &whole] {
        let export = Cloud::succeed(&cloud.dynamodb(), &["metadata", "export"]);
        assert!(records(&export) == all, "every record is as in the file");
    }
}
