//! Which references of a manifest must exist.

use std::collections::BTreeSet;

use oci::{Digest, Manifest, Role};

/// Whether a manifest may refer to content that its repository does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sparse {
    /// Everything must be present, except subjects and non-distributable layers.
    #[default]
    Refuse,
    /// An index may refer to absent manifests, as after a copy of one platform.
    Indexes,
    /// Everything may be absent.
    Allow,
}

impl Sparse {
    /// The digests that must be present under this policy, and the digests that are only recorded as references.
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
        // A manifest may refer to a digest twice. One required reference makes the digest required.
        let excepted = excepted.difference(&required).copied().collect();
        (required, excepted)
    }
}
