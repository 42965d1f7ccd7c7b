//! The records of an export about accounts: `account`, `policy` and `audit`.
//!
//! An export has them after all other records, in this order. The seeds of keys that sign tokens, counters of wrong
//! passwords and days of last use are never in an export: they belong to the store in which they were made.

use std::fmt;

use registry::store::access::{Account, AuditEvent, PolicyVersion};
use serde::{Deserialize, Serialize};

/// One record about accounts. As JSON it is one line of an export. Its format is a public interface: fields are only added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(super) enum AccessRecord {
    /// A version of the policy. Older versions come first.
    Policy {
        /// Whether it is in force.
        in_force: bool,
        /// The version. The store into which it is imported gives it another number.
        #[serde(flatten)]
        policy: Box<PolicyVersion>,
    },
    /// An account, with the hashes of its password and its keys.
    Account(Box<Account>),
    /// An event of the audit trail.
    Audit(Box<AuditEvent>),
}

impl AccessRecord {
    /// Whether the text is a record about accounts, and not one of another kind.
    pub(super) fn is(text: &[u8]) -> bool {
        // The kind is the first member of each record.
        ["policy", "account", "audit"].iter().any(|kind| {
            let rest = text.strip_prefix(b"{\"record\":\"");
            let rest = rest.and_then(|rest| rest.strip_prefix(kind.as_bytes()));
            rest.is_some_and(|rest| rest.starts_with(b"\""))
        })
    }
}

impl fmt::Display for AccessRecord {
    /// The kind of the record, and its key: `account alice`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy { policy, .. } => write!(f, "policy {}", policy.version),
            Self::Account(account) => write!(f, "account {}", account.name),
            Self::Audit(event) => write!(f, "audit {} {}", event.at.0, event.id),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use registry::store::access::{AuditKind, PolicyForm};
    use registry::store::{Timestamp, Uid};

    use super::*;

    #[test]
    fn records_are_recognized_by_their_kind() {
        let policy = PolicyVersion {
            version: 7,
            document: "{}".to_owned(),
            source: "\n".to_owned(),
            form: PolicyForm::Json,
            principal: "alice".to_owned(),
            at: Timestamp(5),
            note: None,
        };
        let event = AuditEvent::new(AuditKind::PolicySet, "alice".to_owned(), Timestamp(5), Uid(u64::MAX));
        for (record, name) in [
            (
                AccessRecord::Policy {
                    in_force: true,
                    policy: Box::new(policy),
                },
                "policy 7",
            ),
            (AccessRecord::Audit(Box::new(event)), "audit 5 ffffffffffffffff"),
        ] {
            let text = serde_json::to_string(&record).unwrap();
            assert!(AccessRecord::is(text.as_bytes()), "{text}");
            assert_eq!(serde_json::from_str::<AccessRecord>(&text).unwrap(), record);
            assert_eq!(record.to_string(), name);
        }
        for other in [
            "{\"record\":\"tag\"",
            "{\"record\":\"accounts\"",
            "{\"record\":\"account",
            "{}",
            "",
        ] {
            assert!(!AccessRecord::is(other.as_bytes()), "{other}");
        }
    }
}
