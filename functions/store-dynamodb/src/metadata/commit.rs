//! StoredBytes and links: a repository claims the bytes of a digest, then links them.
//!
//! The claim is the back-link. It is written before the record of the bytes is read, and the record is removed only by
//! somebody who has marked it and then found no back-link: a claimant that finds no mark is seen by every later
//! remover, and one that finds a mark takes it away, which the remover notices.

use oci::{Digest, RepositoryName};
use registry::store::collection::PendingDeletion;
use registry::store::metadata::{Content, Defect, Link};
use registry::store::{Location, StoreError, Uid};

use super::StoreCall;
use crate::collect::deletion_queue;
use crate::keys;
use crate::mutation::{Mutation, active};
use crate::records::{BackLink, BlobRow, LinkKind, LinkRow, MarkPurpose, attributes};
use crate::retrying::WriteOnceOutcome;
use crate::table::{ItemKey, Value, Write, WriteCondition};

/// StoredBytes that a repository has claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredBytes {
    /// Where they lie.
    pub(super) location: Location,
    /// Their number.
    pub(super) size: u64,
    /// What is known to be wrong with them.
    pub(super) defect: Option<Defect>,
}

impl StoredBytes {
    /// An object that was sealed just now.
    pub(super) fn sealed(location: &Location, size: u64) -> Self {
        Self {
            location: location.clone(),
            size,
            defect: None,
        }
    }

    /// As the content of a manifest.
    pub(super) fn content(&self) -> Content {
        match self.defect {
            None => Content::Stored(self.location.clone()),
            Some(defect) => Content::Defective(self.location.clone(), defect),
        }
    }

    /// Whether these are the ones that were sealed at `location`, of which nobody else has told anything.
    pub(super) fn are_as_sealed(&self, location: &Location) -> bool {
        self.location == *location && self.defect.is_none()
    }
}

/// Takes a mark away, whosever it is.
pub(crate) fn unmark(key: ItemKey, condition: WriteCondition) -> Write {
    Write::Update {
        key,
        set: Vec::new(),
        remove: vec![attributes::MARK],
        condition,
    }
}

/// The row exists and is of this life.
pub(crate) fn has_uid(uid: Uid) -> WriteCondition {
    WriteCondition::Is(attributes::UID, Value::S(uid.to_string()))
}

/// The row exists and names this object.
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
                .claim_bytes(repository, digest, LinkKind::Blob, uid, offered.clone())
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
            let claimed = self.claim(repository, digest, LinkKind::Blob, uid, None).await?;
            let Some(bytes) = claimed else {
                // The source was unlinked, and its bytes collected, since they were read; or they are known to be lost.
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
                // A deletion's mark stays: somebody waits for it, and may look at this link before it is gone.
                return Ok(Some(row.link));
            };
            let kept = unmark(keys::link(repository, digest), mark.is_present());
            if self.main.write(&kept).await?.is_done() {
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

    /// Claims the bytes of a digest for a repository, and decides where they lie: where they lay before, unless that
    /// object has a defect, or where they are offered.
    pub(super) async fn claim_bytes(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        link_kind: LinkKind,
        uid: Uid,
        offered: StoredBytes,
    ) -> Result<StoredBytes, StoreError> {
        let claimed = self.claim(repository, digest, link_kind, uid, Some(&offered)).await?;
        Ok(claimed.unwrap_or(offered))
    }

    /// Writes the claim, then looks at the bytes. `None`: there are none, or they have a defect, and none were offered; the
    /// claim stands.
    async fn claim(
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
        let claim = Write::Put {
            item: back_link.item(digest),
            condition: WriteCondition::Always,
        };
        if !active(Mutation::BackLinkLate) {
            self.main.write(&claim).await?;
        }
        let bytes = self.find_or_record_bytes(digest, offered).await?;
        if active(Mutation::BackLinkLate) {
            self.main.write(&claim).await?;
        }
        Ok(bytes)
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
                // Somebody else's bytes, or these by a try that was not answered: the next look tells.
                self.main.lost_race(round).await?;
                round += 1;
                continue;
            };
            let row = BlobRow::read(&item)?;
            if row.defect.is_some() {
                match offered {
                    None => return Ok(None),
                    // An earlier try has put it there, and somebody else has found it lost since then.
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
            let kept = unmark(key.clone(), has_location(&row.location));
            let is_kept = row.mark.is_none() || self.main.write(&kept).await?.is_done();
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

    /// Links bytes that this call has claimed: the point at which a blob can be read. If there is a link already, it
    /// stays, and the claim is dropped, since the link has its own.
    ///
    /// `false`: whether the link was made is not known. It may have been, and be gone again with its claim; or it may
    /// be made late. So it is neither tried again nor is its claim dropped: the caller begins anew with another claim.
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
            let made = match active(Mutation::RetryBlindly) {
                true if self.main.write(&create).await?.is_done() => WriteOnceOutcome::Done,
                true => WriteOnceOutcome::Refused,
                false => self.main.write_once(&create).await?,
            };
            match made {
                WriteOnceOutcome::Done => return Ok(true),
                WriteOnceOutcome::Unanswered => {
                    let row = self.read_link(repository, digest).await?;
                    return Ok(row.is_some_and(|row| row.link.uid == uid));
                }
                WriteOnceOutcome::Refused => {}
            }
            if let Some(row) = self.read_link(repository, digest).await? {
                let kept = unmark(key.clone(), has_uid(row.link.uid));
                let is_kept = row.mark.is_none() || self.main.write(&kept).await?.is_done();
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

    /// Puts an object that was stored for a digest, and is not needed, into the graveyard.
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
