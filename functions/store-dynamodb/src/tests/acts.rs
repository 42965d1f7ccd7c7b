//! What can be done in a scenario, as the core does it: with the session that names an object before it exists, and
//! with all that follows.

use std::task::{Context as Poller, Poll, Waker};

use registry::store::collection::{CollectionStore, Grave, Graces, Plan};
use registry::store::metadata::{ManifestPut, MetadataStore, NewContent, Removal};
use registry::store::sessions::{
    Cancelled, Claim, Claimed, End, Progress, Publishing, Session, SessionId, SessionKey, SessionStore, State,
};
use registry::store::{Location, Timestamp};

use super::cast::{BLOB, CAST, LARGE, OTHER};
use super::linearizable::{Answer, Call};
use super::world::{HOUR, START, World};
use crate::DynamoStore;

/// How long a claim lives, in milliseconds.
const CLAIM: u64 = 60_000;
/// The bytes of everything.
const SIZE: u64 = 10;

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
    /// Walks over all names as if nothing needed a grace but what is under way.
    CollectHastily,
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
    /// DELETE.
    Cancel,
    /// A HEAD, which must see what was acknowledged.
    Status,
}

/// The upload that everybody in a scenario means by [`Body`].
const SHARED: SessionKey = SessionKey {
    expires: Timestamp(START.0 + 24 * HOUR),
    id: SessionId(7 << 120 | 42),
};

pub(super) const PLAN: Plan = Plan {
    dry_run: false,
    deep: false,
    graces: Graces {
        link_ms: 24 * HOUR,
        session_ms: HOUR,
        grave_ms: 25 * HOUR,
        leftover_ms: 24 * HOUR,
    },
};

/// Whoever acts: through one instance of the registry.
pub(super) struct Actor {
    pub(super) world: World,
    pub(super) store: DynamoStore,
}

