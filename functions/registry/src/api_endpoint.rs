//! The contract of the API at `/api/v1`: accounts, keys, the policy, repositories with their tags, the audit trail and signing
//! keys.
//!
//! The core knows the routes, who may use each of them, the limits and the form of the answers. What a request changes is
//! known to the implementation alone. For repositories and tags the core offers the implementation its own operations
//! ([`ApiRepositories`]), which ask the permissions of the caller as requests of the protocol do.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Reference, RepositoryName, Tag};
use serde_json::Value;

pub use crate::route::api::{ApiBodyKind, ApiOperation, ApiRoute};

use crate::auth::{AccountName, AuthenticationError, Credentials, GroupName, Identity, Origin};
use crate::cause::Cause;
use crate::error::Error;
use crate::releases::{Earlier, Promoted, RolledBack};
use crate::request_id::RequestId;
use crate::store::metadata::{HistoryRecord, TagRecord};
use crate::store::{Reason, StoreError};

/// Who uses the API.
#[derive(Clone, Debug)]
pub struct ApiCaller {
    /// Its identity.
    pub identity: Identity,
    /// The account that proved the identity. `None` for clients without one: anonymous ones, workloads, and users of a
    /// htpasswd file, also if an account has their name.
    pub account: Option<AccountName>,
    /// The groups of the account.
    pub groups: BTreeSet<GroupName>,
    /// Whether its credentials are good for the API.
    pub scope: ApiScope,
    /// Whether it has only proved that it knows the bootstrap secret.
    pub is_bootstrap: bool,
}

/// Whether credentials are good for the API.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApiScope {
    /// They are: a password, a key without a scope, or a token for `registry:api:*`.
    Contained,
    /// Not this token, but another one may be.
    Missing,
    /// The key has a scope, so neither it nor a token for it is.
    NarrowKey,
}

impl ApiCaller {
    /// A client without an account, such as an anonymous one.
    #[must_use]
    pub fn without_account(identity: Identity) -> Self {
        Self {
            identity,
            account: None,
            groups: BTreeSet::new(),
            scope: ApiScope::Contained,
            is_bootstrap: false,
        }
    }

    /// Whether it may use the whole API.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.is_in(GroupName::ADMINS)
    }

    /// Whether it may read everything in the API. Administrators may, too.
    #[must_use]
    pub fn is_auditor(&self) -> bool {
        self.is_admin() || self.is_in(GroupName::AUDITORS)
    }

    /// Whether the account is its own.
    #[must_use]
    pub fn owns(&self, account: &AccountName) -> bool {
        self.account.as_ref() == Some(account)
    }

    fn is_in(&self, name: &str) -> bool {
        self.groups.iter().any(|group| group.as_str() == name)
    }

    /// Whether it may use a route.
    ///
    /// A client that may see neither an account nor its keys gets the answer for an account that does not exist, and nothing
    /// is read for it. Rights come first: another token would not help a client that lacks them.
    pub(crate) fn decide(&self, route: &ApiRoute) -> ApiDecision {
        if self.identity.principal().is_anonymous() {
            return ApiDecision::NoLogin;
        }
        if self.is_bootstrap {
            return match route {
                ApiRoute::CreateAccount => ApiDecision::Allowed,
                _ => ApiDecision::NoLogin,
            };
        }
        let may = match right(route) {
            ApiRight::LoggedIn => true,
            ApiRight::Auditors => self.is_auditor(),
            ApiRight::Admins | ApiRight::AdminsOf(_) => self.is_admin(),
            ApiRight::OwnerOrAuditors(account) => self.is_auditor() || self.owns(account),
            ApiRight::OwnerOrAdmins(account) => self.is_admin() || self.owns(account),
        };
        if may {
            return match self.scope {
                ApiScope::Contained => ApiDecision::Allowed,
                ApiScope::Missing => ApiDecision::NoScope,
                ApiScope::NarrowKey => ApiDecision::NarrowKey,
            };
        }
        match right(route) {
            ApiRight::AdminsOf(account) | ApiRight::OwnerOrAuditors(account) | ApiRight::OwnerOrAdmins(account)
                if !self.is_auditor() && !self.owns(account) =>
            {
                ApiDecision::Hidden
            }
            _ => ApiDecision::Forbidden,
        }
    }
}

