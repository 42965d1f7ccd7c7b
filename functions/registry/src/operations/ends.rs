//! What becomes of a body that was not stored, and of an upload that comes to nothing (end-14).

use http::{Response, StatusCode};
use oci::Digest;

use super::session::OpenSession;
use crate::body::ResponseBody;
use crate::call::Call;
use crate::error::Error;
use crate::response;
use crate::store::blobs::Discarded;
use crate::store::sessions::{Cancelled, Claim, End, Progress, SessionId, State};
use crate::store::{Location, StoreError};

/// A body that is not.
pub(super) struct Unstored {
    pub(super) error: Error,
    /// Nothing is being written for it any more, so that the next one follows directly.
    pub(super) in_order: bool,
}

impl From<Error> for Unstored {
    fn from(error: Error) -> Self {
        Self { error, in_order: false }
    }
}

impl Call<'_> {
    /// Ends an upload whose bytes do not have the digest that they should: it cannot become right any more.
    pub(super) async fn discard(&self, claim: &Claim, state: &[u8], computed: Digest) -> Result<Error, Error> {
        // A request that came after this one's claim had run out may be going on from the same segments: then neither
        // the session nor they are this one's to end.
        let until = self.environment.now().plus_millis(self.settings.limits.claim_ms);
        if !self.stores.sessions.renew(self.cx(), claim, until).await? {
            return Ok(Error::ClaimLost);
        }
        self.stores.sessions.finish(self.cx(), claim, End::Cancelled).await?;
        // By another instance's clock it may have run out between the two; then nothing has ended.
        let row = self.stores.sessions.get(self.cx(), claim.key).await?;
        if row.is_none_or(|row| row.state != State::Cancelled) {
            return Ok(Error::ClaimLost);
        }
        leave_to_expiry(self.discard_all(claim.key.id, claim.attempt.number, state, None).await);
        Ok(Error::BlobDigestMismatch { computed })
    }

    /// Frees what an ended session has left, but for what was published of it. A session is said to be done only if
    /// that was all: no request searches the store for more, and the row is what collection finds it by.
    pub(super) async fn discard_all(
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

    /// Gives a claim back after a failure, unless the session has ended with it, and tells what to answer. A claim that
    /// cannot be given back ends by itself within a minute.
    pub(super) async fn fail(&self, session: &OpenSession, claim: &Claim, unstored: Unstored) -> Error {
        let Unstored { error, in_order } = unstored;
        match error {
            Error::BlobDigestMismatch { .. } => error,
            Error::ClaimLost => self.lost(session, claim).await.unwrap_or_else(|error| error),
            error if in_order => {
                leave_to_expiry(self.release(claim).await);
                error
            }
            error => {
                leave_to_expiry(self.stores.sessions.release(self.cx(), claim).await);
                error
            }
        }
    }

    /// Gives a claim back under which nothing was stored, and nothing is being written any more.
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
        // If it was lost meanwhile, there is nothing to give back.
        sessions.save(self.cx(), claim, progress, None).await.map(drop)
    }

    /// The answer to a body whose claim was lost while it streamed. Under a session that lives on, somebody else's body
    /// came first, and the client can go on behind it. Of one that has ended meanwhile, this body's bytes are all that
    /// is left beside what was published: whoever ended it could not see them yet.
    pub(super) async fn lost(&self, session: &OpenSession, claim: &Claim) -> Result<Error, Error> {
        let row = self.stores.sessions.get(self.cx(), claim.key).await?;
        match row {
            Some(row) if row.state == State::Open => Ok(session.refused(row.progress.offset)),
            Some(row) if row.state != State::Swept => {
                let published = row.publishing.as_ref().map(|publishing| &publishing.location);
                let keep = published.filter(|_| row.state != State::Cancelled);
                leave_to_expiry(
                    self.discard_all(claim.key.id, row.attempts, &row.progress.store, keep)
                        .await,
                );
                Ok(Error::UploadUnknown)
            }
            _ => Ok(Error::UploadUnknown),
        }
    }

    /// end-14. The space is free at once; a body that is still streaming finds its claim lost, and frees what it wrote.
    pub(crate) async fn cancel_upload(&self, session: OpenSession) -> Result<Response<ResponseBody>, Error> {
        match self.stores.sessions.cancel(self.cx(), session.token.session).await? {
            Cancelled::Ended => Err(Error::UploadUnknown),
            Cancelled::Now(None) => Ok(response::empty(StatusCode::NO_CONTENT)),
            Cancelled::Now(Some(row)) => {
                let id = session.token.session.id;
                leave_to_expiry(self.discard_all(id, row.attempts, &row.progress.store, None).await);
                Ok(response::empty(StatusCode::NO_CONTENT))
            }
        }
    }
}

/// What follows the point at which a request is decided must not change its answer: a row names everything that is
/// left behind, and the sweep of expired sessions ends it.
pub(super) fn leave_to_expiry<T>(ended: Result<T, StoreError>) {
    if let Err(fault) = ended {
        tracing::warn!(
            error = &fault as &dyn std::error::Error,
            "what an upload left behind could not be tidied up now; its session's row names it"
        );
    }
}
