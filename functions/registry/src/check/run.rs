//! The options, the events and the statistics of a check, and the state that its steps share.

use std::sync::Arc;

use serde::Serialize;

use super::finding::Finding;
use crate::budget::ClientKey;
use crate::environment::{Environment, context};
use crate::limits::Limits;
use crate::sparse::Sparse;
use crate::store::Context;
use crate::store::records::Record;
use crate::stores::Stores;

/// The options of a check.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Repairs records. Records which objects are missing or damaged, so that pulls get 404 and the next push uploads
    /// the bytes. Removes the record of a missing object that was found again. Corrects the location in links and
    /// manifests. Deletes nothing.
    pub repair: bool,
    /// Reads every blob, and every manifest in an object, and compares the hash with the digest. Manifests in records
    /// are always hashed.
    pub hash: bool,
    /// The absent content to which manifests of this registry may refer.
    pub sparse: Sparse,
    /// The limits under which manifests were accepted.
    pub limits: Limits,
    /// Records, sessions, pending deletions or objects in a slice.
    pub slice: usize,
    /// How many records are checked concurrently.
    pub at_once: usize,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self {
            repair: false,
            hash: false,
            sparse: Sparse::default(),
            limits: Limits::default(),
            slice: 500,
            at_once: 16,
        }
    }
}

/// What a check has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Repositories of the catalog.
    pub repositories: u64,
    /// Digests with a location.
    pub blobs: u64,
    /// Links of repositories to blobs.
    pub links: u64,
    /// Manifests.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Changes of tags.
    pub changes: u64,
    /// Upload sessions.
    pub sessions: u64,
    /// Pending deletions.
    pub pending_deletions: u64,
    /// Objects.
    pub objects: u64,
    /// The bytes of these objects.
    pub object_bytes: u64,
    /// Objects that were read and hashed.
    pub hashed: u64,
    /// References of manifests to absent content that may be absent.
    pub absent: u64,
    /// Findings.
    pub findings: u64,
    /// Findings that were repaired, or that the registry has recorded. All others, and lost content, need a push or
    /// other work of the operator.
    pub repaired: u64,
}

/// An event of a check in progress.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A finding.
    Found(&'a Finding),
    /// The statistics so far.
    Progress(&'a Summary),
}

/// What the checks of records share.
pub(super) struct CheckSetup<'a> {
    pub(super) stores: &'a Stores,
    pub(super) environment: Arc<dyn Environment>,
    pub(super) options: &'a CheckOptions,
}

/// A check in progress.
pub(super) struct Run<'a> {
    pub(super) setup: CheckSetup<'a>,
    pub(super) report: &'a mut (dyn FnMut(Event<'_>) + Send),
    pub(super) summary: Summary,
}

impl CheckSetup<'_> {
    pub(super) fn cx(&self) -> Context {
        context(&*self.environment, ClientKey::INTERNAL, self.options.limits.store_ms)
    }
}

impl Run<'_> {
    pub(super) fn found(&mut self, finding: &Finding) {
        self.summary.findings += 1;
        (self.report)(Event::Found(finding));
    }

    pub(super) fn count(&mut self, record: &Record) {
        let counter = match record {
            Record::Repository { .. } => &mut self.summary.repositories,
            Record::Blob { .. } => &mut self.summary.blobs,
            Record::Link { .. } => &mut self.summary.links,
            Record::Manifest(_) => &mut self.summary.manifests,
            Record::Tag { .. } => &mut self.summary.tags,
            Record::History { .. } => &mut self.summary.changes,
        };
        *counter += 1;
    }
}
