//! The keys of accounts, the policy, the audit trail, and what instances share about tokens and wrong passwords.

use registry::auth::{AccountName, CredentialId};
use registry::store::access::{AuditEvent, FailureKey, KeyId};
use registry::store::{Timestamp, Uid};

use super::day::Day;
use crate::keys::{LAST, key, number, with_prefix};
use crate::table::{ItemKey, Range};

/// The partition of the state, accounts and the policy.
const ADMINISTRATION: &str = "A";
/// The first part of the partitions of the audit trail.
const AUDIT: &str = "U#";
/// The partition of the days of last use.
const USES: &str = "V";

/// What the sort key of an account begins with.
pub(super) const ACCOUNT: &str = "a#";

/// Whether an item of the main table is one of those here.
pub(crate) fn is_of_access(key: &ItemKey) -> bool {
    let local = key.partition == USES || key.partition.starts_with("F#") || key.sort.starts_with("token#");
    key.partition == ADMINISTRATION || key.partition.starts_with(AUDIT) || local
}

pub(super) fn state() -> ItemKey {
    key(ADMINISTRATION, "state")
}

pub(super) fn account(name: &AccountName) -> ItemKey {
    key(ADMINISTRATION, format!("{ACCOUNT}{name}"))
}

/// All accounts.
pub(super) fn accounts() -> Range {
    with_prefix(ADMINISTRATION.to_owned(), ACCOUNT)
}

/// The policy in force.
pub(super) fn policy() -> ItemKey {
    key(ADMINISTRATION, "policy")
}

fn policy_sort(version: u64) -> String {
    format!("policy#{version:016x}")
}

pub(super) fn policy_version(version: u64) -> ItemKey {
    key(ADMINISTRATION, policy_sort(version))
}

/// The versions of the policy up to this one, inclusive.
pub(super) fn policy_versions(up_to: u64) -> Range {
    Range {
        partition: ADMINISTRATION.to_owned(),
        from: policy_sort(0),
        to: policy_sort(up_to),
    }
}

/// The row that says since when there are events.
pub(super) fn first_event() -> ItemKey {
    key(ADMINISTRATION, "audit")
}

fn of_events(day: Day, shard: u8) -> String {
    format!("{AUDIT}{day}#{shard:x}")
}

pub(super) fn event(event: &AuditEvent) -> ItemKey {
    let shard = u8::try_from(event.id.0 >> 60).unwrap_or_default();
    let position = EventPosition::of(event);
    key(of_events(Day::of(event.at), shard), position.sort())
}

/// The events of a shard of a day.
pub(super) fn events(day: Day, shard: u8) -> Range {
    Range {
        partition: of_events(day, shard),
        from: EventPosition::before(day.start()).sort(),
        to: LAST.to_string(),
    }
}

/// A position in the audit trail: at an event, or before all events of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EventPosition {
    pub(super) at: Timestamp,
    /// `None` sorts first.
    id: Option<Uid>,
}

impl EventPosition {
    pub(super) fn of(event: &AuditEvent) -> Self {
        Self {
            at: event.at,
            id: Some(event.id),
        }
    }

    pub(super) fn before(at: Timestamp) -> Self {
        Self { at, id: None }
    }

    /// The time and the id of the event at this position.
    pub(super) fn event(self) -> Option<(Timestamp, Uid)> {
        Some((self.at, self.id?))
    }

    /// The sort key.
    pub(super) fn sort(self) -> String {
        match self.id {
            Some(id) => format!("{:016x}#{id}", self.at.0),
            None => format!("{:016x}", self.at.0),
        }
    }

    /// Parses a sort key.
    pub(super) fn parse(sort: &str) -> Option<Self> {
        let (at, id) = match sort.split_once('#') {
            Some((at, id)) => (at, Some(Uid(number(id)?))),
            None => (sort, None),
        };
        let at = Timestamp(number(at)?);
        Some(Self { at, id })
    }
}

pub(super) fn token_seed(kid: KeyId) -> ItemKey {
    key("K", format!("token#{kid}"))
}

/// All seeds.
pub(super) fn token_seeds() -> Range {
    with_prefix("K".to_owned(), "token#")
}

pub(super) fn failures(id: FailureKey) -> ItemKey {
    key(format!("F#{:x}", id.0[0] >> 4), id.to_string())
}

fn use_sort(account: &AccountName) -> String {
    format!("{account}#")
}

pub(super) fn last_use(account: &AccountName, id: CredentialId) -> ItemKey {
    key(USES, format!("{}{id}", use_sort(account)))
}

/// The days of last use of all keys of an account.
pub(super) fn last_uses(account: &AccountName) -> Range {
    with_prefix(USES.to_owned(), &use_sort(account))
}

/// The id of the key whose day of last use is under this sort key.
pub(super) fn used_key(sort: &str) -> Option<CredentialId> {
    sort.split_once('#')?.1.parse().ok()
}
