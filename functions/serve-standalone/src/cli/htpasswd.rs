//! The flags of `roadstead htpasswd`.

use std::path::PathBuf;

use clap::Args;

use crate::htpasswd::hash::HashKind;

#[derive(Args, Debug)]
pub(crate) struct HtpasswdArgs {
    /// The file to change; created if it does not exist. Without a file, the line is printed
    pub(crate) file: Option<PathBuf>,
    /// The user's name
    pub(crate) user: String,
    /// Remove the user's lines from the file
    #[arg(long, requires = "file", conflicts_with = "hash")]
    pub(crate) delete: bool,
    /// The algorithm that hashes the password
    #[arg(long, value_name = "KIND", default_value = "argon2id")]
    pub(crate) hash: HashKind,
}