/// Who may use a route.
enum ApiRight<'a> {
    /// Every client that is logged in.
    LoggedIn,
    /// Auditors and administrators.
    Auditors,
    /// Administrators.
    Admins,
    /// Administrators. The answer to others does not say whether the account exists, unless they may see it.
    AdminsOf(&'a AccountName),
    /// The owner of the account, auditors and administrators.
    OwnerOrAuditors(&'a AccountName),
    /// The owner of the account, and administrators.
    OwnerOrAdmins(&'a AccountName),
}

fn right(route: &ApiRoute) -> ApiRight<'_> {
    match route {
        // The document is the same for everyone, and is sent before this is asked.
        // In repositories the permissions of the caller decide, when the operation asks for them.
        ApiRoute::GetIdentity
        | ApiRoute::Explain
        | ApiRoute::GetApiDocument
        | ApiRoute::SearchRepositories
        | ApiRoute::DescribeTags
        | ApiRoute::GetTagHistory
        | ApiRoute::RollBackTag
        | ApiRoute::PromoteTag => ApiRight::LoggedIn,
        ApiRoute::ListAccounts
        | ApiRoute::GetPolicy
        | ApiRoute::ListPolicyVersions
        | ApiRoute::GetPolicyVersion { .. }
        | ApiRoute::ListAuditEvents
        | ApiRoute::ListSigningKeys => ApiRight::Auditors,
        ApiRoute::CreateAccount
        | ApiRoute::SetPolicy
        | ApiRoute::CheckPolicy
        | ApiRoute::CreateRepository
        | ApiRoute::RotateSigningKeys => ApiRight::Admins,
        ApiRoute::ChangeAccount { account } | ApiRoute::RemoveAccount { account } => ApiRight::AdminsOf(account),
        ApiRoute::GetAccount { account } | ApiRoute::ListKeys { account } => ApiRight::OwnerOrAuditors(account),
        ApiRoute::SetPassword { account }
        | ApiRoute::CreateKey { account }
        | ApiRoute::ChangeKey { account, .. }
        | ApiRoute::RemoveKey { account, .. }
        | ApiRoute::RotateKey { account, .. } => ApiRight::OwnerOrAdmins(account),
    }
}

/// What is decided about a caller and a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ApiDecision {
    /// It may use the route.
    Allowed,
    /// It is not logged in.
    NoLogin,
    /// It may, with another token.
    NoScope,
    /// It may, with a key that has no scope.
    NarrowKey,
    /// It may not.
    Forbidden,
    /// It may not, and the answer does not say whether the thing exists.
    Hidden,
}

/// The condition of a change: the `If-Match` of its request (RFC 9110, 13.1.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ApiCondition {
    /// `*`: whatever version it has.
    Any,
    /// One of these versions, without their quotes. A weak one is none.
    Versions(Vec<String>),
}

impl ApiCondition {
    /// Whether the present version is one of those.
    #[must_use]
    pub fn allows(&self, version: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Versions(versions) => versions.iter().any(|allowed| allowed == version),
        }
    }
}

/// The body of a request. It may contain a password, so its `Debug` text does not show it.
#[derive(Clone, PartialEq, Eq)]
pub enum ApiBody {
    /// No body.
    None,
    /// JSON. It is not parsed yet.
    Json(Bytes),
    /// A policy in TOML. It is not parsed yet.
    Toml(Bytes),
}

impl fmt::Debug for ApiBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Json(_) => "Json",
            Self::Toml(_) => "Toml",
        })
    }
}

