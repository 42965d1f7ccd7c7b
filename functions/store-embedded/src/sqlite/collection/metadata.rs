//! The walk over the metadata: one table after the other, each in the order of its key.
//!
//! First edges, links and back-links; then blob records without back-links; last the catalog rows of repositories
//! without manifests and links. Only a deep pass walks over edges and back-links. A manifest is published in one
//! transaction with its catalog row, so a catalog row needs no mark before its removal. The rows of one operation are
//! written together, so only a fault outside this store can leave orphaned edges and back-links. A deep pass looks for
//! them nevertheless.

use oci::RepositoryName;
use registry::store::collection::{Collected, PassStatistics, Plan};
use registry::store::metadata::Removal;
use registry::store::{Context, Cursor, StoreError, Timestamp};
use rusqlite::params;

use super::super::SqliteStore;
use super::super::deletion_queue::schedule_deletion;
use super::super::metadata::remove;
use super::super::rows::{OperationFailure, Rows};
use super::super::values::{Columns, timestamp};

pub(super) const EDGES: &str = "SELECT repository, target, parent, incarnation, at, \
    EXISTS (SELECT 1 FROM manifest WHERE manifest.repository = edge.repository \
        AND manifest.digest = edge.parent AND manifest.incarnation = edge.incarnation) \
    FROM edge WHERE (repository, target, parent, incarnation) > (?1, ?2, ?3, ?4) \
    ORDER BY repository, target, parent, incarnation LIMIT ?5";

pub(super) const LINKS: &str = "SELECT repository, digest, at, condemned, \
    EXISTS (SELECT 1 FROM edge WHERE edge.repository = link.repository AND edge.target = link.digest), size \
    FROM link WHERE (repository, digest) > (?1, ?2) ORDER BY repository, digest LIMIT ?3";

pub(super) const BACK_LINKS: &str = "SELECT digest, repository, incarnation, at, \
    CASE kind WHEN 'blob' THEN EXISTS (SELECT 1 FROM link WHERE link.repository = backlink.repository \
        AND link.digest = backlink.digest AND link.incarnation = backlink.incarnation) \
    ELSE EXISTS (SELECT 1 FROM manifest WHERE manifest.repository = backlink.repository \
        AND manifest.digest = backlink.digest AND manifest.incarnation = backlink.incarnation) END \
    FROM backlink WHERE (digest, repository, incarnation) > (?1, ?2, ?3) \
    ORDER BY digest, repository, incarnation LIMIT ?4";

pub(super) const BLOBS: &str = "SELECT digest, size, \
    EXISTS (SELECT 1 FROM backlink WHERE backlink.digest = blob.digest) \
    FROM blob WHERE digest > ?1 ORDER BY digest LIMIT ?2";

pub(super) const CATALOG: &str = "SELECT name, created, \
    EXISTS (SELECT 1 FROM manifest WHERE manifest.repository = catalog.name) \
    OR EXISTS (SELECT 1 FROM link WHERE link.repository = catalog.name) OR permanent \
    FROM repository AS catalog WHERE name > ?1 ORDER BY name LIMIT ?2";

/// The prefix of a collection pass's mark. The time of the mark follows, in milliseconds.
const MARK_PREFIX: &str = "collection ";

/// The prefix of positions in the catalog. No digest starts with it. A program that does not know the catalog part of
/// the walk reads such a position as one after all digests, where its own walk ends.
const CATALOG_PREFIX: char = '~';

/// Walks over at most `limit` rows, and changes them as the plan says.
pub(super) async fn slice(
    store: &SqliteStore,
    cx: Context,
    plan: &Plan,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<Collected, StoreError> {
    let first = CollectionPosition::Edges(String::new(), String::new(), String::new(), i64::MIN);
    let position = after.map_or(Ok(first), CollectionPosition::parse)?;
    let Some(position) = position.within(plan) else {
        return Err(StoreError::failed("the walk has no position to start from"));
    };
    let (from, whole) = (position.clone(), *plan);
    let walked = store.walk(cx, move |rows| from.walk(rows, cx, &whole, limit)).await?;
    let WalkedRows { count, waiting, .. } = walked;
    let mut statistics = if plan.dry_run || walked.nominated.is_empty() {
        walked
            .nominated
            .iter()
            .fold(PassStatistics::default(), |mut statistics, nominee| {
                nominee.count(&mut statistics);
                statistics
            })
    } else {
        let nominated = walked.nominated;
        let work = move |rows: &Rows<'_>| {
            let mut statistics = PassStatistics::default();
            for nominee in &nominated {
                if nominee.act(rows, cx)? {
                    nominee.count(&mut statistics);
                }
            }
            Ok(statistics)
        };
        // Synced: an object that is deleted later must not be referenced again after a power failure.
        store.write(cx, work).await?
    };
    statistics.seen = count as u64;
    statistics += waiting;
    let next = match walked.last {
        Some(last) if count == limit => Some(last),
        _ => position.next_table(),
    };
    Ok(Collected {
        statistics,
        next: next
            .and_then(|position| position.within(plan))
            .map(|position| position.cursor()),
    })
}

