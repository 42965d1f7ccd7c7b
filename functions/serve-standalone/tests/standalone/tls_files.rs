//! The files of the certificate and its key: what is refused at start, how they are renewed, and what happens when they
//! break.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, thread};

use tempfile::TempDir;

use crate::support::tls::{Authority, Pair, pem, replace, shown};
use crate::support::{Server, digest, eventually, roadstead};

const FLAGS: [&str; 4] = ["--tls-cert", "tls.crt", "--tls-key", "tls.key"];

/// A start that has to fail.
fn start(folder: &Path, flags: &[&str]) -> Output {
    let command = ["serve", "--listen", "127.0.0.1:0", "--log", "text"];
    roadstead()
        .args(command)
        .args(flags)
        .current_dir(folder)
        .output()
        .unwrap()
}

/// Whether a new connection is shown the certificate of `pair`.
fn shows(authority: &Authority, server: &Server, pair: &Pair) -> bool {
    let mut client = authority.connect(server.address);
    assert_eq!(client.request("GET", "/v2/", &[], b"").status, 200);
    shown(client.transport()) == pair.certificate
}

#[test]
fn files_that_cannot_be_used_end_the_start_and_it_says_why() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let authority = Authority::new();
    let (pair, other) = (authority.issue(), authority.issue());
    let (certificate, key) = (pair.certificate_pem(), pair.key_pem());
    let encrypted = pem("ENCRYPTED PRIVATE KEY", b"anything");
    for (certificate, key, words) in [
        (
            None,
            Some(&*key),
            "certificate file tls.crt: it cannot be read: No such file",
        ),
        (
            Some(&*certificate),
            None,
            "key file tls.key: it cannot be read: No such file",
        ),
        (
            Some(""),
            Some(&*key),
            "certificate file tls.crt: it holds no certificate",
        ),
        (Some(&*key), Some(&*key), "it holds no certificate"),
        (
            Some(&*certificate),
            Some(&*certificate),
            "key file tls.key: it holds no private key",
        ),
        (Some(&*certificate), Some(&*encrypted), "its key is encrypted"),
        (
            Some(&*certificate),
            Some(&*other.key_pem()),
            "the key in tls.key does not belong to the first certificate",
        ),
        (
            Some(&certificate[..200]),
            Some(&*key),
            "tls.crt: it is incomplete, or not PEM",
        ),
        (
            Some(&*certificate),
            Some(&key[..100]),
            "tls.key: it is incomplete, or not PEM",
        ),
        (
            Some(&*pem("CERTIFICATE", b"anything")),
            Some(&*key),
            "certificate file tls.crt: it is not usable",
        ),
        (
            Some(&*certificate),
            Some(&*pem("PRIVATE KEY", b"anything")),
            "key file tls.key: it is not usable",
        ),
    ] {
        for (name, text) in [("tls.crt", certificate), ("tls.key", key)] {
            let _ = fs::remove_file(folder.join(name));
            if let Some(text) = text {
                replace(&folder.join(name), text);
            }
        }
        let ended = start(folder, &FLAGS);
        let reported = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{words}: {reported}");
        assert!(reported.contains(words), "{words}: {reported}");
        assert!(!reported.contains("BEGIN PRIVATE"), "{reported}");
    }
    for flags in [&FLAGS[..2], &FLAGS[2..]] {
        let ended = start(folder, flags);
        assert_eq!(ended.status.code(), Some(2), "{flags:?}: {ended:?}");
        assert!(
            String::from_utf8_lossy(&ended.stderr).contains("needs --tls-"),
            "{ended:?}"
        );
    }
}

#[test]
fn keys_may_be_sec_1_and_stand_in_the_file_of_the_certificate() {
    let authority = Authority::new();
    let folder = Arc::new(TempDir::new().unwrap());
    let pair = authority.issue();
    replace(
        &folder.path().join("tls.crt"),
        &format!("{}{}", pair.sec1_pem(), pair.certificate_pem()),
    );
    let server = Server::start_in(folder, &["--tls-cert", "tls.crt", "--tls-key", "tls.crt"]);
    assert!(shows(&authority, &server, &pair));
}

