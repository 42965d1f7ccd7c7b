//! In what condition the stores are: what every call of a server asks before it goes to them, and what `/readyz`, the
//! log and the metrics tell of it.
//!
//! Some of it is looked at (the local files, the space, the clock), some is learnt from the calls themselves: what only
//! a write can tell, a refused write tells, and it counts until one succeeds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use registry::AllStores;
use registry::clock::ServiceClock;
use registry::store::wrapped::{Hook, Wrapped};
use registry::store::{Reason, StoreError};
use store_embedded::{PathWatch, Space};

/// How often the local files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The traits of stores, which are refused apart from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum StoreKind {
    Blobs,
    Metadata,
    Sessions,
    Collection,
    Records,
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Reads,
    /// Removes, or changes what is there.
    Changes,
    /// Stores something new, for which there must be space.
    Stores,
}

/// What a method does; one that is not known here changes something.
fn effect(kind: StoreKind, method: &str) -> Effect {
    match (kind, method) {
        (StoreKind::Blobs, "read" | "redirect" | "stat" | "objects")
        | (
            StoreKind::Metadata,
            "link" | "manifest" | "tag" | "tags" | "history" | "repository" | "repositories" | "manifests" | "referrers"
            | "holders"
            // Asked by every HEAD of somebody who may push. Where a mark is met it would write: see `may_keep`.
            | "keep_link",
        )
        | (StoreKind::Sessions, "get" | "parts" | "expired")
        | (StoreKind::Collection, "graves" | "standing")
        | (StoreKind::Records, "walk" | "place" | "lost") => Effect::Reads,
        (StoreKind::Blobs, "append")
        | (StoreKind::Metadata, "commit_blob" | "mount" | "put_manifest")
        | (StoreKind::Sessions, "claim" | "claim_begun")
        | (StoreKind::Records, "insert") => Effect::Stores,
        _ => Effect::Changes,
    }
}

/// What is known of the stores of a server. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Condition(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Whether the stores were looked at, and may be used.
    admitted: AtomicBool,
    /// What that waits for, if it is not the metadata.
    awaited: Mutex<Option<Reason>>,
    clocks: Vec<(&'static str, Arc<ServiceClock>)>,
    spaces: Vec<Arc<Space>>,
    watches: Vec<PathWatch>,
    /// What the last look at the local files has found.
    found: Mutex<LocalLook>,
    /// Writes that were refused, and none has succeeded since.
    refused: Mutex<BTreeMap<StoreKind, RefusedWrite>>,
}

#[derive(Debug, Default)]
struct LocalLook {
    replaced: Option<String>,
    not_writable: Option<String>,
}

#[derive(Debug)]
struct RefusedWrite {
    reason: Reason,
    text: String,
    /// Whether it was refused because of a floor, or less than that was free since: then it counts no longer than until
    /// enough is free, which looks tell. What a file system refuses for other limits of its own, only a write tells.
    is_of_floor: bool,
}

/// What a condition is made of.
#[derive(Debug, Default)]
pub(crate) struct ConditionParts {
    /// What services tell of the time, by their names.
    pub(crate) clocks: Vec<(&'static str, Arc<ServiceClock>)>,
    /// File systems that are written.
    pub(crate) spaces: Vec<Arc<Space>>,
    /// Files and directories that are open.
    pub(crate) watches: Vec<PathWatch>,
}

impl Condition {
    /// Nothing may be asked of the stores until [`Condition::admit`].
    pub(crate) fn of(parts: ConditionParts) -> Self {
        let ConditionParts {
            clocks,
            spaces,
            watches,
        } = parts;
        Self(Arc::new(Inner {
            clocks,
            spaces,
            watches,
            ..Inner::default()
        }))
    }

    /// From now on the stores may be used.
    pub(crate) fn admit(&self) {
        self.0.admitted.store(true, Ordering::Release);
    }

