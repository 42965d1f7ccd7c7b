//! What is found out about stores before a server uses them: whether they are there, are understood, and belong
//! together. A store that does not answer may come; one that is not there, or has lost its other half, ends the start.

mod blobs;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use registry::Stores;
use registry::budget::ClientKey;
use registry::store::{Context, Location, Reason, StoreError, Uid};

use crate::clock;
use crate::opened::Opened;
use crate::probe::{MetadataProbe, ObjectStoreProbe, ProbeError};

/// How long a table may take for one answer, in milliseconds.
const TABLE_MS: u64 = 10_000;

/// The same for an object store. A start goes on without it, so that it is not waited for until that is logged.
const OBJECTS_MS: u64 = 1_500;

/// What is logged when a start waits for longer.
pub const NAMED_AFTER: Duration = Duration::from_secs(2);

/// How many slices of a walk over objects are looked at for one object of this registry.
const SLICES: usize = 10;

/// Objects in such a slice.
const SLICE: usize = 100;

/// How many objects are looked for that the metadata names. One that is there tells that the two belong together.
const LOOKED_FOR: usize = 3;

/// The stores of a server that starts.
pub struct Admission {
    stores: Stores,
    object_store: Option<Arc<dyn ObjectStoreProbe>>,
    metadata: Option<Arc<dyn MetadataProbe>>,
    where_blobs: String,
    where_metadata: String,
    begin_anew: bool,
    /// The store that is being asked, and what is wrong when it does not answer.
    asked: Mutex<(Reason, String)>,
}

/// Why stores are not used.
#[derive(Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// Somebody must do something about it first, which the text says.
    Never(String),
    /// A store does not answer: which, and how.
    Later(Reason, String),
}

/// Whether a store holds objects of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Some,
    Nothing,
    /// There is more than is looked at.
    NotKnown,
}

impl fmt::Display for NotAdmitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Never(text) | Self::Later(_, text)) = self;
        f.write_str(text)
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").finish_non_exhaustive()
    }
}

/// Of one call, on behalf of this process.
fn cx(timeout_ms: u64) -> Context {
    let now = clock::now();
    Context {
        now,
        deadline: now.plus_millis(timeout_ms),
        uid: Uid(0),
        client: ClientKey::INTERNAL,
    }
}

impl Admission {
    /// Of the stores of `opened`. `begin_anew`: the operator has said that what is lost is lost.
    #[must_use]
    pub fn of(opened: &Opened, begin_anew: bool) -> Self {
        let statistics = &opened.statistics;
        Self {
            stores: opened.stores.clone(),
            object_store: statistics.object_store.clone(),
            metadata: statistics.metadata.clone(),
            where_blobs: opened.blobs_description.clone(),
            where_metadata: opened.metadata_description.clone(),
            begin_anew,
            asked: Mutex::new((Reason::MetadataUnreachable, String::new())),
        }
    }

