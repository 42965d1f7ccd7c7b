//! The state, which has one row.

use registry::store::access::AccessState;
use rusqlite::params;

use super::super::rows::{OperationFailure, Rows};
use super::super::values::{Columns as _, integer};
use super::json;

pub(super) fn get(rows: &Rows<'_>) -> Result<AccessState, OperationFailure> {
    let state = rows.one(
        "SELECT version, policy, keys, accounts, admins, had_admin, withdrawn FROM access_state WHERE id = 1",
        [],
        |row| {
            let policy: Option<i64> = row.value(1)?;
            Ok(AccessState {
                version: row.unsigned(0)?,
                policy: policy.map(|_| row.unsigned(1)).transpose()?,
                keys: json::value(row, 2)?,
                accounts: row.unsigned(3)?,
                admins: row.unsigned(4)?,
                had_admin: row.value(5)?,
                withdrawn: json::value(row, 6)?,
            })
        },
    )?;
    Ok(state.unwrap_or_default())
}

/// The version of the state; 0 before the first change.
pub(super) fn version(rows: &Rows<'_>) -> Result<u64, OperationFailure> {
    let version = rows.one("SELECT version FROM access_state WHERE id = 1", [], |row| {
        row.unsigned(0)
    })?;
    Ok(version.unwrap_or_default())
}

pub(super) fn put(rows: &Rows<'_>, state: &AccessState) -> Result<(), OperationFailure> {
    rows.change(
        "INSERT OR REPLACE INTO access_state (id, version, policy, keys, accounts, admins, had_admin, withdrawn) \
         VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            integer(state.version),
            state.policy.map(integer),
            json::text(&state.keys)?,
            integer(state.accounts),
            integer(state.admins),
            state.had_admin,
            json::text(&state.withdrawn)?,
        ],
    )?;
    Ok(())
}
