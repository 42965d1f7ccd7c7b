//! Keeps the result of the checks for some seconds.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, Response, Uri};
use registry::{Environment, ResponseBody};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Checks, Readiness};
use crate::opened::Opened;

/// How long a result is kept.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// How long a result is kept if requests to the stores cost money.
const GOOD_FOR_REMOTE: Duration = Duration::from_secs(5);

/// Answers `/livez` and `/readyz` of a server.
pub struct Health {
    checks: Arc<Checks>,
    good_for: Duration,
    draining: AtomicBool,
    last: Arc<Mutex<Option<(Instant, Readiness)>>>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

impl Health {
    /// Checks the stores of `opened`. A result is kept for 1 second, or for 5 seconds if requests cost money.
    #[must_use]
    pub fn new(opened: &Opened, environment: Arc<dyn Environment>) -> Self {
        Self {
            checks: Arc::new(Checks::new(opened, environment)),
            good_for: if opened.is_remote() { GOOD_FOR_REMOTE } else { GOOD_FOR },
            draining: AtomicBool::new(false),
            last: Arc::default(),
        }
    }

    /// Makes the server not ready from now on, because it is ending.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// The answer, if the request is for one of the two paths.
    pub async fn answer(&self, method: &Method, uri: &Uri) -> Option<Response<ResponseBody>> {
        super::answer(method, uri, async {
            if self.draining.load(Ordering::Acquire) {
                return None;
            }
            Some(self.readiness().await)
        })
        .await
    }

