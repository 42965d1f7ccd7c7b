//! The deadline of a request bounds what the API, the token endpoint and every kind of login ask of the stores.

use registry::api_endpoint::ApiOperation;
use registry::environment::Environment as _;
use registry::store::wrapped::StoreMethod;

use super::support::{Call, PASSWORD, World};

/// Shorter than every limit of a call, in milliseconds.
const SOON_MS: u64 = 1;

/// Sends a request that must end soon, after everything that was known is old, and returns the methods that it called.
async fn called(world: &World, call: Call<'_>) -> Vec<StoreMethod> {
    world.clock.pass(60_000);
    let _ = world.deadlines.take();
    let at = world.clock.now().plus_millis(SOON_MS);
    let reply = call.until(at).send().await;
    let calls = world.deadlines.take();
    assert!(!calls.is_empty(), "{reply:?}");
    for (method, latest) in &calls {
        assert_eq!(*latest, at, "{method:?}: {reply:?}");
    }
    calls.into_keys().collect()
}

#[tokio::test]
async fn every_operation_of_the_api_ends_at_the_deadline() {
    for &operation in ApiOperation::ALL {
        if operation == ApiOperation::GetApiDocument {
            continue;
        }
        let world = World::new().await;
        called(&world, world.example(operation).user("root")).await;
    }
}

#[tokio::test]
async fn every_login_ends_at_the_deadline() {
    let world = World::new().await;
    let token = world.token("repository:a/b:pull").await;
    let tags = || world.request("GET", "/v2/a/b/tags/list");
    for call in [
        tags(),
        tags().user("alice"),
        tags().user("filer"),
        tags().basic("alice", "another wrong password"),
        tags().basic("nobody", PASSWORD),
        tags().basic("key", &world.key.1),
        tags().bearer(&token),
        world.request("GET", "/token?scope=repository:a/b:pull").user("alice"),
        world
            .request("GET", "/token?scope=repository:a/b:pull")
            .basic("ci", &world.robot_key),
        world.request("GET", "/.well-known/jwks.json"),
    ] {
        called(&world, call).await;
    }
    // The first guess is counted, and a key that was used is recorded.
    let world = World::new().await;
    let methods = called(&world, tags_of(&world).basic("alice", "a wrong password")).await;
    assert!(methods.contains(&StoreMethod::PutFailures), "{methods:?}");
    let methods = called(&world, tags_of(&world).basic("key", &world.key.1)).await;
    assert!(methods.contains(&StoreMethod::RecordUse), "{methods:?}");
}

fn tags_of(world: &World) -> Call<'_> {
    world.request("GET", "/v2/a/b/tags/list")
}
