//! The chunks of an upload, and its status: end-5 (`PATCH <location>`) and end-13 (`GET <location>`).
//!
//! A chunk is stored as a whole or not at all. A refused chunk leaves the session unchanged, and the response (416)
//! contains the current offset, so that the client can continue from there.

use http::{HeaderMap, Response, StatusCode};

use super::body_head::{declared_chunk, expected, has_no_bytes, is_empty};
use super::session::OpenSession;
use super::source::resume;
use super::store_body::StoredBody;
use crate::body::{RequestBody, ResponseBody};
use crate::call::Call;
use crate::error::Error;
use crate::store::sessions::{Claimed, Session};

impl Call<'_> {
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
            Err(failure) => return Err(self.fail(&session, &claim, failure).await),
            Ok(StoredBody {
                progress, part: None, ..
            }) if progress == claim.progress => {
                // An empty chunk changes nothing.
                self.release(&claim).await?;
                progress.offset
            }
            Ok(StoredBody { progress, part, .. }) => {
                let offset = progress.offset;
                match self.save(&claim, progress, part).await {
                    Ok(()) => {}
                    Err(Error::ClaimLost) => return Err(self.fail(&session, &claim, Error::ClaimLost.into()).await),
                    // The body may have been saved; only the row can tell. The claim expires by itself.
                    Err(error) => return Err(error),
                }
                offset
            }
        };
        session.answer(StatusCode::ACCEPTED, offset)
    }

    /// A chunk that is declared empty. It needs no claim. It is refused in the same cases as a chunk with bytes.
    pub(super) async fn empty_chunk(
        &self,
        session: OpenSession,
        headers: &HeaderMap,
        body: RequestBody,
    ) -> Result<Response<ResponseBody>, Error> {
        let cx = self.cx();
        let row = self.stores.sessions.get(cx, session.token.session).await?;
        let row = row.as_ref();
        let takes_chunks = |row: &Session| row.is_open() && resume(&row.progress, session.token.algorithm).is_some();
        if !row.is_none_or(takes_chunks) {
            return Err(Error::UploadUnknown);
        }
        let offset = row.map_or(0, |row| row.progress.offset);
        if let Some(row) = row
            && row.is_claimed(cx.now)
        {
            return Err(session.busy(row, cx.now, false));
        }
        let in_place = matches!(declared_chunk(headers, offset), Ok(None | Some(0)));
        if !in_place || !has_no_bytes(body).await? {
            return Err(session.refused(offset));
        }
        session.answer(StatusCode::ACCEPTED, offset)
    }

    /// end-13. A token without a row is a session without stored bytes.
    pub(crate) async fn get_upload(&self, session: OpenSession) -> Result<Response<ResponseBody>, Error> {
        match self.stores.sessions.get(self.cx(), session.token.session).await? {
            None => session.answer(StatusCode::NO_CONTENT, 0),
            Some(row) if row.is_open() && resume(&row.progress, session.token.algorithm).is_some() => {
                session.answer(StatusCode::NO_CONTENT, row.progress.offset)
            }
            Some(_) => Err(Error::UploadUnknown),
        }
    }
}
