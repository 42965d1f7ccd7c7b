//! Every mutation is found by the default search, and not by one schedule alone.

use super::mutant::Mutation;
use super::scenarios as on;
use super::search::{ALL_PROFILES, SCHEDULES, Scenario, failures, only_seed, schedules};

/// How many schedules of the default search must find a mutation, so that it is not found by luck. On average at least 11 do
/// (see [`SCHEDULES`]); then fewer than 3 do for one in 800 sets of seeds.
const FINDS: usize = 3;

fn assert_found(mutation: Mutation, scenarios: &[Scenario]) {
    let kinds = scenarios
        .iter()
        .flat_map(|scenario| ALL_PROFILES.map(|profile| (scenario, profile)));
    let found = kinds.flat_map(|(scenario, profile)| {
        let schedules = schedules(scenario, profile, SCHEDULES);
        failures(scenario, profile, Some(mutation), schedules)
    });
    let wanted = if only_seed().is_some() { 1 } else { FINDS };
    let found: Vec<String> = found.take(wanted).collect();
    assert!(
        found.len() == wanted,
        "{mutation:?} is found by {} schedules",
        found.len()
    );
    println!("{mutation:?}: {}", found[0]);
}

macro_rules! mutations {
    ($($test:ident $mutation:ident [$($scenario:ident),*])*) => {
        $(
            #[test]
            fn $test() {
                assert_found(Mutation::$mutation, &[$(on::$scenario),*]);
            }
        )*
    };
}

mutations! {
    reading_before_the_edges_are_written_is_found ReadBeforeEdges [PUT_UNLINK]
    ignoring_marks_is_found IgnoreMarks [PUT_UNLINK]
    ignoring_edges_is_found IgnoreEdges [PUT_UNLINK]
    ignoring_back_references_is_found IgnoreBackReferences [COMMIT_COLLECT]
    removing_the_edges_of_every_uid_is_found EdgesOfEveryUid [PUTS_DELETE]
    removing_the_back_references_of_every_uid_is_found BackReferencesOfEveryUid [COMMIT_COLLECT, TWO_REPOSITORIES]
    a_late_back_reference_is_found LateBackReference [COMMIT_COLLECT]
    counting_published_edges_only_is_found PublishedEdgesOnly [INDEX_CHILD]
    deleting_a_manifest_that_was_put_again_is_found IgnoreVersion [PUTS_DELETE, TAGS]
    retrying_blindly_is_found RetryBlindly [TWO_REPOSITORIES, MOUNTS]
    writing_tags_blindly_is_found BlindTag [TAGS]
    s04_moving_a_frozen_tag_blindly_is_found BlindTag [FROZEN_TAGS]
    s03_creating_a_deleted_tag_blindly_is_found BlindTombstone [RETURNING_TAG]
    pending_deletions_that_are_due_at_once_are_found DueAtOnce [COMMIT_SWEEP]
    scheduling_a_deletion_late_is_found ScheduleLate [COMMIT_SWEEP, COMMIT_COLLECT]
    keeping_the_first_schedule_is_found KeepFirstSchedule [OLD_PENDING_DELETION]
    reading_the_pending_deletion_first_is_found PendingDeletionFirst [OLD_PENDING_DELETION]
    forgetting_a_new_pending_deletion_is_found ForgetBlindly [OLD_PENDING_DELETION]
    unlinking_at_once_is_found UnlinkAtOnce [UNMARK_FRESH]
    s33_trusting_a_clock_that_is_behind_is_found TrustClock [S33_PUT_BEHIND]
    s33_trusting_a_clock_that_is_ahead_is_found TrustClock [S33_UNLINK_AHEAD]
    replacing_blindly_is_found ReplaceBlindly [LOST, LOST_TWICE]
    replacing_the_blob_record_alone_is_found ReplaceAlone [LOST]
    recording_a_defect_blindly_is_found RecordBlindly [LOST]
    checking_a_blob_record_once_is_found CheckOnce [LOST_MOUNT]
    syncing_once_is_found SyncOnce [OUT_OF_SIGHT]
    keeping_a_mark_in_the_catalog_is_found KeepCatalogMark [CATALOG]
    deleting_from_the_catalog_blindly_is_found DeleteCatalogBlindly [CATALOG]
    writing_an_event_after_its_change_is_found EventApart [TAGS]
}
