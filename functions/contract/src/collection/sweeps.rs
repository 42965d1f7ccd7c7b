//! Session expiry: every object that a session may have left is scheduled for deletion, then its row is deleted.

use oci::Digest;
use registry::store::collection::{PendingDeletion, remains};
use registry::store::sessions::{Claim, End, Publishing, Session, SessionKey, State};
use registry::store::{Attempt, Location, Timestamp};

use super::{CollectionTest, GRACE};
use crate::metadata::{digest, repository};
use crate::sessions::{progress, publishing};

fn location_of(key: SessionKey, number: u32) -> Location {
    let session = key.id;
    Location::main(Attempt { session, number }.to_string())
}

fn pending_deletion(location: Location, digest: Option<Digest>, unfinished: bool, at: Timestamp) -> PendingDeletion {
    PendingDeletion {
        location,
        digest,
        unfinished,
        at,
    }
}

impl CollectionTest {
    /// A session with this number of attempts, the last of them claimed.
    async fn session(&self, id: u128, attempts: u32) -> (SessionKey, Option<Claim>) {
        let sessions = self.sessions();
        let key = sessions.key(id);
        let mut claim = None;
        for number in 1..=attempts {
            let granted = sessions.claim(key).await;
            if number == attempts {
                claim = Some(granted);
            } else {
                assert!(
                    sessions
                        .save(&granted, progress(u64::from(number)), Some(b"part"))
                        .await
                );
            }
        }
        (key, claim)
    }

    async fn commit_session(&self, claim: &Claim, publishing: &Publishing) {
        let answer = self.store.sessions.commit(self.cx(), claim, publishing).await;
        assert!(answer.expect("commit"));
    }

    /// Lets a session expire, and asserts that nothing but pending deletions is left of it.
    async fn sweep_all(&self, key: SessionKey) -> (Session, Vec<PendingDeletion>) {
        let sessions = self.sessions();
        let session = sessions.row(key).await;
        let scheduled = self.sweep(key, &session).await;
        let pending_deletions = self.pending_deletions().await;
        assert_eq!(scheduled, Some(pending_deletions.len() as u64));
        assert_eq!(sessions.get(key).await, None, "the row is gone");
        assert!(sessions.parts(key).await.is_empty(), "and its parts");
        assert_eq!(self.sweep(key, &session).await, None, "there is nothing to sweep again");
        assert_eq!(self.pending_deletions().await, pending_deletions);
        (session, pending_deletions)
    }
}

/// The expiry of an open session schedules a deletion for every attempt that was ever counted, also for attempts that
/// stored nothing.
pub async fn an_open_session_expires_with_all_its_attempts(test: CollectionTest) {
    let (key, claim) = test.session(1, 3).await;
    test.sessions().release(&claim.expect("a claim")).await;
    test.advance(GRACE);
    let now = test.now();
    let (session, pending_deletions) = test.sweep_all(key).await;
    assert_eq!(session.state, State::UNCLAIMED);
    let expected: Vec<_> = (1..=3)
        .map(|number| pending_deletion(location_of(key, number), None, true, now))
        .collect();
    assert_eq!(pending_deletions, expected);
    let mut listed: Vec<_> = remains(key, &session, now).collect();
    listed.reverse();
    assert_eq!(listed, expected, "the last attempt first");
}

/// The expiry of a cancelled session schedules the same deletions. A session that never stored anything schedules none.
pub async fn a_cancelled_session_expires_with_all_its_attempts(test: CollectionTest) {
    let sessions = test.sessions();
    let empty = sessions.key(1);
    drop(sessions.cancel(empty).await);
    let (key, _) = test.session(2, 2).await;
    drop(sessions.cancel(key).await);
    test.advance(GRACE);
    let now = test.now();
    let (_, pending_deletions) = test.sweep_all(empty).await;
    assert_eq!(pending_deletions, []);
    let (session, pending_deletions) = test.sweep_all(key).await;
    assert_eq!(session.state, State::Cancelled(None));
    let expected: Vec<_> = (1..=2)
        .map(|number| pending_deletion(location_of(key, number), None, true, now))
        .collect();
    assert_eq!(pending_deletions, expected);
}

