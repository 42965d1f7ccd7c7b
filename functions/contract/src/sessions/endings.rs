//! The ends of sessions, the list of expired sessions, and the keys that sign upload tokens.

use std::collections::BTreeSet;

use oci::{Algorithm, Digest};
use registry::store::sessions::{
    Cancelled, Claimed, End, Progress, Publishing, Session, SessionKey, SigningKey, State,
};
use registry::store::{Location, SessionId, Timestamp, Uid};

use super::{CLAIM, SessionTest, digest, progress, publishing};

/// A committing session answers its digest. It cannot be claimed or cancelled, also after the end of its claim.
pub async fn a_committing_session_cannot_be_claimed_or_cancelled(test: SessionTest) {
    let key = test.key(1);
    let claim = test.claim(key).await;
    assert!(test.save(&claim, progress(4), Some(b"p")).await);
    let claim = test.claim(key).await;
    let digest = digest("content");
    assert!(test.commit(&claim, &digest).await);

    let row = test.row(key).await;
    assert_eq!(row.state, State::Committing(publishing(&claim, &digest)));
    assert_eq!(row.progress.offset, 4, "a commit keeps nothing else");
    assert_eq!(test.parts(key).await, [b"p"]);
    for _ in 0..2 {
        match test.try_claim(key).await {
            Claimed::Ended(session) => assert_eq!(session, row),
            other => panic!("{other:?}"),
        }
        assert!(matches!(test.cancel(key).await, Cancelled::Ended));
        assert_eq!(test.row(key).await, row);
        test.advance(CLAIM * 2);
    }
    test.finish(&claim, End::Done).await;
    assert_eq!(test.row(key).await.state, State::Done(publishing(&claim, &digest)));
}

/// A done session keeps its digest, so that a repeated final PUT can be answered. It accepts nothing else.
pub async fn a_done_session_keeps_its_digest(test: SessionTest) {
    let key = test.key(1);
    let claim = test.claim(key).await;
    let digest = Digest::of(Algorithm::Sha512, b"content");
    assert!(test.commit(&claim, &digest).await);
    test.finish(&claim, End::Done).await;
    let row = test.row(key).await;
    assert_eq!(row.state, State::Done(publishing(&claim, &digest)));
    assert_eq!(row.attempts, 1);
    match test.try_claim(key).await {
        Claimed::Ended(session) => assert_eq!(session, row),
        other => panic!("{other:?}"),
    }
    assert!(matches!(test.cancel(key).await, Cancelled::Ended));
    test.finish(&claim, End::Done).await;
    assert_eq!(test.row(key).await, row, "finishing again changes nothing");
    test.assert_lost(&claim).await;
    test.advance(23 * 60 * 60 * 1000);
    assert_eq!(test.get(key).await, Some(row), "the row stays while the token lives");
}

/// The owner of the claim can cancel a session, for example when the bytes do not have the digest.
pub async fn a_claimed_session_can_be_finished_as_cancelled(test: SessionTest) {
    let key = test.key(1);
    let claim = test.claim(key).await;
    test.finish(&claim, End::Cancelled).await;
    let row = test.row(key).await;
    assert_eq!(row.state, State::Cancelled(None));
    assert!(matches!(test.try_claim(key).await, Claimed::Ended(_)));
    test.finish(&claim, End::Cancelled).await;
    assert_eq!(test.row(key).await, row);
    test.assert_lost(&claim).await;
}

/// A committing session can be cancelled when its content cannot be published.
pub async fn a_committing_session_can_be_finished_as_cancelled(test: SessionTest) {
    let key = test.key(1);
    let claim = test.claim(key).await;
    let digest = digest("content");
    assert!(test.commit(&claim, &digest).await);
    test.advance(CLAIM * 2);
    test.finish(&claim, End::Cancelled).await;
    assert_eq!(
        test.row(key).await.state,
        State::Cancelled(Some(publishing(&claim, &digest)))
    );
    assert!(matches!(test.try_claim(key).await, Claimed::Ended(_)));
}

/// A caller that has only the key of a committing session can finish it after its publication. Every other state stays
/// as it is.
pub async fn a_committing_session_can_be_finished_by_its_key(test: SessionTest) {
    let finish_committing = async |key| {
        let settled = test.store.finish_committing(test.cx(), key, End::Done).await;
        settled.expect("finish_committing");
    };
    let key = test.key(1);
    finish_committing(key).await;
    assert_eq!(test.get(key).await, None, "finishing creates no row");
    let claim = test.claim(key).await;
    let open = test.row(key).await;
    finish_committing(key).await;
    assert_eq!(test.row(key).await, open);
    let digest = digest("content");
    assert!(test.commit(&claim, &digest).await);
    finish_committing(key).await;
    let row = test.row(key).await;
    assert_eq!(row.state, State::Done(publishing(&claim, &digest)));
    finish_committing(key).await;
    test.finish(&claim, End::Done).await;
    test.finish(&claim, End::Cancelled).await;
    assert_eq!(test.row(key).await, row, "it has ended");

    let other = test.key(2);
    assert!(matches!(test.cancel(other).await, Cancelled::Now(None)));
    let cancelled = test.row(other).await;
    finish_committing(other).await;
    assert_eq!(test.row(other).await, cancelled);
}

