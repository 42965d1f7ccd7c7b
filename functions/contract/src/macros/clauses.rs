//! The names of the clauses of each contract: a clause that is not in its list never runs.

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
                sessions_differ_by_their_whole_key,
                a_live_claim_refuses_other_claims,
                a_claim_expires_at_its_end,
                an_expired_claim_is_valid_until_another_is_granted,
                a_renewed_claim_is_live_until_its_new_end,
                a_save_records_progress_and_part,
                parts_are_read_in_the_order_of_their_saves,
                a_release_undoes_the_claim,
                attempt_numbers_never_repeat,
                a_session_has_a_maximum_of_attempts,
                the_expectation_of_a_session_changes_no_answer,
                one_of_racing_claims_is_granted,
                a_takeover_races_the_save,
                a_committing_session_cannot_be_claimed_or_cancelled,
                a_done_session_keeps_its_digest,
                a_claimed_session_can_be_finished_as_cancelled,
                a_committing_session_can_be_finished_as_cancelled,
                a_committing_session_can_be_finished_by_its_key,
                a_published_session_keeps_its_state,
                a_commit_records_everything_its_publication_needs,
                a_lost_claim_cannot_finish,
                a_cancel_creates_a_missing_row,
                a_cancel_answers_the_row_as_it_was,
                a_cancel_revokes_a_live_claim,
                a_cancel_races_the_commit,
                expired_sessions_are_listed_in_pages,
                the_first_signing_key_stays,
                racing_first_signing_keys_agree,
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
                an_empty_body_becomes_an_empty_object,
                a_body_of_any_chunks_is_stored_whole,
                a_large_body_is_stored_whole,
                a_wrong_length_hint_changes_nothing,
                bodies_are_joined_in_order,
                many_bodies_are_joined_in_order,
                large_bodies_are_joined,
                sealing_again_answers_the_same_location,
                racing_first_seals_agree,
                keys_are_distinct_and_use_safe_characters,
                ranges_are_read_exactly,
                ranges_cross_the_bounds_of_bodies,
                concurrent_readers_get_the_same_bytes,
                an_absent_object_reads_as_none,
                a_range_beyond_the_end_reads_as_none,
                deleting_is_idempotent,
                a_redirect_makes_no_store_request,
                a_failed_body_changes_nothing,
                a_dropped_append_changes_nothing,
                overlapping_attempts_are_isolated,
                a_late_writer_changes_nothing,
                a_lost_seal_does_not_affect_the_next,
                a_session_goes_on_after_a_lost_seal,
                concurrent_sessions_are_isolated,
                a_discard_removes_everything,
                a_discard_keeps_the_given_object,
                the_size_of_an_object_is_read,
                a_deletion_counts_what_it_has_deleted,
                a_walk_visits_every_object,
                deleting_absent_objects_is_no_error,
                an_expired_upload_leaves_no_object,
                an_expired_published_upload_keeps_its_object,
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
                a_link_belongs_to_one_repository,
                committing_again_changes_nothing,
                a_digest_has_one_location,
                a_mount_links_the_same_object,
                a_mount_needs_a_link_in_its_source,
                linking_repositories_lists_each_repository_once,
                an_unlinked_blob_can_be_pushed_again,
                two_digests_of_the_same_bytes_are_two_blobs,
                a_manifest_is_not_a_blob,
                a_large_manifest_has_one_location,
                a_push_answers_the_blob_location,
                a_defect_is_reported_in_every_repository,
                a_defect_of_another_object_is_not_recorded,
                a_defective_blob_does_not_count_as_present,
                a_commit_replaces_a_defective_object_everywhere,
                a_repeated_commit_reports_a_lost_object,
                a_large_manifest_replaces_a_defective_object,
                a_manifest_put_again_replaces_damaged_bytes,
                a_damaged_record_is_reported_until_the_manifest_is_put_again,
                a_damaged_record_needs_inline_bytes,
                a_missing_object_can_come_back,
                a_damaged_object_cannot_come_back,
                a_location_is_replaced_everywhere,
                a_location_is_replaced_only_if_it_is_as_expected,
                a_blob_with_a_defect_can_be_unlinked,
                racing_defects_commits_and_mounts_end_consistent,
                a_manifest_is_read_as_it_was_put,
                a_manifest_belongs_to_one_repository,
                a_manifest_with_missing_references_is_refused,
                a_refused_large_manifest_leaves_no_location,
                a_reference_is_a_blob_or_a_manifest,
                an_excepted_reference_need_not_exist,
                a_manifest_may_have_more_references_than_a_transaction_holds,
                a_manifest_appears_with_all_its_tags,
                putting_a_manifest_again_changes_only_tags,
                a_deleted_manifest_can_be_put_again,
                putting_a_manifest_again_does_not_check_its_references,
                a_put_answers_whether_it_has_written,
                an_existing_large_manifest_is_tagged_without_its_bytes,
                a_new_tag_begins_its_history,
                a_tag_is_read_with_its_manifest,
                versions_follow_the_time_and_never_repeat,
                versions_grow_when_the_clock_does_not,
                a_moved_tag_keeps_both_manifests,
                an_unmoved_tag_gets_no_history,
                deleting_a_tag_keeps_its_manifest,
                a_promotion_is_recorded_with_its_source,
                each_tag_has_its_own_history,
                history_is_listed_in_pages,
                a_guard_is_asked_about_the_rows_of_the_tags,
                a_frozen_tag_keeps_its_digest,
                a_guard_is_asked_before_references_are_checked,
                one_frozen_tag_of_twenty_refuses_all,
                a_guard_can_allow_new_tags_only,
                a_frozen_tag_is_not_deleted,
                a_deleted_frozen_tag_comes_back_with_its_digest,
                a_frozen_tag_that_comes_back_is_frozen_at_once,
                a_deleted_tag_that_was_not_frozen_begins_anew,
                creators_at_once_leave_one_tag,
                a_restricted_caller_loses_every_race,
                tags_are_listed_in_ascii_order,
                repositories_are_listed_in_ascii_order,
                only_a_published_manifest_creates_a_repository,
                manifests_are_listed_in_order,
                referrers_are_listed_in_order,
                a_referrer_is_listed_until_it_is_deleted,
                a_referenced_blob_is_not_unlinked,
                deleting_what_does_not_exist_answers_absent,
                a_child_of_an_index_is_not_deleted,
                a_reference_protects_the_blob_and_the_manifest_of_a_digest,
                an_excepted_reference_protects_its_target,
                a_subject_that_is_also_a_child_is_protected,
                deleting_a_manifest_deletes_its_tags,
                unlinking_affects_one_repository,
                racing_commits_leave_one_location,
                racing_large_manifests_leave_one_location,
                a_put_races_the_unlink_of_its_blob,
                an_index_races_the_delete_of_its_child,
                a_mount_races_the_unlink_of_its_source,
                a_put_races_the_delete_of_the_same_manifest,
                racing_puts_of_one_manifest_keep_all_tags,
                racing_tag_writes_form_one_history,
                racing_tag_deletes_form_one_history,
                a_moved_tag_survives_the_delete_of_the_old_manifest,
                readers_see_a_complete_push,
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
                a_push_removes_the_mark,
                a_pull_does_not_remove_the_mark,
                link_and_unmark_creates_no_link,
                a_marked_link_can_be_used,
                a_link_that_was_created_again_is_young,
                unreferenced_blobs_are_scheduled_for_deletion,
                a_blob_scheduled_for_deletion_can_be_pushed_again,
                a_large_manifest_protects_its_bytes,
                digests_of_the_same_bytes_are_collected_separately,
                the_object_of_a_lost_race_is_scheduled_for_deletion,
                a_replaced_object_is_scheduled_for_deletion,
                a_blob_with_a_defect_is_collected,
                an_object_is_in_use_at_the_exact_location_of_its_digest,
                a_pending_deletion_is_not_listed_before_its_delay,
                pending_deletions_are_listed_in_slices,
                forgetting_pending_deletions_is_idempotent,
                an_object_scheduled_twice_waits_from_the_last_time,
                two_schedules_of_an_object_are_joined,
                forgetting_an_old_pending_deletion_leaves_the_new_one,
                an_object_in_use_is_not_due,
                an_object_that_was_in_use_until_now_is_not_due,
                a_check_of_an_old_pending_deletion_races_a_new_schedule,
                an_open_session_expires_with_all_its_attempts,
                a_cancelled_session_expires_with_all_its_attempts,
                a_committing_session_expires_with_its_digest,
                a_refused_publication_expires_with_its_digest,
                a_done_session_expires_without_pending_deletions,
                a_changed_session_does_not_expire,
                a_session_with_many_parts_expires_completely,
                an_expired_session_rejects_its_claim,
                every_cell_of_the_session_table_holds,
                one_pass_runs_at_a_time,
                s33_a_lease_of_a_wrong_clock_blocks_no_other_pass,
                a_checkpoint_renews_the_lease,
                an_interrupted_pass_is_resumed,
                one_of_racing_passes_begins,
                slices_of_any_size_visit_every_record,
                a_walk_visits_what_stays_while_records_change,
                young_records_are_not_collected,
                a_deep_pass_removes_nothing_from_a_consistent_registry,
                a_dry_run_writes_nothing,
                collection_leaves_only_the_history,
                an_empty_repository_leaves_the_catalog,
                a_repository_with_a_blob_stays_in_the_catalog,
                a_repository_that_is_pushed_to_again_is_listed_again,
                a_collection_of_the_catalog_races_a_put,
                a_created_repository_stays_in_the_catalog,
                a_creation_races_a_collection_and_another_creation,
                a_collection_races_link_and_unmark,
                a_collection_races_a_put,
                a_collection_races_a_commit,
                a_schedule_for_deletion_races_a_commit,
                a_collection_races_a_mount,
                a_schedule_for_deletion_races_a_large_manifest,
                a_collection_races_deletes,
                racing_collections_schedule_each_object_once,
                an_expiry_races_the_commit,
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
                records_agree_with_reads,
                a_manifest_is_recorded_with_its_references,
                slices_visit_every_record,
                a_walk_visits_every_record_that_stays,
                marks_and_pending_deletions_are_not_exported,
                every_record_can_be_moved_to_another_store,
                inserting_again_changes_nothing,
                inserting_a_record_replaces_it,
                a_defect_is_reported_and_not_exported,
                a_moved_registry_works,
                ages_are_moved,
                records_hold_extreme_values,
            ]
        }
    };
}

