//! The cache of the credentials that sign URLs, with their expiry.
//!
//! The SDK caches credentials for its own requests and does not expose their expiry. But no URL works longer than the
//! credentials that signed it, and redirects must state how long their URL works. So signing has a cache of its own,
//! over the same chain of providers.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use registry::store::{Reason, StoreError};
use tokio::time::Instant;

use crate::error::chain;

/// Minimum time between two requests for credentials that expire soon: some sources return the same ones until their
/// last minutes.
const RENEWAL_PAUSE: Duration = Duration::from_secs(30);

/// How long all callers get the same failure if there are no valid credentials.
const FAILURE_SHARED_FOR: Duration = Duration::from_secs(3);

/// Maximum time for a request for credentials.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Caches credentials while they are valid.
pub(crate) struct CredentialsCache {
    provider: SharedCredentialsProvider,
    cached: Mutex<Option<CachedCredentials>>,
    /// The result of the last request for credentials. Locked during a request.
    last: tokio::sync::Mutex<Option<LastRequest>>,
}

/// Credentials, and when they were received.
#[derive(Clone)]
struct CachedCredentials {
    credentials: Credentials,
    since: SystemTime,
}

struct LastRequest {
    at: Instant,
    failed: Option<String>,
}

impl fmt::Debug for CredentialsCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialsCache").finish_non_exhaustive()
    }
}

impl CredentialsCache {
    pub(crate) fn new(provider: SharedCredentialsProvider) -> Self {
        Self {
            provider,
            cached: Mutex::default(),
            last: tokio::sync::Mutex::default(),
        }
    }

