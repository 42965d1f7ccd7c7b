//! Blobs and links: a repository writes its back-link to a digest, reads the blob record, then creates the link.
//!
//! The back-link is the back-reference that protects the blob record. It is written before the blob record is read. A
//! remover deletes the blob record only after it has marked the record and then found no back-link. So there are two
//! cases: if the creator finds no mark, every later remover sees its back-link. If it finds a mark, it clears the mark,
//! and the remover notices that.

use oci::{Digest, RepositoryName};
use registry::store::collection::PendingDeletion;
use registry::store::metadata::{Content, Defect, Link};
use registry::store::{Location, StoreError, Uid};

use super::StoreCall;
use crate::deletion_queue;
use crate::keys;
use crate::records::{BackLink, BlobRow, LinkKind, LinkRow, MarkPurpose, attributes};
use crate::retrying::WriteOnceOutcome;
use crate::table::{ItemKey, Value, Write, WriteCondition};

/// The object of a digest to which a repository has written a back-link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredBytes {
    /// The location of the object.
    pub(super) location: Location,
    /// The number of bytes.
    pub(super) size: u64,
    /// The known defect of the object.
    pub(super) defect: Option<Defect>,
}

impl StoredBytes {
    /// An object that was just sealed.
    pub(super) fn sealed(location: &Location, size: u64) -> Self {
        Self {
            location: location.clone(),
            size,
            defect: None,
        }
    }

    /// The object as the content of a manifest.
    pub(super) fn content(&self) -> Content {
        match self.defect {
            None => Content::Stored(self.location.clone()),
            Some(defect) => Content::Defective(self.location.clone(), defect),
        }
    }

    /// Whether this is the object that was sealed at `location`, and no other request has recorded a defect of it.
    pub(super) fn are_as_sealed(&self, location: &Location) -> bool {
        self.location == *location && self.defect.is_none()
    }
}

/// A write that removes any mark.
pub(crate) fn unmark(key: ItemKey, condition: WriteCondition) -> Write {
    Write::Update {
        key,
        set: Vec::new(),
        remove: vec![attributes::MARK],
        condition,
    }
}

/// The condition that the row exists and has this uid.
pub(crate) fn has_uid(uid: Uid) -> WriteCondition {
    WriteCondition::Is(attributes::UID, Value::S(uid.to_string()))
}

/// The condition that the row exists and has the location of this object.
pub(crate) fn has_location(location: &Location) -> WriteCondition {
    WriteCondition::All(vec![
        WriteCondition::Is(attributes::STORE, Value::S(location.store.clone())),
        WriteCondition::Is(attributes::OBJECT, Value::S(location.key.clone())),
    ])
}

