//! Pulls of manifests: end-3 (`GET` and `HEAD /v2/<name>/manifests/<reference>`).

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use oci::{Digest, MediaType, Reference, RepositoryName, Tag};

use super::ranges;
use crate::auth::{Permit, Pull};
use crate::body::ResponseBody;
use crate::call::{Call, SMALL_ANSWER};
use crate::error::Error;
use crate::memory::Memory;
use crate::response::{self, IMMUTABLE};
use crate::store::StoreError;
use crate::store::metadata::{Content, ManifestRecord, TagRecord};

/// A tag may refer to another manifest at the next request.
const REVALIDATE: HeaderValue = HeaderValue::from_static("private, no-cache");

impl Call<'_> {
    /// end-3. By digest: one table read. By tag: two if the store cannot join them, and one for HEAD of a small
    /// manifest without damage. `reference` is `None` if the text cannot be a tag.
    pub(crate) async fn get_manifest(
        &self,
        permit: Permit<Pull>,
        reference: Option<Reference>,
        headers: &HeaderMap,
        head_only: bool,
    ) -> Result<Response<ResponseBody>, Error> {
        let cache = match &reference {
            Some(Reference::Digest(_)) => IMMUTABLE,
            _ => REVALIDATE,
        };
        // Before the row is read, because the row contains most manifests.
        let memory = if head_only {
            None
        } else {
            Some(self.memory(self.usual_manifest()).await?)
        };
        let (digest, media_type, size, record) = match reference.ok_or(Error::ManifestUnknown)? {
            Reference::Digest(digest) => {
                let record = self
                    .stores
                    .metadata
                    .manifest(self.cx(), permit.repository(), &digest)
                    .await?;
                let record = record.ok_or(Error::ManifestUnknown)?;
                (digest, record.media_type.clone(), record.size, Some(record))
            }
            Reference::Tag(tag) if head_only => {
                let tag = self.stores.metadata.tag(self.cx(), permit.repository(), &tag).await?;
                let tag = tag.ok_or(Error::ManifestUnknown)?;
                let record = self.record_of_suspect(permit.repository(), &tag).await?;
                (tag.digest, tag.media_type, tag.size, record)
            }
            Reference::Tag(tag) => {
                let (digest, record) = self.tagged_manifest(&permit, &tag).await?;
                (digest, record.media_type.clone(), record.size, Some(record))
            }
        };
        if !accepts(headers, &media_type) {
            return Err(Error::NotAcceptable(media_type));
        }
        if let Some(record) = &record {
            let is_lost = self.is_cut(permit.repository(), &digest, record).await?;
            if is_lost || (head_only && record.content.is_defective()) {
                return Err(Error::ManifestUnknown);
            }
        }
        ranges::check_match(headers, &digest)?;
        let mut response = if ranges::not_modified(headers, &digest) {
            response::empty(StatusCode::NOT_MODIFIED)
        } else {
            let mut response = match (record, memory) {
                (Some(record), Some(memory)) => {
                    self.manifest_body(permit.repository(), &digest, record, memory).await?
                }
                _ => response::empty(StatusCode::OK),
            };
            response.headers_mut().insert(CONTENT_LENGTH, size.into());
            response
        };
        let headers = response.headers_mut();
        response::identify_content(headers, &digest);
        response::insert(headers, CONTENT_TYPE, media_type.as_str());
        headers.insert(CACHE_CONTROL, cache);
        Ok(response)
    }

    /// The manifest of a tag, if the tag's row is not enough for HEAD: its bytes may be in an object that is recorded
    /// as lost, or its record was recorded as damaged. A client does not push a manifest that HEAD reports as present.
    async fn record_of_suspect(
        &self,
        repository: &RepositoryName,
        tag: &TagRecord,
    ) -> Result<Option<ManifestRecord>, StoreError> {
        if !tag.is_suspect && tag.size <= self.settings.limits.inline_manifest_bytes as u64 {
            return Ok(None);
        }
        self.stores.metadata.manifest(self.cx(), repository, &tag.digest).await
    }

    /// If the tag changes between the two reads, its old manifest may be deleted: then the tag is read again.
    async fn tagged_manifest(&self, permit: &Permit<Pull>, tag: &Tag) -> Result<(Digest, ManifestRecord), Error> {
        let mut seen = None;
        loop {
            let metadata = &self.stores.metadata;
            let found = metadata.tagged_manifest(self.cx(), permit.repository(), tag).await?;
            let (found, record) = found.ok_or(Error::ManifestUnknown)?;
            if let Some(record) = record {
                return Ok((found.digest, record));
            }
            if seen == Some(found.version) {
                return Err(StoreError::damaged("a tag refers to a manifest that is missing").into());
            }
            seen = Some(found.version);
        }
    }

    /// The memory, in bytes, that is taken for a manifest before its size is known.
    fn usual_manifest(&self) -> usize {
        self.settings.limits.inline_manifest_bytes.min(SMALL_ANSWER)
    }

    async fn manifest_body(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        record: ManifestRecord,
        mut memory: Memory,
    ) -> Result<Response<ResponseBody>, Error> {
        let body = match record.content {
            Content::Inline(bytes) if bytes.len() <= self.usual_manifest() => {
                memory.shrink_to(bytes.len());
                ResponseBody::full(bytes).with_memory(Some(memory))
            }
            Content::Inline(bytes) => {
                drop(memory);
                let memory = self.memory(bytes.len()).await?;
                ResponseBody::full(bytes).with_memory(Some(memory))
            }
            content => {
                drop(memory);
                let memory = self.memory_to_stream(record.size).await?;
                let stream = Box::pin(self.open_manifest(repository, digest, &content, record.size)).await?;
                ResponseBody::stream(stream.ok_or(Error::ManifestUnknown)?, record.size).with_memory(Some(memory))
            }
        };
        Ok(Response::new(body))
    }
}

/// Whether the client accepts this type. It lists types on one header line or several (RFC 9110, 12.5.1). Without a
/// list it accepts everything; `application/json` accepts every JSON type.
fn accepts(headers: &HeaderMap, media_type: &MediaType) -> bool {
    let mut listed = false;
    for value in headers.get_all(ACCEPT) {
        let Ok(value) = value.to_str() else { continue };
        for range in value.split(',').map(str::trim).filter(|range| !range.is_empty()) {
            listed = true;
            let mut parameters = range.split(';').map(str::trim);
            let name = parameters.next().unwrap_or_default();
            let refused = parameters.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
            let matches = name == "*/*"
                || name == media_type.as_str()
                || (name == "application/*" && media_type.as_str().starts_with("application/"))
                || (name == "application/json" && media_type.is_json());
            if matches && !refused {
                return true;
            }
        }
    }
    !listed
}
