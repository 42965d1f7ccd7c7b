//! The number of reads and writes of each operation, as the interface and the table of costs promise it.

use registry::store::access::{AuditQuery, FailureKey, Failures};

use super::*;
use crate::metadata::tests::costs::cost;
use crate::metadata::tests::metered::Metered;

#[tokio::test]
async fn each_read_of_a_decision_costs_one_unit_an_item() {
    let table = Metered::new();
    let store = store_over(table.clone());
    for number in 0..10 {
        add(&store, &format!("robot{number}"), NOW).await;
    }
    let first = policy_change(state(&store).await, "{}", NOW);
    apply(&store, &first).await;
    let present = policy_change(state(&store).await, "{\"syntax\":1}", NOW);
    apply(&store, &present).await;
    table.take();

    let (found, asked) = cost(&store, store.state(cx())).await;
    assert_eq!((found.unwrap(), asked), (present.state.clone(), [1, 0, 0, 0]));
    assert_eq!(table.take(), (1.0, 0), "the state");
    let (found, asked) = cost(&store, store.account(cx(), &name("robot3"))).await;
    assert_eq!((found.unwrap().is_some(), asked), (true, [1, 0, 0, 0]));
    assert_eq!(table.take(), (1.0, 0), "an account");
    let before = store.statistics().requests;
    let (found, asked) = cost(&store, store.state_and_account(cx(), &name("robot3"))).await;
    let (state, robot) = found.unwrap();
    assert_eq!(
        (state, robot.is_some(), asked),
        (present.state.clone(), true, [2, 0, 0, 0])
    );
    assert_eq!(store.statistics().requests, before + 1, "both in one request");
    assert_eq!(table.take(), (2.0, 0), "the state and an account");
    let version = present.state.version;
    let (found, asked) = cost(&store, store.policy_document(cx(), version)).await;
    assert_eq!(
        (found.unwrap().as_deref(), asked),
        (Some("{\"syntax\":1}"), [1, 0, 0, 0])
    );
    let (found, asked) = cost(&store, store.policy_document(cx(), version - 1)).await;
    assert_eq!(
        (found.unwrap().as_deref(), asked),
        (Some("{}"), [2, 0, 0, 0]),
        "an earlier policy"
    );
    let (found, asked) = cost(&store, store.policy(cx(), version - 1)).await;
    assert_eq!((found.unwrap(), asked), (first.policy, [1, 0, 0, 0]));
}

#[tokio::test]
async fn a_change_is_one_transaction() {
    let table = MemoryTable::new();
    let store = store_over(table.clone());
    let change = creation(AccessState::default(), "one", NOW);
    let (applied, asked) = cost(&store, store.apply(cx(), &change)).await;
    // It reads whether there are events and which layout the table has; state, account, event, since when there are events,
    // and the layout version.
    assert_eq!((applied.unwrap(), asked), (Applied::Applied, [2, 0, 5, 5]));

    // The second change looks for these two rows a last time, and remembers them.
    let change = creation(state(&store).await, "two", NOW);
    let (applied, asked) = cost(&store, store.apply(cx(), &change)).await;
    assert_eq!((applied.unwrap(), asked), (Applied::Applied, [2, 0, 3, 3]));
    let mut removal = bare_change(state(&store).await);
    removal.account = Some(AccountChange::Remove(name("two")));
    removal.event = Some(event(NOW, 7));
    let mut rotation = bare_change(removal.state.clone());
    rotation.event = Some(event(NOW, 8));
    let renewal = bare_change(rotation.state.clone());
    let policy = policy_change(renewal.state.clone(), "{}", NOW);
    for (change, expected) in [
        // The days of last use are looked for in another table.
        (removal, [0, 1, 3, 3]),
        (rotation, [0, 0, 2, 2]),
        (renewal, [0, 0, 1, 1]),
        (policy, [0, 0, 4, 4]),
    ] {
        let (applied, asked) = cost(&store, store.apply(cx(), &change)).await;
        assert_eq!((applied.unwrap(), asked), (Applied::Applied, expected), "{change:?}");
    }
}

#[tokio::test]
async fn counters_and_days_of_last_use_cost_one_read_or_write() {
    let store = store_over(MemoryTable::new());
    let key = FailureKey([3; 16]);
    let counter = Failures {
        count: 1,
        at: Some(NOW),
        ..Failures::default()
    };
    let (found, asked) = cost(&store, store.failures(cx(), key)).await;
    assert_eq!((found.unwrap(), asked), (Failures::default(), [1, 0, 0, 0]));
    let (written, asked) = cost(&store, store.put_failures(cx(), key, &counter)).await;
    assert_eq!((written.unwrap(), asked), (true, [0, 0, 1, 0]));
    let (cleared, asked) = cost(&store, store.clear_failures(cx(), key)).await;
    cleared.unwrap();
    assert_eq!(asked, [0, 0, 1, 0]);
    for day in [20_000, 19_999] {
        let (account, id) = (name("one"), "3f9aK2dQ".parse().unwrap());
        let (used, asked) = cost(&store, store.record_use(cx(), &account, id, day)).await;
        used.unwrap();
        assert_eq!(asked, [0, 0, 1, 0], "{day}");
    }
}

#[tokio::test]
async fn a_page_of_events_reads_the_days_that_it_covers() {
    let store = store_over(MemoryTable::new());
    let query = AuditQuery::default();
    let (slice, asked) = cost(&store, store.audit(cx_at(400 * DAY), &query, None, 100)).await;
    assert_eq!((slice.unwrap().items.len(), asked), (0, [1, 0, 0, 0]), "no event yet");

    let at = Timestamp(NOW.0 / DAY * DAY + DAY + DAY / 2);
    for number in 0..3 {
        add(&store, &format!("robot{number}"), at.plus_millis(number)).await;
    }
    let later = cx_at(at.millis_since(NOW));
    let (slice, asked) = cost(&store, store.audit(later, &query, None, 100)).await;
    let slice = slice.unwrap();
    assert_eq!(
        (slice.items.len(), slice.next, asked),
        (3, None, [1, 16, 0, 0]),
        "one day"
    );
    let later = cx_at(at.millis_since(NOW) + 2 * DAY);
    let (slice, asked) = cost(&store, store.audit(later, &query, None, 100)).await;
    let slice = slice.unwrap();
    assert_eq!(
        (slice.items.len(), slice.next, asked),
        (3, None, [1, 48, 0, 0]),
        "three days"
    );
}
