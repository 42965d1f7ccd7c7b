//! Uploads: blobs, large manifests, and requests on a shared upload.

use registry::store::metadata::{Content, Defect, ManifestPut, MetadataStore, NewContent, PutManifest};
use registry::store::sessions::{
    Cancelled, Claim, Claimed, End, Expected, Progress, Publishing, Session, SessionKey, SessionStore, State,
};
use registry::store::{Attempt, Location, SessionId, StoreError, Timestamp};

use super::super::fixtures::{FIXTURES, LARGE};
use super::super::frozen::frozen_tags;
use super::super::linearizable::{CallResult, RecordedCall};
use super::super::world::{HOUR, SIZE, START};
use super::{Body, Caller};

/// The duration of a claim, in milliseconds.
const CLAIM: u64 = 60_000;
/// The shared upload of a scenario.
const SHARED: SessionKey = SessionKey {
    expires: Timestamp(START.0 + 24 * HOUR),
    id: SessionId(0x0700_0000_0000_0000_0000_0000_0000_002a),
};

fn location(attempt: Attempt) -> Location {
    Location::main(attempt.to_string())
}

impl Caller {
    async fn claim(&self, key: SessionKey) -> Claimed {
        let cx = self.world.cx();
        let expected = if self.world.random().is_multiple_of(2) {
            Expected::New
        } else {
            Expected::Existing
        };
        let until = cx.now.plus_millis(CLAIM);
        let claimed = self.store.claim(cx, key, expected, until, u32::MAX).await;
        claimed.expect("claim")
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
        // An expiry may have come first, by the clock of a collection.
        let committed = self
            .store
            .commit(self.world.cx(), &claim, &publishing)
            .await
            .expect("commit");
        committed.then_some((claim, publishing))
    }

    fn sealed(&self, claim: &Claim, name: u8) -> Publishing {
        self.world.make_object(claim.attempt.to_string());
        Publishing {
            digest: *FIXTURES.digest(name),
            location: location(claim.attempt),
            size: SIZE,
        }
    }

    pub(super) async fn push(&self, r: u8, name: u8) -> CallResult {
        let Some((claim, publishing)) = self.upload(name).await else {
            return CallResult::Unknown;
        };
        self.publish(r, &publishing).await;
        self.finish(&claim, End::Done).await;
        CallResult::Done
    }

    async fn publish(&self, r: u8, publishing: &Publishing) {
        let Publishing { digest, location, size } = publishing;
        let repository = &FIXTURES.repositories[usize::from(r)];
        let committed = self
            .store
            .commit_blob(self.world.cx(), repository, digest, location, *size);
        let lies_at = committed.await.expect("commit_blob");
        self.make_sure(FIXTURES.name_of(digest), location, lies_at).await;
    }

    /// A session is done when nothing but its object is left.
    fn discard(&self, attempts: u32, publishing: &Publishing) {
        for number in 1..=attempts {
            let session = SHARED.id;
            let object = location(Attempt { session, number });
            if object != publishing.location {
                self.world.delete_object(&object.key);
            }
        }
    }

    async fn finish(&self, claim: &Claim, end: End) {
        self.store.finish(self.world.cx(), claim, end).await.expect("finish");
    }

    /// Finishes the publication of the shared upload, as a repetition of its last request does.
    pub(super) async fn replay(&self, r: u8, name: u8) {
        let key = SHARED;
        let row = self.store.get(self.world.cx(), key).await.expect("get");
        let Some(Session {
            state: State::Committing(publishing),
            attempts,
            ..
        }) = row
        else {
            return;
        };
        if publishing.digest != *FIXTURES.digest(name) {
            return;
        }
        self.call(RecordedCall::Commit(r, name), async {
            self.publish(r, &publishing).await;
            self.discard(attempts, &publishing);
            self.store
                .finish_committing(self.world.cx(), key, End::Done)
                .await
                .expect("finish_committing");
            CallResult::Done
        })
        .await;
    }

    /// `None`: with lost answers, the store cannot always say whether its own write or that of another moved a tag.
    async fn put_or_unknown(&self, put: &PutManifest) -> Option<ManifestPut> {
        let answer = self.store.put_manifest(self.world.cx(), put, &frozen_tags()).await;
        match answer {
            Err(StoreError::Unavailable(_)) if self.world.is_lossy() => None,
            answer => Some(answer.expect("put_manifest")),
        }
    }