#[test]
fn a_key_that_everybody_can_read_is_warned_of() {
    let authority = Authority::new();
    let folder = Arc::new(TempDir::new().unwrap());
    let key = folder.path().join("tls.key");
    authority.issue().write(folder.path());
    let server = Authority::serve_in(folder.clone(), &[]);
    assert!(!server.log().contains("every user of this host"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let server = Authority::serve_in(folder, &[]);
    server.says("every user of this host can read or change the key");
}

/// As certbot does: one file after the other, without a signal to the server.
#[test]
fn a_renewed_pair_is_for_new_connections_and_old_ones_go_on() {
    let authority = Authority::new();
    let server = authority.serve(&[]);
    let mut old = authority.connect(server.address);
    let before = shown(old.transport());
    let upload = old.request("POST", "/v2/app/blobs/uploads/", &[], b"");
    let bytes = vec![5; 100_000];
    let path = format!("{}?digest={}", upload.header("location").unwrap(), digest(&bytes));
    old.send_head("PUT", &path, &[], bytes.len());
    old.send(&bytes[..1000]);
    let renewed = authority.issue();
    let folder = server.folder.path();
    replace(&folder.join("tls.crt"), &renewed.certificate_pem());
    // For a moment, or longer, they do not belong together.
    for _ in 0..5 {
        let mut client = authority.connect(server.address);
        assert!(shown(client.transport()) == before);
        thread::sleep(Duration::from_millis(500));
    }
    server.says("The previous certificate stays in use until this is repaired");
    replace(&folder.join("tls.key"), &renewed.key_pem());
    eventually("the new pair is used", || {
        shows(&authority, &server, &renewed).then_some(())
    });
    server.says("are usable again");
    old.send(&bytes[1000..]);
    assert_eq!(old.response("PUT").status, 201);
    assert_eq!(old.request("GET", "/v2/", &[], b"").status, 200);
}

/// As Kubernetes does: both files are links, by way of one that is replaced.
#[test]
fn a_link_that_is_swapped_renews_the_pair() {
    let authority = Authority::new();
    let folder = Arc::new(TempDir::new().unwrap());
    let path = folder.path();
    let put = |name: &str| {
        let pair = authority.issue();
        fs::create_dir(path.join(name)).unwrap();
        pair.write(&path.join(name));
        symlink(name, path.join("..data_tmp")).unwrap();
        fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
        pair
    };
    let first = put("..1");
    symlink("..data/tls.crt", path.join("tls.crt")).unwrap();
    symlink("..data/tls.key", path.join("tls.key")).unwrap();
    let server = Authority::serve_in(folder.clone(), &[]);
    assert!(shows(&authority, &server, &first));
    let second = put("..2");
    fs::remove_dir_all(path.join("..1")).unwrap();
    eventually("the new pair is used", || {
        shows(&authority, &server, &second).then_some(())
    });
    assert!(!server.log().contains("stays in use until"), "{}", server.log());
}

#[test]
fn a_broken_pair_never_replaces_a_good_one() {
    let authority = Authority::new();
    let folder = Arc::new(TempDir::new().unwrap());
    let pair = authority.issue();
    pair.write(folder.path());
    let server = Authority::serve_in(folder.clone(), &[]);
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    server.hang_up("were read again and are the same");
    replace(&certificate, "nothing");
    server.hang_up("it holds no certificate");
    assert!(shows(&authority, &server, &pair));
    fs::remove_file(&certificate).unwrap();
    server.hang_up("it cannot be read");
    assert!(shows(&authority, &server, &pair));
    let other = authority.issue();
    replace(&certificate, &other.certificate_pem());
    server.hang_up("does not belong to the first certificate");
    assert!(shows(&authority, &server, &pair));
    replace(&key, &other.key_pem());
    server.hang_up("the certificate has changed");
    assert!(shows(&authority, &server, &other));
    assert!(!server.log().contains("PRIVATE KEY"), "{}", server.log());
}

/// Many clients push, pull and ask, on connections that they keep and on new ones, while the pair is renewed as certbot
/// does it and by SIGHUP.
#[test]
fn no_request_fails_while_the_pair_is_renewed_again_and_again() {
    let authority = Authority::new();
    let server = authority.serve(&[]);
    let (stop, requests) = (AtomicBool::new(false), AtomicUsize::new(0));
    let bytes = vec![9; 300_000];
    let renewals = 6;
    thread::scope(|scope| {
        for number in 0..6 {
            let (authority, server, stop, requests, bytes) = (&authority, &server, &stop, &requests, &bytes);
            scope.spawn(move || {
                let mut kept = authority.connect(server.address);
                while !stop.load(Ordering::Relaxed) {
                    let mut own = authority.connect(server.address);
                    let client = if number % 2 == 0 { &mut kept } else { &mut own };
                    let opened = client.request("POST", &format!("/v2/app{number}/blobs/uploads/"), &[], b"");
                    let path = format!("{}?digest={}", opened.header("location").unwrap(), digest(bytes));
                    assert_eq!(client.request("PUT", &path, &[], bytes).status, 201);
                    let path = format!("/v2/app{number}/blobs/{}", digest(bytes));
                    assert!(client.request("GET", &path, &[], b"").body == *bytes);
                    requests.fetch_add(3, Ordering::Relaxed);
                }
            });
        }
        let folder = server.folder.path();
        for renewal in 0..renewals {
            let renewed = authority.issue();
            replace(&folder.join("tls.key"), &renewed.key_pem());
            thread::sleep(Duration::from_millis(300));
            replace(&folder.join("tls.crt"), &renewed.certificate_pem());
            if renewal % 2 == 0 {
                server.hang_up("the certificate has changed");
                assert!(shows(&authority, &server, &renewed));
            } else {
                eventually("the new pair is used", || {
                    shows(&authority, &server, &renewed).then_some(())
                });
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(requests.load(Ordering::Relaxed) > 100, "{requests:?}");
    assert!(server.log().matches("the certificate has changed").count() >= renewals);
}