/// A published session that is not done keeps its state, whatever is called later. It keeps what collection needs.
pub async fn a_published_session_keeps_its_state(test: SessionTest) {
    let digest = digest("content");
    for (id, by_key) in [(1, false), (2, true)] {
        let key = test.key(id);
        let claim = test.claim(key).await;
        assert!(test.commit(&claim, &digest).await);
        if by_key {
            let settled = test.store.finish_committing(test.cx(), key, End::Published).await;
            settled.expect("finish_committing");
        } else {
            test.finish(&claim, End::Published).await;
        }
        let row = test.row(key).await;
        assert_eq!(row.state, State::Published(publishing(&claim, &digest)));
        assert_eq!(row.attempts, 1);
        for end in [End::Published, End::Done, End::Cancelled] {
            test.finish(&claim, end).await;
            test.store
                .finish_committing(test.cx(), key, end)
                .await
                .expect("finish_committing");
        }
        assert!(matches!(test.cancel(key).await, Cancelled::Ended));
        assert!(matches!(test.try_claim(key).await, Claimed::Ended(_)));
        test.assert_lost(&claim).await;
        assert_eq!(test.row(key).await, row);
    }
}

/// A commit records everything that its publication needs: the client that repeats the request has nothing else.
pub async fn a_commit_records_everything_its_publication_needs(test: SessionTest) {
    let sizes = [0, 1, u64::from(u32::MAX) + 1, i64::MAX.cast_unsigned()];
    for (id, size) in (0..).zip(sizes) {
        let key = test.key(id);
        let claim = test.claim(key).await;
        let publishing = Publishing {
            digest: Digest::of(Algorithm::Sha512, &id.to_be_bytes()),
            location: Location {
                store: "elsewhere".to_owned(),
                key: format!("{}.0", claim.attempt),
            },
            size,
        };
        let committed = test.store.commit(test.cx(), &claim, &publishing).await;
        assert!(committed.expect("commit"));
        assert_eq!(test.row(key).await.state, State::Committing(publishing.clone()));
        test.finish(&claim, End::Done).await;
        assert_eq!(test.row(key).await.state, State::Done(publishing));
    }
}

/// A finish with a lost claim does not end the session of the claim that followed.
pub async fn a_lost_claim_cannot_finish(test: SessionTest) {
    let key = test.key(1);
    let first = test.claim(key).await;
    test.advance(CLAIM);
    let second = test.claim(key).await;
    test.finish(&first, End::Cancelled).await;
    assert!(test.row(key).await.is_open());
    let digest = digest("content");
    assert!(test.commit(&second, &digest).await);
    test.finish(&first, End::Cancelled).await;
    let publishing = publishing(&second, &digest);
    assert_eq!(
        test.row(key).await.state,
        State::Committing(publishing.clone()),
        "the second claim's commit stands"
    );
    test.finish(&second, End::Done).await;
    assert_eq!(test.row(key).await.state, State::Done(publishing));
}

/// A cancel of a session without a row creates one, so that the token stays cancelled.
pub async fn a_cancel_creates_a_missing_row(test: SessionTest) {
    let key = test.key(1);
    assert!(matches!(test.cancel(key).await, Cancelled::Now(None)));
    let row = test.row(key).await;
    assert_eq!((&row.state, row.attempts), (&State::Cancelled(None), 0));
    assert_eq!(row.progress, Progress::default());
    match test.try_claim(key).await {
        Claimed::Ended(session) => assert_eq!(session, row),
        other => panic!("{other:?}"),
    }
    assert!(matches!(test.cancel(key).await, Cancelled::Ended));
    assert_eq!(test.row(key).await, row);
}

/// A cancel answers the row as it was: it names everything that must be deleted.
pub async fn a_cancel_answers_the_row_as_it_was(test: SessionTest) {
    let key = test.key(1);
    let claim = test.claim(key).await;
    assert!(test.save(&claim, progress(9), Some(b"p")).await);
    let before = test.row(key).await;
    match test.cancel(key).await {
        Cancelled::Now(Some(session)) => assert_eq!(session, before),
        other => panic!("{other:?}"),
    }
    let row = test.row(key).await;
    assert_eq!((row.state, row.attempts), (State::Cancelled(None), 1));
    assert!(row.version > before.version, "a cancel is a change");
    assert!(matches!(test.cancel(key).await, Cancelled::Ended));
}

/// A live claim does not prevent a cancel by the client: the session is cancelled, and the claim is lost.
pub async fn a_cancel_revokes_a_live_claim(test: SessionTest) {
    let key = test.key(1);
    let claim = test.claim(key).await;
    match test.cancel(key).await {
        Cancelled::Now(Some(session)) => assert_eq!(session.attempts, 1),
        other => panic!("{other:?}"),
    }
    test.assert_lost(&claim).await;
    assert_eq!(test.row(key).await.state, State::Cancelled(None));
}

