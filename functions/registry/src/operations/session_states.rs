//! The states of an upload session, as the operations change them.
//!
//! A request *claims* a session before it stores its body. A stored chunk is *saved*. A verified final PUT is
//! *committed*. *Release* ends a claim under which nothing was stored. *Fail* ends the claim of a refused or
//! interrupted body; the offset stays. *Cancel* ends the session: by DELETE, or because the bytes do not have the
//! expected digest. *Discard* deletes what an ended session has left in the blob store.
//!
//! The table of states and events is in the contract of [`SessionStore`](crate::store::sessions::SessionStore).
//! Sessions expire in [`collection`](crate::collection).

use http::{Response, StatusCode};
use oci::Digest;

use super::session::OpenSession;
use crate::body::ResponseBody;
use crate::call::Call;
use crate::environment::random_u64;
use crate::error::Error;
use crate::response;
use crate::store::blobs::Discarded;
use crate::store::sessions::{Cancelled, Claim, Claimed, End, Expected, Progress, Publishing, SessionKey, State};
use crate::store::{Location, SessionId, StoreError};

/// A body that was not stored.
pub(super) struct BodyFailure {
    /// The error for the client, unless the claim was lost: see [`Call::fail`].
    pub(super) error: Error,
    /// The blob store may still be writing bytes of this attempt.
    pub(super) write_in_flight: bool,
}

impl From<Error> for BodyFailure {
    fn from(error: Error) -> Self {
        Self {
            error,
            write_in_flight: true,
        }
    }
}

