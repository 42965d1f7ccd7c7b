//! Mounts: end-11 (`POST /v2/<name>/blobs/uploads/?mount=<digest>&from=<name>`).

use oci::Digest;

use crate::auth::{Permit, Pull, Push};
use crate::call::Call;
use crate::error::Error;
use crate::query::MountSource;

impl Call<'_> {
    /// end-11. `false` for every refusal but one. The client then gets a session whatever the reason, and learns nothing
    /// about repositories from which it may not pull. Without a source, only repositories count that the token contains. A
    /// blob that it may pull, and that is too large for its repository, is an error: an upload of it would be one too.
    pub(super) async fn mount(&self, permit: &Permit<Push>, digest: &Digest, from: MountSource) -> Result<bool, Error> {
        let candidates = match from {
            MountSource::Nowhere => return Ok(false),
            MountSource::Repository(repository) => vec![repository],
            MountSource::Anywhere => {
                let limit = self.settings.limits.mount_candidates;
                self.stores
                    .metadata
                    .linking_repositories(self.cx(), digest, limit)
                    .await?
            }
        };
        for candidate in candidates {
            let Ok(source) = permit.another::<Pull>(&candidate) else {
                continue;
            };
            self.check_mounted_size(permit, &source, digest).await?;
            let metadata = &self.stores.metadata;
            if metadata
                .mount(self.cx(), permit.repository(), digest, source.repository())
                .await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
