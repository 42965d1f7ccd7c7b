//! The connections to AWS: one pool and one configuration of TLS for all clients of a process.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{HttpClient, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector};
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::config_bag::ConfigBag;

/// Maximum time for connecting to a service.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);

/// An HTTP client whose TLS uses `ring`, which builds without cmake.
///
/// A connector of the SDK has a pool and a configuration of TLS of its own, and parses every root certificate of the host for
/// it, which takes longer than all else at a start. The SDK makes a connector for each set of timeouts, and another one for
/// each client, to find faults of its configuration early. Here all clients get one connector, with one timeout.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    client: SharedHttpClient,
    connector: Arc<OnceLock<SharedHttpConnector>>,
}

impl Connections {
    pub(crate) fn new() -> Self {
        let client = Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        Self {
            client,
            connector: Arc::default(),
        }
    }
}

impl HttpClient for Connections {
    fn http_connector(&self, _: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let make = || {
            // Not with the target of this crate: what libraries of AWS log at this level is never shown.
            tracing::debug!(target: "connections", "the root certificates of this host are read for TLS");
            let settings = HttpConnectorSettings::builder().connect_timeout(CONNECT).build();
            self.client.http_connector(&settings, components)
        };
        self.connector.get_or_init(make).clone()
    }

    fn validate_base_client_config(&self, _: &RuntimeComponentsBuilder, _: &ConfigBag) -> Result<(), BoxError> {
        Ok(())
    }
}
