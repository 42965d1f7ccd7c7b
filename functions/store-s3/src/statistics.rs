//! Counts the requests to the object store.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! operations {
    ($($name:ident: $doc:literal,)*) => {
        /// A request of the S3 protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Operation {
            $(#[doc = $doc] $name,)*
        }

        impl Operation {
            /// All operations.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name of the operation in the protocol.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

operations! {
    PutObject: "Stores an object of one body, or staged bytes.",
    CreateMultipartUpload: "Begins an upload in parts.",
    UploadPart: "Stores a part.",
    UploadPartCopy: "Copies an object, or a range of it, to a part, inside the store.",
    ListParts: "Lists the parts of an upload, if its record does not contain enough.",
    CompleteMultipartUpload: "Makes an object of parts.",
    AbortMultipartUpload: "Aborts an upload in parts, and deletes the parts.",
    GetObject: "Reads a range.",
    HeadObject: "Checks whether an object exists.",
    DeleteObjects: "Deletes up to 1,000 objects.",
    DeleteObject: "Deletes one object, if the store does not support deleting many.",
    ListObjectsV2: "Lists objects.",
    ListMultipartUploads: "Lists uploads that were never completed.",
}

/// The number of requests of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Requests sent, including retries.
    pub sent: u64,
    /// Requests that got no response, or a transient error (500, 503, 429 and similar).
    pub failed: u64,
}

/// The requests to the object store since it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStoreStatistics {
    /// The counts by operation, in the order of [`Operation::ALL`].
    pub requests: Vec<(Operation, RequestCounts)>,
    /// Bytes of request bodies sent, including retries.
    pub bytes_sent: u64,
    /// Bytes of objects received.
    pub bytes_received: u64,
    /// Request bodies that are being received now.
    pub uploads: u64,
    /// Free bytes of the memory for uploads.
    pub upload_memory_free: u64,
}

impl ObjectStoreStatistics {
    /// The number of requests sent for an operation.
    #[must_use]
    pub fn sent(&self, operation: Operation) -> u64 {
        let found = self.requests.iter().find(|(one, _)| *one == operation);
        found.map_or(0, |(_, counts)| counts.sent)
    }
}

/// The counters behind [`ObjectStoreStatistics`].
#[derive(Debug, Default)]
pub(crate) struct RequestCounters {
    sent: [AtomicU64; Operation::ALL.len()],
    failed: [AtomicU64; Operation::ALL.len()],
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    uploads: AtomicU64,
}

impl RequestCounters {
    pub(crate) fn sent(&self, operation: Operation) {
        self.sent[operation as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, operation: Operation) {
        self.failed[operation as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn bytes_sent(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn bytes_received(&self, bytes: usize) {
        self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts an upload until the returned guard is dropped.
    pub(crate) fn upload(&self) -> impl Drop + use<'_> {
        struct UploadGuard<'a>(&'a AtomicU64);
        impl Drop for UploadGuard<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.uploads.fetch_add(1, Ordering::Relaxed);
        UploadGuard(&self.uploads)
    }

    pub(crate) fn read(&self, upload_memory_free: u64) -> ObjectStoreStatistics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = |operation: Operation| RequestCounts {
            sent: load(&self.sent[operation as usize]),
            failed: load(&self.failed[operation as usize]),
        };
        ObjectStoreStatistics {
            requests: Operation::ALL.iter().map(|one| (*one, counts(*one))).collect(),
            bytes_sent: load(&self.bytes_sent),
            bytes_received: load(&self.bytes_received),
            uploads: load(&self.uploads),
            upload_memory_free,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_its_own_count() {
        let counters = RequestCounters::default();
        for (times, operation) in Operation::ALL.iter().enumerate() {
            for _ in 0..times {
                counters.sent(*operation);
            }
        }
        let upload = counters.upload();
        let statistics = counters.read(7);
        for (times, operation) in (0..).zip(Operation::ALL) {
            assert_eq!(statistics.sent(*operation), times);
        }
        assert_eq!((statistics.uploads, statistics.upload_memory_free), (1, 7));
        drop(upload);
        assert_eq!(counters.read(0).uploads, 0);
    }
}
