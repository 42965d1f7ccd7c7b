//! The standalone shell: the protocol core on one host, and the operator's commands.
//!
//! Read in this order:
//!
//! 1. `cli`: every flag, its environment variable and its default. `commands`: each command. `failure`: the errors of
//!    commands, and their exit codes.
//! 2. `server`: the accept loop, and the end of all connections. `connections`: the limit of connections, and which
//!    connection ends when a new one needs its slot. `connection`: one connection, with all its timeouts. `exchange`: one
//!    request and its answer; this module calls the core. `requests`: the limit of requests in progress. `transport`: the
//!    socket, and the bodies of requests and answers.
//! 3. `htpasswd`: users from a file. `tls`: the certificate and its key. `watched`: notices changes of these files. `reload`:
//!    the files that SIGHUP reads again.
//! 4. `logging`, `access_log`: the log. `metrics`: the metrics. `version`: the text of `--version`.
//!
//! Code that other shells need too is in the crate [`shell`]: the opening of stores, health checks, collection passes, the
//! client's address. This crate does not know the protocol: it passes requests to [`registry::Registry`] unchanged.

mod access_log;
mod cli;
mod commands;
mod connection;
mod connections;
mod exchange;
mod failure;
mod htpasswd;
mod logging;
mod metrics;
mod reload;
mod requests;
mod server;
mod tls;
mod transport;
mod version;
mod watched;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs a command to its end. `arguments` begin with the program's name. The exit code is 0 for success, 1 for a failure,
/// 2 for wrong usage, 3 if the requested thing does not exist.
///
/// `commit` is the source commit of the program, if the build knows it; `--version` prints it.
pub fn run(arguments: impl IntoIterator<Item = OsString>, commit: Option<&str>) -> ExitCode {
    match cli::parse(arguments, version::long(commit)) {
        Ok(cli) => {
            let code = commands::run(cli);
            logging::flush();
            code
        }
        Err(error) => {
            // Help and version are errors for the parser too. They do not fail if standard output is closed.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
    }
}
