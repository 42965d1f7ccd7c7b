//! The operations of a scenario, as the core does them: with the session that names an object before it exists, and
//! with all that follows.

mod losses;
mod uploads;

use std::task::{Context as Poller, Poll, Waker};

use registry::store::collection::{CollectionStore, DeletionCheck, GracePeriods, Plan};
use registry::store::metadata::{ManifestPut, MetadataStore, Removal};
use registry::store::sessions::SessionStore;
use registry::store::{Reason, StoreError, Timestamp};

use super::fixtures::{FIXTURES, author};
use super::frozen::frozen_tags;
use super::linearizable::{CallResult, RecordedCall};
use super::world::{HOUR, World};
use crate::DynamoStore;

/// One operation. Repositories, digests and tags are numbers (see [`super::fixtures`]).
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation {
    /// Pushes a blob.
    Push(u8, u8),
    /// Repeats the last final PUT that was interrupted or answered, if there was one.
    Replay(u8, u8),
    /// Mounts a blob of the second repository.
    Mount(u8, u8, u8),
    /// Reads a link as a principal that may push. If it exists, puts this manifest over it, which must succeed.
    UnmarkAndPut(u8, u8, u8),
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
    /// Collects all metadata.
    Collect,
    /// Ends the expired sessions.
    Sweep,
    /// Deletes the objects whose deletion is due.
    DeletePending,
    /// Lets hours pass. Only before the race.
    Pass(u64),
    /// One request on the upload that all tasks of the scenario share.
    Body(Body),
    /// Deletes or damages the object of a digest.
    Lose(u8),
    /// Restores the lost object of a digest, if it is still in use.
    Return(u8),
    /// Reads a blob or a large manifest with its object, as a pull does.
    Pull(u8, u8),
    /// Checks the object of a digest and records its defect, as `fsck --repair` does.
    Repair(u8),
    /// Collects all metadata without a grace period for links.
    CollectWithoutGrace,
    /// A call of an instance whose clock is ahead or behind by this number of hours. It is refused, whatever it has
    /// done by then.
    WrongClock(i64, WrongClockCall),
}

/// A call of an instance with a wrong clock.
#[derive(Clone, Copy, Debug)]
pub(super) enum WrongClockCall {
    Put(u8, u8, &'static [u8]),
    Unlink(u8, u8),
    Collect,
}

/// A request on the shared upload.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    /// A chunk with a part record.
    Chunk,
    /// A chunk that is interrupted.
    Cut,
    /// The last one.
    Last(u8, u8),
    /// The last one, interrupted after its publication: a repetition publishes it again.
    Unfinished(u8, u8),
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
        orphan_ms: 24 * HOUR,
    },
};

/// A client of one instance of the registry.
pub(super) struct Caller {
    world: World,
    store: DynamoStore,
    is_alone: bool,
}

fn there<T>(found: Option<&T>) -> CallResult {
    if found.is_some() {
        CallResult::Done
    } else {
        CallResult::Absent
    }
}

fn removed(removal: &Removal) -> CallResult {
    match removal {
        Removal::Removed => CallResult::Done,
        Removal::Absent => CallResult::Absent,
        Removal::Referenced(_) | Removal::Protected(_) => CallResult::Refused,
    }
}

impl Caller {
    /// A caller in a race.
    pub(super) fn among_others(world: &World) -> Self {
        Self {
            world: world.clone(),
            store: world.instance(),
            is_alone: false,
        }
    }

    /// A caller whose requests wait for no turn.
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

    pub(super) async fn run_all(&self, operations: &[Operation]) {
        for operation in operations {
            self.run(*operation).await;
        }
    }

    /// Calls, and records the answer.
    async fn call(&self, call: RecordedCall, work: impl Future<Output = CallResult>) {
        let number = self.world.called(call);
        let answer = work.await;
        self.world.answered(number, answer);
    }

