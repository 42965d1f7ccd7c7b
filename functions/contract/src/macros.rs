//! The macros that make a named test of every clause.
//!
//! Those of one contract take attributes for all of its tests behind the store: `#[ignore = "needs a server"]`.

/// Runs the whole contract suite: one test for each clause, in the modules `session_contract`, `blob_contract`,
/// `metadata_contract`, `collection_contract` and `record_contract` of the calling module. The argument is a future of
/// [`Stores`](crate::Stores).
#[macro_export]
macro_rules! contract_tests {
    ($stores:expr) => {
        $crate::session_contract_tests!(async {
            let stores: $crate::Stores = $stores.await;
            (stores.sessions, stores.guard)
        });
        $crate::blob_contract_tests!(async {
            let stores: $crate::Stores = $stores.await;
            (stores.blobs, stores.guard)
        });
        $crate::metadata_contract_tests!(async {
            let stores: $crate::Stores = $stores.await;
            (stores.metadata, stores.guard)
        });
        $crate::collection_contract_tests!(async {
            let stores: $crate::Stores = $stores.await;
            stores.into_names()
        });
        $crate::record_contract_tests!(async {
            let stores: $crate::Stores = $stores.await;
            stores.into_names()
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
/// `(`[`Names`](crate::Names)`, Guard)`.
#[macro_export]
macro_rules! collection_contract_tests {
    ($names:expr $(, #[$attribute:meta])*) => {
        $crate::__collection_clauses! {
            __clauses
            [$(#[$attribute])*],
            collection_contract,
            collection,
            $crate::Names,
            collection_contract_store,
            async {
                let (names, guard): ($crate::Names, $crate::Guard) = $names.await;
                (::std::sync::Arc::new(names), guard)
            },
        }
    };
}

/// Runs the clauses about [`RecordStore`](registry::store::records::RecordStore). The argument is a future of
/// `(`[`Names`](crate::Names)`, Guard)`; it is asked for twice in each test, for two stores that know nothing
/// of each other.
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
                let (from, from_guard): ($crate::Names, $crate::Guard) = $names.await;
                let (to, to_guard): ($crate::Names, $crate::Guard) = $names.await;
                let pair = $crate::records::Pair { from, to };
                let guard: $crate::Guard = ::std::boxed::Box::new((from_guard, to_guard));
                (::std::sync::Arc::new(pair), guard)
            },
        }
    };
}

/// Runs the clauses about [checks](crate::checks). The argument is a future of
/// `(`[`Harmed`](crate::checks::Harmed)`, Guard)`.
#[macro_export]
macro_rules! check_contract_tests {
    ($harmed:expr $(, #[$attribute:meta])*) => {
        $crate::__check_clauses! {
            __clauses
            [$(#[$attribute])*],
            check_contract,
            checks,
            $crate::checks::Harmed,
            check_contract_store,
            async {
                let (harmed, guard): ($crate::checks::Harmed, $crate::Guard) = $harmed.await;
                (::std::sync::Arc::new(harmed), guard)
            },
        }
    };
}

/// Runs a [`churn`](crate::churn) over stores, once with every request run to its end and once with requests
/// that are cut off, in the module `churn` of the calling module. The first argument is a future of
/// [`Stores`](crate::Stores); the second, if given, says how much is done
/// ([`Options`](crate::churn::Options)); the third, an async closure, is given the stores' guard when a churn
/// is over, to look for what the traits of stores do not show. Each test ends within five minutes, or fails.
#[macro_export]
macro_rules! churn_tests {
    ($stores:expr) => {
        $crate::churn_tests!($stores, $crate::churn::Options::default());
    };
    ($stores:expr, $options:expr $(, #[$attribute:meta])*) => {
        $crate::churn_tests!($stores, $options, async |_: $crate::Guard| {} $(, #[$attribute])*);
    };
    ($stores:expr, $options:expr, $look:expr $(, #[$attribute:meta])*) => {
        async fn churned_stores() -> $crate::Stores {
            $stores.await
        }

        fn churn_options() -> $crate::churn::Options {
            $options
        }

        async fn look_after_churn(guard: $crate::Guard) {
            let look = $look;
            look(guard).await;
        }

        mod churn {
            $crate::__spawn!();

            async fn run(cuts: bool) -> $crate::churn::Churned {
                let options = $crate::churn::Options {
                    cuts,
                    ..super::churn_options()
                };
                let (stores, guard) = super::churned_stores().await.into_all();
                let churn = $crate::churn::churn(stores, spawn, options);
                let churned = ::tokio::time::timeout(::std::time::Duration::from_secs(300), churn)
                    .await
                    .expect("the churn ends within five minutes");
                super::look_after_churn(guard).await;
                churned
            }

            #[::tokio::test(flavor = "multi_thread")]
            $(#[$attribute])*
            async fn nothing_acknowledged_is_ever_lost() {
                let churned = run(false).await;
                assert!(
                    churned.pushed > 0 && churned.deleted > 0 && churned.verified > 0,
                    "{churned:?}"
                );
                assert!(churned.collected.objects_deleted > 0, "{churned:?}");
            }

            #[::tokio::test(flavor = "multi_thread")]
            $(#[$attribute])*
            async fn whatever_is_cut_off_is_reclaimed() {
                let churned = run(true).await;
                assert!(churned.cut > 0 && churned.pushed > 0, "{churned:?}");
                assert!(churned.collected.objects_scheduled > 0, "{churned:?}");
            }
        }
    };
}

/// The clauses about sessions: calls `$macro` with what it is given and the list of their names.
#[doc(hidden)]
#[macro_export]
macro_rules! __session_clauses {
    ($macro:ident $($given:tt)*) => {
        $crate::$macro! {
            $($given)*
            [
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
                a_session_has_so_many_attempts_and_no_more,
                what_is_expected_of_a_session_changes_no_answer,
                racing_claims_grant_one,
                a_takeover_races_the_save,
                a_committing_session_is_left_alone,
                a_done_session_keeps_its_digest,
                a_claimed_session_can_be_finished_as_cancelled,
                a_committing_session_can_be_finished_as_cancelled,
                a_committing_session_can_be_settled,
                a_session_can_be_published_and_not_done,
                a_commit_keeps_what_is_published,
                a_lost_claim_cannot_finish,
                a_cancel_without_a_row_leaves_one,
                a_cancel_tells_what_was_stored,
                a_cancel_takes_the_claim_away,
                a_cancel_races_the_commit,
                expired_sessions_come_in_pages,
                the_first_signing_key_stays,
                racing_first_signing_keys_are_one,
                calls_may_come_from_any_instance,
            ]
        }
    };
}

/// The clauses about blobs: calls `$macro` with what it is given and the list of their names.
#[doc(hidden)]
#[macro_export]
macro_rules! __blob_clauses {
    ($macro:ident $($given:tt)*) => {
        $crate::$macro! {
            $($given)*
            [
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
                a_range_beyond_the_end_reads_as_none,
                deleting_is_idempotent,
                a_redirect_looks_at_no_object,
                a_failed_body_leaves_nothing,
                a_dropped_append_leaves_nothing,
                overlapping_attempts_stay_apart,
                a_late_writer_changes_nothing,
                a_lost_seal_does_not_bind_the_next,
                a_session_goes_on_after_a_lost_seal,
                sessions_do_not_meet,
                a_discard_removes_everything,
                a_discard_spares_what_is_kept,
                an_object_has_a_size,
                what_is_freed_is_told_as_it_was,
                a_walk_meets_every_object,
                deleting_what_is_not_there_is_fine,
                nothing_remains_of_an_upload_that_was_swept,
                what_remains_of_an_upload_spares_its_object,
            ]
        }
    };
}

/// The clauses about metadata: calls `$macro` with what it is given and the list of their names.
#[doc(hidden)]
#[macro_export]
macro_rules! __metadata_clauses {
    ($macro:ident $($given:tt)*) => {
        $crate::$macro! {
            $($given)*
            [
                a_committed_blob_is_linked,
                a_link_is_of_one_repository,
                committing_again_changes_nothing,
                a_digest_has_one_location,
                a_mount_links_the_same_bytes,
                a_mount_needs_its_source,
                holders_are_those_that_link,
                a_blob_can_be_linked_again,
                two_digests_of_the_same_bytes_are_two_blobs,
                a_manifest_is_not_a_blob,
                a_large_manifest_has_one_location,
                a_push_is_told_where_the_bytes_lie,
                a_defect_is_told_in_every_repository,
                a_defect_of_another_object_is_not_recorded,
                what_has_a_defect_is_not_present,
                a_commit_replaces_a_defective_object_everywhere,
                a_repeated_commit_makes_nothing_of_a_lost_object,
                a_large_manifest_replaces_a_defective_object,
                a_manifest_put_again_replaces_damaged_bytes,
                a_damaged_record_is_told_until_the_manifest_is_put_again,
                a_manifest_whose_record_is_damaged_needs_its_bytes_there,
                a_missing_object_can_come_back,
                a_damaged_object_cannot_come_back,
                a_location_is_replaced_everywhere,
                a_location_is_replaced_only_if_it_is_as_expected,
                a_blob_with_a_defect_can_be_unlinked,
                racing_defects_commits_and_mounts_come_right,
                a_manifest_comes_back_as_it_was_put,
                a_manifest_is_of_one_repository,
                missing_references_refuse_the_manifest,
                a_refused_large_manifest_leaves_no_location,
                a_reference_is_a_blob_or_a_manifest,
                an_excepted_reference_need_not_exist,
                a_manifest_may_refer_to_much,
                a_manifest_appears_with_all_its_tags,
                putting_again_only_moves_tags,
                a_manifest_can_be_put_again,
                a_manifest_that_is_there_is_only_tagged,
                a_put_says_whether_it_has_written,
                an_unchanged_manifest_is_tagged_or_gone,
                a_new_tag_begins_its_history,
                a_tag_is_read_with_its_manifest,
                versions_follow_the_time_and_never_repeat,
                versions_grow_when_the_clock_does_not,
                a_tag_moves,
                an_unmoved_tag_gets_no_history,
                a_tag_is_deleted_alone,
                histories_are_apart,
                history_comes_in_pages,
                tags_come_in_order,
                repositories_come_in_order,
                a_repository_is_one_that_held_a_manifest,
                manifests_come_in_order,
                referrers_come_in_order,
                referrers_follow_the_referrer_not_the_subject,
                a_blob_in_use_is_not_unlinked,
                what_is_not_there_is_absent,
                a_child_of_an_index_is_not_deleted,
                a_reference_holds_both_forms_of_a_digest,
                an_excepted_reference_holds_what_it_names,
                a_subject_that_is_also_a_child_is_held,
                a_deleted_manifest_takes_its_tags_along,
                unlinking_is_of_one_repository,
                racing_commits_leave_one_location,
                racing_large_manifests_leave_one_location,
                a_put_races_the_unlink_of_its_blob,
                an_index_races_the_delete_of_its_child,
                a_mount_races_the_unlink_of_its_source,
                a_put_races_the_delete_of_the_same_manifest,
                racing_puts_of_one_manifest_keep_all_tags,
                racing_tag_writers_make_a_chain,
                racing_tag_deletes_make_a_chain,
                a_moved_tag_survives_the_delete_of_the_old_manifest,
                readers_see_a_push_whole,
            ]
        }
    };
}

/// The clauses about collections: calls `$macro` with what it is given and the list of their names.
#[doc(hidden)]
#[macro_export]
macro_rules! __collection_clauses {
    ($macro:ident $($given:tt)*) => {
        $crate::$macro! {
            $($given)*
            [
                an_unreferenced_link_is_unlinked_by_a_later_pass,
                a_referenced_link_is_never_collected,
                an_untagged_manifest_is_never_collected,
                links_are_collected_by_repository,
                whoever_pushes_removes_the_mark,
                a_pull_does_not_remove_the_mark,
                keeping_a_link_makes_none,
                a_marked_link_is_a_link,
                a_new_life_of_a_link_is_young,
                bytes_that_nobody_holds_are_buried,
                buried_bytes_can_be_pushed_again,
                large_manifests_hold_their_bytes,
                names_of_the_same_bytes_are_collected_apart,
                what_lost_its_race_is_buried,
                what_was_replaced_is_buried,
                a_blob_with_a_defect_is_collected,
                a_name_is_a_digest_and_a_place,
                pending_deletions_wait,
                pending_deletions_come_in_slices,
                forgetting_is_idempotent,
                an_object_buried_twice_waits_from_its_last_burial,
                burials_of_an_object_are_joined,
                forgetting_an_old_grave_leaves_the_new_one,
                a_name_stands_before_its_grave,
                an_object_whose_name_goes_is_left_alone,
                a_look_at_an_old_grave_races_a_burial,
                an_open_session_is_swept,
                a_cancelled_session_is_swept,
                a_committing_session_is_swept,
                a_refused_publication_is_swept,
                a_done_session_is_swept_without_a_grave,
                a_session_that_has_changed_is_not_swept,
                a_long_session_is_swept_whole,
                a_swept_session_takes_nothing,
                a_pass_runs_alone,
                s33_a_lease_of_a_wrong_clock_holds_nobody_up,
                a_checkpoint_holds_the_pass,
                a_pass_is_resumed,
                racing_passes_begin_one,
                slices_meet_everything,
                a_walk_goes_on_while_names_change,
                nothing_young_is_touched,
                a_deep_pass_leaves_a_healthy_registry_alone,
                a_dry_run_writes_nothing,
                nothing_is_left_in_the_end,
                an_empty_repository_leaves_the_catalog,
                a_repository_with_a_blob_stays_in_the_catalog,
                a_repository_that_is_pushed_to_again_is_listed_again,
                a_collection_of_the_catalog_races_a_put,
                a_collection_races_the_keeping_of_a_link,
                a_collection_races_a_put,
                a_collection_races_a_commit,
                a_burial_races_a_commit,
                a_collection_races_a_mount,
                a_burial_races_a_large_manifest,
                a_collection_races_deletes,
                racing_collections_do_it_once,
                a_sweep_races_the_commit,
            ]
        }
    };
}

/// The clauses about records: calls `$macro` with what it is given and the list of their names.
#[doc(hidden)]
#[macro_export]
macro_rules! __record_clauses {
    ($macro:ident $($given:tt)*) => {
        $crate::$macro! {
            $($given)*
            [
                an_empty_store_has_no_records,
                records_say_what_reads_say,
                a_manifest_is_recorded_with_its_references,
                slices_meet_every_record,
                a_walk_meets_what_stays,
                what_a_collection_notes_is_no_record,
                everything_moves,
                inserting_again_changes_nothing,
                a_record_is_replaced,
                the_defect_of_an_object_is_told_and_not_exported,
                a_registry_goes_on_where_it_has_moved,
                ages_move_along,
                records_hold_extreme_values,
            ]
        }
    };
}

/// The clauses about checks: calls `$macro` with what it is given and the list of their names.
#[doc(hidden)]
#[macro_export]
macro_rules! __check_clauses {
    ($macro:ident $($given:tt)*) => {
        $crate::$macro! {
            $($given)*
            [
                nothing_is_found_where_nothing_is_lost,
                a_lost_edge_is_found,
                an_edge_of_another_life_is_none,
                a_large_manifest_without_its_back_link_is_found,
                a_link_without_its_own_back_link_is_found,
                a_holder_is_found_among_a_thousand,
                a_link_of_another_size_is_found,
                a_manifest_of_another_size_is_found,
                a_missing_part_ends_an_export_and_no_check,
                an_unreadable_record_ends_an_export_and_no_check,
            ]
        }
    };
}

/// How a test of a store starts a task.
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

/// One of them. Apart, because attributes and clauses are two lists of different lengths.
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