/// The clauses about changes of metadata and their events: calls `$macro` with what it is given and the list of their names.
#[doc(hidden)]
#[macro_export]
macro_rules! __audit_clauses {
    ($macro:ident $($given:tt)*) => {
        $crate::$macro! {
            $($given)*
            [
                a_push_has_one_event,
                a_push_of_twenty_tags_has_one_event,
                deletions_and_creations_have_one_event_each,
                a_manifest_with_many_tags_is_deleted_with_events_for_all,
                a_refused_or_unchanged_request_has_no_event,
                racing_changes_have_one_event_each,
                one_of_racing_requests_has_the_event,
                a_collection_has_no_events,
                a_large_manifest_has_one_event,
            ]
        }
    };
}

/// The clauses about accounts, policy and audit: calls `$macro` with what it is given and the list of their names.
#[doc(hidden)]
#[macro_export]
macro_rules! __access_clauses {
    ($macro:ident $($given:tt)*) => {
        $crate::$macro! {
            $($given)*
            [
                the_state_before_the_first_change_is_the_default,
                a_change_writes_all_that_it_holds,
                each_change_raises_the_version,
                a_change_from_another_state_changes_nothing,
                a_change_that_was_made_already_is_applied,
                an_account_is_replaced_as_a_whole,
                an_account_can_be_removed_and_made_again,
                one_of_racing_changes_is_made,
                racing_changes_are_all_made_in_the_end,
                accounts_are_listed_in_ascii_order,
                many_accounts_are_listed,
                versions_of_the_policy_are_listed_newest_first,
                events_are_read_in_the_order_of_time,
                events_of_the_same_time_are_all_read,
                events_are_read_by_every_filter,
                events_are_read_over_days,
                events_that_are_recorded_late_are_in_their_place,
                a_cursor_of_the_audit_trail_stays_valid,
                a_seed_is_written_once,
                one_of_racing_seeds_is_written,
                a_counter_is_written_from_its_version,
                a_deleted_counter_begins_anew,
                racing_counters_lose_no_failure,
                the_day_of_last_use_never_goes_back,
                the_largest_accounts_are_stored_and_listed,
                the_largest_policies_are_stored_and_listed,
                the_largest_state_is_stored,
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
                a_check_of_a_consistent_registry_finds_nothing,
                a_lost_edge_is_found,
                an_edge_of_another_uid_does_not_count,
                a_large_manifest_without_its_back_reference_is_found,
                a_link_without_its_own_back_reference_is_found,
                a_back_reference_is_found_among_a_thousand,
                a_link_of_another_size_is_found,
                a_manifest_of_another_size_is_found,
                a_missing_part_fails_an_export_but_not_a_check,
                an_unreadable_record_fails_an_export_but_not_a_check,
            ]
        }
    };
}