/// The row after which the walk continues: its table and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum CollectionPosition {
    Edges(String, String, String, i64),
    Links(String, String),
    BackLinks(String, String, i64),
    Blobs(String),
    Catalog(String),
}

impl CollectionPosition {
    /// Parses the text of [`CollectionPosition::cursor`]. Names and digests contain no spaces.
    fn parse(cursor: &Cursor) -> Result<Self, StoreError> {
        let fields: Vec<_> = cursor.0.split(' ').collect();
        let position = match *fields.as_slice() {
            ["edges", repository, target, parent, uid] => uid
                .parse()
                .ok()
                .map(|uid| Self::Edges(repository.to_owned(), target.to_owned(), parent.to_owned(), uid)),
            ["links", repository, digest] => Some(Self::Links(repository.to_owned(), digest.to_owned())),
            ["back-links", digest, repository, uid] => uid
                .parse()
                .ok()
                .map(|uid| Self::BackLinks(digest.to_owned(), repository.to_owned(), uid)),
            ["blobs", after] => Some(match after.strip_prefix(CATALOG_PREFIX) {
                Some(repository) => Self::Catalog(repository.to_owned()),
                None => Self::Blobs(after.to_owned()),
            }),
            _ => None,
        };
        position.ok_or_else(|| StoreError::failed(format!("{:?} is not a position in the metadata", cursor.0)))
    }

    fn cursor(&self) -> Cursor {
        Cursor(match self {
            Self::Edges(repository, target, parent, uid) => {
                format!("edges {repository} {target} {parent} {uid}")
            }
            Self::Links(repository, digest) => format!("links {repository} {digest}"),
            Self::BackLinks(digest, repository, uid) => {
                format!("back-links {digest} {repository} {uid}")
            }
            Self::Blobs(digest) => format!("blobs {digest}"),
            Self::Catalog(repository) => format!("blobs {CATALOG_PREFIX}{repository}"),
        })
    }

    /// The start of the next table.
    fn next_table(&self) -> Option<Self> {
        match self {
            Self::Edges(..) => Some(Self::Links(String::new(), String::new())),
            Self::Links(..) => Some(Self::BackLinks(String::new(), String::new(), i64::MIN)),
            Self::BackLinks(..) => Some(Self::Blobs(String::new())),
            Self::Blobs(_) => Some(Self::Catalog(String::new())),
            Self::Catalog(_) => None,
        }
    }

    /// This position, or the next one in a table that the plan includes.
    fn within(self, plan: &Plan) -> Option<Self> {
        match self {
            Self::Edges(..) | Self::BackLinks(..) if !plan.deep => self.next_table(),
            position => Some(position),
        }
    }

