//! The operations of the API, and their routes below `/api/v1/`.
//!
//! The methods and the paths are data: requests are matched with them, and the `OpenAPI` document is made of them. So a
//! path is never in one of the two alone.

use std::borrow::Cow;

use http::Method;

use crate::auth::{AccountName, CredentialId};
use crate::error::Error;

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident => $method:ident $path:literal;)*) => {
        /// The operations of the API, as names for logs, metrics, tables of tests and the `OpenAPI` document.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum ApiOperation { $($(#[$doc])* $name,)* }

        impl ApiOperation {
            /// All operations.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// A short stable name of the operation.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// Its path below `/api/v1/`. A part in braces is a parameter.
            #[must_use]
            pub const fn path(self) -> &'static str {
                match self { $(Self::$name => $path,)* }
            }

            /// Its method. HEAD is allowed wherever GET is.
            #[must_use]
            pub const fn method(self) -> Method {
                match self { $(Self::$name => Method::$method,)* }
            }
        }
    };
}

operations! {
    /// Who asks.
    GetIdentity => GET "whoami";
    /// What the policy says about a request.
    Explain => POST "explain";
    /// The accounts.
    ListAccounts => GET "accounts";
    /// Makes an account.
    CreateAccount => POST "accounts";
    /// An account.
    GetAccount => GET "accounts/{account}";
    /// Changes groups, grants, or whether an account is disabled.
    ChangeAccount => PATCH "accounts/{account}";
    /// Removes an account with its keys.
    RemoveAccount => DELETE "accounts/{account}";
    /// Gives a user another password.
    SetPassword => PUT "accounts/{account}/password";
    /// The keys of an account.
    ListKeys => GET "accounts/{account}/keys";
    /// Makes a key.
    CreateKey => POST "accounts/{account}/keys";
    /// Changes the scope or the end of a key.
    ChangeKey => PATCH "accounts/{account}/keys/{key}";
    /// Removes a key.
    RemoveKey => DELETE "accounts/{account}/keys/{key}";
    /// Replaces a key.
    RotateKey => POST "accounts/{account}/keys/{key}/rotate";
    /// The policy in force.
    GetPolicy => GET "policy";
    /// Puts a policy in force.
    SetPolicy => PUT "policy";
    /// Reads a policy without setting it.
    CheckPolicy => POST "policy/check";
    /// The versions of the policy.
    ListPolicyVersions => GET "policy/versions";
    /// A version of the policy.
    GetPolicyVersion => GET "policy/versions/{version}";
    /// The repositories that the caller may pull.
    SearchRepositories => GET "repositories";
    /// Creates an empty repository.
    CreateRepository => PUT "repositories";
    /// The tags of a repository, with what they name.
    DescribeTags => GET "tags";
    /// The changes of a tag.
    GetTagHistory => GET "tags/history";
    /// Makes a tag name an earlier manifest again.
    RollBackTag => POST "tags/rollback";
    /// Gives a manifest to another repository, and names it there.
    PromoteTag => POST "tags/promote";
    /// The audit trail.
    ListAuditEvents => GET "audit";
    /// The keys that sign tokens.
    ListSigningKeys => GET "signing-keys";
    /// Replaces the key that signs tokens.
    RotateSigningKeys => POST "signing-keys/rotate";
    /// The `OpenAPI` document.
    GetApiDocument => GET "openapi.json";
}

/// What the body of a request contains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApiBodyKind {
    /// Nothing: a body is not read.
    None,
    /// JSON.
    Json,
    /// A policy, in JSON or TOML.
    Policy,
}

