//! The macros that make a named test of every clause.

/// Runs the whole contract suite: one test for each clause, in the modules `session_contract`, `blob_contract` and
/// `metadata_contract` of the calling module. The argument is a future of [`Stores`](crate::contract::Stores).
#[macro_export]
macro_rules! contract_tests {
    ($stores:expr) => {
        $crate::session_contract_tests!(async {
            let stores: $crate::contract::Stores = $stores.await;
            (stores.sessions, stores.guard)
        });
        $crate::blob_contract_tests!(async {
            let stores: $crate::contract::Stores = $stores.await;
            (stores.blobs, stores.guard)
        });
        $crate::metadata_contract_tests!(async {
            let stores: $crate::contract::Stores = $stores.await;
            (stores.metadata, stores.guard)
        });
    };
}

/// Runs the clauses about [`SessionStore`](crate::store::sessions::SessionStore). The argument is a future of
/// `(Arc<dyn SessionStore>, Guard)`.
#[macro_export]
macro_rules! session_contract_tests {
    ($store:expr) => {
        $crate::__clauses!(session_contract, sessions, SessionStore, session_contract_store, $store, [
            a_new_session_has_no_row,
            a_claim_creates_the_row,
            sessions_are_apart,
            a_live_claim_keeps_others_out,
            a_claim_expires_at_its_end,
            a_claim_that_ran_out_is_still_good,
            a_renewed_claim_lives_on,
            a_save_records_the_body,
            parts_stay_in_order,
            a_release_undoes_the_claim,
            attempts_never_repeat,
            racing_claims_grant_one,
            a_takeover_races_the_save,
            a_committing_session_is_left_alone,
            a_done_session_keeps_its_digest,
            a_claimed_session_can_be_finished_as_cancelled,
            a_committing_session_can_be_finished_as_cancelled,
            a_lost_claim_cannot_finish,
            a_cancel_without_a_row_leaves_one,
            a_cancel_tells_what_was_stored,
            a_cancel_takes_the_claim_away,
            a_cancel_races_the_commit,
            expired_sessions_come_in_order,
            the_first_signing_key_stays,
            racing_first_signing_keys_are_one,
            calls_may_come_from_any_instance,
        ]);
    };
}

/// Runs the clauses about [`BlobStore`](crate::store::blobs::BlobStore). The argument is a future of
/// `(Arc<dyn BlobStore>, Guard)`.
#[macro_export]
macro_rules! blob_contract_tests {
    ($store:expr) => {
        $crate::__clauses!(blob_contract, blobs, BlobStore, blob_contract_store, $store, [
            an_empty_body_is_an_object,
            a_body_of_any_chunks_is_stored_whole,
            a_big_body_is_stored_whole,
            a_wrong_length_hint_does_no_harm,
            bodies_are_joined_in_order,
            many_bodies_are_joined_in_order,
            big_bodies_are_joined,
            sealing_again_answers_the_same_location,
            racing_seals_agree,
            keys_are_opaque_and_distinct,
            ranges_are_read_exactly,
            ranges_cross_the_bodies,
            readers_do_not_disturb_each_other,
            an_absent_object_reads_as_none,
            deleting_is_idempotent,
            a_redirect_looks_at_no_object,
            a_failed_body_leaves_nothing,
            a_dropped_append_leaves_nothing,
            overlapping_attempts_stay_apart,
            a_late_writer_changes_nothing,
            a_lost_seal_does_not_bind_the_next,
            a_session_goes_on_after_a_lost_seal,
            sessions_do_not_meet,
            an_abort_removes_what_is_not_sealed,
            an_abort_spares_what_is_sealed,
        ]);
    };
}

/// Runs the clauses about [`MetadataStore`](crate::store::metadata::MetadataStore). The argument is a future of
/// `(Arc<dyn MetadataStore>, Guard)`.
#[macro_export]
macro_rules! metadata_contract_tests {
    ($store:expr) => {
    };
}

/// Makes a module of tests, one for each clause, each with a store of its own and bounded in time.
#[doc(hidden)]
#[macro_export]
macro_rules! __clauses {
    ($tests:ident, $clauses:ident, $contract:ident, $make:ident, $store:expr, [$($clause:ident,)*]) => {
        // Outside the module of tests, so that the expression means what it means to the caller.
        async fn $make() -> (
            ::std::sync::Arc<dyn $crate::store::$clauses::$contract>,
            $crate::contract::Guard,
        ) {
            $store.await
        }

        mod $tests {
            fn spawn(
                work: ::std::pin::Pin<::std::boxed::Box<dyn Future<Output = ()> + Send>>,
            ) -> ::std::pin::Pin<::std::boxed::Box<dyn Future<Output = ()> + Send>> {
                let task = ::tokio::spawn(work);
                ::std::boxed::Box::pin(async { task.await.expect("a task of the clause") })
            }

            $(
                #[::tokio::test(flavor = "multi_thread")]
                async fn $clause() {
                    let trial = $crate::contract::Trial::new(super::$make().await, spawn);
                    let clause = $crate::contract::$clauses::$clause(trial);
                    // A store that waits for ever fails, it does not hang the tests.
                    ::tokio::time::timeout(::std::time::Duration::from_secs(120), clause)
                        .await
                        .expect("the clause ends within two minutes");
                }
            )*
        }
    };
}
