//! The guard of tags: a change that it refuses changes nothing, and it is asked about the rows that are written.

use std::sync::{Arc, Mutex};

use oci::{Digest, Tag};
use registry::store::Timestamp;
use registry::store::access::Author;
use registry::store::metadata::{
    AllowAll, Deletion, ManifestPut, Protected, Protection, PutManifest, Removal, TagGuard, TagRecord,
};

use super::{MetadataTest, author, digest, location, manifest, repository, tag};
use crate::metadata::DescribeManifest as _;

/// Rounds of each race.
const ROUNDS: usize = 40;

/// After this time a tag is frozen.
pub(super) const GRACE_MS: u64 = 600_000;

/// The principal of the calls that a guard restricts.
const RESTRICTED: &str = "restricted";

/// Freezes the tags that begin with `v`, as the rule of a policy does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freezing {
    grace_ms: u64,
    /// Frozen tags may be deleted.
    deletes: bool,
}

impl Freezing {
    pub(super) fn shared(grace_ms: u64) -> Arc<dyn TagGuard> {
        let deletes = false;
        Arc::new(Self { grace_ms, deletes })
    }

    pub(super) fn with_deletions(grace_ms: u64) -> Arc<dyn TagGuard> {
        let deletes = true;
        Arc::new(Self { grace_ms, deletes })
    }

    fn is_frozen(self, tag: &Tag, since: Timestamp, until: Timestamp) -> bool {
        tag.as_str().starts_with('v') && until.millis_since(since) >= self.grace_ms
    }

    fn check(self, tag: &Tag, row: &TagRecord, now: Timestamp) -> Result<(), Protected> {
        if self.is_frozen(tag, row.at, now) {
            return Err(frozen(tag, row.digest));
        }
        Ok(())
    }
}

impl TagGuard for Freezing {
    fn create(
        &self,
        tag: &Tag,
        digest: &Digest,
        last: Option<&Deletion>,
        now: Timestamp,
    ) -> Result<Timestamp, Protected> {
        match last {
            Some(Deletion {
                digest: had,
                since: Some(since),
                at,
            }) if self.is_frozen(tag, *since, *at) => {
                if had == digest {
                    Ok(*since)
                } else {
                    Err(deleted(tag, *had))
                }
            }
            _ => Ok(now),
        }
    }

    fn moved(&self, tag: &Tag, row: &TagRecord, _digest: &Digest, now: Timestamp) -> Result<(), Protected> {
        self.check(tag, row, now)
    }

    fn removed(&self, tag: &Tag, row: &TagRecord, now: Timestamp) -> Result<(), Protected> {
        if self.deletes {
            return Ok(());
        }
        self.check(tag, row, now)
    }

    fn allows_deletions(&self) -> bool {
        self.deletes
    }
}

pub(super) fn frozen(tag: &Tag, digest: Digest) -> Protected {
    Protected {
        tag: tag.clone(),
        why: Protection::Frozen {
            rule: "releases".into(),
            digest,
        },
    }
}

pub(super) fn deleted(tag: &Tag, digest: Digest) -> Protected {
    Protected {
        tag: tag.clone(),
        why: Protection::DeletedWhileFrozen {
            rule: "releases".into(),
            digest,
        },
    }
}

fn exists(tag: &Tag, digest: Digest) -> Protected {
    Protected {
        tag: tag.clone(),
        why: Protection::CreateOnly { digest },
    }
}

/// Lets tags be created, and not moved.
#[derive(Debug)]
struct CreateOnly;

impl TagGuard for CreateOnly {
    fn create(
        &self,
        _tag: &Tag,
        _digest: &Digest,
        _last: Option<&Deletion>,
        now: Timestamp,
    ) -> Result<Timestamp, Protected> {
        Ok(now)
    }

    fn moved(&self, tag: &Tag, row: &TagRecord, _digest: &Digest, _now: Timestamp) -> Result<(), Protected> {
        Err(exists(tag, row.digest))
    }

    fn removed(&self, _tag: &Tag, _row: &TagRecord, _now: Timestamp) -> Result<(), Protected> {
        Ok(())
    }

    fn allows_deletions(&self) -> bool {
        true
    }
}

/// A question to a guard.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Question {
    Create(Tag, Digest, Option<Deletion>, Timestamp),
    Moved(Tag, TagRecord, Digest, Timestamp),
    Removed(Tag, TagRecord, Timestamp),
}

