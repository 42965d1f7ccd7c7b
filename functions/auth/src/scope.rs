//! Scopes: what a client asks for at the token endpoint, and what it is granted.
//!
//! `type[(class)]:name:actions`, as on the scope page of the distribution project: the type ends at the first colon, the actions
//! begin after the last one, and what is between them is the name, which may begin with a `host:port/`. What the registry
//! does not know grants nothing and is no error: other types, names that cannot be repositories, other actions.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;

use oci::RepositoryName;
use registry::auth::{ActionKind, Actions, RepositoryGrant, Scope, TooManyGrants};

/// The maximum number of scopes of one request.
pub const MAX_SCOPES: usize = Scope::MAX_GRANTS;

/// A resource of which a client asks for a token.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Resource {
    /// A repository.
    Repository(RepositoryName),
    /// The list of repositories: `registry:catalog:*`.
    Catalog,
    /// The administration of the registry: `registry:api:*`.
    Api,
}

impl Resource {
    /// The type, as in a scope and in a token.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Repository(_) => "repository",
            Self::Catalog | Self::Api => "registry",
        }
    }

    /// The name, as in a scope and in a token.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Repository(name) => name.as_str(),
            Self::Catalog => "catalog",
            Self::Api => "api",
        }
    }

    /// The resource with this type and name; `None` if the registry has no such resource.
    #[must_use]
    pub fn find(kind: &str, name: &str) -> Option<Self> {
        match (kind, name) {
            ("repository", name) => name.parse().ok().map(Self::Repository),
            ("registry", "catalog") => Some(Self::Catalog),
            ("registry", "api") => Some(Self::Api),
            _ => None,
        }
    }
}

/// The actions of a scope. They are those of the distribution project: `push` is whatever may be published, and the policy
/// decides at each request whether it may also move tags.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScopeActions {
    /// `pull`
    pub pull: bool,
    /// `push`
    pub push: bool,
    /// `delete`
    pub delete: bool,
}

impl ScopeActions {
    /// `*`
    pub const ALL: Self = Self {
        pull: true,
        push: true,
        delete: true,
    };

    /// The actions with this word. None if the registry does not know it.
    #[must_use]
    pub fn of_word(word: &str) -> Self {
        let none = Self::default();
        match word {
            "pull" => Self { pull: true, ..none },
            "push" => Self { push: true, ..none },
            "delete" => Self { delete: true, ..none },
            "*" => Self::ALL,
            _ => none,
        }
    }

    /// What is allowed as a scope says it: a principal that may create may push.
    #[must_use]
    pub fn allowed(actions: Actions) -> Self {
        Self {
            pull: actions.contains(ActionKind::Read),
            push: actions.contains(ActionKind::Write),
            delete: actions.contains(ActionKind::Delete),
        }
    }

    /// The words, without `*`.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        [(self.pull, "pull"), (self.push, "push"), (self.delete, "delete")]
            .into_iter()
            .filter_map(|(has, word)| has.then_some(word))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// The actions of one of the two.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            pull: self.pull || other.pull,
            push: self.push || other.push,
            delete: self.delete || other.delete,
        }
    }

    /// The actions of both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self {
            pull: self.pull && other.pull,
            push: self.push && other.push,
            delete: self.delete && other.delete,
        }
    }

    /// The permissions that a token with these actions does not withhold.
    #[must_use]
    pub fn permissions(self) -> Actions {
        [
            (self.pull, Actions::PULL),
            (self.push, Actions::PUSH),
            (self.delete, Actions::of(&[ActionKind::Delete])),
        ]
        .into_iter()
        .filter(|(has, _)| *has)
        .fold(Actions::NONE, |all, (_, actions)| all.union(actions))
    }
}

/// A resource, and some actions on it. The only action on the catalog and the API is `*`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResourceActions {
    /// The resource.
    pub resource: Resource,
    /// The actions; not empty.
    pub actions: ScopeActions,
}

impl ResourceActions {
    /// The words of the actions, as in an answer and in a token.
    #[must_use]
    pub fn words(&self) -> Vec<&'static str> {
        match self.resource {
            Resource::Repository(_) => self.actions.words().collect(),
            Resource::Catalog | Resource::Api => vec!["*"],
        }
    }
}

impl fmt::Display for ResourceActions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = (self.resource.kind(), self.resource.name());
        write!(f, "{kind}:{name}:{}", self.words().join(","))
    }
}

/// A request has more than [`MAX_SCOPES`] scopes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("more than {MAX_SCOPES} scopes in one request")]
pub struct TooManyScopes;

/// What a client asks for: each resource once, in the order in which it asks first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RequestedScope(Vec<ResourceActions>);

/// What may be granted besides the repositories.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RegistryAccess {
    /// The list of repositories, which never names what the principal may not see.
    pub catalog: bool,
    /// The administration of the registry, which decides about each of its requests again.
    pub api: bool,
}

/// What a token contains: each resource at most once, none without an action.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GrantedScope(Vec<ResourceActions>);

impl RequestedScope {
    /// Reads the scopes of a request. Each text may have several, separated by spaces.
    ///
    /// No more than [`MAX_SCOPES`] are read, also of those that are repeated or grant nothing.
    pub fn read<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, TooManyScopes> {
        let mut merged = Merged::default();
        let scopes = texts
            .into_iter()
            .flat_map(|text| text.split(' '))
            .filter(|scope| !scope.is_empty());
        for (index, scope) in scopes.enumerate() {
            if index == MAX_SCOPES {
                return Err(TooManyScopes);
            }
            if let Some(requested) = read_one(scope) {
                merged.add(requested);
            }
        }
        Ok(Self(merged.resources))
    }

