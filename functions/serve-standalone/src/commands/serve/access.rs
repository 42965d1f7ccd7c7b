//! Which clients may do what, and for which hosts requests are answered.

use std::path::Path;
use std::sync::Arc;

use registry::auth::Scope;
use registry::{Anonymous, Authenticator, HostPolicy};

use crate::cli::{AllowAnonymous, ServeArgs};
use crate::failure::Failure;
use crate::htpasswd::Htpasswd;
use crate::reload::Reload;
use shell::text::count;

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
        match (&args.htpasswd, args.allow_anonymous) {
            (Some(_), Some(AllowAnonymous::All)) => Err(Failure::Usage(
                "--htpasswd and --allow-anonymous all contradict each other: passwords would protect nothing. Remove \
                 one of them, or use --allow-anonymous pull"
                    .into(),
            )),
            (Some(file), anonymous) => Self::users(args, file, anonymous.is_some()),
            (None, Some(AllowAnonymous::All)) => Ok(Self::everyone(
                args,
                Anonymous::all(),
                "all clients may pull, push and delete",
            )),
            (None, Some(AllowAnonymous::Pull)) => Ok(Self::everyone(
                args,
                Anonymous::pull(),
                "all clients may pull; no client may push",
            )),
            (None, None) if is_loopback(args) => Ok(Self::everyone(
                args,
                Anonymous::all(),
                "all users of this machine may pull, push and delete",
            )),
            (None, None) => Err(Failure::Usage(format!(
                "refusing to serve {} without authentication: all clients that reach it could push and delete. Do one of these:\n\
                 add users:               roadstead htpasswd users NAME, then add --htpasswd users\n\
                 serve this machine only: --listen 127.0.0.1:{}\n\
                 allow it explicitly:     --allow-anonymous pull (no client may push), or --allow-anonymous all",
                args.listen,
                args.listen.port()
            ))),
        }
    }

    fn users(args: &ServeArgs, file: &Path, others_pull: bool) -> Result<Self, Failure> {
        let anonymous = others_pull.then_some(Scope::PULL_ONLY);
        let users = Htpasswd::open(file, anonymous)
            .map_err(|error| Failure::failed(format!("cannot use the htpasswd file {}", file.display()), error))?;
        let others = if others_pull {
            "; all other clients may pull"
        } else {
            ""
        };
        let users = Arc::new(users);
        Ok(Self {
            text: format!(
                "{} may pull, push and delete with a password{others}",
                count(users.len() as u64, "user", "users")
            ),
            authenticator: users.clone(),
            hosts: HostPolicy {
                only: allowed_hosts(args),
                refuse_other_sites: false,
            },
            files: vec![users],
        })
    }

    /// No client needs a password. So pages of other sites must not reach the registry through a browser. Requests that a
    /// browser marks as sent by another site are refused everywhere; requests for other hosts are refused where the right
    /// hosts are known.
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

/// Also recognizes an IPv4-mapped loopback address, which `IpAddr` does not, and the system does.
fn is_loopback(args: &ServeArgs) -> bool {
    args.listen.ip().to_canonical().is_loopback()
}