    /// The store whose answer is waited for, and what is wrong when none comes.
    #[must_use]
    pub fn asked(&self) -> (Reason, String) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn asks(&self, unreachable: Reason, store: &str) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = (unreachable, store.to_owned());
    }

    /// Asks each store once.
    pub async fn run(&self) -> Result<(), NotAdmitted> {
        if let Some(table) = self.metadata.as_ref().filter(|probe| probe.is_remote()) {
            self.asks(Reason::MetadataUnreachable, &self.where_metadata);
            let text = |error: &StoreError| format!("cannot use {}: {}", self.where_metadata, error.cause());
            table.check(cx(TABLE_MS)).await.map_err(|error| match error {
                ProbeError::Passing(error) => NotAdmitted::Later(Reason::MetadataUnreachable, text(&error)),
                ProbeError::Lasting(error) => NotAdmitted::Never(text(&error)),
            })?;
        }
        if let Some(probe) = &self.object_store {
            self.asks(Reason::ObjectStoreUnreachable, &self.where_blobs);
            match probe.check(cx(OBJECTS_MS)).await {
                Ok(()) => {}
                Err(ProbeError::Lasting(missing)) => return Err(NotAdmitted::Never(missing.cause().to_string())),
                // Manifests can be pulled meanwhile, and `/readyz` tells.
                Err(ProbeError::Passing(error)) => tracing::warn!(
                    store = self.where_blobs,
                    error = &error as &dyn std::error::Error,
                    "the object store cannot be read: not ready until it can"
                ),
            }
        }
        self.refuse_lost_metadata().await?;
        self.refuse_lost_blobs().await
    }

    /// Refuses metadata whose objects are all gone.
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
            // What cannot be looked at may be there.
            if !matches!(self.stores.blobs.stat(cx(OBJECTS_MS), location).await, Ok(None)) {
                return Ok(());
            }
        }
        match self.has_objects().await {
            // A store that does not answer may hold them, and so may one in which much else comes first.
            Ok(Found::Some | Found::NotKnown) | Err(_) => Ok(()),
            Ok(Found::Nothing) => Err(NotAdmitted::Never(format!(
                "the metadata ({}) names blobs, and the store of blobs ({}) holds none: it is lost, or not mounted, or \
                 another one is meant. Put it back, or check --data and --blobs. To go on without these blobs until they \
                 are pushed again, start with --begin-anew",
                self.where_metadata, self.where_blobs
            ))),
        }
    }

    /// A few objects that the metadata names, and does not know to be lost.
    async fn named_objects(&self) -> Result<Vec<Location>, StoreError> {
        if let Some(probe) = &self.metadata
            && let Some(locations) = probe.some_locations(cx(TABLE_MS), LOOKED_FOR).await?
        {
            return Ok(locations);
        }
        blobs::locations(&*self.stores.metadata, cx(TABLE_MS), LOOKED_FOR).await
    }

    /// Whether nothing was ever kept in the metadata.
    async fn is_metadata_new(&self) -> Result<bool, NotAdmitted> {
        match &self.metadata {
            Some(probe) => probe.is_new(cx(TABLE_MS)).await.map_err(|error| self.unread(&error)),
            None => Ok(false),
        }
    }

    /// Refuses metadata in which nothing was ever kept, beside objects: they are those of a registry that has lost its
    /// metadata. Every start makes a file where there is none; a table that was made once more has the same name.
    pub async fn refuse_lost_metadata(&self) -> Result<(), NotAdmitted> {
        if self.begin_anew || !self.is_metadata_new().await? {
            return Ok(());
        }
        self.asks(Reason::ObjectStoreUnreachable, &self.where_blobs);
        match self.has_objects().await {
            // Neither is a new registry refused beside what is somebody else's.
            Ok(Found::Nothing | Found::NotKnown) => Ok(()),
            // Another server may have begun meanwhile.
            Ok(Found::Some) if !self.is_metadata_new().await? => Ok(()),
            Ok(Found::Some) => Err(NotAdmitted::Never(format!(
                "the metadata ({}) is empty, and the store of blobs ({}) is not: the metadata of these blobs is lost, or \
                 other metadata or --blobs are meant. Put back a backup of the metadata, or run `roadstead metadata import` \
                 with an export. To begin a new registry here, in which these blobs are not found, start with --begin-anew",
                self.where_metadata, self.where_blobs
            ))),
            Err(error) => {
                let text = format!(
                    "whether {} holds blobs of a registry whose metadata is lost cannot be found out: {error}",
                    self.where_blobs
                );
                Err(NotAdmitted::Later(error.reason(), text))
            }
        }
    }

    /// Whether there is any object of a registry.
    async fn has_objects(&self) -> Result<Found, StoreError> {
        let mut after = None;
        for _ in 0..SLICES {
            let slice = self.stores.blobs.objects(cx(OBJECTS_MS), after.as_ref(), SLICE).await?;
            if !slice.items.is_empty() {
                return Ok(Found::Some);
            }
            after = slice.next;
            if after.is_none() {
                return Ok(Found::Nothing);
            }
        }
        Ok(Found::NotKnown)
    }

    fn unread(&self, error: &StoreError) -> NotAdmitted {
        let text = format!("the metadata ({}) cannot be read: {error}", self.where_metadata);
        match error {
            // A table that was there a moment ago comes back.
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
    use registry::store::memory::{MemoryBlobs, MemoryMetadata};
    use registry::store::metadata::{Defect, ManifestPut, MetadataStore as _, NewContent, PutManifest};

    use super::*;
    use crate::opened::in_memory;

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
            where_blobs: "disk".to_owned(),
            where_metadata: "table".to_owned(),
            begin_anew,
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
            who: "user".to_owned(),
        };
        let stored = metadata.put_manifest(cx(TABLE_MS), &put).await.unwrap();
        assert_eq!(stored, ManifestPut::Stored);
        let refused = starts(false).await.unwrap_err();
        assert!(
            matches!(&refused, NotAdmitted::Never(text) if text.contains("names blobs")),
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
            BTreeMap::from([("stat", 1)]),
            "where all is well, one look is enough"
        );

        // What is recorded as lost was told to somebody.
        blobs.lose(&location);
        starts(false).await.unwrap_err();
        let recorded = metadata.record_defect(cx(TABLE_MS), Some(&name), &layer, &location, Defect::Missing);
        recorded.await.unwrap();
        assert_eq!(starts(false).await, Ok(()));
    }
}
