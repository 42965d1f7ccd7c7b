//! `/api/v1/`: the form of requests to the API, and of the answers.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, ETAG, IF_MATCH, WARNING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::api_repositories::CallerRepositories;
use super::catalog::INCOMPLETE;
use super::receive::ReceivedBody;
use crate::access::Access;
use crate::api_endpoint::{
    ApiBody, ApiBodyKind, ApiCaller, ApiCondition, ApiEndpoint, ApiRefusal, ApiRequest, ApiRoute, ApiSuccess,
};
use crate::auth::{AuthenticationError, Credentials, Origin};
use crate::body::{RequestBody, ResponseBody};
use crate::call::Call;
use crate::error::Error;
use crate::overload::Overload;
use crate::response;

const JSON: &str = "application/json";
const TOML: &str = "application/toml";

impl From<ApiRefusal> for Error {
    fn from(refusal: ApiRefusal) -> Self {
        match refusal {
            ApiRefusal::Invalid { message, detail } => Self::ApiInvalid { message, detail },
            ApiRefusal::Unknown => Self::ApiUnknown,
            ApiRefusal::Denied(text) => Self::ApiDenied(text),
            ApiRefusal::Conflict(text) => Self::ApiConflict(text),
            ApiRefusal::Changed => Self::ApiChanged,
            ApiRefusal::TooManyAttempts { retry_after } => Self::TooManyAttempts { retry_after },
            ApiRefusal::TooManyChanges { retry_after } => Self::TooManyChanges { retry_after },
            ApiRefusal::TooManyRequests => Self::TooManyRequests(Overload::Passwords),
            ApiRefusal::InRepository(refusal) => refusal.into(),
            ApiRefusal::Failed(error) => Self::Store(error),
        }
    }
}

impl Call<'_> {
    /// Who asks for something in the API.
    pub(crate) async fn api_caller(
        &self,
        route: &ApiRoute,
        origin: &Origin,
        headers: &HeaderMap,
    ) -> Result<ApiCaller, AuthenticationError> {
        let Some(endpoint) = &self.api_endpoint else {
            return Err(AuthenticationError::Unauthenticated);
        };
        let credentials = Credentials::from_headers(headers);
        endpoint.caller(origin, &credentials, route.operation()).await
    }

    /// Performs a request of a caller that may use the route. A request of the wrong form is refused before its body is read,
    /// and a body that is too large before the endpoint is asked. No answer is cached (`no-store`, as every answer without a
    /// rule of its own).
    pub(crate) async fn perform_api(
        &self,
        caller: &ApiCaller,
        route: &ApiRoute,
        access: &Access<'_>,
        head: &Parts,
        body: RequestBody,
    ) -> Result<Response<ResponseBody>, Error> {
        let (endpoint, headers) = (self.endpoint_of_api()?, &head.headers);
        let operation = route.operation();
        let is_toml = check_type(operation.body(), headers)?;
        let condition = if operation.is_conditional() {
            Some(condition(headers).ok_or(Error::PreconditionRequired)?)
        } else {
            None
        };
        let received = match operation.body() {
            ApiBodyKind::None => None,
            ApiBodyKind::Json | ApiBodyKind::Policy => {
                let limit = self.settings.limits.api_body_bytes;
                Some(
                    self.receive(headers, body, limit, Error::ApiBodyTooLarge { limit })
                        .await?,
                )
            }
        };
        let (body, _held) = match received {
            None => (ApiBody::None, None),
            Some(ReceivedBody { bytes, memory }) if is_toml => (ApiBody::Toml(bytes), Some(memory)),
            Some(ReceivedBody { bytes, memory }) => (ApiBody::Json(bytes), Some(memory)),
        };
        // A body may have arrived slowly, and the caller may have lost its rights meanwhile.
        let has_arrived = operation.body() != ApiBodyKind::None;
        let renewed = if has_arrived && access.is_old(caller.identity.state_read()) {
            let caller = Box::pin(self.api_caller(route, access.origin(), headers)).await;
            Some(access.check_api(caller, route)?)
        } else {
            None
        };
        let caller = renewed.as_ref().unwrap_or(caller);
        let repositories = CallerRepositories::new(self, access, &caller.identity);
        let request = ApiRequest {
            caller,
            origin: access.origin(),
            id: self.request_id(),
            route,
            query: head.uri.query().unwrap_or_default(),
            condition: condition.as_ref(),
            body,
            repositories: &repositories,
        };
        let answer = endpoint.perform(request).await?;
        let mut response = match answer.success {
            ApiSuccess::Removed => response::empty(StatusCode::NO_CONTENT),
            ApiSuccess::Done | ApiSuccess::Created => {
                let memory = self.memory(answer.body.len()).await?;
                response::json(JSON, answer.body).map(|body| body.with_memory(Some(memory)))
            }
        };
        if answer.success == ApiSuccess::Created {
            *response.status_mut() = StatusCode::CREATED;
        }
        if let Some(version) = answer.version {
            response::insert(response.headers_mut(), ETAG, &format!("\"{version}\""));
        }
        if answer.is_incomplete {
            response.headers_mut().insert(WARNING, INCOMPLETE);
        }
        Ok(response)
    }

    /// The `OpenAPI` document.
    pub(crate) fn get_api_document(&self) -> Result<Response<ResponseBody>, Error> {
        Ok(response::json(JSON, self.endpoint_of_api()?.document()))
    }

    fn endpoint_of_api(&self) -> Result<&Arc<dyn ApiEndpoint>, Error> {
        self.api_endpoint.as_ref().ok_or(Error::NoSuchEndpoint)
    }
}