    /// The last result if it is recent, otherwise a new one.
    async fn readiness(&self) -> Readiness {
        // Locked during the checks, so that of many requests only one asks the stores.
        let mut last = self.last.clone().lock_owned().await;
        if let Some((at, found)) = &*last
            && at.elapsed() < self.good_for
        {
            return found.clone();
        }
        let checks = self.checks.clone();
        // The checks run in a task of their own. Otherwise a client with a timeout shorter than a store's answer would end
        // them with its request, and no fault would ever be found and logged.
        let looking = tokio::spawn(async move {
            let before = last.take().map(|(_, before)| before);
            let found = checks.look(before.as_ref()).await;
            *last = Some((Instant::now(), found.clone()));
            found
        });
        match looking.await {
            Ok(found) => found,
            Err(ended) => match ended.try_into_panic() {
                Ok(panicked) => std::panic::resume_unwind(panicked),
                // The runtime is shutting down, and ends this task too.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use http_body_util::BodyExt as _;
    use registry::Stores;
    use registry::store::StoreError;
    use registry::store::blobs::BlobStore;
    use registry::store::metadata::MetadataStore;
    use registry::store::sessions::SessionStore;
    use registry::store::wrapped::{Hook, StoreMethod, Wrapped};
    use store_embedded::{Embedded, EmbeddedOptions, MinFree, Sync};

    use super::*;
    use crate::clock::SystemEnvironment;
    use crate::condition::{Condition, ConditionParts};
    use crate::health::TIMEOUT_MS;
    use crate::opened::StoreStatistics;
    use crate::stores::files_of;

    async fn ask(health: &Health, uri: &str) -> (u16, String) {
        let response = health.answer(&Method::GET, &uri.parse().unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn embedded(folder: &std::path::Path) -> Embedded {
        let options = EmbeddedOptions {
            data: folder.join("data"),
            sync: Sync::Off,
            upload_memory: 1 << 20,
            memory_timeout: EmbeddedOptions::MEMORY_TIMEOUT,
        };
        Embedded::open(&options).unwrap()
    }

    fn health(embedded: &Embedded) -> Health {
        let stores = Stores {
            blobs: embedded.blobs.clone(),
            metadata: embedded.metadata.clone(),
            sessions: embedded.sessions.clone(),
            collection: embedded.metadata.clone(),
            records: embedded.metadata.clone(),
            access: embedded.metadata.clone(),
        };
        of_stores(embedded, stores)
    }

    fn of_stores(embedded: &Embedded, stores: Stores) -> Health {
        let condition = Condition::of(ConditionParts {
            files: vec![files_of(&embedded.metadata)],
            ..ConditionParts::default()
        });
        let opened = Opened {
            stores,
            statistics: StoreStatistics::default(),
            condition,
            blobs_description: String::new(),
            metadata_description: String::new(),
        };
        Health::new(&opened, Arc::new(SystemEnvironment))
    }

    #[tokio::test]
    async fn readiness_follows_the_stores_and_ends_with_draining() {
        let folder = tempfile::TempDir::new().unwrap();
        let embedded = embedded(folder.path());
        let health = health(&embedded);
        let (status, text) = ask(&health, "/readyz").await;
        assert!(
            status == 503 && text.contains("metadata store cannot be reached"),
            "{text}"
        );
        health.checks.condition.admit();
        *health.last.lock().await = None;
        assert_eq!(ask(&health, "/readyz").await, (200, "ready\n".into()));
        assert_eq!(ask(&health, "/readyz?push").await, (200, "ready\n".into()));
        embedded.close();
        // The answer before stays valid for a short time.
        assert_eq!(ask(&health, "/readyz").await.0, 200);
        *health.last.lock().await = None;
        let (status, text) = ask(&health, "/readyz").await;
        assert_eq!(status, 503);
        let id = text
            .strip_prefix("not ready (")
            .and_then(|text| text.strip_suffix("): the metadata store cannot be reached\n"))
            .unwrap();
        assert!(
            id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{text}"
        );
        assert_eq!(ask(&health, "/livez").await, (200, "ok\n".into()));
        health.drain();
        assert_eq!(ask(&health, "/readyz").await, (503, "draining\n".into()));
        assert_eq!(ask(&health, "/livez").await.0, 200);
        assert!(health.answer(&Method::GET, &"/v2/".parse().unwrap()).await.is_none());
    }

    #[tokio::test]
    async fn a_condition_that_stops_only_pushes_is_reported_and_fails_health_for_pushes() {
        let folder = tempfile::TempDir::new().unwrap();
        let embedded = embedded(folder.path());
        embedded.metadata.space().keep(MinFree::Bytes(u64::MAX));
        let health = health(&embedded);
        health.checks.condition.admit();
        health.checks.condition.look();
        let (status, text) = ask(&health, "/readyz").await;
        assert_eq!(status, 200, "{text}");
        assert!(
            text.starts_with("ready\npushes are refused: no space is left"),
            "{text}"
        );
        for uri in ["/readyz?push", "/readyz?push=1", "/readyz?x&push"] {
            let (status, text) = ask(&health, uri).await;
            assert_eq!(status, 503, "{uri}");
            assert!(text.starts_with("not ready for pushes: no space is left"), "{text}");
        }
        assert_eq!(ask(&health, "/readyz?pushing").await.0, 200);
        embedded.metadata.space().keep(MinFree::Bytes(0));
        *health.last.lock().await = None;
        assert_eq!(ask(&health, "/readyz?push").await, (200, "ready\n".into()));
    }

    #[tokio::test]
    async fn s34_a_store_that_was_removed_is_not_ready() {
        let folder = tempfile::TempDir::new().unwrap();
        let embedded = embedded(folder.path());
        let health = health(&embedded);
        health.checks.condition.admit();
        std::fs::rename(folder.path().join("data"), folder.path().join("away")).unwrap();
        health.checks.condition.look();
        let (status, text) = ask(&health, "/readyz").await;
        assert!(status == 503 && text.contains("removed or replaced"), "{text}");
    }

    /// Lets no call through.
    struct Silent;

    impl Hook for Silent {
        fn before(&self, _: StoreMethod) -> Result<(), StoreError> {
            Ok(())
        }

        fn after(&self, _: StoreMethod) -> Result<(), StoreError> {
            Ok(())
        }

        fn gate(&self, _: StoreMethod) -> BoxFuture<'static, ()> {
            std::future::pending().boxed()
        }
    }

    /// All stores are waited for together, and what is found is kept also when the prober has gone away meanwhile: the
    /// next one need not wait.
    #[tokio::test(start_paused = true)]
    async fn a_prober_who_does_not_wait_for_silent_stores_leaves_an_answer_for_the_next() {
        let folder = tempfile::TempDir::new().unwrap();
        let embedded = embedded(folder.path());
        let stores = Stores {
            blobs: Arc::new(Wrapped::new(embedded.blobs.clone() as Arc<dyn BlobStore>, Silent)),
            metadata: Arc::new(Wrapped::new(
                embedded.metadata.clone() as Arc<dyn MetadataStore>,
                Silent,
            )),
            sessions: Arc::new(Wrapped::new(embedded.sessions.clone() as Arc<dyn SessionStore>, Silent)),
            collection: embedded.metadata.clone(),
            records: embedded.metadata.clone(),
            access: embedded.metadata.clone(),
        };
        let health = of_stores(&embedded, stores);
        health.checks.condition.admit();
        let start = Instant::now();
        let timeout = Duration::from_secs(1);
        let given_up = tokio::time::timeout(timeout, ask(&health, "/readyz")).await;
        assert!(given_up.is_err());
        let (status, text) = ask(&health, "/readyz").await;
        assert_eq!(status, 503, "{text}");
        assert_eq!(start.elapsed(), Duration::from_millis(TIMEOUT_MS));
        assert_eq!(
            ask(&health, "/readyz").await,
            (status, text),
            "the same answer, by its id"
        );
        assert_eq!(start.elapsed(), Duration::from_millis(TIMEOUT_MS));
    }
}
