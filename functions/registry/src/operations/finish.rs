//! The last request of an upload: end-6 (`PUT <location>?digest=…`) and end-4b
//! (`POST /v2/<name>/blobs/uploads/?digest=…`).
//!
//! It stores the last body, verifies the digest, and makes one object of all bodies. (A digest of another algorithm
//! than the declared one is verified after that.) If all this took long, it asks again whether the principal may publish
//! the blob. It saves the session as *committing*, with the digest and the location of the object. It writes the
//! back-link, and then the link, which publishes the blob. Then it ends the session as *done*, or as *published* if other
//! objects of the session may be left.
//! [`SessionStore`](crate::store::sessions::SessionStore) has the table of the states.
//!
//! The request may take minutes, because it seals the upload ([`BlobStore::seal`](crate::store::blobs::BlobStore::seal)). An
//! object store makes one object of 10,000 parts, or copies hundreds of gigabytes inside itself. A disk joins segments.
//! A sha512 that was not declared when the upload was opened is computed from the stored bytes. Some clients repeat the
//! request while it is still in progress:
//!
//! * containerd since 2.3, and Docker since 29.7 with the containerd image store, wait 30 seconds for a response after
//!   the last byte of a body. Since 2.3.2 they then send the same PUT again, with the whole body, five times in all.
//!   They repeat it at once after a 429 or 408. Two 503 in a row, or a 416, end the push. 2.3.0 and 2.3.1 abort the
//!   push after the 30 seconds; the first request continues without them, and the next push finds the blob.
//! * Docker's classic store, `BuildKit` and older containerd wait without a timeout.
//!
//! (Read in the sources of containerd 2.3.0 to 2.4.0-beta.0, Docker 28.5 to 29.7.2 and `BuildKit` 0.32.)
//!
//! Measured on two cores and an ext4 disk: 10,000 bodies of 1 KiB are joined in 1.0 s (0.3 s without syncs), 102,400
//! bodies, which is [`upload_bodies`](crate::Limits::upload_bodies), in 16 s without syncs; versitygw completes 2,500
//! parts of 5 MiB in 2.8 s. Completion of 10,000 parts has not been measured: versitygw did not succeed in it (see
//! tests/bench/README.md).
//!
//! So the first request renews its claim while the object is made. A repeated PUT waits for the first one, for at most
//! [`upload_wait_ms`](crate::Limits::upload_wait_ms), and reads nothing of its body meanwhile. containerd's 30 seconds
//! begin only after the body is sent, so this wait does not use them up. If the first request succeeds, the repeated
//! one is compared with the published blob, and is answered 201 again. If the first one fails, the repeated one takes
//! its place. All five requests together take nearly four minutes. After that the push fails, the first request
//! continues, and the next push finds the blob.

use futures_util::TryStreamExt as _;
use http::header::CONTENT_RANGE;
use http::{HeaderMap, Response};
use oci::{Algorithm, Digest, Hasher};

use super::body_head::{expected, is_empty};
use super::session::{FinalSession, OpenSession};
use super::session_states::leave_to_expiry;
use super::source::{Lease, resume};
use super::store_body::StoredBody;
use crate::access::Access;
use crate::body::{RequestBody, ResponseBody};
use crate::call::Call;
use crate::error::Error;
use crate::response;
use crate::store::blobs::{Discarded, Upload};
use crate::store::metadata::Link;
use crate::store::sessions::{Claim, Claimed, End, Expected, Progress, Publishing, Session, State};
use crate::store::{Location, SessionId, StoreError};

/// The interval in which a request polls a session that another request has claimed, in milliseconds.
const LOOK_AGAIN_MS: u64 = 1000;

