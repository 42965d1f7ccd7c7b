//! An API that only does in repositories what a request asks for, for the users of an authenticator.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Reference, RepositoryName, Tag};
use registry::Authenticator;
use registry::api_endpoint::{
    ApiBody, ApiCaller, ApiEndpoint, ApiOperation, ApiPromotion, ApiRefusal, ApiRequest, ApiResponse, ApiSuccess,
};
use registry::auth::{AccountName, AuthenticationError, Credentials, GroupName, Origin};
use registry::releases::Earlier;
use serde_json::{Value, json};

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
        if let Some(refusal) = (self.refuse)() {
            return Err(refusal);
        }
        Ok(ApiResponse {
            success: ApiSuccess::Done,
            body: in_repositories(&request).await?.to_string().into(),
            version: Some("7".to_owned()),
            is_incomplete: false,
        })
    }

    fn document(&self) -> Bytes {
        DOCUMENT.into()
    }
}

/// The name of a repository and a reference in it.
fn named<T: std::str::FromStr>(text: &str) -> Option<(RepositoryName, T)> {
    let (repository, reference) = text.split_once(':')?;
    Some((repository.parse().ok()?, reference.parse().ok()?))
}

/// Does what the request asks for in repositories, as far as it names them. The answer has the names that it shows.
async fn in_repositories(request: &ApiRequest<'_>) -> Result<Value, ApiRefusal> {
    let repositories = request.repositories;
    let parameter = |name: &str| {
        let mut all = form_urlencoded::parse(request.query.as_bytes());
        all.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    };
    let name = |name: &str| parameter(name).and_then(|text| text.parse::<RepositoryName>().ok());
    let body = match &request.body {
        ApiBody::Json(bytes) => serde_json::from_slice(bytes).unwrap_or_default(),
        ApiBody::None | ApiBody::Toml(_) => Value::Null,
    };
    let member = |name: &str| body[name].as_str().unwrap_or_default();
    let texts = |items: Vec<String>| json!({ "items": items });
    match request.route.operation() {
        ApiOperation::SearchRepositories => {
            let page = repositories
                .search(&parameter("prefix").unwrap_or_default(), None, 100)
                .await?;
            return Ok(texts(page.items.iter().map(ToString::to_string).collect()));
        }
        ApiOperation::CreateRepository => {
            if let Some(repository) = name("name") {
                repositories.create(&repository).await?;
            }
        }
        ApiOperation::DescribeTags => {
            if let Some(repository) = name("repository") {
                let page = repositories.tags(&repository, None, 100).await?;
                return Ok(texts(page.items.iter().map(|item| item.tag.to_string()).collect()));
            }
        }
        ApiOperation::GetTagHistory => {
            let tag = parameter("tag").and_then(|text| text.parse::<Tag>().ok());
            if let (Some(repository), Some(tag)) = (name("repository"), tag) {
                let page = repositories.history(&repository, &tag, None, 100).await?;
                return Ok(texts(page.items.iter().map(|item| item.principal.clone()).collect()));
            }
        }
        ApiOperation::RollBackTag => {
            if let (Some((repository, tag)), Ok(digest)) = (named::<Tag>(member("tag")), member("to").parse()) {
                repositories
                    .roll_back(&repository, &tag, Earlier::Digest(digest))
                    .await?;
            }
        }
        ApiOperation::PromoteTag => {
            let (from, to) = (named::<Reference>(member("from")), named::<Tag>(member("to")));
            if let (Some((source, reference)), Some((target, tag))) = (from, to) {
                let promotion = ApiPromotion {
                    source,
                    reference,
                    target,
                    tag,
                    with_referrers: true,
                };
                repositories.promote(&promotion).await?;
            }
        }
        _ => {}
    }
    Ok(json!({}))
}
