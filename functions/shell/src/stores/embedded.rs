//! Opens the stores on this host: files and `SQLite`.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use registry::store::blobs::BlobStore;
use registry::store::{Context, Location, StoreError};
use store_embedded::{DiskBlobs, Embedded, OpenError, PathWatch, Space, SqliteStore};

use super::{Absent, OpenFailure, OpenOptions, Opening, StoreConfig};
use crate::probe::{LocalFiles, MetadataProbe, ProbeError, TableCounts};
use crate::settings::DATA;

/// The stores of one data directory.
pub(super) struct Local {
    pub(super) blobs: Arc<dyn BlobStore>,
    pub(super) metadata: Arc<SqliteStore>,
}

/// Opens both stores of the directory `data`.
pub(super) async fn open_all(
    config: &StoreConfig,
    data: &Path,
    options: &OpenOptions,
    opening: &mut Opening,
) -> Result<Local, OpenFailure> {
    let Embedded { blobs, metadata, .. } = directory(config, data, options).await?;
    watch_metadata(&metadata, options, opening);
    Ok(Local {
        blobs: watch_blobs(blobs, options, opening),
        metadata,
    })
}

/// Opens the metadata in the directory `data`, for a registry whose blobs are elsewhere.
#[cfg(feature = "cloud")]
pub(super) async fn open_metadata(
    config: &StoreConfig,
    data: &Path,
    options: &OpenOptions,
    opening: &mut Opening,
) -> Result<Arc<SqliteStore>, OpenFailure> {
    let Embedded { metadata, .. } = directory(config, data, options).await?;
    watch_metadata(&metadata, options, opening);
    Ok(metadata)
}

/// Opens the blobs in the directory `data`, for a registry whose metadata is elsewhere.
#[cfg(feature = "cloud")]
pub(super) async fn open_blobs(
    config: &StoreConfig,
    data: &Path,
    options: &OpenOptions,
    opening: &mut Opening,
) -> Result<Arc<dyn BlobStore>, OpenFailure> {
    let memory = options.memory(&config.backends);
    let blobs = disk(data, options, memory).await?;
    Ok(watch_blobs(blobs, options, opening))
}

/// Opens a data directory to which blobs are copied. Uploads into it get as much memory as uploads into `config`.
pub async fn open_disk(
    config: &StoreConfig,
    data: &Path,
    options: &OpenOptions,
) -> Result<Arc<dyn BlobStore>, OpenFailure> {
    Ok(disk(data, options, options.memory(&config.backends)).await?)
}

/// The files of the metadata, for a shell to watch.
#[must_use]
pub fn files_of(metadata: &SqliteStore) -> Arc<dyn LocalFiles> {
    Arc::new(WatchedFiles {
        space: metadata.space().clone(),
        paths: metadata.watch().clone(),
    })
}

/// The files of the blobs, for a shell to watch.
#[must_use]
pub fn files_of_blobs(blobs: &DiskBlobs) -> Arc<dyn LocalFiles> {
    Arc::new(WatchedFiles {
        space: blobs.space().clone(),
        paths: blobs.watch().clone(),
    })
}

fn watch_metadata(metadata: &Arc<SqliteStore>, options: &OpenOptions, opening: &mut Opening) {
    metadata.space().keep(options.min_free);
    opening.parts.files.push(files_of(metadata));
    opening.statistics.metadata = Some(Arc::new(SqliteProbe(metadata.clone())));
}

/// Watches blobs on a disk, and sets the minimum free space.
fn watch_blobs(blobs: Arc<DiskBlobs>, options: &OpenOptions, opening: &mut Opening) -> Arc<dyn BlobStore> {
    blobs.space().keep(options.min_free);
    opening.parts.files.push(files_of_blobs(&blobs));
    blobs
}

async fn directory(config: &StoreConfig, data: &Path, options: &OpenOptions) -> Result<Embedded, OpenFailure> {
    let own = own_options(data, options, options.memory(&config.backends));
    let absent = options.absent;
    let opened = blocking(move || match absent {
        Absent::Create => Embedded::open(&own),
        Absent::Refuse => Embedded::open_existing(&own),
    });
    opened.await.map_err(|error| unusable(data, options, &error))
}

async fn disk(data: &Path, options: &OpenOptions, memory: u64) -> Result<Arc<DiskBlobs>, OpenFailure> {
    let own = own_options(data, options, memory);
    let create = options.absent == Absent::Create;
    let opened = blocking(move || store_embedded::open_blobs(&own, create));
    opened.await.map_err(|error| unusable(data, options, &error))
}

fn own_options(data: &Path, options: &OpenOptions, upload_memory: u64) -> store_embedded::EmbeddedOptions {
    store_embedded::EmbeddedOptions {
        data: data.to_owned(),
        sync: options.sync,
        upload_memory,
        memory_timeout: options
            .memory_timeout
            .unwrap_or(store_embedded::EmbeddedOptions::MEMORY_TIMEOUT),
    }
}

/// Runs `work` on a blocking thread, because opening a file may wait for the disk or for another process.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

fn unusable(data: &Path, options: &OpenOptions, error: &OpenError) -> OpenFailure {
    let text = format!(
        "cannot open the data directory {}: {error}. If this is not the directory of the server, name that with {}",
        data.display(),
        (options.spelling)(DATA)
    );
    match error {
        OpenError::Absent(_) => OpenFailure::Absent(text),
        _ => OpenFailure::Unusable(text),
    }
}

/// The space and the paths of one store.
#[derive(Debug)]
struct WatchedFiles {
    space: Arc<Space>,
    paths: PathWatch,
}

impl LocalFiles for WatchedFiles {
    fn refresh_space(&self) {
        self.space.refresh();
    }

    fn check_space(&self) -> Result<(), StoreError> {
        self.space.check()
    }

    fn is_above_floor(&self) -> bool {
        self.space.is_above_floor()
    }

    fn is_of_floor(&self, error: &StoreError) -> bool {
        Space::is_of_floor(error)
    }

    fn check_in_place(&self) -> Result<(), StoreError> {
        self.paths.check()
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        self.paths.check_writable()
    }
}

struct SqliteProbe(Arc<SqliteStore>);

#[async_trait]
impl MetadataProbe for SqliteProbe {
    fn is_remote(&self) -> bool {
        false
    }

    async fn check(&self, _: Context) -> Result<(), ProbeError> {
        Ok(())
    }

    async fn is_new(&self, cx: Context) -> Result<bool, StoreError> {
        self.0.is_new(cx).await
    }

    async fn some_locations(&self, cx: Context, limit: usize) -> Result<Option<Vec<Location>>, StoreError> {
        self.0.some_locations(cx, limit).await.map(Some)
    }

    async fn identity(&self, _: Context) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    fn counts(&self) -> TableCounts {
        let statistics = self.0.statistics();
        TableCounts {
            reads: statistics.reads,
            writes: statistics.writes,
        }
    }
}
