//! Versions of the policy.

use registry::store::Page;
use registry::store::access::{PolicyForm, PolicyVersion};
use rusqlite::{Row, params};

use super::super::rows::{OperationFailure, Rows};
use super::super::values::{Columns as _, integer, one_more, page, timestamp};

/// A page of versions, newest first.
pub(super) const POLICIES: &str = "SELECT version, document, source, form, principal, at, note FROM policy \
    WHERE version < ?1 ORDER BY version DESC LIMIT ?2";

pub(super) fn document(rows: &Rows<'_>, version: u64) -> Result<Option<String>, OperationFailure> {
    rows.one(
        "SELECT document FROM policy WHERE version = ?1",
        [integer(version)],
        |row| row.value(0),
    )
}

pub(super) fn get(rows: &Rows<'_>, version: u64) -> Result<Option<PolicyVersion>, OperationFailure> {
    rows.one(
        "SELECT version, document, source, form, principal, at, note FROM policy WHERE version = ?1",
        [integer(version)],
        policy,
    )
}

pub(super) fn page_before(
    rows: &Rows<'_>,
    before: Option<u64>,
    limit: usize,
) -> Result<Page<PolicyVersion>, OperationFailure> {
    let before = before.map_or(i64::MAX, integer);
    let policies = rows.all(POLICIES, params![before, one_more(limit)], policy)?;
    Ok(page(policies, limit))
}

fn policy(row: &Row<'_>) -> Result<PolicyVersion, OperationFailure> {
    let form: String = row.value(3)?;
    Ok(PolicyVersion {
        version: row.unsigned(0)?,
        document: row.value(1)?,
        source: row.value(2)?,
        form: match &*form {
            "toml" => PolicyForm::Toml,
            "json" => PolicyForm::Json,
            _ => return Err(OperationFailure::Damaged(format!("a policy is written as {form:?}"))),
        },
        principal: row.value(4)?,
        at: row.timestamp(5)?,
        note: row.value(6)?,
    })
}

pub(super) fn add(rows: &Rows<'_>, policy: &PolicyVersion) -> Result<(), OperationFailure> {
    let form = match policy.form {
        PolicyForm::Toml => "toml",
        PolicyForm::Json => "json",
    };
    rows.change(
        "INSERT INTO policy (version, document, source, form, principal, at, note) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            integer(policy.version),
            policy.document,
            policy.source,
            form,
            policy.principal,
            timestamp(policy.at),
            policy.note,
        ],
    )?;
    Ok(())
}
