//! Manifests, tags and blobs are deleted: end-9 and end-10.

use http::{Response, StatusCode};
use oci::{Digest, Reference};

use crate::auth::{Delete, Permit};
use crate::body::ResponseBody;
use crate::call::Call;
use crate::error::Error;
use crate::response;
use crate::store::metadata::Removal;

impl Call<'_> {
    /// end-9: a tag alone, or a manifest with all its tags.
    pub(crate) async fn delete_manifest(
        &self,
        permit: Permit<Delete>,
        reference: Option<Reference>,
    ) -> Result<Response<ResponseBody>, Error> {
        let who = permit.principal().to_string();
        let metadata = &self.stores.metadata;
        let removal = match reference {
            None => Removal::Absent,
            Some(Reference::Tag(tag)) => {
                let removed = metadata.delete_tag(self.cx(), permit.repository(), &tag, &who).await?;
                if removed { Removal::Removed } else { Removal::Absent }
            }
            Some(Reference::Digest(digest)) => {
                metadata
                    .delete_manifest(self.cx(), permit.repository(), &digest, &who)
                    .await?
            }
        };
        match removal {
            Removal::Removed => Ok(response::empty(StatusCode::ACCEPTED)),
            Removal::Absent => Err(Error::ManifestUnknown),
            Removal::Referenced(referrer) => Err(Error::Referenced(referrer)),
        }
    }

    /// end-10: unlinks the blob from the repository. Other repositories keep it, and so does every manifest here that
    /// refers to it (405).
    pub(crate) async fn delete_blob(
        &self,
        permit: Permit<Delete>,
        digest: Digest,
    ) -> Result<Response<ResponseBody>, Error> {
        match self
            .stores
            .metadata
            .unlink(self.cx(), permit.repository(), &digest)
            .await?
        {
            Removal::Removed => Ok(response::empty(StatusCode::ACCEPTED)),
            Removal::Absent => Err(Error::BlobUnknown),
            Removal::Referenced(referrer) => Err(Error::Referenced(referrer)),
        }
    }
}
