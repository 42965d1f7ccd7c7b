//! How a process finds AWS: its region, its credentials and its connections.

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};

use crate::connections::{CONNECT, Connections};

/// What an operator says about AWS. The rest is found as every AWS tool finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsSettings {
    /// The region; `None`: that of the environment or of the profile.
    pub region: Option<String>,
    /// The profile in the configuration files; `None`: that of the environment.
    pub profile: Option<String>,
    /// Whether every service has a URL of its own and no region. If neither a setting, the environment nor a profile names a
    /// region, the machine is not asked for it, because most machines do not answer.
    pub needs_no_region: bool,
}

/// The configuration that all clients of a process share. Clones share their connections and cached credentials.
#[derive(Clone, Debug)]
pub struct AwsConfig {
    sdk: SdkConfig,
    named_region: Option<Region>,
}

impl AwsConfig {
    /// Loads the configuration from the SDK's variables and files. It sends requests only on machines whose cloud provides
    /// the region or the credentials, and only if nothing else provides them.
    pub async fn load(settings: &AwsSettings) -> Self {
        // In memory of its own: the future of the SDK is large, and would be a part of each one that waits for it.
        Box::pin(Self::load_from(settings, None)).await
    }

    /// Loads the configuration with these credentials instead of those that the SDK finds.
    pub async fn load_as(settings: &AwsSettings, credentials: impl ProvideCredentials + 'static) -> Self {
        let credentials = SharedCredentialsProvider::new(credentials);
        Box::pin(Self::load_from(settings, Some(credentials))).await
    }

    async fn load_from(settings: &AwsSettings, credentials: Option<SharedCredentialsProvider>) -> Self {
        let connections = Connections::new();
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(connections.clone())
            // The stores retry by themselves: they know the deadline of a call, and count the requests.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).build());
        loader = match credentials {
            Some(credentials) => loader.credentials_provider(credentials),
            None => with_process(loader, settings, &connections).await,
        };
        if let Some(profile) = &settings.profile {
            loader = loader.profile_name(profile);
        }
        let named_region = match &settings.region {
            Some(region) => Some(Region::new(region.clone())),
            None => named_regions(settings).region().await,
        };
        loader = match &named_region {
            Some(region) => loader.region(region.clone()),
            None if settings.needs_no_region => loader.region(named_regions(settings)),
            None => loader,
        };
        Self {
            sdk: loader.load().await,
            named_region,
        }
    }

    /// The configuration, from which each client makes its own. It retries nothing, and has no other timeout than that of
    /// connecting, which is the same for all clients: they share their connections.
    #[must_use]
    pub fn sdk(&self) -> &SdkConfig {
        &self.sdk
    }

    /// The region that a setting, the environment or a profile names, and not the machine.
    #[must_use]
    pub fn named_region(&self) -> Option<&Region> {
        self.named_region.as_ref()
    }
}

/// The environment, and then the profile.
fn named_regions(settings: &AwsSettings) -> RegionProviderChain {
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(name) = &settings.profile {
        profile = profile.profile_name(name);
    }
    RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new()).or_else(profile.build())
}

/// Adds the program that prints the credentials of the profile, if it names one.
#[cfg(feature = "workstation")]
async fn with_process(loader: ConfigLoader, settings: &AwsSettings, connections: &Connections) -> ConfigLoader {
    use aws_config::identity::IdentityCache;

    use crate::process;

    let process = process::of_profile(settings.profile.as_deref(), settings.region.as_deref(), connections).await;
    let Some(process) = process else {
        return loader;
    };
    let cache = IdentityCache::lazy().load_timeout(process::MAXIMUM).build();
    loader.credentials_provider(process).identity_cache(cache)
}

/// A function of the cloud has no profiles.
#[cfg(not(feature = "workstation"))]
async fn with_process(loader: ConfigLoader, _: &AwsSettings, _: &Connections) -> ConfigLoader {
    std::future::ready(loader).await
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;

    use super::*;

    fn nobody() -> Credentials {
        Credentials::new("nobody", "nothing", None, None, "test")
    }

    async fn load(region: Option<&str>) -> AwsConfig {
        let settings = AwsSettings {
            region: region.map(ToOwned::to_owned),
            needs_no_region: true,
            ..AwsSettings::default()
        };
        AwsConfig::load_as(&settings, nobody()).await
    }

    #[tokio::test]
    async fn a_region_that_is_set_counts() {
        let config = load(Some("eu-north-1")).await;
        assert_eq!(config.named_region().map(Region::as_ref), Some("eu-north-1"));
        assert_eq!(config.sdk().region(), config.named_region());
    }

    #[tokio::test]
    async fn nothing_else_than_connecting_has_a_timeout() {
        let config = load(Some("eu-north-1")).await;
        let timeouts = config.sdk().timeout_config().expect("it is set");
        assert_eq!(timeouts.connect_timeout(), Some(CONNECT));
        assert_eq!(timeouts.read_timeout(), None);
        assert_eq!(timeouts.operation_attempt_timeout(), None);
        assert_eq!(config.sdk().retry_config().map(RetryConfig::max_attempts), Some(1));
    }
}
