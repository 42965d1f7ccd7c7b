//! The HTTP API: every operation, over [`AccountAuthenticator`] and [`Administration`]. So a change is the same whether a
//! command or a request makes it.
//!
//! Read in this order:
//!
//! 1. This file: the parts, and which function performs which operation. The core has decided before that the caller may use
//!    the route.
//! 2. `types`: the bodies of requests and answers. `schema`: each type describes itself, and `time` is how they write times.
//!    `document`: the `OpenAPI` document, made of the operations of the core and these types.
//! 3. `accounts`, `keys`, `policies`, `repositories`, `records`: the operations. Those in repositories are the core's, with its
//!    permissions. `names`: manifests, tags and versions as texts. `query` reads what lists are asked for, and `refusal` says
//!    what a change that is not made means for a client. `own_changes`: how often an account may change itself.

mod accounts;
mod document;
mod keys;
mod names;
mod own_changes;
mod policies;
mod query;
mod records;
mod refusal;
mod repositories;
mod schema;
#[cfg(test)]
mod tests;
mod time;
mod types;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::lock::Mutex;
use registry::api_endpoint::{
    ApiBody, ApiCaller, ApiCondition, ApiEndpoint, ApiOperation, ApiRefusal, ApiRequest, ApiResponse, ApiRoute,
    ApiSuccess,
};
use registry::auth::{AuthenticationError, Credentials, Origin};
use registry::budget::ClientKey;
use registry::environment::{Environment, context};
use registry::store::Context;
use registry::store::access::AccessStore;
use registry::store::metadata::MetadataStore;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::own_changes::OwnChanges;
use crate::accounts::AccountAuthenticator;
use crate::administration::{Administration, Author};

/// The maximum time of each call of a store, in milliseconds.
const STORE_MS: u64 = 10_000;

/// What an [`Api`] stands on.
#[derive(Clone)]
pub struct ApiParts {
    /// Who requests come from.
    pub authenticator: Arc<AccountAuthenticator>,
    /// Accounts, the policy, the audit trail and signing keys.
    pub access: Arc<dyn AccessStore>,
    /// The tags, which questions about the policy may name.
    pub metadata: Arc<dyn MetadataStore>,
    /// Time and randomness.
    pub environment: Arc<dyn Environment>,
}

/// The API: an [`ApiEndpoint`].
pub struct Api {
    authenticator: Arc<AccountAuthenticator>,
    administration: Administration,
    access: Arc<dyn AccessStore>,
    metadata: Arc<dyn MetadataStore>,
    environment: Arc<dyn Environment>,
    own_changes: OwnChanges,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// Reads nothing yet.
    #[must_use]
    pub fn new(parts: ApiParts) -> Self {
        let ApiParts {
            authenticator,
            access,
            metadata,
            environment,
        } = parts;
        Self {
            authenticator,
            administration: Administration::new(access.clone(), environment.clone(), STORE_MS),
            access,
            metadata,
            environment,
            own_changes: OwnChanges::default(),
        }
    }

    fn cx(&self) -> Context {
        context(&*self.environment, ClientKey::INTERNAL, STORE_MS)
    }

    /// Makes a conditional change. `attempt` reads the version that it changes, and changes no other one. If the client accepts
    /// any version, the change is made again, of the next one, when another change came first.
    async fn conditional<F>(
        &self,
        request: &ApiRequest<'_>,
        attempt: impl FnMut() -> F + Send,
    ) -> Result<ApiResponse, ApiRefusal>
    where
        F: Future<Output = Result<ApiResponse, ApiRefusal>> + Send,
    {
        let accepts_any = request.condition == Some(&ApiCondition::Any);
        let is_lost = |refusal: &ApiRefusal| accepts_any && matches!(refusal, ApiRefusal::Changed);
        match self.administration.again_while(is_lost, attempt).await {
            Err(ApiRefusal::Changed) if accepts_any => Err(refusal::conflict()),
            result => result,
        }
    }
}

#[async_trait]
impl ApiEndpoint for Api {
    async fn caller(
        &self,
        origin: &Origin,
        credentials: &Credentials,
        operation: ApiOperation,
    ) -> Result<ApiCaller, AuthenticationError> {
        if operation == ApiOperation::CreateAccount
            && let Some(bootstrap) = self.authenticator.bootstrap_caller(credentials).await?
        {
            return Ok(bootstrap);
        }
        self.authenticator.api_caller(origin, credentials).await
    }

