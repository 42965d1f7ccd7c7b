//! Which clients may do what, and for which hosts requests are answered, as the flags and the accounts say.

use std::sync::Arc;

use auth::accounts::{
    AccountAuthenticator, AccountParts, AccountSettings, BootstrapSecret, PasswordUsers, TokenSignerSource,
};
use auth::key_file;
use registry::budget::ClientKey;
use registry::environment::{Environment, context};
use registry::store::access::AccessStore;
use registry::{HostPolicy, Stores};
use shell::access::{AccessRefusal, AccessSettings, AnonymousAccess, ClientAccess, Exposure};
use shell::challenge::AskedClients;
use shell::client_address::TrustedProxies;
use shell::clock::SystemEnvironment;
use shell::settings;
use shell::stores::{self, Absent, OpenFailure, OpenOptions};
use shell::text::count;

use super::secrets;
use crate::cli::{ServeArgs, flag};
use crate::failure::Failure;
use crate::htpasswd::Htpasswd;
use crate::htpasswd::password_threads::HashingThreads;
use crate::htpasswd::turns::PasswordTurns;
use crate::reload::Reload;

/// Maximum time for the question whether there are accounts, in milliseconds. A server starts also if its table does not
/// answer.
const QUESTION_MS: u64 = 2_000;

/// What the flags say about access, before the stores are open.
pub(super) struct AccessFlags {
    users: Option<Arc<Htpasswd>>,
    turns: Arc<PasswordTurns>,
    signers: TokenSignerSource,
    bootstrap: Option<BootstrapSecret>,
    /// Whether the clients come through an edge.
    has_edge: bool,
}

/// Which clients may do what.
pub(super) struct Access {
    pub(super) authenticator: Arc<AccountAuthenticator>,
    /// A description of the authenticator, for the operator.
    pub(super) text: String,
    /// Which clients are asked for credentials.
    pub(super) asked: AskedClients,
    /// The hosts for which requests are answered.
    pub(super) hosts: HostPolicy,
}

impl AccessFlags {
    /// Reads the files that the flags name.
    pub(super) fn read(args: &ServeArgs, has_edge: bool) -> Result<Self, Failure> {
        let turns = Arc::new(PasswordTurns::new());
        let users = match &args.htpasswd {
            Some(file) => Some(Arc::new(Htpasswd::open(file, turns.clone()).map_err(|error| {
                Failure::failed(format!("cannot use the htpasswd file {}", file.display()), error)
            })?)),
            None => None,
        };
        let flags = Self {
            users,
            turns,
            signers: signers(args)?,
            bootstrap: secrets::bootstrap(args)?,
            has_edge,
        };
        // What no account changes is refused before anything is opened.
        flags.decide(args, None)?;
        Ok(flags)
    }

    /// The files that SIGHUP reads again.
    pub(super) fn files(&self) -> Vec<Arc<dyn Reload>> {
        self.users.iter().map(|users| users.clone() as _).collect()
    }

    /// Refuses an address that other hosts reach, if nothing says who may use the registry and there is no account. Nothing
    /// is made in this case. `options` are those with which the server opens its stores.
    pub(super) async fn check_exposure(&self, args: &ServeArgs, options: &OpenOptions) -> Result<(), Failure> {
        if self.decide(args, Some(false)).is_ok() {
            return Ok(());
        }
        let options = OpenOptions {
            absent: Absent::Refuse,
            ..options.clone()
        };
        let config = args.stores.config();
        let has_accounts = match stores::open_records(&config, &options).await {
            Ok(records) => has_accounts(&*records.access).await,
            Err(OpenFailure::Absent(_)) => Some(false),
            // Whether there are accounts is not known, and the text for a registry without any would let everyone in.
            Err(failure) => return Err(failure.into()),
        };
        self.decide(args, has_accounts).map(drop)
    }

