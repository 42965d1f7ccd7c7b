//! An API that does nothing, for the users of an authenticator.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use registry::Authenticator;
use registry::api_endpoint::{
    ApiBody, ApiCaller, ApiEndpoint, ApiOperation, ApiRefusal, ApiRequest, ApiResponse, ApiSuccess,
};
use registry::auth::{AccountName, AuthenticationError, Credentials, GroupName, Origin};

/// The document of [`TestApi`].
pub(crate) const DOCUMENT: &str = r#"{"openapi":"3.1.0"}"#;

/// The users that are administrators.
const ADMINS: [&str; 3] = ["admin", "alice", "bob"];

/// The API. It keeps what it was asked.
pub(crate) struct TestApi {
    authenticator: Arc<dyn Authenticator>,
    refuse: fn() -> Option<ApiRefusal>,
    asked: Mutex<Vec<String>>,
}

impl TestApi {
    pub(crate) fn new(authenticator: Arc<dyn Authenticator>) -> Self {
        Self {
            authenticator,
            refuse: || None,
            asked: Mutex::default(),
        }
    }

    /// An API that refuses every request.
    pub(crate) fn refusing(authenticator: Arc<dyn Authenticator>, refuse: fn() -> Option<ApiRefusal>) -> Self {
        Self {
            refuse,
            ..Self::new(authenticator)
        }
    }

    /// What was asked since the last call: the operation, the query, and the kind of the body with its length.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().expect("not poisoned"))
    }
}

#[async_trait]
impl ApiEndpoint for TestApi {
    async fn caller(
        &self,
        origin: &Origin,
        credentials: &Credentials,
        _: ApiOperation,
    ) -> Result<ApiCaller, AuthenticationError> {
        let identity = self.authenticator.authenticate(origin, credentials).await?;
        let account = identity
            .principal()
            .name()
            .and_then(|name| name.parse::<AccountName>().ok());
        let is_admin = account.as_ref().is_some_and(|name| ADMINS.contains(&name.as_str()));
        let admins: GroupName = GroupName::ADMINS.parse().expect("a legal name");
        Ok(ApiCaller {
            account,
            groups: is_admin.then_some(admins).into_iter().collect(),
            ..ApiCaller::without_account(identity)
        })
    }

    async fn perform(&self, request: ApiRequest<'_>) -> Result<ApiResponse, ApiRefusal> {
        let length = match &request.body {
            ApiBody::None => 0,
            ApiBody::Json(bytes) | ApiBody::Toml(bytes) => bytes.len(),
        };
        let operation = request.route.operation().as_str();
        let asked = format!("{operation} {:?} {:?} {length}", request.query, request.body);
        self.asked.lock().expect("not poisoned").push(asked);
        match (self.refuse)() {
            Some(refusal) => Err(refusal),
            None => Ok(ApiResponse {
                success: ApiSuccess::Done,
                body: "{}".into(),
                version: Some("7".to_owned()),
            }),
        }
    }

    fn document(&self) -> Bytes {
        DOCUMENT.into()
    }
}
