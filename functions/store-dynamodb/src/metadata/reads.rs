//! Reads. Each answer is one item or one range, strongly consistent. Readers ignore marks: a mark only announces a
//! removal.

use oci::{Digest, RepositoryName, Tag};
use registry::store::metadata::{HistoryRecord, Link, Listing, ManifestRecord, Referrer, TagRecord};
use registry::store::{Page, StoreError};

use super::StoreCall;
use crate::keys::{self, RecordKey, start_after};
use crate::records::{
    BackLink, CatalogRow, ChangeRow, LinkKind, LinkRow, ManifestRow, ReferenceList, ReferencesRow, ReferrerRow, TagRow,
    damaged,
};
use crate::table::{Item, Range};

/// The maximum length of a tag, in bytes.
const TAG_BYTES: usize = 128;
/// The maximum length of a repository name, in bytes.
const NAME_BYTES: usize = 255;
/// The maximum number of pages that a search for linking repositories reads.
const BACK_LINK_PAGES: usize = 10;

impl StoreCall<'_> {
    pub(crate) async fn read_link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<LinkRow>, StoreError> {
        let item = self.main.get(&keys::link(repository, digest)).await?;
        item.as_ref().map(LinkRow::read).transpose()
    }

    pub(crate) async fn read_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestRow>, StoreError> {
        let item = self.main.get(&keys::manifest(repository, digest)).await?;
        item.as_ref().map(ManifestRow::read).transpose()
    }

    pub(super) async fn link_of(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Link>, StoreError> {
        let row = self.read_link(repository, digest).await?;
        Ok(row.map(|row| row.link))
    }

    pub(super) async fn manifest_of(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, StoreError> {
        let row = self.read_manifest(repository, digest).await?;
        Ok(row.map(|row| row.record))
    }

    pub(super) async fn tag_of(&self, repository: &RepositoryName, tag: &Tag) -> Result<Option<TagRecord>, StoreError> {
        let item = self.main.get(&keys::tag(repository, tag)).await?;
        item.as_ref().map(TagRow::read).transpose()
    }

    pub(super) async fn tags_of(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Tag>, StoreError> {
        let after = after.map(|after| start_after("t#", after, TAG_BYTES));
        self.page(
            keys::tags(repository),
            after,
            false,
            limit,
            |item| match RecordKey::of(&item.key) {
                Some(RecordKey::Tag(_, tag)) => Ok(tag),
                _ => Err(damaged(&item.key, "not a tag")),
            },
        )
        .await
    }

    pub(super) async fn history_of(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<HistoryRecord>, StoreError> {
        let Some(up_to) = before.unwrap_or(u64::MAX).checked_sub(1) else {
            return Ok(Page {
                items: Vec::new(),
                more: false,
            });
        };
        let range = keys::changes(repository, tag, up_to);
        self.page(range, None, true, limit, ChangeRow::read).await
    }

    pub(super) async fn listing_of(&self, repository: &RepositoryName) -> Result<Option<Listing>, StoreError> {
        let row = self.main.get(&keys::repository(repository)).await?;
        let row = row.as_ref().map(CatalogRow::read).transpose()?;
        Ok(row.map(|row| Listing::of(row.permanent)))
    }

    pub(super) async fn repositories_of(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<RepositoryName>, StoreError> {
        let after = after.filter(|after| !after.is_empty());
        let after = after.map(|after| start_after("", after, NAME_BYTES));
        self.page(keys::repositories(), after, false, limit, |item| {
            match RecordKey::of(&item.key) {
                Some(RecordKey::Repository(name)) => Ok(name),
                _ => Err(damaged(&item.key, "not a repository")),
            }
        })
        .await
    }

    pub(super) async fn manifests_of(
        &self,
        repository: &RepositoryName,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Digest>, StoreError> {
        let after = after.map(|after| keys::listed(repository, after).sort);
        let range = keys::all_listed(repository);
        self.page(range, after, false, limit, |item| match RecordKey::of(&item.key) {
            Some(RecordKey::Listed(_, digest)) => Ok(digest),
            _ => Err(damaged(&item.key, "not in the list of manifests")),
        })
        .await
    }

    pub(super) async fn referrers_of(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Page<Referrer>, StoreError> {
        let after = after.map(|after| keys::referrer(repository, subject, after).sort);
        let range = keys::referrers(repository, subject);
        self.page(range, after, false, limit, ReferrerRow::read).await
    }

    /// The first `limit` repositories with a back-link of a blob. The caller must confirm each of them by reading its
    /// link. Other back-links, those of manifests and of interrupted commits, are skipped, over a bounded number of
    /// pages.
    pub(super) async fn linking_repositories_of(
        &self,
        digest: &Digest,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, StoreError> {
        let mut linking_repositories = Vec::new();
        let mut after = None;
        for _ in 0..BACK_LINK_PAGES {
            let (items, more) = self.main.first(keys::back_links(digest), after, false, limit).await?;
            for item in &items {
                let back_link = BackLink::read(item)?;
                // A repository may have several back-links: that of its link, and those of interrupted commits.
                if back_link.link_kind == LinkKind::Blob && linking_repositories.last() != Some(&back_link.repository) {
                    linking_repositories.push(back_link.repository);
                }
            }
            after = items.last().map(|item| item.key.sort.clone());
            if !more || linking_repositories.len() >= limit {
                break;
            }
        }
        linking_repositories.truncate(limit);
        Ok(linking_repositories)
    }

    /// The references of a manifest without its subject, in the order of the digests.
    pub(crate) async fn references_of(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        row: &ManifestRow,
    ) -> Result<Vec<Digest>, StoreError> {
        let rows = match &row.references {
            ReferenceList::Inline(digests) => return Ok(digests.clone()),
            ReferenceList::Separate(rows) => *rows,
        };
        let uid = row.record.uid;
        let keys: Vec<_> = (0..rows)
            .map(|row| keys::references(repository, digest, uid, row))
            .collect();
        let items = self.main.get_all(&keys.iter().cloned().collect()).await?;
        let mut digests = Vec::new();
        for key in &keys {
            let item = items.get(key).ok_or_else(|| damaged(key, "it does not exist"))?;
            digests.extend(ReferencesRow::read(item)?.digests);
        }
        Ok(digests)
    }

    async fn page<T>(
        &self,
        range: Range,
        after: Option<String>,
        descending: bool,
        limit: usize,
        read: impl Fn(&Item) -> Result<T, StoreError>,
    ) -> Result<Page<T>, StoreError> {
        let (items, more) = self.main.first(range, after, descending, limit).await?;
        Ok(Page {
            items: items.iter().map(read).collect::<Result<_, _>>()?,
            more,
        })
    }
}
