//! By which way blobs reach those who pull them: from the object store itself, or through the registry.

use std::fmt::Debug;
use std::net::IpAddr;

use oci::RepositoryName;

/// The address of the client, as far as the shell can tell: an extension of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client(pub IpAddr);

/// By which way a blob reaches a client. What a redirect cannot bring about, several ranges for instance, the registry
/// answers itself whatever is chosen; and a store without redirects has no choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Delivery {
    /// 307 to the object store.
    Redirect,
    /// Through the registry.
    Proxy,
    /// 307 if the client can probably reach the object store, else through the registry.
    #[default]
    Auto,
}

/// Chooses the way for each pull.
pub trait DeliveryPolicy: Debug + Send + Sync + 'static {
    /// The way for a blob of `repository` to `client`, whose address may be unknown.
    fn delivery(&self, repository: &RepositoryName, client: Option<IpAddr>) -> Delivery;
}

/// The same for all.
impl DeliveryPolicy for Delivery {
    fn delivery(&self, _repository: &RepositoryName, _client: Option<IpAddr>) -> Delivery {
        *self
    }
}
