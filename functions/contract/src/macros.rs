//! The macros that make a named test of every clause.
//!
//! Those of one contract take attributes for all of its tests behind the store: `#[ignore = "needs a server"]`.
//! The names of the clauses are in [`clauses`].

mod clauses;

/// Runs the whole contract suite: one test for each clause, in the modules `session_contract`, `blob_contract`,
/// `metadata_contract`, `collection_contract`, `record_contract`, `audit_contract` and `access_contract` of the calling
/// module. The argument is a future of [`TestStores`](crate::TestStores).
#[macro_export]
macro_rules! contract_tests {
    ($stores:expr) => {
        $crate::session_contract_tests!(async {
            let $crate::TestStores { stores, guard } = $stores.await;
            (stores.sessions, guard)
        });
        $crate::blob_contract_tests!(async {
            let $crate::TestStores { stores, guard } = $stores.await;
            (stores.blobs, guard)
        });
        $crate::metadata_contract_tests!(async {
            let $crate::TestStores { stores, guard } = $stores.await;
            (stores.metadata, guard)
        });
        $crate::collection_contract_tests!(async {
            let stores: $crate::TestStores = $stores.await;
            stores.into_metadata_stores()
        });
        $crate::record_contract_tests!(async {
            let stores: $crate::TestStores = $stores.await;
            stores.into_metadata_stores()
        });
        $crate::audit_contract_tests!(async {
            let stores: $crate::TestStores = $stores.await;
            stores.into_metadata_stores()
        });
        $crate::access_contract_tests!(async {
            let $crate::TestStores { stores, guard } = $stores.await;
            (stores.access, guard)
        });
    };
}

