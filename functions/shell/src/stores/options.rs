//! How stores are opened, and what depends on where blobs are: the memory of uploads, and limits of the core.

use std::time::Duration;

use registry::Limits;

#[cfg(feature = "embedded")]
use super::config::Backends;
use super::names::BlobBackend;
use crate::memory::RequestMemory;
use crate::settings::Spelling;
use crate::values::{Length, Span};

/// How stores are opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// What to do if there is no registry on this host.
    pub absent: Absent,
    /// Bytes that uploads may hold together. `None`: 64 MiB on a disk, 512 MiB in S3.
    pub upload_memory: Option<u64>,
    /// For how long an upload waits for its memory. `None`: 30 seconds on a disk, 5 minutes in S3.
    pub memory_timeout: Option<Duration>,
    /// Maximum time for which a redirect works; up to 12 hours.
    pub presign_lifetime: Duration,
    /// Whether a table must answer when it is opened.
    pub contact: Contact,
    /// How errors write the names of settings.
    pub spelling: Spelling,
    /// Whether writes on this host are synced.
    #[cfg(feature = "embedded")]
    pub sync: store_embedded::Sync,
    /// The minimum free space on the file systems of this host.
    #[cfg(feature = "embedded")]
    pub min_free: store_embedded::MinFree,
}

/// What to do if there is no registry on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Create one.
    Create,
    /// Fail, because the path is probably mistyped.
    Refuse,
}

/// When the first request goes to a table in the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// When it is opened, and it must answer: for commands.
    Now,
    /// After it was opened: for a server, which starts even if its table does not answer. See
    /// [`admission`](crate::admission).
    Later,
}

/// Default memory for uploads to a disk, in bytes. It is less than for an object store, which needs memory for many parts
/// in flight.
const DISK_MEMORY: u64 = 64 << 20;

/// Default memory for uploads to S3, in bytes.
#[cfg(all(feature = "cloud", feature = "embedded"))]
const S3_MEMORY: u64 = store_s3::S3Options::UPLOAD_MEMORY;

/// Without S3, its memory does not matter.
#[cfg(all(not(feature = "cloud"), feature = "embedded"))]
const S3_MEMORY: u64 = DISK_MEMORY;

impl OpenOptions {
    /// Bytes that manifests and lists may hold together, wherever they are stored: as much as uploads, if that was set.
    #[must_use]
    pub fn manifest_memory(&self) -> u64 {
        self.upload_memory.unwrap_or(DISK_MEMORY)
    }

    /// The memory of requests that are no uploads.
    #[must_use]
    pub fn request_memory(&self) -> RequestMemory {
        let memory = RequestMemory::new(self.manifest_memory());
        match self.memory_timeout {
            Some(timeout) => memory.waiting_no_longer_than(timeout),
            None => memory,
        }
    }

    /// Bytes that uploads into the blobs of `backends` may hold together.
    #[cfg(feature = "embedded")]
    pub(super) fn memory(&self, backends: &Backends) -> u64 {
        let default = if backends.has_s3() { S3_MEMORY } else { DISK_MEMORY };
        self.upload_memory.unwrap_or(default)
    }
}

/// Memory that a pull from S3 through the registry may take, in bytes: its own buffers, and those of the connection to S3,
/// which grow with its speed.
const STREAM_FROM_S3: usize = 256 << 10;

impl BlobBackend {
    /// The limits of a registry whose blobs are here.
    #[must_use]
    pub fn limits(&self, max_blob_size: Length, upload_lifetime: Span) -> Limits {
        let limits = Limits::default();
        Limits {
            blob_bytes: max_blob_size.0,
            upload_token_ms: u64::try_from(upload_lifetime.0.as_millis()).unwrap_or(u64::MAX),
            stream_bytes: match self {
                Self::S3(_) => STREAM_FROM_S3,
                Self::Disk => limits.stream_bytes,
            },
            ..limits
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn limits_depend_on_where_blobs_are() {
        let limits = |text: &str| {
            let blobs: BlobBackend = text.parse().unwrap();
            let limits = blobs.limits("7GiB".parse().unwrap(), "2h".parse().unwrap());
            (limits.blob_bytes, limits.upload_token_ms, limits.stream_bytes)
        };
        assert_eq!(limits("disk"), (7 << 30, 7_200_000, Limits::default().stream_bytes));
        assert_eq!(limits("s3://bucket"), (7 << 30, 7_200_000, STREAM_FROM_S3));
    }
}