    /// Credentials that are valid for `wanted` from `now` on, or for at least half of their lifetime. If there are
    /// none, those that expire last.
    pub(crate) async fn get(&self, now: SystemTime, wanted: Duration) -> Result<Credentials, StoreError> {
        let cached = self.cached();
        if let Some(cached) = &cached
            && cached.is_fresh(now, wanted)
        {
            return Ok(cached.credentials.clone());
        }
        let usable = cached.filter(|cached| cached.is_valid_at(now));
        let mut last = match (&usable, self.last.try_lock()) {
            (_, Ok(last)) => last,
            // Another task is requesting credentials, and the cached ones are still valid.
            (Some(cached), Err(_)) => return Ok(cached.credentials.clone()),
            (None, Err(_)) => self.last.lock().await,
        };
        // Another task may have requested credentials in the meantime.
        let before = last.as_ref();
        if let Some(cached) = self.cached()
            && (cached.is_fresh(now, wanted)
                || (cached.is_valid_at(now) && before.is_some_and(|last| last.at.elapsed() < RENEWAL_PAUSE)))
        {
            return Ok(cached.credentials);
        }
        if usable.is_none()
            && let Some(LastRequest { at, failed: Some(why) }) = before
            && at.elapsed() < FAILURE_SHARED_FOR
        {
            return Err(no_credentials(why));
        }
        let answer = tokio::time::timeout(TIMEOUT, self.provider.provide_credentials()).await;
        let why = match answer {
            Ok(Ok(credentials)) => {
                *last = Some(LastRequest::now(None));
                self.store(&credentials, now);
                return Ok(credentials);
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => "no response".to_owned(),
        };
        let unavailable = no_credentials(&why);
        *last = Some(LastRequest::now(Some(why)));
        usable.map(|cached| cached.credentials).ok_or(unavailable)
    }

    /// Credentials with the same expiry as the ones before keep their time of receipt.
    fn store(&self, credentials: &Credentials, now: SystemTime) {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let same = cached
            .as_ref()
            .filter(|cached| cached.credentials.expiry() == credentials.expiry());
        *cached = Some(CachedCredentials {
            since: same.map_or(now, |cached| cached.since),
            credentials: credentials.clone(),
        });
    }

    fn cached(&self) -> Option<CachedCredentials> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl LastRequest {
    fn now(failed: Option<String>) -> Self {
        Self {
            at: Instant::now(),
            failed,
        }
    }
}

impl CachedCredentials {
    fn is_valid_at(&self, time: SystemTime) -> bool {
        self.credentials.expiry().is_none_or(|end| end > time)
    }

    /// Whether no renewal is needed yet. Credentials that are never valid for `wanted` are renewed after half of their
    /// lifetime, because URLs change with every renewal.
    fn is_fresh(&self, now: SystemTime, wanted: Duration) -> bool {
        let Some(end) = self.credentials.expiry() else {
            return true;
        };
        let lifetime = end.duration_since(self.since).unwrap_or_default();
        self.is_valid_at(now + wanted.min(lifetime / 2))
    }
}

fn no_credentials(why: &str) -> StoreError {
    StoreError::because(
        Reason::ObjectStoreUnreachable,
        format!("no credentials are available for signing URLs: {why}"),
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use aws_credential_types::provider::{error::CredentialsError, future};

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const LIFETIME: Duration = Duration::from_mins(15);

    /// Returns credentials with the next of these expiry times on each call, then fails.
    #[derive(Debug)]
    struct SequenceProvider(Vec<Option<SystemTime>>, Arc<AtomicU32>);

    impl ProvideCredentials for SequenceProvider {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let time = self.1.fetch_add(1, Ordering::SeqCst);
            future::ProvideCredentials::ready(match self.0.get(time as usize) {
                Some(end) => Ok(Credentials::new(format!("key {time}"), "secret", None, *end, "test")),
                None => Err(CredentialsError::not_loaded("none")),
            })
        }
    }

    fn cache(ends: Vec<Option<SystemTime>>) -> (CredentialsCache, Arc<AtomicU32>) {
        let last = Arc::<AtomicU32>::default();
        let cache = CredentialsCache::new(SharedCredentialsProvider::new(SequenceProvider(ends, last.clone())));
        (cache, last)
    }

    #[tokio::test]
    async fn credentials_without_expiry_are_requested_once() {
        let (cache, last) = cache(vec![None]);
        for _ in 0..5 {
            cache.get(SystemTime::now(), LIFETIME).await.unwrap();
        }
        assert_eq!(last.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn credentials_that_expire_soon_are_renewed_if_possible() {
        let start = SystemTime::now();
        let (cache, last) = cache(vec![Some(start + HOUR), Some(start + HOUR), Some(start + 3 * HOUR)]);
        let ends = async |after: Duration| cache.get(start + after, LIFETIME).await.unwrap().expiry().unwrap();
        assert_eq!(ends(Duration::ZERO).await, start + HOUR);
        // The source has no newer credentials yet, and is not asked again for a while.
        let soon = Duration::from_mins(50);
        assert_eq!(ends(soon).await, start + HOUR);
        assert_eq!(ends(soon).await, start + HOUR);
        assert!(last.load(Ordering::SeqCst) <= 2);
        *cache.last.lock().await = None;
        cache.get(start + soon, LIFETIME).await.unwrap();
        *cache.last.lock().await = None;
        assert_eq!(ends(soon).await, start + 3 * HOUR);
    }

    /// Fails after some time, and counts the calls.
    #[derive(Debug)]
    struct FailingProvider(Duration, Arc<AtomicU32>);

    impl ProvideCredentials for FailingProvider {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            self.1.fetch_add(1, Ordering::SeqCst);
            future::ProvideCredentials::new(async {
                tokio::time::sleep(self.0).await;
                Err(CredentialsError::not_loaded("none"))
            })
        }
    }

    /// All tasks that wait for one request get its result, also a failure.
    #[tokio::test(start_paused = true)]
    async fn all_waiting_tasks_get_the_same_failure() {
        for (answered_after, waited) in [(4, 4), (3600, 10)] {
            let last = Arc::<AtomicU32>::default();
            let source = FailingProvider(Duration::from_secs(answered_after), last.clone());
            let cache = Arc::new(CredentialsCache::new(SharedCredentialsProvider::new(source)));
            let began = Instant::now();
            let waiting: Vec<_> = (0..100)
                .map(|_| {
                    let cache = cache.clone();
                    tokio::spawn(async move { cache.get(SystemTime::now(), LIFETIME).await })
                })
                .collect();
            for one in waiting {
                assert!(one.await.unwrap().is_err());
            }
            assert_eq!(began.elapsed().as_secs(), waited);
            assert_eq!(last.load(Ordering::SeqCst), 1);
            // Tasks that come a little later get the same failure, but not for long.
            assert!(cache.get(SystemTime::now(), LIFETIME).await.is_err());
            assert_eq!(last.load(Ordering::SeqCst), 1);
            tokio::time::advance(FAILURE_SHARED_FOR).await;
            assert!(cache.get(SystemTime::now(), LIFETIME).await.is_err());
            assert_eq!(last.load(Ordering::SeqCst), 2);
        }
    }

    #[tokio::test]
    async fn credentials_that_cannot_be_renewed_are_used_until_they_expire() {
        let start = SystemTime::now();
        let (cache, _) = cache(vec![Some(start + HOUR)]);
        cache.get(start, LIFETIME).await.unwrap();
        *cache.last.lock().await = None;
        assert!(cache.get(start + HOUR - LIFETIME / 2, LIFETIME).await.is_ok());
        assert!(cache.get(start + HOUR, LIFETIME).await.is_err());
    }
}
