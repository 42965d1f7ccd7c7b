//! Deletions: of manifests and tags by end-9 (`DELETE /v2/<name>/manifests/<reference>`), and of blobs by end-10
//! (`DELETE /v2/<name>/blobs/<digest>`).

use http::{Response, StatusCode};
use oci::{Digest, Reference};

use super::tag_guard;
use crate::auth::{Delete, Permit};
use crate::body::ResponseBody;
use crate::call::Call;
use crate::error::Error;
use crate::response;
use crate::store::metadata::Removal;

impl Call<'_> {
    /// end-9: deletes a tag alone, or a manifest with all its tags.
    pub(crate) async fn delete_manifest(
        &self,
        permit: Permit<Delete>,
        reference: Option<Reference>,
    ) -> Result<Response<ResponseBody>, Error> {
        let (author, guard) = (self.author(&permit), tag_guard::of_deletion(&permit));
        let metadata = &self.stores.metadata;
        let removal = match reference {
            None => Removal::Absent,
            Some(Reference::Tag(tag)) => {
                metadata
                    .delete_tag(self.cx(), permit.repository(), &tag, &author, &guard)
                    .await?
            }
            Some(Reference::Digest(digest)) => {
                metadata
                    .delete_manifest(self.cx(), permit.repository(), &digest, &author, &guard)
                    .await?
            }
        };
        answer(&permit, removal, Error::ManifestUnknown)
    }

    /// end-10: deletes the repository's link to the blob. Other repositories keep the blob. If a manifest of this
    /// repository refers to it, the deletion is refused (405).
    pub(crate) async fn delete_blob(
        &self,
        permit: Permit<Delete>,
        digest: Digest,
    ) -> Result<Response<ResponseBody>, Error> {
        let metadata = &self.stores.metadata;
        let author = self.author(&permit);
        let removal = metadata
            .unlink(self.cx(), permit.repository(), &digest, &author)
            .await?;
        answer(&permit, removal, Error::BlobUnknown)
    }
}

/// The response to a deletion. `absent` is the error if there was nothing to delete.
fn answer(permit: &Permit<Delete>, removal: Removal, absent: Error) -> Result<Response<ResponseBody>, Error> {
    match removal {
        Removal::Removed => Ok(response::empty(StatusCode::ACCEPTED)),
        Removal::Absent => Err(absent),
        Removal::Referenced(referrer) => Err(Error::Referenced(referrer)),
        Removal::Protected(protected) => Err(Error::protected(permit, protected)),
    }
}
