//! Opens uploads (`POST /v2/<name>/blobs/uploads/`): end-4a without a parameter, end-4b with `digest`, end-4c with
//! `digest-algorithm`, and end-11 with `mount`.

use http::{HeaderMap, HeaderName, Response, StatusCode};
use http_body::Body as _;
use oci::{Algorithm, Digest};

use super::body_head::peek;
use super::session::FinalSession;
use crate::access::Access;
use crate::auth::{Permit, Push};
use crate::body::{RequestBody, ResponseBody};
use crate::call::Call;
use crate::error::Error;
use crate::query::OpenUpload;
use crate::response;

const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

impl Call<'_> {
    /// end-4a, end-4b, end-4c, end-11. Opening a session writes nothing: the session is only its token.
    pub(crate) async fn open_upload(
        &self,
        permit: Permit<Push>,
        open: OpenUpload,
        access: &Access<'_>,
        headers: &HeaderMap,
        body: RequestBody,
    ) -> Result<Response<ResponseBody>, Error> {
        self.check_created(&permit).await?;
        let algorithm = match open {
            OpenUpload::Session(algorithm) => algorithm,
            OpenUpload::Monolithic(digest) => {
                // Some clients send the digest when they open a session. The specification allows a session as the
                // answer to every such POST, and distribution v3 does that. Here only a POST that cannot contain the
                // whole blob gets a session.
                let body = peek(headers, body).await?;
                if !body.is_end_stream() || digest == Digest::of(digest.algorithm(), b"") {
                    let session = self.new_session(permit, digest.algorithm()).await?;
                    return self.finish_upload(session, digest, access, headers, body).await;
                }
                digest.algorithm()
            }
            OpenUpload::Mount { digest, from } => {
                if self.mount(&permit, &digest, from).await? {
                    return Ok(response::created(permit.repository(), "blobs", &digest));
                }
                digest.algorithm()
            }
        };
        let session = self.new_session(permit, algorithm).await?;
        let mut response = session.answer(StatusCode::ACCEPTED, 0)?;
        response
            .headers_mut()
            .insert(CHUNK_MIN_LENGTH, self.settings.limits.chunk_min_bytes.into());
        Ok(response)
    }

    async fn new_session(&self, permit: Permit<Push>, algorithm: Algorithm) -> Result<FinalSession, Error> {
        let key = self.new_session_key();
        FinalSession::open(permit, key, algorithm, self.tokens().await?)
    }
}