/// A cancel and a commit at the same time: exactly one of them succeeds.
pub async fn a_cancel_races_the_commit(test: SessionTest) {
    for round in 0..24_u64 {
        let key = test.key(u128::from(round));
        let claim = test.claim(key).await;
        let commit = {
            let (test, claim) = (test.clone(), claim.clone());
            async move { test.commit(&claim, &digest("content")).await }
        };
        let cancel = {
            let test = test.clone();
            async move { test.cancel(key).await }
        };
        let (committed, cancelled) = test.race(round % 2 == 0, commit, cancel).await;
        let row = test.row(key).await;
        match cancelled {
            Cancelled::Now(Some(_)) => {
                assert!(!committed);
                assert_eq!(row.state, State::Cancelled(None));
            }
            Cancelled::Ended => {
                assert!(committed);
                assert_eq!(row.state, State::Committing(publishing(&claim, &digest("content"))));
            }
            Cancelled::Now(None) => panic!("there was a row"),
        }
    }
}

/// Expired sessions are listed once each, whatever their state, in pages and in a stable order. The bound is exclusive.
pub async fn expired_sessions_are_listed_in_pages(test: SessionTest) {
    let start = test.now();
    let key = |after: u64, id: u128| SessionKey {
        expires: start.plus_millis(after),
        id: SessionId(id),
    };
    let keys = [
        key(1, 1 << 127),
        key(1, u128::MAX),
        key(2, 0),
        key(2, 1),
        key(2, 10),
        key(10, 9),
        key(100, 2),
    ];
    // In another order than the keys have.
    for number in [5, 2, 6, 0, 4, 1, 3] {
        let claim = test.claim(keys[number]).await;
        match number {
            1 => test.finish(&claim, End::Cancelled).await,
            2 => assert!(test.save(&claim, progress(2), Some(b"p")).await),
            3 => {
                assert!(test.commit(&claim, &digest("content")).await);
                test.finish(&claim, End::Done).await;
            }
            _ => {}
        }
    }
    assert!(matches!(test.cancel(key(3, 3)).await, Cancelled::Now(None)));
    let mut all = keys.to_vec();
    all.insert(5, key(3, 3));

    let names = |rows: &[(SessionKey, Session)]| rows.iter().map(|(key, _)| *key).collect::<Vec<_>>();
    let sorted = |mut keys: Vec<SessionKey>| {
        keys.sort_unstable();
        keys
    };
    let rows = test.expired(start.plus_millis(101), None, 100).await;
    let order = names(&rows);
    assert_eq!(sorted(order.clone()), all);
    for (key, session) in &rows {
        assert_eq!(test.row(*key).await, *session, "the rows are those that get answers");
    }
    let before = test.expired(start.plus_millis(100), None, 100).await;
    assert_eq!(sorted(names(&before)), all[..7], "ended before, not at");
    assert!(test.expired(start.plus_millis(1), None, 100).await.is_empty());

    for limit in 1..=9 {
        let mut found = Vec::new();
        loop {
            let page = test.expired(start.plus_millis(101), found.last().copied(), limit).await;
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            found.extend(names(&page));
        }
        assert_eq!(found, order, "in pages of {limit}");
    }
}

fn signing_key(id: u32, created: Timestamp) -> SigningKey {
    let mut secret = [0; 32];
    for (place, byte) in secret.iter_mut().zip((id.to_le_bytes()[0]..=255).cycle()) {
        *place = byte;
    }
    SigningKey { id, secret, created }
}

/// The first signing key is stored and stays.
pub async fn the_first_signing_key_stays(test: SessionTest) {
    let first = signing_key(u32::MAX, test.now());
    let keys = test.store.signing_keys(test.cx(), first.clone()).await;
    assert!(keys.expect("signing_keys") == [first.clone()]);
    test.advance(1000);
    let second = signing_key(2, test.now());
    let keys = test.store.signing_keys(test.cx(), second).await;
    assert!(keys.expect("signing_keys") == [first]);
}

/// Several first calls at the same time all answer the same key, with the same secret.
pub async fn racing_first_signing_keys_agree(test: SessionTest) {
    let answers = test
        .together(16, |number| {
            let test = test.clone();
            async move {
                let id = u32::try_from(number).expect("a small number");
                let candidate = signing_key(id + 1, test.now());
                test.store
                    .signing_keys(test.cx(), candidate)
                    .await
                    .expect("signing_keys")
            }
        })
        .await;
    let ids: BTreeSet<u32> = answers.iter().flatten().map(|key| key.id).collect();
    assert_eq!(ids.len(), 1);
    for keys in &answers {
        assert!(*keys == [signing_key(keys[0].id, test.now())]);
    }
}

/// The uid in the context makes no difference to a session: only its own version does.
pub async fn calls_may_come_from_any_instance(test: SessionTest) {
    let key = test.key(1);
    let claim = test.claim(key).await;
    let mut cx = test.cx();
    cx.uid = Uid(u64::MAX);
    let saved = test.store.save(cx, &claim, progress(3), None).await;
    assert!(saved.expect("save"));
    assert_eq!(test.row(key).await.progress.offset, 3);
}
