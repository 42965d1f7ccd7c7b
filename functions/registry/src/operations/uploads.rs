//! Uploads: end-4 to end-6, end-11 and end-13.
//!
//! Every body follows the same path: `claim` → `store_body` → saved (a chunk) or published (the last one). A chunk is
//! all or nothing; a refused one leaves the session as it was, and is answered with 416 and where the upload stands, so
//! that a client can go on.

use futures_util::TryStreamExt as _;
use http::header::CONTENT_RANGE;
use http::{HeaderMap, HeaderName, Response, StatusCode};
use oci::{Algorithm, Digest, Hasher};

use super::chunks::{OutOfPlace, declared_chunk, expected, is_empty};
use super::ends::{Unstored, leave_to_sweep};
use super::session::OpenSession;
use super::source::{Lease, UploadSource};
use crate::auth::{Identity, Permit, Push};
use crate::body::{RequestBody, ResponseBody};
use crate::call::Call;
use crate::environment::random_u64;
use crate::error::Error;
use crate::query::OpenUpload;
use crate::response;
use crate::store::blobs::{AppendError, BodyError, Discarded, Upload};
use crate::store::sessions::{
    Claim, Claimed, End, Expected, Progress, Publishing, Session, SessionId, SessionKey, State,
};
use crate::store::{Location, StoreError};
use crate::token::UploadToken;

const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// A body that is stored, after everything that was stored before it.
struct Stored {
    progress: Progress,
    part: Option<Vec<u8>>,
    hasher: Hasher,
}