impl Call<'_> {
    /// end-6, and end-4b, whose session no other request knows. Stores the last chunk, if there is one, verifies the
    /// digest of all bytes, and publishes the blob.
    pub(crate) async fn finish_upload(
        &self,
        session: FinalSession,
        digest: Digest,
        access: &Access<'_>,
        headers: &HeaderMap,
        body: RequestBody,
    ) -> Result<Response<ResponseBody>, Error> {
        let limit = self.settings.limits.upload_bodies;
        // A request without a body finishes the upload however many bodies the upload has had. A request with a range
        // could only be refused.
        let (expected, max_attempts) = if is_empty(headers, &body) && !headers.contains_key(CONTENT_RANGE) {
            (Expected::Existing, limit.saturating_mul(2))
        } else {
            (expected(headers), limit)
        };
        let claim = match self.claim_last(&session, expected, max_attempts).await? {
            Claimed::Granted(claim) => claim,
            Claimed::Busy(row) => return Err(session.busy(&row, self.environment.now(), true)),
            Claimed::AttemptsExhausted(_) => return Err(Error::TooManyBodies { limit }),
            Claimed::Ended(row) => {
                let before = self.finished_before(&session, &row, &digest, access, headers, body);
                return before.await;
            }
        };
        let stored = self
            .store_body(&session, &claim, headers, body, digest.algorithm(), true)
            .await;
        let stored = match stored {
            Ok(stored) => stored,
            Err(failure) => return Err(self.fail(&session, &claim, failure).await),
        };
        match self.publish_upload(&session, &claim, &digest, stored, access).await {
            Ok(()) => Ok(response::created(session.permit().repository(), "blobs", &digest)),
            Err(error) => Err(self.fail(&session, &claim, error.into()).await),
        }
    }

    /// Claims a session for its last body. Waits while another request has a claim: that request may be an earlier
    /// sending of this one, whose response the client did not wait for.
    async fn claim_last(&self, session: &OpenSession, expected: Expected, max_attempts: u32) -> Result<Claimed, Error> {
        let key = session.token.session;
        let claimed = self.claim(key, expected, max_attempts).await?;
        let Claimed::Busy(seen) = claimed else {
            return Ok(claimed);
        };
        let holds_more = |progress: &Progress| progress.offset != seen.progress.offset;
        let begun = self.environment.now();
        loop {
            self.environment.sleep(LOOK_AGAIN_MS).await;
            let now = self.environment.now();
            let row = self.stores.sessions.get(self.cx(), key).await?;
            let row = row.ok_or(Error::UploadUnknown)?;
            match row.state {
                // More was stored meanwhile, so the client of this request does not know the whole upload.
                State::Open { .. } if holds_more(&row.progress) => return Err(session.refused(row.progress.offset)),
                State::Open { .. } if row.is_claimed(now) => {
                    if now.millis_since(begun) >= self.settings.limits.upload_wait_ms || Self::is_due(now) {
                        return Ok(Claimed::Busy(row));
                    }
                }
                State::Open { .. } => match self.claim(key, Expected::Existing, max_attempts).await? {
                    // Another waiting request has claimed the session first.
                    Claimed::Busy(_) => {}
                    Claimed::Granted(claim) if holds_more(&claim.progress) => {
                        leave_to_expiry(self.release(&claim).await);
                        return Err(session.refused(claim.progress.offset));
                    }
                    claimed => return Ok(claimed),
                },
                State::Committing(_) | State::Published(_) | State::Done(_) | State::Cancelled(_) | State::Swept(_) => {
                    return Ok(Claimed::Ended(row));
                }
            }
        }
    }

    async fn publish_upload(
        &self,
        session: &FinalSession,
        claim: &Claim,
        digest: &Digest,
        stored: StoredBody,
        access: &Access<'_>,
    ) -> Result<(), Error> {
        let size = stored.progress.offset;
        let hashed_as_asked = stored.hasher.algorithm() == digest.algorithm();
        if hashed_as_asked {
            let computed = stored.hasher.finish();
            if computed != *digest {
                return Err(self.cancel_mismatch(claim, &stored.progress.store, computed).await?);
            }
        }
        // An upload of one body is its object already, with or without chunks. An upload of several bodies leaves the
        // parts of which the object was made. A failed earlier attempt may have left a segment, too.
        let one_body = claim.attempt.number == 1 || (claim.attempt.number == 2 && stored.progress == claim.progress);
        let parts = self.parts(claim, stored.part).await?;
        let state = stored.progress.store;
        let upload = Upload {
            session: claim.key.id,
            state: state.clone(),
            parts,
            size,
        };
        let sealed = self.stores.blobs.seal(self.sealing(), &upload);
        let location = Lease::new(self, claim).through(sealed).await?;
        if !hashed_as_asked {
            // The algorithm was not declared when the upload was opened, so the bytes are read again from the store.
            let lease = Lease::new(self, claim);
            let computed = self
                .hash_object(&location, size, digest.algorithm(), Some(lease))
                .await?;
            if computed != *digest {
                return Err(self.cancel_mismatch(claim, &state, computed).await?);
            }
        }
        // The body may have taken hours. If the principal may not publish the blob any more, the session stays open, and can be
        // cancelled.
        access.renewed(session.permit(), session.credential()).await?;
        // From here on no other request can claim or cancel the session: a digest is about to refer to its object.
        let publishing = Publishing {
            digest: *digest,
            location,
            size,
        };
        self.commit(claim, &publishing).await?;
        self.publish(session, &publishing).await?;
        let end = if one_body && !self.stores.blobs.leaves_something(&state) {
            End::Done
        } else {
            self.clear(claim.key.id, claim.attempt.number, &state, &publishing)
                .await
        };
        // Before the response: a repetition of this request must not publish again what was deleted since.
        Ok(self.stores.sessions.finish(self.cx(), claim, end).await?)
    }

    /// Deletes the parts of which the object was made. Returns the final state of the session.
    async fn clear(&self, session: SessionId, attempts: u32, state: &[u8], publishing: &Publishing) -> End {
        let keep = Some(&publishing.location);
        match self.discard(session, attempts, state, keep).await {
            Ok(Discarded::All) => End::Done,
            Ok(Discarded::Known) => End::Published,
            Err(fault) => {
                leave_to_expiry::<()>(Err(fault));
                End::Published
            }
        }
    }

    /// Publishes the blob. Idempotent.
    async fn publish(&self, session: &FinalSession, publishing: &Publishing) -> Result<(), StoreError> {
        let Publishing { digest, location, size } = publishing;
        let metadata = &self.stores.metadata;
        let lies_at = metadata
            .commit_blob(self.cx(), session.permit().repository(), digest, location, *size)
            .await?;
        self.make_sure(digest, *size, location, lies_at).await
    }

    /// A final PUT for a session that has ended. The response to an earlier PUT may have been lost, so this is 201
    /// again for the committed digest, while that blob exists. Otherwise it is 404: after the blob was deleted, or with
    /// other bytes, the upload cannot continue. An interrupted publication (after a crash, or because a store did not
    /// respond) was never acknowledged, and is completed now.
    async fn finished_before(
        &self,
        session: &FinalSession,
        row: &Session,
        digest: &Digest,
        access: &Access<'_>,
        headers: &HeaderMap,
        body: RequestBody,
    ) -> Result<Response<ResponseBody>, Error> {
        let key = session.token.session;
        match &row.state {
            State::Published(publishing) | State::Done(publishing) if publishing.digest == *digest => {}
            State::Committing(publishing) if publishing.digest == *digest => {
                // This request may have waited for the interrupted one.
                access.renewed(session.permit(), session.credential()).await?;
                self.publish(session, publishing).await?;
                let state = &row.progress.store;
                let end = self.clear(key.id, row.attempts, state, publishing).await;
                self.stores.sessions.finish_committing(self.cx(), key, end).await?;
            }
            _ => return Err(Error::UploadUnknown),
        }
        let link = self
            .stores
            .metadata
            .link(self.cx(), session.permit().repository(), digest)
            .await?;
        // The client must upload a lost blob again.
        let link = link.filter(|link| link.defect.is_none()).ok_or(Error::UploadUnknown)?;
        if !is_empty(headers, &body) && !self.is_end_of(&link, digest, row, body).await? {
            return Err(Error::UploadUnknown);
        }
        Ok(response::created(session.permit().repository(), "blobs", digest))
    }

    /// Whether a repeated body equals the end of the published blob, after the bytes that the session had before. Only
    /// bytes that can be read back as they were sent are acknowledged.
    async fn is_end_of(
        &self,
        link: &Link,
        digest: &Digest,
        row: &Session,
        mut body: RequestBody,
    ) -> Result<bool, Error> {
        let mut hasher = resume(&row.progress, digest.algorithm()).ok_or(Error::UploadUnknown)?;
        let mut length = row.progress.offset;
        while let Some(chunk) = body.next_chunk().await? {
            hasher.update(&chunk);
            length = length.saturating_add(chunk.len() as u64);
            if length > link.size {
                return Ok(false);
            }
        }
        // An empty body is the end of every blob.
        if length == row.progress.offset {
            return Ok(true);
        }
        let sent = hasher.finish();
        if sent.algorithm() == digest.algorithm() {
            return Ok(sent == *digest);
        }
        let there = self
            .hash_object(&link.location, link.size, sent.algorithm(), None)
            .await?;
        Ok(sent == there)
    }

    /// The part records of the session, and the record of the last body, which is not saved.
    async fn parts(&self, claim: &Claim, last: Option<Vec<u8>>) -> Result<Vec<Vec<u8>>, Error> {
        let mut parts = match claim.progress.parts {
            0 => Vec::new(),
            _ => self.stores.sessions.parts(self.cx(), claim.key).await?,
        };
        parts.extend(last);
        Ok(parts)
    }

    /// Computes the digest of a sealed object. This reads the whole object, so the claim is renewed meanwhile, if there
    /// is one.
    async fn hash_object(
        &self,
        location: &Location,
        size: u64,
        algorithm: Algorithm,
        mut lease: Option<Lease<'_>>,
    ) -> Result<Digest, Error> {
        let mut stream = self.read(location, 0..size).await?;
        let mut hasher = Hasher::new(algorithm);
        while let Some(chunk) = stream.try_next().await? {
            hasher.update(&chunk);
            if let Some(lease) = &mut lease {
                lease.renew().await?;
            }
        }
        Ok(hasher.finish())
    }
}
