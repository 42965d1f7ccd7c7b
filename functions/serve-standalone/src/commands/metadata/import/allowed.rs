//! Which records may be imported. An export contains no others: a file with another record was damaged, or was written or
//! changed by hand.
//!
//! The parser of records checks names, tags, digests and media types. This module checks the values that a store would
//! accept unchecked, and later serve, delete or fail on.

use std::collections::BTreeSet;

use auth::access_token::MAX_GENERATION;
use auth::administration::{AdministrationError, limits};
use auth::password;
use oci::Digest;
use registry::policy::Policy;
use registry::store::access::Account;
use registry::store::records::{EntryContent, ManifestEntry, Record};
use registry::store::{Location, Timestamp};

use super::super::access_record::AccessRecord;

/// The largest number that every store can store.
const LARGEST: u64 = i64::MAX as u64;

/// Checks a record. The error is a text for the operator.
pub(super) fn check(record: &Record) -> Result<(), String> {
    match record {
        Record::Repository { created, .. } => timestamp(*created),
        Record::Blob { location, size, at, .. } | Record::Link { location, size, at, .. } => {
            check_location(location)?;
            number("size", *size)?;
            timestamp(*at)
        }
        Record::Manifest(entry) => manifest(entry),
        Record::Tag { target, .. } => {
            number("size", target.size)?;
            version(target.version)?;
            timestamp(target.at)
        }
        Record::History { change, .. } => {
            version(change.version)?;
            timestamp(change.at)?;
            if change.before == change.after {
                return Err("the change of a tag has the same digest before and after".to_owned());
            }
            Ok(())
        }
    }
}

/// Checks a record about accounts.
pub(super) fn check_access(record: &AccessRecord) -> Result<(), String> {
    match record {
        AccessRecord::Account(account) => check_account(account),
        AccessRecord::Policy { in_force, policy } => {
            number("version", policy.version)?;
            timestamp(policy.at)?;
            at_most("bytes of the policy", policy.document.len(), Policy::MAX_BYTES)?;
            at_most("bytes of the policy's source", policy.source.len(), Policy::MAX_BYTES)?;
            if *in_force {
                check_policy(&policy.document)
            } else {
                Ok(())
            }
        }
        AccessRecord::Audit(event) => timestamp(event.at),
    }
}

/// Checks the policy that comes in force: a server that cannot read it refuses every request.
fn check_policy(document: &str) -> Result<(), String> {
    let policy = Policy::from_json(document).map_err(|mistakes| {
        let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
        format!("{} mistakes, the first one: {first}", mistakes.len())
    })?;
    let document = policy.document();
    if document.issuers.is_empty() && document.workloads.is_empty() {
        Ok(())
    } else {
        Err(AdministrationError::Workloads.to_string())
    }
}

fn check_account(account: &Account) -> Result<(), String> {
    if account.generation > MAX_GENERATION {
        return Err(format!("the generation {} is too large", account.generation));
    }
    timestamp(account.created)?;
    limits::check(account).map_err(|error| error.to_string())?;
    if let Some(hash) = &account.password {
        password::read_hash(hash.as_str()).map_err(|error| format!("the hash of the password: {error}"))?;
    }
    for key in account.keys.values() {
        timestamp(key.created)?;
        key.expires.map_or(Ok(()), timestamp)?;
    }
    Ok(())
}

fn at_most(what: &str, count: usize, maximum: usize) -> Result<(), String> {
    if count > maximum {
        return Err(format!("{count} {what}, and the maximum is {maximum}"));
    }
    Ok(())
}

fn manifest(entry: &ManifestEntry) -> Result<(), String> {
    let ManifestEntry { digest, size, .. } = entry;
    number("size", *size)?;
    timestamp(entry.at)?;
    match &entry.content {
        EntryContent::Stored(location) => check_location(location)?,
        EntryContent::Inline(bytes) => {
            if bytes.len() as u64 != *size {
                return Err(format!(
                    "the manifest has {} bytes, and its record says {size}",
                    bytes.len()
                ));
            }
            let computed = Digest::of(digest.algorithm(), bytes);
            if computed != *digest {
                return Err(format!("the content of the manifest hashes to {computed}"));
            }
        }
    }
    let references: BTreeSet<&Digest> = entry.references.iter().collect();
    if references.len() != entry.references.len() {
        return Err("the manifest has a reference twice".to_owned());
    }
    match &entry.subject {
        Some((_, row)) if row.descriptor.digest != *digest || row.descriptor.size != *size => {
            Err("the row of the subject describes another manifest".to_owned())
        }
        _ => Ok(()),
    }
}

fn check_location(location: &Location) -> Result<(), String> {
    if location.is_of_main() {
        return Ok(());
    }
    // The key and the store may be any text. The error shows only the beginning, escaped for a terminal.
    let key: String = location.key.chars().take(80).collect();
    let store: String = location.store.chars().take(80).collect();
    Err(format!(
        "a registry has no object with the key {key:?} in a store {store:?}"
    ))
}

fn number(what: &str, number: u64) -> Result<(), String> {
    if number > LARGEST {
        return Err(format!("the {what} {number} is too large"));
    }
    Ok(())
}

fn version(version: u64) -> Result<(), String> {
    if version == 0 {
        return Err("the version of a tag is 0".to_owned());
    }
    number("version", version)
}

