//! What a [`BlobStore`] must do. This module has undisturbed uploads and reads; [`races`] has attempts that fail,
//! overlap, or go on after their claim was lost; [`walks`] has listings and complete deletions.

pub mod races;
pub mod walks;

use std::ops::Range;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use registry::store::blobs::{
    AppendError, Appended, BlobStore, Discarded, ObjectToDelete, Reached, RedirectRequest, Source, Upload,
};
use registry::store::collection::Clearing;
use registry::store::{Attempt, Location, SessionId};

use super::ContractTest;
use super::source::{Body, noise};

pub use races::*;
pub use walks::*;

/// The test of a clause about blobs.
pub type BlobTest = ContractTest<dyn BlobStore>;

/// The size of a layer larger than any buffer.
const BIG: usize = 5 << 20;

/// What the caller of a blob store keeps of an upload, as the row of a session does.
#[derive(Clone)]
struct StoredUpload {
    id: SessionId,
    attempts: u32,
    state: Vec<u8>,
    parts: Vec<Vec<u8>>,
    size: u64,
}

impl StoredUpload {
    fn new(id: u128) -> Self {
        Self {
            id: SessionId(id),
            attempts: 0,
            state: Vec::new(),
            parts: Vec::new(),
            size: 0,
        }
    }

    fn attempt(&mut self) -> Attempt {
        self.attempts += 1;
        Attempt {
            session: self.id,
            number: self.attempts,
        }
    }

    fn save(&mut self, appended: Appended, size: usize) {
        self.state = appended.state;
        self.parts.extend(appended.part);
        self.size += size as u64;
    }

    fn upload(&self) -> Upload {
        Upload {
            session: self.id,
            state: self.state.clone(),
            parts: self.parts.clone(),
            size: self.size,
        }
    }
}

fn to_delete(location: &Location, unfinished: bool) -> ObjectToDelete {
    ObjectToDelete {
        location: location.clone(),
        unfinished,
    }
}

impl BlobTest {
    /// Appends a body to a session.
    async fn append(&self, session: &mut StoredUpload, bytes: &Bytes, chunk: usize) {
        let attempt = session.attempt();
        let mut body = Body::of(bytes, chunk);
        let appended = self
            .store
            .append(self.cx(), attempt, &session.state, &mut body)
            .await
            .expect("append");
        session.save(appended, bytes.len());
    }

    /// A session with `bodies` bodies of 5,000 bytes, and all of their bytes. The number is also that of the session.
    async fn uploaded(&self, bodies: u64) -> (StoredUpload, Vec<u8>) {
        let mut session = StoredUpload::new(bodies.into());
        let mut whole = Vec::new();
        for seed in 0..bodies {
            let bytes = noise(seed, 5000);
            self.append(&mut session, &bytes, 1000).await;
            whole.extend_from_slice(&bytes);
        }
        (session, whole)
    }

    /// Appends a body that fails. The session does not change.
    async fn append_failing(&self, session: &mut StoredUpload, body: &mut dyn Source) -> AppendError {
        let attempt = session.attempt();
        match self.store.append(self.cx(), attempt, &session.state, body).await {
            Ok(appended) => panic!("a body that failed was stored: {appended:?}"),
            Err(error) => error,
        }
    }

    async fn seal(&self, session: &StoredUpload) -> Location {
        self.store.seal(self.cx(), &session.upload()).await.expect("seal")
    }

    /// Seals an object of one body.
    async fn object(&self, id: u128, bytes: &Bytes) -> Location {
        let mut session = StoredUpload::new(id);
        self.append(&mut session, bytes, 64 * 1024).await;
        self.seal(&session).await
    }

    /// The bytes of a range; `None` if there is no object.
    async fn range(&self, location: &Location, range: Range<u64>) -> Option<Bytes> {
        let stream = self.store.read(self.cx(), location, range).await.expect("read")?;
        let chunks: Vec<Bytes> = stream.try_collect().await.expect("a whole stream");
        Some(chunks.concat().into())
    }

