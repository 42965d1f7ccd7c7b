//! Signs URLs at which clients fetch objects themselves. Signing needs no request.
//!
//! A URL grants access to its object: this module never logs URLs or the credentials that sign them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::{Client, Config};
use registry::store::blobs::{Reached, Redirect};
use registry::store::{StoreError, Timestamp};

use crate::client;
use crate::credentials::CredentialsCache;
use crate::error::chain;
use crate::network_scope::NetworkScope;
use crate::window::{SigningWindows, Validity};

/// Maximum number of cached URLs, each of about a kilobyte.
const MAXIMUM_URLS: usize = 8192;

/// Minimum validity of a URL, in seconds, for which it is still returned.
const MINIMUM_VALIDITY: u64 = 10;

/// Signs URLs, and caches them.
pub(crate) struct Presigner {
    /// Has the endpoint for clients.
    config: Config,
    bucket: String,
    credentials: CredentialsCache,
    windows: SigningWindows,
    /// Whether the operator has configured where clients reach the store.
    is_public: bool,
    signer: Mutex<Option<Arc<Signer>>>,
    /// The signed URLs, whatever credentials signed them: credentials that were renewed stay valid until they expire.
    cache: Mutex<SignedUrlCache>,
}

/// A client for one set of credentials. It signs with exactly the credentials whose expiry was checked.
struct Signer {
    credentials: Credentials,
    client: Client,
}

#[derive(Clone)]
struct SignedUrl {
    url: Arc<str>,
    validity: Validity,
    scope: NetworkScope,
}

impl Presigner {
    pub(crate) fn new(
        config: Config,
        bucket: String,
        credentials: CredentialsCache,
        lifetime: Duration,
        is_public: bool,
    ) -> Self {
        Self {
            config,
            bucket,
            credentials,
            windows: SigningWindows::new(lifetime.as_secs()),
            is_public,
            signer: Mutex::default(),
            cache: Mutex::default(),
        }
    }

    /// A URL for an object, if this client can probably reach it.
    pub(crate) async fn redirect(
        &self,
        now: Timestamp,
        key: &str,
        content_type: &'static str,
        reached_by: Reached,
    ) -> Result<Option<Redirect>, StoreError> {
        let Some(link) = self.link(now, key, content_type).await? else {
            return Ok(None);
        };
        let is_reached = match reached_by {
            Reached::ByAll => true,
            _ if self.is_public => true,
            Reached::By(client) => link.scope.admits(client),
            Reached::ByAnyone => link.scope == NetworkScope::Public,
        };
        Ok(is_reached.then(|| Redirect {
            url: link.url.as_ref().to_owned(),
            lifetime: Duration::from_secs(link.validity.until.saturating_sub(now.0 / 1000)),
        }))
    }

    /// The URL of the store, without a key and a signature that others could use.
    pub(crate) async fn public_url(&self) -> Option<String> {
        client::url_of(&self.config, &self.bucket).await
    }

    /// A URL for an object. `None`: no URL would work for long enough.
    async fn link(
        &self,
        now: Timestamp,
        key: &str,
        content_type: &'static str,
    ) -> Result<Option<SignedUrl>, StoreError> {
        let time = UNIX_EPOCH + Duration::from_millis(now.0);
        let lifetime = Duration::from_secs(self.windows.lifetime());
        let credentials = self.credentials.get(time, lifetime).await?;
        let end = credentials.expiry().map(seconds);
        let now = now.0 / 1000;
        let validity = self.windows.validity(key, now, end);
        if validity.until < now.saturating_add(MINIMUM_VALIDITY.min(self.windows.lifetime() / 2)) {
            // The credentials are about to expire, and there are no others.
            return Ok(None);
        }
        if let Some(link) = self.cached(key, content_type, validity) {
            return Ok(Some(link));
        }
        let signer = self.signer(credentials);
        self.sign(key, content_type, validity, &signer).await.map(Some)
    }

