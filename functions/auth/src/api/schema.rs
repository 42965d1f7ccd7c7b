//! Types that describe themselves as JSON Schema, for the `OpenAPI` document.
//!
//! A type of the API is declared once, by [`api_types`]: what is read or written and what the document says of it are the same
//! declaration.

use oci::{Digest, MediaType, RepositoryName, Tag};
use registry::auth::{AccountName, CredentialId, GroupName, RepositoryGrant};
use registry::store::access::{AccountKind, AuditKind, PolicyForm};
use serde_json::{Map, Value, json};

use super::names::{EarlierText, ManifestName, TagName};
use super::time::{Expiry, Time};

/// The schemas that have a name.
#[derive(Default)]
pub(super) struct Components(pub(super) Map<String, Value>);

impl Components {
    /// A reference to the schema `name`, which `make` makes if it is not there yet.
    pub(super) fn reference(&mut self, name: &str, make: impl FnOnce(&mut Self) -> Value) -> Value {
        if !self.0.contains_key(name) {
            let schema = make(self);
            self.0.insert(name.to_owned(), schema);
        }
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }
}

/// A type with a schema.
pub(super) trait Described {
    /// Whether a member of this type may be left out.
    const IS_OPTIONAL: bool;

    /// The schema.
    fn schema(components: &mut Components) -> Value;
}

macro_rules! simple {
    ($($type:ty => $schema:expr;)*) => {$(
        impl Described for $type {
            const IS_OPTIONAL: bool = false;

            fn schema(_: &mut Components) -> Value {
                $schema
            }
        }
    )*};
}

/// The pattern of names of accounts and groups.
const NAME: &str = "^[a-z0-9]+([._-][a-z0-9]+)*$";

simple! {
    String => json!({ "type": "string" });
    bool => json!({ "type": "boolean" });
    u32 => json!({ "type": "integer", "minimum": 0 });
    u64 => json!({ "type": "integer", "minimum": 0 });
    AccountName => json!({ "type": "string", "pattern": NAME, "maxLength": 64 });
    GroupName => json!({ "type": "string", "pattern": NAME, "maxLength": 64 });
    CredentialId => json!({ "type": "string", "pattern": "^[0-9A-Za-z]{8}$" });
    RepositoryName => json!({ "type": "string" });
    Tag => json!({ "type": "string", "pattern": "^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$" });
    Digest => json!({ "type": "string", "pattern": "^sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})$" });
    MediaType => json!({ "type": "string" });
    ManifestName => json!({ "type": "string" });
    TagName => json!({ "type": "string" });
    EarlierText => json!({ "oneOf": [{ "type": "string" }, { "type": "integer", "minimum": 0 }] });
    Time => json!({ "type": "string", "format": "date-time" });
    Expiry => json!({
        "oneOf": [{ "type": "string", "const": "never" }, { "type": "string", "format": "date-time" }]
    });
    AccountKind => json!({ "type": "string", "enum": ["user", "robot"] });
    PolicyForm => json!({ "type": "string", "enum": ["toml", "json"] });
    AuditKind => json!({ "type": "string", "enum": AuditKind::ALL.map(AuditKind::as_str) });
}

impl Described for RepositoryGrant {
    const IS_OPTIONAL: bool = false;

    fn schema(components: &mut Components) -> Value {
        components.reference("RepositoryGrant", |_| {
            json!({
                "type": "object",
                "description": "Some actions in some repositories.",
                "properties": {
                    "repositories": {
                        "type": "string",
                        "description": "A repository, or a pattern such as `team/**`.",
                    },
                    "actions": {
                        "type": "array",
                        "items": { "type": "string", "enum": ["pull", "create", "move", "push", "delete"] },
                    },
                },
                "required": ["repositories", "actions"],
                "additionalProperties": false,
            })
        })
    }
}

impl<T: Described> Described for Vec<T> {
    const IS_OPTIONAL: bool = false;

    fn schema(components: &mut Components) -> Value {
        json!({ "type": "array", "items": T::schema(components) })
    }
}

impl<T: Described> Described for Option<T> {
    const IS_OPTIONAL: bool = true;

    fn schema(components: &mut Components) -> Value {
        json!({ "anyOf": [T::schema(components), { "type": "null" }] })
    }
}

/// Declares types of the API, with their documentation.
macro_rules! api_types {
    ($($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $field_doc:literal])* $field:ident: $type:ty,)* })*) => {$(
        $(#[doc = $doc])*
        #[derive(::serde::Serialize, ::serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(in crate::api) struct $name {
            $($(#[doc = $field_doc])* pub(in crate::api) $field: $type,)*
        }

        impl $crate::api::schema::Described for $name {
            const IS_OPTIONAL: bool = false;

            fn schema(components: &mut $crate::api::schema::Components) -> ::serde_json::Value {
                components.reference(stringify!($name), |components| {
                    let members = vec![$((
                        stringify!($field),
                        concat!($($field_doc),*),
                        <$type as $crate::api::schema::Described>::IS_OPTIONAL,
                        <$type as $crate::api::schema::Described>::schema(components),
                    ),)*];
                    $crate::api::schema::object(concat!($($doc),*), members)
                })
            }
        }
    )*};
}
pub(super) use api_types;

/// The schema of an object with these members: the name, what it is, whether it may be left out, and its schema.
pub(super) fn object(description: &str, members: Vec<(&str, &str, bool, Value)>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, description, is_optional, mut schema) in members {
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("description".to_owned(), description.trim().into());
        }
        properties.insert(name.to_owned(), schema);
        if !is_optional {
            required.push(name);
        }
    }
    json!({
        "type": "object",
        "description": description.trim(),
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}
