//! Two requests with the bootstrap secret at the same time.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join};
use registry::store::StoreError;
use registry::store::wrapped::{Hook, StoreMethod, Wrapped};
use serde_json::json;

use super::support::{BOOTSTRAP, World};

/// The first change waits for the second one, so both were made from the state without an administrator.
#[derive(Default)]
struct TwoChanges(Arc<AtomicUsize>);

impl Hook for TwoChanges {
    fn before(&self, _: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }

    fn after(&self, _: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }

    fn gate(&self, method: StoreMethod) -> BoxFuture<'static, ()> {
        if method != StoreMethod::Apply {
            return std::future::ready(()).boxed();
        }
        let arrived = self.0.clone();
        arrived.fetch_add(1, Ordering::SeqCst);
        poll_fn(move |task| {
            if arrived.load(Ordering::SeqCst) >= 2 {
                return Poll::Ready(());
            }
            task.waker().wake_by_ref();
            Poll::Pending
        })
        .boxed()
    }
}

#[tokio::test]
async fn s15_two_bootstrap_requests_at_once_make_one_administrator() {
    let world = World::through(|records| Arc::new(Wrapped::new(records, TwoChanges::default())), |_| ());
    let create = |name: &str| {
        let body = json!({ "name": name, "kind": "user", "groups": ["admins"], "password": "a long new password" });
        let call = world.call("POST", "accounts").json(&body);
        call.basic("bootstrap", BOOTSTRAP).send()
    };
    let (one, other) = join(create("ann"), create("bob")).await;
    let (made, refused, name) = if one.status == 201 {
        (one, other, "ann")
    } else {
        (other, one, "bob")
    };
    made.expect(201);
    refused.expect(403);
    let state = world.administration.state().await.unwrap();
    assert_eq!((state.accounts, state.admins), (1, 1));
    let me = world.get("whoami").basic(name, "a long new password").send().await;
    assert_eq!(me.expect(200).json()["principal"], name);
}

/// The one that comes second learns that there is an administrator, and not that the name exists.
#[tokio::test]
async fn s15_two_bootstrap_requests_at_once_for_the_same_name() {
    let world = World::through(|records| Arc::new(Wrapped::new(records, TwoChanges::default())), |_| ());
    let create = || {
        let body = json!({ "name": "ann", "kind": "user", "groups": ["admins"], "password": "a long new password" });
        let call = world.call("POST", "accounts").json(&body);
        call.basic("bootstrap", BOOTSTRAP).send()
    };
    let (one, other) = join(create(), create()).await;
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 403]);
}