/// Runs the clauses about [`SessionStore`](registry::store::sessions::SessionStore). The argument is a future of
/// `(Arc<dyn SessionStore>, Guard)`.
#[macro_export]
macro_rules! session_contract_tests {
    ($store:expr $(, #[$attribute:meta])*) => {
        $crate::__session_clauses! {
            __clauses
            [$(#[$attribute])*],
            session_contract,
            sessions,
            dyn $crate::registry::store::sessions::SessionStore,
            session_contract_store,
            $store,
        }
    };
}

/// Runs the clauses about [`BlobStore`](registry::store::blobs::BlobStore). The argument is a future of
/// `(Arc<dyn BlobStore>, Guard)`.
#[macro_export]
macro_rules! blob_contract_tests {
    ($store:expr $(, #[$attribute:meta])*) => {
        $crate::__blob_clauses! {
            __clauses
            [$(#[$attribute])*],
            blob_contract,
            blobs,
            dyn $crate::registry::store::blobs::BlobStore,
            blob_contract_store,
            $store,
        }
    };
}

/// Runs the clauses about [`MetadataStore`](registry::store::metadata::MetadataStore). The argument is a future of
/// `(Arc<dyn MetadataStore>, Guard)`.
#[macro_export]
macro_rules! metadata_contract_tests {
    ($store:expr $(, #[$attribute:meta])*) => {
        $crate::__metadata_clauses! {
            __clauses
            [$(#[$attribute])*],
            metadata_contract,
            metadata,
            dyn $crate::registry::store::metadata::MetadataStore,
            metadata_contract_store,
            $store,
        }
    };
}

/// Runs the clauses about [`CollectionStore`](registry::store::collection::CollectionStore). The argument is a future of
/// `(`[`MetadataStores`](crate::MetadataStores)`, Guard)`.
#[macro_export]
macro_rules! collection_contract_tests {
    ($names:expr $(, #[$attribute:meta])*) => {
        $crate::__collection_clauses! {
            __clauses
            [$(#[$attribute])*],
            collection_contract,
            collection,
            $crate::MetadataStores,
            collection_contract_store,
            async {
                let (names, guard): ($crate::MetadataStores, $crate::Guard) = $names.await;
                (::std::sync::Arc::new(names), guard)
            },
        }
    };
}

/// Runs the clauses about [`RecordStore`](registry::store::records::RecordStore). The argument is a future of
/// `(`[`MetadataStores`](crate::MetadataStores)`, Guard)`. Each test evaluates it twice, for two independent stores.
#[macro_export]
macro_rules! record_contract_tests {
    ($names:expr $(, #[$attribute:meta])*) => {
        $crate::__record_clauses! {
            __clauses
            [$(#[$attribute])*],
            record_contract,
            records,
            $crate::records::Pair,
            record_contract_store,
            async {
                let (from, from_guard): ($crate::MetadataStores, $crate::Guard) = $names.await;
                let (to, to_guard): ($crate::MetadataStores, $crate::Guard) = $names.await;
                let pair = $crate::records::Pair { from, to };
                let guard: $crate::Guard = ::std::boxed::Box::new((from_guard, to_guard));
                (::std::sync::Arc::new(pair), guard)
            },
        }
    };
}

/// Runs the clauses about changes of metadata and their events ([`audit`](crate::audit)). The argument is a future of
/// `(`[`MetadataStores`](crate::MetadataStores)`, Guard)`.
#[macro_export]
macro_rules! audit_contract_tests {
    ($names:expr $(, #[$attribute:meta])*) => {
        $crate::__audit_clauses! {
            __clauses
            [$(#[$attribute])*],
            audit_contract,
            audit,
            $crate::MetadataStores,
            audit_contract_store,
            async {
                let (names, guard): ($crate::MetadataStores, $crate::Guard) = $names.await;
                (::std::sync::Arc::new(names), guard)
            },
        }
    };
}

/// Runs the clauses about [`AccessStore`](registry::store::access::AccessStore). The argument is a future of
/// `(Arc<dyn AccessStore>, Guard)`.
#[macro_export]
macro_rules! access_contract_tests {
    ($store:expr $(, #[$attribute:meta])*) => {
        $crate::__access_clauses! {
            __clauses
            [$(#[$attribute])*],
            access_contract,
            access,
            dyn $crate::registry::store::access::AccessStore,
            access_contract_store,
            $store,
        }
    };
}

/// Runs the clauses about [checks](crate::checks). The argument is a future of
/// `(`[`CorruptibleStores`](crate::checks::CorruptibleStores)`, Guard)`.
#[macro_export]
macro_rules! check_contract_tests {
    ($stores:expr $(, #[$attribute:meta])*) => {
        $crate::__check_clauses! {
            __clauses
            [$(#[$attribute])*],
            check_contract,
            checks,
            $crate::checks::CorruptibleStores,
            check_contract_store,
            async {
                let (stores, guard): ($crate::checks::CorruptibleStores, $crate::Guard) = $stores.await;
                (::std::sync::Arc::new(stores), guard)
            },
        }
    };
}

/// Runs a [`churn`](crate::churn) over stores in the module `churn` of the calling module: once with every request run
/// to its end, and once with interrupted requests. The first argument is a future of [`TestStores`](crate::TestStores). The
/// second, optional one is its size ([`ChurnOptions`](crate::churn::ChurnOptions)). The third, an optional async closure,
/// receives the guard of the stores after a churn, for assertions about what the traits of stores do not show. Each test
/// ends within five minutes, or fails.
#[macro_export]
macro_rules! churn_tests {
    ($stores:expr) => {
        $crate::churn_tests!($stores, $crate::churn::ChurnOptions::default());
    };
    ($stores:expr, $options:expr $(, #[$attribute:meta])*) => {
        $crate::churn_tests!($stores, $options, async |_: $crate::Guard| {} $(, #[$attribute])*);
    };
    ($stores:expr, $options:expr, $look:expr $(, #[$attribute:meta])*) => {
        async fn churned_stores() -> $crate::TestStores {
            $stores.await
        }

        fn churn_options() -> $crate::churn::ChurnOptions {
            $options
        }

        async fn look_after_churn(guard: $crate::Guard) {
            let look = $look;
            look(guard).await;
        }

        mod churn {
            $crate::__spawn!();

            async fn run(cuts: bool) -> $crate::churn::ChurnStatistics {
                let options = $crate::churn::ChurnOptions {
                    cuts,
                    ..super::churn_options()
                };
                let $crate::TestStores { stores, guard } = super::churned_stores().await;
                let churn = $crate::churn::churn(stores, spawn, options);
                let statistics = ::tokio::time::timeout(::std::time::Duration::from_secs(300), churn)
                    .await
                    .expect("the churn ends within five minutes");
                super::look_after_churn(guard).await;
                statistics
            }

            #[::tokio::test(flavor = "multi_thread")]
            $(#[$attribute])*
            async fn acknowledged_content_is_never_lost() {
                let statistics = run(false).await;
                assert!(
                    statistics.pushed > 0 && statistics.deleted > 0 && statistics.verified > 0,
                    "{statistics:?}"
                );
                assert!(statistics.denied > 0 && statistics.protected > 0, "{statistics:?}");
                assert!(statistics.collected.objects_deleted > 0, "{statistics:?}");
            }

            #[::tokio::test(flavor = "multi_thread")]
            $(#[$attribute])*
            async fn interrupted_pushes_are_collected() {
                let statistics = run(true).await;
                assert!(statistics.cut > 0 && statistics.pushed > 0, "{statistics:?}");
                assert!(statistics.collected.objects_scheduled > 0, "{statistics:?}");
            }
        }
    };
}

/// Starts a task of a test.
#[doc(hidden)]
#[macro_export]
macro_rules! __spawn {
    () => {
        fn spawn(
            work: ::std::pin::Pin<::std::boxed::Box<dyn Future<Output = ()> + Send>>,
        ) -> ::std::pin::Pin<::std::boxed::Box<dyn Future<Output = ()> + Send>> {
            let task = ::tokio::spawn(work);
            ::std::boxed::Box::pin(async { task.await.expect("a task of the clause") })
        }
    };
}

/// Makes a module of tests, one for each clause, each with a store of its own and bounded in time.
#[doc(hidden)]
#[macro_export]
macro_rules! __clauses {
    ($attributes:tt, $tests:ident, $clauses:ident, $given:ty, $make:ident, $store:expr, [$($clause:ident,)*]) => {
        // Outside the module of tests, so that the expression means what it means to the caller.
        async fn $make() -> (
            ::std::sync::Arc<$given>,
            $crate::Guard,
        ) {
            $store.await
        }

        mod $tests {
            $crate::__spawn!();

            fn run(clause: fn($crate::ContractTest<$given>) -> $crate::ClauseFuture) {
                let runtime = ::tokio::runtime::Runtime::new().expect("a runtime");
                runtime.block_on(async {
                    let test = $crate::ContractTest::new(super::$make().await, spawn);
                    // A store that waits for ever fails, it does not hang the tests.
                    ::tokio::time::timeout(::std::time::Duration::from_secs(120), clause(test))
                        .await
                        .expect("the clause ends within two minutes");
                });
            }

            $($crate::__clause!($attributes, $clauses, $clause);)*
        }
    };
}

/// Makes one of these tests. A macro of its own, because attributes and clauses are two lists of different lengths.
#[doc(hidden)]
#[macro_export]
macro_rules! __clause {
    ([$(#[$attribute:meta])*], $clauses:ident, $clause:ident) => {
        #[test]
        $(#[$attribute])*
        fn $clause() {
            run($crate::compiled::$clauses::$clause);
        }
    };
}

/// Makes a module of functions, one for each clause, whose code is compiled with the suite: see `compiled`.
#[doc(hidden)]
#[macro_export]
macro_rules! __compiled {
    ($clauses:ident, $given:ty, [$($clause:ident,)*]) => {
        pub mod $clauses {
            $(
                pub fn $clause(test: $crate::ContractTest<$given>) -> $crate::ClauseFuture {
                    ::std::boxed::Box::pin($crate::$clauses::$clause(test))
                }
            )*
        }
    };
}