    fn signer(&self, credentials: Credentials) -> Arc<Signer> {
        let mut current = self.signer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signer) = &*current
            && signer.credentials == credentials
        {
            return Arc::clone(signer);
        }
        let config = self.config.to_builder().credentials_provider(credentials.clone());
        let signer = Arc::new(Signer {
            client: Client::from_conf(config.build()),
            credentials,
        });
        *current = Some(Arc::clone(&signer));
        signer
    }

    async fn sign(
        &self,
        key: &str,
        content_type: &'static str,
        validity: Validity,
        signer: &Signer,
    ) -> Result<SignedUrl, StoreError> {
        let config = PresigningConfig::builder()
            .start_time(UNIX_EPOCH + Duration::from_secs(validity.from))
            .expires_in(Duration::from_secs(validity.until - validity.from))
            .build()
            .map_err(StoreError::failed)?;
        let request = signer
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key)
            .response_content_type(content_type)
            .presigned(config)
            .await
            // The error's own text may contain the data to sign.
            .map_err(|error| StoreError::failed(format!("a URL could not be signed: {}", chain(&error))))?;
        let link = SignedUrl {
            url: request.uri().into(),
            validity,
            scope: NetworkScope::of_host(host_of(request.uri(), &self.bucket)),
        };
        self.cache().put(key, content_type, link.clone());
        Ok(link)
    }

    fn cache(&self) -> MutexGuard<'_, SignedUrlCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cached URL of this window, if it works for as long as a new one would. Other credentials, which were renewed
    /// since, may have signed it.
    fn cached(&self, key: &str, content_type: &'static str, validity: Validity) -> Option<SignedUrl> {
        let signed = self.cache().get(key, content_type);
        signed.filter(|signed| signed.validity.from == validity.from && signed.validity.until >= validity.until)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The host of a URL, without the bucket's name at its beginning.
fn host_of<'a>(url: &'a str, bucket: &str) -> &'a str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    let host = match authority.rfind(']') {
        Some(end) => &authority[..=end],
        None => authority.split(':').next().unwrap_or(authority),
    };
    host.strip_prefix(bucket)
        .and_then(|host| host.strip_prefix('.'))
        .unwrap_or(host)
}

