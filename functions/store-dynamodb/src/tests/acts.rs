//! What can be done in a scenario, as the core does it: with the session that names an object before it exists, and
//! with all that follows.

mod losses;
mod uploads;

use std::task::{Context as Poller, Poll, Waker};

use registry::store::collection::{CollectionStore, GracePeriods, Plan, Standing};
use registry::store::metadata::{ManifestPut, MetadataStore, Removal};
use registry::store::sessions::SessionStore;
use registry::store::{Reason, StoreError, Timestamp};

use super::cast::CAST;
use super::linearizable::{Answer, Call};
use super::world::{HOUR, World};
use crate::DynamoStore;

/// One thing that somebody does. Repositories, digests and tags are numbers (see [`super::cast`]).
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// Pushes a blob.
    Push(u8, u8),
    /// The same final PUT as the last one that was cut off or answered, if there was one.
    Replay(u8, u8),
    /// Mounts a blob of the second repository.
    Mount(u8, u8, u8),
    /// Asks for a link as somebody who may push; if it is there, puts this manifest over it, which must succeed.
    KeepAndPut(u8, u8, u8),
    /// Removes a link.
    Unlink(u8, u8),
    /// Puts a manifest with tags.
    Put(u8, u8, &'static [u8]),
    /// Deletes a manifest.
    Delete(u8, u8),
    /// Deletes a tag.
    Untag(u8, u8),
    /// Reads a tag.
    Read(u8, u8),
    /// Looks for a link.
    Link(u8, u8),
    /// Looks for a manifest.
    Manifest(u8, u8),
    /// Walks over all names.
    Collect,
    /// Sweeps the sessions that are due.
    Sweep,
    /// Deletes what has been buried for long enough.
    Graves,
    /// Lets hours pass. Only before anybody races.
    Pass(u64),
    /// One request on the upload that all of the scenario share.
    Body(Body),
    /// An accident befalls the object of a digest: it is gone, or it is damaged.
    Lose(u8),
    /// The object of a digest that was gone is there again, if it still has its name.
    Return(u8),
    /// Reads a blob, or a large manifest, to the object, as a pull does.
    Pull(u8, u8),
    /// Looks at the object of a digest, and records what is wrong with it, as `fsck --repair` does.
    Repair(u8),
    /// Walks over all names as if nothing needed a grace but what is under way.
    CollectHastily,
    /// Something by an instance whose clock is ahead by so many hours, or behind: it is refused, with whatever it has
    /// done by then.
    Off(i64, Off),
}

/// What an instance with a wrong clock tries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Off {
    Put(u8, u8, &'static [u8]),
    Unlink(u8, u8),
    Collect,
}

/// What a request on a shared upload is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    /// A chunk with a part record.
    Chunk,
    /// A chunk that is cut off.
    Cut,
    /// The last one.
    Last(u8, u8),
    /// The last one, cut off when it is published: whoever repeats it publishes it again.
    Torn(u8, u8),
    /// DELETE.
    Cancel,
    /// A HEAD, which must see what was acknowledged.
    Status,
}

pub(super) const PLAN: Plan = Plan {
    dry_run: false,
    deep: false,
    grace_periods: GracePeriods {
        link_ms: 24 * HOUR,
        session_ms: HOUR,
        deletion_ms: 25 * HOUR,
        leftover_ms: 24 * HOUR,
    },
};

/// Whoever acts: through one instance of the registry.
pub(super) struct Actor {
    world: World,
    store: DynamoStore,
    is_alone: bool,
}

fn there<T>(found: Option<&T>) -> Answer {
    if found.is_some() { Answer::Done } else { Answer::Absent }
}

fn removed(removal: &Removal) -> Answer {
    match removal {
        Removal::Removed => Answer::Done,
        Removal::Absent => Answer::Absent,
        Removal::Referenced(_) => Answer::Refused,
    }
}

impl Actor {
    /// One of many.
    pub(super) fn among_others(world: &World) -> Self {
        Self {
            world: world.clone(),
            store: world.instance(),
            is_alone: false,
        }
    }

    /// One who waits for nobody.
    pub(super) fn alone(world: &World) -> Self {
        Self {
            world: world.clone(),
            store: world.alone(),
            is_alone: true,
        }
    }

    async fn turn(&self) {
        if !self.is_alone {
            self.world.scheduler.turn().await;
        }
    }

    pub(super) async fn play(&self, acts: &[Act]) {
        for act in acts {
            self.act(*act).await;
        }
    }

    /// Calls, and records what was answered.
    async fn call(&self, call: Call, work: impl Future<Output = Answer>) {
        let number = self.world.called(call);
        let answer = work.await;
        self.world.answered(number, answer);
    }