impl ApiOperation {
    /// What its requests contain.
    #[must_use]
    pub const fn body(self) -> ApiBodyKind {
        match self {
            Self::GetIdentity
            | Self::ListAccounts
            | Self::GetAccount
            | Self::RemoveAccount
            | Self::ListKeys
            | Self::RemoveKey
            | Self::GetPolicy
            | Self::ListPolicyVersions
            | Self::GetPolicyVersion
            | Self::SearchRepositories
            | Self::CreateRepository
            | Self::DescribeTags
            | Self::GetTagHistory
            | Self::ListAuditEvents
            | Self::ListSigningKeys
            | Self::GetApiDocument => ApiBodyKind::None,
            Self::Explain
            | Self::CreateAccount
            | Self::ChangeAccount
            | Self::SetPassword
            | Self::CreateKey
            | Self::ChangeKey
            | Self::RotateKey
            | Self::RollBackTag
            | Self::PromoteTag
            | Self::RotateSigningKeys => ApiBodyKind::Json,
            Self::SetPolicy | Self::CheckPolicy => ApiBodyKind::Policy,
        }
    }

    /// Whether a request must say by `If-Match` which version it changes.
    #[must_use]
    pub const fn is_conditional(self) -> bool {
        matches!(
            self,
            Self::ChangeAccount | Self::RemoveAccount | Self::SetPassword | Self::ChangeKey | Self::SetPolicy
        )
    }
}

/// A request line of the API, with the parameters of its path.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each name is that of the operation in `ApiOperation`")]
pub enum ApiRoute {
    GetIdentity,
    Explain,
    ListAccounts,
    CreateAccount,
    GetAccount { account: AccountName },
    ChangeAccount { account: AccountName },
    RemoveAccount { account: AccountName },
    SetPassword { account: AccountName },
    ListKeys { account: AccountName },
    CreateKey { account: AccountName },
    ChangeKey { account: AccountName, key: CredentialId },
    RemoveKey { account: AccountName, key: CredentialId },
    RotateKey { account: AccountName, key: CredentialId },
    GetPolicy,
    SetPolicy,
    CheckPolicy,
    ListPolicyVersions,
    GetPolicyVersion { version: u64 },
    SearchRepositories,
    CreateRepository,
    DescribeTags,
    GetTagHistory,
    RollBackTag,
    PromoteTag,
    ListAuditEvents,
    ListSigningKeys,
    RotateSigningKeys,
    GetApiDocument,
}

impl ApiRoute {
    /// The operation.
    #[must_use]
    pub const fn operation(&self) -> ApiOperation {
        match self {
            Self::GetIdentity => ApiOperation::GetIdentity,
            Self::Explain => ApiOperation::Explain,
            Self::ListAccounts => ApiOperation::ListAccounts,
            Self::CreateAccount => ApiOperation::CreateAccount,
            Self::GetAccount { .. } => ApiOperation::GetAccount,
            Self::ChangeAccount { .. } => ApiOperation::ChangeAccount,
            Self::RemoveAccount { .. } => ApiOperation::RemoveAccount,
            Self::SetPassword { .. } => ApiOperation::SetPassword,
            Self::ListKeys { .. } => ApiOperation::ListKeys,
            Self::CreateKey { .. } => ApiOperation::CreateKey,
            Self::ChangeKey { .. } => ApiOperation::ChangeKey,
            Self::RemoveKey { .. } => ApiOperation::RemoveKey,
            Self::RotateKey { .. } => ApiOperation::RotateKey,
            Self::GetPolicy => ApiOperation::GetPolicy,
            Self::SetPolicy => ApiOperation::SetPolicy,
            Self::CheckPolicy => ApiOperation::CheckPolicy,
            Self::ListPolicyVersions => ApiOperation::ListPolicyVersions,
            Self::GetPolicyVersion { .. } => ApiOperation::GetPolicyVersion,
            Self::SearchRepositories => ApiOperation::SearchRepositories,
            Self::CreateRepository => ApiOperation::CreateRepository,
            Self::DescribeTags => ApiOperation::DescribeTags,
            Self::GetTagHistory => ApiOperation::GetTagHistory,
            Self::RollBackTag => ApiOperation::RollBackTag,
            Self::PromoteTag => ApiOperation::PromoteTag,
            Self::ListAuditEvents => ApiOperation::ListAuditEvents,
            Self::ListSigningKeys => ApiOperation::ListSigningKeys,
            Self::RotateSigningKeys => ApiOperation::RotateSigningKeys,
            Self::GetApiDocument => ApiOperation::GetApiDocument,
        }
    }
}