/// Caches the most recently used URLs in two generations: when the younger one is full, the older one is dropped.
#[derive(Default)]
struct SignedUrlCache {
    young: HashMap<(String, &'static str), SignedUrl>,
    old: HashMap<(String, &'static str), SignedUrl>,
}

impl SignedUrlCache {
    fn get(&mut self, key: &str, content_type: &'static str) -> Option<SignedUrl> {
        let key = (key.to_owned(), content_type);
        if let Some(signed) = self.young.get(&key) {
            return Some(signed.clone());
        }
        let signed = self.old.remove(&key)?;
        self.insert(key, signed.clone());
        Some(signed)
    }

    fn put(&mut self, key: &str, content_type: &'static str, signed: SignedUrl) {
        self.insert((key.to_owned(), content_type), signed);
    }

    fn insert(&mut self, key: (String, &'static str), signed: SignedUrl) {
        if self.young.len() >= MAXIMUM_URLS / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, signed);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use aws_credential_types::provider::SharedCredentialsProvider;
    use aws_sdk_s3::config::{BehaviorVersion, Region};

    use super::*;

    const NOW: Timestamp = Timestamp(1_900_000_000_000);

    fn presigner(endpoint: Option<&str>, end: Option<SystemTime>, is_public: bool) -> Presigner {
        let credentials = Credentials::new("AKID", "a secret", None, end, "test");
        let provider = SharedCredentialsProvider::new(credentials);
        presigner_with(endpoint, provider, Duration::from_mins(15), is_public)
    }

    fn presigner_with(
        endpoint: Option<&str>,
        provider: SharedCredentialsProvider,
        lifetime: Duration,
        is_public: bool,
    ) -> Presigner {
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"));
        if let Some(endpoint) = endpoint {
            config = config.endpoint_url(endpoint).force_path_style(true);
        }
        Presigner::new(
            config.build(),
            "bucket".to_owned(),
            CredentialsCache::new(provider),
            lifetime,
            is_public,
        )
    }

    const KEY: &str = "p/0abc.1";
    const TYPE: &str = "application/octet-stream";

    async fn url(presigner: &Presigner, now: Timestamp, client: Option<&str>) -> Option<Redirect> {
        let reached = client.map_or(Reached::ByAll, |client| Reached::By(client.parse().unwrap()));
        presigner.redirect(now, KEY, TYPE, reached).await.unwrap()
    }

    #[tokio::test]
    async fn a_url_is_for_one_object_and_contains_its_type() {
        let signed = url(&presigner(None, None, false), NOW, None).await.unwrap();
        assert!(
            signed
                .url
                .starts_with("https://bucket.s3.eu-central-1.amazonaws.com/p/0abc.1?"),
            "{}",
            signed.url
        );
        for parameter in [
            "response-content-type=application%2Foctet-stream",
            "X-Amz-SignedHeaders=host&",
            "X-Amz-Expires=900",
        ] {
            assert!(signed.url.contains(parameter), "{parameter}: {}", signed.url);
        }
        assert!(signed.lifetime > Duration::from_secs(450) && signed.lifetime <= Duration::from_mins(15));
    }

    #[tokio::test]
    async fn instances_return_the_same_url_within_a_window() {
        let (one, other) = (presigner(None, None, false), presigner(None, None, false));
        let first = url(&one, NOW, None).await.unwrap();
        let mut seen = vec![first.url.clone()];
        for second in 0..450 {
            let now = NOW.plus_millis(second * 1000 + 300);
            let (a, b) = (
                url(&one, now, None).await.unwrap(),
                url(&other, now, None).await.unwrap(),
            );
            assert!(a == b);
            if seen.last() != Some(&a.url) {
                seen.push(a.url);
            }
        }
        assert!(seen.len() <= 2, "{}", seen.len());
    }

    #[tokio::test]
    async fn a_url_expires_no_later_than_its_credentials() {
        let time = UNIX_EPOCH + Duration::from_millis(NOW.0);
        let ending = presigner(None, Some(time + Duration::from_mins(2)), false);
        let signed = url(&ending, NOW, None).await.unwrap();
        assert_eq!(signed.lifetime, Duration::from_mins(2));
        let late = NOW.plus_millis(115_000);
        assert!(url(&ending, late, None).await.is_none(), "too short to be useful");
    }

    #[tokio::test]
    async fn only_clients_that_can_reach_the_store_are_redirected() {
        let local = presigner(Some("http://127.0.0.1:9000"), None, false);
        assert!(url(&local, NOW, None).await.is_some());
        assert!(url(&local, NOW, Some("127.0.0.1")).await.is_some());
        assert!(url(&local, NOW, Some("10.0.0.1")).await.is_none());
        let private = presigner(Some("http://10.0.0.5:9000"), None, false);
        assert!(url(&private, NOW, Some("10.0.0.1")).await.is_some());
        assert!(url(&private, NOW, Some("203.0.113.5")).await.is_none());
        let compose = presigner(Some("http://minio:9000"), None, false);
        assert!(url(&compose, NOW, Some("127.0.0.1")).await.is_none());
        let with_public_endpoint = presigner(Some("http://minio:9000"), None, true);
        assert!(url(&with_public_endpoint, NOW, Some("203.0.113.5")).await.is_some());
        let aws = presigner(None, None, false);
        assert!(url(&aws, NOW, Some("203.0.113.5")).await.is_some());
    }

    /// It must not be assumed that a client of unknown address is near.
    #[tokio::test]
    async fn a_client_of_unknown_address_is_redirected_only_to_public_endpoints() {
        for (endpoint, is_public, sent) in [
            (None, false, true),
            (Some("https://minio.example.org"), false, true),
            (Some("http://127.0.0.1:9000"), false, false),
            (Some("http://10.0.0.5:9000"), false, false),
            (Some("http://minio:9000"), false, false),
            (Some("http://minio:9000"), true, true),
        ] {
            let presigner = presigner(endpoint, None, is_public);
            let redirect = presigner.redirect(NOW, KEY, TYPE, Reached::ByAnyone).await.unwrap();
            assert_eq!(redirect.is_some(), sent, "{endpoint:?}, {is_public}");
            assert!(
                url(&presigner, NOW, None).await.is_some(),
                "the operator redirects all clients"
            );
        }
    }

    /// Signing takes a tenth of a millisecond, more than all the rest of a pull.
    #[tokio::test]
    async fn a_url_is_signed_once_for_each_window() {
        let presigner = presigner(None, None, false);
        let link = async |now, key| presigner.link(now, key, TYPE).await.unwrap().unwrap();
        let first = link(NOW, KEY).await;
        assert!(Arc::ptr_eq(&first.url, &link(NOW, KEY).await.url));
        assert!(!Arc::ptr_eq(&first.url, &link(NOW, "p/0abc.2").await.url));
        assert!(Arc::ptr_eq(&first.url, &link(NOW, KEY).await.url));
        let next = link(NOW.plus_millis(450_000), KEY).await;
        assert!(first.url != next.url, "the next window");
    }

    /// Returns new credentials on each call, valid for a fixed time by the clock of the test.
    #[derive(Debug)]
    struct RenewingProvider(Arc<Mutex<(SystemTime, u32)>>, Duration);

    impl aws_credential_types::provider::ProvideCredentials for RenewingProvider {
        fn provide_credentials<'a>(&'a self) -> aws_credential_types::provider::future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let mut state = self.0.lock().unwrap();
            state.1 += 1;
            let (now, calls) = *state;
            let credentials = Credentials::new(format!("AKID{calls}"), "secret", None, Some(now + self.1), "test");
            aws_credential_types::provider::future::ProvideCredentials::ready(Ok(credentials))
        }
    }

    /// The number of requests for credentials, and the number of different URLs of one object, in six hours with a pull
    /// every ten seconds.
    async fn six_hours(validity: Duration, lifetime: Duration) -> (u32, usize) {
        let begin = UNIX_EPOCH + Duration::from_millis(NOW.0);
        let state = Arc::new(Mutex::new((begin, 0)));
        let provider = SharedCredentialsProvider::new(RenewingProvider(state.clone(), validity));
        let presigner = presigner_with(None, provider, lifetime, false);
        let mut urls = Vec::new();
        for second in (0..6 * 3600).step_by(10) {
            state.lock().unwrap().0 = begin + Duration::from_secs(second);
            let now = NOW.plus_millis(second * 1000);
            let redirect = url(&presigner, now, None).await.unwrap();
            let lived = redirect.lifetime;
            assert!(
                lived + Duration::from_secs(10) >= validity.min(lifetime) / 2,
                "{lived:?}"
            );
            assert!(redirect.lifetime <= validity.min(lifetime));
            if urls.last() != Some(&redirect.url) {
                urls.push(redirect.url);
            }
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        let calls = state.lock().unwrap().1;
        (calls, urls.len())
    }

    #[tokio::test(start_paused = true)]
    async fn urls_do_not_change_when_credentials_are_renewed() {
        let (hour, quarter) = (Duration::from_hours(1), Duration::from_mins(15));
        // A window has 7.5 minutes. Credentials are renewed every 45 minutes, which changes no URL.
        let (calls, urls) = six_hours(hour, quarter).await;
        assert!((7..=9).contains(&calls), "{calls}");
        assert!(urls <= 49, "{urls}");
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_valid_no_longer_than_urls_are_renewed_after_half_their_lifetime() {
        let (hour, quarter) = (Duration::from_hours(1), Duration::from_mins(15));
        for (validity, lifetime) in [(quarter, quarter), (hour, hour), (hour, Duration::from_hours(12))] {
            let (calls, urls) = six_hours(validity, lifetime).await;
            let halves = u32::try_from(6 * hour.as_secs() / (validity.as_secs() / 2)).unwrap();
            assert!(calls <= halves + 1, "{validity:?}, {lifetime:?}: {calls}");
            // Each window begins a new URL, and so does each renewal.
            let windows = 6 * hour.as_secs() / (lifetime.as_secs() / 2) + 1;
            assert!(
                urls as u64 <= windows + u64::from(calls),
                "{validity:?}, {lifetime:?}: {urls}"
            );
        }
    }

    #[test]
    fn the_host_of_a_url_is_found() {
        let table = [
            (
                "https://bucket.s3.eu-central-1.amazonaws.com/k?x",
                "s3.eu-central-1.amazonaws.com",
            ),
            ("http://127.0.0.1:9000/bucket/k", "127.0.0.1"),
            ("http://[::1]:9000/bucket/k", "[::1]"),
            ("http://bucket.localhost:1/k", "localhost"),
            ("http://minio?x", "minio"),
        ];
        for (url, host) in table {
            assert_eq!(host_of(url, "bucket"), host);
        }
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_the_urls_in_use() {
        let signed = |from| SignedUrl {
            url: "u".into(),
            validity: Validity { from, until: from + 1 },
            scope: NetworkScope::Public,
        };
        let mut cache = SignedUrlCache::default();
        for number in 0..3 * MAXIMUM_URLS {
            cache.put(&number.to_string(), "t", signed(number as u64));
            assert!(cache.get("0", "t").is_some(), "in constant use");
            assert!(cache.young.len() + cache.old.len() <= MAXIMUM_URLS);
        }
        assert!(cache.get("1", "t").is_none());
        assert!(cache.get("0", "another type").is_none());
    }
}
