//! The settings that the policy has for some repositories, as pushes meet them: how a repository comes to exist, its
//! largest blob, and whether manifests may refer to layers that are stored elsewhere.

use oci::{Descriptor, Digest, Manifest};

use crate::auth::{Creation, Permit, Pull, Push, RepositorySettings};
use crate::call::Call;
use crate::error::Error;
use crate::store::metadata::Listing;

impl Call<'_> {
    /// Refuses a push to a repository that does not exist, where a push does not create it. There a repository costs one
    /// read until it is known to exist for good, as those do that an administrator has created; one that was only pushed to
    /// costs a read each time. Elsewhere a repository costs none.
    pub(super) async fn check_created(&self, permit: &Permit<Push>) -> Result<(), Error> {
        let repository = permit.repository();
        if permit.settings().create == Creation::OnPush || self.remembered.contain(repository) {
            return Ok(());
        }
        match self.stores.metadata.repository(self.cx(), repository).await? {
            None => return Err(Error::RepositoryNotCreated(repository.clone())),
            Some(Listing::Published) => {}
            Some(Listing::Permanent) => self.remembered.insert(repository.clone()),
        }
        Ok(())
    }

    /// The maximum size of a blob in a repository with these settings, in bytes.
    pub(super) fn blob_limit(&self, settings: RepositorySettings) -> u64 {
        let limit = self.settings.limits.blob_bytes;
        settings.max_blob.map_or(limit, |max_blob| max_blob.min(limit))
    }

    /// Refuses the mount of a blob that is too large for the repository. One read, if the policy bounds its blobs.
    pub(super) async fn check_mounted_size(
        &self,
        permit: &Permit<Push>,
        source: &Permit<Pull>,
        digest: &Digest,
    ) -> Result<(), Error> {
        let settings = permit.settings();
        if settings.max_blob.is_none() {
            return Ok(());
        }
        let limit = self.blob_limit(settings);
        let metadata = &self.stores.metadata;
        match metadata.link(self.cx(), source.repository(), digest).await? {
            Some(link) if link.size > limit => Err(Error::BlobTooLarge { limit }),
            Some(_) | None => Ok(()),
        }
    }
}

/// Refuses a manifest that says of some content that it is stored elsewhere, where the policy forbids that. Such content
/// is never fetched, whatever the policy says.
pub(super) fn check_foreign_layers(permit: &Permit<Push>, manifest: &Manifest) -> Result<(), Error> {
    match foreign_layer(permit.settings(), manifest) {
        Some(digest) => Err(Error::ForeignLayer(digest)),
        None => Ok(()),
    }
}

/// What a manifest says is stored elsewhere, if these settings forbid that.
pub(super) fn foreign_layer(settings: RepositorySettings, manifest: &Manifest) -> Option<Digest> {
    if settings.foreign_layers {
        return None;
    }
    let references = manifest.references.iter().map(|entry| &entry.descriptor);
    let is_foreign =
        |descriptor: &&Descriptor| !descriptor.urls.is_empty() || descriptor.media_type.is_non_distributable();
    let foreign = references.chain(&manifest.subject).find(is_foreign);
    foreign.map(|descriptor| descriptor.digest)
}
