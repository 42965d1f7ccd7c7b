//! All records: for export, import and checks.

mod read;
mod write;

use async_trait::async_trait;
use oci::Digest;
use registry::store::records::{BackReference, Record, RecordStore, RecordedObject, Unreadable};
use registry::store::{Context, Cursor, Slice, StoreError};
use rusqlite::params;

use super::SqliteStore;
use super::metadata::objects::defect;
use super::rows::{OperationFailure, Rows};
use super::values::{Columns, bits, link_kind_text};

#[cfg(test)]
pub(super) use read::STATEMENTS;

/// The maximum number of records that one transaction writes.
const MAX_WRITTEN: usize = 64;

#[async_trait]
impl RecordStore for SqliteStore {
    async fn walk(
        &self,
        cx: Context,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<Result<Record, Unreadable>>, StoreError> {
        let position = after.map_or(Ok(read::RecordPosition::first()), read::RecordPosition::parse)?;
        self.walk(cx, move |rows| read::slice(rows, &position, limit)).await
    }

    async fn recorded_object(&self, cx: Context, digest: &Digest) -> Result<Option<RecordedObject>, StoreError> {
        let digest = digest.to_string();
        self.read(cx, move |rows| {
            rows.one(
                "SELECT store, key, size, condemned FROM blob WHERE digest = ?1",
                [&digest],
                |row| {
                    Ok(RecordedObject {
                        location: row.location(0, 1)?,
                        size: row.unsigned(2)?,
                        defect: defect(row, 3)?,
                    })
                },
            )
        })
        .await
    }

    async fn missing_back_references(
        &self,
        cx: Context,
        back_references: &[BackReference],
    ) -> Result<Vec<BackReference>, StoreError> {
        let back_references = back_references.to_vec();
        self.walk(cx, move |rows| {
            let mut missing = Vec::new();
            for back_reference in &back_references {
                if !has(rows, back_reference)? {
                    missing.push(back_reference.clone());
                }
            }
            Ok(missing)
        })
        .await
    }

    async fn insert(&self, cx: Context, records: &[Record]) -> Result<(), StoreError> {
        for some in records.chunks(MAX_WRITTEN) {
            let some = some.iter().map(write::RecordRow::new).collect::<Result<Vec<_>, _>>()?;
            self.write(cx, move |rows| some.iter().try_for_each(|row| row.insert(rows)))
                .await?;
        }
        Ok(())
    }
}

fn has(rows: &Rows<'_>, back_reference: &BackReference) -> Result<bool, OperationFailure> {
    match back_reference {
        BackReference::Edge {
            repository,
            target,
            parent,
            uid,
        } => rows.exists(
            "SELECT 1 FROM edge WHERE repository = ?1 AND target = ?2 AND parent = ?3 AND incarnation = ?4",
            params![repository.as_str(), target.to_string(), parent.to_string(), bits(*uid)],
        ),
        BackReference::BackLink {
            digest,
            repository,
            link_kind,
            uid,
        } => rows.exists(
            "SELECT 1 FROM backlink WHERE digest = ?1 AND repository = ?2 AND incarnation = ?3 AND kind = ?4",
            params![
                digest.to_string(),
                repository.as_str(),
                bits(*uid),
                link_kind_text(*link_kind)
            ],
        ),
    }
}
