//! How clients receive blobs: from the object store by redirect, or through the registry.

use std::fmt::Debug;
use std::net::IpAddr;

use oci::RepositoryName;

/// The address of the client, if the shell knows it: an extension of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client(pub IpAddr);

/// How a client receives a blob. The registry itself serves what a redirect cannot do, for instance several ranges,
/// whatever is chosen. A store without redirects ignores the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Delivery {
    /// Redirect (307) to the object store.
    Redirect,
    /// The registry serves the bytes.
    Proxy,
    /// Redirect (307) if the client can probably reach the object store, else the registry serves the bytes.
    #[default]
    Auto,
}

/// Chooses the delivery for each pull.
pub trait DeliveryPolicy: Debug + Send + Sync + 'static {
    /// The delivery of a blob of `repository` to `client`, whose address may be unknown.
    fn delivery(&self, repository: &RepositoryName, client: Option<IpAddr>) -> Delivery;
}

/// The same delivery for every pull.
impl DeliveryPolicy for Delivery {
    fn delivery(&self, _repository: &RepositoryName, _client: Option<IpAddr>) -> Delivery {
        *self
    }
}
