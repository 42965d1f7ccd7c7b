//! Counts what is asked of the object store.

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
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name that the protocol gives it.
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
    UploadPartCopy: "Makes a part of an object, inside the store.",
    ListParts: "Looks which parts an upload has, where its record does not tell.",
    CompleteMultipartUpload: "Makes an object of parts.",
    AbortMultipartUpload: "Drops parts.",
    GetObject: "Reads a range.",
    HeadObject: "Looks whether an object is there.",
    DeleteObjects: "Deletes up to 1,000 objects.",
    DeleteObject: "Deletes one, where the store does not take many.",
    ListObjectsV2: "Walks over objects.",
    ListMultipartUploads: "Looks for uploads that were never completed.",
}

/// How often something was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests sent, repetitions included.
    pub sent: u64,
    /// Those that were not answered, or with an error that passes (500, 503, 429 and their like).
    pub failed: u64,
}

/// What was asked of the object store since it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// By operation, in the order of [`Operation::ALL`].
    pub requests: Vec<(Operation, Counts)>,
    /// Bytes of bodies sent, repetitions included.
    pub bytes_sent: u64,
    /// Bytes of objects received.
    pub bytes_received: u64,
    /// Bodies that are being received now.
    pub uploads: u64,
    /// Bytes that uploads could still take into memory.
    pub upload_memory_free: u64,
}

impl Statistics {
    /// The requests sent for an operation.
    #[must_use]
    pub fn sent(&self, operation: Operation) -> u64 {
        let found = self.requests.iter().find(|(one, _)| *one == operation);
        found.map_or(0, |(_, counts)| counts.sent)
    }
}

/// The counters behind [`Statistics`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    sent: [AtomicU64; Operation::ALL.len()],
    failed: [AtomicU64; Operation::ALL.len()],
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    uploads: AtomicU64,
}

impl Counters {
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

    /// Counts an upload until the answer is dropped.
    pub(crate) fn upload(&self) -> impl Drop + use<'_> {
        struct Open<'a>(&'a AtomicU64);
        impl Drop for Open<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.uploads.fetch_add(1, Ordering::Relaxed);
        Open(&self.uploads)
    }

    pub(crate) fn read(&self, upload_memory_free: u64) -> Statistics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = |operation: Operation| Counts {
            sent: load(&self.sent[operation as usize]),
            failed: load(&self.failed[operation as usize]),
        };
        Statistics {
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
        let counters = Counters::default();
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
