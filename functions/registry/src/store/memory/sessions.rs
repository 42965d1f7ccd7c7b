//! Upload sessions in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Mutex;

use async_trait::async_trait;

use super::lock;
use crate::store::sessions::{
    Cancelled, Claim, Claimed, End, Expected, Progress, Publishing, Session, SessionKey, SessionStore, SigningKey,
    State,
};
use crate::store::{Attempt, Context, StoreError, Timestamp};

/// A store of upload sessions and signing keys in memory.
#[derive(Debug, Default)]
pub struct MemorySessions {
    records: Mutex<SessionRecords>,
}

#[derive(Debug, Default)]
struct SessionRecords {
    sessions: BTreeMap<SessionKey, MemorySession>,
    keys: Vec<SigningKey>,
}

#[derive(Debug)]
struct MemorySession {
    session: Session,
    parts: Vec<Vec<u8>>,
}

impl MemorySessions {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of rows, in every state.
    #[must_use]
    pub fn sessions(&self) -> usize {
        lock(&self.records).sessions.len()
    }
}

impl MemorySessions {
    /// Removes a session if it is still as given, and calls `end` in the same transaction. `None`: the session has
    /// changed, or does not exist.
    pub(super) fn remove<T>(&self, key: SessionKey, session: &Session, end: impl FnOnce() -> T) -> Option<T> {
        let mut records = lock(&self.records);
        records.sessions.get(&key).filter(|row| row.session == *session)?;
        let ended = end();
        records.sessions.remove(&key);
        Some(ended)
    }
}

impl SessionRecords {
    /// The row, if `claim` is still valid: no other request has claimed or ended the session since.
    fn held(&mut self, claim: &Claim) -> Option<&mut MemorySession> {
        self.sessions
            .get_mut(&claim.key)
            .filter(|row| row.session.is_open() && row.session.version == claim.version)
    }
}

impl MemorySession {
    fn new() -> Self {
        Self {
            session: Session {
                version: 0,
                state: State::UNCLAIMED,
                attempts: 0,
                progress: Progress::default(),
            },
            parts: Vec::new(),
        }
    }

    /// Changes the state, so that all copies of a claim are lost.
    fn change(&mut self, state: State) {
        self.session.state = state;
        self.session.version += 1;
    }
}

#[async_trait]
impl SessionStore for MemorySessions {
    async fn get(&self, _cx: Context, key: SessionKey) -> Result<Option<Session>, StoreError> {
        let records = lock(&self.records);
        Ok(records.sessions.get(&key).map(|row| row.session.clone()))
    }

    async fn claim(
        &self,
        cx: Context,
        key: SessionKey,
        _expected: Expected,
        until: Timestamp,
        max_attempts: u32,
    ) -> Result<Claimed, StoreError> {
        let mut records = lock(&self.records);
        let session = &mut records.sessions.entry(key).or_insert_with(MemorySession::new).session;
        if !session.is_open() {
            return Ok(Claimed::Ended(session.clone()));
        }
        if session.is_claimed(cx.now) {
            return Ok(Claimed::Busy(session.clone()));
        }
        if session.attempts >= max_attempts {
            return Ok(Claimed::AttemptsExhausted(session.clone()));
        }
        session.version += 1;
        session.attempts += 1;
        session.state = State::Open {
            claimed_until: Some(until),
        };
        Ok(Claimed::Granted(Claim {
            key,
            attempt: Attempt {
                session: key.id,
                number: session.attempts,
            },
            version: session.version,
            progress: session.progress.clone(),
        }))
    }

    async fn renew(&self, _cx: Context, claim: &Claim, until: Timestamp) -> Result<bool, StoreError> {
        let mut records = lock(&self.records);
        let Some(row) = records.held(claim) else {
            return Ok(false);
        };
        row.session.state = State::Open {
            claimed_until: Some(until),
        };
        Ok(true)
    }

    async fn save(
        &self,
        _cx: Context,
        claim: &Claim,
        progress: Progress,
        part: Option<Vec<u8>>,
    ) -> Result<bool, StoreError> {
        let mut records = lock(&self.records);
        let Some(row) = records.held(claim) else {
            return Ok(false);
        };
        let added = u32::from(part.is_some());
        let parts = row.session.progress.parts + added;
        row.parts.extend(part);
        row.session.progress = Progress { parts, ..progress };
        row.change(State::UNCLAIMED);
        Ok(true)
    }

    async fn release(&self, _cx: Context, claim: &Claim) -> Result<(), StoreError> {
        if let Some(row) = lock(&self.records).held(claim) {
            row.change(State::UNCLAIMED);
        }
        Ok(())
    }

    async fn parts(&self, _cx: Context, key: SessionKey) -> Result<Vec<Vec<u8>>, StoreError> {
        let records = lock(&self.records);
        Ok(records
            .sessions
            .get(&key)
            .map(|row| row.parts.clone())
            .unwrap_or_default())
    }

    async fn commit(&self, _cx: Context, claim: &Claim, publishing: &Publishing) -> Result<bool, StoreError> {
        let mut records = lock(&self.records);
        let Some(row) = records.held(claim) else {
            return Ok(false);
        };
        row.change(State::Committing(publishing.clone()));
        Ok(true)
    }

    async fn finish(&self, _cx: Context, claim: &Claim, end: End) -> Result<(), StoreError> {
        let mut records = lock(&self.records);
        let committing = |row: &MemorySession| {
            // No request can claim a committing session, so the last attempt is that of the committing request.
            matches!(row.session.state, State::Committing(_)) && row.session.attempts == claim.attempt.number
        };
        let row = if records.sessions.get(&claim.key).is_some_and(committing) {
            records.sessions.get_mut(&claim.key)
        } else {
            records.held(claim)
        };
        if let Some(row) = row
            && let Some(state) = row.session.state.finished(end)
        {
            row.change(state);
        }
        Ok(())
    }

    async fn finish_committing(&self, _cx: Context, key: SessionKey, end: End) -> Result<(), StoreError> {
        let mut records = lock(&self.records);
        let row = records.sessions.get_mut(&key);
        if let Some(row) = row.filter(|row| matches!(row.session.state, State::Committing(_)))
            && let Some(state) = row.session.state.finished(end)
        {
            row.change(state);
        }
        Ok(())
    }

    async fn cancel(&self, _cx: Context, key: SessionKey) -> Result<Cancelled, StoreError> {
        let mut records = lock(&self.records);
        let before = records.sessions.get(&key).map(|row| row.session.clone());
        if before.as_ref().is_some_and(|session| !session.is_open()) {
            return Ok(Cancelled::Ended);
        }
        let row = records.sessions.entry(key).or_insert_with(MemorySession::new);
        row.change(State::Cancelled(None));
        Ok(Cancelled::Now(before))
    }

    async fn expired(
        &self,
        _cx: Context,
        before: Timestamp,
        after: Option<SessionKey>,
        limit: usize,
    ) -> Result<Vec<(SessionKey, Session)>, StoreError> {
        let records = lock(&self.records);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(records
            .sessions
            .range((from, Bound::Unbounded))
            .take_while(|(key, _)| key.expires < before)
            .take(limit)
            .map(|(key, row)| (*key, row.session.clone()))
            .collect())
    }

    async fn signing_keys(&self, _cx: Context, candidate: SigningKey) -> Result<Vec<SigningKey>, StoreError> {
        let keys = &mut lock(&self.records).keys;
        if keys.is_empty() {
            keys.push(candidate);
        }
        // The keys are stored oldest first.
        Ok(keys.iter().rev().cloned().collect())
    }
}