fn timestamp(timestamp: Timestamp) -> Result<(), String> {
    number("time", timestamp.0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::{Value, json};

    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef.1";

    fn digest(text: &str) -> String {
        Digest::of(oci::Algorithm::Sha256, text.as_bytes()).to_string()
    }

    fn check_json(record: &Value) -> Result<(), String> {
        let record: Record = serde_json::from_value(record.clone()).map_err(|error| error.to_string())?;
        check(&record)
    }

    fn at(store: &str, key: &str) -> Value {
        json!({ "store": store, "key": key })
    }

    /// One valid record of each kind.
    fn records() -> Vec<Value> {
        vec![
            json!({ "record": "repository", "name": "a", "created": 1 }),
            json!({ "record": "blob", "digest": digest("a"), "location": at("main", KEY), "size": 1, "at": 1 }),
            json!({
                "record": "link", "repository": "a", "digest": digest("a"), "location": at("main", KEY), "size": 1,
                "incarnation": 1, "at": 1,
            }),
            json!({
                "record": "manifest", "repository": "a", "digest": digest("m"), "media_type": "a/b", "size": 1,
                "content": { "inline": "bQ==" }, "references": [digest("a"), digest("b")], "incarnation": 1, "at": 1,
            }),
            json!({
                "record": "manifest", "repository": "a", "digest": digest("s"), "media_type": "a/b", "size": 9,
                "content": { "stored": at("main", KEY) }, "references": [], "incarnation": 1, "at": 1,
            }),
            json!({
                "record": "tag", "repository": "a", "tag": "v1", "digest": digest("m"), "media_type": "a/b", "size": 1,
                "version": 4096, "at": 1,
            }),
            json!({
                "record": "history", "repository": "a", "tag": "v1", "version": 4096, "before": null,
                "after": digest("m"), "who": "alice", "at": 1,
            }),
        ]
    }

    #[test]
    fn records_of_an_export_are_accepted() {
        for record in records() {
            assert_eq!(check_json(&record), Ok(()), "{record}");
        }
    }

    #[test]
    fn locations_of_other_stores_and_malformed_keys_are_refused() {
        let long = "0".repeat(100_000);
        let refused = [
            ("main", ""),
            ("main", "../../etc/passwd"),
            ("main", "/etc/passwd"),
            ("main", "0123456789abcdef0123456789abcdef/1"),
            ("main", "0123456789ABCDEF0123456789abcdef.1"),
            ("main", "0123456789abcdef0123456789abcdef"),
            ("main", "0123456789abcdef0123456789abcdef."),
            ("main", "0123456789abcdef0123456789abcdef.0"),
            ("main", "0123456789abcdef0123456789abcdef.01"),
            ("main", "0123456789abcdef0123456789abcdef.4294967296"),
            ("main", "0123456789abcdef0123456789abcdef.1.1"),
            ("main", "0123456789abcdef0123456789abcdef.1.0.0"),
            ("main", "0123456789abcdef0123456789abcde.1"),
            ("main", "0123456789abcdef0123456789abcdef0.1"),
            ("main", "0123456789abcdef0123456789abcdef.1\u{0}"),
            ("main", "0123456789abcdef0123456789abcdef.1 "),
            ("main", long.as_str()),
            ("", KEY),
            ("disk", KEY),
            ("other", KEY),
        ];
        for (kind, pointer) in [(1, "/location"), (2, "/location"), (4, "/content/stored")] {
            for (store, key) in refused {
                let mut record = records().swap_remove(kind);
                *record.pointer_mut(pointer).unwrap() = at(store, key);
                let error = check_json(&record).unwrap_err();
                assert!(error.contains("has no object") && error.len() < 400, "{error}");
            }
            for key in [
                KEY,
                "0123456789abcdef0123456789abcdef.1.0",
                "00000000000000000000000000000000.4294967295",
            ] {
                let mut record = records().swap_remove(kind);
                *record.pointer_mut(pointer).unwrap() = at("main", key);
                assert_eq!(check_json(&record), Ok(()), "{key}");
            }
        }
    }

    #[test]
    fn records_that_no_store_would_have_are_refused() {
        let large = LARGEST + 1;
        let cases = [
            (0, "/created", json!(large), "too large"),
            (0, "/name", json!("../a"), "name"),
            (1, "/size", json!(large), "too large"),
            (1, "/at", json!(large), "too large"),
            (1, "/digest", json!("sha256:0"), "digest"),
            (2, "/size", json!(large), "too large"),
            (3, "/size", json!(2), "has 1 bytes"),
            (3, "/content/inline", json!("bg=="), "hashes to"),
            (3, "/references", json!([digest("a"), digest("a")]), "twice"),
            (
                3,
                "/subject",
                json!([digest("x"), {
                    "descriptor": { "mediaType": "a/b", "digest": digest("other"), "size": 1 },
                    "annotations_omitted": false,
                }]),
                "another manifest",
            ),
            (4, "/size", json!(large), "too large"),
            (5, "/version", json!(0), "is 0"),
            (5, "/version", json!(large), "too large"),
            (5, "/tag", json!("a/b"), "tag"),
            (6, "/version", json!(0), "is 0"),
            (6, "/after", Value::Null, "the same digest"),
        ];
        for (kind, pointer, value, expected) in cases {
            let mut record = records().swap_remove(kind);
            match record.pointer_mut(pointer) {
                Some(field) => *field = value,
                None => record[&pointer[1..]] = value,
            }
            let error = check_json(&record).unwrap_err();
            assert!(error.contains(expected), "{record}: {error}");
        }
        // The largest number is accepted.
        let mut record = records().swap_remove(1);
        record["size"] = json!(LARGEST);
        assert_eq!(check_json(&record), Ok(()));
    }
}
