//! The body of a request on its way into the blob store. It is bounded, counted and hashed, and the claim is renewed
//! while it streams.

use std::future::Future;
use std::pin::pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{Either, select};
use oci::{Algorithm, Hasher};

use crate::body::RequestBody;
use crate::call::Call;
use crate::store::Timestamp;
use crate::store::blobs::{BodyError, Source};
use crate::store::sessions::{Claim, Progress};

/// Renews a claim during work that may take longer than a claim is valid.
pub(super) struct Lease<'a> {
    call: &'a Call<'a>,
    claim: &'a Claim,
    renewed: Timestamp,
}

impl<'a> Lease<'a> {
    /// For a claim that has just been granted.
    pub(super) fn new(call: &'a Call<'a>, claim: &'a Claim) -> Self {
        Self {
            call,
            claim,
            renewed: call.environment.now(),
        }
    }

    /// Renews the claim if a quarter of its time has passed. Called whenever there is progress. The shell aborts a
    /// stalled body long before the rest of the time has passed.
    pub(super) async fn renew(&mut self) -> Result<(), BodyError> {
        let now = self.call.environment.now();
        let claim_ms = self.call.settings.limits.claim_ms;
        if now.millis_since(self.renewed) < claim_ms / 4 {
            return Ok(());
        }
        let cx = self.call.cx();
        match self
            .call
            .stores
            .sessions
            .renew(cx, self.claim, now.plus_millis(claim_ms))
            .await
        {
            Ok(true) => {
                self.renewed = now;
                Ok(())
            }
            Ok(false) => Err(BodyError::ClaimLost),
            Err(error) => Err(BodyError::Store(error)),
        }
    }

    /// Renews the claim during `work`, which reports no progress and may take minutes. So a repetition of the request
    /// finds the session claimed, and does not start the same work. The work is never dropped before its end: if the
    /// claim is lost, the next step finds that out.
    pub(super) async fn through<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let quarter = self.call.environment.sleep(self.call.settings.limits.claim_ms / 4);
            match select(work.as_mut(), quarter).await {
                Either::Left((done, _)) => return done,
                // A failed renewal is tried again after another quarter of the claim's time.
                Either::Right(_) => {
                    if let Err(BodyError::ClaimLost) = self.renew().await {
                        return work.await;
                    }
                }
            }
        }
    }
}

/// The body of one upload request.
pub(super) struct UploadSource<'a> {
    lease: Lease<'a>,
    /// `None` after its end.
    body: Option<RequestBody>,
    hasher: Hasher,
    /// Whether the hash covers this body only.
    is_first: bool,
    /// A chunk that was read in advance, and is already hashed.
    ahead: Option<Bytes>,
    received: u64,
    declared: Option<u64>,
    /// The maximum number of bytes of the blob.
    limit: u64,
    /// The maximum number of bytes of this body.
    max_bytes: u64,
}

impl<'a> UploadSource<'a> {
    /// `declared` is the length that the client has declared, and `limit` the maximum size of the blob. `hasher` has the
    /// state for the session's bytes so far.
    pub(super) fn new(
        call: &'a Call<'a>,
        claim: &'a Claim,
        body: RequestBody,
        declared: Option<u64>,
        limit: u64,
        hasher: Hasher,
    ) -> Self {
        let max_bytes = limit.saturating_sub(claim.progress.offset);
        Self {
            lease: Lease::new(call, claim),
            body: Some(body),
            hasher,
            is_first: claim.progress.offset == 0,
            ahead: None,
            received: 0,
            declared,
            limit,
            max_bytes,
        }
    }

    /// Whether the body is empty. Waits for its first bytes.
    pub(super) async fn is_empty(&mut self) -> Result<bool, BodyError> {
        if self.ahead.is_none() {
            self.ahead = self.next().await?;
        }
        Ok(self.ahead.is_none())
    }

    /// The number of bytes of this body so far, and the hash that includes them.
    pub(super) fn into_parts(self) -> (u64, Hasher) {
        (self.received, self.hasher)
    }
}

#[async_trait]
impl Source for UploadSource<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        if let Some(chunk) = self.ahead.take() {
            return Ok(Some(chunk));
        }
        let Some(body) = &mut self.body else {
            return Ok(None);
        };
        let Some(chunk) = body.next_chunk().await? else {
            self.body = None;
            return match self.declared {
                Some(declared) if declared != self.received => Err(BodyError::LengthMismatch),
                _ => Ok(None),
            };
        };
        self.received += chunk.len() as u64;
        if self.received > self.max_bytes {
            return Err(BodyError::TooLarge(self.limit));
        }
        if self.declared.is_some_and(|declared| self.received > declared) {
            return Err(BodyError::LengthMismatch);
        }
        self.lease.renew().await?;
        self.hasher.update(&chunk);
        Ok(Some(chunk))
    }

    fn remaining(&self) -> Option<u64> {
        let ahead = self.ahead.as_ref().map_or(0, Bytes::len) as u64;
        self.declared
            .map(|declared| declared.saturating_sub(self.received) + ahead)
    }

    fn sha256(&self) -> Option<[u8; 32]> {
        let is_whole = self.is_first && self.body.is_none() && self.ahead.is_none();
        if !is_whole || self.hasher.algorithm() != Algorithm::Sha256 {
            return None;
        }
        self.hasher.clone().finish().as_bytes().try_into().ok()
    }
}

/// The hash of a session's bytes. `algorithm` is the algorithm of a session without stored bytes. `None`: another
/// version of this program saved the state, and the session cannot continue.
pub(super) fn resume(progress: &Progress, algorithm: Algorithm) -> Option<Hasher> {
    match progress.hash.as_slice() {
        [] => Some(Hasher::new(algorithm)),
        saved => Hasher::restore(saved),
    }
}
