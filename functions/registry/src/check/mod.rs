//! Checks a registry: whether what its records say of each other, and of the objects in the blob store, is so.
//!
//! Two walks: over all records, each of which is compared with what it refers to (`records`), then over all objects,
//! each of which must be named by something (`objects`). The registry goes on serving. So whatever does not agree is
//! only a suspicion, and is reported when the record that it was read from is still the same after the look that found
//! it: had both been right, the change in between would show.
//!
//! What was found lost is told under the names by which it was pulled (`pulls`). Nothing is written, unless the check is to
//! repair what can be repaired without the bytes (`repair`). Findings come one by one, as they are made. What is held in memory: a slice
//! of records, and 16 bytes (about 40 with the table around them) for each object that is named by a record of bytes, by
//! a session or by a grave, and for each that seems to have no name.

mod manifests;
mod objects;
mod pulls;
mod records;
mod repair;

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use oci::{Digest, RepositoryName, Tag};
use serde::Serialize;

use crate::environment::{Environment, context};
use crate::limits::Limits;
use crate::sparse::Sparse;
use crate::store::records::Record;
use crate::store::{Context, Location, StoreError};
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

/// Something that does not agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// A repository links a blob whose bytes, by their own record, do not lie there; or there is no such record.
    LinkAstray {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
        /// Where the link leads.
        location: Location,
    },
    /// A link says another number of bytes than the record of these: a pull would be told the wrong length.
    LinkResized {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
        /// By the link, in bytes.
        recorded: u64,
        /// By the record of the bytes.
        found: u64,
    },
    /// A repository links a blob and is, in this life of the link, not among those who hold its bytes: a collection
    /// would bury them.
    LinkWithoutHolder {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
    },
    /// There is no object where the bytes of a digest should lie.
    ObjectMissing {
        /// The digest.
        digest: Digest,
        /// Where it should lie.
        location: Location,
    },
    /// An object has another size than its record says.
    ObjectResized {
        /// The digest.
        digest: Digest,
        /// The object.
        location: Location,
        /// By the record, in bytes.
        recorded: u64,
        /// In the store, in bytes.
        found: u64,
    },
    /// Bytes do not hash to the digest under which they are served.
    Corrupt {
        /// The repository, if the bytes are in a manifest's record; others may have the same manifest whole.
        #[serde(skip_serializing_if = "Option::is_none")]
        repository: Option<RepositoryName>,
        /// The digest.
        digest: Digest,
        /// The object; `None`: the record itself, of a manifest.
        location: Option<Location>,
        /// What they hash to.
        computed: Digest,
    },
    /// An object is recorded as missing, and is there, with the right size: it may have been looked for in a wrong place.
    /// Pulls of it are answered with 404 until one reads it, or a repair takes the record back.
    RecordedAsMissing {
        /// The digest.
        digest: Digest,
        /// The object.
        location: Location,
    },
    /// An object is recorded as damaged, by a check that has read it: it is never read again, and its bytes must be pushed.
    RecordedAsDamaged {
        /// The digest.
        digest: Digest,
        /// The object.
        location: Location,
    },
    /// A manifest has its bytes in an object where, by their own record, they do not lie; or there is no such record.
    ManifestAstray {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// Where its record leads.
        location: Location,
    },
    /// A manifest's record says another number of bytes than it has.
    ManifestResized {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// By its record, in bytes.
        recorded: u64,
        /// In the record, or by the record of the bytes.
        found: u64,
    },
    /// A manifest has its bytes in an object, and is, in this life, not among those who hold them: a collection would
    /// bury them.
    ManifestWithoutHolder {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
    },
    /// A manifest's bytes are whole, and would be refused if they were pushed now. What it refers to is not known.
    ManifestRefused {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// A manifest refers to what must be there, and is not.
    ReferenceMissing {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// What is missing.
        target: Digest,
    },
    /// A manifest refers to something that nothing keeps for it: a delete or a collection would remove that.
    EdgeMissing {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// What it refers to.
        target: Digest,
    },
    /// A manifest refers to something that its record does not list: an export would not tell of it, and what keeps it
    /// would outlive the manifest.
    ReferenceUnlisted {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// What it refers to.
        target: Digest,
    },
    /// A tag names a manifest that is not there.
    TagDangling {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// What it names.
        digest: Digest,
    },
    /// A tag says something else of its manifest than the manifest's own record: its media type or size.
    TagDiffers {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// What it names.
        digest: Digest,
    },
    /// A repository holds a manifest and is not in the catalog.
    RepositoryUnlisted {
        /// The repository.
        repository: RepositoryName,
    },
    /// A manifest cannot be pulled whole, because of something else that was found: it must be pushed again.
    ManifestNotPullable {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// The tags that name it.
        tags: Vec<Tag>,
        /// What is lost of it: its own digest, or what it refers to.
        lost: Vec<Digest>,
    },
    /// A blob cannot be pulled, because of something else that was found, and no manifest refers to it: it must be pushed
    /// again.
    BlobNotPullable {
        /// The repository.
        repository: RepositoryName,
        /// The blob.
        digest: Digest,
    },
    /// A record cannot be read, or something that it has to be compared with cannot. `metadata export` ends with an
    /// error here.
    Damaged {
        /// What it is, and its key.
        record: String,
        /// Why.
        reason: String,
    },
    /// An object that no record, session or grave names: nothing will ever delete it. Not told of any object while
    /// something is damaged: that may be its name.
    Stray {
        /// The object.
        location: Location,
        /// Its bytes.
        size: u64,
    },
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

/// Checks everything once.
///
/// # Errors
/// A store could not be read. What was found until then was told. What is damaged is a finding and no error.
pub async fn check(
    stores: &Stores,
    environment: Arc<dyn Environment>,
    options: &Options,
    tell: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<Summary, StoreError> {
    let mut run = Run {
        over: Over {
            stores,
            environment,
            options,
        },
        tell,
        summary: Summary::default(),
    };
    let (named, losses) = run.records().await?;
    run.not_pullable(losses).await?;
    run.objects(named).await?;
    Ok(run.summary)
}

/// What a look needs.
struct Over<'a> {
    stores: &'a Stores,
    environment: Arc<dyn Environment>,
    options: &'a Options,
}

struct Run<'a> {
    over: Over<'a>,
    tell: &'a mut (dyn FnMut(Event<'_>) + Send),
    summary: Summary,
}

