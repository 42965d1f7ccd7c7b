//! The policy in force, and all versions of it.

use registry::store::StoreError;
use registry::store::access::{PolicyForm, PolicyVersion};

use super::super::keys;
use crate::records::{ItemBuilder, ItemFields, attributes, damaged};
use crate::table::Item;

/// The values of `FORM`.
mod form_text {
    pub(super) const TOML: &str = "toml";
    pub(super) const JSON: &str = "json";
}

/// The policy in force, without its source: what every instance reads.
pub(in crate::access) struct PolicyRow {
    pub(in crate::access) version: u64,
    pub(in crate::access) document: String,
}

impl PolicyRow {
    pub(in crate::access) fn item(policy: &PolicyVersion) -> Item {
        ItemBuilder::default()
            .number(attributes::VERSION, policy.version)
            .text(attributes::DOCUMENT, &policy.document)
            .item(keys::policy())
    }

    /// Reads this row, and also the row of a version.
    pub(in crate::access) fn read(item: &Item) -> Result<Self, StoreError> {
        let fields = ItemFields(item);
        Ok(Self {
            version: fields.number(attributes::VERSION)?,
            document: fields.text(attributes::DOCUMENT)?.to_owned(),
        })
    }
}

/// A version of the policy, with its source.
pub(in crate::access) struct PolicyVersionRow;

impl PolicyVersionRow {
    pub(in crate::access) fn item(policy: &PolicyVersion) -> Item {
        let form = match policy.form {
            PolicyForm::Toml => form_text::TOML,
            PolicyForm::Json => form_text::JSON,
        };
        ItemBuilder::default()
            .number(attributes::VERSION, policy.version)
            .text(attributes::DOCUMENT, &policy.document)
            .text(attributes::SOURCE, &policy.source)
            .text(attributes::FORM, form)
            .text(attributes::ACTOR, &policy.principal)
            .timestamp(attributes::AT, policy.at)
            .text_if_any(attributes::NOTE, policy.note.as_ref())
            .item(keys::policy_version(policy.version))
    }

    pub(in crate::access) fn read(item: &Item) -> Result<PolicyVersion, StoreError> {
        let fields = ItemFields(item);
        let form = match fields.text(attributes::FORM)? {
            form_text::TOML => PolicyForm::Toml,
            form_text::JSON => PolicyForm::Json,
            other => return Err(damaged(&item.key, format_args!("unknown form {other}"))),
        };
        Ok(PolicyVersion {
            version: fields.number(attributes::VERSION)?,
            document: fields.text(attributes::DOCUMENT)?.to_owned(),
            source: fields.text(attributes::SOURCE)?.to_owned(),
            form,
            principal: fields.text(attributes::ACTOR)?.to_owned(),
            at: fields.timestamp(attributes::AT)?,
            note: fields.text_if_any(attributes::NOTE)?.map(ToOwned::to_owned),
        })
    }
}
