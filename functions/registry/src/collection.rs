//! Collection over all stores: the order of its steps. What each step does to the records is the store's
//! ([`store::collection`](crate::store::collection)); here nothing is decided, and nothing waits.
//!
//! 1. Names, slice by slice: links, and bytes that nobody holds. How far it has come is recorded after every slice, so
//!    that a run that was cut off is gone on with by the next one, and that two do not do the same work.
//! 2. Upload sessions past their end, unless somebody still writes under them.
//! 3. Graves that are due. What is named again is spared, but for what was begun beside it and never finished, and what
//!    was buried again is left for later; all else is deleted, many objects at once, and then its grave is removed, so
//!    that a run which was cut off in between deletes again, and never forgets.
//!
//! Memory is bounded by the sizes in [`Options`]. Nothing is locked: a registry serves meanwhile, and any number of
//! collections at once are as safe as one.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;

use crate::environment::{Environment, context, random_u64};
use crate::registry::AllStores;
use crate::store::blobs::Doomed;
use crate::store::collection::{Begun, Grave, Plan, Standing, Tally, remains};
use crate::store::sessions::{Session, SessionKey};
use crate::store::{Context, Cursor, Incarnation, StoreError, Timestamp};

/// How a collection runs.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What it does, and what it leaves alone.
    pub plan: Plan,
    /// Names in a slice.
    pub names: usize,
    /// Sessions in a page.
    pub sessions: usize,
    /// Graves in a page: as many objects are deleted at once. What a page has done stays done when a later one fails, so
    /// that a slow store gets on; a page that is too large for `store_ms` never would.
    pub graves: usize,
    /// How many single reads and sweeps are under way at once.
    pub at_once: usize,
    /// For how many milliseconds a pass over the names is held without a sign of life; more than a slice takes.
    pub lease_ms: u64,
    /// Milliseconds that a store may spend on one call, retries included.
    pub store_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plan: Plan::default(),
            names: 500,
            sessions: 200,
            graves: 100,
            at_once: 16,
            lease_ms: 300_000,
            store_ms: 60_000,
        }
    }
}

/// What a collection has done, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that a report states, not states of anything"
)]
pub struct Report {
    /// Nothing was written: these are the things that a run would do now.
    pub dry_run: bool,
    /// Leftovers among the names were looked for.
    pub deep: bool,
    /// The pass over the names went on where another run had been cut off.
    pub resumed: bool,
    /// Another process is at the names, or has taken them over, and said so until this moment: only sessions and graves
    /// were looked at.
    pub busy_until: Option<Timestamp>,
    /// What was done to the names.
    #[serde(flatten)]
    pub names: Tally,
    /// Upload sessions that were ended for good.
    pub sessions_swept: u64,
    /// Graves that they left.
    pub session_graves: u64,
    /// Sessions past their end that were left alone: somebody writes under them, or they have changed meanwhile.
    pub sessions_spared: u64,
    /// Objects that were deleted; also those of which nothing was there any more.
    pub objects_deleted: u64,
    /// Graves whose object was in use, and is.
    pub graves_spared: u64,
    /// All was gone over, to the end.
    pub complete: bool,
}

/// A store has failed in the middle of a collection. What was done is done; the next run goes on from there.
#[derive(Debug, thiserror::Error)]
#[error("the collection was interrupted: {source}")]
pub struct Interrupted {
    /// What was done until then.
    pub report: Box<Report>,
    /// The failure.
    #[source]
    pub source: StoreError,
}

/// Collects once. `progress` is told how far it has come, after every slice and page.
///
/// A second run is needed to see everything go: what is unlinked now is in the graveyard for a while, and a link is
/// only marked by the first.
pub async fn collect(
    stores: &AllStores,
    environment: Arc<dyn Environment>,
    options: &Options,
    progress: &mut (dyn FnMut(&Report) + Send),
) -> Result<Report, Interrupted> {
    let mut run = Run {
        over: Over {
            stores,
            environment,
            options,
        },
        plan: options.plan,
        progress,
        report: Report {
            dry_run: options.plan.dry_run,
            deep: options.plan.deep,
            ..Report::default()
        },
    };
    match run.all().await {
        Ok(()) => {
            run.report.complete = run.report.busy_until.is_none();
            Ok(run.report)
        }
        Err(source) => Err(Interrupted {
            report: Box::new(run.report),
            source,
        }),
    }
}