    async fn assert_holds(&self, location: &Location, expected: &Bytes) {
        let size = expected.len() as u64;
        let bytes = self.range(location, 0..size).await.expect("the object is there");
        assert_eq!(bytes.len(), expected.len(), "the size of {location:?}");
        assert!(bytes == *expected, "the bytes of {location:?} differ");
    }

    async fn delete(&self, locations: &[Location]) {
        let to_delete: Vec<_> = locations.iter().map(|location| to_delete(location, false)).collect();
        self.store.delete(self.cx(), &to_delete).await.expect("delete");
    }

    /// Also unfinished uploads, which only a search finds.
    async fn discard(&self, session: &StoredUpload, keep: Option<&Location>) {
        let discarded = self
            .store
            .discard(self.cx(), session.id, session.attempts, &session.state, keep)
            .await
            .expect("discard");
        if discarded == Discarded::Known {
            let Clearing { to_delete, kept } = clearing_of(pending_deletions_of(session, keep), keep);
            self.store.delete(self.cx(), &to_delete).await.expect("delete");
            self.store.tidy(self.cx(), &kept).await.expect("tidy");
        }
    }
}

/// A body without bytes becomes an object without bytes.
pub async fn an_empty_body_becomes_an_empty_object(test: BlobTest) {
    let mut session = StoredUpload::new(1);
    test.append(&mut session, &Bytes::new(), 1).await;
    let location = test.seal(&session).await;
    assert_eq!(test.range(&location, 0..0).await, Some(Bytes::new()));
}

/// A body is stored as it arrived, in one chunk or in many, also in many chunks of one byte.
pub async fn a_body_of_any_chunks_is_stored_whole(test: BlobTest) {
    let cases = [
        (1, 1),
        (1000, 1),
        (1000, 1000),
        (1000, 999),
        (70_000, 4096),
        (65_536, 65_536),
    ];
    for (number, (size, chunk)) in (1..).zip(cases) {
        let bytes = noise(number, size);
        let mut session = StoredUpload::new(number.into());
        test.append(&mut session, &bytes, chunk).await;
        let location = test.seal(&session).await;
        test.assert_holds(&location, &bytes).await;
    }
}

/// A body larger than any buffer, in chunks of several sizes, one of them the whole body.
pub async fn a_large_body_is_stored_whole(test: BlobTest) {
    let bytes = noise(1, BIG);
    for (number, chunk) in (1..).zip([BIG, 1 << 20, 65_535, 4097]) {
        let mut session = StoredUpload::new(number);
        test.append(&mut session, &bytes, chunk).await;
        let location = test.seal(&session).await;
        test.assert_holds(&location, &bytes).await;
    }
}

/// The declared length is a hint: a body is stored correctly when it is absent or wrong.
pub async fn a_wrong_length_hint_changes_nothing(test: BlobTest) {
    let bytes = noise(1, 100_000);
    for (number, hint) in (1..).zip([None, Some(0), Some(1), Some(99_999), Some(1 << 20)]) {
        let mut session = StoredUpload::new(number);
        let mut body = Body::of(&bytes, 10_000).declaring(hint);
        let attempt = session.attempt();
        let appended = test.store.append(test.cx(), attempt, &[], &mut body).await;
        session.save(appended.expect("append"), bytes.len());
        let location = test.seal(&session).await;
        test.assert_holds(&location, &bytes).await;
    }
}

/// Several bodies become one object, in the order in which they were appended, also empty ones and single bytes.
pub async fn bodies_are_joined_in_order(test: BlobTest) {
    let sizes = [1, 0, 70_000, 1, 4096, 0, 3, 131_072, 1];
    for count in 1..=sizes.len() {
        let mut session = StoredUpload::new(count as u128);
        let mut whole = Vec::new();
        for (seed, size) in (1..).zip(&sizes[..count]) {
            let bytes = noise(seed, *size);
            test.append(&mut session, &bytes, 10_000).await;
            whole.extend_from_slice(&bytes);
        }
        let location = test.seal(&session).await;
        test.assert_holds(&location, &whole.into()).await;
    }
}

