//! Orphans: objects to which no record, session or pending deletion refers.
//!
//! An object is referenced before it exists, and the reference moves in one direction: from its session to the record
//! of its digest, and from either to a pending deletion. So this walk reads records, sessions and pending deletions in
//! this order, and then all objects. For the objects that were not referenced, it reads the references again, in the
//! same order. An object that is still not referenced, and still exists after that, is an orphan. A damaged record may
//! have been the reference: while any record is damaged, no orphan is reported.

use std::collections::{HashMap, HashSet};

use oci::{Algorithm, Digest};

use super::finding::Finding;
use super::run::{CheckSetup, Event, Run};
use crate::store::blobs::StoredObject;
use crate::store::collection::PendingDeletion;
use crate::store::records::{Record, Unreadable};
use crate::store::sessions::{Session, SessionKey, State};
use crate::store::{Attempt, Cursor, Location, SessionId, Slice, StoreError, Timestamp};

/// Later than every time that a store can contain.
const NEVER: Timestamp = Timestamp(u64::MAX >> 1);

/// A fingerprint of a location, of 16 bytes.
type LocationFingerprint = [u8; 16];

fn fingerprint(location: &Location) -> LocationFingerprint {
    let text = format!("{}\0{}", location.store, location.key);
    let hash = Digest::of(Algorithm::Sha256, text.as_bytes());
    let mut fingerprint = [0; 16];
    for (to, from) in fingerprint.iter_mut().zip(hash.as_bytes()) {
        *to = *from;
    }
    fingerprint
}

/// The objects that are referenced.
#[derive(Debug, Default)]
pub(super) struct ReferencedObjects {
    /// Objects with a record, a session or a pending deletion that contains their location.
    locations: HashSet<LocationFingerprint>,
    /// The number of attempts of each session; their objects are referenced.
    attempts: HashMap<SessionId, u32>,
    /// Attempts with a pending deletion that includes everything that they have left.
    unfinished: HashSet<LocationFingerprint>,
    /// Something could not be read: there may be more references.
    incomplete: bool,
}

impl ReferencedObjects {
    fn add(&mut self, location: &Location) {
        self.locations.insert(fingerprint(location));
    }

    pub(super) fn add_record(&mut self, record: &Result<Record, Unreadable>) {
        match record {
            Ok(Record::Blob { location, .. }) => self.add(location),
            Ok(_) => {}
            Err(_) => self.incomplete = true,
        }
    }

    fn add_session(&mut self, key: SessionKey, session: &Session) {
        if let Some(publishing) = session.state.publishing() {
            self.add(&publishing.location);
        }
        // A session that is done has left no other object.
        if !matches!(session.state, State::Done(_)) {
            self.attempts.insert(key.id, session.attempts);
        }
    }

    fn add_pending_deletion(&mut self, pending_deletion: &PendingDeletion) {
        self.add(&pending_deletion.location);
        if pending_deletion.unfinished {
            self.unfinished.insert(fingerprint(&pending_deletion.location));
        }
    }

    fn contains(&self, location: &Location) -> bool {
        if self.locations.contains(&fingerprint(location)) {
            return true;
        }
        let Some((attempt, _)) = Attempt::of_key(&location.key) else {
            return false;
        };
        let attempts = self.attempts.get(&attempt.session);
        let unfinished = Location {
            store: location.store.clone(),
            key: attempt.to_string(),
        };
        attempts.is_some_and(|attempts| (1..=*attempts).contains(&attempt.number))
            || self.unfinished.contains(&fingerprint(&unfinished))
    }
}

