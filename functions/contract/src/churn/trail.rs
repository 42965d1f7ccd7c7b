//! The audit trail after a churn: every change has its event, and every event its change.

use std::collections::BTreeMap;

use oci::Digest;
use registry::auth::ActionKind;
use registry::store::Timestamp;
use registry::store::access::{AuditEvent, AuditKind, AuditQuery};
use registry::store::records::Record;

use super::{Shared, frozen, users};
use crate::access::all_events;

/// The maximum number of slices.
const ENOUGH: usize = 10_000;

/// A change that was acknowledged to a client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Acknowledged {
    pub(super) kind: AuditKind,
    pub(super) principal: String,
    pub(super) repository: String,
    /// A tag or a digest.
    pub(super) reference: String,
}

/// A change of a tag, as the history and the trail both record it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TagChange {
    repository: String,
    tag: String,
    before: Option<String>,
    after: Option<String>,
    principal: String,
    at: Timestamp,
}

/// Asserts that trail, history and acknowledged changes agree.
pub(super) async fn check(shared: &Shared, acknowledged: &[Acknowledged]) {
    let all = AuditQuery::default();
    let events = all_events(&*shared.stores.access, || shared.cx(), &all, 500).await;
    let records = records(shared).await;
    let found = disagreements(&events, &records, acknowledged);
    assert!(found.is_empty(), "the audit trail: {found:#?}");
}

async fn records(shared: &Shared) -> Vec<Record> {
    let (mut records, mut next) = (Vec::new(), None);
    for _ in 0..ENOUGH {
        let slice = shared.stores.records.records(shared.cx(), next.as_ref(), 1000);
        let slice = slice.await.expect("records");
        records.extend(slice.items);
        next = slice.next;
        if next.is_none() {
            return records;
        }
    }
    panic!("the records do not end");
}

/// What the audit trail says, and the history or a client does not; and the other way round.
fn disagreements(events: &[AuditEvent], records: &[Record], acknowledged: &[Acknowledged]) -> Vec<String> {
    let mut found = Vec::new();
    let mut pushed = Vec::new();
    let mut deleted = Vec::new();
    for event in events {
        match tag_changes(event) {
            Ok(changes) if matches!(event.event, AuditKind::TagDeleted | AuditKind::ManifestDeleted) => {
                deleted.extend(changes);
            }
            Ok(changes) => pushed.extend(changes),
            Err(text) => found.push(text),
        }
        found.extend(not_allowed(event));
    }
    let history = history(records);
    let (mut settings, mut removals): (Vec<_>, Vec<_>) = history.into_iter().partition(|change| change.after.is_some());
    pushed.sort();
    settings.sort();
    found.extend(
        without(&pushed, &settings)
            .into_iter()
            .map(|change| format!("an event, and no change: {change:?}")),
    );
    found.extend(
        without(&settings, &pushed)
            .into_iter()
            .map(|change| format!("a change, and no event: {change:?}")),
    );
    deleted.sort();
    removals.sort();
    found.extend(
        without(&deleted, &removals)
            .into_iter()
            .map(|change| format!("the event of a deletion, and no deletion: {change:?}")),
    );
    found.extend(
        without(&removals, &deleted)
            .into_iter()
            .map(|change| format!("a deletion, and no event: {change:?}")),
    );
    found.extend(frozen::forbidden_changes(records));
    found.extend(manifests(events, records));
    let mut recorded: Vec<_> = events.iter().map(Acknowledged::of).collect();
    recorded.sort();
    let mut acknowledged = acknowledged.to_vec();
    acknowledged.sort();
    // A push that changes nothing is acknowledged and has no event of its own.
    acknowledged.dedup_by(|one, other| one == other && one.kind == AuditKind::ManifestPushed);
    found.extend(
        without(&acknowledged, &recorded)
            .into_iter()
            .map(|change| format!("acknowledged, and no event: {change:?}")),
    );
    found
}

