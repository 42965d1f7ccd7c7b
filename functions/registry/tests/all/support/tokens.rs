//! A token endpoint that decides as a test says, and keeps what it was asked.

use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use registry::Principal;
use registry::auth::{Credentials, Origin};
use registry::store::StoreError;
use registry::token_endpoint::{EncodedTokenRequest, TokenEndpoint, TokenRefusal, TokenResponse};

/// The key set of [`TestTokens`].
pub(crate) const KEY_SET: &str = r#"{"keys":[]}"#;

/// What the endpoint was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) origin: Origin,
    /// The kind of the credentials, and of the form, without secrets.
    pub(crate) kinds: String,
    pub(crate) form: String,
}

/// The endpoint.
pub(crate) struct TestTokens {
    decide: Box<dyn Fn() -> Result<TokenResponse, TokenRefusal> + Send + Sync>,
    asked: Mutex<Vec<Asked>>,
}

impl Default for TestTokens {
    fn default() -> Self {
        Self::new(|| Ok(Self::granted()))
    }
}

impl TestTokens {
    pub(crate) fn new(decide: impl Fn() -> Result<TokenResponse, TokenRefusal> + Send + Sync + 'static) -> Self {
        Self {
            decide: Box::new(decide),
            asked: Mutex::default(),
        }
    }

    /// A token without a refresh token.
    pub(crate) fn granted() -> TokenResponse {
        TokenResponse {
            principal: Principal::robot("ci").expect("a legal name"),
            credential: None,
            token: "a.b.c".to_owned(),
            expires_in: 600,
            scope: "repository:a/b:pull".to_owned(),
            refresh_token: None,
        }
    }

    /// What was asked since the last call.
    pub(crate) fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().expect("not poisoned"))
    }
}

#[async_trait]
impl TokenEndpoint for TestTokens {
    async fn token(
        &self,
        origin: &Origin,
        credentials: &Credentials,
        form: EncodedTokenRequest<'_>,
    ) -> Result<TokenResponse, TokenRefusal> {
        self.asked.lock().expect("not poisoned").push(Asked {
            origin: origin.clone(),
            kinds: format!("{credentials:?} {form:?}"),
            form: form.text().to_owned(),
        });
        (self.decide)()
    }

    async fn key_set(&self) -> Result<Bytes, StoreError> {
        match (self.decide)() {
            Err(TokenRefusal::Unavailable(cause)) => Err(StoreError::unavailable(cause)),
            _ => Ok(KEY_SET.into()),
        }
    }
}
