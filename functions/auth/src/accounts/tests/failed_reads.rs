//! The table does not answer: requests that wait for the same read fail with it, and do not try again one after the other.

use std::sync::Arc;

use contract::counting::CountingAccess;
use futures_util::future::join_all;
use registry::auth::Credentials;
use registry::store::StoreError;
use registry::store::access::AccessStore;
use registry::store::wrapped::{Hook, StoreMethod, Wrapped};

use super::support::{Outage, PASSWORD, TestClock, World, basic, bearer, login};
use crate::accounts::AccountAuthenticator;

/// An outage in which each call takes its time before it fails, so that requests meet.
struct SlowOutage {
    outage: Outage,
    clock: Arc<TestClock>,
    millis: u64,
}

impl Hook for SlowOutage {
    fn before(&self, method: StoreMethod) -> Result<(), StoreError> {
        let answer = self.outage.before(method);
        if answer.is_err() {
            self.clock.pass(self.millis);
        }
        answer
    }

    fn after(&self, _: StoreMethod) -> Result<(), StoreError> {
        Ok(())
    }

    fn pauses(&self) -> u32 {
        3
    }
}

/// An instance over a store of which a call fails after so many milliseconds while the outage is set.
fn instance(world: &World, millis: u64) -> (AccountAuthenticator, Outage) {
    let outage = Outage::default();
    let hook = SlowOutage {
        outage: outage.clone(),
        clock: world.clock.clone(),
        millis,
    };
    let store: Arc<dyn AccessStore> = world.store.clone();
    let store: Arc<dyn AccessStore> = Arc::new(Wrapped::new(store, hook));
    let store = Arc::new(CountingAccess::new(store, world.counts.clone()));
    (world.instance_over(store, World::settings(), None), outage)
}

/// The calls since the last time, for instance `State 1`.
fn calls(world: &World) -> String {
    let calls = world.counts.take();
    let calls: Vec<_> = calls
        .iter()
        .map(|(method, count)| format!("{method:?} {count}"))
        .collect();
    calls.join(", ")
}

/// The first request reads. The second one came when that read had begun, so it reads once more, for all others.
#[tokio::test]
async fn requests_of_one_account_fail_with_the_read_for_which_they_wait() {
    let (world, key) = World::new().await;
    let credentials = bearer(key.expose());
    for (is_state_known, millis, failed, recovered) in [
        (false, 10_000, "StateAndAccount 2", "StateAndAccount 1, RecordUse 1"),
        (true, 100, "Account 2", "Account 1, RecordUse 1"),
    ] {
        let (instance, outage) = instance(&world, millis);
        if is_state_known {
            login(&instance, &Credentials::Absent).await;
        }
        let _ = calls(&world);
        outage.set(true);
        let answers = join_all((0..50).map(|_| login(&instance, &credentials))).await;
        assert!(answers.iter().all(|answer| answer == "503"), "{answers:?}");
        assert_eq!(calls(&world), failed);
        // A request that comes later tries again.
        assert_eq!(login(&instance, &credentials).await, "503");
        assert_ne!(calls(&world), "");
        outage.set(false);
        assert_eq!(
            login(&instance, &credentials).await,
            format!("robot:ci by {}", key.id())
        );
        assert_eq!(calls(&world), recovered);
    }
}

#[tokio::test]
async fn passwords_from_one_address_fail_with_the_read_of_counters_for_which_they_wait() {
    let (world, _) = World::new().await;
    world.put(world.user("bob")).await;
    let (instance, outage) = instance(&world, 100);
    for user in ["alice", "bob"] {
        assert_eq!(login(&instance, &basic(user, PASSWORD)).await, user);
    }
    let guesses: Vec<_> = (0..20)
        .map(|n| {
            basic(
                if n % 2 == 0 { "alice" } else { "bob" },
                &format!("a wrong password {n}"),
            )
        })
        .collect();
    let _ = calls(&world);
    outage.set(true);
    let answers = join_all(guesses.iter().map(|guess| login(&instance, guess))).await;
    assert!(answers.iter().all(|answer| answer == "503"), "{answers:?}");
    // Two reads of two counters.
    assert_eq!(calls(&world), "Failures 4");
    outage.set(false);
    assert_eq!(login(&instance, &guesses[0]).await, "401");
    assert_eq!(calls(&world), "Failures 2, PutFailures 2");
}
