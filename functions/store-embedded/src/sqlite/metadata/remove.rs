//! What makes things go: tags, manifests, links. What something refers to stays.

use oci::{Digest, RepositoryName};
use registry::store::Context;
use registry::store::metadata::Removal;
use rusqlite::params;

use super::super::rows::{Failure, Rows};
use super::super::values::Columns;
use super::next_version;
use super::publish::record;

/// Deletes a tag. `false`: there was none.
pub(super) fn tag(
    rows: &Rows<'_>,
    cx: Context,
    repository: &RepositoryName,
    tag: &str,
    who: &str,
) -> Result<bool, Failure> {
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
        next_version(Some(version), cx.now),
        Some(&digest),
        None,
        who,
    )?;
    Ok(true)
}

/// Deletes a manifest with its tags and all that it refers with.
pub(super) fn manifest(
    rows: &Rows<'_>,
    cx: Context,
    repository: &RepositoryName,
    digest: &str,
    who: &str,
) -> Result<Removal, Failure> {
    let key = params![repository.as_str(), digest];
    let present = rows.one(
        "SELECT incarnation, subject FROM manifest WHERE repository = ?1 AND digest = ?2",
        key,
        |row| Ok((row.value::<i64>(0)?, row.value::<Option<String>>(1)?)),
    )?;
    let Some((incarnation, subject)) = present else {
        return Ok(Removal::Absent);
    };
    if let Some(parent) = parent(rows, repository, digest)? {
        return Ok(Removal::Referenced(parent));
    }
    let tags: Vec<String> = rows.all(
        "SELECT tag FROM tag WHERE repository = ?1 AND digest = ?2",
        key,
        |row| row.value(0),
    )?;
    for name in tags {
        tag(rows, cx, repository, &name, who)?;
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
        params![digest, repository.as_str(), incarnation],
    )?;
    rows.change("DELETE FROM manifest WHERE repository = ?1 AND digest = ?2", key)?;
    Ok(Removal::Removed)
}

/// Removes a repository's link to a blob.
pub(in super::super) fn link(rows: &Rows<'_>, repository: &RepositoryName, digest: &str) -> Result<Removal, Failure> {
    let key = params![repository.as_str(), digest];
    let incarnation: Option<i64> = rows.one(
        "SELECT incarnation FROM link WHERE repository = ?1 AND digest = ?2",
        key,
        |row| row.value(0),
    )?;
    let Some(incarnation) = incarnation else {
        return Ok(Removal::Absent);
    };
    if let Some(parent) = parent(rows, repository, digest)? {
        return Ok(Removal::Referenced(parent));
    }
    rows.change("DELETE FROM link WHERE repository = ?1 AND digest = ?2", key)?;
    rows.change(
        "DELETE FROM backlink WHERE digest = ?1 AND repository = ?2 AND incarnation = ?3 AND kind = 'blob'",
        params![digest, repository.as_str(), incarnation],
    )?;
    Ok(Removal::Removed)
}

/// A manifest of the repository that refers to a digest as more than its subject.
fn parent(rows: &Rows<'_>, repository: &RepositoryName, target: &str) -> Result<Option<Digest>, Failure> {
    rows.one(
        "SELECT parent FROM edge WHERE repository = ?1 AND target = ?2 LIMIT 1",
        params![repository.as_str(), target],
        |row| row.parsed(0),
    )
}
