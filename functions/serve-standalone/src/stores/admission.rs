//! What is found out about stores before a server uses them: whether they are there, are understood, and belong
//! together. A store that does not answer may come; one that is not there, or has lost its other half, ends the start.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use registry::store::blobs::BlobStore;
use registry::store::{Context, Incarnation, Reason, StoreError};
use store_dynamodb::DynamoStore;
use store_embedded::SqliteStore;
use store_s3::{CheckError, S3Blobs};

use super::{Opened, describe_blobs, describe_metadata};
use crate::cli::StoreArgs;
use crate::environment;

/// How long a table may take for one answer, in milliseconds.
const TABLE_MS: u64 = 10_000;

/// The same for an object store. A start goes on without it, so that it is not waited for until that is logged.
const OBJECTS_MS: u64 = 1_500;

/// What is logged when a start waits for longer.
pub(crate) const NAMED_AFTER: Duration = Duration::from_secs(2);

/// How many slices of a walk over objects are looked at for one object of this registry.
const SLICES: usize = 10;

/// Objects in such a slice.
const SLICE: usize = 100;

/// The stores of a server that starts.
pub(crate) struct Admission {
    blobs: Arc<dyn BlobStore>,
    bucket: Option<S3Blobs>,
    table: Option<DynamoStore>,
    sqlite: Option<Arc<SqliteStore>>,
    where_blobs: String,
    where_metadata: String,
    begin_anew: bool,
    /// The store that is being asked, and what is wrong when it does not answer.
    asked: Mutex<(Reason, String)>,
}

/// Why stores are not used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotAdmitted {
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

impl Admission {
    /// Of stores that were opened as `args` say. `begin_anew`: the operator has said that what is lost is lost.
    pub(crate) fn of(opened: &Opened, args: &StoreArgs, begin_anew: bool) -> Self {
        let statistics = &opened.statistics;
        Self {
            blobs: opened.stores.blobs.clone(),
            bucket: statistics.s3.clone(),
            table: statistics.dynamodb.clone(),
            sqlite: statistics.sqlite.clone(),
            where_blobs: describe_blobs(args),
            where_metadata: describe_metadata(args),
            begin_anew,
            asked: Mutex::new((Reason::MetadataUnreachable, String::new())),
        }
    }

    /// The store whose answer is waited for, and what is wrong when none comes.
    pub(crate) fn asked(&self) -> (Reason, String) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn asks(&self, unreachable: Reason, store: &str) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = (unreachable, store.to_owned());
    }

    /// Asks each store once.
    pub(crate) async fn run(&self) -> Result<(), NotAdmitted> {
        if let Some(table) = &self.table {
            self.asks(Reason::MetadataUnreachable, &self.where_metadata);
            table.check(cx(TABLE_MS)).await.map_err(|error| {
                let text = format!("cannot use {}: {error}", self.where_metadata);
                if error.may_pass() {
                    NotAdmitted::Later(Reason::MetadataUnreachable, text)
                } else {
                    NotAdmitted::Never(text)
                }
            })?;
        }
        if let Some(bucket) = &self.bucket {
            self.asks(Reason::ObjectStoreUnreachable, &self.where_blobs);
            match bucket.check(cx(OBJECTS_MS)).await {
                Ok(()) => {}
                Err(missing @ CheckError::NoBucket(_)) => return Err(NotAdmitted::Never(missing.to_string())),
                // Manifests can be pulled meanwhile, and `/readyz` tells.
                Err(CheckError::Store(error)) => tracing::warn!(
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
        let Some(sqlite) = &self.sqlite else { return Ok(()) };
        if self.begin_anew || !sqlite.has_blobs(cx(TABLE_MS)).await.map_err(unread)? {
            return Ok(());
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

    /// Refuses a metadata file in which nothing was ever kept, beside objects: a file is made by every start, so that a
    /// new one is a lost one. A table was made by name (`roadstead metadata init`).
    pub(crate) async fn refuse_lost_metadata(&self) -> Result<(), NotAdmitted> {
        let Some(sqlite) = &self.sqlite else { return Ok(()) };
        if self.begin_anew || !sqlite.is_new(cx(TABLE_MS)).await.map_err(unread)? {
            return Ok(());
        }
        self.asks(Reason::ObjectStoreUnreachable, &self.where_blobs);
        match self.has_objects().await {
            // Neither is a new registry refused beside what is somebody else's.
            Ok(Found::Nothing | Found::NotKnown) => Ok(()),
            Ok(Found::Some) => Err(NotAdmitted::Never(format!(
                "the metadata ({}) is empty, and the store of blobs ({}) is not: the metadata of these blobs is lost, or \
                 another --data or --blobs is meant. Put back a backup of metadata.db, or run `roadstead metadata import` \
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
            let slice = self.blobs.objects(cx(OBJECTS_MS), after.as_ref(), SLICE).await?;
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
}

#[expect(clippy::needless_pass_by_value, reason = "given to map_err")]
fn unread(error: StoreError) -> NotAdmitted {
    NotAdmitted::Never(format!("the metadata cannot be read: {error}"))
}

fn cx(timeout_ms: u64) -> Context {
    let now = environment::now();
    Context {
        now,
        deadline: now.plus_millis(timeout_ms),
        incarnation: Incarnation(0),
        client: registry::budget::ClientKey::INTERNAL,
    }
}