    fn walk(&self, rows: &Rows<'_>, cx: Context, plan: &Plan, limit: usize) -> Result<WalkedRows, OperationFailure> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let is_old = |at: Timestamp| cx.now.millis_since(at) > plan.grace_periods.orphan_ms;
        let found = match self {
            Self::Edges(repository, target, parent, uid) => {
                let after = params![repository, target, parent, uid, limit];
                rows.all(EDGES, after, |row| {
                    let position = Self::Edges(row.value(0)?, row.value(1)?, row.value(2)?, row.value(3)?);
                    let is_owned: bool = row.value(5)?;
                    let nominee = (!is_owned && is_old(row.timestamp(4)?)).then(|| Nominee::Orphan(position.clone()));
                    Ok((position, nominee))
                })
            }
            Self::Links(repository, digest) => rows.all(LINKS, params![repository, digest, limit], |row| {
                let (repository, digest): (String, String) = (row.value(0)?, row.value(1)?);
                let is_referred_to: bool = row.value(4)?;
                let nominee = if is_referred_to {
                    None
                } else {
                    let mark: Option<String> = row.value(3)?;
                    let link = UnreferencedLink {
                        repository: row.parsed(0)?,
                        digest: digest.clone(),
                        size: row.unsigned(5)?,
                        at: row.timestamp(2)?,
                        mark,
                    };
                    link.nominee(cx.now, plan.grace_periods.link_ms)
                };
                Ok((Self::Links(repository, digest), nominee))
            }),
            Self::BackLinks(digest, repository, uid) => {
                rows.all(BACK_LINKS, params![digest, repository, uid, limit], |row| {
                    let position = Self::BackLinks(row.value(0)?, row.value(1)?, row.value(2)?);
                    let is_owned: bool = row.value(4)?;
                    let nominee = (!is_owned && is_old(row.timestamp(3)?)).then(|| Nominee::Orphan(position.clone()));
                    Ok((position, nominee))
                })
            }
            Self::Blobs(digest) => rows.all(BLOBS, params![digest, limit], |row| {
                let digest: String = row.value(0)?;
                let is_referenced: bool = row.value(2)?;
                let nominee = Nominee::UnreferencedBlob {
                    digest: digest.clone(),
                    size: row.unsigned(1)?,
                };
                Ok((Self::Blobs(digest), (!is_referenced).then_some(nominee)))
            }),
            Self::Catalog(repository) => rows.all(CATALOG, params![repository, limit], |row| {
                let repository: String = row.value(0)?;
                let is_in_use: bool = row.value(2)?;
                let is_young = cx.now.millis_since(row.timestamp(1)?) <= plan.grace_periods.link_ms;
                let nominee = Nominee::Empty(repository.clone());
                Ok((Self::Catalog(repository), (!is_in_use && !is_young).then_some(nominee)))
            }),
        }?;
        let count = found.len();
        let (mut positions, nominated): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        let (waiting, nominated): (Vec<_>, Vec<_>) = nominated
            .into_iter()
            .flatten()
            .partition(|nominee| matches!(nominee, Nominee::Waiting { .. }));
        let mut statistics = PassStatistics::default();
        for nominee in waiting {
            nominee.count(&mut statistics);
        }
        Ok(WalkedRows {
            count,
            last: positions.pop(),
            waiting: statistics,
            nominated,
        })
    }
}

impl CollectionPosition {
    /// Removes the edge or back-link at this position, if its owner is still missing.
    fn remove_orphan(&self, rows: &Rows<'_>) -> Result<bool, OperationFailure> {
        let removed = match self {
            Self::Edges(repository, target, parent, uid) => rows.change(
                "DELETE FROM edge WHERE repository = ?1 AND target = ?2 AND parent = ?3 AND incarnation = ?4 \
                 AND NOT EXISTS (SELECT 1 FROM manifest \
                 WHERE repository = ?1 AND digest = ?3 AND incarnation = ?4)",
                params![repository, target, parent, uid],
            )?,
            Self::BackLinks(digest, repository, uid) => rows.change(
                "DELETE FROM backlink WHERE digest = ?1 AND repository = ?2 AND incarnation = ?3 \
                 AND NOT EXISTS (SELECT 1 FROM link WHERE kind = 'blob' \
                 AND repository = ?2 AND link.digest = ?1 AND link.incarnation = ?3) \
                 AND NOT EXISTS (SELECT 1 FROM manifest WHERE kind = 'manifest' \
                 AND repository = ?2 AND manifest.digest = ?1 AND manifest.incarnation = ?3)",
                params![digest, repository, uid],
            )?,
            Self::Links(..) | Self::Blobs(_) | Self::Catalog(_) => 0,
        };
        Ok(removed == 1)
    }
}

/// What a walk over some rows has found.
struct WalkedRows {
    count: usize,
    last: Option<CollectionPosition>,
    /// Links that are marked and not yet due. They are not changed.
    waiting: PassStatistics,
    nominated: Vec<Nominee>,
}