/// Allows everything, and records the questions. A store may ask a question again.
#[derive(Debug, Default)]
struct Recording(Mutex<Vec<Question>>);

impl Recording {
    fn add(&self, question: Question) {
        let mut questions = self.0.lock().expect("no test panics with the lock");
        if !questions.contains(&question) {
            questions.push(question);
        }
    }

    fn take(&self) -> Vec<Question> {
        std::mem::take(&mut *self.0.lock().expect("no test panics with the lock"))
    }
}

impl TagGuard for Recording {
    fn create(
        &self,
        tag: &Tag,
        digest: &Digest,
        last: Option<&Deletion>,
        now: Timestamp,
    ) -> Result<Timestamp, Protected> {
        self.add(Question::Create(tag.clone(), *digest, last.copied(), now));
        Ok(now)
    }

    fn moved(&self, tag: &Tag, row: &TagRecord, digest: &Digest, now: Timestamp) -> Result<(), Protected> {
        self.add(Question::Moved(tag.clone(), row.clone(), *digest, now));
        Ok(())
    }

    fn removed(&self, tag: &Tag, row: &TagRecord, now: Timestamp) -> Result<(), Protected> {
        self.add(Question::Removed(tag.clone(), row.clone(), now));
        Ok(())
    }

    fn allows_deletions(&self) -> bool {
        false
    }
}

impl MetadataTest {
    pub(super) async fn put_with(&self, put: &PutManifest, guard: &Arc<dyn TagGuard>) -> ManifestPut {
        let answer = self.store.put_manifest(self.cx(), put, guard).await;
        answer.expect("put_manifest")
    }

    pub(super) async fn stored_with(&self, put: &PutManifest, guard: &Arc<dyn TagGuard>) {
        let outcome = self.put_with(put, guard).await;
        assert!(
            matches!(outcome, ManifestPut::Stored | ManifestPut::AsItWas),
            "{outcome:?}"
        );
    }

    pub(super) async fn delete_tag_with(&self, put: &PutManifest, tag: &Tag, guard: &Arc<dyn TagGuard>) -> Removal {
        let answer = self
            .store
            .delete_tag(self.cx(), &put.repository, tag, &Author::new(RESTRICTED), guard)
            .await;
        answer.expect("delete_tag")
    }

    pub(super) async fn delete_with(&self, put: &PutManifest, guard: &Arc<dyn TagGuard>) -> Removal {
        let answer = self
            .store
            .delete_manifest(self.cx(), &put.repository, &put.digest, &Author::new(RESTRICTED), guard)
            .await;
        answer.expect("delete_manifest")
    }
}

/// The guard is asked about each tag that would change, with its row or its last deletion, and about no other tag.
pub async fn a_guard_is_asked_about_the_rows_of_the_tags(test: MetadataTest) {
    let name = repository("a");
    let tags = [tag("a"), tag("b")];
    let (one, two) = (manifest(&name, "one"), manifest(&name, "two"));
    let recording = Arc::new(Recording::default());
    let guard: Arc<dyn TagGuard> = Arc::clone(&recording) as _;
    let row = async |tag| test.tag(&name, tag).await.expect("the tag");

    test.stored_with(&one, &guard).await;
    assert_eq!(recording.take(), [], "a manifest without tags");
    let one = one.tagged(tags.clone());
    test.stored_with(&one, &guard).await;
    let created = tags
        .each_ref()
        .map(|tag| Question::Create(tag.clone(), one.digest, None, test.now()));
    assert_eq!(recording.take(), created);
    test.advance(10);
    test.stored_with(&one, &guard).await;
    assert_eq!(recording.take(), [], "the tags name the digest already");

    let (a, b) = (row(&tags[0]).await, row(&tags[1]).await);
    let moved = two.clone().tagged([tags[0].clone(), tag("c")]);
    test.stored_with(&moved, &guard).await;
    let expected = [
        Question::Moved(tags[0].clone(), a.clone(), two.digest, test.now()),
        Question::Create(tag("c"), two.digest, None, test.now()),
    ];
    assert_eq!(recording.take(), expected);

    let since = test.now();
    test.advance(10);
    let moved_row = row(&tags[0]).await;
    assert_eq!(test.delete_tag_with(&one, &tags[0], &guard).await, Removal::Removed);
    assert_eq!(
        recording.take(),
        [Question::Removed(tags[0].clone(), moved_row, test.now())]
    );
    let deletion = Deletion {
        digest: two.digest,
        since: Some(since),
        at: test.now(),
    };
    assert_eq!(test.history(&name, &tags[0]).await[0].deletion(), Some(deletion));
    assert_eq!(test.delete_tag_with(&one, &tags[0], &guard).await, Removal::Absent);
    assert_eq!(recording.take(), [], "there is no such tag");

    assert_eq!(test.delete_with(&one, &guard).await, Removal::Removed);
    let removed_at = test.now();
    assert_eq!(
        recording.take(),
        [Question::Removed(tags[1].clone(), b.clone(), removed_at)]
    );
    test.advance(10);
    test.stored_with(&one, &guard).await;
    let with_the_manifest = Deletion {
        digest: one.digest,
        since: Some(b.at),
        at: removed_at,
    };
    let expected = [
        Question::Create(tags[0].clone(), one.digest, Some(deletion), test.now()),
        Question::Create(tags[1].clone(), one.digest, Some(with_the_manifest), test.now()),
    ];
    assert_eq!(recording.take(), expected);
}

