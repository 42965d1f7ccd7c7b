//! The `OpenAPI` document: made of the operations of the core, which route requests, and of the types that are read and written.

use std::sync::LazyLock;

use bytes::Bytes;
use registry::api_endpoint::{ApiBodyKind, ApiOperation};
use serde_json::{Map, Value, json};

use super::query::MAX_ITEMS;
use super::schema::{Components, Described};
use super::types::{
    AccountPatch, AccountView, AuditEventView, CreatedAccount, ExplainBody, ExplainView, KeyPatch, KeyView,
    NewAccountBody, NewKeyBody, NewKeyView, PasswordBody, PolicyCheckView, PolicySetView, PolicyVersionView,
    PolicyView, PromoteBody, PromotedView, RepositoryView, RollBackBody, RolledBackView, RotateKeyBody,
    RotateSigningKeysBody, RotatedKey, SigningKeyView, TagChangeView, TagView, WhoAmI,
};

/// The schema of a body.
type Schema = fn(&mut Components) -> Value;

/// What an operation answers if it succeeds.
enum Success {
    /// 200 with one thing.
    One(Schema),
    /// 200 with a page of things.
    Page(Schema),
    /// 200 with an object of no fixed form.
    Object,
    /// 201 with what was made.
    Created(Schema),
    /// 201 with what was made, or 200 if it was there.
    Ensured(Schema),
    /// 204
    Removed,
}

/// What the document says of an operation.
struct Description {
    summary: &'static str,
    /// Parameters of the query that must be there, and what they are.
    required: &'static [(&'static str, &'static str)],
    /// Other parameters of the query.
    query: &'static [(&'static str, &'static str)],
    body: Option<Schema>,
    success: Success,
    /// The statuses of refusals that this operation has besides those that all of them have.
    refusals: &'static [u16],
}

const N: (&str, &str) = ("n", "The maximum number of items: 100 unless given, at most 1000.");
const AFTER: (&str, &str) = ("after", "The `next` of the page before.");
const REPOSITORY: (&str, &str) = ("repository", "The repository.");