/// A path of the API: its form, and the values of its parameters. A value that no account, key or version can have is the
/// path of no endpoint.
pub(super) struct ApiPath {
    form: &'static str,
    account: Option<AccountName>,
    key: Option<CredentialId>,
    version: Option<u64>,
}

impl ApiPath {
    /// Parses the parts of a path below `/api/v1/`.
    pub(super) fn parse(parts: &[&str]) -> Result<Self, Error> {
        let mut operations = ApiOperation::ALL.iter();
        let found = operations.find_map(|operation| Self::of_form(operation.path(), parts));
        found.ok_or(Error::NoSuchEndpoint)
    }

    fn of_form(form: &'static str, parts: &[&str]) -> Option<Self> {
        let mut path = Self {
            form,
            account: None,
            key: None,
            version: None,
        };
        let mut rest = parts.iter();
        for expected in form.split('/') {
            let part = *rest.next()?;
            match expected {
                "{account}" => path.account = Some(part.parse().ok()?),
                "{key}" => path.key = Some(part.parse().ok()?),
                "{version}" => path.version = Some(version(part)?),
                _ if expected == part => {}
                _ => return None,
            }
        }
        rest.next().is_none().then_some(path)
    }

    /// The operations at this path.
    fn operations(&self) -> impl Iterator<Item = ApiOperation> {
        let operations = ApiOperation::ALL.iter().copied();
        operations.filter(|operation| operation.path() == self.form)
    }

    /// The operation for a method.
    pub(super) fn operation(&self, method: &Method) -> Result<ApiOperation, Error> {
        let wanted = if *method == Method::HEAD { &Method::GET } else { method };
        let found = self.operations().find(|operation| operation.method() == *wanted);
        found.ok_or_else(|| {
            let mut allowed: Vec<_> = self.operations().map(ApiOperation::method).collect();
            if let Some(get) = allowed.iter().position(|method| *method == Method::GET) {
                allowed.insert(get + 1, Method::HEAD);
            }
            Error::MethodNotAllowed(Cow::Owned(allowed))
        })
    }

    /// The route of an operation at this path.
    pub(super) fn route(self, operation: ApiOperation) -> Result<ApiRoute, Error> {
        // `of_form` has set every parameter of the form.
        let Self {
            account, key, version, ..
        } = self;
        let account = account.ok_or(Error::NoSuchEndpoint);
        let key = key.ok_or(Error::NoSuchEndpoint);
        Ok(match operation {
            ApiOperation::GetIdentity => ApiRoute::GetIdentity,
            ApiOperation::Explain => ApiRoute::Explain,
            ApiOperation::ListAccounts => ApiRoute::ListAccounts,
            ApiOperation::CreateAccount => ApiRoute::CreateAccount,
            ApiOperation::GetAccount => ApiRoute::GetAccount { account: account? },
            ApiOperation::ChangeAccount => ApiRoute::ChangeAccount { account: account? },
            ApiOperation::RemoveAccount => ApiRoute::RemoveAccount { account: account? },
            ApiOperation::SetPassword => ApiRoute::SetPassword { account: account? },
            ApiOperation::ListKeys => ApiRoute::ListKeys { account: account? },
            ApiOperation::CreateKey => ApiRoute::CreateKey { account: account? },
            ApiOperation::ChangeKey => ApiRoute::ChangeKey {
                account: account?,
                key: key?,
            },
            ApiOperation::RemoveKey => ApiRoute::RemoveKey {
                account: account?,
                key: key?,
            },
            ApiOperation::RotateKey => ApiRoute::RotateKey {
                account: account?,
                key: key?,
            },
            ApiOperation::GetPolicy => ApiRoute::GetPolicy,
            ApiOperation::SetPolicy => ApiRoute::SetPolicy,
            ApiOperation::CheckPolicy => ApiRoute::CheckPolicy,
            ApiOperation::ListPolicyVersions => ApiRoute::ListPolicyVersions,
            ApiOperation::GetPolicyVersion => ApiRoute::GetPolicyVersion {
                version: version.ok_or(Error::NoSuchEndpoint)?,
            },
            ApiOperation::SearchRepositories => ApiRoute::SearchRepositories,
            ApiOperation::CreateRepository => ApiRoute::CreateRepository,
            ApiOperation::DescribeTags => ApiRoute::DescribeTags,
            ApiOperation::GetTagHistory => ApiRoute::GetTagHistory,
            ApiOperation::RollBackTag => ApiRoute::RollBackTag,
            ApiOperation::PromoteTag => ApiRoute::PromoteTag,
            ApiOperation::ListAuditEvents => ApiRoute::ListAuditEvents,
            ApiOperation::ListSigningKeys => ApiRoute::ListSigningKeys,
            ApiOperation::RotateSigningKeys => ApiRoute::RotateSigningKeys,
            ApiOperation::GetApiDocument => ApiRoute::GetApiDocument,
        })
    }
}

