//! The rules about immutable tags, applied again to the history of every tag.
//!
//! A store asks about a change at the time that it records with the change. So the history says whether a rule allowed it.

use std::collections::BTreeMap;

use oci::Digest;
use registry::store::Timestamp;
use registry::store::metadata::HistoryRecord;
use registry::store::records::Record;

use super::users::{self, TagRule};

/// A tag after some changes of its history.
#[derive(Default)]
struct ReplayedTag {
    /// Since when it counts as naming its digest. `None`: it does not exist.
    since: Option<Timestamp>,
    /// What it named when it was deleted while it was frozen, and since when.
    kept: Option<(Digest, Timestamp)>,
}

impl ReplayedTag {
    /// Applies the next change, and says what is wrong with it.
    fn apply(&mut self, rule: TagRule, change: &HistoryRecord) -> Option<&'static str> {
        let since = self.since.unwrap_or(change.at);
        let is_frozen = change.at.millis_since(since) >= rule.grace_ms;
        match (change.before, change.after) {
            (Some(_), Some(_)) => {
                self.since = Some(change.at);
                is_frozen.then_some("was moved")
            }
            (Some(digest), None) => {
                let is_recorded = change.since == self.since;
                self.since = None;
                self.kept = is_frozen.then_some((digest, since));
                if is_frozen && !rule.delete {
                    return Some("was deleted");
                }
                (!is_recorded).then_some("was deleted, and counted as naming its digest since another time")
            }
            (None, Some(digest)) => match self.kept.take() {
                Some((had, since)) if had == digest => {
                    self.since = Some(since);
                    None
                }
                kept => {
                    self.since = Some(change.at);
                    kept.is_some().then_some("has come back with another digest")
                }
            },
            (None, None) => Some("was changed from nothing to nothing"),
        }
    }
}

/// The changes of tags that no rule allowed.
pub(super) fn forbidden_changes(records: &[Record]) -> Vec<String> {
    let mut histories: BTreeMap<(String, String), Vec<&HistoryRecord>> = BTreeMap::new();
    for record in records {
        if let Record::History {
            repository,
            tag,
            change,
        } = record
        {
            let of_tag = histories.entry((repository.to_string(), tag.to_string()));
            of_tag.or_default().push(change);
        }
    }
    let mut found = Vec::new();
    for ((repository, tag), mut history) in histories {
        let Some(rule) = users::rule_of(&tag) else {
            continue;
        };
        history.sort_unstable_by_key(|change| change.version);
        let mut replayed = ReplayedTag::default();
        for change in history {
            if let Some(wrong) = replayed.apply(rule, change) {
                found.push(format!("an immutable tag {wrong}: {repository}:{tag}: {change:?}"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use oci::Algorithm;

    use super::*;
    use crate::churn::clock::MINUTE;

    /// A change: the minute, the digest before, the digest after, and for a deletion since which minute the tag had stood.
    type Change = (u64, Option<&'static str>, Option<&'static str>, Option<u64>);

    fn history(tag: &str, changes: &[Change]) -> Vec<Record> {
        let digest = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
        let mut version = 0;
        let records = changes.iter().map(|(minute, before, after, since)| {
            version += 1;
            Record::History {
                repository: "own/w0".parse().expect("a legal name"),
                tag: tag.parse().expect("a legal tag"),
                change: HistoryRecord {
                    version,
                    before: before.map(digest),
                    after: after.map(digest),
                    principal: "w0".to_owned(),
                    promoted_from: None,
                    at: Timestamp(minute * MINUTE),
                    since: since.map(|minute| Timestamp(minute * MINUTE)),
                },
            }
        });
        records.collect()
    }

    #[test]
    fn a_change_within_the_grace_is_allowed() {
        for tag in ["l0", "d0", "t0"] {
            let changes = [
                (0, None, Some("a"), None),
                (29, Some("a"), Some("b"), None),
                (58, Some("b"), None, Some(29)),
                (60, None, Some("a"), None),
                (89, Some("a"), Some("b"), None),
            ];
            assert_eq!(forbidden_changes(&history(tag, &changes)), [] as [String; 0]);
        }
    }

    #[test]
    fn every_change_that_no_rule_allows_is_found() {
        let created = (0, None, Some("a"), None);
        let deleted = (30, Some("a"), None, Some(0));
        let restored = (31, None, Some("a"), None);
        for (tag, changes, expected) in [
            ("r0", &[created, (0, Some("a"), Some("b"), None)][..], Some("was moved")),
            ("r0", &[created, (0, Some("a"), None, Some(0))], Some("was deleted")),
            ("l0", &[created, (30, Some("a"), Some("b"), None)], Some("was moved")),
            ("l0", &[created, deleted], Some("was deleted")),
            ("d0", &[created, (30, Some("a"), Some("b"), None)], Some("was moved")),
            ("d0", &[created, deleted], None),
            (
                "d0",
                &[created, (30, Some("a"), None, None)],
                Some("was deleted, and counted"),
            ),
            ("d0", &[created, deleted, restored], None),
            (
                "d0",
                &[created, deleted, (31, None, Some("b"), None)],
                Some("has come back with another digest"),
            ),
            // Its grace does not begin again.
            (
                "d0",
                &[created, deleted, restored, (32, Some("a"), Some("b"), None)],
                Some("was moved"),
            ),
            (
                "d0",
                &[
                    created,
                    deleted,
                    restored,
                    (32, Some("a"), None, Some(0)),
                    (33, None, Some("b"), None),
                ],
                Some("has come back with another digest"),
            ),
            ("t0", &[created, (90, Some("a"), Some("b"), None), deleted], None),
        ] {
            let found = forbidden_changes(&history(tag, changes));
            assert_eq!(
                found.len(),
                usize::from(expected.is_some()),
                "{tag} {changes:?}: {found:#?}"
            );
            let begins = |expected: &str| found[0].starts_with(&format!("an immutable tag {expected}"));
            assert!(expected.is_none_or(begins), "{found:#?}");
        }
    }
}