    async fn act(&self, act: Act) {
        let cx = || self.world.cx();
        let store = &self.store;
        let repositories = &CAST.repositories;
        let of = |repository: u8| &repositories[usize::from(repository)];
        match act {
            Act::Push(r, name) => self.call(Call::Commit(r, name), self.push(r, name)).await,
            Act::Replay(r, name) => self.replay(r, name).await,
            Act::Mount(r, name, from) => self.mount(r, name, from).await,
            Act::KeepAndPut(r, name, manifest) => {
                let mut kept = false;
                self.call(Call::Link(r, name), async {
                    let link = store
                        .link_and_unmark(cx(), of(r), CAST.digest(name))
                        .await
                        .expect("link_and_unmark");
                    kept = link.as_ref().is_some_and(|link| link.defect.is_none());
                    there(link.as_ref())
                })
                .await;
                if kept {
                    let number = self.world.called(Call::Put(r, manifest, Vec::new()));
                    let answer = self.put(r, manifest, &[]).await;
                    self.world.answered(number, answer);
                    assert_eq!(answer, Answer::Done, "a 200 has lied to a push in progress");
                }
            }
            Act::Unlink(r, name) => {
                self.call(Call::Unlink(r, name), async {
                    let removal = store.unlink(cx(), of(r), CAST.digest(name)).await.expect("unlink");
                    // If its answer was lost, somebody else may have been the one.
                    let lossy = removal == Removal::Removed && self.world.is_lossy();
                    if lossy { Answer::Gone } else { removed(&removal) }
                })
                .await;
            }
            Act::Put(r, name, tags) => {
                let call = Call::Put(r, name, tags.to_vec());
                self.call(call, self.put(r, name, tags)).await;
            }
            Act::Delete(r, name) => {
                self.call(Call::Delete(r, name), async {
                    let removal = store.delete_manifest(cx(), of(r), CAST.digest(name), "somebody").await;
                    removed(&removal.expect("delete_manifest"))
                })
                .await;
            }
            Act::Untag(r, tag) => {
                self.call(Call::Untag(r, tag), async {
                    let deleted = store.delete_tag(cx(), of(r), CAST.tag(tag), "somebody").await;
                    there(deleted.expect("delete_tag").then_some(&()))
                })
                .await;
            }
            Act::Read(r, tag) => {
                self.call(Call::Read(r, tag), async {
                    match store.tag(cx(), of(r), CAST.tag(tag)).await.expect("tag") {
                        Some(record) => Answer::Names(CAST.name_of(&record.digest), record.version),
                        None => Answer::Absent,
                    }
                })
                .await;
            }
            Act::Link(r, name) => {
                self.call(Call::Link(r, name), async {
                    there(store.link(cx(), of(r), CAST.digest(name)).await.expect("link").as_ref())
                })
                .await;
            }
            Act::Manifest(r, name) => {
                self.call(Call::Manifest(r, name), async {
                    let found = store.manifest(cx(), of(r), CAST.digest(name)).await;
                    there(found.expect("manifest").as_ref())
                })
                .await;
            }
            Act::Collect => self.collect(&PLAN).await,
            Act::CollectHastily => {
                let grace_periods = GracePeriods {
                    link_ms: 0,
                    ..PLAN.grace_periods
                };
                self.collect(&Plan { grace_periods, ..PLAN }).await;
            }
            Act::Sweep => self.sweep().await,
            Act::Graves => self.pending_deletions().await,
            Act::Lose(name) => self.lose(name).await,
            Act::Return(name) => self.bring_back(name).await,
            Act::Pull(r, name) => self.pull(r, name).await,
            Act::Repair(name) => self.repair(name).await,
            Act::Pass(hours) => self.world.pass(hours * HOUR),
            Act::Body(body) => self.body(body).await,
            Act::Off(hours, what) => self.with_wrong_clock(hours, what).await,
        }
    }

    /// What is acknowledged all the same is judged like everything else.
    async fn with_wrong_clock(&self, hours: i64, what: Off) {
        let world = self.world.with_clock_ahead(hours);
        let store = world.instance_that_is_told_the_time();
        let refused = |error: StoreError| assert_eq!(error.reason(), Reason::ClockOff, "{error}");
        let repository = |r: u8| &CAST.repositories[usize::from(r)];
        match what {
            Off::Put(r, name, tags) => {
                let number = self.world.called(Call::Put(r, name, tags.to_vec()));
                match store.put_manifest(world.cx(), &CAST.put(r, name, tags)).await {
                    Ok(ManifestPut::Stored | ManifestPut::AsItWas) => self.world.answered(number, Answer::Done),
                    Ok(_) => self.world.answered(number, Answer::Missing),
                    Err(error) => refused(error),
                }
            }
            Off::Unlink(r, name) => {
                let number = self.world.called(Call::Unlink(r, name));
                match store.unlink(world.cx(), repository(r), CAST.digest(name)).await {
                    Ok(removal) => self.world.answered(number, removed(&removal)),
                    Err(error) => refused(error),
                }
            }
            Off::Collect => {
                // To be seen as a collection only if it is one.
                let slice = store.collect_metadata(world.cx(), &PLAN, None, 100).await;
                if let Err(error) = slice {
                    refused(error);
                }
            }
        }
    }

