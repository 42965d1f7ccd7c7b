//! The audit trail: in the order of time, by each filter, in slices of any size.

use registry::auth::CredentialId;
use registry::store::access::{Applied, AuditEvent, AuditKind, AuditQuery};
use registry::store::{Timestamp, Uid};

use super::{AccessTest, key_id};

/// A day, in milliseconds.
const DAY: u64 = 24 * 60 * 60 * 1000;

/// Records `count` events that differ in every member that a query may name, `step` milliseconds apart.
async fn record(test: &AccessTest, count: usize, step: u64) -> Vec<AuditEvent> {
    let mut events = Vec::new();
    for number in 0..count {
        let mut change = test.change(AuditKind::ALL[number % AuditKind::ALL.len()]).await;
        let mut event = test.event(AuditKind::ALL[number % AuditKind::ALL.len()]);
        ["alice", "robot:ci", ":anonymous"][number % 3].clone_into(&mut event.principal);
        event.credential = (number % 2 == 0).then(|| -> CredentialId { key_id(number) });
        event.repository = [Some("a"), Some("a/b"), None, Some("team/app")][number % 4]
            .map(|name| name.parse().expect("a name of a repository"));
        event.reference = Some(format!("v{number}"));
        change.event = Some(event.clone());
        assert_eq!(test.apply(&change).await, Applied::Applied);
        events.push(event);
        test.advance(step);
    }
    events
}

/// Events are read in the order of time, as they were recorded, in slices of any size.
pub async fn events_are_read_in_the_order_of_time(test: AccessTest) {
    let events = record(&test, 20, 1).await;
    for limit in [1, 2, 3, 7, 19, 20, 21, 100] {
        let read = test.events_in_slices(&AuditQuery::default(), limit).await;
        assert_eq!(read, events, "{limit}");
    }
}

/// Events of the same millisecond are all read, each once.
pub async fn events_of_the_same_time_are_all_read(test: AccessTest) {
    let mut events = record(&test, 12, 0).await;
    // Ids at the ends of their range.
    for id in [0, 1, u64::MAX >> 1, 1 << 63, u64::MAX] {
        let mut change = test.change(AuditKind::AccountChanged).await;
        let event = AuditEvent::new(AuditKind::AccountChanged, "alice".to_owned(), test.now(), Uid(id));
        change.event = Some(event.clone());
        assert_eq!(test.apply(&change).await, Applied::Applied);
        events.push(event);
    }
    events.sort_by_key(|event| event.id);
    for limit in [1, 2, 5, 100] {
        let mut read = test.events_in_slices(&AuditQuery::default(), limit).await;
        read.sort_by_key(|event| event.id);
        assert_eq!(read, events, "{limit}");
    }
}

/// A query by time, principal, repository and kind reads the events that match all that it names, in the order of time.
pub async fn events_are_read_by_every_filter(test: AccessTest) {
    let events = record(&test, 40, 1_000).await;
    let (first, last) = (events[0].at, events[39].at);
    let mut times = vec![None, Some(Timestamp(0)), Some(last.plus_millis(1)), Some(first)];
    times.extend([events[7].at, events[7].at.plus_millis(1)].map(Some));
    let none = AuditQuery::default();
    let mut queries = Vec::new();
    for from in &times {
        for to in &times {
            queries.push(AuditQuery {
                from: *from,
                to: *to,
                ..none.clone()
            });
        }
    }
    for principal in ["alice", "robot:ci", ":anonymous", "ci", "robot:"] {
        queries.push(AuditQuery {
            principal: Some(principal.to_owned()),
            ..none.clone()
        });
    }
    for repository in ["a", "a/b", "team/app", "team", "b"] {
        let repository = Some(repository.parse().expect("a name of a repository"));
        queries.push(AuditQuery {
            repository: repository.clone(),
            ..none.clone()
        });
        queries.push(AuditQuery {
            from: Some(events[5].at),
            to: Some(events[35].at),
            principal: Some("alice".to_owned()),
            repository,
            event: None,
        });
    }
    for kind in AuditKind::ALL {
        queries.push(AuditQuery {
            event: Some(kind),
            ..none.clone()
        });
    }
    queries.push(AuditQuery {
        from: Some(first),
        to: Some(last),
        principal: Some(events[9].principal.clone()),
        repository: events[9].repository.clone(),
        event: Some(events[9].event),
    });
    // Other clauses read slices of few events.
    for query in queries {
        let expected: Vec<_> = events.iter().filter(|event| query.matches(event)).cloned().collect();
        assert_eq!(test.events_in_slices(&query, 50).await, expected, "{query:?}");
    }
}

