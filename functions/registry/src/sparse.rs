//! Which references of a manifest must exist.

use std::collections::BTreeSet;

use oci::{Digest, Manifest, Role};

/// Whether a manifest may refer to content that its repository does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sparse {
    /// Everything but subjects and non-distributable layers must be present.
    #[default]
    Refuse,
    /// An index may name manifests that are absent, as after a copy of one platform.
    Indexes,
    /// Nothing needs to be present.
    Allow,
}

impl Sparse {
    /// Which digests must be present under this policy, and which are only noted.
    pub(crate) fn references(self, manifest: &Manifest) -> (BTreeSet<Digest>, BTreeSet<Digest>) {
        let (mut required, mut excepted) = (BTreeSet::new(), BTreeSet::new());
        for entry in &manifest.references {
            let must_exist = entry.required
                && match self {
                    Self::Refuse => true,
                    Self::Indexes => entry.role != Role::Manifest,
                    Self::Allow => false,
                };
            let set = if must_exist { &mut required } else { &mut excepted };
            set.insert(entry.descriptor.digest);
        }
        // A digest may be named twice; once required is required.
        let excepted = excepted.difference(&required).copied().collect();
        (required, excepted)
    }
}
