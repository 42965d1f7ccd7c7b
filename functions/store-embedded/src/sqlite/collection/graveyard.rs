//! Objects that lost their name.

use registry::store::collection::Grave;
use registry::store::{Location, Timestamp};
use rusqlite::params;

use super::super::rows::{Failure, Rows};
use super::super::values::{Columns, moment};

/// A page in the order of burial.
pub(super) const GRAVES: &str = "SELECT at, store, key, digest, unfinished FROM graveyard \
    WHERE at < ?1 AND (at, store, key) > (?2, ?3, ?4) ORDER BY at, store, key LIMIT ?5";

/// Buries an object. One that is buried already has lost its name again: what counts is the last time.
pub(in super::super) fn bury(
    rows: &Rows<'_>,
    at: Timestamp,
    location: &Location,
    digest: Option<&str>,
    unfinished: bool,
) -> Result<(), Failure> {
    rows.change(
        "INSERT INTO graveyard (at, store, key, digest, unfinished) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (store, key) DO UPDATE SET at = max(at, excluded.at), \
         digest = coalesce(excluded.digest, digest), unfinished = max(unfinished, excluded.unfinished)",
        params![moment(at), location.store, location.key, digest, unfinished],
    )?;
    Ok(())
}

pub(super) fn graves(
    rows: &Rows<'_>,
    before: Timestamp,
    after: Option<&Grave>,
    limit: usize,
) -> Result<Vec<Grave>, Failure> {
    let (at, store, key) = after.map_or((-1, "", ""), |grave| {
        (
            moment(grave.at),
            grave.location.store.as_str(),
            grave.location.key.as_str(),
        )
    });
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    rows.all(GRAVES, params![moment(before), at, store, key, limit], |row| {
        Ok(Grave {
            at: row.moment(0)?,
            location: row.location(1, 2)?,
            digest: row.parsed_if_any(3)?,
            unfinished: row.value(4)?,
        })
    })
}

/// Removes a grave, unless the object was buried again since.
pub(super) fn forget(rows: &Rows<'_>, grave: &Grave) -> Result<(), Failure> {
    rows.change(
        "DELETE FROM graveyard WHERE at = ?1 AND store = ?2 AND key = ?3",
        params![moment(grave.at), grave.location.store, grave.location.key],
    )?;
    Ok(())
}
