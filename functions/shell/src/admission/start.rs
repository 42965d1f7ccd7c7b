//! The check of the stores while a server starts. It ends the start if an operator must do something first. It never waits for
//! long.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Admission, NotAdmitted};
use crate::condition::Condition;

/// If a start waits longer than this for a store, the store is logged, and the start continues.
const NAMED_AFTER: Duration = Duration::from_secs(2);

/// Time between two requests to a store that does not answer.
const AGAIN: Duration = Duration::from_secs(2);

/// The refusal of a store that answers after the start, and cannot be used until an operator does something.
#[derive(Debug)]
pub struct LateRefusal(Option<oneshot::Receiver<NotAdmitted>>);

impl LateRefusal {
    /// Waits for a refusal; without end if there is none.
    pub async fn first(self) -> NotAdmitted {
        if let Some(refusal) = self.0
            && let Ok(refusal) = refusal.await
        {
            return refusal;
        }
        std::future::pending().await
    }
}

impl Admission {
    /// Allows the use of the stores ([`Condition::admit`]), now or as soon as they answer, and then runs `ready`. Takes at most
    /// 2 seconds. Fails if a store cannot be used until an operator does something. If a store answers only later, such a
    /// refusal comes through the [`LateRefusal`].
    pub async fn start<F>(
        self,
        condition: Condition,
        ready: impl FnOnce() -> F + Send + 'static,
    ) -> Result<LateRefusal, NotAdmitted>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let admission = Arc::new(self);
        let mut asking = {
            let admission = admission.clone();
            tokio::spawn(async move { admission.run().await })
        };
        match tokio::time::timeout(NAMED_AFTER, &mut asking).await {
            Ok(Ok(Ok(()))) => {
                condition.admit();
                tokio::spawn(ready());
                return Ok(LateRefusal(None));
            }
            Ok(Ok(Err(refusal @ NotAdmitted::Never(_)))) => return Err(refusal),
            Ok(Ok(Err(NotAdmitted::Later(reason, error)))) => {
                condition.await_store(reason);
                tracing::warn!(
                    error,
                    "a store does not answer: the server starts without it, and is not ready until the store answers"
                );
            }
            Ok(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
            Err(_) => {
                let (reason, store) = admission.asked();
                condition.await_store(reason);
                tracing::warn!(
                    store,
                    seconds = NAMED_AFTER.as_secs(),
                    "still waiting for a store: the server starts without it, and is not ready until the store answers"
                );
            }
        }
        let (refuse, refused) = oneshot::channel();
        tokio::spawn(async move {
            // The first check may still be running. Two checks at the same time are harmless.
            asking.abort();
            loop {
                match admission.run().await {
                    Ok(()) => break,
                    Err(refusal @ NotAdmitted::Never(_)) => {
                        // The receiver is gone if the server is ending already.
                        let _ = refuse.send(refusal);
                        return;
                    }
                    Err(NotAdmitted::Later(reason, error)) => {
                        condition.await_store(reason);
                        tracing::warn!(error, "the stores cannot be used yet; they are asked again");
                    }
                }
                tokio::time::sleep(AGAIN).await;
            }
            tracing::info!("the stores answer: the server is ready");
            condition.admit();
            ready().await;
        });
        Ok(LateRefusal(Some(refused)))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::Mutex;

    use async_trait::async_trait;
    use registry::store::memory::MemoryMetadata;
    use registry::store::{Context, Location, Reason, StoreError};
    use tokio::time::Instant;

    use super::*;
    use crate::admission::TABLE_MS;
    use crate::clock::SystemEnvironment;
    use crate::opened::{Opened, StoreStatistics, in_memory};
    use crate::probe::{MetadataProbe, ProbeError, TableCounts};

    /// How a table answers.
    #[derive(Clone, Copy)]
    enum TableAnswer {
        Works,
        Fails,
        Silent,
        Absent,
    }

    /// A remote table without records.
    struct AnsweringTable(Mutex<TableAnswer>);

    impl AnsweringTable {
        fn set(&self, answer: TableAnswer) {
            *self.0.lock().unwrap() = answer;
        }
    }

    #[async_trait]
    impl MetadataProbe for AnsweringTable {
        fn is_remote(&self) -> bool {
            true
        }

        async fn check(&self, _: Context) -> Result<(), ProbeError> {
            let answer = *self.0.lock().unwrap();
            match answer {
                TableAnswer::Works => Ok(()),
                TableAnswer::Fails => Err(ProbeError::Passing(StoreError::unavailable("503"))),
                TableAnswer::Silent => {
                    tokio::time::sleep(Duration::from_millis(TABLE_MS)).await;
                    Err(ProbeError::Passing(StoreError::unavailable("no answer in time")))
                }
                TableAnswer::Absent => Err(ProbeError::Lasting(StoreError::failed("there is no such table"))),
            }
        }

        async fn is_new(&self, _: Context) -> Result<bool, StoreError> {
            Ok(true)
        }

        async fn some_locations(&self, _: Context, _: usize) -> Result<Option<Vec<Location>>, StoreError> {
            Ok(Some(Vec::new()))
        }

        async fn identity(&self, _: Context) -> Result<Option<String>, StoreError> {
            Ok(None)
        }

        fn counts(&self) -> TableCounts {
            TableCounts::default()
        }
    }

    /// A server that starts.
    struct Starting {
        table: Arc<AnsweringTable>,
        condition: Condition,
        /// Completes when the server is ready.
        ready: oneshot::Receiver<()>,
        started: Result<LateRefusal, NotAdmitted>,
    }

    impl Starting {
        /// Starts a server whose table answers in this way.
        async fn with(answer: TableAnswer) -> Self {
            let table = Arc::new(AnsweringTable(Mutex::new(answer)));
            let condition = Condition::default();
            let opened = Opened {
                stores: in_memory(&Arc::new(MemoryMetadata::new())),
                statistics: StoreStatistics {
                    metadata: Some(table.clone()),
                    ..StoreStatistics::default()
                },
                condition: condition.clone(),
                blobs_description: String::new(),
                metadata_description: "the table t".to_owned(),
            };
            let (done, ready) = oneshot::channel();
            let started = Admission::of(&opened, Arc::new(SystemEnvironment), false, |setting| {
                setting.name.to_owned()
            })
            .start(condition.clone(), async move || done.send(()).unwrap())
            .await;
            Self {
                table,
                condition,
                ready,
                started,
            }
        }

        /// Why the stores may not be used.
        fn awaited(&self) -> Option<Reason> {
            self.condition.may_read().err().map(|error| error.reason())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_ready_when_its_stores_answer() {
        let begun = Instant::now();
        let starting = Starting::with(TableAnswer::Works).await;
        assert_eq!(starting.awaited(), None);
        starting.started.unwrap();
        starting.ready.await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_needs_an_operator_ends_the_start() {
        let starting = Starting::with(TableAnswer::Absent).await;
        assert_eq!(starting.awaited(), Some(Reason::MetadataUnreachable));
        let refused = starting.started.unwrap_err();
        assert!(
            matches!(&refused, NotAdmitted::Never(text) if text.contains("the table t: there is no such table")),
            "{refused}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_starts_without_a_store_that_fails_and_asks_it_again() {
        let begun = Instant::now();
        let starting = Starting::with(TableAnswer::Fails).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        tokio::time::sleep(3 * AGAIN).await;
        assert_eq!(starting.awaited(), Some(Reason::MetadataUnreachable));
        starting.table.set(TableAnswer::Works);
        tokio::time::sleep(AGAIN).await;
        assert_eq!(starting.awaited(), None);
        starting.ready.await.unwrap();
        let refusal = starting.started.unwrap().first();
        let refused = tokio::time::timeout(10 * AGAIN, refusal).await;
        assert!(refused.is_err(), "no store has refused the server");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_answers_late_and_needs_an_operator_ends_the_server() {
        let begun = Instant::now();
        let starting = Starting::with(TableAnswer::Silent).await;
        assert_eq!(begun.elapsed(), NAMED_AFTER, "a start does not wait for long");
        assert_eq!(starting.awaited(), Some(Reason::MetadataUnreachable));
        starting.table.set(TableAnswer::Absent);
        let refusal = starting.started.unwrap().first();
        let refused = tokio::time::timeout(Duration::from_mins(1), refusal).await.unwrap();
        assert!(matches!(refused, NotAdmitted::Never(_)), "{refused}");
        assert!(starting.condition.may_read().is_err());
    }
}
