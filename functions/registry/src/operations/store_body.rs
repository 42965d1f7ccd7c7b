//! Stores the body of an upload's request after the bytes of the session.

use http::HeaderMap;
use oci::{Algorithm, Hasher};

use super::body_head::{OutOfOrder, declared_chunk};
use super::session::OpenSession;
use super::session_states::BodyFailure;
use super::source::{UploadSource, resume};
use crate::body::RequestBody;
use crate::call::Call;
use crate::error::Error;
use crate::store::blobs::{AppendError, BodyError};
use crate::store::sessions::{Claim, Progress};

/// The state of a session with a stored body. It has no effect until the caller saves or commits it.
pub(super) struct StoredBody {
    pub(super) progress: Progress,
    pub(super) part: Option<Vec<u8>>,
    pub(super) hasher: Hasher,
}

impl Call<'_> {
    /// Stores the body of a request after the bytes of the claimed session. `algorithm` is the hash of a session
    /// without stored bytes. An empty body is not stored, unless it is the `last` one and the session has no bytes: a
    /// blob may be empty.
    pub(super) async fn store_body(
        &self,
        session: &OpenSession,
        claim: &Claim,
        headers: &HeaderMap,
        body: RequestBody,
        algorithm: Algorithm,
        last: bool,
    ) -> Result<StoredBody, BodyFailure> {
        let offset = claim.progress.offset;
        let failed = |error: AppendError| failure(session, offset, error);
        let declared = declared_chunk(headers, offset);
        let declared = declared.map_err(|OutOfOrder| failed(BodyError::LengthMismatch.into()))?;
        let hasher = resume(&claim.progress, algorithm).ok_or(Error::UploadUnknown)?;
        let limit = self.blob_limit(session.repository_settings());
        // Earlier bodies may have been stored under a higher limit.
        if offset.saturating_add(declared.unwrap_or_default()) > limit {
            return Err(failed(BodyError::TooLarge(limit).into()));
        }
        let mut source = UploadSource::new(self, claim, body, declared, limit, hasher);
        let is_empty = source.is_empty().await.map_err(|error| failed(error.into()))?;
        if is_empty && !(last && claim.progress == Progress::default()) {
            let (_, hasher) = source.into_parts();
            return Ok(StoredBody {
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
        let appended = appended.map_err(failed)?;
        let (received, hasher) = source.into_parts();
        let progress = Progress {
            offset: offset + received,
            hash: hasher.save(),
            store: appended.state,
            parts: claim.progress.parts,
        };
        Ok(StoredBody {
            progress,
            part: appended.part,
            hasher,
        })
    }
}

/// The effect of a failed body on its upload, which has `offset` stored bytes. [`Error::of_body`] maps every way in
/// which a body can fail. This adds the upload's position, and whether a write may still be in flight.
fn failure(session: &OpenSession, offset: u64, error: AppendError) -> BodyFailure {
    let (error, write_in_flight) = match error {
        AppendError::Body(error) => (error, false),
        AppendError::WriteInFlight(error) => (error, true),
        AppendError::Store(error) => (BodyError::Store(error), true),
    };
    BodyFailure {
        error: Error::of_body(error, session.position(offset).ok()),
        write_in_flight,
    }
}