fn location(key: impl ToString) -> Location {
    Location::main(key.to_string())
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
    pub(super) fn of(world: &World, store: DynamoStore) -> Self {
        Self {
            world: world.clone(),
            store,
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
            Act::Mount(r, name, from) => {
                self.call(Call::Mount(r, name, from), async {
                    let mounted = store.mount(cx(), of(r), CAST.digest(name), of(from)).await;
                    let mounted = mounted.expect("mount");
                    there(mounted.then_some(&()))
                })
                .await;
            }
            Act::KeepAndPut(r, name, manifest) => {
                let mut kept = false;
                self.call(Call::Link(r, name), async {
                    let link = store.keep_link(cx(), of(r), CAST.digest(name)).await.expect("keep_link");
                    kept = link.is_some();
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
                    removed(&store.unlink(cx(), of(r), CAST.digest(name)).await.expect("unlink"))
                })
                .await;
            }
            Act::Put(r, name, tags) => self.call(Call::Put(r, name, tags.to_vec()), self.put(r, name, tags)).await,
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
                let graces = Graces {
                    link_ms: 0,
                    ..PLAN.graces
                };
                self.collect(&Plan { graces, ..PLAN }).await;
            }
            Act::Sweep => self.sweep().await,
            Act::Graves => self.graves().await,
            Act::Pass(hours) => self.world.pass(hours * HOUR),
            Act::Body(body) => self.body(body).await,
        }
    }

    async fn claim(&self, key: SessionKey) -> Claimed {
        let cx = self.world.cx();
        self.store.claim(cx, key, cx.now.plus_millis(CLAIM)).await.expect("claim")
    }

    /// A new session, and the object of its first attempt.
    async fn upload(&self, name: u8) -> Option<(Claim, Publishing)> {
        let key = SessionKey {
            expires: self.world.now().plus_millis(24 * HOUR),
            id: SessionId(u128::from(self.world.random()) << 64 | u128::from(self.world.random())),
        };
        let Claimed::Granted(claim) = self.claim(key).await else {
            panic!("a new session is new");
        };
        let publishing = self.sealed(&claim, name);
        // A sweep may have come first, if the clock of a collector says so.
        let committed = self.store.commit(self.world.cx(), &claim, &publishing).await.expect("commit");
        committed.then_some((claim, publishing))
    }

    fn sealed(&self, claim: &Claim, name: u8) -> Publishing {
        self.world.make_object(claim.attempt.to_string());
        Publishing {
            digest: *CAST.digest(name),
            location: location(claim.attempt),
            size: SIZE,
        }
    }

    async fn push(&self, r: u8, name: u8) -> Answer {
        let Some((claim, publishing)) = self.upload(name).await else {
            return Answer::Unknown;
        };
        self.publish(r, &publishing).await;
        self.finish(&claim, End::Done).await;
        Answer::Done
    }

    async fn publish(&self, r: u8, publishing: &Publishing) {
        let Publishing { digest, location, size } = publishing;
        let repository = &CAST.repositories[usize::from(r)];
        let committed = self.store.commit_blob(self.world.cx(), repository, digest, location, *size);
        committed.await.expect("commit_blob");
    }

    async fn finish(&self, claim: &Claim, end: End) {
        self.store.finish(self.world.cx(), claim, end).await.expect("finish");
    }

    /// Finishes the publication of the shared upload, as whoever repeats its last request does.
    async fn replay(&self, r: u8, name: u8) {
        let key = SHARED;
        let row = self.store.get(self.world.cx(), key).await.expect("get");
        let Some(Session {
            state: State::Committing,
            publishing: Some(publishing),
            ..
        }) = row
        else {
            return;
        };
        if publishing.digest != *CAST.digest(name) {
            return;
        }
        self.call(Call::Commit(r, name), async {
            self.publish(r, &publishing).await;
            self.store.settle(self.world.cx(), key).await.expect("settle");
            Answer::Done
        })
        .await;
    }

    async fn put(&self, r: u8, name: u8, tags: &[u8]) -> Answer {
        let mut put = CAST.put(r, name, tags);
        let answer = |outcome: &ManifestPut| match outcome {
            ManifestPut::Stored => Answer::Done,
            ManifestPut::Missing(_) => Answer::Missing,
            ManifestPut::Gone => panic!("it was put with its bytes"),
        };
        if name != LARGE {
            let outcome = self.store.put_manifest(self.world.cx(), &put).await.expect("put_manifest");
            return answer(&outcome);
        }
        // Its bytes become an object, unless they are one already.
        let there = self.store.manifest(self.world.cx(), &put.repository, &put.digest).await;
        if there.expect("manifest").is_some() {
            let outcome = self.store.put_manifest(self.world.cx(), &put).await.expect("put_manifest");
            if outcome != ManifestPut::Gone {
                return answer(&outcome);
            }
        }
        let Some((claim, publishing)) = self.upload(name).await else {
            return Answer::Unknown;
        };
        put.content = NewContent::Sealed(publishing.location);
        let outcome = self.store.put_manifest(self.world.cx(), &put).await.expect("put_manifest");
        let end = match outcome {
            ManifestPut::Stored => End::Done,
            ManifestPut::Missing(_) | ManifestPut::Gone => End::Cancelled,
        };
        self.finish(&claim, end).await;
        answer(&outcome)
    }

    pub(super) async fn collect(&self, plan: &Plan) {
        if plan.graces.link_ms == 0 || !self.world.is_first_day() {
            // Links that nothing refers to may go at any time from now on.
            for r in 0..2 {
                for name in [BLOB, OTHER, LARGE] {
                    self.world.called(Call::Unlink(r, name));
                }
            }
        }
        let mut next = None;
        loop {
            let slice = self.store.collect_names(self.world.cx(), plan, next.as_ref(), 7).await;
            next = slice.expect("collect_names").next;
            if next.is_none() {
                break;
            }
        }
    }

    pub(super) async fn sweep(&self) {
        let now = self.world.now();
        let before = Timestamp(now.0 - PLAN.graces.session_ms);
        let due = self.store.expired(self.world.cx(), before, None, 100).await.expect("expired");
        for (key, session) in due {
            if !crate::sessions::is_live(&session, now) {
                self.store.sweep(self.world.cx(), key, &session).await.expect("sweep");
            }
        }
    }

    pub(super) async fn graves(&self) {
        let before = Timestamp(self.world.now().0 - PLAN.graces.grave_ms);
        let graves = self.store.graves(self.world.cx(), before, None, 100).await.expect("graves");
        for grave in &graves {
            if !self.is_in_use(grave).await {
                self.world.delete_object(&grave.location.key);
            }
        }
        self.store.forget(self.world.cx(), &graves).await.expect("forget");
    }

    async fn is_in_use(&self, grave: &Grave) -> bool {
        let Some(digest) = &grave.digest else {
            return false;
        };
        let named = self.store.is_named(self.world.cx(), digest, &grave.location).await;
        named.expect("is_named")
    }

    async fn body(&self, body: Body) {
        let key = SHARED;
        let cx = || self.world.cx();
        match body {
            Body::Cancel => {
                if let Cancelled::Now(Some(_)) = self.store.cancel(cx(), key).await.expect("cancel") {
                    let row = self.store.get(cx(), key).await.expect("get");
                    let stays = row.is_none_or(|row| matches!(row.state, State::Cancelled | State::Swept));
                    assert!(stays, "a cancel was undone");
                }
            }
            Body::Status => {
                if let Some(row) = self.store.get(cx(), key).await.expect("get") {
                    let parts = self.store.parts(cx(), key).await.expect("parts");
                    let whole = parts.len() >= row.progress.parts as usize;
                    assert!(whole || !self.is_kept(key).await, "a part is lost that the row counts");
                }
            }
            Body::Cut => {
                if let Claimed::Granted(claim) = self.claim(key).await {
                    self.world.make_object(claim.attempt.to_string());
                    self.store.release(cx(), &claim).await.expect("release");
                }
            }
            Body::Chunk => {
                let Claimed::Granted(claim) = self.claim(key).await else {
                    return;
                };
                self.world.make_object(claim.attempt.to_string());
                let progress = Progress {
                    offset: claim.progress.offset + SIZE,
                    ..Progress::default()
                };
                let part = claim.attempt.to_string().into_bytes();
                if self.store.save(cx(), &claim, progress, Some(part.clone())).await.expect("save") {
                    let parts = self.store.parts(cx(), key).await.expect("parts");
                    // A sweep may have taken them all, and nothing else may.
                    assert!(parts.contains(&part) || !self.is_kept(key).await, "a part that was saved is lost");
                }
            }
            Body::Last(r, name) => {
                let Claimed::Granted(claim) = self.claim(key).await else {
                    return;
                };
                let publishing = self.sealed(&claim, name);
                let parts = self.store.parts(cx(), key).await.expect("parts");
                if self.store.commit(cx(), &claim, &publishing).await.expect("commit") {
                    assert_eq!(
                        parts.len() as u64 * SIZE,
                        claim.progress.offset,
                        "the parts are not those of the offset"
                    );
                    self.call(Call::Commit(r, name), async {
                        self.publish(r, &publishing).await;
                        self.finish(&claim, End::Done).await;
                        Answer::Done
                    })
                    .await;
                }
            }
        }
    }

    /// Whether nobody has swept the session.
    async fn is_kept(&self, key: SessionKey) -> bool {
        let row = self.store.get(self.world.cx(), key).await.expect("get");
        row.is_some_and(|row| row.state != State::Swept)
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
            | Self::Body(Body::Last(r, name)) => Some((r, name)),
            _ => None,
        }
    }

    /// The manifest that this is about.
    pub(super) fn manifest(&self) -> Option<(u8, u8)> {
        match *self {
            Self::KeepAndPut(r, _, name) | Self::Put(r, name, _) | Self::Delete(r, name) | Self::Manifest(r, name) => {
                Some((r, name))
            }
            _ => None,
        }
    }

    /// Whether this is about a tag.
    pub(super) fn has_tag(&self, repository: u8, tag: u8) -> bool {
        match *self {
            Self::Put(r, _, tags) => r == repository && tags.contains(&tag),
            Self::Untag(r, named) | Self::Read(r, named) => (r, named) == (repository, tag),
            _ => false,
        }
    }
}
