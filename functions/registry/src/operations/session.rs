//! The upload that a request names, and its state in responses.

use http::{HeaderValue, Response, StatusCode};

use crate::auth::{Permit, Principal, Push};
use crate::body::ResponseBody;
use crate::error::Error;
use crate::response::{self, UploadPosition};
use crate::store::sessions::{Session, SessionId};
use crate::store::{StoreError, Timestamp};
use crate::token::UploadToken;

/// The maximum value of `Retry-After`, in seconds.
const MAX_RETRY_AFTER: u64 = 5;

/// The upload of a verified token.
pub(crate) struct OpenSession {
    pub(super) token: UploadToken,
    location: HeaderValue,
    uuid: HeaderValue,
}

impl OpenSession {
    /// `text` is the token as it was signed for the permit's repository.
    pub(crate) fn new(permit: &Permit<Push>, token: UploadToken, text: &str) -> Result<Self, Error> {
        let location = header(&format!("/v2/{}/blobs/uploads/{text}", permit.repository()))?;
        let uuid = header(&uuid(token.session.id))?;
        Ok(Self { token, location, uuid })
    }

    pub(crate) fn principal(&self) -> &Principal {
        &self.token.principal
    }

    /// The position of the upload. `Range` is inclusive and never empty: without stored bytes it looks like one byte,
    /// because clients take an end before the start for an error.
    pub(super) fn position(&self, offset: u64) -> Result<UploadPosition, Error> {
        let range = header(&format!("0-{}", offset.saturating_sub(1)))?;
        Ok(UploadPosition {
            location: self.location.clone(),
            range,
            uuid: self.uuid.clone(),
        })
    }

    pub(super) fn refused(&self, offset: u64) -> Error {
        match self.position(offset) {
            Ok(position) => Error::UploadRange(Box::new(position)),
            Err(error) => error,
        }
    }

    /// The error for a session that another request has claimed, with its row `row`.
    pub(super) fn busy(&self, row: &Session, now: Timestamp, is_last: bool) -> Error {
        // A claim that is renewed ends with its request. The claim of a crashed request ends when it expires.
        let left = row.claimed_until.map_or(0, |until| until.millis_since(now));
        match self.position(row.progress.offset) {
            Ok(position) => Error::UploadBusy {
                position: Box::new(position),
                retry_after: left.div_ceil(1000).clamp(1, MAX_RETRY_AFTER),
                is_last,
            },
            Err(error) => error,
        }
    }

    pub(super) fn answer(&self, status: StatusCode, offset: u64) -> Result<Response<ResponseBody>, Error> {
        let mut response = response::empty(status);
        self.position(offset)?.write(response.headers_mut());
        Ok(response)
    }
}

fn header(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|error| StoreError::failed(error).into())
}

/// The id of a session, in the form that clients expect.
fn uuid(id: SessionId) -> String {
    let hex = id.to_string();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