impl Over<'_> {
    fn cx(&self) -> Context {
        context(
            &*self.environment,
            crate::budget::ClientKey::INTERNAL,
            self.options.limits.store_ms,
        )
    }
}

impl Run<'_> {
    fn found(&mut self, finding: &Finding) {
        self.summary.findings += 1;
        (self.tell)(Event::Found(finding));
    }

    fn count(&mut self, record: &Record) {
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

    /// Looks at every record, and tells which objects they name, and what is lost.
    async fn records(&mut self) -> Result<(objects::Named, pulls::Losses), StoreError> {
        let mut named = objects::Named::default();
        let mut losses = pulls::Losses::default();
        let mut next = None;
        loop {
            let limit = self.over.options.slice;
            let records = &self.over.stores.records;
            let slice = records.walk(self.over.cx(), next.as_ref(), limit).await?;
            for record in &slice.items {
                named.add_record(record);
                if let Ok(record) = record {
                    self.count(record);
                }
            }
            let over = &self.over;
            let looked: Vec<records::Looked> = stream::iter(slice.items)
                .map(|record| over.look(record))
                .buffered(over.options.at_once)
                .try_collect()
                .await?;
            for looked in looked {
                self.summary.hashed += looked.hashed;
                self.summary.absent += looked.absent;
                for finding in &looked.findings {
                    losses.add(finding);
                    self.found(finding);
                    if self.over.options.repair {
                        self.repair(finding).await?;
                    }
                }
            }
            (self.tell)(Event::Progress(&self.summary));
            next = slice.next;
            if next.is_none() {
                return Ok((named, losses));
            }
        }
    }
}
