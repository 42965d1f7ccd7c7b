//! A registry over its stores, and what every answer has in common. The line that a request follows is in `call`.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};

use crate::auth::{Authenticator, Principal};
use crate::body::{RequestBody, ResponseBody};
use crate::budget::ClientKey;
use crate::call::Call;
use crate::delivery::{Delivery, DeliveryPolicy};
use crate::environment::{Environment, context, random_u64};
use crate::hosts::HostPolicy;
use crate::limits::{Limits, Sparse};
use crate::route::Endpoint;
use crate::store::StoreError;
use crate::store::blobs::BlobStore;
use crate::store::collection::CollectionStore;
use crate::store::metadata::MetadataStore;
use crate::store::records::RecordStore;
use crate::store::sessions::{SessionStore, SigningKey};
use crate::token::TokenKeys;

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// Where a registry keeps things.
#[derive(Clone)]
pub struct Stores {
    /// Bytes.
    pub blobs: Arc<dyn BlobStore>,
    /// Names.
    pub metadata: Arc<dyn MetadataStore>,
    /// Uploads in progress.
    pub sessions: Arc<dyn SessionStore>,
}

/// Everything that a registry keeps, and how to go over it: for the work of an operator.
#[derive(Clone)]
pub struct AllStores {
    /// Bytes.
    pub blobs: Arc<dyn BlobStore>,
    /// Names.
    pub metadata: Arc<dyn MetadataStore>,
    /// Uploads in progress.
    pub sessions: Arc<dyn SessionStore>,
    /// Collection over names and uploads.
    pub collection: Arc<dyn CollectionStore>,
    /// The names as records.
    pub records: Arc<dyn RecordStore>,
}

impl AllStores {
    /// What a registry needs to serve.
    #[must_use]
    pub fn serving(&self) -> Stores {
        Stores {
            blobs: self.blobs.clone(),
            metadata: self.metadata.clone(),
            sessions: self.sessions.clone(),
        }
    }
}

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Every bound.
    pub limits: Limits,
    /// Whether manifests may refer to what is not there.
    pub sparse: Sparse,
    /// How blobs reach those who pull them.
    pub delivery: Arc<dyn DeliveryPolicy>,
    /// At which host names the registry answers.
    pub hosts: HostPolicy,
    /// The region that this instance serves; upload tokens of another one are not taken.
    pub region: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            sparse: Sparse::default(),
            delivery: Arc::new(Delivery::default()),
            hosts: HostPolicy::default(),
            region: String::new(),
        }
    }
}

/// What a request turned out to be, for a shell's log and counters: an extension of every response.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The endpoint; `None` when the request line names none.
    pub endpoint: Option<Endpoint>,
    /// Who asked, if that was found out.
    pub principal: Option<Principal>,
}

/// A registry: any number of them over the same stores are one.
pub struct Registry {
    pub(crate) stores: Stores,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) settings: Settings,
    /// Read when they are needed first, so that a registry opens while its stores are away.
    tokens: OnceLock<TokenKeys>,
}

impl Registry {
    /// A registry over `stores`. Asks nothing of them yet; see [`Registry::prepare`].
    pub fn new(
        stores: Stores,
        authenticator: Arc<dyn Authenticator>,
        environment: Arc<dyn Environment>,
        settings: Settings,
    ) -> Self {
        Self {
            stores,
            authenticator,
            environment,
            settings,
            tokens: OnceLock::new(),
        }
    }

    /// A registry over `stores`, prepared.
    pub async fn open(
        stores: Stores,
        authenticator: Arc<dyn Authenticator>,
        environment: Arc<dyn Environment>,
        settings: Settings,
    ) -> Result<Self, StoreError> {
        let registry = Self::new(stores, authenticator, environment, settings);
        registry.prepare().await?;
        Ok(registry)
    }

    /// Reads the keys that sign upload tokens, making the first one if there is none; scans nothing. Without this, the
    /// first request for an upload does so.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.tokens().await.map(drop)
    }

    /// The keys that sign upload tokens. Whoever needs them first reads them; requests that do so at once read the same
    /// ones, since a store keeps one first key.
    pub(crate) async fn tokens(&self) -> Result<&TokenKeys, StoreError> {
        if let Some(tokens) = self.tokens.get() {
            return Ok(tokens);
        }
        let environment = &*self.environment;
        let mut secret = [0; 32];
        environment.random(&mut secret);
        let cx = context(environment, ClientKey::INTERNAL, self.settings.limits.store_ms);
        // 31 bits, so that every store can keep the id as a signed number.
        let id = u32::try_from(random_u64(environment) >> 33).unwrap_or(0);
        let candidate = SigningKey {
            id,
            secret,
            created: cx.now,
        };
        let keys = self.stores.sessions.signing_keys(cx, candidate).await?;
        if keys.is_empty() {
            return Err(StoreError::failed(
                "the session store holds no key to sign upload tokens with",
            ));
        }
        Ok(self
            .tokens
            .get_or_init(|| TokenKeys::new(self.settings.region.clone(), keys)))
    }

    /// The answer to a request that this registry's [`HostPolicy`] refuses. For what a shell answers itself and not
    /// everybody may read; [`Self::handle`] checks its requests.
    #[must_use]
    pub fn refuse(&self, head: &http::request::Parts) -> Option<Response<ResponseBody>> {
        self.settings.hosts.refuse(head)
    }

    /// Answers one request.
    ///
    /// A shell runs it to its end also when the client hangs up: dropping it in the middle of an upload, a publication
    /// or a removal is the same as a crash, and leaves garbage.
    pub async fn handle(&self, request: Request<RequestBody>) -> Response<ResponseBody> {
        let mut record = Record::default();
        let (head, body) = request.into_parts();
        // A defect met by one request is answered like any other fault, and costs no other request of its connection.
        let answered = AssertUnwindSafe(Call::new(self, &head).answer(&head, body, &mut record))
            .catch_unwind()
            .await;
        let answered = answered.unwrap_or_else(|_| Err(StoreError::failed("the operation panicked").into()));
        let answered = answered.unwrap_or_else(|error| error.into_response(|| random_u64(&*self.environment)));
        let mut response = complete(answered);
        if head.method == Method::HEAD {
            *response.body_mut() = ResponseBody::empty();
        }
        response.extensions_mut().insert(record);
        response
    }
}

/// An answer with what every answer has.
pub(crate) fn complete(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    // Whatever somebody has pushed is shown as what it is said to be, and not as a page that runs here.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // What says nothing of caches would be kept by some of them, errors included, and a push must be seen at once.
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    complete_length(&mut response);
    response
}

/// Every answer says how long it is. 204 and 304 have no length (RFC 9110, 8.6).
fn complete_length(response: &mut Response<ResponseBody>) {
    use http_body::Body as _;
    let status = response.status();
    if status == http::StatusCode::NO_CONTENT || status == http::StatusCode::NOT_MODIFIED {
        return;
    }
    if !response.headers().contains_key(CONTENT_LENGTH) {
        let length = response.body().size_hint().exact().unwrap_or(0);
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
}

/// The declared length of a body; `None` when there is no header, or none that can be read.
pub(crate) fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