    /// A mount has two moments: that at which its source is seen, and that at which it is visible.
    async fn mount(&self, r: u8, name: u8, from: u8) {
        let repositories = &CAST.repositories;
        let seen = self.world.called(Call::Link(from, name));
        let made = self.world.called(Call::Commit(r, name));
        let (to, from) = (&repositories[usize::from(r)], &repositories[usize::from(from)]);
        let mounted = self.store.mount(self.world.cx(), to, CAST.digest(name), from).await;
        if mounted.expect("mount") {
            self.world.answered(seen, Answer::Done);
            self.world.answered(made, Answer::Done);
        } else {
            self.world.answered(seen, Answer::Absent);
            self.world.withdraw(made);
        }
    }

    pub(super) async fn collect(&self, plan: &Plan) {
        if plan.grace_periods.link_ms == 0 || !self.world.is_first_day() {
            self.world.called(Call::Collect);
        }
        let mut next = None;
        loop {
            let slice = self
                .store
                .collect_metadata(self.world.cx(), plan, next.as_ref(), 7)
                .await;
            next = slice.expect("collect_metadata").next;
            if next.is_none() {
                break;
            }
        }
    }

    /// The look at all shards is no part of the race.
    pub(super) async fn sweep(&self) {
        let now = self.world.now();
        let before = Timestamp(now.0 - PLAN.grace_periods.session_ms);
        self.turn().await;
        let due = at_once(self.world.alone().expired(self.world.cx(), before, None, 100));
        for (key, session) in due.expect("expired") {
            if !crate::sessions::is_live(&session, now) {
                self.store.sweep(self.world.cx(), key, &session).await.expect("sweep");
            }
        }
    }

    pub(super) async fn pending_deletions(&self) {
        let before = Timestamp(self.world.now().0 - PLAN.grace_periods.deletion_ms);
        self.turn().await;
        let pending_deletions = at_once(self.world.alone().pending_deletions(self.world.cx(), before, None, 100));
        let mut settled = Vec::new();
        for pending_deletion in pending_deletions.expect("pending_deletions").items {
            let standing = self.store.standing(self.world.cx(), &pending_deletion).await;
            let standing = standing.expect("standing");
            if standing == Standing::Due {
                self.turn().await;
                self.world
                    .delete_scheduled(&pending_deletion.location.key, PLAN.grace_periods.deletion_ms);
            }
            if standing != Standing::Changed {
                settled.push(pending_deletion);
            }
        }
        self.store.forget(self.world.cx(), &settled).await.expect("forget");
    }
}

/// Runs what is alone in the world, and so waits for nobody.
pub(super) fn at_once<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut cx = Poller::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = work.as_mut().poll(&mut cx) {
            return value;
        }
    }
}

impl Act {
    /// The link that this is about.
    pub(super) fn link(&self) -> Option<(u8, u8)> {
        match *self {
            Self::Push(r, name)
            | Self::Replay(r, name)
            | Self::Mount(r, name, _)
            | Self::KeepAndPut(r, name, _)
            | Self::Unlink(r, name)
            | Self::Link(r, name)
            | Self::Off(_, Off::Unlink(r, name))
            | Self::Pull(r, name)
            | Self::Body(Body::Last(r, name) | Body::Torn(r, name)) => Some((r, name)),
            _ => None,
        }
    }

    /// The manifest that this is about.
    pub(super) fn manifest(&self) -> Option<(u8, u8)> {
        match *self {
            Self::Off(_, Off::Put(r, name, _))
            | Self::KeepAndPut(r, _, name)
            | Self::Put(r, name, _)
            | Self::Delete(r, name)
            | Self::Manifest(r, name)
            | Self::Pull(r, name) => Some((r, name)),
            _ => None,
        }
    }

    /// Whether this is about a tag.
    pub(super) fn has_tag(&self, repository: u8, tag: u8) -> bool {
        match *self {
            Self::Put(r, _, tags) | Self::Off(_, Off::Put(r, _, tags)) => r == repository && tags.contains(&tag),
            Self::Untag(r, named) | Self::Read(r, named) => (r, named) == (repository, tag),
            _ => false,
        }
    }
}
