//! Credentials that come from a program that hangs: what waits for them is answered, and the program is ended.

use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::readiness::ready;
use crate::support::objects::Objects;
use crate::support::{Server, eventually};

#[test]
fn a_credential_process_that_hangs_is_ended() {
    hangs_and_is_ended("");
}

/// The same behind a role.
#[test]
fn a_credential_process_behind_a_role_that_hangs_is_ended() {
    hangs_and_is_ended("role_arn = arn:aws:iam::1:role/a\nsource_profile = base\n[profile base]\n");
}

/// `before` comes before the program in the file of profiles.
fn hangs_and_is_ended(before: &str) {
    let objects = Objects::start();
    let folder = Arc::new(TempDir::new().unwrap());
    let running = folder.path().join("running");
    let config = folder.path().join("config");
    let text = format!(
        "[default]\n{before}credential_process = sleep 1000 & echo $$ $! >> {}; wait\n",
        running.display()
    );
    std::fs::write(&config, text).unwrap();
    let variables = [("AWS_CONFIG_FILE".to_owned(), config.to_str().unwrap().to_owned())];
    let flags = objects.flags();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let server = Server::start_on(folder.clone(), &flags, &variables);
    let (status, reported) = ready(&server, "");
    assert!(
        status == 503 && reported.contains("object store cannot be reached"),
        "{reported}"
    );
    drop(server);
    let numbers = std::fs::read_to_string(&running).unwrap();
    let numbers: Vec<_> = numbers.split_whitespace().collect();
    assert!(numbers.len() >= 4, "it was run again: {numbers:?}");
    // All but what was begun last, when the server itself was killed.
    for number in &numbers[..numbers.len() - 2] {
        eventually("it is ended", || {
            let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        });
    }
    for number in &numbers[numbers.len() - 2..] {
        let pid = Pid::from_raw(number.parse().unwrap()).unwrap();
        let _ = kill_process(pid, Signal::KILL);
    }
}
