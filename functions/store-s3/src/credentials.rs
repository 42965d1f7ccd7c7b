//! The credentials that sign URLs, and when they end.
//!
//! The SDK caches credentials for its own requests and does not tell when they end; but no URL works for longer than
//! what it was signed with, and redirects must say for how long they work. So signing has a cache of its own, over the
//! same chain of providers.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use registry::store::{Reason, StoreError};
use tokio::time::Instant;

use crate::fault::chain;

/// How often credentials that end soon are asked for again: some sources answer the same ones until the last minutes.
const PAUSE: Duration = Duration::from_secs(30);

/// For how long a failure is the answer to everybody, where there are no credentials that work.
const FAILED: Duration = Duration::from_secs(3);

/// How long asking may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keeps credentials while they are good.
pub(crate) struct Lender {
    provider: SharedCredentialsProvider,
    kept: Mutex<Option<Kept>>,
    /// What became of asking last; held while asking.
    asked: tokio::sync::Mutex<Option<Asked>>,
}

/// Credentials, and when they were received.
#[derive(Clone)]
struct Kept {
    credentials: Credentials,
    since: SystemTime,
}

struct Asked {
    at: Instant,
    failed: Option<String>,
}

impl fmt::Debug for Lender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lender").finish_non_exhaustive()
    }
}

impl Lender {
    pub(crate) fn new(provider: SharedCredentialsProvider) -> Self {
        Self {
            provider,
            kept: Mutex::default(),
            asked: tokio::sync::Mutex::default(),
        }
    }

    /// Credentials that last for `wanted` from `now` on, or for half of their life at least, or as long as any that can be
    /// had.
    pub(crate) async fn lend(&self, now: SystemTime, wanted: Duration) -> Result<Credentials, StoreError> {
        let kept = self.kept();
        if let Some(kept) = &kept
            && kept.is_fresh(now, wanted)
        {
            return Ok(kept.credentials.clone());
        }
        let usable = kept.filter(|kept| kept.lasts(now));
        let mut asked = match (&usable, self.asked.try_lock()) {
            (_, Ok(asked)) => asked,
            // Somebody else is asking, and these are still good.
            (Some(kept), Err(_)) => return Ok(kept.credentials.clone()),
            (None, Err(_)) => self.asked.lock().await,
        };
        // Somebody may have asked in the meantime.
        let before = asked.as_ref();
        if let Some(kept) = self.kept()
            && (kept.is_fresh(now, wanted)
                || (kept.lasts(now) && before.is_some_and(|asked| asked.at.elapsed() < PAUSE)))
        {
            return Ok(kept.credentials);
        }
        if usable.is_none()
            && let Some(Asked { at, failed: Some(why) }) = before
            && at.elapsed() < FAILED
        {
            return Err(none(why));
        }
        let answer = tokio::time::timeout(PATIENCE, self.provider.provide_credentials()).await;
        let why = match answer {
            Ok(Ok(credentials)) => {
                *asked = Some(Asked::now(None));
                self.keep(&credentials, now);
                return Ok(credentials);
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => "no answer".to_owned(),
        };
        let unavailable = none(&why);
        *asked = Some(Asked::now(Some(why)));
        usable.map(|kept| kept.credentials).ok_or(unavailable)
    }

    /// Those that end when the ones before them do are as old as these.
    fn keep(&self, credentials: &Credentials, now: SystemTime) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let same = kept
            .as_ref()
            .filter(|kept| kept.credentials.expiry() == credentials.expiry());
        *kept = Some(Kept {
            since: same.map_or(now, |kept| kept.since),
            credentials: credentials.clone(),
        });
    }

    fn kept(&self) -> Option<Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Asked {
    fn now(failed: Option<String>) -> Self {
        Self {
            at: Instant::now(),
            failed,
        }
    }
}

impl Kept {
    fn lasts(&self, until: SystemTime) -> bool {
        self.credentials.expiry().is_none_or(|end| end > until)
    }

