//! The contract of blob stores against a real server.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use registry::contract::{Trial, blobs};
use registry::store::blobs::BlobStore;
use store_s3::{Parts, S3Blobs};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

fn spawn(work: Task) -> Task {
    let task = tokio::spawn(work);
    Box::pin(async { task.await.expect("a task of the clause") })
}

async fn run<F: Future<Output = ()>>(store: S3Blobs, clause: impl FnOnce(Trial<dyn BlobStore>) -> F) {
    let store: Arc<dyn BlobStore> = Arc::new(store);
    let clause = clause(Trial::new((store, Box::new(())), spawn));
    tokio::time::timeout(Duration::from_mins(2), clause)
        .await
        .expect("the clause ends within two minutes");
}

/// Each clause with growing parts and with equal ones.
macro_rules! clauses {
    ($($clause:ident,)*) => {
        const CLAUSES: &[&str] = &[$(stringify!($clause),)*];

        mod growing {
            $(
                #[tokio::test(flavor = "multi_thread")]
                #[ignore = "needs an S3 server"]
                async fn $clause() {
                    let store = crate::server::store_with(|_| {}).await;
                    super::run(store, super::blobs::$clause).await;
                }
            )*
        }

        mod equal {
            $(
                #[tokio::test(flavor = "multi_thread")]
                #[ignore = "needs an S3 server"]
                async fn $clause() {
                    let store = crate::server::store_with(|options| {
                        options.parts = super::Parts::Equal;
                        options.part_checksums = false;
                    });
                    super::run(store.await, super::blobs::$clause).await;
                }
            )*
        }
    };
}

clauses! {
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
    a_discard_removes_everything,
    a_discard_spares_what_is_kept,
    an_object_has_a_size,
    a_walk_meets_every_object,
    deleting_what_is_not_there_is_fine,
    nothing_remains_of_an_upload_that_was_swept,
    what_remains_of_an_upload_spares_its_object,
}

/// The contract's own macro makes tests that always run; those that need a server are listed here once more.
#[test]
fn no_clause_is_missing() {
    let macros = Path::new(env!("CARGO_MANIFEST_DIR")).join("../registry/src/contract/macros.rs");
    let text = std::fs::read_to_string(macros).unwrap();
    let (_, list) = text.split_once("blob_contract_store,").unwrap();
    let list = list.split_once('[').unwrap().1.split_once(']').unwrap().0;
    let clauses: Vec<_> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    assert_eq!(clauses, CLAUSES);
}