/// What is in the first list more often than in the second. Both are sorted.
fn without<T: Ord + Clone>(all: &[T], others: &[T]) -> Vec<T> {
    let mut others = others.iter().peekable();
    let mut rest = Vec::new();
    for one in all {
        while others.next_if(|other| *other < one).is_some() {}
        if others.next_if(|other| *other == one).is_none() {
            rest.push(one.clone());
        }
    }
    rest
}

fn repository(event: &AuditEvent) -> String {
    event.repository.as_ref().map(ToString::to_string).unwrap_or_default()
}

impl Acknowledged {
    fn of(event: &AuditEvent) -> Self {
        Self {
            kind: event.event,
            principal: event.principal.clone(),
            repository: repository(event),
            reference: event.reference.clone().unwrap_or_default(),
        }
    }
}

/// The changes of tags that an event lists.
fn tag_changes(event: &AuditEvent) -> Result<Vec<TagChange>, String> {
    let change = |tag: &str, before: Option<String>, after: Option<String>| TagChange {
        repository: repository(event),
        tag: tag.to_owned(),
        before,
        after,
        principal: event.principal.clone(),
        at: event.at,
    };
    match (event.event, &event.detail) {
        (AuditKind::TagDeleted, None) => {
            let tag = event.reference.clone().unwrap_or_default();
            Ok(vec![change(&tag, event.before.clone(), None)])
        }
        (AuditKind::ManifestPushed | AuditKind::ManifestDeleted | AuditKind::TagDeleted, Some(detail)) => {
            let rows: Vec<BTreeMap<String, String>> =
                serde_json::from_str(detail).map_err(|error| format!("{error}: {event:?}"))?;
            let tag = |row: &BTreeMap<String, String>| row.get("tag").cloned().unwrap_or_default();
            let changes = rows.iter().map(|row| {
                // All tags that are deleted named the manifest of the event.
                let of_event = event.before.clone();
                let before = row.get("before").cloned().or(of_event);
                change(&tag(row), before, event.after.clone())
            });
            Ok(changes.collect())
        }
        (AuditKind::ManifestPushed | AuditKind::ManifestDeleted | AuditKind::BlobDeleted, None) => Ok(Vec::new()),
        _ => Err(format!("no worker does this: {event:?}")),
    }
}

/// The event, if its principal may not do what it says.
fn not_allowed(event: &AuditEvent) -> Option<String> {
    let moves = tag_changes(event).is_ok_and(|changes| {
        let mut changes = changes.iter();
        changes.any(|change| change.before.is_some() && change.after.is_some())
    });
    let actions: &[ActionKind] = match event.event {
        AuditKind::ManifestPushed if moves => &[ActionKind::Write, ActionKind::Move],
        AuditKind::ManifestPushed => &[ActionKind::Write],
        _ => &[ActionKind::Delete],
    };
    let worker = users::worker(&event.principal);
    let may = actions
        .iter()
        .all(|action| users::may(worker, *action, &repository(event)));
    (!may).then(|| format!("the policy does not allow it: {event:?}"))
}

fn history(records: &[Record]) -> Vec<TagChange> {
    let text = |digest: Option<Digest>| digest.map(|digest| digest.to_string());
    let changes = records.iter().filter_map(|record| match record {
        Record::History {
            repository,
            tag,
            change,
        } => Some(TagChange {
            repository: repository.to_string(),
            tag: tag.to_string(),
            before: text(change.before),
            after: text(change.after),
            principal: change.principal.clone(),
            at: change.at,
        }),
        _ => None,
    });
    changes.collect()
}

