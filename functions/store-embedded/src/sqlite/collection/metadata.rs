//! The walk over the names: one table after the other, each in the order of its key.
//!
//! First what a deep pass looks at and what may let others go: edges, links, back-links; then the records of bytes,
//! which go when no back-link is left; last the catalog, whose rows go when a repository has neither manifests nor
//! links. A manifest is published in one transaction with its catalog row, so that a row needs no mark before it goes.
//! The rows of one operation are written together, so that edges and back-links
//! without their owner come from outside: a deep pass looks for them all the same.

use oci::RepositoryName;
use registry::store::collection::{Collected, PassStatistics, Plan};
use registry::store::metadata::Removal;
use registry::store::{Context, Cursor, StoreError, Timestamp};
use rusqlite::params;

use super::super::SqliteStore;
use super::super::metadata::remove;
use super::super::rows::{Failure, Rows};
use super::super::values::{Columns, timestamp};
use super::deletion_queue::schedule_deletion;

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
    OR EXISTS (SELECT 1 FROM link WHERE link.repository = catalog.name) \
    FROM repository AS catalog WHERE name > ?1 ORDER BY name LIMIT ?2";

/// What the mark of a collection begins with; the moment of the mark follows, in milliseconds.
const MARK: &str = "collection ";

/// What the places in the catalog begin with. No digest does; and a program that knows nothing of this part of the walk
/// reads such a place as one behind all digests, where its walk ends.
const BEHIND_BLOBS: char = '~';

/// Walks over at most `limit` names, and does to them what the plan says.
pub(super) async fn slice(
    store: &SqliteStore,
    cx: Context,
    plan: &Plan,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<Collected, StoreError> {
    let first = Place::Edges(String::new(), String::new(), String::new(), i64::MIN);
    let place = after.map_or(Ok(first), Place::parse)?;
    let Some(place) = place.within(plan) else {
        return Err(StoreError::failed("the walk has no place to begin"));
    };
    let (from, whole) = (place.clone(), *plan);
    let seen = store.walk(cx, move |rows| from.look(rows, cx, &whole, limit)).await?;
    let Seen { count, waiting, .. } = seen;
    let mut statistics = if plan.dry_run || seen.nominated.is_empty() {
        seen.nominated
            .iter()
            .fold(PassStatistics::default(), |mut statistics, nominee| {
                nominee.count(&mut statistics);
                statistics
            })
    } else {
        let nominated = seen.nominated;
        let work = move |rows: &Rows<'_>| {
            let mut statistics = PassStatistics::default();
            for nominee in &nominated {
                if nominee.act(rows, cx)? {
                    nominee.count(&mut statistics);
                }
            }
            Ok(statistics)
        };
        // Synced: what is deleted later must not be named again after a loss of power.
        store.write(cx, work).await?
    };
    statistics.seen = count as u64;
    statistics += waiting;
    let next = match seen.last {
        Some(last) if count == limit => Some(last),
        _ => place.table_behind(),
    };
    Ok(Collected {
        statistics,
        next: next.and_then(|place| place.within(plan)).map(|place| place.cursor()),
    })
}

/// Behind which row the walk goes on: the table, and the key of the row.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Edges(String, String, String, i64),
    Links(String, String),
    BackLinks(String, String, i64),
    Blobs(String),
    Catalog(String),
}

