//! `/token` and `/.well-known/jwks.json`: the form of requests for tokens, and of the answers.

use std::str;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, Method, Response};
use serde_json::json;

use super::receive::ReceivedBody;
use crate::auth::{Credentials, Origin};
use crate::body::{RequestBody, ResponseBody};
use crate::call::Call;
use crate::error::Error;
use crate::response;
use crate::token_endpoint::{EncodedTokenRequest, TokenEndpoint, TokenResponse};

/// The media type of the form of a POST.
const FORM: &str = "application/x-www-form-urlencoded";

impl Call<'_> {
    /// GET or POST `/token`. Returns what was granted too, for the log. The credentials of the request are checked by the
    /// endpoint only.
    pub(crate) async fn issue_token(
        &self,
        origin: &Origin,
        head: &Parts,
        body: RequestBody,
    ) -> Result<(TokenResponse, Response<ResponseBody>), Error> {
        let endpoint = self.endpoint()?;
        let credentials = Credentials::from_headers(&head.headers);
        let granted = if head.method == Method::POST {
            check_type(&head.headers)?;
            let limit = self.settings.limits.token_form_bytes;
            let received = self.receive(&head.headers, body, limit, Error::TokenFormTooLarge { limit });
            let ReceivedBody { bytes, memory: _held } = received.await?;
            let text =
                str::from_utf8(&bytes).map_err(|_| Error::TokenRequestInvalid("the form is not UTF-8".into()))?;
            endpoint
                .token(origin, &credentials, EncodedTokenRequest::Body(text))
                .await?
        } else {
            let query = EncodedTokenRequest::Query(head.uri.query().unwrap_or_default());
            endpoint.token(origin, &credentials, query).await?
        };
        let response = response::json("application/json", answer(&granted).into());
        Ok((granted, response))
    }

    /// GET `/.well-known/jwks.json`. It is not cached (`no-store`, as every answer without a rule of its own): a new key
    /// signs soon after it is published.
    pub(crate) async fn get_key_set(&self) -> Result<Response<ResponseBody>, Error> {
        Ok(response::json("application/json", self.endpoint()?.key_set().await?))
    }

    fn endpoint(&self) -> Result<&Arc<dyn TokenEndpoint>, Error> {
        self.token_endpoint.as_ref().ok_or(Error::NoSuchEndpoint)
    }
}

/// Checks that a POST has a form; parameters of the media type are ignored.
fn check_type(headers: &HeaderMap) -> Result<(), Error> {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    if essence.trim().eq_ignore_ascii_case(FORM) {
        Ok(())
    } else {
        Err(Error::TokenRequestInvalid(
            format!("a POST needs a form, with the Content-Type {FORM}").into(),
        ))
    }
}

/// The answer, for clients of both specifications: distribution's reads `token`, `OAuth2`'s reads `access_token` and
/// requires `token_type` (RFC 6749, 5.1).
fn answer(granted: &TokenResponse) -> String {
    let TokenResponse {
        principal: _,
        credential: _,
        token,
        expires_in,
        scope,
        refresh_token,
    } = granted;
    let mut answer = json!({
        "token": token,
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": expires_in,
        "scope": scope,
    });
    if let Some(refresh_token) = refresh_token {
        answer["refresh_token"] = json!(refresh_token);
    }
    answer.to_string()
}
