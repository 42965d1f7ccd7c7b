//! Who may come in, and from where.

use std::path::Path;
use std::sync::Arc;

use registry::auth::Scope;
use registry::{Anonymous, Authenticator, HostPolicy};

use crate::cli::{AllowAnonymous, ServeArgs};
use crate::failure::Failure;
use crate::htpasswd::Htpasswd;
use crate::reload::Reload;

/// Who may do what.
pub(super) struct Access {
    pub(super) authenticator: Arc<dyn Authenticator>,
    /// The same, for people.
    pub(super) text: String,
    /// At which hosts requests are answered.
    pub(super) hosts: HostPolicy,
    /// What was read from files.
    pub(super) files: Vec<Arc<dyn Reload>>,
}

impl Access {
    pub(super) fn new(args: &ServeArgs) -> Result<Self, Failure> {
        match (&args.htpasswd, args.allow_anonymous) {
            (Some(_), Some(AllowAnonymous::All)) => Err(Failure::Usage(
                "--htpasswd and --allow-anonymous all contradict each other: passwords would protect nothing. Leave \
                 one of them out, or use --allow-anonymous pull"
                    .into(),
            )),
            (Some(file), anonymous) => Self::users(args, file, anonymous.is_some()),
            (None, Some(AllowAnonymous::All)) => Ok(Self::everyone(
                args,
                Anonymous::all(),
                "everyone may pull, push and delete",
            )),
            (None, Some(AllowAnonymous::Pull)) => Ok(Self::everyone(
                args,
                Anonymous::pull(),
                "everyone may pull, nobody may push",
            )),
            (None, None) if is_loopback(args) => Ok(Self::everyone(
                args,
                Anonymous::all(),
                "everyone on this machine may pull, push and delete",
            )),
            (None, None) => Err(Failure::Usage(format!(
                "refusing to serve {} without authentication: everyone who reaches it could push and delete.\n\
                 Either make users:     roadstead htpasswd users NAME, then add --htpasswd users\n\
                 or serve this machine: --listen 127.0.0.1:{}\n\
                 or ask for it by name: --allow-anonymous pull (nobody may push), or --allow-anonymous all",
                args.listen,
                args.listen.port()
            ))),
        }
    }

    fn users(args: &ServeArgs, file: &Path, others_pull: bool) -> Result<Self, Failure> {
        let anonymous = others_pull.then_some(Scope::PULL_ONLY);
        let users = Htpasswd::open(file, anonymous)
            .map_err(|error| Failure::failed(format!("cannot use the htpasswd file {}", file.display()), error))?;
        let others = if others_pull { ", everyone else may pull" } else { "" };
        let users = Arc::new(users);
        Ok(Self {
            text: format!("{} users with passwords may pull, push and delete{others}", users.len()),
            authenticator: users.clone(),
            hosts: HostPolicy {
                only: allowed_hosts(args),
                refuse_other_sites: false,
            },
            files: vec![users],
        })
    }

    /// Nobody is asked for a password. So a browser must not be the way in for pages of strangers: what it says of them
    /// is heeded everywhere, and the host wherever it is known which ones are right.
    fn everyone(args: &ServeArgs, authenticator: Anonymous, text: &str) -> Self {
        Self {
            authenticator: Arc::new(authenticator),
            text: text.to_owned(),
            hosts: HostPolicy {
                only: allowed_hosts(args).or_else(|| is_loopback(args).then(Vec::new)),
                refuse_other_sites: true,
            },
            files: Vec::new(),
        }
    }
}

fn allowed_hosts(args: &ServeArgs) -> Option<Vec<registry::Host>> {
    Some(args.allow_host.clone()).filter(|hosts| !hosts.is_empty())
}

/// A mapped address is not loopback to `IpAddr`, though the system takes it for that.
fn is_loopback(args: &ServeArgs) -> bool {
    args.listen.ip().to_canonical().is_loopback()
}
