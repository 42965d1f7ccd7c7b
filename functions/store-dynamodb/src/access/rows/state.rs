//! The access state.

use registry::store::access::AccessState;
use registry::store::{StoreError, Uid};

use super::super::keys;
use crate::records::{ItemBuilder, ItemFields, attributes};
use crate::table::{Item, Write, WriteCondition};

/// The access state. The keys of tokens and what was withdrawn are JSON text.
pub(in crate::access) struct StateRow;

impl StateRow {
    const ATTRIBUTES: [&str; 8] = [
        attributes::VERSION,
        attributes::WRITER,
        attributes::POLICY,
        attributes::KEYS,
        attributes::ACCOUNTS,
        attributes::ADMINS,
        attributes::HAD_ADMIN,
        attributes::WITHDRAWN,
    ];

    /// A write that gives the row these values. `writer` is the uid of the call.
    pub(in crate::access) fn update(
        state: &AccessState,
        writer: Uid,
        condition: WriteCondition,
    ) -> Result<Write, StoreError> {
        let item = ItemBuilder::default()
            .number(attributes::VERSION, state.version)
            .text(attributes::WRITER, writer)
            .number_if_any(attributes::POLICY, state.policy)
            .json(attributes::KEYS, &state.keys)?
            .number(attributes::ACCOUNTS, state.accounts)
            .number(attributes::ADMINS, state.admins)
            .flag(attributes::HAD_ADMIN, state.had_admin)
            .json(attributes::WITHDRAWN, &state.withdrawn)?
            .item(keys::state());
        Ok(Write::change_to(item, &Self::ATTRIBUTES, condition))
    }

    pub(in crate::access) fn read(item: &Item) -> Result<AccessState, StoreError> {
        let fields = ItemFields(item);
        Ok(AccessState {
            version: fields.number(attributes::VERSION)?,
            policy: fields.number_if_any(attributes::POLICY)?,
            keys: fields.json(attributes::KEYS)?,
            accounts: fields.number(attributes::ACCOUNTS)?,
            admins: fields.number(attributes::ADMINS)?,
            had_admin: fields.flag(attributes::HAD_ADMIN),
            withdrawn: fields.json(attributes::WITHDRAWN)?,
        })
    }

    /// The version, and the uid of the call that wrote it.
    pub(in crate::access) fn version(item: &Item) -> Result<(u64, Uid), StoreError> {
        let fields = ItemFields(item);
        Ok((fields.number(attributes::VERSION)?, fields.uid(attributes::WRITER)?))
    }
}