    /// They may not yet, for this reason.
    pub(crate) fn await_store(&self, reason: Reason) {
        *self.0.awaited.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    /// Whether anything may be asked of the stores.
    pub(crate) fn may_read(&self) -> Result<(), StoreError> {
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
    pub(crate) fn may_change(&self) -> Result<(), StoreError> {
        self.may_read()?;
        for (_, clock) in &self.0.clocks {
            clock.check()?;
        }
        self.is_in_place()
    }

    /// Whether the local store is the one that was opened.
    pub(crate) fn is_in_place(&self) -> Result<(), StoreError> {
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
        self.0.spaces.iter().try_for_each(|space| space.check())
    }

    /// Why pushes would be refused, as far as it is known without pushing; in fixed words and the store's own.
    pub(crate) fn push_blocks(&self) -> BTreeMap<Reason, String> {
        let mut blocks = BTreeMap::new();
        if let Err(error) = self.may_store() {
            blocks.insert(error.reason(), error.to_string());
        }
        if let Some(text) = &self.found().not_writable {
            blocks.insert(Reason::NotWritable, text.clone());
        }
        let refused = self.0.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let spaces = &self.0.spaces;
        let has_space = !spaces.is_empty() && spaces.iter().all(|space| space.is_above_floor());
        for write in refused.values().filter(|write| !(write.is_of_floor && has_space)) {
            blocks.entry(write.reason).or_insert_with(|| write.text.clone());
        }
        blocks
    }

    /// By how many milliseconds the own clock is ahead, by services that have told the time.
    pub(crate) fn clocks(&self) -> impl Iterator<Item = (&'static str, i64)> + '_ {
        let clocks = self.0.clocks.iter();
        clocks.filter_map(|(service, clock)| Some((*service, clock.ahead()?)))
    }

    /// Looks at the local files and the space, and says what has changed. Blocks for as long as the disk takes.
    pub(crate) fn look(&self) {
        self.0.spaces.iter().for_each(|space| space.refresh());
        if self.has_space().is_err() {
            let mut refused = self.0.refused.lock().unwrap_or_else(PoisonError::into_inner);
            for write in refused.values_mut() {
                write.is_of_floor |= write.reason == Reason::NoSpace;
            }
        }
        let text = |outcome: Result<(), StoreError>| outcome.err().map(|error| error.cause().to_string());
        let watches = &self.0.watches;
        let now = LocalLook {
            replaced: text(watches.iter().try_for_each(PathWatch::check)),
            not_writable: text(watches.iter().try_for_each(PathWatch::check_writable)),
        };
        let before = std::mem::replace(
            &mut *self.0.found.lock().unwrap_or_else(PoisonError::into_inner),
            LocalLook {
                replaced: now.replaced.clone(),
                not_writable: now.not_writable.clone(),
            },
        );
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

    /// Looks at the local files and the space from time to time, for as long as the process runs.
    pub(crate) fn watch(&self) {
        if self.0.watches.is_empty() && self.0.spaces.is_empty() {
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
    pub(crate) fn guarding(&self, stores: &AllStores) -> AllStores {
        let guard = |kind| ConditionGuard {
            condition: self.clone(),
            kind,
        };
        AllStores {
            blobs: Arc::new(Wrapped::new(stores.blobs.clone(), guard(StoreKind::Blobs))),
            metadata: Arc::new(Wrapped::new(stores.metadata.clone(), guard(StoreKind::Metadata))),
            sessions: Arc::new(Wrapped::new(stores.sessions.clone(), guard(StoreKind::Sessions))),
            collection: Arc::new(Wrapped::new(stores.collection.clone(), guard(StoreKind::Collection))),
            records: Arc::new(Wrapped::new(stores.records.clone(), guard(StoreKind::Records))),
        }
    }

    fn found(&self) -> std::sync::MutexGuard<'_, LocalLook> {
        self.0.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a write has ended.
    fn note(&self, kind: StoreKind, outcome: Result<(), &StoreError>) {
        let mut refused = self.0.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => {
                if refused.remove(&kind).is_some() {
                    tracing::info!(store = %kind, "a write has succeeded again");
                }
            }
            Err(error) => {
                let reason = error.reason();
                if matches!(
                    reason,
                    Reason::NoSpace | Reason::NotWritable | Reason::ObjectStoreRefuses | Reason::MetadataRefuses
                ) {
                    let write = RefusedWrite {
                        reason,
                        text: error.to_string(),
                        is_of_floor: Space::is_of_floor(error),
                    };
                    refused.insert(kind, write);
                }
            }
        }
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blobs => "blobs",
            Self::Metadata | Self::Collection | Self::Records => "metadata",
            Self::Sessions => "sessions",
        })
    }
}

/// Lets calls through, and learns from them.
struct ConditionGuard {
    condition: Condition,
    kind: StoreKind,
}

impl Hook for ConditionGuard {
    fn before(&self, method: &'static str) -> Result<(), StoreError> {
        match effect(self.kind, method) {
            Effect::Reads => self.condition.may_read(),
            Effect::Changes => self.condition.may_change(),
            Effect::Stores => self.condition.may_store(),
        }
    }

    fn ended(&self, method: &'static str, outcome: Result<(), &StoreError>) {
        if effect(self.kind, method) == Effect::Stores {
            self.condition.note(self.kind, outcome);
        }
    }

    fn after(&self, _method: &'static str) -> Result<(), StoreError> {
        Ok(())
    }

    fn may_keep(&self) -> Result<(), StoreError> {
        self.condition.may_change()
    }
}

/// The name of a reason in metrics.
pub(crate) fn label(reason: Reason) -> &'static str {
    match reason {
        Reason::NoSpace => "no_space",
        Reason::NotWritable => "not_writable",
        Reason::ObjectStoreUnreachable => "object_store_unreachable",
        Reason::ObjectStoreRefuses => "object_store_refuses",
        Reason::MetadataUnreachable => "metadata_unreachable",
        Reason::MetadataRefuses => "metadata_refuses",
        Reason::ClockOff => "clock_off",
        Reason::StoreReplaced => "store_replaced",
        Reason::Throttled
        | Reason::Memory
        | Reason::Credentials
        | Reason::Damaged
        | Reason::Unavailable
        | Reason::Failed => "other",
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use oci::{Algorithm, Digest};
    use registry::store::collection::{Graces, Plan};
    use registry::store::memory::{MemoryBlobs, MemoryCollection, MemoryMetadata, MemorySessions};
    use registry::store::sessions::{Expected, SessionId, SessionKey};
    use registry::store::{Context, Incarnation, Location, Timestamp};
    use store_embedded::MinFree;

    use super::*;

    fn stores() -> AllStores {
        let metadata = Arc::new(MemoryMetadata::new());
        let sessions = Arc::new(MemorySessions::new());
        AllStores {
            blobs: Arc::new(MemoryBlobs::new()),
            metadata: metadata.clone(),
            sessions: sessions.clone(),
            collection: Arc::new(MemoryCollection::new(metadata.clone(), sessions)),
            records: metadata,
        }
    }

    fn cx() -> Context {
        Context {
            now: Timestamp(1_000),
            deadline: Timestamp(11_000),
            incarnation: Incarnation(3),
            client: registry::budget::ClientKey::INTERNAL,
        }
    }

    async fn reads(stores: &AllStores) -> Option<Reason> {
        stores
            .metadata
            .repositories(cx(), None, 1)
            .await
            .err()
            .map(|error| error.reason())
    }

    async fn stores_a_blob(stores: &AllStores) -> Option<Reason> {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let (name, location) = ("app".parse().unwrap(), Location::main("1.1"));
        let committed = stores.metadata.commit_blob(cx(), &name, &digest, &location, 1).await;
        committed.err().map(|error| error.reason())
    }

    async fn unlinks(stores: &AllStores) -> Option<Reason> {
        let digest = Digest::of(Algorithm::Sha256, b"y");
        let removed = stores.metadata.unlink(cx(), &"app".parse().unwrap(), &digest).await;
        removed.err().map(|error| error.reason())
    }

    #[tokio::test]
    async fn nothing_is_asked_before_the_stores_are_known() {
        let condition = Condition::default();
        let guarded = condition.guarding(&stores());
        assert_eq!(reads(&guarded).await, Some(Reason::MetadataUnreachable));
        condition.admit();
        assert_eq!(reads(&guarded).await, None);
        assert_eq!(stores_a_blob(&guarded).await, None);
    }

    #[tokio::test]
    async fn s33_with_a_wrong_clock_nothing_is_stored_or_removed() {
        let clock = Arc::<ServiceClock>::default();
        let condition = Condition::of(ConditionParts {
            clocks: vec![("test", clock.clone())],
            ..ConditionParts::default()
        });
        condition.admit();
        let guarded = condition.guarding(&stores());
        let day = 24 * 3_600_000;
        clock.observe(day, day - 7_200_000, day - 7_200_000);
        assert_eq!(reads(&guarded).await, None);
        assert_eq!(stores_a_blob(&guarded).await, Some(Reason::ClockOff));
        assert_eq!(unlinks(&guarded).await, Some(Reason::ClockOff));
        let begun = guarded
            .collection
            .begin_pass(cx(), Incarnation(1), Timestamp(2_000))
            .await;
        assert_eq!(begun.unwrap_err().reason(), Reason::ClockOff);
        assert!(condition.push_blocks().contains_key(&Reason::ClockOff));
        clock.observe(day, day, day);
        assert_eq!((stores_a_blob(&guarded).await, unlinks(&guarded).await), (None, None));
    }

    #[tokio::test]
    async fn s34_in_a_store_that_was_replaced_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let options = store_embedded::Options {
            data: folder.path().join("data"),
            sync: store_embedded::Sync::Off,
            upload_memory: 1 << 20,
            memory_timeout: store_embedded::Options::MEMORY_TIMEOUT,
        };
        let embedded = store_embedded::Embedded::open(&options).unwrap();
        let condition = Condition::of(ConditionParts {
            watches: vec![embedded.metadata.watch().clone(), embedded.blobs.watch().clone()],
            ..ConditionParts::default()
        });
        condition.admit();
        let guarded = condition.guarding(&stores());
        condition.look();
        assert_eq!(stores_a_blob(&guarded).await, None, "{:?}", condition.push_blocks());
        std::fs::rename(options.data.join("blobs"), options.data.join("away")).unwrap();
        condition.look();
        assert_eq!(stores_a_blob(&guarded).await, Some(Reason::StoreReplaced));
        assert_eq!(unlinks(&guarded).await, Some(Reason::StoreReplaced));
        assert_eq!(reads(&guarded).await, None);
        std::fs::rename(options.data.join("away"), options.data.join("blobs")).unwrap();
        condition.look();
        assert_eq!(stores_a_blob(&guarded).await, None);
    }

    #[tokio::test]
    async fn without_space_nothing_is_stored_and_everything_else_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let options = store_embedded::Options {
            data: folder.path().join("data"),
            sync: store_embedded::Sync::Off,
            upload_memory: 1 << 20,
            memory_timeout: store_embedded::Options::MEMORY_TIMEOUT,
        };
        let embedded = store_embedded::Embedded::open(&options).unwrap();
        let space = embedded.metadata.space().clone();
        let condition = Condition::of(ConditionParts {
            spaces: vec![space.clone()],
            ..ConditionParts::default()
        });
        condition.admit();
        let guarded = condition.guarding(&stores());
        space.keep(MinFree::Bytes(u64::MAX));
        condition.look();
        assert_eq!(stores_a_blob(&guarded).await, Some(Reason::NoSpace));
        assert_eq!((unlinks(&guarded).await, reads(&guarded).await), (None, None));
        assert!(condition.push_blocks()[&Reason::NoSpace].contains("--min-free"));
        space.keep(MinFree::Bytes(0));
        assert_eq!(stores_a_blob(&guarded).await, None);
        assert!(condition.push_blocks().is_empty());
    }

    /// A write that met the floor counts until enough is free; what the file system itself has refused, until one
    /// succeeds, or enough is free after less was.
    #[tokio::test]
    async fn space_that_is_free_again_is_told_without_a_write() {
        let folder = tempfile::tempdir().unwrap();
        let options = store_embedded::Options {
            data: folder.path().join("data"),
            sync: store_embedded::Sync::Off,
            upload_memory: 1 << 20,
            memory_timeout: store_embedded::Options::MEMORY_TIMEOUT,
        };
        let embedded = store_embedded::Embedded::open(&options).unwrap();
        let space = embedded.metadata.space().clone();
        let condition = Condition::of(ConditionParts {
            spaces: vec![space.clone()],
            ..ConditionParts::default()
        });
        condition.admit();
        let guard = ConditionGuard {
            condition: condition.clone(),
            kind: StoreKind::Blobs,
        };
        let set = |bytes| {
            space.keep(MinFree::Bytes(bytes));
            condition.look();
        };
        set(u64::MAX);
        let met = space.check().unwrap_err();
        guard.ended("append", Err(&met));
        assert!(condition.push_blocks().contains_key(&Reason::NoSpace));
        set(1);
        assert!(condition.push_blocks().is_empty(), "a look tells");
        set(0);
        assert!(
            condition.push_blocks().contains_key(&Reason::NoSpace),
            "without a floor only a write tells"
        );

        set(1);
        let full = StoreError::because(Reason::NoSpace, std::io::Error::from(std::io::ErrorKind::StorageFull));
        guard.ended("append", Err(&full));
        condition.look();
        assert!(
            condition.push_blocks().contains_key(&Reason::NoSpace),
            "files, or a quota, may be what is used up"
        );
        set(u64::MAX);
        set(1);
        assert!(condition.push_blocks().is_empty());
    }

    /// Somebody who may push relies on the answer to a HEAD: a link that a collection has marked is not promised where
    /// its mark cannot be removed, and all others are answered.
    #[tokio::test]
    async fn where_nothing_may_change_a_marked_link_is_not_promised() {
        let clock = Arc::<ServiceClock>::default();
        let condition = Condition::of(ConditionParts {
            clocks: vec![("test", clock.clone())],
            ..ConditionParts::default()
        });
        condition.admit();
        let inner = stores();
        let guarded = condition.guarding(&inner);
        assert_eq!(stores_a_blob(&guarded).await, None);
        let (name, digest) = ("app".parse().unwrap(), Digest::of(Algorithm::Sha256, b"x"));
        let day = 24 * 3_600_000;
        let keep = async || {
            let kept = guarded.metadata.keep_link(cx(), &name, &digest).await;
            kept.map(|link| link.is_some()).map_err(|error| error.reason())
        };
        clock.observe(day, day - 7_200_000, day - 7_200_000);
        assert_eq!(keep().await, Ok(true), "there is no mark");

        let later = Context {
            now: Timestamp(2_000),
            ..cx()
        };
        let plan = Plan {
            graces: Graces {
                link_ms: 0,
                ..Graces::default()
            },
            ..Plan::default()
        };
        let collected = inner.collection.collect_names(later, &plan, None, 100).await.unwrap();
        assert_eq!(collected.tally.marked, 1);
        let is_marked = async || {
            let found = inner.metadata.marked_link(cx(), &name, &digest).await.unwrap();
            found.unwrap().1
        };
        assert_eq!(keep().await, Err(Reason::ClockOff));
        assert!(is_marked().await, "nothing was written");
        clock.observe(day, day, day);
        assert_eq!(keep().await, Ok(true));
        assert!(!is_marked().await);
    }

    /// A refused write counts until one of the same store succeeds.
    #[tokio::test]
    async fn a_refused_write_is_remembered() {
        let condition = Condition::default();
        condition.admit();
        let refused = StoreError::because(Reason::ObjectStoreRefuses, "403 AccessDenied");
        let guard = ConditionGuard {
            condition: condition.clone(),
            kind: StoreKind::Blobs,
        };
        guard.ended("stat", Err(&refused));
        guard.ended("append", Err(&StoreError::unavailable("not now")));
        assert!(condition.push_blocks().is_empty());
        guard.ended("append", Err(&refused));
        assert!(condition.push_blocks()[&Reason::ObjectStoreRefuses].contains("403"));
        let guarded = condition.guarding(&stores());
        let key = SessionKey {
            expires: Timestamp(90_000),
            id: SessionId(1),
        };
        let claimed = guarded
            .sessions
            .claim(cx(), key, Expected::Fresh, Timestamp(60_000), 9)
            .await;
        assert!(
            claimed.is_ok(),
            "it is tried, or nobody would learn that it works again"
        );
        assert!(
            !condition.push_blocks().is_empty(),
            "another store says nothing of this one"
        );
        guard.ended("append", Ok(()));
        assert!(condition.push_blocks().is_empty());
    }
}