/// What a step needs; shared by calls that are under way at once.
struct Over<'a> {
    stores: &'a AllStores,
    environment: Arc<dyn Environment>,
    options: &'a Options,
}

/// How far a pass has come, as stores keep it for the next one.
struct Place {
    deep: bool,
    after: Cursor,
}

impl Place {
    fn parse(cursor: &Cursor) -> Option<Self> {
        let (depth, after) = cursor.0.split_once(' ')?;
        let deep = match depth {
            DEEP => true,
            PLAIN => false,
            _ => return None,
        };
        let after = Cursor(after.to_owned());
        Some(Self { deep, after })
    }

    fn cursor(&self) -> Cursor {
        let depth = if self.deep { DEEP } else { PLAIN };
        Cursor(format!("{depth} {}", self.after.0))
    }
}

/// Begin what is kept of a pass.
const DEEP: &str = "deep";
const PLAIN: &str = "plain";

struct Run<'a> {
    over: Over<'a>,
    /// As deep as what it goes on with.
    plan: Plan,
    progress: &'a mut (dyn FnMut(&Report) + Send),
    report: Report,
}

impl Over<'_> {
    fn cx(&self) -> Context {
        context(&*self.environment, self.options.store_ms)
    }

    fn lease(&self) -> Timestamp {
        self.environment.now().plus_millis(self.options.lease_ms)
    }

    /// What ended before this moment has rested for `grace_ms`.
    fn due(&self, grace_ms: u64) -> Timestamp {
        Timestamp(self.environment.now().0.saturating_sub(grace_ms))
    }

    /// The graves that a session past its end leaves; `None`: it is left alone.
    async fn end(&self, key: SessionKey, session: Session) -> Result<Option<u64>, StoreError> {
        let now = self.environment.now();
        if session.claimed_until.is_some_and(|until| now < until) {
            return Ok(None);
        }
        if self.options.plan.dry_run {
            return Ok(Some(remains(key, &session, now).count() as u64));
        }
        self.stores.collection.sweep(self.cx(), key, &session).await
    }

    /// A grave, and what is to be done about it.
    async fn look(&self, grave: Grave) -> Result<(Grave, Standing), StoreError> {
        let standing = self.stores.collection.standing(self.cx(), &grave).await?;
        Ok((grave, standing))
    }
}

