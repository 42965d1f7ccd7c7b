//! An import into a table that is killed in the middle, again and again.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cloud::{Cloud, TableItem, key};
use crate::support::content::push_everything;
use crate::support::{Server, eventually};

/// How often the records of a small registry are repeated, under other names of repositories: so that an import takes
/// some seconds. Where it comes to its end before it is killed, the next number is tried.
const COPIES: [usize; 4] = [700, 1_400, 2_800, 5_600];

/// An export of a registry that was pushed to.
fn small_export() -> String {
    let mut server = Server::start(&[]);
    push_everything(&server);
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    let here = [String::from("--data"), server.data().to_str().unwrap().to_owned()];
    Cloud::succeed(&here, &["metadata", "export"])
}

/// The same of many repositories that are like its own, in a file.
fn repeated(small: &str, copies: usize, folder: &Path) -> String {
    let (mut large, mut count) = (String::new(), 0);
    for line in small.lines() {
        let parsed: Value = serde_json::from_str(line).unwrap();
        let names = ["\"team/app\"", "\"other\""];
        if parsed["export"] == "begin" {
            writeln!(large, "{line}").unwrap();
        } else if parsed["record"].is_string() {
            let of_repository = names.iter().any(|name| line.contains(name));
            for copy in 0..if of_repository { copies } else { 1 } {
                let renamed = line
                    .replace(names[0], &format!("\"team/app{copy}\""))
                    .replace(names[1], &format!("\"other{copy}\""));
                writeln!(large, "{renamed}").unwrap();
                count += 1;
            }
        }
    }
    assert!(count > 10 * copies, "{count} records");
    writeln!(large, "{}", json!({ "export": "end", "records": count })).unwrap();
    let file = folder.join(format!("export-{copies}"));
    fs::write(&file, large).unwrap();
    file.to_str().unwrap().to_owned()
}

/// What a table holds but for the version of its layout, in an order of its own.
fn rows(cloud: &Cloud) -> Vec<String> {
    let text = |row: &TableItem| {
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

/// A new table, and flags that name it; what lies on disk lies in the folder.
fn table(folder: &Path) -> (Cloud, Vec<String>) {
    let cloud = Cloud::new();
    let data = ["--data".to_owned(), folder.join("data").to_str().unwrap().to_owned()];
    let stores = [cloud.dynamodb(), data.into()].concat();
    Cloud::succeed(&stores, &["metadata", "init"]);
    (cloud, stores)
}

/// Begins an import and kills it as soon as it is ready; whether that was before its end.
fn kill_when(stores: &[String], file: &str, what: &str, ready: impl Fn() -> bool) -> bool {
    let mut import = Cloud::command(stores, &["metadata", "import", file])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually(what, || (ready() || import.try_wait().unwrap().is_some()).then_some(()));
    import.kill().unwrap();
    let status = import.wait().unwrap();
    assert!(
        status.success() || status.signal() == Some(Signal::KILL.as_raw()),
        "{status}"
    );
    !status.success()
}

/// Kills two imports of the file into one table, before they come to their end: then the number of records that the
/// second has noted as done.
fn interrupted(cloud: &Cloud, stores: &[String], file: &str) -> Option<u64> {
    // Before it has noted how far it has come: as soon as there is anything.
    if !kill_when(stores, file, "the first rows", || cloud.has_rows()) {
        return None;
    }
    // After it has.
    let progress = format!("{file}.progress");
    if !kill_when(stores, file, "it notes how far it has come", || {
        Path::new(&progress).exists()
    }) {
        return None;
    }
    // Its end was near if the note is gone.
    let noted: Value = serde_json::from_slice(&fs::read(&progress).ok()?).unwrap();
    noted["records"].as_u64()
}

#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn an_import_that_was_killed_goes_on_and_ends_with_the_same() {
    let folder = TempDir::new().unwrap();
    let small = small_export();
    let (killed, stores, file, reached) = COPIES
        .into_iter()
        .find_map(|copies| {
            let file = repeated(&small, copies, folder.path());
            let (cloud, stores) = table(folder.path());
            let reached = interrupted(&cloud, &stores, &file)?;
            Some((cloud, stores, file, reached))
        })
        .expect("an import that is killed in the middle");
    let progress = format!("{file}.progress");
    let all = fs::read_to_string(&file).unwrap();
    let all = records(&all);
    assert!(reached > 0 && reached < all.len() as u64, "{reached} of {}", all.len());

    let last = Cloud::run(&stores, &["metadata", "import", &file]);
    let reported = String::from_utf8_lossy(&last.stderr);
    assert_eq!(last.status.code(), Some(0), "{reported}");
    assert!(
        reported.contains(&format!("continuing after {reached} records")),
        "{reported}"
    );
    assert!(!Path::new(&progress).exists(), "nothing is left beside the file");

    let (whole, whole_stores) = table(folder.path());
    Cloud::succeed(&whole_stores, &["metadata", "import", &file]);
    assert!(rows(&killed) == rows(&whole), "every row is as without an interruption");
    for stores in [&stores, &whole_stores] {
        let export = Cloud::succeed(stores, &["metadata", "export"]);
        assert!(records(&export) == all, "every record is as in the file");
    }
}