    /// The authenticator over `stores`. `opened` are the same stores without a guard, which answer before the server has
    /// started: whether there are accounts decides for which hosts requests are answered.
    pub(super) async fn open(self, args: &ServeArgs, opened: &Stores, stores: &Stores) -> Result<Access, Failure> {
        let decided = self.decide(args, has_accounts(&*opened.access).await)?;
        let number = self
            .users
            .as_ref()
            .map(|users| count(users.len() as u64, "user", "users"));
        let asked = AskedClients::of(&decided.clients);
        let (open, anonymous_pull, text) = match decided.clients {
            ClientAccess::Users { anonymous_pull, .. } => (None, anonymous_pull, users_text(number, anonymous_pull)),
            ClientAccess::Everyone(may) => {
                let text = match may {
                    AnonymousAccess::All => "all clients may pull, push and delete",
                    AnonymousAccess::Pull => "all clients may pull; no client may push",
                };
                (Some(may.rules()), may == AnonymousAccess::Pull, text.to_owned())
            }
            ClientAccess::ThisMachine => {
                let text = "all users of this machine may pull, push and delete";
                (Some(AnonymousAccess::All.rules()), false, text.to_owned())
            }
        };
        let proxies = TrustedProxies::new(args.pulls.trusted_proxy.clone());
        let settings = AccountSettings {
            open,
            anonymous_pull,
            token_lifetime_s: args.token_lifetime.0.as_secs(),
            service: args.challenges().challenge().service().to_owned(),
            signers: self.signers,
            bootstrap: self.bootstrap,
            is_proxy: Arc::new(move |address| proxies.trusts(address)),
            ..AccountSettings::default()
        };
        let parts = AccountParts {
            store: stores.access.clone(),
            environment: Arc::new(SystemEnvironment),
            users: self.users.map(|users| users as Arc<dyn PasswordUsers>),
            threads: Arc::new(HashingThreads::new(self.turns)),
        };
        let authenticator = AccountAuthenticator::new(parts, settings)
            .map_err(|error| Failure::failed("passwords cannot be hashed", error))?;
        Ok(Access {
            authenticator: Arc::new(authenticator),
            text,
            asked,
            hosts: decided.hosts,
        })
    }

    /// `has_accounts` is `None` if that is not known.
    fn decide(
        &self,
        args: &ServeArgs,
        has_accounts: Option<bool>,
    ) -> Result<shell::access::AccessDecision<()>, Failure> {
        let settings = AccessSettings {
            users: self.users.as_ref().map(|_| ()),
            has_accounts,
            has_bootstrap: self.bootstrap.is_some(),
            anonymous: args.allow_anonymous.map(Into::into),
            exposure: Exposure::of(args.listen.ip()),
            is_proxied: is_proxied(args) || self.has_edge,
            allowed_hosts: args.allow_host.clone(),
        };
        settings.decide(flag).map_err(|refusal| refused(args, refusal))
    }
}

/// Whether the flags say that a proxy brings clients of other hosts.
fn is_proxied(args: &ServeArgs) -> bool {
    let url = args.public_url.as_ref();
    !args.pulls.trusted_proxy.is_empty() || url.is_some_and(|url| !url.host().is_loopback())
}

/// Whether there is an account. `None`: the metadata cannot be read now.
async fn has_accounts(store: &dyn AccessStore) -> Option<bool> {
    let environment: &dyn Environment = &SystemEnvironment;
    let state = store
        .state(context(environment, ClientKey::INTERNAL, QUESTION_MS))
        .await;
    if let Err(error) = &state {
        tracing::warn!(%error, "it is not known whether there are accounts");
    }
    state.ok().map(|state| state.accounts > 0)
}

/// Who may log in. `number` is that of the users in the file.
fn users_text(number: Option<String>, anonymous_pull: bool) -> String {
    let note = if anonymous_pull {
        "; all other clients may pull"
    } else {
        ""
    };
    match number {
        Some(number) => {
            format!("{number} may pull, push and delete with a password, and accounts as the policy says{note}")
        }
        None => format!("accounts may pull, push and delete as the policy says{note}"),
    }
}

/// Where the keys that sign tokens are.
fn signers(args: &ServeArgs) -> Result<TokenSignerSource, Failure> {
    let Some(path) = &args.token_key_file else {
        return Ok(TokenSignerSource::Table);
    };
    let text = secrets::read_file(path).map_err(Failure::Failed)?;
    key_file::read(&text)
        .map(TokenSignerSource::File)
        .map_err(|error| Failure::failed(format!("cannot use the token keys in {}", path.display()), error))
}

/// The text of a refusal, which names the flags.
fn refused(args: &ServeArgs, refusal: AccessRefusal) -> Failure {
    let alone = match Exposure::of(args.listen.ip()) {
        Exposure::Public => format!("--listen 127.0.0.1:{}", args.listen.port()),
        Exposure::Loopback => {
            "without --trusted-proxy and --origin-secret-file, and without --public-url of another host".to_owned()
        }
    };
    Failure::Usage(match refusal {
        AccessRefusal::UselessPasswords => format!(
            "--{} all contradicts accounts and --htpasswd: passwords would protect nothing. Remove one of them, or use \
             --allow-anonymous pull",
            settings::ALLOW_ANONYMOUS.name
        ),
        AccessRefusal::Unprotected => format!(
            "refusing to serve {} without authentication: all clients that reach it could push and delete. Do one of these:\n\
             add an administrator:    roadstead user add NAME --admin --password-stdin (with the flags of the stores)\n\
             use a file of users:     roadstead htpasswd users NAME, then add --htpasswd users\n\
             use the API alone:       --bootstrap-secret-file FILE, for the first administrator\n\
             serve this machine only: {alone}\n\
             allow it explicitly:     --allow-anonymous pull (no client may push), or --allow-anonymous all",
            args.listen
        ),
    })
}