/// A request that is authorized.
#[derive(Clone, Debug)]
pub struct ApiRequest<'a> {
    /// Who asks.
    pub caller: &'a ApiCaller,
    /// Where the request comes from.
    pub origin: &'a Origin,
    /// Its id, for the audit trail. `None`: it changes nothing.
    pub id: Option<RequestId>,
    /// What it asks for.
    pub route: &'a ApiRoute,
    /// The query, as `application/x-www-form-urlencoded` text that is not decoded yet. Empty if there is none.
    pub query: &'a str,
    /// Which version it changes; set if the operation is conditional.
    pub condition: Option<&'a ApiCondition>,
    /// The body: what [`ApiOperation::body`] says.
    pub body: ApiBody,
    /// What the caller does in repositories.
    pub repositories: &'a dyn ApiRepositories,
}

/// A page of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiPage<T> {
    /// The items.
    pub items: Vec<T>,
    /// The position after which the next page begins; `None` after the last page.
    pub next: Option<String>,
    /// Whether the list ends here although it may go on: too many rows were read.
    pub is_incomplete: bool,
}

/// A tag, and what it names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedTag {
    /// The tag.
    pub tag: Tag,
    /// What it names, and since when.
    pub record: TagRecord,
    /// The rule of the policy by which it is frozen now; `None`: it is not frozen.
    pub frozen: Option<Arc<str>>,
}

/// A promotion that a caller of the API asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiPromotion {
    /// The repository of the source.
    pub source: RepositoryName,
    /// What is promoted.
    pub reference: Reference,
    /// The repository of the target.
    pub target: RepositoryName,
    /// The tag that names it there.
    pub tag: Tag,
    /// Whether what refers to it is promoted too, such as signatures.
    pub with_referrers: bool,
}

/// What the caller of the API does in repositories. Each operation asks for the permissions of the caller before it reads
/// anything, and its refusal is that of a request of the protocol: the same for a repository that is absent and for one in
/// which the caller may do nothing. Changes have the caller as their author.
#[async_trait]
pub trait ApiRepositories: fmt::Debug + Send + Sync {
    /// The repositories that the caller may pull, of those whose names begin with `prefix`, in ASCII order after `after`. At
    /// most `limit` (1 or more). A bounded number of rows is read, however many the caller may not see.
    async fn search(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ApiPage<RepositoryName>, ApiRefusal>;

    /// Creates an empty repository, which stays in the catalog. `true`: it was not there before. Needs the permission to push,
    /// besides the right to use the route.
    async fn create(&self, repository: &RepositoryName) -> Result<bool, ApiRefusal>;

    /// The tags of a repository in ASCII order after `after`. At most `limit` (1 or more). One read, and one for each tag.
    /// Needs the permission to pull.
    async fn tags(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ApiPage<DescribedTag>, ApiRefusal>;

    /// The changes of a tag with a version below `before`, newest first. At most `limit` (1 or more). Needs the permission to
    /// pull.
    async fn history(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        before: Option<u64>,
        limit: usize,
    ) -> Result<ApiPage<HistoryRecord>, ApiRefusal>;

    /// Makes a tag name an earlier manifest again; see [`Registry::roll_back`](crate::Registry::roll_back). Needs the
    /// permission to pull, since the result names the digest of an earlier version, and the permissions of a push of the tag.
    async fn roll_back(&self, repository: &RepositoryName, tag: &Tag, to: Earlier) -> Result<RolledBack, ApiRefusal>;

    /// Promotes a manifest; see [`Registry::promote`](crate::Registry::promote). Needs the permission to pull at the source,
    /// and the permissions of a push of the tag at the target.
    async fn promote(&self, promotion: &ApiPromotion) -> Result<Promoted, ApiRefusal>;
}

/// How a request was performed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApiSuccess {
    /// 200
    Done,
    /// 201: something was made.
    Created,
    /// 204: something was removed. The answer has no body.
    Removed,
}

impl ApiSuccess {
    /// The status.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Done => 200,
            Self::Created => 201,
            Self::Removed => 204,
        }
    }
}