/// The manifests that exist and were not pushed, or do not exist and were not deleted, as the trail has it.
fn manifests(events: &[AuditEvent], records: &[Record]) -> Vec<String> {
    // Pushes and deletions, and whether it exists.
    let mut all: BTreeMap<(String, String), (usize, usize, bool)> = BTreeMap::new();
    for event in events {
        let key = (repository(event), event.reference.clone().unwrap_or_default());
        match event.event {
            AuditKind::ManifestPushed => all.entry(key).or_default().0 += 1,
            AuditKind::ManifestDeleted => all.entry(key).or_default().1 += 1,
            _ => {}
        }
    }
    for record in records {
        if let Record::Manifest(entry) = record {
            let key = (entry.repository.to_string(), entry.digest.to_string());
            all.entry(key).or_default().2 = true;
        }
    }
    let wrong = all.into_iter().filter(|(_, (pushes, deletions, exists))| {
        // A push that only sets tags has an event too.
        *pushes < deletions + usize::from(*exists) || !exists && *deletions == 0
    });
    wrong
        .map(|(key, counts)| format!("pushes, deletions, and whether it exists: {key:?} {counts:?}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use oci::Algorithm;
    use registry::store::Uid;
    use registry::store::metadata::HistoryRecord;

    use super::*;

    const AT: Timestamp = Timestamp(7);

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    fn event(kind: AuditKind, principal: &str, reference: &str) -> AuditEvent {
        AuditEvent {
            repository: Some("own/w0".parse().expect("a legal name")),
            reference: Some(reference.to_owned()),
            ..AuditEvent::new(kind, principal.to_owned(), AT, Uid(1))
        }
    }

    /// `w0` has pushed a manifest with a tag, and has deleted it.
    fn agreeing() -> (Vec<AuditEvent>, Vec<Record>, Vec<Acknowledged>) {
        let one = digest("one").to_string();
        let pushed = AuditEvent {
            after: Some(one.clone()),
            detail: Some(r#"[{"tag":"t"}]"#.to_owned()),
            ..event(AuditKind::ManifestPushed, "w0", &one)
        };
        let deleted = AuditEvent {
            before: Some(one.clone()),
            detail: Some(r#"[{"tag":"t"}]"#.to_owned()),
            ..event(AuditKind::ManifestDeleted, "w0", &one)
        };
        let change = |version, before, after| Record::History {
            repository: "own/w0".parse().expect("a legal name"),
            tag: "t".parse().expect("a legal tag"),
            change: HistoryRecord {
                version,
                before,
                after,
                principal: "w0".to_owned(),
                promoted_from: None,
                at: AT,
                since: None,
            },
        };
        let history = vec![
            change(1, None, Some(digest("one"))),
            change(2, Some(digest("one")), None),
        ];
        let acknowledged = vec![Acknowledged::of(&pushed), Acknowledged::of(&deleted)];
        (vec![pushed, deleted], history, acknowledged)
    }

    #[test]
    fn every_disagreement_is_found() {
        let (events, history, acknowledged) = agreeing();
        assert_eq!(disagreements(&events, &history, &acknowledged), [] as [String; 0]);
        let expect = |events: &[AuditEvent], history: &[Record], acknowledged: &[Acknowledged], text: &str| {
            let found = disagreements(events, history, acknowledged);
            assert!(found.iter().any(|line| line.starts_with(text)), "{text}: {found:#?}");
        };
        expect(&events[1..], &history, &acknowledged, "a change, and no event");
        expect(&events[1..], &history, &acknowledged, "acknowledged, and no event");
        expect(&events[..1], &history, &acknowledged, "a deletion, and no event");
        expect(&events, &history[1..], &acknowledged, "an event, and no change");
        expect(&events[..1], &[], &[], "pushes, deletions, and whether it exists");
        let gone = event(AuditKind::TagDeleted, "w0", "t");
        expect(&[gone], &[], &[], "the event of a deletion, and no deletion");
        let twice = [events[0].clone(), events[0].clone(), events[1].clone()];
        expect(&twice, &history, &acknowledged, "an event, and no change");
        for principal in ["w1", ":anonymous", "x"] {
            let stranger = event(AuditKind::BlobDeleted, principal, "sha256:00");
            expect(&[stranger], &[], &[], "the policy does not allow it");
        }
        expect(
            &[event(AuditKind::PolicySet, "w0", "1")],
            &[],
            &[],
            "no worker does this",
        );

        let mut releases = history.clone();
        for record in &mut releases {
            if let Record::History { tag, change, .. } = record {
                *tag = "r0".parse().expect("a legal tag");
                if change.after.is_some() {
                    change.before = Some(digest("other"));
                }
            }
        }
        expect(&events, &releases, &[], "an immutable tag was deleted");
        expect(&events, &releases, &[], "an immutable tag was moved");
    }
}
