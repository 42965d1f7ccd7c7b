//! The reference stores under concurrent operations of all kinds; and proof that a churn finds the defects that it must
//! find.

use contract::TestStores;
use contract::churn::ChurnOptions;

mod one {
    contract::churn_tests!(async { super::TestStores::in_memory() });
}

mod another {
    use super::ChurnOptions;

    contract::churn_tests!(
        async { super::TestStores::in_memory() },
        ChurnOptions {
            seed: 20_301_124,
            workers: 6,
            operations: 200,
            ..ChurnOptions::default()
        }
    );
}

/// Each of these stores has a defect, which the churn must find.
mod noticed {
    use std::pin::Pin;
    use std::sync::Arc;

    use async_trait::async_trait;
    use contract::churn::{ChurnOptions, churn};
    use registry::store::collection::{
        Collected, CollectionStore, DeletionCheck, GracePeriods, PassStart, PendingDeletion, Plan,
    };
    use registry::store::sessions::{Session, SessionKey};
    use registry::store::{Context, Cursor, Slice, StoreError, Timestamp, Uid};

    #[derive(Clone, Copy, PartialEq)]
    enum Defect {
        /// Links have no grace period.
        Hasty,
        /// The objects of swept sessions are not scheduled for deletion.
        Forgetful,
        /// Pending deletions are written, and never due.
        Piling,
    }

    struct Defective {
        inner: Arc<dyn CollectionStore>,
        defect: Defect,
    }

    #[async_trait]
    impl CollectionStore for Defective {
        async fn begin_pass(&self, cx: Context, pass: Uid, until: Timestamp) -> Result<PassStart, StoreError> {
            self.inner.begin_pass(cx, pass, until).await
        }

        async fn checkpoint(
            &self,
            cx: Context,
            pass: Uid,
            next: Option<&Cursor>,
            until: Timestamp,
        ) -> Result<bool, StoreError> {
            self.inner.checkpoint(cx, pass, next, until).await
        }

        async fn collect_metadata(
            &self,
            cx: Context,
            plan: &Plan,
            after: Option<&Cursor>,
            limit: usize,
        ) -> Result<Collected, StoreError> {
            let link_ms = if self.defect == Defect::Hasty {
                0
            } else {
                plan.grace_periods.link_ms
            };
            let plan = Plan {
                grace_periods: GracePeriods {
                    link_ms,
                    ..plan.grace_periods
                },
                ..*plan
            };
            self.inner.collect_metadata(cx, &plan, after, limit).await
        }

        async fn sweep(&self, cx: Context, key: SessionKey, session: &Session) -> Result<Option<u64>, StoreError> {
            let swept = self.inner.sweep(cx, key, session).await?;
            if self.defect == Defect::Forgetful {
                let pending_deletions: Vec<_> = registry::store::collection::remains(key, session, cx.now).collect();
                self.inner.remove_pending_deletions(cx, &pending_deletions).await?;
            }
            Ok(swept)
        }

        async fn pending_deletions(
            &self,
            cx: Context,
            before: Timestamp,
            after: Option<&Cursor>,
            limit: usize,
        ) -> Result<Slice<PendingDeletion>, StoreError> {
            if self.defect == Defect::Piling && before < cx.now {
                return Ok(Slice {
                    items: Vec::new(),
                    next: None,
                });
            }
            self.inner.pending_deletions(cx, before, after, limit).await
        }

        async fn check_pending_deletion(
            &self,
            cx: Context,
            pending_deletion: &PendingDeletion,
        ) -> Result<DeletionCheck, StoreError> {
            self.inner.check_pending_deletion(cx, pending_deletion).await
        }

        async fn remove_pending_deletions(
            &self,
            cx: Context,
            pending_deletions: &[PendingDeletion],
        ) -> Result<(), StoreError> {
            self.inner.remove_pending_deletions(cx, pending_deletions).await
        }
    }

    type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn spawn(work: Work) -> Work {
        let task = tokio::spawn(work);
        Box::pin(async { task.await.expect("a task of the churn") })
    }

    async fn run(defect: Defect) {
        let mut stores = super::TestStores::in_memory().stores;
        stores.collection = Arc::new(Defective {
            inner: stores.collection,
            defect,
        });
        let churned = churn(stores, spawn, ChurnOptions::default()).await;
        unreachable!("nothing was noticed: {churned:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    #[should_panic(expected = "a task of the churn")]
    async fn a_collection_that_does_not_wait() {
        run(Defect::Hasty).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[should_panic(expected = "found: ")]
    async fn a_sweep_that_forgets() {
        run(Defect::Forgetful).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    #[should_panic(expected = "pending deletions are left")]
    async fn pending_deletions_that_are_never_due() {
        run(Defect::Piling).await;
    }
}