/// A row that the writer changes, if the row has not changed since it was read.
enum Nominee {
    /// An unreferenced link, created before `made_before`.
    Mark {
        repository: String,
        digest: String,
        size: u64,
        made_before: Timestamp,
    },
    /// A link whose mark is too young.
    Waiting { size: u64 },
    /// A link whose mark is old enough.
    Unlink {
        repository: RepositoryName,
        digest: String,
        mark: String,
    },
    /// A blob record without a back-link.
    UnreferencedBlob { digest: String, size: u64 },
    /// An edge or a back-link whose owner does not exist.
    Orphan(CollectionPosition),
    /// The catalog row of a repository without manifests and links.
    Empty(String),
}

/// A link to which no manifest refers.
struct UnreferencedLink {
    repository: RepositoryName,
    digest: String,
    size: u64,
    at: Timestamp,
    mark: Option<String>,
}

impl UnreferencedLink {
    /// What to do with the link. A link with a mark that this version does not write is not changed.
    fn nominee(self, now: Timestamp, grace: u64) -> Option<Nominee> {
        let Self {
            repository,
            digest,
            size,
            at,
            mark,
        } = self;
        match mark {
            None => (now.millis_since(at) > grace).then(|| Nominee::Mark {
                repository: repository.to_string(),
                digest,
                size,
                made_before: Timestamp(now.0 - grace),
            }),
            Some(mark) => {
                let since = mark.strip_prefix(MARK_PREFIX)?.parse().ok().map(Timestamp)?;
                Some(if now.millis_since(since) > grace {
                    Nominee::Unlink {
                        repository,
                        digest,
                        mark,
                    }
                } else {
                    Nominee::Waiting { size }
                })
            }
        }
    }
}

impl Nominee {
    fn count(&self, statistics: &mut PassStatistics) {
        match self {
            Self::Mark { size, .. } => {
                statistics.marked += 1;
                statistics.marked_bytes += size;
            }
            Self::Waiting { size } => {
                statistics.waiting += 1;
                statistics.waiting_bytes += size;
            }
            Self::Unlink { .. } => statistics.unlinked += 1,
            Self::UnreferencedBlob { size, .. } => {
                statistics.scheduled += 1;
                statistics.scheduled_bytes += size;
            }
            Self::Orphan(_) => statistics.orphaned_records += 1,
            Self::Empty(_) => statistics.repositories += 1,
        }
    }

    /// Changes the row, if the conditions still hold.
    fn act(&self, rows: &Rows<'_>, cx: Context) -> Result<bool, OperationFailure> {
        match self {
            Self::Waiting { .. } => Ok(false),
            Self::Mark {
                repository,
                digest,
                made_before,
                ..
            } => {
                let marked = rows.change(
                    "UPDATE link SET condemned = ?3 WHERE repository = ?1 AND digest = ?2 AND condemned IS NULL \
                     AND at < ?4 AND NOT EXISTS (SELECT 1 FROM edge WHERE repository = ?1 AND target = ?2)",
                    params![
                        repository,
                        digest,
                        format!("{MARK_PREFIX}{}", cx.now.0),
                        timestamp(*made_before)
                    ],
                )?;
                Ok(marked == 1)
            }
            Self::Unlink {
                repository,
                digest,
                mark,
            } => {
                let is_marked = rows.exists(
                    "SELECT 1 FROM link WHERE repository = ?1 AND digest = ?2 AND condemned = ?3",
                    params![repository.as_str(), digest, mark],
                )?;
                Ok(is_marked && remove::link(rows, repository, digest)? == Removal::Removed)
            }
            Self::UnreferencedBlob { digest, .. } => {
                let location = rows.one(
                    "SELECT store, key FROM blob WHERE digest = ?1 \
                     AND NOT EXISTS (SELECT 1 FROM backlink WHERE digest = ?1)",
                    [digest],
                    |row| row.location(0, 1),
                )?;
                let Some(location) = location else {
                    return Ok(false);
                };
                rows.change("DELETE FROM blob WHERE digest = ?1", [digest])?;
                schedule_deletion(rows, cx.now, &location, Some(digest), false)?;
                Ok(true)
            }
            Self::Orphan(position) => position.remove_orphan(rows),
            Self::Empty(repository) => {
                let removed = rows.change(
                    "DELETE FROM repository WHERE name = ?1 AND permanent = 0 \
                     AND NOT EXISTS (SELECT 1 FROM manifest WHERE repository = ?1) \
                     AND NOT EXISTS (SELECT 1 FROM link WHERE repository = ?1)",
                    [repository],
                )?;
                Ok(removed == 1)
            }
        }
    }
}