/// Many bodies become one object: an upload by a client that sends small chunks.
pub async fn many_bodies_are_joined_in_order(test: BlobTest) {
    let mut session = StoredUpload::new(1);
    let whole = noise(1, 150 * 7);
    for at in (0..whole.len()).step_by(7) {
        test.append(&mut session, &whole.slice(at..at + 7), 3).await;
    }
    let location = test.seal(&session).await;
    test.assert_holds(&location, &whole).await;
}

/// Several large bodies become one object.
pub async fn large_bodies_are_joined(test: BlobTest) {
    let whole = noise(1, 2 * BIG + 11);
    let mut session = StoredUpload::new(1);
    for part in [0..BIG, BIG..BIG + 11, BIG + 11..2 * BIG + 11] {
        test.append(&mut session, &whole.slice(part), 1 << 20).await;
    }
    let location = test.seal(&session).await;
    test.assert_holds(&location, &whole).await;
}

/// Sealing again answers the same location, for one body and for several, also from several tasks at the same time.
pub async fn sealing_again_answers_the_same_location(test: BlobTest) {
    for bodies in 1..=3_u64 {
        let (session, whole) = test.uploaded(bodies).await;
        let first = test.seal(&session).await;
        assert_eq!(test.seal(&session).await, first);
        let at_once = test
            .together(4, |_| {
                let (test, session) = (test.clone(), session.clone());
                async move { test.seal(&session).await }
            })
            .await;
        assert!(at_once.iter().all(|location| *location == first));
        test.assert_holds(&first, &whole.into()).await;
    }
}

/// Several first seals at the same time answer the same location.
pub async fn racing_first_seals_agree(test: BlobTest) {
    for bodies in 1..=3_u64 {
        let (session, whole) = test.uploaded(bodies).await;
        let locations = test
            .together(4, |_| {
                let (test, session) = (test.clone(), session.clone());
                async move { test.seal(&session).await }
            })
            .await;
        assert!(
            locations.iter().all(|location| *location == locations[0]),
            "{locations:?}"
        );
        test.assert_holds(&locations[0], &whole.into()).await;
    }
}

/// Every object has a key of its own, of characters that are safe everywhere. Equal bytes are two objects.
pub async fn keys_are_distinct_and_use_safe_characters(test: BlobTest) {
    let bytes = noise(1, 100);
    let mut seen = Vec::new();
    for id in [0, 1, 16, u128::MAX] {
        let location = test.object(id, &bytes).await;
        assert!(!location.store.is_empty());
        assert!(!location.key.is_empty());
        let safe = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'.');
        assert!(location.key.bytes().all(safe), "{}", location.key);
        assert!(!seen.contains(&location), "{location:?} is used by two records");
        seen.push(location);
    }
    assert!(seen.iter().all(|location| location.store == seen[0].store));
}

/// Ranges are read exactly at the bounds of an object, and at the sizes into which stores and streams cut it.
pub async fn ranges_are_read_exactly(test: BlobTest) {
    let small = noise(1, 10);
    let location = test.object(1, &small).await;
    for start in 0..=10 {
        for end in start..=10 {
            let expected = small.slice(start..end);
            let read = test.range(&location, start as u64..end as u64).await;
            assert_eq!(read, Some(expected), "{start}..{end}");
        }
    }

    let big = noise(2, BIG);
    let location = test.object(2, &big).await;
    let mut bounds = vec![0, 1, 2, BIG - 1, BIG];
    for power in [12, 16, 18, 20, 22] {
        bounds.extend([(1 << power) - 1, 1 << power, (1 << power) + 1]);
    }
    bounds.sort_unstable();
    for pair in bounds.windows(3) {
        for (start, end) in [
            (pair[0], pair[1]),
            (pair[0], pair[2]),
            (pair[1], pair[1]),
            (0, pair[1]),
            (pair[1], BIG),
        ] {
            let read = test.range(&location, start as u64..end as u64).await;
            assert!(read == Some(big.slice(start..end)), "{start}..{end}");
        }
    }
}

