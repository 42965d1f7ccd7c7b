//! The end: everything is deleted, everything rests, and nothing is left.

use super::client::Call;
use super::clock::MINUTE;
use super::{Churned, Field, GRACES, REST, collector, worker};
use registry::budget::ClientKey;
use registry::collection::Options;
use registry::environment::Environment as _;
use registry::store::collection::Plan;
use registry::store::records::Record;
use registry::store::{Context, Timestamp, Uid};

/// How often something is tried that must come to an end.
const ENOUGH: usize = 100;

/// After every moment that a store can hold.
const NEVER: Timestamp = Timestamp(u64::MAX >> 1);

fn cx(field: &Field) -> Context {
    let mut uid = [0; 8];
    field.clock.random(&mut uid);
    let now = field.clock.now();
    Context {
        now,
        deadline: now.plus_millis(MINUTE),
        uid: Uid(u64::from_le_bytes(uid)),
        client: ClientKey::INTERNAL,
    }
}

/// Now that nobody does anything: all that is there is whole, every byte of it.
pub(super) async fn check(field: &Field) {
    collector::look(field, true).await;
}

/// Deletes everything and lets all graces pass.
pub(super) async fn empty(field: &Field, churned: &mut Churned) {
    // What a push that was cut off refers to is held for a while.
    field.clock.pass(REST);
    for repository in worker::repositories(field.options.workers) {
        delete_all(field, &repository).await;
    }
    let options = Options {
        plan: Plan {
            dry_run: false,
            deep: true,
            grace_periods: GRACES,
        },
        ..Options::default()
    };
    // What belongs to nothing, the mark of a link, its end, that of its bytes, and that of their object.
    for _ in 0..6 {
        field.clock.pass(REST);
        churned.collect(&collector::once(field, &options).await);
    }
    assert_empty(field).await;
}

async fn delete_all(field: &Field, repository: &str) {
    let name = repository.parse().expect("a repository name");
    for _ in 0..ENOUGH {
        let manifests = field.stores.metadata.manifests(cx(field), &name, None, 100).await;
        let manifests = manifests.expect("manifests").items;
        if manifests.is_empty() {
            let tags = field
                .stores
                .metadata
                .tags(cx(field), &name, None, 10)
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
            let call = Call::new(http::Method::DELETE, target);
            // Parents go before their children.
            field.client.send(call).await.expect(&[202, 405]);
        }
    }
    panic!("the manifests of {repository} cannot be deleted");
}

/// Nothing is left but the history.
async fn assert_empty(field: &Field) {
    let stores = &field.stores;
    let mut next = None;
    for _ in 0..ENOUGH {
        let slice = stores.records.records(cx(field), next.as_ref(), 1000).await;
        let slice = slice.expect("records");
        for record in &slice.items {
            let outlives = matches!(record, Record::History { .. });
            assert!(outlives, "this is left: {record:#?}");
        }
        next = slice.next;
        if next.is_none() {
            break;
        }
    }
    let sessions = stores.sessions.expired(cx(field), NEVER, None, 10).await;
    assert_eq!(sessions.expect("expired"), [], "sessions are left");
    let pending_deletions = stores.collection.pending_deletions(cx(field), NEVER, None, 10).await;
    assert_eq!(
        pending_deletions.expect("pending_deletions").items,
        [],
        "graves are left"
    );
    let mut next = None;
    for _ in 0..ENOUGH {
        let slice = stores.blobs.objects(cx(field), next.as_ref(), 1000).await;
        let slice = slice.expect("objects");
        assert_eq!(slice.items, [], "objects are left");
        next = slice.next;
        if next.is_none() {
            return;
        }
    }
    panic!("the walk over no objects does not end");
}
