//! The location of the bytes of each digest, and the defects of objects.
//!
//! The blob record decides. Links and large manifests copy location and defect from it, so that a pull costs one read.
//! Two kinds of requests keep the copies equal to the record:
//!
//! 1. A request that changes the blob record then finds all copies by the back-links, and updates them
//!    ([`StoreCall::sync_object`]).
//! 2. A request that makes a copy then reads the record again.
//!
//! Both write before they read, so at least one sees the other. If a request of the first kind is interrupted, some
//! copies keep a location without an object. A read that finds no object there calls [`StoreCall::record_defect`],
//! which updates the copy.

use futures_util::future::try_join_all;
use oci::{Digest, RepositoryName};
use registry::store::metadata::{Content, Defect};
use registry::store::{Location, StoreError, Uid};

use super::StoreCall;
use super::commit::{StoredBytes, has_location, has_uid};
use crate::keys::{self, RecordKey};
use crate::records::{BackLink, BlobRow, LinkKind, LinkRow, ManifestRow, attributes, has_version};
use crate::retrying::WriteOutcome;
use crate::table::{Value, Write, WriteCondition};

/// How many back-links are read in one page.
const PAGE: usize = 100;

/// How many copies are updated at once.
const AT_ONCE: usize = 16;

/// The copy of location and defect in a link or a large manifest.
struct LinkedObject {
    location: Location,
    defect: Option<Defect>,
    uid: Uid,
}

/// The attributes of an object's location.
pub(super) fn location_values(location: &Location) -> Vec<(&'static str, Value)> {
    vec![
        (attributes::STORE, Value::S(location.store.clone())),
        (attributes::OBJECT, Value::S(location.key.clone())),
    ]
}

fn damaged_value() -> Value {
    Value::S(Defect::Damaged.as_str().to_owned())
}