/// A tag moves until its grace has passed. Then every other digest is refused, and the digest that it names is
/// accepted. A refused put stores neither its manifest nor another tag.
pub async fn a_frozen_tag_keeps_its_digest(test: MetadataTest) {
    let name = repository("a");
    let guard = Freezing::shared(GRACE_MS);
    let v1 = tag("v1");
    let one = manifest(&name, "one").tagged([v1.clone()]);
    let two = manifest(&name, "two").tagged([v1.clone()]);
    test.stored_with(&one, &guard).await;
    test.advance(GRACE_MS - 1);
    test.stored_with(&two, &guard).await;
    // It has changed, so the grace begins again.
    test.advance(GRACE_MS - 1);
    test.stored_with(&one, &guard).await;
    test.advance(GRACE_MS);
    let refused = ManifestPut::Protected(frozen(&v1, one.digest));
    let three = manifest(&name, "three").tagged([tag("latest"), v1.clone(), tag("w")]);
    let large = manifest(&name, "large").tagged([v1.clone()]).stored_at(location(1));
    for put in [&two, &three, &large] {
        assert_eq!(test.put_with(put, &guard).await, refused);
    }
    for put in [&three, &large] {
        assert_eq!(test.manifest(&name, &put.digest).await, None);
    }
    assert_eq!(test.tags(&name, None, 10).await.items, std::slice::from_ref(&v1));
    let record = test.tag(&name, &v1).await.expect("the tag");
    assert_eq!((record.digest, record.at.0), (one.digest, test.now().0 - GRACE_MS));
    assert_eq!(test.assert_chain(&name, &v1).await.len(), 3);

    // The same digest again, alone and with a tag that is not frozen.
    test.stored_with(&one, &guard).await;
    test.stored_with(&one.clone().tagged([tag("latest")]), &guard).await;
    assert_eq!(test.tag(&name, &v1).await, Some(record));
    assert_eq!(
        test.tag(&name, &tag("latest")).await.expect("the tag").digest,
        one.digest
    );
    // The guard of another caller allows it.
    test.put(&two).await;
    assert_eq!(test.tag(&name, &v1).await.expect("the tag").digest, two.digest);
}

/// A put that the guard refuses and whose references are missing is refused by the guard, so every store answers the same.
pub async fn a_guard_is_asked_before_references_are_checked(test: MetadataTest) {
    let name = repository("a");
    let guard = Freezing::shared(GRACE_MS);
    let v1 = tag("v1");
    let one = manifest(&name, "one").tagged([v1.clone()]);
    test.stored_with(&one, &guard).await;
    let missing = ManifestPut::Missing(vec![digest("missing")]);
    let incomplete = manifest(&name, "incomplete").requiring([digest("missing")]);
    let small = incomplete.clone().tagged([v1.clone()]);
    let large = small.clone().stored_at(location(1));
    for put in [&small, &large] {
        assert_eq!(test.put_with(put, &guard).await, missing);
    }
    test.advance(GRACE_MS);
    for put in [&small, &large] {
        let refused = ManifestPut::Protected(frozen(&v1, one.digest));
        assert_eq!(test.put_with(put, &guard).await, refused);
    }
    for put in [&incomplete, &incomplete.clone().tagged([tag("latest")])] {
        assert_eq!(test.put_with(put, &guard).await, missing);
    }
    assert_eq!(test.manifest(&name, &incomplete.digest).await, None);
    assert_eq!(test.tag(&name, &v1).await.expect("the tag").digest, one.digest);
}

