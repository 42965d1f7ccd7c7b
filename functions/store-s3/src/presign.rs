//! Signs URLs at which clients fetch objects themselves. No request is made for it.
//!
//! The URLs are authorities: nothing here shows them, or what signs them, to a log.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::{Client, Config};
use registry::store::blobs::Redirect;
use registry::store::{StoreError, Timestamp};

use crate::credentials::Lender;
use crate::fault::chain;
use crate::reach::Reach;
use crate::window::{Validity, Windows};

/// How many URLs are kept at most, each of about a kilobyte.
const KEPT: usize = 8192;

/// A URL that works for fewer seconds is not worth handing out.
const WORTH: u64 = 10;

/// Signs, and remembers what was signed.
pub(crate) struct Presigner {
    /// With the endpoint that clients are sent to.
    config: Config,
    bucket: String,
    lender: Lender,
    windows: Windows,
    /// Whether the operator has said where clients reach the store.
    is_public: bool,
    signer: Mutex<Option<Arc<Signer>>>,
}

/// A client of its own for each set of credentials, so that what signs is what was looked at; with what it has signed.
struct Signer {
    credentials: Credentials,
    client: Client,
    memo: Mutex<Memo>,
}

#[derive(Clone)]
struct Signed {
    url: Arc<str>,
    validity: Validity,
    reach: Reach,
}

impl Presigner {
    pub(crate) fn new(config: Config, bucket: String, lender: Lender, lifetime: Duration, is_public: bool) -> Self {
        Self {
            config,
            bucket,
            lender,
            windows: Windows::new(lifetime.as_secs()),
            is_public,
            signer: Mutex::default(),
        }
    }

    /// A URL for an object, if this client can probably reach it.
    pub(crate) async fn redirect(
        &self,
        now: Timestamp,
        key: &str,
        content_type: &'static str,
        reached_by: Option<IpAddr>,
    ) -> Result<Option<Redirect>, StoreError> {
        let time = UNIX_EPOCH + Duration::from_millis(now.0);
        let lifetime = Duration::from_secs(self.windows.lifetime());
        let credentials = self.lender.lend(time, lifetime).await?;
        let end = credentials.expiry().map(seconds);
        let now = now.0 / 1000;
        let validity = self.windows.validity(key, now, end);
        if validity.until < now.saturating_add(WORTH.min(self.windows.lifetime() / 2)) {
            // The credentials are about to end, and there are no others.
            return Ok(None);
        }
        let signer = self.signer(credentials);
        let link = match signer.remembered(key, content_type, validity) {
            Some(link) => link,
            None => self.sign(key, content_type, validity, &signer).await?,
        };
        let is_reached = self.is_public || reached_by.is_none_or(|client| link.reach.admits(client));
        Ok(is_reached.then(|| Redirect {
            url: link.url.as_ref().to_owned(),
            lifetime: Duration::from_secs(validity.until - now),
        }))
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
            memo: Mutex::default(),
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
    ) -> Result<Signed, StoreError> {
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
            // Its own text may show what was to be signed.
            .map_err(|error| StoreError::failed(format!("a URL could not be signed: {}", chain(&error))))?;
        let link = Signed {
            url: request.uri().into(),
            validity,
            reach: Reach::of_host(host_of(request.uri(), &self.bucket)),
        };
        signer.memo().put(key, content_type, link.clone());
        Ok(link)
    }
}

impl Signer {
    fn memo(&self) -> MutexGuard<'_, Memo> {
        self.memo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self, key: &str, content_type: &'static str, validity: Validity) -> Option<Signed> {
        let signed = self.memo().get(key, content_type);
        signed.filter(|signed| signed.validity == validity)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The host of a URL that stands for the store: without the bucket's name before it.
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

/// Remembers the URLs asked for last, in two generations: when the younger one is full the older one is forgotten.
#[derive(Default)]
struct Memo {
    young: HashMap<(String, &'static str), Signed>,
    old: HashMap<(String, &'static str), Signed>,
}

impl Memo {
    fn get(&mut self, key: &str, content_type: &'static str) -> Option<Signed> {
        let key = (key.to_owned(), content_type);
        if let Some(signed) = self.young.get(&key) {
            return Some(signed.clone());
        }
        let signed = self.old.remove(&key)?;
        self.insert(key, signed.clone());
        Some(signed)
    }

    fn put(&mut self, key: &str, content_type: &'static str, signed: Signed) {
        self.insert((key.to_owned(), content_type), signed);
    }

    fn insert(&mut self, key: (String, &'static str), signed: Signed) {
        if self.young.len() >= KEPT / 2 {
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
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"));
        if let Some(endpoint) = endpoint {
            config = config.endpoint_url(endpoint).force_path_style(true);
        }
        let credentials = Credentials::new("AKID", "a secret", None, end, "test");
        Presigner::new(
            config.build(),
            "bucket".to_owned(),
            Lender::new(SharedCredentialsProvider::new(credentials)),
            Duration::from_mins(15),
            is_public,
        )
    }

    async fn url(presigner: &Presigner, now: Timestamp, client: Option<&str>) -> Option<Redirect> {
        let client = client.map(|client| client.parse().unwrap());
        presigner
            .redirect(now, "p/0abc.1", "application/octet-stream", client)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_url_grants_one_object_and_says_its_type() {
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
    async fn instances_answer_the_same_url_within_a_window() {
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
    async fn a_url_does_not_outlive_its_credentials() {
        let time = UNIX_EPOCH + Duration::from_millis(NOW.0);
        let ending = presigner(None, Some(time + Duration::from_mins(2)), false);
        let signed = url(&ending, NOW, None).await.unwrap();
        assert_eq!(signed.lifetime, Duration::from_mins(2));
        let late = NOW.plus_millis(115_000);
        assert!(url(&ending, late, None).await.is_none(), "not worth it any more");
    }

    #[tokio::test]
    async fn only_those_are_redirected_who_can_reach_the_store() {
        let local = presigner(Some("http://127.0.0.1:9000"), None, false);
        assert!(url(&local, NOW, None).await.is_some());
        assert!(url(&local, NOW, Some("127.0.0.1")).await.is_some());
        assert!(url(&local, NOW, Some("10.0.0.1")).await.is_none());
        let private = presigner(Some("http://10.0.0.5:9000"), None, false);
        assert!(url(&private, NOW, Some("10.0.0.1")).await.is_some());
        assert!(url(&private, NOW, Some("203.0.113.5")).await.is_none());
        let compose = presigner(Some("http://minio:9000"), None, false);
        assert!(url(&compose, NOW, Some("127.0.0.1")).await.is_none());
        let told = presigner(Some("http://minio:9000"), None, true);
        assert!(url(&told, NOW, Some("203.0.113.5")).await.is_some());
        let aws = presigner(None, None, false);
        assert!(url(&aws, NOW, Some("203.0.113.5")).await.is_some());
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
    fn the_memory_is_bounded_and_keeps_what_is_asked_for() {
        let signed = |from| Signed {
            url: "u".into(),
            validity: Validity { from, until: from + 1 },
            reach: Reach::Anyone,
        };
        let mut memo = Memo::default();
        for number in 0..3 * KEPT {
            memo.put(&number.to_string(), "t", signed(number as u64));
            assert!(memo.get("0", "t").is_some(), "asked for all the time");
            assert!(memo.young.len() + memo.old.len() <= KEPT);
        }
        assert!(memo.get("1", "t").is_none());
        assert!(memo.get("0", "another type").is_none());
    }
}
