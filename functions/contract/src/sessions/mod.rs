//! What a [`SessionStore`] must do. This module has claims and what is saved under them; [`endings`] has commits,
//! cancels, expiry, and the signing keys.

pub mod endings;

pub use endings::*;
use oci::{Algorithm, Digest};
use registry::store::sessions::{
    Cancelled, Claim, Claimed, End, Expected, Progress, Publishing, Session, SessionKey, SessionStore, State,
};
use registry::store::{Location, SessionId, Timestamp};

use super::ContractTest;

/// The test of a clause about sessions.
pub type SessionTest = ContractTest<dyn SessionStore>;

/// A minute, in milliseconds: the duration of a claim here.
pub(crate) const CLAIM: u64 = 60_000;

impl SessionTest {
    pub(crate) fn key(&self, id: u128) -> SessionKey {
        SessionKey {
            expires: self.now().plus_millis(24 * 60 * 60 * 1000),
            id: SessionId(id),
        }
    }

    pub(crate) async fn get(&self, key: SessionKey) -> Option<Session> {
        self.store.get(self.cx(), key).await.expect("get")
    }

    pub(crate) async fn row(&self, key: SessionKey) -> Session {
        self.get(key).await.expect("there is a row")
    }

    pub(crate) async fn try_claim(&self, key: SessionKey) -> Claimed {
        let cx = self.cx();
        let until = cx.now.plus_millis(CLAIM);
        // Right and wrong in turn: the expectation changes no answer.
        let expected = if cx.uid.0.is_multiple_of(2) {
            Expected::New
        } else {
            Expected::Existing
        };
        let claimed = self.store.claim(cx, key, expected, until, u32::MAX).await;
        claimed.expect("claim")
    }

    pub(crate) async fn claim(&self, key: SessionKey) -> Claim {
        match self.try_claim(key).await {
            Claimed::Granted(claim) => claim,
            other => panic!("the claim was not granted: {other:?}"),
        }
    }

    pub(crate) async fn save(&self, claim: &Claim, progress: Progress, part: Option<&[u8]>) -> bool {
        let part = part.map(<[u8]>::to_vec);
        self.store.save(self.cx(), claim, progress, part).await.expect("save")
    }

    pub(crate) async fn renew(&self, claim: &Claim) -> bool {
        let cx = self.cx();
        let until = cx.now.plus_millis(CLAIM);
        self.store.renew(cx, claim, until).await.expect("renew")
    }

    pub(crate) async fn release(&self, claim: &Claim) {
        self.store.release(self.cx(), claim).await.expect("release");
    }

    pub(crate) async fn commit(&self, claim: &Claim, digest: &Digest) -> bool {
        self.store
            .commit(self.cx(), claim, &publishing(claim, digest))
            .await
            .expect("commit")
    }

    pub(crate) async fn finish(&self, claim: &Claim, end: End) {
        self.store.finish(self.cx(), claim, end).await.expect("finish");
    }

    pub(crate) async fn cancel(&self, key: SessionKey) -> Cancelled {
        self.store.cancel(self.cx(), key).await.expect("cancel")
    }

    pub(crate) async fn parts(&self, key: SessionKey) -> Vec<Vec<u8>> {
        self.store.parts(self.cx(), key).await.expect("parts")
    }

    pub(crate) async fn expired(
        &self,
        before: Timestamp,
        after: Option<SessionKey>,
        limit: usize,
    ) -> Vec<(SessionKey, Session)> {
        self.store
            .expired(self.cx(), before, after, limit)
            .await
            .expect("expired")
    }

    /// Asserts that a lost claim allows nothing, and that trying changes nothing.
    pub(crate) async fn assert_lost(&self, claim: &Claim) {
        let before = self.get(claim.key).await;
        let parts = self.parts(claim.key).await;
        assert!(!self.renew(claim).await, "a lost claim was renewed");
        assert!(
            !self.save(claim, progress(99), Some(b"lost")).await,
            "a lost claim saved"
        );
        assert!(!self.commit(claim, &digest("lost")).await, "a lost claim committed");
        self.release(claim).await;
        self.finish(claim, End::Done).await;
        self.finish(claim, End::Cancelled).await;
        assert_eq!(self.get(claim.key).await, before, "a lost claim changed the row");
        assert_eq!(self.parts(claim.key).await, parts, "a lost claim changed the parts");
    }
}

pub(crate) fn digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_bytes())
}

/// The publication of the object of this attempt.
pub(crate) fn publishing(claim: &Claim, digest: &Digest) -> Publishing {
    Publishing {
        digest: *digest,
        location: Location::main(claim.attempt.to_string()),
        size: u64::from(u32::MAX) + 7,
    }
}

