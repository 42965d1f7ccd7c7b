//! Where the bytes of a digest lie, and what is wrong with them.
//!
//! Only the row of the bytes says what is wrong with an object, in the column `marked_for_deletion`: no collection marks these
//! rows here, since each removes what nothing holds within one transaction. Links and manifests are read together with
//! it. Programs that do not know of defects take the mark off when the blob is committed again, and go on as they did.
//! The same column of a manifest says that the bytes in its own row are damaged.

use oci::{Digest, RepositoryName};
use registry::store::metadata::Defect;
use registry::store::{Context, Location};
use rusqlite::{Row, params};

use super::super::collection::deletion_queue;
use super::super::rows::{Failure, Rows};
use super::super::values::{Columns, integer, timestamp};

/// What is wrong with the bytes of a digest, out of a column `marked_for_deletion` of `blob` or `manifest`. A mark that this
/// version would not have written says nothing.
pub(in super::super) fn defect(row: &Row<'_>, column: usize) -> Result<Option<Defect>, Failure> {
    let mark: Option<String> = row.value(column)?;
    Ok(mark.as_deref().and_then(Defect::parse))
}

/// Where the bytes of a digest lie, and what is wrong with them there.
pub(super) fn find(rows: &Rows<'_>, digest: &str) -> Result<Option<(Location, Option<Defect>)>, Failure> {
    rows.one(
        "SELECT store, key, condemned FROM blob WHERE digest = ?1",
        [digest],
        |row| Ok((row.location(0, 1)?, defect(row, 2)?)),
    )
}

/// Lets the bytes lie at `new`, if they lie at `old`.
pub(super) fn replace(
    rows: &Rows<'_>,
    cx: Context,
    digest: &str,
    old: &Location,
    new: &Location,
    size: u64,
) -> Result<Option<Location>, Failure> {
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
    agree(rows, digest, None)?;
    Ok(Some(new.clone()))
}

/// What [`record_defect`] answers, if it has nothing to write: whoever asks for what is lost is told without a transaction.
pub(super) fn is_recorded(
    rows: &Rows<'_>,
    repository: Option<&RepositoryName>,
    digest: &str,
    location: &Location,
    defect: Defect,
) -> Result<Recorded, Failure> {
    let found = find(rows, digest)?;
    let as_found = match &found {
        Some((now, recorded)) => now != location || *recorded >= Some(defect),
        None => repository.is_none(),
    };
    if !as_found || !do_agree(rows, digest, repository)? {
        return Ok(Recorded::NotYet);
    }
    Ok(Recorded::Already(elsewhere(found, location)))
}

/// Whether a defect has to be written, and if not, what the answer is.
pub(super) enum Recorded {
    NotYet,
    Already(Option<Location>),
}

/// Where the bytes lie whole, if that is not where somebody has found them lost.
fn elsewhere(found: Option<(Location, Option<Defect>)>, location: &Location) -> Option<Location> {
    let found = found.filter(|(now, defect)| now != location && defect.is_none());
    found.map(|(now, _)| now)
}

/// Records a defect, if the bytes lie at `location`; where they lie, if that is elsewhere.
pub(super) fn record_defect(
    rows: &Rows<'_>,
    cx: Context,
    repository: Option<&RepositoryName>,
    digest: &str,
    location: &Location,
    defect: Defect,
) -> Result<Option<Location>, Failure> {
    match (find(rows, digest)?, repository) {
        (Some((now, recorded)), _) if now == *location => {
            if recorded < Some(defect) {
                rows.change(
                    "UPDATE blob SET condemned = ?2 WHERE digest = ?1",
                    params![digest, defect.as_str()],
                )?;
            }
        }
        // A link or a manifest without a row of its bytes, after some other accident.
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
    agree(rows, digest, repository)?;
    Ok(elsewhere(find(rows, digest)?, location))
}

/// The object that was missing at `location` is back.
pub(super) fn clear_missing(rows: &Rows<'_>, digest: &str, location: &Location) -> Result<(), Failure> {
    rows.change(
        "UPDATE blob SET condemned = NULL WHERE digest = ?1 AND store = ?2 AND key = ?3 AND condemned = ?4",
        params![digest, location.store, location.key, Defect::Missing.as_str()],
    )?;
    Ok(())
}

/// Marks a manifest whose row has other bytes than its digest says.
pub(super) fn record_damaged_manifest(
    rows: &Rows<'_>,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<(), Failure> {
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

/// A condition on links and large manifests of a digest, in one repository or in all: they do not lead to where its bytes lie
/// by their own row. A small manifest leads nowhere.
macro_rules! is_astray {
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

/// Whether links and large manifests lead to where the bytes lie.
fn do_agree(rows: &Rows<'_>, digest: &str, only: Option<&RepositoryName>) -> Result<bool, Failure> {
    for query in [
        concat!("SELECT 1 FROM blob, link WHERE ", is_astray!("link")),
        concat!("SELECT 1 FROM blob, manifest WHERE ", is_astray!("manifest")),
    ] {
        if rows.exists(query, params![digest, only.map(RepositoryName::as_str)])? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Lets them do so.
fn agree(rows: &Rows<'_>, digest: &str, only: Option<&RepositoryName>) -> Result<(), Failure> {
    for change in [
        concat!(
            "UPDATE link SET store = blob.store, key = blob.key FROM blob WHERE ",
            is_astray!("link")
        ),
        concat!(
            "UPDATE manifest SET store = blob.store, key = blob.key FROM blob WHERE ",
            is_astray!("manifest")
        ),
    ] {
        rows.change(change, params![digest, only.map(RepositoryName::as_str)])?;
    }
    Ok(())
}
