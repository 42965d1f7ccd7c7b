//! Manifests: a put claims what the manifest refers to, looks at it, and publishes all at once.
//!
//! The claims are the edges. They are written before anything that they point to is read, and nothing is removed but
//! by somebody who has marked it and then found no edge: what a put finds present and unmarked is held by its edge
//! from then on, and what it finds marked it unmarks, which the remover notices. Only then does one transaction make
//! the manifest and its tags visible.
//!
//! A put that is cut off leaves edges of a life that never began. They stop to count after
//! [`YOUNG_MS`](registry::store::collection::YOUNG_MS), far behind the deadline of any put.

use std::collections::BTreeSet;

use oci::{Digest, Tag};
use registry::store::metadata::{Content, ManifestPut, ManifestRecord, NewContent, PutManifest};
use registry::store::{Location, StoreError, Uid};

use super::StoreCall;
use super::commit::{StoredBytes, has_uid, unmark};
use super::tags::{self, ReadTag, TagTarget};
use crate::keys;
use crate::mutation::{Mutation, active};
use crate::records::{
    EdgeRow, ItemFields, LinkKind, ListedRow, ManifestRow, ReferenceList, ReferencesRow, ReferrerRow, attributes,
};
use crate::table::{BATCH_READS, Item, ItemKey, Value, Write, WriteCondition, Written};

/// What a transaction met.
enum PublishOutcome {
    /// Everything is visible.
    Done,
    /// The manifest is not as it was read.
    ManifestChanged {
        /// A try was not answered, and may still be done when nobody expects it: what it relies on must stay.
        perhaps_late: bool,
    },
}

/// What a life of a manifest has written before it is published.
struct Claims {
    uid: Uid,
    items: Vec<Item>,
}

/// Whether the bytes of a manifest that is there are known to be lost, and this put does not bring them where they belong.
fn cannot_repair(put: &PutManifest, row: &ManifestRow) -> bool {
    match row.record.content {
        Content::Defective(..) => !matches!(put.content, NewContent::Sealed(_)),
        Content::Damaged(_) => !matches!(put.content, NewContent::Inline(_)),
        Content::Inline(_) | Content::Stored(_) => false,
    }
}

/// The bytes that are put, if the record has others, or another size: the former have the digest, so that the record is
/// damaged.
fn repairing_bytes<'a>(put: &'a PutManifest, row: &ManifestRow) -> Option<&'a bytes::Bytes> {
    match (&put.content, &row.record.content) {
        (NewContent::Inline(repair), Content::Inline(recorded))
            if repair != recorded || row.record.size != repair.len() as u64 =>
        {
            Some(repair)
        }
        (NewContent::Inline(repair), Content::Damaged(_)) => Some(repair),
        _ => None,
    }
}

