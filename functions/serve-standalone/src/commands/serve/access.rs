//! Which clients may do what, and for which hosts requests are answered, as the flags say.

use std::path::Path;
use std::sync::Arc;

use registry::auth::Scope;
use registry::{Authenticator, HostPolicy};
use shell::access::{AccessRefusal, AccessSettings, AnonymousAccess, ClientAccess, Exposure};
use shell::text::count;

use crate::cli::{ServeArgs, flag};
use crate::failure::Failure;
use crate::htpasswd::Htpasswd;
use crate::reload::Reload;

/// Which clients may do what.
pub(super) struct Access {
    pub(super) authenticator: Arc<dyn Authenticator>,
    /// A description of the authenticator, for the operator.
    pub(super) text: String,
    /// The hosts for which requests are answered.
    pub(super) hosts: HostPolicy,
    /// The files that SIGHUP reads again.
    pub(super) files: Vec<Arc<dyn Reload>>,
}

impl Access {
    pub(super) fn new(args: &ServeArgs) -> Result<Self, Failure> {
        let settings = AccessSettings {
            users: args.htpasswd.as_deref(),
            anonymous: args.allow_anonymous.map(Into::into),
            exposure: Exposure::of(args.listen.ip()),
            allowed_hosts: args.allow_host.clone(),
        };
        let decided = settings.decide(flag).map_err(|refusal| refused(args, refusal))?;
        let everyone = |anonymous: AnonymousAccess| Arc::new(anonymous.authenticator());
        let (authenticator, text, files): (Arc<dyn Authenticator>, _, Vec<Arc<dyn Reload>>) = match decided.clients {
            ClientAccess::Users { users: file, others } => {
                let (users, text) = open_users(file, others)?;
                (users.clone(), text, vec![users])
            }
            ClientAccess::Everyone(may) => {
                let text = match may {
                    AnonymousAccess::All => "all clients may pull, push and delete",
                    AnonymousAccess::Pull => "all clients may pull; no client may push",
                };
                (everyone(may), text.to_owned(), Vec::new())
            }
            ClientAccess::ThisMachine => {
                let text = "all users of this machine may pull, push and delete";
                (everyone(AnonymousAccess::All), text.to_owned(), Vec::new())
            }
        };
        Ok(Self {
            authenticator,
            text,
            hosts: decided.hosts,
            files,
        })
    }
}

/// Reads the file of users. `others` is the scope of all other clients. Also returns a text for the operator.
fn open_users(file: &Path, others: Option<Scope>) -> Result<(Arc<Htpasswd>, String), Failure> {
    let note = if others.is_some() {
        "; all other clients may pull"
    } else {
        ""
    };
    let users = Htpasswd::open(file, others)
        .map_err(|error| Failure::failed(format!("cannot use the htpasswd file {}", file.display()), error))?;
    let number = count(users.len() as u64, "user", "users");
    let text = format!("{number} may pull, push and delete with a password{note}");
    Ok((Arc::new(users), text))
}

/// The text of a refusal, which names the flags.
fn refused(args: &ServeArgs, refusal: AccessRefusal) -> Failure {
    Failure::Usage(match refusal {
        AccessRefusal::UselessPasswords => {
            "--htpasswd and --allow-anonymous all contradict each other: passwords would protect nothing. Remove one of \
             them, or use --allow-anonymous pull"
                .into()
        }
        AccessRefusal::Unprotected => format!(
            "refusing to serve {} without authentication: all clients that reach it could push and delete. Do one of these:\n\
             add users:               roadstead htpasswd users NAME, then add --htpasswd users\n\
             serve this machine only: --listen 127.0.0.1:{}\n\
             allow it explicitly:     --allow-anonymous pull (no client may push), or --allow-anonymous all",
            args.listen,
            args.listen.port()
        ),
    })
}