    /// Whether no others are needed yet. Those that never live for `wanted` are renewed at half of their life: with every
    /// renewal, URLs change.
    fn is_fresh(&self, now: SystemTime, wanted: Duration) -> bool {
        let Some(end) = self.credentials.expiry() else {
            return true;
        };
        let life = end.duration_since(self.since).unwrap_or_default();
        self.lasts(now + wanted.min(life / 2))
    }
}

fn none(why: &str) -> StoreError {
    StoreError::because(
        Reason::ObjectStoreUnreachable,
        format!("there are no credentials to sign URLs with: {why}"),
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
    const LIFE: Duration = Duration::from_mins(15);

    /// Answers the next of some ends each time, then fails.
    #[derive(Debug)]
    struct Source(Vec<Option<SystemTime>>, Arc<AtomicU32>);

    impl ProvideCredentials for Source {
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

    fn lender(ends: Vec<Option<SystemTime>>) -> (Lender, Arc<AtomicU32>) {
        let asked = Arc::<AtomicU32>::default();
        let lender = Lender::new(SharedCredentialsProvider::new(Source(ends, asked.clone())));
        (lender, asked)
    }

    #[tokio::test]
    async fn credentials_without_an_end_are_asked_for_once() {
        let (lender, asked) = lender(vec![None]);
        for _ in 0..5 {
            lender.lend(SystemTime::now(), LIFE).await.unwrap();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn credentials_that_end_soon_are_renewed_if_they_can_be() {
        let start = SystemTime::now();
        let (lender, asked) = lender(vec![Some(start + HOUR), Some(start + HOUR), Some(start + 3 * HOUR)]);
        let ends = async |after: Duration| lender.lend(start + after, LIFE).await.unwrap().expiry().unwrap();
        assert_eq!(ends(Duration::ZERO).await, start + HOUR);
        // The source has no others yet, and is left alone for a while.
        let soon = Duration::from_mins(50);
        assert_eq!(ends(soon).await, start + HOUR);
        assert_eq!(ends(soon).await, start + HOUR);
        assert!(asked.load(Ordering::SeqCst) <= 2);
        *lender.asked.lock().await = None;
        lender.lend(start + soon, LIFE).await.unwrap();
        *lender.asked.lock().await = None;
        assert_eq!(ends(soon).await, start + 3 * HOUR);
    }

    /// Fails after some time, and counts.
    #[derive(Debug)]
    struct Silent(Duration, Arc<AtomicU32>);

    impl ProvideCredentials for Silent {
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

    /// Everybody who waits for the one that asks gets its answer, also if it is none.
    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_by_those_who_wait() {
        for (answered_after, waited) in [(4, 4), (3600, 10)] {
            let asked = Arc::<AtomicU32>::default();
            let source = Silent(Duration::from_secs(answered_after), asked.clone());
            let lender = Arc::new(Lender::new(SharedCredentialsProvider::new(source)));
            let began = Instant::now();
            let waiting: Vec<_> = (0..100)
                .map(|_| {
                    let lender = lender.clone();
                    tokio::spawn(async move { lender.lend(SystemTime::now(), LIFE).await })
                })
                .collect();
            for one in waiting {
                assert!(one.await.unwrap().is_err());
            }
            assert_eq!(began.elapsed().as_secs(), waited);
            assert_eq!(asked.load(Ordering::SeqCst), 1);
            // Also with those who come a little later, and not for long.
            assert!(lender.lend(SystemTime::now(), LIFE).await.is_err());
            assert_eq!(asked.load(Ordering::SeqCst), 1);
            tokio::time::advance(FAILED).await;
            assert!(lender.lend(SystemTime::now(), LIFE).await.is_err());
            assert_eq!(asked.load(Ordering::SeqCst), 2);
        }
    }

    #[tokio::test]
    async fn credentials_that_cannot_be_renewed_serve_to_their_end() {
        let start = SystemTime::now();
        let (lender, _) = lender(vec![Some(start + HOUR)]);
        lender.lend(start, LIFE).await.unwrap();
        *lender.asked.lock().await = None;
        assert!(lender.lend(start + HOUR - LIFE / 2, LIFE).await.is_ok());
        assert!(lender.lend(start + HOUR, LIFE).await.is_err());
    }
}
