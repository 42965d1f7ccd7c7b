//! Orphans: objects without a record.
//!
//! A row refers to an object before the object exists. Later other rows do: first that of the session, then the record of
//! the blob, and after either of them a pending deletion. So a check reads records, sessions and pending deletions in this
//! order. If none of them refers to an object that the store lists, the check reads them once more in the same order. If
//! again none of them refers to the object, and the store still has it, it is an orphan. A damaged record may have referred
//! to an object: so no orphans are reported while anything is damaged.

use std::collections::{HashMap, HashSet};

use oci::{Algorithm, Digest};

use super::finding::Finding;
use super::run::{Event, Over, Run};
use crate::store::blobs::Stored;
use crate::store::collection::PendingDeletion;
use crate::store::records::{Record, Unreadable};
use crate::store::sessions::{Attempt, Session, SessionId, SessionKey, State};
use crate::store::{Cursor, Location, Slice, StoreError, Timestamp};

/// After every moment that a store can hold.
const NEVER: Timestamp = Timestamp(u64::MAX >> 1);

/// 16 bytes by which a location is known again.
type Print = [u8; 16];

fn print(location: &Location) -> Print {
    let text = format!("{}\0{}", location.store, location.key);
    let hash = Digest::of(Algorithm::Sha256, text.as_bytes());
    let mut print = [0; 16];
    for (to, from) in print.iter_mut().zip(hash.as_bytes()) {
        *to = *from;
    }
    print
}

/// The names that objects have.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// By their whole key.
    exactly: HashSet<Print>,
    /// As one of so many attempts of a session.
    attempts: HashMap<SessionId, u32>,
    /// By the beginning of their key: attempts that are in the graveyard with all that they have left.
    begun: HashSet<Print>,
    /// Something could not be read: there may be more names than these.
    incomplete: bool,
}

impl Named {
    fn add(&mut self, location: &Location) {
        self.exactly.insert(print(location));
    }

    pub(super) fn add_record(&mut self, record: &Result<Record, Unreadable>) {
        match record {
            Ok(Record::Blob { location, .. }) => self.add(location),
            Ok(_) => {}
            Err(_) => self.incomplete = true,
        }
    }

    fn add_session(&mut self, key: SessionKey, session: &Session) {
        if let Some(publishing) = &session.publishing {
            self.add(&publishing.location);
        }
        // A session that is done was freed of everything else.
        if session.state != State::Done {
            self.attempts.insert(key.id, session.attempts);
        }
    }

    fn add_pending_deletion(&mut self, pending_deletion: &PendingDeletion) {
        self.add(&pending_deletion.location);
        if pending_deletion.unfinished {
            self.begun.insert(print(&pending_deletion.location));
        }
    }

    fn contains(&self, location: &Location) -> bool {
        if self.exactly.contains(&print(location)) {
            return true;
        }
        let Some((attempt, _)) = Attempt::of_key(&location.key) else {
            return false;
        };
        let attempts = self.attempts.get(&attempt.session);
        let begun = Location {
            store: location.store.clone(),
            key: attempt.to_string(),
        };
        attempts.is_some_and(|attempts| (1..=*attempts).contains(&attempt.number))
            || self.begun.contains(&print(&begun))
    }
}

impl Over<'_> {
    /// All sessions, on top of what is named already. How many there are.
    async fn name_sessions(&self, named: &mut Named) -> Result<u64, StoreError> {
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
                named.add_session(*key, session);
            }
        }
    }

    /// All graves, on top of what is named already. How many there are.
    async fn name_pending_deletions(&self, named: &mut Named) -> Result<u64, StoreError> {
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
                named.add_pending_deletion(pending_deletion);
            }
            next = slice.next;
            if next.is_none() {
                return Ok(pending_deletions);
            }
        }
    }

    async fn objects_after(&self, after: Option<&Cursor>) -> Result<Slice<Stored>, StoreError> {
        let limit = self.options.slice;
        self.stores.blobs.objects(self.cx(), after, limit).await
    }

    /// The names of everything once more. `None`: not everything can be read.
    async fn name_again(&self) -> Result<Option<Named>, StoreError> {
        let mut named = Named::default();
        let mut next = None;
        loop {
            let limit = self.options.slice;
            let slice = self.stores.records.walk(self.cx(), next.as_ref(), limit).await?;
            for record in &slice.items {
                named.add_record(record);
            }
            next = slice.next;
            if next.is_none() {
                break;
            }
        }
        self.name_sessions(&mut named).await?;
        self.name_pending_deletions(&mut named).await?;
        Ok((!named.incomplete).then_some(named))
    }
}

impl Run<'_> {
    /// What could not be read to its end because of a damage is told, and named incompletely.
    fn or_damaged(&mut self, count: Result<u64, StoreError>, what: &str, named: &mut Named) -> Result<u64, StoreError> {
        match count {
            Err(error) if error.damage().is_some() => {
                named.incomplete = true;
                self.found(&Finding::Damaged {
                    record: what.to_owned(),
                    reason: error.to_string(),
                });
                Ok(0)
            }
            count => count,
        }
    }

    /// Looks for objects that nothing names; `named` is what records of bytes name.
    pub(super) async fn objects(&mut self, mut named: Named) -> Result<(), StoreError> {
        let sessions = self.over.name_sessions(&mut named).await;
        self.summary.sessions = self.or_damaged(sessions, "upload sessions", &mut named)?;
        let pending_deletions = self.over.name_pending_deletions(&mut named).await;
        self.summary.pending_deletions = self.or_damaged(pending_deletions, "graveyard", &mut named)?;
        let mut suspects: HashSet<Print> = HashSet::new();
        let mut next = None;
        loop {
            let slice = self.over.objects_after(next.as_ref()).await?;
            for stored in slice.items {
                self.summary.objects += 1;
                self.summary.object_bytes += stored.size;
                if !named.contains(&stored.location) {
                    suspects.insert(print(&stored.location));
                }
            }
            (self.tell)(Event::Progress(&self.summary));
            next = slice.next;
            if next.is_none() {
                break;
            }
        }
        let is_known = !named.incomplete;
        drop(named);
        if suspects.is_empty() || !is_known {
            return Ok(());
        }
        let Some(named) = self.over.name_again().await? else {
            return Ok(());
        };
        loop {
            let slice = self.over.objects_after(next.as_ref()).await?;
            for Stored { location, size } in slice.items {
                if suspects.remove(&print(&location)) && !named.contains(&location) {
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
