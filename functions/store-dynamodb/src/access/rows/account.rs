//! Accounts.

use registry::auth::AccountName;
use registry::store::StoreError;
use registry::store::access::{Account, AccountKind, PasswordHash};

use super::super::keys;
use crate::records::{ItemBuilder, ItemFields, attributes, damaged};
use crate::table::{Item, Write, WriteCondition};

/// The values of `KIND`.
mod kind_text {
    pub(super) const USER: &str = "user";
    pub(super) const ROBOT: &str = "robot";
}

/// An account. Its groups, grants and keys are JSON text.
pub(in crate::access) struct AccountRow;

impl AccountRow {
    const ATTRIBUTES: [&str; 9] = [
        attributes::KIND,
        attributes::GENERATION,
        attributes::DISABLED,
        attributes::GROUPS,
        attributes::GRANTS,
        attributes::PASSWORD,
        attributes::KEYS,
        attributes::CREATED,
        attributes::BY,
    ];

    /// A write that gives the row these values, whether or not the row exists.
    pub(in crate::access) fn update(account: &Account) -> Result<Write, StoreError> {
        let kind = match account.kind {
            AccountKind::User => kind_text::USER,
            AccountKind::Robot => kind_text::ROBOT,
        };
        let item = ItemBuilder::default()
            .text(attributes::KIND, kind)
            .number(attributes::GENERATION, account.generation)
            .flag(attributes::DISABLED, account.disabled)
            .json(attributes::GROUPS, &account.groups)?
            .json(attributes::GRANTS, &account.grants)?
            .text_if_any(
                attributes::PASSWORD,
                account.password.as_ref().map(PasswordHash::as_str),
            )
            .json(attributes::KEYS, &account.keys)?
            .timestamp(attributes::CREATED, account.created)
            .text(attributes::BY, &account.by)
            .item(keys::account(&account.name));
        Ok(Write::change_to(item, &Self::ATTRIBUTES, WriteCondition::Always))
    }

    pub(in crate::access) fn read(item: &Item) -> Result<Account, StoreError> {
        let fields = ItemFields(item);
        let name = item.key.sort.strip_prefix(keys::ACCOUNT);
        let name: Option<AccountName> = name.and_then(|name| name.parse().ok());
        let kind = match fields.text(attributes::KIND)? {
            kind_text::USER => AccountKind::User,
            kind_text::ROBOT => AccountKind::Robot,
            other => return Err(damaged(&item.key, format_args!("unknown kind {other}"))),
        };
        let password = fields.text_if_any(attributes::PASSWORD)?;
        Ok(Account {
            name: name.ok_or_else(|| damaged(&item.key, "not the name of an account"))?,
            kind,
            generation: fields.number(attributes::GENERATION)?,
            disabled: fields.flag(attributes::DISABLED),
            groups: fields.json(attributes::GROUPS)?,
            grants: fields.json(attributes::GRANTS)?,
            password: password.map(|phc| PasswordHash::new(phc.to_owned())),
            keys: fields.json(attributes::KEYS)?,
            created: fields.timestamp(attributes::CREATED)?,
            by: fields.text(attributes::BY)?.to_owned(),
        })
    }
}
