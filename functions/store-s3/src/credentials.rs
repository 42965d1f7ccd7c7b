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
use registry::store::StoreError;
use tokio::time::Instant;

use crate::fault::chain;

/// How often credentials that end soon are asked for again: some sources answer the same ones until the last minutes.
const PAUSE: Duration = Duration::from_secs(30);

/// How long asking may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keeps credentials while they are good.
pub(crate) struct Lender {
    provider: SharedCredentialsProvider,
    kept: Mutex<Option<Credentials>>,
    /// When they were last asked for; held while asking.
    asked: tokio::sync::Mutex<Option<Instant>>,
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

    /// Credentials that last for `wanted` from `now` on, or as long as any that can be had.
    pub(crate) async fn lend(&self, now: SystemTime, wanted: Duration) -> Result<Credentials, StoreError> {
        let kept = self.kept();
        if let Some(kept) = &kept
            && lasts(kept, now + wanted)
        {
            return Ok(kept.clone());
        }
        let usable = kept.filter(|kept| lasts(kept, now));
        let mut asked = match (&usable, self.asked.try_lock()) {
            (_, Ok(asked)) => asked,
            // Somebody else is asking, and these are still good.
            (Some(kept), Err(_)) => return Ok(kept.clone()),
            (None, Err(_)) => self.asked.lock().await,
        };
        // Somebody may have asked in the meantime.
        if let Some(kept) = self.kept()
            && (lasts(&kept, now + wanted) || (lasts(&kept, now) && asked.is_some_and(|at| at.elapsed() < PAUSE)))
        {
            return Ok(kept);
        }
        *asked = Some(Instant::now());
        let answer = tokio::time::timeout(PATIENCE, self.provider.provide_credentials()).await;
        let why = match answer {
            Ok(Ok(credentials)) => {
                *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(credentials.clone());
                return Ok(credentials);
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => "no answer".to_owned(),
        };
        usable.ok_or_else(|| StoreError::unavailable(format!("there are no credentials to sign URLs with: {why}")))
    }

    fn kept(&self) -> Option<Credentials> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn lasts(credentials: &Credentials, until: SystemTime) -> bool {
    credentials.expiry().is_none_or(|end| end > until)
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