/// Progress after `offset` bytes. Its hash state and store state have every byte value.
pub(crate) fn progress(offset: u64) -> Progress {
    Progress {
        offset,
        hash: (0..=255).chain(offset.to_be_bytes()).collect(),
        store: offset.to_le_bytes().into_iter().chain(0..=255).collect(),
        parts: 0,
    }
}

/// A session in which nothing was stored has no row and no parts, and a read creates none.
pub async fn a_new_session_has_no_row(test: SessionTest) {
    let key = test.key(1);
    assert_eq!(test.get(key).await, None);
    assert_eq!(test.parts(key).await, Vec::<Vec<u8>>::new());
    assert_eq!(test.get(key).await, None);
}

/// The first claim creates the row, which records the attempt before anything is stored.
pub async fn a_claim_creates_the_row(test: SessionTest) {
    let key = test.key(u128::MAX - 1);
    let claim = test.claim(key).await;
    assert_eq!(claim.key, key);
    assert_eq!(claim.attempt.session, key.id);
    assert_eq!(claim.attempt.number, 1);
    assert_eq!(claim.progress, Progress::default());

    let row = test.row(key).await;
    assert_eq!(row.attempts, 1);
    let claimed_until = Some(test.now().plus_millis(CLAIM));
    assert_eq!(row.state, State::Open { claimed_until });
    assert_eq!(row.progress, Progress::default());
    assert_eq!(row.version, claim.version);
}

/// Sessions with different keys are different sessions: every part of the key counts.
pub async fn sessions_differ_by_their_whole_key(test: SessionTest) {
    let one = test.key(1);
    let two = test.key(2);
    // All 128 bits matter.
    let high = test.key(1 << 127 | 1);
    let later = SessionKey {
        expires: one.expires.plus_millis(1),
        ..one
    };
    let claim = test.claim(one).await;
    assert!(test.save(&claim, progress(5), Some(b"part")).await);
    for other in [two, high, later] {
        assert_eq!(test.get(other).await, None, "{other:?}");
        assert!(test.parts(other).await.is_empty(), "{other:?}");
        assert_eq!(test.claim(other).await.progress, Progress::default());
    }
    assert_eq!(test.row(one).await.progress.offset, 5);
}