/// Ranges of an object that was joined from several bodies do not depend on the bounds of the bodies.
pub async fn ranges_cross_the_bounds_of_bodies(test: BlobTest) {
    let whole = noise(1, 30);
    let mut session = StoredUpload::new(1);
    for part in [0..10, 10..11, 11..30] {
        test.append(&mut session, &whole.slice(part), 4).await;
    }
    let location = test.seal(&session).await;
    for start in 0..=30 {
        for end in start..=30 {
            let read = test.range(&location, start as u64..end as u64).await;
            assert_eq!(read, Some(whole.slice(start..end)), "{start}..{end}");
        }
    }
}

/// Many concurrent readers of one object get the same bytes.
pub async fn concurrent_readers_get_the_same_bytes(test: BlobTest) {
    let bytes = noise(1, 1 << 20);
    let location = test.object(1, &bytes).await;
    test.together(8, |number| {
        let (test, location, bytes) = (test.clone(), location.clone(), bytes.clone());
        async move {
            let start = number * 1000;
            let read = test.range(&location, start as u64..bytes.len() as u64).await;
            assert!(read == Some(bytes.slice(start..)), "reader {number}");
        }
    })
    .await;
}

/// An object that was never created, or was deleted, is absent. That is not an error.
pub async fn an_absent_object_reads_as_none(test: BlobTest) {
    let location = test.object(1, &noise(1, 10)).await;
    let never = Location {
        key: Attempt {
            session: SessionId(2),
            number: 1,
        }
        .to_string(),
        ..location.clone()
    };
    assert_eq!(test.range(&never, 0..10).await, None);
    test.delete(std::slice::from_ref(&location)).await;
    assert_eq!(test.range(&location, 0..10).await, None);
    assert_eq!(test.range(&location, 0..0).await, None);
}

/// A range beyond the end of an object is answered as absent, also when a part of it exists: it is not the expected
/// object.
pub async fn a_range_beyond_the_end_reads_as_none(test: BlobTest) {
    for (id, size) in (1..).zip([0, 10, 100_000]) {
        let bytes = noise(id, size);
        let location = test.object(id.into(), &bytes).await;
        let size = size as u64;
        assert_eq!(test.range(&location, 0..size).await, Some(bytes));
        for range in [0..size + 1, size..size + 1, size + 1..size + 1, 0..u64::from(u32::MAX)] {
            assert_eq!(test.range(&location, range.clone()).await, None, "{range:?} of {size}");
        }
    }
}

/// A deletion takes many objects, also some that do not exist, and leaves all others.
pub async fn deleting_is_idempotent(test: BlobTest) {
    let bytes = noise(1, 3000);
    let mut locations = Vec::new();
    for id in 0..40 {
        locations.push(test.object(id, &bytes).await);
    }
    let (gone, kept) = locations.split_at(35);
    test.delete(&[]).await;
    test.delete(&gone[..1]).await;
    test.delete(&gone[..1]).await;
    let mut twice = gone.to_vec();
    twice.push(gone[20].clone());
    test.delete(&twice).await;
    test.delete(gone).await;
    for location in gone {
        assert_eq!(test.range(location, 0..3000).await, None);
    }
    for location in kept {
        test.assert_holds(location, &bytes).await;
    }
}

/// A redirect is a decision of the store alone, the same for every object, and reads none.
pub async fn a_redirect_makes_no_store_request(test: BlobTest) {
    let location = test.object(1, &noise(1, 10)).await;
    let redirect = async |location: &Location| {
        let request = RedirectRequest {
            content_type: "application/octet-stream",
            reached_by: Reached::ByAll,
        };
        let answer = test.store.redirect(test.now(), location, request).await;
        answer.expect("redirect")
    };
    let present = redirect(&location).await;
    test.delete(std::slice::from_ref(&location)).await;
    let absent = redirect(&location).await;
    match (present, absent) {
        (None, None) => {}
        (Some(present), Some(absent)) => {
            assert!(present.url.contains("://"), "absolute: {}", present.url);
            assert!(!present.lifetime.is_zero());
            assert_eq!(present.lifetime, absent.lifetime);
        }
        _ => panic!("the answer depends on whether the object exists"),
    }
}