    #[expect(clippy::too_many_lines, reason = "one match, an arm for each operation")]
    async fn run(&self, operation: Operation) {
        let cx = || self.world.cx();
        let store = &self.store;
        let repositories = &FIXTURES.repositories;
        let of = |repository: u8| &repositories[usize::from(repository)];
        match operation {
            Operation::Push(r, name) => self.call(RecordedCall::Commit(r, name), self.push(r, name)).await,
            Operation::Replay(r, name) => self.replay(r, name).await,
            Operation::Mount(r, name, from) => self.mount(r, name, from).await,
            Operation::UnmarkAndPut(r, name, manifest) => {
                let mut kept = false;
                self.call(RecordedCall::Link(r, name), async {
                    let link = store
                        .link_and_unmark(cx(), of(r), FIXTURES.digest(name))
                        .await
                        .expect("link_and_unmark");
                    kept = link.as_ref().is_some_and(|link| link.defect.is_none());
                    there(link.as_ref())
                })
                .await;
                if kept {
                    let number = self.world.called(RecordedCall::Put(r, manifest, Vec::new()));
                    let answer = self.put(r, manifest, &[]).await;
                    self.world.answered(number, answer);
                    assert_eq!(answer, CallResult::Done, "a 200 has lied to a push in progress");
                }
            }
            Operation::Unlink(r, name) => {
                self.call(RecordedCall::Unlink(r, name), async {
                    let removal = store
                        .unlink(cx(), of(r), FIXTURES.digest(name), &author())
                        .await
                        .expect("unlink");
                    // If its answer was lost, another call may have removed the link.
                    let lossy = removal == Removal::Removed && self.world.is_lossy();
                    if lossy { CallResult::Gone } else { removed(&removal) }
                })
                .await;
            }
            Operation::Put(r, name, tags) => {
                let call = RecordedCall::Put(r, name, tags.to_vec());
                self.call(call, self.put(r, name, tags)).await;
            }
            Operation::Delete(r, name) => {
                self.call(RecordedCall::Delete(r, name), async {
                    let removal = store
                        .delete_manifest(cx(), of(r), FIXTURES.digest(name), &author(), &frozen_tags())
                        .await;
                    removed(&removal.expect("delete_manifest"))
                })
                .await;
            }
            Operation::Untag(r, tag) => {
                self.call(RecordedCall::Untag(r, tag), async {
                    let removal = store
                        .delete_tag(cx(), of(r), FIXTURES.tag(tag), &author(), &frozen_tags())
                        .await;
                    removed(&removal.expect("delete_tag"))
                })
                .await;
            }
            Operation::Read(r, tag) => {
                self.call(RecordedCall::Read(r, tag), async {
                    match store.tag(cx(), of(r), FIXTURES.tag(tag)).await.expect("tag") {
                        Some(record) => CallResult::Names(FIXTURES.name_of(&record.digest), record.version),
                        None => CallResult::Absent,
                    }
                })
                .await;
            }
            Operation::Link(r, name) => {
                self.call(RecordedCall::Link(r, name), async {
                    let found = store.link(cx(), of(r), FIXTURES.digest(name)).await;
                    there(found.expect("link").as_ref())
                })
                .await;
            }
            Operation::Manifest(r, name) => {
                self.call(RecordedCall::Manifest(r, name), async {
                    let found = store.manifest(cx(), of(r), FIXTURES.digest(name)).await;
                    there(found.expect("manifest").as_ref())
                })
                .await;
            }
            Operation::Collect => self.collect(&PLAN).await,
            Operation::CollectWithoutGrace => {
                let grace_periods = GracePeriods {
                    link_ms: 0,
                    ..PLAN.grace_periods
                };
                self.collect(&Plan { grace_periods, ..PLAN }).await;
            }
            Operation::Sweep => self.sweep().await,
            Operation::DeletePending => self.pending_deletions().await,
            Operation::Lose(name) => self.lose(name).await,
            Operation::Return(name) => self.bring_back(name).await,
            Operation::Pull(r, name) => self.pull(r, name).await,
            Operation::Repair(name) => self.repair(name).await,
            Operation::Pass(hours) => self.world.pass(hours * HOUR),
            Operation::Body(body) => self.body(body).await,
            Operation::WrongClock(hours, call) => self.with_wrong_clock(hours, call).await,
        }
    }

    /// What is acknowledged nevertheless must be linearizable too.
    async fn with_wrong_clock(&self, hours: i64, call: WrongClockCall) {
        let world = self.world.with_clock_ahead(hours);
        let store = world.instance_that_learns_the_time();
        let refused = |error: StoreError| assert_eq!(error.reason(), Reason::ClockOff, "{error}");
        let repository = |r: u8| &FIXTURES.repositories[usize::from(r)];
        match call {
            WrongClockCall::Put(r, name, tags) => {
                let number = self.world.called(RecordedCall::Put(r, name, tags.to_vec()));
                match store
                    .put_manifest(world.cx(), &FIXTURES.put(r, name, tags), &frozen_tags())
                    .await
                {
                    Ok(ManifestPut::Stored | ManifestPut::AsItWas) => self.world.answered(number, CallResult::Done),
                    Ok(_) => self.world.answered(number, CallResult::Missing),
                    Err(error) => refused(error),
                }
            }
            WrongClockCall::Unlink(r, name) => {
                let number = self.world.called(RecordedCall::Unlink(r, name));
                match store
                    .unlink(world.cx(), repository(r), FIXTURES.digest(name), &author())
                    .await
                {
                    Ok(removal) => self.world.answered(number, removed(&removal)),
                    Err(error) => refused(error),
                }
            }
            WrongClockCall::Collect => {
                // Recorded as a collection only if it runs.
                let slice = store.collect_metadata(world.cx(), &PLAN, None, 100).await;
                if let Err(error) = slice {
                    refused(error);
                }
            }
        }
    }