/// While a claim is live, another claim is refused, and the answer has the state of the session.
pub async fn a_live_claim_refuses_other_claims(test: SessionTest) {
    let key = test.key(1);
    let first = test.claim(key).await;
    assert!(test.save(&first, progress(7), None).await);
    let second = test.claim(key).await;
    let row = test.row(key).await;
    match test.try_claim(key).await {
        Claimed::Busy(session) => {
            assert_eq!(session, row);
            assert_eq!(session.progress.offset, 7);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(test.row(key).await, row, "a refused claim changes nothing");
    assert!(test.save(&second, progress(8), None).await);
}

/// A claim that is not renewed expires exactly at its end.
pub async fn a_claim_expires_at_its_end(test: SessionTest) {
    let key = test.key(1);
    let first = test.claim(key).await;
    test.advance(CLAIM - 1);
    assert!(matches!(test.try_claim(key).await, Claimed::Busy(_)));
    test.advance(1);
    let second = test.claim(key).await;
    assert_eq!(second.attempt.number, 2);
    assert_eq!(second.progress, Progress::default());
    test.assert_lost(&first).await;
    assert!(test.save(&second, progress(3), None).await);
}

/// An expired claim stays valid until another one is granted: it can be renewed, saved, released, committed and
/// finished.
pub async fn an_expired_claim_is_valid_until_another_is_granted(test: SessionTest) {
    let key = test.key(1);
    let claim = test.claim(key).await;
    test.advance(CLAIM);
    assert!(test.renew(&claim).await);
    assert!(matches!(test.try_claim(key).await, Claimed::Busy(_)), "renewed");
    test.advance(CLAIM);
    assert!(test.save(&claim, progress(3), Some(b"part")).await);
    assert_eq!(test.row(key).await.progress.offset, 3);

    let claim = test.claim(key).await;
    test.advance(CLAIM);
    test.release(&claim).await;
    test.assert_lost(&claim).await;

    let claim = test.claim(key).await;
    test.advance(CLAIM);
    let late = digest("late");
    assert!(test.commit(&claim, &late).await);
    test.finish(&claim, End::Done).await;
    assert_eq!(test.row(key).await.state, State::Done(publishing(&claim, &late)));

    let other = test.key(2);
    let claim = test.claim(other).await;
    test.advance(CLAIM);
    test.finish(&claim, End::Cancelled).await;
    assert_eq!(test.row(other).await.state, State::Cancelled(None));
}

/// A renewed claim is live until its new end. Its version does not change.
pub async fn a_renewed_claim_is_live_until_its_new_end(test: SessionTest) {
    let key = test.key(1);
    let claim = test.claim(key).await;
    for _ in 0..3 {
        test.advance(CLAIM - 1);
        assert!(test.renew(&claim).await);
    }
    let row = test.row(key).await;
    assert_eq!(row.claimed_until(), Some(test.now().plus_millis(CLAIM)));
    assert_eq!(row.version, claim.version);
    assert_eq!(row.attempts, 1);
    test.advance(CLAIM - 1);
    assert!(matches!(test.try_claim(key).await, Claimed::Busy(_)));
    assert!(test.save(&claim, progress(1), None).await);
}

/// A save replaces the progress, ends the claim, and adds a numbered part record.
pub async fn a_save_records_progress_and_part(test: SessionTest) {
    let key = test.key(1);
    let every_byte: Vec<u8> = (0..=255).collect();
    let bodies: [(u64, Option<&[u8]>, u32); 5] = [
        (10, Some(b"first"), 1),
        (10, None, 1),
        (25, Some(&every_byte), 2),
        (26, Some(b""), 3),
        (u64::from(u32::MAX) + 1, Some(b"first"), 4),
    ];
    for (offset, part, parts) in bodies {
        let claim = test.claim(key).await;
        let claimed = test.row(key).await;
        let ignored = Progress {
            parts: 77,
            ..progress(offset)
        };
        assert!(test.save(&claim, ignored, part).await);
        let row = test.row(key).await;
        let expected = Progress {
            parts,
            ..progress(offset)
        };
        assert_eq!(row.progress, expected);
        assert_eq!(row.state, State::UNCLAIMED);
        assert!(row.version > claimed.version, "a save is a change");
        test.assert_lost(&claim).await;
        let next = test.claim(key).await;
        assert_eq!(next.progress, expected, "the next claim answers the progress");
        test.release(&next).await;
    }
    let parts: [&[u8]; 4] = [b"first", &every_byte, b"", b"first"];
    assert_eq!(test.parts(key).await, parts);
}

/// Many part records are read in the order in which they were saved, also past every power of ten.
pub async fn parts_are_read_in_the_order_of_their_saves(test: SessionTest) {
    let key = test.key(1);
    let mut expected = Vec::new();
    for number in 0..120_u32 {
        let part = number.to_be_bytes();
        let claim = test.claim(key).await;
        assert!(test.save(&claim, progress(u64::from(number)), Some(&part)).await);
        expected.push(part.to_vec());
    }
    assert_eq!(test.parts(key).await, expected);
    assert_eq!(test.row(key).await.progress.parts, 120);
}

/// A released claim leaves the session as it was, except for the number of attempts.
pub async fn a_release_undoes_the_claim(test: SessionTest) {
    let key = test.key(1);
    let claim = test.claim(key).await;
    assert!(test.save(&claim, progress(4), Some(b"p")).await);
    let before = test.row(key).await;

    let claim = test.claim(key).await;
    test.release(&claim).await;
    let after = test.row(key).await;
    assert_eq!(after.state, State::UNCLAIMED);
    assert_eq!((after.state, after.progress), (before.state, before.progress));
    assert_eq!(after.attempts, before.attempts + 1);
    test.assert_lost(&claim).await;
    test.release(&claim).await;
    assert_eq!(
        test.claim(key).await.attempt.number,
        3,
        "at once, without waiting for the end of the claim"
    );
}

/// Every claim gets an attempt number of its own, whatever happened to earlier claims. The row records how many there
/// were.
pub async fn attempt_numbers_never_repeat(test: SessionTest) {
    let key = test.key(1);
    let mut numbers = Vec::new();
    let mut version = 0;
    for round in 0..12 {
        let claim = test.claim(key).await;
        numbers.push(claim.attempt.number);
        assert_eq!(test.row(key).await.attempts, claim.attempt.number);
        assert!(claim.version > version, "a claim is a change");
        version = claim.version;
        match round % 3 {
            0 => assert!(test.save(&claim, progress(round), None).await),
            1 => test.release(&claim).await,
            _ => test.advance(CLAIM),
        }
    }
    assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
}

/// Of several claims of one session at the same time, exactly one is granted.
pub async fn one_of_racing_claims_is_granted(test: SessionTest) {
    for round in 0..8 {
        let key = test.key(round);
        // In half of the rounds the row does not exist yet.
        if round % 2 == 1 {
            let claim = test.claim(key).await;
            test.release(&claim).await;
        }
        let answers = test
            .together(16, |_| {
                let test = test.clone();
                async move { test.try_claim(key).await }
            })
            .await;
        let granted: Vec<_> = answers
            .iter()
            .filter_map(|answer| match answer {
                Claimed::Granted(claim) => Some(claim.clone()),
                Claimed::Busy(_) => None,
                Claimed::AttemptsExhausted(session) | Claimed::Ended(session) => panic!("{session:?}"),
            })
            .collect();
        assert_eq!(granted.len(), 1, "{answers:?}");
        assert_eq!(test.row(key).await.attempts, granted[0].attempt.number);
        assert!(test.save(&granted[0], progress(1), None).await);
    }
}

/// A claim that follows an expired one races its save: one of them succeeds, and the row says which.
pub async fn a_takeover_races_the_save(test: SessionTest) {
    for round in 0..20_u64 {
        let key = test.key(u128::from(round));
        let first = test.claim(key).await;
        let second_claim = {
            let test = test.clone();
            // By the clock of the other instance the claim has expired.
            let mut cx = test.cx();
            cx.now = cx.now.plus_millis(CLAIM);
            cx.deadline = cx.deadline.plus_millis(CLAIM);
            let until = cx.now.plus_millis(CLAIM);
            async move {
                let claimed = test.store.claim(cx, key, Expected::Existing, until, u32::MAX).await;
                claimed.expect("claim")
            }
        };
        let save = {
            let test = test.clone();
            let first = first.clone();
            async move { test.save(&first, progress(5), Some(b"first")).await }
        };
        let (saved, claimed) = test.race(round % 2 == 0, save, second_claim).await;
        let Claimed::Granted(second) = claimed else {
            panic!("{claimed:?}");
        };
        let (offset, parts) = if saved { (5, 1) } else { (0, 0) };
        assert_eq!(second.progress.offset, offset);
        assert_eq!(second.progress.parts, parts);
        assert_eq!(test.parts(key).await.len(), parts as usize);
        assert!(test.save(&second, progress(6), Some(b"second")).await);
        assert_eq!(test.row(key).await.progress.parts, parts + 1);
    }
}

/// A session with the maximum number of attempts refuses a further claim, and its row does not change.
pub async fn a_session_has_a_maximum_of_attempts(test: SessionTest) {
    let key = test.key(1);
    let claim = async |most: u32| {
        let cx = test.cx();
        let until = cx.now.plus_millis(CLAIM);
        let claimed = test.store.claim(cx, key, Expected::Existing, until, most).await;
        claimed.expect("claim")
    };
    for number in 1..=3 {
        let Claimed::Granted(granted) = claim(3).await else {
            panic!("attempt {number} of 3");
        };
        assert_eq!(granted.attempt.number, number);
        assert!(matches!(claim(1).await, Claimed::Busy(_)), "another pass is running");
        test.release(&granted).await;
    }
    let before = test.row(key).await;
    for most in [1, 2, 3] {
        let Claimed::AttemptsExhausted(session) = claim(most).await else {
            panic!("attempt 4 of {most}");
        };
        assert_eq!(session, before);
    }
    assert_eq!(test.row(key).await, before);
    let Claimed::Granted(granted) = claim(4).await else {
        panic!("attempt 4 of 4");
    };
    assert_eq!(granted.attempt.number, 4);
}

/// A claim is granted or refused by the row alone, whether the caller expects a new or an existing session.
pub async fn the_expectation_of_a_session_changes_no_answer(test: SessionTest) {
    for (number, expected) in [Expected::New, Expected::Existing].into_iter().enumerate() {
        let claim = async |key| {
            let cx = test.cx();
            let until = cx.now.plus_millis(CLAIM);
            let claimed = test.store.claim(cx, key, expected, until, 2).await;
            claimed.expect("claim")
        };
        let key = test.key(number as u128);
        let Claimed::Granted(first) = claim(key).await else {
            panic!("{expected:?}: a new session");
        };
        assert_eq!((first.attempt.number, &first.progress), (1, &Progress::default()));
        assert!(
            matches!(claim(key).await, Claimed::Busy(_)),
            "{expected:?}: a live claim"
        );
        assert!(test.save(&first, progress(5), Some(b"one")).await);
        let Claimed::Granted(second) = claim(key).await else {
            panic!("{expected:?}: a session that goes on");
        };
        assert_eq!((second.attempt.number, second.progress.offset), (2, 5), "{expected:?}");
        test.release(&second).await;
        assert!(
            matches!(claim(key).await, Claimed::AttemptsExhausted(_)),
            "{expected:?}: two of two"
        );
        test.cancel(key).await;
        assert!(matches!(claim(key).await, Claimed::Ended(_)), "{expected:?}: ended");
    }
}
