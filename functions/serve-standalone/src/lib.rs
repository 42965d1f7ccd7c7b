//! The standalone shell: the protocol core on one host, and the operator's commands.
//!
//! Read in this order:
//!
//! 1. `cli`: every flag, its environment variable and its default. `commands`: what each command does. `failure`: how
//!    one fails.
//! 2. `server`: the accept loop, and the end of all connections. `connections`: how many there are, and which one ends
//!    for another. `connection`: one of them, with every time limit. `exchange`: one request on it; this is where clients
//!    meet the core. `requests`: how many there are at once. `transport`: bytes, and how long a client may take for them.
//! 3. `htpasswd`: the users of a file. `tls`: the certificate and its key. `watched`: how both files are followed. `reload`: what
//!    SIGHUP reads again.
//! 4. `logging`, `access_log`: how the log is written. `metrics`: what is counted. `version`: what `--version` prints.
//!
//! What another shell needs too is in the crate [`shell`]: the opening of stores, health, collection, who the client is.
//! Nothing here knows the protocol: requests go to [`registry::Registry`] as they come.

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

/// Runs a command line, `arguments` with the program's name first, to its end. The exit code is 0 for success, 1 for
/// a failure, 2 for a command line that cannot be understood, 3 for a thing that does not exist.
///
/// `commit` is the source commit that the program was built from, if the build knows it; `--version` prints it.
pub fn run(arguments: impl IntoIterator<Item = OsString>, commit: Option<&str>) -> ExitCode {
    match cli::parse(arguments, version::long(commit)) {
        Ok(cli) => {
            let code = commands::run(cli);
            logging::flush();
            code
        }
        Err(error) => {
            // Help and version come as errors too; a closed pipe must not make them fail.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
    }
}