impl Call<'_> {
    /// The key of a new session.
    pub(super) fn new_session_key(&self) -> SessionKey {
        let high = u128::from(random_u64(&*self.environment));
        let low = u128::from(random_u64(&*self.environment));
        let expires = self.environment.now().plus_millis(self.settings.limits.upload_token_ms);
        SessionKey {
            expires,
            id: SessionId(high << 64 | low),
        }
    }

    /// Claims a session for one body, unless it has had `max_attempts`.
    pub(super) async fn claim(
        &self,
        key: SessionKey,
        expected: Expected,
        max_attempts: u32,
    ) -> Result<Claimed, StoreError> {
        let cx = self.cx();
        let until = cx.now.plus_millis(self.settings.limits.claim_ms);
        self.stores.sessions.claim(cx, key, expected, until, max_attempts).await
    }

    /// Saves a body that was stored, and ends its claim. [`Error::ClaimLost`]: nothing is saved.
    pub(super) async fn save(&self, claim: &Claim, progress: Progress, part: Option<Vec<u8>>) -> Result<(), Error> {
        let saved = self.stores.sessions.save(self.cx(), claim, progress, part).await?;
        saved.then_some(()).ok_or(Error::ClaimLost)
    }

    /// Releases a claim under which nothing was stored, and no write is in flight.
    pub(super) async fn release(&self, claim: &Claim) -> Result<(), StoreError> {
        let sessions = &self.stores.sessions;
        let Some(store) = self
            .stores
            .blobs
            .after_failed_attempt(claim.attempt, &claim.progress.store)
        else {
            return sessions.release(self.cx(), claim).await;
        };
        let progress = Progress {
            store,
            ..claim.progress.clone()
        };
        // A claim that was lost meanwhile needs no release.
        sessions.save(self.cx(), claim, progress, None).await.map(drop)
    }

    /// Releases the claim of a body that failed, unless the session ended with it. Returns the error for the client. A
    /// claim that cannot be released expires within a minute.
    pub(super) async fn fail(&self, session: &OpenSession, claim: &Claim, failure: BodyFailure) -> Error {
        let BodyFailure { error, write_in_flight } = failure;
        match error {
            // The session is cancelled already.
            Error::BlobDigestMismatch { .. } => error,
            Error::ClaimLost => self.claim_lost(session, claim).await.unwrap_or_else(|error| error),
            error => {
                leave_to_expiry(if write_in_flight {
                    self.stores.sessions.release(self.cx(), claim).await
                } else {
                    self.release(claim).await
                });
                error
            }
        }
    }

    /// The error for the client of a body whose claim was lost while it streamed. If the session is still open, another
    /// body was stored first, and the client can continue after it. If the session has ended, the request that ended it
    /// could not see the bytes of this body. They are then discarded here, with everything else except the published
    /// object.
    async fn claim_lost(&self, session: &OpenSession, claim: &Claim) -> Result<Error, Error> {
        let row = self.stores.sessions.get(self.cx(), claim.key).await?;
        let Some(row) = row else {
            return Ok(Error::UploadUnknown);
        };
        let keep = match &row.state {
            State::Open { .. } => return Ok(session.refused(row.progress.offset)),
            State::Swept(_) => return Ok(Error::UploadUnknown),
            State::Committing(publishing) | State::Published(publishing) | State::Done(publishing) => {
                Some(&publishing.location)
            }
            State::Cancelled(_) => None,
        };
        leave_to_expiry(
            self.discard(claim.key.id, row.attempts, &row.progress.store, keep)
                .await,
        );
        Ok(Error::UploadUnknown)
    }

    /// Commits a session to the blob that it becomes: from here on no other request can claim or cancel it.
    /// [`Error::ClaimLost`]: the caller must not publish anything.
    pub(super) async fn commit(&self, claim: &Claim, publishing: &Publishing) -> Result<(), Error> {
        let committed = self.stores.sessions.commit(self.cx(), claim, publishing).await?;
        committed.then_some(()).ok_or(Error::ClaimLost)
    }

    /// Cancels an upload whose bytes do not have the expected digest: no later request can correct that. Returns the
    /// error for the client.
    pub(super) async fn cancel_mismatch(&self, claim: &Claim, state: &[u8], computed: Digest) -> Result<Error, Error> {
        // If this claim had expired, another request could have claimed the session and could be continuing from the
        // same bytes. Then this request must end neither the session nor those bytes.
        let until = self.environment.now().plus_millis(self.settings.limits.claim_ms);
        if !self.stores.sessions.renew(self.cx(), claim, until).await? {
            return Ok(Error::ClaimLost);
        }
        self.stores.sessions.finish(self.cx(), claim, End::Cancelled).await?;
        // By another instance's clock, the claim may have expired between the two calls; then nothing has ended.
        let row = self.stores.sessions.get(self.cx(), claim.key).await?;
        if row.is_none_or(|row| !matches!(row.state, State::Cancelled(_))) {
            return Ok(Error::ClaimLost);
        }
        leave_to_expiry(self.discard(claim.key.id, claim.attempt.number, state, None).await);
        Ok(Error::BlobDigestMismatch { computed })
    }

    /// end-14. The space is free at once. A body that is still streaming finds its claim lost, and discards what it
    /// wrote.
    pub(crate) async fn cancel_upload(&self, session: OpenSession) -> Result<Response<ResponseBody>, Error> {
        match self.stores.sessions.cancel(self.cx(), session.token.session).await? {
            Cancelled::Ended => Err(Error::UploadUnknown),
            Cancelled::Now(None) => Ok(response::empty(StatusCode::NO_CONTENT)),
            Cancelled::Now(Some(row)) => {
                let id = session.token.session.id;
                leave_to_expiry(self.discard(id, row.attempts, &row.progress.store, None).await);
                Ok(response::empty(StatusCode::NO_CONTENT))
            }
        }
    }

    /// Deletes what an ended session has left in the blob store, except the published object at `keep`. A session is
    /// finished as [`End::Done`] only if the result is [`Discarded::All`]. No request searches the store for more;
    /// collection finds the rest by the session's row.
    pub(super) async fn discard(
        &self,
        session: SessionId,
        attempts: u32,
        state: &[u8],
        keep: Option<&Location>,
    ) -> Result<Discarded, StoreError> {
        self.stores
            .blobs
            .discard(self.cx(), session, attempts, state, keep)
            .await
    }
}

/// Logs a fault that occurs after the result of a request is decided, and must not change the response. The session's
/// row names everything that is left, and the sweep of the expired session deletes it.
pub(super) fn leave_to_expiry<T>(ended: Result<T, StoreError>) {
    if let Err(fault) = ended {
        tracing::warn!(
            error = &fault as &dyn std::error::Error,
            "an upload could not be cleaned up now; it is cleaned up after its session has expired"
        );
    }
}
