//! Who may come in.

use std::sync::Arc;

use registry::auth::Ceiling;
use registry::{Anonymous, Authenticator};

use super::super::Failure;
use crate::cli::{AllowAnonymous, ServeArgs};
use crate::htpasswd::Htpasswd;

/// Who may do what, and how to say it.
pub(super) fn authenticator(args: &ServeArgs) -> Result<(Arc<dyn Authenticator>, String), Failure> {
    let file = match (&args.htpasswd, args.allow_anonymous) {
        (Some(_), Some(AllowAnonymous::All)) => {
            return Err(Failure::Usage(
                "--htpasswd and --allow-anonymous all contradict each other: passwords would protect nothing. Leave \
                 one of them out, or use --allow-anonymous pull"
                    .into(),
            ));
        }
        (Some(file), _) => file,
        (None, Some(AllowAnonymous::All)) => {
            return Ok((Arc::new(Anonymous::all()), "everyone may pull, push and delete".into()));
        }
        (None, Some(AllowAnonymous::Pull)) => {
            return Ok((Arc::new(Anonymous::pull()), "everyone may pull, nobody may push".into()));
        }
        // A mapped address is not loopback to `IpAddr`, though the system takes it for that.
        (None, None) if args.listen.ip().to_canonical().is_loopback() => {
            return Ok((
                Arc::new(Anonymous::all()),
                "everyone on this machine may pull, push and delete".into(),
            ));
        }
        (None, None) => {
            return Err(Failure::Usage(format!(
                "refusing to serve {} without authentication: everyone who reaches it could push and delete.\n\
                 Either make users:     roadstead htpasswd NAME > users, then add --htpasswd users\n\
                 or serve this machine: --listen 127.0.0.1:{}\n\
                 or ask for it by name: --allow-anonymous pull (nobody may push), or --allow-anonymous all",
                args.listen,
                args.listen.port()
            )));
        }
    };
    let anonymous = args.allow_anonymous.map(|_| Ceiling::PullOnly);
    let others = if anonymous.is_some() {
        ", everyone else may pull"
    } else {
        ""
    };
    let users = Htpasswd::open(file, anonymous)
        .map_err(|error| Failure::failed(format!("cannot use the htpasswd file {}", file.display()), error))?;
    let access = format!("{} users with passwords may pull, push and delete{others}", users.len());
    Ok((Arc::new(users), access))
}