impl StoreCall<'_> {
    pub(super) async fn read_bytes(&self, digest: &Digest) -> Result<Option<BlobRow>, StoreError> {
        let item = self.main.get(&keys::blob(digest)).await?;
        item.as_ref().map(BlobRow::read).transpose()
    }

    async fn linked_object(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        link_kind: LinkKind,
    ) -> Result<Option<LinkedObject>, StoreError> {
        Ok(match link_kind {
            LinkKind::Blob => self
                .read_link(repository, digest)
                .await?
                .map(|LinkRow { link, .. }| LinkedObject {
                    location: link.location,
                    defect: link.defect,
                    uid: link.uid,
                }),
            LinkKind::Manifest => {
                let row = self.read_manifest(repository, digest).await?;
                row.and_then(|ManifestRow { record, .. }| {
                    let (location, defect) = match record.content {
                        Content::Inline(_) | Content::Damaged(_) => return None,
                        Content::Stored(location) => (location, None),
                        Content::Defective(location, defect) => (location, Some(defect)),
                    };
                    Some(LinkedObject {
                        location,
                        defect,
                        uid: record.uid,
                    })
                })
            }
        })
    }

    /// Copies location and defect from the blob record to a link or manifest. Then it reads the record again: the
    /// record may have changed since it was read, and the request that changed it may have updated this copy before.
    pub(super) async fn sync_object(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        link_kind: LinkKind,
    ) -> Result<(), StoreError> {
        let key = match link_kind {
            LinkKind::Blob => keys::link(repository, digest),
            LinkKind::Manifest => keys::manifest(repository, digest),
        };
        let mut round = 0;
        while let Some(object) = self.linked_object(repository, digest, link_kind).await? {
            let (location, defect) = match self.read_bytes(digest).await? {
                Some(row) => (row.location, row.defect),
                // The blob record is missing after some other failure. The next commit restores the location.
                None => (object.location.clone(), object.defect.or(Some(Defect::Missing))),
            };
            if (&object.location, object.defect) == (&location, defect) {
                break;
            }
            let mut set = location_values(&location);
            set.extend(defect.map(|defect| (attributes::DEFECT, Value::S(defect.as_str().to_owned()))));
            let write = Write::Update {
                key: key.clone(),
                set,
                remove: defect.is_none().then_some(attributes::DEFECT).into_iter().collect(),
                condition: WriteCondition::All(vec![has_uid(object.uid), has_location(&object.location)]),
            };
            self.main.write(&write).await?;
            if round > 0 {
                self.main.lost_race(round - 1).await?;
            }
            round += 1;
        }
        Ok(())
    }

    /// Updates every copy for a digest after its blob record was changed.
    async fn sync_all(&self, digest: &Digest) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let range = keys::back_links(digest);
            let (items, more) = self.main.first(range, after, false, PAGE).await?;
            for some in items.chunks(AT_ONCE) {
                let back_links = some.iter().map(BackLink::read).collect::<Result<Vec<_>, _>>()?;
                let updates = back_links
                    .iter()
                    .map(|back_link| self.sync_object(&back_link.repository, digest, back_link.link_kind));
                try_join_all(updates).await?;
            }
            after = items.last().map(|item| item.key.sort.clone());
            if !more {
                return Ok(());
            }
            self.main.in_time()?;
        }
    }

    /// Like [`Self::sync_all`], but for a read whose client waits: its answer does not depend on the other copies, and
    /// there may be thousands of them. Later reads or a check update the copies that this does not reach.
    async fn sync_others(&self, digest: &Digest) {
        let done = self.main.in_half_the_time(self.sync_all(digest)).await;
        match done {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::warn!(
                %digest,
                error = &error as &dyn std::error::Error,
                "a defect could not be recorded in every repository: a check with repair records it"
            ),
            None => tracing::warn!(
                %digest,
                "a defect was not recorded in every repository in time: a check with repair records it"
            ),
        }
    }

    /// Reads the blob record again after a copy of `bytes` was created, if another request has recorded these bytes:
    /// the record may have changed meanwhile. `false`: the object has a defect.
    pub(super) async fn check_bytes_again(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        link_kind: LinkKind,
        bytes: &StoredBytes,
    ) -> Result<bool, StoreError> {
        match self.read_bytes(digest).await? {
            Some(row) if row.location == bytes.location && row.defect == bytes.defect => Ok(row.defect.is_none()),
            _ => {
                self.sync_object(repository, digest, link_kind).await?;
                let object = self.linked_object(repository, digest, link_kind).await?;
                Ok(object.is_none_or(|object| object.defect.is_none()))
            }
        }
    }

    pub(super) async fn replace_location(
        &self,
        digest: &Digest,
        old: &Location,
        new: &StoredBytes,
    ) -> Result<Option<Location>, StoreError> {
        let mut round = 0;
        while let Some(row) = self.read_bytes(digest).await? {
            if row.location != *old {
                return Ok(Some(row.location));
            }
            if self.replace(digest, old, new).await? {
                return Ok(Some(new.location.clone()));
            }
            self.main.lost_race(round).await?;
            round += 1;
        }
        Ok(None)
    }

    /// Changes the location in the blob record from `old` to that of `new`, and updates all copies. Schedules the
    /// deletion of the old object before the record stops naming it. `false`: the record does not name `old`.
    pub(super) async fn replace(&self, digest: &Digest, old: &Location, new: &StoredBytes) -> Result<bool, StoreError> {
        self.schedule_deletion(digest, old).await?;
        let mut set = location_values(&new.location);
        set.push((attributes::SIZE, Value::N(new.size)));
        let write = Write::Update {
            key: keys::blob(digest),
            set,
            remove: vec![attributes::DEFECT, attributes::MARK],
            condition: has_location(old),
        };
        let replaced = match self.main.write(&write).await? {
            WriteOutcome::Done => true,
            WriteOutcome::Refused { perhaps_done: false } => false,
            // Only this call has sealed an object at this location.
            WriteOutcome::Refused { perhaps_done: true } => {
                let row = self.read_bytes(digest).await?;
                row.is_some_and(|row| row.location == new.location)
            }
        };
        if replaced {
            self.sync_all(digest).await?;
        }
        Ok(replaced)
    }

    pub(super) async fn record_defect(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
        location: &Location,
        defect: Defect,
    ) -> Result<Option<Location>, StoreError> {
        let mut round = 0;
        let (row, is_new) = loop {
            let row = match self.read_bytes(digest).await? {
                Some(row) if row.location == *location && row.defect < Some(defect) => row,
                row => break (row, false),
            };
            let write = Write::Update {
                key: keys::blob(digest),
                set: vec![(attributes::DEFECT, Value::S(defect.as_str().to_owned()))],
                remove: Vec::new(),
                condition: has_location(location),
            };
            if self.main.write(&write).await?.is_done() {
                break (
                    Some(BlobRow {
                        defect: Some(defect),
                        ..row
                    }),
                    true,
                );
            }
            self.main.lost_race(round).await?;
            round += 1;
        };
        match repository {
            Some(repository) => {
                self.sync_object(repository, digest, LinkKind::Blob).await?;
                self.sync_object(repository, digest, LinkKind::Manifest).await?;
                if is_new {
                    self.sync_others(digest).await;
                }
            }
            None => self.sync_all(digest).await?,
        }
        let elsewhere = row.filter(|row| row.location != *location && row.defect.is_none());
        Ok(elsewhere.map(|row| row.location))
    }

    pub(super) async fn record_damaged_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        let mut round = 0;
        while let Some(row) = self.read_manifest(repository, digest).await? {
            match &row.record.content {
                Content::Inline(bytes) if Digest::of(digest.algorithm(), bytes) != *digest => {}
                // The call that recorded the damage may not have reached all tags.
                Content::Damaged(_) => break,
                _ => return Ok(()),
            }
            let write = Write::Update {
                key: keys::manifest(repository, digest),
                set: vec![(attributes::DEFECT, damaged_value())],
                remove: Vec::new(),
                // A put of the right bytes changes the version.
                condition: WriteCondition::All(vec![has_uid(row.record.uid), has_version(row.version)]),
            };
            if self.main.write(&write).await?.is_done() {
                break;
            }
            self.main.lost_race(round).await?;
            round += 1;
        }
        self.suspect_tags(repository, digest).await
    }

    /// Flags every tag of a damaged manifest, so that HEAD by tag also reads the manifest. A write of the tag clears
    /// the flag. A push of the manifest that does not change the tag keeps the flag, which costs each HEAD one more
    /// read.
    async fn suspect_tags(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let range = keys::all_tagged(repository, digest);
            let (items, more) = self.main.first(range, after, false, PAGE).await?;
            for some in items.chunks(AT_ONCE) {
                let writes = some.iter().filter_map(|item| match RecordKey::of(&item.key) {
                    Some(RecordKey::Tagged(_, _, tag)) => Some(Write::Update {
                        key: keys::tag(repository, &tag),
                        set: vec![(attributes::DEFECT, damaged_value())],
                        remove: Vec::new(),
                        condition: WriteCondition::Is(attributes::DIGEST, Value::S(digest.to_string())),
                    }),
                    _ => None,
                });
                let writes: Vec<Write> = writes.collect();
                try_join_all(writes.iter().map(|write| self.main.write(write))).await?;
            }
            after = items.last().map(|item| item.key.sort.clone());
            if !more {
                return Ok(());
            }
            self.main.in_time()?;
        }
    }

    pub(super) async fn clear_missing(&self, digest: &Digest, location: &Location) -> Result<(), StoreError> {
        let missing = Value::S(Defect::Missing.as_str().to_owned());
        let write = Write::Update {
            key: keys::blob(digest),
            set: Vec::new(),
            remove: vec![attributes::DEFECT],
            condition: WriteCondition::All(vec![
                has_location(location),
                WriteCondition::Is(attributes::DEFECT, missing),
            ]),
        };
        self.main.write(&write).await?;
        self.sync_all(digest).await
    }
}