/// Checks the media type of a body; its parameters are ignored. A browser asks before it sends one of these types to another
/// site, so no page of another site can send such a request. Returns whether the body is TOML.
fn check_type(kind: ApiBodyKind, headers: &HeaderMap) -> Result<bool, Error> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let value = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().unwrap_or_default(),
        _ => "",
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    let is = |name: &str| essence.eq_ignore_ascii_case(name);
    let expected = match kind {
        ApiBodyKind::None => return Ok(false),
        ApiBodyKind::Json => JSON,
        ApiBodyKind::Policy if is(TOML) => return Ok(true),
        ApiBodyKind::Policy => "application/json or application/toml",
    };
    if is(JSON) {
        Ok(false)
    } else {
        Err(Error::ApiContentType { expected })
    }
}

/// The `If-Match` of a request; strong comparison, so weak tags are left out.
fn condition(headers: &HeaderMap) -> Option<ApiCondition> {
    if !headers.contains_key(IF_MATCH) {
        return None;
    }
    let lines = headers.get_all(IF_MATCH).iter();
    let texts = lines.filter_map(|value: &HeaderValue| value.to_str().ok());
    let mut versions = Vec::new();
    for tag in texts.flat_map(|text| text.split(',')).map(str::trim) {
        if tag == "*" {
            return Some(ApiCondition::Any);
        }
        let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
        versions.extend(version.map(str::to_owned));
    }
    Some(ApiCondition::Versions(versions))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_strong() {
        for (lines, expected) in [
            (&[][..], None),
            (&["*"], Some(ApiCondition::Any)),
            (&["\"1\", *"], Some(ApiCondition::Any)),
            (&["\"1\""], Some(ApiCondition::Versions(vec!["1".into()]))),
            (
                &["\"1\" ,\"2\"", "\"3\""],
                Some(ApiCondition::Versions(vec!["1".into(), "2".into(), "3".into()])),
            ),
            (&["W/\"1\"", "2", ""], Some(ApiCondition::Versions(Vec::new()))),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(IF_MATCH, line.parse().unwrap());
            }
            assert_eq!(condition(&headers), expected, "{lines:?}");
        }
        assert!(!ApiCondition::Versions(Vec::new()).allows(""));
        assert!(ApiCondition::Versions(vec!["1".into()]).allows("1"));
    }

    #[test]
    fn only_types_that_a_browser_asks_for_are_accepted() {
        for (value, json, policy) in [
            (None, None, None),
            (Some("application/json"), Some(false), Some(false)),
            (Some("Application/JSON ; charset=utf-8"), Some(false), Some(false)),
            (Some("application/toml"), None, Some(true)),
            (Some("text/plain"), None, None),
            (Some("text/plain; x=application/json"), None, None),
            (Some("application/x-www-form-urlencoded"), None, None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(CONTENT_TYPE, value.parse().unwrap());
            }
            assert_eq!(check_type(ApiBodyKind::Json, &headers).ok(), json, "{value:?}");
            assert_eq!(check_type(ApiBodyKind::Policy, &headers).ok(), policy, "{value:?}");
            assert_eq!(check_type(ApiBodyKind::None, &headers).ok(), Some(false));
        }
        let mut twice = HeaderMap::new();
        for _ in 0..2 {
            twice.append(CONTENT_TYPE, "application/json".parse().unwrap());
        }
        assert!(check_type(ApiBodyKind::Json, &twice).is_err());
    }
}
