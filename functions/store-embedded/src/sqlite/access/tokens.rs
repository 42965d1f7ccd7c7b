//! The seeds of signing keys, the counters of wrong passwords, and the days on which keys were last used.

use std::collections::BTreeMap;

use registry::auth::{AccountName, CredentialId};
use registry::store::Timestamp;
use registry::store::access::{FailureKey, Failures, KeyId, TokenSeed};
use rusqlite::{Row, params};

use super::super::rows::{OperationFailure, Rows};
use super::super::values::{Columns as _, integer, timestamp};
use super::json;

/// Removes some counters that have ended, with each counter that is written.
pub(super) const REMOVE_OLD_FAILURES: &str =
    "DELETE FROM failure WHERE key IN (SELECT key FROM failure WHERE ends <= ?1 ORDER BY ends LIMIT 4)";

/// All seeds that can be read. A damaged row is left out: it must not keep the other keys from signing.
pub(super) fn seeds(rows: &Rows<'_>) -> Result<Vec<TokenSeed>, OperationFailure> {
    let sql = "SELECT kid, seed, created FROM token_key ORDER BY kid";
    let seeds = rows.all(sql, [], |row| match stored_seed(row) {
        Ok(seed) => Ok(Some(seed)),
        Err(OperationFailure::Damaged(what)) => {
            let kid: String = row.value(0).unwrap_or_default();
            tracing::error!(?kid, %what, "a seed of the keys that sign tokens is damaged and not used");
            Ok(None)
        }
        Err(failure) => Err(failure),
    })?;
    Ok(seeds.into_iter().flatten().collect())
}

fn stored_seed(row: &Row<'_>) -> Result<TokenSeed, OperationFailure> {
    Ok(TokenSeed {
        kid: row.parsed(0)?,
        seed: row.value(1)?,
        created: row.timestamp(2)?,
    })
}

pub(super) fn add_seed(rows: &Rows<'_>, seed: &TokenSeed) -> Result<bool, OperationFailure> {
    let added = rows.change(
        "INSERT INTO token_key (kid, seed, created) VALUES (?1, ?2, ?3) ON CONFLICT (kid) DO NOTHING",
        params![seed.kid.as_str(), seed.seed, timestamp(seed.created)],
    )?;
    if added == 1 {
        return Ok(true);
    }
    let found = rows.one(
        "SELECT kid, seed, created FROM token_key WHERE kid = ?1",
        [seed.kid.as_str()],
        stored_seed,
    );
    match found {
        Err(OperationFailure::Damaged(what)) => {
            tracing::error!(kid = %seed.kid, %what, "a damaged seed of the keys that sign tokens is replaced");
        }
        found => return found.map(|_| false),
    }
    rows.change(
        "UPDATE token_key SET seed = ?2, created = ?3 WHERE kid = ?1",
        params![seed.kid.as_str(), seed.seed, timestamp(seed.created)],
    )?;
    Ok(true)
}

pub(super) fn remove_seed(rows: &Rows<'_>, kid: KeyId) -> Result<(), OperationFailure> {
    rows.change("DELETE FROM token_key WHERE kid = ?1", [kid.as_str()])?;
    Ok(())
}

pub(super) fn failures(rows: &Rows<'_>, key: FailureKey) -> Result<Failures, OperationFailure> {
    let failures = rows.one(
        "SELECT version, count, last, until, at FROM failure WHERE key = ?1",
        [key.0],
        |row| {
            let (until, at): (Option<i64>, Option<i64>) = (row.value(3)?, row.value(4)?);
            Ok(Failures {
                version: row.unsigned(0)?,
                count: row.small(1)?,
                last: json::value(row, 2)?,
                until: until.map(|_| row.timestamp(3)).transpose()?,
                at: at.map(|_| row.timestamp(4)).transpose()?,
            })
        },
    )?;
    Ok(failures.unwrap_or_default())
}

pub(super) fn put_failures(
    rows: &Rows<'_>,
    key: FailureKey,
    failures: &Failures,
    now: Timestamp,
) -> Result<bool, OperationFailure> {
    let ends = failures.at.unwrap_or(now).plus_millis(Failures::LIFETIME_MS);
    // A row that does not exist has version 0, and a row has at least version 1.
    let written = rows.change(
        "INSERT INTO failure (key, version, count, last, until, at, ends) \
         SELECT ?1, ?2 + 1, ?3, ?4, ?5, ?6, ?7 \
         WHERE ?2 = coalesce((SELECT version FROM failure WHERE key = ?1), 0) \
         ON CONFLICT (key) DO UPDATE SET version = excluded.version, count = excluded.count, last = excluded.last, \
         until = excluded.until, at = excluded.at, ends = excluded.ends",
        params![
            key.0,
            integer(failures.version),
            failures.count,
            json::text(&failures.last)?,
            failures.until.map(timestamp),
            failures.at.map(timestamp),
            timestamp(ends),
        ],
    )?;
    if written == 1 {
        rows.change(REMOVE_OLD_FAILURES, [timestamp(now)])?;
    }
    Ok(written == 1)
}

pub(super) fn clear_failures(rows: &Rows<'_>, key: FailureKey) -> Result<(), OperationFailure> {
    rows.change("DELETE FROM failure WHERE key = ?1", [key.0])?;
    Ok(())
}

pub(super) fn record_use(
    rows: &Rows<'_>,
    account: &AccountName,
    key: CredentialId,
    day: u32,
) -> Result<(), OperationFailure> {
    rows.change(
        "INSERT INTO key_use (account, id, day) VALUES (?1, ?2, ?3) \
         ON CONFLICT (account, id) DO UPDATE SET day = excluded.day WHERE excluded.day > day",
        params![account.as_str(), key.to_string(), day],
    )?;
    Ok(())
}

pub(super) fn last_uses(
    rows: &Rows<'_>,
    account: &AccountName,
) -> Result<BTreeMap<CredentialId, u32>, OperationFailure> {
    let uses = rows.all(
        "SELECT id, day FROM key_use WHERE account = ?1",
        [account.as_str()],
        |row| Ok((row.parsed(0)?, row.small(1)?)),
    )?;
    Ok(uses.into_iter().collect())
}