/// The trail goes on over days, and over days without an event.
pub async fn events_are_read_over_days(test: AccessTest) {
    let mut events = record(&test, 7, DAY / 3).await;
    test.advance(12 * DAY);
    events.extend(record(&test, 4, DAY).await);
    for limit in [3, 100] {
        let read = test.events_in_slices(&AuditQuery::default(), limit).await;
        assert_eq!(read, events, "{limit}");
    }
    // At the edges of a day.
    let midnight = Timestamp(events[3].at.0 / DAY * DAY);
    for (from, to) in [
        (Some(midnight), None),
        (None, Some(midnight)),
        (Some(midnight), Some(midnight.plus_millis(DAY))),
        (Some(Timestamp(midnight.0 - 1)), Some(midnight.plus_millis(1))),
        (Some(events[6].at), Some(events[7].at.plus_millis(1))),
        (Some(events[10].at), None),
        (Some(events[10].at.plus_millis(1)), None),
    ] {
        let query = AuditQuery {
            from,
            to,
            ..AuditQuery::default()
        };
        let expected: Vec<_> = events.iter().filter(|event| query.matches(event)).cloned().collect();
        assert_eq!(test.events_in_slices(&query, 4).await, expected, "{query:?}");
    }
}

/// Events that are recorded after later ones are in their place, as when the trail of another registry is imported.
pub async fn events_that_are_recorded_late_are_in_their_place(test: AccessTest) {
    test.advance(20 * DAY);
    let mut events = record(&test, 3, 1).await;
    let now = test.now();
    for (number, days) in [20, 13, 13, 2, 0].into_iter().enumerate() {
        let mut change = test.change(AuditKind::AccountChanged).await;
        let mut event = test.event(AuditKind::ManifestPushed);
        event.at = Timestamp(now.0 - days * DAY - 10);
        event.repository = Some("late".parse().expect("a name of a repository"));
        event.reference = Some(format!("{number}"));
        change.event = Some(event.clone());
        assert_eq!(test.apply(&change).await, Applied::Applied);
        events.push(event);
    }
    events.sort_by_key(|event| (event.at, event.id));
    for limit in [1, 3, 100] {
        let mut read = test.events_in_slices(&AuditQuery::default(), limit).await;
        read.sort_by_key(|event| (event.at, event.id));
        assert_eq!(read, events, "{limit}");
    }
    let query = AuditQuery {
        repository: Some("late".parse().expect("a name of a repository")),
        to: Some(Timestamp(now.0 - DAY)),
        ..AuditQuery::default()
    };
    let read = test.events_in_slices(&query, 2).await;
    assert_eq!(read.len(), 4, "{read:?}");
    assert!(read.is_sorted_by_key(|event| event.at), "{read:?}");
}

/// A cursor goes on behind the events that were read, also when more are recorded meanwhile.
pub async fn a_cursor_of_the_audit_trail_stays_valid(test: AccessTest) {
    let mut events = record(&test, 6, 10).await;
    let query = AuditQuery::default();
    let slice = test.store.audit(test.cx(), &query, None, 3).await.expect("audit");
    let mut read = slice.items;
    assert!(!read.is_empty() && slice.next.is_some(), "{read:?}");
    events.extend(record(&test, 3, 10).await);
    let mut next = slice.next;
    while let Some(after) = next {
        let slice = test
            .store
            .audit(test.cx(), &query, Some(&after), 3)
            .await
            .expect("audit");
        read.extend(slice.items);
        next = slice.next;
    }
    assert_eq!(read, events);
}
