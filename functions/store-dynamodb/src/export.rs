//! The export of all records ([`walk`]), their import ([`insert`]), and the check of back-references.

mod insert;
mod walk;

use std::collections::BTreeSet;

use async_trait::async_trait;
use oci::{Digest, RepositoryName};
use registry::store::records::{BackReference, Record, RecordStore, RecordedObject, Unreadable};
use registry::store::{Context, Cursor, Slice, StoreError};

use crate::DynamoStore;
use crate::keys;
use crate::records::{BackLink, BlobRow, ManifestRow, ReferenceList};
use crate::table::{Item, ItemKey};

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

    async fn recorded_object(&self, cx: Context, digest: &Digest) -> Result<Option<RecordedObject>, StoreError> {
        let item = self.main.within(cx).get(&keys::blob(digest)).await?;
        let row = item.as_ref().map(BlobRow::read).transpose()?;
        Ok(row.map(|row| RecordedObject {
            location: row.location,
            size: row.size,
            defect: row.defect,
        }))
    }

    async fn missing_back_references(
        &self,
        cx: Context,
        back_references: &[BackReference],
    ) -> Result<Vec<BackReference>, StoreError> {
        let keys: BTreeSet<ItemKey> = back_references.iter().map(key_of).collect();
        let found = self.main.within(cx).get_all(&keys).await?;
        let mut missing = Vec::new();
        for back_reference in back_references {
            let item = found.get(&key_of(back_reference));
            if !item.map_or(Ok(false), |item| matches(item, back_reference))? {
                missing.push(back_reference.clone());
            }
        }
        Ok(missing)
    }

    async fn insert(&self, cx: Context, records: &[Record]) -> Result<(), StoreError> {
        insert::all(&self.call(cx), records).await
    }
}

fn key_of(back_reference: &BackReference) -> ItemKey {
    match back_reference {
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

/// Whether the item under the key of a back-reference matches it.
fn matches(item: &Item, back_reference: &BackReference) -> Result<bool, StoreError> {
    match back_reference {
        BackReference::Edge { .. } => Ok(true),
        BackReference::BackLink { link_kind, .. } => Ok(BackLink::read(item)?.link_kind == *link_kind),
    }
}

/// The keys of all rows that belong to a manifest under its uid. The manifest's own row and its row in the list are not
/// among them, because the next uid of the manifest replaces them.
fn dependent_keys<'a>(
    repository: &'a RepositoryName,
    digest: &'a Digest,
    row: &'a ManifestRow,
    references: &'a [Digest],
) -> impl Iterator<Item = ItemKey> + 'a {
    let uid = row.record.uid;
    let edges = references
        .iter()
        .map(move |target| keys::edge(repository, target, digest, uid));
    let reference_rows = match row.references {
        ReferenceList::Inline(_) => 0,
        ReferenceList::Separate(rows) => rows,
    };
    let reference_rows = (0..reference_rows).map(move |number| keys::references(repository, digest, uid, number));
    let referrer = row.record.subject.as_ref();
    let referrer = referrer.map(|subject| keys::referrer(repository, subject, digest));
    let stored = row.record.content.object().is_some();
    let back_link = stored.then(|| keys::back_link(digest, repository, uid));
    edges.chain(reference_rows).chain(referrer).chain(back_link)
}
