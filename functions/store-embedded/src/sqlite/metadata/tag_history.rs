//! The history of tags, as the operations that change tags read and write it.

use oci::Digest;
use registry::store::metadata::Deletion;
use registry::store::{Context, Timestamp};
use rusqlite::params;

use super::super::rows::{OperationFailure, Rows};
use super::super::values::{Columns, integer, timestamp};

/// The version of the last change of a tag that does not exist, so that versions never repeat, even after a deletion.
/// And that change, which is a deletion.
pub(super) fn last_change(
    rows: &Rows<'_>,
    repository: &str,
    tag: &str,
) -> Result<Option<(u64, Option<Deletion>)>, OperationFailure> {
    rows.one(
        "SELECT version, before, since, at FROM tag_history WHERE repository = ?1 AND tag = ?2 \
         ORDER BY version DESC LIMIT 1",
        params![repository, tag],
        |row| {
            let digest: Option<Digest> = row.parsed_if_any(1)?;
            let (since, at) = (row.timestamp_if_any(2)?, row.timestamp(3)?);
            let deletion = digest.map(|digest| Deletion { digest, since, at });
            Ok((row.unsigned(0)?, deletion))
        },
    )
}

/// A change of a tag, for its history.
pub(super) struct TagChange<'a> {
    pub(super) tag: &'a str,
    pub(super) version: u64,
    pub(super) before: Option<&'a str>,
    pub(super) after: Option<&'a str>,
    pub(super) principal: &'a str,
    /// What was promoted, if the change is a promotion.
    pub(super) promoted_from: Option<&'a str>,
    /// Of a deletion: since when the tag had named its manifest.
    pub(super) since: Option<Timestamp>,
}

impl TagChange<'_> {
    /// Adds the change to the history of the tag.
    pub(super) fn record(&self, rows: &Rows<'_>, cx: Context, repository: &str) -> Result<(), OperationFailure> {
        rows.change(
            "INSERT INTO tag_history (repository, tag, version, before, after, who, promoted_from, at, since) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                repository,
                self.tag,
                integer(self.version),
                self.before,
                self.after,
                self.principal,
                self.promoted_from,
                timestamp(cx.now),
                self.since.map(timestamp),
            ],
        )?;
        Ok(())
    }
}