/// A version has one text: no sign, and no zeros before it.
fn version(text: &str) -> Option<u64> {
    let version: u64 = text.parse().ok()?;
    (version.to_string() == text).then_some(version)
}

#[cfg(test)]
impl ApiOperation {
    /// A path below `/api/v1/` of this operation.
    pub(super) fn example_path(self) -> String {
        self.path()
            .replace("{account}", "ci")
            .replace("{key}", "3f9aK2dQ")
            .replace("{version}", "7")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// Every operation is found by its own method and path, with the parameters of the path.
    #[test]
    fn every_operation_is_routed() {
        for &operation in ApiOperation::ALL {
            let path = operation.example_path();
            let parts: Vec<_> = path.split('/').collect();
            let found = ApiPath::parse(&parts).ok().unwrap();
            assert_eq!(found.operation(&operation.method()).ok(), Some(operation));
            let route = found.route(operation).ok().unwrap();
            assert_eq!(route.operation(), operation);
            let shown = format!("{route:?}");
            for (form, value) in [("{account}", "ci"), ("{key}", "3f9aK2dQ"), ("{version}", "7")] {
                assert_eq!(operation.path().contains(form), shown.contains(value), "{shown}");
            }
        }
    }

    #[test]
    fn what_no_account_key_or_version_can_be_is_no_path() {
        for path in [
            "",
            "accounts/",
            "accounts/A",
            "accounts/anonymous",
            "accounts/a/b",
            "accounts/ci/keys/short",
            "accounts/ci/keys/3f9aK2dQ/",
            "policy/versions/+7",
            "policy/versions/07",
            "policy/versions/18446744073709551616",
            "whoami/x",
        ] {
            let parts: Vec<_> = path.split('/').collect();
            assert!(ApiPath::parse(&parts).is_err(), "{path}");
        }
    }

    #[test]
    fn the_answer_to_another_method_names_the_right_ones() {
        for (path, expected) in [
            ("whoami", "GET, HEAD"),
            ("accounts", "GET, HEAD, POST"),
            ("accounts/ci", "GET, HEAD, PATCH, DELETE"),
            ("accounts/ci/password", "PUT"),
            ("accounts/ci/keys/3f9aK2dQ", "PATCH, DELETE"),
            ("repositories", "GET, HEAD, PUT"),
            ("policy", "GET, HEAD, PUT"),
        ] {
            let parts: Vec<_> = path.split('/').collect();
            let found = ApiPath::parse(&parts).ok().unwrap();
            let Err(Error::MethodNotAllowed(allowed)) = found.operation(&Method::OPTIONS) else {
                panic!("{path}");
            };
            let names: Vec<_> = allowed.iter().map(Method::as_str).collect();
            assert_eq!(names.join(", "), expected);
        }
    }
}
