//! The deadline of a request, in every call of a store that the request makes.

use std::sync::Arc;

use contract::deadlines::Deadlines;
use http::Method;
use registry::store::wrapped::StoreMethod;
use registry::{Authenticator, Deadline, Endpoint, Environment as _, Limits};

use crate::security::examples::{Example, Fixture};
use crate::support::World;

/// Shorter than every limit of a call.
const SOON_MS: u64 = 1;

/// A registry in its own state, in which every call is recorded.
async fn recorded() -> (Fixture, World, Deadlines) {
    let (fixture, deadlines) = (Fixture::new().await, Deadlines::default());
    let users = fixture.users.clone() as Arc<dyn Authenticator>;
    let world = fixture.guarded.recorded(users, &deadlines).await;
    (fixture, world, deadlines)
}

/// Each request gets a registry of its own: the examples change it. The number of them is that of the examples.
async fn examples(endpoint: Endpoint) -> usize {
    Fixture::new().await.examples(endpoint, "private/x").len()
}

#[tokio::test]
async fn every_call_of_a_request_ends_at_its_deadline() {
    let mut seen = std::collections::BTreeSet::new();
    for &endpoint in Endpoint::ALL {
        for number in 0..examples(endpoint).await {
            for is_hard in [true, false] {
                let (fixture, world, deadlines) = recorded().await;
                let example: Example = fixture.examples(endpoint, "private/x").swap_remove(number);
                let now = world.clock.now();
                let at = now.plus_millis(SOON_MS);
                let deadline = if is_hard {
                    Deadline::hard(at)
                } else {
                    Deadline::until_seal(at)
                };
                let call = example.call(&world).user("alice").deadline(deadline);
                call.send_unchecked().await;
                let calls = deadlines.take();
                let seals = calls.contains_key(&StoreMethod::Seal);
                for (method, latest) in calls {
                    seen.insert(method);
                    let what = &example.what;
                    if is_hard || !seals {
                        assert_eq!(latest, at, "{what}: {method:?}");
                    } else if method == StoreMethod::Seal {
                        assert_eq!(latest, now.plus_millis(Limits::default().seal_ms), "{what}");
                    }
                }
            }
        }
    }
    for method in [
        StoreMethod::Link,
        StoreMethod::Read,
        StoreMethod::Claim,
        StoreMethod::Append,
        StoreMethod::Seal,
        StoreMethod::PutManifest,
        StoreMethod::DeleteTag,
        StoreMethod::Repositories,
        StoreMethod::Tags,
    ] {
        assert!(seen.contains(&method), "{method:?}: {seen:?}");
    }
}

/// Its calls begin while the answer is sent.
#[tokio::test]
async fn what_is_read_for_an_answer_ends_at_the_deadline_too() {
    let (fixture, world, deadlines) = recorded().await;
    let at = world.clock.now().plus_millis(SOON_MS);
    let target = format!("/v2/private/x/blobs/{}", fixture.loose);
    let call = world.call(Method::GET, target).user("alice");
    let call = call.header("range", "bytes=0-0,2-2,4-4").deadline(Deadline::hard(at));
    let answer = call.send().await.expect(206);
    assert!(
        answer.headers["content-type"]
            .to_str()
            .is_ok_and(|value| value.starts_with("multipart/"))
    );
    let calls = deadlines.take();
    assert!(calls.contains_key(&StoreMethod::Read));
    assert!(calls.values().all(|latest| *latest == at), "{calls:?}");
}
