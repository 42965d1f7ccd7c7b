//! New keys that cannot be printed.

use std::fs::OpenOptions;
use std::process::Stdio;

use super::administration::Registry;
use crate::support::roadstead;

/// Standard output that takes nothing, as on a full disk.
fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

/// Standard output that nobody reads.
fn closed() -> Stdio {
    let (_, writer) = std::io::pipe().unwrap();
    writer.into()
}

/// The key exists then, and nobody has it: that is no success, and the operator is told which key it is.
#[test]
fn s18_a_key_that_cannot_be_printed_is_named() {
    let registry = Registry::with_admin();
    registry.run(&["robot", "add", "old", "--expires", "never"]);
    for (number, (output, form)) in [
        (full as fn() -> Stdio, &["--json"][..]),
        (full, &[]),
        (closed, &["--json"]),
        (closed, &[]),
    ]
    .into_iter()
    .enumerate()
    {
        let new = format!("new{number}");
        for (words, account) in [
            (["robot", "add"], new.as_str()),
            (["key", "add"], "old"),
            (["key", "rotate"], new.as_str()),
        ] {
            let done = roadstead()
                .args(words)
                .args([account, "--expires", "never", "--data", &registry.path("data")])
                .args(form)
                .stdout(output())
                .output()
                .unwrap();
            let stderr = String::from_utf8(done.stderr).unwrap();
            assert_eq!(done.status.code(), Some(1), "{words:?} {form:?}: {stderr}");
            let (_, rest) = stderr
                .split_once(&format!("roadstead key remove {account} "))
                .expect("a next step");
            let id = &rest[..8];
            assert!(
                stderr.contains(&format!("the key {id} of {account} never ends")),
                "{stderr}"
            );
            let keys = registry.json(&["key", "list", account]);
            assert!(keys.iter().any(|key| key["id"] == id), "{id} is not in {keys:?}");
        }
    }
}
