//! `roadstead health`, which containers run as their probe, and `roadstead completions`.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{Server, eventually, roadstead, run};

fn health(server: &str, flags: &[&str]) -> Output {
    run(["health", "--listen", server].iter().chain(flags))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_exit_code_says_that_a_server_is_healthy() {
    let server = Server::start(&[]);
    let address = server.address.to_string();
    for (flags, answer) in [(&[][..], "ready\n"), (&["--push"], "ready\n"), (&["--live"], "ok\n")] {
        let asked = health(&address, flags);
        assert_eq!(asked.status.code(), Some(0), "{flags:?}: {asked:?}");
        assert_eq!(text(&asked.stdout), answer, "{flags:?}");
        assert_eq!(text(&asked.stderr), "", "{flags:?}");
    }
    // As in a container, which has the variables of its server.
    let everywhere = format!("0.0.0.0:{}", server.address.port());
    let asked = roadstead().arg("health").env("ROADSTEAD_LISTEN", everywhere).output();
    assert_eq!(asked.unwrap().status.code(), Some(0));
    let asked = health(&address, &["--json"]);
    let answer: Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert_eq!(
        answer,
        serde_json::json!({ "healthy": true, "status": 200, "answer": "ready" })
    );
}

#[test]
fn a_server_that_is_not_ready_and_one_that_is_not_alive_have_different_exit_codes() {
    let server = Server::start(&[]);
    let address = server.address.to_string();
    fs::rename(server.data().join("metadata.db"), server.data().join("moved.db")).unwrap();
    let asked = eventually("the loss is noticed", || {
        let asked = health(&address, &["--json"]);
        (asked.status.code() == Some(1)).then_some(asked)
    });
    let answer: Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert_eq!(
        (&answer["healthy"], &answer["status"]),
        (&false.into(), &503.into()),
        "{answer}"
    );
    assert!(answer["answer"].as_str().unwrap().starts_with("not ready"), "{answer}");
    assert!(text(&asked.stderr).contains("503"), "{asked:?}");
    assert_eq!(health(&address, &["--live"]).status.code(), Some(0));
}

#[test]
fn a_server_that_is_not_there_or_says_nothing_is_not_well() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let silent = health(&address, &["--timeout", "200ms"]);
    assert_eq!(silent.status.code(), Some(1), "{silent:?}");
    assert!(text(&silent.stderr).contains("--timeout"), "{silent:?}");
    drop(listener);
    let absent = health(&address, &[]);
    assert_eq!(absent.status.code(), Some(1), "{absent:?}");
    assert!(text(&absent.stderr).contains("is the server running"), "{absent:?}");
    for wrong in [&["--live", "--push"][..], &["--timeout", "0s"]] {
        assert_eq!(health(&address, wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert_eq!(health("127.0.0.1:0", &[]).status.code(), Some(2));
}

#[test]
fn shells_complete_the_command_line() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run(["completions", shell]);
        assert_eq!(script.status.code(), Some(0), "{shell}: {script:?}");
        let script = text(&script.stdout);
        assert!(
            script.contains("htpasswd") && script.contains("collect-every"),
            "{shell}"
        );
    }
    assert_eq!(run(["completions", "cmd.exe"]).status.code(), Some(2));
    // Of the shell that is everywhere, what it completes.
    let line = "source <(\"$0\" completions bash); COMP_WORDS=(roadstead fs); COMP_CWORD=1; \
                _roadstead roadstead fs roadstead; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let completed = Command::new("bash")
        .args(["-c", line, env!("CARGO_BIN_EXE_roadstead")])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(text(&completed.stdout), "fsck\n", "{completed:?}");
}
