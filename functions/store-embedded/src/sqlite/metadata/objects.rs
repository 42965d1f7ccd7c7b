//! The location of a digest's bytes, and their defect.
//!
//! The column `condemned` keeps its old name. In `blob` it stores the defect of an object, and in `manifest` that the
//! bytes in the row itself are damaged. In `link` it stores the mark of a collection pass. Rows of `blob` are never
//! marked in this store, because collection removes an unreferenced row within one transaction.
//!
//! Links and manifests are read together with the row in `blob`. A program that does not know defects clears the column
//! when the blob is committed again, and otherwise ignores it.

use oci::{Digest, RepositoryName};
use registry::store::metadata::Defect;
use registry::store::{Context, Location};
use rusqlite::{Row, params};

use super::super::deletion_queue;
use super::super::rows::{OperationFailure, Rows};
use super::super::values::{Columns, integer, timestamp};

/// Reads the defect from the column `condemned` of `blob` or `manifest`. A value that this version does not write is
/// not a defect.
pub(in super::super) fn defect(row: &Row<'_>, column: usize) -> Result<Option<Defect>, OperationFailure> {
    let mark: Option<String> = row.value(column)?;
    Ok(mark.as_deref().and_then(Defect::parse))
}

/// The recorded location of a digest's bytes, and their defect.
pub(super) fn find(rows: &Rows<'_>, digest: &str) -> Result<Option<(Location, Option<Defect>)>, OperationFailure> {
    rows.one(
        "SELECT store, key, condemned FROM blob WHERE digest = ?1",
        [digest],
        |row| Ok((row.location(0, 1)?, defect(row, 2)?)),
    )
}

/// Changes the location of a digest's bytes to `new`, if it is `old`.
pub(super) fn replace(
    rows: &Rows<'_>,
    cx: Context,
    digest: &str,
    old: &Location,
    new: &Location,
    size: u64,
) -> Result<Option<Location>, OperationFailure> {
    match find(rows, digest)? {
        None => return Ok(None),
        Some((now, _)) if now != *old => return Ok(Some(now)),
        Some(_) => {}
    }
    deletion_queue::schedule_deletion(rows, cx.now, old, Some(digest), false)?;
    rows.change(
        "UPDATE blob SET store = ?2, key = ?3, size = ?4, condemned = NULL WHERE digest = ?1",
        params![digest, new.store, new.key, integer(size)],
    )?;
    update_locations(rows, digest, None)?;
    Ok(Some(new.clone()))
}

/// The answer of [`record_defect`] if it has nothing to write. So a request for a missing object needs no writing
/// transaction.
pub(super) fn is_recorded(
    rows: &Rows<'_>,
    repository: Option<&RepositoryName>,
    digest: &str,
    location: &Location,
    defect: Defect,
) -> Result<DefectRecord, OperationFailure> {
    let found = find(rows, digest)?;
    let as_found = match &found {
        Some((now, recorded)) => now != location || *recorded >= Some(defect),
        None => repository.is_none(),
    };
    if !as_found || !locations_agree(rows, digest, repository)? {
        return Ok(DefectRecord::NotYet);
    }
    Ok(DefectRecord::Already(other_location(found, location)))
}

/// Whether a defect must be written, and otherwise the answer.
pub(super) enum DefectRecord {
    NotYet,
    Already(Option<Location>),
}

/// The location of the undamaged bytes, if it differs from the location where the caller found the defect.
fn other_location(found: Option<(Location, Option<Defect>)>, location: &Location) -> Option<Location> {
    let found = found.filter(|(now, defect)| now != location && defect.is_none());
    found.map(|(now, _)| now)
}

