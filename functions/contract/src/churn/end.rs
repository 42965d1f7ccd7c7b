//! The end: everything is deleted, all grace periods pass, and nothing is left.

use registry::collection::CollectionOptions;
use registry::store::Timestamp;
use registry::store::collection::Plan;
use registry::store::records::Record;

use super::client::TestRequest;
use super::{ChurnStatistics, GRACES, REST, Shared, collector, users, worker};

/// The maximum number of repetitions.
const ENOUGH: usize = 100;

/// Later than every time that a store can hold.
const NEVER: Timestamp = Timestamp(u64::MAX >> 1);

/// Asserts that a check with hashing finds nothing, when no operation runs.
pub(super) async fn check(shared: &Shared) {
    collector::look(shared, true).await;
}

/// Deletes everything and lets all grace periods pass.
pub(super) async fn empty(shared: &Shared, statistics: &mut ChurnStatistics) {
    // The references of an interrupted push are protected for a while.
    shared.clock.advance(REST);
    shared.users.lift_policy();
    for repository in worker::repositories(shared.options.workers) {
        delete_all(shared, &repository).await;
    }
    let options = CollectionOptions {
        plan: Plan {
            dry_run: false,
            deep: true,
            grace_periods: GRACES,
        },
        ..CollectionOptions::default()
    };
    // Leftovers, the mark of a link, its removal, the removal of its blob record, and that of the object.
    for _ in 0..6 {
        shared.clock.advance(REST);
        statistics.collect(&collector::once(shared, &options).await);
    }
    assert_empty(shared).await;
}

async fn delete_all(shared: &Shared, repository: &str) {
    let name = repository.parse().expect("a repository name");
    let client = shared.client.signed_in(&users::user(0));
    for _ in 0..ENOUGH {
        let manifests = shared.stores.metadata.manifests(shared.cx(), &name, None, 100).await;
        let manifests = manifests.expect("manifests").items;
        if manifests.is_empty() {
            let tags = shared
                .stores
                .metadata
                .tags(shared.cx(), &name, None, 10)
                .await
                .expect("tags");
            assert!(
                tags.items.is_empty(),
                "tags of {repository} outlive their manifests: {tags:?}"
            );
            return;
        }
        for digest in manifests {
            let target = format!("/v2/{repository}/manifests/{digest}");
            let call = TestRequest::new(http::Method::DELETE, target);
            // Parents are deleted before their children.
            client.send(call).await.expect(&[202, 405]);
        }
    }
    panic!("the manifests of {repository} cannot be deleted");
}

/// Asserts that nothing but the history is left.
async fn assert_empty(shared: &Shared) {
    let stores = &shared.stores;
    let mut next = None;
    for _ in 0..ENOUGH {
        let slice = stores.records.records(shared.cx(), next.as_ref(), 1000).await;
        let slice = slice.expect("records");
        for record in &slice.items {
            let stays = matches!(record, Record::History { .. });
            assert!(stays, "this is left: {record:#?}");
        }
        next = slice.next;
        if next.is_none() {
            break;
        }
    }
    let sessions = stores.sessions.expired(shared.cx(), NEVER, None, 10).await;
    assert_eq!(sessions.expect("expired"), [], "sessions are left");
    let pending_deletions = stores.collection.pending_deletions(shared.cx(), NEVER, None, 10).await;
    assert_eq!(
        pending_deletions.expect("pending_deletions").items,
        [],
        "pending deletions are left"
    );
    let mut next = None;
    for _ in 0..ENOUGH {
        let slice = stores.blobs.objects(shared.cx(), next.as_ref(), 1000).await;
        let slice = slice.expect("objects");
        assert_eq!(slice.items, [], "objects are left");
        next = slice.next;
        if next.is_none() {
            return;
        }
    }
    panic!("the walk over an empty store does not end");
}