impl Call<'_> {
    /// end-4a, end-4b, end-4c, end-11. Opening a session writes nothing: the token is all there is of it.
    pub(crate) async fn open_upload(
        &self,
        permit: Permit<Push>,
        identity: &Identity,
        open: OpenUpload,
        headers: &HeaderMap,
        body: RequestBody,
    ) -> Result<Response<ResponseBody>, Error> {
        let algorithm = match open {
            OpenUpload::Session(algorithm) => algorithm,
            OpenUpload::Monolithic(digest) => {
                let session = self.new_session(&permit, identity, digest.algorithm())?;
                return self.finish_upload(permit, session, digest, headers, body).await;
            }
            OpenUpload::Mount { digest, from } => {
                if self.mount(&permit, identity, &digest, from).await? {
                    return Ok(response::created(permit.repository(), "blobs", &digest));
                }
                digest.algorithm()
            }
        };
        let session = self.new_session(&permit, identity, algorithm)?;
        let mut response = session.answer(StatusCode::ACCEPTED, 0)?;
        response
            .headers_mut()
            .insert(CHUNK_MIN_LENGTH, self.settings.limits.chunk_min_bytes.into());
        Ok(response)
    }

    fn new_session(
        &self,
        permit: &Permit<Push>,
        identity: &Identity,
        algorithm: Algorithm,
    ) -> Result<OpenSession, Error> {
        let session = self.new_session_key();
        let token = UploadToken {
            session,
            algorithm,
            principal: identity.principal().clone(),
        };
        let text = self.tokens.sign(permit.repository(), &token);
        let text = text.ok_or_else(|| StoreError::failed("there is no key to sign upload tokens with"))?;
        OpenSession::new(permit, token, &text)
    }

    pub(super) fn new_session_key(&self) -> SessionKey {
        let high = u128::from(random_u64(&*self.environment));
        let low = u128::from(random_u64(&*self.environment));
        let expires = self.environment.now().plus_millis(self.settings.limits.upload_token_ms);
        SessionKey {
            expires,
            id: SessionId(high << 64 | low),
        }
    }

    /// end-5.
    pub(crate) async fn patch_upload(
        &self,
        session: OpenSession,
        headers: &HeaderMap,
        body: RequestBody,
    ) -> Result<Response<ResponseBody>, Error> {
        if is_empty(headers, &body) {
            return self.empty_chunk(session, headers, body).await;
        }
        let limit = self.settings.limits.upload_bodies;
        let claim = match self.claim(session.token.session, expected(headers), limit).await? {
            Claimed::Granted(claim) => claim,
            Claimed::Busy(row) => return Err(session.refused(row.progress.offset)),
            Claimed::Spent(_) => return Err(Error::TooManyBodies { limit }),
            Claimed::Ended(_) => return Err(Error::UploadUnknown),
        };
        let offset = match self
            .store_body(&session, &claim, headers, body, session.token.algorithm, false)
            .await
        {
            Err(unstored) => return Err(self.give_up(&session, &claim, unstored).await),
            Ok(Stored {
                progress, part: None, ..
            }) if progress == claim.progress => {
                // An empty chunk changes nothing.
                self.hand_back(&claim).await?;
                progress.offset
            }
            Ok(Stored { progress, part, .. }) => {
                let offset = progress.offset;
                if !self.stores.sessions.save(self.cx(), &claim, progress, part).await? {
                    return Err(self.give_up(&session, &claim, Error::ClaimLost.into()).await);
                }
                offset
            }
        };
        session.answer(StatusCode::ACCEPTED, offset)
    }

    /// end-6, and end-4b, whose session nobody else knows. Takes the last chunk, if there is one, checks the digest of
    /// the whole, and publishes it. `permit` was asked for now, not when the upload was opened.
    pub(crate) async fn finish_upload(
        &self,
        permit: Permit<Push>,
        session: OpenSession,
        digest: Digest,
        headers: &HeaderMap,
        body: RequestBody,
    ) -> Result<Response<ResponseBody>, Error> {
        let limit = self.settings.limits.upload_bodies;
        // What ends the upload, whatever its bytes are, is not held up by how many bodies there were. A range could
        // only be out of place.
        let (expected, most) = if is_empty(headers, &body) && !headers.contains_key(CONTENT_RANGE) {
            (Expected::Begun, limit.saturating_mul(2))
        } else {
            (expected(headers), limit)
        };
        let claim = match self.claim(session.token.session, expected, most).await? {
            Claimed::Granted(claim) => claim,
            Claimed::Busy(row) => return Err(session.refused(row.progress.offset)),
            Claimed::Spent(_) => return Err(Error::TooManyBodies { limit }),
            Claimed::Ended(row) => {
                return self
                    .finished_before(&permit, session.token.session, &row, &digest)
                    .await;
            }
        };
        let stored = self
            .store_body(&session, &claim, headers, body, digest.algorithm(), true)
            .await;
        let stored = match stored {
            Ok(stored) => stored,
            Err(unstored) => return Err(self.give_up(&session, &claim, unstored).await),
        };
        match self.publish_upload(&permit, &claim, &digest, stored).await {
            Ok(()) => Ok(response::created(permit.repository(), "blobs", &digest)),
            Err(error) => Err(self.give_up(&session, &claim, error.into()).await),
        }
    }

    async fn publish_upload(
        &self,
        permit: &Permit<Push>,
        claim: &Claim,
        digest: &Digest,
        stored: Stored,
    ) -> Result<(), Error> {
        let size = stored.progress.offset;
        let hashed_as_asked = stored.hasher.algorithm() == digest.algorithm();
        if hashed_as_asked {
            let computed = stored.hasher.finish();
            if computed != *digest {
                return Err(self.discard(claim, &stored.progress.store, computed).await?);
            }
        }
        // One body is the object itself, however it came; several leave behind what the object was made of.
        // Earlier attempts may have left a segment even if they came to nothing.
        let one_body = claim.attempt.number == 1 || (claim.attempt.number == 2 && stored.progress == claim.progress);
        let parts = self.parts(claim, stored.part).await?;
        let state = stored.progress.store;
        let upload = Upload {
            session: claim.key.id,
            state: state.clone(),
            parts,
            size,
        };
        let location = self.stores.blobs.seal(self.sealing(), &upload).await?;
        if !hashed_as_asked {
            // The algorithm was not declared when the upload was opened: the bytes are read once more, from the store.
            let computed = self.hash_object(&location, size, digest.algorithm(), claim).await?;
            if computed != *digest {
                return Err(self.discard(claim, &state, computed).await?);
            }
        }
        // From here on nobody else can claim or cancel the session: its object is about to be named by a digest.
        let publishing = Publishing {
            digest: *digest,
            location,
            size,
        };
        if !self.stores.sessions.commit(self.cx(), claim, &publishing).await? {
            return Err(Error::ClaimLost);
        }
        self.publish(permit, &publishing).await?;
        let finish = async {
            if !one_body || self.stores.blobs.leaves_something(&state) {
                let (session, attempts) = (claim.key.id, claim.attempt.number);
                let keep = Some(&publishing.location);
                if self.discard_all(session, attempts, &state, keep).await? == Discarded::Known {
                    return Ok(());
                }
            }
            self.stores.sessions.finish(self.cx(), claim, End::Done).await
        };
        leave_to_sweep(finish.await);
        Ok(())
    }

    /// The point of publication; may be passed any number of times.
    async fn publish(&self, permit: &Permit<Push>, publishing: &Publishing) -> Result<(), StoreError> {
        let Publishing { digest, location, size } = publishing;
        self.stores
            .metadata
            .commit_blob(self.cx(), permit.repository(), digest, location, *size)
            .await
    }

    /// A final PUT for a session that has ended: the answer to an earlier one may have been lost, so that it is 201
    /// again for the digest that was committed, and 404 for everything else. A publication that was interrupted, by a
    /// crash or by a store that did not answer, is finished now.
    async fn finished_before(
        &self,
        permit: &Permit<Push>,
        key: SessionKey,
        row: &Session,
        digest: &Digest,
    ) -> Result<Response<ResponseBody>, Error> {
        let publishing = row
            .publishing
            .as_ref()
            .filter(|publishing| publishing.digest == *digest);
        match (row.state, publishing) {
            (State::Done, Some(_)) => {}
            (State::Committing, Some(publishing)) => {
                self.publish(permit, publishing).await?;
                let finish = async {
                    let (state, keep) = (&row.progress.store, Some(&publishing.location));
                    if self.discard_all(key.id, row.attempts, state, keep).await? == Discarded::Known {
                        return Ok(());
                    }
                    self.stores.sessions.settle(self.cx(), key).await
                };
                leave_to_sweep(finish.await);
            }
            _ => return Err(Error::UploadUnknown),
        }
        Ok(response::created(permit.repository(), "blobs", digest))
    }

    /// Claims a session for one body, unless it has had `most`.
    pub(super) async fn claim(&self, key: SessionKey, expected: Expected, most: u32) -> Result<Claimed, Error> {
        let cx = self.cx();
        let until = cx.now.plus_millis(self.settings.limits.claim_ms);
        Ok(self.stores.sessions.claim(cx, key, expected, until, most).await?)
    }

    /// Stores the body of a request behind what the claimed session holds. Nothing of it counts until the caller saves
    /// or publishes it. `algorithm` is how a session hashes that holds nothing yet. A body of no bytes stores nothing,
    /// unless it is the `last` one and there is nothing else: a blob may be empty.
    async fn store_body(
        &self,
        session: &OpenSession,
        claim: &Claim,
        headers: &HeaderMap,
        body: RequestBody,
        algorithm: Algorithm,
        last: bool,
    ) -> Result<Stored, Unstored> {
        let offset = claim.progress.offset;
        // Nothing was asked of the store yet.
        let refused = |error| Unstored { error, in_order: true };
        let declared = match declared_chunk(headers, offset) {
            Ok(declared) => declared,
            Err(OutOfPlace) => return Err(refused(session.refused(offset))),
        };
        let hasher = resume(&claim.progress, algorithm).ok_or(Error::UploadUnknown)?;
        let limit = self.settings.limits.blob_bytes;
        if declared.is_some_and(|length| offset.saturating_add(length) > limit) {
            return Err(refused(Error::BlobTooLarge { limit }));
        }
        let mut source = UploadSource::new(self, claim, body, declared, hasher);
        let unstored = |error| Unstored {
            in_order: matches!(error, AppendError::Body(_)),
            error: match error {
                AppendError::Body(BodyError::LengthMismatch) | AppendError::Adrift(BodyError::LengthMismatch) => {
                    session.refused(offset)
                }
                other => Error::from(other),
            },
        };
        let is_empty = source.is_empty().await.map_err(|error| unstored(error.into()))?;
        if is_empty && !(last && claim.progress == Progress::default()) {
            let (_, hasher) = source.into_parts();
            return Ok(Stored {
                progress: claim.progress.clone(),
                part: None,
                hasher,
            });
        }
        let appended = self
            .stores
            .blobs
            .append(self.cx(), claim.attempt, &claim.progress.store, &mut source)
            .await;
        let appended = appended.map_err(unstored)?;
        let (received, hasher) = source.into_parts();
        let progress = Progress {
            offset: offset + received,
            hash: hasher.save(),
            store: appended.state,
            parts: claim.progress.parts,
        };
        Ok(Stored {
            progress,
            part: appended.part,
            hasher,
        })
    }

    /// Part records of the session, and the one of a body that was not saved because it is the last.
    async fn parts(&self, claim: &Claim, last: Option<Vec<u8>>) -> Result<Vec<Vec<u8>>, Error> {
        let mut parts = match claim.progress.parts {
            0 => Vec::new(),
            _ => self.stores.sessions.parts(self.cx(), claim.key).await?,
        };
        parts.extend(last);
        Ok(parts)
    }

    /// The digest of a sealed object. Takes as long as reading it, so that the claim is renewed meanwhile.
    async fn hash_object(
        &self,
        location: &Location,
        size: u64,
        algorithm: Algorithm,
        claim: &Claim,
    ) -> Result<Digest, Error> {
        let mut stream = self.read(location, 0..size).await?;
        let mut hasher = Hasher::new(algorithm);
        let mut lease = Lease::new(self, claim);
        while let Some(chunk) = stream.try_next().await? {
            hasher.update(&chunk);
            lease.renew().await?;
        }
        Ok(hasher.finish())
    }

    /// end-13. A token without a row is a session in which nothing was stored yet.
    pub(crate) async fn get_upload(&self, session: OpenSession) -> Result<Response<ResponseBody>, Error> {
        match self.stores.sessions.get(self.cx(), session.token.session).await? {
            None => session.answer(StatusCode::NO_CONTENT, 0),
            Some(row) if row.state == State::Open && resume(&row.progress, session.token.algorithm).is_some() => {
                session.answer(StatusCode::NO_CONTENT, row.progress.offset)
            }
            Some(_) => Err(Error::UploadUnknown),
        }
    }
}

/// The hash of what a session holds; `algorithm` is how one hashes that holds nothing yet. `None`: it was saved by
/// another version of this program, and the session cannot go on.
pub(super) fn resume(progress: &Progress, algorithm: Algorithm) -> Option<Hasher> {
    match progress.hash.as_slice() {
        [] => Some(Hasher::new(algorithm)),
        saved => Hasher::restore(saved),
    }
}