/// The operation as the document describes it.
#[expect(clippy::too_many_lines, reason = "a table, which is read by rows")]
fn description(operation: ApiOperation) -> Description {
    let base = |summary, success| Description {
        summary,
        required: &[],
        query: &[],
        body: None,
        success,
        refusals: &[],
    };
    match operation {
        ApiOperation::GetIdentity => base("Who asks", Success::One(WhoAmI::schema)),
        ApiOperation::Explain => Description {
            body: Some(ExplainBody::schema),
            refusals: &[400, 404],
            ..base(
                "What the policy says about a request",
                Success::One(ExplainView::schema),
            )
        },
        ApiOperation::ListAccounts => Description {
            query: &[N, AFTER],
            refusals: &[400],
            ..base(
                "The accounts, in the order of their names",
                Success::Page(AccountView::schema),
            )
        },
        ApiOperation::CreateAccount => Description {
            body: Some(NewAccountBody::schema),
            refusals: &[400, 409],
            ..base("Makes an account", Success::Created(CreatedAccount::schema))
        },
        ApiOperation::GetAccount => Description {
            refusals: &[404],
            ..base("An account", Success::One(AccountView::schema))
        },
        ApiOperation::ChangeAccount => Description {
            body: Some(AccountPatch::schema),
            refusals: &[400, 404, 409],
            ..base(
                "Changes groups, grants, or whether an account is disabled",
                Success::One(AccountView::schema),
            )
        },
        ApiOperation::RemoveAccount => Description {
            refusals: &[404, 409],
            ..base("Removes an account with its keys", Success::Removed)
        },
        ApiOperation::SetPassword => Description {
            body: Some(PasswordBody::schema),
            refusals: &[400, 404, 409],
            ..base("Gives a user another password", Success::One(AccountView::schema))
        },
        ApiOperation::ListKeys => Description {
            refusals: &[404],
            ..base("The keys of an account", Success::Page(KeyView::schema))
        },
        ApiOperation::CreateKey => Description {
            body: Some(NewKeyBody::schema),
            refusals: &[400, 404, 409],
            ..base("Makes a key", Success::Created(NewKeyView::schema))
        },
        ApiOperation::ChangeKey => Description {
            body: Some(KeyPatch::schema),
            refusals: &[400, 404, 409],
            ..base("Changes the scope or the end of a key", Success::One(KeyView::schema))
        },
        ApiOperation::RemoveKey => Description {
            refusals: &[404],
            ..base("Removes a key", Success::Removed)
        },
        ApiOperation::RotateKey => Description {
            body: Some(RotateKeyBody::schema),
            refusals: &[400, 404, 409],
            ..base("Replaces a key", Success::Created(RotatedKey::schema))
        },
        ApiOperation::GetPolicy => Description {
            ..base("The policy in force", Success::One(PolicyView::schema))
        },
        ApiOperation::SetPolicy => Description {
            query: &[("note", "Why it is set.")],
            refusals: &[400],
            ..base("Puts a policy in force", Success::One(PolicySetView::schema))
        },
        ApiOperation::CheckPolicy => Description {
            refusals: &[400],
            ..base(
                "Reads a policy without setting it",
                Success::One(PolicyCheckView::schema),
            )
        },
        ApiOperation::ListPolicyVersions => Description {
            query: &[N, AFTER],
            refusals: &[400],
            ..base(
                "The versions of the policy, newest first",
                Success::Page(PolicyVersionView::schema),
            )
        },
        ApiOperation::GetPolicyVersion => Description {
            refusals: &[404],
            ..base("A version of the policy", Success::One(PolicyView::schema))
        },
        ApiOperation::SearchRepositories => Description {
            query: &[("prefix", "What their names begin with."), N, AFTER],
            refusals: &[400],
            ..base(
                "The repositories that the caller may pull, in the order of their names",
                Success::Page(RepositoryView::schema),
            )
        },
        ApiOperation::CreateRepository => Description {
            required: &[("name", "Its name.")],
            refusals: &[400],
            ..base(
                "Creates an empty repository, which stays in the list",
                Success::Ensured(RepositoryView::schema),
            )
        },
        ApiOperation::DescribeTags => Description {
            required: &[REPOSITORY],
            query: &[N, AFTER],
            refusals: &[400, 404],
            ..base(
                "The tags of a repository, in the order of their names",
                Success::Page(TagView::schema),
            )
        },
        ApiOperation::GetTagHistory => Description {
            required: &[REPOSITORY, ("tag", "The tag.")],
            query: &[N, AFTER],
            refusals: &[400, 404],
            ..base(
                "The changes of a tag, newest first",
                Success::Page(TagChangeView::schema),
            )
        },
        ApiOperation::RollBackTag => Description {
            body: Some(RollBackBody::schema),
            refusals: &[400, 404, 409],
            ..base(
                "Makes a tag name an earlier manifest again",
                Success::One(RolledBackView::schema),
            )
        },
        ApiOperation::PromoteTag => Description {
            body: Some(PromoteBody::schema),
            refusals: &[400, 404, 409],
            ..base(
                "Gives a manifest to another repository, and names it there",
                Success::One(PromotedView::schema),
            )
        },
        ApiOperation::ListAuditEvents => Description {
            query: &[
                ("from", "Events at this time or later."),
                ("to", "Events before this time."),
                ("principal", "Events of the principal with this text."),
                ("repository", "Events in this repository."),
                ("event", "Events of this kind."),
                N,
                AFTER,
            ],
            refusals: &[400],
            ..base("The audit trail, oldest first", Success::Page(AuditEventView::schema))
        },
        ApiOperation::ListSigningKeys => Description {
            ..base("The keys that sign tokens", Success::Page(SigningKeyView::schema))
        },
        ApiOperation::RotateSigningKeys => Description {
            body: Some(RotateSigningKeysBody::schema),
            refusals: &[400, 409],
            ..base(
                "Replaces the key that signs tokens",
                Success::Created(SigningKeyView::schema),
            )
        },
        ApiOperation::GetApiDocument => base("This document", Success::Object),
    }
}

/// The statuses of the refusals that the document names for an operation, in order.
pub(super) fn refusals(operation: ApiOperation) -> Vec<u16> {
    let mut statuses = description(operation).refusals.to_vec();
    if operation != ApiOperation::GetApiDocument {
        // A key with a scope is refused by each of them.
        statuses.extend([401, 403]);
    }
    if operation.body() != ApiBodyKind::None {
        statuses.extend([413, 415]);
    }
    if operation.is_conditional() {
        statuses.extend([412, 428]);
    }
    statuses.sort_unstable();
    statuses
}

/// The statuses of success. The first one is that of the first request.
#[cfg(test)]
pub(super) fn successes(operation: ApiOperation) -> &'static [u16] {
    match description(operation).success {
        Success::One(_) | Success::Page(_) | Success::Object => &[200],
        Success::Created(_) => &[201],
        Success::Ensured(_) => &[201, 200],
        Success::Removed => &[204],
    }
}

/// The document as JSON. It is made when it is first asked for, since most instances start to serve something else.
pub(super) fn text() -> Bytes {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| document().to_string().into());
    TEXT.clone()
}

/// The document.
pub(super) fn document() -> Value {
    let mut components = Components::default();
    let mut paths = Map::new();
    for &operation in ApiOperation::ALL {
        let described = describe(operation, &mut components);
        let path = paths
            .entry(format!("/api/v1/{}", operation.path()))
            .or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(operation.method().as_str().to_ascii_lowercase(), described);
        }
    }
    components.0.insert("Error".to_owned(), error_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Roadstead",
            "description": "Administration of a registry: accounts, keys, the policy, repositories with their tags, the audit \
                            trail and signing keys.",
            "version": "1",
        },
        "paths": paths,
        "components": {
            "schemas": components.0,
            "securitySchemes": {
                "password": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The name of an account and its password or one of its keys without a scope, or the name `key` and such a key.",
                },
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `/token` with the scope `registry:api:*`, or a key without a scope.",
                },
            },
        },
        "security": [{ "password": [] }, { "token": [] }],
    })
}