/// A committing session may have been published: its pending deletions carry the digest, so that an object in use is
/// kept. The object of the publication is scheduled at its own location, whether it is that of an attempt or was
/// joined.
pub async fn a_committing_session_expires_with_its_digest(test: CollectionTest) {
    let metadata = test.metadata();
    let blob = digest("blob");
    for (id, suffix, expected) in [
        (1, "", vec![true, true, true]),
        (2, ".0", vec![true, true, false, false]),
    ] {
        let (key, claim) = test.session(id, 3).await;
        let claim = claim.expect("a claim");
        let sealed = Location::main(format!("{}{suffix}", claim.attempt));
        let publishing = Publishing {
            digest: blob,
            location: sealed.clone(),
            size: 1000,
        };
        test.commit_session(&claim, &publishing).await;
        if suffix.is_empty() {
            // Published, but not finished.
            metadata.commit_at(&repository("a"), &blob, &sealed).await;
        }
        test.advance(GRACE);
        let now = test.now();
        let (session, mut pending_deletions) = test.sweep_all(key).await;
        assert_eq!(session.state, State::Committing(publishing));
        let mut locations: Vec<_> = (1..=3).map(|number| location_of(key, number)).collect();
        if !suffix.is_empty() {
            locations.push(sealed.clone());
        }
        let expected: Vec<_> = locations
            .into_iter()
            .zip(expected)
            .map(|(location, unfinished)| pending_deletion(location, Some(blob), unfinished, now))
            .collect();
        assert_eq!(pending_deletions, expected);
        pending_deletions.retain(|pending_deletion| pending_deletion.location == sealed);
        assert_eq!(pending_deletions.len(), 1);
        assert_eq!(test.is_recorded_location(&blob, &sealed).await, suffix.is_empty());
        test.remove_pending_deletions(&test.pending_deletions().await).await;
    }
}

/// A refused large manifest leaves a cancelled session that names a digest: another repository may use its object by
/// now.
pub async fn a_refused_publication_expires_with_its_digest(test: CollectionTest) {
    let (key, claim) = test.session(1, 1).await;
    let claim = claim.expect("a claim");
    let digest = digest("large");
    let publishing = publishing(&claim, &digest);
    test.commit_session(&claim, &publishing).await;
    test.sessions().finish(&claim, End::Cancelled).await;
    test.advance(GRACE);
    let now = test.now();
    let (session, pending_deletions) = test.sweep_all(key).await;
    assert_eq!(session.state, State::Cancelled(Some(publishing)));
    assert_eq!(
        pending_deletions,
        [pending_deletion(location_of(key, 1), Some(digest), true, now)]
    );
}

/// The expiry of a done session deletes its row and schedules nothing.
pub async fn a_done_session_expires_without_pending_deletions(test: CollectionTest) {
    let (key, claim) = test.session(1, 3).await;
    let claim = claim.expect("a claim");
    let publishing = publishing(&claim, &digest("blob"));
    test.commit_session(&claim, &publishing).await;
    test.sessions().finish(&claim, End::Done).await;
    test.advance(GRACE);
    let (session, pending_deletions) = test.sweep_all(key).await;
    assert_eq!(session.state, State::Done(publishing));
    assert_eq!(pending_deletions, []);
}

/// A session expires only if it is as the caller has read it: a claim, a commit or a cancel in between keeps it.
pub async fn a_changed_session_does_not_expire(test: CollectionTest) {
    let sessions = test.sessions();
    for change in 0..4 {
        let (key, claim) = test.session(change, 2).await;
        let claim = claim.expect("a claim");
        let before = sessions.row(key).await;
        match change {
            0 => {
                sessions.release(&claim).await;
                sessions.claim(key).await;
            }
            1 => assert!(sessions.commit(&claim, &digest("blob")).await),
            2 => assert!(sessions.save(&claim, progress(9), Some(b"part")).await),
            _ => drop(sessions.cancel(key).await),
        }
        let row = sessions.row(key).await;
        let parts = sessions.parts(key).await;
        assert_eq!(test.sweep(key, &before).await, None);
        assert_eq!(sessions.row(key).await, row);
        assert_eq!(sessions.parts(key).await, parts);
        assert_eq!(test.pending_deletions().await, []);
    }
}

/// A session with many part records and attempts expires completely, and no other session with it.
pub async fn a_session_with_many_parts_expires_completely(test: CollectionTest) {
    let sessions = test.sessions();
    let (other, _) = test.session(2, 3).await;
    let kept = sessions.row(other).await;
    let (key, _) = test.session(1, 130).await;
    let session = sessions.row(key).await;
    test.advance(GRACE);
    assert_eq!(test.sweep(key, &session).await, Some(130));
    assert_eq!(sessions.get(key).await, None);
    assert!(sessions.parts(key).await.is_empty());
    let pending_deletions = test.pending_deletions().await;
    assert_eq!(pending_deletions.len(), 130);
    assert!(
        pending_deletions
            .iter()
            .all(|pending_deletion| pending_deletion.location.key.starts_with(&format!("{}.", key.id)))
    );
    assert_eq!(sessions.row(other).await, kept);
    assert_eq!(sessions.parts(other).await.len(), 2);
}

/// The owner of a claim on an expired session has lost it, and cannot bring the session back.
pub async fn an_expired_session_rejects_its_claim(test: CollectionTest) {
    let sessions = test.sessions();
    let (key, claim) = test.session(1, 2).await;
    let claim = claim.expect("a claim");
    test.advance(GRACE);
    let session = sessions.row(key).await;
    assert_eq!(test.sweep(key, &session).await, Some(2));
    sessions.assert_lost(&claim).await;
    assert!(
        test.store
            .sessions
            .finish_committing(test.cx(), key, End::Done)
            .await
            .is_ok()
    );
    assert_eq!(sessions.get(key).await, None);
    assert!(sessions.parts(key).await.is_empty());
}