impl StoreCall<'_> {
    pub(super) async fn commit_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        location: &Location,
        size: u64,
    ) -> Result<Location, StoreError> {
        let offered = StoredBytes::sealed(location, size);
        let mut round = 0;
        let bytes = loop {
            let uid = self.uid(round);
            let bytes = self
                .link_bytes(repository, digest, LinkKind::Blob, uid, offered.clone())
                .await?;
            if self.make_link(repository, digest, &bytes, uid).await? {
                break bytes;
            }
            round += 1;
        };
        if bytes.location != *location {
            self.schedule_deletion(digest, location).await?;
        }
        if !bytes.are_as_sealed(location) {
            self.check_bytes_again(repository, digest, LinkKind::Blob, &bytes)
                .await?;
        }
        Ok(bytes.location)
    }

    pub(super) async fn mount(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: &RepositoryName,
    ) -> Result<bool, StoreError> {
        let source = self.read_link(from, digest).await?;
        if source.is_none_or(|row| row.link.defect.is_some()) {
            return Ok(false);
        }
        let mut round = 0;
        loop {
            let uid = self.uid(round);
            let stored = self
                .write_back_link(repository, digest, LinkKind::Blob, uid, None)
                .await?;
            let Some(bytes) = stored else {
                // The source was unlinked and its bytes were collected after the link was read, or the bytes have a
                // known defect.
                self.drop_back_link(repository, digest, uid).await?;
                return Ok(false);
            };
            if self.make_link(repository, digest, &bytes, uid).await? {
                return self.check_bytes_again(repository, digest, LinkKind::Blob, &bytes).await;
            }
            round += 1;
        }
    }

    pub(super) async fn link_and_unmark(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Link>, StoreError> {
        let mut round = 0;
        while let Some(row) = self.read_link(repository, digest).await? {
            let marked = row.mark.filter(|mark| mark.purpose == MarkPurpose::Collection);
            let Some(mark) = marked else {
                // The mark of a deletion stays: its client waits, and the deletion may still read this link before it
                // removes it.
                return Ok(Some(row.link));
            };
            let clear_mark = unmark(keys::link(repository, digest), mark.is_present());
            if self.main.write(&clear_mark).await?.is_done() {
                return Ok(Some(row.link));
            }
            self.main.lost_race(round).await?;
            round += 1;
        }
        Ok(None)
    }

    pub(super) async fn marked_link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<(Link, bool)>, StoreError> {
        let row = self.read_link(repository, digest).await?;
        Ok(row.map(|row| {
            let is_marked = row.mark.is_some_and(|mark| mark.purpose == MarkPurpose::Collection);
            (row.link, is_marked)
        }))
    }

    /// Writes the back-link of a repository to a digest, and decides which object holds the bytes: the recorded one
    /// unless it has a defect, otherwise the offered one.
    pub(super) async fn link_bytes(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        link_kind: LinkKind,
        uid: Uid,
        offered: StoredBytes,
    ) -> Result<StoredBytes, StoreError> {
        let stored = self
            .write_back_link(repository, digest, link_kind, uid, Some(&offered))
            .await?;
        Ok(stored.unwrap_or(offered))
    }

    /// Writes the back-link, then reads the blob record. `None`: nothing was offered, and the record does not exist or
    /// has a defect. The back-link stays in that case.
    async fn write_back_link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        link_kind: LinkKind,
        uid: Uid,
        offered: Option<&StoredBytes>,
    ) -> Result<Option<StoredBytes>, StoreError> {
        let back_link = BackLink {
            repository: repository.clone(),
            uid,
            link_kind,
            at: self.cx.now,
        };
        let back_link = Write::Put {
            item: back_link.item(digest),
            condition: WriteCondition::Always,
        };
        self.main.write(&back_link).await?;
        self.find_or_record_bytes(digest, offered).await
    }

    pub(super) async fn find_or_record_bytes(
        &self,
        digest: &Digest,
        offered: Option<&StoredBytes>,
    ) -> Result<Option<StoredBytes>, StoreError> {
        let key = keys::blob(digest);
        let mut round = 0;
        loop {
            let Some(item) = self.main.get(&key).await? else {
                let Some(offered) = offered else {
                    return Ok(None);
                };
                let row = BlobRow {
                    location: offered.location.clone(),
                    size: offered.size,
                    at: self.cx.now,
                    defect: None,
                    mark: None,
                };
                let first = Write::Put {
                    item: row.item(digest),
                    condition: WriteCondition::Absent,
                };
                if self.main.write(&first).await?.is_done() {
                    return Ok(Some(offered.clone()));
                }
                // Another request has written the record, or an unanswered try of this one has. The next read tells
                // which.
                self.main.lost_race(round).await?;
                round += 1;
                continue;
            };
            let row = BlobRow::read(&item)?;
            if row.defect.is_some() {
                match offered {
                    None => return Ok(None),
                    // An earlier try has recorded this object, and another request has recorded a defect of it since.
                    Some(offered) if offered.location == row.location => {}
                    Some(offered) => {
                        if self.replace(digest, &row.location, offered).await? {
                            return Ok(Some(offered.clone()));
                        }
                        self.main.lost_race(round).await?;
                        round += 1;
                        continue;
                    }
                }
            }
            let clear_mark = unmark(key.clone(), has_location(&row.location));
            let is_kept = row.mark.is_none() || self.main.write(&clear_mark).await?.is_done();
            if is_kept {
                return Ok(Some(StoredBytes {
                    location: row.location,
                    size: row.size,
                    defect: row.defect,
                }));
            }
            self.main.lost_race(round).await?;
            round += 1;
        }
    }

    /// Creates the link, after its back-link was written. From then on the blob can be read. An existing link stays;
    /// the new back-link is then removed, because the link has its own.
    ///
    /// `false`: it is unknown whether the link was created. It may have been created and removed again together with
    /// its back-link, or it may be created late. So this call neither tries again nor removes the back-link: the caller
    /// starts again with another one.
    async fn make_link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        bytes: &StoredBytes,
        uid: Uid,
    ) -> Result<bool, StoreError> {
        let key = keys::link(repository, digest);
        let row = LinkRow {
            link: Link {
                location: bytes.location.clone(),
                size: bytes.size,
                uid,
                defect: bytes.defect,
            },
            at: self.cx.now,
            mark: None,
        };
        let create = Write::Put {
            item: row.item(repository, digest),
            condition: WriteCondition::Absent,
        };
        let mut round = 0;
        loop {
            match self.main.write_once(&create).await? {
                WriteOnceOutcome::Done => return Ok(true),
                WriteOnceOutcome::Unanswered => {
                    let row = self.read_link(repository, digest).await?;
                    return Ok(row.is_some_and(|row| row.link.uid == uid));
                }
                WriteOnceOutcome::Refused => {}
            }
            if let Some(row) = self.read_link(repository, digest).await? {
                let clear_mark = unmark(key.clone(), has_uid(row.link.uid));
                let is_kept = row.mark.is_none() || self.main.write(&clear_mark).await?.is_done();
                if is_kept {
                    if (row.link.location, row.link.defect) != (bytes.location.clone(), bytes.defect) {
                        self.sync_object(repository, digest, LinkKind::Blob).await?;
                    }
                    self.drop_back_link(repository, digest, uid).await?;
                    return Ok(true);
                }
            }
            self.main.lost_race(round).await?;
            round += 1;
        }
    }

    pub(super) async fn drop_back_link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        uid: Uid,
    ) -> Result<(), StoreError> {
        let back_link = keys::back_link(digest, repository, uid);
        self.main.write(&Write::delete(back_link)).await.map(|_| ())
    }

    /// Schedules the deletion of an object that was stored for a digest and is not needed.
    pub(super) async fn schedule_deletion(&self, digest: &Digest, location: &Location) -> Result<(), StoreError> {
        let pending_deletion = PendingDeletion {
            location: location.clone(),
            digest: Some(*digest),
            unfinished: false,
            at: self.cx.now,
        };
        deletion_queue::schedule_deletion(&self.local, &pending_deletion).await
    }
}