/// An answer to a request that was performed. It may contain a secret that was just made, so its `Debug` text does not show
/// the body.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiResponse {
    /// How it was performed.
    pub success: ApiSuccess,
    /// JSON; empty if the answer has no body.
    pub body: Bytes,
    /// The version of what the answer shows, for the `If-Match` of a change. Sent as `ETag`.
    pub version: Option<String>,
    /// Whether the answer is a list that ends although it may go on ([`ApiPage::is_incomplete`]). Sent as `Warning`.
    pub is_incomplete: bool,
}

impl fmt::Debug for ApiResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiResponse")
            .field("success", &self.success)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// Why a request is not performed. Nothing is changed then, except after [`ApiRefusal::Failed`]. Texts are for the client.
#[derive(Debug)]
pub enum ApiRefusal {
    /// The request is malformed, or asks for what cannot be (400).
    Invalid {
        /// Why.
        message: Cow<'static, str>,
        /// What helps the client to correct it.
        detail: Option<Value>,
    },
    /// There is no such account, key or version (404).
    Unknown,
    /// The client may not do this (403).
    Denied(Cow<'static, str>),
    /// What exists contradicts the request (409).
    Conflict(Cow<'static, str>),
    /// The version is not one of those that the request changes (412).
    Changed,
    /// The client has sent too many wrong passwords, and the password was not checked (429).
    TooManyAttempts {
        /// After how many seconds to retry.
        retry_after: u64,
    },
    /// The account of the client has changed itself too often (429).
    TooManyChanges {
        /// After how many seconds to retry.
        retry_after: u64,
    },
    /// Too many other passwords wait for their check (503).
    TooManyRequests,
    /// The core refuses it in a repository, as it would refuse a request of the protocol.
    InRepository(RepositoryRefusal),
    /// The store has failed (500, 503). It may have made the change although its answer was lost.
    Failed(StoreError),
}

/// Why the core refuses something in a repository. Its answer is the core's.
#[derive(Debug)]
pub struct RepositoryRefusal(Box<Error>);

impl From<Error> for ApiRefusal {
    fn from(error: Error) -> Self {
        Self::InRepository(RepositoryRefusal(Box::new(error)))
    }
}

impl From<RepositoryRefusal> for Error {
    fn from(refusal: RepositoryRefusal) -> Self {
        *refusal.0
    }
}

impl From<StoreError> for ApiRefusal {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl From<AuthenticationError> for ApiRefusal {
    fn from(error: AuthenticationError) -> Self {
        let unavailable = |cause: Cause| Self::Failed(StoreError::because(Reason::Credentials, cause));
        match error {
            AuthenticationError::Unauthenticated | AuthenticationError::Token(_) => {
                unavailable("the credentials are not known any more".into())
            }
            AuthenticationError::TooManyAttempts { retry_after } => Self::TooManyAttempts { retry_after },
            AuthenticationError::TooManyRequests => Self::TooManyRequests,
            AuthenticationError::Unavailable(cause) => unavailable(cause),
        }
    }
}

/// Performs the operations of the API.
#[async_trait]
pub trait ApiEndpoint: Send + Sync + 'static {
    /// Who the credentials of a request for `operation` prove. The bootstrap secret proves a caller for
    /// [`ApiOperation::CreateAccount`] alone, and only as long as no administrator exists.
    async fn caller(
        &self,
        origin: &Origin,
        credentials: &Credentials,
        operation: ApiOperation,
    ) -> Result<ApiCaller, AuthenticationError>;

    /// Performs a request that the core has authorized. It never gets [`ApiRoute::GetApiDocument`].
    async fn perform(&self, request: ApiRequest<'_>) -> Result<ApiResponse, ApiRefusal>;

    /// The `OpenAPI` document, as JSON. It is the same for every client.
    fn document(&self) -> Bytes;
}
