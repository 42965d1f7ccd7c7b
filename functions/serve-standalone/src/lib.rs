//! The standalone shell: the protocol core on one host, and the operator's commands.
//!
//! Read in this order:
//!
//! 1. `cli`: every flag, its environment variable and its default. `commands`: what each command does. `stores`: where
//!    bytes and names are.
//! 2. `server`: the accept loop, the cap on connections, and the way down. `connection`: one of them, with every time
//!    limit. `exchange`: one request on it; this is where clients meet the core.
//! 3. `htpasswd`: the users of a file. `reload`: what SIGHUP reads again. `delivery`: who is redirected to the object
//!    store. `collector`: garbage collection in the background. `condition`: what the stores may be asked for now.
//!    `health`: `/livez` and `/readyz`.
//! 4. `logging`, `access_log`: what is written down, and what never is. `metrics`: what is counted.
//!
//! Nothing here knows the protocol: requests go to [`registry::Registry`] as they come.

mod access_log;
mod cli;
mod collector;
mod commands;
mod condition;
mod connection;
mod delivery;
mod environment;
mod exchange;
mod health;
mod htpasswd;
mod logging;
mod metrics;
mod reload;
mod requests;
mod server;
mod stores;
mod timestamp;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs a command line, `arguments` with the program's name first, to its end. The exit code is 0 for success, 1 for
/// a failure, 2 for a command line that cannot be understood, 3 for a thing that does not exist.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match cli::parse(arguments) {
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
