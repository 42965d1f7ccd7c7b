//! Operations that remove content: tags, manifests, links. Content that a manifest refers to is not removed.

use std::time::{Duration, Instant};

use oci::{Digest, RepositoryName};
use registry::store::metadata::{Removal, TagRecord};
use registry::store::{Context, StoreError};
use rusqlite::params;

use super::super::SqliteStore;
use super::super::rows::{OperationFailure, Rows};
use super::super::values::{Columns, one_more};
use super::publish::record;

/// Deletes a tag. `false`: the tag does not exist.
pub(super) fn tag(
    rows: &Rows<'_>,
    cx: Context,
    repository: &RepositoryName,
    tag: &str,
    principal: &str,
) -> Result<bool, OperationFailure> {
    let repository = repository.as_str();
    let present = rows.one(
        "SELECT digest, version FROM tag WHERE repository = ?1 AND tag = ?2",
        params![repository, tag],
        |row| Ok((row.value::<String>(0)?, row.unsigned(1)?)),
    )?;
    let Some((digest, version)) = present else {
        return Ok(false);
    };
    rows.change(
        "DELETE FROM tag WHERE repository = ?1 AND tag = ?2",
        params![repository, tag],
    )?;
    record(
        rows,
        cx,
        repository,
        tag,
        TagRecord::next_version(Some(version), cx.now),
        Some(&digest),
        None,
        principal,
    )?;
    Ok(true)
}

const TAGS: &str = "SELECT tag FROM tag WHERE repository = ?1 AND digest = ?2 LIMIT ?3";

/// The maximum number of tags of a manifest that one transaction deletes. Other writes wait some milliseconds for it.
pub(in super::super) const TAGS_AT_ONCE: usize = 250;

/// Deletes a manifest with its tags and its references. The last [`TAGS_AT_ONCE`] tags are deleted in the manifest's
/// own transaction. Further tags are deleted before, in transactions between which other operations write.
///
/// If a deletion is interrupted, the manifest has fewer tags, and the next deletion continues.
pub(super) async fn in_batches(
    store: &SqliteStore,
    cx: Context,
    repository: &RepositoryName,
    digest: &str,
    principal: &str,
) -> Result<Removal, StoreError> {
    let until = Instant::now() + Duration::from_millis(cx.deadline.millis_since(cx.now));
    let of = || (repository.clone(), digest.to_owned(), principal.to_owned());
    loop {
        // Most manifests have few tags: one transaction, which is synced before the answer.
        let (name, text, by) = of();
        let whole = store.write(cx, move |rows| manifest(rows, cx, &name, &text, &by));
        if let Some(removal) = whole.await? {
            return Ok(removal);
        }
        loop {
            if Instant::now() >= until {
                return Err(StoreError::unavailable(
                    "the manifest has more tags than one request can delete in time; the next request continues",
                ));
            }
            // Not synced: after a power failure, a restored tag is simply not deleted yet.
            let (name, text, by) = of();
            let some = store.write_ordered(cx, move |rows| surplus_tags(rows, cx, &name, &text, &by));
            if !some.await? {
                break;
            }
        }
    }
}

/// Deletes some tags of a manifest that can be deleted and has too many tags for one transaction. `false`: the manifest
/// is not of this kind.
fn surplus_tags(
    rows: &Rows<'_>,
    cx: Context,
    repository: &RepositoryName,
    digest: &str,
    principal: &str,
) -> Result<bool, OperationFailure> {
    if parent(rows, repository, digest)?.is_some() {
        return Ok(false);
    }
    let Err(some) = tags(rows, repository, digest)? else {
        return Ok(false);
    };
    for name in some {
        tag(rows, cx, repository, &name, principal)?;
    }
    Ok(true)
}

/// The tags of a manifest. If there are too many for one transaction, the first of them as an error.
fn tags(
    rows: &Rows<'_>,
    repository: &RepositoryName,
    digest: &str,
) -> Result<Result<Vec<String>, Vec<String>>, OperationFailure> {
    let mut some: Vec<String> = rows.all(
        TAGS,
        params![repository.as_str(), digest, one_more(TAGS_AT_ONCE)],
        |row| row.value(0),
    )?;
    if some.len() <= TAGS_AT_ONCE {
        return Ok(Ok(some));
    }
    some.truncate(TAGS_AT_ONCE);
    Ok(Err(some))
}

/// Deletes a manifest with its tags and its references. `None`: it has too many tags for one transaction, and nothing
/// was changed.
fn manifest(
    rows: &Rows<'_>,
    cx: Context,
    repository: &RepositoryName,
    digest: &str,
    principal: &str,
) -> Result<Option<Removal>, OperationFailure> {
    let key = params![repository.as_str(), digest];
    let present = rows.one(
        "SELECT incarnation, subject FROM manifest WHERE repository = ?1 AND digest = ?2",
        key,
        |row| Ok((row.value::<i64>(0)?, row.value::<Option<String>>(1)?)),
    )?;
    let Some((uid, subject)) = present else {
        return Ok(Some(Removal::Absent));
    };
    if let Some(parent) = parent(rows, repository, digest)? {
        return Ok(Some(Removal::Referenced(parent)));
    }
    let Ok(tags) = tags(rows, repository, digest)? else {
        return Ok(None);
    };
    for name in tags {
        tag(rows, cx, repository, &name, principal)?;
    }
    rows.change("DELETE FROM edge WHERE repository = ?1 AND parent = ?2", key)?;
    if let Some(subject) = subject {
        rows.change(
            "DELETE FROM referrer WHERE repository = ?1 AND subject = ?2 AND digest = ?3",
            params![repository.as_str(), subject, digest],
        )?;
    }
    rows.change(
        "DELETE FROM backlink WHERE digest = ?1 AND repository = ?2 AND incarnation = ?3 AND kind = 'manifest'",
        params![digest, repository.as_str(), uid],
    )?;
    rows.change("DELETE FROM manifest WHERE repository = ?1 AND digest = ?2", key)?;
    Ok(Some(Removal::Removed))
}

/// Removes the link of a repository to a blob.
pub(in super::super) fn link(
    rows: &Rows<'_>,
    repository: &RepositoryName,
    digest: &str,
) -> Result<Removal, OperationFailure> {
    let key = params![repository.as_str(), digest];
    let uid: Option<i64> = rows.one(
        "SELECT incarnation FROM link WHERE repository = ?1 AND digest = ?2",
        key,
        |row| row.value(0),
    )?;
    let Some(uid) = uid else {
        return Ok(Removal::Absent);
    };
    if let Some(parent) = parent(rows, repository, digest)? {
        return Ok(Removal::Referenced(parent));
    }
    rows.change("DELETE FROM link WHERE repository = ?1 AND digest = ?2", key)?;
    rows.change(
        "DELETE FROM backlink WHERE digest = ?1 AND repository = ?2 AND incarnation = ?3 AND kind = 'blob'",
        params![digest, repository.as_str(), uid],
    )?;
    Ok(Removal::Removed)
}

/// A manifest of the repository that refers to a digest, other than as its subject.
fn parent(rows: &Rows<'_>, repository: &RepositoryName, target: &str) -> Result<Option<Digest>, OperationFailure> {
    rows.one(
        "SELECT parent FROM edge WHERE repository = ?1 AND target = ?2 LIMIT 1",
        params![repository.as_str(), target],
        |row| row.parsed(0),
    )
}