fn describe(operation: ApiOperation, components: &mut Components) -> Value {
    let Description {
        summary,
        required,
        query,
        body,
        success,
        refusals: _,
    } = description(operation);
    let mut parameters: Vec<Value> = path_parameters(operation.path()).collect();
    parameters.extend(required.iter().map(|(name, text)| query_parameter(name, text, true)));
    parameters.extend(query.iter().map(|(name, text)| query_parameter(name, text, false)));
    if operation.is_conditional() {
        parameters.push(json!({
            "name": "If-Match",
            "in": "header",
            "required": true,
            "description": "The `ETag` of what is changed, or `*`.",
            "schema": { "type": "string" },
        }));
    }
    let mut responses = Map::new();
    let (statuses, answer): (&[u16], _) = match success {
        Success::One(schema) => (&[200], json!({ "schema": schema(components) })),
        Success::Page(schema) => (&[200], json!({ "schema": page(&schema(components)) })),
        Success::Object => (&[200], json!({ "schema": { "type": "object" } })),
        Success::Created(schema) => (&[201], json!({ "schema": schema(components) })),
        Success::Ensured(schema) => (&[200, 201], json!({ "schema": schema(components) })),
        Success::Removed => (&[204], Value::Null),
    };
    let done = if answer.is_null() {
        json!({ "description": "Done." })
    } else {
        json!({ "description": "Done.", "content": { "application/json": answer } })
    };
    responses.extend(statuses.iter().map(|status| (status.to_string(), done.clone())));
    for status in refusals(operation) {
        responses.insert(status.to_string(), refusal(meaning(status)));
    }
    responses.insert(
        "default".to_owned(),
        refusal(
            "Too many wrong passwords or changes of the own account (429), too many other changes at the same time (409), or a \
             fault of the server.",
        ),
    );
    let mut described = json!({
        "operationId": operation.as_str(),
        "summary": summary,
        "responses": responses,
    });
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    match (operation.body(), body) {
        (ApiBodyKind::Json, Some(schema)) => {
            described["requestBody"] = json!({
                "required": true,
                "content": { "application/json": { "schema": schema(components) } },
            });
        }
        (ApiBodyKind::Policy, _) => {
            described["requestBody"] = json!({
                "required": true,
                "content": {
                    "application/json": { "schema": { "type": "object" } },
                    "application/toml": { "schema": { "type": "string" } },
                },
            });
        }
        (ApiBodyKind::Json | ApiBodyKind::None, _) => {}
    }
    if operation == ApiOperation::GetApiDocument {
        described["security"] = json!([]);
    }
    described
}

/// The parameters of a path: its parts in braces.
fn path_parameters(path: &str) -> impl Iterator<Item = Value> {
    let names = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| {
        let schema = if name == "version" {
            json!({ "type": "integer", "minimum": 0 })
        } else {
            json!({ "type": "string" })
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    })
}

fn query_parameter(name: &str, text: &str, is_required: bool) -> Value {
    let schema = match name {
        "n" => json!({ "type": "integer", "minimum": 1, "maximum": MAX_ITEMS }),
        "from" | "to" => json!({ "type": "string", "format": "date-time" }),
        _ => json!({ "type": "string" }),
    };
    json!({ "name": name, "in": "query", "required": is_required, "description": text, "schema": schema })
}

fn page(item: &Value) -> Value {
    json!({
        "type": "object",
        "properties": {
            "items": { "type": "array", "items": item },
            "next": {
                "anyOf": [{ "type": "string" }, { "type": "null" }],
                "description": "What `after` says in the request for the next page; `null` after the last page.",
            },
        },
        "required": ["items", "next"],
        "additionalProperties": false,
    })
}

/// What a status means.
fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The request is malformed, or asks for what cannot be.",
        401 => "The credentials are missing or not good, or the token does not have the scope `registry:api:*`.",
        403 => "The caller may not do this, or its key has a scope.",
        404 => "There is no such account, key, version, repository, tag or manifest, or the caller may not see it.",
        409 => "What exists contradicts the request.",
        412 => "The version is not the one that If-Match names.",
        413 => "The body is too large.",
        415 => "The body has another Content-Type.",
        428 => "The request has no If-Match.",
        _ => "The request is refused.",
    }
}

fn refusal(description: &str) -> Value {
    json!({
        "description": description,
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
    })
}

/// The errors of the distribution specification.
fn error_schema() -> Value {
    json!({
        "type": "object",
        "description": "Errors, as in the distribution specification.",
        "properties": {
            "errors": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "properties": {
                        "code": { "type": "string" },
                        "message": { "type": "string" },
                        "detail": {},
                    },
                    "required": ["code", "message"],
                },
            },
        },
        "required": ["errors"],
    })
}
