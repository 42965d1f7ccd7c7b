//! In what condition the stores are: what every call of a server asks before it goes to them, and what `/readyz`, the
//! log and the metrics tell of it.
//!
//! Some of it is looked at (the local files, the space, the clock), some is learnt from the calls themselves: what only
//! a write can tell, a refused write tells, and it counts until one succeeds.

mod guard;
mod refused;
mod steps;
#[cfg(test)]
mod tests;
mod time;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
#[cfg(feature = "native")]
use std::time::Duration;

use registry::Stores;
use registry::store::wrapped::{CallEnd, Wrapped};
use registry::store::{Reason, StoreError};

use self::guard::ConditionGuard;
use self::refused::RefusedWrites;
use self::steps::{PushStep, StoreKind};
pub use self::time::TimeService;
use crate::probe::LocalFiles;

/// How often the local files are looked at.
#[cfg(feature = "native")]
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is known of the stores of a server. Clones share it. The default one has no stores to look at, and lets nothing
/// through until [`Condition::admit`].
#[derive(Clone, Debug, Default)]
pub struct Condition(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Whether the stores were looked at, and may be used.
    admitted: AtomicBool,
    /// What that waits for, if it is not the metadata.
    awaited: Mutex<Option<Reason>>,
    services: Vec<TimeService>,
    files: Vec<Arc<dyn LocalFiles>>,
    /// What the last look at the local files has found.
    found: Mutex<LocalLook>,
    refused: RefusedWrites,
}

#[derive(Clone, Debug, Default)]
struct LocalLook {
    replaced: Option<String>,
    not_writable: Option<String>,
}

/// What a condition is made of.
#[derive(Debug, Default)]
pub struct ConditionParts {
    /// Services that tell the time.
    pub services: Vec<TimeService>,
    /// Files and directories of this host that are open.
    pub files: Vec<Arc<dyn LocalFiles>>,
}

impl Condition {
    /// Nothing may be asked of the stores until [`Condition::admit`].
    #[must_use]
    pub fn of(parts: ConditionParts) -> Self {
        let ConditionParts { services, files } = parts;
        Self(Arc::new(Inner {
            services,
            files,
            ..Inner::default()
        }))
    }

    /// From now on the stores may be used.
    pub fn admit(&self) {
        self.0.admitted.store(true, Ordering::Release);
    }

    /// They may not yet, for this reason.
    pub fn await_store(&self, reason: Reason) {
        *self.0.awaited.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// Whether anything may be asked of the stores.
    pub fn may_read(&self) -> Result<(), StoreError> {
        if self.0.admitted.load(Ordering::Acquire) {
            return Ok(());
        }
        let awaited = *self.0.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        Err(StoreError::because(
            awaited.unwrap_or(Reason::MetadataUnreachable),
            "the stores were not all reached yet since the start",
        ))
    }

    /// Whether anything may be changed: not with a wrong clock, nor in a store that is not the one at its place.
    pub fn may_change(&self) -> Result<(), StoreError> {
        self.may_read()?;
        self.is_clock_right()?;
        self.is_in_place()
    }

    /// Whether the local store is the one that was opened.
    pub fn is_in_place(&self) -> Result<(), StoreError> {
        match &self.found().replaced {
            Some(text) => Err(StoreError::because(Reason::StoreReplaced, text.clone())),
            None => Ok(()),
        }
    }

    /// Whether there is space for something new.
    fn may_store(&self) -> Result<(), StoreError> {
        self.may_change()?;
        self.has_space()
    }

    /// Whether the last looks have found as much space as is to stay free.
    fn has_space(&self) -> Result<(), StoreError> {
        self.0.files.iter().try_for_each(|files| files.check_space())
    }

    /// Why pushes would be refused, as far as it is known without pushing; in fixed words and the store's own.
    #[must_use]
    pub fn push_blocks(&self) -> BTreeMap<Reason, String> {
        let mut blocks = BTreeMap::new();
        if let Err(error) = self.may_store() {
            blocks.insert(error.reason(), error.to_string());
        }
        if let Some(text) = &self.found().not_writable {
            blocks.insert(Reason::NotWritable, text.clone());
        }
        let files = &self.0.files;
        let has_space = !files.is_empty() && files.iter().all(|files| files.is_above_floor());
        self.0.refused.add_to(&mut blocks, has_space);
        blocks
    }

    /// Looks at the local files and the space, and says what has changed. Blocks for as long as the disk takes.
    pub fn look(&self) {
        self.0.files.iter().for_each(|files| files.refresh_space());
        if self.has_space().is_err() {
            self.0.refused.below_floor();
        }
        let text = |outcome: Result<(), StoreError>| outcome.err().map(|error| error.cause().to_string());
        let files = &self.0.files;
        let now = LocalLook {
            replaced: text(files.iter().try_for_each(|files| files.check_in_place())),
            not_writable: text(files.iter().try_for_each(|files| files.check_writable())),
        };
        let before = std::mem::replace(&mut *self.found(), now.clone());
        match (before.replaced, now.replaced) {
            (None, Some(error)) => tracing::error!(error, "the store was removed or replaced: every write is refused"),
            (Some(_), None) => tracing::info!("the store is the one that was opened again: writes are taken"),
            _ => {}
        }
        match (before.not_writable, now.not_writable) {
            (None, Some(error)) => tracing::error!(error, "the store cannot be written: pushes are refused"),
            (Some(_), None) => tracing::info!("the store can be written again"),
            _ => {}
        }
    }

    /// Looks at the local files, the space and a wrong clock from time to time, for as long as the process runs.
    #[cfg(feature = "native")]
    pub fn watch(&self) {
        self.watch_time();
        if self.0.files.is_empty() {
            return;
        }
        let condition = self.clone();
        tokio::spawn(async move {
            loop {
                let looked = condition.clone();
                // A disk that does not answer holds this one thread and nothing else.
                let _ = tokio::task::spawn_blocking(move || looked.look()).await;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }

    /// The stores, asked only for what their condition allows.
    #[must_use]
    pub fn guarding(&self, stores: &Stores) -> Stores {
        let guard = |kind| ConditionGuard {
            condition: self.clone(),
            kind,
        };
        Stores {
            blobs: Arc::new(Wrapped::new(stores.blobs.clone(), guard(StoreKind::Blobs))),
            metadata: Arc::new(Wrapped::new(stores.metadata.clone(), guard(StoreKind::Metadata))),
            sessions: Arc::new(Wrapped::new(stores.sessions.clone(), guard(StoreKind::Sessions))),
            collection: Arc::new(Wrapped::new(stores.collection.clone(), guard(StoreKind::Collection))),
            records: Arc::new(Wrapped::new(stores.records.clone(), guard(StoreKind::Records))),
        }
    }

    /// Notes how a write of a push has ended.
    fn note_write(&self, step: PushStep, end: CallEnd<'_>) {
        let is_of_floor = |error: &StoreError| self.0.files.iter().any(|files| files.is_of_floor(error));
        self.0.refused.note(step, end, is_of_floor);
    }

    fn found(&self) -> MutexGuard<'_, LocalLook> {
        self.0.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