    /// A mount has two points in time: at one it sees its source, at the other it becomes visible.
    async fn mount(&self, r: u8, name: u8, from: u8) {
        let repositories = &FIXTURES.repositories;
        let seen = self.world.called(RecordedCall::Link(from, name));
        let made = self.world.called(RecordedCall::Commit(r, name));
        let (to, from) = (&repositories[usize::from(r)], &repositories[usize::from(from)]);
        let mounted = self.store.mount(self.world.cx(), to, FIXTURES.digest(name), from).await;
        if mounted.expect("mount") {
            self.world.answered(seen, CallResult::Done);
            self.world.answered(made, CallResult::Done);
        } else {
            self.world.answered(seen, CallResult::Absent);
            self.world.withdraw(made);
        }
    }

    pub(super) async fn collect(&self, plan: &Plan) {
        if plan.grace_periods.link_ms == 0 || !self.world.is_first_day() {
            self.world.called(RecordedCall::Collect);
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

    /// The query of all shards is no part of the race.
    pub(super) async fn sweep(&self) {
        let now = self.world.now();
        let before = Timestamp(now.0 - PLAN.grace_periods.session_ms);
        self.turn().await;
        let due = run_alone(self.world.alone().expired(self.world.cx(), before, None, 100));
        for (key, session) in due.expect("expired") {
            if !session.is_claimed(now) {
                self.store.sweep(self.world.cx(), key, &session).await.expect("sweep");
            }
        }
    }

    pub(super) async fn pending_deletions(&self) {
        let before = Timestamp(self.world.now().0 - PLAN.grace_periods.deletion_ms);
        self.turn().await;
        let pending_deletions = run_alone(self.world.alone().pending_deletions(self.world.cx(), before, None, 100));
        let mut settled = Vec::new();
        for pending_deletion in pending_deletions.expect("pending_deletions").items {
            let check = self
                .store
                .check_pending_deletion(self.world.cx(), &pending_deletion)
                .await;
            let check = check.expect("check_pending_deletion");
            if check == DeletionCheck::Due {
                self.turn().await;
                self.world
                    .delete_scheduled(&pending_deletion.location.key, PLAN.grace_periods.deletion_ms);
            }
            if check != DeletionCheck::Changed {
                settled.push(pending_deletion);
            }
        }
        self.store
            .remove_pending_deletions(self.world.cx(), &settled)
            .await
            .expect("remove_pending_deletions");
    }
}

/// Runs a future that waits for no turn.
pub(super) fn run_alone<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut cx = Poller::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = work.as_mut().poll(&mut cx) {
            return value;
        }
    }
}

impl Operation {
    /// The link that this operation concerns.
    pub(super) fn link(&self) -> Option<(u8, u8)> {
        match *self {
            Self::Push(r, name)
            | Self::Replay(r, name)
            | Self::Mount(r, name, _)
            | Self::UnmarkAndPut(r, name, _)
            | Self::Unlink(r, name)
            | Self::Link(r, name)
            | Self::WrongClock(_, WrongClockCall::Unlink(r, name))
            | Self::Pull(r, name)
            | Self::Body(Body::Last(r, name) | Body::Unfinished(r, name)) => Some((r, name)),
            _ => None,
        }
    }

    /// The manifest that this operation concerns.
    pub(super) fn manifest(&self) -> Option<(u8, u8)> {
        match *self {
            Self::WrongClock(_, WrongClockCall::Put(r, name, _))
            | Self::UnmarkAndPut(r, _, name)
            | Self::Put(r, name, _)
            | Self::Delete(r, name)
            | Self::Manifest(r, name)
            | Self::Pull(r, name) => Some((r, name)),
            _ => None,
        }
    }

    /// Whether this operation concerns a tag.
    pub(super) fn has_tag(&self, repository: u8, tag: u8) -> bool {
        match *self {
            Self::Put(r, _, tags) | Self::WrongClock(_, WrongClockCall::Put(r, _, tags)) => {
                r == repository && tags.contains(&tag)
            }
            Self::Untag(r, named) | Self::Read(r, named) => (r, named) == (repository, tag),
            _ => false,
        }
    }
}
