//! Accounts and their keys.

use std::collections::BTreeMap;

use registry::auth::{AccountName, CredentialId};
use registry::store::Page;
use registry::store::access::{Account, AccountKey, AccountKind, PasswordHash};
use rusqlite::{Row, params};

use super::super::rows::{OperationFailure, Rows};
use super::super::values::{Columns as _, integer, one_more, page, timestamp};
use super::json;

/// The columns of an account in the order of [`account`], with its keys as one JSON object, so that an account is one read.
macro_rules! accounts {
    ($rest:literal) => {
        concat!(
            "SELECT name, kind, generation, disabled, groups, grants, password, created, created_by, \
             (SELECT json_group_object(id, json_object('hash', hash, 'scope', json(scope), 'created', k.created, \
             'by', k.created_by, 'expires', expires)) FROM account_key AS k WHERE k.account = a.name) \
             FROM account AS a WHERE ",
            $rest
        )
    };
}

/// A page of accounts.
pub(super) const ACCOUNTS: &str = accounts!("name > ?1 ORDER BY name LIMIT ?2");

pub(super) fn get(rows: &Rows<'_>, name: &AccountName) -> Result<Option<Account>, OperationFailure> {
    rows.one(accounts!("name = ?1"), [name.as_str()], account)
}

pub(super) fn page_after(rows: &Rows<'_>, after: &str, limit: usize) -> Result<Page<Account>, OperationFailure> {
    let accounts = rows.all(ACCOUNTS, params![after, one_more(limit)], account)?;
    Ok(page(accounts, limit))
}

fn account(row: &Row<'_>) -> Result<Account, OperationFailure> {
    let password: Option<String> = row.value(6)?;
    let keys: BTreeMap<CredentialId, AccountKey> = json::value(row, 9)?;
    Ok(Account {
        name: row.parsed(0)?,
        kind: kind(row)?,
        generation: row.unsigned(2)?,
        disabled: row.value(3)?,
        groups: json::value(row, 4)?,
        grants: json::value(row, 5)?,
        password: password.map(PasswordHash::new),
        keys,
        created: row.timestamp(7)?,
        by: row.value(8)?,
    })
}

fn kind(row: &Row<'_>) -> Result<AccountKind, OperationFailure> {
    let text: String = row.value(1)?;
    match &*text {
        "user" => Ok(AccountKind::User),
        "robot" => Ok(AccountKind::Robot),
        _ => Err(OperationFailure::Damaged(format!("an account is of the kind {text:?}"))),
    }
}

fn kind_text(kind: AccountKind) -> &'static str {
    match kind {
        AccountKind::User => "user",
        AccountKind::Robot => "robot",
    }
}

/// Makes an account, or replaces all of it.
pub(super) fn put(rows: &Rows<'_>, account: &Account) -> Result<(), OperationFailure> {
    let name = account.name.as_str();
    rows.change(
        "INSERT OR REPLACE INTO account \
         (name, kind, generation, disabled, groups, grants, password, created, created_by) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            name,
            kind_text(account.kind),
            integer(account.generation),
            account.disabled,
            json::text(&account.groups)?,
            json::text(&account.grants)?,
            account.password.as_ref().map(PasswordHash::as_str),
            timestamp(account.created),
            account.by,
        ],
    )?;
    remove_keys(rows, name)?;
    for (id, key) in &account.keys {
        rows.change(
            "INSERT INTO account_key (account, id, hash, scope, created, created_by, expires) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                name,
                id.to_string(),
                String::from(key.hash),
                key.scope.as_ref().map(json::text).transpose()?,
                timestamp(key.created),
                key.by,
                key.expires.map(timestamp),
            ],
        )?;
    }
    Ok(())
}

/// Removes an account, with its keys and their days of last use.
pub(super) fn remove(rows: &Rows<'_>, name: &AccountName) -> Result<(), OperationFailure> {
    let name = name.as_str();
    rows.change("DELETE FROM account WHERE name = ?1", [name])?;
    remove_keys(rows, name)?;
    rows.change("DELETE FROM key_use WHERE account = ?1", [name])?;
    Ok(())
}

fn remove_keys(rows: &Rows<'_>, name: &str) -> Result<(), OperationFailure> {
    rows.change("DELETE FROM account_key WHERE account = ?1", [name])?;
    Ok(())
}