    async fn perform(&self, request: ApiRequest<'_>) -> Result<ApiResponse, ApiRefusal> {
        let request = &request;
        self.own_changes.count(request, self.environment.now())?;
        match request.route {
            ApiRoute::GetIdentity => Ok(records::identity(request)),
            ApiRoute::Explain => self.explain(request).await,
            ApiRoute::ListAccounts => self.list_accounts(request).await,
            ApiRoute::CreateAccount => self.create_account(request).await,
            ApiRoute::GetAccount { account } => self.get_account(account).await,
            ApiRoute::ChangeAccount { account } => {
                self.conditional(request, || self.change_account(request, account))
                    .await
            }
            ApiRoute::RemoveAccount { account } => {
                self.conditional(request, || self.remove_account(request, account))
                    .await
            }
            ApiRoute::SetPassword { account } => {
                let hashed = Mutex::default();
                self.conditional(request, || self.set_password(request, account, &hashed))
                    .await
            }
            ApiRoute::ListKeys { account } => self.list_keys(account).await,
            ApiRoute::CreateKey { account } => self.create_key(request, account).await,
            ApiRoute::ChangeKey { account, key } => {
                self.conditional(request, || self.change_key(request, account, *key))
                    .await
            }
            ApiRoute::RemoveKey { account, key } => self.remove_key(request, account, *key).await,
            ApiRoute::RotateKey { account, key } => self.rotate_key(request, account, *key).await,
            ApiRoute::GetPolicy => self.get_policy().await,
            ApiRoute::SetPolicy => self.conditional(request, || self.set_policy(request)).await,
            ApiRoute::CheckPolicy => self.check_policy(request).await,
            ApiRoute::ListPolicyVersions => self.list_policy_versions(request).await,
            ApiRoute::GetPolicyVersion { version } => self.get_policy_version(*version).await,
            ApiRoute::SearchRepositories => repositories::search(request).await,
            ApiRoute::CreateRepository => repositories::create(request).await,
            ApiRoute::DescribeTags => repositories::tags(request).await,
            ApiRoute::GetTagHistory => repositories::history(request).await,
            ApiRoute::RollBackTag => repositories::roll_back(request).await,
            ApiRoute::PromoteTag => repositories::promote(request).await,
            ApiRoute::ListAuditEvents => self.list_audit_events(request).await,
            ApiRoute::ListSigningKeys => self.list_signing_keys().await,
            ApiRoute::RotateSigningKeys => self.rotate_signing_keys(request).await,
            ApiRoute::GetApiDocument => Ok(ApiResponse {
                success: ApiSuccess::Done,
                body: self.document(),
                version: None,
                is_incomplete: false,
            }),
        }
    }

    fn document(&self) -> Bytes {
        document::text()
    }
}

/// Who makes the change of a request: what the audit trail says.
fn author(request: &ApiRequest<'_>) -> Author {
    let identity = &request.caller.identity;
    Author {
        credential: identity.credential(),
        address: request.origin.address.map(|address| address.to_string()),
        request: request.id.map(|id| id.to_string()),
        ..Author::new(identity.principal().as_str())
    }
}

/// The body of a request, as JSON of this type.
fn read<T: DeserializeOwned>(request: &ApiRequest<'_>) -> Result<T, ApiRefusal> {
    let ApiBody::Json(bytes) = &request.body else {
        return Err(refusal::invalid("the request needs a body in JSON"));
    };
    serde_json::from_slice(bytes)
        .map_err(|error| refusal::invalid(format!("the body is not what this operation reads: {}", place(&error))))
}

/// What is wrong with a body, without its values: they may be secrets.
fn place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let at = format!("line {}, column {}", error.line(), error.column());
    let known = ["missing field", "unknown field", "duplicate field"];
    if known.iter().any(|known| text.starts_with(known)) {
        text
    } else {
        format!("a value has the wrong type or form at {at}")
    }
}

/// An answer in JSON.
fn answer(success: ApiSuccess, body: &impl Serialize, version: Option<String>) -> ApiResponse {
    ApiResponse {
        success,
        // Serializing texts and numbers into memory does not fail.
        body: serde_json::to_vec(body).unwrap_or_default().into(),
        version,
        is_incomplete: false,
    }
}

/// 200 with JSON.
fn shown(body: &impl Serialize) -> ApiResponse {
    answer(ApiSuccess::Done, body, None)
}

/// 204
fn removed() -> ApiResponse {
    ApiResponse {
        success: ApiSuccess::Removed,
        body: Bytes::new(),
        version: None,
        is_incomplete: false,
    }
}