/// A push of twenty tags of which one is frozen changes none of them, whichever it is.
pub async fn one_frozen_tag_of_twenty_refuses_all(test: MetadataTest) {
    let guard = Freezing::shared(0);
    let tags: Vec<Tag> = (0..20).map(|number| tag(&format!("t{number:02}"))).collect();
    for (round, index) in [0, 7, 19].into_iter().enumerate() {
        let name = repository(&format!("a{round}"));
        let mut tags = tags.clone();
        tags[index] = tag("v1");
        let old = manifest(&name, "old").tagged(tags[5..].iter().cloned());
        let old = if index < 5 {
            old.tagged([tags[index].clone()])
        } else {
            old
        };
        test.put(&old).await;
        test.advance(1);
        let before = test.tags(&name, None, 100).await.items;
        let known = manifest(&name, "known");
        test.put(&known).await;
        for new in [known, manifest(&name, "unknown")] {
            let new = new.tagged(tags.clone());
            let refused = ManifestPut::Protected(frozen(&tag("v1"), old.digest));
            assert_eq!(test.put_with(&new, &guard).await, refused, "the tag number {index}");
        }
        assert_eq!(test.manifest(&name, &digest("unknown")).await, None);
        assert_eq!(test.tags(&name, None, 100).await.items, before);
        for tag in &before {
            assert_eq!(test.tag(&name, tag).await.expect("the tag").digest, old.digest);
            assert_eq!(test.history(&name, tag).await.len(), 1);
        }
    }
}

/// A caller that may only create tags: a new tag is stored, an existing one stays, and the same digest is accepted.
pub async fn a_guard_can_allow_new_tags_only(test: MetadataTest) {
    let name = repository("a");
    let guard: Arc<dyn TagGuard> = Arc::new(CreateOnly);
    let latest = tag("latest");
    let one = manifest(&name, "one").tagged([latest.clone()]);
    let two = manifest(&name, "two").tagged([latest.clone()]);
    test.stored_with(&one, &guard).await;
    test.stored_with(&one, &guard).await;
    let refused = ManifestPut::Protected(exists(&latest, one.digest));
    assert_eq!(test.put_with(&two, &guard).await, refused);
    let two = manifest(&name, "two").tagged([tag("other")]);
    test.stored_with(&two, &guard).await;
    // The manifest exists now; the tag may still not move.
    let two = two.tagged([latest.clone()]);
    assert_eq!(test.put_with(&two, &guard).await, refused);
    // After a deletion it does not exist, so it may be created.
    assert!(test.delete_tag(&name, &latest).await);
    test.stored_with(&two, &guard).await;
}

/// A frozen tag is not deleted, neither alone nor with its manifest, and then no other tag of the manifest is deleted
/// either, also if they are many.
pub async fn a_frozen_tag_is_not_deleted(test: MetadataTest) {
    let guard = Freezing::shared(GRACE_MS);
    for count in [1, 20, 21, 45] {
        let name = repository(&format!("a{count}"));
        let v1 = tag("v1");
        // The frozen tag is the last one in the order of the tags.
        let tags: Vec<Tag> = (1..count).map(|number| tag(&format!("t{number:03}"))).collect();
        let put = manifest(&name, "manifest");
        for some in tags.chunks(20) {
            test.put(&put.clone().tagged(some.iter().cloned())).await;
        }
        test.put(&put.clone().tagged([v1.clone()])).await;
        test.advance(GRACE_MS);
        let refused = Removal::Protected(frozen(&v1, put.digest));
        assert_eq!(test.delete_tag_with(&put, &v1, &guard).await, refused);
        assert_eq!(test.delete_with(&put, &guard).await, refused, "{count} tags");
        assert!(test.manifest(&name, &put.digest).await.is_some());
        assert_eq!(test.tags(&name, None, 1000).await.items.len(), count);
        assert_eq!(test.history(&name, &v1).await.len(), 1);
        // The refusal leaves nothing that hinders others.
        test.put(&put).await;
        if let Some(first) = tags.first() {
            assert_eq!(test.delete_tag_with(&put, first, &guard).await, Removal::Removed);
        }
        // Before the grace has passed, both deletions are allowed.
        let young = manifest(&name, "young").tagged([tag("v2"), tag("v3")]);
        test.put(&young).await;
        assert_eq!(test.delete_tag_with(&young, &tag("v2"), &guard).await, Removal::Removed);
        assert_eq!(test.delete_with(&young, &guard).await, Removal::Removed);
        assert_eq!(test.tag(&name, &tag("v3")).await, None);
    }
}