impl CheckSetup<'_> {
    /// Adds the objects of all sessions. Returns the number of sessions.
    async fn add_sessions(&self, referenced: &mut ReferencedObjects) -> Result<u64, StoreError> {
        let limit = self.options.slice;
        let mut sessions = 0;
        let mut after = None;
        loop {
            let page = self.stores.sessions.expired(self.cx(), NEVER, after, limit).await?;
            let Some((last, _)) = page.last() else {
                return Ok(sessions);
            };
            after = Some(*last);
            sessions += page.len() as u64;
            for (key, session) in &page {
                referenced.add_session(*key, session);
            }
        }
    }

    /// Adds the objects of all pending deletions. Returns the number of pending deletions.
    async fn add_pending_deletions(&self, referenced: &mut ReferencedObjects) -> Result<u64, StoreError> {
        let limit = self.options.slice;
        let mut pending_deletions = 0;
        let mut next: Option<Cursor> = None;
        loop {
            let collection = &self.stores.collection;
            let slice = collection
                .pending_deletions(self.cx(), NEVER, next.as_ref(), limit)
                .await?;
            pending_deletions += slice.items.len() as u64;
            for pending_deletion in &slice.items {
                referenced.add_pending_deletion(pending_deletion);
            }
            next = slice.next;
            if next.is_none() {
                return Ok(pending_deletions);
            }
        }
    }

    async fn objects_after(&self, after: Option<&Cursor>) -> Result<Slice<StoredObject>, StoreError> {
        let limit = self.options.slice;
        self.stores.blobs.objects(self.cx(), after, limit).await
    }

    /// Reads all references again. `None`: something cannot be read.
    async fn read_again(&self) -> Result<Option<ReferencedObjects>, StoreError> {
        let mut referenced = ReferencedObjects::default();
        let mut next = None;
        loop {
            let limit = self.options.slice;
            let slice = self.stores.records.walk(self.cx(), next.as_ref(), limit).await?;
            for record in &slice.items {
                referenced.add_record(record);
            }
            next = slice.next;
            if next.is_none() {
                break;
            }
        }
        self.add_sessions(&mut referenced).await?;
        self.add_pending_deletions(&mut referenced).await?;
        Ok((!referenced.incomplete).then_some(referenced))
    }
}

impl Run<'_> {
    /// Turns damage that ended a walk into a finding, and notes that references may be missing.
    fn or_damaged(
        &mut self,
        count: Result<u64, StoreError>,
        what: &str,
        referenced: &mut ReferencedObjects,
    ) -> Result<u64, StoreError> {
        match count {
            Err(error) if error.damage().is_some() => {
                referenced.incomplete = true;
                self.found(&Finding::Damaged {
                    record: what.to_owned(),
                    reason: error.to_string(),
                });
                Ok(0)
            }
            count => count,
        }
    }

    /// Looks for orphans. `referenced` has the objects to which records refer.
    pub(super) async fn objects(&mut self, mut referenced: ReferencedObjects) -> Result<(), StoreError> {
        let sessions = self.setup.add_sessions(&mut referenced).await;
        self.summary.sessions = self.or_damaged(sessions, "upload sessions", &mut referenced)?;
        let pending_deletions = self.setup.add_pending_deletions(&mut referenced).await;
        self.summary.pending_deletions = self.or_damaged(pending_deletions, "deletion queue", &mut referenced)?;
        let mut suspects: HashSet<LocationFingerprint> = HashSet::new();
        let mut next = None;
        loop {
            let slice = self.setup.objects_after(next.as_ref()).await?;
            for stored in slice.items {
                self.summary.objects += 1;
                self.summary.object_bytes += stored.size;
                if !referenced.contains(&stored.location) {
                    suspects.insert(fingerprint(&stored.location));
                }
            }
            (self.report)(Event::Progress(&self.summary));
            next = slice.next;
            if next.is_none() {
                break;
            }
        }
        let is_known = !referenced.incomplete;
        drop(referenced);
        if suspects.is_empty() || !is_known {
            return Ok(());
        }
        let Some(referenced) = self.setup.read_again().await? else {
            return Ok(());
        };
        loop {
            let slice = self.setup.objects_after(next.as_ref()).await?;
            for StoredObject { location, size } in slice.items {
                if suspects.remove(&fingerprint(&location)) && !referenced.contains(&location) {
                    self.found(&Finding::Orphan { location, size });
                }
            }
            next = slice.next;
            if next.is_none() || suspects.is_empty() {
                return Ok(());
            }
        }
    }
}