    /// The resources.
    #[must_use]
    pub fn resources(&self) -> &[ResourceActions] {
        &self.0
    }

    /// The repositories.
    pub fn repositories(&self) -> impl Iterator<Item = &RepositoryName> {
        repositories(&self.0)
    }

    /// What is granted: for each repository what was requested and is `allowed`, and the rest if `registry` allows it.
    /// `allowed` is what policy, grants and the scope of the key allow together.
    pub fn grant(&self, mut allowed: impl FnMut(&RepositoryName) -> Actions, registry: RegistryAccess) -> GrantedScope {
        let everything = |has: bool| {
            if has {
                ScopeActions::ALL
            } else {
                ScopeActions::default()
            }
        };
        let granted = self.0.iter().filter_map(|requested| {
            let allowed = match &requested.resource {
                Resource::Repository(name) => ScopeActions::allowed(allowed(name)),
                Resource::Catalog => everything(registry.catalog),
                Resource::Api => everything(registry.api),
            };
            let actions = requested.actions.intersection(allowed);
            (!actions.is_empty()).then(|| ResourceActions {
                resource: requested.resource.clone(),
                actions,
            })
        });
        GrantedScope(granted.collect())
    }
}

/// One scope. `None` if it cannot grant anything.
fn read_one(scope: &str) -> Option<ResourceActions> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, words) = rest.rsplit_once(':')?;
    let resource = Resource::find(without_class(kind)?, name)?;
    let mut words = words.split(',');
    let actions = match resource {
        Resource::Repository(_) => words
            .map(ScopeActions::of_word)
            .fold(ScopeActions::default(), ScopeActions::union),
        Resource::Catalog | Resource::Api if words.any(|word| word == "*") => ScopeActions::ALL,
        Resource::Catalog | Resource::Api => ScopeActions::default(),
    };
    (!actions.is_empty()).then_some(ResourceActions { resource, actions })
}

/// The type without its class: some clients write `repository(plugin)`.
fn without_class(kind: &str) -> Option<&str> {
    let Some((kind, class)) = kind.split_once('(') else {
        return Some(kind);
    };
    let is_legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let class = class.strip_suffix(')')?;
    (!class.is_empty() && class.bytes().all(is_legal)).then_some(kind)
}

/// Resources, each once.
#[derive(Default)]
struct Merged {
    resources: Vec<ResourceActions>,
    positions: HashMap<Resource, usize>,
}

impl Merged {
    fn add(&mut self, new: ResourceActions) {
        let next = self.resources.len();
        let position = *self.positions.entry(new.resource.clone()).or_insert(next);
        match self.resources.get_mut(position) {
            Some(old) => old.actions = old.actions.union(new.actions),
            None => self.resources.push(new),
        }
    }
}

impl GrantedScope {
    /// The scope of these resources, as a token has them. Equal ones are merged, and those without an action left out.
    #[must_use]
    pub fn new(resources: impl IntoIterator<Item = ResourceActions>) -> Self {
        let mut merged = Merged::default();
        resources
            .into_iter()
            .filter(|resource| !resource.actions.is_empty())
            .for_each(|resource| merged.add(resource));
        Self(merged.resources)
    }

    /// The resources, in the order of the request.
    #[must_use]
    pub fn resources(&self) -> &[ResourceActions] {
        &self.0
    }

    /// The repositories.
    pub fn repositories(&self) -> impl Iterator<Item = &RepositoryName> {
        repositories(&self.0)
    }

    /// Whether it contains the catalog and the API.
    #[must_use]
    pub fn registry(&self) -> RegistryAccess {
        let contains = |resource| self.0.iter().any(|granted| granted.resource == resource);
        RegistryAccess {
            catalog: contains(Resource::Catalog),
            api: contains(Resource::Api),
        }
    }

    /// The first `count` resources.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        Self(self.0.iter().take(count).cloned().collect())
    }

    /// The permissions of a token: those in repositories. What the token says of the catalog and the API is in
    /// [`GrantedScope::registry`].
    pub fn permissions(&self) -> Result<Scope, TooManyGrants> {
        self.permissions_within(&Scope::EVERYTHING)
    }

    /// The permissions of a token that was issued for a key with this scope.
    pub fn permissions_within(&self, key: &Scope) -> Result<Scope, TooManyGrants> {
        let grants = self.0.iter().filter_map(|granted| match &granted.resource {
            Resource::Repository(name) => {
                let covered = ActionKind::ALL.into_iter().filter(|kind| key.covers(*kind, name));
                Some(RepositoryGrant {
                    repositories: name.into(),
                    actions: granted
                        .actions
                        .permissions()
                        .intersection(Actions::of(&covered.collect::<Vec<_>>())),
                })
            }
            Resource::Catalog | Resource::Api => None,
        });
        Scope::new(grants.collect())
    }
}

fn repositories(resources: &[ResourceActions]) -> impl Iterator<Item = &RepositoryName> {
    resources.iter().filter_map(|resource| match &resource.resource {
        Resource::Repository(name) => Some(name),
        Resource::Catalog | Resource::Api => None,
    })
}

/// As in the answer of the token endpoint: separated by spaces.
impl fmt::Display for GrantedScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, granted) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            write!(f, "{separator}{granted}")?;
        }
        Ok(())
    }
}
