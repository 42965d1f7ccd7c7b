//! Uploads: end-4, end-5, end-11 and end-13. How an upload ends well is in `finish`.
//!
//! Every body follows the same path: `claim` → `store_body` → saved (a chunk) or published (the last one). A chunk is
//! all or nothing; a refused one leaves the session as it was, and is answered with 416 and where the upload stands, so
//! that a client can go on.

use http::{HeaderMap, HeaderName, Response, StatusCode};
use http_body::Body as _;
use oci::{Algorithm, Digest, Hasher};

use super::chunks::{OutOfPlace, declared_chunk, expected, is_empty, peek};
use super::ends::Unstored;
use super::session::OpenSession;
use super::source::UploadSource;
use crate::auth::{Identity, Permit, Push};
use crate::body::{RequestBody, ResponseBody};
use crate::call::Call;
use crate::environment::random_u64;
use crate::error::Error;
use crate::query::OpenUpload;
use crate::response;
use crate::store::StoreError;
use crate::store::blobs::{AppendError, BodyError};
use crate::store::sessions::{Claim, Claimed, Expected, Progress, SessionId, SessionKey, State};
use crate::token::UploadToken;

const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// A body that is stored, after everything that was stored before it.
pub(super) struct Stored {
    pub(super) progress: Progress,
    pub(super) part: Option<Vec<u8>>,
    pub(super) hasher: Hasher,
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
                // Some clients name the digest when they open a session. The specification lets a registry answer every
                // such POST with a session, and distribution v3 does; here only the one that cannot be the whole blob.
                let body = peek(headers, body).await?;
                if !body.is_end_stream() || digest == Digest::of(digest.algorithm(), b"") {
                    let session = self.new_session(&permit, identity, digest.algorithm()).await?;
                    return self.finish_upload(permit, session, digest, headers, body).await;
                }
                digest.algorithm()
            }
            OpenUpload::Mount { digest, from } => {
                if self.mount(&permit, identity, &digest, from).await? {
                    return Ok(response::created(permit.repository(), "blobs", &digest));
                }
                digest.algorithm()
            }
        };
        let session = self.new_session(&permit, identity, algorithm).await?;
        let mut response = session.answer(StatusCode::ACCEPTED, 0)?;
        response
            .headers_mut()
            .insert(CHUNK_MIN_LENGTH, self.settings.limits.chunk_min_bytes.into());
        Ok(response)
    }

    async fn new_session(
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
        let text = self.tokens().await?.sign(permit.repository(), &token);
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
            Claimed::Busy(row) => return Err(session.busy(&row, self.environment.now(), false)),
            Claimed::AttemptsExhausted(_) => return Err(Error::TooManyBodies { limit }),
            Claimed::Ended(_) => return Err(Error::UploadUnknown),
        };
        let offset = match self
            .store_body(&session, &claim, headers, body, session.token.algorithm, false)
            .await
        {
            Err(unstored) => return Err(self.fail(&session, &claim, unstored).await),
            Ok(Stored {
                progress, part: None, ..
            }) if progress == claim.progress => {
                // An empty chunk changes nothing.
                self.release(&claim).await?;
                progress.offset
            }
            Ok(Stored { progress, part, .. }) => {
                let offset = progress.offset;
                if !self.stores.sessions.save(self.cx(), &claim, progress, part).await? {
                    return Err(self.fail(&session, &claim, Error::ClaimLost.into()).await);
                }
                offset
            }
        };
        session.answer(StatusCode::ACCEPTED, offset)
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
    pub(super) async fn store_body(
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
                AppendError::Body(BodyError::LengthMismatch)
                | AppendError::WriteInFlight(BodyError::LengthMismatch) => session.refused(offset),
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
