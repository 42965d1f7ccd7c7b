//! The contracts over the real protocol: a service at `ROADSTEAD_TEST_DYNAMODB`, credentials and region as the AWS SDK
//! finds them. `cargo test -- --ignored`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod service;

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use registry::contract::records::Pair;
use registry::contract::{Guard, Names, Trial};
use registry::store::metadata::MetadataStore;
use registry::store::sessions::SessionStore;
use service::options;
use store_dynamodb::DynamoStore;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

fn spawn(work: Task) -> Task {
    let task = tokio::spawn(work);
    Box::pin(async { task.await.expect("a task of the clause") })
}

async fn run<S: ?Sized, F: Future<Output = ()>>(given: Arc<S>, clause: impl FnOnce(Trial<S>) -> F) {
    let guard: Guard = Box::new(());
    let clause = clause(Trial::new((given, guard), spawn));
    tokio::time::timeout(Duration::from_mins(2), clause)
        .await
        .expect("the clause ends within two minutes");
}

/// An empty store over two tables.
async fn names() -> Names {
    let options = options(true);
    DynamoStore::init(&options).await.expect("tables are made");
    let store = Arc::new(DynamoStore::open(&options).await.expect("tables are there"));
    Names {
        metadata: store.clone(),
        sessions: store.clone(),
        collection: store.clone(),
        records: store,
    }
}

async fn sessions() -> Arc<dyn SessionStore> {
    names().await.sessions
}

async fn metadata() -> Arc<dyn MetadataStore> {
    names().await.metadata
}

async fn collection() -> Arc<Names> {
    Arc::new(names().await)
}

async fn records() -> Arc<Pair> {
    Arc::new(Pair {
        from: names().await,
        to: names().await,
    })
}

macro_rules! clauses {
    ($contract:ident, $made_by:literal, [$($clause:ident,)*]) => {
        mod $contract {
            $(
                #[tokio::test(flavor = "multi_thread")]
                #[ignore = "needs a DynamoDB endpoint"]
                async fn $clause() {
                    super::run(super::$contract().await, registry::contract::$contract::$clause).await;
                }
            )*

            #[test]
            fn no_clause_is_missing() {
                assert_eq!(super::clauses_of($made_by), [$(stringify!($clause),)*]);
            }
        }
    };
}

/// The contract's own macros make tests that always run; those that need a service are listed here once more.
fn clauses_of(made_by: &str) -> Vec<String> {
    let macros = Path::new(env!("CARGO_MANIFEST_DIR")).join("../registry/src/contract/macros.rs");
    let text = std::fs::read_to_string(macros).unwrap();
    let (_, list) = text.split_once(made_by).unwrap();
    let list = list.split_once('[').unwrap().1.split_once(']').unwrap().0;
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

clauses!(
    sessions,
    "session_contract_store,",
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
        racing_claims_grant_one,
        a_takeover_races_the_save,
        a_committing_session_is_left_alone,
        a_done_session_keeps_its_digest,
        a_claimed_session_can_be_finished_as_cancelled,
        a_committing_session_can_be_finished_as_cancelled,
        a_committing_session_can_be_settled,
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
);

clauses!(
    metadata,
    "metadata_contract_store,",
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
        an_unchanged_manifest_is_tagged_or_gone,
        a_new_tag_begins_its_history,
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
);

clauses!(
    collection,
    "collection_contract_store,",
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
        a_name_is_a_digest_and_a_place,
        graves_wait,
        graves_come_in_pages,
        forgetting_is_idempotent,
        an_open_session_is_swept,
        a_cancelled_session_is_swept,
        a_committing_session_is_swept,
        a_refused_publication_is_swept,
        a_done_session_is_swept_without_a_grave,
        a_session_that_has_changed_is_not_swept,
        a_long_session_is_swept_whole,
        a_swept_session_takes_nothing,
        a_pass_runs_alone,
        a_checkpoint_holds_the_pass,
        a_pass_is_resumed,
        racing_passes_begin_one,
        slices_meet_everything,
        a_walk_goes_on_while_names_change,
        nothing_young_is_touched,
        a_deep_pass_leaves_a_healthy_registry_alone,
        a_dry_run_writes_nothing,
        nothing_is_left_in_the_end,
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
);

clauses!(
    records,
    "record_contract_store,",
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
        a_registry_goes_on_where_it_has_moved,
        ages_move_along,
        records_hold_extreme_values,
    ]
);
