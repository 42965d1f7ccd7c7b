//! All records, out of the table and into it: [`walk`] and [`insert`].

mod insert;
mod walk;

use async_trait::async_trait;
use oci::{Digest, RepositoryName};
use registry::store::metadata::Content;
use registry::store::records::{Record, RecordStore};
use registry::store::{Context, Cursor, Slice, StoreError};

use crate::DynamoStore;
use crate::keys;
use crate::records::{ManifestRow, References};
use crate::table::Key;

#[async_trait]
impl RecordStore for DynamoStore {
    async fn records(&self, cx: Context, after: Option<&Cursor>, limit: usize) -> Result<Slice<Record>, StoreError> {
        walk::slice(&self.call(cx), after, limit).await
    }

    async fn insert(&self, cx: Context, records: &[Record]) -> Result<(), StoreError> {
        insert::all(&self.call(cx), records).await
    }
}

/// The keys of all that belongs to a life of a manifest, but for itself and its place in the list, which outlive it.
fn belongings<'a>(
    repository: &'a RepositoryName,
    digest: &'a Digest,
    row: &'a ManifestRow,
    references: &'a [Digest],
) -> impl Iterator<Item = Key> + 'a {
    let life = row.record.incarnation;
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
    let stored = matches!(row.record.content, Content::Stored(_));
    let back_link = stored.then(|| keys::back_link(digest, repository, life));
    edges.chain(apart).chain(referrer).chain(back_link)
}