impl Place {
    /// Reads what [`Place::cursor`] has written. No name or digest holds a space.
    fn parse(cursor: &Cursor) -> Result<Self, StoreError> {
        let fields: Vec<_> = cursor.0.split(' ').collect();
        let place = match *fields.as_slice() {
            ["edges", repository, target, parent, uid] => uid
                .parse()
                .ok()
                .map(|uid| Self::Edges(repository.to_owned(), target.to_owned(), parent.to_owned(), uid)),
            ["links", repository, digest] => Some(Self::Links(repository.to_owned(), digest.to_owned())),
            ["back-links", digest, repository, uid] => uid
                .parse()
                .ok()
                .map(|uid| Self::BackLinks(digest.to_owned(), repository.to_owned(), uid)),
            ["blobs", behind] => Some(match behind.strip_prefix(BEHIND_BLOBS) {
                Some(repository) => Self::Catalog(repository.to_owned()),
                None => Self::Blobs(behind.to_owned()),
            }),
            _ => None,
        };
        place.ok_or_else(|| StoreError::failed(format!("{:?} is no place among the names", cursor.0)))
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
            Self::Catalog(repository) => format!("blobs {BEHIND_BLOBS}{repository}"),
        })
    }

    /// The beginning of the next table.
    fn table_behind(&self) -> Option<Self> {
        match self {
            Self::Edges(..) => Some(Self::Links(String::new(), String::new())),
            Self::Links(..) => Some(Self::BackLinks(String::new(), String::new(), i64::MIN)),
            Self::BackLinks(..) => Some(Self::Blobs(String::new())),
            Self::Blobs(_) => Some(Self::Catalog(String::new())),
            Self::Catalog(_) => None,
        }
    }

    /// This place, or the next that the plan has something to do at.
    fn within(self, plan: &Plan) -> Option<Self> {
        match self {
            Self::Edges(..) | Self::BackLinks(..) if !plan.deep => self.table_behind(),
            place => Some(place),
        }
    }

    fn look(&self, rows: &Rows<'_>, cx: Context, plan: &Plan, limit: usize) -> Result<Seen, Failure> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let is_old = |at: Timestamp| cx.now.millis_since(at) > plan.grace_periods.leftover_ms;
        let found = match self {
            Self::Edges(repository, target, parent, uid) => {
                let after = params![repository, target, parent, uid, limit];
                rows.all(EDGES, after, |row| {
                    let place = Self::Edges(row.value(0)?, row.value(1)?, row.value(2)?, row.value(3)?);
                    let is_owned: bool = row.value(5)?;
                    let nominee = (!is_owned && is_old(row.timestamp(4)?)).then(|| Nominee::Leftover(place.clone()));
                    Ok((place, nominee))
                })
            }
            Self::Links(repository, digest) => rows.all(LINKS, params![repository, digest, limit], |row| {
                let (repository, digest): (String, String) = (row.value(0)?, row.value(1)?);
                let is_referred_to: bool = row.value(4)?;
                let nominee = if is_referred_to {
                    None
                } else {
                    let mark: Option<String> = row.value(3)?;
                    let link = Unreferenced {
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
                    let place = Self::BackLinks(row.value(0)?, row.value(1)?, row.value(2)?);
                    let is_owned: bool = row.value(4)?;
                    let nominee = (!is_owned && is_old(row.timestamp(3)?)).then(|| Nominee::Leftover(place.clone()));
                    Ok((place, nominee))
                })
            }
            Self::Blobs(digest) => rows.all(BLOBS, params![digest, limit], |row| {
                let digest: String = row.value(0)?;
                let is_held: bool = row.value(2)?;
                let nominee = Nominee::Unheld {
                    digest: digest.clone(),
                    size: row.unsigned(1)?,
                };
                Ok((Self::Blobs(digest), (!is_held).then_some(nominee)))
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
        let (mut places, nominated): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        let (waiting, nominated): (Vec<_>, Vec<_>) = nominated
            .into_iter()
            .flatten()
            .partition(|nominee| matches!(nominee, Nominee::Waiting { .. }));
        let mut statistics = PassStatistics::default();
        for nominee in waiting {
            nominee.count(&mut statistics);
        }
        Ok(Seen {
            count,
            last: places.pop(),
            waiting: statistics,
            nominated,
        })
    }
}

impl Place {
    /// Removes the edge or back-link that lies here, if what it belongs to is still not there.
    fn remove_leftover(&self, rows: &Rows<'_>) -> Result<bool, Failure> {
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

/// What a look at some rows has found.
struct Seen {
    count: usize,
    last: Option<Place>,
    /// Links that are marked and not yet due, of which nothing is to be written.
    waiting: PassStatistics,
    nominated: Vec<Nominee>,
}

/// A row that something is to be done to, if it is still so when the writer comes to it.
enum Nominee {
    /// A link without a reference, made before the moment.
    Mark {
        repository: String,
        digest: String,
        size: u64,
        made_before: Timestamp,
    },
    /// A link whose mark is not old enough.
    Waiting { size: u64 },
    /// A link whose mark has stood for long enough.
    Unlink {
        repository: RepositoryName,
        digest: String,
        mark: String,
    },
    /// The record of bytes without a holder.
    Unheld { digest: String, size: u64 },
    /// An edge or a back-link of something that is not there.
    Leftover(Place),
    /// The catalog row of a repository without manifests and links.
    Empty(String),
}

/// A link that no manifest refers to.
struct Unreferenced {
    repository: RepositoryName,
    digest: String,
    size: u64,
    at: Timestamp,
    mark: Option<String>,
}

impl Unreferenced {
    /// What to do with it. A mark that this version would not have written is left alone.
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
                let since = mark.strip_prefix(MARK)?.parse().ok().map(Timestamp)?;
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
            Self::Unheld { size, .. } => {
                statistics.scheduled += 1;
                statistics.scheduled_bytes += size;
            }
            Self::Leftover(_) => statistics.leftovers += 1,
            Self::Empty(_) => statistics.repositories += 1,
        }
    }

    /// Does it, if nothing speaks against it by now.
    fn act(&self, rows: &Rows<'_>, cx: Context) -> Result<bool, Failure> {
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
                        format!("{MARK}{}", cx.now.0),
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
                let stands = rows.exists(
                    "SELECT 1 FROM link WHERE repository = ?1 AND digest = ?2 AND condemned = ?3",
                    params![repository.as_str(), digest, mark],
                )?;
                Ok(stands && remove::link(rows, repository, digest)? == Removal::Removed)
            }
            Self::Unheld { digest, .. } => {
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
            Self::Leftover(place) => place.remove_leftover(rows),
            Self::Empty(repository) => {
                let removed = rows.change(
                    "DELETE FROM repository WHERE name = ?1 \
                     AND NOT EXISTS (SELECT 1 FROM manifest WHERE repository = ?1) \
                     AND NOT EXISTS (SELECT 1 FROM link WHERE repository = ?1)",
                    [repository],
                )?;
                Ok(removed == 1)
            }
        }
    }
}
