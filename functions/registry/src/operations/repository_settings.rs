//! The settings that the policy has for some repositories, as pushes meet them: how a repository comes to exist, its
//! largest blob, and whether manifests may refer to layers that are stored elsewhere.

use oci::{Digest, Manifest};

use crate::auth::{Creation, Permit, Pull, Push, RepositorySettings};
use crate::call::Call;
use crate::error::Error;

impl Call<'_> {
    /// Refuses a push to a repository that does not exist, where a push does not create it. Such a repository costs one
    /// read until it is known to exist; every other repository costs none.
    pub(super) async fn check_created(&self, permit: &Permit<Push>) -> Result<(), Error> {
        let repository = permit.repository();
        if permit.settings().create == Creation::OnPush || self.remembered.contain(repository) {
            return Ok(());
        }
        if !self.stores.metadata.repository(self.cx(), repository).await? {
            return Err(Error::RepositoryNotCreated(repository.clone()));
        }
        self.remembered.insert(repository.clone());
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
    if permit.settings().foreign_layers {
        return Ok(());
    }
    let references = manifest.references.iter().map(|entry| &entry.descriptor);
    let foreign = references
        .chain(&manifest.subject)
        .find(|descriptor| !descriptor.urls.is_empty() || descriptor.media_type.is_non_distributable());
    match foreign {
        Some(descriptor) => Err(Error::ForeignLayer(descriptor.digest)),
        None => Ok(()),
    }
}
