//! All records, out of the table and into it: [`walk`] and [`insert`]; and what keeps what they stand for.

mod insert;
mod walk;

use std::collections::BTreeSet;

use async_trait::async_trait;
use oci::{Digest, RepositoryName};
use registry::store::records::{BackReference, Record, RecordStore, RecordedObject, Unreadable};
use registry::store::{Context, Cursor, Slice, StoreError};

use crate::DynamoStore;
use crate::keys;
use crate::records::{BackLink, BlobRow, ManifestRow, References};
use crate::table::{Item, Key};

#[async_trait]
impl RecordStore for DynamoStore {
    async fn walk(
        &self,
        cx: Context,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Slice<Result<Record, Unreadable>>, StoreError> {
        walk::slice(&self.call(cx), after, limit).await
    }

    async fn place(&self, cx: Context, digest: &Digest) -> Result<Option<RecordedObject>, StoreError> {
        let item = self.main.within(cx).get(&keys::blob(digest)).await?;
        let row = item.as_ref().map(BlobRow::read).transpose()?;
        Ok(row.map(|row| RecordedObject {
            location: row.location,
            size: row.size,
            defect: row.defect,
        }))
    }

    async fn lost(&self, cx: Context, back_references: &[BackReference]) -> Result<Vec<BackReference>, StoreError> {
        let keys: BTreeSet<Key> = back_references.iter().map(key_of).collect();
        let found = self.main.within(cx).get_all(&keys).await?;
        let mut lost = Vec::new();
        for hold in back_references {
            let item = found.get(&key_of(hold));
            if !item.map_or(Ok(false), |item| is(item, hold))? {
                lost.push(hold.clone());
            }
        }
        Ok(lost)
    }

    async fn insert(&self, cx: Context, records: &[Record]) -> Result<(), StoreError> {
        insert::all(&self.call(cx), records).await
    }
}

fn key_of(hold: &BackReference) -> Key {
    match hold {
        BackReference::Edge {
            repository,
            target,
            parent,
            uid,
        } => keys::edge(repository, target, parent, *uid),
        BackReference::BackLink {
            digest,
            repository,
            uid,
            ..
        } => keys::back_link(digest, repository, *uid),
    }
}

/// Whether the item under the key of a hold is that hold.
fn is(item: &Item, hold: &BackReference) -> Result<bool, StoreError> {
    match hold {
        BackReference::Edge { .. } => Ok(true),
        BackReference::BackLink { link_kind, .. } => Ok(BackLink::read(item)?.link_kind == *link_kind),
    }
}

/// The keys of all that belongs to a life of a manifest, but for itself and its place in the list, which outlive it.
fn belongings<'a>(
    repository: &'a RepositoryName,
    digest: &'a Digest,
    row: &'a ManifestRow,
    references: &'a [Digest],
) -> impl Iterator<Item = Key> + 'a {
    let life = row.record.uid;
    let edges = references
        .iter()
        .map(move |target| keys::edge(repository, target, digest, life));
    let apart = match row.references {
        References::Here(_) => 0,
        References::Apart(rows) => rows,
    };
    let apart = (0..apart).map(move |number| keys::references(repository, digest, life, number));
    let referrer = row.record.subject.as_ref();
    let referrer = referrer.map(|subject| keys::referrer(repository, subject, digest));
    let stored = row.record.content.object().is_some();
    let back_link = stored.then(|| keys::back_link(digest, repository, life));
    edges.chain(apart).chain(referrer).chain(back_link)
}
