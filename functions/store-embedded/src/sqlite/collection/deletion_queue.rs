//! Objects that lost their name.

use registry::store::collection::{PendingDeletion, Standing};
use registry::store::{Cursor, Location, Slice, StoreError, Timestamp};
use rusqlite::params;

use super::super::rows::{Failure, Rows};
use super::super::values::{Columns, timestamp};

/// A page in the order of burial.
pub(super) const GRAVES: &str = "SELECT at, store, key, digest, unfinished FROM graveyard \
    WHERE at < ?1 AND (at, store, key) > (?2, ?3, ?4) ORDER BY at, store, key LIMIT ?5";

/// Buries an object. One that is buried already keeps its one grave: see [`PendingDeletion::joined`].
pub(in super::super) fn schedule_deletion(
    rows: &Rows<'_>,
    at: Timestamp,
    location: &Location,
    digest: Option<&str>,
    unfinished: bool,
) -> Result<(), Failure> {
    rows.change(
        "INSERT INTO graveyard (at, store, key, digest, unfinished) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (store, key) DO UPDATE SET at = max(at, excluded.at), \
         digest = iif(at <= excluded.at, coalesce(excluded.digest, digest), coalesce(digest, excluded.digest)), \
         unfinished = max(unfinished, excluded.unfinished)",
        params![timestamp(at), location.store, location.key, digest, unfinished],
    )?;
    Ok(())
}

/// Where a walk over graves goes on: behind this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    at: i64,
    location: Location,
}

impl Place {
    /// Before all graves.
    pub(super) fn first() -> Self {
        Self {
            at: -1,
            location: Location {
                store: String::new(),
                key: String::new(),
            },
        }
    }

    pub(super) fn parse(cursor: &Cursor) -> Result<Self, StoreError> {
        let unreadable = || StoreError::failed("not a cursor of this store");
        // A key has no spaces.
        let mut parts = cursor.0.splitn(3, ' ');
        let mut part = || parts.next().ok_or_else(unreadable);
        let (at, key, store) = (part()?, part()?, part()?);
        Ok(Self {
            at: at.parse().map_err(|_| unreadable())?,
            location: Location {
                store: store.to_owned(),
                key: key.to_owned(),
            },
        })
    }

    fn behind(pending_deletion: &PendingDeletion) -> Cursor {
        let Location { store, key } = &pending_deletion.location;
        Cursor(format!("{} {key} {store}", timestamp(pending_deletion.at)))
    }
}

pub(super) fn pending_deletions(
    rows: &Rows<'_>,
    before: Timestamp,
    after: &Place,
    limit: usize,
) -> Result<Slice<PendingDeletion>, Failure> {
    let Place { at, location } = after;
    let rows_asked = i64::try_from(limit).unwrap_or(i64::MAX);
    let items = rows.all(
        GRAVES,
        params![timestamp(before), at, location.store, location.key, rows_asked],
        |row| {
            Ok(PendingDeletion {
                at: row.timestamp(0)?,
                location: row.location(1, 2)?,
                digest: row.parsed_if_any(3)?,
                unfinished: row.value(4)?,
            })
        },
    )?;
    // All that were met are due, and what is dug meanwhile is not.
    let last = items.last().filter(|_| items.len() >= limit);
    let next = last.map(Place::behind);
    Ok(Slice { items, next })
}

/// Whether the bytes of a digest lie at a place.
fn is_named(rows: &Rows<'_>, digest: &str, location: &Location) -> Result<bool, Failure> {
    rows.exists(
        "SELECT 1 FROM blob WHERE digest = ?1 AND store = ?2 AND key = ?3",
        params![digest, location.store, location.key],
    )
}

/// The name first, the grave afterwards: the two statements may see two states of the file.
pub(super) fn standing(rows: &Rows<'_>, pending_deletion: &PendingDeletion) -> Result<Standing, Failure> {
    let digest = pending_deletion.digest.as_ref().map(ToString::to_string);
    if let Some(digest) = &digest
        && is_named(rows, digest, &pending_deletion.location)?
    {
        return Ok(Standing::Named);
    }
    let Location { store, key } = &pending_deletion.location;
    let unchanged = rows.exists(
        "SELECT 1 FROM graveyard WHERE store = ?1 AND key = ?2 AND at = ?3 AND digest IS ?4 AND unfinished = ?5",
        params![
            store,
            key,
            timestamp(pending_deletion.at),
            digest,
            pending_deletion.unfinished
        ],
    )?;
    Ok(if unchanged { Standing::Due } else { Standing::Changed })
}

/// Removes a grave, unless the object was buried again since.
pub(super) fn forget(rows: &Rows<'_>, pending_deletion: &PendingDeletion) -> Result<(), Failure> {
    rows.change(
        "DELETE FROM graveyard WHERE at = ?1 AND store = ?2 AND key = ?3",
        params![
            timestamp(pending_deletion.at),
            pending_deletion.location.store,
            pending_deletion.location.key
        ],
    )?;
    Ok(())
}
