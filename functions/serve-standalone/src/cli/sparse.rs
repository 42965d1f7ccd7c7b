//! Which manifests the server accepts, for commands that judge manifests as the server does.

use clap::Args;
use registry::Sparse;
use shell::settings;

use super::serve::SparsePolicy;

// Without a doc comment: `clap` would show it as the description of the command.
#[derive(Args, Debug)]
pub(crate) struct SparseArgs {
    /// Whether manifests may refer to absent blobs and manifests; the same value as for the server
    #[arg(long, env = settings::SPARSE.variable, value_name = "POLICY", default_value = settings::SPARSE.default)]
    sparse: SparsePolicy,
}

impl SparseArgs {
    /// The policy that the flag names.
    pub(crate) fn policy(&self) -> Sparse {
        self.sparse.into()
    }
}
