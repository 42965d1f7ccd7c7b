//! Checks the stores before a server uses them: whether they exist, have a known layout, and belong together. If a store does
//! not answer, the server starts and waits for it. If a store does not exist, or if the blobs or the metadata of a registry
//! are lost, the server does not start.
//!
//! [`Admission::run`] checks them once. `Admission::start` waits for a short time, and then checks them in the background.

mod blobs;
#[cfg(feature = "native")]
mod start;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use registry::budget::ClientKey;
use registry::environment::context;
use registry::store::{Context, Location, Reason, StoreError};
use registry::{Environment, Stores};

#[cfg(feature = "native")]
pub use self::start::LateRefusal;
use crate::opened::Opened;
use crate::probe::{MetadataProbe, ObjectStoreProbe, ProbeError};
use crate::settings::{BEGIN_ANEW, BLOBS, DATA, METADATA, Spelling};

/// Maximum time for one answer of a table, in milliseconds.
const TABLE_MS: u64 = 10_000;

/// Maximum time for one answer of an object store, in milliseconds. It is shorter than the time for which a start waits,
/// because a start continues without the object store.
const OBJECTS_MS: u64 = 1_500;

/// Maximum number of slices of a walk over objects that are searched for an object of a registry.
const SLICES: usize = 10;

/// Number of objects in such a slice.
const SLICE: usize = 100;

/// Number of objects with a record that are looked for. If one of them is present, metadata and blobs belong together.
const LOOKED_FOR: usize = 3;

/// The stores of a server that starts.
pub struct Admission {
    stores: Stores,
    object_store: Option<Arc<dyn ObjectStoreProbe>>,
    metadata: Option<Arc<dyn MetadataProbe>>,
    environment: Arc<dyn Environment>,
    where_blobs: String,
    where_metadata: String,
    begin_anew: bool,
    spelling: Spelling,
    /// The store that is being asked, and the reason to report if it does not answer.
    asked: Mutex<(Reason, String)>,
}

/// Why stores cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// An operator must do something first; the text says what.
    #[error("{0}")]
    Never(String),
    /// A store does not answer now; the text says which store and why.
    #[error("{1}")]
    Later(Reason, String),
}

/// Whether a store holds objects of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ObjectSearch {
    Some,
    Nothing,
    /// There are more objects than are searched.
    NotKnown,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").finish_non_exhaustive()
    }
}

impl Admission {
    /// Checks the stores of `opened`. `environment` is the clock. With `begin_anew`, lost blobs or lost metadata are no error.
    /// `spelling` is for the texts of errors.
    #[must_use]
    pub fn of(opened: &Opened, environment: Arc<dyn Environment>, begin_anew: bool, spelling: Spelling) -> Self {
        let statistics = &opened.statistics;
        Self {
            stores: opened.stores.clone(),
            object_store: statistics.object_store.clone(),
            metadata: statistics.metadata.clone(),
            environment,
            where_blobs: opened.blobs_description.clone(),
            where_metadata: opened.metadata_description.clone(),
            begin_anew,
            spelling,
            asked: Mutex::new((Reason::MetadataUnreachable, String::new())),
        }
    }

    /// The store that is being asked, and the reason to report if it does not answer.
    #[must_use]
    pub fn asked(&self) -> (Reason, String) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The context of one call on behalf of this process.
    fn cx(&self, timeout_ms: u64) -> Context {
        context(&*self.environment, ClientKey::INTERNAL, timeout_ms)
    }

