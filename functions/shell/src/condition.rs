//! The condition of the stores. Each call of a server to a store checks it first; `/readyz`, the log and the metrics
//! report it.
//!
//! A part of it is checked from time to time: the local files, the free space, the clock. The rest comes from the calls
//! themselves, because only a write shows it. A refused write is reported until a write of the same kind succeeds
//! (`steps` lists the kinds). If it was refused because of the minimum free space, it is reported until a check finds
//! enough.

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
use self::steps::PushStep;
pub use self::time::TimeService;
use crate::probe::LocalFiles;

/// Time between two checks of the local files.
#[cfg(feature = "native")]
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is known of the stores of a server. Clones share their state. The default has no stores to check, and allows no call
/// until [`Condition::admit`].
#[derive(Clone, Debug, Default)]
pub struct Condition(Arc<ConditionInner>);

#[derive(Debug, Default)]
struct ConditionInner {
    /// Whether the stores were checked after the start, and may be used.
    admitted: AtomicBool,
    /// Why they may not be used yet, if it is not because of the metadata.
    awaited: Mutex<Option<Reason>>,
    services: Vec<TimeService>,
    files: Vec<Arc<dyn LocalFiles>>,
    /// The result of the last check of the local files.
    found: Mutex<LocalLook>,
    refused: RefusedWrites,
}

#[derive(Clone, Debug, Default)]
struct LocalLook {
    replaced: Option<String>,
    not_writable: Option<String>,
}

/// What a condition checks.
#[derive(Debug, Default)]
pub struct ConditionParts {
    /// Services that tell the time.
    pub services: Vec<TimeService>,
    /// Open files and directories of this host.
    pub files: Vec<Arc<dyn LocalFiles>>,
}

impl Condition {
    /// A condition that allows no call to the stores until [`Condition::admit`].
    #[must_use]
    pub fn of(parts: ConditionParts) -> Self {
        let ConditionParts { services, files } = parts;
        Self(Arc::new(ConditionInner {
            services,
            files,
            ..ConditionInner::default()
        }))
    }

    /// Allows the use of the stores from now on.
    pub fn admit(&self) {
        self.0.admitted.store(true, Ordering::Release);
    }

    /// Notes why the stores may not be used yet.
    pub fn await_store(&self, reason: Reason) {
        *self.0.awaited.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// Whether the stores may be read: an error until [`Condition::admit`].
    pub fn may_read(&self) -> Result<(), StoreError> {
        if self.0.admitted.load(Ordering::Acquire) {
            return Ok(());
        }
        let awaited = *self.0.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        Err(StoreError::because(
            awaited.unwrap_or(Reason::MetadataUnreachable),
            "not all stores have answered yet since the start",
        ))
    }

    /// Whether the stores may be changed: not if the clock is wrong, or if the local store was replaced.
    pub fn may_change(&self) -> Result<(), StoreError> {
        self.may_read()?;
        self.is_clock_right()?;
        self.is_in_place()
    }

    /// Whether the files of the local store are still those that were opened.
    pub fn is_in_place(&self) -> Result<(), StoreError> {
        match &self.found().replaced {
            Some(text) => Err(StoreError::because(Reason::StoreReplaced, text.clone())),
            None => Ok(()),
        }
    }

    /// Whether new data may be stored: also the free space must suffice.
    fn may_store(&self) -> Result<(), StoreError> {
        self.may_change()?;
        self.has_space()
    }

    /// Whether the last check has found at least the minimum free space.
    fn has_space(&self) -> Result<(), StoreError> {
        self.0.files.iter().try_for_each(|files| files.check_space())
    }

    /// Why pushes would be refused, as far as this is known without a push: the reasons, with the error texts of the stores.
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

    /// Checks the local files and the free space, and logs changes. Blocks while the disk does.
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
            (None, Some(error)) => tracing::error!(error, "the store was removed or replaced: all writes are refused"),
            (Some(_), None) => tracing::info!("the store at its path is the opened one again: writes are accepted"),
            _ => {}
        }
        match (before.not_writable, now.not_writable) {
            (None, Some(error)) => tracing::error!(error, "the store cannot be written: pushes are refused"),
            (Some(_), None) => tracing::info!("the store can be written again"),
            _ => {}
        }
    }

    /// Checks the local files, the free space and a wrong clock from time to time, until the last clone of this condition is
    /// dropped. Nothing waits for the end of a check: it only reads.
    #[cfg(feature = "native")]
    pub fn watch(&self) {
        self.watch_time();
        if self.0.files.is_empty() {
            return;
        }
        let watched = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            while let Some(looked) = watched.upgrade().map(Self) {
                // A disk that does not answer blocks only this thread.
                let _ = tokio::task::spawn_blocking(move || looked.look()).await;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }

    /// Stores that check this condition before each call.
    #[must_use]
    pub fn guarding(&self, stores: &Stores) -> Stores {
        let guard = || ConditionGuard(self.clone());
        Stores {
            blobs: Arc::new(Wrapped::new(stores.blobs.clone(), guard())),
            metadata: Arc::new(Wrapped::new(stores.metadata.clone(), guard())),
            sessions: Arc::new(Wrapped::new(stores.sessions.clone(), guard())),
            collection: Arc::new(Wrapped::new(stores.collection.clone(), guard())),
            records: Arc::new(Wrapped::new(stores.records.clone(), guard())),
            access: Arc::new(Wrapped::new(stores.access.clone(), guard())),
        }
    }

    /// Notes the result of a write of a push.
    fn note_write(&self, step: PushStep, end: CallEnd<'_>) {
        let is_of_floor = |error: &StoreError| self.0.files.iter().any(|files| files.is_of_floor(error));
        self.0.refused.note(step, end, is_of_floor);
    }

    fn found(&self) -> MutexGuard<'_, LocalLook> {
        self.0.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