/// Two callers that may only create tags create one at the same time: one of them succeeds, and the other is refused
/// if it has another digest.
pub async fn creators_at_once_leave_one_tag(test: MetadataTest) {
    let name = repository("a");
    let guard: Arc<dyn TagGuard> = Arc::new(CreateOnly);
    for round in 0..ROUNDS {
        let tags = [tag(&format!("t{round}")), tag(&format!("u{round}"))];
        let puts = ["one", "two"].map(|content| {
            let content = if round % 3 == 0 { "the same" } else { content };
            manifest(&name, format!("{content} {}", round / 2)).tagged(tags.clone())
        });
        let calls = puts.each_ref().map(|put| {
            let (test, put, guard) = (test.clone(), put.clone(), Arc::clone(&guard));
            async move { test.put_with(&put, &guard).await }
        });
        let [one, two] = calls;
        let (one, two) = test.race(round % 2 == 0, one, two).await;
        let outcomes = [&one, &two];
        let stored = |outcome: &ManifestPut| matches!(outcome, ManifestPut::Stored | ManifestPut::AsItWas);
        let is_same = puts[0].digest == puts[1].digest;
        let winner = test.tag(&name, &tags[0]).await.expect("the tag").digest;
        for (put, outcome) in puts.iter().zip(outcomes) {
            assert_eq!(
                stored(outcome),
                is_same || put.digest == winner,
                "round {round}: {outcomes:?}"
            );
            if !stored(outcome) {
                let ManifestPut::Protected(refused) = outcome else {
                    panic!("round {round}: {outcomes:?}");
                };
                assert!(tags.iter().any(|tag| *refused == exists(tag, winner)), "{refused:?}");
            }
        }
        for tag in &tags {
            assert_eq!(test.tag(&name, tag).await.expect("the tag").digest, winner);
            assert_eq!(test.assert_chain(&name, tag).await.len(), 1);
        }
    }
}

/// The guard decides about the row that the change replaces: a restricted caller never moves or deletes a tag, however
/// it races with callers that may do everything.
pub async fn a_restricted_caller_loses_every_race(test: MetadataTest) {
    let name = repository("a");
    let guard = Freezing::shared(0);
    for round in 0..ROUNDS {
        let v1 = tag(&format!("v{round}"));
        let restricted = {
            let mut put = manifest(&name, format!("restricted {round}")).tagged([v1.clone()]);
            put.author = Author::new(RESTRICTED);
            put
        };
        let free = manifest(&name, format!("free {round}")).tagged([v1.clone()]);
        let restricting = {
            let (test, put, tag, guard) = (test.clone(), restricted.clone(), v1.clone(), Arc::clone(&guard));
            async move {
                let outcome = test.put_with(&put, &guard).await;
                (outcome, test.delete_tag_with(&put, &tag, &guard).await)
            }
        };
        let freely = {
            let (test, put, tag) = (test.clone(), free.clone(), v1.clone());
            async move {
                test.put(&put).await;
                if round % 3 == 0 {
                    let answer = test
                        .store
                        .delete_tag(test.cx(), &put.repository, &tag, &author(), &AllowAll::shared())
                        .await;
                    answer.expect("delete_tag");
                }
            }
        };
        let ((outcome, removal), ()) = test.race(round % 2 == 0, restricting, freely).await;
        let history = test.assert_chain(&name, &v1).await;
        let of_restricted: Vec<_> = history.iter().filter(|change| change.principal == RESTRICTED).collect();
        match outcome {
            ManifestPut::Stored => {
                assert_eq!(of_restricted.len(), 1, "round {round}: {history:#?}");
                assert_eq!(of_restricted[0].before, None);
            }
            ManifestPut::Protected(_) => assert!(of_restricted.is_empty(), "round {round}: {history:#?}"),
            other => panic!("round {round}: {other:?}"),
        }
        assert!(
            matches!(removal, Removal::Protected(_) | Removal::Absent),
            "round {round}: {removal:?}"
        );
    }
}
