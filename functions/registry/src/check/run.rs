//! What a check is told, what it tells, and what its steps share.

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

/// How a registry is checked.
#[derive(Clone, Debug)]
pub struct Options {
    /// Records which objects are missing or damaged, so that pulls are answered with 404 and the next push uploads their
    /// bytes, and which of those that were recorded as missing are there; and lets links and manifests that lead elsewhere
    /// lead to their bytes. Deletes nothing.
    pub repair: bool,
    /// Reads every blob and every manifest that lies in an object, and compares what it hashes to with its name. The
    /// bytes of manifests that lie in records are compared in any case.
    pub hash: bool,
    /// What manifests of this registry may refer to without its being there.
    pub sparse: Sparse,
    /// The bounds under which manifests were accepted.
    pub limits: Limits,
    /// Records, sessions, graves or objects in a slice.
    pub slice: usize,
    /// How many records are looked at at once.
    pub at_once: usize,
}

impl Default for Options {
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

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Repositories of the catalog.
    pub repositories: u64,
    /// Digests with a place.
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
    /// Graves.
    pub pending_deletions: u64,
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Objects that were read and compared with their digests.
    pub hashed: u64,
    /// References of manifests to what is not there, and need not be.
    pub absent: u64,
    /// Findings.
    pub findings: u64,
    /// Findings of which the registry knows now, or that are mended. The others, and what is lost, need a push or more.
    pub repaired: u64,
}

/// What a check tells while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Something does not agree.
    Found(&'a Finding),
    /// So much was looked at.
    Progress(&'a Summary),
}

/// What a look needs.
pub(super) struct Over<'a> {
    pub(super) stores: &'a Stores,
    pub(super) environment: Arc<dyn Environment>,
    pub(super) options: &'a Options,
}

/// A check that goes on.
pub(super) struct Run<'a> {
    pub(super) over: Over<'a>,
    pub(super) tell: &'a mut (dyn FnMut(Event<'_>) + Send),
    pub(super) summary: Summary,
}

impl Over<'_> {
    pub(super) fn cx(&self) -> Context {
        context(&*self.environment, ClientKey::INTERNAL, self.options.limits.store_ms)
    }
}

impl Run<'_> {
    pub(super) fn found(&mut self, finding: &Finding) {
        self.summary.findings += 1;
        (self.tell)(Event::Found(finding));
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