impl Run<'_> {
    async fn all(&mut self) -> Result<(), StoreError> {
        self.names().await?;
        // One upload that cannot be ended must not keep everything else in the graveyard.
        let ended = self.sessions().await;
        self.graves().await?;
        ended
    }

    fn tell(&mut self) {
        (self.progress)(&self.report);
    }

    async fn names(&mut self) -> Result<(), StoreError> {
        if self.over.options.plan.dry_run {
            // Writes nothing, and so also does not say that it is there.
            return self.walk(None, None).await;
        }
        let pass = Incarnation(random_u64(&*self.over.environment));
        let begun = self
            .over
            .stores
            .collection
            .begin_pass(self.over.cx(), pass, self.over.lease())
            .await?;
        let from = match begun {
            Begun::Busy(until) => {
                self.report.busy_until = Some(until);
                return Ok(());
            }
            Begun::Fresh => None,
            Begun::Resumed(cursor) => match Place::parse(&cursor) {
                // What was passed over so far was not looked at as deeply.
                Some(place) if self.plan.deep && !place.deep => None,
                // A deep pass that was cut off is gone on with as one.
                Some(place) => {
                    self.plan.deep = place.deep;
                    self.report.deep = place.deep;
                    self.report.resumed = true;
                    Some(place.after)
                }
                // Another version's.
                None => None,
            },
        };
        self.walk(Some(pass), from).await
    }

    /// Walks over the names from `next` on; records how far it has come for `pass`, if it is one.
    async fn walk(&mut self, pass: Option<Incarnation>, mut next: Option<Cursor>) -> Result<(), StoreError> {
        loop {
            let (plan, limit) = (&self.plan, self.over.options.names);
            let noted = |next: Option<&Cursor>| {
                next.map(|after| {
                    let (deep, after) = (plan.deep, after.clone());
                    Place { deep, after }.cursor()
                })
            };
            let collection = &self.over.stores.collection;
            let slice = match collection
                .collect_names(self.over.cx(), plan, next.as_ref(), limit)
                .await
            {
                Ok(slice) => slice,
                Err(fault) => {
                    // Whoever comes next need not wait until this pass would have shown a sign of life. That this too
                    // fails is to be expected of a store that has just failed.
                    if let Some(pass) = pass {
                        let now = self.over.environment.now();
                        let noted = noted(next.as_ref());
                        drop(collection.checkpoint(self.over.cx(), pass, noted.as_ref(), now).await);
                    }
                    return Err(fault);
                }
            };
            next = slice.next;
            let noted = noted(next.as_ref());
            self.report.names += slice.tally;
            (self.progress)(&self.report);
            if let Some(pass) = pass {
                let (cx, until) = (self.over.cx(), self.over.lease());
                if !collection.checkpoint(cx, pass, noted.as_ref(), until).await? {
                    self.report.busy_until = Some(self.over.environment.now());
                    return Ok(());
                }
            }
            if next.is_none() {
                return Ok(());
            }
        }
    }

    async fn sessions(&mut self) -> Result<(), StoreError> {
        let before = self.over.due(self.over.options.plan.graces.session_ms);
        let mut after = None;
        loop {
            let Over { stores, options, .. } = self.over;
            let page = stores
                .sessions
                .expired(self.over.cx(), before, after, options.sessions)
                .await?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            after = Some(*last);
            let over = &self.over;
            let ended = stream::iter(page).map(|(key, session)| over.end(key, session));
            let ended: Vec<Option<u64>> = ended.buffer_unordered(options.at_once).try_collect().await?;
            for graves in ended {
                match graves {
                    Some(graves) => {
                        self.report.sessions_swept += 1;
                        self.report.session_graves += graves;
                    }
                    None => self.report.sessions_spared += 1,
                }
            }
            self.tell();
        }
    }

    async fn graves(&mut self) -> Result<(), StoreError> {
        let before = self.over.due(self.over.options.plan.graces.grave_ms);
        let mut next: Option<Cursor> = None;
        loop {
            let Over { stores, options, .. } = self.over;
            let collection = &stores.collection;
            let slice = collection
                .graves(self.over.cx(), before, next.as_ref(), options.graves)
                .await?;
            next = slice.next;
            let over = &self.over;
            let looked = stream::iter(slice.items).map(|grave| over.look(grave));
            let mut looked: Vec<(Grave, Standing)> = looked.buffer_unordered(options.at_once).try_collect().await?;
            looked.retain(|(_, standing)| *standing != Standing::Changed);
            let dead = looked.iter().filter(|(_, standing)| *standing == Standing::Due);
            let doomed: Vec<Doomed> = dead
                .map(|(grave, _)| Doomed {
                    location: grave.location.clone(),
                    unfinished: grave.unfinished,
                })
                .collect();
            let kept: Vec<_> = looked
                .iter()
                .filter(|(grave, standing)| *standing == Standing::Named && grave.unfinished)
                .map(|(grave, _)| grave.location.clone())
                .collect();
            let settled: Vec<Grave> = looked.into_iter().map(|(grave, _)| grave).collect();
            if !options.plan.dry_run {
                if !doomed.is_empty() {
                    stores.blobs.delete(self.over.cx(), &doomed).await?;
                }
                if !kept.is_empty() {
                    stores.blobs.tidy(self.over.cx(), &kept).await?;
                }
                if !settled.is_empty() {
                    collection.forget(self.over.cx(), &settled).await?;
                }
            }
            self.report.objects_deleted += doomed.len() as u64;
            self.report.graves_spared += (settled.len() - doomed.len()) as u64;
            self.tell();
            if next.is_none() {
                return Ok(());
            }
        }
    }
}
