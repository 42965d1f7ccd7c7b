#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;

/// A certificate for localhost that signs itself, and its key, in PEM.
fn make() -> [String; 2] {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    [
        pem("CERTIFICATE", certificate.der()),
        pem("PRIVATE KEY", &key.serialize_der()),
    ]
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

struct Folder {
    folder: TempDir,
    files: TlsFiles,
}

impl Folder {
    fn with(pair: &[String; 2]) -> Self {
        let folder = TempDir::new().unwrap();
        write(folder.path(), pair);
        let files = TlsFiles::open(&folder.path().join("crt"), &folder.path().join("key")).unwrap();
        Self { folder, files }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Looks as if a second had passed; whether what is served has changed.
    async fn changes(&self) -> bool {
        let before = self.files.0.known().served.fingerprint;
        self.files.0.looks.a_second_later();
        self.files.current().await;
        self.files.0.known().served.fingerprint != before
    }

    fn complaint(&self) -> Option<String> {
        self.files.0.known().complaint.text()
    }
}

fn write(folder: &Path, [certificate, key]: &[String; 2]) {
    fs::write(folder.join("crt"), certificate).unwrap();
    fs::write(folder.join("key"), key).unwrap();
}

#[tokio::test]
async fn a_pair_that_changed_just_now_counts_when_it_is_found_again() {
    let folder = Folder::with(&make());
    write(folder.path(), &make());
    assert!(!folder.changes().await);
    assert!(folder.changes().await);
    // Another one after each look: none is whole for sure.
    write(folder.path(), &make());
    assert!(!folder.changes().await);
    write(folder.path(), &make());
    assert!(!folder.changes().await);
    assert!(folder.changes().await);
    // A signal says that it is.
    write(folder.path(), &make());
    let before = folder.files.0.known().served.fingerprint;
    folder.files.reload().await;
    assert_ne!(folder.files.0.known().served.fingerprint, before);
}

#[tokio::test]
async fn what_does_not_belong_together_for_a_moment_is_no_complaint() {
    let folder = Folder::with(&make());
    let next = make();
    fs::write(folder.path().join("key"), &next[1]).unwrap();
    assert!(!folder.changes().await);
    assert_eq!(folder.complaint(), None);
    fs::write(folder.path().join("crt"), &next[0]).unwrap();
    assert!(!folder.changes().await);
    assert!(folder.changes().await);
    assert_eq!(folder.complaint(), None);
}

#[tokio::test]
async fn what_stays_wrong_is_a_complaint_until_it_is_repaired() {
    let pair = make();
    let folder = Folder::with(&pair);
    fs::write(folder.path().join("key"), "nothing").unwrap();
    assert!(!folder.changes().await);
    assert_eq!(folder.complaint(), None);
    assert!(!folder.changes().await);
    let reported = folder.complaint().unwrap();
    assert!(reported.contains("it holds no private key"), "{reported}");
    write(folder.path(), &pair);
    assert!(!folder.changes().await);
    assert_eq!(folder.complaint(), None);
}