    fn asks(&self, unreachable: Reason, store: &str) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = (unreachable, store.to_owned());
    }

    /// Asks each store once.
    pub async fn run(&self) -> Result<(), NotAdmitted> {
        if let Some(table) = self.metadata.as_ref().filter(|probe| probe.is_remote()) {
            self.asks(Reason::MetadataUnreachable, &self.where_metadata);
            let text = |error: &StoreError| format!("cannot use {}: {}", self.where_metadata, error.cause());
            table.check(self.cx(TABLE_MS)).await.map_err(|error| match error {
                ProbeError::Passing(error) => NotAdmitted::Later(Reason::MetadataUnreachable, text(&error)),
                ProbeError::Lasting(error) => NotAdmitted::Never(text(&error)),
            })?;
        }
        if let Some(probe) = &self.object_store {
            self.asks(Reason::ObjectStoreUnreachable, &self.where_blobs);
            match probe.check(self.cx(OBJECTS_MS)).await {
                Ok(()) => {}
                Err(ProbeError::Lasting(missing)) => return Err(NotAdmitted::Never(missing.cause().to_string())),
                // The server starts: it can serve manifests, and `/readyz` reports the object store.
                Err(ProbeError::Passing(error)) => tracing::warn!(
                    store = self.where_blobs,
                    error = &error as &dyn std::error::Error,
                    "the object store cannot be read: the server is not ready until it can"
                ),
            }
        }
        self.refuse_lost_metadata().await?;
        self.refuse_lost_blobs().await
    }

    /// Fails if all objects of the metadata are gone.
    async fn refuse_lost_blobs(&self) -> Result<(), NotAdmitted> {
        if self.begin_anew {
            return Ok(());
        }
        let named = self.named_objects().await.map_err(|error| self.unread(&error))?;
        if named.is_empty() {
            return Ok(());
        }
        self.asks(Reason::ObjectStoreUnreachable, &self.where_blobs);
        for location in &named {
            // An object that cannot be looked for may be present.
            if !matches!(self.stores.blobs.stat(self.cx(OBJECTS_MS), location).await, Ok(None)) {
                return Ok(());
            }
        }
        match self.has_objects().await {
            // The objects may be in a store that does not answer, or behind many other objects.
            Ok(ObjectSearch::Some | ObjectSearch::NotKnown) | Err(_) => Ok(()),
            Ok(ObjectSearch::Nothing) => Err(NotAdmitted::Never(format!(
                "the metadata ({}) refers to blobs, and the store of blobs ({}) has none: the store is lost, is not \
                 mounted, or is not the right one. Put it back, or check {data} and {blobs}. To continue without these \
                 blobs until they are pushed again, start with {begin_anew}",
                self.where_metadata,
                self.where_blobs,
                data = (self.spelling)(DATA),
                blobs = (self.spelling)(BLOBS),
                begin_anew = (self.spelling)(BEGIN_ANEW)
            ))),
        }
    }

    /// The locations of a few objects that have a record and are not recorded as lost.
    async fn named_objects(&self) -> Result<Vec<Location>, StoreError> {
        if let Some(probe) = &self.metadata
            && let Some(locations) = probe.some_locations(self.cx(TABLE_MS), LOOKED_FOR).await?
        {
            return Ok(locations);
        }
        blobs::locations(&*self.stores.metadata, self.cx(TABLE_MS), LOOKED_FOR).await
    }

    /// Whether the metadata never had any records.
    async fn is_metadata_new(&self) -> Result<bool, NotAdmitted> {
        match &self.metadata {
            Some(probe) => probe
                .is_new(self.cx(TABLE_MS))
                .await
                .map_err(|error| self.unread(&error)),
            None => Ok(false),
        }
    }

    /// Fails if the metadata never had any records, and there are objects. These objects belong to a registry whose metadata is
    /// lost: each start creates a missing file, and a table that was created again has the same name.
    pub async fn refuse_lost_metadata(&self) -> Result<(), NotAdmitted> {
        if self.begin_anew || !self.is_metadata_new().await? {
            return Ok(());
        }
        self.asks(Reason::ObjectStoreUnreachable, &self.where_blobs);
        match self.has_objects().await {
            // A bucket with many other objects does not prevent a new registry.
            Ok(ObjectSearch::Nothing | ObjectSearch::NotKnown) => Ok(()),
            // Another server may have written metadata meanwhile.
            Ok(ObjectSearch::Some) if !self.is_metadata_new().await? => Ok(()),
            Ok(ObjectSearch::Some) => Err(NotAdmitted::Never(format!(
                "the metadata ({}) is empty, and the store of blobs ({}) is not: the metadata of these blobs is lost, or \
                 {metadata}, {data} or {blobs} is wrong. Put back a backup of the metadata, or run `roadstead metadata \
                 import` with an export. To begin a new registry here, which does not have these blobs, start with \
                 {begin_anew}",
                self.where_metadata,
                self.where_blobs,
                metadata = (self.spelling)(METADATA),
                data = (self.spelling)(DATA),
                blobs = (self.spelling)(BLOBS),
                begin_anew = (self.spelling)(BEGIN_ANEW)
            ))),
            Err(error) => {
                let text = format!(
                    "cannot find out whether {} has blobs of a registry whose metadata is lost: {error}",
                    self.where_blobs
                );
                Err(NotAdmitted::Later(error.reason(), text))
            }
        }
    }

    /// Whether the store of blobs has any object of a registry.
    async fn has_objects(&self) -> Result<ObjectSearch, StoreError> {
        let mut after = None;
        for _ in 0..SLICES {
            let slice = self
                .stores
                .blobs
                .objects(self.cx(OBJECTS_MS), after.as_ref(), SLICE)
                .await?;
            if !slice.items.is_empty() {
                return Ok(ObjectSearch::Some);
            }
            after = slice.next;
            if after.is_none() {
                return Ok(ObjectSearch::Nothing);
            }
        }
        Ok(ObjectSearch::NotKnown)
    }

    fn unread(&self, error: &StoreError) -> NotAdmitted {
        let text = format!("the metadata ({}) cannot be read: {error}", self.where_metadata);
        match error {
            // The table has just answered, so it will answer again.
            StoreError::Unavailable(_) if self.metadata.as_ref().is_some_and(|probe| probe.is_remote()) => {
                NotAdmitted::Later(error.reason(), text)
            }
            _ => NotAdmitted::Never(text),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::{BTreeMap, BTreeSet};

    use bytes::Bytes;
    use contract::counting::{CountingBlobs, Counts};
    use oci::{Algorithm, Digest, MediaType, RepositoryName};
    use registry::store::access::Author;
    use registry::store::memory::{MemoryBlobs, MemoryMetadata};
    use registry::store::metadata::{AllowAll, Defect, ManifestPut, MetadataStore as _, NewContent, PutManifest};
    use registry::store::wrapped::StoreMethod;

    use super::*;
    use crate::clock::SystemEnvironment;
    use crate::opened::in_memory;

    fn cx(timeout_ms: u64) -> Context {
        context(&SystemEnvironment, ClientKey::INTERNAL, timeout_ms)
    }

    /// `counts` of what is asked of the blobs.
    fn admission(
        metadata: &Arc<MemoryMetadata>,
        blobs: &Arc<MemoryBlobs>,
        counts: &Counts,
        begin_anew: bool,
    ) -> Admission {
        Admission {
            stores: Stores {
                blobs: Arc::new(CountingBlobs::new(blobs.clone(), counts.clone())),
                ..in_memory(metadata)
            },
            object_store: None,
            metadata: None,
            environment: Arc::new(SystemEnvironment),
            where_blobs: "disk".to_owned(),
            where_metadata: "table".to_owned(),
            begin_anew,
            spelling: |setting| setting.variable.to_owned(),
            asked: Mutex::new((Reason::MetadataUnreachable, String::new())),
        }
    }

    /// Metadata that is no file, as a table is none: whether its blobs are all gone is found out by what the catalog
    /// lists.
    #[tokio::test]
    async fn s34_a_table_whose_blobs_are_all_gone_is_refused() {
        let (metadata, blobs) = (Arc::new(MemoryMetadata::new()), Arc::new(MemoryBlobs::new()));
        let counts = Counts::new();
        let starts = async |begin_anew| admission(&metadata, &blobs, &counts, begin_anew).run().await;
        assert_eq!(starts(false).await, Ok(()), "a new registry");

        let name: RepositoryName = "team/app".parse().unwrap();
        let layer = Digest::of(Algorithm::Sha256, b"a layer");
        let location = Location::main(format!("{:032x}.1", 7));
        let committed = metadata.commit_blob(cx(TABLE_MS), &name, &layer, &location, 7).await;
        committed.unwrap();
        let bytes = format!(
            r#"{{"schemaVersion":2,"mediaType":"{media_type}","artifactType":"application/x.test",
            "config":{{"mediaType":"application/x.config","digest":"{layer}","size":7}},"layers":[]}}"#,
            media_type = MediaType::OCI_MANIFEST
        );
        let put = PutManifest {
            repository: name.clone(),
            digest: Digest::of(Algorithm::Sha256, bytes.as_bytes()),
            media_type: MediaType::OCI_MANIFEST.parse().unwrap(),
            size: bytes.len() as u64,
            content: NewContent::Inline(Bytes::from(bytes)),
            artifact_type: None,
            subject: None,
            required: BTreeSet::from([layer]),
            excepted: BTreeSet::new(),
            tags: Vec::new(),
            author: Author::new("user"),
        };
        let stored = metadata
            .put_manifest(cx(TABLE_MS), &put, &AllowAll::shared())
            .await
            .unwrap();
        assert_eq!(stored, ManifestPut::Stored);
        let refused = starts(false).await.unwrap_err();
        assert!(
            matches!(&refused, NotAdmitted::Never(text) if text.contains("refers to blobs")),
            "{refused}"
        );
        assert!(
            refused.to_string().contains("start with ROADSTEAD_BEGIN_ANEW"),
            "{refused}"
        );
        assert_eq!(starts(true).await, Ok(()), "begun anew");

        // Another object is there: this one alone is lost.
        let other = Location::main(format!("{:032x}.1", 8));
        blobs.restore(&other, &b"something"[..]);
        assert_eq!(starts(false).await, Ok(()));
        blobs.lose(&other);
        blobs.restore(&location, &b"a layer"[..]);
        let _before = counts.take();
        assert_eq!(starts(false).await, Ok(()));
        assert_eq!(
            counts.all(),
            BTreeMap::from([(StoreMethod::Stat, 1)]),
            "where all is well, one look is enough"
        );

        // The loss of a recorded blob was reported before.
        blobs.lose(&location);
        starts(false).await.unwrap_err();
        let recorded = metadata.record_defect(cx(TABLE_MS), Some(&name), &layer, &location, Defect::Missing);
        recorded.await.unwrap();
        assert_eq!(starts(false).await, Ok(()));
    }
}