impl StoreCall<'_> {
    pub(super) async fn put_manifest(&self, put: &PutManifest) -> Result<ManifestPut, StoreError> {
        let wanted: BTreeSet<&Tag> = put.tags.iter().collect();
        let key = keys::manifest(&put.repository, &put.digest);
        let mut round = 0;
        loop {
            let mut keys = tags::keys_of(&put.repository, wanted.iter().copied());
            keys.insert(key.clone());
            let items = self.main.get_all(&keys).await?;
            let seen = wanted.iter().map(|tag| ReadTag::among(&items, &put.repository, tag));
            let seen = seen.collect::<Result<Vec<_>, _>>()?;
            let outcome = match items.get(&key).map(ManifestRow::read).transpose()? {
                Some(row) if cannot_repair(put, &row) => Some(ManifestPut::Gone),
                Some(row) => self.put_again(put, &row, seen).await?,
                None if put.content == NewContent::Unchanged => Some(ManifestPut::Gone),
                None => self.put_new(put, seen, self.uid(round)).await?,
            };
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
            self.main.lost_race(u32::try_from(round).unwrap_or(u32::MAX)).await?;
            round += 1;
        }
    }

    /// Moves and adds tags of a manifest that is there. `None`: it is not there any more, or in another life.
    async fn put_again(
        &self,
        put: &PutManifest,
        row: &ManifestRow,
        seen: Vec<ReadTag>,
    ) -> Result<Option<ManifestPut>, StoreError> {
        if row.record.media_type != put.media_type {
            return Ok(Some(ManifestPut::OtherType(row.record.media_type.clone())));
        }
        let repair = repairing_bytes(put, row);
        // With one tag or none, the moment at which it was read is one at which all was as it is asked for. Otherwise
        // the transaction says so, and whoever is about to remove the manifest must be told that it was put again.
        let as_wanted =
            repair.is_none() && row.mark.is_none() && seen.len() <= 1 && seen.iter().all(|tag| tag.names(&put.digest));
        if !as_wanted {
            let mut set = vec![(attributes::VERSION, Value::N(row.version.saturating_add(1)))];
            if let Some(bytes) = repair {
                set.push((attributes::CONTENT, Value::B(bytes.clone())));
                set.push((attributes::SIZE, Value::N(bytes.len() as u64)));
            }
            let again = Write::Update {
                key: keys::manifest(&put.repository, &put.digest),
                set,
                remove: [Some(attributes::MARK), repair.map(|_| attributes::DEFECT)]
                    .into_iter()
                    .flatten()
                    .collect(),
                condition: has_uid(row.record.uid),
            };
            if let PublishOutcome::ManifestChanged { .. } = self.publish(put, vec![again], &row.record, seen).await? {
                return Ok(None);
            }
        }
        if let NewContent::Sealed(location) = &put.content {
            return self.offer_again(put, row, location).await;
        }
        Ok(Some(if as_wanted {
            ManifestPut::AsItWas
        } else {
            ManifestPut::Stored
        }))
    }

    /// What becomes of an object that was sealed for a manifest that is there: the bytes are the same, so it is of use
    /// only if those that are there are lost. `None`: the manifest is not there any more.
    async fn offer_again(
        &self,
        put: &PutManifest,
        row: &ManifestRow,
        location: &Location,
    ) -> Result<Option<ManifestPut>, StoreError> {
        let (repository, digest) = (&put.repository, &put.digest);
        let Some(kept) = row.record.content.object() else {
            self.schedule_deletion(digest, location).await?;
            return Ok(Some(ManifestPut::Stored));
        };
        if kept == location {
            return Ok(Some(ManifestPut::Stored));
        }
        // The manifest's own back-link is its claim.
        let offered = StoredBytes::sealed(location, put.size);
        let Some(bytes) = self.find_or_record_bytes(digest, Some(&offered)).await? else {
            return Ok(None);
        };
        self.sync_object(repository, digest, LinkKind::Manifest).await?;
        if bytes.location == *location {
            return Ok(Some(ManifestPut::Stored));
        }
        self.schedule_deletion(digest, location).await?;
        Ok(Some(ManifestPut::StoredElsewhere(bytes.location)))
    }

    /// Begins a life of the manifest. `None`: an identical put was first.
    async fn put_new(
        &self,
        put: &PutManifest,
        seen: Vec<ReadTag>,
        uid: Uid,
    ) -> Result<Option<ManifestPut>, StoreError> {
        let digests: Vec<Digest> = put.required.union(&put.excepted).copied().collect();
        let claims = self.claims(put, &digests, uid);
        let missing = if active(Mutation::LookBeforeEdges) {
            let missing = self.missing(put).await?;
            self.write_claims(&claims).await?;
            missing
        } else {
            self.write_claims(&claims).await?;
            self.missing(put).await?
        };
        if !missing.is_empty() {
            self.drop_claims(put, &claims, None).await;
            return Ok(Some(ManifestPut::Missing(missing)));
        }
        // The bytes of a large manifest are claimed last, so that one that is refused leaves no location.
        let (content, claimed) = match &put.content {
            NewContent::Inline(bytes) => (Content::Inline(bytes.clone()), None),
            NewContent::Sealed(location) => {
                let bytes = self.claim_manifest_bytes(put, location, uid).await?;
                (bytes.content(), Some(bytes))
            }
            NewContent::Unchanged => return Ok(Some(ManifestPut::Gone)),
        };
        self.keep_listed(&put.repository, Some(self.cx.now)).await?;

        let references = ReferenceList::of(&digests);
        let row = ManifestRow {
            record: ManifestRecord {
                media_type: put.media_type.clone(),
                size: put.size,
                content,
                subject: put.subject.as_ref().map(|(subject, _)| *subject),
                artifact_type: put.artifact_type.clone(),
                uid,
            },
            at: self.cx.now,
            version: 0,
            references,
            mark: None,
        };
        let publication = self.publication(put, &row)?;
        match self.publish(put, publication, &row.record, seen).await? {
            PublishOutcome::Done => {}
            PublishOutcome::ManifestChanged { perhaps_late } => {
                if !perhaps_late {
                    self.drop_claims(put, &claims, Some(&row.record.content)).await;
                }
                return Ok(None);
            }
        }
        if let (NewContent::Sealed(offered), Some(bytes)) = (&put.content, claimed)
            && !bytes.are_as_sealed(offered)
        {
            if bytes.location != *offered {
                self.schedule_deletion(&put.digest, offered).await?;
            }
            self.check_bytes_again(&put.repository, &put.digest, LinkKind::Manifest, &bytes)
                .await?;
            if bytes.location != *offered {
                return Ok(Some(ManifestPut::StoredElsewhere(bytes.location)));
            }
        }
        Ok(Some(ManifestPut::Stored))
    }

    /// What a new life writes before it looks: its edges, and the list of them if that is kept apart.
    fn claims(&self, put: &PutManifest, digests: &[Digest], uid: Uid) -> Claims {
        let edges = digests.iter().map(|target| {
            let edge = EdgeRow {
                target: *target,
                parent: put.digest,
                uid,
                at: self.cx.now,
            };
            edge.item(&put.repository)
        });
        let mut items: Vec<Item> = edges.collect();
        if let ReferenceList::Separate(_) = ReferenceList::of(digests) {
            let (repository, digest) = (&put.repository, &put.digest);
            items.extend(ReferencesRow::all(repository, digest, uid, digests, self.cx.now));
        }
        Claims { uid, items }
    }

    async fn write_claims(&self, claims: &Claims) -> Result<(), StoreError> {
        let writes = claims.items.iter().map(|item| Write::Put {
            item: item.clone(),
            condition: WriteCondition::Always,
        });
        self.main.write_all(&writes.collect::<Vec<_>>()).await
    }

    /// Takes back what a life that did not begin has written. What cannot be taken back now belongs to nothing, soon
    /// counts no more, and is collected; the answer to the client does not depend on it.
    async fn drop_claims(&self, put: &PutManifest, claims: &Claims, content: Option<&Content>) {
        let drops = claims.items.iter().map(|item| item.key.clone());
        let back_link = keys::back_link(&put.digest, &put.repository, claims.uid);
        let back_link = content
            .is_some_and(|content| content.object().is_some())
            .then_some(back_link);
        let drops = drops.chain(back_link).map(Write::delete);
        if let Err(error) = self.main.write_all(&drops.collect::<Vec<_>>()).await {
            tracing::warn!(%error, "edges of a manifest that was not published are left to collection");
        }
    }

    /// The required digests that are not in the repository, neither as a blob nor as a manifest. What is there and
    /// marked is unmarked.
    async fn missing(&self, put: &PutManifest) -> Result<Vec<Digest>, StoreError> {
        type KeyFunction = fn(&oci::RepositoryName, &Digest) -> ItemKey;
        // Either key_of will do. The likely one first, so that each reference costs one read.
        let key_functions: [KeyFunction; 2] = if put.media_type.is_index() {
            [keys::manifest, keys::link]
        } else {
            [keys::link, keys::manifest]
        };
        let mut open: Vec<Digest> = put.required.iter().copied().collect();
        for key_of in key_functions {
            let mut absent = Vec::new();
            // In pieces: manifests come with their bytes.
            for some in open.chunks(2 * BATCH_READS) {
                let keys = some.iter().map(|digest| key_of(&put.repository, digest));
                let found = self.main.get_all(&keys.collect()).await?;
                for digest in some {
                    if !self.is_kept(found.get(&key_of(&put.repository, digest))).await? {
                        absent.push(*digest);
                    }
                }
            }
            open = absent;
        }
        Ok(open)
    }

    /// Whether something that was looked at is there and stays.
    async fn is_kept(&self, item: Option<&Item>) -> Result<bool, StoreError> {
        match item {
            None => Ok(false),
            // It is there, and cannot be pulled.
            Some(item) if ItemFields(item).flag(attributes::DEFECT) => Ok(false),
            Some(item) if !ItemFields(item).flag(attributes::MARK) || active(Mutation::IgnoreMarks) => Ok(true),
            // Whichever life of it there is by now: the edge holds it.
            Some(item) => {
                let kept = unmark(item.key.clone(), WriteCondition::Exists);
                Ok(self.main.write(&kept).await?.is_done())
            }
        }
    }

    async fn claim_manifest_bytes(
        &self,
        put: &PutManifest,
        location: &Location,
        uid: Uid,
    ) -> Result<StoredBytes, StoreError> {
        let offered = StoredBytes::sealed(location, put.size);
        let link_kind = LinkKind::Manifest;
        self.claim_bytes(&put.repository, &put.digest, link_kind, uid, offered)
            .await
    }

    /// What makes a new manifest visible.
    fn publication(&self, put: &PutManifest, row: &ManifestRow) -> Result<Vec<Write>, StoreError> {
        let listed = ListedRow {
            at: self.cx.now,
            size: put.size,
        };
        let mut writes = vec![
            Write::Put {
                item: row.item(&put.repository, &put.digest),
                condition: WriteCondition::Absent,
            },
            Write::Put {
                item: listed.item(&put.repository, &put.digest),
                condition: WriteCondition::Always,
            },
        ];
        if let Some((subject, referrer)) = &put.subject {
            writes.push(Write::Put {
                item: ReferrerRow::item(&put.repository, subject, referrer)?,
                condition: WriteCondition::Always,
            });
        }
        Ok(writes)
    }

    /// One transaction of what changes the manifest, whose first write is on the manifest itself, and of its tags. A
    /// tag that somebody else has changed is read again, and changed on top of that.
    async fn publish(
        &self,
        put: &PutManifest,
        of_manifest: Vec<Write>,
        record: &ManifestRecord,
        mut seen: Vec<ReadTag>,
    ) -> Result<PublishOutcome, StoreError> {
        // The type for ever is that of the first put, and every later one has the same.
        let target = TagTarget {
            digest: &put.digest,
            media_type: &record.media_type,
            size: record.size,
        };
        let mut perhaps_late = false;
        let mut round = 0;
        loop {
            let mut writes = of_manifest.clone();
            for tag in &seen {
                writes.extend(tag.naming(self.cx, &put.repository, target, &put.who));
            }
            let (written, unanswered) = self.main.transact_once(&writes).await?;
            perhaps_late |= unanswered;
            match written {
                Written::Done => return Ok(PublishOutcome::Done),
                Written::Refused(which) if which.contains(&0) => {
                    return Ok(PublishOutcome::ManifestChanged { perhaps_late });
                }
                Written::Refused(_) => {}
            }
            self.main.lost_race(round).await?;
            round += 1;
            let tags: BTreeSet<&Tag> = put.tags.iter().collect();
            seen = self.see_tags(&put.repository, tags).await?;
        }
    }
}