/// Records a defect if `location` is the location of the bytes. Returns their location if it is another one.
pub(super) fn record_defect(
    rows: &Rows<'_>,
    cx: Context,
    repository: Option<&RepositoryName>,
    digest: &str,
    location: &Location,
    defect: Defect,
) -> Result<Option<Location>, OperationFailure> {
    match (find(rows, digest)?, repository) {
        (Some((now, recorded)), _) if now == *location => {
            if recorded < Some(defect) {
                rows.change(
                    "UPDATE blob SET condemned = ?2 WHERE digest = ?1",
                    params![digest, defect.as_str()],
                )?;
            }
        }
        // Another fault has removed the `blob` row of a link or a manifest.
        (None, Some(repository)) => {
            rows.change(
                "INSERT INTO blob (digest, store, key, size, at, condemned) \
                 SELECT digest, store, key, size, ?5, ?6 FROM \
                 (SELECT digest, store, key, size FROM link WHERE repository = ?1 AND digest = ?2 UNION ALL \
                 SELECT digest, store, key, size FROM manifest WHERE repository = ?1 AND digest = ?2) \
                 WHERE store = ?3 AND key = ?4 LIMIT 1",
                params![
                    repository.as_str(),
                    digest,
                    location.store,
                    location.key,
                    timestamp(cx.now),
                    defect.as_str()
                ],
            )?;
        }
        (Some(_), _) | (None, None) => {}
    }
    update_locations(rows, digest, repository)?;
    Ok(other_location(find(rows, digest)?, location))
}

/// Clears the defect of an object that was missing at `location` and exists again.
pub(super) fn clear_missing(rows: &Rows<'_>, digest: &str, location: &Location) -> Result<(), OperationFailure> {
    rows.change(
        "UPDATE blob SET condemned = NULL WHERE digest = ?1 AND store = ?2 AND key = ?3 AND condemned = ?4",
        params![digest, location.store, location.key, Defect::Missing.as_str()],
    )?;
    Ok(())
}

/// Marks a manifest as damaged if the bytes in its row do not match its digest.
pub(super) fn record_damaged_manifest(
    rows: &Rows<'_>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<(), OperationFailure> {
    let text = digest.to_string();
    let content: Option<Option<Vec<u8>>> = rows.one(
        "SELECT content FROM manifest WHERE repository = ?1 AND digest = ?2",
        params![repository.as_str(), text],
        |row| row.value(0),
    )?;
    if let Some(Some(bytes)) = content
        && Digest::of(digest.algorithm(), &bytes) != *digest
    {
        rows.change(
            "UPDATE manifest SET condemned = ?3 WHERE repository = ?1 AND digest = ?2",
            params![repository.as_str(), text, Defect::Damaged.as_str()],
        )?;
    }
    Ok(())
}

/// A condition on the links and large manifests of a digest, in one repository or in all: their location differs from
/// the location in `blob`. A small manifest has no location.
macro_rules! has_other_location {
    ($table:literal) => {
        concat!(
            "blob.digest = ?1 AND ",
            $table,
            ".digest = ?1 AND (",
            $table,
            ".store, ",
            $table,
            ".key) <> (blob.store, blob.key) AND ",
            $table,
            ".repository IN (SELECT repository FROM backlink WHERE digest = ?1) AND (?2 IS NULL OR ",
            $table,
            ".repository = ?2)"
        )
    };
}

/// Whether all links and large manifests have the location in `blob`.
fn locations_agree(rows: &Rows<'_>, digest: &str, only: Option<&RepositoryName>) -> Result<bool, OperationFailure> {
    for query in [
        concat!("SELECT 1 FROM blob, link WHERE ", has_other_location!("link")),
        concat!("SELECT 1 FROM blob, manifest WHERE ", has_other_location!("manifest")),
    ] {
        if rows.exists(query, params![digest, only.map(RepositoryName::as_str)])? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Changes their locations to the location in `blob`.
fn update_locations(rows: &Rows<'_>, digest: &str, only: Option<&RepositoryName>) -> Result<(), OperationFailure> {
    for change in [
        concat!(
            "UPDATE link SET store = blob.store, key = blob.key FROM blob WHERE ",
            has_other_location!("link")
        ),
        concat!(
            "UPDATE manifest SET store = blob.store, key = blob.key FROM blob WHERE ",
            has_other_location!("manifest")
        ),
    ] {
        rows.change(change, params![digest, only.map(RepositoryName::as_str)])?;
    }
    Ok(())
}
