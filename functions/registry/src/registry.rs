//! A registry and its stores. The module `dispatch` answers its requests.

use std::sync::{Arc, OnceLock};

use http::Response;

use crate::api_endpoint::ApiEndpoint;
use crate::auth::Authenticator;
use crate::body::ResponseBody;
use crate::budget::ClientKey;
use crate::environment::{Environment, context, random_u64};
use crate::memory::MemoryBudget;
use crate::remembered::RememberedRepositories;
use crate::settings::Settings;
use crate::store::StoreError;
use crate::store::sessions::SigningKey;
use crate::stores::Stores;
use crate::token::TokenKeys;
use crate::token_endpoint::TokenEndpoint;

/// A registry. Several instances over the same stores act as one registry.
pub struct Registry {
    pub(crate) stores: Stores,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) memory: Arc<dyn MemoryBudget>,
    pub(crate) settings: Settings,
    /// Grants tokens. Without it, challenges are Basic, and its routes do not exist.
    pub(crate) token_endpoint: Option<Arc<dyn TokenEndpoint>>,
    /// The repositories that are known to exist, of those that a push does not create.
    pub(crate) remembered: RememberedRepositories,
    /// Performs the operations of the API. Without it, its routes do not exist.
    pub(crate) api_endpoint: Option<Arc<dyn ApiEndpoint>>,
    /// Read on first use, so that a registry can start while its stores are unavailable.
    tokens: OnceLock<TokenKeys>,
}

impl Registry {
    /// Makes a registry over `stores`, without calling them; see [`Registry::prepare`].
    pub fn new(
        stores: Stores,
        authenticator: Arc<dyn Authenticator>,
        environment: Arc<dyn Environment>,
        memory: Arc<dyn MemoryBudget>,
        settings: Settings,
    ) -> Self {
        Self {
            stores,
            authenticator,
            environment,
            memory,
            settings,
            token_endpoint: None,
            remembered: RememberedRepositories::new(),
            api_endpoint: None,
            tokens: OnceLock::new(),
        }
    }

    /// The same registry, with an endpoint that grants tokens. From now on challenges ask for tokens where
    /// [`Settings::challenge`] knows the URL of the endpoint.
    #[must_use]
    pub fn with_token_endpoint(self, endpoint: Arc<dyn TokenEndpoint>) -> Self {
        Self {
            token_endpoint: Some(endpoint),
            ..self
        }
    }

    /// The same registry, with an API.
    #[must_use]
    pub fn with_api_endpoint(self, endpoint: Arc<dyn ApiEndpoint>) -> Self {
        Self {
            api_endpoint: Some(endpoint),
            ..self
        }
    }

    /// Makes a registry over `stores` and prepares it.
    pub async fn open(
        stores: Stores,
        authenticator: Arc<dyn Authenticator>,
        environment: Arc<dyn Environment>,
        memory: Arc<dyn MemoryBudget>,
        settings: Settings,
    ) -> Result<Self, StoreError> {
        let registry = Self::new(stores, authenticator, environment, memory, settings);
        registry.prepare().await?;
        Ok(registry)
    }

    /// Reads the keys that sign upload tokens, and creates the first key if there is none. Scans nothing. Without this
    /// call, the first request for an upload does it.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.tokens().await.map(drop)
    }

    /// The keys that sign upload tokens, read on first use. Requests that read them at the same time get the same keys,
    /// since a store keeps only one first key.
    pub(crate) async fn tokens(&self) -> Result<&TokenKeys, StoreError> {
        if let Some(tokens) = self.tokens.get() {
            return Ok(tokens);
        }
        let environment = &*self.environment;
        let mut secret = [0; 32];
        environment.random(&mut secret);
        let cx = context(environment, ClientKey::INTERNAL, self.settings.limits.store_ms);
        // 31 bits, so that every store can keep the id as a signed 32-bit number.
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
        Ok(self.tokens.get_or_init(|| TokenKeys::new(&self.settings.region, keys)))
    }

    /// The response to a request that this registry's [`HostPolicy`](crate::HostPolicy) refuses, and `None` for all
    /// other requests. A shell calls it for responses of its own that not everyone may read. [`Self::handle`] checks
    /// its requests itself.
    #[must_use]
    pub fn refuse(&self, head: &http::request::Parts) -> Option<Response<ResponseBody>> {
        self.settings.hosts.refuse(head)
    }
}
