//! Checks of a metadata file with missing or wrong rows. SQL statements change the rows without the program.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::Guard;
use contract::checks::{CorruptibleStores, Corruption};
use oci::{Digest, RepositoryName};
use registry::store::records::{BackReference, LinkKind};
use registry::{Stores, store};
use rusqlite::{Connection, Params, params};
use store_embedded::{Embedded, EmbeddedOptions, Sync};

/// Another connection that changes the same file.
struct SqlCorruption(PathBuf);

impl SqlCorruption {
    fn change(&self, statement: &str, parameters: impl Params) {
        let connection = Connection::open(&self.0).unwrap();
        connection.busy_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(connection.execute(statement, parameters).unwrap(), 1, "{statement}");
    }
}

fn bits(uid: store::Uid) -> i64 {
    uid.0.cast_signed()
}

#[async_trait]
impl Corruption for SqlCorruption {
    async fn set_back_reference(&self, back_reference: &BackReference, present: bool) {
        match back_reference {
            BackReference::Edge {
                repository,
                target,
                parent,
                uid,
            } => self.change(
                if present {
                    "INSERT INTO edge (repository, target, parent, incarnation, at) VALUES (?1, ?2, ?3, ?4, 0)"
                } else {
                    "DELETE FROM edge WHERE repository = ?1 AND target = ?2 AND parent = ?3 AND incarnation = ?4"
                },
                params![repository.as_str(), target.to_string(), parent.to_string(), bits(*uid)],
            ),
            BackReference::BackLink {
                digest,
                repository,
                link_kind,
                uid,
            } => self.change(
                if present {
                    "INSERT INTO backlink (digest, repository, incarnation, kind, at) VALUES (?1, ?2, ?3, ?4, 0)"
                } else {
                    "DELETE FROM backlink WHERE digest = ?1 AND repository = ?2 AND incarnation = ?3 AND kind = ?4"
                },
                params![
                    digest.to_string(),
                    repository.as_str(),
                    bits(*uid),
                    match link_kind {
                        LinkKind::Blob => "blob",
                        LinkKind::Manifest => "manifest",
                    }
                ],
            ),
        }
    }

    async fn lose_referrer(&self, repository: &RepositoryName, subject: &Digest, referrer: &Digest) {
        self.change(
            "DELETE FROM referrer WHERE repository = ?1 AND subject = ?2 AND digest = ?3",
            params![repository.as_str(), subject.to_string(), referrer.to_string()],
        );
    }

    async fn corrupt_media_type(&self, repository: &RepositoryName, digest: &Digest) {
        self.change(
            "UPDATE manifest SET media_type = 'no type' WHERE repository = ?1 AND digest = ?2",
            params![repository.as_str(), digest.to_string()],
        );
    }
}

fn corruptible() -> (CorruptibleStores, Guard) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let Embedded {
        blobs,
        metadata,
        sessions,
    } = Embedded::open(&EmbeddedOptions {
        data: data.clone(),
        sync: Sync::Off,
        upload_memory: 8 << 20,
        memory_timeout: EmbeddedOptions::MEMORY_TIMEOUT,
    })
    .unwrap();
    let corruptible = CorruptibleStores {
        stores: Stores {
            blobs,
            sessions,
            collection: metadata.clone(),
            records: metadata.clone(),
            access: metadata.clone(),
            metadata,
        },
        corruption: Arc::new(SqlCorruption(data.join("metadata.db"))),
    };
    (corruptible, Box::new(directory))
}

contract::check_contract_tests!(async { corruptible() });