    pub(super) async fn put(&self, r: u8, name: u8, tags: &[u8]) -> CallResult {
        let mut put = FIXTURES.put(r, name, tags);
        let answer = |outcome: &ManifestPut| match outcome {
            ManifestPut::Stored | ManifestPut::AsItWas | ManifestPut::StoredElsewhere(_) => CallResult::Done,
            ManifestPut::Missing(_) => CallResult::Missing,
            ManifestPut::Protected(_) => CallResult::Refused,
            ManifestPut::Gone => panic!("it was put with its bytes"),
            ManifestPut::OtherType(other) => panic!("it was put with its own type, and is {other}"),
        };
        if name != LARGE {
            let Some(outcome) = self.put_or_unknown(&put).await else {
                return CallResult::Unknown;
            };
            return answer(&outcome);
        }
        // Its bytes become an object, unless that exists already.
        if self.is_stored(r, name).await {
            let Some(outcome) = self.put_or_unknown(&put).await else {
                return CallResult::Unknown;
            };
            if outcome != ManifestPut::Gone {
                return answer(&outcome);
            }
        }
        let Some((claim, publishing)) = self.upload(name).await else {
            return CallResult::Unknown;
        };
        let offered = publishing.location.clone();
        put.content = NewContent::Sealed(publishing.location);
        let Some(outcome) = self.put_or_unknown(&put).await else {
            return CallResult::Unknown;
        };
        if let ManifestPut::StoredElsewhere(lies_at) = &outcome {
            self.make_sure(name, &offered, lies_at.clone()).await;
        }
        let end = match outcome {
            ManifestPut::Stored | ManifestPut::AsItWas | ManifestPut::StoredElsewhere(_) => End::Done,
            ManifestPut::Missing(_) | ManifestPut::OtherType(_) | ManifestPut::Gone | ManifestPut::Protected(_) => {
                End::Cancelled
            }
        };
        self.finish(&claim, end).await;
        answer(&outcome)
    }

    /// Whether a large manifest exists with its bytes. A missing object is recorded.
    async fn is_stored(&self, r: u8, name: u8) -> bool {
        let (repository, digest) = (&FIXTURES.repositories[usize::from(r)], FIXTURES.digest(name));
        let there = self.store.manifest(self.world.cx(), repository, digest).await;
        match there.expect("manifest").map(|record| record.content) {
            None | Some(Content::Defective(..) | Content::Damaged(_)) => false,
            Some(Content::Inline(_)) => true,
            Some(Content::Stored(location)) => {
                if self.world.is_whole(&location.key) {
                    return true;
                }
                let recorded =
                    self.store
                        .record_defect(self.world.cx(), Some(repository), digest, &location, Defect::Missing);
                recorded.await.expect("record_defect");
                false
            }
        }
    }

    pub(super) async fn body(&self, body: Body) {
        let key = SHARED;
        let cx = || self.world.cx();
        match body {
            Body::Cancel => {
                if let Cancelled::Now(Some(_)) = self.store.cancel(cx(), key).await.expect("cancel") {
                    let row = self.store.get(cx(), key).await.expect("get");
                    let stays = row.is_none_or(|row| matches!(row.state, State::Cancelled(_) | State::Swept(_)));
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
                if self
                    .store
                    .save(cx(), &claim, progress, Some(part.clone()))
                    .await
                    .expect("save")
                {
                    let parts = self.store.parts(cx(), key).await.expect("parts");
                    // An expiry may have deleted all of them, and nothing else may.
                    assert!(
                        parts.contains(&part) || !self.is_kept(key).await,
                        "a part that was saved is lost"
                    );
                }
            }
            Body::Last(r, name) | Body::Unfinished(r, name) => {
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
                    self.call(RecordedCall::Commit(r, name), async {
                        self.publish(r, &publishing).await;
                        if let Body::Last(..) = body {
                            self.discard(claim.attempt.number, &publishing);
                            self.finish(&claim, End::Done).await;
                        }
                        CallResult::Done
                    })
                    .await;
                }
            }
        }
    }

    /// Whether the session has not expired and needs its parts. A cancel after an expiry creates a row in which nothing
    /// was ever stored.
    async fn is_kept(&self, key: SessionKey) -> bool {
        let row = self.store.get(self.world.cx(), key).await.expect("get");
        row.is_some_and(|row| !matches!(row.state, State::Swept(_) | State::Done(_)) && row.attempts > 0)
    }
}
